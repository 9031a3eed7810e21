//! `slot.crc32`, what GRUB holds a slot's files against: who writes it, who notices that it does not fit, what mends it.
//!
//! That GRUB goes by it: tests/grub/table.rs.

use crate::support::disk::{A, B, Disk};
use crate::support::trial::Trial;
use crate::support::{command, run};
use flate2::Crc;
use kubesolo_update::parts::slot::record::digests;
use std::fs;

const LIST: &str = "slot.crc32";

/// What it has to be, of the files as they are on the disk.
fn fitting(disk: &Disk, slot: u32) -> String {
    let crc32 = |name: &str| {
        let mut crc = Crc::new();
        crc.update(&disk.file(slot, name).unwrap());
        crc.sum()
    };
    digests(crc32("vmlinuz"), crc32("kubesolo-os.gz"))
}

/// Replaces it; `None`: takes it away.
fn replace(disk: &mut Disk, slot: u32, content: Option<&[u8]>) {
    disk.detach();
    let file = disk.dir().join("list");
    let target = format!("{}?offset={}", disk.image.display(), disk.extent(slot).0);
    let change = |request: &str| run(command("debugfs").args(["-w", "-R", request]).arg(&target));
    change(&format!("rm /{LIST}"));
    if let Some(bytes) = content {
        fs::write(&file, bytes).unwrap();
        change(&format!("write {} /{LIST}", file.display()));
    }
    disk.attach();
}

#[apply(test)]
fn the_image_and_apply_write_it_and_it_fits() {
    Trial::ready();
    let trial = Trial::staged();
    for slot in [A, B] {
        assert_eq!(trial.disk.text(slot, LIST).unwrap(), fitting(&trial.disk, slot));
    }
}

#[apply(test)]
fn what_does_not_fit_is_told_and_applied_anew() {
    Trial::ready();
    let mut trial = Trial::staged();
    let good = fitting(&trial.disk, B);
    let flipped = good.replacen("  vmlinuz", "  vmlinux", 1);
    // What GRUB would take: one of the names alone.
    let one_name = format!("{:>512}", good.trim_start().split_inclusive('\n').next().unwrap());
    for bytes in [
        b"".as_slice(),
        &[0; 512],
        one_name.as_bytes(),
        flipped.as_bytes(),
        &good.as_bytes()[..500],
        good.trim_start().as_bytes(),
    ] {
        replace(&mut trial.disk, B, Some(bytes));
        trial.root.agent(&["verify", "--slot", "B"]).expect(7, &["INVALID", LIST, "GRUB takes the other slot"]);
        trial
            .root
            .agent(&["apply", "--layout", trial.medium.path()])
            .expect(3, &["staged in slot B already", "written anew"]);
        assert_eq!(trial.disk.text(B, LIST).unwrap(), good);
        trial.root.agent(&["verify", "--slot", "B"]).expect(0, &["is what its record says"]);
    }
    // An older agent's slot has none, and boots.
    replace(&mut trial.disk, B, None);
    trial.root.agent(&["verify", "--slot", "B"]).expect(0, &["is what its record says"]);
    trial.root.agent(&["activate"]).expect(0, &["slot B is active"]);
}
