#!/bin/sh
# Says where the bytes of the release binary are: builds it with its symbols and adds them up by crate.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

usage() {
    cat <<'TXT'
Usage: scripts/size.sh [--arch amd64|arm64]

Builds the release binary with its symbols (into a temporary directory) and prints, largest
first, the crates and the single symbols that its bytes belong to. Needs what scripts/build.sh
needs, and nm (package binutils).
TXT
}

# Of each symbol: its size, and the crate that its name starts with; assembly and C have no path.
by_crate() {
    nm -C -S --size-sort "$1" | awk '
        $3 ~ /[bB]/ { next } # not in the file
        {
            name = $4
            gsub(/^[<&\[]+/, "", name)
            if (name == "dyn" || name == "mut") name = $5
            split(name, part, "::")
            crate = (name ~ /::/) ? part[1] : "C and assembly"
            if (crate !~ /^[a-zA-Z_0-9 ]+$/) crate = "core"
            print crate "\t" $2
        }' | while IFS="$(printf '\t')" read -r crate size; do
        printf '%s\t%d\n' "$crate" "0x$size"
    done | awk -F '\t' '{ sum[$1] += $2 } END { for (c in sum) printf "%9d  %s\n", sum[c], c }' | sort -rn | head -n 14
}

by_symbol() {
    nm -C -S --size-sort "$1" | awk '$3 !~ /[bB]/' | tail -n 12 | while read -r _ size _ name; do
        printf '%9d  %.90s\n' "0x$size" "$name"
    done | sort -rn
}

main() {
    arch=$(uname -m)
    case $arch in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; esac
    while [ $# -gt 0 ]; do
        case $1 in
            --arch) need_value "$@"; arch=$2; shift 2 ;;
            -h | --help) usage; exit 0 ;;
            *) misuse "unknown option: $1" ;;
        esac
    done
    need_tools "install the package binutils" nm
    work_folder
    "$REPO/scripts/build.sh" --symbols --arch "$arch" --output "$WORK" >"$WORK/log" 2>&1 ||
        { cat "$WORK/log" >&2; die "the build failed"; }
    binary=$WORK/kubesolo-update-$arch
    echo "$arch, bytes by crate:"
    by_crate "$binary"
    echo "$arch, largest symbols:"
    by_symbol "$binary"
}

main "$@"
