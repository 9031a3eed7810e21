#!/bin/sh
# GRUB's `hashsum --check` reads what `sha256sum` writes, but not what `sha256sum --binary` or `--tag` writes of the same file.
#
# Guessed: all three, as coreutils itself: the star in front of the name has been in such lists as long as they exist.
# Seen:    "invalid hash list" for a star, for one blank in place of two, and for the form with the hash's name. GRUB
#          2.06-13+deb12u2, started in QEMU.
# Matters: a list that a build machine makes has to have two blanks; one with a star would take every slot for damaged. Ours is
#          written by the agent in the one form, and held against real GRUB.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

begin
command -v qemu-system-x86_64 >/dev/null || cannot "no qemu-system-x86_64"
unpack_pinned bookworm grub grub-common=2.06-13 grub-pc-bin=2.06-13 libdevmapper1.02.1=2:1.02.185 liblzma5=5.4 libselinux1=3.4 \
    libudev1=252 libpcre2-8-0=10.42 libc6=2.36
mkdir "$WORK/disk"
cd "$WORK/disk"
echo hello >kernel
sha256sum --text kernel >text
sha256sum --binary kernel >binary
sha256sum --tag kernel >tag
sed 's/  / /' text >blank
cat text binary tag blank
for list in binary tag; do sha256sum --check --status "$list" || cannot "sha256sum does not take its own list $list"; done
cat >grub.cfg <<'END'
serial --unit=0
terminal_output serial
for list in text binary tag blank; do
    if hashsum --hash sha256 --check (memdisk)/$list --prefix (memdisk); then echo "SAID $list read"; else echo "SAID $list refused"; fi
done
halt
END
tar -cf "$WORK/disk.tar" .
echo 'normal (memdisk)/grub.cfg' >"$WORK/early.cfg"
modules=$WORK/grub/usr/lib/grub/i386-pc
beside grub usr/bin/grub-mkimage -d "$modules" -O i386-pc -m "$WORK/disk.tar" -c "$WORK/early.cfg" -p '(memdisk)/' -o "$WORK/core.img" \
    memdisk tar normal test echo serial terminal halt hashsum gcry_sha256
cat "$modules/lnxboot.img" "$WORK/core.img" >"$WORK/kernel"
timeout 120 qemu-system-x86_64 -kernel "$WORK/kernel" -display none -serial stdio -monitor none -no-reboot </dev/null \
    >"$WORK/said" 2>&1 || cannot "GRUB did not end: $(tail -n 3 "$WORK/said")"
tr -d '\r' <"$WORK/said" | sed -n 's/^.*SAID /GRUB: /p; s/^.*\(error: .*\)/GRUB: \1/p'
for want in "text read" "binary refused" "tag refused" "blank refused"; do
    grep -q "SAID $want" "$WORK/said" || changed "not: $want"
done
say "as found: two blanks and nothing else"
