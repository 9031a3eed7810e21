# shellcheck shell=sh
# How scripts/install-deps.sh brings packages of Debian: what apt installs, and what is unpacked of another Debian (findings/lib/debian.sh
# takes that from here as well). Sourced, not run. Works on the row whose columns are in variables; why it failed is in $WORK/log.
# shellcheck disable=SC2154 # the columns: probe, how, package; dir, tool

# Seconds until a server that does not answer counts as dead, and until a step that has no end is cut off.
ANSWER=${DEPS_ANSWER:-10}
STEP=1800
PACKAGES='' UPDATE_ERROR='' DEAD=''
POLICY_MARK='# While scripts/install-deps.sh installs: no daemon is started.'

# why: the line that says what went wrong. pip says it in a warning, and then that there is no such package; apt's and
# cargo's last words are not their most telling ones.
why() {
    sed -n "s/.*connection broken by '\([A-Za-z]*\).*: \([^:]*\)': .*/no connection: \1, \2; /p" "$WORK/log" |
        tail -n 1 | tr -d '\n'
    # apt's last word on a lock is the same for one that is held and for one that this user may not take.
    { grep -m 1 -E 'Could not get lock|lock.*Permission denied' "$WORK/log" || grep -E '^[EW]: Failed to fetch' "$WORK/log" || grep -A 20 '^Caused by' "$WORK/log" ||
        grep -E '^(E:|ERROR|error|npm (error|ERR!) [^AaTt]|go: ([^d]|d[^o])|dpkg: )' "$WORK/log" || cat "$WORK/log"; } |
        grep . | tail -n 1 | sed 's/^ *//' | cut -c 1-300
}

# in_time COMMAND...: within a time; from /: this repository's settings for cargo and npm are for its own build. In the
# foreground, so that Ctrl-C ends it and not only this script.
in_time() {
    code=0
    (cd / && exec timeout --foreground -k 10 "$STEP" "$@") >"$WORK/log" 2>&1 </dev/null || code=$?
    if [ "$code" -eq 124 ]; then echo "error: timed out after $STEP s: $*" >>"$WORK/log"; fi
    return "$code"
}

# room DIR MIB
room() {
    free=$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }')
    if [ "$free" -ge "$2" ]; then return 0; fi
    echo "error: no space: $2 MiB are needed in $1, and $free are free" >"$WORK/log"
    return 1
}

# apt_get ARGUMENT...: with an end to every wait, and with an error where apt has a warning.
apt_get() {
    LC_ALL=C DEBIAN_FRONTEND=noninteractive in_time apt-get -q -o Acquire::Retries=0 -o DPkg::Lock::Timeout=20 \
        -o Acquire::http::Timeout="$ANSWER" -o Acquire::https::Timeout="$ANSWER" -o APT::Update::Error-Mode=any "$@"
}

# apt_update ARGUMENT...: fresh lists. Where a mirror is frozen, or a clock is wrong, they are past their date. They do
# all the same: the archive's signature is checked as ever, and the worst that an old list can do is to bring an old
# version. For what is used here that is good enough: tools that read what this machine's user gives them, and that are
# held to a version where one matters. Nothing of it gets into the agent but what the compiler makes.
apt_update() {
    if apt_get "$@" update; then return 0; fi
    grep -qE 'is expired|not valid yet' "$WORK/log" || return 1
    say "$(why)"
    say "here it is $(date -u +%F): a frozen mirror, or a wrong clock. The list's signature counts, its date does not"
    apt_get "$@" -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false update
}

# known_package PACKAGE[>=VERSION]
known_package() {
    candidate=$(LC_ALL=C apt-cache policy "${1%%>=*}" 2>/dev/null | sed -n 's/^ *Candidate: //p')
    case $candidate in '' | '(none)') return 1 ;; esac
    case $1 in *'>='*) dpkg --compare-versions "$candidate" ge "${1#*>=}" ;; esac
}

# has_lists: whether apt knows what there is; what is installed it knows without.
has_lists() {
    # shellcheck disable=SC2016 # apt's own placeholders
    apt-get indextargets --format '$(FILENAME)' 'Created-By: Packages' 2>/dev/null |
        { while read -r list; do if [ -e "$list" ]; then exit 0; fi; done; exit 1; }
}

