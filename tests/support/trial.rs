//! A machine with an update staged, activated, or on its first trial boot. GRUB's part is played by a real
//! grub-editenv on both copies of the environment block.

use super::disk::{A, B, Disk, need_disks};
use super::need;
use super::release::{Medium, Release};
use super::root::{Root, jq};
use std::fs;

/// A machine with a release on trial, before its first boot.
pub struct Trial {
    pub root: Root,
    pub medium: Medium,
    pub disk: Disk,
}

impl Trial {
    pub fn ready() {
        need_disks();
        need("oras");
    }

    pub fn staged() -> Trial {
        let disk = Disk::new(24, 16);
        let (root, medium) = (Root::new(&disk), Medium::new(disk.dir(), &Release::new("2.0.0")));
        root.set_boot_variables(&["boot_canary=1"]);
        root.agent(&["apply", "--layout", medium.path()]).expect(0, &["staged"]);
        Trial { root, medium, disk }
    }

    pub fn activated() -> Trial {
        let trial = Trial::staged();
        trial.root.agent(&["activate"]).expect(0, &[]);
        trial
    }

    /// The first trial boot: GRUB counts, and boots slot B.
    pub fn booted() -> Trial {
        let mut trial = Trial::activated();
        trial.root.set_boot_variables(&["boot_counter=2"]);
        trial.boot(B);
        trial
    }

    pub fn boot(&mut self, number: u32) {
        let letter = if number == A { 'A' } else { 'B' };
        let guid = self.disk.guid(number);
        self.root.boot(letter, Some(&guid));
    }

    /// Slot A, since slot B, which was to boot, does not load.
    pub fn boot_in_place_of_b(&mut self) {
        self.root.boot_with('A', Some(&self.disk.guid(A)), "kubesolo.skipped=B");
    }

    /// The boot variables as one line, the common ones only.
    #[track_caller]
    pub fn assert_boot(&self, active: &str, success: &str, counter: &str, rollback_from: &str) {
        let v = self.root.boot_variables();
        let found = ["active_slot", "boot_success", "boot_counter", "rollback_from"].map(|name| v[name].as_str());
        assert_eq!(found, [active, success, counter, rollback_from]);
    }

    #[track_caller]
    pub fn assert_rolled_back(&self, why: &str) {
        assert_eq!(self.root.state_field("phase"), "rolled_back");
        assert!(self.root.state_field("last_error").contains(why), "{}", self.root.state_field("last_error"));
        let failed = fs::read_to_string(self.root.path("var/lib/kubesolo/update/failed.json")).unwrap();
        assert_eq!(jq(&failed, ".failed | map(.manifest_digest)"), format!("[\"{}\"]", self.medium.digest));
        assert!(jq(&failed, ".failed[0].reason").contains(why), "{failed}");
    }

    /// What failed is not taken again by itself, the next version is, and a person may insist.
    pub fn assert_remembered(&self) {
        let path = self.medium.path();
        self.root.agent(&["apply", "--layout", path]).expect(4, &["failed here before", "--retry-failed"]);
        self.root.agent(&["check", "--layout", path]).expect(4, &["failed here before"]);
        assert_eq!(self.root.state_field("phase"), "rolled_back");
        self.root.agent(&["apply", "--layout", path, "--retry-failed"]).expect(0, &["staged"]);
        assert_eq!(self.root.state_field("phase"), "staged");
        let next = Medium::new(self.disk.dir(), &Release::new("2.0.1"));
        self.root.agent(&["apply", "--layout", next.path()]).expect(0, &["2.0.1 is staged"]);
    }
}

/// Zeros over the beginning of a slot, past every cache.
pub fn wipe(trial: &mut Trial, number: u32) {
    trial.disk.detach();
    trial.disk.overwrite(number, 0, &[0; 2 << 20]);
    trial.disk.attach();
}

/// Flips a bit in the middle of a file of a slot, past every cache.
pub fn spoil(disk: &mut Disk, number: u32, name: &str) {
    let file = disk.file(number, name).unwrap();
    let piece = &file[file.len() / 2..file.len() / 2 + 64];
    let at = disk.bytes(number).windows(64).position(|w| w == piece).expect("the file lies in the partition");
    disk.detach();
    disk.overwrite(number, at as u64, &[piece[0] ^ 1]);
    disk.attach();
    assert!(disk.file(number, name).unwrap() != file, "the damage did not arrive");
}

/// Makes another digit of the last byte of a slot's list that GRUB goes by, past every cache.
pub fn rot_list(disk: &mut Disk, number: u32) {
    let list = disk.file(number, "slot.crc32").unwrap();
    let at = disk.bytes(number).windows(list.len()).position(|w| w == list).expect("the list lies in the partition");
    disk.detach();
    disk.overwrite(number, (at + list.len() - 1) as u64, &[0x0b]);
    disk.attach();
    assert!(disk.file(number, "slot.crc32").unwrap() != list, "the damage did not arrive");
}
