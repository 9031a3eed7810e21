# shellcheck shell=sh
# The partitions and file systems of the images of scripts/build-image.sh, made in files: no root, no mounting; the same input gives the
# same bytes. Sourced behind lib/cli.sh, not run, with lib/grub.sh; the caller has its options, what plan() found out (starts, hashes),
# SOURCE_DATE_EPOCH, and WORK for what is made.

# A file system that every GRUB reads: Debian 12's own defaults by name, since later e2fsprogs add metadata_csum_seed
# and orphan_file. Debian's GRUB 2.06 reads these as well (tests/grub/versions.rs), others may not.
EXT4_FEATURES=none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg
EXT4_FEATURES=$EXT4_FEATURES,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum
# A slot is written once per update; a small journal leaves the room to the system.
SLOT_JOURNAL_MIB=4

hash_of() { sha256sum | cut -d' ' -f1; }

# join: several parts are one file in a slot. Sets INITRAMFS, and LAYERS.
join() {
    case $(printf '%s' "$PARTS" | wc -l) in
        0 | 1) INITRAMFS=${PARTS%?}; return 0 ;;
    esac
    [ -z "$AGENT" ] || misuse "--agent and several --initramfs cannot be used together: scripts/inject-agent.sh first, then" \
        "scripts/split-initramfs.sh"
    INJECTED=$(mktemp -d)
    printf '%s' "$PARTS" >"$INJECTED/parts"
    while IFS= read -r part; do
        if [ ! -f "$part" ] || [ ! -s "$part" ]; then die "$part is not a regular file, or empty"; fi
        cat -- "$part" >>"$INJECTED/initramfs"
        LAYERS="$LAYERS${LAYERS:+,}{\"size\":$(($(wc -c <"$part"))),\"sha256\":\"$(hash_of <"$part")\"}"
    done <"$INJECTED/parts"
    INITRAMFS=$INJECTED/initramfs
}

# guid NAME: a GUID of the random kind, made of the seed and a name.
guid() {
    printf '%s\n%s\n' "$SEED" "$1" | hash_of |
        sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)\(.\{12\}\).*/\1-\2-4\3-8\4-\5/'
}

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
    printf '"initramfs":{"size":%d,"sha256":"%s"}%s}\n' "$INITRAMFS_BYTES" "$INITRAMFS_SHA256" "${LAYERS:+,\"layers\":[$LAYERS]}"
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
