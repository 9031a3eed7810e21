# shellcheck shell=sh
# Files of the agent's release: the source archive with the crates of vendor/, the container image, the disk image. Sourced by
# scripts/release.sh behind lib/cli.sh, not run; the caller has REPO, DIST, STD, VERSION, TREE, SOURCE_DATE_EPOCH, and STAGE, where they go.
#
# Must never: let a file into the archive that its crate has not.

# --- vendor/

# check_crate DIR: every file as its crate's list has it, and no other.
check_crate() {
    jq -r '.files | to_entries[] | "\(.value)  \(.key)"' "$1/.cargo-checksum.json" >"$WORK/crate" ||
        die "$1 has no list of its files: scripts/vendor.sh fills vendor/ anew"
    (cd "$1" && sha256sum -c --quiet --strict "$WORK/crate") >&2 ||
        die "$1 is not what its crate has: scripts/vendor.sh fills vendor/ anew"
    [ "$(find "$1" ! -type d | wc -l)" -eq $(($(wc -l <"$WORK/crate") + 1)) ] ||
        die "$1 holds files that its crate has not: scripts/vendor.sh fills vendor/ anew"
}

# fill_vendor: the crates of both Cargo.locks, this one and the standard library's, by their checksums, and no others.
fill_vendor() {
    "$REPO/scripts/build.sh" --check-vendor || "$REPO/scripts/vendor.sh" 2>"$WORK/log" ||
        { tail -n 5 "$WORK/log" >&2; die "vendor/ could not be filled"; }
    cat "$REPO/Cargo.lock" "$STD/Cargo.lock" |
        awk -F '"' '/^name = / { n = $2 } /^version = / { v = $2 } /^checksum = / { print n "-" v "\t" $2 }' |
        sort -u >"$WORK/locked"
    for crate in "$REPO"/vendor/*/; do
        check_crate "${crate%/}"
        printf '%s\t%s\n' "$(basename -- "$crate")" "$(jq -r .package "$crate/.cargo-checksum.json")"
    done >"$WORK/unsorted"
    sort "$WORK/unsorted" >"$WORK/vendored"
    if ! cmp -s "$WORK/locked" "$WORK/vendored"; then
        diff "$WORK/locked" "$WORK/vendored" >&2 || true
        die "vendor/ (>) does not hold the crates that are locked (<): scripts/vendor.sh fills it anew"
    fi
}

# --- the parts

# repeatable ARGUMENT...: GNU tar, with nothing of this machine in what it writes.
repeatable() {
    tar --sort=name --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
        --owner=0 --group=0 --numeric-owner --mode='u=rwX,go=rX' --mtime="@$SOURCE_DATE_EPOCH" "$@"
}

make_source() {
    name=kubesolo-update-$VERSION
    mkdir "$WORK/source"
    git -C "$REPO" archive --format=tar -o "$WORK/head.tar" --prefix="$name/" "$TREE"
    tar -C "$WORK/source" -xf "$WORK/head.tar"
    printf '%s\n' "$SOURCE_DATE_EPOCH" >"$WORK/source/$name/SOURCE_DATE_EPOCH"
    # So that a plain cargo build works there, too.
    "$REPO/scripts/vendor.sh" --settings "$WORK/source/$name"
    (cd "$REPO/vendor" && find . -mindepth 1 -maxdepth 1 -type d) | sort >"$WORK/crates"
    repeatable -C "$WORK/source" -cf "$WORK/source.tar" "$name"
    # The crates from where they are: copying them would only take time.
    repeatable -C "$REPO/vendor" --transform "s,^\./,$name/vendor/,S" -rf "$WORK/source.tar" -T "$WORK/crates"
    gzip -9n <"$WORK/source.tar" >"$STAGE/$name-source.tar.gz"
    rm -rf "$WORK/source" "$WORK/source.tar" "$WORK/head.tar"
}

make_image() {
    "$REPO/scripts/build-agent-image.sh" --agent-dir "$DIST" --layout "$WORK/layout" --tag "$VERSION" \
        --licenses "$STAGE/THIRD-PARTY-LICENSES.txt" >"$WORK/log" 2>&1 ||
        { tail -n 5 "$WORK/log" >&2; die "the container image could not be made"; }
    repeatable -C "$WORK/layout" -cf "$STAGE/kubesolo-update-$VERSION-image.tar" blobs index.json oci-layout
}

make_disk() {
    [ -n "$KERNEL" ] || return 0
    "$REPO/scripts/build-image.sh" --kernel "$KERNEL" --initramfs "$INITRAMFS" --version "$VERSION" --arch "$ARCH" \
        --agent "$DIST/kubesolo-update-$ARCH" --require-platforms --xz --output "$STAGE/kubesolo-os-$VERSION-$ARCH.img.xz" >&2 ||
        die "the disk image could not be made"
}
