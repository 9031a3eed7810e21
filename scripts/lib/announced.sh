# shellcheck shell=sh
# What the next latest.json says: entries of files, of architectures, of all. Sourced by scripts/publish-http.sh behind lib/release.sh, not
# run; WORK/files gets a line a file that is to be there: its SHA-256, its url, where it is now.

# describe_file NAME URL FILE: sets ENTRY to what latest.json says of it.
describe_file() {
    entry_of "$2" "$3"
    file=$OF
    chunk_index "$3" "$HEX" "$1"
    chunks=null
    if [ -n "$CHUNK_INDEX" ]; then
        entry_of "$2.chunks" "$CHUNK_INDEX"
        chunks=$OF
    fi
    ENTRY=$(jq -cn --arg name "$1" --argjson file "$file" --argjson chunks "$chunks" \
        '{($name): ($file + if $chunks then {chunks: $chunks} else {} end)}')
}

# entry_of URL FILE: sets OF to what is said of one file, and HEX.
entry_of() {
    hash "$2"
    printf '%s %s %s\n' "$HEX" "$1" "$2" >>"$WORK/files"
    OF=$(jq -cn --arg url "$1" --arg sha256 "$HEX" --argjson size "$(wc -c <"$2")" '{url: $url, sha256: $sha256, size: $size}')
}

# entry ARCH: makes WORK/entry-ARCH.
entry() {
    choose "$1"
    describe_file kernel "$VERSION/$1/vmlinuz" "$KERNEL"
    kernel=$ENTRY
    joined >"$WORK/initramfs-$1"
    describe_file initramfs "$VERSION/$1/kubesolo-os.gz" "$WORK/initramfs-$1"
    say_chunks "$1"
    jq -cn --arg arch "$1" --argjson kernel "$kernel" --argjson initramfs "$ENTRY" \
        '{architecture: $arch} + $kernel + $initramfs' >"$WORK/entry-$1"
}

# warn_uncommon: of an initramfs that has hardly anything in common with that of the version before, which WORK/before/latest.json names.
warn_uncommon() {
    if [ -z "$BEFORE" ] || [ "$CHUNKS" = no ] || [ "$before" = "$VERSION" ]; then return 0; fi
    for arch in $ARCHES; do
        [ "$(wc -c <"$WORK/initramfs-$arch")" -ge "$LEAST_CHUNKED" ] || continue
        url=$(jq -r --arg arch "$arch" '[.artifacts[]? | select(.architecture == $arch) | .initramfs.url | strings][0] // ""' "$BEFORE")
        # Nothing but a file of the directory.
        case /$url/ in // | //* | */../* | *[!A-Za-z0-9._/+-]*) continue ;; esac
        [ -f "$DIR/$url" ] || continue
        said=$("$KUBESOLO_CHUNKS" compare "$DIR/$url" "$WORK/initramfs-$arch" 2>/dev/null) || continue
        case $said in *'hardly anything in common'*) ;; *) continue ;; esac
        numbers=$(printf '%s\n' "$said" | sed -n 's/^fetch=\([0-9]*\) .* size=\([0-9]*\)$/\1 of the \2/p')
        warn "machines of $arch that run $before would fetch $numbers bytes of the initramfs: either nearly all of it is new, or" \
            "one of the two is not packed with gzip -9n --rsyncable, sorted names and fixed times (docs/publishing.md, Only what changed)"
    done
}

# head_of: what latest.json says of all architectures.
head_of() {
    jq -n --arg version "$VERSION" --arg channel "$CHANNEL" --arg min "$MIN_COMPATIBLE" --arg notes "$NOTES" \
        --arg date "$RELEASE_DATE" --arg expires "$EXPIRES" \
        '{version: $version, channel: $channel, min_compatible_version: $min, release_notes: $notes,
          release_date: $date, expires: $expires} | with_entries(select(.value != ""))'
}
