#!/bin/sh
# The agent as a small container image, for both architectures: what deploy/kubernetes/ runs.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=scripts/lib/cli.sh
. "$REPO/scripts/lib/cli.sh"
SYSTEM_CA=/etc/ssl/certs/ca-certificates.crt

AGENT_DIR=
VERSION=
CA_FILE=$SYSTEM_CA
LICENSES=
SOURCE=
ARCHES=
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
CREATED=
DIGEST=

usage() {
    cat <<USAGE
Usage: scripts/build-agent-image.sh --agent-dir DIR [--layout DIR --tag TAG] [--push HOST/REPO:TAG] [OPTION]...

Makes a container image of nothing but the agent (/usr/bin/kubesolo-update, the entry point) and CA certificates,
for amd64 and arm64, below one index. Prints the digest of the index: pin it where the image is used.

  --agent-dir DIR        has kubesolo-update-amd64 and kubesolo-update-arm64 (make build: dist)
  --arch amd64|arm64     only this architecture (default: the one that the variable TARGET_ARCH names, or else both)
  --layout DIR           put it into this OCI image layout, which is made where it is missing, as --tag
  --tag TAG              its name there
  --push HOST/REPO:TAG   push it to this registry (credentials: Docker's config.json); the tag is moved last
  --plain-http           the registry speaks no TLS
  --version V            version of the agent (default: that of Cargo.toml)
  --ca-file FILE         CA certificates that servers are held to, PEM (default: $SYSTEM_CA
                         of this machine)
  --no-ca                none: each machine's ca_file, or plain HTTP
  --licenses FILE        licence texts of what is linked in (default: THIRD-PARTY-LICENSES.txt in --agent-dir;
                         scripts/licenses.sh makes it): they and LICENSE get into /usr/share/doc/kubesolo-update
  --source URL           where the agent's sources are: label org.opencontainers.image.source
  --dry-run              make it, say its digest, keep and push nothing
  -h, --help             this text

With the same input (agents, CA certificates) and SOURCE_DATE_EPOCH (default: 0) the image is the same, byte for byte.
USAGE
}

# shellcheck source=scripts/lib/arch.sh
. "$REPO/scripts/lib/arch.sh"

# shellcheck source=scripts/lib/oci-image.sh
. "$REPO/scripts/lib/oci-image.sh"

# check_agent ARCH: a program of that architecture that needs no libraries, which the image has none of.
check_agent() {
    agent=$AGENT_DIR/kubesolo-update-$1
    if [ ! -f "$agent" ] || [ ! -s "$agent" ]; then
        die "$agent is not a regular file, or empty: make build makes it; --arch takes one architecture alone"
    fi
    machine=$(readelf -h "$agent" 2>/dev/null | sed -n 's/^ *Machine: *//p')
    case $1:$machine in
        amd64:*X86-64* | arm64:*AArch64*) ;;
        *:) die "$agent is not a program" ;;
        *) die "$agent is not for $1, but for $machine" ;;
    esac
    if readelf -lW "$agent" | grep -q ' INTERP '; then
        die "$agent is dynamically linked, and the image has no libraries (scripts/build.sh makes a static one)"
    fi
}

check_ca() {
    [ -f "$CA_FILE" ] || die "$CA_FILE is not a file: --ca-file names CA certificates, --no-ca goes without"
    if grep -q 'PRIVATE KEY' "$CA_FILE"; then die "$CA_FILE holds a PRIVATE KEY: it must not leave your machine"; fi
    grep -q 'BEGIN CERTIFICATE' "$CA_FILE" || die "$CA_FILE holds no certificate in PEM"
}

# check_licenses: whoever hands the image on has to hand on the texts as well.
check_licenses() {
    if [ -z "$LICENSES" ]; then
        LICENSES=$AGENT_DIR/THIRD-PARTY-LICENSES.txt
        if [ ! -e "$LICENSES" ]; then
            warn "no $LICENSES: an image for this machine's owner only." \
                "Next, to hand it on: scripts/licenses.sh --output $LICENSES"
            LICENSES=
            return
        fi
    fi
    [ -f "$LICENSES" ] || die "$LICENSES is not a file: --licenses names what scripts/licenses.sh made"
    head=$(head -n 1 -- "$LICENSES" | tr -d '\000')
    case $head in
        "Licences of what is linked into kubesolo-update $VERSION") ;;
        'Licences of what is linked into kubesolo-update '*)
            die "$LICENSES has the texts of version ${head##* }, and the agent is $VERSION: scripts/licenses.sh --output $LICENSES" \
                "makes those of this source (--version names another)" ;;
        *) die "$LICENSES was not made by scripts/licenses.sh, or is cut off at its start" ;;
    esac
    # Each text has a heading with its number, between two rules.
    texts=$(awk 'function rule(line) { return line ~ /^-+$/ && length(line) == 72 }
        rule($0) && rule(above) && heading ~ /^\[[0-9]+\] / { n++ } { above = heading; heading = $0 } END { print n + 0 }' "$LICENSES")
    [ "$(tail -n 1 -- "$LICENSES" | tr -d '\000')" = "End of the licences: $texts texts" ] ||
        die "$LICENSES is cut, or was made by an earlier scripts/licenses.sh: scripts/licenses.sh --output $LICENSES makes it anew"
}

