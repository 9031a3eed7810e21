#!/bin/sh
# Records a terminal: scripts/demo.sh as it really runs, as an asciicast and as an SVG that moves.
#
# Must never: write a recording of a run that failed, or one that no run gave.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
DIR=$REPO/docs/pictures
BINARY=
CHILD=
# What a person reads in one go; a longer pause is cut to this.
IDLE_SECS=3
LIMIT_SECS=170

usage() {
    cat <<USAGE
Usage: scripts/record.sh [--binary FILE] [--output DIR] [--dry-run] [update | rollback]...

Records scripts/demo.sh, 80 columns by 24 rows: NAME.cast (asciicast v2: asciinema play) and NAME-recording.svg in
docs/pictures; default: both. About a minute each. Needs root, what the demonstration needs, and the packages
asciinema and termtosvg (scripts/install-deps.sh record).

  --binary FILE  the agent (default: dist/kubesolo-update-ARCH)
  --output DIR   default: docs/pictures
  --dry-run      say what would be recorded, and whether the tools are there; write nothing
  -h, --help     this text
USAGE
}

clean_up() {
    # The demonstration takes its disk away itself, when its terminal ends.
    if [ -n "$CHILD" ]; then
        kill -TERM "$CHILD" 2>/dev/null || true
        wait "$CHILD" 2>/dev/null || true
    fi
}

# quoted WORD: for a shell.
quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

# record NAME: asciinema's own exit code says nothing of the command's, so the run leaves a mark where it ended well.
record() {
    line="$(quoted "$REPO/scripts/demo.sh") --pace --scene $1"
    [ -z "$BINARY" ] || line="$line --binary $(quoted "$BINARY")"
    rm -f "$WORK/ended"
    timeout -k 10 "$LIMIT_SECS" asciinema rec -q --overwrite --cols 80 --rows 24 -i "$IDLE_SECS" --env TERM \
        -t "kubesolo-update: $1" -c "$line && : >$(quoted "$WORK/ended")" "$WORK/$1.cast" </dev/null >"$WORK/log" 2>&1 &
    CHILD=$!
    code=0
    wait "$CHILD" || code=$?
    CHILD=
    if [ "$code" -ne 0 ] || [ ! -e "$WORK/ended" ]; then
        tail -n 5 "$WORK/log" >&2
        [ ! -e "$WORK/$1.cast" ] || tail -n 5 "$WORK/$1.cast" >&2
        die "$line failed ($code; 124: it took longer than $LIMIT_SECS s)"
    fi
    grep -q '^\[' "$WORK/$1.cast" || die "asciinema recorded nothing"
    # Without what is made before the first word is said, and without when and where it was recorded.
    jq -c -s --argjson limit "$IDLE_SECS" '(.[1][0]) as $start | .[0] |= {version, width, height, idle_time_limit: $limit, title,
            env: {TERM: "xterm-256color"}} | .[0], (.[1:][] | .[0] = ((.[0] - $start) * 1000 | round / 1000))' \
        "$WORK/$1.cast" >"$WORK/cast" || die "what asciinema recorded is not an asciicast"
    mv "$WORK/cast" "$WORK/$1.cast"
    timeout 60 termtosvg render "$WORK/$1.cast" "$WORK/$1.svg" -m 40 -M "${IDLE_SECS}000" -D 5000 -t window_frame >"$WORK/log" 2>&1 ||
        { tail -n 5 "$WORK/log" >&2; die "termtosvg cannot render $1.cast"; }
    mkdir -p "$DIR"
    cp -- "$WORK/$1.cast" "$DIR/$1.cast"
    cp -- "$WORK/$1.svg" "$DIR/$1-recording.svg"
    say "$DIR/$1.cast ($(wc -c <"$WORK/$1.cast") bytes), $DIR/$1-recording.svg ($(wc -c <"$WORK/$1.svg") bytes)"
}

main() {
    dry_run=no
    names=
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --dry-run) dry_run=yes ;;
            --binary) need_text "$@"; BINARY=$2; shift ;;
            --output) need_text "$@"; DIR=$2; shift ;;
            update | rollback) names="$names $1" ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    need_tools "scripts/install-deps.sh record brings it" asciinema termtosvg timeout jq
    "$REPO/scripts/demo.sh" --check ${BINARY:+--binary "$BINARY"} || exit 1
    if [ "$dry_run" = yes ]; then say "dry run: would record${names:- update rollback} into $DIR"; exit 0; fi
    work_folder
    for name in ${names:-update rollback}; do record "$name"; done
}

main "$@"
