#!/bin/sh
# Measures `apply` beside `oras pull` and curl with openssl and dd, all from one docker-registry.
#
# Everything is on loopback and in one temporary directory. Wall time depends on the disk and on what
# else the machine does, so agent and peers take turns in one run, and the ratios are what counts.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
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

# shellcheck source=scripts/lib/server.sh
. "$REPO/scripts/lib/server.sh"

# shellcheck source=scripts/lib/bench-stage.sh
. "$REPO/scripts/lib/bench-stage.sh"
# shellcheck source=scripts/lib/bench-report.sh
. "$REPO/scripts/lib/bench-report.sh"

# What is there counts, not what was noted: a signal may come between making and noting. Every wait below has an end.
clean_up() {
    cd /
    stop_server || true
    if [ -z "$WORK" ]; then return; fi
    release_peers
    for device in $(for image in disk peer; do losetup -n -O NAME -j "$WORK/$image.img" 2>/dev/null; done); do
        partx -d "$device" 2>/dev/null || true
        losetup -d "$device" || true
    done
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
    need_tools "scripts/install-deps.sh bench brings it" losetup partx blockdev mountpoint sgdisk mcopy grub-editenv \
        debugfs gzip cpio jq curl openssl oras docker-registry mke2fs timeout /usr/bin/time
    # Not `sudo make`: it would build again, without the user's own Rust.
    [ "$(id -u)" -eq 0 ] || die "loop devices need root. Everything else is ready; type: sudo $0"
    [ -e /dev/loop-control ] || die "no /dev/loop-control: this kernel or container has no loop devices"
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

main() {
    QUICK=no
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --quick) QUICK=yes RUNS=1 KERNEL_MIB=16 INITRAMFS_MIB=48 SLOT_MIB=192 NEEDED_MIB=1280 ;;
            --runs) need_value "$@"; RUNS=$2; shift ;;
            --binary) need_value "$@"; BINARY=$2; shift ;;
            --beside) need_value "$@"; BESIDE=$2; shift ;;
            *) misuse "unknown option: $1" ;;
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
    work_folder
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
