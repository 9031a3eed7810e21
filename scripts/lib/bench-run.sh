# shellcheck shell=sh
# How scripts/bench*.sh run and time what they compare, and what they take away in the end. Sourced behind lib/cli.sh and lib/server.sh,
# not run; everything lies in the current directory, below WORK. The caller has BINARY, REPOSITORY and LIMIT_SECS. VIA is put before
# what is timed: nothing, or what leads onto a line (lib/bench-line.sh).

VIA=
DEVICE=
# Longest that a registry may take to write down what it has sent.
LOG_TENTHS=300

# limited COMMAND...: nothing here may take longer. In the foreground, so that Ctrl-C reaches it.
limited() { timeout --foreground -k 10 "$LIMIT_SECS" "$@"; }

absolute() { printf '%s/%s\n' "$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)" "$(basename -- "$1")"; }

this_arch() {
    case $(uname -m) in
        x86_64) echo amd64 ;;
        aarch64) echo arm64 ;;
        *) die "neither amd64 nor arm64: $(uname -m)" ;;
    esac
}

# may_run: what every measurement needs of the machine.
may_run() {
    # Not `sudo make`: it would build again, without the user's own Rust.
    [ "$(id -u)" -eq 0 ] || die "loop devices need root. Everything else is ready; type: sudo $0$TYPED"
    [ -e /dev/loop-control ] || die "no /dev/loop-control: this kernel or container has no loop devices"
}

# quiet_surroundings: the tools of this repository, plain words and numbers from all of them.
quiet_surroundings() {
    PATH=$REPO/.tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
    LC_ALL=C
    export PATH LC_ALL
    umask 022
}

# must_run OPTION FILE: what was given can be run.
must_run() {
    [ -e "$2" ] || die "$1 $2: no such file"
    if [ ! -f "$2" ] || [ ! -x "$2" ]; then die "$1 $2: it is not an executable file"; fi
}

# find_agent: sets ARCH and BINARY. What else was given is looked at as well, before anything is built or packed.
find_agent() {
    ARCH=$(this_arch)
    [ -z "$CHUNKS" ] || must_run --chunks "$CHUNKS"
    if [ -n "$BINARY" ]; then
        must_run --binary "$BINARY"
    else
        BINARY=$REPO/dist/kubesolo-update-$ARCH
        [ -x "$BINARY" ] || die "$BINARY is missing: make build makes it"
    fi
    BINARY=$(absolute "$BINARY")
    export KUBESOLO_UPDATE="$BINARY"
}

# find_chunks: sets CHUNKS, of these sources where it was not given.
find_chunks() {
    if [ -z "$CHUNKS" ] && [ -x "$REPO/dist/kubesolo-chunks-$ARCH" ]; then CHUNKS=$REPO/dist/kubesolo-chunks-$ARCH; fi
    if [ -z "$CHUNKS" ]; then
        say "building kubesolo-chunks"
        (cd "$REPO" && CARGO_TARGET_DIR=$REPO/target cargo build -q --release --locked --bin kubesolo-chunks) ||
            die "kubesolo-chunks could not be built: see above"
        CHUNKS=$REPO/target/release/kubesolo-chunks
    fi
    CHUNKS=$(absolute "$CHUNKS")
}

# number WHAT VALUE: from 1 to 999.
number() { case $2 in '' | *[!0-9]* | 0* | ????*) misuse "$1 must be a number from 1 to 999, not '$2'" ;; esac; }

