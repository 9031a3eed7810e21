//! Whole machines with damaged disks: slots, boot variables, data partition, and a second disk that looks the same.
//! Nothing leaves this machine.

use crate::support::disk::{A, B, DATA};
use crate::support::kit::{self, BORN, Firmware, need_vm};
use crate::support::site::{CONFIRMED, Site, apply, apply_and_reboot, expect_confirmed};
use crate::support::vm::Vm;
use crate::support::{command, run};

#[apply(long_test)]
fn a_slot_that_does_not_load_is_left_at_once() {
    need_vm(Firmware::Bios);
    let garbage = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(garbage.path(), [b'x'; 100_000]).unwrap();
    for case in ["missing kernel", "corrupt kernel", "missing initramfs"] {
        let site = Site::new(Firmware::Bios);
        site.activated();
        site.debugfs_write(B, if case == "missing initramfs" { "rm /kubesolo-os.gz" } else { "rm /vmlinuz" });
        if case == "corrupt kernel" {
            site.debugfs_write(B, &format!("write {} vmlinuz", garbage.path().display()));
        }
        let mut vm = site.power_on();
        vm.wait_said("Slot B does not load");
        vm.expect_hello("manual", BORN, 'A');
        vm.agent("verify").expect(7, &["INVALID"]);
        vm.agent("status").expect(0, &["could not be loaded, or is not what its"]);
        site.offer("1.4.0", "healthy");
        apply_and_reboot(&mut vm);
        vm.expect_hello("auto", "1.4.0", 'B');
        expect_confirmed(&mut vm, 'B');
        vm.power_off();
        assert_eq!(site.boot_variables(), "B:1:2::1", "{case}");
    }
}

/// The active slot is confirmed and whole, Linux reads it, and GRUB cannot: the other one takes its place, once it has
/// proven itself, and updates go on being tried.
#[apply(long_test)]
fn an_active_slot_that_only_linux_can_read_is_replaced() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    site.update(&mut vm, "1.1.0", 'B');
    vm.power_off();
    // GRUB 2.06 refuses a file system with a feature that it does not know.
    site.debugfs_write(B, "feature ea_inode");
    let mut vm = site.power_on();
    vm.wait_said("Slot B does not load");
    vm.expect_hello("manual", BORN, 'A');
    vm.run("cat /proc/cmdline").expect(0, &["kubesolo.slot=A", "kubesolo.skipped=B"]);
    vm.agent("verify --slot B").expect(0, &["1.1.0 is what its record says"]);
    vm.agent("status").expect(0, &["GRUB could not load the active slot"]);
    // Not proven yet, so nothing may be written to what may be the better slot.
    site.offer("1.2.0", "healthy");
    vm.agent(&apply()).expect(4, &["GRUB could not load slot B", "runs on trial"]);
    vm.agent("healthcheck --timeout 5").expect(0, &[CONFIRMED]);
    vm.agent("status --json").expect(0, &["\"active_slot\":\"A\",\"boot_success\":true"]);
    // The update lands in the slot that GRUB cannot read: tried once, and left.
    apply_and_reboot(&mut vm);
    vm.wait_said("Slot B does not load");
    vm.expect_hello("manual", BORN, 'A');
    vm.agent("status").expect(0, &["could not be loaded, or is not what its"]);
    vm.agent(&apply()).expect(4, &["could not be loaded"]);
    assert_eq!(vm.state("phase"), "rolled_back");
    vm.send("sync; reboot -f");
    vm.expect_hello("manual", BORN, 'A');
    vm.run("grep kubesolo.skipped /proc/cmdline").expect(1, &[]);
    vm.power_off();
    assert!(site.boot_variables().starts_with("A:1:"), "{}", site.boot_variables());
    site.assert_slot(A, &kit::born(Firmware::Bios));
}

#[apply(long_test)]
fn what_breaks_on_disk_after_staging_is_not_activated() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    let staged = site.offer("1.1.0", "healthy");
    let initramfs = &staged.pairs[0].initramfs;
    let mut flipped = initramfs.clone();
    flipped[initramfs.len() / 2] ^= 1;
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    for (case, bytes) in [("truncated", &initramfs[..initramfs.len() / 2]), ("a bit flipped", &flipped)] {
        // The second time: the same version once more, the slot is written anew.
        vm.agent(&apply()).expect(0, &["1.1.0 is staged in slot B"]);
        vm.power_off();
        assert_eq!(site.boot_variables(), "A:1:3::1", "{case}");
        site.replace(B, "kubesolo-os.gz", bytes);
        vm = site.power_on();
        vm.expect_hello("manual", BORN, 'A');
        vm.agent("activate").expect(7, &["kubesolo-os.gz"]);
        vm.agent("verify --slot B").expect(7, &["INVALID"]);
        vm.agent("status --json").expect(0, &["\"active_slot\":\"A\",\"boot_success\":true"]);
    }
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.power_off();
    site.assert_slot(B, &staged);
}

