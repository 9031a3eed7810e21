//! Whole machines: GRUB, a kernel, the agent in its initramfs, a disk, a network, and what goes wrong with them.
//!
//! docs/testing.md lists the scenarios. Nothing leaves this machine: the emulated network reaches one loopback port.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::disk::{A, B, DATA, Disk, EFI};
use support::registry::Registry;
use support::release::{Release, Target};
use support::root::jq;
use support::vm::{self, BORN, Firmware, SERVER, Vm, need_vm};
use support::web::{Answer, Web};
use support::{command, need, run};

const CONFIRMED: &str = "the trial boot is confirmed";

/// A machine, and a web server that offers it one version.
struct Site {
    firmware: Firmware,
    disk: Disk,
    web: Web,
    offered: Arc<Mutex<Release>>,
}

impl Site {
    fn new(firmware: Firmware) -> Site {
        let offered = Arc::new(Mutex::new(vm::born(firmware)));
        let shown = offered.clone();
        let web = Web::start(move |path| {
            let release = shown.lock().unwrap();
            match path {
                "/latest.json" => Answer::ok(release.latest_json()),
                _ => release.file(path).map_or(Answer::status(404), Answer::ok),
            }
        });
        Site { firmware, disk: vm::disk(firmware), web, offered }
    }

    fn offer(&self, version: &str, behaviour: &str) -> Release {
        let release = vm::release(self.firmware, version, behaviour);
        *self.offered.lock().unwrap() = release.clone();
        release
    }

    fn power_on(&self) -> Vm {
        Vm::start(self.firmware, &[&self.disk], 0, Some(self.web.port))
    }

    /// Both copies of the boot variables, as grub-editenv lists them: active, success, counter, from, canary.
    #[track_caller]
    fn boot_variables(&self) -> String {
        let [main, backup] = ["grubenv", "grubenv.bak"].map(|name| vm::boot_variables(&self.disk, name));
        assert_eq!(main, backup, "the copies differ");
        let names = ["active_slot", "boot_success", "boot_counter", "rollback_from", "boot_canary"];
        names.map(|name| main.get(name).cloned().unwrap_or_else(|| "-".into())).join(":")
    }

    /// Holds every byte of a slot, and its record.
    #[track_caller]
    fn assert_slot(&self, slot: u32, release: &Release) {
        let architecture = self.firmware.architecture();
        let pair = release.pairs.iter().find(|pair| pair.architecture == architecture).unwrap();
        assert!(self.disk.file(slot, "vmlinuz").unwrap() == pair.kernel, "kernel of partition {slot}");
        assert!(self.disk.file(slot, "kubesolo-os.gz").unwrap() == pair.initramfs, "initramfs of partition {slot}");
        assert_eq!(self.disk.text(slot, "version").unwrap().trim(), release.version);
        assert_eq!(jq(&self.disk.text(slot, "slot.json").unwrap(), ".version"), release.version);
        assert!(!self.disk.needs_recovery(slot), "partition {slot} has a journal to replay");
    }
}

fn apply() -> String {
    format!("apply --server http://{SERVER}")
}

fn apply_and_reboot(vm: &mut Vm) {
    vm.send(&format!("kubesolo-update {} --activate --reboot", apply()));
}

/// Waits until this trial boot is confirmed, and holds what the agent then says.
#[track_caller]
fn expect_confirmed(vm: &mut Vm, slot: char) {
    vm.wait_said(CONFIRMED);
    let status = vm.agent("status --json").expect(0, &[]);
    assert_eq!(status.jq(".boot | [.active_slot,.boot_success,.boot_canary]"), format!("[\"{slot}\",true,true]"));
    assert_eq!(status.jq(".running_slot"), slot.to_string());
    assert_eq!(status.jq(".slots | map(.valid)"), "[true,true]");
    assert_eq!(status.jq(".remarks"), "[]");
}

