#!/bin/sh
# Publishes one version into a directory that a web server serves: the files, and the signed latest.json that names them.
#
# Must never: let a machine see a latest.json whose files are not whole, or without a signature that fits; sign what somebody
# else put into the directory.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

DIR=
PASSPHRASE=
DRY_RUN=no
BEFORE=
PARTIAL=
# Whether a latest.json has named what this run wrote.
ANNOUNCED=no

usage() {
    cat <<USAGE
Usage: scripts/publish-http.sh --dir DIR --version V [OPTION]...
           --arch amd64 --kernel FILE --initramfs FILE [--arch arm64 --kernel FILE --initramfs FILE]

Publishes version V in DIR, which a web server serves: V/ARCH/vmlinuz and V/ARCH/kubesolo-os.gz, their chunk
indexes (.chunks), then latest.json.sig, then latest.json, each whole or not there. Prints the SHA-256 of latest.json. An
architecture that V is published for already stays in it. Several --initramfs become one file.

The same again changes nothing. A version that is there with other content is refused: a version is published
once. Files of older versions stay, for machines that are reading them. A run that fails before latest.json
is in its place takes away the files that it wrote.

  --dir DIR              the web server's directory
  --key KEY              signs latest.json (scripts/sign.sh); may be given several times. Without it
                         machines that have keys take nothing of it
  --passphrase-file FILE its first line opens the keys
USAGE
    older_usage
    release_usage
    chunks_usage
    cat <<USAGE
  --dry-run              check everything, say what would be published, write nothing
  -h, --help             this text
USAGE
}

clean_up() {
    [ -z "$PARTIAL" ] || rm -f "$PARTIAL"
    if [ "$ANNOUNCED" = no ] && [ -n "$WORK" ] && [ -s "$WORK/written" ]; then withdraw; fi
}

# withdraw: what this run wrote and nothing names. Left there, it would keep its version from being published.
withdraw() {
    while IFS= read -r url; do
        rm -f -- "$DIR/$url"
        rmdir -- "$DIR/${url%/*}" "$DIR/${url%%/*}" 2>/dev/null || :
    done <"$WORK/written"
}

# shellcheck source=scripts/lib/release.sh
. "$REPO/scripts/lib/release.sh"
# shellcheck source=scripts/lib/published.sh
. "$REPO/scripts/lib/published.sh"
# shellcheck source=scripts/lib/announced.sh
. "$REPO/scripts/lib/announced.sh"

check() {
    [ -n "$DIR" ] || misuse "--dir is missing"
    [ -d "$DIR" ] || die "$DIR is not a directory: make it, it is what the web server serves"
    check_release
    check_signers
    if [ "$KEYS" = no ]; then
        [ -z "$PASSPHRASE" ] || misuse "--passphrase-file is for --key"
        [ ! -e "$DIR/latest.json.sig" ] ||
            die "$DIR/latest.json is signed: what is not would be refused by the machines that took it. Give --key, or" \
                "remove latest.json.sig first"
    fi
    say_dates
}

# lock: two at once would each write a latest.json without the other's architecture.
lock() {
    exec 9<"$DIR"
    flock -n 9 || die "another run publishes into $DIR"
    find "$DIR" -name '.publish.*' -type f -exec rm -f {} +
}

# sign OPTION... FILE: with all keys.
sign() {
    while IFS= read -r key; do set -- --key "$key" "$@"; done <"$WORK/keys"
    "$REPO/scripts/sign.sh" ${PASSPHRASE:+--passphrase-file "$PASSPHRASE"} "$@" \
        >"$WORK/signed" 2>"$WORK/said" || { sed -e "s|$WORK/next/||g" -e "s|$WORK/before/||g" "$WORK/said" >&2; return 1; }
}

# relay BEGINNING: what sign.sh said that begins so, of a file by the name that it will have.
relay() { sed -n -e "s|$WORK/next/||g" -e "s|^sign: $1|publish-http: $1|p" "$WORK/said" >&2; }

