//! What the test programs share.
#![allow(dead_code, unused_macros)] // Each program uses its own part.

use std::path::{Path, PathBuf};
use std::process::Command;

#[macro_use]
pub mod harness;

pub mod answers;
pub mod apiserver;
pub mod boot_cases;
pub mod boot_table;
pub mod container;
pub mod container_bench;
pub mod delta;
pub mod disk;
pub mod ferro;
pub mod gitea;
pub mod grub_version;
pub mod grub_view;
pub mod hostile;
pub mod hostile_bench;
pub mod hostile_table;
pub mod immutable;
pub mod initramfs_table;
pub mod kit;
pub mod kubernetes;
pub mod kubernetes_site;
pub mod listener;
pub mod loader;
pub mod machine;
pub mod name_server;
pub mod net;
pub mod node;
pub mod prometheus;
pub mod provision;
pub mod publish;
pub mod pull;
pub mod qemu;
pub mod raw;
pub mod real_kernel;
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
pub mod unprivileged;
pub mod vm;
pub mod walkthrough;
pub mod web;
pub mod write_log;

/// Ends the test where something that it needs is missing: it counts as ignored, with the reason.
/// Panics: in CI (`CI` is set), where nothing may be missing but what `.tools/missing` says could not be had.
#[track_caller]
pub fn require(there: bool, what: &str) {
    if there {
        return;
    }
    let list = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/missing"));
    let names = list.unwrap_or_default();
    let known = names.lines().any(|name| what == name || what.contains(&format!("/.tools/{name}/")));
    assert!(known || std::env::var_os("CI").is_none(), "{what} is missing, and CI must not skip tests");
    harness::skip(&format!("{what} is missing (make deps)"));
}

/// Goes on if a program is there, as [`require`] does.
#[track_caller]
pub fn need(program: &str) {
    require(find(program).is_some(), program);
}

/// Goes on if all of these are there.
#[track_caller]
pub fn need_all(programs: &[&str]) {
    programs.iter().for_each(|program| need(program));
}

/// Goes on if a file is there.
#[track_caller]
pub fn need_file(path: &Path) {
    require(path.is_file(), &path.display().to_string());
}

/// Debian's Python, with the modules of Debian's packages.
pub const PYTHON: &str = "/usr/bin/python3";

/// Goes on if Debian's Python has a module.
#[track_caller]
pub fn need_python(module: &str) {
    require(has_python(module), &format!("python3-{module}"));
}

/// Returns whether Debian's Python has a module. For a test that holds one thing more where it has.
pub fn has_python(module: &str) -> bool {
    let found = Command::new(PYTHON).args(["-c", &format!("import {module}")]).output();
    found.is_ok_and(|out| out.status.success())
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

/// Makes a command that runs shell with mounts of its own, which end with it. What is added are its arguments, from `$1`.
pub fn with_own_mounts(script: &str) -> Command {
    let mut shell = command("unshare");
    shell.args(["-m", "--propagation", "private", "sh", "-euc", script, "sh"]);
    shell
}

/// Runs a command to its end and returns its stdout. Panics: it fails; says with what.
pub fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", out.status);
    stdout.into_owned()
}

/// How a script ends that says this: 2 where it was called wrongly, 1 where it failed. By the words of its last error.
pub fn script_code(said: &str) -> i32 {
    const WRONG: [&str; 18] = [
        "unknown option: ",
        "unknown argument: ",
        "unknown group or option: ",
        " needs a value",
        " is given twice",
        "no command",
        "no binary given",
        "no group given",
        "no name given",
        "nothing to sign is named",
        "one thing to sign only",
        "one name only",
        "cannot be used together",
        "one or the other",
        " comes after the --arch",
        "two kernels for ",
        "--passphrase-file is for --key",
        "--digest belongs to --bundle",
    ];
    let error = said.lines().rev().find_map(|line| line.split_once(": error: ")).map_or("", |(_, error)| error);
    let is_missing = error.starts_with("--") && (error.contains(" is missing") || error.contains(" has no --"));
    let is_wrong = WRONG.iter().any(|words| error.contains(words));
    let is_option = error.starts_with("--") || error.starts_with("TARGET_ARCH ");
    let is_shape = is_option
        && [" must be ", " needs ", " need ", " is for ", " takes "].iter().any(|words| error.contains(words));
    if is_missing || is_wrong || is_shape { 2 } else { 1 }
}
