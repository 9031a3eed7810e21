# shellcheck shell=sh
# rauc and swupdate, as scripts/bench-plot.sh runs them: without a system of theirs, each writes the payload as one image into a file.
# Sourced behind lib/bench-stage.sh, not run; everything lies in the current directory, below WORK.
#
# Both check a signature and a digest, and fetch from the same registry as the rest, which gives any file by its digest. rauc needs a
# service on a bus: it gets a bus of its own.

# make_peer_keys: once.
make_peer_keys() {
    quietly openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=bench -days 30
    cat >rauc.sh <<'SH'
set -eu
# The service is what works: its time and memory are in the file time.service.
export DBUS_SYSTEM_BUS_ADDRESS="$DBUS_SESSION_BUS_ADDRESS"
/usr/bin/time -f '%e %U %S %M' -o time.service rauc --conf system.conf --override-boot-slot=A --mount="$PWD/mount" service &
for _ in $(seq 300); do
    if rauc status >/dev/null 2>&1; then break; fi
    sleep 0.1
done
from=$(date +%s%N)
timeout --foreground -k 10 "$LIMIT_SECS" rauc install "$1"
sync -f peer
to=$(date +%s%N)
service=$(pgrep -P $! -x rauc)
kill "$service"
wait $! || true
# In front of what the service took stands "Command terminated".
tail -n 1 time.service | awk -v from="$from" -v to="$to" '{ printf "%.2f %s %s %s\n", (to - from) / 1e9, $2, $3, $4 }' >time.rauc
SH
    cat >swupdate.sh <<'SH'
set -eu
timeout --foreground -k 10 "$LIMIT_SECS" swupdate -H bench:1.0 -k cert.pem -d "-u $1" >swupdate.log
sync -f peer
SH
}

# blob FILE: puts it into the registry; prints its address.
blob() {
    quietly limited oras blob push --plain-http "$REPOSITORY" "$1"
    echo "$BLOBS/sha256:$(openssl dgst -sha256 -r "$1" | cut -c1-64)"
}

# rauc_bundle: image.img as a bundle; sets RAUC_URL.
rauc_bundle() {
    cat >system.conf <<CONF
[system]
compatible=bench
bootloader=noop
bundle-formats=plain
max-bundle-download-size=4294967296
statusfile=$PWD/rauc.status

[keyring]
path=$PWD/cert.pem

[slot.rootfs.0]
device=$PWD/peer/slot-a
type=raw
bootname=A

[slot.rootfs.1]
device=$PWD/peer/slot-b
type=raw
bootname=B
CONF
    rm -rf bundle mount bundle.raucb
    mkdir bundle mount
    ln image.img bundle/image.img
    printf '[update]\ncompatible=bench\nversion=1\n\n[bundle]\nformat=plain\n\n[image.rootfs]\nfilename=image.img\n' \
        >bundle/manifest.raucm
    quietly rauc --cert cert.pem --key key.pem --keyring cert.pem bundle bundle bundle.raucb
    RAUC_URL=$(blob bundle.raucb)
    rm -rf bundle bundle.raucb
}

# swupdate_file: the same for swupdate; sets SWU_URL.
swupdate_file() {
    cat >sw-description <<CONF
software = { version = "1.0"; hardware-compatibility: [ "1.0" ]; images: (
    { filename = "image.img"; device = "$PWD/peer/slot-b"; type = "raw"; sha256 = "$(openssl dgst -sha256 -r image.img | cut -c1-64)"; } ); }
CONF
    quietly openssl cms -sign -in sw-description -out sw-description.sig -signer cert.pem -inkey key.pem -outform DER \
        -nosmimecap -binary
    printf '%s\n' sw-description sw-description.sig image.img | cpio --quiet -o -H crc >image.swu
    SWU_URL=$(blob image.swu)
    rm image.swu
}

# slot_file: what they write to, empty.
slot_file() {
    rm -rf peer/*
    truncate -s "$SLOT_MIB"M peer/slot-a peer/slot-b
    sync -f peer
}

# holds_image NAME
holds_image() { cmp -s -n "$(wc -c <image.img)" image.img peer/slot-b || die "$1: slot B is not the image"; }

rauc_once() {
    slot_file
    limited dbus-run-session -- sh rauc.sh "$RAUC_URL" >log 2>&1 || { cat log >&2; die "rauc failed"; }
    cat time.rauc >>rauc.times
    holds_image rauc
}

swupdate_once() {
    slot_file
    # It makes files there by the names of what it installs, and removes them.
    rm -rf temporary
    mkdir temporary
    TMPDIR=$PWD/temporary timed swupdate sh swupdate.sh "$SWU_URL"
    holds_image swupdate
}
