# shellcheck shell=sh
# Checks of what is put onto machines by hand: keys and configuration. Sourced, not run; the caller has die.

# not_writable FILE: by others than its owner, who could let their own key in, or run what they like.
not_writable() {
    [ -z "$(find -L "$1" -prune -perm /022)" ] || die "$1: its group or everybody may write to it (chmod go-w)"
}

# check_keys DIR: public keys, and nothing that must not leave the machine where it is.
check_keys() {
    [ -d "$1" ] || die "--keys $1 is no directory"
    not_writable "$1"
    found=no
    for key in "$1"/*.pub; do
        [ -e "$key" ] || continue
        found=yes
        not_writable "$key"
        if grep -q 'PRIVATE KEY' "$key"; then die "$key is a PRIVATE key: it must not leave your machine"; fi
        grep -q 'BEGIN PUBLIC KEY' "$key" || die "$key is no public key in PEM"
    done
    [ "$found" = yes ] || die "there is no *.pub in $1"
}
