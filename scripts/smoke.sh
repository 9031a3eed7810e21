#!/bin/sh
# First look at release binaries: static, small enough, and they start on their architecture.
set -eu

# shellcheck source=scripts/lib/cli.sh
. "$(dirname -- "$0")/lib/cli.sh"

SAY_TO=1
MAX_BYTES=
FAILED=0
SKIPPED=0

usage() {
    cat <<USAGE
Usage: scripts/smoke.sh [--max-bytes N] BINARY...

Checks that each BINARY is a static ELF file (at most N bytes), answers --help, reports the state
of an empty machine as JSON without touching it, and refuses nonsense with exit code 2. A binary
of the other architecture runs under qemu-user-static; where that is missing its run is skipped,
or failed if CI is set.

  -h, --help   this text
USAGE
}

fail() { say "FAILED: $binary: $*"; FAILED=$((FAILED + 1)); }

check_file() {
    case $(file -b "$binary") in
        *"statically linked"* | *"static-pie linked"*) ;;
        *) fail "not static: $(file -b "$binary")" ;;
    esac
    if readelf -lW "$binary" | grep -q INTERP; then fail "asks for a dynamic loader"; fi
    if readelf -dW "$binary" 2>/dev/null | grep -q NEEDED; then fail "needs shared libraries"; fi
    size=$(wc -c <"$binary")
    if [ -n "$MAX_BYTES" ] && [ "$size" -gt "$MAX_BYTES" ]; then
        fail "$size bytes, above the limit of $MAX_BYTES (only the build with std from source is held to fit)"
    fi
}

# Sets runner: nothing on this architecture, else an emulator. Fails where it cannot run.
find_runner() {
    case $(readelf -hW "$binary" | sed -n 's/^ *Machine: *//p') in
        *X86-64*) machine=x86_64 ;;
        *AArch64*) machine=aarch64 ;;
        *) fail "unknown architecture"; return 1 ;;
    esac
    runner=
    [ "$(uname -m)" = "$machine" ] && return 0
    if command -v "qemu-$machine-static" >/dev/null; then runner=qemu-$machine-static; return 0; fi
    if [ -n "${CI:-}" ]; then fail "no qemu-$machine-static to run it with"; return 1; fi
    say "SKIP: $binary: no qemu-$machine-static, so it was NOT RUN (scripts/install-deps.sh test)"
    SKIPPED=$((SKIPPED + 1))
    return 1
}

# run ARGS...: sets code; output is in $WORK/out and $WORK/err.
run() {
    code=0
    # A hang is a failure too. $runner is one word or nothing.
    # shellcheck disable=SC2086
    timeout 60 $runner "$binary" "$@" >"$WORK/out" 2>"$WORK/err" </dev/null || code=$?
}

check_run() {
    run --help
    [ "$code" -eq 0 ] || fail "--help: exit code $code: $(head -c 300 "$WORK/err")"
    grep -q kubesolo-update "$WORK/out" || fail "--help does not name kubesolo-update on stdout"
    for command in check apply activate rollback healthcheck status metrics verify; do
        run "$command" --help
        [ "$code" -eq 0 ] || fail "$command --help: exit code $code"
    done

    # A root with nothing in it: status still answers (0), or says that boot state is missing (7).
    rm -rf "$WORK/root"
    mkdir "$WORK/root"
    run status --root "$WORK/root" --json
    case $code in
        0 | 7) ;;
        *) fail "status on an empty root: exit code $code: $(head -c 300 "$WORK/err")" ;;
    esac
    if [ "$code" -eq 0 ] || [ -s "$WORK/out" ]; then
        python3 -c 'import json, sys; json.load(sys.stdin)' <"$WORK/out" 2>/dev/null ||
            fail "status --json: not one JSON document: $(head -c 300 "$WORK/out")"
    fi
    [ -z "$(ls -A "$WORK/root")" ] || fail "status wrote to its root: $(ls -A "$WORK/root")"

    run --no-such-option
    [ "$code" -eq 2 ] || fail "an unknown option: exit code $code instead of 2"
}

main() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --max-bytes) need_value "$@"; MAX_BYTES=$2; shift ;;
            -*) misuse "unknown option: $1" ;;
            *) break ;;
        esac
        shift
    done
    [ $# -gt 0 ] || misuse "no binary given"
    need_tools "scripts/install-deps.sh build test brings it" file readelf python3
    work_folder
    for binary; do
        [ -f "$binary" ] || die "$binary: no such file"
        # A name without a slash would be looked up in PATH.
        case $binary in */*) ;; *) binary=./$binary ;; esac
        before=$FAILED ran="run"
        check_file
        if find_runner; then check_run; else ran="not run"; fi
        [ "$FAILED" -ne "$before" ] || say "ok: $binary: $size bytes, $ran${runner:+ under $runner}"
    done
    [ "$SKIPPED" -eq 0 ] || say "$SKIPPED skipped"
    [ "$FAILED" -eq 0 ] || die "$FAILED checks failed"
}

main "$@"
