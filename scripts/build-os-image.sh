#!/bin/sh
# The OS as a container image, for one or several architectures: for people who start from `docker pull`.
#
# Not what machines update from (scripts/publish-layout.sh, oras push): the agent takes no container image.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

SOURCE=
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
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

  --arch amd64|arm64     what the --kernel and the --initramfs behind it are for; where there is none before them, the
                         variable TARGET_ARCH says it
  --layout DIR           put it into this OCI image layout, which is made where it is missing, as --tag
  --tag TAG              its name there
  --push HOST/REPO:TAG   push it to this registry (credentials: Docker's config.json); the tag is moved last
  --plain-http           the registry speaks no TLS
  --initramfs FILE       given several times, the parts of one, which the image has as one file
  --channel NAME         channel of this version (default: $CHANNEL)
  --source URL           where the sources of the OS are: label org.opencontainers.image.source
  --dry-run              make it, say its digest, keep and push nothing
  -h, --help             this text

With the same input and SOURCE_DATE_EPOCH (default: 0) the image is the same, byte for byte.
USAGE
}

# shellcheck source=scripts/lib/arch.sh
. "$REPO/scripts/lib/arch.sh"

# shellcheck source=scripts/lib/oci-image.sh
. "$REPO/scripts/lib/oci-image.sh"

check() {
    check_tools oras
    [ -n "$VERSION" ] || misuse "--version is missing"
    [ -n "$ARCHES" ] || misuse "--arch is missing (amd64 or arm64, or the variable TARGET_ARCH)"
    lint --version "$VERSION" --channel "$CHANNEL"
    if [ -n "$SOURCE" ]; then check_url --source "$SOURCE"; fi
    check_created
    for arch in $ARCHES; do check_files "$arch"; done
    check_targets
}

# target_if_none: where no --arch came first.
target_if_none() {
    if [ -n "$ARCH" ]; then return 0; fi
    arch_or_target
    [ -z "$ARCH" ] || add_arch "$ARCH"
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
    joined >"$tree/kubesolo-os.gz"
    printf '%s\n' "$VERSION" >"$tree/version"
    chmod 644 "$tree"/*
    image_new "$1"
    for name in vmlinuz kubesolo-os.gz version; do image_layer "$1" "$tree" "$name"; done
    describe "$1"
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
                need_value "$@" ;;
            *) misuse "unknown option: $1" ;;
        esac
        case $1 in
            --layout | --tag | --push) image_option "$1" "$2" ;;
            --source) SOURCE=$2 ;;
            --kernel | --initramfs) target_if_none; release_option "$1" "$2" ;;
            *) release_option "$1" "$2" ;;
        esac
        shift 2
    done
    target_if_none
    check
    work_folder
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
