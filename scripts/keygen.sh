#!/bin/sh
# Makes a key pair that signs updates, or says what a public key is called.
#
# Needs scripts/lib/cli.sh beside it.
# Must never: overwrite a key, leave half of one, or show a private key or passphrase to anybody else.
set -eu

# shellcheck source=scripts/lib/cli.sh
. "$(dirname -- "$(readlink -f -- "$0")")/lib/cli.sh"

# What stands before the bytes of a key, in hexadecimal: the one encoding of each kind that machines take.
ED25519_PREFIX=302a300506032b6570032100
P256_PREFIX=3059301306072a8648ce3d020106082a8648ce3d03010703420004
# What a passphrase costs to try. OpenSSL's own 2048 is from another time.
ITERATIONS=600000

TYPE=p256
PASSPHRASE=
FINGERPRINT=no
DRY_RUN=no
NAME=

usage() {
    cat <<USAGE
Usage: scripts/keygen.sh [--type ed25519|p256] [--passphrase-file FILE] [--dry-run] NAME
       scripts/keygen.sh --fingerprint FILE.pub

Writes NAME.key (private, PKCS#8 in PEM, mode 0600) and NAME.pub (public, PEM: it goes into
/etc/kubesolo/update-keys.d of the machines), and prints the fingerprint by which machines call
the key: sha256: and the SHA-256 of its SubjectPublicKeyInfo in DER. Files that exist stay as
they are: then nothing is written.

  --type TYPE              p256 (ECDSA, which stock cosign can verify) or ed25519 (default: $TYPE)
  --passphrase-file FILE   encrypts the private key with the first line of FILE
  --fingerprint FILE.pub   prints the fingerprint of a public key, makes none
  --dry-run                check everything, say what would be written, write nothing
  -h, --help               this text
USAGE
}

# fingerprint FILE: of a public key in PEM; prints it. Refuses what machines refuse.
fingerprint() {
    [ -f "$1" ] || die "$1 is not a file"
    openssl pkey -pubin -in "$1" -outform DER -out "$WORK/der" 2>/dev/null ||
        die "$1 is not a public key in PEM (a private key stays where it is: name its .pub)"
    case $(od -An -v -tx1 "$WORK/der" | tr -d ' \n') in
        "$ED25519_PREFIX"* | "$P256_PREFIX"*) ;;
        *) die "$1 is neither an Ed25519 nor an ECDSA P-256 key, and machines take no other:" \
            "make one with scripts/keygen.sh NAME" ;;
    esac
    hex=$(sha256sum <"$WORK/der")
    printf 'sha256:%s\n' "${hex%% *}"
}

check() {
    for file in "$NAME.key" "$NAME.pub"; do
        if [ -e "$file" ] || [ -L "$file" ]; then
            die "$file is there already, and no key is ever overwritten: choose another name (a lost .pub comes" \
                "back with: openssl pkey -in $NAME.key -pubout -out $NAME.pub)"
        fi
    done
    [ -d "$DIR" ] || die "$DIR is not a directory"
    if [ -n "$PASSPHRASE" ]; then
        # It is read more than once.
        [ -f "$PASSPHRASE" ] || die "--passphrase-file $PASSPHRASE is not a file"
        [ -n "$(head -n 1 -- "$PASSPHRASE")" ] || die "--passphrase-file $PASSPHRASE: its first line is empty"
    fi
}

# Makes both files in WORK. The bare private key goes through a pipe, to no disk, where a passphrase is wanted.
make_pair() {
    case $TYPE in
        ed25519) set -- -algorithm ed25519 ;;
        p256) set -- -algorithm EC -pkeyopt ec_paramgen_curve:P-256 ;;
    esac
    if [ -n "$PASSPHRASE" ]; then
        openssl genpkey "$@" | openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -iter "$ITERATIONS" \
            -passout "file:$PASSPHRASE" -out "$WORK/key" || die "openssl could not make the key"
    else
        openssl genpkey "$@" -out "$WORK/key" || die "openssl could not make the key"
    fi
    openssl pkey -in "$WORK/key" ${PASSPHRASE:+-passin "file:$PASSPHRASE"} -pubout -out "$WORK/pub" ||
        die "openssl cannot read the key that it has just made"
    chmod 600 "$WORK/key"
    chmod 644 "$WORK/pub"
}

# publish FILE TARGET: all of it under its name, or nothing; and never over another file, which a rename would do.
publish() {
    sync -- "$1"
    ln -T -- "$1" "$2" || die "cannot write $2 (the directory must be on a filesystem with hard links and modes;" \
        "a FAT stick has neither)"
}

main() {
    LC_ALL=C
    export LC_ALL
    umask 077
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --fingerprint) FINGERPRINT=yes; shift; continue ;;
            --type | --passphrase-file) need_value "$@" ;;
            -*) misuse "unknown option: $1" ;;
            *)
                [ -z "$NAME" ] || misuse "one name only: $NAME or $1"
                [ -n "$1" ] || die "the name is empty"
                NAME=$1
                shift
                continue
                ;;
        esac
        case $1 in
            --type) TYPE=$2 ;;
            --passphrase-file) PASSPHRASE=$2 ;;
        esac
        shift 2
    done
    [ -n "$NAME" ] || misuse "no name given"
    case $TYPE in ed25519 | p256) ;; *) misuse "--type must be ed25519 or p256, not '$TYPE'" ;; esac
    need_tools "install the package openssl" openssl
    if [ "$FINGERPRINT" = yes ]; then
        work_folder
        fingerprint "$NAME"
        return
    fi
    DIR=$(dirname -- "$NAME")
    check
    if [ "$DRY_RUN" = yes ]; then
        say "dry run: nothing was written; it would be $NAME.key and $NAME.pub ($TYPE)"
        return
    fi
    # Beside its place, since a link crosses no filesystem.
    work_folder_at "$DIR/.keygen.XXXXXX"
    make_pair
    id=$(fingerprint "$WORK/pub")
    # This one first: a public key without its private one would be handed out for nothing.
    publish "$WORK/key" "$NAME.key"
    publish "$WORK/pub" "$NAME.pub"
    sync -- "$DIR"
    say "wrote $NAME.key (keep it secret, and a copy of it safe) and $NAME.pub ($TYPE)"
    printf '%s\n' "$id"
}

main "$@"
