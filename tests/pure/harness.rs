//! `tests/support/harness.rs` itself: what is not run is not counted as passed, and long tests wait to be asked for.

use crate::support::run;
use std::process::{Command, Output};

/// This very program, as cargo runs it, with no tool in PATH. Input: `ci`: whether CI is set.
fn this_program(arguments: &[&str], ci: bool) -> Output {
    let nothing = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).env("PATH", nothing.path()).env_remove("CI");
    if ci {
        command.env("CI", "true");
    }
    command.output().unwrap()
}

/// A test that does need a tool which is never in `.tools`, where it would be found without PATH.
const NEEDS_A_TOOL: &str = "grubenv::what_grub_creates_and_sets_is_read_and_kept_byte_for_byte";

#[apply(test)]
fn a_test_whose_tool_is_missing_is_ignored_with_the_reason() {
    let out = this_program(&["--exact", NEEDS_A_TOOL], false);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{said}");
    assert!(said.contains("0 passed; 0 failed; 1 ignored"), "{said}");
    assert!(said.contains(&format!("\nSKIP: {NEEDS_A_TOOL}: grub-editenv is missing (make deps)\n")), "{said}");
}

#[apply(test)]
fn in_ci_it_is_a_failure() {
    let out = this_program(&["--exact", NEEDS_A_TOOL], true);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(!out.status.success() && said.contains("0 passed; 1 failed; 0 ignored"), "{said}");
    assert!(said.contains("grub-editenv is missing, and CI must not skip tests"), "{said}");
}

#[apply(test)]
fn long_tests_are_ignored_until_they_are_asked_for() {
    let list = |arguments: &[&str]| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        run(command.args(arguments).args(["--list", "--format", "terse"]))
    };
    let (all, long) = (list(&[]), list(&["--ignored"]));
    assert!(long.contains("p256::the_release_binary_agrees_with_openssl: test"), "{long}");
    assert!(all.lines().count() > long.lines().count() && long.lines().all(|line| all.contains(line)));
    assert!(!long.contains("harness::"), "{long}");
}

/// Under `#[apply(test)]` these two would be taken and mean nothing.
#[apply(test)]
fn no_test_asks_for_what_this_harness_does_not_have() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = run(Command::new("git").args(["ls-files", "tests"]).current_dir(root));
    for file in listed.lines().filter(|file| file.ends_with(".rs")) {
        let source = std::fs::read_to_string(root.join(file)).unwrap();
        let lost =
            source.lines().find(|line| ["#[should_panic", "#[ignore", "#[test]"].iter().any(|a| line.starts_with(a)));
        assert!(lost.is_none(), "{file}: {lost:?}");
    }
}
