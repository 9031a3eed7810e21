# shellcheck shell=sh
# The keys of an image and of a site, which a machine adds up: with more than it looks at it takes no update, and nothing says so
# before the first one. The agent judges. Sourced, not run; behind lib/site.sh, whose caller has WORK and die.

INITRAMFS_TYPE=application/vnd.kubesolo.os.initramfs.v1+gzip

# check_together WHAT INITRAMFS...: an initramfs, or its parts.
check_together() {
    what=$1
    shift
    for part in "$@"; do
        shift
        set -- "$@" --initramfs "$part"
    done
    find_agent
    TMPDIR=$WORK "$KUBESOLO_UPDATE" lint --keys "$KEYS" "$@" >"$WORK/log" 2>&1 || {
        sed "s|$WORK/||g" "$WORK/log" >&2
        die "$what and --keys $KEYS do not go together: a machine adds them up (leave out those that the image has)"
    }
}

# check_keys_together IMAGE: with each system of an image, and each update for ARCH in LAYOUT. WORK/table has the image's partitions.
check_keys_together() {
    [ -n "$KEYS" ] || return 0
    for slot in A B; do
        place=$(awk -v name="KSOLO$slot" '$4 == name { print $2 * 512 }' "$WORK/table")
        rm -f "$WORK/initramfs"
        debugfs -R "dump /kubesolo-os.gz $WORK/initramfs" "$1?offset=$place" >/dev/null 2>&1 || :
        # Slot B may be empty; that slot A is not is known.
        if [ -s "$WORK/initramfs" ]; then check_together "slot $slot of the image" "$WORK/initramfs"; fi
    done
    rm -f "$WORK/initramfs"
    [ -n "$LAYOUT" ] || return 0
    layout_manifests >"$WORK/manifests"
    while read -r hex; do
        blobs=$(jq -r --arg type "$INITRAMFS_TYPE" --arg dir "$LAYOUT/blobs/sha256/" \
            '.layers[]? | select(.mediaType == $type) | $dir + (.digest | ltrimstr("sha256:"))' "$LAYOUT/blobs/sha256/$hex")
        [ -n "$blobs" ] || continue
        printf '%s\n' "$blobs" >"$WORK/blobs"
        set --
        while IFS= read -r blob; do set -- "$@" "$blob"; done <"$WORK/blobs"
        check_together "the update sha256:$hex in --layout $LAYOUT" "$@"
    done <"$WORK/manifests"
}

# layout_manifests: the digests, in hexadecimal, of what LAYOUT has for ARCH.
layout_manifests() {
    jq -r '.manifests[].digest | ltrimstr("sha256:")' "$LAYOUT/index.json" | while read -r hex; do
        echo "$hex"
        jq -r '.manifests[]?.digest | ltrimstr("sha256:")' "$LAYOUT/blobs/sha256/$hex" 2>/dev/null || :
    done | sort -u | while read -r hex; do
        jq -e --arg arch "$ARCH" '.annotations["io.kubesolo.os.architecture"]? == $arch' "$LAYOUT/blobs/sha256/$hex" \
            >/dev/null 2>&1 && echo "$hex"
    done || :
}
