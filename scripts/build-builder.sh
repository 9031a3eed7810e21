#!/bin/sh
# Builds the container that the pipelines build in, with buildah; or brings its list of Debian packages up to date.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
LOCK=$REPO/scripts/builder-packages.lock
BASE=
TAG=localhost/kubesolo-update-builder
LOCK_ONLY=no
CONTAINER=
NEW=

usage() {
    cat <<USAGE
Usage: scripts/build-builder.sh --base IMAGE@sha256:DIGEST [OPTION]...

Builds scripts/Dockerfile.builder on a base image of Debian 12 (amd64), which has to be named by its digest. The
packages are those of scripts/builder-packages.lock, in these versions and no others: when Debian has replaced one
of them, the build fails, until --lock-only was run and its result committed. As root. buildah's own variables
(STORAGE_DRIVER, BUILDAH_ISOLATION) say how and where it stores and runs.

  --arch amd64          what the image runs on (default: the one that the variable TARGET_ARCH names, or else amd64);
                        it is for amd64 alone, and builds the agent for both
  --tag NAME            name of the image (default: $TAG)
  --lock FILE           another list (default: scripts/builder-packages.lock)
  --lock-only           writes that list anew, with the versions of today, and builds nothing
  --root DIR            keep images below DIR
  --volume FROM:TO:ro   hands in a file of this machine while packages are installed: a list of mirrors (of one day,
                        for instance), a CA certificate, pip.conf. May be given several times; names of files
                        without blanks
  -h, --help            this text
USAGE
}

# shellcheck source=scripts/lib/arch.sh
. "$REPO/scripts/lib/arch.sh"

clean_up() {
    [ -z "$NEW" ] || rm -f "$NEW"
    [ -z "$CONTAINER" ] || in_store rm "$CONTAINER" >/dev/null
}

# shellcheck disable=SC2086 # a list of words
in_store() { buildah $STORE "$@"; }

# context: the few files that the Dockerfile copies, in a directory of their own.
context() {
    mkdir -p "$WORK/context/scripts/lib"
    cp -p "$REPO/Cargo.toml" "$WORK/context/"
    for file in build.sh install-deps.sh deps.tsv lib/cli.sh lib/deps-apt.sh lib/deps-ways.sh builder-packages.sh \
        builder-pip.lock; do
        cp -p "$REPO/scripts/$file" "$WORK/context/scripts/$file"
    done
}

write_lock() {
    CONTAINER=$(in_store from --pull-never "$BASE" 2>/dev/null || in_store from "$BASE")
    in_store copy -q "$CONTAINER" "$WORK/context" /opt/builder >/dev/null
    # shellcheck disable=SC2086 # a list of words
    in_store run $VOLUMES "$CONTAINER" -- /opt/builder/scripts/builder-packages.sh resolve >"$WORK/lock"
    NEW=$(dirname -- "$LOCK")/.builder-lock.$$
    {
        printf '# Debian packages of the builder (scripts/Dockerfile.builder), amd64. Written by make builder-lock.\n'
        cat "$WORK/lock"
    } >"$NEW"
    chmod 644 "$NEW"
    mv -f -- "$NEW" "$LOCK"
    NEW=
    say "$(wc -l <"$WORK/lock") packages in $LOCK"
}

build() {
    cp -- "$LOCK" "$WORK/context/scripts/builder-packages.lock"
    # shellcheck disable=SC2086 # a list of words
    in_store bud --quiet --build-arg BASE="$BASE" $VOLUMES -f "$REPO/scripts/Dockerfile.builder" -t "$TAG" \
        "$WORK/context" || die "the image was not built"
    say "built $TAG"
}

main() {
    STORE='' VOLUMES='' ARCH=
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --lock-only) LOCK_ONLY=yes; shift; continue ;;
            --arch | --base | --tag | --lock | --root | --volume) need_value "$@" ;;
            *) misuse "unknown option: $1" ;;
        esac
        case $1 in
            --arch) check_arch --arch "$2"; ARCH=$2 ;;
            --base) BASE=$2 ;;
            --tag) TAG=$2 ;;
            --lock) LOCK=$2 ;;
            --root)
                matches "$2" '/[^[:space:]]+' || misuse "--root must be an absolute path without blanks, not '$2'"
                STORE="--root $2/images --runroot $2/run"
                ;;
            --volume)
                matches "$2" '/[^[:space:]:]+:/[^[:space:]:]+:ro' || misuse "--volume must be /FROM:/TO:ro, not '$2'"
                [ -e "${2%%:*}" ] || die "--volume ${2%%:*} does not exist"
                VOLUMES="$VOLUMES --volume $2"
                ;;
        esac
        shift 2
    done
    arch_or_target
    [ "${ARCH:-amd64}" = amd64 ] ||
        die "the builder's image is for amd64 alone, not $ARCH: it builds the agent for both (--arch amd64)"
    [ -n "$BASE" ] || misuse "--base is missing"
    matches "$BASE" '[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}' ||
        die "--base must name an image by its digest, IMAGE@sha256:DIGEST, not '$BASE': under a name alone, it could" \
            "be another one tomorrow"
    matches "$TAG" '[a-z0-9][A-Za-z0-9._:/-]*' || die "--tag '$TAG' is not an image name"
    [ "$LOCK_ONLY" = yes ] || [ -f "$LOCK" ] || die "--lock $LOCK is not a file: make builder-lock writes it"
    need_tools "scripts/install-deps.sh test brings it" buildah
    [ "$(id -u)" -eq 0 ] || die "not root"
    work_folder
    context
    if [ "$LOCK_ONLY" = yes ]; then write_lock; else build; fi
}

main "$@"
