#!/bin/sh
# Publishes one version into a registry: one architecture a run, or several; the index is made, or extended.
#
# oras does the transport. The documents are those of publish-layout.sh, byte for byte. Must never: move a tag before
# everything below it is there and signed; sign an index that lists what no key of ours has signed; take a registry that
# does not answer for one that has nothing.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

# Most times that the index is made anew because another run publishes the other architecture meanwhile.
MAX_ROUNDS=8
BUNDLE_TYPE=application/vnd.dev.sigstore.bundle.v0.3+json
PREDICATE_TYPE=https://sigstore.dev/cosign/sign/v1

REPOSITORY=
PLAIN_HTTP=
PASSPHRASE=
KEYS=no
DRY_RUN=no
# An architecture of this version that another run has published, and that is gone.
GONE=
JUDGED=no
WORK=

usage() {
    cat <<USAGE
Usage: scripts/push-oci-artifact.sh --repository HOST/REPO --version V [OPTION]...
           --arch amd64 --kernel FILE --initramfs FILE [--arch arm64 --kernel FILE --initramfs FILE]

Publishes version V into a registry, with oras and the credentials of \`oras login\`, and prints the digest
of the image index. The tags, in this order: V-amd64 and V-arm64 name the manifests, V names the index of those
that are there (a '+' in V becomes '_'), then each --tag. A tag is moved when all that it leads to is there,
and, with --key, signed. So amd64 and arm64 can be published by two runs, also at the same time. Once
interrupted, start it again with the same dates (those that it has said, no \$(date), no now): it goes on.

The same again changes nothing. A version that is there with other content is refused: a version is published
once. With --key the index is signed, and so vouches for what the other run published: only if that is
signed by the same keys. Without it no tag is moved from what is signed to what is not.

  --repository HOST/REPO where to, registry.example.com/os/kubesolo for example
  --tag TAG              moved last, stable for example; may be given several times. Not moved to a version older than the
                         one it names, nor to one released before it, nor away from an architecture: where each has a run
                         of its own, best given to the last run only
  --key KEY              signs manifests and index (scripts/sign.sh); may be given several times. Without it
                         nothing is signed, and machines that have keys take nothing of it
  --passphrase-file FILE its first line opens the keys
  --plain-http           the registry speaks no TLS
USAGE
    older_usage
    release_usage
    cat <<USAGE
  --dry-run              check everything, ask the registry, say what would be published, write nothing
  -h, --help             this text

A registry has no way to change a tag only if nobody else did: somebody who pushes the same tags with another tool
at the same moment is not noticed.
USAGE
}

say() { printf 'push-oci-artifact: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
misuse() { say "error: $*"; exit 2; }
cleanup() { [ -z "$WORK" ] || rm -rf "$WORK"; }

# shellcheck source=scripts/lib/release.sh
. "$REPO/scripts/lib/release.sh"
# shellcheck source=scripts/lib/published.sh
. "$REPO/scripts/lib/published.sh"

check() {
    [ -n "$REPOSITORY" ] || misuse "--repository is missing"
    is_repository "$REPOSITORY" ||
        misuse "--repository must be HOST/REPO without a tag (registry.example.com/os/kubesolo), not '$REPOSITORY'"
    need_tools oras
    check_release
    VERSION_TAG=$(printf '%s' "$VERSION" | tr + _)
    for tag in "$VERSION_TAG" "$VERSION_TAG-amd64" "$VERSION_TAG-arm64"; do
        [ "${#tag}" -le 128 ] || die "--version is too long for a tag: $tag has more than 128 characters"
        case "$TAGS " in *" $tag "*) die "--tag $tag: that one is made without being asked for" ;; esac
    done
    while IFS= read -r key; do [ -f "$key" ] || die "--key $key is not a file"; done <"$WORK/keys"
    [ "$KEYS" = yes ] || [ -z "$PASSPHRASE" ] || misuse "--passphrase-file is for --key"
}

# registry COMMAND...: oras, whose messages are shown if it fails.
registry() {
    oras "$@" ${PLAIN_HTTP:+"$PLAIN_HTTP"} 2>"$WORK/said" || { cat "$WORK/said" >&2; hint_tls "$WORK/said"; return 1; }
}

# obtain NAME OUT: the manifest or index that a tag or digest names. False: the registry says that there is none.
obtain() {
    case $1 in sha256:*) name=$REPOSITORY@$1 ;; *) name=$REPOSITORY:$1 ;; esac
    # shellcheck disable=SC2086 # an option or nothing
    if oras manifest fetch $PLAIN_HTTP "$name" >"$2" 2>"$WORK/said"; then return 0; fi
    # Whatever else went wrong may hide what is there. oras 1.3 says it in these words, with the name, and only after a 404; of
    # another status it gives the registry's own words, which may end alike.
    if grep -qF -e ": $name: not found" "$WORK/said"; then return 1; fi
    cat "$WORK/said" >&2
    hint_tls "$WORK/said"
    die "cannot tell whether $name is there"
}

# sign OPTION... NAME: with all keys.
sign() {
    while IFS= read -r key; do set -- --key "$key" "$@"; done <"$WORK/keys"
    "$REPO/scripts/sign.sh" ${PASSPHRASE:+--passphrase-file "$PASSPHRASE"} ${PLAIN_HTTP:+"$PLAIN_HTTP"} "$@" \
        >"$WORK/signed" 2>"$WORK/said" || { cat "$WORK/said" >&2; return 1; }
}

# judge: what sign.sh would not sign (a date, a name, a key) is refused before anything is uploaded.
judge() {
    [ "$KEYS" = yes ] || return 0
    mkdir -p "$WORK/judged/blobs/sha256"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$WORK/judged/oci-layout"
    printf '{"schemaVersion":2,"manifests":[]}' >"$WORK/judged/index.json"
    for arch in $ARCHES; do
        hash "$WORK/manifest-$arch"
        cp -- "$WORK/manifest-$arch" "$WORK/judged/blobs/sha256/$HEX"
        cat "$WORK/entry-$arch"
    done >"$WORK/entries"
    index "$WORK/entries" "$WORK/index"
    hash "$WORK/index"
    cp -- "$WORK/index" "$WORK/judged/blobs/sha256/$HEX"
    sign --dry-run --layout "$WORK/judged@sha256:$HEX" || die "it would not be signed: nothing was written"
    if [ "$DRY_RUN" = yes ]; then sed -n 's/^sign: warning: /push-oci-artifact: warning: /p' "$WORK/said" | sort -u >&2; fi
    sed -n 's/^.*: dry run: not signed; it would be by \(sha256:[0-9a-f]*\) .*/\1/p' "$WORK/said" >"$WORK/own-keys"
}

# --- what is there

# metadata FILE: what a manifest says of itself, and its files, to be compared.
metadata() {
    jq -S '{artifactType} + (.annotations // {} | with_entries(select(.key | startswith("io.kubesolo.os."))))
        + {files: [.layers[]? | "\(.mediaType) \(.digest)"]}' "$1"
}

# refuse_other ARCH DIGEST FILE: what is published for an architecture is not what is to be.
refuse_other() {
    metadata "$3" >"$WORK/theirs" || : >"$WORK/theirs"
    metadata "$WORK/manifest-$1" >"$WORK/ours"
    unsigned=
    # Whoever forgot --key starts again to give it.
    if [ "$KEYS" = yes ] && obtain "$VERSION_TAG" "$WORK/before"; then
        hash "$WORK/before"
        is_signed "sha256:$HEX" || unsigned="; or, if all of it is yours and only not signed:
  scripts/sign.sh --recursive --key KEY${PLAIN_HTTP:+ $PLAIN_HTTP} $REPOSITORY:$VERSION_TAG"
    fi
    refuse_changed " for $1 with other content, $2" "Take another --version, or remove its tags from $REPOSITORY" "$unsigned"
}

# check_index: what the version's tag names is ours, and what it lists of our architectures is the same.
check_index() {
    case $VERSION_TAG in v*) other=${VERSION_TAG#v} ;; *) other=v$VERSION_TAG ;; esac
    if obtain "$other" "$WORK/there"; then
        die "$REPOSITORY has this version as $other, and machines take both spellings for one: give --version $other"
    fi
    obtain "$VERSION_TAG" "$WORK/there" || { : >"$WORK/there"; return 0; }
    jq -e --arg type "$INDEX_TYPE" --arg artifact "$ARTIFACT_TYPE" '.mediaType == $type and
        (.manifests | type == "array" and all(.platform.os == "linux" and .artifactType == $artifact))' \
        "$WORK/there" >/dev/null 2>&1 || die "$REPOSITORY:$VERSION_TAG is something else than an update of KubeSolo OS"
    jq -r '.manifests[] | "\(.platform.architecture) \(.digest)"' "$WORK/there" >"$WORK/listed"
    while read -r arch digest; do
        case $arch in amd64 | arm64) ;; *) die "$REPOSITORY:$VERSION_TAG lists '$arch' as well" ;; esac
        hold_same "$arch" "$digest"
    done <"$WORK/listed"
}

# hold_same ARCH DIGEST: if this run publishes it, it must be that.
hold_same() {
    case " $ARCHES " in *" $1 "*) ;; *) return 0 ;; esac
    hash "$WORK/manifest-$1"
    [ "$2" = "sha256:$HEX" ] && return 0
    obtain "$2" "$WORK/other" ||
        die "$REPOSITORY:$VERSION_TAG lists $2 for $1, and does not have it: a cleaning removed it. Publish exactly that again," \
            "or delete the tag $VERSION_TAG. This is something else: the same takes the same files, --release-date, --expires," \
            "--notes, --min-compatible and --channel, and what is gone cannot be asked for them"
    refuse_other "$1" "$2" "$WORK/other"
}

check_manifests() {
    for arch in $ARCHES; do
        obtain "$VERSION_TAG-$arch" "$WORK/other" || continue
        hash "$WORK/other"
        hold_same "$arch" "sha256:$HEX"
    done
}

# sibling ARCH: writes what an index says of what another run has published; nothing where there is nothing.
sibling() {
    digest=
    if obtain "$VERSION_TAG-$1" "$WORK/sibling"; then
        hash "$WORK/sibling"
        digest=sha256:$HEX
    elif [ -s "$WORK/there" ]; then
        digest=$(jq -r --arg arch "$1" '[.manifests[] | select(.platform.architecture == $arch)][0].digest // ""' "$WORK/there")
        if [ -n "$digest" ] && ! obtain "$digest" "$WORK/sibling"; then
            GONE="$REPOSITORY:$VERSION_TAG lists $digest for $1, and does not have it: a cleaning removed it"
            return 0
        fi
    fi
    [ -n "$digest" ] || return 0
    jq -e --arg artifact "$ARTIFACT_TYPE" --arg version "$VERSION" --arg channel "$CHANNEL" --arg arch "$1" \
        '.artifactType == $artifact and (.annotations | .["io.kubesolo.os.version"] == $version
            and .["io.kubesolo.os.channel"] == $channel and .["io.kubesolo.os.architecture"] == $arch)' \
        "$WORK/sibling" >/dev/null 2>&1 ||
        die "what is published for $1 ($digest) is not version $VERSION of channel $CHANNEL for $1: no index can list both"
    vouched "$1" "$digest"
    size=$(wc -c <"$WORK/sibling")
    jq -cn --arg type "$MANIFEST_TYPE" --arg digest "$digest" --argjson size "$size" --arg arch "$1" --arg artifact "$ARTIFACT_TYPE" \
        '{mediaType: $type, digest: $digest, size: $size, platform: {architecture: $arch, os: "linux"}, artifactType: $artifact}'
}

# vouched ARCH DIGEST: sign.sh, which knows what machines would pass over, takes it; and our keys have signed it, if there are
# any: whoever can write to the registry could have put it there.
vouched() {
    sign --dry-run "$REPOSITORY@$2" ||
        die "what is published for $1 ($2) is not put into an index, see above: what is wrong in it takes another version"
    if grep -q ': dry run: not signed' "$WORK/said"; then
        die "what is published for $1 ($2) is not signed by the keys given, and a signed index would vouch for it. If it is" \
            "yours: scripts/sign.sh --key KEY $REPOSITORY@$2"
    fi
}

# compose: makes WORK/index of what this run publishes and of what is there. Sets DIGEST; or GONE, where that is not to be had.
compose() {
    GONE=
    obtain "$VERSION_TAG" "$WORK/there" || : >"$WORK/there"
    : >"$WORK/entries"
    for arch in amd64 arm64; do
        if [ -e "$WORK/entry-$arch" ]; then
            cat "$WORK/entry-$arch" >>"$WORK/entries"
        else
            # Not in a subshell, where it could not end the run.
            sibling "$arch" >"$WORK/entry"
            cat "$WORK/entry" >>"$WORK/entries"
        fi
    done
    index "$WORK/entries" "$WORK/index"
    hash "$WORK/index"
    DIGEST=sha256:$HEX
}

# is_signed DIGEST: something is attached to it that has the shape of a signature, or to a manifest that it lists. By the
# layer, as sign.sh says. Lists it in WORK/bundles: what is attached to the first of them that has something.
is_signed() {
    : >"$WORK/bundles"
    obtain "$1" "$WORK/signed-top" || return 1
    for subject in "$1" $(jq -r '.manifests[]?.digest | strings' "$WORK/signed-top"); do
        obtain "$subject" "$WORK/other" || continue
        registry discover --format json --depth 1 "$REPOSITORY@$subject" >"$WORK/found" ||
            die "cannot list what is attached to $REPOSITORY@$subject"
        for referrer in $(jq -r '.referrers[]?.digest' "$WORK/found"); do
            obtain "$referrer" "$WORK/other" || continue
            jq -r --arg type "$BUNDLE_TYPE" '.layers[]? | select(.mediaType == $type) | .digest' \
                "$WORK/other" >>"$WORK/bundles" 2>/dev/null || :
        done
        if [ -s "$WORK/bundles" ]; then return 0; fi
    done
    return 1
}

# signers DIGEST: lists in WORK/signers the keys that it is signed by, as its signatures say: enough for a warning.
signers() {
    : >"$WORK/signers"
    is_signed "$1" || return 0
    while read -r bundle <&3; do
        # shellcheck disable=SC2086 # an option or nothing
        oras blob fetch $PLAIN_HTTP --output "$WORK/bundle" "$REPOSITORY@$bundle" >/dev/null 2>&1 || continue
        # Not an attestation, which others may sign.
        jq -j --arg predicate "$PREDICATE_TYPE" \
            'select(.dsseEnvelope.payload | @base64d | fromjson | .predicateType == $predicate)
            | .verificationMaterial.publicKey.hint | strings' "$WORK/bundle" 2>/dev/null | base64 -d 2>/dev/null |
            od -An -v -tx1 | tr -d ' \n' | sed 's/.*/sha256:&\n/' | grep -xE 'sha256:[0-9a-f]{64}' || :
    done 3<"$WORK/bundles" >"$WORK/hints"
    sort -u "$WORK/hints" >"$WORK/signers"
}

# warn_other_keys, after compose: a tag moves away from a key that machines may have alone.
warn_other_keys() {
    [ "$KEYS" = yes ] || return 0
    signers "$DIGEST"
    cat "$WORK/signers" >>"$WORK/own-keys"
    for tag in $VERSION_TAG $TAGS; do
        obtain "$tag" "$WORK/before" || continue
        hash "$WORK/before"
        [ "sha256:$HEX" != "$DIGEST" ] || continue
        signers "sha256:$HEX"
        while read -r signer; do
            grep -qxF -- "$signer" "$WORK/own-keys" ||
                say "warning: $REPOSITORY:$tag is signed by $signer, and $VERSION will not be: machines that have that key alone" \
                    "take nothing of it"
        done <"$WORK/signers"
    done
}

# check_older, after compose: what the tags name.
check_older() {
    for tag in $TAGS; do
        obtain "$tag" "$WORK/before" || continue
        hash "$WORK/before"
        [ "sha256:$HEX" != "$DIGEST" ] || continue
        refuse_older_below "$REPOSITORY:$tag" "sha256:$HEX"
        refuse_partial_below "$REPOSITORY:$tag" "sha256:$HEX"
    done
}

# check_unsigned, after compose: no tag would move from what is signed to what is not. Of what is there already, it may be: somebody else
# signs it between two runs.
check_unsigned() {
    [ "$KEYS" = no ] || return 0
    for tag in $VERSION_TAG $TAGS; do
        obtain "$tag" "$WORK/before" || continue
        hash "$WORK/before"
        if [ "sha256:$HEX" = "$DIGEST" ] || ! is_signed "sha256:$HEX" || is_signed "$DIGEST"; then continue; fi
        die "$REPOSITORY:$tag is signed: what is not would be refused by the machines that took it. Give --key; or publish it" \
            "under no tag that is signed, sign that, and start this again"
    done
}

# judge_tags, after compose: what the tags name may make room for it.
judge_tags() {
    check_unsigned
    check_older
    warn_other_keys
    JUDGED=yes
}

# --- publishing

# push_blobs: those that the registry has are only asked for.
push_blobs() {
    sort -u "$WORK/blobs" >"$WORK/blobs-once"
    while read -r hex file; do
        case $file in "$WORK"/manifest-*) continue ;; esac
        case $file in /*) ;; *) file=$PWD/$file ;; esac
        # oras takes a colon in a file name for the start of a media type.
        ln -sf -- "$file" "$WORK/blob"
        (cd "$WORK" && registry blob push "$REPOSITORY@sha256:$hex" blob >/dev/null) || die "cannot push $file to $REPOSITORY"
    done <"$WORK/blobs-once"
}

# push_document TYPE FILE: a manifest or an index, by its digest, and signs it.
push_document() {
    hash "$2"
    if ! obtain "sha256:$HEX" "$WORK/other"; then
        registry manifest push --media-type "$1" "$REPOSITORY@sha256:$HEX" "$2" >/dev/null ||
            die "cannot push sha256:$HEX to $REPOSITORY"
    fi
    [ "$KEYS" = yes ] || return 0
    sign "$REPOSITORY@sha256:$HEX" || die "sha256:$HEX is pushed and not signed; no tag was moved to it"
    # What it warns of in the manifests, it warns of again in the index.
    sed -n -e '/^sign: warning: /{ s/^sign: /push-oci-artifact: /; w '"$WORK/warnings"'
        d
        }' -e 's/^sign: /push-oci-artifact: /p' "$WORK/said" >&2
    if [ "$1" = "$MANIFEST_TYPE" ]; then cat "$WORK/warnings" >&2; fi
}

# moved_on TAG DIGEST: what it names now is newer, or later. In a subshell, since what cannot be told ends the run still.
moved_on() {
    (refuse_older_below "$REPOSITORY:$1" "$2") 2>"$WORK/judged-older" && return 1
    grep -q -e '(--allow-older ' "$WORK/judged-older" || { cat "$WORK/judged-older" >&2; exit 1; }
    say "$REPOSITORY:$1 was moved on by another run, to $2"
}

# move TAG DIGEST
move() {
    if obtain "$1" "$WORK/other"; then
        hash "$WORK/other"
        if [ "sha256:$HEX" = "$2" ]; then return 0; fi
        # Another run may have moved it since this one looked, or on from where this one moved it to.
        case "$round$TAGS " in
            0*" $1 "*) refuse_older_below "$REPOSITORY:$1" "sha256:$HEX" ;;
            *" $1 "*) if moved_on "$1" "sha256:$HEX"; then return 0; fi ;;
        esac
    fi
    registry tag "$REPOSITORY@$2" "$1" >/dev/null || die "cannot move tag $1 of $REPOSITORY to $2"
    say "$REPOSITORY:$1 is $2 now"
    MOVED=yes
}

# Each run first names its own manifests and then looks for the other's: whichever names them last sees both, and
# makes the index of both; whoever writes the tag last has looked again after writing.
publish() {
    round=0
    push_blobs
    for arch in $ARCHES; do
        push_document "$MANIFEST_TYPE" "$WORK/manifest-$arch"
        hash "$WORK/manifest-$arch"
        move "$VERSION_TAG-$arch" "sha256:$HEX"
    done
    while :; do
        compose
        [ -z "$GONE" ] || die "$GONE.$ARCHES is there again, no other tag was moved: publish the other architecture again as well," \
            "exactly as it was (the same files, dates, --notes, --min-compatible and --channel)"
        if [ "$JUDGED" = no ]; then judge_tags; fi
        MOVED=no
        push_document "$INDEX_TYPE" "$WORK/index"
        for tag in $VERSION_TAG $TAGS; do move "$tag" "$DIGEST"; done
        if [ "$MOVED" = no ]; then return 0; fi
        round=$((round + 1))
        [ "$round" -lt "$MAX_ROUNDS" ] || die "somebody else keeps moving the tags of $REPOSITORY: $VERSION_TAG$TAGS"
    done
}

main() {
    LC_ALL=C
    export LC_ALL
    umask 022
    note_typed "$@"
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    WORK=$(mktemp -d)
    : >"$WORK/keys"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --plain-http) PLAIN_HTTP=$1; shift; continue ;;
            --allow-older) ALLOW_OLDER=yes; shift; continue ;;
            --partial) ALLOW_PARTIAL=yes; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --repository | --tag | --key | --passphrase-file) ;;
            *) is_release_option "$1" || { usage >&2; misuse "unknown option: $1"; } ;;
        esac
        [ $# -ge 2 ] || misuse "$1 needs a value"
        case $1 in
            --repository) REPOSITORY=$2 ;;
            --tag) add_tag "$2" ;;
            --key)
                matches "$2" '.*' || die "--key: a newline in a file name"
                printf '%s\n' "$2" >>"$WORK/keys"
                KEYS=yes
                ;;
            --passphrase-file) PASSPHRASE=$2 ;;
            *) release_option "$1" "$2" ;;
        esac
        shift 2
    done
    check
    : >"$WORK/blobs"
    for arch in $ARCHES; do
        manifest "$arch"
        printf '%s\n' "$DESCRIPTOR" >"$WORK/entry-$arch"
    done
    judge
    check_index
    check_manifests
    # What another run has published is judged before the first tag is moved.
    compose
    if [ -z "$GONE" ]; then
        judge_tags
    elif [ "$DRY_RUN" = yes ]; then
        die "$GONE. Publish that again as well"
    fi
    if [ "$DRY_RUN" = yes ]; then
        say "version $VERSION ($CHANNEL) for$ARCHES: index $DIGEST"
        say "dry run: nothing was written; it would be $REPOSITORY as: $VERSION_TAG$TAGS"
    else
        [ "$KEYS" = yes ] || say "warning: without --key nothing is signed: machines that have keys take nothing of it"
        publish
        say "version $VERSION ($CHANNEL) for$ARCHES is published: $REPOSITORY@$DIGEST"
    fi
    printf '%s\n' "$DIGEST"
}

main "$@"
