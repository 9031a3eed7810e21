//! What integration tests share.
#![allow(dead_code)] // Each test binary uses its own part.

use std::path::{Path, PathBuf};
use std::process::Command;

pub mod container;
pub mod container_bench;
pub mod disk;
pub mod ferro;
pub mod gitea;
pub mod hostile;
pub mod hostile_bench;
pub mod hostile_table;
pub mod kit;
pub mod kubernetes;
pub mod kubernetes_site;
pub mod listener;
pub mod machine;
pub mod net;
pub mod node;
pub mod prometheus;
pub mod provision;
pub mod publish;
pub mod pull;
pub mod raw;
pub mod registry;
pub mod relay;
pub mod release;
pub mod release_files;
pub mod root;
pub mod served;
pub mod signed;
pub mod signing;
pub mod signing_checks;
pub mod site;
pub mod token_server;
pub mod trial;
pub mod vm;
pub mod walkthrough;
pub mod web;

/// Says whether a program is there. A test that needs it returns early where it is not.
/// Panics: in CI (`CI` is set): there, a test that tests nothing is a failure.
pub fn need(program: &str) -> bool {
    let found = find(program).is_some();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed, and CI must not skip tests");
        eprintln!("SKIP: {program} is not installed: THIS TEST PROVES NOTHING");
    }
    found
}

/// Debian's Python, with the modules of Debian's packages.
pub const PYTHON: &str = "/usr/bin/python3";

/// Says whether Debian's Python has a module, as [`need`] does.
pub fn need_python(module: &str) -> bool {
    let found = Command::new(PYTHON).args(["-c", &format!("import {module}")]).output();
    let found = found.is_ok_and(|out| out.status.success());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "python3-{module} is not installed, and CI must not skip tests");
        eprintln!("SKIP: python3-{module} is not installed: THIS TEST PROVES NOTHING");
    }
    found
}

/// Finds a program in PATH, or where `scripts/install-deps.sh` puts what Debian stable lacks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin");
    std::env::split_paths(&path).chain([tools]).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Makes a command of a program that [`need`] has found.
pub fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| panic!("{program} is not installed")))
}

/// Runs a command to its end and returns its stdout. Panics: it fails; says with what.
pub fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", out.status);
    stdout.into_owned()
}
