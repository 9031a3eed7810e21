# shellcheck shell=sh
# GRUB in the images of scripts/build-image.sh: which of its platforms and modules are here, and how they get into the
# disk. Sourced, not run. Behind lib/cli.sh; the caller has ARCH, WORK, GRUB_CONFIG, GRUB_ROOT and REQUIRE_PLATFORMS.
#
# Versions differ (2.06 to 2.14 are tried: tests/grub/versions.rs). What the configuration needs is looked up in GRUB's own
# lists, never written down here; what has no list is below, and has to be there.

# shellcheck source=scripts/lib/unpacked.sh
. "$REPO/scripts/lib/unpacked.sh"

# All that GRUB needs is in it, its configuration too (memdisk, tar): nothing but the environment block is read from the
# EFI partition. gzio: arm64 kernels may be gzip.
GRUB_BASE='normal part_gpt fat ext2 memdisk tar gzio'
# Taken where they are there: for a person at the prompt, and (all_video: efi_gop, and efi_uga while GRUB had it) for
# a kernel that draws on the screen of the firmware.
GRUB_PROMPT='halt minicmd ls cat configfile'
# Commands that grub/grub.cfg does without where there are none.
GRUB_SPARE_COMMANDS=serial
# Partition 128: 34 to 2047.
BIOS_START=34
BIOS_SECTORS=2014
PLATFORMS=
EFI_TARGET=
EFI_NAME=
EFI_DIR=
BIOS_DIR=

# grub_tool PROGRAM ARGUMENT...: this system's, or that of --grub-dir.
grub_tool() {
    if [ -z "$GRUB_ROOT" ]; then "$@"; return; fi
    tool=$1
    shift
    unpacked "$GRUB_ROOT" "usr/bin/$tool" "$@"
}

check_grub_tools() {
    need_tools "scripts/install-deps.sh image brings it" tar
    for tool in grub-mkimage grub-script-check; do
        if [ -z "$GRUB_ROOT" ]; then need_tools "scripts/install-deps.sh image brings it" "$tool"; continue; fi
        [ -f "$GRUB_ROOT/usr/bin/$tool" ] ||
            die "$GRUB_ROOT/usr/bin/$tool is missing: --grub-dir takes packages unpacked (grub-common, from 2.14 on" \
                "grub2-common; grub-pc-bin, grub-efi-amd64-bin or grub-efi-arm64-bin)"
    done
}

# grub_dir TARGET FILE: prints where GRUB's files for a target are: this system's, or fetched ones; or those of --grub-dir,
# and no others.
grub_dir() {
    if [ -n "$GRUB_ROOT" ]; then
        set -- "$1" "$2" "$GRUB_ROOT"
    else
        set -- "$1" "$2" '' "$REPO/.tools/vm/amd64" "$REPO/.tools/vm/arm64"
    fi
    target=$1 file=$2
    shift 2
    for root in "$@"; do
        if [ -s "$root/usr/lib/grub/$target/$file" ]; then printf '%s\n' "$root/usr/lib/grub/$target"; return 0; fi
    done
    return 1
}

# package_of TARGET
package_of() {
    case $1 in
        i386-pc) echo grub-pc-bin ;;
        x86_64-efi) echo grub-efi-amd64-bin ;;
        *) echo grub-efi-arm64-bin ;;
    esac
}

# platform_missing TARGET FIRMWARE
platform_missing() {
    text="GRUB's files for $1 are missing (package $(package_of "$1")): the image does not boot on machines with $2"
    if [ "$REQUIRE_PLATFORMS" = yes ]; then die "$text"; fi
    say "WARNING: $text"
}

