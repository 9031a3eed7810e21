#!/bin/sh
# From GRUB 2.14 on, Debian's grub-common holds no program: grub2-common has them.
#
# Guessed: grub-mkimage, grub-editenv and grub-fstest are in grub-common, as in 2.06 and 2.12.
# Seen:    grub-common 2.14 holds no file below usr/bin; apt would bring grub2-common by dependency, dpkg -x does not.
# Matters: who unpacks packages (image builders, initramfs tools, CI without root) finds no grub-editenv, and no error either.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

programs() { find "$WORK/$1/usr/bin" "$WORK/$1/usr/sbin" -type f 2>/dev/null | wc -l; }

begin
unpack_pinned trixie old grub-common=2.12
unpack_pinned forky new-common grub-common=2.14
unpack_pinned forky new-tools grub2-common=2.14
say "programs: grub-common 2.12 $(programs old), grub-common 2.14 $(programs new-common), grub2-common 2.14 $(programs new-tools)"
[ "$(programs old)" -gt 5 ] || changed "grub-common 2.12 has no programs"
[ "$(programs new-common)" -eq 0 ] || changed "grub-common 2.14 has programs again"
[ -x "$WORK/new-tools/usr/bin/grub-mkimage" ] || changed "grub2-common 2.14 has no grub-mkimage"
say "as found: the programs have moved"
