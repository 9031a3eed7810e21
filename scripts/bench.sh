#!/bin/sh
# Measures `apply` beside `oras pull` and curl with openssl and dd, all from one docker-registry.
#
# Everything is on loopback and in one temporary directory. Wall time depends on the disk and on what
# else the machine does, so agent and peers take turns in one run, and the ratios are what counts.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
RUNS=5
KERNEL_MIB=64
INITRAMFS_MIB=192
SLOT_MIB=640
NEEDED_MIB=5120
STATUS_RUNS=20
START_SECS=60
# Longest that one transfer may take: half a GiB at 1 MiB/s, and some more.
LIMIT_SECS=900
ARTIFACT_TYPE=application/vnd.kubesolo.os.update.v1
KERNEL_TYPE=application/vnd.kubesolo.os.kernel.v1+octet-stream
INITRAMFS_TYPE=application/vnd.kubesolo.os.initramfs.v1+gzip

BINARY=
BESIDE=
WORK=
DEVICE=

usage() {
    cat <<USAGE
Usage: scripts/bench.sh [--runs N] [--quick] [--binary FILE] [--beside FILE]

Measures wall time, CPU time and peak memory of kubesolo-update apply beside oras pull, and beside
curl with openssl dgst and dd, for a 256 MiB artifact from a docker-registry on this machine; peak
memory at 512 MiB; status; and the size of what is in dist/. Needs root, for loop devices, and 5 GiB
in \$TMPDIR (default: /tmp). Leaves nothing behind.

  --runs N        runs of each (default: $RUNS)
  --quick         one run with 64 MiB: shows that this script works, and measures nothing
  --binary FILE   the agent (default: dist/kubesolo-update-ARCH, from make build)
  --beside FILE   another build of the agent, which takes turns with it
  -h, --help      this text
USAGE
}

say() { printf 'bench: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
misuse() { say "error: $*"; exit 2; }

# shellcheck source=scripts/lib/server.sh
. "$REPO/scripts/lib/server.sh"

# What is there counts, not what was noted: a signal may come between making and noting.
cleanup() {
    # Another signal must not end this half-way; every wait below has an end.
    trap '' INT TERM HUP PIPE
    cd /
    stop_server || true
    if [ -z "$WORK" ]; then return; fi
    release_peers
    for device in $(for image in disk peer; do losetup -n -O NAME -j "$WORK/$image.img" 2>/dev/null; done); do
        partx -d "$device" 2>/dev/null || true
        losetup -d "$device" || true
    done
    rm -rf "$WORK"
}

# release_peers: a program of an interrupted round may be there a little longer, in fsync.
release_peers() {
    for _ in $(seq 100); do
        mountpoint -q "$WORK/peer" || return 0
        if umount "$WORK/peer" 2>/dev/null; then return 0; fi
        sleep 0.1
    done
    say "$WORK/peer is busy: it is taken off, and its loop device goes when the last program that uses it ends"
    umount -l "$WORK/peer" || true
}

# limited COMMAND...: nothing here may take longer. In the foreground, so that Ctrl-C reaches it.
limited() { timeout --foreground -k 10 "$LIMIT_SECS" "$@"; }

quietly() { "$@" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "failed: $*"; }; }

absolute() { printf '%s/%s\n' "$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)" "$(basename -- "$1")"; }

check() {
    case $(uname -m) in
        x86_64) ARCH=amd64 ;;
        aarch64) ARCH=arm64 ;;
        *) die "neither amd64 nor arm64: $(uname -m)" ;;
    esac
    [ -n "$BINARY" ] || BINARY=$REPO/dist/kubesolo-update-$ARCH
    [ -x "$BINARY" ] || die "$BINARY is missing: make build makes it"
    BINARY=$(absolute "$BINARY")
    if [ -n "$BESIDE" ]; then
        [ -x "$BESIDE" ] || die "--beside $BESIDE: no such program"
        BESIDE=$(absolute "$BESIDE")
    fi
    export KUBESOLO_UPDATE="$BINARY"
    for tool in losetup partx blockdev mountpoint sgdisk mcopy grub-editenv debugfs gzip cpio jq curl openssl oras \
        docker-registry mke2fs timeout /usr/bin/time; do
        command -v "$tool" >/dev/null || die "$tool is missing: scripts/install-deps.sh bench brings it"
    done
    # Not `sudo make`: it would build again, without the user's own Rust.
    [ "$(id -u)" -eq 0 ] || die "loop devices need root. Everything else is ready; type: sudo $0"
    [ -e /dev/loop-control ] || die "no /dev/loop-control: this kernel or container has no loop devices"
}

