#!/bin/sh
# A directory that cannot be read is an empty one to busybox: `ls`, `find` and its shell's `*` say nothing, and end with 0.
#
# Guessed: a disk that answers a listing with an I/O error is told of, as coreutils' `ls` does: a message, an exit code.
# Seen:    busybox 1.35 (`ls -A`, `find`, a glob in its sh) prints nothing, and the exit code is 0; coreutils 9.1 says "reading
#          directory ... Input/output error" and ends with 2. The error is made by strace, for getdents64 on that directory alone.
# Matters: a hook in an initramfs that copies a list of what is forbidden (`for file in DIR/*`) copies nothing from a failing disk,
#          and goes on. `ls -a` can tell: without an error an empty directory has `.` and `..`.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

# failing COMMAND...: its output and exit code, where the directory cannot be listed.
failing() {
    code=0
    said=$(timeout 60 "$WORK/tools/usr/bin/strace" -f -o "$WORK/trace" -P "$WORK/dir" -e inject=getdents64:error=EIO "$@" 2>&1) || code=$?
    grep -q INJECTED "$WORK/trace" || cannot "strace did not make the error: $(tail -n 1 "$WORK/trace")"
    printf '%s: %s' "$code" "$said"
}

main() {
    begin
    unpack_pinned bookworm tools busybox-static=1:1.35 coreutils=9.1 strace=6.1
    mkdir "$WORK/dir"
    : >"$WORK/dir/forbidden"
    busybox=$WORK/tools/bin/busybox
    cd "$WORK"
    all=$(failing "$busybox" ls -A "$WORK/dir")
    found=$(failing "$busybox" find "$WORK/dir")
    # shellcheck disable=SC2016 # busybox expands it
    glob=$(failing "$busybox" sh -c 'for file in "$1"/*; do if [ -e "$file" ]; then echo "$file"; fi; done' sh "$WORK/dir")
    dots=$(failing "$busybox" ls -a "$WORK/dir")
    core=$(failing "$WORK/tools/bin/ls" -A "$WORK/dir")
    sound=$("$busybox" ls -a "$WORK/dir" | tr '\n' ' ')
    for what in "$all" "$found" "$glob" "$dots" "$core"; do say "$what"; done
    [ "$all" = "0: " ] || changed "busybox ls -A: $all"
    [ "$found" = "0: $WORK/dir" ] || changed "busybox find: $found"
    [ "$glob" = "0: " ] || changed "a glob of busybox: $glob"
    [ "$dots" = "0: " ] || changed "busybox ls -a: $dots"
    [ "$sound" = ". .. forbidden " ] || changed "without an error busybox ls -a prints $sound"
    case $core in 2:*"Input/output error"*) ;; *) changed "coreutils: $core" ;; esac
    say "as found: an error is an empty directory to busybox"
}

main
