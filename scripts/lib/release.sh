# shellcheck shell=sh
# What the scripts that publish share: the options that describe a release, their checks, and the documents made of them.
# Sourced, not run. Behind lib/cli.sh, with WORK made; the caller has REPO.
#
# The same release gives the same bytes, wherever it is published: its digest on a stick is its digest in a registry.

ARTIFACT_TYPE=application/vnd.kubesolo.os.update.v1
KERNEL_TYPE=application/vnd.kubesolo.os.kernel.v1+octet-stream
INITRAMFS_TYPE=application/vnd.kubesolo.os.initramfs.v1+gzip
CONFIG_TYPE=application/vnd.oci.image.config.v1+json
MANIFEST_TYPE=application/vnd.oci.image.manifest.v1+json
INDEX_TYPE=application/vnd.oci.image.index.v1+json
# Machines join no more (src/oci/initramfs.rs).
MAX_LAYERS=16

# shellcheck source=scripts/lib/agent.sh
. "$REPO/scripts/lib/agent.sh"
# shellcheck source=scripts/lib/chunks.sh
. "$REPO/scripts/lib/chunks.sh"
# shellcheck source=scripts/lib/facts.sh
. "$REPO/scripts/lib/facts.sh"

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
TAGS=
# Whether any is given.
KEYS=no

release_usage() {
    cat <<USAGE
  --version V            semantic version, 1.2.0 for example; a leading v is allowed
  --arch amd64|arm64     what the --kernel and the --initramfs behind it are for; may be given once for each
  --kernel FILE          the kernel
  --initramfs FILE       the initramfs, cpio in gzip; given several times (at most $MAX_LAYERS), the parts of one, in their order
  --channel NAME         channel of this version (default: $CHANNEL)
  --min-compatible V     least running version that may take this update
  --notes TEXT           release notes
  --release-date TIME    RFC 3339, 2026-01-31T12:00:00Z for example, or now; machines take nothing older than what they ran
  --expires TIME         from then on no machine takes it any more; or a span from the release date, or from now: 180d (h, d, w)
USAGE
}

# is_release_option OPTION: each takes a value.
is_release_option() {
    case $1 in
        --version | --arch | --kernel | --initramfs | --channel | --min-compatible | --notes | --release-date | --expires) ;;
        *) return 1 ;;
    esac
}

# release_option OPTION VALUE
release_option() {
    case $1 in
        --version) VERSION=$2 ;;
        --channel) CHANNEL=$2 ;;
        --min-compatible) MIN_COMPATIBLE=$2 ;;
        --notes) NOTES=$2 ;;
        --release-date) RELEASE_DATE=$2 ;;
        --expires) EXPIRES=$2 ;;
        --arch) add_arch "$2" ;;
        --kernel | --initramfs) add_file "$1" "$2" ;;
    esac
}

add_arch() {
    case $1 in amd64 | arm64) ;; *) misuse "--arch must be amd64 or arm64, not '$1'" ;; esac
    case "$ARCHES " in *" $1 "*) misuse "--arch $1 is given twice" ;; esac
    ARCH=$1
    ARCHES="$ARCHES $1"
}

# add_file OPTION FILE: of the --arch before it. A newline would break the lists of files.
add_file() {
    matches "$2" '.*' || die "$1: a newline in a file name"
    case $ARCH$1 in
        amd64--kernel) [ -z "$AMD64_KERNEL" ] || misuse "two kernels for amd64"; AMD64_KERNEL=$2 ;;
        arm64--kernel) [ -z "$ARM64_KERNEL" ] || misuse "two kernels for arm64"; ARM64_KERNEL=$2 ;;
        amd64--initramfs) AMD64_INITRAMFS="$AMD64_INITRAMFS$2
" ;;
        arm64--initramfs) ARM64_INITRAMFS="$ARM64_INITRAMFS$2
" ;;
        *) misuse "$1 comes after the --arch it is for" ;;
    esac
}

add_tag() {
    check_tag --tag "$1"
    case "$TAGS " in *" $1 "*) misuse "--tag $1 is given twice" ;; esac
    TAGS="$TAGS $1"
}

# add_signer FILE: a key that signs it, in WORK/keys.
add_signer() {
    matches "$1" '.*' || die "--key: a newline in a file name"
    printf '%s\n' "$1" >>"$WORK/keys"
    KEYS=yes
}

check_signers() {
    while IFS= read -r key; do [ -f "$key" ] || die "--key $key is not a file"; done <"$WORK/keys"
}

# choose ARCH: sets KERNEL, and INITRAMFS, a list with a file a line.
choose() {
    case $1 in
        amd64) KERNEL=$AMD64_KERNEL INITRAMFS=$AMD64_INITRAMFS ;;
        arm64) KERNEL=$ARM64_KERNEL INITRAMFS=$ARM64_INITRAMFS ;;
    esac
}

