//! A stick to provision: a loop device on a file, and what a site wants on it.

use super::disk::noise;
use super::publish::{before_path, killing, wrap};
use super::signing::KeyPair;
use super::{command, run};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

pub const USER_DATA: &str = "#cloud-config\nhostname: pump-17\n";
pub const NETWORK: &str = "version: 2\nethernets:\n  eth0: {dhcp4: true}\n";
pub const META_DATA: &str = "instance-id: pump-17-1\nlocal-hostname: pump-17\n";

/// A loop device; gone when dropped.
pub struct Stick {
    pub file: PathBuf,
    pub device: String,
}

impl Stick {
    /// One of so many bytes, full of something else.
    pub fn new(dir: &Path, name: &str, bytes: u64) -> Stick {
        let file = dir.join(name);
        let old = noise(bytes, 1 << 20);
        let out = File::create(&file).unwrap();
        for at in [0, 70 << 20, bytes - (1 << 20)] {
            out.write_all_at(&old, at).unwrap();
        }
        out.set_len(bytes).unwrap();
        Stick::of(file)
    }

    pub fn of(file: PathBuf) -> Stick {
        let device = run(command("losetup").args(["--find", "--show"]).arg(&file)).trim().to_string();
        Stick { file, device }
    }

    pub fn name(&self) -> &str {
        self.device.strip_prefix("/dev/").unwrap()
    }

    /// What is on it.
    pub fn hash(&self) -> String {
        run(command("sync").arg("--file-system").arg(&self.file));
        run(command("sha256sum").arg(&self.file))
    }

    pub fn bytes(&self, at: u64, count: usize) -> Vec<u8> {
        bytes(&self.file, at, count)
    }

    /// Loop devices that stand on this one.
    pub fn loops_upon(&self) -> String {
        run(command("losetup").args(["-n", "-O", "NAME", "-j", &self.device]))
    }

    /// Whether firmware would start it, or an operating system see its partitions.
    pub fn looks_like_a_disk(&self) -> bool {
        self.bytes(510, 2) == [0x55, 0xaa]
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        let _ = command("losetup").args(["--detach", &self.device]).stderr(Stdio::null()).status();
    }
}

pub fn bytes(file: &Path, at: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    File::open(file).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// Files of one site, and an image.
pub struct SiteFiles {
    pub dir: TempDir,
    pub key: KeyPair,
}

impl SiteFiles {
    pub fn new() -> SiteFiles {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let key = KeyPair::p256(dir.path(), "site");
        fs::create_dir_all(path("keys/revoked")).unwrap();
        fs::write(path("keys/site.pub"), key.pem()).unwrap();
        fs::write(path("keys/revoked/list"), format!("sha256:{}\n", "0".repeat(64))).unwrap();
        fs::write(path("update.conf"), "containerd_socket = off\nkubeconfig = off\n").unwrap();
        fs::write(path("user-data"), USER_DATA).unwrap();
        fs::write(path("network-config"), NETWORK).unwrap();
        fs::write(path("meta-data"), META_DATA).unwrap();
        for name in ["keys", "keys/revoked"] {
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        SiteFiles { dir, key }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The script, in this directory. Input: `target`: what is given as the device.
    pub fn script(&self, target: &str, more: &[&str]) -> Command {
        let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/usb-provision.sh"));
        script.current_dir(self.dir.path()).args(["--image", "image", "--device", target]).args(more);
        script.stdin(Stdio::null());
        script
    }

    /// With everything that a site can have on it, and nobody to be asked.
    pub fn provision(&self, stick: &Stick, more: &[&str]) -> Command {
        let all = ["--user-data", "user-data", "--network-config", "network-config", "--meta-data", "meta-data"];
        let site = ["--conf", "update.conf", "--keys", "keys", "--layout", "layout", "--force", "--yes"];
        self.script(&stick.device, &[&all[..], &site, more].concat())
    }

    /// The same, killed at its call number `n` of a program. Returns: whether it came that far.
    pub fn killed_at(&self, stick: &Stick, program: &str, n: usize) -> bool {
        let calls = self.path("calls");
        fs::write(&calls, "").unwrap();
        let _ = fs::remove_file(self.path("calls.killed"));
        let mut script = self.provision(stick, &[]);
        before_path(&mut script, &wrap(self.dir.path(), program, &killing(&calls, n)));
        let out = script.output().unwrap();
        let killed = self.path("calls.killed").exists();
        assert_eq!(!out.status.success(), killed, "{program} {n}: {}", String::from_utf8_lossy(&out.stderr));
        killed
    }
}

/// This machine's architecture's entry in a layout with nothing but noise in it, signed by the site.
pub fn small_layout(site: &SiteFiles, arches: &[&str]) {
    let mut publish = super::signing::script(site.dir.path(), "publish-layout.sh");
    publish.args(["--layout", "layout", "--tag", "stable", "--version", "1.1.0"]);
    fs::write(site.path("vmlinuz"), super::disk::kernel_noise(5, 300_000)).unwrap();
    fs::write(site.path("os.gz"), super::disk::initramfs_of(site.dir.path(), &noise(6, 200_000))).unwrap();
    for arch in arches {
        publish.args(["--arch", arch, "--kernel", "vmlinuz", "--initramfs", "os.gz"]);
    }
    run(&mut publish);
}
