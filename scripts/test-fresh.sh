#!/bin/sh
# The README's two commands in a Debian that was made a minute ago, with git, make and ca-certificates and nothing else.
#
# In namespaces of its own: what is mounted and started here is gone when this script is, whatever ends it.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
HOME_INSIDE=/root/kubesolo-update
# Seconds until a step counts as hanging.
LIMIT=5400
CLOCK_DAYS=60
MEMORY_GIB=12

SAY_TO=1
SUITE=bookworm
MIRROR=
ONLY=
CACHE=
KEEP=no
MEMORY=no
DRY_RUN=no
CLOCK=

usage() {
    cat <<USAGE
Usage: scripts/test-fresh.sh [--only WHAT] [--suite NAME] [--mirror URL] [--cache DIR] [--memory] [--keep]
                             [--dry-run]

Makes a Debian with debootstrap, in a directory that is a mount point of its own, and runs there, in a clone of HEAD, the
commands of the README as they stand there. Says how long each took; a second run must install nothing. Then once more
with a clock that is $CLOCK_DAYS days ahead. Needs root, debootstrap, faketime (scripts/install-deps.sh fresh), and 15 GB.

  --only WHAT    demo, test: that command alone; clock: the wrong clock alone, with the demonstration and all groups;
                 groups: no command, but the installation of every group of scripts/deps.tsv (what CI does)
  --suite NAME   of Debian (default: $SUITE)
  --mirror URL   where debootstrap finds it (default: what this system uses)
  --cache DIR    keep packages there, for the next run: its times then say less
  --memory       in a tmpfs of $MEMORY_GIB GiB: sooner, and nothing of it on a disk; enough for --only groups
  --keep         keep the directory (not with --memory)
  --dry-run      say what would be run, and make nothing
  -h, --help     this text
USAGE
}

# is_mounted: whether anything is, below $WORK; the kernel writes a blank as \040.
is_mounted() { grep -qF " $(printf '%s' "$WORK" | sed 's/ /\\040/g')/" /proc/self/mountinfo; }

# Never through a mount: what is mounted is somebody else's.
take_away() {
    # Its end is that of all that runs inside (unshare --kill-child).
    if [ -s "$WORK/running" ]; then kill -KILL "$(cat "$WORK/running")" 2>/dev/null || true; fi
    tries=0
    while is_mounted && [ "$tries" -lt 50 ]; do
        umount -R "$WORK/root" 2>/dev/null || sleep 0.2
        tries=$((tries + 1))
    done
    if [ "$MEMORY" = yes ]; then umount "$WORK" && rmdir "$WORK"; return; fi
    if is_mounted; then
        say "something is still mounted below $WORK, which is left as it is; these mounts end with this script"
    elif [ "$KEEP" = yes ]; then
        say "kept $WORK/root"
    else
        rm -rf --one-file-system "$WORK"
    fi
}

clean_up() {
    [ -n "$WORK" ] || return 0
    cd /
    taken=0
    take_away || taken=$?
    # Whatever came of it: nothing else removes it.
    WORK=
    return "$taken"
}

# within SECONDS COMMAND...: heard only when it fails.
within() {
    limit=$1
    shift
    timeout --foreground -k 30 "$limit" "$@" >"$WORK/log" 2>&1 || { tail -n 30 "$WORK/log" >&2; die "failed: $*"; }
}

# commands: those of the README, from its first block for a shell.
commands() { awk '/^```sh$/ { on = 1; next } /^```$/ && on { exit } on { sub(/ *#.*/, ""); print }' "$REPO/README.md"; }

groups() { awk -F '\t' '$1 == "#group" { print $2 }' "$REPO/scripts/deps.tsv"; }

# sources: this system's own lists, for the suite; not what other packagers have.
sources() {
    . /etc/os-release
    # shellcheck disable=SC2016 # apt's own placeholders
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(LABEL)' 'Created-By: Packages' | sort -u |
        awk -v own="${VERSION_CODENAME:-}" -v suite="$SUITE" -v mirror="$MIRROR" '
            $4 !~ /^(Debian|Ubuntu)/ || $2 !~ "^" own "(-(updates|security))?$" { next }
            suite ~ /^(sid|unstable)$/ && $2 != own { next }
            { sub("^" own, suite, $2); if (mirror != "" && $4 !~ /-Security/) $1 = mirror; print "deb", $1, $2, $3 }' | sort -u
}

