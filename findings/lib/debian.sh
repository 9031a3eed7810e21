# shellcheck shell=sh
# For findings: Debian packages of any suite, unpacked in $WORK and never installed. Sourced by the scripts beside it.

say() { printf '%s\n' "$*"; }
# Not tried: exit code 2, so that it is not taken for a change of what was found.
cannot() { printf 'could not be tried: %s\n' "$*" >&2; exit 2; }
changed() { printf 'CHANGED: %s\n' "$*" >&2; exit 1; }

begin() {
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # shellcheck disable=SC2016 # apt's own placeholders
    MIRROR=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' 'Component: main' |
        awk '$2 == "Debian" { print $1; exit }')
    [ -n "$MIRROR" ] || cannot "this system has no list of a Debian mirror (apt-get update)"
}

# unpack SUITE DIR NAME=VERSION-PREFIX...: the packages of a suite below $WORK/DIR. A version that has moved on is no finding.
unpack() {
    suite=$1 dir=$WORK/$2 apt=$WORK/apt-$1
    shift 2
    if [ ! -e "$apt/ready" ]; then
        mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
        : >"$apt/status"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR $suite main" >"$apt/sources.list"
        cat >"$apt/apt.conf" <<CONF
Dir::State "$apt";
Dir::State::Lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::http::Timeout "20";
CONF
        timeout 300 apt-get -qq -c "$apt/apt.conf" update || cannot "no list of $suite"
        : >"$apt/ready"
    fi
    mkdir -p "$dir" "$WORK/debs"
    for pinned in "$@"; do
        name=${pinned%%=*}
        version=$(apt-cache -c "$apt/apt.conf" policy "$name" | sed -n 's/^ *Candidate: //p')
        case $version in "${pinned#*=}"*) ;; *) cannot "$suite has $name $version, not ${pinned#*=}" ;; esac
        (cd "$WORK/debs" && timeout 300 apt-get -qq -c "$apt/apt.conf" download "$name") || cannot "no $name of $suite"
        dpkg -x "$WORK/debs/${name}"_*.deb "$dir"
        rm "$WORK/debs/${name}"_*.deb
        say "$name $version"
    done
}

# beside DIR PROGRAM ARGUMENT...: an unpacked program with the loader and libraries that were unpacked beside it.
beside() {
    root=$WORK/$1 program=$2
    shift 2
    for libraries in usr/lib/x86_64-linux-gnu lib/x86_64-linux-gnu; do
        loader=$root/$libraries/ld-linux-x86-64.so.2
        [ -e "$loader" ] || continue
        "$loader" --library-path "$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu" "$root/$program" "$@"
        return
    done
    cannot "no loader below $root"
}

# features FILE: of an ext4 file system, by the unpacked dumpe2fs.
features() { beside e2fsprogs usr/sbin/dumpe2fs -h "$1" 2>/dev/null | sed -n 's/^Filesystem features: *//p'; }
