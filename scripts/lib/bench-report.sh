# shellcheck shell=sh
# What scripts/bench.sh says in the end, of the files NAME.times: "wall user sys KiB", a line a run. Sourced, not run; the caller has
# BINARY, BESIDE, QUICK, RUNS, STATUS_RUNS, LOAD and WORK.

# column NAME EXPRESSION: that of each run, sorted.
column() { awk "{ print $2 }" "$1.times" | LC_ALL=C sort -n; }
median() { column "$@" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }
# shellcheck disable=SC2016 # awk's fields
WALL='$1' CPU='$2 + $3' RSS='$4 / 1024'

row() {
    printf '%-31s %6.2f  %5.2f-%-6.2f %5.2f+%-5.2f %5.2f %7.2f\n' "$2" "$(median "$1" "$WALL")" \
        "$(column "$1" "$WALL" | head -n 1)" "$(column "$1" "$WALL" | tail -n 1)" \
        "$(median "$1" "\$2")" "$(median "$1" "\$3")" "$(median "$1" "$CPU")" "$(median "$1" "$RSS")"
}

# ratio NAME PEER EXPRESSION: one median through the other.
ratio() { awk -v a="$(median "$1" "$3")" -v b="$(median "$2" "$3")" 'BEGIN { printf "%.2f", b ? a / b : 0 }'; }

# ratios NAME PEER TITLE
ratios() {
    printf '%-31s %6s %33s %7s\n' "$3" "$(ratio "$1" "$2" "$WALL")" "$(ratio "$1" "$2" "$CPU")" \
        "$(ratio "$1" "$2" "$RSS")"
}

mib() { awk -v bytes="$1" 'BEGIN { printf "%.0f", bytes / 1048576 }'; }

report_machine() {
    printf 'kubesolo-update bench, %s, commit %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "$(git -C "$REPO" describe --always --dirty 2>/dev/null || echo unknown)"
    printf '%s, %s x %s, %s MiB memory\n' "$(uname -srm)" "$(nproc)" \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" \
        "$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
    printf 'disk images on %s; load before: %s\n' "$(df -T "$WORK" | awk 'NR == 2 { print $2 " (" $1 ")" }')" "$LOAD"
    printf '%s; %s; %s; oras %s\n' "$("$BINARY" --version)" "$(curl -V | head -n 1 | cut -d' ' -f1-2)" \
        "$(openssl version | cut -d' ' -f1-2)" "$(oras version | sed -n 's/^Version: *//p')"
}

report() {
    echo
    report_machine
    if [ "$QUICK" = yes ]; then printf '\n--quick: THESE FIGURES MEAN NOTHING\n'; fi
    printf '\n%s MiB from docker-registry, plain HTTP on loopback, into ext4 on a loop device;\n' \
        "$(mib "$(artifact_bytes main)")"
    printf 'medians of %s runs in turn; RSS is that of the largest process\n\n' "$RUNS"
    printf '%-31s %6s  %-12s %-11s %5s %6s\n' '' 'wall s' 'min-max' 'user+sys s' 'CPU s' 'RSS MiB'
    row apply 'kubesolo-update apply'
    row oras 'oras pull; sync -f'
    row tee 'curl | tee | openssl, dd fsync'
    row dd 'curl | openssl; dd fsync'
    echo
    ratios apply oras 'apply / oras'
    ratios apply tee 'apply / curl with tee'
    ratios apply dd 'apply / curl without tee'
    cat <<TEXT

apply does more than the peers: it inflates the initramfs to see that it is
whole, and reads all files back from the device and hashes them there. Theirs
is SHA-256 as the bytes come, and the bytes durable. This initramfs does not compress, so it
is cheap to inflate; with one of programs ($(mib "$(artifact_bytes programs)") MiB in all):

TEXT
    row programs 'kubesolo-update apply'
    ratios programs oras 'apply / oras'
    ratios programs dd 'apply / curl without tee'
    if [ -n "$BESIDE" ]; then
        printf '\nBeside %s (%s):\n\n' "$BESIDE" "$("$BESIDE" --version)"
        row beside 'its apply'
        row beside-programs 'its apply, of programs'
        ratios apply beside 'apply / its apply'
        ratios programs beside-programs 'the same, of programs'
    fi
    printf '\nPeak memory of apply: %.1f MiB with %s MiB, %.1f MiB with %s MiB (must: 6)\n' \
        "$(median apply "$RSS")" "$(mib "$(artifact_bytes main)")" "$(median large "$RSS")" \
        "$(mib "$(artifact_bytes large)")"
    printf 'status: %.1f ms, median of %s; /bin/true started the same way: %.1f ms (must: 5)\n' \
        "$(median status "$WALL")" "$STATUS_RUNS" "$(median true "$WALL")"
    for file in "$REPO"/dist/kubesolo-update-*; do
        if [ -f "$file" ]; then
            printf '%s: %s bytes (must: 1441792)\n' "dist/$(basename "$file")" "$(wc -c <"$file")"
        fi
    done
}
