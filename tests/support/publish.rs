//! A publisher's desk: the files of a release, keys, and the scripts that publish it.

use super::disk::{B, architecture, initramfs_of, noise};
use super::machine::Machine;
use super::registry::oras;
use super::release::Release;
use super::run;
use super::signing::{KeyPair, script};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub const DATE: &str = "2026-01-31T12:00:00Z";
pub const EXPIRES: &str = "2099-01-31T12:00:00Z";

pub struct Desk {
    pub dir: TempDir,
    pub key: KeyPair,
}

impl Desk {
    pub fn new() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::p256(dir.path(), "release");
        Desk { dir, key }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a release's files on the desk, as `vmlinuz-VERSION-ARCH` and `os-VERSION-ARCH`.
    pub fn prepare(&self, version: &str) -> Release {
        let release = Release::new(version);
        for pair in &release.pairs {
            fs::write(self.path(&format!("vmlinuz-{version}-{}", pair.architecture)), &pair.kernel).unwrap();
            fs::write(self.path(&format!("os-{version}-{}", pair.architecture)), &pair.initramfs).unwrap();
        }
        release
    }

    /// Puts parts of an initramfs on the desk, as `part-N`. Returns: their names, and all of them together.
    pub fn prepare_parts(&self, count: u64) -> (Vec<String>, Vec<u8>) {
        let parts: Vec<Vec<u8>> = (0..count).map(|n| initramfs_of(self.dir.path(), &noise(n + 70, 50_000))).collect();
        let names: Vec<String> = (0..count).map(|n| format!("part-{n}")).collect();
        for (name, part) in names.iter().zip(&parts) {
            fs::write(self.path(name), part).unwrap();
        }
        (names, parts.concat())
    }

    /// A script with the options that every release has. Input: for which architectures; more options.
    pub fn script(&self, name: &str, version: &str, arches: &[&str], more: &[&str]) -> Command {
        let mut script = script(self.dir.path(), name);
        script.args(["--version", version, "--release-date", DATE, "--expires", EXPIRES]).args(more);
        for arch in arches {
            script.args(["--arch", arch, "--kernel", &format!("vmlinuz-{version}-{arch}")]);
            script.args(["--initramfs", &format!("os-{version}-{arch}")]);
        }
        script
    }

    pub fn oras(&self, args: &[&str]) -> String {
        run(oras(self.dir.path()).args(args))
    }

    /// A machine that trusts this desk's key, and none else.
    pub fn machine(&self, text: &str) -> Machine {
        let machine = Machine::new();
        machine.root.configure(text);
        let keys = machine.root.path("etc/kubesolo/update-keys.d");
        fs::create_dir_all(&keys).unwrap();
        fs::write(keys.join("release.pub"), self.key.pem()).unwrap();
        machine
    }

    /// See [`wrap()`].
    pub fn wrap(&self, program: &str, text: &str) -> PathBuf {
        wrap(self.dir.path(), program, text)
    }
}

/// A program that stands before a real one in PATH. Input: `text`: shell, in which `real` is the program.
pub fn wrap(dir: &Path, program: &str, text: &str) -> PathBuf {
    let dir = dir.join(format!("wrapped-{program}"));
    fs::create_dir_all(&dir).unwrap();
    let real = super::find(program).expect("it is there");
    let file = dir.join(program);
    fs::write(&file, format!("#!/bin/sh\nreal={}\n{text}\nexec \"$real\" \"$@\"\n", real.display())).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Puts a directory before all others in PATH.
pub fn before_path(command: &mut Command, dir: &Path) {
    let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value.map(Into::into));
    let path: std::ffi::OsString = path.unwrap_or_else(|| std::env::var_os("PATH").unwrap_or_default());
    let dirs = std::iter::once(dir.to_path_buf()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(dirs).unwrap());
}

/// Shell for [`Desk::wrap`] that kills whoever calls it at its call number `n`, which is noted in FILE.killed.
pub fn killing(file: &Path, n: usize) -> String {
    let file = file.display();
    format!("echo >>{file}\n[ \"$(wc -l <{file})\" -ne {n} ] || {{ : >{file}.killed; kill -KILL \"$PPID\"; exit 1; }}")
}

#[track_caller]
pub fn refused(out: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(super::script_code(&said)), "{said}");
    for word in words {
        assert!(said.contains(word), "no '{word}': {said}");
    }
    assert!(out.stdout.is_empty(), "a digest for nothing: {said}");
}

pub fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[track_caller]
pub fn assert_taken(machine: &Machine, release: &Release) {
    assert!(machine.disk.file(B, "vmlinuz").unwrap() == release.ours().kernel);
    assert!(machine.disk.file(B, "kubesolo-os.gz").unwrap() == release.ours().initramfs);
    let record = machine.disk.text(B, "slot.json").unwrap();
    assert!(record.contains(architecture()), "{record}");
}
