//! Other GRUBs than this system's, and other e2fsprogs: images of the next Debians boot as those of this one do.
//!
//! Where they come from: packages of other suites, unpacked below `.tools` (scripts/install-deps.sh vm).
//! Must never: pass on this system's GRUB in place of the one that a test names.

use crate::support::boot_table::{Bench, hold_grub};
use crate::support::disk::{B, Disk, noise};
use crate::support::grub_version::{E2FSPROGS, GRUB_2_12, GRUB_2_14, SYSTEM, Version, root, unpacked};
use crate::support::loader::{build_image, efi};
use crate::support::qemu::{Firmware, need_machine};
use crate::support::real_kernel::{Fault, boot_for_real, boot_rotten};
use crate::support::{command, run};
use kubesolo_update::parts::disk::superblock::{FileSystem, PROBE_BYTES, read};
use std::fs;
use std::path::Path;

fn hold_table(version: Version, firmware: Firmware) {
    need_machine(firmware);
    version.need(firmware);
    hold_grub(&version, firmware);
}

/// The system's own with this system's e2fsprogs: tests/grub/table.rs.
#[apply(long_test)]
fn this_systems_grub_reads_slots_of_e2fsprogs_1_47() {
    hold_table(SYSTEM, Firmware::Bios);
    hold_table(SYSTEM, Firmware::Uefi);
}

#[apply(long_test)]
fn grub_2_12_on_bios_does_what_the_function_says() {
    hold_table(GRUB_2_12, Firmware::Bios);
}

#[apply(long_test)]
fn grub_2_14_on_bios_does_what_the_function_says() {
    hold_table(GRUB_2_14, Firmware::Bios);
}

#[apply(long_test)]
fn grub_2_12_on_uefi_does_what_the_function_says() {
    hold_table(GRUB_2_12, Firmware::Uefi);
}

#[apply(long_test)]
fn grub_2_14_on_uefi_does_what_the_function_says() {
    hold_table(GRUB_2_14, Firmware::Uefi);
}

#[apply(long_test)]
fn grub_2_12_on_arm64_does_what_the_function_says() {
    hold_table(GRUB_2_12, Firmware::UefiArm64);
}

#[apply(long_test)]
fn grub_2_14_on_arm64_does_what_the_function_says() {
    hold_table(GRUB_2_14, Firmware::UefiArm64);
}

/// Past GRUB, with nothing replaced.
#[apply(long_test)]
fn a_real_kernel_starts_from_slots_of_e2fsprogs_1_47() {
    boot_for_real(SYSTEM, Firmware::Bios, Fault::None);
    boot_for_real(SYSTEM, Firmware::Uefi, Fault::None);
}

#[apply(long_test)]
fn a_real_kernel_starts_from_grub_2_12() {
    for firmware in [Firmware::Bios, Firmware::Uefi, Firmware::UefiArm64] {
        boot_for_real(GRUB_2_12, firmware, Fault::None);
    }
}

#[apply(long_test)]
fn a_real_kernel_starts_from_grub_2_14() {
    for firmware in [Firmware::Bios, Firmware::Uefi, Firmware::UefiArm64] {
        boot_for_real(GRUB_2_14, firmware, Fault::None);
    }
}

/// What GRUB 2.06 does to the second slot's command line, others may do in another way.
#[apply(long_test)]
fn a_bad_sector_in_one_slot_does_not_reach_into_the_other_in_any() {
    for version in [GRUB_2_12, GRUB_2_14] {
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            boot_for_real(version, firmware, Fault::Initramfs);
            boot_for_real(version, firmware, Fault::Kernel);
        }
        boot_for_real(version, Firmware::Bios, Fault::Digests);
    }
}

#[apply(long_test)]
fn a_confirmed_slot_that_rots_gives_way_to_the_other_in_any() {
    for version in [GRUB_2_12, GRUB_2_14] {
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            boot_rotten(version, firmware, 100);
        }
    }
}

