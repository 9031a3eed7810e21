#!/bin/sh
# Writes a disk image onto a stick or a disk, with what is this machine's own: cloud-init's files, update.conf, keys, and a first
# update. For sites without a network.
#
# The table of partitions is written last, when everything else has been read back from the device: what is half written does
# not boot. Must never: write to a device that is in use, or that nobody named; believe the page cache.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

MIB=1048576
# Written, and read back, at once.
CHUNK_MIB=16
# What a file system needs for itself, generously.
OVERHEAD_MIB=24

IMAGE=
DEVICE=
USER_DATA=
META_DATA=
NETWORK_CONFIG=
CONF=
KEYS=
LAYOUT=
AGENT=
FORCE=no
KEEP_GUIDS=no
UNCHECKED=no
YES=no
DRY_RUN=no
WORK=
# Where something has been written that does not boot yet.
HALF=no

usage() {
    cat <<USAGE
Usage: scripts/usb-provision.sh --image FILE --device DEVICE [OPTION]...

Writes an image of scripts/build-image.sh (raw, .xz, .gz or qcow2) onto a whole stick or disk, as root: the slots as they
are, the data partition grown to the end of the device, with:

  --user-data FILE       cloud-init's files, into cloud-init/ (on the machine: /var/lib/kubesolo/cloud-init, where
  --network-config FILE  the boot hook has cloud-init look for them). Without --meta-data an instance-id is made
  --meta-data FILE       up; both others need --user-data
  --unchecked            take these three as they are. Without it they are held against cloud-init's own reader and
                         schema where it is installed, else read as YAML, and their names held against cloud-init's
  --conf FILE            into site/: takes the place of the image's /etc/kubesolo/update.conf, at each boot
  --keys DIR             into site/: its *.pub and its revoked/ are added to the image's, at each boot; no more than machines
                         look at, together with those of the image and of the update
  --layout DIR           an OCI image layout with an update, into updates/ (/var/lib/kubesolo/updates)

  --force                also a device that is not removable
  --keep-guids           the image's GUIDs, not new ones. Two disks with the same GUIDs in one machine are refused
  --agent BINARY         an agent that runs here, to check --conf and --keys with (default: the one in dist/)
  --yes                  do not ask. Without a terminal nobody is asked, and nothing is written
  --dry-run              check everything, show what would be overwritten, write nothing
  -h, --help             this text

Everything is read back from the device, past the page cache, before the partition table is written: a device that
was pulled out too early, or does not keep what is written to it, does not boot. Then start again.
USAGE
}

say() { printf 'usb-provision: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
# Wrong usage.
misuse() { say "error: $*; --help lists the options"; exit 2; }

cleanup() {
    if [ "$HALF" = yes ]; then say "$DEVICE is half written, and does not boot: start again"; fi
    release_device
    [ -z "$WORK" ] || rm -rf "$WORK"
}

# shellcheck source=scripts/lib/cloud_init.sh
. "$REPO/scripts/lib/cloud_init.sh"
# shellcheck source=scripts/lib/media.sh
. "$REPO/scripts/lib/media.sh"
# shellcheck source=scripts/lib/site.sh
. "$REPO/scripts/lib/site.sh"
# shellcheck source=scripts/lib/agent.sh
. "$REPO/scripts/lib/agent.sh"
# shellcheck source=scripts/lib/together.sh
. "$REPO/scripts/lib/together.sh"

# --- checks

check_arguments() {
    for tool in sgdisk partx lsblk losetup blockdev dd e2fsck resize2fs debugfs unshare setsid timeout jq sha256sum; do
        command -v "$tool" >/dev/null || die "$tool is missing: scripts/install-deps.sh demo brings it"
    done
    check_media_tools
    for file in "$IMAGE" "$USER_DATA" "$META_DATA" "$NETWORK_CONFIG" "$CONF"; do
        if [ -n "$file" ] && { [ ! -f "$file" ] || [ ! -s "$file" ]; }; then die "$file is no file, or empty"; fi
    done
    if [ -z "$USER_DATA" ]; then
        [ -z "$META_DATA$NETWORK_CONFIG" ] || die "cloud-init wants --user-data as well (a file with '#cloud-config' will do)"
    else
        check_cloud_init "$USER_DATA" "$META_DATA" "$NETWORK_CONFIG"
    fi
    # Both are judged by machines' own rules, and a machine that refuses them takes no update for ever.
    if [ -n "$AGENT" ]; then KUBESOLO_UPDATE=$AGENT; fi
    if [ -n "$CONF" ]; then
        not_writable "$CONF"
        judge_conf "$CONF"
    fi
    if [ -n "$KEYS" ]; then check_keys "$KEYS"; fi
}

# open_image: sets RAW, the image as a disk has it.
open_image() {
    RAW=$IMAGE
    magic=$(head -c 6 -- "$IMAGE" | od -An -tx1 | tr -d ' \n')
    case $magic in
        fd377a585a00) unpack xz -dc ;;
        1f8b*) unpack gzip -dc ;;
        514649fb*)
            RAW=$WORK/image
            qemu-img convert -O raw "$IMAGE" "$RAW" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "cannot read $IMAGE"; }
            ;;
    esac
    IMAGE_BYTES=$(wc -c <"$RAW")
}

