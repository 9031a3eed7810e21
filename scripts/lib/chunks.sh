# shellcheck shell=sh
# Chunk indexes: what lets a machine fetch only the parts of a kernel or a layer that it has not. Sourced behind lib/agent.sh, not run; the
# caller has WORK. kubesolo-chunks makes them (src/bin/kubesolo-chunks.rs), and docs/publishing.md says what is in one.
#
# Must never: publish an index of other bytes than the layer's.

CHUNKS_TYPE=application/vnd.kubesolo.os.chunks.v1
# What is smaller costs a machine less than the asking.
LEAST_CHUNKED=1048576
# no: --no-chunks, or there is no tool.
CHUNKS=yes
# Names of files, for say_chunks.
INDEXED=
SMALL=

chunks_usage() {
    cat <<USAGE
  --no-chunks            publish no chunk indexes: machines fetch each changed kernel or layer as a whole
USAGE
}

# find_chunks: sets KUBESOLO_CHUNKS, unless it is set. False: it is nowhere, which is said.
find_chunks() {
    [ -z "${CHUNKS_CHECKED:-}" ] || return 0
    if [ -z "${KUBESOLO_CHUNKS:-}" ]; then
        find_beside kubesolo-chunks
        [ -n "$FOUND" ] || find_built kubesolo-chunks
        [ -n "$FOUND" ] || return 1
        KUBESOLO_CHUNKS=$FOUND
    fi
    "$KUBESOLO_CHUNKS" --version 2>/dev/null | grep -q '^kubesolo-chunks ' ||
        die "$KUBESOLO_CHUNKS does not run here, or is not kubesolo-chunks (build it anew with scripts/build.sh, name another in the" \
            "variable KUBESOLO_CHUNKS, or give --no-chunks)"
    CHUNKS_CHECKED=yes
}

# chunk_index FILE HEX NAME: sets CHUNK_INDEX to the index of FILE, whose SHA-256 is HEX; empty where it gets none. NAME: for say_chunks.
chunk_index() {
    CHUNK_INDEX=
    [ "$CHUNKS" = yes ] || return 0
    if [ "$(wc -c <"$1")" -lt "$LEAST_CHUNKED" ]; then
        SMALL=$(with_name "$SMALL" "$3")
        return 0
    fi
    find_chunks || {
        CHUNKS=no
        say "without chunk indexes: machines will fetch each changed kernel or layer as a whole (kubesolo-chunks is missing:" \
            "a release has it, make build makes it; put it beside the agent, or name it in the variable KUBESOLO_CHUNKS)"
        return 0
    }
    made=$WORK/chunks-$2
    "$KUBESOLO_CHUNKS" index "$1" >"$made" 2>"$WORK/log" ||
        die "no chunk index of $1: $(sed 's/^kubesolo-chunks: //' "$WORK/log") (--no-chunks publishes without)"
    [ "$(chunked "$made")" = "$2" ] || die "$1 changed while it was read: start again"
    CHUNK_INDEX=$made
    INDEXED=$(with_name "$INDEXED" "$3")
}

# with_name LIST NAME: prints the list with a name more: "kernel, initramfs 1" with "initramfs 2" is "kernel, initramfs 1, 2".
with_name() {
    case $1 in
        *'initramfs '*) printf '%s, %s' "$1" "${2#initramfs }" ;;
        *) printf '%s%s' "${1:+$1, }" "$2" ;;
    esac
}

# say_chunks ARCH: what has an index since the last time. Where nothing has, nothing is said.
say_chunks() {
    [ -z "$INDEXED" ] || say "chunk indexes for $1: $INDEXED${SMALL:+; none for $SMALL (below 1 MiB)}"
    INDEXED='' SMALL=''
}

# chunked INDEX: prints the SHA-256 of what it is an index of.
chunked() { head -c 56 -- "$1" | tail -c 32 | od -An -v -tx1 | tr -d ' \n'; }
