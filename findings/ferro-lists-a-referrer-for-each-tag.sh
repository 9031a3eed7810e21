#!/bin/sh
# A referrer that gets a tag stands in ferro-oci-server's list of referrers once more, with every further tag again.
#
# Guessed: the list of referrers of a manifest holds each manifest that names it as its subject once, whatever tags that has: a tag
#          is a name, and no other manifest (distribution-spec 1.1, "Listing Referrers", speaks of a list of manifests).
# Seen:    after `oras attach` one entry; `oras tag` on what was attached makes it two, another tag three, all of one digest.
#          Deleting the manifest by its digest takes all of them. ferro-oci-server 1.0.0, oras 1.3.
# Matters: who gives signatures a tag of their own, to keep them from a registry's cleaning, makes that list longer; who counts
#          its entries, or has a limit of entries to look at, counts digests instead.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

FERRO=1.0.0
SERVER=

stop() {
    [ -z "$SERVER" ] || kill "$SERVER" 2>/dev/null || :
    rm -rf "$WORK"
}

# oras ARGUMENT...
oras() { HOME=$WORK timeout 60 "$WORK/sid/usr/bin/oras" "$@"; }

# listed: how many entries the list has, and of how many digests.
listed() {
    curl -fsS --max-time 20 "http://$HOST/v2/a/b/referrers/$SUBJECT" |
        jq -r '.manifests | map(.digest) | "\(length) of \(unique | length)"'
}

# serve: on a port that was free a moment ago.
serve() {
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    HOST=127.0.0.1:$port
    FERRO_OCI_LISTEN=$HOST FERRO_OCI_STORAGE_DIR=$WORK/store "$WORK/ferro/bin/ferro-oci-server" >"$WORK/log" 2>&1 &
    SERVER=$!
    curl -s -o /dev/null --max-time 30 --retry 30 --retry-delay 1 --retry-connrefused "http://$HOST/v2/" ||
        cannot "ferro-oci-server does not start: $(tail -n 1 "$WORK/log")"
}

main() {
    for tool in cargo curl jq python3; do
        command -v "$tool" >/dev/null || cannot "$tool is missing"
    done
    begin
    trap stop EXIT
    unpack_pinned sid sid oras=1.3
    say "ferro-oci-server $FERRO is built: some minutes"
    timeout 1800 cargo install --quiet --locked --root "$WORK/ferro" "ferro-oci-server@$FERRO" >"$WORK/build" 2>&1 ||
        cannot "cargo cannot build ferro-oci-server $FERRO: $(tail -n 1 "$WORK/build")"
    serve
    cd "$WORK"
    echo subject >subject
    echo attached >attached
    oras push --plain-http "$HOST/a/b:v1" subject:text/plain >/dev/null
    SUBJECT=$(oras resolve --plain-http "$HOST/a/b:v1")
    oras attach --plain-http --artifact-type text/x-example "$HOST/a/b:v1" attached:text/plain >/dev/null
    referrer=$(oras discover --plain-http --format json "$HOST/a/b:v1" | jq -r '(.referrers // .manifests)[].digest')
    once=$(listed)
    oras tag --plain-http "$HOST/a/b@$referrer" one >/dev/null
    twice=$(listed)
    oras tag --plain-http "$HOST/a/b@$referrer" two >/dev/null
    thrice=$(listed)
    say "attached: $once; with a tag: $twice; with another: $thrice"
    [ "$once" = "1 of 1" ] || changed "one referrer is listed as $once"
    [ "$twice" = "2 of 1" ] || changed "with a tag it is listed as $twice"
    [ "$thrice" = "3 of 1" ] || changed "with two tags it is listed as $thrice"
    say "as found: one entry more for each tag"
}

main
