#!/bin/sh
# Builds the static musl release binaries: dist/kubesolo-update-{amd64,arm64}, and the publisher's dist/kubesolo-chunks-{amd64,arm64}.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
ZIG=$REPO/.tools/zig/bin
TARGET_DIR=$REPO/target/musl
RUST_MIN=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")
# `-Cpanic=immediate-abort`, which scripts/musl.toml asks for.
RUST_MIN_SOURCE=1.92

PROGRAMS='kubesolo-update kubesolo-chunks'
OUTPUT=$REPO/dist
SYMBOLS=
IF_STALE=no
INPUTS=
ARCHES=
RUSTC_BIN=
CARGO_BIN=
STD=

usage() {
    cat <<USAGE
Usage: scripts/build.sh [--arch amd64|arm64]... [--output DIR] [--if-stale] [--symbols] [--dry-run]

Builds kubesolo-update, static, for each --arch (default: the one that the variable TARGET_ARCH names, or else both), into
DIR (default: dist/); and kubesolo-chunks, with which publishers make chunk indexes, and which no image needs.

Needs zig (as C compiler and linker) and one of
  - Rust $RUST_MIN_SOURCE or later with the source of its standard library: the small build
  - Rust $RUST_MIN or later with both musl targets: larger
scripts/install-deps.sh build brings them. SOURCE_DATE_EPOCH (a variable, or a file of the sources of a
release), or else the time of the last commit, becomes the build time that the agent takes as the least
its clock can say. The same sources, time and compilers give the same bytes: scripts/reproduce.sh.

  --if-stale     leave a binary alone that is of these sources, this build time and these compilers
  --symbols      keep the symbols, to see what is in the binary (scripts/size.sh); not for release
  --dry-run      say what would be built, with which Rust; write nothing
  --check-rust   only say which Rust would be used; fails if none fits
  --check-vendor only say whether crates would come from vendor/; fails if not
  -h, --help     this text
USAGE
}

clean_up() { rm -f "$OUTPUT"/.kubesolo-*.$$; }

# triple ARCH [WHERE]: WHERE is what a person has to put right.
triple() {
    case $1 in
        amd64) echo x86_64-unknown-linux-musl ;;
        arm64) echo aarch64-unknown-linux-musl ;;
        *) misuse "${2:+$2: }unknown architecture '$1': amd64 or arm64" ;;
    esac
}

# at_least HAVE MIN: major and minor.
at_least() {
    awk -v have="$1" -v min="$2" 'BEGIN {
        split(have, h, "."); split(min, m, ".")
        exit !(h[1] + 0 > m[1] + 0 || (h[1] + 0 == m[1] + 0 && h[2] + 0 >= m[2] + 0)) }'
}

rust_version() { "$1" -V 2>/dev/null | awk '{ print $2 }'; }

