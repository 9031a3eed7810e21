#!/bin/sh
# Makes a disk image of KubeSolo OS that boots: GPT, GRUB, EFI partition, slots A and B, data. No root,
# no mounting.
#
# GRUB is put in by hand: grub-install and grub-bios-setup want devices and root. For UEFI that is one
# file. For BIOS, core.img fills partition 128 and boot.img the first sector, with the two places
# patched that say where the rest is.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

KERNEL=
INITRAMFS=
# What is given of it, a file a line; and what the record says of several.
PARTS=
LAYERS=
VERSION=
ARCH=
CHANNEL=stable
OUTPUT=
EFI_MIB=64
SLOT_MIB=512
DATA_MIB=1024
SEED=
FORMAT=raw
XZ=no
BOOTLOADER=yes
GRUB_CONFIG=$REPO/grub/grub.cfg
GRUB_ROOT=
E2FSPROGS=
REQUIRE_PLATFORMS=no
AGENT=
CONF=
KEYS=
CHECKS=
INJECTED=
FORCE=no
DRY_RUN=no

usage() {
    cat <<USAGE
Usage: scripts/build-image.sh --kernel FILE --initramfs FILE --version V --arch amd64|arm64 --output FILE [OPTION]...

Makes a disk image that boots: partitions KSOLOEFI (FAT32), KSOLOA and KSOLOB (ext4, both with the
given system, its record and slot.crc32, which GRUB holds it against), KSOLODATA (ext4); GRUB for
UEFI, and on amd64 for BIOS as well, with its configuration inside; the GRUB environment block with
slot A active. --arch may be left out where the variable TARGET_ARCH says it.

The agent, its keys and its update.conf belong into the initramfs, so that an update brings them along with the
system: there is a warning where agent or keys are missing. --agent has scripts/inject-agent.sh put them there first.

  --initramfs FILE     given several times, the parts of one, in their order (scripts/split-initramfs.sh): the record then says
                       so, and the first update fetches only the parts that changed. --agent belongs into them before
  --agent BINARY       the agent, and its boot hooks
  --conf FILE          with --agent: becomes /etc/kubesolo/update.conf
  --keys DIR           with --agent: public keys for /etc/kubesolo/update-keys.d
  --health-check FILE  with --agent: an executable for /etc/kubesolo/health.d (may be given more than once)
  --version V          semantic version of the system, 1.2.0 for example; a leading v is allowed
  --channel NAME       channel of the system (default: $CHANNEL)
  --efi-size MIB       size of the EFI partition (default: $EFI_MIB, the least)
  --slot-size MIB      size of each slot (default: $SLOT_MIB)
  --data-size MIB      size of the data partition (default: $DATA_MIB)
  --seed TEXT          what all GUIDs are derived from (default: the system's own bytes). A stick beside
                       the disk needs another seed: two disks with the same GUIDs are refused
  --format raw|qcow2   format of FILE (default: raw)
  --xz                 compress FILE with xz
  --grub-config FILE   the configuration inside GRUB (default: grub/grub.cfg of this repository)
  --grub-dir DIR       GRUB of DIR, into which Debian packages were unpacked: DIR/usr/lib/grub/TARGET, and grub-mkimage
                       and grub-script-check in DIR/usr/bin, with the C library of DIR where it has one
                       (default: this system's)
  --e2fsprogs-dir DIR  mke2fs, e2fsck and debugfs of DIR, likewise (default: this system's)
  --require-platforms  fail where GRUB is missing for a firmware of --arch (amd64: BIOS, UEFI; arm64: UEFI).
                       Without it that is a warning, as long as the image boots on one of them
  --no-bootloader      leave GRUB out: partition 128 stays empty, and the image does not boot
  --force              replace FILE where it is there
  --dry-run            check everything, say what would be written, write nothing
  -h, --help           this text

With the same input, seed and SOURCE_DATE_EPOCH the image is the same, byte for byte.
USAGE
}

# shellcheck source=scripts/lib/arch.sh
. "$REPO/scripts/lib/arch.sh"
# shellcheck source=scripts/lib/agent.sh
. "$REPO/scripts/lib/agent.sh"

clean_up() { [ -z "$INJECTED" ] || rm -rf "$INJECTED"; }

check_image_arch() {
    [ -n "$ARCH" ] || misuse "--arch is missing, and TARGET_ARCH is not set"
    check_arch --arch "$ARCH"
}

# Puts the agent and its files into a copy of the initramfs, which is what goes into the slots.
inject() {
    if [ -z "$AGENT" ]; then
        [ -z "$CONF$KEYS$CHECKS" ] || misuse "--conf, --keys and --health-check need --agent"
        return 0
    fi
    [ -n "$INITRAMFS" ] || misuse "--initramfs is missing"
    check_image_arch
    INJECTED=$(mktemp -d)
    set -- --initramfs "$INITRAMFS" --output "$INJECTED/initramfs" --agent "$AGENT" --arch "$ARCH"
    if [ -n "$CONF" ]; then set -- "$@" --conf "$CONF"; fi
    if [ -n "$KEYS" ]; then set -- "$@" --keys "$KEYS"; fi
    while IFS= read -r file; do
        if [ -n "$file" ]; then set -- "$@" --health-check "$file"; fi
    done <<LIST
$CHECKS
LIST
    "$REPO/scripts/inject-agent.sh" "$@" || die "inject-agent.sh refused, see above"
    INITRAMFS=$INJECTED/initramfs
}

# look_inside: what lacks these boots, and no update ever reaches it.
look_inside() {
    listing=$("$KUBESOLO_UPDATE" lint --list --initramfs "$INITRAMFS" 2>/dev/null) || die "cannot list what lies in $INITRAMFS"
    printf '%s\n' "$listing" | awk -F '\t' '$1 ~ /^[fl]$/ && $4 ~ /\/kubesolo-update$/ { found = 1 } END { exit !found }' || {
        warn "there is no kubesolo-update in $INITRAMFS: no machine made of this image takes updates (--agent puts it there)"
        return 0
    }
    printf '%s\n' "$listing" | awk -F '\t' '$4 ~ /^\/etc\/kubesolo\/update-keys\.d\/[^\/]+\.pub$/ { found = 1 } END { exit !found }' ||
        warn "there is no public key in /etc/kubesolo/update-keys.d of $INITRAMFS: a machine made of this image takes no" \
            "update until its site has one (usb-provision.sh --keys), unless its update.conf says signature = off"
}

number() {
    case $2 in '' | *[!0-9]* | 0*) misuse "$1 must be a whole number of MiB, not '$2'" ;; esac
    [ "${#2}" -le 7 ] || die "$1 is too large: $2"
}

# directory OPTION DIR: prints its absolute path.
directory() { (CDPATH='' cd -- "$2" 2>/dev/null && pwd) || die "$1 $2 is not a directory"; }

# shellcheck source=scripts/lib/image.sh
. "$REPO/scripts/lib/image.sh"
# shellcheck source=scripts/lib/grub.sh
. "$REPO/scripts/lib/grub.sh"

check() {
    need_tools "scripts/install-deps.sh demo brings it" sgdisk mkfs.fat mmd mcopy gzip sha256sum truncate dd
    check_e2fs
    [ "$BOOTLOADER$REQUIRE_PLATFORMS" != noyes ] || misuse "--no-bootloader and --require-platforms: one or the other"
    if [ "$FORMAT" = qcow2 ]; then need_tools "scripts/install-deps.sh vm brings it" qemu-img; fi
    if [ "$XZ" = yes ]; then need_tools "scripts/install-deps.sh vm brings it" xz; fi
    if [ "$BOOTLOADER" = yes ]; then check_grub_tools; fi
    [ -n "$KERNEL" ] || misuse "--kernel is missing"
    [ -n "$INITRAMFS" ] || misuse "--initramfs is missing"
    [ -n "$OUTPUT" ] || misuse "--output is missing"
    [ -s "$KERNEL" ] || die "$KERNEL is not a regular file, or empty"
    [ -s "$INITRAMFS" ] || die "$INITRAMFS is not a regular file, or empty"
    # As the machine's agent will read them; nothing in them needs escaping in JSON then.
    check_image_arch
    lint --version "$VERSION" --channel "$CHANNEL" --kernel "$KERNEL" --arch "$ARCH" --initramfs "$INITRAMFS"
    look_inside
    case $FORMAT in raw | qcow2) ;; *) misuse "--format must be raw or qcow2, not '$FORMAT'" ;; esac
    if [ "$BOOTLOADER" = yes ]; then check_grub; fi
    number --efi-size "$EFI_MIB"
    number --slot-size "$SLOT_MIB"
    number --data-size "$DATA_MIB"
    [ "$EFI_MIB" -ge 64 ] || misuse "--efi-size must be at least 64: FAT32 is not FAT32 below that"
    [ "$SLOT_MIB" -ge 16 ] || misuse "--slot-size must be at least 16: a journal has to fit as well"
    [ "$DATA_MIB" -ge 16 ] || misuse "--data-size must be at least 16: a journal has to fit as well"
    if [ -e "$OUTPUT" ]; then
        [ -f "$OUTPUT" ] || die "$OUTPUT is not a regular file; write the image to a file, then to the device"
        [ "$FORCE" = yes ] || die "$OUTPUT is there already (--force replaces it)"
    fi
    [ -d "$(dirname -- "$OUTPUT")" ] || die "the directory of $OUTPUT is missing"
    KERNEL_BYTES=$(wc -c <"$KERNEL")
    INITRAMFS_BYTES=$(wc -c <"$INITRAMFS")
    needed=$(((KERNEL_BYTES + INITRAMFS_BYTES) / 1048576 + SLOT_JOURNAL_MIB + 2))
    [ "$SLOT_MIB" -ge "$needed" ] || die "this system needs --slot-size $needed or more, not $SLOT_MIB"
}

