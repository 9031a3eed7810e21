#!/bin/sh
# The OS as a container image, for one or several architectures: for people who start from `docker pull`.
#
# Not what machines update from (scripts/publish-layout.sh, oras push): the agent takes no container image.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

VERSION=
CHANNEL=stable
SOURCE=
ARCH=
ARCHES=
AMD64_KERNEL=
AMD64_INITRAMFS=
ARM64_KERNEL=
ARM64_INITRAMFS=
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
WORK=
CREATED=
DIGEST=

usage() {
    cat <<USAGE
Usage: scripts/build-os-image.sh --version V [--layout DIR --tag TAG] [--push HOST/REPO:TAG] [OPTION]...
           --arch amd64 --kernel FILE --initramfs FILE [--arch arm64 --kernel FILE --initramfs FILE]

Makes a container image that holds the OS and runs nothing: /vmlinuz, /kubesolo-os.gz and /version, for each
architecture, below one index. Prints the digest of the index. To take the files out:

  FROM scratch
  COPY --from=registry.example.com/os/image:1.2.0 /vmlinuz /kubesolo-os.gz /boot/

This is not the artifact that machines update from (scripts/publish-layout.sh makes that one): the agent
takes no container image.

  --layout DIR           put it into this OCI image layout, which is made where it is missing, as --tag
  --tag TAG              its name there
  --push HOST/REPO:TAG   push it to this registry (credentials: Docker's config.json); the tag is moved last
  --plain-http           the registry speaks no TLS
  --channel NAME         channel of this version (default: $CHANNEL)
  --source URL           where the sources of the OS are: label org.opencontainers.image.source
  --dry-run              make it, say its digest, keep and push nothing
  -h, --help             this text

With the same input and SOURCE_DATE_EPOCH (default: 0) the image is the same, byte for byte.
USAGE
}

say() { printf 'build-os-image: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

cleanup() { [ -z "$WORK" ] || rm -rf "$WORK"; }

# shellcheck source=/dev/null # it is linted by itself
. "$REPO/scripts/lib/oci-image.sh"

# input OPTION ARCH FILE
input() {
    [ -n "$3" ] || die "--arch $2 has no $1"
    [ -f "$3" ] || die "$3 is not a file"
    [ -s "$3" ] || die "$3 is empty"
}

# choose ARCH: sets KERNEL and INITRAMFS.
choose() {
    case $1 in
        amd64) KERNEL=$AMD64_KERNEL INITRAMFS=$AMD64_INITRAMFS ;;
        arm64) KERNEL=$ARM64_KERNEL INITRAMFS=$ARM64_INITRAMFS ;;
    esac
}

check() {
    check_tools gzip
    [ -n "$VERSION" ] || die "--version is missing"
    [ -n "$ARCHES" ] || die "--arch is missing"
    semver --version "$VERSION"
    matches "$CHANNEL" '[A-Za-z0-9._-]{1,64}' ||
        die "--channel may hold letters, digits, '.', '_' and '-' only, not '$CHANNEL'"
    if [ -n "$SOURCE" ]; then check_url --source "$SOURCE"; fi
    check_created
    for arch in $ARCHES; do
        choose "$arch"
        input --kernel "$arch" "$KERNEL"
        input --initramfs "$arch" "$INITRAMFS"
        gzip -t <"$INITRAMFS" 2>/dev/null || die "$INITRAMFS is not whole gzip: no kernel could unpack it"
    done
    check_targets
}

# describe ARCH: labels, which `docker inspect` shows, and the same as annotations, which registries show.
describe() {
    set -- "$1" \
        "org.opencontainers.image.title=KubeSolo OS" \
        "org.opencontainers.image.description=Kernel and initramfs of KubeSolo OS; runs nothing" \
        "org.opencontainers.image.version=$VERSION" \
        "org.opencontainers.image.created=$CREATED" \
        "io.kubesolo.os.version=$VERSION" \
        "io.kubesolo.os.channel=$CHANNEL" \
        "io.kubesolo.os.architecture=$1" \
        ${SOURCE:+"org.opencontainers.image.source=$SOURCE"}
    image_config "$@"
}

# make ARCH: a layer for each file: what a version does not change is pulled once.
make() {
    choose "$1"
    tree=$WORK/tree-$1
    mkdir "$tree"
    cp -- "$KERNEL" "$tree/vmlinuz"
    cp -- "$INITRAMFS" "$tree/kubesolo-os.gz"
    printf '%s\n' "$VERSION" >"$tree/version"
    chmod 644 "$tree"/*
    image_new "$1"
    for name in vmlinuz kubesolo-os.gz version; do image_layer "$1" "$tree" "$name"; done
    describe "$1"
}

add_arch() {
    case $1 in amd64 | arm64) ;; *) die "--arch must be amd64 or arm64, not '$1'" ;; esac
    case "$ARCHES " in *" $1 "*) die "--arch $1 is given twice" ;; esac
    ARCH=$1
    ARCHES="$ARCHES $1"
}

# add_file OPTION FILE: of the --arch before it.
add_file() {
    case $ARCH$1 in
        amd64--kernel) [ -z "$AMD64_KERNEL" ] || die "two kernels for amd64"; AMD64_KERNEL=$2 ;;
        amd64--initramfs) [ -z "$AMD64_INITRAMFS" ] || die "two initramfs for amd64"; AMD64_INITRAMFS=$2 ;;
        arm64--kernel) [ -z "$ARM64_KERNEL" ] || die "two kernels for arm64"; ARM64_KERNEL=$2 ;;
        arm64--initramfs) [ -z "$ARM64_INITRAMFS" ] || die "two initramfs for arm64"; ARM64_INITRAMFS=$2 ;;
        *) die "$1 comes after the --arch it is for" ;;
    esac
}

main() {
    LC_ALL=C
    export LC_ALL
    umask 022
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --plain-http | --dry-run) image_option "$1"; shift; continue ;;
            --layout | --tag | --push | --version | --channel | --source | --arch | --kernel | --initramfs)
                [ $# -ge 2 ] || die "$1 needs a value" ;;
            *) usage >&2; die "unknown option: $1" ;;
        esac
        case $1 in
            --layout | --tag | --push) image_option "$1" "$2" ;;
            --version) VERSION=$2 ;;
            --channel) CHANNEL=$2 ;;
            --source) SOURCE=$2 ;;
            --arch) add_arch "$2" ;;
            --kernel | --initramfs) add_file "$1" "$2" ;;
        esac
        shift 2
    done
    check
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    WORK=$(mktemp -d)
    made=
    # In one order, whatever order they were given in.
    for arch in amd64 arm64; do
        case " $ARCHES " in *" $arch "*) make "$arch"; made="$made $arch" ;; esac
    done
    # shellcheck disable=SC2086 # a list of words
    image_index $made
    say "KubeSolo OS $VERSION ($CHANNEL) for$made: index $DIGEST"
    image_deliver
    printf '%s\n' "$DIGEST"
}

main "$@"
