#!/bin/sh
# Signs an update: in a registry, in an OCI image layout, or a latest.json.
#
# Makes what `cosign sign --key` makes, with openssl alone, and for Ed25519 keys as well. Must never: show a private
# key or a passphrase in a list of processes, publish a signature that does not verify, or sign a release whose date
# would shut machines out of the releases after it. A machine that has the keys needs nothing of this repository but this
# file and, beside it, lib/.
set -eu

LIB=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/lib" && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$LIB/cli.sh"

PASSPHRASE=
PLAIN_HTTP=
RECURSIVE=no
FUTURE_DATE=no
DRY_RUN=no
MODE=
TARGET=
LAYOUT=
REPOSITORY=
DIGEST=
OUT=
KEYS=0
PARTIAL=

usage() {
    cat <<USAGE
Usage: scripts/sign.sh --key KEY [--key KEY]... [OPTION]... REGISTRY/REPO:TAG | REGISTRY/REPO@sha256:HEX
       scripts/sign.sh --key KEY [--key KEY]... [OPTION]... --layout DIR[:TAG]
       scripts/sign.sh --key KEY [--key KEY]... [OPTION]... --latest FILE
       scripts/sign.sh --key KEY [OPTION]... --bundle OUT --digest sha256:HEX

Signs a release with each KEY (a private key in PEM, Ed25519 or ECDSA P-256: scripts/keygen.sh makes
one) and prints the digest of each manifest signed, or the file written. A tag is resolved once.

  REGISTRY/REPO...         attaches a sigstore bundle to the manifest or index, as cosign does; oras
                           does the transport, with the credentials of \`oras login\`
  --layout DIR[:TAG]       the same in an OCI image layout, so that signatures travel on the stick;
                           without a TAG: latest, or else the only one there is
  --latest FILE            writes FILE.sig, one line of base64 for each KEY, over FILE's exact bytes;
                           the lines that FILE.sig held before stay behind them, up to 8 in all: another
                           signer's, and those of the document before. So put FILE.sig on the server
                           first, then FILE: no machine meets one without the other
  --bundle OUT --digest D  writes the bundle to the file OUT and nothing else; there is no manifest to
                           look at, so that nobody checks the release's dates
  --recursive              signs each manifest of an index as well
  --passphrase-file FILE   its first line opens the KEYs that are encrypted
  --future-date            signs a release whose date is ahead all the same: the way on, once such a
                           date is out there
  --plain-http             the registry has no TLS
  --dry-run                check everything, say what would be signed, write nothing
  -h, --help               this text

What a KEY has signed already is not signed again. A release is refused whose date (release_date) is
more than a day ahead, since a machine on which it has run takes no older one ever again, one that is
expired, and one with a name in it that machines would pass over (a misspelt expires).

In a registry each signature gets a tag of its own, signature-SIGNED-MANIFEST (the first 16 digits of
both digests), since cleanings of a registry delete what has no tag; one that cosign made with KEY gets
its tag here as well. A registry without the referrers API lists signatures in a tag (sha256-HEX) that
is read and written back: there, two that sign the same thing at the same time may lose one. What it
lists and the registry no longer has is taken out of it, before something is added.
USAGE
}

clean_up() { [ -z "$PARTIAL" ] || rm -f "$PARTIAL"; }

# shellcheck source=scripts/lib/facts.sh
. "$LIB/facts.sh"
# shellcheck source=scripts/lib/openssl.sh
. "$LIB/openssl.sh"
# shellcheck source=scripts/lib/documents.sh
. "$LIB/documents.sh"
# shellcheck source=scripts/lib/cosign.sh
. "$LIB/cosign.sh"
# shellcheck source=scripts/lib/latest.sh
. "$LIB/latest.sh"

# replace SOURCE TARGET: through a temporary name, durable before it counts.
replace() {
    PARTIAL=$(dirname -- "$2")/.publish.$$
    cp -- "$1" "$PARTIAL" || die "cannot write $PARTIAL"
    sync -- "$PARTIAL"
    cmp -s -- "$1" "$PARTIAL" || die "$PARTIAL does not keep what is written to it"
    mv -fT -- "$PARTIAL" "$2"
    PARTIAL=
}

# --- what is signed

# Two at once would each write an index.json without the other's entry; publish-layout.sh takes the same lock.
open_layout() {
    LAYOUT=$TARGET TAG=
    if [ ! -d "$LAYOUT" ]; then
        case $TARGET in
            *@sha256:*) LAYOUT=${TARGET%@*} DIGEST=${TARGET##*@} ;;
            *:*) LAYOUT=${TARGET%:*} TAG=${TARGET##*:} ;;
        esac
    fi
    [ -z "$DIGEST" ] || is_digest "$DIGEST" || die "$DIGEST is not a digest (sha256: and 64 lower-case hexadecimal digits)"
    if ! [ -f "$LAYOUT/oci-layout" ] || ! jq -e '.manifests | type == "array"' "$LAYOUT/index.json" >/dev/null 2>&1; then
        die "$LAYOUT is not an OCI image layout (a directory with oci-layout and index.json)"
    fi
    if [ "$DRY_RUN" = no ]; then
        exec 9<"$LAYOUT"
        flock -n 9 || die "another run writes into $LAYOUT"
        rm -f -- "$LAYOUT"/.publish.* "$LAYOUT"/blobs/sha256/.publish.*
    fi
}

open_registry() {
    name=${TARGET%%@*}
    TAG=
    case ${name##*/} in *:*) TAG=${name##*:} name=${name%:*} ;; esac
    case $TARGET in *@*) DIGEST=${TARGET#*@} ;; esac
    REPOSITORY=$name
    case $REPOSITORY in
        -* | /* | */) die "'$TARGET' is not REGISTRY/REPO:TAG or REGISTRY/REPO@sha256:HEX" ;;
        */*) ;;
        *) die "'$TARGET' is not REGISTRY/REPO:TAG or REGISTRY/REPO@sha256:HEX" ;;
    esac
    [ -n "$TAG$DIGEST" ] || die "$TARGET names neither tag nor digest: nothing is signed that is not named"
    [ -z "$DIGEST" ] || is_digest "$DIGEST" || die "$DIGEST is not a digest (sha256: and 64 lower-case hexadecimal digits)"
}

sign_release() {
    resolve
    read_release
    if [ "$KEYS" -eq 0 ]; then
        say "$DIGEST: dry run: no key is given; its names and dates are as they must be"
        return 0
    fi
    while read -r digest <&5; do
        demand "$digest" "$WORK/subject"
        attached_bundles "$digest"
        while read -r number kind hex path <&3; do
            if already_signed "$digest" "$kind" "$WORK/$number.pub"; then
                say "$digest: already signed by sha256:$hex ($kind, $path)"
                keep "$digest" "$REFERRER"
                continue
            fi
            make_bundle "$digest" "$kind" "$hex" "$path" "$WORK/$number.pub"
            if [ "$DRY_RUN" = yes ]; then
                say "$digest: dry run: not signed; it would be by sha256:$hex ($kind, $path)"
            else
                attach "$digest" "$WORK/subject"
                say "$digest: signed by sha256:$hex ($kind, $path)"
            fi
        done 3<"$WORK/keys"
        printf '%s\n' "$digest"
    done 5<"$WORK/digests"
}

sign_bundle() {
    read -r number kind hex path <"$WORK/keys"
    make_bundle "$DIGEST" "$kind" "$hex" "$path" "$WORK/$number.pub"
    if [ "$DRY_RUN" = yes ]; then
        say "dry run: nothing was written; it would be $OUT, by sha256:$hex ($kind, $path)"
    else
        replace "$WORK/bundle" "$OUT"
        say "$OUT: $DIGEST signed by sha256:$hex ($kind, $path)"
    fi
    printf '%s\n' "$OUT"
}

# choose MODE TARGET
choose() {
    [ -z "$MODE" ] || misuse "one thing to sign only: $TARGET or $2"
    MODE=$1 TARGET=$2
}

check() {
    [ -n "$MODE" ] || misuse "nothing to sign is named"
    [ -s "$WORK/given" ] || [ "$DRY_RUN$MODE" = yesregistry ] || [ "$DRY_RUN$MODE" = yeslayout ] ||
        [ "$DRY_RUN$MODE" = yeslatest ] || misuse "--key is missing"
    [ "$MODE" = bundle ] || [ -z "$DIGEST" ] || misuse "--digest belongs to --bundle"
    case $RECURSIVE$MODE in yeslatest | yesbundle) misuse "--recursive is for a registry or a layout" ;; esac
    case $MODE in
        bundle) is_digest "$DIGEST" || misuse "--bundle needs --digest sha256:HEX (64 lower-case hexadecimal digits)" ;;
        registry) need_tools "scripts/install-deps.sh publish brings it" oras ;;
    esac
    need_tools "install the package that has it (Debian: jq, openssl, util-linux, coreutils)" jq openssl flock sha256sum
    if [ -n "$PASSPHRASE" ]; then
        # It is read more than once.
        [ -f "$PASSPHRASE" ] || die "--passphrase-file $PASSPHRASE is not a file"
        [ -n "$(head -n 1 -- "$PASSPHRASE")" ] || die "--passphrase-file $PASSPHRASE: its first line is empty"
    fi
}

main() {
    LC_ALL=C
    export LC_ALL
    # Machines, or a web server, have to read what this writes.
    umask 022
    work_folder
    : >"$WORK/given"
    : >"$WORK/keys"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --plain-http) PLAIN_HTTP=yes; shift; continue ;;
            --recursive) RECURSIVE=yes; shift; continue ;;
            --future-date) FUTURE_DATE=yes; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --key | --passphrase-file | --layout | --latest | --bundle | --digest) need_value "$@" ;;
            -*) misuse "unknown option: $1" ;;
            *) choose registry "$1"; shift; continue ;;
        esac
        case $1 in
            --key)
                case $2 in *'
'*) die "--key: a newline in a file name" ;; esac
                printf '%s\n' "$2" >>"$WORK/given"
                ;;
            --passphrase-file) PASSPHRASE=$2 ;;
            --layout) choose layout "${2%/}" ;;
            --latest) choose latest "$2" ;;
            --bundle) choose bundle "$2"; OUT=$2 ;;
            --digest) DIGEST=$2 ;;
        esac
        shift 2
    done
    check
    while IFS= read -r key <&3; do add_key "$key"; done 3<"$WORK/given"
    [ "$MODE" != bundle ] || [ "$KEYS" -eq 1 ] || misuse "--bundle takes one --key: a bundle names one key"
    case $MODE in
        registry) open_registry; sign_release ;;
        layout) open_layout; sign_release ;;
        latest) sign_latest ;;
        bundle) sign_bundle ;;
    esac
}

main "$@"
