# shellcheck shell=sh
# What is published already: a version is published once, and no name that machines follow (a tag, latest.json) goes back to
# what they would not take. Sourced, not run, behind lib/release.sh, whose VERSION, RELEASE_DATE and ARCHES it judges.
#
# The caller has, for tags, obtain: obtain DIGEST FILE, false where there is none.

# Most documents below a tag that are looked at.
MAX_BELOW=64

ALLOW_OLDER=no
ALLOW_PARTIAL=no

older_usage() {
    cat <<USAGE
  --allow-older          replace a newer version, or one of a later date, by this one. Machines that ran it do not take this one
  --partial              replace a version that is there for an architecture by this one, which is not there for it. Until it
                         is, machines of that architecture are refused
USAGE
}

# precedes A B: version A comes before B, in the order of machines. False also where one is none: no machine runs it.
precedes() {
    find_agent
    for text in "$1" "$2"; do "$KUBESOLO_UPDATE" lint --version "$text" >/dev/null 2>&1 || return 1; done
    ! "$KUBESOLO_UPDATE" lint --version "$1" --min-compatible "$2" >/dev/null 2>&1
}

# seconds TIME: sets SECS. False: machines read no time in it.
seconds() {
    find_agent
    "$KUBESOLO_UPDATE" lint --release-date "$1" >/dev/null 2>&1 && SECS=$(unix_secs "$1") && [ -n "$SECS" ]
}

# refuse_older NAME VERSION DATE: ends the run where the release that NAME leads to is newer than what is to be published, or
# dated after it. DATE: empty, if it has none.
refuse_older() {
    [ "$ALLOW_OLDER" = no ] || return 0
    if precedes "$VERSION" "$2"; then die "$1 has $2, which is newer than $VERSION (--allow-older replaces it)"; fi
    seconds "$3" || return 0
    theirs=$SECS
    [ -n "$RELEASE_DATE" ] || die "$1 has $2 of $3, and --release-date is missing: machines that ran it would not take" \
        "$VERSION (--allow-older goes on)"
    seconds "$RELEASE_DATE" || die "--release-date $RELEASE_DATE is not a time"
    [ "$theirs" -le "$SECS" ] || die "$1 has $2 of $3, which is later than --release-date $RELEASE_DATE: machines that ran it" \
        "would not take $VERSION (--allow-older goes on)"
}

# refuse_older_below NAME DIGEST: the same of each manifest that NAME leads to, through indexes. What is gone leads nowhere.
refuse_older_below() {
    [ "$ALLOW_OLDER" = no ] || return 0
    printf '%s\n' "$2" >"$WORK/below"
    count=0
    # What is read is appended to meanwhile.
    while [ "$count" -lt "$MAX_BELOW" ] && read -r below <&7; do
        count=$((count + 1))
        obtain "$below" "$WORK/document" || continue
        jq -r '.annotations // {} | [.["io.kubesolo.os." + ("version", "architecture", "release_date")]]
            | select(.[0] | type == "string") | .[] | tostring | gsub("[[:cntrl:]]"; "?")' \
            "$WORK/document" >"$WORK/release" 2>/dev/null || continue
        if [ -s "$WORK/release" ]; then
            { IFS= read -r version && IFS= read -r arch && IFS= read -r date; } <"$WORK/release"
            # Another run's architecture of this very version may have a date of its own.
            case "$version $ARCHES " in
                "$VERSION "*" $arch "*) refuse_older "$1" "$version" "$date" ;;
                "$VERSION "*) ;;
                *) refuse_older "$1" "$version" "$date" ;;
            esac
        fi
        jq -r '[.manifests[]?.digest | strings | select(test("^sha256:[0-9a-f]{64}$"))] | unique[]' \
            "$WORK/document" >>"$WORK/below" 2>/dev/null || :
    done 7<"$WORK/below"
}

