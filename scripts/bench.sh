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
NEEDED_MIB=8192
STATUS_RUNS=20
START_SECS=60
# Longest that one transfer may take: half a GiB at 1 MiB/s, and some more.
LIMIT_SECS=900

BINARY=
BESIDE=
CHUNKS=

usage() {
    cat <<USAGE
Usage: scripts/bench.sh [--runs N] [--quick] [--binary FILE] [--beside FILE] [--chunks FILE]

Measures wall time, CPU time and peak memory of kubesolo-update apply beside oras pull, and beside
curl with openssl dgst and dd, for a 256 MiB artifact from a docker-registry on this machine, of noise, of
programs in one layer and in four, and over 1 Gbit/s; peak memory at 512 MiB, also where most of it is in the
running slot; status; and the size of what is in dist/. Needs root, for loop devices and namespaces, and $NEEDED_MIB
MiB in \$TMPDIR (default: /tmp). Leaves nothing behind. What docs/performance.md has a target for is one line
each: bench: NAME VALUE UNIT RATIO.

  --runs N        runs of each (default: $RUNS)
  --quick         one run with 64 MiB: shows that this script works, and measures nothing
  --binary FILE   the agent (default: dist/kubesolo-update-ARCH, from make build)
  --beside FILE   another build of the agent, which takes turns with it
  --chunks FILE   kubesolo-chunks (default: dist/kubesolo-chunks-ARCH; where there is none, it is built now)
  -h, --help      this text
USAGE
}

# shellcheck source=scripts/lib/server.sh
. "$REPO/scripts/lib/server.sh"
# shellcheck source=scripts/lib/bench-run.sh
. "$REPO/scripts/lib/bench-run.sh"
# shellcheck source=scripts/lib/bench-stage.sh
. "$REPO/scripts/lib/bench-stage.sh"
# shellcheck source=scripts/lib/bench-line.sh
. "$REPO/scripts/lib/bench-line.sh"
# shellcheck source=scripts/lib/bench-report.sh
. "$REPO/scripts/lib/bench-report.sh"
# shellcheck source=scripts/lib/bench-table.sh
. "$REPO/scripts/lib/bench-table.sh"

clean_up() {
    line_down
    stop_server || true
    release_devices
}

check() {
    find_agent
    if [ -n "$BESIDE" ]; then
        [ -x "$BESIDE" ] || die "--beside $BESIDE: no such program"
        BESIDE=$(absolute "$BESIDE")
    fi
    need_tools "scripts/install-deps.sh bench brings it" losetup partx blockdev mountpoint sgdisk mcopy grub-editenv \
        debugfs gzip cpio jq curl openssl oras docker-registry mke2fs timeout ip tc nsenter unshare setpriv /usr/bin/time
    may_run
}

round() {
    apply apply main
    peer oras main oras.sh "$REPOSITORY:main"
    if [ -n "$BESIDE" ]; then
        apply beside main "$BESIDE"
        apply beside-programs programs "$BESIDE"
    fi
    peer tee main tee.sh "$BLOBS" main.layers
    peer dd main dd.sh "$BLOBS" main.layers
    for tag in programs layers; do
        apply "$tag" "$tag"
        peer "oras-$tag" "$tag" oras.sh "$REPOSITORY:$tag"
    done
}

# over_the_line: in turn, from a registry behind a line of 1 Gbit/s.
over_the_line() {
    line_up 1000 0 0
    here=$REPOSITORY
    REPOSITORY=$LINE_HOST/${here#*/}
    for i in $(seq "$RUNS"); do
        apply gigabit layers
        peer oras-gigabit layers oras.sh "$REPOSITORY:layers"
    done
    check_slot layers
    REPOSITORY=$here
    line_down
}

measure() {
    say "one round that does not count"
    round
    check_slot layers
    rm -f ./*.times
    for i in $(seq "$RUNS"); do
        say "round $i of $RUNS"
        round
    done
    check_slot layers
    say "the same over 1 Gbit/s"
    over_the_line
    say "memory with twice the artifact"
    apply large large
    check_slot large
    milliseconds "$STATUS_RUNS" "$BINARY" status --root root >status.times
    milliseconds "$STATUS_RUNS" /bin/true >true.times
    say "memory with twice the artifact, of which the running slot has most"
    mkdir chunked
    cd chunked
    changed "$((INITRAMFS_MIB * 2))"
    make_machine
    push changed "$CHUNKS"
    for _ in $(seq "$RUNS"); do apply chunked changed; done
    check_slot changed
    cp chunked.times changed.bytes answer ..
    cd ..
}

main() {
    QUICK=no
    note_typed "$@"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --quick) QUICK=yes RUNS=1 KERNEL_MIB=16 INITRAMFS_MIB=48 SLOT_MIB=192 NEEDED_MIB=2048 ;;
            --runs) need_value "$@"; RUNS=$2; shift ;;
            --binary) need_value "$@"; BINARY=$2; shift ;;
            --beside) need_value "$@"; BESIDE=$2; shift ;;
            --chunks) need_value "$@"; CHUNKS=$2; shift ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    number --runs "$RUNS"
    quiet_surroundings
    check
    find_chunks
    alone "$NEEDED_MIB"
    say "making artifacts and a disk image"
    start_registry "$WORK/registry" "$START_SECS"
    REPOSITORY=$REGISTRY_HOST/kubesolo/os
    BLOBS=http://$REGISTRY_HOST/v2/kubesolo/os/blobs
    artifact main "$KERNEL_MIB" "$INITRAMFS_MIB" noise
    artifact programs "$KERNEL_MIB" "$INITRAMFS_MIB" programs
    artifact large "$((KERNEL_MIB * 2))" "$((INITRAMFS_MIB * 2))" noise
    artifact layers "$KERNEL_MIB" "$INITRAMFS_MIB" programs 4
    small_files
    make_machine
    make_peer_fs
    make_curls
    measure
    report
}

main "$@"