check_notes() {
    printf '%s' "$NOTES" | iconv -f UTF-8 -t UTF-8 >/dev/null 2>&1 || die "--notes is not UTF-8"
    if printf '%s' "$NOTES" | tr -d '\n\t' | grep -q '[[:cntrl:]]'; then
        die "--notes holds a control character other than newline and tab"
    fi
}

# input OPTION ARCH FILE
input() {
    [ -n "$3" ] || misuse "--arch $2 has no $1"
    [ "$1" = --kernel ] || [ ! -d "$3" ] || die "$3 is a directory, not a file: give its layers one by one, each with --initramfs"
    [ -f "$3" ] || die "$3 is not a file"
    [ -s "$3" ] || die "$3 is empty"
}

# check_layout DIR: a directory that is something else is not made into a layout.
check_layout() {
    [ -e "$1" ] || return 0
    [ -d "$1" ] || die "$1 is not a directory"
    if [ -e "$1/oci-layout" ]; then
        jq -e '.imageLayoutVersion == "1.0.0"' "$1/oci-layout" >/dev/null 2>&1 ||
            die "$1/oci-layout does not say imageLayoutVersion 1.0.0"
    elif [ -n "$(ls -A "$1")" ]; then
        die "$1 is neither empty nor an OCI image layout"
    fi
    [ -e "$1/index.json" ] || return 0
    jq -e '.schemaVersion == 2 and (.manifests | type == "array" and all(type == "object"))' \
        "$1/index.json" >/dev/null 2>&1 || die "$1/index.json is not an image index"
}

# check_tag OPTION TAG
check_tag() {
    matches "$2" '[A-Za-z0-9_][A-Za-z0-9._-]{0,127}' || die "$1 '$2' is not a tag (letters, digits, '_', '.', '-')"
}

# is_repository TEXT [PATTERN]: HOST/REPO, and what has to stand behind it.
is_repository() {
    host='[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?'
    part='[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*'
    matches "$1" "($host)/$part(/$part)*${2-}"
}

# settle_dates: of now, and of a span, the moment. By the agent: every system's date has words of its own. What is neither stays,
# and is refused with the rest.
settle_dates() {
    find_agent
    "$KUBESOLO_UPDATE" lint ${RELEASE_DATE:+--release-date "$RELEASE_DATE"} ${EXPIRES:+--expires "$EXPIRES"} \
        >"$WORK/settled" 2>/dev/null || return 0
    typed="$RELEASE_DATE $EXPIRES"
    while read -r option moment; do
        case $option in
            --release-date) RELEASE_DATE=$moment ;;
            --expires) EXPIRES=$moment ;;
        esac
    done <"$WORK/settled"
    [ "$typed" = "$RELEASE_DATE $EXPIRES" ] ||
        SETTLED="${RELEASE_DATE:+ --release-date $RELEASE_DATE}${EXPIRES:+ --expires $EXPIRES}"
}

# say_dates, behind all checks: what another run could not find out.
say_dates() { [ -z "${SETTLED:-}" ] || say "to start again after an interruption, give the same dates:$SETTLED"; }