plan() {
    KERNEL_SHA256=$(hash_of <"$KERNEL")
    INITRAMFS_SHA256=$(hash_of <"$INITRAMFS")
    KERNEL_CRC32=$(crc32 "$KERNEL")
    INITRAMFS_CRC32=$(crc32 "$INITRAMFS")
    # Sizes count too: a small and a large image of the same system are two disks.
    [ -n "$SEED" ] || SEED="$KERNEL_SHA256 $INITRAMFS_SHA256 $VERSION $ARCH $CHANNEL $EFI_MIB $SLOT_MIB $DATA_MIB"
    # The first and the last MiB are for the partition table and its backup.
    EFI_START=1
    A_START=$((EFI_START + EFI_MIB))
    B_START=$((A_START + SLOT_MIB))
    DATA_START=$((B_START + SLOT_MIB))
    IMAGE_MIB=$((DATA_START + DATA_MIB + 1))
    say "$OUTPUT: $IMAGE_MIB MiB, version $VERSION ($ARCH, $CHANNEL), seed '$SEED'"
    loader="no boot loader"
    if [ "$BOOTLOADER" = yes ]; then
        loader="GRUB: $PLATFORMS"
    fi
    say "  128 BIOS boot  at $BIOS_START, $BIOS_SECTORS sectors          $(guid bios)  ($loader)"
    say "  1   KSOLOEFI   at $EFI_START MiB, $EFI_MIB MiB, FAT32   $(guid efi)"
    say "  2   KSOLOA     at $A_START MiB, $SLOT_MIB MiB, ext4   $(guid a)"
    say "  3   KSOLOB     at $B_START MiB, $SLOT_MIB MiB, ext4   $(guid b)"
    say "  4   KSOLODATA  at $DATA_START MiB, $DATA_MIB MiB, ext4   $(guid data)"
}

