#!/bin/sh
# kubectl reads a kubeconfig in JSON, but not one whose slashes are escaped, as JSON allows and some writers do.
#
# Guessed: read: the same text is JSON to every JSON reader, and YAML 1.2 has the escape `\/` for its sake.
# Seen:    "found unknown escape character": kubectl has no JSON reader there, and its YAML knows 1.1's escapes. kubectl 1.20.2
#          and 1.32.3 alike.
# Matters: PHP's json_encode and others write "https:\/\/127.0.0.1:6443" unless told not to. The agent refuses what kubectl
#          refuses, and names the line.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

# server DIR TEXT: what this kubectl says of a kubeconfig in JSON whose server is written so.
server() {
    printf '{"apiVersion":"v1","kind":"Config","clusters":[{"name":"this","cluster":{"server":"%s"}}]}\n' "$2" >"$WORK/config"
    python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$WORK/config" || cannot "no JSON"
    beside "$1" usr/bin/kubectl config view --raw --kubeconfig "$WORK/config" -o 'jsonpath={.clusters[0].cluster.server}' 2>&1 || true
}

begin
unpack_pinned bookworm old kubernetes-client=1.20 libc6=2.36
unpack_pinned trixie new kubectl=1.32 libc6=2.41
for kubectl in old new; do
    plain=$(server "$kubectl" 'https://127.0.0.1:6443')
    escaped=$(server "$kubectl" 'https:\/\/127.0.0.1:6443')
    say "$kubectl: plain: $plain"
    say "$kubectl: escaped: $escaped"
    [ "$plain" = https://127.0.0.1:6443 ] || changed "$kubectl does not read JSON"
    case $escaped in *"unknown escape character"*) ;; *) changed "$kubectl reads it" ;; esac
done
say "as found: an escaped slash is refused"