check_release() {
    need_tools "install the package that has it (Debian: jq, util-linux, libc-bin, coreutils)" jq flock iconv sha256sum
    [ -n "$VERSION" ] || misuse "--version is missing"
    [ -n "$ARCHES" ] || misuse "--arch is missing"
    [ -z "$RELEASE_DATE$EXPIRES" ] || settle_dates
    lint --version "$VERSION" --channel "$CHANNEL" ${MIN_COMPATIBLE:+--min-compatible "$MIN_COMPATIBLE"} \
        ${RELEASE_DATE:+--release-date "$RELEASE_DATE"} ${EXPIRES:+--expires "$EXPIRES"}
    case $VERSION in
        *+*)
            base=${VERSION%%[+-]*}
            next=${base%.*}.$((${base##*.} + 1))
            warn "what stands behind the + in $VERSION does not count in the order of versions: a machine that runs ${VERSION%%+*}," \
                "with or without another +, refuses it (gate newer) unless --allow-downgrade is given there." \
                "Raise the patch number ($next), or use a pre-release of that, such as $next-1"
            ;;
    esac
    check_notes
    for arch in $ARCHES; do check_files "$arch"; done
}

check_files() {
    choose "$1"
    input --kernel "$1" "$KERNEL"
    [ -n "$INITRAMFS" ] || misuse "--arch $1 has no --initramfs"
    layers=$(printf '%s' "$INITRAMFS" | wc -l)
    [ "$layers" -le "$MAX_LAYERS" ] || die "--arch $1 has $layers initramfs, more than $MAX_LAYERS"
    arch=$1
    shift
    set -- --kernel "$KERNEL" --arch "$arch"
    while IFS= read -r file; do
        input --initramfs "$arch" "$file"
        set -- "$@" --initramfs "$file"
    done <<LIST
${INITRAMFS%?}
LIST
    # The parts together: that is what kernels see.
    lint "$@"
}

# describe MEDIA_TYPE FILE [TITLE]: sets DESCRIPTOR; WORK/blobs lists the file, which is to be stored later on.
describe() {
    hash "$2"
    printf '%s %s\n' "$HEX" "$2" >>"$WORK/blobs"
    size=$(wc -c <"$2")
    DESCRIPTOR=$(jq -cn --arg type "$1" --arg digest "sha256:$HEX" --argjson size "$size" --arg title "${3-}" \
        '{mediaType: $type, digest: $digest, size: $size}
         + if $title == "" then {} else {annotations: {"org.opencontainers.image.title": $title}} end')
}

# describe_layer MEDIA_TYPE FILE TITLE NAME: adds its descriptor to WORK/layers, and behind it that of its chunk index, which has no title:
# whoever pulls it with oras gets the files, and no more. NAME: for people.
describe_layer() {
    describe "$1" "$2" "$3"
    printf '%s\n' "$DESCRIPTOR" >>"$WORK/layers"
    chunk_index "$2" "$HEX" "$4"
    [ -n "$CHUNK_INDEX" ] || return 0
    describe "$CHUNKS_TYPE" "$CHUNK_INDEX"
    printf '%s\n' "$DESCRIPTOR" >>"$WORK/layers"
}

# describe_layers: writes a descriptor a line of what was chosen; sets WHOLE, the digest of several initramfs together.
describe_layers() {
    : >"$WORK/layers"
    describe_layer "$KERNEL_TYPE" "$KERNEL" vmlinuz kernel
    WHOLE=
    if [ "$(printf '%s' "$INITRAMFS" | wc -l)" -eq 1 ]; then
        describe_layer "$INITRAMFS_TYPE" "${INITRAMFS%?}" kubesolo-os.gz initramfs
        return
    fi
    number=1
    while IFS= read -r file; do
        describe_layer "$INITRAMFS_TYPE" "$file" "$(printf 'kubesolo-os.gz.%02d' "$number")" "initramfs $number"
        number=$((number + 1))
    done <<LIST
${INITRAMFS%?}
LIST
    WHOLE=sha256:$(joined | sha256sum | cut -d ' ' -f 1)
}

# joined: writes the initramfs chosen, all its parts.
joined() {
    while IFS= read -r file; do cat -- "$file"; done <<LIST
${INITRAMFS%?}
LIST
}

# manifest ARCH: makes WORK/manifest-ARCH; sets DESCRIPTOR to what an index says of it.
manifest() {
    choose "$1"
    jq -cnj --arg arch "$1" '{architecture: $arch, os: "linux"}' >"$WORK/config-$1"
    describe "$CONFIG_TYPE" "$WORK/config-$1"
    config=$DESCRIPTOR
    describe_layers
    say_chunks "$1"
    jq -cnj --arg type "$MANIFEST_TYPE" --arg artifact "$ARTIFACT_TYPE" --arg arch "$1" --arg version "$VERSION" \
        --arg channel "$CHANNEL" --arg min "$MIN_COMPATIBLE" --arg notes "$NOTES" --arg date "$RELEASE_DATE" \
        --arg expires "$EXPIRES" --arg whole "$WHOLE" --argjson config "$config" \
        --slurpfile layers "$WORK/layers" \
        '{schemaVersion: 2, mediaType: $type, artifactType: $artifact, config: $config,
          layers: $layers,
          annotations: ({version: $version, channel: $channel, architecture: $arch,
              min_compatible_version: $min, release_notes: $notes, release_date: $date, expires: $expires,
              initramfs_digest: $whole}
              | with_entries(select(.value != "") | .key |= "io.kubesolo.os." + .))}' >"$WORK/manifest-$1"
    describe "$MANIFEST_TYPE" "$WORK/manifest-$1"
    DESCRIPTOR=$(printf '%s\n' "$DESCRIPTOR" | jq -c --arg arch "$1" --arg artifact "$ARTIFACT_TYPE" \
        '. + {platform: {architecture: $arch, os: "linux"}, artifactType: $artifact}')
}

# index FILE OUT: makes an index of the descriptors in FILE, which stand there in the order amd64, arm64.
index() {
    jq -csj --arg type "$INDEX_TYPE" --arg artifact "$ARTIFACT_TYPE" \
        '{schemaVersion: 2, mediaType: $type, artifactType: $artifact, manifests: .}' "$1" >"$2"
}
