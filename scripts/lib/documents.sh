# shellcheck shell=sh
# What is to be signed: fetched out of a registry or a layout, proven by its digest, and judged by its dates and its names. Sourced by
# scripts/sign.sh behind lib/facts.sh, not run; the caller has LIB, WORK, LAYOUT or REPOSITORY, TAG, DIGEST, PLAIN_HTTP, RECURSIVE,
# FUTURE_DATE.
#
# Must never: let through a date that would shut machines out of the releases after it; take a registry that does not answer for one
# that has nothing.

DAY_SECS=86400
# In jq: which names machines do not know.
NAMES=$(cat "$LIB/names.jq")

# --- where they are

# registry ARGUMENT...: what oras says is heard only when it fails.
registry() {
    oras "$@" ${PLAIN_HTTP:+--plain-http} 2>"$WORK/said" || { tail -n 5 "$WORK/said" >&2; hint_tls "$WORK/said"; return 1; }
}

# fetch manifest|blob NAME OPTION...: false: the registry says that there is none. Whatever else goes wrong may hide what
# is there, and ends the run.
fetch() {
    what=$1 from=$2
    shift 2
    if oras "$what" fetch ${PLAIN_HTTP:+--plain-http} "$@" "$from" >/dev/null 2>"$WORK/said"; then return 0; fi
    if says_absent "$WORK/said" "$from"; then return 1; fi
    tail -n 5 "$WORK/said" >&2
    hint_tls "$WORK/said"
    die "cannot tell whether $from is there"
}

# obtain manifest|blob DIGEST FILE: proven by the digest. False: there is none, or, as HELD says, something else in its place.
obtain() {
    HELD=nothing
    is_digest "$2" || return 1
    if [ -z "$LAYOUT" ]; then
        fetch "$1" "$REPOSITORY@$2" --output "$3" || return 1
    else
        [ -e "$LAYOUT/blobs/sha256/${2#sha256:}" ] || return 1
        cp -- "$LAYOUT/blobs/sha256/${2#sha256:}" "$3" || die "cannot read $2 of $LAYOUT"
    fi
    hash "$3"
    HELD="sha256:$HEX"
    [ "$HELD" = "$2" ]
}

# demand DIGEST FILE: the manifest, or the end.
demand() {
    obtain manifest "$1" "$2" || case $HELD in
        nothing) die "${LAYOUT:-$REPOSITORY} does not have $1" ;;
        *) die "${LAYOUT:-$REPOSITORY} has something else ($HELD) in the place of $1: it is damaged" ;;
    esac
}

# resolve: sets DIGEST.
resolve() {
    if [ -n "$DIGEST" ]; then return; fi
    if [ -z "$LAYOUT" ]; then
        DIGEST=$(registry resolve "$REPOSITORY:$TAG") || die "cannot resolve $REPOSITORY:$TAG"
        return
    fi
    # As machines choose.
    DIGEST=$(jq -r --arg tag "$TAG" '[.manifests[] | {tag: .annotations["org.opencontainers.image.ref.name"]?, digest}
            | select(.tag != null and (.tag | test("^(signature-[0-9a-f]{16}-[0-9a-f]{16}|sha256-[0-9a-f]{64}([.](sig|att|sbom))?)$") | not))]
        | if $tag != "" then map(select(.tag == $tag))
          elif any(.tag == "latest") then map(select(.tag == "latest")) else . end
        | [.[].digest] | unique | join(" ")' "$LAYOUT/index.json" 2>/dev/null) || die "cannot read $LAYOUT/index.json"
    case $DIGEST in
        '') die "$LAYOUT has nothing tagged${TAG:+ $TAG}: name what to sign as $LAYOUT:TAG or $LAYOUT@sha256:HEX" ;;
        *' '*) die "$LAYOUT has several things${TAG:+ tagged $TAG}: name one as $LAYOUT:TAG or $LAYOUT@sha256:HEX" ;;
    esac
}

# --- dates

# moment WHERE NAME VALUE: sets SECS.
moment() {
    SECS=$(unix_secs "$3")
    [ "${SECS:--1}" -ge 0 ] ||
        die "$1: $2 is '$3', which is no RFC 3339 time such as 2026-01-31T12:00:00Z: publish it anew"
}

