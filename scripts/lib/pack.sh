# shellcheck shell=sh
# How scripts pack what machines fetch. Sourced behind lib/cli.sh, not run.

# pack: packs standard input, with GNU gzip so that a change changes only the bytes near it, and machines fetch only these. The same input
# and the same gzip give the same bytes.
pack() {
    if gzip -9n --rsyncable </dev/null >/dev/null 2>&1; then
        gzip -9n --rsyncable
    else
        say "packed without --rsyncable, which this gzip has not (GNU gzip has it, busybox and BSD have not): behind a change, machines" \
            "fetch all that follows"
        gzip -9n
    fi
}
