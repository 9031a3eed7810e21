#!/bin/sh
# Puts the agent, its configuration, keys, health checks and boot hooks into an existing initramfs, by
# appending one gzip'd cpio segment. What is there is copied byte for byte, and never unpacked.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
HOOKS=$REPO/deploy/initramfs

INITRAMFS=
OUTPUT=
AGENT=
ARCH=
CONF=
KEYS=
DRY_RUN=no
FORCE=no

usage() {
    cat <<USAGE
Usage: scripts/inject-agent.sh --initramfs IN --output OUT --agent BINARY [OPTION]...

Appends a cpio segment with the agent and its boot hooks (deploy/initramfs/) to an initramfs: gzip'd cpio, in one piece
or several, with an uncompressed archive (microcode) in front or not. Refuses where that would take the place of what
lies there: a symbolic link /usr for example, whatever archive it is in.

  --arch amd64|arm64    architecture that the agent must be for (default: the one that the variable TARGET_ARCH names,
                        or else this machine's)
  --conf FILE           becomes /etc/kubesolo/update.conf; refused where the agent would not take it
  --keys DIR            its *.pub, and its revoked/, become /etc/kubesolo/update-keys.d
  --health-check FILE   becomes an executable in /etc/kubesolo/health.d (may be given more than once)
  --force               replace OUT where it is there
  --dry-run             check everything, say what would be appended, write nothing
  -h, --help            this text

With the same input and SOURCE_DATE_EPOCH (default: 0) the output is the same, byte for byte.
USAGE
}

# shellcheck source=scripts/lib/arch.sh
. "$REPO/scripts/lib/arch.sh"

check_agent() {
    machine=$(readelf -h "$AGENT" 2>/dev/null | sed -n 's/^ *Machine: *//p')
    case $machine in
        '') die "$AGENT is not a program" ;;
        *X86-64*) has=amd64 ;;
        *AArch64*) has=arm64 ;;
        *) die "$AGENT is for neither amd64 nor arm64, but $machine" ;;
    esac
    [ "$has" = "$ARCH" ] || die "$AGENT is for $has, not for $ARCH (--arch)"
    if readelf -lW "$AGENT" | grep -q ' INTERP '; then
        die "$AGENT is dynamically linked: an initramfs lacks its libraries (scripts/build.sh makes a static one)"
    fi
}

# shellcheck source=scripts/lib/pack.sh
. "$REPO/scripts/lib/pack.sh"
# shellcheck source=scripts/lib/site.sh
. "$REPO/scripts/lib/site.sh"

# look_up PATH: sets KIND and NAMES, the number of names that the file has; empty where nothing lies there.
look_up() {
    found=$(awk -F '\t' -v path="/$1" '$4 == path { print $1, $3 }' "$WORK/listing")
    KIND=${found% *}
    NAMES=${found#* }
}

# check_place PATH: whether what is appended as PATH gets there, and takes the place of nothing else. A directory takes
# the place of a link or a file of that name; a file is written through to the other names of the one that it replaces.
check_place() {
    look_up "$1"
    if [ -d "$WORK/tree/$1" ]; then
        case $KIND in
            '' | d) ;;
            l) die "/$1 is a symbolic link in $INITRAMFS: a directory in its place would hide what lies behind it (what makes" \
                "$INITRAMFS has to make /$1 a directory; links from other places into it may stay)" ;;
            *) die "/$1 is not a directory in $INITRAMFS: nothing can be put below it" ;;
        esac
    else
        case $KIND in
            d) die "/$1 is a directory in $INITRAMFS: no file can take its place" ;;
            f) [ "$NAMES" = 1 ] || die "/$1 has other names (hard links) in $INITRAMFS: they would be overwritten too" ;;
        esac
    fi
}

# check_places: parents come before what lies in them, so each is known to be a directory.
check_places() {
    (cd "$WORK/tree" && find . -mindepth 1 -print) | sed 's|^\./||' | LC_ALL=C sort >"$WORK/places"
    while IFS= read -r path; do check_place "$path"; done <"$WORK/places"
}

# list_it: every archive in it, as kernels unpack them one over the other. What its keys come to is judged with ours.
list_it() {
    find_agent
    "$KUBESOLO_UPDATE" lint --list --initramfs "$INITRAMFS" >"$WORK/listing" 2>"$WORK/log" || {
        words=$(cat "$WORK/log")
        die "${words#kubesolo-update: }"
    }
    sed 's/^kubesolo-update: /inject-agent: /' "$WORK/log" >&2
}

check() {
    need_tools "scripts/install-deps.sh image brings it" cpio gzip readelf find touch
    [ -n "$INITRAMFS" ] || misuse "--initramfs is missing"
    [ -n "$OUTPUT" ] || misuse "--output is missing"
    [ -n "$AGENT" ] || misuse "--agent is missing"
    check_arch --arch "$ARCH"
    for file in "$INITRAMFS" "$AGENT" ${CONF:+"$CONF"}; do
        if [ ! -s "$file" ] || [ ! -f "$file" ]; then die "$file is not a regular file, or empty"; fi
    done
    list_it
    check_agent
    if [ -n "$CONF" ]; then
        not_writable "$CONF"
        judge_conf "$CONF"
    fi
    if [ -n "$KEYS" ]; then
        check_keys "$KEYS"
    fi
    while IFS= read -r file; do
        if [ ! -f "$file" ] || [ ! -x "$file" ]; then die "--health-check $file is not an executable file"; fi
        not_writable "$file"
    done <"$WORK/checks"
    if [ -e "$OUTPUT" ]; then
        [ "$FORCE" = yes ] || die "$OUTPUT is there already (--force replaces it)"
        [ -f "$OUTPUT" ] || die "$OUTPUT is not a regular file"
    fi
    [ -d "$(dirname -- "$OUTPUT")" ] || die "the directory of $OUTPUT is missing"
}

