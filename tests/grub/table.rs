//! The shipped GRUB configuration in a real GRUB, in virtual machines: what it boots and what it writes
//! is what src/boot/grub_table.rs says, for every row of tests/fixtures/boot-cases.tsv.
//! `tests/support/boot_table.rs` boots them; other GRUBs than this system's have `versions.rs`.

use crate::support::boot_cases::{Copies, Model, Row, values};
use crate::support::boot_table::{Bench, cases, hold_grub};
use crate::support::grub_version::OWN;
use crate::support::loader::{
    BOOTS_PRINTED, COPIES, SHIPPED, build_image, efi, from_disk, guid, make_disk, make_shipped_disk, put_blocks,
    put_shim, words_after,
};
use crate::support::qemu::{Drive, Firmware, Machine, need_machine};
use crate::support::real_kernel::{Fault, boot_for_real, boot_rotten};
use crate::support::{command, need, run};
use kubesolo_update::parts::boot::env_files::EnvFiles;
use kubesolo_update::parts::boot::grub_table::Vars;
use kubesolo_update::parts::slot::record::Slot;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the table says a copy holds, against what src/boot/grub_table.rs says.
#[track_caller]
fn hold_after(row: &Row, before: &Copies, after: &Copies) {
    for n in 0..2 {
        let name = format!("{}: {}", row.name, COPIES[n]);
        match row.after[n] {
            "=" => assert!(before[n] == after[n], "{name} was written: {}", values(&after[n])),
            should => {
                assert_eq!(values(&after[n]), should, "{name}");
                assert!(before[n] != after[n], "{name} was not written: the table should say =");
            }
        }
    }
}

#[apply(test)]
fn the_function_does_what_the_table_says() {
    let cases = cases();
    for case in &cases {
        let mut model = Model { copies: case.before.clone(), disk: case.rows[0].disk };
        for row in &case.rows {
            let before = model.copies.clone();
            let (_, boots) = model.boot();
            assert_eq!(boots, row.boots, "{}", row.name);
            hold_after(row, &before, &model.copies);
        }
    }
    assert!(cases.len() > 80);
}

/// Where the agent is stricter than GRUB, the table says so; and what the agent saves, GRUB acts on.
#[apply(test)]
fn agent_and_grub_agree_on_what_is_active() {
    for case in cases() {
        let mut model = Model { copies: case.before.clone(), disk: case.rows[0].disk };
        for row in &case.rows {
            let dir = tempfile::tempdir().unwrap();
            for (name, copy) in COPIES.iter().zip(&model.copies) {
                if let Some(bytes) = copy {
                    fs::write(dir.path().join(name), bytes).unwrap();
                }
            }
            let files = EnvFiles::new(dir.path());
            let loaded = files.load();
            let grub = model.copies.iter().flatten().find_map(|bytes| Vars::read(bytes));
            let agent = match (loaded.usable(), grub) {
                (Err(_), _) => "none",
                (Ok(_), None) => panic!("{}: the agent takes what GRUB does not", row.name),
                (Ok((_, vars)), Some(grub)) => {
                    let same = (vars.active_slot, vars.boot_success, vars.boot_counter)
                        == (Some(grub.active), Some(grub.success), Some(grub.counter));
                    if same { "same" } else { "other" }
                }
            };
            assert_eq!(agent, row.agent, "{}", row.name);
            for target in [Slot::A, Slot::B] {
                agent_saves(row, &files, &model.copies, target);
            }
            model.boot();
        }
    }
}

/// Activates a slot as the agent does: GRUB then acts on exactly that, or nothing was written.
fn agent_saves(row: &Row, files: &EnvFiles, copies: &Copies, target: Slot) {
    let read = || COPIES.map(|name| fs::read(files.path_of(name)).ok());
    let mut block = match files.load().block {
        Some(block) => block,
        None => return,
    };
    block.activate(target);
    let saved = files.save(&block);
    let after = read();
    let grub = after.iter().flatten().find_map(|bytes| Vars::read(bytes));
    match saved {
        Ok(_) => {
            let grub = grub.expect("GRUB reads what the agent wrote");
            assert_eq!((grub.active, grub.success, grub.counter), (target, false, 3), "{}", row.name);
        }
        Err(_) => assert!(after[0] == copies[0], "{}: refused, and yet main was written", row.name),
    }
    for (name, copy) in COPIES.iter().zip(copies) {
        match copy {
            Some(bytes) => fs::write(files.path_of(name), bytes).unwrap(),
            None => drop(fs::remove_file(files.path_of(name))),
        }
    }
}

