//! A machine that something bad happens to, and what must be true of it afterwards.

use super::disk::{A, B, Disk};
use super::release::Release;
use super::root::{Root, Run};
use super::{run, with_own_mounts};

/// What an attempt may leave in slot B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Every byte as before.
    Untouched,
    /// It was mounted; every file in it is as before.
    SameFiles,
    /// Something was written: no record then.
    Invalid,
}

/// A machine and what it looked like before the fault.
pub struct Machine {
    pub disk: Disk,
    pub root: Root,
    pub running: Vec<u8>,
    pub target: Vec<u8>,
    files: Vec<(String, Option<Vec<u8>>)>,
    pub blocks: [Vec<u8>; 2],
}

impl Machine {
    /// Runs a script in the root directory of a slot, which nobody else sees mounted.
    pub fn in_slot(&self, number: u32, script: &str) {
        let dir = self.root.path("run/slot");
        let mut shell = with_own_mounts("mkdir -p \"$2\"; mount -t ext4 \"$1\" \"$2\"; cd \"$2\"; eval \"$3\"");
        run(shell.arg(self.disk.node(number)).arg(dir).arg(script));
        self.disk.wait_unmounted(number);
    }

    pub fn new() -> Machine {
        Machine::with_slots(24)
    }

    /// Input: the size of each slot.
    pub fn with_slots(slot_mib: u64) -> Machine {
        let disk = Disk::new(slot_mib, 16);
        let root = Root::new(&disk);
        root.set_boot_variables(&["boot_canary=1"]);
        let (running, target, blocks) = (disk.bytes(A), disk.bytes(B), root.blocks());
        let files = files(&disk);
        Machine { disk, root, running, target, files, blocks }
    }

    pub fn apply(&self, source: &[&str]) -> Run {
        self.root.agent(&[&["apply"], source].concat())
    }

    /// Holds everything that must be true after a failed attempt.
    #[track_caller]
    pub fn assert_unharmed(&self, what: &str, phase: &str, kind: &str, target: Left) {
        assert!(self.disk.bytes(A) == self.running, "{what}: the running slot was written");
        assert!(self.root.blocks() == self.blocks, "{what}: the boot variables were written");
        assert_eq!(self.root.state_field("phase"), phase, "{what}");
        assert_eq!(self.root.state_field("last_error_kind"), kind, "{what}");
        self.disk.wait_unmounted(B);
        assert!(!self.disk.needs_recovery(B), "{what}: the journal is not empty");
        match target {
            Left::Untouched => assert!(self.disk.bytes(B) == self.target, "{what}: slot B was written"),
            Left::SameFiles => assert!(files(&self.disk) == self.files, "{what}: files in slot B were changed"),
            Left::Invalid => {
                assert_eq!(self.disk.file(B, "slot.json"), None, "{what}");
                let status = self.root.agent(&["status", "--json"]).expect(0, &[]);
                assert_eq!(status.jq(".slots | map(.valid)"), "[true,false]", "{what}");
            }
        }
        self.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
        assert!(self.root.blocks() == self.blocks, "{what}: activate wrote the boot variables");
    }

    /// A good release from elsewhere.
    #[track_caller]
    pub fn assert_recovers(&self, what: &str) {
        let release = Release::new("9.0.0");
        let server = release.serve();
        self.apply(&["--server", &server.url("")]).expect(0, &["9.0.0 is staged"]);
        assert!(self.disk.file(B, "vmlinuz").unwrap() == release.ours().kernel, "{what}");
        assert!(self.disk.file(B, "kubesolo-os.gz").unwrap() == release.ours().initramfs, "{what}");
        assert_eq!(self.root.state_field("phase"), "staged", "{what}");
        assert!(self.disk.bytes(A) == self.running, "{what}");
        self.root.agent(&["activate"]).expect(0, &["slot B is active"]);
    }
}

/// Names and contents in slot B.
fn files(disk: &Disk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.names(B).into_iter().map(|name| (name.clone(), disk.file(B, &name))).collect()
}
