# shellcheck shell=sh
# The stick or disk of scripts/usb-provision.sh: whether it may be overwritten, what is written onto it, and that it keeps that.
# Sourced behind lib/cli.sh and lib/media.sh, which holds the device; not run. The caller has DEVICE, FORCE, KEEP_GUIDS, progress; of the
# image: RAW, WRITE_MIB, DATA_START; WORK/tree, the files for the data partition.
#
# The table of partitions is written last, when everything else has been read back from the device: what is half written does
# not boot. Must never: write to a device that is in use, too small, or no whole disk; believe the page cache.

MIB=1048576
# Written, and read back, at once.
CHUNK_MIB=16
# Where something has been written that does not boot yet.
HALF=no

# --- whether it may be overwritten

check_device() {
    [ -e "$DEVICE" ] || die "$DEVICE is not there"
    real=$(readlink -f -- "$DEVICE")
    [ -b "$real" ] || die "$DEVICE is not a block device"
    if [ "$real" != "$DEVICE" ]; then say "$DEVICE is $real"; DEVICE=$real; fi
    NAME=${DEVICE##*/}
    [ -d "/sys/block/$NAME" ] || die "$DEVICE is not a whole disk (a partition?)"
    [ "$(id -u)" -eq 0 ] || die "only root can write to $DEVICE"
    [ "$(cat "/sys/block/$NAME/ro")" = 0 ] || die "$DEVICE is read-only"
    hold_device
    check_users
    if [ "$(cat "/sys/block/$NAME/removable")" != 1 ] && [ "$FORCE" = no ]; then
        die "$DEVICE is not removable: a disk of this machine? (--force)"
    fi
    sector=$(cat "/sys/block/$NAME/queue/logical_block_size")
    [ "$sector" = 512 ] ||
        die "$DEVICE has sectors of $sector bytes, and the image's partition tables and its EFI partition count in sectors of 512:" \
            "take a stick or disk with 512, or have this one use 512 (NVMe: nvme format --lbaf=N, of those that nvme id-ns -H lists;" \
            "SCSI and SAS: sg_format --format --size=512; a loop device: losetup --sector-size 512)"
    DISK_BYTES=$(blockdev --getsize64 "$DEVICE")
    DISK_MIB=$((DISK_BYTES / MIB))
    # The last MiB is for the copy of the table.
    DATA_MIB=$((DISK_MIB - 1 - DATA_START))
    [ "$DISK_MIB" -ge $((WRITE_MIB + 1)) ] ||
        die "$DEVICE is too small: $DISK_MIB MiB, and the image needs $((WRITE_MIB + 1)) MiB"
    printf '%s\n' $((DATA_START * MIB)) $((DATA_MIB * MIB)) >"$WORK/ours"
}

# --- writing

# on_device ARGUMENT...: dd past the page cache, done when the device says so.
on_device() { dd bs="$MIB" oflag=direct conv=nocreat,notrunc,fsync status=none "$@"; }

wipe() {
    HALF=yes
    on_device if=/dev/zero of="$DEVICE" count=1 || die "cannot write to $DEVICE"
    # Not at a whole MiB: disks end anywhere.
    dd if=/dev/zero of="$DEVICE" bs="$MIB" seek=$((DISK_BYTES - MIB)) oflag=direct,seek_bytes count=1 conv=nocreat,notrunc,fsync \
        status=none || die "cannot write to $DEVICE"
    # The kernel forgets the partitions that were there.
    partx -d "$DEVICE" >/dev/null 2>&1 || :
}

write_image() {
    at=1 TENTH=0
    while [ "$at" -lt "$WRITE_MIB" ]; do
        count=$((WRITE_MIB - at < CHUNK_MIB ? WRITE_MIB - at : CHUNK_MIB))
        on_device if="$RAW" of="$DEVICE" skip="$at" seek="$at" count="$count" || die "cannot write to $DEVICE at $at MiB"
        at=$((at + count))
        progress writing "$at" "$WRITE_MIB"
    done
}

# attach_data: sets LOOP to the data partition, which has no name yet. Let go of at once, it goes when this script ends,
# however it ends; where that is before, the guardian of the device lets go of it.
attach_data() {
    LOOP=$(losetup --find --show --offset $((DATA_START * MIB)) --sizelimit $((DATA_MIB * MIB)) "$DEVICE") ||
        die "no loop device for the data partition"
    exec 8<"$LOOP"
    losetup --detach "$LOOP"
}

# detach_data: what follows reads the device.
detach_data() {
    exec 8<&-
    sync
    blockdev --flushbufs "$DEVICE"
}

check_data() { e2fsck -f "$1" "$LOOP" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "e2fsck finds faults in KSOLODATA on $DEVICE"; }; }

