# shellcheck shell=sh
# For findings: a program of pinned crates, built in $WORK and run from there. Sourced by the scripts beside it.

# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

# no_arguments [ARGUMENT...]: such a script takes none; its head says what it does.
no_arguments() {
    [ $# -gt 0 ] || return 0
    case $1 in
    -h | --help)
        say "Usage: findings/$(basename -- "$0")"
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    esac
    printf 'takes no argument: %s\n' "$1" >&2
    exit 2
}

# build_pinned NAME DEPENDENCY...: a program out of $WORK/NAME.rs, as $WORK/NAME. DEPENDENCY: a line of Cargo.toml, its version with
# `=`. Cargo's cache is the user's own; nothing else outside $WORK is written.
build_pinned() {
    program=$1
    shift
    command -v cargo >/dev/null || cannot "cargo is missing"
    mkdir -p "$WORK/crate/src"
    mv "$WORK/$program.rs" "$WORK/crate/src/main.rs"
    {
        printf '[package]\nname = "%s"\nversion = "0.0.0"\nedition = "2021"\n\n' "$program"
        printf '[profile.dev]\ndebug = 0\n\n[workspace]\n\n[dependencies]\n'
        printf '%s\n' "$@"
    } >"$WORK/crate/Cargo.toml"
    (cd "$WORK/crate" && CARGO_TARGET_DIR=$WORK/target timeout 900 cargo build --quiet) >"$WORK/build" 2>&1 ||
        cannot "cargo cannot build: $(tail -n 20 "$WORK/build")"
    mv "$WORK/target/debug/$program" "$WORK/$program"
    for dependency in "$@"; do say "$dependency"; done
}
