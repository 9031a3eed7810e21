//! Finding the boot disk's partitions on real disk images, among other disks with the same labels.
//!
//! Other tests' disks come and go on the same machine meanwhile: nothing here relies on being alone.

use crate::support::disk::{A, B, DATA, Disk, EFI, need_disks};
use crate::support::release::{Medium, Release};
use crate::support::root::{Root, Run};
use crate::support::{command, need, run};
use kubesolo_update::parts::boot::this_boot::BootedFrom;
use kubesolo_update::parts::disk::partition;
use kubesolo_update::parts::os::system::System;
use kubesolo_update::parts::slot::record::Slot;
use std::fs;
use std::process::Stdio;

fn from(guid: &str) -> BootedFrom {
    BootedFrom { slot: Some(Slot::A), partition_guid: Some(guid.into()), skipped: None }
}

#[apply(test)]
fn the_guid_names_the_disk_among_others_with_the_same_labels() {
    need_disks();
    let (first, second) = (Disk::new(24, 16), Disk::new(24, 16));
    assert_ne!(first.guid(A), second.guid(A));
    let system = System::new("/");
    for disk in [&first, &second] {
        // Whichever slot it booted from, and in whichever case GRUB wrote it.
        for (slot, guid) in [(Slot::A, disk.guid(A)), (Slot::B, disk.guid(B))] {
            let contradiction = BootedFrom { slot: Some(slot.other()), ..from(&guid) };
            let e = partition::find(&system, &contradiction).unwrap_err();
            assert!(e.exit_code() == 7 && e.to_string().contains("contradicts itself"), "{e}");
            let found = partition::find(&system, &BootedFrom { slot: Some(slot), ..from(&guid) }).unwrap();
            assert_eq!(format!("/dev/{}", found.disk), disk.device());
            for (label, number) in [("KSOLOEFI", EFI), ("KSOLOA", A), ("KSOLOB", B), ("KSOLODATA", DATA)] {
                let part = found.partition(label).unwrap();
                assert_eq!((&part.name, &part.node), (&disk.name(number), &disk.node(number)));
                let dev = fs::read_to_string(format!("/sys/class/block/{}/dev", part.name)).unwrap();
                assert_eq!(part.device_number, dev.trim());
            }
        }
        let status = Root::new(disk).agent(&["status", "--json"]).expect(0, &[]);
        assert_eq!(status.jq(".slots | map(.valid)"), "[true,true]");
    }
}

#[apply(test)]
fn two_disks_without_a_guid_are_refused_by_name() {
    need_disks();
    need("oras");
    let (first, second) = (Disk::new(24, 16), Disk::new(24, 16));
    let mut root = Root::new(&first);
    let medium = Medium::new(first.dir(), &Release::new("2.0.0"));
    root.boot('A', None);
    let before = [first.bytes(A), first.bytes(B), second.bytes(A), second.bytes(B)];
    for run in [root.agent(&["apply", "--layout", medium.path()]), root.agent(&["check", "--layout", medium.path()])] {
        run.expect(7, &["kubesolo.part=", "disks qualify", &first.name(A), &second.name(A)]);
    }
    // The rescue console is told as well, and gets an answer.
    let status = root.agent(&["status"]).expect(0, &[&first.name(B), &second.name(B)]);
    assert!(status.stdout.contains("disks qualify"), "{}", status.stdout);
    // Nothing is known against either slot.
    assert!(status.stdout.contains("so that the boot disk is found"), "{}", status.stdout);
    assert!(before == [first.bytes(A), first.bytes(B), second.bytes(A), second.bytes(B)], "something was written");
}

#[apply(test)]
fn a_copy_with_the_same_guids_is_refused() {
    need_disks();
    need("oras");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let medium = Medium::new(disk.dir(), &Release::new("2.0.0"));
    root.agent(&["check", "--layout", medium.path()]).expect(0, &[]);
    let twin = disk.twin();
    assert_eq!(twin.guid(A), disk.guid(A));
    let (before, before_twin) = (disk.bytes(B), twin.bytes(B));
    root.agent(&["apply", "--layout", medium.path()])
        .expect(7, &["2 disks qualify", &disk.name(A), &twin.name(A), "a copy"]);
    assert!(disk.bytes(B) == before && twin.bytes(B) == before_twin, "something was written");
    drop(twin);
    root.agent(&["apply", "--layout", medium.path()]).expect(0, &["staged"]);
}