#[test]
fn good_updates_over_a_registry_there_and_back() {
    if !need_vm(Firmware::Bios) || !need("docker-registry") || !need("oras") {
        return;
    }
    let firmware = Firmware::Bios;
    let (dir, disk) = (tempfile::tempdir().unwrap(), vm::disk(firmware));
    let registry = Registry::start(dir.path(), None);
    let [first, second] = ["1.1.0", "1.2.0"].map(|version| vm::release(firmware, version, "healthy"));
    let repository = format!("{}/os/kubesolo", registry.host());
    let digest = first.publish(dir.path(), Target::Registry, &repository, "latest");
    let update = format!("apply --registry {SERVER}/os/kubesolo");

    let mut vm = Vm::start(firmware, &[&disk], 0, Some(registry.port));
    vm.expect_hello("auto", BORN, 'A');
    vm.wait_said("this boot is not on trial");
    vm.agent(&update).expect(0, &["1.1.0 is staged in slot B"]);
    assert_eq!(vm.state("phase"), "staged");
    vm.agent(&update).expect(3, &["staged in slot B already"]);
    vm.agent("activate").expect(0, &["slot B is active, on trial for three boots"]);
    // A trial is pending: the other slot is the fallback.
    vm.agent(&update).expect(4, &["waits for its first boot"]);
    vm.send("sync; reboot -f");

    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    assert_eq!(vm.state("phase"), "success");
    assert_eq!(vm.state("manifest_digest"), digest);

    second.publish(dir.path(), Target::Registry, &repository, "latest");
    vm.send(&format!("kubesolo-update {update} --activate --reboot"));
    vm.expect_hello("auto", "1.2.0", 'A');
    expect_confirmed(&mut vm, 'A');
    vm.agent(&update).expect(3, &["nothing to do"]);
    vm.power_off();

    let site = Site { disk, ..Site::new(firmware) };
    assert_eq!(site.boot_variables(), "A:1:2::1");
    site.assert_slot(A, &second);
    site.assert_slot(B, &first);
}

#[test]
fn a_version_that_never_gets_healthy_is_left_after_three_boots() {
    if !need_vm(Firmware::Bios) {
        return;
    }
    let site = Site::new(Firmware::Bios);
    let bad = site.offer("1.2.0", "never");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    for boot in 1..=3 {
        vm.expect_hello("auto", "1.2.0", 'B');
        // While it is on trial, the other slot is the fallback.
        if boot == 2 {
            vm.agent(&apply()).expect(4, &["runs on trial"]);
        }
        // The health check restarts it. What it says is often lost on the way to the console.
    }
    vm.expect_hello("manual", BORN, 'A');
    vm.wait_said("Rolling back to slot A.");
    vm.agent("status").expect(0, &["rolled back, not recorded yet", "three boots"]);
    vm.agent(&apply()).expect(4, &["1.2.0", "three boots"]);
    assert_eq!(vm.state("phase"), "rolled_back");
    assert!(vm.state("last_error").contains("three boots"));
    vm.agent("status").expect(0, &["rolled back: 1.0.0 to 1.2.0"]);
    vm.agent("verify").expect(0, &["both copies of the boot variables are sound"]);
    vm.run("sync");
    site.assert_slot(B, &bad);
    site.offer("1.3.0", "healthy");
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.3.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.power_off();
    assert_eq!(site.boot_variables(), "B:1:2::1");
    site.assert_slot(A, &vm::born(Firmware::Bios));
}

/// Three boots that end before anything can be asked.
fn boots_of_a_dead_version(site: &Site, behaviour: &str, words: &str, reset: bool) {
    let bad = site.offer("1.3.0", behaviour);
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    for _ in 0..3 {
        vm.wait_said(words);
        if reset {
            vm.reset();
        }
    }
    vm.wait_said("Rolling back to slot A.");
    vm.expect_hello("manual", BORN, 'A');
    expect_rolled_back(site, vm, "three boots", "A:1:0::1");
    site.assert_slot(B, &bad);
}

/// Holds what the agent says and records after GRUB went back to slot A.
#[track_caller]
fn expect_rolled_back(site: &Site, mut vm: Vm, reason: &str, variables: &str) {
    vm.agent("status").expect(0, &["rolled back, not recorded yet", reason]);
    vm.agent(&apply()).expect(4, &[reason]);
    assert_eq!(vm.state("phase"), "rolled_back");
    assert!(vm.state("last_error").contains(reason));
    vm.power_off();
    assert_eq!(site.boot_variables(), variables);
    site.assert_slot(A, &vm::born(site.firmware));
}

