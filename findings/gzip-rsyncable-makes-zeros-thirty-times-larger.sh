#!/bin/sh
# `gzip --rsyncable` packs a run of one byte into thirty times as much as gzip without it; pigz's `--rsyncable` does not.
#
# Guessed: it costs a few per cent, whatever the input: 16 MiB of zeros have 16 KB with it too.
# Seen:    520 KB instead of 16 KB, of zeros and of any other byte: the sum of the last 4,096 bytes, by which it chooses the ends of
#          blocks, is then 0 everywhere. Of two bytes in turn: no difference. pigz, whose `--rsyncable` looks at other bits: no
#          difference. gzip 1.12, pigz 2.6 (Debian 12).
# Matters: an initramfs that is padded, or holds a sparse file, is better packed without padding; what is packed so unpacks as usual.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

# packed PROGRAM OPTION...: length of what comes, packed.
packed() { "$@" -6 -n -c | wc -c; }

main() {
    command -v cmp >/dev/null || cannot "cmp is missing"
    begin
    unpack_pinned bookworm tools gzip=1.12 pigz=2.6
    gzip=$WORK/tools/bin/gzip pigz=$WORK/tools/usr/bin/pigz
    head -c 16M /dev/zero >"$WORK/zeros"
    tr '\0' 'a' <"$WORK/zeros" >"$WORK/letters"
    awk 'BEGIN { for (i = 0; i < 524288; i++) printf "abababababababababababababababab" }' >"$WORK/two"
    for input in zeros letters two; do
        for program in "$gzip" "$pigz"; do
            plain=$(packed "$program" <"$WORK/$input")
            with=$(packed "$program" --rsyncable <"$WORK/$input")
            "$program" --rsyncable -6 -n -c <"$WORK/$input" >"$WORK/packed"
            "$gzip" -dc <"$WORK/packed" | cmp -s - "$WORK/$input" || changed "it does not unpack"
            say "$input, $(basename "$program"): $plain bytes, with --rsyncable $with"
            case $input:$(basename "$program") in
                two:* | *:pigz) [ "$with" -le $((plain * 2)) ] || changed "$input: pigz, or two bytes in turn, are larger too" ;;
                *) [ "$with" -ge $((plain * 20)) ] || changed "$input: it is no longer so much larger" ;;
            esac
        done
    done
    say "as found: gzip --rsyncable makes a run of one byte about thirty times larger"
}

main "$@"