#[apply(test)]
fn a_disk_that_is_not_there_is_not_replaced_by_another() {
    need_disks();
    need("oras");
    let disk = Disk::new(24, 16);
    let mut root = Root::new(&disk);
    let medium = Medium::new(disk.dir(), &Release::new("2.0.0"));
    let absent = "00000000-1111-4222-8333-444444444444";
    root.boot('A', Some(absent));
    let before = disk.bytes(B);
    let run = root.agent(&["apply", "--layout", medium.path()]).expect(7, &["no disk qualifies", absent]);
    assert!(!run.stderr.contains("usb-provision"), "{}", run.stderr);
    // Nor is a trial sent on that waits.
    root.set_boot_variables(&["active_slot=B", "boot_success=0", "boot_counter=3"]);
    root.agent(&["status"]).expect(0, &["so that the boot disk is found", "do not restart before"]);
    assert!(disk.bytes(B) == before);
}

#[apply(test)]
fn a_damaged_first_partition_table_has_a_backup() {
    need_disks();
    let mut disk = Disk::new(24, 16);
    let (guid, root) = (disk.guid(A), Root::new(&disk));
    disk.detach();
    let sound = run(command("sgdisk").arg("-v").arg(&disk.image));
    let length = fs::metadata(&disk.image).unwrap().len();
    let [primary, backup] = [512, length - 512].map(|at| (at, sector(&disk, at)));
    assert!(primary.1.starts_with(b"EFI PART") && backup.1.starts_with(b"EFI PART"));
    for (at, what) in [
        (512u64, "the header's signature"),
        (512 + 20, "a byte that only the checksum covers"),
        (1024 + 128 + 16, "a byte of the second entry's GUID"),
    ] {
        let good = sector(&disk, at);
        // The kernel needs a sound table to attach by, so the damage comes after.
        disk.attach();
        let mut spoilt = good.clone();
        spoilt[0] ^= 0xff;
        write_device(&disk, at, &spoilt);
        assert_ne!(run(command("sgdisk").arg("-v").arg(&disk.image)), sound, "{what}: sgdisk sees no damage");
        let found = partition::find(&System::new("/"), &from(&guid)).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(format!("/dev/{}", found.disk), disk.device(), "{what}");
        root.agent(&["status", "--json"]).expect(0, &["\"valid\":true"]);
        // Both gone: refused, not guessed.
        let last = sector(&disk, backup.0);
        write_device(&disk, backup.0, &[0; 512]);
        let e = partition::find(&System::new("/"), &from(&guid)).unwrap_err();
        assert!(e.exit_code() == 7 && e.to_string().contains(&guid), "{what}: {e}");
        write_device(&disk, backup.0, &last);
        write_device(&disk, at, &good);
        disk.detach();
    }
}

/// From the byte at `at` to the end of a sector's length.
fn sector(disk: &Disk, at: u64) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    std::os::unix::fs::FileExt::read_exact_at(&fs::File::open(&disk.image).unwrap(), &mut bytes, at).unwrap();
    bytes
}

/// Writes through the device, so that its cache has it too.
fn write_device(disk: &Disk, at: u64, bytes: &[u8]) {
    let device = fs::OpenOptions::new().write(true).open(disk.device()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&device, bytes, at).unwrap();
    device.sync_all().unwrap();
    assert!(sector(disk, at)[..bytes.len()] == *bytes, "the damage did not arrive");
}

