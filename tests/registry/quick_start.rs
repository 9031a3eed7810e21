//! The quick start of docs/publishing.md, line by line: real oras, real cosign, a real registry over TLS, and the agent.

use crate::support::disk::{B, architecture, need_disks};
use crate::support::machine::Machine;
use crate::support::pull::P256;
use crate::support::registry::{Ca, Registry};
use crate::support::release::Release;
use crate::support::root::Root;
use crate::support::{command, need_all, run};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The registry that the page names.
const EXAMPLE: &str = "registry.example.com";

/// The block of docs/publishing.md that begins so.
fn block(start: &str) -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/publishing.md")).unwrap();
    let (_, rest) = page.split_once(&format!("```sh\n{start}")).unwrap_or_else(|| panic!("no block begins '{start}'"));
    format!("{start}{}", rest.split_once("```").expect("the block ends").0)
}

/// Runs lines as a person at a terminal would, in `dir`.
fn shell(dir: &Path, lines: &str) -> Command {
    let mut shell = command("sh");
    shell.args(["-euc", lines]).current_dir(dir).env("HOME", dir);
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The agent of a release, installed as the README says.
    let bin = dir.join(".bin");
    fs::create_dir_all(&bin).unwrap();
    let _ = std::os::unix::fs::symlink(Root::program(), bin.join("kubesolo-update"));
    let dirs = [bin, tools].into_iter().chain(std::env::split_paths(&path));
    shell.env("PATH", std::env::join_paths(dirs).unwrap());
    shell
}

#[apply(test)]
fn the_quick_start_publishes_signs_and_applies() {
    need_disks();
    need_all(&["docker-registry", "oras", "cosign"]);
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let registry = Registry::start(dir.path(), Some(&ca.issue("registry", "IP:127.0.0.1", &P256)));
    let release = Release::new("1.2.0");
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("vmlinuz"), &release.ours().kernel).unwrap();
    fs::write(work.join("kubesolo-os.gz"), &release.ours().initramfs).unwrap();

    let here = |text: &str| text.replace(EXAMPLE, &registry.host()).replace("amd64", architecture());
    let publish = here(&block("cosign generate-key-pair"));
    assert!(publish.contains("cosign sign ") && publish.contains("oras tag ") && !publish.contains(EXAMPLE));
    // A passphrase that nobody types, the test's own CA, and nothing but this machine.
    let mut publish = shell(&work, &publish);
    publish.env("COSIGN_PASSWORD", "").env("SSL_CERT_FILE", &ca.certificate);
    publish.env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", "127.0.0.1");
    run(&mut publish);

    let machine = Machine::new();
    let bundle = machine.root.path("etc/ssl/certs/ca-certificates.crt");
    fs::create_dir_all(bundle.parent().unwrap()).unwrap();
    fs::copy(&ca.certificate, bundle).unwrap();
    let etc = machine.root.path("etc/kubesolo");
    let apply = here(&block("mkdir -p /etc/kubesolo/update-keys.d")).replace("/etc/kubesolo", etc.to_str().unwrap());
    let (install, last) = apply.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(last, "kubesolo-update apply");
    run(&mut shell(&work, install));
    // To this machine alone, the agent would speak plain HTTP.
    let conf = etc.join("update.conf");
    fs::write(&conf, fs::read_to_string(&conf).unwrap() + "plain_http = no\n").unwrap();
    // The same command, on this machine.
    machine.root.agent(&["check"]).expect(0, &["Signed    by sha256:", "(release.pub)", "1.2.0"]);
    machine.root.agent(&["apply"]).expect(0, &["1.2.0 is staged"]);
    assert!(machine.disk.file(B, "vmlinuz").unwrap() == release.ours().kernel);
    machine.root.agent(&["activate"]).expect(0, &["slot B is active"]);

    // Without the key there is nothing that could be believed.
    fs::remove_file(etc.join("update-keys.d/release.pub")).unwrap();
    machine.root.agent(&["check"]).expect(5, &["no key is installed"]);
}
