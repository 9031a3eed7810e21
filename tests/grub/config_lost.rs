//! The EFI partition lost or damaged: GRUB boots what is defined, counts where it can, and never ends at a prompt.
//!
//! The boot loader is as shipped. The systems are noise, so that GRUB tries one slot after the other; which first,
//! and what is then in the environment block, is what there is to see.

use crate::support::boot_cases::values;
use crate::support::loader::{
    COPIES, EFI_BYTES, EFI_OFFSET, SHIPPED, efi, make_shipped_disk, overwrite, put, put_blocks, read_block, slots_tried,
};
use crate::support::qemu::{Drive, Firmware, Machine, need_machine};
use crate::support::{command, run};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Boots until both slots were tried; returns the slots in the order of the attempts.
fn tried(firmware: Firmware, drive: &Drive, dir: &Path) -> String {
    let mut machine = Machine::start(firmware, std::slice::from_ref(drive), 0, dir);
    machine.wait_said("Neither slot loads.", 1);
    assert!(!machine.said().contains("grub>"), "{}", machine.said());
    slots_tried(machine.said())
}

/// First byte of the root directory, as the boot sector gives it.
fn root_directory(image: &Path) -> u64 {
    let mut sector = [0; 512];
    File::open(image).unwrap().read_exact_at(&mut sector, EFI_OFFSET).unwrap();
    let reserved = u64::from(u16::from_le_bytes([sector[14], sector[15]]));
    let table = u64::from(u32::from_le_bytes([sector[36], sector[37], sector[38], sector[39]]));
    (reserved + u64::from(sector[16]) * table) * 512
}

/// Slot B is active and on trial, but nobody can know: the defined slot, and not without a try of the other.
#[apply(long_test)]
fn without_its_efi_file_system_bios_boots_the_defined_slot() {
    need_machine(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    for (disk, order) in [("both", "AB"), ("no-record-A", "BA")] {
        let drive = make_shipped_disk(dir.path(), "amd64", disk);
        put_blocks(dir.path(), &drive.image, "B:3:0::1");
        overwrite(&drive.image, 0, EFI_BYTES, 0);
        assert_eq!(tried(Firmware::Bios, &drive, dir.path()), order, "{disk}");
    }
    let drive = make_shipped_disk(dir.path(), "amd64", "both");
    let root = root_directory(&drive.image);
    for (name, from, length, with) in [
        ("boot sector of zeros", 0, 512, 0),
        ("boot sector of ones", 0, 512, 0xff),
        ("tables of zeros", 32 * 512, root - 32 * 512, 0),
        ("tables of ones", 32 * 512, root - 32 * 512, 0xff),
        ("root directory of zeros", root, 512, 0),
        ("root directory of ones", root, 512, 0xff),
        ("everything behind the tables", root, EFI_BYTES - root, 0x5a),
    ] {
        let drive = make_shipped_disk(dir.path(), "amd64", "both");
        put_blocks(dir.path(), &drive.image, "B:3:0::1");
        overwrite(&drive.image, from, length, with);
        assert_eq!(tried(Firmware::Bios, &drive, dir.path()), "AB", "{name}");
    }
    let drive = make_shipped_disk(dir.path(), "amd64", "both");
    run(command("mdeltree").args(["-i", &efi(&drive.image), "::/boot"]));
    assert_eq!(tried(Firmware::Bios, &drive, dir.path()), "AB", "no /boot");
}

/// What may lie on the EFI partition as a configuration, from older images or by hand.
fn configurations() -> Vec<(&'static str, Vec<u8>)> {
    let whole = fs::read(SHIPPED).unwrap();
    let find = |words: &str| whole.windows(words.len()).position(|w| w == words.as_bytes()).unwrap();
    vec![
        ("empty", Vec::new()),
        ("cut short at the start", whole[..200].to_vec()),
        ("cut short in a function", whole[..find("set trial_counter")].to_vec()),
        ("cut short before the menu", whole[..find("menuentry \"KubeSolo OS\" --id normal")].to_vec()),
        ("garbage", (0..4096u32).map(|n| (n * n % 251) as u8).collect()),
        ("one that halts", b"halt\n".to_vec()),
    ]
}

/// Whatever lies there (`None`: nothing): the trial of B is booted and counted.
fn hold_counted(firmware: Firmware, name: &str, configuration: Option<&[u8]>) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let drive = make_shipped_disk(dir, firmware.architecture(), "both");
    put_blocks(dir, &drive.image, "B:3:0::1");
    if let Some(bytes) = configuration {
        fs::write(dir.join("grub.cfg"), bytes).unwrap();
        put(&drive.image, &dir.join("grub.cfg"), "/boot/grub/grub.cfg");
    }
    assert_eq!(tried(firmware, &drive, dir), "BA", "{firmware:?}: {name}");
    for copy in COPIES {
        assert_eq!(values(&read_block(&drive.image, copy)), "B:2:0::1", "{firmware:?}: {name}: {copy}");
    }
}

#[apply(long_test)]
fn no_file_on_the_disk_is_the_configuration_on_bios() {
    need_machine(Firmware::Bios);
    hold_counted(Firmware::Bios, "missing", None);
    for (name, bytes) in configurations() {
        hold_counted(Firmware::Bios, name, Some(&bytes));
    }
}

#[apply(long_test)]
fn no_file_on_the_disk_is_the_configuration_on_uefi() {
    need_machine(Firmware::Uefi);
    hold_counted(Firmware::Uefi, "missing", None);
    hold_counted(Firmware::Uefi, "one that halts", Some(b"halt\n"));
}

#[apply(long_test)]
fn no_file_on_the_disk_is_the_configuration_on_arm64() {
    need_machine(Firmware::UefiArm64);
    hold_counted(Firmware::UefiArm64, "missing", None);
    hold_counted(Firmware::UefiArm64, "one that halts", Some(b"halt\n"));
}

/// On UEFI, the boot loader is on the EFI partition itself, and what is beside it may be gone.
#[apply(long_test)]
fn without_its_directory_uefi_boots_the_defined_slot() {
    need_machine(Firmware::Uefi);
    let dir = tempfile::tempdir().unwrap();
    let drive = make_shipped_disk(dir.path(), "amd64", "no-record-A");
    run(command("mdeltree").args(["-i", &efi(&drive.image), "::/boot"]));
    assert_eq!(tried(Firmware::Uefi, &drive, dir.path()), "BA");
}
