//! A machine, and a web server that offers it one version: what most tests of whole machines begin with.

use super::disk::{A, B, Disk};
use super::kit::{self, Firmware};
use super::release::Release;
use super::root::jq;
use super::vm::{self, SERVER, Vm};
use super::web::{Answer, Web};
use super::{command, run};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What the health check says when it has confirmed a trial boot.
pub const CONFIRMED: &str = "the trial boot is confirmed";

/// A disk, and a server. When dropped it prints how long the scenario took.
pub struct Site {
    pub firmware: Firmware,
    pub disk: Disk,
    pub web: Web,
    /// The loopback port that the machine reaches.
    pub port: u16,
    offered: Arc<Mutex<Release>>,
    started: Instant,
}

impl Site {
    pub fn new(firmware: Firmware) -> Site {
        let started = Instant::now();
        let offered = Arc::new(Mutex::new(kit::born(firmware)));
        let shown = offered.clone();
        let web = Web::start(move |path| {
            let release = shown.lock().unwrap().clone();
            match path {
                "/latest.json" => Answer::ok(release.latest_json()),
                _ => release.file(path).map_or(Answer::status(404), Answer::ok),
            }
        });
        Site { firmware, disk: kit::disk(firmware), port: web.port, web, offered, started }
    }

    /// Offers a version. Input: `behaviour`: see `tests/vm/init`.
    pub fn offer(&self, version: &str, behaviour: &str) -> Release {
        self.offer_with(version, behaviour, &[])
    }

    /// Offers a version with files of its own in the initramfs. Input: path, content, mode of each.
    pub fn offer_with(&self, version: &str, behaviour: &str, files: &[(&str, &str, u32)]) -> Release {
        let release = kit::release_with(self.firmware, version, behaviour, files);
        *self.offered.lock().unwrap() = release.clone();
        release
    }

    pub fn power_on(&self) -> Vm {
        Vm::start(self.firmware, &[&self.disk], 0, Some(self.port))
    }

    /// The same with a hardware clock that says something else.
    pub fn power_on_at(&self, base: &str) -> Vm {
        Vm::start_at(self.firmware, &self.disk, self.port, base)
    }

    /// Both copies of the boot variables, as grub-editenv lists them: active, success, counter, from, canary.
    #[track_caller]
    pub fn boot_variables(&self) -> String {
        let [main, backup] = ["grubenv", "grubenv.bak"].map(|name| vm::boot_variables(&self.disk, name));
        assert_eq!(main, backup, "the copies differ");
        let names = ["active_slot", "boot_success", "boot_counter", "rollback_from", "boot_canary"];
        names.map(|name| main.get(name).cloned().unwrap_or_else(|| "-".into())).join(":")
    }

    /// Holds every byte of a slot, and its record.
    #[track_caller]
    pub fn assert_slot(&self, slot: u32, release: &Release) {
        let architecture = self.firmware.architecture();
        let pair = release.pairs.iter().find(|pair| pair.architecture == architecture).unwrap();
        assert!(self.disk.file(slot, "vmlinuz").unwrap() == pair.kernel, "kernel of partition {slot}");
        assert!(self.disk.file(slot, "kubesolo-os.gz").unwrap() == pair.initramfs, "initramfs of partition {slot}");
        assert_eq!(self.disk.text(slot, "version").unwrap().trim(), release.version);
        assert_eq!(jq(&self.disk.text(slot, "slot.json").unwrap(), ".version"), release.version);
        assert!(!self.disk.needs_recovery(slot), "partition {slot} has a journal to replay");
    }

    /// Changes a slot of a machine that is off.
    pub fn debugfs_write(&self, slot: u32, request: &str) {
        let target = format!("{}?offset={}", self.disk.image.display(), self.disk.extent(slot).0);
        run(command("debugfs").args(["-w", "-R", request]).arg(target));
    }

    /// Puts other bytes into a file of a slot of a machine that is off.
    pub fn replace(&self, slot: u32, name: &str, bytes: &[u8]) {
        let file = self.disk.dir().join("replacement");
        std::fs::write(&file, bytes).unwrap();
        self.debugfs_write(slot, &format!("rm /{name}"));
        self.debugfs_write(slot, &format!("write {} {name}", file.display()));
        assert!(self.disk.file(slot, name).unwrap() == bytes);
    }

    /// Stages and activates a version, and shuts down.
    pub fn activated(&self) -> Release {
        let release = self.offer("1.1.0", "healthy");
        let mut vm = self.power_on();
        vm.expect_hello("manual", kit::BORN, 'A');
        vm.agent(&format!("{} --activate", apply())).expect(0, &["slot B is active"]);
        vm.power_off();
        release
    }

    /// An update of a healthy machine: to that version, in that slot, confirmed.
    #[track_caller]
    pub fn update(&self, vm: &mut Vm, version: &str, slot: char) -> Release {
        let release = self.offer(version, "healthy");
        apply_and_reboot(vm);
        vm.expect_hello("auto", version, slot);
        expect_confirmed(vm, slot);
        release
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or("?").to_string();
        println!("{name}: {} s", self.started.elapsed().as_secs());
    }
}

/// The partition of a slot.
pub fn partition(slot: char) -> u32 {
    if slot == 'A' { A } else { B }
}

/// The command that takes what the server offers.
pub fn apply() -> String {
    format!("apply --server http://{SERVER}")
}

/// Bytes that a run of `apply --json` says that it fetched, and that it copied from the running slot.
#[track_caller]
pub fn taken(run: &vm::Answer) -> (usize, usize) {
    let number = |field: &str| run.jq(field).parse().unwrap_or_else(|_| panic!("{run:?}"));
    (number(".fetched_bytes"), number(".copied_bytes"))
}

/// Starts an update that ends with a restart.
pub fn apply_and_reboot(vm: &mut Vm) {
    vm.send(&format!("kubesolo-update {} --activate --reboot", apply()));
}

/// Waits until this trial boot is confirmed, and holds what the agent then says.
#[track_caller]
pub fn expect_confirmed(vm: &mut Vm, slot: char) {
    vm.wait_said(CONFIRMED);
    let status = vm.agent("status --json").expect(0, &[]);
    assert_eq!(status.jq(".boot | [.active_slot,.boot_success,.boot_canary]"), format!("[\"{slot}\",true,true]"));
    assert_eq!(status.jq(".running_slot"), slot.to_string());
    assert_eq!(status.jq(".slots | map(.valid)"), "[true,true]");
    assert_eq!(status.jq(".remarks"), "[]");
}

/// Holds what the agent says and records after GRUB went back to slot A.
#[track_caller]
pub fn expect_rolled_back(site: &Site, mut vm: Vm, reason: &str, variables: &str) {
    vm.agent("status").expect(0, &["rolled back, not recorded yet", reason]);
    vm.agent(&apply()).expect(4, &[reason]);
    assert_eq!(vm.state("phase"), "rolled_back");
    assert!(vm.state("last_error").contains(reason));
    vm.power_off();
    assert_eq!(site.boot_variables(), variables);
    site.assert_slot(A, &kit::born(site.firmware));
}
