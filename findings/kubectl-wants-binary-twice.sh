#!/bin/sh
# A key in a kubeconfig that is marked as what it is, `!!binary` and base64, is refused by kubectl; base64 of base64 is read.
#
# Guessed: `client-key-data: !!binary S0VZ` means the three bytes KEY, as `client-key-data: S0VZ` does: YAML's type for bytes is
#          written in base64, and the field holds bytes in base64.
# Seen:    "illegal base64 data": the mark is decoded when YAML becomes JSON, and the field is decoded once more. With the text
#          encoded twice kubectl reads KEY. kubectl 1.20.2 and 1.32.3 alike.
# Matters: a program that writes bytes as its YAML library likes to (`!!binary`) makes a kubeconfig that no kubectl reads; the agent
#          takes what kubectl takes.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

# key DIR FORM: what this kubectl says of a kubeconfig with this client key.
key() {
    cat >"$WORK/config" <<END
apiVersion: v1
kind: Config
current-context: this
clusters: [{name: this, cluster: {server: "https://127.0.0.1:6443"}}]
contexts: [{name: this, context: {cluster: this, user: this}}]
users: [{name: this, user: {client-key-data: $2}}]
END
    beside "$1" usr/bin/kubectl config view --raw --kubeconfig "$WORK/config" \
        -o 'jsonpath={.users[0].user.client-key-data}' 2>&1 || true
}

begin
unpack_pinned bookworm old kubernetes-client=1.20 libc6=2.36
unpack_pinned trixie new kubectl=1.32 libc6=2.41
once=$(printf KEY | base64)
twice=$(printf '%s' "$once" | base64)
for kubectl in old new; do
    say "$kubectl: $once: $(key "$kubectl" "$once")"
    say "$kubectl: !!binary $once: $(key "$kubectl" "!!binary $once")"
    say "$kubectl: !!binary $twice: $(key "$kubectl" "!!binary $twice")"
    [ "$(key "$kubectl" "$once")" = "$once" ] || changed "$kubectl reads no plain base64"
    case $(key "$kubectl" "!!binary $once") in *"illegal base64 data"*) ;; *) changed "$kubectl takes !!binary once" ;; esac
    [ "$(key "$kubectl" "!!binary $twice")" = "$once" ] || changed "$kubectl does not take !!binary twice"
done
say "as found: !!binary is base64 of base64"