/// With another GRUB and other e2fsprogs, too, the image is the same, byte for byte.
#[apply(long_test)]
fn images_of_other_versions_are_reproducible() {
    for version in [GRUB_2_12, GRUB_2_14] {
        need_machine(Firmware::Uefi);
        version.need(Firmware::Bios);
        version.need(Firmware::Uefi);
        let dir = tempfile::tempdir().unwrap();
        let images = ["first", "second"].map(|name| {
            let (work, image) = (tempfile::tempdir().unwrap(), dir.path().join(name));
            let mut build = build_image(work.path(), "amd64", &image);
            run(version.choose(&mut build).args(["--seed", "s"]).env("SOURCE_DATE_EPOCH", "1700000000"));
            fs::read(image).unwrap()
        });
        assert!(images[0] == images[1], "{version:?}: two runs differ");
        // It is that GRUB, and not this system's: its version is in what it says at a prompt.
        let (efi, number) = (efi(&dir.path().join("first")), version.grub.unwrap().trim_start_matches("grub-"));
        let loader = command("mtype").args(["-i", &efi, "::/EFI/BOOT/BOOTX64.EFI"]).output().unwrap().stdout;
        let named = |version: &str| loader.windows(version.len() + 1).any(|w| w == format!("\0{version}").as_bytes());
        let named = ["2.06", "2.12", "2.14"].map(named);
        assert_eq!(named, ["2.06", "2.12", "2.14"].map(|version| version == number));
    }
}

/// Makes the file system that `mke2fs -t ext4` of e2fsprogs 1.47 makes of itself: with what GRUB 2.06 was not made for.
fn default_ext4(image: &Path, tree: &Path, label: &str) -> String {
    let mut mke2fs = unpacked(E2FSPROGS, "usr/sbin/mke2fs");
    mke2fs.env("MKE2FS_CONFIG", root(E2FSPROGS).join("etc/mke2fs.conf"));
    run(mke2fs.args(["-q", "-F", "-t", "ext4", "-L", label, "-d"]).arg(tree).arg(image).arg("24M"));
    run(unpacked(E2FSPROGS, "usr/sbin/debugfs").args(["-R", "stats -h"]).arg(image))
}

/// A site that formats a slot by hand, on a newer machine.
#[apply(long_test)]
fn a_slot_with_the_defaults_of_e2fsprogs_1_47_is_read_by_all() {
    for version in [SYSTEM, GRUB_2_12, GRUB_2_14] {
        need_machine(Firmware::Bios);
        version.need(Firmware::Bios);
        let dir = tempfile::tempdir().unwrap();
        let (tree, image) = (dir.path().join("tree"), dir.path().join("slot"));
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("vmlinuz"), noise(7, 300_001)).unwrap();
        let stats = default_ext4(&image, &tree, "KSOLOB");
        assert!(stats.contains("metadata_csum_seed") && stats.contains("orphan_file"), "{stats}");
        let out = version.fstest().arg(&image).args(["cat", "(loop0)/vmlinuz"]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && out.stdout == noise(7, 300_001), "{version:?}: {said}");
        let start = fs::read(&image).unwrap()[..PROBE_BYTES].to_vec();
        assert_eq!(read(&start), FileSystem::Ext { label: "KSOLOB".into(), needs_recovery: false });
    }
}

/// GRUB's own eyes on the disks that scripts/build-image.sh makes, and the agent's.
#[apply(long_test)]
fn slots_of_e2fsprogs_1_47_have_no_feature_that_is_new() {
    need_machine(Firmware::Bios);
    SYSTEM.need(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let drive = SYSTEM.disk(dir.path(), "amd64", "both");
    let disk = Disk::of_image(tempfile::tempdir().unwrap(), drive.image, 16, 16);
    let features = disk.debugfs(B, "stats -h");
    for feature in ["metadata_csum_seed", "orphan_file", "needs_recovery"] {
        assert!(!features.contains(feature), "{features}");
    }
    assert!(features.contains("metadata_csum"), "{features}");
    let start = &disk.bytes(B)[..PROBE_BYTES];
    assert_eq!(read(start), FileSystem::Ext { label: "KSOLOB".into(), needs_recovery: false });
}