/// Cuts the power, as far as a slot can tell: the disk's bytes as they are while the slot is mounted and written.
fn cut_while_mounted(disk: &mut Disk, number: u32) {
    let copy = disk.dir().join("cut.img");
    let script = "mount -t ext4 \"$1\" \"$2\" && echo late >\"$2/left-over\" && sync -f \"$2\" && \
                  cp --sparse=always \"$3\" \"$4\" && umount \"$2\"";
    let point = disk.dir().join("point");
    fs::create_dir(&point).unwrap();
    let mut shell = command("unshare");
    shell.args(["-m", "sh", "-euc", script, "sh"]).arg(disk.node(number)).arg(&point).arg(&disk.image).arg(&copy);
    run(&mut shell);
    disk.detach();
    fs::rename(&copy, &disk.image).unwrap();
    assert!(disk.needs_recovery(number), "the journal is not dirty");
    disk.attach();
}

#[apply(test)]
fn a_journal_that_needs_recovery_is_seen_and_not_replayed_by_looking() {
    need_disks();
    need("oras");
    need("unshare");
    let mut disk = Disk::new(24, 16);
    cut_while_mounted(&mut disk, B);
    let root = Root::new(&disk);
    let before = disk.bytes(B);
    let status = root.agent(&["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq(".slots | map(.valid)"), "[true,false]");
    assert!(status.jq(".slots[1].error").contains("replays no journal"), "{}", status.stdout);
    let medium = Medium::new(disk.dir(), &Release::new("2.0.0"));
    root.agent(&["check", "--layout", medium.path()]).expect(0, &[]);
    assert!(disk.bytes(B) == before, "looking has written");
    // Writing to it replays the journal first, and leaves it clean.
    root.agent(&["apply", "--layout", medium.path()]).expect(0, &["staged"]);
    assert!(!disk.needs_recovery(B));
}

#[apply(test)]
fn a_rollback_settles_the_journal_of_the_slot_it_goes_to() {
    need_disks();
    need("unshare");
    let mut disk = Disk::new(24, 16);
    cut_while_mounted(&mut disk, B);
    let root = Root::new(&disk);
    root.set_boot_variables(&["boot_canary=1"]);
    let before = disk.bytes(A);
    root.agent(&["rollback"]).expect(0, &["slot B is active"]);
    assert!(!disk.needs_recovery(B), "GRUB would see the past");
    assert_eq!(disk.text(B, "left-over").as_deref(), Some("late\n"));
    assert!(disk.bytes(A) == before);
}

#[apply(test)]
fn the_running_slots_journal_is_never_replayed() {
    need_disks();
    need("oras");
    need("unshare");
    let mut disk = Disk::new(24, 16);
    cut_while_mounted(&mut disk, A);
    let root = Root::new(&disk);
    root.set_boot_variables(&["boot_canary=1"]);
    let before = disk.bytes(A);
    let medium = Medium::new(disk.dir(), &Release::new("2.0.0"));
    root.agent(&["apply", "--layout", medium.path()]).expect(0, &["staged"]);
    root.agent(&["activate"]).expect(0, &[]);
    root.agent(&["rollback"]).expect(0, &[]);
    assert!(disk.needs_recovery(A) && disk.bytes(A) == before, "the running slot was written");
}

#[apply(test)]
fn a_target_that_is_mounted_elsewhere_is_refused() {
    need_disks();
    need("oras");
    need("unshare");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let medium = Medium::new(disk.dir(), &Release::new("2.0.0"));
    let point = disk.dir().join("a mount point");
    fs::create_dir(&point).unwrap();
    let before = [disk.bytes(A), disk.bytes(B)];
    // In one namespace, as on a machine where somebody looks into the slot: the agent sees that mount.
    let mut shell = command("unshare");
    shell.args(["-m", "sh", "-euc", "mount -o ro,noload \"$1\" \"$2\"; shift 2; exec \"$@\"", "sh"]);
    shell.arg(disk.node(B)).arg(&point);
    let mut apply = root.command_under(shell, &["apply", "--layout", medium.path()]);
    let refused = Run::from(apply.stdin(Stdio::null()).output().unwrap());
    refused.expect(7, &["KSOLOB", &disk.name(B), "a mount point", "unmount it"]);
    assert!(before == [disk.bytes(A), disk.bytes(B)], "something was written");
    assert_eq!(root.state_field("phase"), "failed");
    root.agent(&["apply", "--layout", medium.path()]).expect(0, &["staged"]);
}