trait PathOf {
    fn path_of(&self, name: &str) -> PathBuf;
}

impl PathOf for EnvFiles {
    fn path_of(&self, name: &str) -> PathBuf {
        use kubesolo_update::parts::boot::env_copy::EnvCopy;
        self.path(if name == COPIES[0] { EnvCopy::Main } else { EnvCopy::Backup })
    }
}

/// This system's GRUB, and its images as they come out of `scripts/build-image.sh`.
struct Own;

impl Bench for Own {
    fn disk(&self, dir: &Path, architecture: &str, name: &str) -> Drive {
        make_disk(dir, architecture, name)
    }

    fn editenv(&self) -> Command {
        command("grub-editenv")
    }
}

#[apply(test)]
fn grub_on_bios_does_what_the_function_says() {
    need_machine(Firmware::Bios);
    hold_grub(&Own, Firmware::Bios);
}

#[apply(test)]
fn grub_on_uefi_does_what_the_function_says() {
    need_machine(Firmware::Uefi);
    hold_grub(&Own, Firmware::Uefi);
}

#[apply(long_test)]
fn grub_on_arm64_does_what_the_function_says() {
    need_machine(Firmware::UefiArm64);
    hold_grub(&Own, Firmware::UefiArm64);
}

/// The whole way, nobody at the console: menu, count, reset, three times, then back, and there it stays.
#[apply(test)]
fn a_machine_that_resets_itself_comes_back() {
    need_machine(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let drive = make_disk(dir, "amd64", "both");
    put_shim(dir, &drive.image, BOOTS_PRINTED);
    put_blocks(dir, &drive.image, "B:3:0::0");
    let mut machine = Machine::start(Firmware::Bios, std::slice::from_ref(&drive), 0, dir);
    machine.wait_said("SHIM boots ", 6);
    let said = machine.said().to_string();
    drop(machine);
    let boots = words_after(&said, "SHIM boots ");
    let should = ["B:2:0::1", "B:1:0::1", "B:0:0::1", "A:0:1:B:1", "A:0:1:B:1"];
    assert_eq!(boots[..5], should, "{said}");
    let slots = words_after(&said, "KubeSolo OS, slot ");
    assert_eq!(slots[..5], ["B", "B", "B", "A", "A"], "{said}");
}

/// Nothing to boot: no prompt, no menu; it waits and starts over.
#[apply(long_test)]
fn two_broken_slots_end_in_another_try() {
    need_machine(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let drive = make_shipped_disk(dir, "amd64", "none");
    // All as shipped, `linux` included.
    let mut machine = Machine::start(Firmware::Bios, &[drive], 0, dir);
    machine.wait_said("Neither slot loads.", 2);
    assert!(!machine.said().contains("grub>"), "{}", machine.said());
}

/// A second disk with the same names, labels and files, which the firmware lists first.
#[apply(test)]
fn only_the_boot_disk_counts() {
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        need_machine(firmware);
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let [other, own] = ["other", "own"].map(|seed| {
            let image = dir.join(seed);
            run(build_image(dir, "amd64", &image).args(["--seed", seed]).arg("--grub-config").arg(from_disk(dir)));
            Drive { image, read_only: false }
        });
        put_shim(dir, &own.image, BOOTS_PRINTED);
        put_blocks(dir, &own.image, "B:3:0::1");
        let before = fs::read(&other.image).unwrap();
        let (kernel_arguments, other_image) = (format!("kubesolo.part={}", guid(&own.image, 3)), other.image.clone());
        let mut machine = Machine::start(firmware, &[other, own], 1, dir);
        machine.wait_said("SHIM boots ", 1);
        machine.wait_said("\n", 1);
        let said = machine.said().replace('\n', "");
        drop(machine);
        assert!(said.contains(&kernel_arguments), "{firmware:?}: {kernel_arguments}: {said}");
        assert!(said.contains("SHIM boots B:2:0::1"), "{firmware:?}: {said}");
        assert!(fs::read(other_image).unwrap() == before, "{firmware:?}: the other disk was written to");
    }
}

#[apply(test)]
fn a_real_kernel_starts_from_bios() {
    boot_for_real(OWN, Firmware::Bios, Fault::None);
}

#[apply(test)]
fn a_real_kernel_starts_without_an_efi_file_system() {
    boot_for_real(OWN, Firmware::Bios, Fault::Efi);
}

/// GRUB 2.06 loses the second slot's command line once it has loaded the first one's kernel.
#[apply(long_test)]
fn a_bad_sector_in_one_slot_does_not_reach_into_the_other() {
    for firmware in [Firmware::Bios, Firmware::Uefi, Firmware::UefiArm64] {
        boot_for_real(OWN, firmware, Fault::Initramfs);
        boot_for_real(OWN, firmware, Fault::Kernel);
    }
    // hashsum takes a list that it cannot read for a list of nothing.
    boot_for_real(OWN, Firmware::Bios, Fault::Digests);
}

/// The first block: without it, a panic, and the same slot again, for ever.
#[apply(test)]
fn a_confirmed_slot_that_rots_gives_way_to_the_other() {
    boot_rotten(OWN, Firmware::Bios, 100);
}

/// The middle: half a system that counts as confirmed.
#[apply(long_test)]
fn a_confirmed_slot_that_rots_gives_way_to_the_other_on_uefi() {
    boot_rotten(OWN, Firmware::Uefi, 300_000);
    boot_rotten(OWN, Firmware::UefiArm64, 300_000);
}

#[apply(test)]
fn a_real_kernel_starts_from_uefi() {
    boot_for_real(OWN, Firmware::Uefi, Fault::None);
}

#[apply(long_test)]
fn a_real_kernel_starts_on_arm64() {
    boot_for_real(OWN, Firmware::UefiArm64, Fault::None);
}

/// Inside GRUB nobody can mend it: what GRUB cannot read, or what is not there, goes into no image.
#[apply(test)]
fn a_broken_configuration_goes_into_no_image() {
    need_machine(Firmware::Bios);
    let dir = tempfile::tempdir().unwrap();
    let [empty, cut, image] = ["empty", "cut", "image"].map(|name| dir.path().join(name));
    fs::write(&empty, "").unwrap();
    fs::write(&cut, &fs::read(SHIPPED).unwrap()[..4000]).unwrap();
    let missing = dir.path().join("missing");
    for (config, word) in
        [(&missing, "is not a regular file"), (&empty, "is not a regular file"), (&cut, "is no GRUB configuration")]
    {
        let out = build_image(dir.path(), "amd64", &image).arg("--grub-config").arg(config).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(word) && !image.exists(), "{config:?}: {said}");
    }
}

