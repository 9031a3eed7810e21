#!/bin/sh
# Publishes one version into a registry: one architecture a run, or several; the index is made, or extended.
#
# oras does the transport. The documents are those of publish-layout.sh, byte for byte. Must never: move a tag before
# everything below it is there and signed; sign an index that lists what no key of ours has signed; take a registry that
# does not answer for one that has nothing.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

# Most times that the index is made anew because another run publishes the other architecture meanwhile.
MAX_ROUNDS=8

REPOSITORY=
PLAIN_HTTP=
PASSPHRASE=
DRY_RUN=no
# An architecture of this version that another run has published, and that is gone.
GONE=
JUDGED=no

usage() {
    cat <<USAGE
Usage: scripts/push-oci-artifact.sh --repository HOST/REPO --version V [OPTION]...
           --arch amd64 --kernel FILE --initramfs FILE [--arch arm64 --kernel FILE --initramfs FILE]

Publishes version V into a registry, with oras and the credentials of \`oras login\`, and prints the digest
of the image index. The tags, in this order: V-amd64 and V-arm64 name the manifests, V names the index of those
that are there (a '+' in V becomes '_'), then each --tag. A tag is moved when all that it leads to is there,
and, with --key, signed. So amd64 and arm64 can be published by two runs, also at the same time. Once
interrupted, start it again with the dates that it printed (not \$(date), not now): it continues.

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
    chunks_usage
    cat <<USAGE
  --dry-run              check everything, ask the registry, say what would be published, write nothing
  -h, --help             this text

A registry has no way to change a tag only if nobody else did: somebody who pushes the same tags with another tool
at the same moment is not noticed.
USAGE
}

# shellcheck source=scripts/lib/release.sh
. "$REPO/scripts/lib/release.sh"
# shellcheck source=scripts/lib/published.sh
. "$REPO/scripts/lib/published.sh"
# shellcheck source=scripts/lib/registry.sh
. "$REPO/scripts/lib/registry.sh"

check() {
    [ -n "$REPOSITORY" ] || misuse "--repository is missing"
    is_repository "$REPOSITORY" ||
        misuse "--repository must be HOST/REPO without a tag (registry.example.com/os/kubesolo), not '$REPOSITORY'"
    need_tools "scripts/install-deps.sh publish brings it" oras
    check_release
    VERSION_TAG=$(printf '%s' "$VERSION" | tr + _)
    for tag in "$VERSION_TAG" "$VERSION_TAG-amd64" "$VERSION_TAG-arm64"; do
        [ "${#tag}" -le 128 ] || die "--version is too long for a tag: $tag has more than 128 characters"
        case "$TAGS " in *" $tag "*) die "--tag $tag: that one is made without being asked for" ;; esac
    done
    check_signers
    [ "$KEYS" = yes ] || [ -z "$PASSPHRASE" ] || misuse "--passphrase-file is for --key"
    say_dates
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
    # Whatever else went wrong may hide what is there.
    if says_absent "$WORK/said" "$name"; then return 1; fi
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
        [ "$round" -lt "$MAX_ROUNDS" ] || die "another publisher keeps moving the tags of $REPOSITORY: $VERSION_TAG$TAGS"
    done
}

main() {
    LC_ALL=C
    export LC_ALL
    umask 022
    note_typed "$@"
    work_folder
    : >"$WORK/keys"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --plain-http) PLAIN_HTTP=$1; shift; continue ;;
            --allow-older) ALLOW_OLDER=yes; shift; continue ;;
            --partial) ALLOW_PARTIAL=yes; shift; continue ;;
            --no-chunks) CHUNKS=no; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --repository | --tag | --key | --passphrase-file) ;;
            *) is_release_option "$1" || misuse "unknown option: $1" ;;
        esac
        need_value "$@"
        case $1 in
            --repository) REPOSITORY=$2 ;;
            --tag) add_tag "$2" ;;
            --key) add_signer "$2" ;;
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
        [ "$KEYS" = yes ] || warn "without --key nothing is signed: machines that have keys take nothing of it"
        publish
        say "version $VERSION ($CHANNEL) for$ARCHES is published: $REPOSITORY@$DIGEST"
    fi
    printf '%s\n' "$DIGEST"
}

main "$@"
