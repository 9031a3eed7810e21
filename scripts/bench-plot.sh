#!/bin/sh
# Draws docs/pictures/performance.svg: time, CPU, memory and bytes of an update against its size, beside other ways to install it.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
RUNS=3
SIZES='16 64 256 1024'
START_SECS=60
LIMIT_SECS=1800

BINARY=
CHUNKS=
OUTPUT=$REPO/docs/pictures/performance.svg
DRY_RUN=no

usage() {
    cat <<USAGE
Usage: scripts/bench-plot.sh [--runs N] [--sizes 'MIB...'] [--output FILE] [--dry-run] [--binary FILE] [--chunks FILE]

Measures kubesolo-update apply, of a release that is all new and of one of which the running slot has all but 1 MiB, beside oras
pull, curl with openssl and dd, rauc and swupdate, each with the same number of bytes from one docker-registry, and draws
docs/pictures/performance.svg. Needs root, for loop devices, and fourteen times the greatest size in \$TMPDIR (default: /tmp).
Leaves nothing else behind.

  --runs N        runs of each (default: $RUNS)
  --sizes LIST    sizes in MiB, each a multiple of 4 (default: $SIZES)
  --output FILE   where to
  --dry-run       measure, print the table, draw nothing
  --binary FILE   the agent (default: dist/kubesolo-update-ARCH, from make build)
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
# shellcheck source=scripts/lib/bench-peers.sh
. "$REPO/scripts/lib/bench-peers.sh"
# shellcheck source=scripts/lib/bench-report.sh
. "$REPO/scripts/lib/bench-report.sh"

clean_up() {
    stop_server || true
    release_devices
}

check() {
    find_agent
    need_tools "scripts/install-deps.sh bench plot brings it" losetup partx blockdev mountpoint sgdisk mcopy grub-editenv debugfs \
        gzip cpio jq curl openssl oras docker-registry mke2fs timeout rauc mksquashfs swupdate dbus-run-session pgrep gnuplot \
        /usr/bin/time
    may_run
}

# stage MIB: a registry, a machine and payloads of one size, in a folder of their own.
stage() {
    SLOT_MIB=$(($1 + $1 / 8 + 64))
    mkdir size
    cd size
    start_registry "$WORK/size/registry" "$START_SECS"
    REPOSITORY=$REGISTRY_HOST/kubesolo/os
    BLOBS=http://$REGISTRY_HOST/v2/kubesolo/os/blobs
    mkdir new
    noise "$(($1 / 4))" whole >new/vmlinuz
    noise "$(($1 * 3 / 4))" whole | packed -1n --rsyncable >new/kubesolo-os.gz
    cat new/vmlinuz new/kubesolo-os.gz >image.img
    push whole
    changed "$(($1 - 1))"
    push delta "$CHUNKS"
    make_machine
    rm -rf running
    make_peer_fs
    make_curls
    make_peer_keys
    rauc_bundle
    swupdate_file
}

unstage() {
    stop_server
    release_devices
    cd "$WORK"
    rm -rf size
}

# counted NAME LEAST COMMAND...: with the bytes that the registry sent.
counted() {
    from=$(wc -l <"$SERVER_LOG")
    as=$1 least=$2
    shift 2
    "$@"
    sent_since "$from" "$least"
    echo "${SENT#* }" >>"$as.sent"
}

apply_of() {
    apply "$1" "$1"
    check_slot "$1"
}

round() {
    payload=$(artifact_bytes whole)
    counted whole "$payload" apply_of whole
    counted delta 1 apply_of delta
    rm -rf peer/*
    counted oras "$payload" peer oras whole oras.sh "$REPOSITORY:whole"
    counted dd "$payload" peer dd whole dd.sh "$BLOBS" whole.layers
    counted rauc "$payload" rauc_once
    counted swupdate "$payload" swupdate_once
}

# table MIB: "name MiB wall CPU RSS bytes" for each.
table() {
    for one in whole delta oras dd rauc swupdate; do
        echo "$one $1 $(median "$one" "$WALL") $(median "$one" "$CPU") $(median "$one" "$RSS")" \
            "$(middle "$one.sent" 1)"
    done
}

main() {
    note_typed "$@"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --dry-run) DRY_RUN=yes ;;
            --runs) need_value "$@"; RUNS=$2; shift ;;
            --sizes) need_value "$@"; SIZES=$2; shift ;;
            --output) need_value "$@"; OUTPUT=$(absolute "$2"); shift ;;
            --binary) need_value "$@"; BINARY=$2; shift ;;
            --chunks) need_value "$@"; CHUNKS=$2; shift ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    number --runs "$RUNS"
    largest=0
    for size in $SIZES; do
        case $size in '' | *[!0-9]* | 0* | ?????*) misuse "--sizes must be numbers of MiB up to 9999, not '$size'" ;; esac
        [ $((size % 4)) -eq 0 ] || misuse "--sizes: $size is no multiple of 4"
        if [ "$size" -gt "$largest" ]; then largest=$size; fi
    done
    [ "$largest" -gt 0 ] || misuse "--sizes names none"
    quiet_surroundings
    check
    find_chunks
    alone "$((largest * 14 + 1024))"
    for size in $SIZES; do
        say "$size MiB"
        stage "$size"
        for i in $(seq "$RUNS"); do
            say "round $i of $RUNS"
            round
        done
        table "$size" >>"$WORK/table"
        unstage
    done
    report_machine
    printf '\n%-9s %6s %9s %9s %9s %12s\n' '' MiB 'wall s' 'CPU s' 'RSS MiB' bytes
    awk '{ printf "%-9s %6d %9.2f %9.2f %9.2f %12.0f\n", $1, $2, $3, $4, $5, $6 }' "$WORK/table"
    [ "$DRY_RUN" = no ] || exit 0
    gnuplot -e "table='$WORK/table'; output='$WORK/plot.svg'" "$REPO/scripts/lib/bench-plot.gp" || die "gnuplot failed"
    mv "$WORK/plot.svg" "$OUTPUT"
    chmod 644 "$OUTPUT"
    say "drew $OUTPUT"
}

main "$@"
