#!/bin/sh
# Inside the builder's container: installs what the lock files name, or finds out what they should name.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
DEBIAN_LOCK=$REPO/scripts/builder-packages.lock
PIP_LOCK=$REPO/scripts/builder-pip.lock
# Beyond what the groups need: actions of the pipelines are JavaScript.
ALSO=nodejs
# What the scripts that the pipelines call need; oras is in both, and unpacked from a package of another Debian.
NEEDED='build release'
UNPACKED=publish

usage() {
    cat <<USAGE
Usage: scripts/builder-packages.sh resolve|install

For a container of Debian 12 that holds nothing yet (scripts/Dockerfile.builder); as root.

  resolve   prints the Debian packages, with the versions of today, that scripts/install-deps.sh $NEEDED needs
            here, with all that they depend on; and, as comments, the packages that are unpacked and not installed
  install   installs exactly the versions of scripts/builder-packages.lock and of scripts/builder-pip.lock; fails if
            the mirror has one of them no more, or if anything else would be installed

  -h, --help   this text
USAGE
}

update() { apt-get update -q >"$WORK/log" 2>&1 || { tail -n 5 "$WORK/log" >&2; die "apt-get update failed"; }; }

# planned PACKAGE...: what apt would install, as NAME=VERSION.
planned() {
    apt-get install -s -q --no-install-recommends "$@" >"$WORK/plan" 2>"$WORK/error" || return 1
    sed -n 's/^Inst \([^ ]*\) \(\[[^]]*\] \)\{0,1\}(\([^ ]*\) .*/\1=\3/p' "$WORK/plan" | sort
}

resolve() {
    update
    # shellcheck disable=SC2086 # a list of words
    "$REPO/scripts/install-deps.sh" --dry-run $NEEDED >"$WORK/said" 2>&1
    roots=$(sed -n 's/.*would run: apt-get install --no-install-recommends//p' "$WORK/said")
    [ -n "$roots" ] || die "scripts/install-deps.sh $NEEDED wants nothing here: this is no empty Debian"
    # shellcheck disable=SC2086 # a list of words
    planned $roots $ALSO || { cat "$WORK/error" >&2; die "apt cannot install$roots $ALSO"; }
    "$REPO/scripts/install-deps.sh" "$UNPACKED" || die "scripts/install-deps.sh $UNPACKED failed"
    unpacked
}

# unpacked: what lies in .tools of packages of another Debian, as the lock has it.
unpacked() {
    for list in "$REPO"/.tools/*/versions; do
        name=${list%/versions}
        case ${name##*/} in zig) ;; *) sed "s/^/# .tools\/${name##*/}: /" "$list" ;; esac
    done
}

install_debian() {
    grep -v '^#' "$DEBIAN_LOCK" | sort >"$WORK/locked"
    [ -s "$WORK/locked" ] || die "${DEBIAN_LOCK##*/} is empty"
    if grep -vxE '[a-z0-9][a-z0-9+.-]*=[A-Za-z0-9.+:~-]+' "$WORK/locked" >&2; then
        die "${DEBIAN_LOCK##*/}: these lines are not NAME=VERSION"
    fi
    update
    # shellcheck disable=SC2046 # a list of words
    set -- $(cat "$WORK/locked")
    planned "$@" >"$WORK/planned" || {
        cat "$WORK/error" >&2
        die "the lock names what this mirror lacks (Debian keeps no old versions): make builder-lock, look at the" \
            "difference, commit it; or build from a mirror of that day"
    }
    comm -13 "$WORK/locked" "$WORK/planned" >"$WORK/more"
    [ ! -s "$WORK/more" ] || die "apt would install what the lock does not name: $(tr '\n' ' ' <"$WORK/more")"
    say "installing $# packages"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$WORK/log" 2>&1 ||
        { tail -n 20 "$WORK/log" >&2; die "apt-get install failed"; }
}

# zig as install-deps.sh installs it, from files that are held to their hashes first.
install_pip() {
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        -r "$PIP_LOCK" -d "$WORK/wheels" || die "pip cannot get what ${PIP_LOCK##*/} names"
    PIP_NO_INDEX=1 PIP_FIND_LINKS=$WORK/wheels "$REPO/scripts/install-deps.sh" build ||
        die "scripts/deps.tsv wants other versions than ${PIP_LOCK##*/} names?"
}

# What is unpacked is what the lock names, and then nothing is missing.
install_unpacked() {
    "$REPO/scripts/install-deps.sh" "$UNPACKED" || die "scripts/install-deps.sh $UNPACKED failed"
    grep '^# \.tools/' "$DEBIAN_LOCK" >"$WORK/wanted" || true
    unpacked >"$WORK/unpacked"
    cmp -s "$WORK/wanted" "$WORK/unpacked" || {
        diff "$WORK/wanted" "$WORK/unpacked" >&2 || true
        die "what is unpacked is not what the lock names: make builder-lock, look at the difference, commit it"
    }
    # shellcheck disable=SC2086 # a list of words
    wanted=$("$REPO/scripts/install-deps.sh" --dry-run $NEEDED 2>&1)
    [ -z "$wanted" ] || die "something is still missing: $wanted"
}

main() {
    LC_ALL=C
    export LC_ALL
    case ${1-} in
        -h | --help) usage; exit 0 ;;
        resolve | install) [ $# -eq 1 ] || misuse "unknown argument: $2" ;;
        *) misuse "resolve or install, not '${1-}'" ;;
    esac
    [ "$(id -u)" -eq 0 ] || die "not root: this is for the inside of a container"
    work_folder
    if [ "$1" = resolve ]; then
        resolve
    else
        install_debian
        install_pip
        install_unpacked
        rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
        "$REPO/scripts/build.sh" --check-rust
    fi
}

main "$@"
