# shellcheck shell=sh
# Keys, and signatures by them, with openssl alone: Ed25519 and ECDSA P-256. Sourced by scripts/sign.sh behind lib/facts.sh, not run;
# the caller has PASSPHRASE, a file or nothing; KEYS, the number of keys; WORK/keys, which lists them: number, kind, fingerprint, file.
#
# Must never: show a private key or a passphrase in a list of processes.

# What stands before the bytes of a key, in hexadecimal: the one encoding of each kind that machines take.
ED25519_PREFIX=302a300506032b6570032100
P256_PREFIX=3059301306072a8648ce3d020106082a8648ce3d03010703420004

# kind_name PUBLIC_KEY: in a few words.
kind_name() {
    openssl pkey -pubin -in "$1" -noout -text 2>/dev/null | awk '
        NR == 1 { bits = $0; sub(/:? *Public-Key:? */, "", bits) }
        NR == 1 && /^[A-Z0-9]+ Public-Key/ { kind = $1 }
        /^Modulus/ { kind = "RSA" }
        /^NIST CURVE: / { kind = "ECDSA " $3 }
        /^ASN1 OID: / && kind == "" { kind = "ECDSA " $3 }
        END { print (kind == "" ? "of another kind" : kind) (bits == "" || kind == bits ? "" : " " bits) }'
}

# add_key FILE: makes its public parts in WORK, and a line in WORK/keys.
add_key() {
    [ -f "$1" ] || die "$1 is not a file"
    if grep -q -e 'SIGSTORE PRIVATE KEY-----' -- "$1"; then
        die "$1 is encrypted the way of cosign, which openssl cannot read: sign with cosign sign --key $1," \
            "or make a key with scripts/keygen.sh"
    fi
    grep -q -e '^-----BEGIN .*PRIVATE KEY-----' -- "$1" || die "$1 is not a private key in PEM"
    if [ -z "$PASSPHRASE" ] && grep -q -e ENCRYPTED -- "$1"; then
        die "$1 is encrypted: give the file with its passphrase as --passphrase-file"
    fi
    case $(stat -L -c %A -- "$1") in
        ????------*) ;;
        *) warn "others than its owner may read $1 (chmod 600 $1)" ;;
    esac
    number=$((KEYS + 1))
    # A key may ask for its points to be compressed, and machines take only the other form.
    openssl pkey -in "$1" ${PASSPHRASE:+-passin "file:$PASSPHRASE"} -pubout -ec_conv_form uncompressed \
        -out "$WORK/$number.pub" 2>"$WORK/said" ||
        openssl pkey -in "$1" ${PASSPHRASE:+-passin "file:$PASSPHRASE"} -pubout -out "$WORK/$number.pub" 2>"$WORK/said" ||
        { tail -n 1 "$WORK/said" >&2; die "openssl cannot read the key $1: damaged, or another passphrase"; }
    openssl pkey -pubin -in "$WORK/$number.pub" -outform DER -out "$WORK/$number.der"
    case $(od -An -v -tx1 "$WORK/$number.der" | tr -d ' \n') in
        "$ED25519_PREFIX"*) kind=Ed25519 ;;
        "$P256_PREFIX"*) kind=P-256 ;;
        *) die "$1 is neither an Ed25519 nor an ECDSA P-256 key, but $(kind_name "$WORK/$number.pub"): machines take" \
            "no other; make one with scripts/keygen.sh NAME" ;;
    esac
    hash "$WORK/$number.der"
    if grep -q -e " $HEX " "$WORK/keys"; then misuse "the key $1 (sha256:$HEX) is given twice"; fi
    KEYS=$number
    printf '%s %s %s %s\n' "$number" "$kind" "$HEX" "$1" >>"$WORK/keys"
}

# sign_bytes KIND KEY FILE SIGNATURE
sign_bytes() {
    case $1 in
        Ed25519) set -- pkeyutl -sign -rawin -inkey "$2" -in "$3" -out "$4" ;;
        P-256) set -- dgst -sha256 -sign "$2" -out "$4" "$3" ;;
    esac
    command=$1
    shift
    openssl "$command" ${PASSPHRASE:+-passin "file:$PASSPHRASE"} "$@" >"$WORK/said" 2>&1 ||
        { tail -n 2 "$WORK/said" >&2; die "openssl could not sign"; }
}

# verifies KIND PUBLIC_KEY FILE SIGNATURE. Not with `openssl dgst`, which reads the first 72 bytes of a signature only,
# and would so take what machines refuse.
verifies() {
    digest_option=
    if [ "$1" = P-256 ]; then digest_option=sha256; fi
    openssl pkeyutl -verify -rawin ${digest_option:+-digest "$digest_option"} -pubin -inkey "$2" -in "$3" \
        -sigfile "$4" >/dev/null 2>&1
}
