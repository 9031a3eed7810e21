# shellcheck shell=sh
# Checks of what is put onto machines by hand: keys and configuration. Sourced, not run; the caller has say, die and WORK, a
# directory that goes when it ends.

# Machines look at no more (src/trust/keyring.rs).
MAX_KEYS=16
MAX_REVOKED=64
# In bytes.
MAX_LIST=262144
MAX_KEY=4096
# What stands before the bytes of a key, in hexadecimal (src/trust/keys.rs).
ED25519_PREFIX=302a300506032b6570032100
CR=$(printf '\r')
PEM_ENDS='-----BEGIN PUBLIC KEY-----
-----END PUBLIC KEY-----'
P256_PREFIX=3059301306072a8648ce3d020106082a8648ce3d03010703420004

# not_writable FILE: by others than its owner, who could let their own key in, or run what they like.
not_writable() {
    [ -z "$(find -L "$1" -prune -perm /022)" ] || die "$1: its group or everybody may write to it (chmod go-w)"
}

# judge_conf AGENT FILE: a machine with a configuration that is none takes no updates any more.
judge_conf() {
    mkdir "$WORK/nowhere"
    code=0
    # On a machine of nothing it gets no further than the configuration. No --layout: that would beat what is wrong in it.
    "$1" check --root "$WORK/nowhere" --config "$2" >"$WORK/log" 2>&1 || code=$?
    case $code in
        2) cat "$WORK/log" >&2; die "the agent does not take $2" ;;
        5 | 6 | 7) ;;
        *) cat "$WORK/log" >&2; die "$1 could not say whether it takes $2 (exit code $code)" ;;
    esac
}

# there PATH: also a link to nowhere.
there() { [ -e "$1" ] || [ -L "$1" ]; }

# check_keys DIR: public keys, what is revoked, and nothing that must not leave the machine where it is. Of a list of what
# is revoked with one line that is none, or in a place where it would revoke nothing, machines take no update at all; and
# what is left out here revokes nothing either.
check_keys() {
    [ -d "$1" ] || die "--keys $1 is no directory"
    ls "$1" >/dev/null || die "$1 cannot be listed"
    not_writable "$1"
    found=0
    for key in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        there "$key" || continue
        case ${key##*/} in
            # Keys may lie in a repository of their own.
            revoked | .git) continue ;;
            *[Rr][Ee][Vv][Oo][CcKk]*) die "$key has a name that says that it revokes something, but only files in revoked/ do" ;;
            # An editor's lock.
            .\#*) [ ! -L "$key" ] || continue ;;
            .*) ;;
            *.pub)
                found=$((found + 1))
                check_public_key "$key"
                continue
                ;;
        esac
        [ -f "$key" ] || die "$key is neither a file nor the directory revoked: machines do not look into it"
        if is_list "$key"; then
            die "$key is a list of digests: what is revoked counts in $1/revoked only" \
                "(move it there if it is to revoke what it names; if not, out of $1)"
        fi
        if grep -q 'PRIVATE KEY' "$key"; then
            say "warning: $key is a PRIVATE key, and not taken: it does not belong beside keys that go onto machines (move it away)"
        else
            say "$key is not taken: the name of a key ends in .pub"
        fi
    done
    [ "$found" -gt 0 ] || die "there is no *.pub in $1"
    [ "$found" -le "$MAX_KEYS" ] || die "$1 has $found keys, and machines look at $MAX_KEYS at most"
    if there "$1/revoked"; then check_lists "$1/revoked"; fi
    count_good "$1"
}

# key_digest FILE: of a public key in PEM, as lists have it.
key_digest() {
    hex=$(tr -d '\r' <"$1" | sed -n '/^-----BEGIN PUBLIC KEY-----/,/^-----END/p' | grep -v '^-----' | base64 -d 2>/dev/null | sha256sum)
    printf 'sha256:%s\n' "${hex%% *}"
}

