#!/bin/sh
# mke2fs of e2fsprogs 1.47.2 (Debian 13), run from an unpacked package, makes the file systems of the machine it runs on.
#
# Guessed: 1.47 makes orphan_file and metadata_csum_seed by default, wherever it runs: its release notes name both.
# Seen:    the defaults are in /etc/mke2fs.conf. That of Debian 12 takes both away; the package's own brings them back.
# Matters: an image is not described by the version of mke2fs alone. Who pins tools for reproducible images has to pin that
#          file too (MKE2FS_CONFIG), or name the features (-O).
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

begin
unpack_pinned trixie e2fsprogs e2fsprogs=1.47.2 libext2fs2t64=1.47.2 libcom-err2=1.47.2 libss2=1.47.2 libblkid1=2.41 libuuid1=2.41 libc6=2.41
unpack_pinned bookworm bookworm e2fsprogs=1.47.0
for suite in bookworm e2fsprogs; do
    truncate -s 32M "$WORK/image"
    MKE2FS_CONFIG=$WORK/$suite/etc/mke2fs.conf beside e2fsprogs usr/sbin/mke2fs -q -F -t ext4 "$WORK/image"
    say "1.47.2 with mke2fs.conf of $suite: $(features "$WORK/image")"
    new=no
    case $(features "$WORK/image") in *orphan_file*metadata_csum_seed*) new=yes ;; esac
    case $suite$new in bookwormno | e2fsprogsyes) ;; *) changed "the features do not depend on the file any more" ;; esac
    rm "$WORK/image"
done
say "as found: the file decides, not the program"