build() {
    # Beside the output: the last step is a rename, so the image is whole or not there.
    work_folder_at "$OUTPUT.XXXXXX"
    make_slot_tree
    partition "$WORK/disk"
    fat32
    put efi "$EFI_START" "$WORK/disk"
    files='/vmlinuz /kubesolo-os.gz /version /slot.crc32 /slot.json'
    for slot in a b; do
        label=KSOLOA start=$A_START
        if [ "$slot" = b ]; then label=KSOLOB start=$B_START; fi
        ext4 "$slot" "$label" "$SLOT_MIB" "$WORK/slot" "$files" "$SLOT_JOURNAL_MIB"
        put "$slot" "$start" "$WORK/disk"
    done
    journal=$((DATA_MIB >= 256 ? 16 : 4))
    ext4 data KSOLODATA "$DATA_MIB" "$WORK/empty" '' "$journal"
    put data "$DATA_START" "$WORK/disk"
    if [ -n "$BIOS_DIR" ]; then bios_grub "$WORK/disk"; fi
    if [ "$FORMAT" = qcow2 ]; then
        qemu-img convert -q -f raw -O qcow2 "$WORK/disk" "$WORK/disk.qcow2"
        mv "$WORK/disk.qcow2" "$WORK/disk"
    fi
    if [ "$XZ" = yes ]; then
        # One thread: how the work is shared out would show in the bytes.
        xz -T1 -6 -q "$WORK/disk"
        mv "$WORK/disk.xz" "$WORK/disk"
    fi
    mv -f "$WORK/disk" "$OUTPUT"
}

main() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --force) FORCE=yes; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --xz) XZ=yes; shift; continue ;;
            --no-bootloader) BOOTLOADER=no; shift; continue ;;
            --require-platforms) REQUIRE_PLATFORMS=yes; shift; continue ;;
            --kernel | --initramfs | --version | --arch | --channel | --output | --efi-size | --slot-size | \
                --data-size | --seed | --format | --grub-config | --grub-dir | --e2fsprogs-dir | --agent | --conf | --keys | --health-check)
                need_value "$@" ;;
            *) misuse "unknown option: $1" ;;
        esac
        case $1 in
            --agent) AGENT=$2 ;;
            --conf) CONF=$2 ;;
            --keys) KEYS=$2 ;;
            --health-check) CHECKS="$CHECKS$2
" ;;
            --kernel) KERNEL=$2 ;;
            --initramfs)
                matches "$2" '.*' || die "$1: a newline in a file name"
                PARTS="$PARTS$2
" ;;
            --version) VERSION=$2 ;;
            --arch) ARCH=$2 ;;
            --channel) CHANNEL=$2 ;;
            --output) OUTPUT=$2 ;;
            --efi-size) EFI_MIB=$2 ;;
            --slot-size) SLOT_MIB=$2 ;;
            --data-size) DATA_MIB=$2 ;;
            --seed) SEED=$2 ;;
            --format) FORMAT=$2 ;;
            --grub-config) GRUB_CONFIG=$2 ;;
            --grub-dir) GRUB_ROOT=$(directory "$1" "$2") || exit 1 ;;
            --e2fsprogs-dir) E2FSPROGS=$(directory "$1" "$2") || exit 1 ;;
        esac
        shift 2
    done
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date +%s)}
    # e2fsprogs before 1.47.1 knows the other name only. FAT keeps local time.
    E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC0
    export PATH SOURCE_DATE_EPOCH E2FSPROGS_FAKE_TIME LC_ALL TZ
    umask 022
    arch_or_target
    join
    inject
    check
    plan
    if [ "$DRY_RUN" = yes ]; then say "dry run: nothing was written"; exit 0; fi
    build
    say "sha256 $(hash_of <"$OUTPUT")"
}

main "$@"