# alone MIB: a folder with that much room; nobody's proxy, nobody's credentials.
# shellcheck disable=SC2034 # LOAD is the caller's
alone() {
    work_folder
    cd "$WORK" || exit
    free=$(df -Pm . | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$1" ] || die "$WORK has $free MiB free, $1 are needed: set TMPDIR"
    unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
    HOME=$WORK DOCKER_CONFIG=$WORK
    export HOME DOCKER_CONFIG LIMIT_SECS
    LOAD=$(cut -d' ' -f1-3 /proc/loadavg)
}

# release_devices: what is there counts, not what was noted: a signal may come between making and noting. Every wait has an end.
release_devices() {
    [ -n "$WORK" ] || return 0
    cd /
    release_peers
    for image in "$WORK"/*.img "$WORK"/*/*.img; do
        [ -e "$image" ] || continue
        for device in $(losetup -n -O NAME -j "$image" 2>/dev/null); do
            partx -d "$device" 2>/dev/null || true
            losetup -d "$device" || true
        done
    done
}

# release_peers: a program of an interrupted round may be there a little longer, in fsync.
release_peers() {
    for place in "$WORK/peer" "$WORK"/*/peer; do
        for _ in $(seq 100); do
            mountpoint -q "$place" || continue 2
            if umount "$place" 2>/dev/null; then continue 2; fi
            sleep 0.1
        done
        say "$place is busy: it is taken off, and its loop device goes when the last program that uses it ends"
        umount -l "$place" || true
    done
}

# timed NAME COMMAND...: adds "wall user sys KiB" to NAME.times; GNU time counts children that were waited for.
timed() {
    name=$1
    shift
    # shellcheck disable=SC2086 # words, or nothing
    /usr/bin/time -f '%e %U %S %M' -o time $VIA "$@" 2>log || { cat log >&2; die "failed: $*"; }
    cat time >>"$name.times"
}

sectors_written() { awk '{ print $7 }' "/sys/class/block/$(basename "$DEVICE")p3/stat"; }

# apply NAME TAG [AGENT]: on a machine that never saw the artifact. Holds the result against the device's own count.
apply() {
    rm -rf root/var/lib/kubesolo/update
    # What lies in the slot already is not fetched again.
    for file in vmlinuz kubesolo-os.gz; do quietly debugfs -w -R "rm $file" "${DEVICE}p3"; done
    sync -f .
    before=$(sectors_written)
    timed "$1" timeout --foreground -k 10 "$LIMIT_SECS" \
        "${3:-$BINARY}" apply --root root --registry "$REPOSITORY:$2" --json >answer
    jq -e '.result == "staged"' answer >/dev/null || { cat answer >&2; die "apply did not stage"; }
    written=$((($(sectors_written) - before) * 512))
    [ "$written" -ge "$(slot_bytes "$2")" ] || die "apply wrote $written bytes to slot B only"
}

# peer NAME TAG COMMAND...: into an empty directory; afterwards it holds what was published.
peer() {
    rm -rf peer/files
    mkdir peer/files
    sync -f peer
    sync -f .
    name=$1 tag=$2
    shift 2
    timed "$name" sh "$@"
    had=$(cat peer/files/* | wc -c)
    [ "$had" -eq "$(artifact_bytes "$tag")" ] || die "$name fetched $had bytes of $(artifact_bytes "$tag")"
}

# check_slot TAG: slot B byte for byte: speed means nothing where the bytes are wrong.
check_slot() {
    blockdev --flushbufs "${DEVICE}p3"
    while read -r digest name; do
        quietly debugfs -R "dump /$name dumped" "${DEVICE}p3"
        [ "sha256:$(openssl dgst -sha256 -r dumped | cut -c1-64)" = "$digest" ] || die "slot B holds a wrong $name"
        rm dumped
    done <"$1.files"
}

# answers FROM: "count bytes" of what the registry has sent since line FROM of its log.
answers() {
    tail -n "+$(($1 + 1))" "$SERVER_LOG" | awk '/msg="response completed"/ && / http\.request\.method=GET / {
            count++
            if (match($0, /http\.response\.written=[0-9]+/)) bytes += substr($0, RSTART + 22, RLENGTH - 22)
        }
        END { printf "%d %.0f\n", count, bytes }'
}

# sent_since FROM LEAST: sets SENT to the same, once it is LEAST bytes: the log may come a moment behind the answer.
sent_since() {
    for _ in $(seq "$LOG_TENTHS"); do
        SENT=$(answers "$1")
        if [ "${SENT#* }" -ge "$2" ] && [ "${SENT#* }" -gt 0 ]; then return 0; fi
        sleep 0.1
    done
    die "the registry's log has $SENT (answers, bytes), and at least $2 bytes arrived: one of them is wrong"
}

# milliseconds COUNT COMMAND...: of that many starts, one line each.
milliseconds() {
    count=$1
    shift
    for _ in $(seq "$count"); do
        from=$(date +%s%N)
        "$@" >/dev/null
        to=$(date +%s%N)
        printf '%s\n' "$from $to"
    done | awk '{ printf "%.2f\n", ($2 - $1) / 1e6 }'
}
