#!/bin/sh
# The release binary for the architecture that the environment names: scripts/build.sh for pipelines that build a matrix.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

usage() {
    cat <<USAGE
Usage: TARGET_ARCH=amd64|arm64 scripts/build-cross.sh [--arch amd64|arm64] [--output DIR] [--if-stale] [--dry-run]

Builds kubesolo-update, static, for TARGET_ARCH, on a machine of either architecture: DIR/kubesolo-update-TARGET_ARCH
(default: dist/). scripts/build.sh, which does it, says what it needs.

  --arch ARCH    for this one, whatever TARGET_ARCH is
  --output DIR   where the binary goes
  --if-stale     only where the binary is not of these sources
  --dry-run      say what would be run
  -h, --help     this text
USAGE
}

# shellcheck source=scripts/lib/arch.sh
. "$REPO/scripts/lib/arch.sh"

main() {
    LC_ALL=C
    export LC_ALL
    ARCH=
    output=
    if_stale=
    dry_run=no
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --if-stale) if_stale=--if-stale ;;
            --dry-run) dry_run=yes ;;
            --arch) need_value "$@"; check_arch --arch "$2"; ARCH=$2; shift ;;
            --output) need_value "$@"; output=$2; shift ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    arch_or_target
    [ -n "$ARCH" ] || die "TARGET_ARCH is not set: TARGET_ARCH=amd64 or TARGET_ARCH=arm64 (or --arch)"
    set -- --arch "$ARCH" ${output:+--output "$output"} ${if_stale:+"$if_stale"}
    if [ "$dry_run" = yes ]; then
        say "dry run: scripts/build.sh $*"
        exit 0
    fi
    exec "$REPO/scripts/build.sh" "$@"
}

main "$@"
