#!/bin/sh
# Makes a disk image of KubeSolo OS that boots: GPT, GRUB, EFI partition, slots A and B, data. No root,
# no mounting.
#
# GRUB is put in by hand: grub-install and grub-bios-setup want devices and root. For UEFI that is one
# file. For BIOS, core.img fills partition 128 and boot.img the first sector, with the two places
# patched that say where the rest is.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

# A file system that GRUB 2.06 reads: Debian 12's own defaults by name, since later e2fsprogs add
# metadata_csum_seed and orphan_file, which it does not.
EXT4_FEATURES=none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg
EXT4_FEATURES=$EXT4_FEATURES,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum
# A slot is written once per update; a small journal leaves the room to the system.
SLOT_JOURNAL_MIB=4
# All that GRUB needs is in it, its configuration too (memdisk, tar): nothing but the environment block is
# read from the EFI partition. gzio: arm64 kernels may be gzip. ls, cat and minicmd: for a person at the prompt.
GRUB_MODULES='part_gpt fat ext2 normal configfile loadenv regexp probe test true echo sleep linux gzio'
GRUB_MODULES="$GRUB_MODULES reboot halt minicmd ls cat memdisk tar hashsum gcry_crc"
# Partition 128: 34 to 2047.
BIOS_START=34
BIOS_SECTORS=2014

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
given system and its record), KSOLODATA (ext4); GRUB for UEFI, and on amd64 for BIOS as well, with its
configuration inside; the GRUB environment block with slot A active.

The agent, its keys and its update.conf belong into the initramfs, so that an update brings them along with the
system. Where they are not there yet, --agent has scripts/inject-agent.sh put them there first.

  --agent BINARY       the agent, and its boot hooks
  --conf FILE          with --agent: becomes /etc/kubesolo/update.conf
  --keys DIR           with --agent: public keys for /etc/kubesolo/update-keys.d
  --health-check FILE  with --agent: an executable for /etc/kubesolo/health.d (may be given more than once)
  --channel NAME       channel of the system (default: $CHANNEL)
  --efi-size MIB       size of the EFI partition (default: $EFI_MIB, the least)
  --slot-size MIB      size of each slot (default: $SLOT_MIB)
  --data-size MIB      size of the data partition (default: $DATA_MIB)
  --seed TEXT          what all GUIDs are derived from (default: the system's own bytes). A stick beside
                       the disk needs another seed: two disks with the same GUIDs are refused
  --format raw|qcow2   format of FILE (default: raw)
  --xz                 compress FILE with xz
  --grub-config FILE   the configuration inside GRUB (default: grub/grub.cfg of this repository)
  --no-bootloader      leave GRUB out: partition 128 stays empty, and the image does not boot
  --force              replace FILE where it is there
  --dry-run            check everything, say what would be written, write nothing
  -h, --help           this text

With the same input, seed and SOURCE_DATE_EPOCH the image is the same, byte for byte.
USAGE
}

say() { printf 'build-image: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

cleanup() {
    [ -z "$WORK" ] || rm -rf "$WORK"
    [ -z "$INJECTED" ] || rm -rf "$INJECTED"
}

# Puts the agent and its files into a copy of the initramfs, which is what goes into the slots.
inject() {
    if [ -z "$AGENT" ]; then
        [ -z "$CONF$KEYS$CHECKS" ] || die "--conf, --keys and --health-check need --agent"
        return 0
    fi
    [ -n "$INITRAMFS" ] || die "--initramfs is missing"
    [ -n "$ARCH" ] || die "--arch is missing"
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

number() {
    case $2 in '' | *[!0-9]* | 0*) die "$1 must be a whole number of MiB, not '$2'" ;; esac
    [ "${#2}" -le 7 ] || die "$1 is too large: $2"
}

# A word that needs no escaping, in JSON or anywhere else.
word() {
    case $2 in '' | *[!A-Za-z0-9._+-]*) die "$1 may hold letters, digits, '.', '_', '+' and '-' only, not '$2'" ;; esac
    [ "${#2}" -le 128 ] || die "$1 is longer than 128 characters"
}

hash_of() { sha256sum | cut -d' ' -f1; }

# guid NAME: a GUID of the random kind, made of the seed and a name.
guid() {
    printf '%s\n%s\n' "$SEED" "$1" | hash_of |
        sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)\(.\{12\}\).*/\1-\2-4\3-8\4-\5/'
}

need_vm() { command -v "$1" >/dev/null || die "$1 is missing: scripts/install-deps.sh vm brings it"; }

# grub_dir TARGET FILE: prints where GRUB's files for a target are: this system's, or fetched ones.
grub_dir() {
    for dir in "/usr/lib/grub/$1" "$REPO/.tools/vm/amd64/usr/lib/grub/$1" "$REPO/.tools/vm/arm64/usr/lib/grub/$1"; do
        if [ -s "$dir/$2" ]; then printf '%s\n' "$dir"; return 0; fi
    done
    return 1
}