check() {
    check_tools readelf
    [ -n "$AGENT_DIR" ] || misuse "--agent-dir is missing"
    [ -d "$AGENT_DIR" ] || die "$AGENT_DIR is not a directory"
    arch_or_target
    [ -n "$ARCHES" ] || ARCHES=" ${ARCH:-amd64 arm64}"
    [ -n "$VERSION" ] || VERSION=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$REPO/Cargo.toml")
    lint --version "$VERSION"
    if [ -n "$SOURCE" ]; then check_url --source "$SOURCE"; fi
    check_created
    for arch in $ARCHES; do check_agent "$arch"; done
    if [ -n "$CA_FILE" ]; then check_ca; fi
    check_licenses
    check_targets
}

# put MODE FILE PATH
put() {
    mkdir -p "$(dirname -- "$tree/$3")"
    cp -- "$2" "$tree/$3"
    chmod "$1" "$tree/$3"
}

# make ARCH: certificates, which change seldom and are the same everywhere, then the agent.
make() {
    tree=$WORK/tree-$1
    image_new "$1"
    if [ -n "$CA_FILE" ]; then
        # The first place where the agent looks (src/os/system.rs).
        put 644 "$CA_FILE" etc/ssl/certs/ca-certificates.crt
        image_layer "$1" "$tree" etc
    fi
    put 755 "$AGENT_DIR/kubesolo-update-$1" usr/bin/kubesolo-update
    if [ -n "$LICENSES" ]; then
        put 644 "$REPO/LICENSE" usr/share/doc/kubesolo-update/LICENSE
        put 644 "$LICENSES" usr/share/doc/kubesolo-update/THIRD-PARTY-LICENSES.txt
    fi
    image_layer "$1" "$tree" usr
    # Root: it opens block devices and mounts what is on them.
    image_config "$1" \
        "org.opencontainers.image.title=kubesolo-update" \
        "org.opencontainers.image.description=Update agent of KubeSolo OS" \
        "org.opencontainers.image.licenses=MIT" \
        "org.opencontainers.image.version=$VERSION" \
        "org.opencontainers.image.created=$CREATED" \
        ${SOURCE:+"org.opencontainers.image.source=$SOURCE"} \
        -- --config.user 0:0 --config.workingdir / --config.env PATH=/usr/bin \
        --config.entrypoint /usr/bin/kubesolo-update --config.cmd --help
}

main() {
    LC_ALL=C
    export LC_ALL
    umask 022
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --no-ca) CA_FILE=; shift; continue ;;
            --plain-http | --dry-run) image_option "$1"; shift; continue ;;
            --agent-dir | --arch | --layout | --tag | --push | --version | --ca-file | --licenses | --source)
                need_value "$@" ;;
            *) misuse "unknown option: $1" ;;
        esac
        case $1 in
            --agent-dir) AGENT_DIR=$2 ;;
            --arch) add_arch "$2" ;;
            --layout | --tag | --push) image_option "$1" "$2" ;;
            --version) VERSION=$2 ;;
            --ca-file) CA_FILE=$2 ;;
            --licenses) [ -n "$2" ] || misuse "--licenses needs a value"; LICENSES=$2 ;;
            --source) SOURCE=$2 ;;
        esac
        shift 2
    done
    check
    work_folder
    made=
    # In one order, whatever order they were given in.
    for arch in amd64 arm64; do
        case " $ARCHES " in *" $arch "*) make "$arch"; made="$made $arch" ;; esac
    done
    # shellcheck disable=SC2086 # a list of words
    image_index $made
    say "kubesolo-update $VERSION for$made: index $DIGEST"
    image_deliver
    printf '%s\n' "$DIGEST"
}

main "$@"