# unpack COMMAND...
unpack() {
    RAW=$WORK/image
    say "unpacking $IMAGE into ${TMPDIR:-/tmp}"
    "$@" <"$IMAGE" >"$RAW" 2>"$WORK/log" || { cat "$WORK/log" >&2; die "$IMAGE is damaged, or ${TMPDIR:-/tmp} is full (TMPDIR)"; }
}

# check_image: it is one of ours. Sets DATA_START, in MiB, and ARCH.
check_image() {
    partx -g -r -o NR,START,SECTORS,NAME "$RAW" >"$WORK/table" 2>/dev/null || die "$IMAGE is no image of a disk"
    names=$(awk '$1 <= 4 { printf "%s ", $4 }' "$WORK/table")
    [ "$names" = 'KSOLOEFI KSOLOA KSOLOB KSOLODATA ' ] ||
        die "$IMAGE is not an image of KubeSolo OS: partitions 1 to 4 are '$names'"
    DATA_START=$(awk '$1 == 4 && $2 % 2048 == 0 { print $2 / 2048 }' "$WORK/table")
    data_end=$(awk '$1 == 4 { print $2 + $3 }' "$WORK/table")
    last=$(awk '{ end = $2 + $3; if (end > last) last = end } END { print last }' "$WORK/table")
    if [ -z "$DATA_START" ] || [ "$last" -ne "$data_end" ] || [ "$((data_end * 512))" -gt "$IMAGE_BYTES" ]; then
        die "$IMAGE: KSOLODATA is not its last partition, does not begin at a whole MiB, or is cut off"
    fi
    # Rounded up; what lies behind is the copy of the table.
    WRITE_MIB=$(((data_end + 2047) / 2048))
    slot=$(awk '$1 == 2 { print $2 * 512 }' "$WORK/table")
    ARCH=$(debugfs -R 'cat /slot.json' "$RAW?offset=$slot" 2>/dev/null | jq -r '.architecture // ""' 2>/dev/null) || ARCH=
    [ -n "$ARCH" ] || die "$IMAGE: there is no system in slot A"
}