#[test]
fn a_kernel_panic_is_counted() {
    if !need_vm(Firmware::Bios) {
        return;
    }
    boots_of_a_dead_version(&Site::new(Firmware::Bios), "panic", "panic now", false);
}

#[test]
fn an_initramfs_that_hangs_is_counted() {
    if !need_vm(Firmware::Bios) {
        return;
    }
    boots_of_a_dead_version(&Site::new(Firmware::Bios), "hang", "hangs now", true);
}

/// Stages and activates a version, and shuts down.
fn activated(site: &Site) {
    site.offer("1.1.0", "healthy");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    vm.agent(&format!("{} --activate", apply())).expect(0, &["slot B is active"]);
    vm.power_off();
}

/// Changes a slot of a machine that is off.
fn debugfs_write(site: &Site, slot: u32, request: &str) {
    let target = format!("{}?offset={}", site.disk.image.display(), site.disk.extent(slot).0);
    run(command("debugfs").args(["-w", "-R", request]).arg(target));
}

#[test]
fn a_slot_that_does_not_load_is_left_at_once() {
    if !need_vm(Firmware::Bios) {
        return;
    }
    let garbage = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(garbage.path(), [b'x'; 100_000]).unwrap();
    for case in ["missing kernel", "corrupt kernel", "missing initramfs"] {
        let site = Site::new(Firmware::Bios);
        activated(&site);
        debugfs_write(&site, B, if case == "missing initramfs" { "rm /kubesolo-os.gz" } else { "rm /vmlinuz" });
        if case == "corrupt kernel" {
            debugfs_write(&site, B, &format!("write {} vmlinuz", garbage.path().display()));
        }
        let mut vm = site.power_on();
        vm.wait_said("Slot B does not load");
        vm.expect_hello("manual", BORN, 'A');
        vm.agent("verify").expect(7, &["INVALID"]);
        vm.agent("status").expect(0, &["could not be loaded; GRUB booted slot A"]);
        site.offer("1.4.0", "healthy");
        apply_and_reboot(&mut vm);
        vm.expect_hello("auto", "1.4.0", 'B');
        expect_confirmed(&mut vm, 'B');
        vm.power_off();
        assert_eq!(site.boot_variables(), "B:1:2::1", "{case}");
    }
}

#[test]
fn nothing_is_activated_before_grub_has_shown_that_it_can_write() {
    if !need_vm(Firmware::Bios) {
        return;
    }
    let site = Site::new(Firmware::Bios);
    assert_eq!(site.boot_variables(), "A:1:3::0");
    site.offer("1.1.0", "healthy");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    vm.agent("status --json").expect(0, &["\"boot_canary\":true"]);
    // As before the first boot.
    let edit = "sed -i s/boot_canary=1/boot_canary=0/ /efi/boot/grub/grubenv /efi/boot/grub/grubenv.bak";
    vm.run(&format!("mkdir -p /efi; mount -t vfat /dev/vda1 /efi && {edit} && umount /efi")).expect(0, &[]);
    vm.agent("rollback").expect(7, &["boot_canary is 0"]);
    vm.agent(&apply()).expect(0, &["1.1.0 is staged in slot B"]);
    vm.agent("activate").expect(7, &["boot_canary is 0", "restart once"]);
    assert_eq!(vm.state("phase"), "staged");
    vm.agent("status --json").expect(0, &["\"active_slot\":\"A\",\"boot_success\":true"]);
    vm.send("sync; reboot -f");
    vm.expect_hello("manual", BORN, 'A');
    vm.send("kubesolo-update activate --reboot");
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.power_off();
    assert_eq!(site.boot_variables(), "B:1:2::1");
}

