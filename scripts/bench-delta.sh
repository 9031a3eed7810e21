#!/bin/sh
# Measures what an update fetches of which a machine has most already: bytes by the registry's own log, and time over a slow line.
#
# Must never: take the agent's word for a number of bytes; print a figure of a run whose slot is not byte for byte what was published.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
RUNS=5
SLOT_MIB=160
NEEDED_MIB=2560
MAKER=stand_in_os
START_SECS=60
LIMIT_SECS=1800
# The line: a machine at a factory, behind a mobile network.
MBIT=50 MS=80 LOSS=1

BINARY=
OTHER=
CHUNKS=
TCP=

usage() {
    cat <<USAGE
Usage: scripts/bench-delta.sh [--runs N] [--quick] [--binary FILE] [--other FILE] [--chunks FILE]
           [--tcp NAME]

Publishes a stand-in for an initramfs with Kubernetes (150 MB of Debian's programs, gzip -9n --rsyncable, with an index of its
chunks) to a docker-registry on this machine, and two changes of it: another agent, and another build of containerd. A machine that
runs the first applies each. Counts the bytes that the registry says it sent, beside casync on the unpacked archives; and times the
first change beside oras pull of the whole over a line of $MBIT Mbit/s, $MS ms and $LOSS % loss in a network namespace. Needs root, for
loop devices and namespaces, and $NEEDED_MIB MiB in \$TMPDIR (default: /tmp). Leaves nothing behind.

Each figure is one line: bench: NAME VALUE UNIT RATIO. A target that is missed is reported, and the run goes on; a measurement that
is not valid ends with 1.

  --runs N        runs of each (default: $RUNS)
  --quick         one run with a fifth of the programs: shows that this script works, and measures nothing
  --binary FILE   the agent (default: dist/kubesolo-update-ARCH, from make build)
  --other FILE    the agent of the changed initramfs (default: the same sources, compiled in other units, built now)
  --chunks FILE   kubesolo-chunks (default: dist/kubesolo-chunks-ARCH; where there is none, it is built now)
  --tcp NAME      TCP's congestion control on the line, cubic for example (default: the kernel's own)
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
# shellcheck source=scripts/lib/bench-os.sh
. "$REPO/scripts/lib/bench-os.sh"
# shellcheck source=scripts/lib/bench-report.sh
. "$REPO/scripts/lib/bench-report.sh"

clean_up() {
    line_down
    stop_server || true
    release_devices
}

check() {
    find_agent
    [ -z "$OTHER" ] || [ -s "$OTHER" ] || die "--other $OTHER: no such file, or an empty one"
    need_tools "scripts/install-deps.sh delta brings it" losetup partx blockdev mountpoint sgdisk mcopy grub-editenv debugfs \
        gzip cpio jq curl openssl oras docker-registry mke2fs timeout casync ip tc nsenter unshare setpriv python3 /usr/bin/time
    may_run
    for package in old new; do
        [ -e "$REPO/.tools/bench-$package/packages" ] || die "no .tools/bench-$package: scripts/install-deps.sh delta brings it"
    done
}

# programs_of_ours: what is built of these sources, where it was not given.
programs_of_ours() {
    find_chunks
    if [ -z "$OTHER" ]; then
        say "building the agent of the changed initramfs"
        # One unit is the release's.
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 "$REPO/scripts/build.sh" --if-stale --arch "$ARCH" \
            --output "$REPO/target/bench-delta" ||
            die "the other agent could not be built: see above; or give --other"
        OTHER=$REPO/target/bench-delta/kubesolo-update-$ARCH
    fi
    OTHER=$(absolute "$OTHER")
    if cmp -s "$BINARY" "$OTHER"; then die "$BINARY and $OTHER are the same: there is no change to measure"; fi
}

# publish CHANGE: with a kernel that never changes, and so small that it does not improve the ratio.
publish() {
    mkdir new
    cp running/vmlinuz new/vmlinuz
    cp "$1.gz" new/kubesolo-os.gz
    push "$1" "$CHUNKS"
}

