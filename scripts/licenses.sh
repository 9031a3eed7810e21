#!/bin/sh
# Collects the licence texts of everything that is linked into the release binaries, for release, images and initramfs.
#
# What is linked is cargo's word (cargo tree, both architectures), for this program and for the standard library; musl and
# the compiler's run time are zig's. No text of others is in this repository: each comes from the source that is built.
#
# Must never: leave out a crate in silence, or write a text that does not come from the crate's own source.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
OUTPUT=$REPO/dist/THIRD-PARTY-LICENSES.txt
VENDORED=no
STD=
RUSTC_BIN=
SYSROOT=

usage() {
    cat <<USAGE
Usage: scripts/licenses.sh [--output FILE] [--list | --dry-run]

Writes the licence texts of all that is linked into kubesolo-update: crates, the standard library, musl, and what these
have taken from others. First a list (component, version, licence, numbers of its texts), then each text once.

  --output FILE  default: dist/THIRD-PARTY-LICENSES.txt
  --list         print the list only: component, version, licence, files of texts; with tabs between them
  --dry-run      collect and check, write nothing
  -h, --help     this text

Crates are read where the build takes them from: vendor/ where it is filled, otherwise cargo's cache. Needs what
scripts/build.sh needs with the source of std, and jq.
USAGE
}

check() {
    need_tools "scripts/install-deps.sh build release brings it" jq cargo sha256sum
    found=$("$REPO/scripts/build.sh" --check-rust) || exit 1
    RUSTC_BIN=${found%% *}
    SYSROOT=$("$RUSTC_BIN" --print sysroot)
    STD=$SYSROOT/lib/rustlib/src/rust/library
    [ -e "$STD/Cargo.toml" ] ||
        die "$RUSTC_BIN has no source of the standard library, which a release is built from: scripts/install-deps.sh build"
    if "$REPO/scripts/build.sh" --check-vendor >/dev/null 2>&1; then VENDORED=yes; fi
}

# cargo_of COMMAND ARGUMENT...: from /, where no settings lie; std's manifest has unstable keys.
cargo_of() {
    command=$1
    shift
    if [ "$VENDORED" = yes ]; then
        set -- --offline --config 'source.crates-io.replace-with="vendored-sources"' \
            --config "source.vendored-sources.directory=\"$REPO/vendor\"" "$@"
    fi
    (cd / && RUSTC_BOOTSTRAP=1 RUSTC="$RUSTC_BIN" "$(dirname -- "$RUSTC_BIN")/cargo" "$command" --locked "$@" 2>"$WORK/log") ||
        { tail -n 5 "$WORK/log" >&2; die "cargo $command failed: scripts/vendor.sh brings the crates"; }
}

# packages MANIFEST ROOT FEATURES: adds to $WORK/packages: name, version, licence, repository, directory; of what is linked.
packages() {
    for target in x86_64 aarch64; do
        cargo_of tree --manifest-path "$1" --package "$2" ${3:+--features "$3"} --target "$target-unknown-linux-musl" \
            --edges normal --prefix none >"$WORK/tree"
        sed -n 's/^\([^ ]*\) v\([^ ]*\).*/\1 \2/p' "$WORK/tree"
    done | sort -u >"$WORK/linked"
    cargo_of metadata --format-version 1 --manifest-path "$1" >"$WORK/metadata"
    jq -r --rawfile linked "$WORK/linked" '($linked | split("\n")) as $linked | .packages[]
        | select(.source != null and (.name + " " + .version | IN($linked[])))
        | [.name, .version, .license // ("see " + .license_file), .repository // "-", (.manifest_path | sub("/[^/]*$"; ""))]
        | @tsv' "$WORK/metadata" >>"$WORK/packages"
}

# texts_in DIR: its licence files, in order; ring has those of BoringSSL, fiat and once_cell further below.
texts_in() {
    find "$1" -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'copyright*' -o -iname 'notice*' \
        -o -iname 'unlicense*' -o -iname 'authors' \) ! -name '*.rs' ! -name '*.toml' ! -path '*/tests/*' | sort
}

# component NAME VERSION LICENCE: of the texts named in $WORK/files.
component() {
    [ -s "$WORK/files" ] || die "$1 $2 ($3) has no licence text in its source: find out what its authors want to be said, and" \
        "teach scripts/licenses.sh where that is"
    numbers='' names=''
    while IFS= read -r file; do
        [ -s "$file" ] || die "$file, a licence of $1 $2, is empty"
        digest=$(sha256sum <"$file" | cut -d ' ' -f 1)
        number=$(awk -v digest="$digest" '$1 == digest { print NR }' "$WORK/texts")
        if [ -z "$number" ]; then
            printf '%s %s\n' "$digest" "$file" >>"$WORK/texts"
            number=$(wc -l <"$WORK/texts")
        fi
        numbers="$numbers $number" names="$names ${file##*/}"
    done <"$WORK/files"
    printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "${numbers# }" "${names# }" >>"$WORK/list"
}

