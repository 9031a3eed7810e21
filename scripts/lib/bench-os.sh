# shellcheck shell=sh
# The stand-in for an initramfs with Kubernetes, and two changes of it, as gzip'd archives. Sourced behind lib/cli.sh, not run. The
# caller has REPO, BINARY and OTHER.
#
#   agent     only the agent is another: of the same sources, compiled in other units, so that hardly a function of it stands where
#             it stood, which is about as much as a release changes
#   rebuild   containerd's programs are those of another security update: 100 of 150 MB
#
# The programs are Debian's, of the architecture that scripts/deps.tsv says, wherever this runs: nothing of it is started.

TOOLS=$REPO/.tools
# What an archive says of the time of its files.
EPOCH=1700000000

# stand_in_os DIR [agent|rebuild]: its files.
stand_in_os() {
    mkdir -p "$1/usr/bin" "$1/usr/sbin"
    cp "$TOOLS"/bench-old/bin/busybox "$TOOLS"/bench-old/usr/bin/kubectl "$1/usr/bin"
    cp "$TOOLS"/bench-old/usr/sbin/runc "$1/usr/sbin"
    case ${2-} in
        rebuild) from=$TOOLS/bench-new ;;
        *) from=$TOOLS/bench-old ;;
    esac
    cp "$from"/usr/bin/containerd* "$from/usr/bin/ctr" "$1/usr/bin"
    case ${2-} in
        agent) cp "$OTHER" "$1/usr/bin/kubesolo-update" ;;
        *) cp "$BINARY" "$1/usr/bin/kubesolo-update" ;;
    esac
}

# small_os DIR [CHANGE]: the same with a fraction of the bytes, for a trial.
small_os() {
    stand_in_os "$@"
    rm "$1/usr/bin/kubectl" "$1/usr/bin/containerd" "$1/usr/bin/ctr"
}

# archive DIR: sorted, with fixed times and owners.
archive() {
    (
        cd "$1" || exit
        find . -exec touch -h -d "@$EPOCH" {} +
        find . -print | LC_ALL=C sort | cpio --quiet --reproducible -R 0:0 -o -H newc
    )
}

# os_file CHANGE MAKER: CHANGE.cpio and CHANGE.gz, of old, agent or rebuild.
os_file() {
    "$2" tree "$1"
    archive tree >"$1.cpio"
    rm -rf tree
    gzip -9n --rsyncable <"$1.cpio" >"$1.gz"
}

# casync_bytes CHANGE COMPRESSION: what casync lacks of CHANGE.cpio, where old.cpio is there: its new chunks and the index.
casync_bytes() {
    rm -rf store.castr
    quietly casync --compression="$2" --store=store.castr make old.caibx old.cpio
    find store.castr -type f | LC_ALL=C sort >chunks.before
    quietly casync --compression="$2" --store=store.castr make new.caibx "$1.cpio"
    { find store.castr -type f | LC_ALL=C sort | comm -13 chunks.before - | xargs -r cat; cat new.caibx; } | wc -c
    rm -rf store.castr
}
