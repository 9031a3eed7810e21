# shellcheck shell=sh
# What a registry has already of a version, and under the names that are to move to it: whether the one may stand beside what is
# published, and the other make room for it. Sourced by scripts/push-oci-artifact.sh behind lib/release.sh and lib/published.sh, not run;
# the caller has registry, obtain, sign, REPOSITORY, VERSION_TAG, KEYS, PLAIN_HTTP.
#
# Must never: put into an index what no key of ours has signed; let a tag go from what is signed to what is not.

BUNDLE_TYPE=application/vnd.dev.sigstore.bundle.v0.3+json
PREDICATE_TYPE=https://sigstore.dev/cosign/sign/v1

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
                warn "$REPOSITORY:$tag is signed by $signer, and $VERSION will not be: machines that have that key alone" \
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