#[apply(long_test)]
fn broken_boot_variables_are_named_and_repaired() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    let good = site.disk.efi_file("/boot/grub/grubenv");
    let proven = String::from_utf8(good.clone()).unwrap().replace("boot_canary=0", "boot_canary=1").into_bytes();
    let doubled = [&proven[..98], b"boot_counter=1\n", &proven[98..1009]].concat();
    assert_eq!(doubled.len(), 1024);
    let crlf = String::from_utf8(proven.clone()).unwrap().replace('\n', "\r\n").into_bytes()[..1024].to_vec();
    let cases: [(&str, [Option<&[u8]>; 2]); 5] = [
        ("both copies lost", [None, None]),
        ("one short, one of zeros", [Some(&proven[..1023]), Some(&[0; 1024])]),
        ("garbage, and a good backup", [Some(&[b'x'; 1024]), Some(&proven)]),
        ("a name twice", [Some(&doubled), Some(&doubled)]),
        ("CRLF", [Some(&crlf), Some(&crlf)]),
    ];
    for (case, blocks) in cases {
        for (name, block) in ["grubenv", "grubenv.bak"].iter().zip(blocks) {
            kit::replace_efi(&site.disk, &format!("/boot/grub/{name}"), block);
        }
        let mut vm = site.power_on();
        vm.expect_hello("manual", BORN, 'A');
        let status = vm.agent("status").expect(0, &["Note "]);
        println!("{case}: {}", status.text);
        vm.agent("verify").expect(7, &["--repair-boot-variables"]);
        let repaired = vm.agent("verify --repair-boot-variables");
        assert_eq!(repaired.code, 0, "{case}: {}", repaired.text);
        vm.agent("verify").expect(0, &["both copies of the boot variables are sound"]);
        vm.power_off();
        assert!(site.boot_variables().starts_with("A:1:"), "{case}: {}", site.boot_variables());
    }
    // And it can be updated.
    site.offer("1.1.0", "healthy");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
}

#[apply(test)]
fn another_disk_with_the_same_labels_is_left_alone() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    site.offer("1.1.0", "healthy");
    let stick = kit::disk(Firmware::Bios);
    run(command("sgdisk").arg("-G").arg(&stick.image));
    let before = std::fs::read(&stick.image).unwrap();
    // The stick is the kernel's first disk.
    let mut vm = Vm::start(Firmware::Bios, &[&stick, &site.disk], 1, Some(site.web.port));
    vm.expect_hello("manual", BORN, 'A');
    vm.run("grep /var/lib/kubesolo /proc/mounts").expect(0, &["/dev/vdb4"]);
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.power_off();
    assert!(std::fs::read(&stick.image).unwrap() == before, "the stick was written to");
    assert_eq!(site.boot_variables(), "B:1:2::1");

    // A copy, GUIDs and all: nobody can tell.
    std::fs::copy(&site.disk.image, &stick.image).unwrap();
    let mut vm = Vm::start(Firmware::Bios, &[&stick, &site.disk], 1, Some(site.web.port));
    vm.wait_said("2 disks qualify");
    vm.expect_hello("manual", "1.1.0", 'B');
    vm.agent(&apply()).expect(7, &["vda", "vdb", "unplug"]);
}

#[apply(long_test)]
fn a_data_partition_that_is_full_read_only_corrupt_or_missing() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    site.offer("1.1.0", "healthy");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    vm.run("dd if=/dev/zero of=/var/lib/kubesolo/filler bs=4k; dd if=/dev/zero of=/var/lib/kubesolo/rest bs=1");
    let full = vm.agent(&apply());
    assert!(full.code == 7 && full.text.contains("No space"), "{full:?}");
    vm.agent("status").expect(0, &["slot A confirmed"]);
    vm.run("rm /var/lib/kubesolo/filler /var/lib/kubesolo/rest").expect(0, &[]);
    vm.run("mount -o remount,ro /var/lib/kubesolo").expect(0, &[]);
    let read_only = vm.agent(&apply());
    assert!(read_only.code == 7 && read_only.text.contains("Read-only"), "{read_only:?}");
    vm.run("mount -o remount,rw /var/lib/kubesolo").expect(0, &[]);
    vm.agent(&apply()).expect(0, &["1.1.0 is staged"]);
    vm.power_off();

    site.disk.overwrite(DATA, 0, &vec![0xa5; 65536]);
    for (case, words) in [("corrupt", "cannot mount"), ("missing", "no partition KSOLODATA")] {
        if case == "missing" {
            run(command("sgdisk").args(["-d", "4"]).arg(&site.disk.image));
        }
        let mut vm = site.power_on();
        vm.wait_said(words);
        vm.expect_hello("manual", BORN, 'A');
        let refused = vm.agent(&apply());
        assert_eq!(refused.code, 7, "{case}: {}", refused.text);
        println!("{case}: {}", refused.text);
        vm.agent("status").expect(0, &["KubeSolo OS 1.0.0", "slot A confirmed"]);
        vm.agent("verify").expect(0, &["both copies of the boot variables are sound"]);
    }
}
