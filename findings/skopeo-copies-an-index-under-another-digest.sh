#!/bin/sh
# skopeo 1.9 copies an index that has an artifactType to another OCI layout under another digest, and says nothing.
#
# Guessed: `skopeo copy --all` from one OCI layout to another takes bytes as they are: source and destination have one format, and
#          a digest is what an artifact is known and signed by.
# Seen:    the index is written anew without the fields that this skopeo does not know (artifactType of the index and of its
#          entries; image-spec 1.1), under another digest, with exit code 0. With --preserve-digests it refuses: the list "must be
#          converted", from and to the same type. A manifest alone keeps its digest. skopeo 1.9.3.
# Matters: a signature of the index is a signature of nothing then: who mirrors signed artifacts with Debian 12's skopeo has a
#          mirror from which nothing is taken. `oras cp` copies bytes.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

# blob TEXT: writes it as a blob of the layout; sets $digest and $size.
blob() {
    printf '%s' "$1" >"$WORK/text"
    digest=$(sha256sum <"$WORK/text" | cut -d ' ' -f 1)
    size=$(wc -c <"$WORK/text")
    mv "$WORK/text" "$WORK/from/blobs/sha256/$digest"
}

# layout: an index of one artifact, as `oras push` and `oras manifest index create --artifact-type` make it.
layout() {
    mkdir -p "$WORK/from/blobs/sha256"
    blob '{"architecture":"amd64","os":"linux"}'
    config="{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:$digest\",\"size\":$size}"
    blob 'bytes of a kernel'
    layer="{\"mediaType\":\"application/x-kernel\",\"digest\":\"sha256:$digest\",\"size\":$size}"
    blob "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"artifactType\":\"application/x-os\",\"config\":$config,\"layers\":[$layer]}"
    entry="{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:$digest\",\"size\":$size,\"platform\":{\"architecture\":\"amd64\",\"os\":\"linux\"}"
    MANIFEST=$digest
    top="$entry,\"annotations\":{\"org.opencontainers.image.ref.name\":\"alone\"}}"
    blob "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"artifactType\":\"application/x-os\",\"manifests\":[$entry,\"artifactType\":\"application/x-os\"}]}"
    INDEX=$digest
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"both"}},%s]}' \
        "$INDEX" "$size" "$top" >"$WORK/from/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$WORK/from/oci-layout"
}

# copied TAG OPTION...: the digest under which skopeo writes it.
copied() {
    tag=$1
    shift
    rm -rf "$WORK/to"
    timeout 60 env LD_LIBRARY_PATH="$LIBRARIES" "$WORK/bookworm/usr/bin/skopeo" --tmpdir "$WORK" --insecure-policy copy -q "$@" "oci:$WORK/from:$tag" "oci:$WORK/to:$tag" >"$WORK/log" 2>&1 ||
        return 1
    jq -r '.manifests[0].digest' "$WORK/to/index.json"
}

main() {
    for tool in jq sha256sum; do
        command -v "$tool" >/dev/null || cannot "$tool is missing"
    done
    begin
    unpack_pinned bookworm bookworm skopeo=1.9.3 libgpgme11=1.18 libassuan0=2.5 libgpg-error0=1.46 libdevmapper1.02.1=2:1.02
    LIBRARIES=$WORK/bookworm/usr/lib/x86_64-linux-gnu:$WORK/bookworm/lib/x86_64-linux-gnu
    layout
    one=$(copied alone) || cannot "skopeo copies nothing: $(tail -n 1 "$WORK/log")"
    both=$(copied both --all) || cannot "skopeo copies no index: $(tail -n 1 "$WORK/log")"
    say "manifest sha256:$MANIFEST is written as $one"
    say "index    sha256:$INDEX is written as $both"
    [ "$one" = "sha256:$MANIFEST" ] || changed "a manifest has another digest as well"
    [ "$both" != "sha256:$INDEX" ] || changed "the index keeps its digest"
    grep -rq artifactType "$WORK/to/blobs/sha256/${both#sha256:}" && changed "the copy has an artifactType, and another digest all the same"
    if copied both --all --preserve-digests >/dev/null; then changed "--preserve-digests copies it"; fi
    say "with --preserve-digests: $(sed 's/.*msg=//' "$WORK/log" | tail -n 1)"
    say "as found: the index has lost its artifactType, and with it its digest"
}

main
