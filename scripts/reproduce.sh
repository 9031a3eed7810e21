#!/bin/sh
# Builds the binaries of a release from its source archive, elsewhere and in other surroundings, and compares.
#
# Must never: use anything of the repository it lies in but the compilers, or the network.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

RELEASE=$REPO/dist/release
ARCHES=
KEEP=
REBUILT=
BUILDS=
STARTING=no
VERSION=
DIFFERENT=0

usage() {
    cat <<USAGE
Usage: scripts/reproduce.sh [--release DIR] [--arch amd64|arm64]... [--keep DIR | --rebuilt DIR]

Unpacks the source archive of the release in DIR (default: dist/release; scripts/release.sh makes it) into a directory
of its own, builds both binaries from it, without network and with another umask, time zone, language, home and
cache, and holds them against the release's, byte for byte. Exit code 0: they are the same. 1: they are not, or it
could not be found out; says which and why.

Needs neither git nor the repository: it is in the source archive as well. The compilers must be those that
the release names (its .cdx.json): scripts/install-deps.sh build brings zig; another Rust gives other bytes.
As root, it builds in a network namespace that has no network; otherwise cargo is told not to use any.

  --arch amd64|arm64   only this one (default: both)
  --keep DIR           keep the rebuilt binaries in DIR
  --rebuilt DIR        build nothing: compare the binaries in DIR, which another run kept, on this machine or another
  -h, --help           this text
USAGE
}

# shellcheck source=scripts/lib/server.sh
. "$REPO/scripts/lib/server.sh"

# Every wait below has an end.
clean_up() {
    # First those that would report a failure. By $! as well: a signal may come before it is in the list.
    if [ "$STARTING" = yes ]; then BUILDS="$BUILDS ${!:-}"; fi
    for pid in $BUILDS; do stop_child "$pid" || true; done
    # Each build is a session of its own, and ends with all that it started.
    [ -n "$WORK" ] || return 0
    for arch in $ARCHES; do
        if [ -s "$WORK/$arch/session" ]; then stop_session "$(cat "$WORK/$arch/session")"; fi
    done
}

# session_lives SESSION: a process of it that has ended is none, whoever is to wait for it.
session_lives() {
    cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' |
        awk -v session="$1" '$4 == session && $1 != "Z" && $1 != "X" { found = 1 } END { exit !found }'
}

# stop_session SESSION: all of its processes.
stop_session() {
    for signal in TERM KILL; do
        deadline=$(($(uptime_secs) + STOP_SECS))
        while session_lives "$1"; do
            [ "$(uptime_secs)" -lt "$deadline" ] || continue 2
            kill -s "$signal" -- "-$1" 2>/dev/null || true
            sleep 0.1
        done
        return
    done
    say "the build in session $1 does not end, not even by SIGKILL: look at ps -s $1"
}

