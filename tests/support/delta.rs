//! A machine that runs a version which has most of a new one: what the new one's chunk index is there for.

use super::disk::{A, architecture, kernel_noise, noise};
use super::machine::Machine;
use super::release::{Release, sha256};
use super::run;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Content of the cpio, in bytes.
const CONTENT_BYTES: usize = 1_600_000;
/// What is another in the new version, and where.
const CHANGED: std::ops::Range<usize> = 700_000..760_000;

/// Two versions of one system.
pub struct Delta {
    pub old_kernel: Vec<u8>,
    pub old_initramfs: Vec<u8>,
    pub new: Release,
}

impl Delta {
    /// Makes both: another kernel, and an initramfs of which 60,000 bytes are others.
    pub fn new() -> Delta {
        let dir = tempfile::tempdir().unwrap();
        let old_initramfs = pack(dir.path(), &noise(77, CONTENT_BYTES));
        Delta { old_kernel: kernel_noise(5, 300_007), old_initramfs, new: Delta::release("2.0.0", 78) }
    }

    /// Makes a new version. Input: `seed`: what its 60,000 bytes depend on.
    pub fn release(version: &str, seed: u64) -> Release {
        let dir = tempfile::tempdir().unwrap();
        let mut content = noise(77, CONTENT_BYTES);
        content.splice(CHANGED, noise(seed, 60_011));
        let mut new = Release::new(version);
        let ours = new.ours_mut();
        ours.initramfs = pack(dir.path(), &content);
        ours.chunks = Some(index(&ours.initramfs));
        new
    }

    /// A machine that runs the old version.
    pub fn machine(&self) -> Machine {
        let mut machine = Machine::new();
        self.install(&mut machine, &[]);
        machine
    }

    /// Puts the old version into the running slot. Input: `layers`: what its record says of the initramfs's layers.
    pub fn install(&self, machine: &mut Machine, layers: &[&[u8]]) {
        let file = |bytes: &[u8]| format!(r#"{{"size":{},"sha256":"{}"}}"#, bytes.len(), sha256(bytes));
        let layers: Vec<String> = layers.iter().map(|layer| file(layer)).collect();
        let record = format!(
            r#"{{"version":"1.0.0","architecture":"{}","channel":"stable","source":"test","kernel":{},"initramfs":{},"layers":[{}]}}"#,
            architecture(),
            file(&self.old_kernel),
            file(&self.old_initramfs),
            layers.join(",")
        );
        let dir = machine.disk.dir().join("old");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("vmlinuz"), &self.old_kernel).unwrap();
        fs::write(dir.join("kubesolo-os.gz"), &self.old_initramfs).unwrap();
        fs::write(dir.join("slot.json"), record).unwrap();
        machine
            .in_slot(A, &format!("rm -f slot.crc32; cp {0}/vmlinuz {0}/kubesolo-os.gz {0}/slot.json .", dir.display()));
        machine.running = machine.disk.bytes(A);
    }
}

/// The chunk index that the publishers' tool makes.
pub fn index(layer: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("layer");
    fs::write(&file, layer).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_kubesolo-chunks")).arg("index").arg(&file).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// An initramfs with this content behind what never changes, packed as the documentation advises, so that two versions have parts in common.
pub fn pack(dir: &Path, content: &[u8]) -> Vec<u8> {
    fs::write(dir.join("base"), noise(4, 150_000)).unwrap();
    fs::write(dir.join("content"), content).unwrap();
    let script = "touch -d @0 base content && printf 'base\\ncontent\\n' | cpio -o -H newc -R 0:0 --reproducible --quiet | gzip -9n --rsyncable >packed";
    run(Command::new("sh").args(["-c", script]).current_dir(dir));
    fs::read(dir.join("packed")).unwrap()
}