# noise MIB: bytes that do not compress, sooner than /dev/urandom gives them.
noise() { head -c "$1M" /dev/zero | openssl enc -aes-128-ctr -pbkdf2 -nosalt -pass "pass:$1 $$"; }

# programs: some of what an initramfs is made of.
programs() {
    find /usr/bin /usr/sbin -xdev -type f -size +16k -print0 | LC_ALL=C sort -z | xargs -0 cat 2>/dev/null | head -c 64M
}

# packed LEVEL: what comes, as a file in cpio, in gzip.
packed() {
    cat >content
    echo content | cpio --quiet -o -H newc | gzip "$1"
    rm content
}

# initramfs MIB MAKER: one of about that size; one member many times over, which kernels unpack as well.
initramfs() {
    case $2 in
        noise) noise 16 | packed -1n ;;
        programs) programs | packed -6n ;;
    esac >member
    bytes=$(wc -c <member)
    count=$((($1 * 1048576 + bytes / 2) / bytes))
    while [ "$count" -gt 0 ]; do
        cat member
        count=$((count - 1))
    done
}

# artifact TAG KERNEL_MIB INITRAMFS_MIB MAKER: made by real gzip, pushed by real oras.
artifact() {
    mkdir new
    noise "$2" >new/vmlinuz
    initramfs "$3" "$4" >new/kubesolo-os.gz
    cd new
    quietly limited oras push --plain-http --artifact-platform "linux/$ARCH" --artifact-type "$ARTIFACT_TYPE" \
        -a io.kubesolo.os.version=2.0.0 -a io.kubesolo.os.channel=stable -a "io.kubesolo.os.architecture=$ARCH" \
        "$REPOSITORY:$1" "vmlinuz:$KERNEL_TYPE" "kubesolo-os.gz:$INITRAMFS_TYPE"
    cd ..
    rm -rf new member
    limited oras manifest fetch --plain-http "$REPOSITORY:$1" >"$1.json"
    jq -r '.layers[] | "\(.digest) \(.annotations["org.opencontainers.image.title"])"' "$1.json" >"$1.layers"
}

artifact_bytes() { jq '[.layers[].size] | add' "$1.json"; }

# attach: disk.img with its partitions. Another process may take the device that was just found free, or have left a
# partition on it that is in use yet.
attach() {
    for _ in $(seq 10); do
        DEVICE=$(losetup --find --show disk.img 2>log) || { sleep 1; continue; }
        if partx -a "$DEVICE" 2>log; then return; fi
        partx -d "$DEVICE" 2>/dev/null || true
        if partx -a "$DEVICE" 2>log; then return; fi
        losetup -d "$DEVICE"
        DEVICE=
        sleep 1
    done
    cat log >&2
    die "no loop device takes disk.img and its partitions: losetup -l says who has them"
}

# shellcheck source=scripts/lib/stand-in.sh
. "$REPO/scripts/lib/stand-in.sh"