check() {
    need_tools "install the package that has it (Debian: tar, gzip, coreutils, diffutils)" tar gzip sha256sum cmp
    [ -z "$KEEP" ] || [ -z "$REBUILT" ] || misuse "--keep and --rebuilt cannot be used together: with --rebuilt nothing is built"
    [ -z "$REBUILT" ] || [ -d "$REBUILT" ] || die "--rebuilt $REBUILT is not a directory"
    [ -d "$RELEASE" ] || die "$RELEASE is not a directory: scripts/release.sh makes a release, --release names one"
    RELEASE=$(CDPATH='' cd -- "$RELEASE" && pwd)
    [ -f "$RELEASE/SHA256SUMS" ] || die "$RELEASE has no SHA256SUMS: it is not a release"
    set -- "$RELEASE"/kubesolo-update-*-source.tar.gz
    if [ $# -ne 1 ] || [ ! -f "$1" ]; then die "$RELEASE does not have one kubesolo-update-VERSION-source.tar.gz"; fi
    VERSION=${1##*/kubesolo-update-}
    VERSION=${VERSION%-source.tar.gz}
    # First: what was damaged on its way is not to be blamed on a compiler.
    (cd "$RELEASE" && sha256sum -c --quiet --strict SHA256SUMS) >&2 ||
        die "$RELEASE is not what its SHA256SUMS says: damaged, or changed"
    # Older releases have only the agent.
    PROGRAMS=kubesolo-update
    if grep -q ' kubesolo-chunks-.*-linux-' "$RELEASE/SHA256SUMS"; then PROGRAMS="$PROGRAMS kubesolo-chunks"; fi
    for arch in $ARCHES; do
        for program in $PROGRAMS; do
            grep -qF "  $program-$VERSION-linux-$arch" "$RELEASE/SHA256SUMS" ||
                die "$RELEASE/SHA256SUMS does not list $program-$VERSION-linux-$arch"
        done
    done
}

# check_compilers: those of the release, if it says so and jq is here. Others are no error, but the likely reason for one.
check_compilers() {
    sbom=$RELEASE/kubesolo-update-$VERSION.cdx.json
    if [ ! -f "$sbom" ] || ! command -v jq >/dev/null; then return; fi
    here=$("$1/scripts/build.sh" --check-rust | awk '{ print $2 }' | tr -d ,)
    there=$(jq -r '.metadata.tools.components[] | select(.name == "rustc").version' "$sbom")
    [ "$here" = "$there" ] || warn "the release was built with Rust $there, and here is $here: bytes will differ"
    there=$(jq -r '[.metadata.tools.components[] | select(.name == "zig" or .name == "cargo-zigbuild").version] | join(" ")' "$sbom")
    here=$(cat "$REPO/.tools/zig/versions" 2>/dev/null || echo unknown)
    [ "$here" = "$there" ] || warn "the release was built with zig and cargo-zigbuild $there, and here is $here"
}

# build ARCH: as somebody else would, who has the compilers and nothing else of this machine.
build() {
    arch=$1
    [ ! -x "$REPO/.tools/zig/bin/cargo-zigbuild" ] || PATH=$REPO/.tools/zig/bin:$PATH
    zone=Pacific/Chatham
    [ "${TZ:-}" != "$zone" ] || zone=America/St_Johns
    # What root unpacks would have root's own modes, whatever the umask.
    if [ "$(umask)" = 0077 ]; then umask 022; else umask 077; fi
    mkdir -p "$WORK/$arch/home" "$WORK/$arch/tmp"
    tar -C "$WORK/$arch" --no-same-permissions --no-same-owner -xzf "$RELEASE/kubesolo-update-$VERSION-source.tar.gz"
    tree=$WORK/$arch/kubesolo-update-$VERSION
    [ -f "$tree/SOURCE_DATE_EPOCH" ] || die "the source archive has no SOURCE_DATE_EPOCH: the build time is not known"
    check_compilers "$tree"
    set -- "$tree/scripts/build.sh" --arch "$arch" --output "$WORK/$arch"
    if [ "$(id -u)" -eq 0 ]; then set -- unshare -n "$@"; fi
    log=$WORK/$arch/log
    began=$(date +%s)
    # It says itself which session it is, when it is one: nobody can signal it before.
    # shellcheck disable=SC2016 # the inner shell's
    (
        cd /
        exec setsid sh -c 'echo "$$" >"$1" || exit 1; shift; exec "$@"' sh "$WORK/$arch/session" \
            env -i PATH="$PATH" HOME="$WORK/$arch/home" CARGO_HOME="$WORK/$arch/home/cargo" \
            RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" TMPDIR="$WORK/$arch/tmp" TZ="$zone" LANG=tr_TR.UTF-8 \
            LC_ALL=C.UTF-8 CARGO_NET_OFFLINE=true "$@"
    ) >"$log" 2>&1 &
    wait "$!" || { tail -n 20 "$log" >&2; die "$arch: the sources of the release do not build"; }
    grep -q 'crates come from vendor/' "$log" || die "$arch: the build did not take its crates from vendor/"
    say "$arch: built in $(($(date +%s) - began)) s"
}

# rebuild: all at once, each from an archive of its own: most of the time each of them keeps one processor busy.
rebuild() {
    for arch in $ARCHES; do
        say "$arch: building from $(basename -- "$RELEASE")/kubesolo-update-$VERSION-source.tar.gz"
        STARTING=yes
        build "$arch" &
        BUILDS="$BUILDS $!"
        STARTING=no
    done
    # One that was waited for is no longer ours to signal.
    # shellcheck disable=SC2086 # a list of words
    set -- $BUILDS
    while [ $# -gt 0 ]; do
        code=0
        wait "$1" || code=$?
        shift
        BUILDS=$*
        [ "$code" -eq 0 ] || exit 1
    done
    rm -f "$WORK"/*/session
    REBUILT=$WORK/built
    mkdir "$REBUILT"
    for arch in $ARCHES; do
        for program in $PROGRAMS; do cp -- "$WORK/$arch/$program-$arch" "$REBUILT"; done
    done
    if [ -n "$KEEP" ]; then
        mkdir -p "$KEEP"
        cp -- "$REBUILT"/* "$KEEP"
    fi
}

# section FILE OFFSET: the part of an ELF file that the byte at OFFSET, counted from 0, lies in.
section() {
    command -v readelf >/dev/null || return 0
    readelf -SW "$1" 2>/dev/null | sed -n 's/^ *\[ *[0-9]*\] *//p' | while read -r name kind _ start size _; do
        case $start$size in *[!0-9a-f]*) continue ;; esac
        if [ "$kind" != NOBITS ] && [ "$2" -ge $((0x$start)) ] && [ "$2" -lt $((0x$start + 0x$size)) ]; then
            printf ', in section %s' "$name"
        fi
    done
}

# compare ARCH PROGRAM
compare() {
    theirs=$RELEASE/$2-$VERSION-linux-$1 ours=$REBUILT/$2-$1
    [ -f "$ours" ] || die "$REBUILT has no $2-$1"
    if cmp -s -- "$theirs" "$ours"; then
        say "$1: the same, $2, sha256 $(sha256sum <"$ours" | cut -d' ' -f1)"
        return
    fi
    DIFFERENT=$((DIFFERENT + 1))
    say "$1: DIFFERENT: $2"
    say "  release $(wc -c <"$theirs") bytes, sha256 $(sha256sum <"$theirs" | cut -d' ' -f1)"
    say "  rebuilt $(wc -c <"$ours") bytes, sha256 $(sha256sum <"$ours" | cut -d' ' -f1)"
    cmp -l -- "$theirs" "$ours" >"$WORK/bytes" 2>/dev/null || true
    if [ -s "$WORK/bytes" ]; then
        first=$(($(awk 'NR == 1 { print $1 }' "$WORK/bytes") - 1))
        say "  $(wc -l <"$WORK/bytes") bytes differ in what both have, the first at offset $first$(section "$theirs" "$first")"
    fi
}

main() {
    LC_ALL=C
    export LC_ALL
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --release | --arch | --keep | --rebuilt) need_text "$@" ;;
            *) misuse "unknown option: $1" ;;
        esac
        case $1 in
            --release) RELEASE=$2 ;;
            --keep) KEEP=$2 ;;
            --rebuilt) REBUILT=$2 ;;
            --arch)
                case $2 in amd64 | arm64) ;; *) misuse "--arch must be amd64 or arm64, not '$2'" ;; esac
                case "$ARCHES " in *" $2 "*) misuse "--arch $2 is given twice" ;; esac
                ARCHES="$ARCHES $2"
                ;;
        esac
        shift 2
    done
    [ -n "$ARCHES" ] || ARCHES=' amd64 arm64'
    work_folder
    check
    [ -n "$REBUILT" ] || rebuild
    for arch in $ARCHES; do
        for program in $PROGRAMS; do compare "$arch" "$program"; done
    done
    [ "$DIFFERENT" -eq 0 ] || die "the sources of release $VERSION do not give its binaries: other compilers, or it was not" \
        "made of these sources"
    say "ok: the sources of release $VERSION give its binaries"
}

main "$@"