has_std_source() { [ -e "$("$1" --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; }

has_musl_std() {
    for arch in amd64 arm64; do
        dir=$("$1" --print target-libdir --target "$(triple "$arch")" 2>/dev/null) || return 1
        set -- "$1" "$dir"/libstd-*.rlib
        [ -e "$2" ] || return 1
    done
}

# Debian's compiler is tried before the one in PATH: it comes with its source, rustup's seldom.
find_rust() {
    found=
    for pair in /usr/bin/rustc:/usr/bin/cargo rustc:cargo; do
        rustc=$(command -v "${pair%:*}") || continue
        cargo=$(command -v "${pair#*:}") || continue
        version=$(rust_version "$rustc")
        case $found in *" $rustc "*) continue ;; esac
        found="$found $rustc $version;"
        if at_least "$version" "$RUST_MIN_SOURCE" && has_std_source "$rustc"; then
            RUSTC_BIN=$rustc CARGO_BIN=$cargo STD=source
            return 0
        fi
        if [ -z "$STD" ] && at_least "$version" "$RUST_MIN" && has_musl_std "$rustc"; then
            RUSTC_BIN=$rustc CARGO_BIN=$cargo STD=prebuilt
        fi
    done
    if [ -n "$STD" ]; then return 0; fi
    say "no Rust here can build for musl. Found:${found:- none}"
    say "needed: $RUST_MIN_SOURCE or later with the source of std (Debian 12: rustc-web cargo-web rust-web-src)"
    say "    or: $RUST_MIN or later with x86_64-unknown-linux-musl and aarch64-unknown-linux-musl (rustup)"
    say "scripts/install-deps.sh build brings it where apt can"
    return 1
}

find_zig() {
    if [ -x "$ZIG/cargo-zigbuild" ]; then
        PATH=$ZIG:$PATH
        export PATH
    fi
    command -v cargo-zigbuild >/dev/null || die "cargo-zigbuild is missing: scripts/install-deps.sh build brings it"
}

# vendor/ counts only while it holds the crates of the present Cargo.lock, and those of the standard library.
vendor_fits() {
    [ "$(sha256sum <"$REPO/Cargo.lock")" = "$(cat "$REPO/vendor/.complete/cargo-lock.sha256" 2>/dev/null)" ] || return 1
    [ "$STD" = source ] || return 0
    std=$("$RUSTC_BIN" --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock
    [ "$(sha256sum <"$std")" = "$(cat "$REPO/vendor/.complete/std-lock.sha256" 2>/dev/null)" ]
}

build_epoch() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then echo "$SOURCE_DATE_EPOCH"; return; fi
    # In the sources of a release (scripts/release.sh), where there is no git.
    if [ -f "$REPO/SOURCE_DATE_EPOCH" ]; then cat "$REPO/SOURCE_DATE_EPOCH"; return; fi
    if git -C "$REPO" log -1 --format=%ct 2>/dev/null; then return; fi
    say "no git history and no SOURCE_DATE_EPOCH: the build time is now, so the bytes will differ from others'"
    date +%s
}

# Sets the arguments that every cargo call gets, then calls it.
run_cargo() {
    target=$1
    set -- --release --locked --target "$target" --target-dir "$TARGET_DIR"
    for program in $PROGRAMS; do set -- "$@" --bin "$program"; done
    if [ "$STD" = source ]; then
        # The settings of musl.toml are unstable, and Debian's compiler is a stable one.
        export RUSTC_BOOTSTRAP=1
        set -- "$@" --config "$REPO/scripts/musl.toml"
        # Size: ring has P-256 twice, in assembly with a table of 150 KB, and in C (docs/decisions/0007). Not without
        # musl.toml: the one name that the C lacks comes from scripts/link.ld.
        export "CFLAGS_$(echo "$target" | tr - _)=-DOPENSSL_SMALL"
    fi
    # Settings for crates that are not there any more would stop cargo.
    if [ -e "$REPO/.cargo/config.toml" ]; then "$REPO/scripts/vendor.sh" --mend; fi
    if vendor_fits; then
        say "crates come from vendor/"
        set -- "$@" --offline --config 'source.crates-io.replace-with="vendored-sources"' \
            --config "source.vendored-sources.directory=\"$REPO/vendor\""
    fi
    # No path of this machine may get into the binary: the same source gives the same bytes.
    sysroot=$("$RUSTC_BIN" --print sysroot)
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    set -- "$@" --config "target.'cfg(target_env = \"musl\")'.rustflags = [
        \"--remap-path-prefix=$cargo_home=/cargo\",
        \"--remap-path-prefix=$sysroot=/rust\",
        \"--remap-path-prefix=$REPO=/kubesolo-update\"]"
    # RUSTFLAGS would take the place of all of these.
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET \
        CARGO="$CARGO_BIN" RUSTC="$RUSTC_BIN" cargo-zigbuild zigbuild "$@"
}

# musl targets can come out dynamic without a word (a wrong linker is enough), hence the look.
check_binary() {
    case $2 in
        amd64) machine='X86-64' ;;
        arm64) machine='AArch64' ;;
    esac
    readelf -hW "$1" | grep -q "Machine:.*$machine" || die "$1 is not for $2: $(file -b "$1")"
    if readelf -lW "$1" | grep -q INTERP; then die "$1 asks for a dynamic loader: $(file -b "$1")"; fi
    if readelf -dW "$1" | grep -q NEEDED; then die "$1 needs shared libraries: $(file -b "$1")"; fi
    case $(file -b "$1") in
        *"statically linked"* | *"static-pie linked"*) ;;
        *) die "$1 is not static: $(file -b "$1")" ;;
    esac
    [ -z "$SYMBOLS" ] || return 0 # C objects then name the directory they were built in
    for path in "$REPO" "${CARGO_HOME:-$HOME/.cargo}"; do
        if grep -qF "$path/" "$1"; then die "$1 holds a path of this machine: $path"; fi
    done
}

