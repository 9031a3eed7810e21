#!/bin/sh
# Signs an update: in a registry, in an OCI image layout, or a latest.json.
#
# Makes what `cosign sign --key` makes, with openssl alone, and for Ed25519 keys as well. Must never: show a private
# key or a passphrase in a list of processes, publish a signature that does not verify, or sign a release whose date
# would shut machines out of the releases after it. One file, long as it is: it is copied to machines that have the keys
# and nothing else of this repository.
set -eu

BUNDLE_TYPE=application/vnd.dev.sigstore.bundle.v0.3+json
PAYLOAD_TYPE=application/vnd.in-toto+json
STATEMENT_TYPE=https://in-toto.io/Statement/v1
PREDICATE_TYPE=https://sigstore.dev/cosign/sign/v1
MANIFEST_TYPE=application/vnd.oci.image.manifest.v1+json
INDEX_TYPE=application/vnd.oci.image.index.v1+json
EMPTY_TYPE=application/vnd.oci.empty.v1+json
# Of the two bytes {}.
EMPTY_HEX=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
# What stands before the bytes of a key, in hexadecimal: the one encoding of each kind that machines take.
ED25519_PREFIX=302a300506032b6570032100
P256_PREFIX=3059301306072a8648ce3d020106082a8648ce3d03010703420004
# Machines read no longer bundle.
MAX_BUNDLE_BYTES=65536
DAY_SECS=86400
# Machines read 16.
MAX_LINES=8

# What a name is taken for that machines do not know, in jq; src/oci/annotations.rs has the same rule, and
# tests/registry/names.rs holds both to one table. Misspelt, a policy would be dropped in silence.
# shellcheck disable=SC2016 # they are jq's
NAMES='
def prefix: "io.kubesolo.os.";
def fields: ["version", "channel", "architecture", "min_compatible_version", "release_notes", "release_date", "expires"];
def annotations: fields + ["initramfs_digest"];
def latest: fields + ["kernel", "initramfs", "artifacts", "url", "sha256", "size"];
def synonyms: {arch: "architecture", expiry: "expires", expiration: "expires", expiresat: "expires", validuntil: "expires",
    minversion: "min_compatible_version", mincompatible: "min_compatible_version"};
def shown: tostring | gsub("[[:cntrl:]]"; "?");
def plain: ascii_downcase | gsub("[^a-z0-9]"; "");
# Length of what two lists have in common at their beginning.
def front($a; $b): ([$a, $b | length] | min) as $least | [range($least) | select($a[.] != $b[.])][0] // $least;
def slip($a; $b): front($a; $b) as $front | ($a[$front:] | reverse) as $a | ($b[$front:] | reverse) as $b
    | front($a; $b) as $back | $a[$back:] as $a | $b[$back:] as $b
    | ($a | length) <= 1 and ($b | length) <= 1 or ($a | length) == 2 and $a == ($b | reverse);
def meant($known): . as $name | synonyms[$name] // [$known[] | select(slip($name | explode; plain | explode))][0];
# What people write in place of the prefix, or nearly.
def prefixes: ["iokubesoloos", "iokubesoloupdate", "kubesoloio", "oskubesoloio"];
# The known name that a plain one ends in, behind what is nearly our prefix.
def behind_a_slip: . as $plain
    | [((annotations[] | {tail: plain, meant: .}), (synonyms | to_entries[] | {tail: .key, meant: .value}))
        | .tail as $tail | select($plain | endswith($tail))
        | select(any(prefixes[]; slip($plain[:-($tail | length)] | explode; explode))) | .meant][0];
# Of the names of annotations: a sentence for each that is none.
def unknown_annotation: . as $name | plain as $plain
    | if startswith(prefix) and (.[(prefix | length):] | IN(annotations[])) then empty
      elif $plain | startswith("iokubesoloos") then ($plain[12:] | meant(annotations)) // ""
      else (if $plain | startswith("iokubesolo") then $plain[10:] | meant(annotations) else null end)
        // (if $plain | contains("kubesoloos") then $plain | .[index("kubesoloos") + 10:] | meant(annotations) else null end)
        // ($plain | behind_a_slip) // empty end
    | "\($name | shown) is no annotation that machines know"
        + if . == "" then "" else ": is \(prefix)\(.) meant?" end;
