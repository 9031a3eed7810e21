# shellcheck shell=sh
# Checks of what is put onto machines by hand: keys and configuration. Sourced, not run; the caller has REPO, say, die and WORK,
# a directory that goes when it ends. The agent judges: there is no other rule of what a key is than that of machines.

# shellcheck source=scripts/lib/agent.sh
. "$REPO/scripts/lib/agent.sh"

# not_writable FILE: by others than its owner, who could let their own key in, or run what they like.
not_writable() {
    [ -z "$(find -L "$1" -prune -perm /022)" ] || die "$1: its group or everybody may write to it (chmod go-w)"
}

# judge_conf FILE: a machine with a configuration that is none takes no updates any more.
judge_conf() {
    find_agent
    if "$KUBESOLO_UPDATE" lint --conf "$1" >"$WORK/log" 2>&1; then return 0; fi
    cat "$WORK/log" >&2
    die "the agent does not take $1"
}

# check_keys DIR: public keys, what is revoked, and nothing that must not leave the machine where it is. Of a list of what
# is revoked with one line that is none, or in a place where it would revoke nothing, machines take no update at all; and
# what is left out here revokes nothing either.
check_keys() { lint --keys "$1"; }
