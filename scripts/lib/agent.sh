# shellcheck shell=sh
# The agent as judge: what machines take is decided by one program, theirs. Sourced, not run; the caller has REPO and die.

KNOWS_LINT=no

# find_agent: sets KUBESOLO_UPDATE, unless it is set: to what is built for this machine, or installed on it.
find_agent() {
    [ -z "${KUBESOLO_UPDATE:-}" ] || { check_agent_knows; return 0; }
    find_built kubesolo-update
    [ -n "$FOUND" ] ||
        die "kubesolo-update is missing, which knows what machines take: scripts/build.sh --arch $machine makes it" \
            "(or name one that runs here in the variable KUBESOLO_UPDATE)"
    KUBESOLO_UPDATE=$FOUND
    check_agent_knows
}

name_machine() { case $(uname -m) in x86_64) machine=amd64 ;; aarch64) machine=arm64 ;; *) machine=$(uname -m) ;; esac; }

# find_beside PROGRAM: sets FOUND to what lies of it beside the agent, by the names that it is installed, built and released by; empty where
# there is none, or the agent's place is not known.
find_beside() {
    FOUND=
    case ${KUBESOLO_UPDATE:-} in */*) ;; *) return 0 ;; esac
    name_machine
    release=$("$KUBESOLO_UPDATE" --version 2>/dev/null | sed -n 's/^kubesolo-update //p') || :
    for FOUND in "$1" "$1-$machine" "$1-$release-linux-$machine"; do
        FOUND=${KUBESOLO_UPDATE%/*}/$FOUND
        if [ -f "$FOUND" ] && [ -x "$FOUND" ]; then return 0; fi
    done
    FOUND=
}

# find_built PROGRAM: sets FOUND to what is built of it for this machine, or installed on it; empty where there is none.
find_built() {
    name_machine
    built=${CARGO_TARGET_DIR:-$REPO/target}
    for FOUND in "$REPO/dist/$1-$machine" "$(command -v "$1" || true)" "$built/release/$1" "$built/debug/$1"; do
        if [ -n "$FOUND" ] && [ -f "$FOUND" ] && [ -x "$FOUND" ]; then return 0; fi
    done
    FOUND=
}

check_agent_knows() {
    [ "$KNOWS_LINT" = no ] || return 0
    # By what it says: an exit status of 0 is anybody's, and would take everything.
    "$KUBESOLO_UPDATE" lint --help 2>/dev/null | grep -q -e --site-dir ||
        die "$KUBESOLO_UPDATE does not run here, or is older than these scripts: its lint command is missing, or lacks options" \
            "(build it anew with scripts/build.sh, or name another in the variable KUBESOLO_UPDATE, by its path: ./NAME)"
    KNOWS_LINT=yes
}

# lint ARGUMENT...: ends the run where machines would refuse it, with the agent's own words. What lies in WORK goes by its name.
lint() {
    find_agent
    code=0
    words=$(TMPDIR=${WORK:-${TMPDIR:-/tmp}} "$KUBESOLO_UPDATE" lint "$@" 2>&1) || code=$?
    [ -z "${WORK:-}" ] || words=$(printf '%s\n' "$words" | sed "s|$WORK/||g")
    last=
    if [ "$code" -ne 0 ]; then
        last=$(printf '%s\n' "$words" | sed -n '$p')
        words=$(printf '%s\n' "$words" | sed '$d')
    fi
    [ -z "$words" ] || printf '%s\n' "$words" | while IFS= read -r line; do say "${line#kubesolo-update: }"; done
    [ "$code" -eq 0 ] || die "${last#kubesolo-update: }"
}
