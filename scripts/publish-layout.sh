#!/bin/sh
# Publishes one version, for one or several architectures, into an OCI image layout directory.
#
# The same artifact that `oras push` and `oras manifest index create` make in a registry, without a
# registry and without oras. jq reads and writes the JSON: index.json may hold entries of other tools
# (a signature, another repository's tag), and they have to survive whatever their shape.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

LAYOUT=
DRY_RUN=no
PARTIAL=

usage() {
    cat <<USAGE
Usage: scripts/publish-layout.sh --layout DIR --tag TAG --version V [OPTION]...
           --arch amd64 --kernel FILE --initramfs FILE [--arch arm64 --kernel FILE --initramfs FILE]

Publishes version V into the OCI image layout DIR, which is made where it is missing. What the tag
named before stays in DIR, without a name; other tags stay as they are. The last step is one rename:
a reader sees the old content or the new one. Prints the digest of the image index.

  --tag TAG              may be given several times (--tag 1.2.0 --tag latest). Not moved to a version older than the one
                         it names, nor to one released before it, nor away from an architecture
USAGE
    older_usage
    release_usage
    chunks_usage
    cat <<USAGE
  --dry-run              check everything, say what would be published, write nothing
  -h, --help             this text

With the same input, the same bytes: publishing something twice changes nothing.
USAGE
}

clean_up() { [ -z "$PARTIAL" ] || rm -f "$PARTIAL"; }

# shellcheck source=scripts/lib/release.sh
. "$REPO/scripts/lib/release.sh"
# shellcheck source=scripts/lib/published.sh
. "$REPO/scripts/lib/published.sh"

check() {
    [ -n "$LAYOUT" ] || misuse "--layout is missing"
    [ -n "$TAGS" ] || misuse "--tag is missing"
    check_release
    check_layout "$LAYOUT"
    say_dates
}

# Makes every document, and the list of blobs, beside the layout.
plan() {
    : >"$WORK/blobs"
    # In one order, whatever order they were given in.
    for arch in amd64 arm64; do
        case " $ARCHES " in *" $arch "*) ;; *) continue ;; esac
        manifest "$arch"
        printf '%s\n' "$DESCRIPTOR" >>"$WORK/manifests"
    done
    index "$WORK/manifests" "$WORK/index"
    describe "$INDEX_TYPE" "$WORK/index"
    DIGEST=sha256:$HEX
    say "version $VERSION ($CHANNEL) for$ARCHES: index $DIGEST"
    check_older
    warn_twice
}

# obtain DIGEST FILE: a document of the layout. False: there is none.
obtain() {
    [ -f "$LAYOUT/blobs/sha256/${1#sha256:}" ] || return 1
    cp -- "$LAYOUT/blobs/sha256/${1#sha256:}" "$2" || die "cannot read $1 of $LAYOUT"
}

# check_older: what the tags name.
check_older() {
    [ -e "$LAYOUT/index.json" ] || return 0
    for tag in $TAGS; do
        jq -r --arg tag "$tag" '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"]? == $tag) | .digest
            | strings | select(test("^sha256:[0-9a-f]{64}$"))' "$LAYOUT/index.json" >"$WORK/named"
        while read -r named; do
            [ "$named" != "$DIGEST" ] || continue
            refuse_unsigned "$LAYOUT:$tag" "$named"
            refuse_older_below "$LAYOUT:$tag" "$named"
            refuse_partial_below "$LAYOUT:$tag" "$named"
        done <"$WORK/named"
    done
}

# refuse_unsigned NAME DIGEST: another build of the version that NAME names and somebody has signed (other dates are enough) would take
# its signature away, and machines would find none.
refuse_unsigned() {
    [ "$ALLOW_OLDER" = no ] || return 0
    files_of "$LAYOUT/blobs/sha256/${2#sha256:}" | jq -e --arg version "$VERSION" 'select(.[0] == $version)' >/dev/null || return 0
    jq -r '.manifests[]?.digest | strings | select(startswith("sha256:")) | .[7:]' "$LAYOUT/index.json" |
        while IFS= read -r hex; do
            jq -r '.subject.digest? | strings' "$LAYOUT/blobs/sha256/$hex" 2>/dev/null || :
        done | grep -qxF "$2" || return 0
    die "$1 has version $VERSION, signed, and this is another build of it, which is not signed (other dates are enough; type" \
        "those that are there): nothing was written. Take another --version, or --allow-older and sign it anew"
}

# files_of DOCUMENT...: a line a manifest, of its version, channel, architecture and layers, without chunk indexes; image indexes are followed within the layout.
files_of() {
    for document in "$@"; do
        [ -f "$document" ] || continue
        jq -c 'select(.annotations["io.kubesolo.os.version"]?)
            | [(.annotations | .["io.kubesolo.os.version"], .["io.kubesolo.os.channel"], .["io.kubesolo.os.architecture"]),
               [.layers[]? | select(.mediaType != $chunks) | .digest]]' --arg chunks "$CHUNKS_TYPE" "$document" 2>/dev/null || :
        jq -r '.manifests[]?.digest | strings | select(startswith("sha256:")) | .[7:]' "$document" 2>/dev/null |
            while IFS= read -r hex; do files_of "$LAYOUT/blobs/sha256/$hex"; done
    done
}

