#!/bin/sh
# Makes the initramfs of a test machine: busybox, modules, tests/vm/init; the agent comes in as it does into
# any other, by scripts/inject-agent.sh; last, a segment with version and behaviour.
set -eu

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
REPO=$(CDPATH='' cd -- "$HERE/../.." && pwd)
MODULES='virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk fat vfat
    nls_cp437 nls_ascii failover net_failover virtio_net virtio_console watchdog softdog'

ARCH=
AGENT=
FROM=
VERSION=
BEHAVIOUR=healthy
ADD=
OUTPUT=
WORK=

usage() {
    cat <<USAGE
Usage: tests/vm/build-initramfs.sh --version V --output FILE (--arch ARCH --agent BINARY | --from FILE) [OPTION]...

Makes an initramfs for a virtual machine; kernel modules and busybox come from .tools/vm (scripts/install-deps.sh vm).

  --arch amd64|arm64   architecture
  --agent BINARY       static agent for it
  --from FILE          take an initramfs that this script made, and only add another version and behaviour
  --version V          what it says it is
  --behaviour B        healthy (default), slow:SECONDS, never, panic, hang
  --add DIR            what else to put on top
  --output FILE        the result
USAGE
}

die() { printf 'build-initramfs: error: %s\n' "$*" >&2; exit 1; }
cleanup() { [ -z "$WORK" ] || rm -rf "$WORK"; }

pack() {
    find "$1" -exec touch -h -d @0 {} +
    (cd "$1" && find . -mindepth 1 -print | sed 's|^\./||' | LC_ALL=C sort |
        cpio --quiet -o -H newc --reproducible -R +0:+0) | gzip -1n
}

base() {
    vm=$REPO/.tools/vm/$ARCH
    [ -e "$vm/packages" ] || die "$vm is missing: scripts/install-deps.sh vm brings it"
    tree=$WORK/tree
    mkdir -p "$tree/bin" "$tree/dev" "$tree/etc/kubesolo" "$tree/lib/modules" "$tree/usr/bin"
    cp "$vm/bin/busybox" "$tree/bin/busybox"
    ln -s busybox "$tree/bin/sh"
    for module in $MODULES; do
        file=$(find "$vm/lib/modules" -name "$module.ko")
        [ -n "$file" ] || die "no module $module in $vm"
        cp "$file" "$tree/lib/modules/$module.ko"
    done
    cp "$HERE/init" "$tree/init"
    chmod 755 "$tree/init" "$tree/bin/busybox"
    pack "$tree" >"$WORK/base.gz"
    printf '%s\n' 'signature = off' 'plain_http = yes' 'containerd_socket = off' 'kubeconfig = off' >"$WORK/update.conf"
    "$REPO/scripts/inject-agent.sh" --initramfs "$WORK/base.gz" --output "$WORK/injected.gz" --arch "$ARCH" \
        --agent "$AGENT" --conf "$WORK/update.conf" --health-check "$HERE/10-kubesolo" 2>"$WORK/log" ||
        { cat "$WORK/log" >&2; die "inject-agent.sh failed"; }
    FROM=$WORK/injected.gz
}

main() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --arch) ARCH=$2 ;;
            --agent) AGENT=$2 ;;
            --from) FROM=$2 ;;
            --version) VERSION=$2 ;;
            --behaviour) BEHAVIOUR=$2 ;;
            --add) ADD=$2 ;;
            --output) OUTPUT=$2 ;;
            *) usage >&2; die "unknown option: $1" ;;
        esac
        shift 2
    done
    [ -n "$VERSION" ] || die "--version is missing"
    [ -n "$OUTPUT" ] || die "--output is missing"
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    umask 022
    WORK=$(mktemp -d)
    if [ -z "$FROM" ]; then base; fi
    mkdir -p "$WORK/version/etc/test"
    printf '%s\n' "$VERSION" >"$WORK/version/etc/test/version"
    printf '%s\n' "$BEHAVIOUR" >"$WORK/version/etc/test/behaviour"
    if [ -n "$ADD" ]; then cp -a "$ADD/." "$WORK/version/"; fi
    pack "$WORK/version" >"$WORK/version.gz"
    cat "$FROM" "$WORK/version.gz" >"$OUTPUT"
}

main "$@"
