#!/bin/sh
# An update from end to end, on this machine and without a network: real agent, real disk image.
#
# The machine is a directory given as --root, so that nothing of the real one counts: neither its
# disks nor its boot loader. The EFI partition stays in the image and its two files are copied out,
# since many kernels cannot mount FAT.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
# What it says is what it shows.
SAY_TO=1

BINARY=
CHECK=no
KEEP=no
PACE=no
SCENE=update
DEVICE=

usage() {
    cat <<USAGE
Usage: scripts/demo.sh [--binary FILE] [--scene update|rollback] [--pace] [--check] [--keep]

Shows an update of KubeSolo OS: makes a disk image with version 1.0.0, publishes 1.1.0 and 1.2.0,
and lets kubesolo-update check, apply and activate. Needs root, for a loop device. Works in a
temporary directory, and leaves nothing behind.

  --binary FILE   the agent (default: dist/kubesolo-update-ARCH, from make build); a released one will do
  --check         only see whether this machine, and FILE if it is given, can show it; before anything is installed
  --scene SCENE   update (default), or rollback: a version that never gets healthy, and what is left of it. The three
                  boots are done by hand, with GRUB's own tool
  --pace          leave a person time to read (scripts/record.sh records that)
  --keep          keep the temporary directory
  -h, --help      this text
USAGE
}

clean_up() {
    cd /
    if [ -n "$DEVICE" ]; then
        partx -d "$DEVICE" 2>/dev/null || true
        losetup -d "$DEVICE" || true
    fi
    if [ "$KEEP" = yes ] && [ -n "$WORK" ]; then
        say "kept $WORK"
        WORK=
    fi
}

title() { printf '\n== %s\n' "$1"; }
tell() { printf '%s\n' "$@"; }

# pace: until what stands there is read.
pace() { if [ "$PACE" = yes ]; then sleep 2; fi; }

# run COMMAND...: shows a command and runs exactly that.
run() {
    printf '\n$ %s\n' "$*"
    "$@"
    pace
}

# refused CODE COMMAND...: shows a command that must end with this exit code, and does.
refused() {
    want=$1
    shift
    printf '\n$ %s\n' "$*"
    code=0
    "$@" 2>&1 || code=$?
    [ "$code" -eq "$want" ] || die "exit code $code instead of $want: $*"
    pace
}

# shellcheck source=scripts/lib/demo-stage.sh
. "$REPO/scripts/lib/demo-stage.sh"

# in_user_namespace: whether the ids in here are others outside.
in_user_namespace() {
    map=$(awk '{ print $1, $2, $3 }' /proc/self/uid_map 2>/dev/null) && [ -n "$map" ] && [ "$map" != '0 0 4294967295' ]
}

# check_machine: what no installation mends.
check_machine() {
    if [ "$(uname -s)" != Linux ]; then
        die "this is $(uname -s), and the disk of the demonstration needs Linux: docs/platforms.md has the line that starts a container"
    fi
    case $(uname -m) in
        x86_64) ARCH=amd64 ELF_MACHINE=3e00 ;;
        aarch64) ARCH=arm64 ELF_MACHINE=b700 ;;
        *) die "neither amd64 nor arm64: $(uname -m)" ;;
    esac
    [ -e /dev/loop-control ] ||
        die "no /dev/loop-control: this kernel or container has no loop devices (modprobe loop; a privileged container)"
    if [ "$(id -u)" -eq 0 ] && in_user_namespace; then
        die "root in here is not root of the machine, to whom loop devices belong (a rootless container): docs/platforms.md has the line that works"
    fi
    if [ "$CHECK" = yes ] && [ "$(id -u)" -ne 0 ]; then
        say "not root: what is missing, and the last step, will need sudo; the command to type is said then"
    fi
}

# bytes OFFSET COUNT: of the agent, in hex.
bytes() { od -An -v -tx1 -j "$1" -N "$2" "$BINARY" | tr -d ' \n'; }

# check_binary: a program of this machine's architecture that says which agent it is.
check_binary() {
    [ -e "$BINARY" ] || die "$BINARY is missing: make build makes dist/kubesolo-update-$ARCH; a release has it as well"
    [ -f "$BINARY" ] || die "$BINARY is not a regular file"
    [ "$(bytes 0 4)" = 7f454c46 ] || die "$BINARY is no Linux program (no ELF file): unpack it first, if it is packed"
    [ "$(bytes 18 2)" = "$ELF_MACHINE" ] || die "$BINARY is for another architecture than this machine's, $ARCH"
    [ -x "$BINARY" ] || die "$BINARY may not be run: chmod +x $BINARY"
    BINARY=$(CDPATH='' cd -- "$(dirname -- "$BINARY")" && pwd)/$(basename -- "$BINARY")
    said=$(timeout 20 "$BINARY" --version 2>&1) || die "$BINARY --version fails (a damaged or incomplete download? compare its checksum): $said"
    case $said in
        'kubesolo-update '*) ;;
        *) die "$BINARY is not the agent: --version says '$(printf '%s\n' "$said" | head -n 1)'" ;;
    esac
}

machine() {
    check_machine
    [ -n "$BINARY" ] || BINARY=$REPO/dist/kubesolo-update-$ARCH
    check_binary
    # The scripts that make the stage ask an agent what machines take: this one.
    export KUBESOLO_UPDATE="$BINARY"
    need_tools "scripts/install-deps.sh demo brings it" losetup partx blockdev sgdisk mcopy grub-editenv gzip cpio jq \
        sha256sum openssl
    if [ "$(id -u)" -ne 0 ]; then
        # Not `sudo make`: it would build again, without the user's own Rust.
        die "attaching a disk image needs root. Everything else is ready; type: sudo $0 --binary $BINARY"
    fi
}

