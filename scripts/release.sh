#!/bin/sh
# Makes everything that a release is made of, in one directory.
#
# Must never: leave half of a release under its final name, publish what does not come from the commit it names, or
# show a key or a passphrase in a list of processes.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
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
  kubesolo-chunks-VERSION-linux-amd64, -arm64   the publishers' tool for chunk indexes; no image needs it
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

clean_up() {
    [ -z "$STAGE" ] || rm -rf "$STAGE"
    # Killed between the two renames: the release that was there comes back.
    if [ -n "$OLD" ] && [ -e "$OLD" ]; then
        if [ -e "$OUTPUT" ]; then rm -rf "$OLD"; else mv -T -- "$OLD" "$OUTPUT"; fi
    fi
}

# shellcheck source=scripts/lib/assets.sh
. "$REPO/scripts/lib/assets.sh"
# shellcheck source=scripts/lib/sign-sums.sh
. "$REPO/scripts/lib/sign-sums.sh"
# shellcheck source=scripts/lib/sbom.sh
. "$REPO/scripts/lib/sbom.sh"

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
        die "$REPO is not a git repository: a release is made of a commit (scripts/build.sh builds without one)"
    COMMIT=$(git -C "$REPO" rev-parse HEAD)
    git -C "$REPO" status --porcelain >"$WORK/dirty" || die "git status failed"
    if [ -s "$WORK/dirty" ]; then
        head -n 5 "$WORK/dirty" >&2
        [ "$ALLOW_DIRTY" = yes ] || die "$(wc -l <"$WORK/dirty") files are not as in the commit: commit them, or put" \
            "them away (--allow-dirty for a trial)"
        warn "$(wc -l <"$WORK/dirty") files are not as in the commit: not a release for others"
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
    need_tools "install the package of that name (of sha256sum and sync: coreutils)" git tar gzip jq openssl sha256sum sync
    tar --version 2>/dev/null | grep -q 'GNU tar' || die "tar is not GNU tar, which alone can be told to repeat itself"
    check_image_options
    check_output
    check_tree
    check_tag
    check_keys
    check_rust
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
        for program in kubesolo-update kubesolo-chunks; do
            install -m 755 "$DIST/$program-$arch" "$STAGE/$program-$VERSION-linux-$arch"
        done
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
    work_folder
    : >"$WORK/keys"
    : >"$WORK/hints"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --allow-dirty) ALLOW_DIRTY=yes; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --output | --tag | --key | --passphrase-file | --kernel | --initramfs | --arch)
                need_text "$@" ;;
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