crates() {
    sort -u "$WORK/packages" >"$WORK/sorted"
    cp "$WORK/sorted" "$WORK/all"
    while IFS="$(printf '\t')" read -r name version licence repository dir <&3; do
        texts_in "$dir" >"$WORK/files"
        # Crates of one repository and version are one work; not each has the text in it.
        if [ ! -s "$WORK/files" ] && [ "$repository" != - ]; then
            awk -F '\t' -v r="$repository" -v v="$version" -v n="$name" '$4 == r && $2 == v && $1 != n { print $5 }' \
                "$WORK/all" | while IFS= read -r other; do texts_in "$other"; done >"$WORK/files"
        fi
        component "$name" "$version" "$licence"
    done 3<"$WORK/sorted"
}

# The standard library: its own texts lie where its package put them.
standard_library() {
    {
        for file in "$STD"/../COPYRIGHT "$STD"/../LICENSE-*; do [ ! -f "$file" ] || echo "$file"; done
        for dir in "$STD"/*; do case $dir in */vendor) ;; *) if [ -d "$dir" ]; then texts_in "$dir"; fi ;; esac; done
        for doc in "$SYSROOT/share/doc" /usr/share/doc; do
            for file in "$doc"/rust/COPYRIGHT* "$doc"/rust/LICENSE-* "$doc"/rust-web-src/copyright "$doc"/rust-src/copyright; do
                [ ! -f "$file" ] || echo "$file"
            done
        done
    } | awk '!seen[$0]++' >"$WORK/files"
    # Debian's file names the text of a licence that every Debian has.
    if xargs -d '\n' grep -lqF common-licenses/Apache-2.0 <"$WORK/files" 2>/dev/null; then
        echo /usr/share/common-licenses/Apache-2.0 >>"$WORK/files"
    fi
    for words in 'Permission is hereby granted' 'TERMS AND CONDITIONS FOR USE'; do
        xargs -d '\n' grep -qF -- "$words" <"$WORK/files" ||
            die "the texts of the standard library's licences (MIT, Apache-2.0) are neither beside $STD nor below" \
                "$SYSROOT/share/doc: install the documentation of $RUSTC_BIN"
    done
    component std "$("$RUSTC_BIN" -V | awk '{ print $2 }')" 'MIT OR Apache-2.0'
}

# What zig links: musl, and its own compiler-rt.
of_zig() {
    bin=$(PATH=$REPO/.tools/zig/bin:$PATH command -v cargo-zigbuild) ||
        die "no cargo-zigbuild: scripts/install-deps.sh build brings it"
    zig=$(dirname -- "$(readlink -f "$bin")")/..
    for package in "$zig"/lib/python3*/site-packages/ziglang; do
        [ -f "$package/lib/libc/musl/COPYRIGHT" ] || die "zig's musl is not below $zig: its licence cannot be told"
        echo "$package/lib/libc/musl/COPYRIGHT" >"$WORK/files"
        component musl "$(sed -n 's/^#define VERSION "\(.*\)"$/\1/p' "$package/lib/libc/musl/src/internal/version.h")" MIT
        echo "$package/LICENSE" >"$WORK/files"
        component zig-compiler-rt "$(sed -n 's/ .*//p' "$zig/versions")" MIT
        return
    done
}

document() {
    cat <<HEAD
Licences of what is linked into kubesolo-update $(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$REPO/Cargo.toml")

kubesolo-update itself is under the MIT licence (LICENSE). It is one static binary; in it are the works below. Each line:
component, version, licence, numbers of the texts that follow. Made by scripts/licenses.sh.

HEAD
    awk -F '\t' '{ printf "%s %s: %s [%s]\n", $1, $2, $3, $4 }' "$WORK/list"
    number=0
    while IFS=' ' read -r _ file <&3; do
        number=$((number + 1))
        printf '\n%s\n[%s] %s\n%s\n\n' "$RULE" "$number" "${file##*/}" "$RULE"
        cat -- "$file"
        echo
    done 3<"$WORK/texts"
    # Whoever takes it over sees by this that it is whole.
    printf '%s\nEnd of the licences: %s texts\n' "$RULE" "$number"
}

main() {
    LC_ALL=C
    export LC_ALL
    RULE=------------------------------------------------------------------------
    kind='write'
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --output) need_text "$@"; OUTPUT=$2; shift ;;
            --list) kind=list ;;
            --dry-run) kind=dry ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    check
    work_folder
    : >"$WORK/packages"
    : >"$WORK/texts"
    : >"$WORK/list"
    packages "$REPO/Cargo.toml" kubesolo-update ''
    # The features that scripts/musl.toml asks for.
    packages "$STD/Cargo.toml" std optimize_for_size
    crates
    standard_library
    of_zig
    said="$(wc -l <"$WORK/list") components, $(wc -l <"$WORK/texts") texts"
    case $kind in
        list) cut -f 1-3,5 "$WORK/list"; return ;;
        dry) say "dry run: $said; nothing was written"; return ;;
    esac
    mkdir -p "$(dirname -- "$OUTPUT")"
    document >"$WORK/document"
    cp -- "$WORK/document" "$OUTPUT.new"
    mv -- "$OUTPUT.new" "$OUTPUT"
    say "$OUTPUT: $said"
}

main "$@"
