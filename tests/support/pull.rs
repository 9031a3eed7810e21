//! What tests of pulling share: a release in a registry's storage, a machine that pulls it, and that no secret is left.

use super::disk::B;
use super::machine::Machine;
use super::registry::{Ca, Registry};
use super::release::{Release, Target};
use super::root::Run;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

pub const P256: [&str; 3] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
/// Where the machine has its credentials, as update.conf says it.
pub const AUTH_FILE: &str = "/etc/kubesolo/config.json";

/// Puts a release as `os:v1` into the storage of all registries that are started with this directory.
pub fn publish(dir: &Path, release: &Release) -> String {
    let open = Registry::start(dir, None);
    release.publish(dir, Target::Registry, &format!("{}/os", open.host()), "v1")
}

/// A directory with a registry's storage that holds a release. Returns: its digest as well.
pub fn published() -> (TempDir, Release, String) {
    let dir = tempfile::tempdir().unwrap();
    let release = Release::new("2.0.0");
    let digest = publish(dir.path(), &release);
    (dir, release, digest)
}

/// A machine with this configuration, beyond what every test has; a CA for `ca_file`, if there is one.
pub fn machine(text: &str, ca: Option<&Ca>) -> Machine {
    let machine = Machine::new();
    configure(&machine, text, ca);
    machine
}

pub fn configure(machine: &Machine, text: &str, ca: Option<&Ca>) {
    let mut text = format!("signature = off\n{text}");
    if let Some(ca) = ca {
        fs::copy(&ca.certificate, machine.root.path("etc/kubesolo/ca.pem")).unwrap();
        text.push_str("\nplain_http = no\nca_file = /etc/kubesolo/ca.pem\n");
    }
    machine.root.configure(&text);
}

/// Writes a file below the machine's `/etc/kubesolo`.
pub fn put(machine: &Machine, name: &str, content: impl AsRef<[u8]>, mode: u32) {
    let path = machine.root.path("etc/kubesolo").join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Holds that slot B has the release, byte for byte.
#[track_caller]
pub fn assert_staged(machine: &Machine, release: &Release) {
    assert!(machine.disk.file(B, "vmlinuz").expect("a kernel") == release.ours().kernel);
    assert!(machine.disk.file(B, "kubesolo-os.gz").expect("an initramfs") == release.ours().initramfs);
    assert_eq!(machine.root.state_field("phase"), "staged");
}

/// Holds that no secret is in what a run said, nor in what the machine keeps.
#[track_caller]
pub fn assert_secrecy(machine: &Machine, run: &Run, secrets: &[&str]) {
    let mut texts = vec![run.stdout.clone(), run.stderr.clone()];
    let kept = machine.root.path("var/lib/kubesolo/update");
    if let Ok(entries) = fs::read_dir(kept) {
        texts.extend(
            entries.map(|entry| String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap()).into_owned()),
        );
    }
    for (text, secret) in texts.iter().flat_map(|text| secrets.iter().map(move |secret| (text, secret))) {
        assert!(!text.contains(secret), "a secret is shown: {text}");
    }
}