# counted CHANGE: applies it, and adds what that took on the wire to CHANGE.sent. Every file's byte that the agent did not copy must
# stand in the registry's log.
counted() {
    from=$(wc -l <"$SERVER_LOG")
    apply "$1-loopback" "$1"
    fetched=$(jq '.fetched_bytes // 0' answer)
    sent_since "$from" "$fetched"
    check_slot "$1"
    echo "$SENT $fetched" >>"$1.sent"
}

# over_the_line: the same machine and oras, alternating.
over_the_line() {
    line_up "$MBIT" "$MS" "$LOSS"
    say "the line is made by $SHAPED"
    here=$REPOSITORY
    REPOSITORY=$LINE_HOST/${here#*/}
    for i in $(seq "$RUNS"); do
        say "round $i of $RUNS over the line"
        apply agent-line agent
        check_slot agent
        peer oras-line agent oras.sh "$REPOSITORY:agent"
    done
    REPOSITORY=$here
    line_down
}

report_delta() {
    echo
    report_machine
    if [ "$QUICK" = yes ]; then printf '\n--quick: THESE FIGURES MEAN NOTHING\n'; fi
    printf '\nold: %s\nrebuild: %s\nagent: %s instead of %s bytes\n' "$(tr '\n' ' ' <"$TOOLS/bench-old/packages")" \
        "$(tr '\n' ' ' <"$TOOLS/bench-new/packages")" "$(wc -c <"$OTHER")" "$(wc -c <"$BINARY")"
    printf 'unpacked %s bytes, packed %s; the line is made by %s, TCP by %s\n\n' "$(wc -c <old.cpio)" "$(wc -c <old.gz)" "$SHAPED" "$TCP_BY"
    for change in agent rebuild; do
        whole=$(artifact_bytes "$change")
        printf '%s: the registry gave %s answers (%s); kubesolo-chunks compare: %s\n' "$change" \
            "$(middle "$change.sent" 1)" "$(of_runs)" "$("$CHUNKS" compare old.gz "$change.gz" | sed -n 1p)"
        figure "delta-$change-bytes" "$(middle "$change.sent" 2)" bytes "$whole" "$(case $change in agent) echo 0.015 ;; *) echo 0.25 ;; esac)"
    done
    whole=$(artifact_bytes rebuild)
    for compression in gzip zstd; do
        bytes=$(casync_bytes rebuild "$compression")
        figure "delta-rebuild-casync-$compression" "$bytes" bytes "$whole"
        [ "$compression" != gzip ] || casync=$bytes
    done
    # Both are gzip's bytes.
    figure delta-rebuild-over-casync "$(middle rebuild.sent 2)" bytes "$casync" 1.02
    figure delta-agent-wall-loopback "$(median agent-loopback "$WALL")" s
    figure delta-agent-wall "$(median agent-line "$WALL")" s "$(median oras-line "$WALL")" 0.08
    printf 'oras pull of the whole over the same line: %s s\n' "$(median oras-line "$WALL")"
}

main() {
    QUICK=no
    note_typed "$@"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --quick) QUICK=yes RUNS=1 MAKER=small_os ;;
            --runs) need_value "$@"; RUNS=$2; shift ;;
            --binary) need_value "$@"; BINARY=$2; shift ;;
            --other) need_value "$@"; OTHER=$2; shift ;;
            --chunks) need_value "$@"; CHUNKS=$2; shift ;;
            --tcp) need_value "$@"; TCP=$2; shift ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    number --runs "$RUNS"
    quiet_surroundings
    check
    programs_of_ours
    alone "$NEEDED_MIB"
    say "packing the initramfs and its two changes"
    for change in old agent rebuild; do os_file "$change" "$MAKER"; done
    start_registry "$WORK/registry" "$START_SECS"
    REPOSITORY=$REGISTRY_HOST/kubesolo/os
    small_files
    cp old.gz running/kubesolo-os.gz
    make_machine
    make_peer_fs
    for change in agent rebuild; do publish "$change"; done
    for i in $(seq "$RUNS"); do
        say "round $i of $RUNS"
        for change in agent rebuild; do counted "$change"; done
    done
    over_the_line
    report_delta
}

main "$@"