# inputs: one hash of all that the bytes come from.
inputs() {
    {
        "$RUSTC_BIN" -vV
        zig=$(command -v cargo-zigbuild)
        cat "${zig%/bin/*}/versions" 2>/dev/null || cargo-zigbuild --version
        echo "$STD $SOURCE_DATE_EPOCH ${SYMBOLS:-stripped}"
        find src Cargo.toml Cargo.lock scripts/build.sh scripts/musl.toml scripts/link.ld -type f |
            LC_ALL=C sort | xargs sha256sum
    } | sha256sum
}

# stamp DIR [END]: what $OUTPUT/.built-ARCH says of the programs there, of these inputs. END: of their names.
stamp() {
    printf '%s\n' "$INPUTS"
    for program in $PROGRAMS; do cat -- "$1/$program${2-}"; done | sha256sum
    printf '%s\n' "$SOURCE_DATE_EPOCH"
}

is_fresh() {
    for program in $PROGRAMS; do [ -f "$OUTPUT/$program-$1" ] || return 1; done
    [ "$(stamp "$OUTPUT" "-$1")" = "$(cat "$OUTPUT/.built-$1" 2>/dev/null)" ]
}

build_one() {
    arch=$1
    target=$(triple "$arch")
    if [ "$IF_STALE" = yes ] && is_fresh "$arch"; then
        say "$arch: $OUTPUT/kubesolo-update-$arch is of these sources"
        return
    fi
    say "$arch: $(rust_version "$RUSTC_BIN") ($RUSTC_BIN, standard library: $STD), $target"
    run_cargo "$target" || die "cargo failed for $arch"
    built=$TARGET_DIR/$target/release
    for program in $PROGRAMS; do
        check_binary "$built/$program" "$arch"
        # Renamed into place: a test that runs the old one meanwhile is not disturbed.
        cp "$built/$program" "$OUTPUT/.$program-$arch.$$"
        mv "$OUTPUT/.$program-$arch.$$" "$OUTPUT/$program-$arch"
        say "$arch: $OUTPUT/$program-$arch, static, $(wc -c <"$built/$program") bytes," \
            "sha256 $(sha256sum <"$built/$program" | cut -d' ' -f1)"
    done
    stamp "$built" >"$OUTPUT/.built-$arch"
}

# take_target_arch: where no --arch was given.
take_target_arch() {
    if [ -n "$ARCHES" ] || [ -z "${TARGET_ARCH:-}" ]; then return 0; fi
    triple "$TARGET_ARCH" TARGET_ARCH >/dev/null
    ARCHES=$TARGET_ARCH
}

main() {
    check_only=no
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --check-rust) check_only=yes ;;
            --check-vendor) check_only=vendor ;;
            --dry-run) check_only=dry ;;
            --if-stale) IF_STALE=yes ;;
            --symbols) SYMBOLS=yes; TARGET_DIR=$TARGET_DIR-symbols; export CARGO_PROFILE_RELEASE_STRIP=false ;;
            --arch) need_value "$@"; triple "$2" --arch >/dev/null; ARCHES="$ARCHES $2"; shift ;;
            --output) need_value "$@"; OUTPUT=$2; shift ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    # Whoever only asks which Rust there is builds for nothing yet.
    case $check_only in no | dry) take_target_arch ;; esac
    find_rust || exit 1
    if [ "$check_only" = yes ]; then
        echo "$RUSTC_BIN $(rust_version "$RUSTC_BIN"), standard library: $STD"
        exit 0
    fi
    if [ "$check_only" = vendor ]; then
        vendor_fits || die "vendor/ does not hold the crates of Cargo.lock and of the standard library: scripts/vendor.sh"
        say "crates come from vendor/"
        exit 0
    fi
    find_zig
    if [ "$check_only" = dry ]; then
        for arch in ${ARCHES:-amd64 arm64}; do
            say "dry run: $OUTPUT/kubesolo-update-$arch, kubesolo-chunks-$arch, with Rust $(rust_version "$RUSTC_BIN") (standard library: $STD)"
        done
        exit 0
    fi
    mkdir -p "$OUTPUT"
    OUTPUT=$(CDPATH='' cd -- "$OUTPUT" && pwd)
    cd "$REPO"
    SOURCE_DATE_EPOCH=$(build_epoch)
    KUBESOLO_BUILD_EPOCH=$SOURCE_DATE_EPOCH
    export SOURCE_DATE_EPOCH KUBESOLO_BUILD_EPOCH
    INPUTS=$(inputs)
    for arch in ${ARCHES:-amd64 arm64}; do build_one "$arch"; done
}

main "$@"
