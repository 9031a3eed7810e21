# shellcheck shell=sh
# What scripts/build-os-image.sh and scripts/build-agent-image.sh share: container images FROM scratch for several
# architectures, an index of them, and the way into a layout or a registry. Sourced, not run.
#
# GNU tar makes the layers, umoci the images, oras the index and the copies: none of them runs anything as root, and
# with the same input (and versions of these tools) the bytes are the same. Behind lib/cli.sh, with WORK made; the
# caller has SOURCE_DATE_EPOCH.

# shellcheck source=scripts/lib/release.sh
. "$REPO/scripts/lib/release.sh"

# Where the image is to go.
LAYOUT=
TAG=
PUSH=
PLAIN_HTTP=
DRY_RUN=no

# image_option OPTION [VALUE]
image_option() {
    case $1 in
        --layout) LAYOUT=$2 ;;
        --tag) TAG=$2 ;;
        --push) PUSH=$2 ;;
        --plain-http) PLAIN_HTTP=$1 ;;
        --dry-run) DRY_RUN=yes ;;
    esac
}

# check_tools TOOL...
check_tools() {
    need_tools "scripts/install-deps.sh oci brings it" umoci oras jq tar sha256sum "$@"
    tar --version 2>/dev/null | grep -q 'GNU tar' || die "tar is not GNU tar, which alone can be told to repeat itself"
}

# check_created: sets CREATED, the time that everything in the image has.
check_created() {
    matches "$SOURCE_DATE_EPOCH" '[0-9]{1,11}' ||
        die "SOURCE_DATE_EPOCH must be a number of seconds, not '$SOURCE_DATE_EPOCH'"
    CREATED=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ) ||
        die "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH is not a time"
}

# check_url OPTION TEXT
check_url() {
    matches "$2" 'https?://[!-~]{1,1024}' || misuse "$1 must be an http or https URL, not '$2'"
}

# check_targets: where it is to go.
check_targets() {
    [ -n "$LAYOUT$PUSH" ] || die "neither --layout nor --push: there is nowhere to put the image"
    if [ -n "$LAYOUT" ]; then
        [ -n "$TAG" ] || misuse "--tag is missing: --layout needs a name for the image"
        check_tag --tag "$TAG"
        # oras splits at the last colon.
        matches "$LAYOUT" '[^:@]+' || die "--layout '$LAYOUT': a path with ':', '@' or a newline is not a path to oras"
        check_layout "$LAYOUT"
    elif [ -n "$TAG" ]; then
        misuse "--tag is for --layout; --push has its tag in HOST/REPO:TAG"
    fi
    if [ -n "$PUSH" ]; then check_reference "$PUSH"; fi
}

# check_reference HOST/REPO:TAG
check_reference() {
    # The longest tag that is made of it ends in -amd64.
    is_repository "$1" ':[A-Za-z0-9_][A-Za-z0-9._-]{0,121}' ||
        misuse "--push must be HOST/REPO:TAG (registry.example.com/os/image:1.2.0), not '$1'"
}

# quietly COMMAND...: in the place of lib/cli.sh's; a registry without TLS gets its hint.
quietly() {
    "$@" >"$WORK/log" 2>&1 || { tail -n 20 "$WORK/log" >&2; hint_tls "$WORK/log"; die "failed: $*"; }
}

# image_new ARCH: an image of nothing, named by its architecture.
image_new() {
    [ -d "$WORK/image" ] || quietly umoci init --layout "$WORK/image"
    quietly umoci new --image "$WORK/image:$1"
}

# image_layer ARCH DIR PATH...: adds a layer of what lies below DIR/PATH, owned by root, in one order, of one time.
image_layer() {
    arch=$1 tree=$2
    shift 2
    tar --sort=name --format=posix --pax-option=delete=atime,delete=ctime --owner=0 --group=0 --numeric-owner \
        --mtime="@$SOURCE_DATE_EPOCH" -C "$tree" -cf "$WORK/layer.tar" -- "$@"
    quietly umoci raw add-layer --image "$WORK/image:$arch" --history.created "$CREATED" \
        --history.created_by "${0##*/}: /$*" "$WORK/layer.tar"
    rm -f "$WORK/layer.tar"
}

