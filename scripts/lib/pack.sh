# shellcheck shell=sh
# How scripts pack what machines fetch. Sourced behind lib/cli.sh, not run.

# pack: packs standard input, with GNU gzip so that a change changes only the bytes near it, and machines fetch only these. The same input
# and the same gzip give the same bytes.
pack() {
    if [ "${PACKED_PLAIN:-no}" = yes ]; then
        gzip -9n
    elif gzip -9n --rsyncable </dev/null >/dev/null 2>&1; then
        gzip -9n --rsyncable
    else
        say "packed without --rsyncable: this gzip does not have the option (GNU gzip does, busybox and BSD do not). Behind a change," \
            "machines fetch all that follows"
        # Said once.
        PACKED_PLAIN=yes
        gzip -9n
    fi
}
