#!/bin/sh
# Splits one initramfs into layers by what changes together, so that machines fetch only the layers of a release that changed.
#
# Must never: unpack the archive to the disk; write a layer of which kernels would make other files than of the whole.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"

SOURCE=
OUTPUT=
TABLE=$REPO/scripts/lib/layers.txt
FORCE=no
LAST_SECOND=4294967295
DRY_RUN=no

usage() {
    cat <<USAGE
Usage: scripts/split-initramfs.sh --output DIR [OPTION]... INITRAMFS|TREE

Splits an initramfs (cpio in gzip, in one piece or several) or a directory tree into layers: DIR/base.gz, kubesolo.gz, agent.gz,
config.gz, as far as there is something for each. Prints them in the order in which the scripts that publish take them, each
with --initramfs. Kernels unpack them one after the other to what was there before, and lint holds them to that.

The archive is not unpacked to the disk, and needs no root. Of a tree, files have the owners that they have there if root runs
this, and are root's otherwise. What stands uncompressed in front (microcode) stays in front of the first layer.

  --layers FILE  what goes where, in place of scripts/lib/layers.txt, which says how it is written
  --output DIR   where the layers go; made where it is missing
  --force        replace layers that are there
  --dry-run      split and check everything, say what would be written, write nothing
  -h, --help     this text

Names are sorted, times are SOURCE_DATE_EPOCH (default: 0): the same input gives the same bytes with the same gzip. GNU gzip packs
them so that a change in a file changes only the bytes near it (--rsyncable): docs/publishing.md, "Only what changed".
USAGE
}

# shellcheck source=scripts/lib/agent.sh
. "$REPO/scripts/lib/agent.sh"
# shellcheck source=scripts/lib/pack.sh
. "$REPO/scripts/lib/pack.sh"

check() {
    need_tools "scripts/install-deps.sh image brings it" python3 gzip cmp
    [ -n "$SOURCE" ] || misuse "no initramfs is named"
    [ -n "$OUTPUT" ] || misuse "--output is missing"
    [ -d "$SOURCE" ] || [ -f "$SOURCE" ] || die "$SOURCE is neither a file nor a directory"
    [ -f "$TABLE" ] || die "--layers $TABLE is not a file"
    case $SOURCE_DATE_EPOCH in '' | *[!0-9]*) die "SOURCE_DATE_EPOCH is not a number: $SOURCE_DATE_EPOCH" ;; esac
    if [ "${#SOURCE_DATE_EPOCH}" -gt 10 ] || [ "$SOURCE_DATE_EPOCH" -gt "$LAST_SECOND" ]; then
        die "SOURCE_DATE_EPOCH is $SOURCE_DATE_EPOCH, and cpio has 32 bits for a time: at most $LAST_SECOND"
    fi
    if [ -e "$OUTPUT" ]; then [ -d "$OUTPUT" ] || die "$OUTPUT is not a directory"; fi
}

# listed FILE: what kernels unpack of it, in one order.
listed() {
    "$KUBESOLO_UPDATE" lint --list --initramfs "$1" >"$WORK/unsorted" 2>"$WORK/log" || {
        sed "s|$WORK/||g" "$WORK/log" >&2
        die "$1 cannot be listed"
    }
    sort "$WORK/unsorted"
}

# split: makes WORK/NAME.gz, and WORK/order.
split() {
    find_agent
    [ -d "$SOURCE" ] || listed "$SOURCE" >"$WORK/before"
    python3 -I -B "$REPO/scripts/lib/split-initramfs.py" "$SOURCE" "$TABLE" "$SOURCE_DATE_EPOCH" "$WORK" 2>"$WORK/log" ||
        die "$(cat "$WORK/log")"
    : >"$WORK/whole"
    while read -r name _; do
        pack <"$WORK/$name.cpio" >"$WORK/packed"
        if [ -s "$WORK/whole" ]; then
            mv -- "$WORK/packed" "$WORK/$name.gz"
        else
            cat "$WORK/front" "$WORK/packed" >"$WORK/$name.gz"
        fi
        rm -f -- "$WORK/$name.cpio"
        cat -- "$WORK/$name.gz" >>"$WORK/whole"
        if [ -e "$OUTPUT/$name.gz" ] && [ "$FORCE" = no ]; then die "$OUTPUT/$name.gz is there already (--force replaces it)"; fi
    done <"$WORK/order"
}

# judge: the layers are together what was there.
judge() {
    set --
    while read -r name _; do set -- "$@" --initramfs "$WORK/$name.gz"; done <"$WORK/order"
    lint "$@"
    [ ! -d "$SOURCE" ] || return 0
    listed "$WORK/whole" >"$WORK/after"
    cmp -s "$WORK/before" "$WORK/after" || {
        diff "$WORK/before" "$WORK/after" | sed -n '1,5p' >&2
        die "the layers are not what $SOURCE is (<), but >: nothing was written"
    }
}

# make_place: where the layers go.
make_place() {
    mkdir -p -- "$OUTPUT" 2>"$WORK/log" || die "cannot make the directory $OUTPUT: $(sed 's/.*: //' "$WORK/log")"
    [ -w "$OUTPUT" ] || die "cannot write in $OUTPUT"
}

# name_stale: layers of the same names that lie there, and that this run did not make.
name_stale() {
    sed 's/#.*//' "$TABLE" "$REPO/scripts/lib/layers.txt" | awk 'NF { print $1 }' | sort -u | while read -r name; do
        if [ ! -e "$OUTPUT/$name.gz" ] || grep -q "^$name " "$WORK/order"; then continue; fi
        warn "$OUTPUT/$name.gz is not of this run, which has nothing for that layer: if an earlier run made it, remove it"
    done
}

deliver() {
    while read -r name _; do
        cp -- "$WORK/$name.gz" "$OUTPUT/.$name.$$" || die "cannot write $OUTPUT/$name.gz"
        mv -f -- "$OUTPUT/.$name.$$" "$OUTPUT/$name.gz"
    done <"$WORK/order"
}

several() { if [ "$1" -eq 1 ]; then echo "1 $2"; else echo "$1 $3"; fi; }

clean_up() { [ -z "$OUTPUT" ] || rm -f -- "$OUTPUT"/.*."$$"; }

main() {
    LC_ALL=C
    export LC_ALL
    umask 022
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --force) FORCE=yes ;;
            --dry-run) DRY_RUN=yes ;;
            --output) need_text "$@"; OUTPUT=${2%/}; shift ;;
            --layers) need_text "$@"; TABLE=$2; shift ;;
            -*) misuse "unknown option: $1" ;;
            *) [ -z "$SOURCE" ] || misuse "one initramfs, not two"; SOURCE=$1 ;;
        esac
        shift
    done
    check
    work_folder
    split
    judge
    if [ "$DRY_RUN" = no ]; then
        make_place
        deliver
    fi
    while read -r name files dirs; do
        say "$OUTPUT/$name.gz: $(wc -c <"$WORK/$name.gz") bytes, $(several "$files" file files), $(several "$dirs" directory directories)"
    done <"$WORK/order"
    name_stale
    if [ "$DRY_RUN" = yes ]; then say "dry run: nothing was written"; fi
    while read -r name _; do printf '%s\n' "$OUTPUT/$name.gz"; done <"$WORK/order"
}

main "$@"
