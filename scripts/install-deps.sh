#!/bin/sh
# Installs what scripts/deps.tsv lists for a group, where it is missing. Names and versions are there; how packages are
# brought is in scripts/lib/deps-apt.sh and deps-ways.sh; here is what is missing, in which order it comes, and what is said.
set -euf

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
TABLE=$REPO/scripts/deps.tsv
TAB=$(printf '\t')
# Exit code: something is missing that could not be had.
MISSING=3
# sgdisk, mkfs.ext4 and losetup live in sbin, which a plain user's PATH lacks.
PATH=$REPO/.tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

DRY_RUN=no OPTIONAL=no WANTED='' POLICY_RC=''

usage() {
    cat <<USAGE
Usage: scripts/install-deps.sh [--dry-run] [--optional] GROUP...

Installs what is missing for each GROUP, and is silent and quick where nothing is.

$(awk -F '\t' '$1 == "#group" { printf "  %-9s %s\n", $2, $3 }' "$TABLE")

Debian packages come from apt (as root; otherwise the command to run is printed). All else goes below .tools/ in
this repository, and nowhere else. What is installed is listed in scripts/deps.tsv.

  --dry-run    say what would be installed, change nothing; ends with 0
  --optional   go on without what cannot be had, but for group build; tests that need it are skipped loudly. Where CI
               is set, only group extra is optional
  -h, --help   this text

DEBIAN_MIRROR=URL names the mirror that packages of another Debian come from (default: this system's own);
DEPS_ANSWER=SECONDS how long to wait for a server that says nothing (default: 10).
Exit codes: 0 nothing is missing; 1 error; 2 wrong usage; 3 something could not be had: what, why, and the next command are said.
USAGE
}

have() { command -v "$1" >/dev/null 2>&1; }

clean_up() { [ -z "$POLICY_RC" ] || rm -f "$POLICY_RC"; }

loud() {
    printf '%s\n' '' '**********************************************************************' >&2
    sed 's/^/* /' >&2
    printf '%s\n' '**********************************************************************' '' >&2
}

# rows GROUP...: the rows of these groups.
rows() {
    awk -F '\t' -v groups=" $* " '/^[^#]/ { n = split($1, g, ",")
        for (i = 1; i <= n; i++) if (index(groups, " " g[i] " ")) { print; next } }' "$TABLE"
}

# each FILE COMMAND...: calls it for each row, whose columns are in variables.
each() {
    file=$1
    shift
    while IFS=$TAB read -r groups probe how package version cost purpose <&3; do "$@" </dev/null; done 3<"$file"
}

at_least() {
    awk -v min="$1" 'match($0, /[0-9]+\.[0-9]+/) {
            split(substr($0, RSTART, RLENGTH), v, "."); split(min, m, ".")
            ok = v[1] + 0 > m[1] + 0 || (v[1] + 0 == m[1] + 0 && v[2] + 0 >= m[2] + 0); exit }
        END { exit !ok }'
}

# found: whether what a row is for is there.
# shellcheck disable=SC2086 # lists of words
found() {
    case $probe in
        *' >= '*) timeout 30 ${probe% >= *} 2>/dev/null | at_least "${probe##* >= }" ;;
        *' ~ '*) case $(timeout 30 ${probe%% ~ *} 2>/dev/null) in *"${probe#* ~ }"*) ;; *) return 1 ;; esac ;;
        *' =') [ "$(cat "${probe% =}" 2>/dev/null)" = "$version" ] ;;
        /* | .tools/*) [ -e "$probe" ] ;;
        *) have "$probe" ;;
    esac
}

show_missing() {
    if found; then return; fi
    # Where there is a rustup, its components count, and Debian's do not.
    if [ "$how" = apt ] && have rustup && cut -f 2,3 "$WORK/rows" | grep -qxF "$probe${TAB}rustup"; then return; fi
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$groups" "$probe" "$how" "$package" "$version" "$cost" "$purpose"
}

# plan GROUP...: what is missing for them, and for the ways to install that, into $WORK/missing.
plan() {
    rows "$@" >"$WORK/rows"
    each "$WORK/rows" show_missing >"$WORK/missing"
    # Of several rows with one probe the first counts here; what the others need is brought when it is their turn.
    kinds=$(awk -F '\t' '!seen[$2]++ && $3 != "apt" { sub(/:.*/, "", $3); print $3 }' "$WORK/missing" | sort -u)
    [ -n "$kinds" ] || return 0
    # shellcheck disable=SC2086 # a list of words
    rows "$@" $kinds >"$WORK/rows"
    each "$WORK/rows" show_missing >"$WORK/missing"
}

