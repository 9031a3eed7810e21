# shellcheck shell=sh
# What the scripts that build know of architectures: --arch says which, or else TARGET_ARCH, as other build systems ask
# for it. Sourced, not run. The caller has die.

# check_arch WHERE ARCH: WHERE is what a person has to put right.
check_arch() {
    case $2 in amd64 | arm64) ;; *) misuse "$1 must be amd64 or arm64, not '$2'" ;; esac
}

# arch_or_target: sets ARCH from TARGET_ARCH, where no --arch has set it.
arch_or_target() {
    if [ -n "$ARCH" ] || [ -z "${TARGET_ARCH:-}" ]; then return 0; fi
    check_arch TARGET_ARCH "$TARGET_ARCH"
    ARCH=$TARGET_ARCH
}