# check_before: what is published already, and may not be lost.
check_before() {
    : >"$WORK/kept"
    [ -e "$DIR/latest.json" ] || return 0
    # Once: what is judged is what is used, whoever writes there meanwhile.
    mkdir "$WORK/before"
    BEFORE=$WORK/before/latest.json
    cp -- "$DIR/latest.json" "$BEFORE"
    if [ -e "$DIR/latest.json.sig" ]; then cp -- "$DIR/latest.json.sig" "$BEFORE.sig"; fi
    jq -e 'type == "object" and (.version | type == "string")' "$BEFORE" >/dev/null 2>&1 ||
        die "$DIR/latest.json is there, and no latest.json: move it away"
    before=$(jq -r .version "$BEFORE")
    if [ "$before" != "$VERSION" ] && [ "${before#v}" = "${VERSION#v}" ]; then
        die "$DIR has this version as $before, and machines take both spellings for one: give --version $before"
    fi
    if [ "$before" = "$VERSION" ]; then
        same_version
    else
        refuse_older "$DIR" "$before" "$(jq -r '.release_date // ""' "$BEFORE")"
        jq -r '.architecture?, .artifacts[]?.architecture? | strings' "$BEFORE" >"$WORK/arches-there"
        printf '%s\n' "$ARCHES" | tr ' ' '\n' >"$WORK/arches-here"
        refuse_partial "$DIR"
        warn_other_keys
    fi
}

# warn_other_keys: a .sig does not say whose lines it has. Of one that sign.sh would not sign any more, nothing is known.
warn_other_keys() {
    if [ "$KEYS" = no ] || [ ! -e "$BEFORE.sig" ]; then return 0; fi
    sign --dry-run --latest "$BEFORE" 2>/dev/null || return 0
    grep -q ': already signed by ' "$WORK/said" ||
        warn "$DIR/latest.json is signed by none of the keys given: machines that have none of these keys, but the one that" \
            "signed it, take nothing of $VERSION"
}

# same_version: nothing that is said of this version may change; other architectures stay in it.
same_version() {
    vouched
    jq -S 'del(.artifacts)' "$BEFORE" >"$WORK/theirs"
    head_of | jq -S . >"$WORK/ours"
    for arch in amd64 arm64; do
        jq -c --arg arch "$arch" '.artifacts[]? | select(.architecture == $arch)' "$BEFORE" >"$WORK/listed"
        case " $ARCHES " in *" $arch "*) ;; *) cat "$WORK/listed" >>"$WORK/kept"; continue ;; esac
        [ -s "$WORK/listed" ] || continue
        jq -S . "$WORK/listed" >>"$WORK/theirs"
        jq -S . "$WORK/entry-$arch" >>"$WORK/ours"
    done
    cmp -s "$WORK/theirs" "$WORK/ours" && return 0
    refuse_changed " with other content" "Take another --version"
}

# vouched: whoever can write to the directory could have put another architecture's files there.
vouched() {
    [ "$KEYS" = yes ] || return 0
    sign --dry-run --latest "$BEFORE" || die "cannot tell who signed $DIR/latest.json"
    if grep -q ': signature by ' "$WORK/said"; then
        die "$DIR/latest.json has this version already, and is not signed by the keys given: a new signature would vouch for" \
            "what another publisher put there. If it is yours: scripts/sign.sh --key KEY --latest $DIR/latest.json"
    fi
}

# check_stored: lists in WORK/missing what of WORK/files is to be written.
check_stored() {
    : >"$WORK/missing"
    while read -r hex url file; do
        if [ ! -e "$DIR/$url" ]; then
            printf '%s %s %s\n' "$hex" "$url" "$file" >>"$WORK/missing"
            continue
        fi
        hash "$DIR/$url"
        [ "$HEX" = "$hex" ] ||
            die "$DIR/$url is there with other content, and may be what a machine is reading: a version is published once;" \
                "nothing was written. Take another --version, or remove $DIR/$VERSION if no latest.json ever named it"
    done <"$WORK/files"
}

