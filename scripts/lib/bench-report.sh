# shellcheck shell=sh
# What scripts/bench*.sh say of the files NAME.times: "wall user sys KiB", a line a run. Sourced, not run; the caller has BINARY, LOAD,
# ARCH and WORK.

# column NAME EXPRESSION: that of each run, sorted.
column() { awk "{ print $2 }" "$1.times" | LC_ALL=C sort -n; }
median() { column "$@" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }
# shellcheck disable=SC2016,SC2034 # awk's fields
WALL='$1' CPU='$2 + $3' RSS='$4 / 1024'

row() {
    printf '%-31s %6.2f  %5.2f-%-6.2f %5.2f+%-5.2f %5.2f %7.2f\n' "$2" "$(median "$1" "$WALL")" \
        "$(column "$1" "$WALL" | head -n 1)" "$(column "$1" "$WALL" | tail -n 1)" \
        "$(median "$1" "\$2")" "$(median "$1" "\$3")" "$(median "$1" "$CPU")" "$(median "$1" "$RSS")"
}

# figure NAME VALUE UNIT [BASE [MOST]]: one line for machines: the value, and through BASE; and one for people where that is above MOST. Not
# with --quick, whose figures mean nothing.
figure() {
    most=${5-}
    [ "${QUICK:-no}" = no ] || most=
    awk -v name="$1" -v value="$2" -v unit="$3" -v base="${4:-0}" -v most="$most" 'BEGIN {
        ratio = base > 0 ? sprintf("%.3f", value / base) : "-"
        print "bench:", name, value, unit, ratio
        if (most != "" && ratio != "-" && ratio + 0 > most) print "    missed: " ratio ", and the target is " most
    }'
}

# of_runs: where the figures are from.
of_runs() { case $RUNS in 1) echo 'one run' ;; *) echo "medians of $RUNS runs" ;; esac; }

mib() { awk -v bytes="$1" 'BEGIN { printf "%.0f", bytes / 1048576 }'; }

report_machine() {
    printf 'kubesolo-update %s, %s, commit %s\n' "$PROGRAM" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "$(git -C "$REPO" describe --always --dirty 2>/dev/null || echo unknown)"
    printf '%s, %s x %s, %s MiB memory\n' "$(uname -srm)" "$(nproc)" \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" \
        "$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
    printf 'disk images on %s; load before: %s\n' "$(df -T "$WORK" | awk 'NR == 2 { print $2 " (" $1 ")" }')" "$LOAD"
    printf '%s; %s; %s; oras %s\n' "$("$BINARY" --version)" "$(curl -V | head -n 1 | cut -d' ' -f1-2)" \
        "$(openssl version | cut -d' ' -f1-2)" "$(oras version | sed -n 's/^Version: *//p')"
}

# middle FILE COLUMN: of the lines of FILE, the median of a column of whole numbers.
middle() { awk -v at="$2" '{ print $at }' "$1" | LC_ALL=C sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