# put MODE FILE PATH
put() {
    mkdir -p "$WORK/tree/$(dirname "$3")"
    cp "$2" "$WORK/tree/$3"
    chmod "$1" "$WORK/tree/$3"
}

make_tree() {
    put 755 "$AGENT" usr/bin/kubesolo-update
    for hook in boot health apply rescue; do
        put 755 "$HOOKS/kubesolo-update-$hook" "usr/bin/kubesolo-update-$hook"
    done
    # What whoever gets the agent must get with it; the second is as large as the agent's texts are (scripts/licenses.sh).
    put 644 "$REPO/LICENSE" usr/share/doc/kubesolo-update/LICENSE
    texts=$(dirname -- "$AGENT")/THIRD-PARTY-LICENSES.txt
    if [ -f "$texts" ]; then
        put 644 "$texts" usr/share/doc/kubesolo-update/THIRD-PARTY-LICENSES.txt
    else
        say "no ${texts##*/} beside $AGENT: the licences of what is linked into it are not put in (scripts/licenses.sh)"
    fi
    # busybox crond takes no file that others may read or write.
    put 600 "$HOOKS/crontab" etc/kubesolo/crontabs/root
    if [ -n "$CONF" ]; then put 644 "$CONF" etc/kubesolo/update.conf; fi
    if [ -n "$KEYS" ]; then
        for key in "$KEYS"/*.pub "$KEYS"/revoked/*; do
            [ -f "$key" ] || continue
            put 644 "$key" "etc/kubesolo/update-keys.d/${key#"$KEYS"/}"
        done
    fi
    while IFS= read -r file; do put 755 "$file" "etc/kubesolo/health.d/$(basename "$file")"; done <"$WORK/checks"
    find "$WORK/tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

# Sorted, root's, and without inode and device numbers of this machine.
make_segment() {
    (cd "$WORK/tree" && find . -mindepth 1 -print | sed 's|^\./||' | LC_ALL=C sort |
        cpio --quiet -o -H newc --reproducible -R +0:+0) | pack >"$WORK/segment"
}

# Behind an archive that is not compressed, kernels want a multiple of four bytes. Judged once more, as it will be booted: with
# what lies among the keys, whoever put it there. Machines would take no update for it, and be healthy.
join() {
    cat "$INITRAMFS" "$WORK/segment" >"$WORK/initramfs-with-agent"
    if ! "$KUBESOLO_UPDATE" lint --list --initramfs "$WORK/initramfs-with-agent" >/dev/null 2>&1; then
        size=$(wc -c <"$INITRAMFS")
        { cat "$INITRAMFS" && head -c $(((4 - size % 4) % 4)) /dev/zero && cat "$WORK/segment"; } >"$WORK/initramfs-with-agent"
    fi
    lint --initramfs "$WORK/initramfs-with-agent"
}

main() {
    work_folder
    umask 022
    : >"$WORK/checks"
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --force) FORCE=yes; shift; continue ;;
            --dry-run) DRY_RUN=yes; shift; continue ;;
            --initramfs | --output | --agent | --arch | --conf | --keys | --health-check)
                need_value "$@" ;;
            *) misuse "unknown option: $1" ;;
        esac
        case $1 in
            --initramfs) INITRAMFS=$2 ;;
            --output) OUTPUT=$2 ;;
            --agent) AGENT=$2 ;;
            --arch) ARCH=$2 ;;
            --conf) CONF=$2 ;;
            --keys) KEYS=$2 ;;
            --health-check) printf '%s\n' "$2" >>"$WORK/checks" ;;
        esac
        shift 2
    done
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
    arch_or_target
    if [ -z "$ARCH" ]; then
        case $(uname -m) in x86_64) ARCH=amd64 ;; aarch64) ARCH=arm64 ;; *) misuse "--arch is missing" ;; esac
    fi
    check
    make_tree
    check_places
    make_segment
    join
    say "$(wc -c <"$INITRAMFS") bytes of $INITRAMFS, then $(wc -c <"$WORK/segment") bytes with:"
    (cd "$WORK/tree" && find . -type f | LC_ALL=C sort | sed 's|^\.|  |') >&2
    if [ "$DRY_RUN" = yes ]; then say "dry run: nothing was written"; exit 0; fi
    # Beside the output: the last step is a rename, so it is whole or not there.
    new=$(mktemp "$OUTPUT.XXXXXX")
    cat "$WORK/initramfs-with-agent" >"$new" || { rm -f "$new"; die "cannot write $new"; }
    chmod 644 "$new"
    mv -f "$new" "$OUTPUT"
}

main "$@"
