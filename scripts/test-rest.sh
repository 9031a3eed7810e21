#!/bin/sh
# The long tests, as many as fit: what CI does with the time that `make test` leaves.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
# Measured: program, module, seconds of its long tests on 2 cores. tests/pure/long_tests.rs holds it complete.
TABLE=$REPO/tests/long-tests.tsv
DAYS=7
SAY_TO=1

MINUTES=
DRY_RUN=no

usage() {
    cat <<USAGE
Usage: scripts/test-rest.sh --minutes N [--dry-run]

Runs the long tests of tests/, module by module (tests/long-tests.tsv), until N minutes are over: first those that
changed within $DAYS days, or that name a file which did, then the others, the short ones before the long ones. A module
is begun only if the time that is left is enough for it. The last lines say what was left out.

KUBESOLO_UPDATE_BIN names the agent under test. Exit code: 0 all that ran passed, 1 error, or something failed.

  --dry-run    print the order, and by the table what would be left out; run nothing
  -h, --help   this text
USAGE
}

# changed_files: what commits of the last days touched; nothing where git cannot tell.
changed_files() {
    git -C "$REPO" log --since="$DAYS days ago" --name-only --pretty=format: 2>/dev/null | LC_ALL=C sort -u | sed '/^$/d'
}

# freshness FILE: "changed" if the test or a file that it names has changed lately, otherwise "older".
freshness() {
    if grep -qxF "$1" "$WORK/changed"; then echo changed; return; fi
    # A test names what it holds: a script, a document, a source file.
    if grep -qF -f "$WORK/names" "$REPO/$1"; then echo changed; else echo older; fi
}

# order: "freshness seconds program module", what is to be run first at the top.
order() {
    changed_files >"$WORK/changed"
    # Not every name: a test that says mod.rs or main.rs means none in particular.
    awk -F / '$NF ~ /\.(sh|md|cfg|yaml|tsv)$/ { print $NF }' "$WORK/changed" >"$WORK/names"
    # An empty list of patterns matches nothing.
    grep -v '^#' "$TABLE" | while IFS='	' read -r program module seconds; do
        printf '%s %s %s %s\n' "$(freshness "tests/$program/$module.rs")" "$seconds" "$program" "$module"
    done | LC_ALL=C sort -k1,1 -k2,2n
}

now() { date +%s; }

# run_module PROGRAM MODULE SECONDS: with an end, also for a test that hangs.
run_module() {
    (cd "$REPO" && timeout --foreground --kill-after=60 "$(($3 * 5 + 300))" cargo test --locked --test "$1" -- --ignored "$2::")
}

main() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --dry-run) DRY_RUN=yes ;;
            --minutes) need_value "$@"; MINUTES=$2; shift ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    case $MINUTES in '' | *[!0-9]* | 0?* | ????*) misuse "--minutes must be a number from 0 to 999, not '$MINUTES'" ;; esac
    work_folder
    end=$(($(now) + MINUTES * 60)) failed='' left='' planned=0 ran=0
    order >"$WORK/order"
    [ -s "$WORK/order" ] || die "no test in $TABLE"
    while read -r fresh seconds program module; do
        if [ "$(($(now) + planned + seconds))" -gt "$end" ]; then
            left="$left $program::$module($seconds s)"
            continue
        fi
        if [ "$DRY_RUN" = yes ]; then
            planned=$((planned + seconds))
            printf '%s %s::%s %s s\n' "$fresh" "$program" "$module" "$seconds"
            continue
        fi
        printf '\n==== long tests: %s::%s (%s s) ====\n' "$program" "$module" "$seconds"
        ran=$((ran + 1))
        # Not from this list's stdin.
        run_module "$program" "$module" "$seconds" </dev/null || failed="$failed $program::$module"
    done <"$WORK/order"
    if [ -n "$left" ]; then
        say "left out for time (make test-all runs them):$left"
    elif [ "$DRY_RUN" = no ]; then
        say "every long test was run"
    fi
    [ "$DRY_RUN" = yes ] || say "$ran modules run"
    [ -z "$failed" ] || { say "FAILED:$failed"; exit 1; }
}

main "$@"
