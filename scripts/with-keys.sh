#!/bin/sh
# Runs a command with the signing keys that a pipeline hands over in its environment.
set -eu

# shellcheck source=scripts/lib/cli.sh
. "$(dirname -- "$0")/lib/cli.sh"

usage() {
    cat <<'USAGE'
Usage: scripts/with-keys.sh [--key FILE]... -- COMMAND [ARG]...

Runs COMMAND ARG... --key FILE..., with one --key for each that is given here and for each of the variables
SIGNING_KEY and SIGNING_KEY_2 (both: keys are being rotated). These hold a private key in PEM. It goes into a
file that only this user can read, in memory where there is /dev/shm, and that is removed at the end; COMMAND
does not see the variables. A variable that is set but empty, a secret that was never stored for one, is an
error for SIGNING_KEY, and nothing for SIGNING_KEY_2.

  -h, --help   this text
USAGE
}

# store NAME TEXT: what is said of a wrong key must not hold it.
store() {
    printf '%s\n' "$2" >"$WORK/$1"
    openssl pkey -in "$WORK/$1" -passin pass: -noout >/dev/null 2>&1 ||
        die "$1 is not a private key in PEM, without a password: store the whole file that scripts/keygen.sh made"
}

# keys_to_files: sets KEY_1 and KEY_2 to files, where there are keys.
keys_to_files() {
    KEY_1='' KEY_2=''
    if [ -z "${SIGNING_KEY+set}${SIGNING_KEY_2:-}" ]; then return 0; fi
    [ -n "${SIGNING_KEY-}" ] || die "SIGNING_KEY is empty: is the secret of that name stored, and does this run see it?"
    need_tools "scripts/install-deps.sh release brings it" openssl
    memory=/dev/shm
    if [ ! -d "$memory" ] || [ ! -w "$memory" ]; then memory=${TMPDIR:-/tmp}; fi
    work_folder_at "$memory/keys.XXXXXXXXXX"
    store SIGNING_KEY "$SIGNING_KEY"
    KEY_1=$WORK/SIGNING_KEY
    if [ -n "${SIGNING_KEY_2-}" ]; then
        store SIGNING_KEY_2 "$SIGNING_KEY_2"
        KEY_2=$WORK/SIGNING_KEY_2
    fi
    unset SIGNING_KEY SIGNING_KEY_2
}

main() {
    umask 077
    keys=0
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --)
                shift
                break
                ;;
            --key)
                need_value "$@"
                case $2 in --*) misuse "--key needs a value, not the option '$2'" ;; esac
                [ -f "$2" ] || die "--key $2 is not a file"
                # Kept behind the arguments; the command that comes first is brought forward below.
                set -- "$@" "$1" "$2"
                keys=$((keys + 1))
                shift 2
                ;;
            *) misuse "unknown option: $1 (the command comes after --)" ;;
        esac
    done
    [ $# -gt $((2 * keys)) ] || misuse "no command"
    keys_to_files
    set -- "$@" ${KEY_1:+--key "$KEY_1"} ${KEY_2:+--key "$KEY_2"}
    # For COMMAND, files are as they would be without this script.
    (umask 022; exec "$@")
}

main "$@"