# collect guess|known: adds the packages of apt's rows to $PACKAGES, all of a row or none. Before there are lists, they
# are guessed.
collect() {
    [ "$how" = apt ] || return 0
    chosen=
    for alternatives in $package; do
        name=
        for one in $(echo "$alternatives" | tr '|' ' '); do
            if known_package "$one"; then name=${one%%>=*}; break; fi
        done
        if [ -z "$name" ] && [ "$1" = guess ] && ! has_lists; then name=${alternatives%%[|>]*}; fi
        if [ -z "$name" ] && [ "$1" = guess ]; then return; fi
        [ -n "$name" ] || { failed "apt knows no $alternatives${UPDATE_ERROR:+ ($UPDATE_ERROR)}"; return 0; }
        chosen="$chosen $name"
    done
    for name in $chosen; do
        case " $PACKAGES " in *" $name "*) continue ;; esac
        PACKAGES="$PACKAGES $name"
        tool
        if [ "$1" = guess ]; then say "$tool is missing: package $name"; fi
    done
}

# The tests start their own daemons.
hold_daemons() {
    # cloud-init would take this machine for a new one at the next boot. This file is its own way to be told off.
    case " $PACKAGES " in *' cloud-init '*) mkdir -p /etc/cloud && : >>/etc/cloud/cloud-init.disabled ;; esac
    # One that a killed run left is ours as well.
    [ ! -e /usr/sbin/policy-rc.d ] || grep -qF "$POLICY_MARK" /usr/sbin/policy-rc.d || return 0
    POLICY_RC=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY_RC" && chmod 755 "$POLICY_RC"
}

release_daemons() {
    if [ -n "$POLICY_RC" ]; then rm -f "$POLICY_RC"; POLICY_RC=; fi
    for daemon in docker-registry containerd prometheus; do
        case " $PACKAGES " in *" $daemon "*) ;; *) continue ;; esac
        if have systemctl; then systemctl disable -q "$daemon" >/dev/null 2>&1 || true; fi
        if have update-rc.d; then update-rc.d "$daemon" disable >/dev/null 2>&1 || true; fi
    done
}

# apt_room: apt's own count of what it would fetch and unpack. Not by --assume-no: where nothing further is drawn in, apt
# asks nothing, and installs.
# shellcheck disable=SC2086 # a list of words
apt_room() {
    apt_get install --print-uris --no-install-recommends $PACKAGES || true
    mib=$(tr -d , <"$WORK/log" | awk '
        function mb(value, unit) { return value * (unit == "GB" ? 1000 : unit == "MB" ? 1 : 0) }
        /^Need to get / { sub(/\/.*/, "", $4); sum += mb($4, $5 ~ /B/ ? substr($5, 1, 2) : "MB") }
        /^After this operation / { sum += mb($4, $5) }
        END { print int(sum) + 50 }')
    room /usr "$mib"
}

apt_failed() { if [ "$how" = apt ] && ! found; then failed "$(why)"; fi; }

# install_packages: all that apt is to bring, at once.
# shellcheck disable=SC2086 # a list of words
install_packages() {
    grep -q "${TAB}apt$TAB" "$WORK/missing" || return 0
    have apt-get || die "no apt-get here, so this is neither Debian nor Ubuntu: docs/platforms.md has the line that starts a Debian container; or install by hand what scripts/deps.tsv lists for$WANTED"
    each "$WORK/missing" collect guess
    if [ "$DRY_RUN" = yes ]; then
        if [ -n "$PACKAGES" ]; then say "would run: apt-get install --no-install-recommends$PACKAGES"; fi
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        [ -n "$PACKAGES" ] || return 0
        say "not root; run this, then start again:"
        printf '  sudo apt-get update && sudo apt-get install --no-install-recommends%s\n' "$PACKAGES" >&2
        exit "$MISSING"
    fi
    # Old lists name files that are gone, or (a new system, without the security suite's list)
    # bring a compiler that is too old. Without network they may still do.
    say "apt-get update"
    apt_update || { UPDATE_ERROR=$(why); say "it failed, going on with the lists that are there: $UPDATE_ERROR"; }
    apt_packages
}

# apt_packages: installs them, as the lists know them now.
# shellcheck disable=SC2086 # a list of words
apt_packages() {
    PACKAGES=
    each "$WORK/missing" collect known
    [ -n "$PACKAGES" ] || return 0
    hold_daemons
    if ! { apt_room && apt_get install -y --no-install-recommends $PACKAGES; }; then
        say "apt-get install: $(why)"
        each "$WORK/missing" apt_failed
        PACKAGES=
    fi
    release_daemons
    [ -n "$PACKAGES" ] || return 0
    dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' $PACKAGES 2>/dev/null |
        sed -n 's/^ii */install-deps: installed /p' >&2
}

# debian_mirror: the one named, the one this system uses, or (Ubuntu) the one that debootstrap would.
debian_mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then echo "$DEBIAN_MIRROR"; return; fi
    # shellcheck disable=SC2016 # apt's own placeholders
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' 'Component: main' 2>/dev/null |
        awk '$2 == "Debian" { print $1; exit }')
    [ -n "$mirror" ] || mirror=$(sed -n 's/^DEF_MIRROR="\(.*\)"$/\1/p' /usr/sbin/debootstrap 2>/dev/null)
    echo "$mirror"
}