# count_good DIR: sets GOOD, the number of keys that its own revoked/ does not revoke.
count_good() {
    GOOD=0
    : >"$WORK/revoked"
    for list in "$1"/revoked/*; do
        [ -f "$list" ] || continue
        case $list in *.pub) key_digest "$list" ;; *) list_lines "$list" ;; esac >>"$WORK/revoked"
    done
    for key in "$1"/*.pub; do
        digest=$(key_digest "$key")
        if grep -qxF -- "$digest" "$WORK/revoked"; then
            say "warning: $key ($digest) is revoked by $1/revoked: no machine counts its signatures"
        else
            GOOD=$((GOOD + 1))
        fi
    done
}

# check_lists DIR: what is revoked, all of it.
check_lists() {
    [ -d "$1" ] || die "$1 is no directory"
    ls "$1" >/dev/null || die "$1 cannot be listed"
    not_writable "$1"
    for list in "$1"/.[!.]* "$1"/..?*; do
        # An empty one keeps the directory in git.
        if [ -L "$list" ] || [ -d "$list" ] || [ -s "$list" ]; then
            die "$list is hidden, and would be left out: give it a name without the dot"
        fi
    done
    found=0
    for list in "$1"/*; do
        there "$list" || continue
        found=$((found + 1))
        case $list in *.pub) check_public_key "$list" ;; *) check_revoked "$list" ;; esac
    done
    [ "$found" -le "$MAX_REVOKED" ] || die "$1 has $found files, and machines read $MAX_REVOKED at most"
}

# check_public_key FILE
check_public_key() {
    [ -f "$1" ] || die "$1 is no file"
    not_writable "$1"
    if grep -q 'PRIVATE KEY' "$1"; then die "$1 is a PRIVATE key: it must not leave your machine"; fi
    grep -q 'BEGIN PUBLIC KEY' "$1" || die "$1 is no public key in PEM"
    # As src/trust/keys.rs reads it. In revoked/, what machines do not read stops all updates.
    body=$(sed "s/$CR\$//" <"$1")
    ends=$(printf '%s\n' "$body" | sed -n -e 1p -e '$p')
    # The dot keeps empty lines.
    body=$(printf '%s\n' "$body" | sed -e 1d -e '$d'; echo .)
    body=${body%.}
    der=
    if [ "$ends" = "$PEM_ENDS" ] && [ "$(printf '%s' "$body" | base64 -d 2>/dev/null | base64 -w 64; echo .)" = "$body." ]; then
        der=$(printf '%s' "$body" | base64 -d 2>/dev/null | od -An -v -tx1 | tr -d ' \n')
    fi
    case ${#der}:$der in
        "88:$ED25519_PREFIX"* | "182:$P256_PREFIX"*) ;;
        *) die "$1 is no key that machines read: one Ed25519 or ECDSA P-256 key in PEM, with nothing before or behind it" \
            "(openssl pkey -pubin -in $1 writes it so)" ;;
    esac
    [ "$(wc -c <"$1")" -le "$MAX_KEY" ] || die "$1 is longer than machines read ($MAX_KEY bytes)"
}

# list_lines FILE: its lines without a byte order mark, comments, blanks and empty lines. A bare CR ends a line, too.
list_lines() {
    tr '\r' '\n' <"$1" | LC_ALL=C sed -e "1s/^$(printf '\357\273\277')//" -e 's/#.*//' -e 's/^[[:space:]]*//' -e 's/[[:space:]]*$//' -e '/^$/d'
}

# not_digests: the lines that are no digest.
not_digests() { grep -vxE 'sha256:[0-9a-f]{64}'; }

# is_list FILE: a line of it begins with a digest, whatever stands behind.
is_list() { list_lines "$1" | LC_ALL=C grep -qiE '^sha256:[0-9a-f]{64}([^0-9a-f]|$)'; }

# check_revoked FILE: lines of sha256:HEX; # begins a comment.
check_revoked() {
    [ -f "$1" ] || die "$1 is no file"
    not_writable "$1"
    [ "$(wc -c <"$1")" -le "$MAX_LIST" ] || die "$1 is longer than machines read ($MAX_LIST bytes)"
    if grep -q 'PRIVATE KEY' "$1"; then die "$1 is a PRIVATE key: it must not leave your machine"; fi
    list_lines "$1" | grep -q . || say "warning: $1 revokes nothing: there is no digest in it"
    if [ "$(LC_ALL=C tr -dc '\000-\010\013\014\016-\037\177' <"$1" | wc -c)" -ne 0 ] || list_lines "$1" | not_digests >/dev/null; then
        die "$1 is no list of what is revoked: each line is sha256: and 64 hex digits (scripts/keygen.sh --fingerprint)"
    fi
}
