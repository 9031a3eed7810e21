#!/bin/sh
# Makes a disk image of KubeSolo OS that boots: GPT, GRUB, EFI partition, slots A and B, data. No root,
# no mounting.
#
# GRUB is put in by hand: grub-install and grub-bios-setup want devices and root. For UEFI that is one
# file. For BIOS, core.img fills partition 128 and boot.img the first sector, with the two places
# patched that say where the rest is.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

# A file system that every GRUB reads: Debian 12's own defaults by name, since later e2fsprogs add metadata_csum_seed
# and orphan_file. Debian's GRUB 2.06 reads these as well (tests/grub/versions.rs), others may not.
EXT4_FEATURES=none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg
EXT4_FEATURES=$EXT4_FEATURES,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum
# A slot is written once per update; a small journal leaves the room to the system.
SLOT_JOURNAL_MIB=4

KERNEL=
INITRAMFS=
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
WORK=

usage() {
    cat <<USAGE
Usage: scripts/build-image.sh --kernel FILE --initramfs FILE --version V --arch amd64|arm64 --output FILE [OPTION]...

Makes a disk image that boots: partitions KSOLOEFI (FAT32), KSOLOA and KSOLOB (ext4, both with the
given system, its record and slot.crc32, which GRUB holds it against), KSOLODATA (ext4); GRUB for
UEFI, and on amd64 for BIOS as well, with its configuration inside; the GRUB environment block with
slot A active. --arch may be left out where the variable TARGET_ARCH says it.

The agent, its keys and its update.conf belong into the initramfs, so that an update brings them along with the
system: there is a warning where agent or keys are missing. --agent has scripts/inject-agent.sh put them there first.

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

say() { printf 'build-image: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
misuse() { say "error: $*"; exit 2; }

cleanup() {
    [ -z "$WORK" ] || rm -rf "$WORK"
    [ -z "$INJECTED" ] || rm -rf "$INJECTED"
}

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
        say "warning: there is no kubesolo-update in $INITRAMFS: no machine made of this image takes updates (--agent puts it there)"
        return 0
    }
    printf '%s\n' "$listing" | awk -F '\t' '$4 ~ /^\/etc\/kubesolo\/update-keys\.d\/[^\/]+\.pub$/ { found = 1 } END { exit !found }' ||
        say "warning: there is no public key in /etc/kubesolo/update-keys.d of $INITRAMFS: a machine made of this image takes no" \
            "update until its site has one (usb-provision.sh --keys), unless its update.conf says signature = off"
}

number() {
    case $2 in '' | *[!0-9]* | 0*) misuse "$1 must be a whole number of MiB, not '$2'" ;; esac
    [ "${#2}" -le 7 ] || die "$1 is too large: $2"
}

# directory OPTION DIR: prints its absolute path.
directory() { (CDPATH='' cd -- "$2" 2>/dev/null && pwd) || die "$1 $2 is no directory"; }

hash_of() { sha256sum | cut -d' ' -f1; }

# guid NAME: a GUID of the random kind, made of the seed and a name.
guid() {
    printf '%s\n%s\n' "$SEED" "$1" | hash_of |
        sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)\(.\{12\}\).*/\1-\2-4\3-8\4-\5/'
}

# shellcheck source=scripts/lib/grub.sh
. "$REPO/scripts/lib/grub.sh"

need_vm() { command -v "$1" >/dev/null || die "$1 is missing: scripts/install-deps.sh image brings it"; }

# e2fs PROGRAM ARGUMENT...: this system's, or that of --e2fsprogs-dir.
e2fs() {
    if [ -z "$E2FSPROGS" ]; then "$@"; return; fi
    tool=$1
    shift
    unpacked "$E2FSPROGS" "usr/sbin/$tool" "$@"
}

check_e2fs() {
    for tool in mke2fs e2fsck debugfs; do
        if [ -n "$E2FSPROGS" ]; then
            [ -f "$E2FSPROGS/usr/sbin/$tool" ] || die "$E2FSPROGS/usr/sbin/$tool is missing (--e2fsprogs-dir)"
        elif ! command -v "$tool" >/dev/null; then
            die "$tool is missing: scripts/install-deps.sh demo brings it"
        fi
    done
    if [ -n "$E2FSPROGS" ]; then
        MKE2FS_CONFIG=$E2FSPROGS/etc/mke2fs.conf
        export MKE2FS_CONFIG
    fi
}

