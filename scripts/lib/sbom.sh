# shellcheck shell=sh
# What the release binaries are made of, as CycloneDX. Sourced by scripts/release.sh, which has say, die, REPO, WORK,
# STAGE, VERSION, RUSTC_BIN, CARGO_BIN, STD and SOURCE_DATE_EPOCH.
#
# Which crates are in the binaries is cargo's word (cargo tree), for this program and for the standard library, which is
# linked into it as well; hashes are those of Cargo.lock. cargo-cyclonedx knows neither the standard library nor musl.

# vendored COMMAND ARGUMENT...: cargo, with crates from vendor/ and no network; from /, where no settings lie.
vendored() {
    command=$1
    shift
    (cd / && RUSTC_BOOTSTRAP=1 RUSTC="$RUSTC_BIN" "$CARGO_BIN" "$command" --locked --offline \
        --config 'source.crates-io.replace-with="vendored-sources"' \
        --config "source.vendored-sources.directory=\"$REPO/vendor\"" "$@" 2>"$WORK/log") ||
        { tail -n 5 "$WORK/log" >&2; die "cargo $command failed"; }
}

# sbom_tree EDGES ARGUMENT...: one line "NAME VERSION" for each package, of both architectures.
sbom_tree() {
    edges=$1
    shift
    for target in x86_64 aarch64; do
        vendored tree --target "$target-unknown-linux-musl" --edges "$edges" --prefix none "$@" >"$WORK/tree"
        sed -n 's/^\([^ ]*\) v\([^ ]*\).*/\1 \2/p' "$WORK/tree"
    done >"$WORK/both"
    sort -u "$WORK/both"
}

# sbom_packages MANIFEST LOCK ROOT FEATURES: what both metadata and lock say of each package, and what is linked or used.
sbom_packages() {
    sbom_tree normal,no-proc-macro --manifest-path "$1" --package "$3" ${4:+--features "$4"} >"$WORK/linked"
    sbom_tree normal,build --manifest-path "$1" --package "$3" ${4:+--features "$4"} >"$WORK/used"
    vendored metadata --format-version 1 --manifest-path "$1" >"$WORK/metadata"
    awk -F '"' '/^name = / { n = $2 } /^version = / { v = $2 } /^checksum = / { print n " " v " " $2 }' "$2" >"$WORK/locked"
    jq -c --rawfile linked "$WORK/linked" --rawfile used "$WORK/used" --rawfile locked "$WORK/locked" '
        def lines(text): text | split("\n") | map(select(. != ""));
        (lines($linked) | map({key: ., value: true}) | from_entries) as $linked
        | (lines($used) | map({key: ., value: true}) | from_entries) as $used
        | (lines($locked) | map(split(" ") | {key: (.[0] + " " + .[1]), value: .[2]}) | from_entries) as $locked
        | (.packages | map({key: .id, value: (.name + " " + .version)}) | from_entries) as $ids
        | (.resolve.nodes | map({key: $ids[.id], value: [.deps[] | select(.dep_kinds | any(.kind != "dev")) | $ids[.pkg]]})
            | from_entries) as $needs
        | [.packages[] | (.name + " " + .version) as $id | select($used[$id])
            | {id: $id, name, version, license, license_file, repository, sha256: $locked[$id], is_linked: ($linked[$id] // false),
               needs: [$needs[$id][]? | select($used[.])]}]' "$WORK/metadata"
}

# Of the musl that is linked: zig's.
sbom_version_of_musl() {
    zig=$(dirname -- "$(readlink -f "$(PATH=$REPO/.tools/zig/bin:$PATH command -v cargo-zigbuild)")")/..
    for file in "$zig"/lib/python3*/site-packages/ziglang/lib/libc/musl/src/internal/version.h; do
        [ -f "$file" ] || die "zig's musl is not below $zig: which version is linked cannot be told"
        sed -n 's/^#define VERSION "\(.*\)"$/\1/p' "$file"
        return
    done
}

# make_sbom FILE
make_sbom() {
    sbom_packages "$REPO/Cargo.toml" "$REPO/Cargo.lock" kubesolo-update '' >"$WORK/ours"
    # The features that scripts/musl.toml asks for.
    sbom_packages "$STD/Cargo.toml" "$STD/Cargo.lock" std optimize_for_size >"$WORK/std"
    for binary in "kubesolo-update-$VERSION-linux-amd64" "kubesolo-update-$VERSION-linux-arm64" \
        "kubesolo-chunks-$VERSION-linux-amd64" "kubesolo-chunks-$VERSION-linux-arm64"; do
        jq -n --arg name "$binary" --arg sha256 "$(sha256sum <"$STAGE/$binary" | cut -d' ' -f1)" '{name: $name, sha256: $sha256}'
    done >"$WORK/binaries"
    PATH=$REPO/.tools/zig/bin:$PATH cargo-zigbuild --version >"$WORK/zigbuild"
    zig=$(sed -n 's/ .*//p' "$(dirname -- "$(PATH=$REPO/.tools/zig/bin:$PATH command -v cargo-zigbuild)")/../versions")
    musl=$(sbom_version_of_musl)
    if [ -z "$musl" ] || [ -z "$zig" ]; then die "the versions of zig and its musl cannot be told"; fi
    jq -n --arg version "$VERSION" --arg time "$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" \
        --arg rustc "$("$RUSTC_BIN" -V | awk '{ print $2 }')" --arg zig "$zig" \
        --arg zigbuild "$(awk '{ print $2 }' "$WORK/zigbuild")" --arg musl "$musl" --slurpfile ours "$WORK/ours" \
        --slurpfile std "$WORK/std" --slurpfile binaries "$WORK/binaries" -f "$REPO/scripts/lib/sbom.jq" >"$WORK/sbom"
    # A number of its own, that the same content has again.
    hash=$(sha256sum <"$WORK/sbom")
    serial=$(printf '%s' "$hash" | sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)\(.\{12\}\).*/\1-\2-8\3-a\4-\5/')
    jq --arg serial "urn:uuid:$serial" '{bomFormat, specVersion, serialNumber: $serial} + .' "$WORK/sbom" >"$1"
}
