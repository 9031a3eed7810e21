# shellcheck shell=sh
# Signatures of the agent's release. Sourced by scripts/release.sh behind lib/cli.sh, not run; the caller has REPO, PASSPHRASE and WORK/keys.
#
# Must never: show a key or a passphrase in a list of processes, or write a signature that does not verify.

# sign FILE: makes FILE.sig and bundles beside it; scripts/sign.sh judges the keys, and makes the bundles.
sign() {
    digest=sha256:$(sha256sum <"$1" | cut -d' ' -f1)
    number=0
    : >"$1.sig"
    while IFS= read -r key <&3; do
        number=$((number + 1))
        bundle=$1.sigstore.json
        [ "$number" -eq 1 ] || bundle=$1.$number.sigstore.json
        "$REPO/scripts/sign.sh" --key "$key" ${PASSPHRASE:+--passphrase-file "$PASSPHRASE"} --bundle "$bundle" \
            --digest "$digest" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "cannot sign with $key"; }
        sign_line "$1" "$key" >>"$1.sig"
    done 3<"$WORK/keys"
    [ "$(sort -u "$WORK/hints" | wc -l)" -eq "$number" ] || misuse "a key is given twice"
}

# sign_line FILE KEY: one line, as in latest.json.sig; it is verified before it counts.
sign_line() {
    openssl pkey -in "$2" ${PASSPHRASE:+-passin "file:$PASSPHRASE"} -pubout -out "$WORK/public" 2>"$WORK/log" ||
        { cat "$WORK/log" >&2; die "openssl cannot read $2"; }
    digest_option=sha256
    if openssl pkey -pubin -in "$WORK/public" -noout -text | grep -q '^ED25519'; then digest_option=; fi
    openssl pkeyutl -sign -rawin ${digest_option:+-digest "$digest_option"} -inkey "$2" \
        ${PASSPHRASE:+-passin "file:$PASSPHRASE"} -in "$1" -out "$WORK/signature" 2>"$WORK/log" ||
        { cat "$WORK/log" >&2; die "openssl cannot sign with $2"; }
    openssl pkeyutl -verify -rawin ${digest_option:+-digest "$digest_option"} -pubin -inkey "$WORK/public" \
        -in "$1" -sigfile "$WORK/signature" >/dev/null 2>&1 || die "what $2 signs does not verify"
    sha256sum <"$WORK/public" >>"$WORK/hints"
    printf '%s\n' "$(base64 -w 0 "$WORK/signature")"
}
