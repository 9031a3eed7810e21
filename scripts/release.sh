#!/bin/sh
# Makes everything that a release is made of, in one directory.
#
# Must never: leave half of a release under its final name, publish what does not come from the commit it names, or
# show a key or a passphrase in a list of processes.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
DIST=$REPO/dist
# What Debian lacks is there (scripts/install-deps.sh); sgdisk is in sbin.
PATH=$REPO/.tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
# A release has this file in it: what lacks it is not a release, and is not replaced.
SUMS=SHA256SUMS

OUTPUT=$DIST/release
PASSPHRASE=
KERNEL=
INITRAMFS=
ARCH=
TAG=
ALLOW_DIRTY=no
DRY_RUN=no
KEYS=0
WORK=
STAGE=
OLD=
VERSION=
COMMIT=
TREE=
STD=
RUSTC_BIN=
CARGO_BIN=

usage() {
    cat <<USAGE
Usage: scripts/release.sh [--output DIR] [--tag vX.Y.Z] [--key KEY]... [--passphrase-file FILE] [OPTION]...

Makes a release of the commit that is checked out, in DIR (default: dist/release):

  kubesolo-update-VERSION-linux-amd64, -arm64   the binaries: those in dist/, built anew where they are not of this
                                                commit
  kubesolo-update.8                             the man page
  kubesolo-update-VERSION-image.tar             the agent as a container image, an OCI layout
  kubesolo-update-VERSION-source.tar.gz         the commit, all crates (vendor/), and the build time: scripts/build.sh
                                                makes the same binaries of it, without network and without git
  kubesolo-update-VERSION.cdx.json              CycloneDX: what the binaries are made of
  THIRD-PARTY-LICENSES.txt                      licences of what is linked into them (scripts/licenses.sh); in the
                                                container image as well
  SHA256SUMS                                    of all of these
  SHA256SUMS.sig                                with --key: one line of base64 for each key
  SHA256SUMS.sigstore.json                      with --key: a sigstore bundle, for cosign; SHA256SUMS.2.sigstore.json
                                                for a second key, and so on

  --output DIR            DIR is replaced if it holds a release, and must not be there otherwise. The last step is one
                          rename: DIR is whole, or it is not there
  --tag vX.Y.Z            refuse if Cargo.toml has another version, or this commit is not the tag's. Without it, that
                          is asked of the version tags that this commit has
  --key KEY               a private key in PEM, Ed25519 or ECDSA P-256 (scripts/keygen.sh makes one)
  --passphrase-file FILE  its first line opens encrypted keys
  --kernel FILE --initramfs FILE --arch amd64|arm64
                          also kubesolo-os-VERSION-ARCH.img.xz: a disk image of these, with the agent in the initramfs
                          (scripts/build-image.sh)
  --allow-dirty           go on where files are not as in the commit; those of them that git knows are released as they
                          are. For trials
  --dry-run               check everything, say what would be made, build and write nothing
  -h, --help              this text

The same commit and compilers give the same bytes; but for P-256, whose signatures are never twice the same.
docs/releasing.md: how it is done, and how whoever receives it checks it.
USAGE
}

