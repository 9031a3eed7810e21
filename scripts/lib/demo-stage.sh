# shellcheck shell=sh
# The stage of scripts/demo.sh: a disk image, a directory that stands for the machine, keys, and two versions in a layout, all in the
# current directory. Sourced behind lib/cli.sh, not run; the caller has REPO, ARCH, BINARY and DEVICE, which it lets go of in the end.

KERNEL_MIB=8
INITRAMFS_MIB=24
SLOT_MIB=64
ROOT=machine

# shellcheck source=scripts/lib/stand-in.sh
. "$REPO/scripts/lib/stand-in.sh"

# system VERSION: a kernel and an initramfs that stand in for real ones; bytes that boot nothing.
system() {
    mkdir "$1"
    head -c "${KERNEL_MIB}M" /dev/urandom >"$1/vmlinuz"
    stand_in "$1/vmlinuz"
    head -c "${INITRAMFS_MIB}M" /dev/urandom >"$1/content"
    (cd "$1" && echo content | cpio --quiet -o -H newc) | gzip -1n >"$1/kubesolo-os.gz"
    rm "$1/content"
}

publish() {
    version=$1
    shift
    quietly "$REPO/scripts/publish-layout.sh" --layout "$ROOT/media/usb" "$@" --version "$version" \
        --notes "Demonstration: nothing in here boots." --release-date 2026-01-31T12:00:00Z \
        --arch "$ARCH" --kernel "$version/vmlinuz" --initramfs "$version/kubesolo-os.gz"
}

attach() {
    # Another process may take the device that was just found free.
    for _ in 1 2 3 4 5; do
        DEVICE=$(losetup --find --show disk.img 2>log) && break
    done
    [ -n "$DEVICE" ] || { cat log >&2; die "no loop device"; }
    quietly partx -a "$DEVICE"
    [ -e "${DEVICE}p2" ] || die "${DEVICE}p2 did not appear: is /dev a devtmpfs here?"
}

# The directory that stands for the machine after a boot from slot A.
make_root() {
    guid=$(sgdisk -i 2 disk.img | sed -n 's/^Partition unique GUID: //p' | tr 'A-F' 'a-f')
    start=$(sgdisk -i 1 disk.img | sed -n 's/^First sector: \([0-9]*\).*/\1/p')
    mkdir -p "$ROOT/proc/sys/kernel/random" "$ROOT/boot/efi/boot/grub" "$ROOT/var/lib/kubesolo" \
        "$ROOT/etc/kubesolo" "$ROOT/run" "$ROOT/media"
    printf 'kubesolo.slot=A kubesolo.part=%s panic=10\n' "$guid" >"$ROOT/proc/cmdline"
    cp /proc/sys/kernel/random/boot_id "$ROOT/proc/sys/kernel/random/boot_id"
    ln -s /sys /dev "$ROOT/"
    GRUBENV=$ROOT/boot/efi/boot/grub/grubenv
    for file in "$GRUBENV" "$GRUBENV.bak"; do
        quietly mcopy -i "disk.img@@$((start * 512))" "::/boot/grub/$(basename "$file")" "$file"
        # What GRUB does at the first boot.
        grub-editenv "$file" set boot_canary=1
    done
    printf '%s\n' 'layout = /media/usb' >"$ROOT/etc/kubesolo/update.conf"
    mkdir "$ROOT/etc/kubesolo/update-keys.d"
    cp publisher.pub "$ROOT/etc/kubesolo/update-keys.d/release.pub"
}

prepare() {
    work_folder_at "${TMPDIR:-/tmp}/kubesolo-demo.XXXXXX"
    cd "$WORK"
    mkdir bin
    ln -s "$BINARY" bin/kubesolo-update
    PATH=$WORK/bin:$PATH
    quietly "$REPO/scripts/keygen.sh" publisher
    for version in 1.0.0 1.1.0 1.2.0; do system "$version"; done
    quietly "$REPO/scripts/build-image.sh" --no-bootloader --kernel 1.0.0/vmlinuz --initramfs 1.0.0/kubesolo-os.gz \
        --version 1.0.0 --arch "$ARCH" --slot-size "$SLOT_MIB" --data-size 16 --output disk.img
    make_root
    publish 1.1.0 --tag 1.1.0 --tag latest
    publish 1.2.0 --tag 1.2.0 --tag latest
    attach
}
