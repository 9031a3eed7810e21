# shellcheck shell=sh
# Checks of what is put onto machines by hand: keys and configuration. Sourced, not run; the caller has die.

# Machines look at no more (src/trust/keyring.rs).
MAX_KEYS=16
MAX_REVOKED=64

# not_writable FILE: by others than its owner, who could let their own key in, or run what they like.
not_writable() {
    [ -z "$(find -L "$1" -prune -perm /022)" ] || die "$1: its group or everybody may write to it (chmod go-w)"
}

# check_keys DIR: public keys, what is revoked, and nothing that must not leave the machine where it is. Of a list of what
# is revoked with one line that is none, machines take no update at all.
check_keys() {
    [ -d "$1" ] || die "--keys $1 is no directory"
    not_writable "$1"
    found=0
    for key in "$1"/*.pub; do
        [ -e "$key" ] || continue
        found=$((found + 1))
        check_public_key "$key"
    done
    [ "$found" -gt 0 ] || die "there is no *.pub in $1"
    [ "$found" -le "$MAX_KEYS" ] || die "$1 has $found keys, and machines look at $MAX_KEYS at most"
    [ -d "$1/revoked" ] || return 0
    not_writable "$1/revoked"
    found=0
    for list in "$1"/revoked/*; do
        [ -e "$list" ] || continue
        found=$((found + 1))
        case $list in *.pub) check_public_key "$list" ;; *) check_revoked "$list" ;; esac
    done
    [ "$found" -le "$MAX_REVOKED" ] || die "$1/revoked has $found files, and machines read $MAX_REVOKED at most"
}

# check_public_key FILE
check_public_key() {
    [ -f "$1" ] || die "$1 is no file"
    not_writable "$1"
    if grep -q 'PRIVATE KEY' "$1"; then die "$1 is a PRIVATE key: it must not leave your machine"; fi
    grep -q 'BEGIN PUBLIC KEY' "$1" || die "$1 is no public key in PEM"
}

# check_revoked FILE: lines of sha256:HEX; # begins a comment.
check_revoked() {
    [ -f "$1" ] || die "$1 is no file"
    not_writable "$1"
    if grep -q 'PRIVATE KEY' "$1"; then die "$1 is a PRIVATE key: it must not leave your machine"; fi
    if sed -e 's/#.*//' "$1" | grep -qvxE '[[:space:]]*(sha256:[0-9a-f]{64}[[:space:]]*)?'; then
        die "$1 is no list of what is revoked: each line is sha256: and 64 hex digits (scripts/keygen.sh --fingerprint)"
    fi
}
