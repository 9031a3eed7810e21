#!/bin/sh
# Publishes one version, for one or several architectures, into an OCI image layout directory.
#
# The same artifact that `oras push` and `oras manifest index create` make in a registry, without a
# registry and without oras. jq reads and writes the JSON: index.json may hold entries of other tools
# (a signature, another repository's tag), and they have to survive whatever their shape.
set -eu

ARTIFACT_TYPE=application/vnd.kubesolo.os.update.v1
KERNEL_TYPE=application/vnd.kubesolo.os.kernel.v1+octet-stream
INITRAMFS_TYPE=application/vnd.kubesolo.os.initramfs.v1+gzip
CONFIG_TYPE=application/vnd.oci.image.config.v1+json
MANIFEST_TYPE=application/vnd.oci.image.manifest.v1+json
INDEX_TYPE=application/vnd.oci.image.index.v1+json

LAYOUT=
TAGS=
VERSION=
CHANNEL=stable
MIN_COMPATIBLE=
NOTES=
RELEASE_DATE=
EXPIRES=
ARCH=
ARCHES=
AMD64_KERNEL=
AMD64_INITRAMFS=
ARM64_KERNEL=
ARM64_INITRAMFS=
DRY_RUN=no
WORK=
PARTIAL=

usage() {
    cat <<USAGE
Usage: scripts/publish-layout.sh --layout DIR --tag TAG --version V [OPTION]...
           --arch amd64 --kernel FILE --initramfs FILE [--arch arm64 --kernel FILE --initramfs FILE]

Publishes version V into the OCI image layout DIR, which is made where it is missing. What the tag
named before stays in DIR, without a name; other tags stay as they are. The last step is one rename:
a reader sees the old content or the new one. Prints the digest of the image index.

  --tag TAG              may be given several times (--tag 1.2.0 --tag latest)
  --channel NAME         channel of this version (default: $CHANNEL)
  --min-compatible V     least running version that may take this update
  --notes TEXT           release notes
  --release-date TIME    RFC 3339, 2026-01-31T12:00:00Z for example
  --expires TIME         from then on no machine takes it any more
  --dry-run              check everything, say what would be published, write nothing
  -h, --help             this text

With the same input, the same bytes: publishing something twice changes nothing.
USAGE
}