# Past every cache: what was read before must not stand in for what is on disk now.
slot_a() {
    blockdev --flushbufs "${DEVICE}p2"
    sha256sum "${DEVICE}p2"
}

intro() {
    tell 'An update of KubeSolo OS, from end to end, with nothing but this machine.' '' \
        'KubeSolo OS is kept twice on disk, in slots A and B. An update goes into the' \
        'slot that is not running; GRUB tries it, and goes back if it does not work.' '' \
        'Made for this, and removed at the end:' \
        "  disk.img            a disk, attached as $DEVICE: EFI partition, data, and" \
        '                      slots A and B, both with version 1.0.0' \
        "  $ROOT/            stands for / of a machine that booted from slot A" \
        "  $ROOT/media/usb/  an OCI image layout, as on a USB stick, with two versions:" \
        '                      1.1.0 and 1.2.0; the tag "latest" has moved to 1.2.0' \
        'Kernels and initramfs are stand-ins of random bytes: nothing here boots. So' \
        'boot_canary=1, with which GRUB proves at the first boot that it can count' \
        "boots, was set by hand. --root $ROOT makes that directory the machine; a real" \
        'one needs no such flag. It trusts one key, publisher.pub, in' \
        '/etc/kubesolo/update-keys.d/release.pub. Its /etc/kubesolo/update.conf:'
    sed 's/^/    /' "$ROOT/etc/kubesolo/update.conf"
}

steps() {
    before=$(slot_a)
    title '1. What there is: both slots whole; slot A runs, and is confirmed.'
    run kubesolo-update status --root "$ROOT"
    title '2. The publisher has not signed 1.2.0 yet: nobody takes it (exit code 5).'
    refused 5 kubesolo-update check --root "$ROOT"
    tell '' 'So the publisher signs it:' \
        "  scripts/sign.sh --key publisher.key --layout $ROOT/media/usb:latest"
    quietly "$REPO/scripts/sign.sh" --key publisher.key --layout "$ROOT/media/usb:latest"
    title '3. Ask for an update. This changes nothing, so cron may do it at any time.'
    run kubesolo-update check --root "$ROOT"
    title '4. Take it: each byte is written to slot B, read back from disk, and hashed.'
    run kubesolo-update apply --root "$ROOT"
    tell '' 'Staged is not active: if the power failed now, 1.0.0 would start as always.'
    run kubesolo-update status --root "$ROOT"
    title '5. Let GRUB try it. Slot B is read once more, then one small file is written.'
    run kubesolo-update activate --root "$ROOT"
    run kubesolo-update status --root "$ROOT"
    tell '' "The same, as GRUB's own tool reads it:"
    run grub-editenv "$GRUBENV" list
    title '6. The running slot is untouched: SHA-256 of its partition, before and now.'
    printf '%s\n' "$before"
    after=$(slot_a)
    printf '%s\n' "$after"
    [ "$before" = "$after" ] || die "slot A changed"
}

# boots VARIABLE=VALUE...: what GRUB writes, into both copies, and a boot that has another id.
boots() {
    run grub-editenv "$GRUBENV" set "$@"
    quietly grub-editenv "$GRUBENV.bak" set "$@"
    cat /proc/sys/kernel/random/uuid >"$ROOT/proc/sys/kernel/random/boot_id"
}

# rollback_steps: 1.2.0 starts three times and never gets healthy.
rollback_steps() {
    quietly "$REPO/scripts/sign.sh" --key publisher.key --layout "$ROOT/media/usb:latest"
    title '1. Version 1.2.0 is taken and activated; slot A, with 1.0.0, stays as it is.'
    run kubesolo-update apply --activate --root "$ROOT"
    title '2. It hangs, three times. GRUB counts each boot before it starts one.'
    boots boot_counter=2
    boots boot_counter=1
    boots boot_counter=0
    title '3. The counter is used up: at the next boot GRUB makes slot A active again.'
    boots active_slot=A boot_success=1 rollback_from=B
    title '4. 1.0.0 runs. What happened is recorded, by the first command that changes anything.'
    refused 4 kubesolo-update apply --root "$ROOT"
    run kubesolo-update status --root "$ROOT"
}

outro() {
    title 'What a real machine does next'
    tell 'It restarts. GRUB takes one from boot_counter and starts slot B. Once the node' \
        'is healthy, "kubesolo-update healthcheck" confirms it: boot_success=1.' \
        'If it crashes, hangs or stays unhealthy three times, the counter is used up:' \
        'GRUB makes slot A active again, and the agent will not take 1.2.0 a second time.'
}

main() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --binary)
                need_value "$@"
                [ -n "$2" ] || die "the name of the agent is empty (BINARY=, or --binary '')"
                BINARY=$2
                shift
                ;;
            --scene)
                case ${2:-} in update | rollback) ;; *) misuse "--scene must be update or rollback, not '${2:-}'" ;; esac
                SCENE=$2
                shift
                ;;
            --pace) PACE=yes ;;
            --check) CHECK=yes ;;
            --keep) KEEP=yes ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    PATH=$REPO/.tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
    export PATH
    umask 022
    if [ "$CHECK" = yes ]; then
        check_machine
        if [ -n "$BINARY" ]; then check_binary; fi
        exit 0
    fi
    machine
    prepare
    if [ "$SCENE" = rollback ]; then
        rollback_steps
        return
    fi
    intro
    pace
    steps
    outro
}

main "$@"