/// Both copies of the block of a machine that is off; `None`: the file is gone.
fn set_blocks(site: &Site, blocks: [Option<&[u8]>; 2]) {
    let efi = format!("{}@@{}", site.disk.image.display(), site.disk.extent(EFI).0);
    let file = site.disk.dir().join("new-block");
    for (name, block) in ["grubenv", "grubenv.bak"].iter().zip(blocks) {
        let path = format!("::/boot/grub/{name}");
        let _ = command("mdel").args(["-i", &efi, &path]).output();
        if let Some(bytes) = block {
            std::fs::write(&file, bytes).unwrap();
            run(command("mcopy").args(["-o", "-i", &efi]).arg(&file).arg(&path));
        }
    }
}

#[test]
fn broken_boot_variables_are_named_and_repaired() {
    if !need_vm(Firmware::Bios) {
        return;
    }
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
        set_blocks(&site, blocks);
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

#[test]
fn manual_rollback_is_confirmed_or_comes_back() {
    if !need_vm(Firmware::Bios) {
        return;
    }
    let site = Site::new(Firmware::Bios);
    site.offer("1.1.0", "healthy");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.send("kubesolo-update rollback --reboot");
    vm.expect_hello("auto", BORN, 'A');
    expect_confirmed(&mut vm, 'A');
    assert_eq!(vm.state("phase"), "rolled_back");
    assert_eq!(vm.state("last_error"), "manual rollback");
    // What was rolled back from is not gone back to by mistake.
    vm.agent("rollback").expect(4, &["it failed here before: manual rollback"]);
    // To a slot that then fails, three times.
    vm.send("kubesolo-update rollback --retry-failed --reboot");
    for _ in 0..3 {
        vm.expect_hello("manual", "1.1.0", 'B');
        vm.run("rm /run/kubesolo-healthy").expect(0, &[]);
        vm.send("kubesolo-update healthcheck --timeout 1 --reboot-on-failure");
    }
    vm.wait_said("Rolling back to slot A.");
    vm.expect_hello("manual", BORN, 'A');
    vm.agent("status").expect(0, &["slot A confirmed"]);
    vm.agent("healthcheck").expect(0, &["not on trial"]);
    assert_eq!(vm.state("phase"), "rolled_back");
    vm.power_off();
    assert_eq!(site.boot_variables(), "A:1:0::1");
}

#[test]
fn another_disk_with_the_same_labels_is_left_alone() {
    if !need_vm(Firmware::Bios) {
        return;
    }
    let site = Site::new(Firmware::Bios);
    site.offer("1.1.0", "healthy");
    let stick = vm::disk(Firmware::Bios);
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
    vm.wait_said("several partitions KSOLODATA");
    vm.expect_hello("manual", "1.1.0", 'B');
    vm.agent(&apply()).expect(7, &["vda", "vdb", "unplug"]);
}

#[test]
fn a_data_partition_that_is_full_read_only_corrupt_or_missing() {
    if !need_vm(Firmware::Bios) {
        return;
    }
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

    let whole = site.disk.bytes(DATA);
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
    assert_ne!(whole.len(), 0);
}

/// An update there, and confirmed.
fn one_update(firmware: Firmware) {
    if !need_vm(firmware) {
        return;
    }
    let site = Site::new(firmware);
    let release = site.offer("1.1.0", "healthy");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.power_off();
    assert_eq!(site.boot_variables(), "B:1:2::1");
    site.assert_slot(A, &vm::born(firmware));
    site.assert_slot(B, &release);
}

#[test]
fn an_update_on_uefi() {
    one_update(Firmware::Uefi);
}

#[test]
fn an_update_on_arm64() {
    one_update(Firmware::UefiArm64);
}

/// Numbers that repeat from run to run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_micros(self.below(limit * 1000))
    }
}

/// What a machine is at when its plug is pulled.
#[derive(Clone, Copy, Debug)]
enum Work {
    Apply,
    Activate,
    Boot,
    Confirm,
    Rollback,
}