say() { printf 'publish-layout: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

cleanup() {
    [ -z "$WORK" ] || rm -rf "$WORK"
    [ -z "$PARTIAL" ] || rm -f "$PARTIAL"
}

# matches TEXT PATTERN: the whole text, which is one line.
matches() {
    [ "$(printf '%s' "$1" | wc -l)" -eq 0 ] && printf '%s\n' "$1" | grep -qxE -e "$2"
}

# semver OPTION TEXT: as src/version.rs reads it.
semver() {
    number='(0|[1-9][0-9]{0,17})'
    word='(0|[1-9][0-9]{0,17}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)'
    build='[0-9A-Za-z-]+'
    matches "$2" "v?$number\\.$number\\.$number(-$word(\\.$word)*)?(\\+$build(\\.$build)*)?" ||
        die "$1 must be a semantic version such as 1.2.0 or 1.3.0-rc.1, not '$2'"
    [ "${#2}" -le 128 ] || die "$1 is longer than 128 characters"
}

# moment OPTION TEXT: a time that exists, in the one form that leaves no doubt.
moment() {
    [ -n "$2" ] || return 0
    day='(19[7-9]|[2-9][0-9]{2})[0-9]-[0-9]{2}-[0-9]{2}'
    if ! matches "$2" "${day}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})" || ! date -d "$2" >/dev/null 2>&1; then
        die "$1 must be a time such as 2026-01-31T12:00:00Z, not '$2'"
    fi
}

check_notes() {
    printf '%s' "$NOTES" | iconv -f UTF-8 -t UTF-8 >/dev/null 2>&1 || die "--notes is not UTF-8"
    if printf '%s' "$NOTES" | tr -d '\n\t' | grep -q '[[:cntrl:]]'; then
        die "--notes holds a control character other than newline and tab"
    fi
}

# input OPTION ARCH FILE
input() {
    [ -n "$3" ] || die "--arch $2 has no $1"
    [ -f "$3" ] || die "$3 is not a file"
    [ -s "$3" ] || die "$3 is empty"
}

check() {
    for tool in jq flock iconv gzip sha256sum; do
        command -v "$tool" >/dev/null || die "$tool is missing: install the package that has it (Debian: jq," \
            "util-linux, libc-bin, gzip, coreutils)"
    done
    [ -n "$LAYOUT" ] || die "--layout is missing"
    [ -n "$TAGS" ] || die "--tag is missing"
    [ -n "$VERSION" ] || die "--version is missing"
    [ -n "$ARCHES" ] || die "--arch is missing"
    semver --version "$VERSION"
    [ -z "$MIN_COMPATIBLE" ] || semver --min-compatible "$MIN_COMPATIBLE"
    matches "$CHANNEL" '[A-Za-z0-9._-]{1,64}' ||
        die "--channel may hold letters, digits, '.', '_' and '-' only, not '$CHANNEL'"
    moment --release-date "$RELEASE_DATE"
    moment --expires "$EXPIRES"
    check_notes
    for arch in $ARCHES; do
        choose "$arch"
        input --kernel "$arch" "$KERNEL"
        input --initramfs "$arch" "$INITRAMFS"
        gzip -t <"$INITRAMFS" 2>/dev/null || die "$INITRAMFS is not whole gzip: no kernel could unpack it"
    done
    check_layout
}

# A directory that is something else is not made into a layout.
check_layout() {
    [ -e "$LAYOUT" ] || return 0
    [ -d "$LAYOUT" ] || die "$LAYOUT is not a directory"
    if [ -e "$LAYOUT/oci-layout" ]; then
        jq -e '.imageLayoutVersion == "1.0.0"' "$LAYOUT/oci-layout" >/dev/null 2>&1 ||
            die "$LAYOUT/oci-layout does not say imageLayoutVersion 1.0.0"
    elif [ -n "$(ls -A "$LAYOUT")" ]; then
        die "$LAYOUT is neither empty nor an OCI image layout"
    fi
    [ -e "$LAYOUT/index.json" ] || return 0
    jq -e '.schemaVersion == 2 and (.manifests | type == "array" and all(type == "object"))' \
        "$LAYOUT/index.json" >/dev/null 2>&1 || die "$LAYOUT/index.json is not an image index"
}

# choose ARCH: sets KERNEL and INITRAMFS.
choose() {
    case $1 in
        amd64) KERNEL=$AMD64_KERNEL INITRAMFS=$AMD64_INITRAMFS ;;
        arm64) KERNEL=$ARM64_KERNEL INITRAMFS=$ARM64_INITRAMFS ;;
    esac
}

# hash FILE: sets HEX. An assignment of its own, so that a file that cannot be read ends the run.
hash() {
    HEX=$(sha256sum <"$1")
    HEX=${HEX%% *}
}

# describe MEDIA_TYPE FILE [TITLE]: sets DESCRIPTOR; FILE is put into the layout later on.
describe() {
    hash "$2"
    printf '%s %s\n' "$HEX" "$2" >>"$WORK/blobs"
    size=$(wc -c <"$2")
    DESCRIPTOR=$(jq -cn --arg type "$1" --arg digest "sha256:$HEX" --argjson size "$size" --arg title "${3-}" \
        '{mediaType: $type, digest: $digest, size: $size}
         + if $title == "" then {} else {annotations: {"org.opencontainers.image.title": $title}} end')
}

# manifest ARCH: adds its descriptor to what the index will list.
manifest() {
    choose "$1"
    jq -cnj --arg arch "$1" '{architecture: $arch, os: "linux"}' >"$WORK/config-$1"
    describe "$CONFIG_TYPE" "$WORK/config-$1"
    config=$DESCRIPTOR
    describe "$KERNEL_TYPE" "$KERNEL" vmlinuz
    kernel=$DESCRIPTOR
    describe "$INITRAMFS_TYPE" "$INITRAMFS" kubesolo-os.gz
    initramfs=$DESCRIPTOR
    jq -cnj --arg type "$MANIFEST_TYPE" --arg artifact "$ARTIFACT_TYPE" --arg arch "$1" --arg version "$VERSION" \
        --arg channel "$CHANNEL" --arg min "$MIN_COMPATIBLE" --arg notes "$NOTES" --arg date "$RELEASE_DATE" \
        --arg expires "$EXPIRES" --argjson config "$config" --argjson kernel "$kernel" \
        --argjson initramfs "$initramfs" \
        '{schemaVersion: 2, mediaType: $type, artifactType: $artifact, config: $config,
          layers: [$kernel, $initramfs],
          annotations: ({version: $version, channel: $channel, architecture: $arch,
              min_compatible_version: $min, release_notes: $notes, release_date: $date, expires: $expires}
              | with_entries(select(.value != "") | .key |= "io.kubesolo.os." + .))}' >"$WORK/manifest-$1"
    describe "$MANIFEST_TYPE" "$WORK/manifest-$1"
    printf '%s\n' "$DESCRIPTOR" | jq -c --arg arch "$1" --arg artifact "$ARTIFACT_TYPE" \
        '. + {platform: {architecture: $arch, os: "linux"}, artifactType: $artifact}' >>"$WORK/manifests"
}

