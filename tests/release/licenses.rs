//! `scripts/licenses.sh`: every crate that cargo links has its licence texts in the document, and none is left out in silence.

use crate::support::kit::repo;
use crate::support::release_files::{Source, names, refused, std_lock};
use crate::support::{command, need_all, need_file, run};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];
/// What is linked and is no crate of Cargo.lock.
const OTHERS: [&str; 3] = ["std", "musl", "zig-compiler-rt"];
/// Words of the texts that must be somewhere: BoringSSL's part of ring, what ring takes from fiat and others, zlib-rs, musl.
const WORDS: [(&str, &str); 8] = [
    ("ring", "distributing code linked against BoringSSL"),
    ("ring", "fiat-crypto authors"),
    ("ring", "Brian Smith"),
    ("zlib-rs", "Altered source versions"),
    ("musl", "Rich Felker"),
    ("std", "Permission is hereby granted"),
    ("std", "TERMS AND CONDITIONS FOR USE"),
    ("mini-internal", "Permission is hereby granted"),
];

fn need_tools() {
    need_all(&["cargo", "git", "jq"]);
    need_file(&repo().join(".tools/zig/versions"));
    need_file(&std_lock());
}

/// "NAME VERSION" of each crate that cargo says is linked, on either architecture; those that run at build time included.
fn linked() -> Vec<String> {
    let mut found = Vec::new();
    for target in TARGETS {
        let mut tree = command("cargo");
        tree.args(["tree", "--locked", "--offline", "--target", target, "-e", "normal", "--prefix", "none"]);
        for line in run(tree.current_dir(repo())).lines() {
            let words: Vec<&str> = line.split(' ').collect();
            found.push(format!("{} {}", words[0], words[1].trim_start_matches('v')));
        }
    }
    found.sort();
    found.dedup();
    found.retain(|name| !name.starts_with("kubesolo-update "));
    found
}

/// The document, read back: texts of each component, by "NAME VERSION".
fn texts(document: &str) -> BTreeMap<String, Vec<String>> {
    let rule = format!("\n{}\n", "-".repeat(72));
    let mut parts = document.split(rule.as_str());
    let list = parts.next().unwrap();
    let mut parts: Vec<&str> = parts.collect();
    // By which a file that is cut is known.
    assert!(parts.pop().is_some_and(|end| end.starts_with("End of the licences: ")), "no end");
    // A heading, then its text.
    let by_number: BTreeMap<&str, &str> =
        parts.chunks(2).map(|pair| (pair[0].split(['[', ']']).nth(1).unwrap(), pair[1])).collect();
    let entries = list.lines().filter(|line| line.ends_with(']'));
    let text = |number: &str| by_number.get(number).unwrap_or_else(|| panic!("no text {number}")).to_string();
    let entries = entries.map(|line| {
        let (name, rest) = line.split_once(": ").unwrap();
        let numbers = rest.rsplit_once('[').unwrap().1.trim_end_matches(']');
        (name.to_string(), numbers.split(' ').map(text).collect())
    });
    entries.collect()
}

#[apply(test)]
fn every_crate_that_is_linked_has_its_texts() {
    need_tools();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts");
    run(Command::new(repo().join("scripts/licenses.sh")).arg("--output").arg(&file));
    let document = fs::read_to_string(&file).unwrap();
    let texts = texts(&document);
    let linked = linked();
    assert!(linked.len() > 25, "{linked:?}");
    for name in &linked {
        let found = texts.get(name).unwrap_or_else(|| panic!("{name} is linked, and has no text"));
        // Nothing that is a licence is shorter.
        assert!(found.iter().any(|text| text.trim().len() > 500), "{name}: {found:?}");
    }
    for name in OTHERS {
        assert!(texts.keys().any(|key| key.starts_with(&format!("{name} "))), "{name}");
    }
    for (name, words) in WORDS {
        let of = |key: &&String| key.starts_with(&format!("{name} "));
        let all: String = texts.iter().filter(|(key, _)| of(key)).flat_map(|(_, texts)| texts.clone()).collect();
        assert!(all.contains(words), "{name}: no '{words}'");
    }
    assert!(!texts.keys().any(|key| key.starts_with("proptest ")), "what only tests use is not handed on");
}

/// One row: a crate, and what happens to its texts.
#[apply(test)]
fn a_crate_without_a_text_is_named() {
    need_tools();
    let source = Source::with_crates();
    if !source.path("vendor/.complete").is_dir() {
        run(source.script("vendor.sh").env("CARGO_NET_OFFLINE", "true"));
    }
    let output = source.dir.path().join("out");
    let licenses = || source.script("licenses.sh").arg("--output").arg(&output).output().unwrap();
    for (start, is_emptied, words) in [
        ("untrusted-", false, "has no licence text in its source"),
        ("subtle-", true, "is empty"),
        // Both of one repository: what one lacks the other has no more.
        ("miniserde-", false, "has no licence text in its source"),
        ("zlib-rs-", false, "has no licence text in its source"),
    ] {
        let name = names(&source.path("vendor")).into_iter().find(|name| name.starts_with(start)).unwrap();
        let dir = source.path("vendor").join(&name);
        let kept: Vec<_> = names(&dir).into_iter().filter(|file| file.starts_with("LICENSE")).collect();
        let before: Vec<_> = kept.iter().map(|file| fs::read(dir.join(file)).unwrap()).collect();
        for file in kept.iter().map(|file| dir.join(file)) {
            if is_emptied { fs::write(&file, "").unwrap() } else { fs::remove_file(&file).unwrap() }
        }
        refused(&licenses(), &[words]);
        assert!(!output.exists(), "{name}");
        for (file, bytes) in kept.iter().zip(before) {
            fs::write(dir.join(file), bytes).unwrap();
        }
    }
    let out = licenses();
    assert!(out.status.success() && output.exists(), "{out:?}");
}