/// Pulls the plug again and again, at moments that the seed chooses; each time the machine must boot by itself, what
/// runs must be a whole version, and in the end an update must succeed.
fn power_cuts(seed: u64, cuts: u32) {
    let site = Site::new(Firmware::Bios);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut known = vec![vm::born(Firmware::Bios)];
    let mut running = BORN.to_string();
    let (mut done, mut updates) = (0, 0);
    let mut vm = site.power_on();
    let mut slot = vm.hello("manual").1;
    while done < cuts {
        // A cycle: a new version, cut at each step on its way to being confirmed.
        known.push(site.offer(&format!("1.{}.0", known.len()), "healthy"));
        for work in [Work::Apply, Work::Activate, Work::Boot, Work::Confirm, Work::Rollback] {
            let on_trial = |vm: &mut Vm| vm.agent("status --json").jq(".boot.boot_success") == "false";
            // What has to be there before this step can be cut.
            match work {
                Work::Apply | Work::Rollback => {
                    if on_trial(&mut vm) {
                        vm.agent("healthcheck --timeout 5").expect(0, &["healthy"]);
                    }
                }
                Work::Activate => {
                    // The update that follows a cut.
                    let code = vm.agent(&format!("{} --retry-failed", apply())).code;
                    assert!(code == 0 || code == 3, "seed {seed}, cut {done}: apply after a cut: {code}");
                }
                Work::Boot => {
                    let code = vm.agent("activate").code;
                    assert!(
                        code == 0 || code == 3 || code == 4,
                        "seed {seed}, cut {done}: activate after a cut: {code}"
                    );
                    vm.send("sync; reboot -f");
                }
                Work::Confirm => {}
            }
            let (command, window) = match work {
                Work::Apply => (format!("kubesolo-update {} --retry-failed", apply()), 4000),
                Work::Activate => ("kubesolo-update activate".to_string(), 2000),
                Work::Boot => (String::new(), 9000),
                Work::Confirm => ("kubesolo-update healthcheck --timeout 5".to_string(), 400),
                Work::Rollback => ("kubesolo-update rollback --retry-failed".to_string(), 2000),
            };
            if !command.is_empty() {
                vm.send(&command);
            }
            let delay = dice.millis(window);
            vm.listen_for(delay);
            vm.cut();
            done += 1;
            // It boots, by itself, and what runs is whole.
            vm = site.power_on();
            (running, slot) = vm.hello("manual");
            let what = format!("seed {seed}, cut {done}: {work:?} after {delay:?}: {running} runs in slot {slot}");
            println!("{what}");
            let release = known.iter().find(|r| r.version == running).unwrap_or_else(|| panic!("{what}"));
            site.assert_slot(if slot == 'A' { A } else { B }, release);
            let verify = vm.agent(&format!("verify --slot {slot}"));
            // Slots only: a copy of the boot variables may be behind.
            assert!(verify.text.contains(&format!("{running} is what its record says")), "{what}: {}", verify.text);
            vm.agent("status").expect(0, &[&format!("slot {slot}")]);
        }
        // The next update succeeds.
        if vm.agent("status --json").jq(".boot.boot_success") == "false" {
            vm.agent("healthcheck --timeout 5").expect(0, &["confirmed"]);
        }
        let next = format!("1.{}.0", known.len());
        known.push(site.offer(&next, "healthy"));
        apply_and_reboot(&mut vm);
        let target = if slot == 'A' { 'B' } else { 'A' };
        (running, slot) = vm.hello("manual");
        assert_eq!((running.as_str(), slot), (next.as_str(), target), "seed {seed}, cut {done}");
        vm.agent("healthcheck --timeout 5").expect(0, &[CONFIRMED]);
        updates += 1;
    }
    println!("seed {seed}: {done} cuts, {updates} updates after them; {running} runs in slot {slot}");
}

/// How many cuts each of the two series makes: 30, or half of what `CUTS` says.
fn cuts() -> u32 {
    let total: u32 =
        std::env::var("CUTS").ok().filter(|c| !c.is_empty()).map_or(60, |c| c.parse().expect("CUTS=NUMBER"));
    total.div_ceil(2)
}

#[test]
fn power_cuts_first_series() {
    if need_vm(Firmware::Bios) {
        power_cuts(1, cuts());
    }
}

#[test]
fn power_cuts_second_series() {
    if need_vm(Firmware::Bios) {
        power_cuts(2, cuts());
    }
}