# Makes every document, and the list of blobs, beside the layout.
plan() {
    : >"$WORK/blobs"
    # In one order, whatever order they were given in.
    for arch in amd64 arm64; do
        case " $ARCHES " in *" $arch "*) manifest "$arch" ;; esac
    done
    jq -csj --arg type "$INDEX_TYPE" --arg artifact "$ARTIFACT_TYPE" \
        '{schemaVersion: 2, mediaType: $type, artifactType: $artifact, manifests: .}' "$WORK/manifests" >"$WORK/index"
    describe "$INDEX_TYPE" "$WORK/index"
    DIGEST=sha256:$HEX
    say "version $VERSION ($CHANNEL) for$ARCHES: index $DIGEST"
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

add_tag() {
    matches "$1" '[A-Za-z0-9_][A-Za-z0-9._-]{0,127}' || die "--tag '$1' is not a tag (letters, digits, '_', '.', '-')"
    case "$TAGS " in *" $1 "*) die "--tag $1 is given twice" ;; esac
    TAGS="$TAGS $1"
}

add_arch() {
    case $1 in amd64 | arm64) ;; *) die "--arch must be amd64 or arm64, not '$1'" ;; esac
    case "$ARCHES " in *" $1 "*) die "--arch $1 is given twice" ;; esac
    ARCH=$1
    ARCHES="$ARCHES $1"
}

# add_file OPTION FILE: of the --arch before it. A newline would break the list of blobs.
add_file() {
    matches "$2" '.*' || die "$1: a newline in a file name"
    case $ARCH$1 in
        amd64--kernel) [ -z "$AMD64_KERNEL" ] || die "two kernels for amd64"; AMD64_KERNEL=$2 ;;
        amd64--initramfs) [ -z "$AMD64_INITRAMFS" ] || die "two initramfs for amd64"; AMD64_INITRAMFS=$2 ;;
        arm64--kernel) [ -z "$ARM64_KERNEL" ] || die "two kernels for arm64"; ARM64_KERNEL=$2 ;;
        arm64--initramfs) [ -z "$ARM64_INITRAMFS" ] || die "two initramfs for arm64"; ARM64_INITRAMFS=$2 ;;
        *) die "$1 comes after the --arch it is for" ;;
    esac
}

main() {
    LC_ALL=C
    export LC_ALL
    umask 022
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --layout | --tag | --version | --channel | --min-compatible | --notes | --release-date | --expires | \
                --arch | --kernel | --initramfs) [ $# -ge 2 ] || die "$1 needs a value" ;;
            *) usage >&2; die "unknown option: $1" ;;
        esac
        case $1 in
            --layout) LAYOUT=$2 ;;
            --tag) add_tag "$2" ;;
            --version) VERSION=$2 ;;
            --channel) CHANNEL=$2 ;;
            --min-compatible) MIN_COMPATIBLE=$2 ;;
            --notes) NOTES=$2 ;;
            --release-date) RELEASE_DATE=$2 ;;
            --expires) EXPIRES=$2 ;;
            --arch) add_arch "$2" ;;
            --kernel | --initramfs) add_file "$1" "$2" ;;
        esac
        shift 2
    done
    check
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    WORK=$(mktemp -d)
    plan
    if [ "$DRY_RUN" = yes ]; then
        say "dry run: nothing was written; it would be in $LAYOUT as:$TAGS"
    else
        store
    fi
    printf '%s\n' "$DIGEST"
}

main "$@"