check_grub() {
    [ -s "$GRUB_CONFIG" ] || die "$GRUB_CONFIG is not a regular file, or empty"
    # Inside GRUB, a mistake can no longer be put right.
    grub_tool grub-script-check "$GRUB_CONFIG" || die "$GRUB_CONFIG is no GRUB configuration"
    EFI_TARGET=x86_64-efi EFI_NAME=BOOTX64.EFI
    if [ "$ARCH" = arm64 ]; then EFI_TARGET=arm64-efi EFI_NAME=BOOTAA64.EFI; fi
    EFI_DIR=$(grub_dir "$EFI_TARGET" normal.mod) || EFI_DIR=
    BIOS_DIR=
    if [ "$ARCH" = amd64 ]; then BIOS_DIR=$(grub_dir i386-pc boot.img) || BIOS_DIR=; fi
    if [ -z "$EFI_DIR$BIOS_DIR" ]; then
        packages=$(package_of "$EFI_TARGET")
        if [ "$ARCH" = amd64 ]; then packages="$packages or $(package_of i386-pc)"; fi
        die "GRUB's files for $ARCH are missing, the image would boot nowhere: package $packages, which" \
            "scripts/install-deps.sh image brings (or --no-bootloader)"
    fi
    [ -n "$EFI_DIR" ] || platform_missing "$EFI_TARGET" UEFI
    if [ "$ARCH" = amd64 ] && [ -z "$BIOS_DIR" ]; then platform_missing i386-pc BIOS; fi
    PLATFORMS="${EFI_DIR:+$EFI_TARGET}${EFI_DIR:+${BIOS_DIR:+, }}${BIOS_DIR:+i386-pc}"
    for dir in ${EFI_DIR:+"$EFI_DIR"} ${BIOS_DIR:+"$BIOS_DIR"}; do check_modules "$dir"; done
    if [ -n "$BIOS_DIR" ]; then check_boot_sectors; fi
}

# check_modules DIR: said before anything is written.
check_modules() {
    choose_modules "$1"
    if [ -n "$LEFT_OUT" ]; then say "GRUB $(version_of "$1"), ${1##*/}: it has no$LEFT_OUT: left out"; fi
    # Tool and modules are of one source; across versions nobody tries them.
    have=$(version_of "$1") tool_version=$(grub_tool grub-mkimage --version)
    tool_version=${tool_version##* }
    [ -z "$have" ] || [ "${tool_version%%-*}" = "${have%%-*}" ] ||
        say "WARNING: grub-mkimage is of GRUB $tool_version, and the files in $1 of $have: such an image is not tested"
}

# version_of DIR
version_of() { sed -n 's/^grub_version="\(.*\)"$/\1/p' "$1/modinfo.sh" 2>/dev/null || true; }

# choose_modules DIR: sets MODULES, and LEFT_OUT, those that are not there and nothing needs.
choose_modules() {
    target=${1##*/}
    # grub-mkimage takes dependencies from moddep.lst, and an empty one without a word.
    for list in command.lst crypto.lst moddep.lst kernel.img; do
        { [ -f "$1/$list" ] && [ -s "$1/$list" ]; } ||
            die "$1/$list is missing or empty: package $(package_of "$target") is not whole"
    done
    # A configuration of a test may take the one of the repository from elsewhere.
    found=$(awk -v optional="$GRUB_SPARE_COMMANDS" -f "$REPO/scripts/lib/grub-modules.awk" "$1/command.lst" \
        "$1/crypto.lst" "$GRUB_CONFIG" "$REPO/grub/grub.cfg") ||
        die "the modules that $GRUB_CONFIG needs could not be found out"
    unknown=$(printf '%s\n' "$found" | sed -n 's/^unknown //p' | tr '\n' ' ')
    [ -z "$unknown" ] || die "GRUB $(version_of "$1") in $1 does not know what $GRUB_CONFIG uses: ${unknown% }"
    needed="$GRUB_BASE $(printf '%s\n' "$found" | sed -n 's/^module //p' | grep -vx serial | tr '\n' ' ')"
    wanted=$GRUB_PROMPT
    case $target in
        i386-pc) needed="$needed biosdisk" wanted="$wanted serial" ;;
        x86_64-efi) wanted="$wanted all_video efi_gop serial" ;;
        *) wanted="$wanted all_video efi_gop" ;;
    esac
    for module in $needed; do
        [ -s "$1/$module.mod" ] ||
            die "GRUB $(version_of "$1") has no module $module for $target, and the image would not boot without it:" \
                "$1/$module.mod (package $(package_of "$target"))"
    done
    MODULES=$needed LEFT_OUT=
    for module in $wanted; do
        if [ -s "$1/$module.mod" ]; then MODULES="$MODULES $module"; else LEFT_OUT="$LEFT_OUT $module"; fi
    done
}