check_grub() {
    [ -s "$GRUB_CONFIG" ] || die "$GRUB_CONFIG is no file, or empty"
    # Inside GRUB, a mistake can no longer be put right.
    grub-script-check "$GRUB_CONFIG" || die "$GRUB_CONFIG is no GRUB configuration"
    EFI_TARGET=x86_64-efi EFI_NAME=BOOTX64.EFI
    if [ "$ARCH" = arm64 ]; then EFI_TARGET=arm64-efi EFI_NAME=BOOTAA64.EFI; fi
    EFI_DIR=$(grub_dir "$EFI_TARGET" normal.mod) ||
        die "GRUB's files for $EFI_TARGET are missing: scripts/install-deps.sh vm brings them (or --no-bootloader)"
    [ "$ARCH" = amd64 ] || return 0
    BIOS_DIR=$(grub_dir i386-pc boot.img) ||
        die "GRUB's files for i386-pc are missing: scripts/install-deps.sh vm brings them (or --no-bootloader)"
}

check() {
    for tool in sgdisk mke2fs e2fsck debugfs mkfs.fat mmd mcopy gzip sha256sum truncate dd; do
        command -v "$tool" >/dev/null || die "$tool is missing: scripts/install-deps.sh demo brings it"
    done
    if [ "$FORMAT" = qcow2 ]; then need_vm qemu-img; fi
    if [ "$XZ" = yes ]; then need_vm xz; fi
    if [ "$BOOTLOADER" = yes ]; then need_vm grub-mkimage; need_vm grub-script-check; need_vm tar; fi
    [ -n "$KERNEL" ] || die "--kernel is missing"
    [ -n "$INITRAMFS" ] || die "--initramfs is missing"
    [ -n "$OUTPUT" ] || die "--output is missing"
    [ -s "$KERNEL" ] || die "$KERNEL is no file, or empty"
    [ -s "$INITRAMFS" ] || die "$INITRAMFS is no file, or empty"
    gzip -t <"$INITRAMFS" 2>/dev/null || die "$INITRAMFS is not whole gzip"
    word --version "$VERSION"
    word --channel "$CHANNEL"
    case $ARCH in amd64 | arm64) ;; *) die "--arch must be amd64 or arm64, not '$ARCH'" ;; esac
    case $FORMAT in raw | qcow2) ;; *) die "--format must be raw or qcow2, not '$FORMAT'" ;; esac
    if [ "$BOOTLOADER" = yes ]; then check_grub; fi
    number --efi-size "$EFI_MIB"
    number --slot-size "$SLOT_MIB"
    number --data-size "$DATA_MIB"
    [ "$EFI_MIB" -ge 64 ] || die "--efi-size must be at least 64: FAT32 is not FAT32 below that"
    [ "$SLOT_MIB" -ge 16 ] || die "--slot-size must be at least 16: a journal has to fit as well"
    [ "$DATA_MIB" -ge 16 ] || die "--data-size must be at least 16: a journal has to fit as well"
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
        loader="GRUB: $EFI_TARGET"
        if [ "$ARCH" = amd64 ]; then loader="$loader, i386-pc"; fi
    fi
    say "  128 BIOS boot  at $BIOS_START, $BIOS_SECTORS sectors          $(guid bios)  ($loader)"
    say "  1   KSOLOEFI   at $EFI_START MiB, $EFI_MIB MiB, FAT32   $(guid efi)"
    say "  2   KSOLOA     at $A_START MiB, $SLOT_MIB MiB, ext4   $(guid a)"
    say "  3   KSOLOB     at $B_START MiB, $SLOT_MIB MiB, ext4   $(guid b)"
    say "  4   KSOLODATA  at $DATA_START MiB, $DATA_MIB MiB, ext4   $(guid data)"
}

# Both copies of the environment block: src/grubenv/vars.rs, Block::fresh(A). A test holds one against the other.
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

make_slot_tree() {
    mkdir "$WORK/slot" "$WORK/empty"
    cp "$KERNEL" "$WORK/slot/vmlinuz"
    cp "$INITRAMFS" "$WORK/slot/kubesolo-os.gz"
    printf '%s\n' "$VERSION" >"$WORK/slot/version"
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
    debugfs -w -f "$WORK/commands" "$1" >"$WORK/log" 2>&1 || return 1
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
    mke2fs -q -F -t ext4 -b 4096 -I 256 -i 65536 -m 0 -J "size=$journal" -O "$EXT4_FEATURES" -L "$label" "$@" \
        -d "$tree" "$image" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "mke2fs could not make $label"; }
    level_inodes "$image" "$files" || die "the files of $label could not be put right"
    e2fsck -fn "$image" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "e2fsck finds faults in $label"; }
}