check_device() {
    [ -e "$DEVICE" ] || die "$DEVICE is not there"
    real=$(readlink -f -- "$DEVICE")
    [ -b "$real" ] || die "$DEVICE is no block device"
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

check_layout_fits() {
    [ -n "$LAYOUT" ] || return 0
    if ! jq -e '.imageLayoutVersion == "1.0.0"' "$LAYOUT/oci-layout" >/dev/null 2>&1 ||
        ! jq -e '.manifests | type == "array"' "$LAYOUT/index.json" >/dev/null 2>&1; then
        die "--layout $LAYOUT is not an OCI image layout (a directory with oci-layout and index.json)"
    fi
    jq -r '.manifests[].digest | ltrimstr("sha256:")' "$LAYOUT/index.json" | while read -r hex; do
        jq -r '.manifests[]?.platform.architecture, .annotations["io.kubesolo.os.architecture"]? // empty' \
            "$LAYOUT/blobs/sha256/$hex" 2>/dev/null || :
    done >"$WORK/arches"
    grep -qx -- "$ARCH" "$WORK/arches" || die "--layout $LAYOUT has no update for $ARCH, which the image is for"
    layout_mib=$(($(du -s --apparent-size -B 1M -- "$LAYOUT" | cut -f 1) + OVERHEAD_MIB))
    [ "$layout_mib" -le "$DATA_MIB" ] ||
        die "--layout $LAYOUT needs $layout_mib MiB of the data partition, which has $DATA_MIB MiB on $DEVICE"
}

# --- what a person sees

show() {
    say "on $DEVICE, everything is lost:"
    lsblk -o NAME,SIZE,TYPE,FSTYPE,LABEL,PARTLABEL,MODEL,SERIAL "$DEVICE" | sed 's/^/  /' >&2
    say "to be written: $IMAGE ($ARCH, $WRITE_MIB MiB); KSOLODATA grows to $DATA_MIB MiB, with:"
    (cd "$WORK/tree" && find . -type f | LC_ALL=C sort | sed 's|^\./|  |') >&2
}

confirm() {
    [ "$YES" = no ] || return 0
    [ -t 0 ] || die "nobody is here to be asked, and --yes was not given: nothing was written"
    printf 'usb-provision: type %s to overwrite it: ' "$DEVICE" >&2
    read -r answer || answer=
    [ "$answer" = "$DEVICE" ] || die "not confirmed: nothing was written"
}

# progress WHAT DONE OF: on a terminal one line that changes, else a line for each tenth.
progress() {
    percent=$(($2 * 100 / $3))
    if [ -t 2 ]; then
        printf '\rusb-provision: %s: %d of %d MiB, %d %% ' "$1" "$2" "$3" "$percent" >&2
        if [ "$2" -eq "$3" ]; then echo >&2; fi
    elif [ $((percent / 10)) -ne "${TENTH:-0}" ]; then
        TENTH=$((percent / 10))
        say "$1: $2 of $3 MiB, $percent %"
    fi
}

# --- the site's files

# put MODE FILE PATH
put() {
    mkdir -p "$WORK/tree/$(dirname -- "$3")"
    cp -- "$2" "$WORK/tree/$3"
    chmod "$1" "$WORK/tree/$3"
}

make_tree() {
    mkdir "$WORK/tree"
    if [ -n "$USER_DATA" ]; then
        # They may hold passwords.
        mkdir -m 700 "$WORK/tree/cloud-init"
        put 600 "$USER_DATA" cloud-init/user-data
        if [ -z "$META_DATA" ]; then
            META_DATA=$WORK/meta-data
            printf 'instance-id: iid-%s\n' "$(cat /proc/sys/kernel/random/uuid)" >"$META_DATA"
        fi
        put 600 "$META_DATA" cloud-init/meta-data
        if [ -n "$NETWORK_CONFIG" ]; then put 600 "$NETWORK_CONFIG" cloud-init/network-config; fi
    fi
    if [ -n "$CONF" ]; then put 644 "$CONF" site/update.conf; fi
    if [ -n "$KEYS" ]; then
        for key in "$KEYS"/*.pub "$KEYS"/revoked/*; do
            [ -f "$key" ] || continue
            put 644 "$key" "site/update-keys.d/${key#"$KEYS"/}"
        done
    fi
    if [ -n "$LAYOUT" ]; then
        mkdir "$WORK/tree/updates"
        cp -r --no-preserve=mode,ownership -- "$LAYOUT/." "$WORK/tree/updates/"
    fi
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

# hash_of FILE BYTES MIB [FLAG]: so many MiB, behind so many bytes.
hash_of() { dd if="$1" bs="$MIB" skip="$2" count="$3" iflag="skip_bytes${4+,$4}" status=none | sha256sum; }

read_back() {
    at=1 TENTH=0
    while [ "$at" -lt "$DATA_START" ]; do
        count=$((DATA_START - at < CHUNK_MIB ? DATA_START - at : CHUNK_MIB))
        wanted=$(hash_of "$RAW" $((at * MIB)) "$count")
        found=$(hash_of "$DEVICE" $((at * MIB)) "$count" direct)
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
        wanted=$(hash_of "$WORK/disk" "$bytes" 1)
        found=$(hash_of "$DEVICE" "$bytes" 1 direct)
        if [ "$wanted" != "$found" ]; then
            wipe
            die "$DEVICE does not keep what is written to it: the partition table"
        fi
    done
    HALF=no
    release_device
    blockdev --rereadpt "$DEVICE" >/dev/null 2>&1 || :
}

main() {
    LC_ALL=C
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    export LC_ALL PATH
    umask 022
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --force) FORCE=yes; shift; continue ;;
            --keep-guids) KEEP_GUIDS=yes; shift; continue ;;
            --unchecked) UNCHECKED=yes; shift; continue ;;
            --yes) YES=yes; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --image | --device | --user-data | --meta-data | --network-config | --conf | --keys | --layout | --agent)
                [ $# -ge 2 ] || misuse "$1 needs a value" ;;
            *) misuse "unknown option: $1" ;;
        esac
        case $1 in
            --image) IMAGE=$2 ;;
            --device) DEVICE=$2 ;;
            --user-data) USER_DATA=$2 ;;
            --meta-data) META_DATA=$2 ;;
            --network-config) NETWORK_CONFIG=$2 ;;
            --conf) CONF=$2 ;;
            --keys) KEYS=$2 ;;
            --layout) LAYOUT=${2%/} ;;
            --agent) AGENT=$2 ;;
        esac
        shift 2
    done
    [ -n "$IMAGE" ] || misuse "--image is missing"
    [ -n "$DEVICE" ] || misuse "--device is missing: nothing is guessed"
    trap cleanup EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    WORK=$(mktemp -d)
    check_arguments
    open_image
    check_image
    check_device
    check_layout_fits
    check_keys_together "$RAW"
    make_tree
    show
    if [ "$DRY_RUN" = yes ]; then say "dry run: nothing was written"; exit 0; fi
    make_table
    confirm
    same_device
    check_users
    wipe
    write_image
    fill_data
    read_back
    same_device
    write_table
    say "$DEVICE is written and read back: it is ready"
}

main "$@"
