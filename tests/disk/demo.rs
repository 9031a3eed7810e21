//! `scripts/demo.sh`, which is the first thing that a newcomer sees: it works, is short, and cleans up.

use crate::support::disk::{need_disks, wait_for};
use crate::support::root::Root;
use crate::support::{command, need, require, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// The script in a temporary directory of its own, so that what it leaves is seen.
fn demo(dir: &TempDir) -> Command {
    let mut demo = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/demo.sh"));
    demo.env("TMPDIR", dir.path()).arg("--binary").arg(Root::program());
    demo
}

/// Loop devices whose file is below a directory, and what lies in it.
fn left(dir: &TempDir) -> (bool, Vec<String>) {
    let devices = run(command("losetup").args(["-l", "-n", "-O", "BACK-FILE"]));
    let files = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path().display().to_string()).collect();
    (devices.contains(dir.path().to_str().unwrap()), files)
}

#[apply(test)]
fn a_newcomer_sees_an_update() {
    need_disks();
    need("flock");
    let dir = tempfile::tempdir().unwrap();
    let shown = run(&mut demo(&dir));
    let commands: Vec<&str> = shown.lines().filter_map(|l| l.strip_prefix("$ ")).collect();
    let wanted = ["status", "check", "check", "apply", "status", "activate", "status"];
    let wanted = wanted.map(|command| format!("kubesolo-update {command} --root machine"));
    assert_eq!(commands[..wanted.len()], wanted);
    assert_eq!(commands[wanted.len()..], ["grub-editenv machine/boot/efi/boot/grub/grubenv list"]);
    for word in [
        "it is not signed",
        "Signed    by sha256:",
        "1.2.0 is staged in slot B",
        "active_slot=B\nboot_success=0\nboot_counter=3\n",
    ] {
        assert!(shown.contains(word), "'{word}' is missing:\n{shown}");
    }
    let hashes: Vec<&str> = shown.lines().filter(|l| l.len() > 64 && l.contains("  /dev/loop")).collect();
    assert!(hashes.len() == 2 && hashes[0] == hashes[1], "{hashes:?}");
    assert!(shown.lines().count() <= 100, "too long to read");
    // Its own words fit a console; the agent's answer to `check` has a digest in it.
    let wide: Vec<&str> = shown.lines().filter(|l| l.chars().count() > 80 && !l.contains("sha256:")).collect();
    assert!(wide.is_empty(), "{wide:?}");
    assert_eq!(left(&dir), (false, Vec::new()));
}

#[apply(test)]
fn an_interrupted_one_leaves_nothing() {
    need_disks();
    need("flock");
    let dir = tempfile::tempdir().unwrap();
    let mut child = demo(&dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(wait_for(LIMIT, || left(&dir).0), "it attached no disk");
    run(Command::new("kill").arg("-TERM").arg(child.id().to_string()));
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(left(&dir), (false, Vec::new()));
}

#[apply(test)]
fn mistakes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (args, code, word) in [
        (["--frob"].as_slice(), 2, "unknown option: --frob"),
        (&["--binary"], 2, "--binary needs a value"),
        (&["--binary", "/nowhere"], 1, "/nowhere is missing"),
    ] {
        let out = demo(&dir).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(code) && said.contains(word), "wanted '{word}': {said}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// What a newcomer on another system types first, and what is said there (docs/platforms.md).
#[apply(test)]
fn another_system_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let uname = dir.path().join("uname");
    for (system, machine, word) in [
        ("Darwin", "arm64", "this is Darwin"),
        ("FreeBSD", "amd64", "this is FreeBSD"),
        ("Linux", "riscv64", "riscv64"),
    ] {
        let script = format!("#!/bin/sh\ncase $1 in -s) echo {system} ;; *) echo {machine} ;; esac\n");
        fs::write(&uname, script).unwrap();
        fs::set_permissions(&uname, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let out = demo(&dir).arg("--check").env("PATH", path).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && said.contains(word), "wanted '{word}': {said}");
        assert_eq!(said.contains("docs/platforms.md"), system != "Linux", "{said}");
    }
    let out = Command::new("unshare")
        .args(["-U", "-r"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/demo.sh"))
        .arg("--check")
        .output();
    let out = out.unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    require(!said.contains("unshare failed"), "a user namespace (none in a chroot)");
    assert!(out.status.code() == Some(1) && said.contains("rootless container"), "{said}");
}