say() { printf 'release: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
misuse() { usage >&2; say "error: $*"; exit 2; }

cleanup() {
    [ -z "$WORK" ] || rm -rf "$WORK"
    [ -z "$STAGE" ] || rm -rf "$STAGE"
    # Killed between the two renames: the release that was there comes back.
    if [ -n "$OLD" ] && [ -e "$OLD" ]; then
        if [ -e "$OUTPUT" ]; then rm -rf "$OLD"; else mv -T -- "$OLD" "$OUTPUT"; fi
    fi
}

# --- what is released

cargo_version() { sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$REPO/Cargo.toml"; }

check_tag() {
    VERSION=$(cargo_version)
    [ -n "$VERSION" ] || die "Cargo.toml has no version"
    if [ -n "$TAG" ]; then
        [ "$TAG" = "v$VERSION" ] || die "--tag $TAG, but Cargo.toml has version $VERSION: tag v$VERSION, or change Cargo.toml"
        tagged=$(git -C "$REPO" rev-parse -q --verify "refs/tags/$TAG^{commit}") ||
            die "git knows no tag $TAG: git tag $TAG, or fetch it"
        [ "$tagged" = "$COMMIT" ] || die "the tag $TAG is commit $tagged, and $COMMIT is checked out"
        return
    fi
    tags=$(git -C "$REPO" tag --points-at HEAD | grep -E '^v[0-9]' || true)
    case "
$tags
" in
        *"
v$VERSION
"*) ;;
        '

') say "this commit has no version tag: a trial of $VERSION" ;;
        *) die "this commit is tagged $(echo "$tags" | tr '\n' ' ')and Cargo.toml has version $VERSION" ;;
    esac
}

check_tree() {
    git -C "$REPO" rev-parse -q --verify HEAD >/dev/null 2>&1 ||
        die "$REPO is no git repository: a release is made of a commit (scripts/build.sh builds without one)"
    COMMIT=$(git -C "$REPO" rev-parse HEAD)
    git -C "$REPO" status --porcelain >"$WORK/dirty" || die "git status failed"
    if [ -s "$WORK/dirty" ]; then
        head -n 5 "$WORK/dirty" >&2
        [ "$ALLOW_DIRTY" = yes ] || die "$(wc -l <"$WORK/dirty") files are not as in the commit: commit them, or put" \
            "them away (--allow-dirty for a trial)"
        say "warning: $(wc -l <"$WORK/dirty") files are not as in the commit: not a release for others"
    fi
    # With changed files a commit that no branch has; nothing where there are none.
    TREE=$COMMIT
    if [ -s "$WORK/dirty" ]; then
        TREE=$(git -C "$REPO" -c user.name=release -c user.email=release@localhost stash create)
        [ -n "$TREE" ] || TREE=$COMMIT
    fi
    SOURCE_DATE_EPOCH=$(git -C "$REPO" log -1 --format=%ct "$COMMIT")
    export SOURCE_DATE_EPOCH
}

check_output() {
    if [ -L "$OUTPUT" ]; then die "$OUTPUT is a symbolic link"; fi
    if [ -e "$OUTPUT" ]; then
        [ -d "$OUTPUT" ] || die "$OUTPUT is not a directory"
        [ -f "$OUTPUT/$SUMS" ] || die "$OUTPUT is there, and is not a release: remove it, or name another --output"
    fi
    parent=$(dirname -- "$OUTPUT")
    if [ -e "$parent" ]; then [ -d "$parent" ] || die "$parent is not a directory"; fi
}

check_rust() {
    found=$("$REPO/scripts/build.sh" --check-rust) || exit 1
    case $found in
        *'standard library: source') ;;
        *) die "$found: a release needs the source of the standard library (scripts/build.sh --help)" ;;
    esac
    RUSTC_BIN=${found%% *}
    # shellcheck disable=SC2034 # for scripts/lib/sbom.sh
    CARGO_BIN=$(dirname -- "$RUSTC_BIN")/cargo
}

check_image_options() {
    case ${KERNEL:+k}${INITRAMFS:+i}${ARCH:+a} in
        '') return ;;
        kia) ;;
        *) misuse "--kernel, --initramfs and --arch belong together: a disk image needs all three" ;;
    esac
    case $ARCH in amd64 | arm64) ;; *) misuse "--arch must be amd64 or arm64, not '$ARCH'" ;; esac
    for file in "$KERNEL" "$INITRAMFS"; do [ -f "$file" ] || die "$file is not a file"; done
}

# check_keys: signs something else, so that a key that does not serve is known before an hour of work.
check_keys() {
    if [ -n "$PASSPHRASE" ] && [ "$KEYS" -eq 0 ]; then die "--passphrase-file without --key: there is nothing to open"; fi
    [ "$KEYS" -gt 0 ] || return 0
    printf 'x' >"$WORK/trial"
    sign "$WORK/trial"
    rm -f "$WORK/trial"*
}

check() {
    for tool in git tar gzip jq openssl sha256sum sync; do
        command -v "$tool" >/dev/null || die "$tool is missing: install the package of that name (coreutils has the last two)"
    done
    tar --version 2>/dev/null | grep -q 'GNU tar' || die "tar is not GNU tar, which alone can be told to repeat itself"
    check_image_options
    check_output
    check_tree
    check_tag
    check_keys
    check_rust
}

# --- vendor/

# check_crate DIR: every file as its crate's list has it, and no other.
check_crate() {
    jq -r '.files | to_entries[] | "\(.value)  \(.key)"' "$1/.cargo-checksum.json" >"$WORK/crate" ||
        die "$1 has no list of its files: scripts/vendor.sh fills vendor/ anew"
    (cd "$1" && sha256sum -c --quiet --strict "$WORK/crate") >&2 ||
        die "$1 is not what its crate has: scripts/vendor.sh fills vendor/ anew"
    [ "$(find "$1" ! -type d | wc -l)" -eq $(($(wc -l <"$WORK/crate") + 1)) ] ||
        die "$1 holds files that its crate has not: scripts/vendor.sh fills vendor/ anew"
}

