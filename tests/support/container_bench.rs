//! What container images are made of, and the scripts that make them.

use super::disk::{architecture, initramfs_of, kernel_noise, noise, other_architecture};
use super::registry::Ca;
use super::root::Root;
use super::signing::script;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

pub const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
pub const SOURCE: &str = "https://git.example.com/os?ref=a,b=c";

/// A directory with what images are made of.
pub struct Bench {
    pub dir: TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        for (seed, arch) in [(1, "amd64"), (2, "arm64")] {
            fs::write(bench.path(&format!("vmlinuz-{arch}")), kernel_noise(seed, 200_001)).unwrap();
            let initramfs = initramfs_of(bench.dir.path(), &noise(seed + 10, 50_003));
            fs::write(bench.path(&format!("initramfs-{arch}")), initramfs).unwrap();
        }
        bench
    }

    /// The same with agents for both architectures: the release's where this tests that one.
    pub fn with_agents() -> Bench {
        let bench = Bench::new();
        let dist = bench.path("dist");
        fs::create_dir(&dist).unwrap();
        let ours = Root::program();
        fs::copy(&ours, dist.join(format!("kubesolo-update-{}", architecture()))).unwrap();
        // Only its header is looked at. Source: ELF-64 object file format, e_machine at byte 18.
        let mut other = fs::read(&ours).unwrap();
        let machine: u16 = if other_architecture() == "arm64" { 183 } else { 62 };
        other[18..20].copy_from_slice(&machine.to_le_bytes());
        fs::write(dist.join(format!("kubesolo-update-{}", other_architecture())), other).unwrap();
        let ca = Ca::new(bench.dir.path(), "ca");
        fs::copy(ca.certificate, bench.path("ca.pem")).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The OS of both architectures, in the order given.
    pub fn os(&self, version: &str, order: [&str; 2]) -> Command {
        let mut os = script(self.dir.path(), "build-os-image.sh");
        os.args(["--version", version, "--channel", "beta", "--source", SOURCE]);
        for arch in order {
            os.args(["--arch", arch, "--kernel", &format!("vmlinuz-{arch}")]);
            os.args(["--initramfs", &format!("initramfs-{arch}")]);
        }
        os
    }

    pub fn agent(&self) -> Command {
        let mut agent = script(self.dir.path(), "build-agent-image.sh");
        agent.args(["--agent-dir", "dist", "--ca-file", "ca.pem"]);
        agent
    }

    /// Holds that a bundle has the OS, byte for byte, and nothing else.
    #[track_caller]
    pub fn assert_os(&self, root: &Path, arch: &str, version: &str) {
        assert!(fs::read(root.join("vmlinuz")).unwrap() == fs::read(self.path(&format!("vmlinuz-{arch}"))).unwrap());
        let initramfs = fs::read(self.path(&format!("initramfs-{arch}"))).unwrap();
        assert!(fs::read(root.join("kubesolo-os.gz")).unwrap() == initramfs, "{arch}");
        assert_eq!(fs::read_to_string(root.join("version")).unwrap(), format!("{version}\n"));
        assert_eq!(fs::read_dir(root).unwrap().count(), 3);
    }
}
