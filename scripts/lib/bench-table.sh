# shellcheck shell=sh
# The table that scripts/bench.sh ends with. Sourced behind lib/bench-report.sh, not run; the caller has BESIDE, QUICK and RUNS.

# ratio NAME PEER EXPRESSION: one median through the other.
ratio() { awk -v a="$(median "$1" "$3")" -v b="$(median "$2" "$3")" 'BEGIN { printf "%.2f", b ? a / b : 0 }'; }

# ratios NAME PEER TITLE
ratios() {
    printf '%-31s %6s %33s %7s\n' "$3" "$(ratio "$1" "$2" "$WALL")" "$(ratio "$1" "$2" "$CPU")" \
        "$(ratio "$1" "$2" "$RSS")"
}

report() {
    echo
    report_machine
    if [ "$QUICK" = yes ]; then printf '\n--quick: THESE FIGURES MEAN NOTHING\n'; fi
    printf '\n%s MiB of noise, %s MiB of programs from docker-registry, plain HTTP on loopback, into ext4 on a loop device;\n' \
        "$(mib "$(artifact_bytes main)")" "$(mib "$(artifact_bytes programs)")"
    printf '%s, alternating; RSS is that of the largest process\n\n' "$(of_runs)"
    printf '%-31s %6s  %-12s %-11s %5s %6s\n' '' 'wall s' 'min-max' 'user+sys s' 'CPU s' 'RSS MiB'
    row apply 'kubesolo-update apply'
    row oras 'oras pull; sync -f'
    row tee 'curl | tee | openssl, dd fsync'
    row dd 'curl | openssl; dd fsync'
    for tag in programs layers gigabit; do
        row "$tag" "apply, $tag"
        row "oras-$tag" "oras pull; sync -f, $tag"
    done
    cat <<TEXT

apply does more than the peers: it inflates the initramfs to see that it is whole, and reads all files back from the
device and hashes them there. Theirs is SHA-256 as the bytes come, and the bytes durable.

TEXT
    ratios apply oras 'apply / oras'
    ratios apply tee 'apply / curl with tee'
    ratios apply dd 'apply / curl without tee'
    for tag in programs layers gigabit; do ratios "$tag" "oras-$tag" "apply / oras, $tag"; done
    if [ -n "$BESIDE" ]; then
        printf '\nBeside %s (%s):\n\n' "$BESIDE" "$("$BESIDE" --version)"
        row beside 'its apply'
        row beside-programs 'its apply, of programs'
        ratios apply beside 'apply / its apply'
        ratios programs beside-programs 'the same, of programs'
    fi
    printf '\nPeak memory of apply: %.1f MiB with %s MiB, %.1f MiB with %s MiB; with chunks %s\n\n' \
        "$(median apply "$RSS")" "$(mib "$(artifact_bytes main)")" "$(median large "$RSS")" \
        "$(mib "$(artifact_bytes large)")" "$(jq -c '{fetched_bytes, copied_bytes}' answer)"
    figures
}

# figures: what docs/performance.md has a target for.
figures() {
    figure apply-noise-wall "$(median apply "$WALL")" s "$(median oras "$WALL")" 1
    figure apply-programs-wall "$(median programs "$WALL")" s "$(median oras-programs "$WALL")" 2
    figure apply-layers-wall "$(median layers "$WALL")" s "$(median oras-layers "$WALL")" 1.3
    figure apply-gigabit-wall "$(median gigabit "$WALL")" s "$(median oras-gigabit "$WALL")" 1.05
    if [ -n "$BESIDE" ]; then figure apply-programs-cpu "$(median programs "$CPU")" s "$(median beside-programs "$CPU")" 0.8; fi
    # Through what they may be.
    figure apply-chunks-memory "$(median chunked "$RSS")" MiB 3 1
    figure apply-large-memory "$(median large "$RSS")" MiB 3 1
    figure status-start "$(median status "$WALL")" ms "$(median true "$WALL")" 1.54
    for file in "$REPO"/dist/kubesolo-update-*; do
        if [ -f "$file" ]; then figure "size-${file##*-}" "$(wc -c <"$file")" bytes 1507328 1; fi
    done
}
