//! `scripts/vendor.sh`: a filled `vendor/` is used by plain cargo as it stands, and a stale one is in nobody's way.
//!
//! Must never: reach a registry; crates come from this machine's cache of cargo.

use crate::support::release_files::{Source, ended, names};
use crate::support::{command, need_all, require, run};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The repository as it is here, and its `vendor/` filled.
fn filled() -> Source {
    need_all(&["cargo", "git", "python3", "make"]);
    let source = Source::new();
    let out = vendor(&source, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    require(out.status.success() || !said.contains("offline"), "each crate in cargo's cache");
    assert!(out.status.success(), "{said}");
    source
}

fn vendor(source: &Source, arguments: &[&str]) -> Command {
    let mut script = source.script("vendor.sh");
    script.args(arguments).env("CARGO_NET_OFFLINE", "true");
    script
}

/// Cargo with an empty cache, so that crates can come from `vendor/` only.
fn cargo(tree: &Path, line: &str) -> Command {
    let mut cargo = command("cargo");
    cargo.current_dir(tree).args(line.split(' ')).env_remove("CARGO_TARGET_DIR");
    cargo.env("CARGO_HOME", tree.join("../home"));
    cargo
}

const SETTINGS: &str = ".cargo/config.toml";

#[apply(test)]
fn plain_cargo_takes_the_crates_of_a_filled_vendor() {
    let source = filled();
    // What it compiles first is a crate from there; all of them would only take longer.
    run(&mut cargo(&source.path(""), "check --offline --locked --quiet --package itoa"));
    let tree = run(&mut cargo(&source.path(""), "tree --offline --locked --edges all"));
    assert!(tree.contains("rustls v") && tree.contains("proptest v"), "{tree}");
    // What was written is no change of the repository, and names no host.
    assert_eq!(run(source.git().args(["status", "--porcelain"])), "");
    assert!(!fs::read_to_string(source.path(SETTINGS)).unwrap().contains("://"));
}

#[apply(test)]
fn a_stale_vendor_is_said_with_the_command_that_mends_it() {
    let source = filled();
    let lock = source.path("Cargo.lock");
    let before = fs::read_to_string(&lock).unwrap();
    // As a `git pull` that raises a crate leaves it.
    fs::rename(source.path("vendor").join(first(&source, "subtle-")), source.path("vendor").join("subtle-0.0.1-old"))
        .unwrap();
    fs::remove_dir_all(source.path("vendor/subtle-0.0.1-old")).unwrap();
    fs::write(&lock, format!("{before}# another\n")).unwrap();
    let out = cargo(&source.path(""), "metadata --offline --locked --format-version 1").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("run/scripts/vendor.sh"), "{said}");

    // Every make, and the release build, put it away by themselves.
    // The build itself ends at once: it has neither crates nor a network.
    let build = "CARGO_HOME=$PWD/../none CARGO_NET_OFFLINE=true scripts/build.sh --arch amd64 || :";
    for line in ["make help", build, "scripts/vendor.sh --mend"] {
        run(&mut vendor(&source, &["--settings", source.path("").to_str().unwrap()]));
        fs::write(source.path("vendor/.complete/cargo-lock.sha256"), "of another").unwrap();
        let mut mend = command("sh");
        let out = mend.args(["-c", line]).current_dir(source.path("")).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let is_mended =
            !source.path(SETTINGS).exists() && said.contains("for builds without network: scripts/vendor.sh");
        assert!(is_mended, "{line}: {said}");
        assert!(!source.path(".cargo").exists(), "{line}");
    }
    // And once is enough.
    let out = vendor(&source, &["--mend"]).output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
}

#[apply(test)]
fn settings_of_others_stay() {
    need_all(&["cargo", "git"]);
    let source = Source::new();
    fs::create_dir_all(source.path(".cargo")).unwrap();
    fs::create_dir_all(source.path("vendor/.complete")).unwrap();
    for (name, content) in
        [("config.toml", "[net]\nretry = 1\n"), ("config", "[net]\nretry = 1\n"), ("config.toml", "")]
    {
        let file = source.path(".cargo").join(name);
        fs::write(&file, content).unwrap();
        let out = vendor(&source, &["--settings", source.path("").to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && said.contains("is not by this script"), "{name}: {said}");
        run(&mut vendor(&source, &["--mend"]));
        assert_eq!(fs::read_to_string(&file).unwrap(), content, "{name}");
        assert_eq!(names(&source.path(".cargo")), [name]);
        fs::remove_file(file).unwrap();
    }
}

#[apply(test)]
fn wrong_usage_is_two() {
    need_all(&["git"]);
    let source = Source::new();
    for (script, line, word) in [
        ("vendor.sh", "--frob", "unknown option: --frob"),
        ("vendor.sh", "--settings", "--settings needs a value"),
        ("licenses.sh", "--frob", "unknown option: --frob"),
        ("licenses.sh", "--output", "--output needs a value"),
        ("build.sh", "--frob", "unknown option: --frob"),
        ("build.sh", "--arch", "--arch needs a value"),
        ("install-deps.sh", "frob", "unknown group or option: frob"),
        ("install-deps.sh", "--dry-run", "no group given"),
    ] {
        ended(&source.script(script).args(line.split(' ')).output().unwrap(), 2, &[word]);
    }
}

fn first(source: &Source, start: &str) -> String {
    names(&source.path("vendor")).into_iter().find(|name| name.starts_with(start)).expect("there is one")
}