# check_dates WHERE: of the lines "NAME VALUE" in WORK/dates.
check_dates() {
    now=$(date +%s)
    while IFS= read -r line; do
        name=${line%% *} value=${line#* }
        moment "$1" "$name" "$value"
        case $name in
            *release_date)
                [ "$FUTURE_DATE" = yes ] || [ "$SECS" -le $((now + DAY_SECS)) ] ||
                    die "$1: $name is $value, more than a day ahead (now: $(date -u +%Y-%m-%dT%H:%M:%SZ)), and will not" \
                        "be signed: a machine on which it has run never takes an older release again, so that until" \
                        "then no other release would reach it; publish it with the date of today"
                ;;
            *expires)
                [ "$SECS" -gt "$now" ] ||
                    die "$1: $name is $value, which is past: no machine would take it; publish it anew"
                ;;
        esac
    done <"$WORK/dates"
}

# --- names

# read_release: lists in WORK/digests what is to be signed; checks the dates of all of it.
read_release() {
    printf '%s\n' "$DIGEST" >"$WORK/digests"
    demand "$DIGEST" "$WORK/top"
    look_at "$DIGEST" "$WORK/top"
    : >"$WORK/own"
    jq -r '.manifests[]?.digest' "$WORK/top" | sort -u >"$WORK/entries"
    while read -r digest <&3; do
        obtain manifest "$digest" "$WORK/entry" || die "the index names $digest, which ${LAYOUT:-$REPOSITORY} does not have:" \
            "a cleaning may have removed it, since it has no tag of its own; publish the release again"
        if jq -e 'has("manifests")' "$WORK/entry" >/dev/null; then die "$digest is an index within an index: no release"; fi
        look_at "$digest" "$WORK/entry"
        jq -c '.annotations // {}' "$WORK/entry" >>"$WORK/own"
        if [ "$RECURSIVE" = yes ]; then printf '%s\n' "$digest" >>"$WORK/digests"; fi
    done 3<"$WORK/entries"
    jq -r --slurpfile own "$WORK/own" "$NAMES"'select(has("manifests")) | .annotations, .manifests[].annotations
        | . // {} | to_entries[] | . as $said | select(.key | startswith(prefix))
        | select(any($own[]; .[$said.key] == $said.value) | not)
        | "\(.key | shown) stands in the index and not so in a manifest, where alone machines look: put it into each manifest"' \
        "$WORK/top" >"$WORK/faults" || die "$DIGEST: its annotations are not text"
    refuse_faults "$DIGEST"
}

# refuse_faults WHERE: of the lines in WORK/faults.
refuse_faults() {
    [ -s "$WORK/faults" ] || return 0
    while IFS= read -r fault; do say "error: $1: $fault"; done <"$WORK/faults"
    die "$1 will not be signed: machines would pass over what is meant there; publish it anew"
}

# look_at DIGEST FILE: whether it is a manifest or an index, its dates, and the names of its annotations.
look_at() {
    jq -e 'type == "object" and .schemaVersion == 2 and (has("manifests") or has("layers"))
        and (has("subject") | not)' "$2" >/dev/null 2>&1 ||
        die "$1 is neither an image manifest nor an index (of a release, which has no subject)"
    jq -r '(.annotations // {}) | to_entries[] | select(.key == ("io.kubesolo.os.release_date", "io.kubesolo.os.expires"))
        | "\(.key) \(.value | tostring | gsub("[[:cntrl:]]"; "?"))"' "$2" >"$WORK/dates" || die "$1: its annotations are not text"
    check_dates "$1"
    jq -r "$NAMES"'((.annotations // {}) as $own | $own
        | (keys_unsorted[] | unknown_annotation), (.[prefix + "architecture"] | other_architecture),
            (to_entries[] | select(.value == "") | .key | select(startswith(prefix)) | empty_value)),
        ((.annotations // {}) as $own | .config, .layers[]? | .annotations? // {} | to_entries[] | . as $said
        | select((.key | startswith(prefix)) and $own[.key] != .value)
        | "\(.key | shown) stands at a layer, where machines do not look: put it into the manifest")' \
        "$2" >"$WORK/faults" || die "$1: its annotations are not text"
    refuse_faults "$1"
    jq -e 'has("layers")' "$2" >/dev/null || return 0
    grep -q '^io.kubesolo.os.release_date ' "$WORK/dates" || warn_undated "$1" io.kubesolo.os.release_date
    grep -q '^io.kubesolo.os.expires ' "$WORK/dates" || warn_endless "$1" io.kubesolo.os.expires
    jq -e '.annotations["io.kubesolo.os.architecture"]' "$2" >/dev/null ||
        warn "$1 has no io.kubesolo.os.architecture: machines take it through a signed index alone"
}

warn_undated() { warn "$1 has no $2: machines that have run a dated release refuse it, others cannot tell it is old"; }
warn_endless() { warn "$1 has no $2: a source that holds newer releases back is never noticed"; }