# plan: makes WORK/next/latest.json. What sign.sh would not sign is refused here, before anything is written.
plan() {
    : >"$WORK/files"
    for arch in $ARCHES; do entry "$arch"; done
    check_before
    for arch in $ARCHES; do cat "$WORK/entry-$arch"; done >>"$WORK/kept"
    mkdir "$WORK/next"
    head_of | jq --slurpfile artifacts "$WORK/kept" '. + {artifacts: ($artifacts | sort_by(.architecture))}' \
        >"$WORK/next/latest.json"
    hash "$WORK/next/latest.json"
    DIGEST=$HEX
    check_stored
    warn_uncommon
    if [ "$KEYS" = yes ]; then
        sign --dry-run --latest "$WORK/next/latest.json" || die "latest.json would not be signed: nothing was written"
        if [ "$DRY_RUN" = yes ]; then relay 'warning: '; fi
    fi
    say "version $VERSION ($CHANNEL) for$ARCHES: latest.json sha256:$DIGEST"
}

# replace SOURCE TARGET: through a temporary name, durable before it counts.
replace() {
    PARTIAL=$(dirname -- "$2")/.publish.$$
    cp -- "$1" "$PARTIAL" || die "cannot write $PARTIAL"
    sync -- "$PARTIAL"
    cmp -s -- "$1" "$PARTIAL" || die "$1 changed while it was read, or $DIR does not keep what is written to it"
    mv -fT -- "$PARTIAL" "$2"
    PARTIAL=
}

store() {
    while read -r hex url file; do
        target=$DIR/$url
        printf '%s\n' "$url" >>"$WORK/written"
        mkdir -p -- "$(dirname -- "$target")"
        replace "$file" "$target"
        hash "$target"
        [ "$HEX" = "$hex" ] || die "$file changed while it was read: start again"
    done <"$WORK/missing"
    sync -f -- "$DIR"
    if [ "$KEYS" = yes ]; then
        # The lines that were there stay behind the new ones: whoever has read the old document finds its signature.
        if [ -e "$DIR/latest.json.sig" ]; then cp -- "$DIR/latest.json.sig" "$WORK/next/latest.json.sig"; fi
        sign --latest "$WORK/next/latest.json" || die "latest.json was not signed: nothing of it is published"
        relay ''
        if ! cmp -s "$WORK/next/latest.json.sig" "$DIR/latest.json.sig"; then
            replace "$WORK/next/latest.json.sig" "$DIR/latest.json.sig"
            sync -f -- "$DIR"
        fi
    fi
    if cmp -s "$WORK/next/latest.json" "$DIR/latest.json"; then
        ANNOUNCED=yes
        say "$DIR has it already"
    else
        ANNOUNCED=yes
        replace "$WORK/next/latest.json" "$DIR/latest.json"
        sync -f -- "$DIR"
        say "published in $DIR"
    fi
}

main() {
    LC_ALL=C
    export LC_ALL
    # A web server has to read what this writes.
    umask 022
    note_typed "$@"
    work_folder
    : >"$WORK/keys"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --allow-older) ALLOW_OLDER=yes; shift; continue ;;
            --partial) ALLOW_PARTIAL=yes; shift; continue ;;
            --no-chunks) CHUNKS=no; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --dir | --key | --passphrase-file) ;;
            *) is_release_option "$1" || misuse "unknown option: $1" ;;
        esac
        need_value "$@"
        case $1 in
            --dir) DIR=${2%/} ;;
            --key) add_signer "$2" ;;
            --passphrase-file) PASSPHRASE=$2 ;;
            *) release_option "$1" "$2" ;;
        esac
        shift 2
    done
    check
    if [ "$DRY_RUN" = no ]; then lock; fi
    plan
    if [ "$DRY_RUN" = yes ]; then
        say "dry run: nothing was written; it would be in $DIR"
    else
        [ "$KEYS" = yes ] || warn "without --key nothing is signed: machines that have keys take nothing of it"
        store
    fi
    printf '%s\n' "$DIGEST"
}

main "$@"
