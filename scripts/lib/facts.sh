# shellcheck shell=sh
# What scripts that publish and scripts/sign.sh both read off a file, a text, or what oras says. Sourced behind lib/cli.sh, not run.

# hash FILE: sets HEX. An assignment of its own, so that a file that cannot be read ends the run.
hash() {
    HEX=$(sha256sum <"$1")
    HEX=${HEX%% *}
}

# is_digest TEXT
is_digest() { [ "${#1}" -eq 71 ] && printf '%s\n' "$1" | grep -qxE 'sha256:[0-9a-f]{64}'; }

# unix_secs TIME: prints the seconds since 1970 of an RFC 3339 time; nothing where it is none. Not by date, which reads such a time
# on GNU systems only.
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

# hint_tls FILE: which option mends what oras said there, in Go's words.
hint_tls() {
    if grep -qF 'server gave HTTP response to HTTPS client' "$1"; then say "(a registry without TLS? --plain-http)"; fi
}

# says_absent FILE NAME: oras 1.3 says it in these words, with the name, and only after a 404; of another status it gives the
# registry's own words, which may end alike.
says_absent() { grep -qF -e ": $2: not found" "$1"; }
