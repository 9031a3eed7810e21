# shellcheck shell=sh
# Signs a latest.json: its .sig has one line of base64 for each key, over the document's exact bytes. Sourced by scripts/sign.sh behind
# lib/openssl.sh and lib/documents.sh, not run; the caller has TARGET, replace and DRY_RUN.
#
# Must never: write a line that does not verify; drop another signer's while there is room.

# Machines read 16.
MAX_LINES=8

sign_latest() {
    [ -f "$TARGET" ] || die "$TARGET is not a file"
    cp -- "$TARGET" "$WORK/latest"
    jq -e 'type == "object" and (has("version") or has("artifacts"))' "$WORK/latest" >/dev/null 2>&1 ||
        die "$TARGET is not a latest.json: no object with version or artifacts"
    jq -r '., .artifacts[]? | {release_date, expires} | to_entries[] | select(.value != null)
        | "\(.key) \(.value | tostring | gsub("[[:cntrl:]]"; "?"))"' "$WORK/latest" >"$WORK/dates" ||
        die "$TARGET: its artifacts are not objects"
    check_dates "$TARGET"
    jq -r "$NAMES"'., .artifacts[]? | (., (.kernel, .initramfs | objects) | keys_unsorted[] | unknown_field),
        (to_entries[] | select(.value == "") | .key | select(IN(fields[])) | empty_value),
        (.architecture | other_architecture)' "$WORK/latest" | sort -u >"$WORK/faults"
    refuse_faults "$TARGET"
    grep -q '^release_date ' "$WORK/dates" || warn_undated "$TARGET" release_date
    grep -q '^expires ' "$WORK/dates" || warn_endless "$TARGET" expires
    if [ "$KEYS" -eq 0 ]; then
        say "$TARGET: dry run: no key is given; its names and dates are as they must be"
        return 0
    fi
    : >"$WORK/lines"
    is_new=no
    while read -r number kind hex path <&3; do
        if kept_line "$TARGET.sig" "$kind" "$WORK/$number.pub"; then
            say "$TARGET: already signed by sha256:$hex ($kind, $path)"
        else
            is_new=yes
            sign_bytes "$kind" "$path" "$WORK/latest" "$WORK/signature"
            verifies "$kind" "$WORK/$number.pub" "$WORK/latest" "$WORK/signature" ||
                die "what $path signs does not verify with its public key: nothing was written"
            printf '%s\n' "$(base64 -w 0 "$WORK/signature")" >>"$WORK/lines"
            say "$TARGET: signature by sha256:$hex ($kind, $path)"
        fi
    done 3<"$WORK/keys"
    keep_others "$TARGET.sig"
    cmp -s -- "$WORK/latest" "$TARGET" || die "$TARGET changed while it was signed: nothing was written; start again"
    if [ "$DRY_RUN" = yes ]; then
        say "dry run: nothing was written; it would be $TARGET.sig"
    elif [ "$is_new" = yes ] || ! cmp -s -- "$WORK/lines" "$TARGET.sig"; then
        replace "$WORK/lines" "$TARGET.sig"
    fi
    printf '%s\n' "$TARGET.sig"
}

# kept_line FILE KIND PUBLIC_KEY: puts this key's valid line in FILE, if there is one, into WORK/lines.
kept_line() {
    [ -f "$1" ] || return 1
    while read -r line; do
        printf '%s' "$line" | base64 -d >"$WORK/one" 2>/dev/null || continue
        if verifies "$2" "$3" "$WORK/latest" "$WORK/one"; then
            printf '%s\n' "$line" >>"$WORK/lines"
            return 0
        fi
    done <"$1"
    return 1
}

# keep_others FILE: puts the signatures that were there before behind ours. Shorter lines are parts of one, or none.
keep_others() {
    [ -f "$1" ] || return 0
    grep -xE '[A-Za-z0-9+/=]{88,96}' -- "$1" >"$WORK/before" || return 0
    while read -r line; do
        [ "$(wc -l <"$WORK/lines")" -lt "$MAX_LINES" ] || break
        grep -qxF -- "$line" "$WORK/lines" || printf '%s\n' "$line" >>"$WORK/lines"
    done <"$WORK/before"
}