# image_config ARCH NAME=VALUE... [-- OPTION...]: what it is for; labels, which `docker inspect` shows, and the same as
# annotations, which registries show; further options of umoci.
image_config() {
    arch=$1 pairs=yes
    shift
    for word in "$@"; do
        shift
        case $pairs$word in
            yes--) pairs=no ;;
            yes*) set -- "$@" --config.label "$word" --manifest.annotation "$word" ;;
            *) set -- "$@" "$word" ;;
        esac
    done
    quietly umoci config --image "$WORK/image:$arch" --no-history --created "$CREATED" --os linux \
        --architecture "$arch" "$@"
}

# image_index ARCH...: an index of them. Sets DIGEST.
image_index() {
    quietly oras manifest index create --oci-layout "$WORK/image:index" "$@"
    DIGEST=$(oras resolve --oci-layout "$WORK/image:index")
}

# image_store DIR TAG: blobs first, the name last.
image_store() {
    if [ -e "$1/index.json" ] && [ "$(oras resolve --oci-layout "$1:$2" 2>/dev/null)" = "$DIGEST" ]; then
        say "$1 has it already as: $2"
        return 0
    fi
    quietly oras cp --from-oci-layout --to-oci-layout "$WORK/image:index" "$1:$2"
    # oras lists the images of the index beside it, in whatever order they were done: they are found through it.
    ours=$(oras manifest fetch --oci-layout "$WORK/image:index" | jq -c '[.manifests[].digest]')
    jq -cj --argjson ours "$ours" '.manifests |= map(select(
        (.annotations["org.opencontainers.image.ref.name"]? == null and (.digest | IN($ours[]))) | not))' \
        "$1/index.json" >"$WORK/index.json"
    cp -- "$WORK/index.json" "$1/.index.json.$$"
    mv -f -- "$1/.index.json.$$" "$1/index.json"
    say "written into $1 as: $2"
}

# image_push HOST/REPO:TAG OPTION...: blobs first, then each architecture's image under a tag of its own (TAG-amd64), since
# cleanings of a registry delete what an index alone names, the tag last. Input: how oras is to reach it.
image_push() {
    reference=$1
    shift
    oras manifest fetch --oci-layout "$WORK/image:index" |
        jq -r '.manifests[] | "\(.platform.architecture) \(.digest)"' >"$WORK/images"
    while read -r arch digest <&3; do
        if [ "$(oras resolve ${1:+"$@"} "$reference-$arch" 2>/dev/null)" != "$digest" ]; then
            quietly oras cp --from-oci-layout ${1:+"--to-${1#--}"} "$WORK/image@$digest" "$reference-$arch"
        fi
    done 3<"$WORK/images"
    if [ "$(oras resolve ${1:+"$@"} "$reference" 2>/dev/null)" = "$DIGEST" ]; then
        say "$reference is it already"
        return 0
    fi
    quietly oras cp --from-oci-layout ${1:+"--to-${1#--}"} "$WORK/image:index" "$reference"
    say "pushed to $reference"
}

# image_deliver: to where it is to go.
image_deliver() {
    if [ "$DRY_RUN" = yes ]; then
        say "dry run: nothing was kept${LAYOUT:+; it would be in $LAYOUT as: $TAG}${PUSH:+; it would be $PUSH}"
        return 0
    fi
    if [ -n "$LAYOUT" ]; then image_store "$LAYOUT" "$TAG"; fi
    if [ -n "$PUSH" ]; then image_push "$PUSH" ${PLAIN_HTTP:+"$PLAIN_HTTP"}; fi
}
