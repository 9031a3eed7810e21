#!/bin/sh
# Fills vendor/ with the crates of Cargo.lock, tells cargo to take them from there, and keeps the committed list of them.
#
# Must never: change settings of cargo that somebody else wrote, or leave its own where vendor/ is not whole.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
MANIFEST=$REPO/vendor/MANIFEST.tsv
# How our settings begin; what begins otherwise is somebody else's.
OURS='# Written by scripts/vendor.sh'
# cargo names this path where a crate is not in vendor/, so it says what to type.
SIGN=.cargo/to-fill-vendor-anew-run/scripts/vendor.sh

usage() {
    cat <<USAGE
Usage: scripts/vendor.sh [--check | --fetch | --mend | --settings DIR]

Downloads the source of every crate in Cargo.lock into vendor/ (not committed; a build without
network uses it), writes .cargo/config.toml (not committed), so that \`cargo build --offline\` works as
it stands, and vendor/MANIFEST.tsv (committed): crate, version, SHA-256 of the crate's archive,
licence.

  --check         only hold MANIFEST.tsv against Cargo.lock: no network, nothing is written
  --fetch         only download the crates of Cargo.lock and of std into cargo's own cache, so that this script works
                  without network; nothing is written here
  --mend          only take .cargo/config.toml away where vendor/ no longer holds the crates of
                  Cargo.lock, so that cargo fetches them again: no network (make and build.sh do it)
  --settings DIR  only write .cargo/config.toml for the copy of this repository in DIR, which has vendor/
  -h, --help      this text
USAGE
}

# crate, version, checksum of everything in Cargo.lock that came from outside.
locked_crates() {
    awk -F '"' '
        /^\[\[package\]\]/ { name = version = "" }
        /^name = /     { name = $2 }
        /^version = /  { version = $2 }
        /^checksum = / { print name "\t" version "\t" $2 }
    ' "$REPO/Cargo.lock" | LC_ALL=C sort
}

check() {
    [ -f "$MANIFEST" ] || die "no vendor/MANIFEST.tsv: run scripts/vendor.sh"
    # git and path crates have no checksum, so nothing could be held against it.
    if grep -q '^source = "git+' "$REPO/Cargo.lock"; then die "Cargo.lock has a crate from git"; fi
    locked_crates >"$WORK/locked"
    grep -v '^#' "$MANIFEST" >"$WORK/listed"
    cut -f 1-3 "$WORK/listed" >"$WORK/listed-crates"
    if ! cmp -s "$WORK/locked" "$WORK/listed-crates"; then
        diff "$WORK/listed-crates" "$WORK/locked" >&2 || true
        die "vendor/MANIFEST.tsv (<) is not what Cargo.lock (>) says: run scripts/vendor.sh and commit it"
    fi
    awk -F '\t' 'NF != 4 || $4 == "" { print "vendor: no licence: " $1 " " $2; bad = 1 } END { exit bad }' \
        "$WORK/listed" >&2 || die "vendor/MANIFEST.tsv is incomplete"
    say "ok: $(wc -l <"$WORK/locked") crates, MANIFEST.tsv agrees with Cargo.lock"
}

write_manifest() {
    cargo metadata --locked --format-version 1 >"$WORK/metadata"
    python3 -c '
import json, sys
for p in json.load(sys.stdin)["packages"]:
    if p["source"]:
        print(p["name"], p["version"], p["license"] or "see " + str(p["license_file"]), sep="\t")
' <"$WORK/metadata" >"$WORK/licences"
    locked_crates >"$WORK/locked"
    {
        printf '# Written by scripts/vendor.sh from Cargo.lock: crate, version, SHA-256, licence.\n'
        awk -F '\t' 'NR == FNR { licence[$1 " " $2] = $3; next }
            { print $0 "\t" licence[$1 " " $2] }' "$WORK/licences" "$WORK/locked"
    } >"$WORK/manifest"
    mv "$WORK/manifest" "$MANIFEST"
    chmod 644 "$MANIFEST"
}

# fits: whether vendor/ holds the crates of this Cargo.lock.
fits() {
    [ "$(sha256sum <"$REPO/Cargo.lock")" = "$(cat "$REPO/vendor/.complete/cargo-lock.sha256" 2>/dev/null)" ]
}

# is_ours: whether there are settings, and we wrote them.
is_ours() { [ -f .cargo/config.toml ] && IFS= read -r line <.cargo/config.toml && case $line in "$OURS"*) ;; *) false ;; esac; }

drop_settings() {
    if is_ours; then rm -rf .cargo/config.toml "${SIGN%/*/*}"; fi
    rmdir .cargo 2>/dev/null || true
}

# settings DIR PATH: of vendor/ there. The file comes last, since it may need the link.
settings() {
    cd "$1" || die "$1 is not a directory"
    if ! is_ours; then
        for file in .cargo/config.toml .cargo/config; do
            [ ! -e "$file" ] || { say "$1/$file is not by this script, and stays as it is: cargo build --offline will not look into vendor/"; return 0; }
        done
    fi
    mkdir -p .cargo
    if [ "$2" != vendor ]; then
        mkdir -p "$(dirname -- "$2")"
        ln -sfn ../../../vendor "$2"
    fi
    cat >.cargo/config.toml.new <<SETTINGS
$OURS, which takes it away again where Cargo.lock has changed.
# Crates come from vendor/, by whatever name.
[source.crates-io]
replace-with = "vendored-sources"

[source.vendored-sources]
directory = "$2"
SETTINGS
    mv .cargo/config.toml.new .cargo/config.toml
}

# mend: vendor/ is stale after a git pull that changes Cargo.lock.
mend() {
    if ! is_ours || fits; then return 0; fi
    drop_settings
    say "vendor/ does not hold the crates of this Cargo.lock: cargo fetches them now, and does not look into vendor/" \
        "(.cargo/config.toml is taken away). Next, for builds without network: scripts/vendor.sh"
}

# find_std: a release build compiles std as well (scripts/build.sh), so its crates have to be there too.
# Sets `std`, its Cargo.toml, empty where there is none; and `cargo`, the one beside it.
find_std() {
    for rustc in /usr/bin/rustc rustc; do
        command -v "$rustc" >/dev/null || continue
        std=$("$rustc" --print sysroot)/lib/rustlib/src/rust/library/Cargo.toml
        cargo=${rustc%rustc}cargo
        [ ! -e "$std" ] || return 0
    done
    std='' cargo=cargo
}

fetch() {
    find_std
    "$cargo" fetch --quiet --locked
    [ -z "$std" ] || RUSTC_BOOTSTRAP=1 "$cargo" fetch --quiet --locked --manifest-path "$std"
}

fill() {
    set -- --locked --versioned-dirs --no-delete
    find_std
    [ -z "$std" ] || set -- "$@" --sync "$std"
    lock=${std:+${std%.toml}.lock}
    drop_settings
    # By ourselves: newer cargos take away the files beside the crates as well.
    rm -rf "$REPO/vendor/.complete" "$REPO"/vendor/*/
    # std's manifest has unstable keys.
    RUSTC_BOOTSTRAP=1 "$cargo" vendor "$@" "$REPO/vendor" >/dev/null
    # A directory, since those are what .gitignore leaves out below vendor/.
    mkdir "$REPO/vendor/.complete"
    # Last: what is half filled does not count.
    if [ -n "$lock" ]; then sha256sum <"$lock" >"$REPO/vendor/.complete/std-lock.sha256"; fi
    sha256sum <"$REPO/Cargo.lock" >"$REPO/vendor/.complete/cargo-lock.sha256"
    settings "$REPO" "$SIGN"
    cd "$REPO"
}

main() {
    work=fill
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --check) work=check ;;
            --fetch) work=fetch ;;
            --mend) work=mend ;;
            --settings) need_text "$@"; work=settings; dir=$2; shift ;;
            *) misuse "unknown option: $1" ;;
        esac
        shift
    done
    case $work in
        settings) settings "$dir" vendor; return ;;
        mend) cd "$REPO"; mend; return ;;
        fetch) cd "$REPO"; fetch; return ;;
    esac
    work_folder
    cd "$REPO"
    if [ "$work" = fill ]; then
        need_tools "scripts/install-deps.sh build brings it" cargo python3
        fill
        write_manifest
    fi
    check
}

main "$@"