# private_apt SUITE ARCH: sets root, an apt root of its own with fresh lists: the system's sources, lists and packages
# stay as they are, and apt still checks the archive's signature.
private_apt() {
    root=$WORK/apt-$1-$2
    if [ -e "$root/failed" ]; then cp "$root/failed" "$WORK/log"; return 1; fi
    [ ! -e "$root/ready" ] || return 0
    mirror=$(debian_mirror)
    if [ -z "$mirror" ] && [ "$(id -u)" -eq 0 ]; then
        apt_update || return 1 # the mirror is known by its lists
        mirror=$(debian_mirror)
    fi
    [ -n "$mirror" ] || { echo 'error: this system knows no Debian mirror' >"$WORK/log"; return 1; }
    # Beside the archive's own directory, on every mirror that has it.
    case $1 in *-security) mirror=${mirror%/} mirror=${mirror%/*}/debian-security ;; esac
    mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
    : >"$root/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$root/sources.list"
    cat >"$root/apt.conf" <<CONF
Dir::State "$root/state";
Dir::State::Lists "$root/state/lists";
Dir::State::status "$root/status";
Dir::Cache "$root/cache";
Dir::Etc::sourcelist "$root/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "${2%%+*}";
APT::Architectures { $(echo "$2" | sed 's/[^+]*/"&";/g; s/+/ /g') };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
CONF
    apt_update -c "$root/apt.conf" || { cp "$WORK/log" "$root/failed"; return 1; }
    : >"$root/ready"
}

# fetch_unpack: from the first suite that has them all.
fetch_unpack() {
    suites=${how#unpack:} arch=$(dpkg --print-architecture)
    case $suites in */*) arch=${suites#*/} suites=${suites%/*} ;; esac
    for suite in $(echo "$suites" | tr , ' '); do
        if private_apt "$suite" "$arch" && unpack; then return 0; fi
        impatient
        say "$tool: $suite: $(why)"
        failed "$suite: $(why)"
        case " $DEAD " in *" unpack "*) break ;; esac
    done
    echo "error: no Debian named has it: $suites" >"$WORK/log"
    return 1
}

# shellcheck disable=SC2086 # a list of words
unpack() {
    names=
    for name in $package; do
        case $name in
            linux-image-*) # Empty, and depends on the newest kernel.
                name=$(apt-cache -c "$root/apt.conf" depends "$name" 2>/dev/null |
                    sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1) ;;
        esac
        names="$names $name"
    done
    rm -rf "$root/debs"
    mkdir "$root/debs"
    in_time sh -c 'cd "$1" && shift && exec apt-get -q "$@"' - "$root/debs" -c "$root/apt.conf" -o Acquire::Retries=1 \
        -o Acquire::http::Timeout="$ANSWER" -o Acquire::https::Timeout="$ANSWER" download $names || return 1
    mkdir -p "$dir"
    find "$root/debs" -name '*.deb' | while read -r deb; do in_time dpkg -x "$deb" "$dir" || exit 1; done
}