# Said first: what will be done, and how long that takes.
announce() {
    say "$(awk -F '\t' '
        seen[$2]++ { next }
        $3 == "apt" { n = split($4, names, " "); for (i = 1; i <= n; i++) if (!had[names[i]]++) apt++; next }
        { sub(/:.*/, "", $3); count[$3]++; split($6, c, "/"); mib += c[1]; seconds += c[2] }
        END {
            if (apt) { text = apt " with apt"; seconds += 20 + 2 * apt }
            for (how in count) text = text (text ? ", " : "") count[how] " with " how
            printf "missing: %s; about %d min", text, (seconds + 59) / 60
            if (mib) printf ", %d MiB in .tools", mib
        }' "$WORK/missing") (for$WANTED)"
}

# failed REASON: noted for the row whose turn it is.
failed() { printf '%s\t%s, %s: %s\n' "$probe" "$how" "$package" "$1" >>"$WORK/reasons"; }

# tool: what the row brings, in few words.
tool() {
    case $probe in
        .tools/*) tool=${probe#.tools/} tool=${tool%/*} ;;
        /*' '* | scripts/*) tool=$purpose ;;
        'cargo '*) tool=${probe%% --*} ;;
        */__init__.py) tool=${probe%/*} tool=python3-${tool##*/} ;;
        *) tool=${probe%% *} tool=${tool##*/} ;;
    esac
}

# bring: a row that is not apt's.
bring() {
    if [ "$how" = apt ] || found; then return; fi
    way=${how%%:*}
    case $probe in
        *' =' | .tools/*) dir=$REPO/${probe%/*} mark=${probe##*/} mark=${mark% =} ;;
        *) dir=$REPO/.tools/${probe%% *} mark=versions ;;
    esac
    tool
    if [ "$DRY_RUN" = yes ] && grep -qxF "$probe" "$WORK/said"; then return; fi
    echo "$probe" >>"$WORK/said"
    pinned=
    if [ "$version" != - ]; then pinned=" ($version)"; fi
    say "$tool is missing: $how, $package$pinned"
    if [ "$DRY_RUN" = yes ]; then return; fi
    case " $DEAD " in *" $way "*) failed "not tried: no connection before"; return ;; esac
    if rows "$way" | grep -q . && ! "$0" "$way" 2>"$WORK/inner"; then
        failed "what $way itself needs is missing:$(sed -n 's/^\* *apt, [^:]*:\( .*\)/\1/p' "$WORK/inner" | head -n 1)"
        return
    fi
    if fetch_one && { [ "$way" = rustup ] || settle; } && found; then
        say "installed $tool"
        return
    fi
    impatient
    failed "$(why)"
    say "$tool: $(why)"
}

show_lack() {
    if found || grep -qxF "$probe" "$WORK/told"; then return; fi
    printf '%s\n' "$probe" >>"$WORK/told"
    tool
    printf 'MISSING: %s (%s)\n' "$tool" "$purpose"
    awk -F '\t' -v probe="$probe" '$1 == probe && !seen[$2]++ { print "    " $2 }' "$WORK/reasons"
    case ",$groups," in
        *,build,*) : >"$WORK/needed" ;;
        *,extra,*) printf '%s\n' "$tool" >>"$WORK/skipped" ;;
        *) if [ -n "${CI:-}" ]; then : >"$WORK/needed"; fi ;;
    esac
}

# hints: the next command to type, by what the reasons say.
hints() {
    hint() { if grep -qiE "$1" "$WORK/reasons"; then printf '%s\n' "$2"; fi; }
    hint 'no space|not enough free space' 'Next: make room there (TMPDIR=DIR moves what is only needed meanwhile)'
    hint 'resolv|connect|unreachable|timed? ?out|network|no such host' \
        "Next: ip route; cat /etc/resolv.conf. Is there a network? If it needs a proxy: export http_proxy=URL https_proxy=URL (sudo -E)"
    hint 'expired|not valid yet|certificate.verify' "Next: date (it says $(date -u +%FT%TZ)); set the clock if that is wrong"
    hint 'does not have a release file|404|knows no|unable to locate|no debian mirror' \
        'Next: apt-get update; another mirror that has all suites: export DEBIAN_MIRROR=URL'
    hint 'frontend lock|could not get lock' \
        'Next: wait until the other apt has ended (ps -C apt,apt-get,dpkg,unattended-upgr)'
    hint 'permission denied|not permitted|are you root|unable to lock|setgroups|read-only' \
        'Next: start this as root of the machine itself; in a container, as a privileged one'
    printf 'Then again: scripts/install-deps.sh%s\n' "$WANTED"
}

