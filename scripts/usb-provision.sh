#!/bin/sh
# Writes a disk image onto a stick or a disk, with what is this machine's own: cloud-init's files, update.conf, keys, and a first
# update. For sites without a network.
#
# The table of partitions is written last, when everything else has been read back from the device: what is half written does
# not boot. Must never: write to a device that is in use, or that nobody named; believe the page cache.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

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

clean_up() {
    if [ "$HALF" = yes ]; then say "$DEVICE is half written, and does not boot: start again"; fi
    release_device
}

# shellcheck source=scripts/lib/cloud_init.sh
. "$REPO/scripts/lib/cloud_init.sh"
# shellcheck source=scripts/lib/media.sh
. "$REPO/scripts/lib/media.sh"
# shellcheck source=scripts/lib/device.sh
. "$REPO/scripts/lib/device.sh"
# shellcheck source=scripts/lib/site.sh
. "$REPO/scripts/lib/site.sh"
# shellcheck source=scripts/lib/agent.sh
. "$REPO/scripts/lib/agent.sh"
# shellcheck source=scripts/lib/together.sh
. "$REPO/scripts/lib/together.sh"

# --- checks

check_arguments() {
    need_tools "scripts/install-deps.sh demo brings it" sgdisk partx lsblk losetup blockdev dd e2fsck resize2fs debugfs \
        unshare setsid timeout jq sha256sum
    check_media_tools
    for file in "$IMAGE" "$USER_DATA" "$META_DATA" "$NETWORK_CONFIG" "$CONF"; do
        if [ -n "$file" ] && { [ ! -f "$file" ] || [ ! -s "$file" ]; }; then die "$file is not a regular file, or empty"; fi
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
    partx -g -r -o NR,START,SECTORS,NAME "$RAW" >"$WORK/table" 2>/dev/null || die "$IMAGE is not a disk image"
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
    say "to be written: $IMAGE ($ARCH, $WRITE_MIB MiB); KSOLODATA grows to $DATA_MIB MiB, with these files:"
    (cd "$WORK/tree" && { find . -type f | LC_ALL=C sort | grep . || echo ./none; } | sed 's|^\./|  |') >&2
}

confirm() {
    [ "$YES" = no ] || return 0
    [ -t 0 ] || die "there is no terminal to ask at, and --yes was not given: nothing was written"
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
                need_value "$@" ;;
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
    work_folder
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
