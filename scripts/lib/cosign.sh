# shellcheck shell=sh
# Signatures as `cosign sign --key` makes and attaches them: a sigstore bundle, and a manifest around it. Sourced by scripts/sign.sh
# behind lib/openssl.sh and lib/documents.sh, not run; the caller has replace and DRY_RUN.
#
# Must never: attach a signature that does not verify.

BUNDLE_TYPE=application/vnd.dev.sigstore.bundle.v0.3+json
PAYLOAD_TYPE=application/vnd.in-toto+json
STATEMENT_TYPE=https://in-toto.io/Statement/v1
PREDICATE_TYPE=https://sigstore.dev/cosign/sign/v1
MANIFEST_TYPE=application/vnd.oci.image.manifest.v1+json
INDEX_TYPE=application/vnd.oci.image.index.v1+json
EMPTY_TYPE=application/vnd.oci.empty.v1+json
# Of the two bytes {}.
EMPTY_HEX=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
# Machines read no longer bundle.
MAX_BUNDLE_BYTES=65536

size() { wc -c <"$1"; }

# encode FILE OUT: what a DSSE signature of this payload is over.
encode() {
    {
        printf 'DSSEv1 %d %s %d ' "${#PAYLOAD_TYPE}" "$PAYLOAD_TYPE" "$(size "$1")"
        cat -- "$1"
    } >"$2"
}

# proves BUNDLE DIGEST KIND PUBLIC_KEY: this key has signed this digest in it.
proves() {
    jq -e --arg type "$BUNDLE_TYPE" --arg payload "$PAYLOAD_TYPE" \
        '.mediaType == $type and .dsseEnvelope.payloadType == $payload' "$1" >/dev/null 2>&1 || return 1
    jq -j '.dsseEnvelope.payload' "$1" 2>/dev/null | base64 -d >"$WORK/theirs" 2>/dev/null || return 1
    jq -e --arg type "$STATEMENT_TYPE" --arg predicate "$PREDICATE_TYPE" --arg hex "${2#sha256:}" \
        '._type == $type and .predicateType == $predicate and any(.subject[]; .digest.sha256 == $hex)' \
        "$WORK/theirs" >/dev/null 2>&1 || return 1
    encode "$WORK/theirs" "$WORK/encoded"
    jq -r '.dsseEnvelope.signatures[].sig' "$1" >"$WORK/signatures" 2>/dev/null || return 1
    while read -r line; do
        printf '%s' "$line" | base64 -d >"$WORK/one" 2>/dev/null || continue
        if verifies "$3" "$4" "$WORK/encoded" "$WORK/one"; then return 0; fi
    done <"$WORK/signatures"
    return 1
}

# make_bundle DIGEST KIND HEX KEY PUBLIC_KEY: writes WORK/bundle.
make_bundle() {
    jq -cnj --arg type "$STATEMENT_TYPE" --arg hex "${1#sha256:}" --arg predicate "$PREDICATE_TYPE" \
        '{_type: $type, subject: [{digest: {sha256: $hex}, annotations: {}}], predicateType: $predicate, predicate: {}}' \
        >"$WORK/statement"
    encode "$WORK/statement" "$WORK/message"
    sign_bytes "$2" "$4" "$WORK/message" "$WORK/signature"
    hint=$(openssl dgst -sha256 -binary "${5%.pub}.der" | base64 -w 0)
    payload=$(base64 -w 0 "$WORK/statement")
    signature=$(base64 -w 0 "$WORK/signature")
    jq -cnj --arg type "$BUNDLE_TYPE" --arg hint "$hint" --arg payload "$payload" --arg payload_type "$PAYLOAD_TYPE" \
        --arg signature "$signature" \
        '{mediaType: $type, verificationMaterial: {publicKey: {hint: $hint}},
          dsseEnvelope: {payload: $payload, payloadType: $payload_type, signatures: [{sig: $signature}]}}' >"$WORK/bundle"
    proves "$WORK/bundle" "$1" "$2" "$5" || die "what $4 signs does not verify with its public key: nothing was published"
}

# referrers DIGEST: lists the digests of what names it as its subject.
referrers() {
    if [ -z "$LAYOUT" ]; then
        registry discover --format json --depth 1 "$REPOSITORY@$1" >"$WORK/found" ||
            die "cannot list what is attached to $REPOSITORY@$1"
        jq -r '.referrers[]?.digest' "$WORK/found"
        return
    fi
    jq -r --arg type "$MANIFEST_TYPE" '.manifests[] | select(.mediaType == $type) | .digest' "$LAYOUT/index.json" |
        sort -u >"$WORK/found"
    while read -r found; do
        if obtain manifest "$found" "$WORK/candidate" &&
            jq -e --arg subject "$1" '.subject.digest == $subject' "$WORK/candidate" >/dev/null 2>&1; then
            printf '%s\n' "$found"
        fi
    done <"$WORK/found"
}

# attached_bundles DIGEST: fetches them, and lists in WORK/bundles each file, and the digest of the manifest around it. One
# that is gone, or something else, proves nothing.
attached_bundles() {
    referrers "$1" >"$WORK/referrers"
    : >"$WORK/bundles"
    count=0
    while read -r referrer <&4; do
        # By the layer: what lists of referrers say of cosign's signatures differs between registries.
        # Of what a cleaning took, drop_dead speaks.
        if obtain manifest "$referrer" "$WORK/referrer" &&
            blob=$(jq -er --arg type "$BUNDLE_TYPE" --argjson max "$MAX_BUNDLE_BYTES" \
                '.layers[0] | select(.mediaType == $type and .size <= $max) | .digest' "$WORK/referrer" 2>/dev/null) &&
            obtain blob "$blob" "$WORK/bundle.$count"; then
            printf '%s %s\n' "$WORK/bundle.$count" "$referrer" >>"$WORK/bundles"
            count=$((count + 1))
        fi
    done 4<"$WORK/referrers"
}