# What an earlier run could not have may be there now.
forget_skipped() { case "$DRY_RUN $WANTED " in no*' extra '*) rm -f .tools/missing 2>/dev/null || true ;; esac; }

# Ends with 0 where nothing is missing.
report() {
    : >"$WORK/told"
    forget_skipped
    # shellcheck disable=SC2086 # a list of words
    rows $WANTED >"$WORK/rows"
    each "$WORK/rows" show_lack >"$WORK/lacks"
    [ -s "$WORK/lacks" ] || return 0
    # Read by the tests: what could not be had is skipped even in CI, where all else must be there.
    if [ -e "$WORK/skipped" ]; then mkdir -p .tools && cp "$WORK/skipped" .tools/missing; fi
    if [ "$OPTIONAL" = yes ] && [ ! -e "$WORK/needed" ]; then
        { cat "$WORK/lacks"; hints; echo 'SKIP: what needs these tools will be left out (--optional)'; } | loud
        return 0
    fi
    { cat "$WORK/lacks"; hints; } | loud
    if [ -n "${CI:-}" ]; then say "error: CI must have everything but group extra, which --optional goes on without"; fi
    return "$MISSING"
}

# Two runs would empty each other's directories. The inner runs belong to the outer one; who may not write here installs
# nothing here either.
one_at_a_time() {
    if [ -n "${DEPS_INNER:-}" ]; then return; fi
    export DEPS_INNER=yes
    mkdir -p .tools 2>/dev/null || return 0
    # shellcheck disable=SC2188 # whether it can be opened
    if ! have flock || ! (: >>.tools/lock) 2>/dev/null; then return; fi
    exec 9>>.tools/lock
    if flock -n 9; then return; fi
    say "another run is at work here: waiting for it, at most 30 minutes"
    flock -w 1800 9 || die "another run is still at work here (ps -C install-deps.sh)"
}

main() {
    known=" $(awk -F '\t' '/^[^#]/ { print $1 }' "$TABLE" | tr ',\n' '  ') "
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --dry-run) DRY_RUN=yes ;;
            --optional) OPTIONAL=yes ;;
            *)
                case $known in *" $1 "*) ;; *) misuse "unknown group or option: $1" ;; esac
                WANTED="$WANTED $1"
                ;;
        esac
        shift
    done
    [ -n "$WANTED" ] || misuse "no group given"
    # Probes name files of this repository.
    cd "$REPO"
    trap 'say "interrupted; type the same again"; exit 130' INT
    work_folder
    : >"$WORK/reasons"
    : >"$WORK/said"
    # shellcheck disable=SC2086 # a list of words
    plan $WANTED
    [ -s "$WORK/missing" ] || { forget_skipped; exit 0; }
    if [ "$DRY_RUN" = no ]; then
        one_at_a_time
        # Another run may have brought it meanwhile.
        # shellcheck disable=SC2086 # a list of words
        plan $WANTED
        [ -s "$WORK/missing" ] || { forget_skipped; exit 0; }
    fi
    announce
    install_packages
    # A package may push out another one that was there from elsewhere: Debian 12's qemu-system-x86 does that to a
    # backported qemu-utils.
    # shellcheck disable=SC2086 # a list of words
    if [ "$DRY_RUN" = no ] && [ -n "$PACKAGES" ]; then plan $WANTED; apt_packages; fi
    each "$WORK/missing" bring
    if [ "$DRY_RUN" = no ]; then report; fi
}

# shellcheck source=scripts/lib/deps-apt.sh
. "$REPO/scripts/lib/deps-apt.sh"
# shellcheck source=scripts/lib/deps-ways.sh
. "$REPO/scripts/lib/deps-ways.sh"
main "$@"