/// With GRUB in it, the image is as reproducible as without, and its other formats hold the same.
#[apply(test)]
fn images_with_a_boot_loader_are_reproducible_in_every_format() {
    need_machine(Firmware::Bios);
    need("qemu-img");
    need("xz");
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let build = |name: &str, extra: &[&str]| {
        let image = dir.join(name);
        let work = tempfile::tempdir().unwrap();
        let mut build = build_image(work.path(), "amd64", &image);
        run(build.args(["--seed", "s"]).args(extra).env("SOURCE_DATE_EPOCH", "1700000000"));
        image
    };
    let (first, second) = (build("first", &[]), build("second", &[]));
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "two runs differ");
    let packed = build("packed.xz", &["--format", "qcow2", "--xz"]);
    run(command("xz").arg("-d").arg(&packed));
    run(command("qemu-img").args(["compare", "-f", "raw", "-F", "qcow2"]).arg(&first).arg(dir.join("packed")));
    // A configuration on the EFI partition would look as if it counted.
    let listed = run(command("mdir").args(["-b", "-i", &efi(&first), "::/boot/grub"]));
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["::/boot/grub/grubenv", "::/boot/grub/grubenv.bak"]);
    // Code only: the disk's signature and the partition table behind it are sgdisk's.
    let loader = fs::read(&first).unwrap();
    assert!(loader[..440].iter().any(|b| *b != 0) && loader[510..512] == [0x55, 0xaa]);
    let verdict = run(command("sgdisk").arg("-v").arg(&first));
    assert!(verdict.contains("No problems found"), "{verdict}");
}