# The machine that the agent sees: booted from slot A of a disk image, as in scripts/demo.sh.
make_machine() {
    mkdir small
    noise 1 >small/vmlinuz
    stand_in small/vmlinuz
    noise 1 | packed -1n >small/kubesolo-os.gz
    quietly "$REPO/scripts/build-image.sh" --no-bootloader --kernel small/vmlinuz --initramfs small/kubesolo-os.gz \
        --version 1.0.0 --arch "$ARCH" --slot-size "$SLOT_MIB" --data-size 16 --output disk.img
    guid=$(sgdisk -i 2 disk.img | sed -n 's/^Partition unique GUID: //p' | tr 'A-F' 'a-f')
    start=$(sgdisk -i 1 disk.img | sed -n 's/^First sector: \([0-9]*\).*/\1/p')
    mkdir -p root/proc/sys/kernel/random root/boot/efi/boot/grub root/var/lib/kubesolo root/etc/kubesolo root/run
    printf 'kubesolo.slot=A kubesolo.part=%s\n' "$guid" >root/proc/cmdline
    cp /proc/sys/kernel/random/boot_id root/proc/sys/kernel/random/boot_id
    ln -s /sys /dev root/
    for name in grubenv grubenv.bak; do
        quietly mcopy -i "disk.img@@$((start * 512))" "::/boot/grub/$name" "root/boot/efi/boot/grub/$name"
        grub-editenv "root/boot/efi/boot/grub/$name" set boot_canary=1
    done
    printf 'signature = off\n' >root/etc/kubesolo/update.conf
    attach
    [ -e "${DEVICE}p3" ] || die "${DEVICE}p3 did not appear: is /dev a devtmpfs here?"
}