# already_signed DIGEST KIND PUBLIC_KEY: sets REFERRER, the manifest around the signature.
already_signed() {
    while read -r file REFERRER <&4; do
        if proves "$file" "$1" "$2" "$3"; then return 0; fi
    done 4<"$WORK/bundles"
    return 1
}

# own_tag SUBJECT MANIFEST: the tag of a signature's manifest, from their digests. Of no shape that cosign, oras or Harbor take
# for something else, and no version.
own_tag() { printf 'signature-%.16s-%.16s\n' "${1#sha256:}" "${2#sha256:}"; }

# keep SUBJECT MANIFEST: gives a signature that is there its tag.
keep() {
    tag=$(own_tag "$1" "$2")
    [ -z "$LAYOUT" ] || return 0
    if fetch manifest "$REPOSITORY:$tag" --output "$WORK/tagged"; then
        hash "$WORK/tagged"
        if [ "sha256:$HEX" = "$2" ]; then return 0; fi
    fi
    if [ "$DRY_RUN" = yes ]; then
        say "$1: dry run: its signature $2 would get the tag $tag"
    elif registry tag "$REPOSITORY@$2" "$tag" >/dev/null; then
        say "$1: its signature $2 has the tag $tag now"
    else
        warn "the signature $2 has no tag of its own: a cleaning of the registry may remove it"
    fi
}

# drop_dead DIGEST: takes out of the list of what refers to it (the tag, in registries without an API) what is no longer
# there: a registry refuses a list that names it, so that nothing could be added.
drop_dead() {
    list=$REPOSITORY:sha256-${1#sha256:}
    fetch manifest "$list" --output "$WORK/list" || return 0
    jq -r '.manifests[]?.digest' "$WORK/list" | sort -u >"$WORK/listed"
    : >"$WORK/dead"
    while read -r listed <&6; do
        fetch manifest "$REPOSITORY@$listed" --descriptor || printf '%s\n' "$listed" >>"$WORK/dead"
    done 6<"$WORK/listed"
    [ -s "$WORK/dead" ] || return 0
    jq -cj --rawfile dead "$WORK/dead" '($dead | split("\n")) as $dead
        | .manifests |= map(select(.digest | IN($dead[]) | not))' "$WORK/list" >"$WORK/alive"
    registry manifest push --media-type "$INDEX_TYPE" "$list" "$WORK/alive" >/dev/null || die "cannot write $list"
    say "$1: its list of signatures named $(wc -l <"$WORK/dead") that the registry no longer has (a cleaning removed them): taken out"
}

# store_blob FILE TYPE [TAG]: into the registry or the layout; sets DESCRIPTOR.
store_blob() {
    hash "$1"
    DESCRIPTOR=$(jq -cn --arg type "$2" --arg digest "sha256:$HEX" --argjson size "$(size "$1")" \
        '{mediaType: $type, digest: $digest, size: $size}')
    if [ -n "$LAYOUT" ]; then
        replace "$1" "$LAYOUT/blobs/sha256/$HEX"
    elif [ "$2" = "$MANIFEST_TYPE" ]; then
        # By its tag, so that it has one at once. This also keeps the referrers tag where the registry has no referrers API.
        registry manifest push --media-type "$2" "$REPOSITORY:$(own_tag "$3" "$HEX")" "$1" >/dev/null ||
            die "cannot push the signature's manifest to $REPOSITORY"
    else
        # oras takes a colon in a file name for the start of a media type.
        (cd "$WORK" && registry blob push --media-type "$2" "$REPOSITORY@sha256:$HEX" "${1##*/}" >/dev/null) ||
            die "cannot push the signature to $REPOSITORY"
    fi
}

# attach DIGEST SUBJECT_FILE: WORK/bundle, in the shape of cosign's.
attach() {
    printf '{}' >"$WORK/empty"
    store_blob "$WORK/empty" "$EMPTY_TYPE"
    store_blob "$WORK/bundle" "$BUNDLE_TYPE"
    jq -cj --arg type "$MANIFEST_TYPE" --arg index "$INDEX_TYPE" --arg bundle "$BUNDLE_TYPE" --arg empty "$EMPTY_TYPE" \
        --arg empty_digest "sha256:$EMPTY_HEX" --argjson layer "$DESCRIPTOR" --arg digest "$1" \
        --argjson size "$(size "$2")" --arg predicate "$PREDICATE_TYPE" --arg now "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        '{schemaVersion: 2, mediaType: $type, artifactType: $bundle,
          config: {mediaType: $empty, digest: $empty_digest, size: 2, artifactType: $bundle}, layers: [$layer],
          subject: {mediaType: (.mediaType // (if has("manifests") then $index else $type end)),
              digest: $digest, size: $size},
          annotations: {"dev.sigstore.bundle.content": "dsse-envelope",
              "dev.sigstore.bundle.predicateType": $predicate, "org.opencontainers.image.created": $now}}' \
        "$2" >"$WORK/manifest"
    [ -n "$LAYOUT" ] || drop_dead "$1"
    store_blob "$WORK/manifest" "$MANIFEST_TYPE" "$1"
    if [ -n "$LAYOUT" ]; then
        sync -f -- "$LAYOUT"
        jq --argjson entry "$DESCRIPTOR" --slurpfile manifest "$WORK/manifest" \
            '.manifests += [$entry + ($manifest[0] | {artifactType, annotations})]' "$LAYOUT/index.json" >"$WORK/index"
        replace "$WORK/index" "$LAYOUT/index.json"
        sync -f -- "$LAYOUT"
    fi
}
