# shellcheck shell=sh
# What every script here begins with: how it speaks, how it ends, what was typed, and its work folder. Sourced before all else, not
# run; the caller has `set -eu`, and usage where it takes options.
#
#   say TEXT...             a line on standard error, behind the script's name; on standard output where the script sets SAY_TO=1
#   warn TEXT...            the same, of what does not end the run
#   die TEXT...             what failed; ends with 1
#   misuse TEXT...          what was typed wrong; ends with 2
#   need_value "$@"         the option $1 has a value behind it; need_text "$@": one that is not empty
#   need_tools HOW TOOL...  each TOOL is there; HOW says what brings it
#   matches TEXT PATTERN    the whole TEXT, which is one line, is what the pattern of grep -E says
#   note_typed ARGUMENT...  sets TYPED, the arguments with a blank before each, as a shell reads them back
#   quietly COMMAND...      what it says is heard only when it fails, which ends the run. Needs WORK
#   work_folder             makes WORK, for this user alone; it is removed at every end. work_folder_at TEMPLATE: by mktemp's TEMPLATE
#   clean_up                whoever has more to clean up than WORK redefines it; called once, at every end, before WORK is removed
#
# Exit codes: 0 done, 1 it failed, 2 wrong usage, 128 and the signal's number where one ended it.
#
# Must never: leave WORK behind, whatever ends the script but SIGKILL; let a second signal end a clean-up half-way; let a clean-up
# change how the script ended, but for 0 where it fails.

PROGRAM=${0##*/} PROGRAM=${PROGRAM%.sh}
SAY_TO=2
WORK=

say() { printf '%s: %s\n' "$PROGRAM" "$*" >&"$SAY_TO"; }
warn() { say "warning: $*"; }
die() { SAY_TO=2; say "error: $*"; exit 1; }
misuse() { SAY_TO=2; say "error: $*; --help lists the options"; exit 2; }

need_value() { [ $# -ge 2 ] || misuse "$1 needs a value"; }
need_text() { [ -n "${2:-}" ] || misuse "$1 needs a value"; }

need_tools() {
    brings=$1
    shift
    for tool in "$@"; do command -v "$tool" >/dev/null || die "$tool is missing: $brings"; done
}

matches() { [ "$(printf '%s' "$1" | wc -l)" -eq 0 ] && printf '%s\n' "$1" | grep -qxE -e "$2"; }

note_typed() {
    TYPED=
    for word in "$@"; do
        case $word in
            '' | *[!A-Za-z0-9_./:=@%+,-]*) word=\'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")\' ;;
        esac
        TYPED="$TYPED $word"
    done
}

quietly() { "$@" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "failed: $*"; }; }

work_folder() {
    work_folder_at "${TMPDIR:-/tmp}/$PROGRAM.XXXXXXXXXX" ": set TMPDIR to a directory that can be written to"
}

# work_folder_at TEMPLATE [WAY_ON]. The name first: a signal between making the folder and noting its name would leave it behind.
work_folder_at() {
    folder=$(mktemp -u "$1") || die "mktemp makes no name of $1"
    # A script may go elsewhere before it ends.
    case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
    WORK=$folder
    mkdir -m 700 -- "$folder" || {
        WORK=
        die "cannot write in ${folder%/*}${2-}"
    }
}

clean_up() { :; }

finish() {
    ended=$?
    trap '' HUP INT PIPE TERM
    clean_up || [ "$ended" -ne 0 ] || ended=1
    [ -z "$WORK" ] || rm -rf -- "$WORK" || [ "$ended" -ne 0 ] || ended=1
    exit "$ended"
}

trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM
