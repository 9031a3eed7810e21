#!/bin/sh
# GRUB 2.06 of Debian 12 reads ext4 with metadata_csum_seed and orphan_file, the defaults of Debian 13's mke2fs.
#
# Guessed: "unknown filesystem": upstream's 2.06 refuses the incompatible feature metadata_csum_seed.
# Seen:    2.06-13+deb12u2 lists and reads such a file system (grub-fstest, GRUB's own code).
# Matters: a machine that was installed with Debian 12's GRUB boots a slot that Debian 13's tools made. Another distribution's
#          2.06 may not: the version number alone does not tell.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

begin
unpack_pinned trixie e2fsprogs e2fsprogs=1.47.2 libext2fs2t64=1.47.2 libcom-err2=1.47.2 libss2=1.47.2 libblkid1=2.41 libuuid1=2.41 libc6=2.41
unpack_pinned bookworm grub grub-common=2.06-13 libdevmapper1.02.1=2:1.02.185 liblzma5=5.4 libselinux1=3.4 libudev1=252 libpcre2-8-0=10.42 libc6=2.36 libfuse3-3=3.14
mkdir "$WORK/tree"
echo "slot A" >"$WORK/tree/version"
truncate -s 32M "$WORK/image"
MKE2FS_CONFIG=$WORK/e2fsprogs/etc/mke2fs.conf beside e2fsprogs usr/sbin/mke2fs -q -F -t ext4 -d "$WORK/tree" "$WORK/image"
say "features: $(features "$WORK/image")"
case $(features "$WORK/image") in *orphan_file*metadata_csum_seed*) ;; *) cannot "mke2fs made neither feature" ;; esac
beside grub usr/bin/grub-fstest "$WORK/image" cat '(loop0)/version' >"$WORK/said" 2>&1 || true
say "GRUB 2.06 reads: $(cat "$WORK/said")"
[ "$(cat "$WORK/said")" = "slot A" ] || changed "GRUB 2.06 does not read it"
say "as found: it is read"
