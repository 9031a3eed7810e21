# shellcheck shell=sh
# What scripts/bench.sh measures with: artifacts in a registry, a machine for the agent, a file system for its peers. Sourced behind
# lib/cli.sh, not run; everything lies in the current directory, which is WORK. The caller has limited, ARCH, REPOSITORY, SLOT_MIB and the
# types of files.

# noise MIB: bytes that do not compress, sooner than /dev/urandom gives them.
noise() { head -c "$1M" /dev/zero | openssl enc -aes-128-ctr -pbkdf2 -nosalt -pass "pass:$1 $$"; }

# programs: some of what an initramfs is made of.
programs() {
    find /usr/bin /usr/sbin -xdev -type f -size +16k -print0 | LC_ALL=C sort -z | xargs -0 cat 2>/dev/null | head -c 64M
}

# packed LEVEL: what comes, as a file in cpio, in gzip.
packed() {
    cat >content
    echo content | cpio --quiet -o -H newc | gzip "$1"
    rm content
}

# initramfs MIB MAKER: one of about that size; one member many times over, which kernels unpack as well.
initramfs() {
    case $2 in
        noise) noise 16 | packed -1n ;;
        programs) programs | packed -6n ;;
    esac >member
    bytes=$(wc -c <member)
    count=$((($1 * 1048576 + bytes / 2) / bytes))
    while [ "$count" -gt 0 ]; do
        cat member
        count=$((count - 1))
    done
}

# artifact TAG KERNEL_MIB INITRAMFS_MIB MAKER: made by real gzip, pushed by real oras.
artifact() {
    mkdir new
    noise "$2" >new/vmlinuz
    initramfs "$3" "$4" >new/kubesolo-os.gz
    cd new
    quietly limited oras push --plain-http --artifact-platform "linux/$ARCH" --artifact-type "$ARTIFACT_TYPE" \
        -a io.kubesolo.os.version=2.0.0 -a io.kubesolo.os.channel=stable -a "io.kubesolo.os.architecture=$ARCH" \
        "$REPOSITORY:$1" "vmlinuz:$KERNEL_TYPE" "kubesolo-os.gz:$INITRAMFS_TYPE"
    cd ..
    rm -rf new member
    limited oras manifest fetch --plain-http "$REPOSITORY:$1" >"$1.json"
    jq -r '.layers[] | "\(.digest) \(.annotations["org.opencontainers.image.title"])"' "$1.json" >"$1.layers"
}

artifact_bytes() { jq '[.layers[].size] | add' "$1.json"; }

# attach: disk.img with its partitions. Another process may take the device that was just found free, or have left a
# partition on it that is in use yet.
attach() {
    for _ in $(seq 10); do
        DEVICE=$(losetup --find --show disk.img 2>log) || { sleep 1; continue; }
        if partx -a "$DEVICE" 2>log; then return; fi
        partx -d "$DEVICE" 2>/dev/null || true
        if partx -a "$DEVICE" 2>log; then return; fi
        losetup -d "$DEVICE"
        DEVICE=
        sleep 1
    done
    cat log >&2
    die "no loop device takes disk.img and its partitions: losetup -l says who has them"
}

# shellcheck source=scripts/lib/stand-in.sh
. "$REPO/scripts/lib/stand-in.sh"

# The machine that the agent sees: booted from slot A of a disk image, as in scripts/demo.sh.
make_machine() {
    mkdir small
    noise 1 >small/vmlinuz
    stand_in small/vmlinuz
    noise 1 | packed -1n >small/kubesolo-os.gz
    quietly "$REPO/scripts/build-image.sh" --no-bootloader --kernel small/vmlinuz --initramfs small/kubesolo-os.gz \
        --version 1.0.0 --arch "$ARCH" --slot-size "$SLOT_MIB" --data-size 16 --output disk.img
    guid=$(sgdisk -i 2 disk.img | sed -n 's/^Partition unique GUID: //p' | tr 'A-F' 'a-f')
    start=$(sgdisk -i 1 disk.img | sed -n 's/^First sector: \([0-9]*\).*/\1/p')
    mkdir -p root/proc/sys/kernel/random root/boot/efi/boot/grub root/var/lib/kubesolo root/etc/kubesolo root/run
    printf 'kubesolo.slot=A kubesolo.part=%s\n' "$guid" >root/proc/cmdline
    cp /proc/sys/kernel/random/boot_id root/proc/sys/kernel/random/boot_id
    ln -s /sys /dev root/
    for name in grubenv grubenv.bak; do
        quietly mcopy -i "disk.img@@$((start * 512))" "::/boot/grub/$name" "root/boot/efi/boot/grub/$name"
        grub-editenv "root/boot/efi/boot/grub/$name" set boot_canary=1
    done
    printf 'signature = off\n' >root/etc/kubesolo/update.conf
    attach
    [ -e "${DEVICE}p3" ] || die "${DEVICE}p3 did not appear: is /dev a devtmpfs here?"
}

# What the peers write to: a file system like the slot's, on a loop device as well.
make_peers() {
    truncate -s "${SLOT_MIB}M" peer.img
    quietly mke2fs -q -F -t ext4 -b 4096 -m 0 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard peer.img
    mkdir peer
    quietly mount -o loop peer.img peer
    cat >oras.sh <<'SH'
set -eu
timeout --foreground -k 10 "$LIMIT_SECS" oras pull --plain-http -o peer/files "$1" >/dev/null
sync -f peer/files
SH
    # One pass: every byte hashed and written while it arrives.
    cat >tee.sh <<'SH'
set -eu
while read -r digest name; do
    # Opened by openssl, not by this shell: who would write to it may not have started.
    timeout --foreground "$LIMIT_SECS" openssl dgst -sha256 -r fifo >sum &
    curl -fsS --max-time "$LIMIT_SECS" "$1/$digest" | tee fifo |
        dd of="peer/files/$name" bs=1M iflag=fullblock conv=fsync status=none
    wait
    [ "$(cut -c1-64 sum)" = "${digest#sha256:}" ]
done <"$2"
SH
    # The same without tee, which copies in small pieces: hashed on arrival, then written from a file.
    cat >dd.sh <<'SH'
set -eu
while read -r digest name; do
    curl -fsS --max-time "$LIMIT_SECS" "$1/$digest" | openssl dgst -sha256 -r >sum
    [ "$(cut -c1-64 sum)" = "${digest#sha256:}" ]
    hex=${digest#sha256:}
    dd if="registry/docker/registry/v2/blobs/sha256/$(echo "$hex" | cut -c1-2)/$hex/data" of="peer/files/$name" \
        bs=1M conv=fsync status=none
done <"$2"
SH
    mkfifo fifo
}