check() {
    for tool in sgdisk mkfs.fat mmd mcopy gzip sha256sum truncate dd; do
        command -v "$tool" >/dev/null || die "$tool is missing: scripts/install-deps.sh demo brings it"
    done
    check_e2fs
    [ "$BOOTLOADER$REQUIRE_PLATFORMS" != noyes ] || misuse "--no-bootloader and --require-platforms: one or the other"
    if [ "$FORMAT" = qcow2 ]; then need_vm qemu-img; fi
    if [ "$XZ" = yes ]; then need_vm xz; fi
    if [ "$BOOTLOADER" = yes ]; then check_grub_tools; fi
    [ -n "$KERNEL" ] || misuse "--kernel is missing"
    [ -n "$INITRAMFS" ] || misuse "--initramfs is missing"
    [ -n "$OUTPUT" ] || misuse "--output is missing"
    [ -s "$KERNEL" ] || die "$KERNEL is no file, or empty"
    [ -s "$INITRAMFS" ] || die "$INITRAMFS is no file, or empty"
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

# Both copies of the environment block: src/boot/vars.rs, Block::fresh(A). A test holds one against the other.
environment_block() {
    {
        printf '# GRUB Environment Block\nactive_slot=A\nboot_success=1\nboot_counter=3\nrollback_from=\nboot_canary=0\n'
        head -c 1024 /dev/zero | tr '\0' '#'
    } | head -c 1024
}

slot_record() {
    printf '{"version":"%s","architecture":"%s","channel":"%s","source":"image",' "$VERSION" "$ARCH" "$CHANNEL"
    printf '"kernel":{"size":%d,"sha256":"%s"},' "$KERNEL_BYTES" "$KERNEL_SHA256"
    printf '"initramfs":{"size":%d,"sha256":"%s"}}\n' "$INITRAMFS_BYTES" "$INITRAMFS_SHA256"
}

# crc32 FILE: as GRUB's hashsum prints it. The end of gzip is the CRC-32 of what went in, lowest byte first, and its length.
crc32() { gzip -nc1 <"$1" | tail -c 8 | od -An -v -tx1 -N4 | awk '{ print $4 $3 $2 $1 }'; }

# slot.crc32, what GRUB holds the files against: digests() in src/slot/record.rs, which a test holds this to.
slot_digests() {
    printf '%s  kubesolo-os.gz\n%s  vmlinuz\n' "$INITRAMFS_CRC32" "$KERNEL_CRC32" >"$WORK/lines"
    printf "%$((512 - $(wc -c <"$WORK/lines")))s" ''
    cat "$WORK/lines"
}

make_slot_tree() {
    mkdir "$WORK/slot" "$WORK/empty"
    cp "$KERNEL" "$WORK/slot/vmlinuz"
    cp "$INITRAMFS" "$WORK/slot/kubesolo-os.gz"
    printf '%s\n' "$VERSION" >"$WORK/slot/version"
    slot_digests >"$WORK/slot/slot.crc32"
    slot_record >"$WORK/slot/slot.json"
    chmod 644 "$WORK"/slot/*
}

# mke2fs takes owner and times (ctime cannot be set on a file) from where it copies: put right afterwards.
level_inodes() {
    for file in / $2; do
        for field in uid gid atime_extra ctime_extra mtime_extra crtime_extra; do
            printf 'set_inode_field %s %s 0\n' "$file" "$field"
        done
        for field in atime ctime mtime crtime; do
            printf 'set_inode_field %s %s @%s\n' "$file" "$field" "$SOURCE_DATE_EPOCH"
        done
    done >"$WORK/commands"
    e2fs debugfs -w -f "$WORK/commands" "$1" >"$WORK/log" 2>&1 || return 1
    # debugfs ends well whatever happens; what it complains about is not an echoed command.
    if grep -v -e '^debugfs: set_inode_field' -e '^debugfs [0-9]' "$WORK/log" >&2; then return 1; fi
}

# ext4 NAME LABEL MIB TREE FILES JOURNAL
ext4() {
    image=$WORK/$1
    truncate -s "$3M" "$image"
    uuid=$(guid "$1 file system")
    set -- "$@" -U "$uuid" -E "root_owner=0:0,hash_seed=$uuid,lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    label=$2 tree=$4 files=$5 journal=$6
    shift 6
    # One block size and inode ratio for every size: mke2fs would choose by the device.
    e2fs mke2fs -q -F -t ext4 -b 4096 -I 256 -i 65536 -m 0 -J "size=$journal" -O "$EXT4_FEATURES" -L "$label" "$@" \
        -d "$tree" "$image" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "mke2fs could not make $label"; }
    level_inodes "$image" "$files" || die "the files of $label could not be put right"
    e2fs e2fsck -fn "$image" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "e2fsck finds faults in $label"; }
}

fat32() {
    image=$WORK/efi
    truncate -s "$EFI_MIB"M "$image"
    serial=$(guid 'efi file system' | cut -c1-8)
    mkfs.fat --invariant -F 32 -s 1 -h 2048 -i "$serial" -n KSOLOEFI "$image" >"$WORK/log" 2>&1 ||
        { cat "$WORK/log" >&2; die "mkfs.fat could not make KSOLOEFI"; }
    mmd -i "$image" ::/EFI ::/boot ::/boot/grub
    environment_block >"$WORK/grubenv"
    mcopy -i "$image" "$WORK/grubenv" ::/boot/grub/grubenv
    mcopy -i "$image" "$WORK/grubenv" ::/boot/grub/grubenv.bak
    if [ "$BOOTLOADER" = yes ]; then grub_inside; fi
    if [ -n "$EFI_DIR" ]; then efi_grub "$image"; fi
}

partition() {
    truncate -s "$IMAGE_MIB"M "$1"
    set -- "$1" -a 1 -U "$(guid disk)" \
        -n "128:$BIOS_START:$((BIOS_START + BIOS_SECTORS - 1))" -t 128:EF02 -c '128:BIOS boot' -u "128:$(guid bios)"
    set -- "$@" -n "1:${EFI_START}M:+${EFI_MIB}M" -t 1:EF00 -c 1:KSOLOEFI -u "1:$(guid efi)"
    set -- "$@" -n "2:${A_START}M:+${SLOT_MIB}M" -t 2:8300 -c 2:KSOLOA -u "2:$(guid a)"
    set -- "$@" -n "3:${B_START}M:+${SLOT_MIB}M" -t 3:8300 -c 3:KSOLOB -u "3:$(guid b)"
    set -- "$@" -n "4:${DATA_START}M:+${DATA_MIB}M" -t 4:8300 -c 4:KSOLODATA -u "4:$(guid data)"
    image=$1
    shift
    sgdisk "$@" "$image" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "sgdisk could not partition $image"; }
    sgdisk -v "$image" >"$WORK/log" 2>&1 || true
    grep -q 'No problems found' "$WORK/log" ||
        { cat "$WORK/log" >&2; die "sgdisk finds faults in the partition table"; }
}

# put PART START_MIB IMAGE
put() { dd if="$WORK/$1" of="$3" bs=1M seek="$2" conv=notrunc,sparse status=none; }

build() {
    # Beside the output: the last step is a rename, so the image is whole or not there.
    WORK=$(mktemp -d "$OUTPUT.XXXXXX")
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
                [ $# -ge 2 ] || misuse "$1 needs a value" ;;
            *) usage >&2; misuse "unknown option: $1" ;;
        esac
        case $1 in
            --agent) AGENT=$2 ;;
            --conf) CONF=$2 ;;
            --keys) KEYS=$2 ;;
            --health-check) CHECKS="$CHECKS$2
" ;;
            --kernel) KERNEL=$2 ;;
            --initramfs) INITRAMFS=$2 ;;
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
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    arch_or_target
    inject
    check
    plan
    if [ "$DRY_RUN" = yes ]; then say "dry run: nothing was written"; exit 0; fi
    build
    say "sha256 $(hash_of <"$OUTPUT")"
}

main "$@"
