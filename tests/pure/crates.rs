//! The crates of the agent: which are its own choice, and where the one with an interface that may change is used.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const REPO: &str = env!("CARGO_MANIFEST_DIR");
/// rustls-webpki is a part of rustls that is named for its algorithms (docs/decisions/0001).
const CHOSEN: [&str; 8] = ["argh", "flate2", "libc", "miniserde", "rustls", "rustls-webpki", "sha2", "ureq"];
/// The one file that knows what ureq does not promise to keep.
const TRANSPORT: &str = "src/http/transport.rs";

#[apply(test)]
fn the_agent_is_made_of_seven_crates() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--depth", "1", "--prefix", "none"])
        .args(["--format", "{p}"])
        .current_dir(REPO)
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let found: BTreeSet<&str> = text.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(found, BTreeSet::from(CHOSEN));
}

/// Where it stands, a change of ureq's connections breaks the build of one file, whose tests say what is counted on.
#[apply(test)]
fn what_ureq_may_change_is_used_in_one_file_of_a_pinned_release() {
    let cargo = fs::read_to_string(Path::new(REPO).join("Cargo.toml")).unwrap();
    let pinned = cargo.lines().find(|line| line.starts_with("ureq = ")).unwrap();
    assert!(pinned.contains(r#"version = "="#) && pinned.contains("default-features = false"), "{pinned}");
    let mut users = BTreeSet::new();
    let mut left = vec![Path::new(REPO).join("src")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(REPO).unwrap().to_str().unwrap().to_owned();
        if text.contains("unversioned::") {
            users.insert(name.clone());
        }
        let is_ours = name == "src/http/mod.rs" || name.starts_with("src/http/");
        assert!(is_ours || !text.contains("ureq::"), "{name} knows of ureq, which is src/http's alone");
    }
    assert_eq!(users, BTreeSet::from([TRANSPORT.to_owned()]));
}
