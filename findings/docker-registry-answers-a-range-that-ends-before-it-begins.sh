#!/bin/sh
# docker-registry answers HEAD with Range by 206 and the length of the part, and `bytes=-0` by a range that ends before it begins.
#
# Guessed: Range counts for GET alone: "A server MUST ignore a Range header field received with a request method [...] for which range
#          handling is not defined. For this specification, GET is the only method" (RFC 9110, 14.2), so HEAD says 200 and the whole
#          length. The last 0 bytes cannot be had: `bytes=-0` is 416, as `bytes=99-` of 23 bytes is (14.1.2, "unsatisfiable").
# Seen:    HEAD with `bytes=0-4` is 206, Content-Length 5: whoever asks for the size of a blob with a client that always sends Range
#          takes the part for the whole. `bytes=-0` is 206 with `Content-Range: bytes 23-22/23`, which 14.4 calls invalid.
#          docker-registry 2.8.2 (Debian 12).
# Matters: lengths of blobs are asked for without Range, and a Content-Range is held to its own numbers before its part is taken.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

SERVER=

stop() {
    [ -z "$SERVER" ] || kill "$SERVER" 2>/dev/null || :
    rm -rf "$WORK"
}

serve() {
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    URL=http://127.0.0.1:$port/v2/a/b
    cat >"$WORK/config.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $WORK/store}}
http: {addr: 127.0.0.1:$port}
END
    "$WORK/registry/usr/bin/docker-registry" serve "$WORK/config.yml" >"$WORK/log" 2>&1 &
    SERVER=$!
    curl -s -o /dev/null --max-time 30 --retry 30 --retry-delay 1 --retry-connrefused "$URL/" ||
        cannot "docker-registry does not start: $(tail -n 1 "$WORK/log")"
}

# answer OPTION... RANGE: status, Content-Length and Content-Range.
answer() {
    for range in "$@"; do :; done
    case $1 in -*) set -- "$1" ;; *) set -- ;; esac
    said=$(curl -s --max-time 20 -o "$WORK/body" -D - "$@" -H "Range: $range" "$URL/blobs/$DIGEST" | tr -d '\r' |
        awk 'NR == 1 { s = $2 } tolower($1) == "content-length:" { l = $2 } tolower($1) == "content-range:" { r = $2 " " $3 }
            END { print s, l, r }')
    say "${1:-GET} $range: $said" | tee -a "$WORK/seen"
}

main() {
    for tool in curl python3 sha256sum; do
        command -v "$tool" >/dev/null || cannot "$tool is missing"
    done
    begin
    trap stop EXIT
    unpack_pinned bookworm registry docker-registry=2.8.2
    serve
    printf 'hello-world-0123456789\n' >"$WORK/blob"
    DIGEST=sha256:$(sha256sum <"$WORK/blob" | cut -d' ' -f1)
    place=$(curl -fsS --max-time 20 -o /dev/null -D - -X POST "$URL/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    curl -fsS --max-time 20 -o /dev/null -X PUT --data-binary "@$WORK/blob" -H 'Content-Type: application/octet-stream' "$place&digest=$DIGEST" ||
        cannot "the blob is not taken"
    answer bytes=0-4
    answer bytes=99-
    answer --head bytes=0-4
    answer bytes=-0
    # Guessed for the last two: 200 23, and 416.
    cat >"$WORK/expected" <<'END'
GET bytes=0-4: 206 5 bytes 0-4/23
GET bytes=99-: 416 23 bytes */23
--head bytes=0-4: 206 5 bytes 0-4/23
GET bytes=-0: 206 0 bytes 23-22/23
END
    diff "$WORK/expected" "$WORK/seen" >"$WORK/diff" || changed "$(cat "$WORK/diff")"
    say "as found: HEAD has a part, and the last 0 bytes are there"
}

main "$@"