def unknown_field: . as $name
    | if IN(latest[]) then empty
      else plain | (if startswith("iokubesoloos") then .[12:] else . end | meant(latest)) // empty end
    | "\($name | shown) is no field that machines know: is \(.) meant?";
def empty_value: "\(shown) is empty: give it a value, or leave it out";
def other_architecture: select(. != null and . != "amd64" and . != "arm64")
    | "its architecture is \(shown), which is none of a machine: write amd64 or arm64";
'

PASSPHRASE=
PLAIN_HTTP=
RECURSIVE=no
FUTURE_DATE=no
DRY_RUN=no
MODE=
TARGET=
LAYOUT=
REPOSITORY=
DIGEST=
OUT=
KEYS=0
WORK=
PARTIAL=

usage() {
    cat <<USAGE
Usage: scripts/sign.sh --key KEY [--key KEY]... [OPTION]... REGISTRY/REPO:TAG | REGISTRY/REPO@sha256:HEX
       scripts/sign.sh --key KEY [--key KEY]... [OPTION]... --layout DIR[:TAG]
       scripts/sign.sh --key KEY [--key KEY]... [OPTION]... --latest FILE
       scripts/sign.sh --key KEY [OPTION]... --bundle OUT --digest sha256:HEX

Signs a release with each KEY (a private key in PEM, Ed25519 or ECDSA P-256: scripts/keygen.sh makes
one) and prints the digest of each manifest signed, or the file written. A tag is resolved once.

  REGISTRY/REPO...         attaches a sigstore bundle to the manifest or index, as cosign does; oras
                           does the transport, with the credentials of \`oras login\`
  --layout DIR[:TAG]       the same in an OCI image layout, so that signatures travel on the stick;
                           without a TAG: latest, or else the only one there is
  --latest FILE            writes FILE.sig, one line of base64 for each KEY, over FILE's exact bytes;
                           the lines that FILE.sig held before stay behind them, up to 8 in all: another
                           signer's, and those of the document before. So put FILE.sig on the server
                           first, then FILE: no machine meets one without the other
  --bundle OUT --digest D  writes the bundle to the file OUT and nothing else; there is no manifest to
                           look at, so that nobody checks the release's dates
  --recursive              signs each manifest of an index as well
  --passphrase-file FILE   its first line opens the KEYs that are encrypted
  --future-date            signs a release whose date is ahead all the same: the way on, once such a
                           date is out there
  --plain-http             the registry has no TLS
  --dry-run                check everything, say what would be signed, write nothing
  -h, --help               this text

What a KEY has signed already is not signed again. A release is refused whose date (release_date) is
more than a day ahead, since a machine on which it has run takes no older one ever again, one that is
expired, and one with a name in it that machines would pass over (a misspelt expires).

In a registry each signature gets a tag of its own, signature-SIGNED-MANIFEST (the first 16 digits of
both digests), since cleanings of a registry delete what has no tag; one that cosign made with KEY gets
its tag here as well. A registry without the referrers API lists signatures in a tag (sha256-HEX) that
is read and written back: there, two that sign the same thing at the same time may lose one. What it
lists and the registry no longer has is taken out of it, before something is added.
USAGE
}

say() { printf 'sign: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
misuse() { say "error: $*"; exit 2; }

cleanup() {
    [ -z "$WORK" ] || rm -rf "$WORK"
    [ -z "$PARTIAL" ] || rm -f "$PARTIAL"
}

# hash FILE: sets HEX. An assignment of its own, so that a file that cannot be read ends the run.
hash() {
    HEX=$(sha256sum <"$1")
    HEX=${HEX%% *}
}

size() { wc -c <"$1"; }

# is_digest TEXT
is_digest() { [ "${#1}" -eq 71 ] && printf '%s\n' "$1" | grep -qxE 'sha256:[0-9a-f]{64}'; }

# replace SOURCE TARGET: through a temporary name, durable before it counts.
replace() {
    PARTIAL=$(dirname -- "$2")/.publish.$$
    cp -- "$1" "$PARTIAL" || die "cannot write $PARTIAL"
    sync -- "$PARTIAL"
    cmp -s -- "$1" "$PARTIAL" || die "$PARTIAL does not keep what is written to it"
    mv -fT -- "$PARTIAL" "$2"
    PARTIAL=
}

# --- keys

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
        die "$1 is encrypted the way of cosign, which openssl can not read: sign with cosign sign --key $1," \
            "or make a key with scripts/keygen.sh"
    fi
    grep -q -e '^-----BEGIN .*PRIVATE KEY-----' -- "$1" || die "$1 is not a private key in PEM"
    if [ -z "$PASSPHRASE" ] && grep -q -e ENCRYPTED -- "$1"; then
        die "$1 is encrypted: give the file with its passphrase as --passphrase-file"
    fi
    case $(stat -L -c %A -- "$1") in
        ????------*) ;;
        *) say "warning: others than its owner may read $1 (chmod 600 $1)" ;;
    esac
    number=$((KEYS + 1))
    # A key may ask for its points to be compressed, and machines take only the other form.
    openssl pkey -in "$1" ${PASSPHRASE:+-passin "file:$PASSPHRASE"} -pubout -ec_conv_form uncompressed \
        -out "$WORK/$number.pub" 2>"$WORK/said" ||
        openssl pkey -in "$1" ${PASSPHRASE:+-passin "file:$PASSPHRASE"} -pubout -out "$WORK/$number.pub" 2>"$WORK/said" ||
        { tail -n 1 "$WORK/said" >&2; die "openssl can not read the key $1: damaged, or another passphrase"; }
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

# --- dates

# unix_secs TIME: prints the seconds since 1970 of an RFC 3339 time; nothing where it is none. Not by date, which reads such a time
# on GNU systems only. The same as in lib/published.sh, which is not there.
unix_secs() {
    printf '%s\n' "$1" | awk '
        /^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9](\.[0-9]+)?(Z|[+-][0-9][0-9]:[0-9][0-9])$/ {
            year = substr($0, 1, 4) + 0; month = substr($0, 6, 2) + 0; day = substr($0, 9, 2) + 0
            hour = substr($0, 12, 2) + 0; minute = substr($0, 15, 2) + 0; second = substr($0, 18, 2) + 0
            split("31 28 31 30 31 30 31 31 30 31 30 31", last, " ")
            if (year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)) last[2] = 29
            if (year < 1970 || month < 1 || month > 12 || day < 1 || day > last[month]) next
            if (hour > 23 || minute > 59 || second > 59) next
            days = (year - 1) * 365 + int((year - 1) / 4) - int((year - 1) / 100) + int((year - 1) / 400) - 719162 + day - 1
            for (i = 1; i < month; i++) days += last[i]
            secs = days * 86400 + hour * 3600 + minute * 60 + second
            if ($0 !~ /Z$/) {
                zone_hour = substr($0, length($0) - 4, 2) + 0; zone_minute = substr($0, length($0) - 1, 2) + 0
                if (zone_hour > 23 || zone_minute > 59) next
                zone = zone_hour * 3600 + zone_minute * 60
                secs += (substr($0, length($0) - 5, 1) == "+") ? -zone : zone
            }
            found = 1
        }
        END { if (NR == 1 && found) printf "%.0f\n", secs }'
}

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

# --- documents

# registry ARGUMENT...: what oras says is heard only when it fails.
registry() {
    oras "$@" ${PLAIN_HTTP:+--plain-http} 2>"$WORK/said" || { tail -n 5 "$WORK/said" >&2; hint_tls; return 1; }
}

# hint_tls: which option mends what oras said, in Go's words.
hint_tls() {
    if grep -qF 'server gave HTTP response to HTTPS client' "$WORK/said"; then say "(a registry without TLS? --plain-http)"; fi
}

# fetch manifest|blob NAME OPTION...: false: the registry says that there is none. Whatever else goes wrong may hide what
# is there, and ends the run.
fetch() {
    what=$1 from=$2
    shift 2
    if oras "$what" fetch ${PLAIN_HTTP:+--plain-http} "$@" "$from" >/dev/null 2>"$WORK/said"; then return 0; fi
    # oras 1.3 says it in these words, with the name, and only after a 404; of another status it gives the registry's own
    # words, which may end alike.
    if grep -qF -e ": $from: not found" "$WORK/said"; then return 1; fi
    tail -n 5 "$WORK/said" >&2
    hint_tls
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
        say "warning: $1 has no io.kubesolo.os.architecture: machines take it through a signed index alone"
}

warn_undated() { say "warning: $1 has no $2: machines that have run a dated release refuse it, others can not tell it is old"; }
warn_endless() { say "warning: $1 has no $2: who keeps newer releases from a machine is never noticed"; }

# --- bundles

# encode FILE OUT: what a DSSE signature of this payload is over.
encode() {
    {
        printf 'DSSEv1 %d %s %d ' "${#PAYLOAD_TYPE}" "$PAYLOAD_TYPE" "$(size "$1")"
        cat -- "$1"
    } >"$2"
}

# proves BUNDLE DIGEST KIND PUBLIC_KEY: this key has signed this digest in it.
proves() {
    jq -e --arg type "$BUNDLE_TYPE" --arg payload "$PAYLOAD_TYPE" \
        '.mediaType == $type and .dsseEnvelope.payloadType == $payload' "$1" >/dev/null 2>&1 || return 1
    jq -j '.dsseEnvelope.payload' "$1" 2>/dev/null | base64 -d >"$WORK/theirs" 2>/dev/null || return 1
    jq -e --arg type "$STATEMENT_TYPE" --arg predicate "$PREDICATE_TYPE" --arg hex "${2#sha256:}" \
        '._type == $type and .predicateType == $predicate and any(.subject[]; .digest.sha256 == $hex)' \
        "$WORK/theirs" >/dev/null 2>&1 || return 1
    encode "$WORK/theirs" "$WORK/encoded"
    jq -r '.dsseEnvelope.signatures[].sig' "$1" >"$WORK/signatures" 2>/dev/null || return 1
    while read -r line; do
        printf '%s' "$line" | base64 -d >"$WORK/one" 2>/dev/null || continue
        if verifies "$3" "$4" "$WORK/encoded" "$WORK/one"; then return 0; fi
    done <"$WORK/signatures"
    return 1
}

# make_bundle DIGEST KIND HEX KEY PUBLIC_KEY: writes WORK/bundle.
make_bundle() {
    jq -cnj --arg type "$STATEMENT_TYPE" --arg hex "${1#sha256:}" --arg predicate "$PREDICATE_TYPE" \
        '{_type: $type, subject: [{digest: {sha256: $hex}, annotations: {}}], predicateType: $predicate, predicate: {}}' \
        >"$WORK/statement"
    encode "$WORK/statement" "$WORK/message"
    sign_bytes "$2" "$4" "$WORK/message" "$WORK/signature"
    hint=$(openssl dgst -sha256 -binary "${5%.pub}.der" | base64 -w 0)
    payload=$(base64 -w 0 "$WORK/statement")
    signature=$(base64 -w 0 "$WORK/signature")
    jq -cnj --arg type "$BUNDLE_TYPE" --arg hint "$hint" --arg payload "$payload" --arg payload_type "$PAYLOAD_TYPE" \
        --arg signature "$signature" \
        '{mediaType: $type, verificationMaterial: {publicKey: {hint: $hint}},
          dsseEnvelope: {payload: $payload, payloadType: $payload_type, signatures: [{sig: $signature}]}}' >"$WORK/bundle"
    proves "$WORK/bundle" "$1" "$2" "$5" || die "what $4 signs does not verify with its public key: nothing was published"
}

# referrers DIGEST: lists the digests of what names it as its subject.
referrers() {
    if [ -z "$LAYOUT" ]; then
        registry discover --format json --depth 1 "$REPOSITORY@$1" >"$WORK/found" ||
            die "cannot list what is attached to $REPOSITORY@$1"
        jq -r '.referrers[]?.digest' "$WORK/found"
        return
    fi
    jq -r --arg type "$MANIFEST_TYPE" '.manifests[] | select(.mediaType == $type) | .digest' "$LAYOUT/index.json" |
        sort -u >"$WORK/found"
    while read -r found; do
        if obtain manifest "$found" "$WORK/candidate" &&
            jq -e --arg subject "$1" '.subject.digest == $subject' "$WORK/candidate" >/dev/null 2>&1; then
            printf '%s\n' "$found"
        fi
    done <"$WORK/found"
}

# attached_bundles DIGEST: fetches them, and lists in WORK/bundles each file, and the digest of the manifest around it. One
# that is gone, or something else, proves nothing.
attached_bundles() {
    referrers "$1" >"$WORK/referrers"
    : >"$WORK/bundles"
    count=0
    while read -r referrer <&4; do
        # By the layer: what lists of referrers say of cosign's signatures differs between registries.
        # Of what a cleaning took, drop_dead speaks.
        if obtain manifest "$referrer" "$WORK/referrer" &&
            blob=$(jq -er --arg type "$BUNDLE_TYPE" --argjson max "$MAX_BUNDLE_BYTES" \
                '.layers[0] | select(.mediaType == $type and .size <= $max) | .digest' "$WORK/referrer" 2>/dev/null) &&
            obtain blob "$blob" "$WORK/bundle.$count"; then
            printf '%s %s\n' "$WORK/bundle.$count" "$referrer" >>"$WORK/bundles"
            count=$((count + 1))
        fi
    done 4<"$WORK/referrers"
}

# already_signed DIGEST KIND PUBLIC_KEY: sets REFERRER, the manifest around the signature.
already_signed() {
    while read -r file REFERRER <&4; do
        if proves "$file" "$1" "$2" "$3"; then return 0; fi
    done 4<"$WORK/bundles"
    return 1
}

# own_tag SUBJECT MANIFEST: the tag of a signature's manifest, from their digests. Of no shape that cosign, oras or Harbor take
# for something else, and no version.
own_tag() { printf 'signature-%.16s-%.16s\n' "${1#sha256:}" "${2#sha256:}"; }

# keep SUBJECT MANIFEST: gives a signature that is there its tag.
keep() {
    tag=$(own_tag "$1" "$2")
    [ -z "$LAYOUT" ] || return 0
    if fetch manifest "$REPOSITORY:$tag" --output "$WORK/tagged"; then
        hash "$WORK/tagged"
        if [ "sha256:$HEX" = "$2" ]; then return 0; fi
    fi
    if [ "$DRY_RUN" = yes ]; then
        say "$1: dry run: its signature $2 would get the tag $tag"
    elif registry tag "$REPOSITORY@$2" "$tag" >/dev/null; then
        say "$1: its signature $2 has the tag $tag now"
    else
        say "warning: the signature $2 has no tag of its own: a cleaning of the registry may remove it"
    fi
}

# drop_dead DIGEST: takes out of the list of what refers to it (the tag, in registries without an API) what is no longer
# there: a registry refuses a list that names it, so that nothing could be added.
drop_dead() {
    list=$REPOSITORY:sha256-${1#sha256:}
    fetch manifest "$list" --output "$WORK/list" || return 0
    jq -r '.manifests[]?.digest' "$WORK/list" | sort -u >"$WORK/listed"
    : >"$WORK/dead"
    while read -r listed <&6; do
        fetch manifest "$REPOSITORY@$listed" --descriptor || printf '%s\n' "$listed" >>"$WORK/dead"
    done 6<"$WORK/listed"
    [ -s "$WORK/dead" ] || return 0
    jq -cj --rawfile dead "$WORK/dead" '($dead | split("\n")) as $dead
        | .manifests |= map(select(.digest | IN($dead[]) | not))' "$WORK/list" >"$WORK/alive"
    registry manifest push --media-type "$INDEX_TYPE" "$list" "$WORK/alive" >/dev/null || die "cannot write $list"
    say "$1: its list of signatures named $(wc -l <"$WORK/dead") that the registry no longer has (a cleaning removed them): taken out"
}

# store_blob FILE TYPE [TAG]: into the registry or the layout; sets DESCRIPTOR.
store_blob() {
    hash "$1"
    DESCRIPTOR=$(jq -cn --arg type "$2" --arg digest "sha256:$HEX" --argjson size "$(size "$1")" \
        '{mediaType: $type, digest: $digest, size: $size}')
    if [ -n "$LAYOUT" ]; then
        replace "$1" "$LAYOUT/blobs/sha256/$HEX"
    elif [ "$2" = "$MANIFEST_TYPE" ]; then
        # By its tag, so that it has one at once. This also keeps the referrers tag where the registry has no referrers API.
        registry manifest push --media-type "$2" "$REPOSITORY:$(own_tag "$3" "$HEX")" "$1" >/dev/null ||
            die "cannot push the signature's manifest to $REPOSITORY"
    else
        # oras takes a colon in a file name for the start of a media type.
        (cd "$WORK" && registry blob push --media-type "$2" "$REPOSITORY@sha256:$HEX" "${1##*/}" >/dev/null) ||
            die "cannot push the signature to $REPOSITORY"
    fi
}

# attach DIGEST SUBJECT_FILE: WORK/bundle, in the shape of cosign's.
attach() {
    printf '{}' >"$WORK/empty"
    store_blob "$WORK/empty" "$EMPTY_TYPE"
    store_blob "$WORK/bundle" "$BUNDLE_TYPE"
    jq -cj --arg type "$MANIFEST_TYPE" --arg index "$INDEX_TYPE" --arg bundle "$BUNDLE_TYPE" --arg empty "$EMPTY_TYPE" \
        --arg empty_digest "sha256:$EMPTY_HEX" --argjson layer "$DESCRIPTOR" --arg digest "$1" \
        --argjson size "$(size "$2")" --arg predicate "$PREDICATE_TYPE" --arg now "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        '{schemaVersion: 2, mediaType: $type, artifactType: $bundle,
          config: {mediaType: $empty, digest: $empty_digest, size: 2, artifactType: $bundle}, layers: [$layer],
          subject: {mediaType: (.mediaType // (if has("manifests") then $index else $type end)),
              digest: $digest, size: $size},
          annotations: {"dev.sigstore.bundle.content": "dsse-envelope",
              "dev.sigstore.bundle.predicateType": $predicate, "org.opencontainers.image.created": $now}}' \
        "$2" >"$WORK/manifest"
    [ -n "$LAYOUT" ] || drop_dead "$1"
    store_blob "$WORK/manifest" "$MANIFEST_TYPE" "$1"
    if [ -n "$LAYOUT" ]; then
        sync -f -- "$LAYOUT"
        jq --argjson entry "$DESCRIPTOR" --slurpfile manifest "$WORK/manifest" \
            '.manifests += [$entry + ($manifest[0] | {artifactType, annotations})]' "$LAYOUT/index.json" >"$WORK/index"
        replace "$WORK/index" "$LAYOUT/index.json"
        sync -f -- "$LAYOUT"
    fi
}

# --- what is signed

# Two at once would each write an index.json without the other's entry; publish-layout.sh takes the same lock.
open_layout() {
    LAYOUT=$TARGET TAG=
    if [ ! -d "$LAYOUT" ]; then
        case $TARGET in
            *@sha256:*) LAYOUT=${TARGET%@*} DIGEST=${TARGET##*@} ;;
            *:*) LAYOUT=${TARGET%:*} TAG=${TARGET##*:} ;;
        esac
    fi
    [ -z "$DIGEST" ] || is_digest "$DIGEST" || die "$DIGEST is not a digest (sha256: and 64 lower-case hexadecimal digits)"
    if ! [ -f "$LAYOUT/oci-layout" ] || ! jq -e '.manifests | type == "array"' "$LAYOUT/index.json" >/dev/null 2>&1; then
        die "$LAYOUT is not an OCI image layout (a directory with oci-layout and index.json)"
    fi
    if [ "$DRY_RUN" = no ]; then
        exec 9<"$LAYOUT"
        flock -n 9 || die "another run writes into $LAYOUT"
        rm -f -- "$LAYOUT"/.publish.* "$LAYOUT"/blobs/sha256/.publish.*
    fi
}

open_registry() {
    name=${TARGET%%@*}
    TAG=
    case ${name##*/} in *:*) TAG=${name##*:} name=${name%:*} ;; esac
    case $TARGET in *@*) DIGEST=${TARGET#*@} ;; esac
    REPOSITORY=$name
    case $REPOSITORY in
        -* | /* | */) die "'$TARGET' is not REGISTRY/REPO:TAG or REGISTRY/REPO@sha256:HEX" ;;
        */*) ;;
        *) die "'$TARGET' is not REGISTRY/REPO:TAG or REGISTRY/REPO@sha256:HEX" ;;
    esac
    [ -n "$TAG$DIGEST" ] || die "$TARGET names neither tag nor digest: nothing is signed that is not named"
    [ -z "$DIGEST" ] || is_digest "$DIGEST" || die "$DIGEST is not a digest (sha256: and 64 lower-case hexadecimal digits)"
}

sign_release() {
    resolve
    read_release
    if [ "$KEYS" -eq 0 ]; then
        say "$DIGEST: dry run: no key is given; its names and dates are as they must be"
        return 0
    fi
    while read -r digest <&5; do
        demand "$digest" "$WORK/subject"
        attached_bundles "$digest"
        while read -r number kind hex path <&3; do
            if already_signed "$digest" "$kind" "$WORK/$number.pub"; then
                say "$digest: already signed by sha256:$hex ($kind, $path)"
                keep "$digest" "$REFERRER"
                continue
            fi
            make_bundle "$digest" "$kind" "$hex" "$path" "$WORK/$number.pub"
            if [ "$DRY_RUN" = yes ]; then
                say "$digest: dry run: not signed; it would be by sha256:$hex ($kind, $path)"
            else
                attach "$digest" "$WORK/subject"
                say "$digest: signed by sha256:$hex ($kind, $path)"
            fi
        done 3<"$WORK/keys"
        printf '%s\n' "$digest"
    done 5<"$WORK/digests"
}

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

sign_bundle() {
    read -r number kind hex path <"$WORK/keys"
    make_bundle "$DIGEST" "$kind" "$hex" "$path" "$WORK/$number.pub"
    if [ "$DRY_RUN" = yes ]; then
        say "dry run: nothing was written; it would be $OUT, by sha256:$hex ($kind, $path)"
    else
        replace "$WORK/bundle" "$OUT"
        say "$OUT: $DIGEST signed by sha256:$hex ($kind, $path)"
    fi
    printf '%s\n' "$OUT"
}

# choose MODE TARGET
choose() {
    [ -z "$MODE" ] || misuse "one thing to sign only: $TARGET or $2"
    MODE=$1 TARGET=$2
}

check() {
    [ -n "$MODE" ] || { usage >&2; misuse "nothing to sign is named"; }
    [ -s "$WORK/given" ] || [ "$DRY_RUN$MODE" = yesregistry ] || [ "$DRY_RUN$MODE" = yeslayout ] ||
        [ "$DRY_RUN$MODE" = yeslatest ] || misuse "--key is missing"
    [ "$MODE" = bundle ] || [ -z "$DIGEST" ] || misuse "--digest belongs to --bundle"
    case $RECURSIVE$MODE in yeslatest | yesbundle) misuse "--recursive is for a registry or a layout" ;; esac
    case $MODE in
        bundle) is_digest "$DIGEST" || misuse "--bundle needs --digest sha256:HEX (64 lower-case hexadecimal digits)" ;;
        registry) command -v oras >/dev/null || die "oras is missing: scripts/install-deps.sh publish brings it" ;;
    esac
    for tool in jq openssl flock sha256sum; do
        command -v "$tool" >/dev/null || die "$tool is missing: install the package that has it (Debian: jq, openssl," \
            "util-linux, coreutils)"
    done
    if [ -n "$PASSPHRASE" ]; then
        # It is read more than once.
        [ -f "$PASSPHRASE" ] || die "--passphrase-file $PASSPHRASE is not a file"
        [ -n "$(head -n 1 -- "$PASSPHRASE")" ] || die "--passphrase-file $PASSPHRASE: its first line is empty"
    fi
}

main() {
    LC_ALL=C
    export LC_ALL
    # Machines, or a web server, have to read what this writes.
    umask 022
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    WORK=$(mktemp -d)
    : >"$WORK/given"
    : >"$WORK/keys"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --plain-http) PLAIN_HTTP=yes; shift; continue ;;
            --recursive) RECURSIVE=yes; shift; continue ;;
            --future-date) FUTURE_DATE=yes; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --key | --passphrase-file | --layout | --latest | --bundle | --digest) [ $# -ge 2 ] || misuse "$1 needs a value" ;;
            -*) usage >&2; misuse "unknown option: $1" ;;
            *) choose registry "$1"; shift; continue ;;
        esac
        case $1 in
            --key)
                case $2 in *'
'*) die "--key: a newline in a file name" ;; esac
                printf '%s\n' "$2" >>"$WORK/given"
                ;;
            --passphrase-file) PASSPHRASE=$2 ;;
            --layout) choose layout "${2%/}" ;;
            --latest) choose latest "$2" ;;
            --bundle) choose bundle "$2"; OUT=$2 ;;
            --digest) DIGEST=$2 ;;
        esac
        shift 2
    done
    check
    while IFS= read -r key <&3; do add_key "$key"; done 3<"$WORK/given"
    [ "$MODE" != bundle ] || [ "$KEYS" -eq 1 ] || misuse "--bundle takes one --key: a bundle names one key"
    case $MODE in
        registry) open_registry; sign_release ;;
        layout) open_layout; sign_release ;;
        latest) sign_latest ;;
        bundle) sign_bundle ;;
    esac
}

main "$@"
