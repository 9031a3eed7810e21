#!/bin/sh
# Starts an image in QEMU, for a person: its serial console is this terminal.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

ARCH=
UEFI=no
IMAGE=
KEEP=no
KVM=no
STICK=
STARTED=no

usage() {
    cat <<USAGE
Usage: scripts/vm.sh [--arch amd64|arm64] [--uefi] [--keep] [--kvm] [--stick FILE] [IMAGE]

Starts IMAGE (raw, or qcow2 by its name) in QEMU. This terminal is the serial console; Ctrl-A X ends
the machine. It is written to a copy, unless --keep says otherwise. The network is QEMU's user network: the
machine reaches this one's loopback as 10.0.2.2, and whatever this one reaches.

Without IMAGE, a small one is made: Debian's kernel, busybox, the agent of dist/ (make build), tests/vm/init.

  --arch ARCH   architecture of the machine (default: the one that the variable TARGET_ARCH names, or else
                amd64); arm64 has UEFI only
  --uefi        start with UEFI, not BIOS
  --keep        write to IMAGE itself
  --kvm         with this kernel's KVM, not emulated: many times faster, for this machine's own architecture
  --stick FILE  a second disk, /dev/vdb in the machine, which only reads it
  -h, --help    this text
USAGE
}

# shellcheck source=scripts/lib/arch.sh
. "$REPO/scripts/lib/arch.sh"
# shellcheck source=scripts/lib/server.sh
. "$REPO/scripts/lib/server.sh"

clean_up() {
    # By $!, which is there from the first moment; QEMU is all that is ever started.
    if [ "$STARTED" = yes ] && [ -n "${!:-}" ]; then stop_child "$!" || true; fi
}

demo_image() {
    agent=$REPO/dist/kubesolo-update-$ARCH
    [ -x "$agent" ] || die "$agent is missing: make build ARCH=$ARCH makes it"
    set -- "$REPO/.tools/vm/$ARCH/boot"/vmlinuz-*
    [ -e "$1" ] || die "there is no kernel for $ARCH: scripts/install-deps.sh vm brings it"
    "$REPO/tests/vm/build-initramfs.sh" --arch "$ARCH" --agent "$agent" --version 1.0.0 --output "$WORK/initramfs"
    "$REPO/scripts/build-image.sh" --arch "$ARCH" --version 1.0.0 --kernel "$1" --initramfs "$WORK/initramfs" \
        --slot-size 128 --data-size 64 --output "$WORK/disk"
}

# firmware CODE VARS: the store for variables is a copy.
firmware() {
    for file in "$1" "$2"; do [ -e "$file" ] || die "$file is missing: scripts/install-deps.sh vm brings it"; done
    cp "$2" "$WORK/vars"
}

# check_kvm: opened, since a container may show a device that it may not use. Whether a machine comes of it, nobody can ask it: on a
# host that is a virtual machine itself it may stand still, so KVM is only used where it is asked for.
check_kvm() {
    case $ARCH$(uname -m) in
        amd64x86_64 | arm64aarch64) ;;
        *) die "--kvm runs machines of this architecture only, and $ARCH is not: leave it out" ;;
    esac
    (exec 4<>/dev/kvm) 2>/dev/null || die "/dev/kvm is not there, or not for this user: leave --kvm out, or join the group kvm"
}

start() {
    case $ARCH in
        arm64)
            firmware /usr/share/AAVMF/AAVMF_CODE.fd /usr/share/AAVMF/AAVMF_VARS.fd
            set -- qemu-system-aarch64 -machine virt ;;
        *) set -- qemu-system-x86_64 -machine q35 ;;
    esac
    case $ARCH$KVM in
        *yes) set -- "$@" -accel kvm -cpu host ;;
        arm64*) set -- "$@" -accel tcg -cpu cortex-a57 ;;
        *) set -- "$@" -accel tcg -cpu qemu64 ;;
    esac
    if [ "$ARCH$UEFI" = amd64yes ]; then
        firmware /usr/share/OVMF/OVMF_CODE_4M.fd /usr/share/OVMF/OVMF_VARS_4M.fd
    fi
    if [ -e "$WORK/vars" ]; then
        code=/usr/share/OVMF/OVMF_CODE_4M.fd
        if [ "$ARCH" = arm64 ]; then code=/usr/share/AAVMF/AAVMF_CODE.fd; fi
        set -- "$@" -drive "if=pflash,format=raw,readonly=on,file=$code" -drive "if=pflash,format=raw,file=$WORK/vars"
    fi
    need_tools "scripts/install-deps.sh vm brings it" "$1"
    format=raw
    case $IMAGE in *.qcow2) format=qcow2 ;; esac
    snapshot=on
    if [ "$KEEP" = yes ]; then snapshot=off; fi
    # At an address behind that of the disk, which stays /dev/vda.
    if [ -n "$STICK" ]; then
        set -- "$@" -drive "if=none,id=d1,format=raw,file=$STICK,readonly=on" -device virtio-blk-pci,drive=d1,addr=0x10
    fi
    say "Ctrl-A X ends the machine"
    # In the background, so that a signal to this script ends the machine too; the terminal is the machine's all the same.
    exec 3<&0
    STARTED=yes
    # QEMU's own copy of what is written lies there too: one that is ended while it starts does not remove it.
    TMPDIR=$WORK "$@" -m 1024 -nodefaults -display none -serial mon:stdio \
        -drive "if=none,id=d0,format=$format,file=$IMAGE,snapshot=$snapshot" -device virtio-blk-pci,drive=d0,bootindex=0 \
        -netdev user,id=n0 -device virtio-net-pci,netdev=n0,romfile= <&3 3<&- &
    code=0
    # As long as the person likes.
    wait "$!" || code=$?
    STARTED=no
    return "$code"
}

main() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --uefi) UEFI=yes ;;
            --keep) KEEP=yes ;;
            --kvm) KVM=yes ;;
            --arch) need_value "$@"; ARCH=$2; shift ;;
            --stick) need_value "$@"; STICK=$2; shift ;;
            -*) misuse "unknown option: $1" ;;
            *) [ -z "$IMAGE" ] || misuse "one image, not two"; IMAGE=$1 ;;
        esac
        shift
    done
    arch_or_target
    [ -n "$ARCH" ] || ARCH=amd64
    check_arch --arch "$ARCH"
    if [ "$KVM" = yes ]; then check_kvm; fi
    work_folder
    if [ -z "$IMAGE" ]; then
        demo_image
        IMAGE=$WORK/disk
    fi
    [ -z "$STICK" ] || [ -f "$STICK" ] || die "$STICK is not a regular file"
    [ -f "$IMAGE" ] || die "$IMAGE is not a regular file"
    start
}

main "$@"
