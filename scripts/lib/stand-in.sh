# shellcheck shell=sh
# What stands in for a kernel where nothing is booted. Sourced, not run.

# stand_in FILE: gives bytes the beginning that kernels of amd64 and arm64 have, by which the scripts that publish know them.
stand_in() {
    while IFS=" " read -r place bytes; do
        # shellcheck disable=SC2059 # escapes are what it consists of
        printf "$bytes" | dd of="$1" bs=1 seek="$place" conv=notrunc status=none
    done <<'FIELDS'
56 ARM\144
497 \000
500 \000\000\000\000
510 \125\252
514 HdrS\017\002
566 \001
FIELDS
}
