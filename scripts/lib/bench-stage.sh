# shellcheck shell=sh
# What scripts/bench*.sh measure with: artifacts in a registry, a machine for the agent, a file system for its peers. Sourced behind
# lib/cli.sh and lib/bench-run.sh, not run; everything lies in the current directory, below WORK. The caller has ARCH, REPOSITORY and
# SLOT_MIB.

ARTIFACT_TYPE=application/vnd.kubesolo.os.update.v1
KERNEL_TYPE=application/vnd.kubesolo.os.kernel.v1+octet-stream
INITRAMFS_TYPE=application/vnd.kubesolo.os.initramfs.v1+gzip
CHUNKS_TYPE=application/vnd.kubesolo.os.chunks.v1

# noise MIB [SEED]: bytes that do not compress, sooner than /dev/urandom gives them.
noise() { head -c "$1M" /dev/zero | openssl enc -aes-128-ctr -pbkdf2 -nosalt -pass "pass:$1 ${2:-} $$"; }

# programs: some of what an initramfs is made of.
programs() {
    find /usr/bin /usr/sbin -xdev -type f -size +16k -print0 | LC_ALL=C sort -z | xargs -0 cat 2>/dev/null | head -c 64M
}

# packed OPTION...: what comes, as a file in cpio, in gzip with these options.
packed() {
    cat >content
    echo content | cpio --quiet -o -H newc | gzip "$@"
    rm content
}

# members MIB MAKER [COUNT]: an archive of about that size, in new/: one member many times over, which kernels unpack as well, in COUNT
# files. Each begins with a small member of its own: oras fetches files with one digest once.
members() {
    case $2 in
        noise) noise 16 | packed -1n ;;
        programs) [ -e programs.gz ] || programs | packed -6n >programs.gz; cat programs.gz ;;
    esac >member
    bytes=$(wc -c <member)
    count=$((($1 * 1048576 + bytes / 2) / bytes))
    [ "$count" -ge "${3:-1}" ] || count=${3:-1}
    i=0
    while [ "$i" -lt "$count" ]; do
        layer=$((i * ${3:-1} / count))
        [ -e "new/$layer-kubesolo-os.gz" ] || echo "layer $layer" | packed -1n >"new/$layer-kubesolo-os.gz"
        cat member >>"new/$layer-kubesolo-os.gz"
        i=$((i + 1))
    done
    [ "${3:-1}" -gt 1 ] || mv new/0-kubesolo-os.gz new/kubesolo-os.gz
    rm member
}

# artifact TAG KERNEL_MIB INITRAMFS_MIB MAKER [LAYERS]: made by real gzip, pushed by real oras.
artifact() {
    mkdir new
    noise "$2" >new/vmlinuz
    members "$3" "$4" "${5:-1}"
    push "$1"
}

# changed MIB: an initramfs of noise in running/, and in new/ the same, of which 1 MiB is another; with one kernel.
changed() {
    small_files
    mkdir new
    cp running/vmlinuz new/vmlinuz
    noise "$1" changed >old
    packed -1n --rsyncable <old >running/kubesolo-os.gz
    noise 1 other | dd of=old bs=1M seek="$(($1 / 2))" conv=notrunc status=none
    packed -1n --rsyncable <old >new/kubesolo-os.gz
    rm old
}

# push TAG [INDEXER]: new/vmlinuz and new/*kubesolo-os.gz, whose order is that of their names. INDEXER makes an index for each layer.
push() {
    cat new/*kubesolo-os.gz | openssl dgst -sha256 -r | cut -c1-64 >whole
    printf 'sha256:%s vmlinuz\n' "$(openssl dgst -sha256 -r new/vmlinuz | cut -c1-64)" >"$1.files"
    printf 'sha256:%s kubesolo-os.gz\n' "$(cat whole)" >>"$1.files"
    cat new/vmlinuz new/*kubesolo-os.gz | wc -c >"$1.bytes"
    tag=$1
    shift
    set -- "$@" end "vmlinuz:$KERNEL_TYPE"
    for layer in new/*kubesolo-os.gz; do
        set -- "$@" "${layer#new/}:$INITRAMFS_TYPE"
        if [ "$1" != end ]; then
            # shellcheck disable=SC2016 # of the shell that is started
            quietly sh -c '"$1" index "$2" >"$2.chunks"' - "$1" "$layer"
            set -- "$@" "${layer#new/}.chunks:$CHUNKS_TYPE"
        fi
    done
    while [ "$1" != end ]; do shift; done
    shift
    # shellcheck disable=SC2103 # quietly must be able to end the script
    cd new || exit
    quietly limited oras push --plain-http --artifact-platform "linux/$ARCH" --artifact-type "$ARTIFACT_TYPE" \
        -a io.kubesolo.os.version=2.0.0 -a io.kubesolo.os.channel=stable -a "io.kubesolo.os.architecture=$ARCH" \
        -a "io.kubesolo.os.initramfs_digest=sha256:$(cat ../whole)" "$REPOSITORY:$tag" "$@"
    cd ..
    rm -rf new
    limited oras manifest fetch --plain-http "$REPOSITORY:$tag" >"$tag.json"
    jq -r '.layers[] | "\(.digest) \(.annotations["org.opencontainers.image.title"])"' "$tag.json" >"$tag.layers"
}

# artifact_bytes TAG: all that is published; slot_bytes TAG: what of it gets into a slot.
artifact_bytes() { jq '[.layers[].size] | add' "$1.json"; }
slot_bytes() { cat "$1.bytes"; }

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

# small_files: a kernel and an initramfs that nothing of what is published looks like, in running/.
small_files() {
    mkdir running
    noise 1 running >running/vmlinuz
    stand_in running/vmlinuz
    noise 1 running | packed -1n >running/kubesolo-os.gz
}

# make_machine: what the agent sees: booted from slot A of a disk image, which holds what is in running/, as in scripts/demo.sh.
make_machine() {
    quietly "$REPO/scripts/build-image.sh" --no-bootloader --kernel running/vmlinuz --initramfs running/kubesolo-os.gz \
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
    printf 'signature = off\nplain_http = yes\n' >root/etc/kubesolo/update.conf
    attach
    [ -e "${DEVICE}p3" ] || die "${DEVICE}p3 did not appear: is /dev a devtmpfs here?"
}

# make_peer_fs: what the peers write to: a file system like the slot's, on a loop device as well.
make_peer_fs() {
    truncate -s "${SLOT_MIB}M" peer.img
    quietly mke2fs -q -F -t ext4 -b 4096 -m 0 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard peer.img
    mkdir peer
    quietly mount -o loop peer.img peer
    cat >oras.sh <<'SH'
set -eu
timeout --foreground -k 10 "$LIMIT_SECS" oras pull --plain-http -o peer/files "$1" >/dev/null
sync -f peer/files
SH
}

# make_curls: tee.sh and dd.sh: what an installation by hand does.
make_curls() {
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