# fill_vendor: the crates of both Cargo.locks, this one and the standard library's, by their checksums, and no others.
fill_vendor() {
    "$REPO/scripts/build.sh" --check-vendor || "$REPO/scripts/vendor.sh" 2>"$WORK/log" ||
        { tail -n 5 "$WORK/log" >&2; die "vendor/ could not be filled"; }
    cat "$REPO/Cargo.lock" "$STD/Cargo.lock" |
        awk -F '"' '/^name = / { n = $2 } /^version = / { v = $2 } /^checksum = / { print n "-" v "\t" $2 }' |
        sort -u >"$WORK/locked"
    for crate in "$REPO"/vendor/*/; do
        check_crate "${crate%/}"
        printf '%s\t%s\n' "$(basename -- "$crate")" "$(jq -r .package "$crate/.cargo-checksum.json")"
    done >"$WORK/unsorted"
    sort "$WORK/unsorted" >"$WORK/vendored"
    if ! cmp -s "$WORK/locked" "$WORK/vendored"; then
        diff "$WORK/locked" "$WORK/vendored" >&2 || true
        die "vendor/ (>) does not hold the crates that are locked (<): scripts/vendor.sh fills it anew"
    fi
}

# --- the parts

# repeatable ARGUMENT...: GNU tar, with nothing of this machine in what it writes.
repeatable() {
    tar --sort=name --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
        --owner=0 --group=0 --numeric-owner --mode='u=rwX,go=rX' --mtime="@$SOURCE_DATE_EPOCH" "$@"
}

make_source() {
    name=kubesolo-update-$VERSION
    mkdir "$WORK/source"
    git -C "$REPO" archive --format=tar -o "$WORK/head.tar" --prefix="$name/" "$TREE"
    tar -C "$WORK/source" -xf "$WORK/head.tar"
    printf '%s\n' "$SOURCE_DATE_EPOCH" >"$WORK/source/$name/SOURCE_DATE_EPOCH"
    # So that a plain cargo build works there, too.
    "$REPO/scripts/vendor.sh" --settings "$WORK/source/$name"
    (cd "$REPO/vendor" && find . -mindepth 1 -maxdepth 1 -type d) | sort >"$WORK/crates"
    repeatable -C "$WORK/source" -cf "$WORK/source.tar" "$name"
    # The crates from where they are: copying them would only take time.
    repeatable -C "$REPO/vendor" --transform "s,^\./,$name/vendor/,S" -rf "$WORK/source.tar" -T "$WORK/crates"
    gzip -9n <"$WORK/source.tar" >"$STAGE/$name-source.tar.gz"
    rm -rf "$WORK/source" "$WORK/source.tar" "$WORK/head.tar"
}

make_image() {
    "$REPO/scripts/build-agent-image.sh" --agent-dir "$DIST" --layout "$WORK/layout" --tag "$VERSION" \
        --licenses "$STAGE/THIRD-PARTY-LICENSES.txt" >"$WORK/log" 2>&1 ||
        { tail -n 5 "$WORK/log" >&2; die "the container image could not be made"; }
    repeatable -C "$WORK/layout" -cf "$STAGE/kubesolo-update-$VERSION-image.tar" blobs index.json oci-layout
}

make_disk() {
    [ -n "$KERNEL" ] || return 0
    "$REPO/scripts/build-image.sh" --kernel "$KERNEL" --initramfs "$INITRAMFS" --version "$VERSION" --arch "$ARCH" \
        --agent "$DIST/kubesolo-update-$ARCH" --require-platforms --xz --output "$STAGE/kubesolo-os-$VERSION-$ARCH.img.xz" >&2 ||
        die "the disk image could not be made"
}

# shellcheck source=scripts/lib/sbom.sh
. "$REPO/scripts/lib/sbom.sh"

# --- signatures

# sign FILE: makes FILE.sig and bundles beside it; scripts/sign.sh judges the keys, and makes the bundles.
sign() {
    digest=sha256:$(sha256sum <"$1" | cut -d' ' -f1)
    number=0
    : >"$1.sig"
    while IFS= read -r key <&3; do
        number=$((number + 1))
        bundle=$1.sigstore.json
        [ "$number" -eq 1 ] || bundle=$1.$number.sigstore.json
        "$REPO/scripts/sign.sh" --key "$key" ${PASSPHRASE:+--passphrase-file "$PASSPHRASE"} --bundle "$bundle" \
            --digest "$digest" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "cannot sign with $key"; }
        sign_line "$1" "$key" >>"$1.sig"
    done 3<"$WORK/keys"
    [ "$(sort -u "$WORK/hints" | wc -l)" -eq "$number" ] || misuse "a key is given twice"
}

# sign_line FILE KEY: one line, as in latest.json.sig; it is verified before it counts.
sign_line() {
    openssl pkey -in "$2" ${PASSPHRASE:+-passin "file:$PASSPHRASE"} -pubout -out "$WORK/public" 2>"$WORK/log" ||
        { cat "$WORK/log" >&2; die "openssl cannot read $2"; }
    digest_option=sha256
    if openssl pkey -pubin -in "$WORK/public" -noout -text | grep -q '^ED25519'; then digest_option=; fi
    openssl pkeyutl -sign -rawin ${digest_option:+-digest "$digest_option"} -inkey "$2" \
        ${PASSPHRASE:+-passin "file:$PASSPHRASE"} -in "$1" -out "$WORK/signature" 2>"$WORK/log" ||
        { cat "$WORK/log" >&2; die "openssl cannot sign with $2"; }
    openssl pkeyutl -verify -rawin ${digest_option:+-digest "$digest_option"} -pubin -inkey "$WORK/public" \
        -in "$1" -sigfile "$WORK/signature" >/dev/null 2>&1 || die "what $2 signs does not verify"
    sha256sum <"$WORK/public" >>"$WORK/hints"
    printf '%s\n' "$(base64 -w 0 "$WORK/signature")"
}

# --- all of it

make_all() {
    say "kubesolo-update $VERSION, commit $COMMIT, $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)"
    STD=$("$RUSTC_BIN" --print sysroot)/lib/rustlib/src/rust/library
    fill_vendor
    "$REPO/scripts/build.sh" --if-stale --output "$DIST"
    mkdir -p "$(dirname -- "$OUTPUT")"
    STAGE=$OUTPUT.partial.$$
    mkdir "$STAGE"
    for arch in amd64 arm64; do
        install -m 755 "$DIST/kubesolo-update-$arch" "$STAGE/kubesolo-update-$VERSION-linux-$arch"
    done
    git -C "$REPO" show "$TREE:docs/man/kubesolo-update.8" >"$STAGE/kubesolo-update.8"
    make_sbom "$STAGE/kubesolo-update-$VERSION.cdx.json"
    "$REPO/scripts/licenses.sh" --output "$STAGE/THIRD-PARTY-LICENSES.txt" >&2 ||
        die "the licence texts could not be collected"
    make_image
    make_disk
    make_source
    (cd "$STAGE" && sha256sum -- *) >"$WORK/sums"
    mv "$WORK/sums" "$STAGE/$SUMS"
    if [ "$KEYS" -gt 0 ]; then
        : >"$WORK/hints"
        sign "$STAGE/$SUMS"
    fi
    chmod -R u=rwX,go=rX "$STAGE"
    sync -f -- "$STAGE"
}

# deliver: the release that was there stands aside for an instant.
deliver() {
    if [ -e "$OUTPUT" ]; then
        OLD=$OUTPUT.old.$$
        mv -T -- "$OUTPUT" "$OLD"
    fi
    mv -T -- "$STAGE" "$OUTPUT"
    STAGE=
    if [ -n "$OLD" ]; then rm -rf "$OLD"; fi
    OLD=
    say "$OUTPUT: $(wc -l <"$OUTPUT/$SUMS") files, $KEYS signatures"
    printf '%s\n' "$OUTPUT"
}

main() {
    LC_ALL=C
    export LC_ALL
    # A release is for all architectures, whatever a pipeline builds otherwise.
    unset TARGET_ARCH
    umask 022
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    WORK=$(mktemp -d)
    : >"$WORK/keys"
    : >"$WORK/hints"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --allow-dirty) ALLOW_DIRTY=yes; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --output | --tag | --key | --passphrase-file | --kernel | --initramfs | --arch)
                [ -n "${2:-}" ] || misuse "$1 needs a value" ;;
            *) misuse "unknown option: $1" ;;
        esac
        case $1 in
            --output) OUTPUT=${2%/} ;;
            --tag) TAG=$2 ;;
            --key) printf '%s\n' "$2" >>"$WORK/keys"; KEYS=$((KEYS + 1)) ;;
            --passphrase-file) PASSPHRASE=$2 ;;
            --kernel) KERNEL=$2 ;;
            --initramfs) INITRAMFS=$2 ;;
            --arch) ARCH=$2 ;;
        esac
        shift 2
    done
    check
    if [ "$DRY_RUN" = yes ]; then
        say "dry run: nothing was built or written; it would be $VERSION of $COMMIT in $OUTPUT, with $KEYS signatures"
        exit 0
    fi
    make_all
    deliver
}

main "$@"