# What GRUB carries inside: the configuration, and the one line that starts it. That line is for a parser that
# knows no `if`, so it can do no more.
grub_inside() {
    cp "$GRUB_CONFIG" "$WORK/grub.cfg"
    tar --format=ustar --owner=0 --group=0 --numeric-owner --mode=644 --mtime=@0 -C "$WORK" -cf "$WORK/memdisk" grub.cfg
    printf 'normal (memdisk)/grub.cfg\n' >"$WORK/early.cfg"
}

# grub_image TARGET DIR PREFIX OUTPUT
grub_image() {
    choose_modules "$2"
    # -p behind -m, which sets another prefix.
    # shellcheck disable=SC2086 # a list of words
    grub_tool grub-mkimage -O "$1" -d "$2" -m "$WORK/memdisk" -c "$WORK/early.cfg" -p "$3" -o "$4" $MODULES \
        >"$WORK/log" 2>&1 ||
        { cat "$WORK/log" >&2; die "grub-mkimage could not make $1"; }
}

# patch FILE OFFSET ESCAPES: overwrites bytes.
patch() {
    # shellcheck disable=SC2059 # the escapes are what it is for
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# le VALUE BYTES: prints a number as printf escapes, lowest byte first.
le() {
    value=$1 count=$2
    while [ "$count" -gt 0 ]; do
        printf '\\%03o' $((value % 256))
        value=$((value / 256)) count=$((count - 1))
    done
}

# holds FILE OFFSET BYTES: where another GRUB keeps something else there, to patch it would make a disk that does not boot.
holds() {
    [ -f "$1" ] && [ -s "$1" ] || die "$1 is missing or empty: its package is not whole"
    count=$(($(printf '%s' "$3" | wc -c) / 2))
    found=$(od -An -v -tx1 -j "$2" -N "$count" "$1" | tr -d ' \n')
    [ "$found" = "$3" ] || die "$1 is not as in GRUB 2.06 to 2.14: at byte $2 is $found, not $3 (--no-bootloader)"
}

# check_boot_sectors: what bios_grub patches.
check_boot_sectors() {
    holds "$BIOS_DIR/boot.img" 92 0100000000000000
    holds "$BIOS_DIR/boot.img" 100 fffaeb05
    holds "$BIOS_DIR/diskboot.img" 500 020000000000000000002008
}

# bios_grub DISK: puts GRUB for BIOS into it. Source: boot.S and diskboot.S of GRUB 2.06, the same in 2.12 and 2.14; measured.
bios_grub() {
    # Without a disk in it, the prefix is on the disk that the BIOS started.
    grub_image i386-pc "$BIOS_DIR" '(,gpt1)/boot/grub' "$WORK/core"
    bytes=$(wc -c <"$WORK/core")
    sectors=$(((bytes + 511) / 512))
    [ "$sectors" -le "$BIOS_SECTORS" ] || die "GRUB for BIOS takes $sectors sectors, more than there are"
    # First sector of the core: where the others are, how many, and to which segment.
    patch "$WORK/core" 500 "$(le $((BIOS_START + 1)) 8)$(le $((sectors - 1)) 2)$(le 2080 2)"
    dd if="$WORK/core" of="$1" bs=512 seek="$BIOS_START" conv=notrunc status=none
    # The first 440 bytes are code; behind them are the disk's signature and the partition table.
    head -c 440 "$BIOS_DIR/boot.img" >"$WORK/boot"
    patch "$WORK/boot" 92 "$(le "$BIOS_START" 8)"
    # Start from the disk that the BIOS names, also where its number looks wrong (two no-operations).
    patch "$WORK/boot" 100 '\377'
    patch "$WORK/boot" 102 '\220\220'
    dd if="$WORK/boot" of="$1" conv=notrunc status=none
}

# efi_grub FILE_SYSTEM
efi_grub() {
    grub_image "$EFI_TARGET" "$EFI_DIR" /boot/grub "$WORK/$EFI_NAME"
    mmd -i "$1" ::/EFI/BOOT
    mcopy -i "$1" "$WORK/$EFI_NAME" "::/EFI/BOOT/$EFI_NAME"
}