# What the peers write to: a file system like the slot's, on a loop device as well.
make_peers() {
    truncate -s "${SLOT_MIB}M" peer.img
    quietly mke2fs -q -F -t ext4 -b 4096 -m 0 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard peer.img
    mkdir peer
    quietly mount -o loop peer.img peer
    cat >oras.sh <<'SH'
set -eu
timeout --foreground -k 10 "$LIMIT_SECS" oras pull --plain-http -o peer/files "$1" >/dev/null
sync -f peer/files
SH
    # One pass: every byte hashed and written while it arrives.
    cat >tee.sh <<'SH'
set -eu
while read -r digest name; do
    # Opened by openssl, not by this shell: who would write to it may not have started.
    timeout --foreground "$LIMIT_SECS" openssl dgst -sha256 -r fifo >sum &
    curl -fsS --max-time "$LIMIT_SECS" "$1/$digest" | tee fifo |
        dd of="peer/files/$name" bs=1M iflag=fullblock conv=fsync status=none
    wait
    [ "$(cut -c1-64 sum)" = "${digest#sha256:}" ]
done <"$2"
SH
    # The same without tee, which copies in small pieces: hashed on arrival, then written from a file.
    cat >dd.sh <<'SH'
set -eu
while read -r digest name; do
    curl -fsS --max-time "$LIMIT_SECS" "$1/$digest" | openssl dgst -sha256 -r >sum
    [ "$(cut -c1-64 sum)" = "${digest#sha256:}" ]
    hex=${digest#sha256:}
    dd if="registry/docker/registry/v2/blobs/sha256/$(echo "$hex" | cut -c1-2)/$hex/data" of="peer/files/$name" \
        bs=1M conv=fsync status=none
done <"$2"
SH
    mkfifo fifo
}

# timed NAME COMMAND...: adds "wall user sys KiB" to NAME.times; GNU time counts children that were waited for.
timed() {
    name=$1
    shift
    /usr/bin/time -f '%e %U %S %M' -o time "$@" 2>log || { cat log >&2; die "failed: $*"; }
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
    [ "$written" -ge "$(artifact_bytes "$2")" ] || die "apply wrote $written bytes to slot B only"
}

# peer NAME COMMAND...: into an empty directory; afterwards it holds what was published.
peer() {
    rm -rf peer/files
    mkdir peer/files
    sync -f peer
    sync -f .
    name=$1
    shift
    timed "$name" sh "$@"
    [ "$(cat peer/files/* | wc -c)" -eq "$(artifact_bytes main)" ] || die "$name did not fetch everything"
}

# Slot B byte for byte, once: speed means nothing where the bytes are wrong.
check_slot() {
    blockdev --flushbufs "${DEVICE}p3"
    while read -r digest name; do
        quietly debugfs -R "dump /$name dumped" "${DEVICE}p3"
        [ "sha256:$(openssl dgst -sha256 -r dumped | cut -c1-64)" = "$digest" ] || die "slot B holds a wrong $name"
        rm dumped
    done <"$1.layers"
}

round() {
    apply apply main
    if [ -n "$BESIDE" ]; then
        apply beside main "$BESIDE"
        apply beside-programs programs "$BESIDE"
    fi
    peer oras oras.sh "$REPOSITORY:main"
    peer tee tee.sh "$BLOBS" main.layers
    peer dd dd.sh "$BLOBS" main.layers
    apply programs programs
}

measure() {
    say "one round that does not count"
    round
    check_slot programs
    rm -f ./*.times
    for i in $(seq "$RUNS"); do
        say "round $i of $RUNS"
        round
    done
    say "memory with twice the artifact"
    apply large large
    check_slot large
    milliseconds "$BINARY" status --root root >status.times
    milliseconds /bin/true >true.times
}

# milliseconds COMMAND...: one line a run.
milliseconds() {
    for _ in $(seq "$STATUS_RUNS"); do
        from=$(date +%s%N)
        "$@" >/dev/null
        to=$(date +%s%N)
        printf '%s\n' "$from $to"
    done | awk '{ printf "%.2f\n", ($2 - $1) / 1e6 }'
}

# column NAME EXPRESSION: that of each run, sorted.
column() { awk "{ print $2 }" "$1.times" | LC_ALL=C sort -n; }
median() { column "$@" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }
# shellcheck disable=SC2016 # awk's fields
WALL='$1' CPU='$2 + $3' RSS='$4 / 1024'

row() {
    printf '%-31s %6.2f  %5.2f-%-6.2f %5.2f+%-5.2f %5.2f %7.2f\n' "$2" "$(median "$1" "$WALL")" \
        "$(column "$1" "$WALL" | head -n 1)" "$(column "$1" "$WALL" | tail -n 1)" \
        "$(median "$1" "\$2")" "$(median "$1" "\$3")" "$(median "$1" "$CPU")" "$(median "$1" "$RSS")"
}

# ratio NAME PEER EXPRESSION: one median through the other.
ratio() { awk -v a="$(median "$1" "$3")" -v b="$(median "$2" "$3")" 'BEGIN { printf "%.2f", b ? a / b : 0 }'; }

# ratios NAME PEER TITLE
ratios() {
    printf '%-31s %6s %33s %7s\n' "$3" "$(ratio "$1" "$2" "$WALL")" "$(ratio "$1" "$2" "$CPU")" \
        "$(ratio "$1" "$2" "$RSS")"
}

mib() { awk -v bytes="$1" 'BEGIN { printf "%.0f", bytes / 1048576 }'; }

report_machine() {
    printf 'kubesolo-update bench, %s, commit %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "$(git -C "$REPO" describe --always --dirty 2>/dev/null || echo unknown)"
    printf '%s, %s x %s, %s MiB memory\n' "$(uname -srm)" "$(nproc)" \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" \
        "$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
    printf 'disk images on %s; load before: %s\n' "$(df -T "$WORK" | awk 'NR == 2 { print $2 " (" $1 ")" }')" "$LOAD"
    printf '%s; %s; %s; oras %s\n' "$("$BINARY" --version)" "$(curl -V | head -n 1 | cut -d' ' -f1-2)" \
        "$(openssl version | cut -d' ' -f1-2)" "$(oras version | sed -n 's/^Version: *//p')"
}

report() {
    echo
    report_machine
    if [ "$QUICK" = yes ]; then printf '\n--quick: THESE FIGURES MEAN NOTHING\n'; fi
    printf '\n%s MiB from docker-registry, plain HTTP on loopback, into ext4 on a loop device;\n' \
        "$(mib "$(artifact_bytes main)")"
    printf 'medians of %s runs in turn; RSS is that of the largest process\n\n' "$RUNS"
    printf '%-31s %6s  %-12s %-11s %5s %6s\n' '' 'wall s' 'min-max' 'user+sys s' 'CPU s' 'RSS MiB'
    row apply 'kubesolo-update apply'
    row oras 'oras pull; sync -f'
    row tee 'curl | tee | openssl, dd fsync'
    row dd 'curl | openssl; dd fsync'
    echo
    ratios apply oras 'apply / oras'
    ratios apply tee 'apply / curl with tee'
    ratios apply dd 'apply / curl without tee'
    cat <<TEXT

apply does more than the peers: it inflates the initramfs to see that it is
whole, and reads all files back from the device and hashes them there. Theirs
is SHA-256 as the bytes come, and the bytes durable. This initramfs does not compress, so it
is cheap to inflate; with one of programs ($(mib "$(artifact_bytes programs)") MiB in all):

TEXT
    row programs 'kubesolo-update apply'
    ratios programs oras 'apply / oras'
    ratios programs dd 'apply / curl without tee'
    if [ -n "$BESIDE" ]; then
        printf '\nBeside %s (%s):\n\n' "$BESIDE" "$("$BESIDE" --version)"
        row beside 'its apply'
        row beside-programs 'its apply, of programs'
        ratios apply beside 'apply / its apply'
        ratios programs beside-programs 'the same, of programs'
    fi
    printf '\nPeak memory of apply: %.1f MiB with %s MiB, %.1f MiB with %s MiB (must: 6)\n' \
        "$(median apply "$RSS")" "$(mib "$(artifact_bytes main)")" "$(median large "$RSS")" \
        "$(mib "$(artifact_bytes large)")"
    printf 'status: %.1f ms, median of %s; /bin/true started the same way: %.1f ms (must: 5)\n' \
        "$(median status "$WALL")" "$STATUS_RUNS" "$(median true "$WALL")"
    for file in "$REPO"/dist/kubesolo-update-*; do
        if [ -f "$file" ]; then
            printf '%s: %s bytes (must: 1441792)\n' "dist/$(basename "$file")" "$(wc -c <"$file")"
        fi
    done
}

main() {
    QUICK=no
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --quick) QUICK=yes RUNS=1 KERNEL_MIB=16 INITRAMFS_MIB=48 SLOT_MIB=192 NEEDED_MIB=1280 ;;
            --runs) [ $# -ge 2 ] || misuse "--runs needs a value"; RUNS=$2; shift ;;
            --binary) [ $# -ge 2 ] || misuse "--binary needs a value"; BINARY=$2; shift ;;
            --beside) [ $# -ge 2 ] || misuse "--beside needs a value"; BESIDE=$2; shift ;;
            *) usage >&2; misuse "unknown option: $1" ;;
        esac
        shift
    done
    case $RUNS in '' | *[!0-9]* | 0* | ????*) misuse "--runs must be a number from 1 to 999, not '$RUNS'" ;; esac
    PATH=$REPO/.tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
    export PATH
    LC_ALL=C
    export LC_ALL
    umask 022
    check
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    trap 'exit 141' PIPE
    # The name first: a signal between making it and noting its name would leave it behind.
    name=$(CDPATH='' cd -- "${TMPDIR:-/tmp}" && pwd) || die "TMPDIR, $TMPDIR, is no directory"
    name=$(mktemp -u "$name/kubesolo-bench.XXXXXX")
    WORK=$name
    mkdir -m 700 -- "$name" || { WORK=; die "cannot make $name: set TMPDIR to a directory that can be written to"; }
    cd "$WORK"
    free=$(df -Pm . | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$NEEDED_MIB" ] || die "$WORK has $free MiB free, $NEEDED_MIB are needed: set TMPDIR"
    # Nobody's proxy, nobody's credentials.
    unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
    HOME=$WORK DOCKER_CONFIG=$WORK
    export HOME DOCKER_CONFIG LIMIT_SECS
    LOAD=$(cut -d' ' -f1-3 /proc/loadavg)
    say "making artifacts and a disk image"
    start_registry "$WORK/registry" "$START_SECS"
    REPOSITORY=$REGISTRY_HOST/kubesolo/os
    BLOBS=http://$REGISTRY_HOST/v2/kubesolo/os/blobs
    artifact main "$KERNEL_MIB" "$INITRAMFS_MIB" noise
    artifact programs "$KERNEL_MIB" "$INITRAMFS_MIB" programs
    artifact large "$((KERNEL_MIB * 2))" "$((INITRAMFS_MIB * 2))" noise
    make_machine
    make_peers
    measure
    report
}

main "$@"