# refuse_partial NAME: ends the run where what NAME leads to, whose architectures WORK/arches-there lists, has one that WORK/arches-here
# has not: machines of that one would be refused, also what they took before.
refuse_partial() {
    [ "$ALLOW_PARTIAL" = no ] || return 0
    lost=
    for arch in amd64 arm64; do
        if grep -qx "$arch" "$WORK/arches-there" && ! grep -qx "$arch" "$WORK/arches-here"; then lost=$arch; fi
    done
    [ -n "$lost" ] || return 0
    die "$1 leads $lost to an update, and $VERSION is not there for it: machines of $lost would be refused until it is" \
        "(--partial does it all the same); nothing was written. Both at once:
  $0$TYPED --arch $lost --kernel FILE --initramfs FILE"
}

# arches_below DIGEST: lists in WORK/arches-there the architectures of the updates that it leads to, through indexes; of what is gone,
# as the index says.
arches_below() {
    : >"$WORK/arches-there"
    printf '%s\n' "$1" >"$WORK/below"
    count=0
    while [ "$count" -lt "$MAX_BELOW" ] && read -r below <&7; do
        count=$((count + 1))
        obtain "$below" "$WORK/document" || continue
        jq -r --arg artifact "$ARTIFACT_TYPE" '(.annotations // {} | .["io.kubesolo.os.architecture"]),
            (.manifests[]? | select(.artifactType == $artifact) | .platform.architecture) | strings' \
            "$WORK/document" >>"$WORK/arches-there" 2>/dev/null || :
        jq -r '[.manifests[]?.digest | strings | select(test("^sha256:[0-9a-f]{64}$"))] | unique[]' \
            "$WORK/document" >>"$WORK/below" 2>/dev/null || :
    done 7<"$WORK/below"
}

# refuse_partial_below NAME DIGEST: the same of what a tag names; WORK/index is what it is to name.
refuse_partial_below() {
    [ "$ALLOW_PARTIAL" = no ] || return 0
    arches_below "$2"
    jq -r '.manifests[].platform.architecture' "$WORK/index" >"$WORK/arches-here"
    refuse_partial "$1"
}

# refuse_changed ABOUT ADVICE [DATED]: what is published as this version, WORK/theirs, is not what is to be, WORK/ours; both are
# JSON. ADVICE: the ways on. DATED: one more, where the dates alone differ, as they do when a run is started again.
refuse_changed() {
    say "error: version $VERSION is there$1:"
    diff -U 0 "$WORK/theirs" "$WORK/ours" | sed -n -e '1,2d' -e '/^@@/d' -e 's/^-/  there: /p' -e 's/^+/  here:  /p' >&2 || :
    for side in theirs ours; do
        jq -S 'del(.release_date, .expires, .["io.kubesolo.os.release_date"], .["io.kubesolo.os.expires"])' \
            "$WORK/$side" >"$WORK/$side-undated" 2>/dev/null || printf '%s\n' "$side" >"$WORK/$side-undated"
    done
    if cmp -s "$WORK/theirs-undated" "$WORK/ours-undated"; then
        dates=$(jq -rs 'def option($name; $option): [.[][$name, "io.kubesolo.os." + $name] | values][0]
                | if . == null then "without \($option)" else "\($option) \(tostring | gsub("[[:cntrl:]]"; "?"))" end;
            option("release_date"; "--release-date") + " " + option("expires"; "--expires")' "$WORK/theirs")
        die "a version is published once; nothing was written. Only the dates differ: to go on, start this again with those that" \
            "are there: $dates${3-}"
    fi
    for side in theirs ours; do
        jq -S --arg type "$CHUNKS_TYPE" 'del(.kernel.chunks?, .initramfs.chunks?)
            | if .files then .files |= map(select(startswith($type) | not)) else . end' \
            "$WORK/$side" >"$WORK/$side-unchunked" 2>/dev/null || printf '%s\n' "$side" >"$WORK/$side-unchunked"
    done
    if cmp -s "$WORK/theirs-unchunked" "$WORK/ours-unchunked"; then
        die "a version is published once; nothing was written. Only the chunk indexes differ. To go on: --no-chunks, if it is there" \
            "without; otherwise with kubesolo-chunks, as it was made (make build)"
    fi
    die "a version is published once; nothing was written. $2"
}