fill_data() {
    say "growing KSOLODATA to $DATA_MIB MiB"
    attach_data
    check_data -p
    resize2fs "$LOOP" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "resize2fs could not grow KSOLODATA"; }
    mkdir -p "$WORK/mnt"
    # Mounts of this namespace go with its last process.
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --propagation private sh -euc '
        mount -t ext4 "$1" "$2"
        cp -a --no-preserve=ownership -- "$3/." "$2/"
        sync -f -- "$2"
        umount "$2"' sh "$LOOP" "$WORK/mnt" "$WORK/tree" || die "cannot put the files into KSOLODATA on $DEVICE"
    check_data -n
    detach_data
}

# --- reading back

# hash_at FILE BYTES MIB [FLAG]: so many MiB, behind so many bytes.
hash_at() { dd if="$1" bs="$MIB" skip="$2" count="$3" iflag="skip_bytes${4+,$4}" status=none | sha256sum; }

read_back() {
    at=1 TENTH=0
    while [ "$at" -lt "$DATA_START" ]; do
        count=$((DATA_START - at < CHUNK_MIB ? DATA_START - at : CHUNK_MIB))
        wanted=$(hash_at "$RAW" $((at * MIB)) "$count")
        found=$(hash_at "$DEVICE" $((at * MIB)) "$count" direct)
        [ "$wanted" = "$found" ] || die "$DEVICE does not keep what is written to it: between $at and $((at + count)) MiB"
        at=$((at + count))
        progress 'reading back' "$at" "$DATA_START"
    done
    attach_data
    check_data -n
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --propagation private sh -euc '
        mount -t ext4 -o ro,noload "$1" "$2"
        cd "$3"
        for name in *; do
            [ -e "$name" ] || continue
            diff -r --no-dereference -- "$name" "$2/$name" >&2
        done' sh "$LOOP" "$WORK/mnt" "$WORK/tree" || die "$DEVICE does not keep what is written to it: KSOLODATA"
    detach_data
}

# --- the partition table

# make_table: WORK/disk is a disk of the device's size, of which only the first and the last MiB are something.
make_table() {
    truncate -s "$DISK_BYTES" "$WORK/disk"
    dd if="$RAW" of="$WORK/disk" bs="$MIB" count=1 conv=notrunc status=none
    guid=$(sgdisk -i 4 "$RAW" | sed -n 's/^Partition unique GUID: //p')
    # The image's copy of the table is somewhere else: it is made anew at the end of this disk.
    set -- -e -a 1 -d 4 -n "4:$((DATA_START * 2048)):$(((DATA_START + DATA_MIB) * 2048 - 1))" -t 4:8300 -c 4:KSOLODATA -u "4:$guid"
    if [ "$KEEP_GUIDS" = no ]; then set -- "$@" -G; fi
    sgdisk "$@" "$WORK/disk" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "sgdisk could not make the partition table"; }
    sgdisk -v "$WORK/disk" >"$WORK/log" 2>&1 || :
    grep -q 'No problems found' "$WORK/log" || { cat "$WORK/log" >&2; die "sgdisk finds faults in the partition table"; }
}

# sectors FROM COUNT: of the new table, onto the device.
sectors() {
    dd if="$WORK/disk" of="$DEVICE" bs=512 skip="$1" seek="$1" count="$2" conv=nocreat,notrunc,fsync status=none ||
        die "cannot write the partition table to $DEVICE"
}

# write_table: from here on it is a disk. The first sector, without which nothing boots, is the last.
write_table() {
    total=$((DISK_BYTES / 512))
    sectors $((total - 33)) 33
    sectors 34 2014
    sectors 1 33
    sectors 0 1
    blockdev --flushbufs "$DEVICE"
    for bytes in 0 $((DISK_BYTES - MIB)); do
        wanted=$(hash_at "$WORK/disk" "$bytes" 1)
        found=$(hash_at "$DEVICE" "$bytes" 1 direct)
        if [ "$wanted" != "$found" ]; then
            wipe
            die "$DEVICE does not keep what is written to it: the partition table"
        fi
    done
    HALF=no
    release_device
    blockdev --rereadpt "$DEVICE" >/dev/null 2>&1 || :
}
