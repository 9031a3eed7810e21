# shellcheck shell=sh
# Programs of packages that are unpacked into a directory and not installed: those of another Debian, for instance.
# Sourced, not run.

# unpacked DIR PROGRAM ARGUMENT...: runs DIR/PROGRAM. Where a C library was unpacked beside it, with that one and
# the libraries there: a program of a newer Debian asks for a newer one than this system has.
unpacked() {
    own=$1 program=$2
    shift 2
    for loader in "$own"/usr/lib/*-linux-gnu/ld-linux-*.so.* "$own"/lib/*-linux-gnu/ld-linux-*.so.*; do
        [ -e "$loader" ] || continue
        beside=${loader%/*}
        beside=${beside##*/}
        "$loader" --library-path "$own/usr/lib/$beside:$own/lib/$beside" "$own/$program" "$@"
        return
    done
    "$own/$program" "$@"
}