# A machine takes a version once: the same one with other files is another build to it.
warn_twice() {
    [ -e "$LAYOUT/index.json" ] || return 0
    files_of "$LAYOUT/index.json" | sort -u >"$WORK/there"
    cut -d ' ' -f 2- "$WORK/blobs" | while IFS= read -r file; do
        case $file in "$WORK"/*) files_of "$file" ;; esac
    done | sort -u >"$WORK/ours"
    jq -rn --slurpfile there "$WORK/there" --slurpfile ours "$WORK/ours" \
        '$ours[] as $our | $there[] | select(.[:3] == $our[:3] and .[3] != $our[3]) | .[2]' | sort -u |
        while IFS= read -r arch; do
            warn "$LAYOUT has version $VERSION ($CHANNEL) for $arch already, with other files: machines that run those" \
                "refuse these (gate newer) unless --allow-downgrade is given there. Take another --version"
        done
}

# Writes the new index.json to stdout: an entry with one of our tags makes room where it stands.
new_index() {
    if [ -e "$LAYOUT/index.json" ]; then
        cat "$LAYOUT/index.json"
    else
        jq -cn --arg type "$INDEX_TYPE" '{schemaVersion: 2, mediaType: $type, manifests: []}'
    fi | jq --arg tags "$TAGS" --argjson entry "$DESCRIPTOR" '
        def tag: .annotations["org.opencontainers.image.ref.name"]?;
        reduce ($tags | split(" ")[] | select(. != "")) as $tag (.;
            ([.manifests[] | tag == $tag] | index(true)) as $at
            | ($entry + {annotations: {"org.opencontainers.image.ref.name": $tag}}) as $new
            | .manifests |= if $at == null then . + [$new]
                else .[:$at] + [$new] + (.[$at + 1:] | map(select(tag != $tag))) end)'
}

# replace SOURCE TARGET [HASH]: through a temporary name, durable before it counts.
replace() {
    PARTIAL=$(dirname -- "$2")/.publish.$$
    cp -- "$1" "$PARTIAL" || die "cannot write $PARTIAL"
    sync -- "$PARTIAL"
    hash "$PARTIAL"
    if [ $# -eq 3 ] && [ "$HEX" != "$3" ]; then
        die "$1 changed while it was read, or $LAYOUT does not keep what is written to it"
    fi
    mv -f -- "$PARTIAL" "$2"
    PARTIAL=
}

store() {
    mkdir -p -- "$LAYOUT/blobs/sha256"
    # Two at once would each write an index.json without the other's tag.
    exec 9<"$LAYOUT"
    flock -n 9 || die "another run publishes into $LAYOUT"
    # Another run may have ended since.
    check_older
    rm -f -- "$LAYOUT"/.publish.* "$LAYOUT"/blobs/sha256/.publish.*
    if [ ! -e "$LAYOUT/oci-layout" ]; then
        printf '{"imageLayoutVersion":"1.0.0"}' >"$WORK/oci-layout"
        replace "$WORK/oci-layout" "$LAYOUT/oci-layout"
    fi
    while read -r hex file; do
        target=$LAYOUT/blobs/sha256/$hex
        # A medium may have damaged what was there before.
        if [ -f "$target" ]; then
            hash "$target"
            if [ "$HEX" = "$hex" ]; then continue; fi
        fi
        replace "$file" "$target" "$hex"
    done <"$WORK/blobs"
    sync -f -- "$LAYOUT"
    new_index >"$WORK/index.json"
    if cmp -s "$WORK/index.json" "$LAYOUT/index.json"; then
        say "$LAYOUT has it already under:$TAGS"
    else
        replace "$WORK/index.json" "$LAYOUT/index.json"
        sync -f -- "$LAYOUT"
        say "published in $LAYOUT as:$TAGS"
    fi
}

main() {
    LC_ALL=C
    export LC_ALL
    umask 022
    note_typed "$@"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --allow-older) ALLOW_OLDER=yes; shift; continue ;;
            --partial) ALLOW_PARTIAL=yes; shift; continue ;;
            --no-chunks) CHUNKS=no; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            *)
                [ "$1" = --layout ] || [ "$1" = --tag ] || is_release_option "$1" || misuse "unknown option: $1"
                need_value "$@"
                ;;
        esac
        case $1 in
            --layout) LAYOUT=$2 ;;
            --tag) add_tag "$2" ;;
            *) release_option "$1" "$2" ;;
        esac
        shift 2
    done
    work_folder
    check
    plan
    if [ "$DRY_RUN" = yes ]; then
        say "dry run: nothing was written; it would be in $LAYOUT as:$TAGS"
    else
        store
    fi
    printf '%s\n' "$DIGEST"
}

main "$@"