# What GRUB carries inside: the configuration, and the one line that starts it. That line is for a parser that
# knows no `if`, so it can do no more.
grub_inside() {
    cp "$GRUB_CONFIG" "$WORK/grub.cfg"
    tar --format=ustar --owner=0 --group=0 --numeric-owner --mode=644 --mtime=@0 -C "$WORK" -cf "$WORK/memdisk" grub.cfg
    printf 'normal (memdisk)/grub.cfg\n' >"$WORK/early.cfg"
}

# grub_image TARGET DIR PREFIX MODULES OUTPUT
grub_image() {
    # -p behind -m, which sets another prefix.
    # shellcheck disable=SC2086 # lists of words
    grub-mkimage -O "$1" -d "$2" -m "$WORK/memdisk" -c "$WORK/early.cfg" -p "$3" -o "$5" $GRUB_MODULES $4 \
        >"$WORK/log" 2>&1 ||
        { cat "$WORK/log" >&2; die "grub-mkimage could not make $1"; }
}

# patch FILE OFFSET ESCAPES: overwrites bytes.
patch() {
    # shellcheck disable=SC2059 # the escapes are what it is for
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# le VALUE BYTES: prints a number as printf escapes, lowest byte first.
le() {
    value=$1 count=$2
    while [ "$count" -gt 0 ]; do
        printf '\\%03o' $((value % 256))
        value=$((value / 256)) count=$((count - 1))
    done
}

# Puts GRUB for BIOS into the disk. Source: boot.S and diskboot.S of GRUB 2.06; measured.
bios_grub() {
    # Without a disk in it, the prefix is on the disk that the BIOS started.
    grub_image i386-pc "$BIOS_DIR" '(,gpt1)/boot/grub' 'biosdisk serial terminal' "$WORK/core"
    bytes=$(wc -c <"$WORK/core")
    sectors=$(((bytes + 511) / 512))
    [ "$sectors" -le "$BIOS_SECTORS" ] || die "GRUB for BIOS takes $sectors sectors, more than there are"
    # First sector of the core: where the others are, how many, and to which segment.
    patch "$WORK/core" 500 "$(le $((BIOS_START + 1)) 8)$(le $((sectors - 1)) 2)$(le 2080 2)"
    dd if="$WORK/core" of="$1" bs=512 seek="$BIOS_START" conv=notrunc status=none
    # The first 440 bytes are code; behind them are the disk's signature and the partition table.
    head -c 440 "$BIOS_DIR/boot.img" >"$WORK/boot"
    patch "$WORK/boot" 92 "$(le "$BIOS_START" 8)"
    # Start from the disk that the BIOS names, also where its number looks wrong (two no-operations).
    patch "$WORK/boot" 100 '\377'
    patch "$WORK/boot" 102 '\220\220'
    dd if="$WORK/boot" of="$1" conv=notrunc status=none
}

efi_grub() {
    extra='all_video efi_gop'
    if [ "$EFI_TARGET" = x86_64-efi ]; then extra="$extra efi_uga serial"; fi
    grub_image "$EFI_TARGET" "$EFI_DIR" /boot/grub "$extra terminal" "$WORK/$EFI_NAME"
    mmd -i "$1" ::/EFI/BOOT
    mcopy -i "$1" "$WORK/$EFI_NAME" "::/EFI/BOOT/$EFI_NAME"
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
    if [ "$BOOTLOADER" = yes ]; then grub_inside; efi_grub "$image"; fi
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
    files='/vmlinuz /kubesolo-os.gz /version /slot.json'
    for slot in a b; do
        label=KSOLOA start=$A_START
        if [ "$slot" = b ]; then label=KSOLOB start=$B_START; fi
        ext4 "$slot" "$label" "$SLOT_MIB" "$WORK/slot" "$files" "$SLOT_JOURNAL_MIB"
        put "$slot" "$start" "$WORK/disk"
    done
    journal=$((DATA_MIB >= 256 ? 16 : 4))
    ext4 data KSOLODATA "$DATA_MIB" "$WORK/empty" '' "$journal"
    put data "$DATA_START" "$WORK/disk"
    if [ "$BOOTLOADER$ARCH" = yesamd64 ]; then bios_grub "$WORK/disk"; fi
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
            --kernel | --initramfs | --version | --arch | --channel | --output | --efi-size | --slot-size | \
                --data-size | --seed | --format | --grub-config | --agent | --conf | --keys | --health-check)
                [ $# -ge 2 ] || die "$1 needs a value" ;;
            *) usage >&2; die "unknown option: $1" ;;
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
    inject
    check
    plan
    if [ "$DRY_RUN" = yes ]; then say "dry run: nothing was written"; exit 0; fi
    build
    say "sha256 $(hash_of <"$OUTPUT")"
}

main "$@"
