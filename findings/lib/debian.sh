# shellcheck shell=sh
# For findings: Debian packages of any suite, unpacked in $WORK and never installed. Sourced by the scripts beside it.

say() { printf '%s\n' "$*"; }
# Not tried: exit code 2, so that it is not taken for a change of what was found.
cannot() { printf 'could not be tried: %s\n' "$*" >&2; exit 2; }
changed() { printf 'CHANGED: %s\n' "$*" >&2; exit 1; }

# apt with a root of its own, and lists whose date does not matter: as install-deps.sh has it.
# shellcheck source=scripts/lib/deps-apt.sh
. "$(dirname -- "$0")/../scripts/lib/deps-apt.sh"

begin() {
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# unpack_pinned SUITE DIR NAME=VERSION-PREFIX...: the packages of a suite below $WORK/DIR. A version that has moved on is no
# finding.
unpack_pinned() {
    suite=$1 dir=$WORK/$2
    shift 2
    private_apt "$suite" amd64 || cannot "no list of $suite: $(why)"
    mkdir -p "$dir" "$WORK/debs"
    for pinned in "$@"; do
        name=${pinned%%=*}
        version=$(apt-cache -c "$root/apt.conf" policy "$name" | sed -n 's/^ *Candidate: //p')
        case $version in "${pinned#*=}"*) ;; *) cannot "$suite has $name $version, not ${pinned#*=}" ;; esac
        (cd "$WORK/debs" && timeout 300 apt-get -qq -c "$root/apt.conf" download "$name") || cannot "no $name of $suite"
        dpkg -x "$WORK/debs/${name}"_*.deb "$dir"
        rm "$WORK/debs/${name}"_*.deb
        say "$name $version"
    done
}

# beside DIR PROGRAM ARGUMENT...: an unpacked program with the loader and libraries that were unpacked beside it.
beside() {
    tree=$WORK/$1 program=$2
    shift 2
    for libraries in usr/lib/x86_64-linux-gnu lib/x86_64-linux-gnu; do
        loader=$tree/$libraries/ld-linux-x86-64.so.2
        [ -e "$loader" ] || continue
        "$loader" --library-path "$tree/lib/x86_64-linux-gnu:$tree/usr/lib/x86_64-linux-gnu" "$tree/$program" "$@"
        return
    done
    cannot "no loader below $tree"
}

# features FILE: of an ext4 file system, by the unpacked dumpe2fs.
features() { beside e2fsprogs usr/sbin/dumpe2fs -h "$1" 2>/dev/null | sed -n 's/^Filesystem features: *//p'; }