# What this machine needs to reach its registries: proxies, certificates, addresses. Nothing that makes apt kinder.
copy_site() {
    cp /etc/resolv.conf /etc/hosts "$1/etc/"
    sources >"$1/etc/apt/sources.list"
    cat /etc/apt/apt.conf.d/* /etc/apt/apt.conf 2>/dev/null |
        grep -iE '^ *Acquire::[a-z]+::(Proxy|Ca|Verify|Ssl)' >"$1/etc/apt/apt.conf.d/50site" || true
    for file in /etc/pip.conf /etc/npmrc /root/.npmrc /root/.cargo/config.toml /root/.config/pip/pip.conf \
        /root/.config/go/env; do
        if [ -f "$file" ]; then mkdir -p "$1${file%/*}" && cp "$file" "$1$file"; fi
    done
    for file in /usr/local/share/ca-certificates/*.crt; do
        if [ -f "$file" ]; then cp "$file" "$1/usr/local/share/ca-certificates/"; fi
    done
    within 60 chroot "$1" update-ca-certificates
}

# site_variables: as words for env; the same kind of settings.
site_variables() {
    env | grep -E '^([a-zA-Z]+_(proxy|PROXY)|GO(PROXY|SUMDB|NOSUMDB|PRIVATE)|(PIP|NPM_CONFIG|npm_config)_[A-Za-z_]+|DEBIAN_MIRROR)=|^[A-Z_]*(CA|CERT)[A-Z_]*=/|^CARGO_(HTTP|NET|REGISTR|SOURCE)[A-Z_]*=' |
        grep -vE '^PIP_FIND_LINKS=|^PIP_(TARGET|PREFIX|USER)=' || true
}

# make_root DIR: bind-mounted, so that its / is a mount point.
make_root() {
    mkdir -p "$1"
    cached=
    if [ -n "$CACHE" ]; then mkdir -p "$CACHE/debootstrap" && cached=--cache-dir=$CACHE/debootstrap; fi
    within 1800 debootstrap --variant=minbase --include=git,make,ca-certificates ${cached:+"$cached"} "$SUITE" "$1" "$MIRROR"
    copy_site "$1"
    mount --bind "$1" "$1"
    mount --make-private "$1"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    mount -t tmpfs -o mode=755 tmpfs "$1/run"
    within 300 git clone -q --no-hardlinks "$REPO" "$1$HOME_INSIDE"
    [ -n "$CACHE" ] || return 0
    for pair in apt:/var/cache/apt/archives pip:/root/.cache/pip npm:/root/.npm cargo:/root/.cargo/registry; do
        mkdir -p "$CACHE/${pair%%:*}" "$1${pair#*:}"
        mount --bind "$CACHE/${pair%%:*}" "$1${pair#*:}"
    done
}

# inside DIR COMMAND: as one types it there; nothing of it outlives it. It is the root of a mount namespace, as on a machine:
# in a chroot the kernel gives nobody a user namespace.
inside() {
    inside_root=$1
    shift
    # shellcheck disable=SC2016,SC2046,SC2086 # for the shell inside; lists of words
    timeout --foreground -k 30 "$LIMIT" sh -c 'echo $$ >"$0" && exec "$@"' "$WORK/running" \
        unshare --mount --pid --fork --kill-child sh -c 'cd "$0" && mkdir -p .old &&
        pivot_root . .old && cd / && mount -t proc proc /proc && umount -l /.old && rmdir /.old && exec "$@"' "$inside_root" \
        env -i HOME=/root TERM=dumb CI=true LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        $(site_variables) $CLOCK sh -c 'cd "$0" && exec sh -c "$1"' "$HOME_INSIDE" "$1" </dev/null
}

# timed DIR COMMAND: shows its output, and says how long it took.
timed() {
    say "\$ $2"
    began=$(date +%s)
    code=0
    { inside "$1" "$2" || echo $? >"$WORK/code"; } 2>&1 | tee "$WORK/out"
    if [ -e "$WORK/code" ]; then code=$(cat "$WORK/code"); rm "$WORK/code"; fi
    took=$(($(date +%s) - began))
    [ "$code" -eq 0 ] || die "'$2' ended with $code after $took s"
    printf "%-40s %5d s  %s\n" "$2" "$took" "${CLOCK:+(clock ahead)}" >>"$WORK/times"
    say "'$2' took $took s"
}

# again DIR COMMAND: what was just done leaves nothing to install.
again() {
    timed "$1" "$2" >"$WORK/again"
    ! grep 'install-deps: ' "$WORK/out" || die "a second '$2' installs again"
    say "a second '$2' installs nothing"
}

test_command() {
    timed "$1" "$2"
    if grep -q -e SKIP -e MISSING "$WORK/out"; then
        grep -m 5 -e SKIP -e MISSING "$WORK/out" >&2
        die "'$2' went on without something"
    fi
    # The tests themselves are not run twice.
    case $2 in 'make test') again "$1" 'make deps' ;; *) again "$1" "$2" ;; esac
}

test_groups() {
    for group in $(groups); do timed "$1" "scripts/install-deps.sh $group"; done
    again "$1" "scripts/install-deps.sh $(groups | tr '\n' ' ')"
}

# The whole command under another clock, not apt alone: what else would stumble is part of the question.
set_clock() {
    library=$(find /usr/lib -name libfaketime.so.1 | head -n 1)
    [ -n "$library" ] || die "no libfaketime: scripts/install-deps.sh fresh brings it"
    cp "$library" "$1/usr/local/lib/libfaketime.so.1"
    CLOCK="LD_PRELOAD=/usr/local/lib/libfaketime.so.1 FAKETIME=+${CLOCK_DAYS}d FAKETIME_DONT_FAKE_MONOTONIC=1"
}

run() {
    work_folder_at "${TMPDIR:-/var/tmp}/kubesolo-fresh.XXXXXX"
    if [ "$MEMORY" = yes ]; then mount -t tmpfs -o "mode=700,size=${MEMORY_GIB}g" tmpfs "$WORK"; fi
    began_all=$(date +%s)
    say "$SUITE in $WORK/root"
    make_root "$WORK/root"
    say "made in $(($(date +%s) - began_all)) s: $(chroot "$WORK/root" dpkg-query -f '.\n' -W | wc -l) packages"
    case $ONLY in
        groups) test_groups "$WORK/root" ;;
        clock)
            set_clock "$WORK/root"
            test_command "$WORK/root" "$(commands | grep demo)"
            test_groups "$WORK/root"
            ;;
        *)
            commands >"$WORK/commands"
            while read -r command <&3; do
                case ${ONLY:-all} in all) ;; *) case $command in *" $ONLY"*) ;; *) continue ;; esac ;; esac
                test_command "$WORK/root" "$command"
            done 3<"$WORK/commands"
            ;;
    esac
    say "all of it, in $(($(date +%s) - began_all)) s:"
    cat "$WORK/times"
}

# parse ARGUMENT...: into the variables above; what is wrong with the words is said before anything is done.
parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --keep) KEEP=yes; shift; continue ;;
            --memory) MEMORY=yes; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --only | --suite | --mirror | --cache) need_value "$@" ;;
            *) misuse "unknown option: $1" ;;
        esac
        case $1 in
            --only) case $2 in demo | test | clock | groups) ONLY=$2 ;; *) die "--only demo, test, clock or groups, not '$2'" ;; esac ;;
            --suite) SUITE=$2 ;;
            --mirror) MIRROR=$2 ;;
            --cache) CACHE=$2 ;;
        esac
        shift 2
    done
    [ "$(commands | grep -c '^make ')" -eq 2 ] || die "README.md: its first block of sh has not the two commands: $(commands)"
    [ "$MEMORY$KEEP" != yesyes ] || misuse "--keep and --memory cannot be used together: what is in memory ends with this script"
}

# show_plan: what a dry run says.
show_plan() {
    say "would make $SUITE, and run there:"
    case $ONLY in groups | clock) groups | sed 's/^/  scripts\/install-deps.sh /' ;; esac
    case $ONLY in groups) ;; *) commands | grep "${ONLY#clock}" | sed 's/^/  /' ;; esac
}

# check_machine: what only matters where something is made.
check_machine() {
    if [ -n "$CACHE" ]; then mkdir -p "$CACHE" && CACHE=$(CDPATH='' cd -- "$CACHE" && pwd -P); fi
    if [ "$MEMORY" = yes ]; then
        free=$(awk '$1 == "MemAvailable:" { print int($2 / 1048576) }' /proc/meminfo)
        [ "$free" -ge "$MEMORY_GIB" ] || die "--memory needs $MEMORY_GIB GiB, and $free are free: leave it out"
    fi
    need_tools "scripts/install-deps.sh fresh brings it" debootstrap
    # shellcheck disable=SC2016 # apt's own placeholders
    [ -n "$MIRROR" ] || MIRROR=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' 'Component: main' |
        awk '$2 == "Debian" || $2 == "Ubuntu" { print $1; exit }')
    [ -n "$MIRROR" ] || die "this system knows no Debian mirror: apt-get update, or --mirror URL"
}

main() {
    inner=no
    if [ "${1-}" = --in-namespace ]; then shift; inner=yes; fi
    parse "$@"
    if [ "$DRY_RUN" = yes ]; then show_plan; exit 0; fi
    [ "$(id -u)" -eq 0 ] || die "not root; type: sudo $0${*:+ $*}"
    # What it mounts is nobody else's, and ends with it.
    [ "$inner" = yes ] || exec unshare --mount --propagation private "$0" --in-namespace "$@"
    check_machine
    run
    if [ -z "$ONLY" ]; then
        clean_up
        ONLY=clock
        run
    fi
}

main "$@"
