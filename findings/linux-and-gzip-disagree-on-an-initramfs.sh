#!/bin/sh
# `gzip -t` says of an initramfs the opposite of what Linux does with it, both ways.
#
# Guessed: what gzip refuses, the kernel does not unpack; what gzip takes, it does: both read RFC 1952, and the kernel says "crc error"
#          in its sources.
# Seen:    a wrong checksum in the trailer: `gzip -t` ends with 1, the kernel unpacks all of it and boots. A comment in the header
#          of an archive behind the first one (as `pigz -C TEXT` writes it): `gzip -t` ends with 0, the kernel says "uncompression
#          error" and goes on without what is in it. Linux 6.1 of Debian 12 under QEMU.
# Matters: who publishes an initramfs cannot ask gzip whether machines will boot it.
set -eu
# shellcheck source=findings/lib/debian.sh
. "$(dirname -- "$0")/lib/debian.sh"

# pack DIR: as kernels want it.
pack() { (cd "$1" && find . | LC_ALL=C sort | cpio -o -H newc -R +0:+0 --quiet | gzip -9n); }

# boot FILE: what its /init and the kernel say.
boot() {
    timeout 300 qemu-system-x86_64 -M q35 -m 512 -nographic -no-reboot -nic none -kernel "$KERNEL" -initrd "$1" \
        -append 'console=ttyS0 panic=-1' </dev/null 2>&1 | tr -d '\r' | grep -aE 'SEEN|ncompression error' || :
}

# word FILE: what gzip says of it.
word() { if gzip -t <"$1" 2>/dev/null; then echo taken; else echo refused; fi; }

main() {
    for tool in qemu-system-x86_64 cpio gzip python3; do
        command -v "$tool" >/dev/null || cannot "$tool is missing"
    done
    begin
    unpack_pinned bookworm vm linux-image-cloud-amd64=6.1 busybox-static=1:1.35
    name=$(apt-cache -c "$root/apt.conf" depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: *\(linux-image-6\.1[^ ]*\)$/\1/p')
    unpack_pinned bookworm vm "$name=6.1"
    for KERNEL in "$WORK"/vm/boot/vmlinuz-*; do :; done
    mkdir -p "$WORK/first/bin" "$WORK/second"
    cp "$WORK/vm/bin/busybox" "$WORK/first/bin/busybox"
    cat >"$WORK/first/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox echo "SEEN: init, second archive $(if [ -e /second ]; then echo there; else echo missing; fi)"
/bin/busybox reboot -f
INIT
    chmod 755 "$WORK/first/init"
    echo second >"$WORK/second/second"
    pack "$WORK/first" >"$WORK/first.gz"
    pack "$WORK/second" >"$WORK/second.gz"
    # The last eight bytes of a member: CRC-32, length. The fourth byte of its header: which fields follow (16: a comment).
    python3 - "$WORK" <<'PY'
import sys
work = sys.argv[1]
first, second = (open(f"{work}/{name}.gz", "rb").read() for name in ("first", "second"))
open(f"{work}/whole", "wb").write(first + second)
open(f"{work}/checksum", "wb").write(first[:-8] + bytes([first[-8] ^ 1]) + first[-7:] + second)
open(f"{work}/comment", "wb").write(first + second[:3] + bytes([16]) + second[4:10] + b"text\0" + second[10:])
PY
    for what in whole checksum comment; do
        seen=$(boot "$WORK/$what")
        say "$what: gzip: $(word "$WORK/$what"); Linux: $(printf '%s' "$seen" | tr '\n' ';')"
        case $what:$(word "$WORK/$what"):$seen in
            whole:taken:*"archive there"* | checksum:refused:*"archive there"*) ;;
            comment:taken:*"ncompression error"*"archive missing"*) ;;
            *) changed "$what is another matter now" ;;
        esac
    done
    say "as found: the one takes what the other refuses, both ways"
}

main
