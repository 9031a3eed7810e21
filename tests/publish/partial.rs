//! A name that machines of an architecture follow is not moved to what has nothing for them, unless somebody says so; and what is said
//! of it is a command that does both.

use super::registry::{SCRIPT, ready, resolve, writes};
use crate::support::publish::{Desk, refused, stderr};
use crate::support::registry::Registry;
use crate::support::run;
use std::fs;
use std::process::Command;

/// Architectures that a name leads to; of the next version; and the one that would lose, or nothing. A line more is a case more.
const MOVES: &[(&[&str], &[&str], &str)] = &[
    (&["amd64", "arm64"], &["amd64"], "arm64"),
    (&["amd64", "arm64"], &["arm64"], "amd64"),
    (&["amd64"], &["arm64"], "amd64"),
    (&["arm64"], &["amd64"], "arm64"),
    (&["amd64"], &["amd64"], ""),
    (&["amd64"], &["amd64", "arm64"], ""),
    (&["amd64", "arm64"], &["arm64", "amd64"], ""),
];

/// Input: the script; its options that name where, of which one is `stable`; and what that leads to.
fn hold(desk: &Desk, name: &str, place: &dyn Fn(usize) -> Vec<String>, named: &dyn Fn(usize) -> String) {
    for (n, (before, after, lost)) in MOVES.iter().enumerate() {
        let place = place(n);
        let place: Vec<&str> = place.iter().map(String::as_str).collect();
        let publish = |version: &str, arches: &[&str], more: &[&str]| {
            desk.script(name, version, arches, &[&place, more].concat()).output().unwrap()
        };
        let row = format!("{name}: {before:?} to {after:?}");
        let out = publish("1.2.0", before, &[]);
        assert!(out.status.success(), "{row}: {}", stderr(&out));
        let first = named(n);
        let out = publish("1.3.0", after, &["--notes", "it's new"]);
        if lost.is_empty() {
            assert!(out.status.success(), "{row}: {}", stderr(&out));
            assert_ne!(named(n), first, "{row}");
            continue;
        }
        refused(
            &out,
            &[&format!("leads {lost} to an update, and 1.3.0 is not there for it"), "(--partial does it all the same)"],
        );
        assert_eq!(named(n), first, "{row}");
        // A dry run sees it, too; what is named at the end does both, as it stands.
        refused(&publish("1.3.0", after, &["--dry-run"]), &["is not there for it"]);
        if n == 0 {
            let line = stderr(&out).lines().last().unwrap().to_owned();
            let files = format!("--kernel vmlinuz-1.3.0-{lost} --initramfs os-1.3.0-{lost}");
            assert!(line.ends_with(" --kernel FILE --initramfs FILE"), "{line}");
            let line = line.replace("--kernel FILE --initramfs FILE", &files);
            let mut both = Command::new("sh");
            let environment = desk.script(name, "1.3.0", &[], &[]);
            both.args(["-euc", &line]).current_dir(desk.dir.path());
            for (key, value) in environment.get_envs() {
                value.map(|value| both.env(key, value));
            }
            run(&mut both);
        } else {
            let out = publish("1.3.0", after, &["--partial"]);
            assert!(out.status.success(), "{row}: {}", stderr(&out));
        }
        assert_ne!(named(n), first, "{row}");
    }
}

fn desk() -> Desk {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    desk.prepare("1.3.0");
    desk
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[apply(test)]
fn no_tag_of_a_registry_leaves_an_architecture() {
    let desk = desk();
    let registry = Registry::start(desk.dir.path(), None);
    let place = |n: usize| words(&format!("--repository {}/os-{n} --plain-http --tag stable", registry.host()));
    hold(&desk, SCRIPT, &place, &|n| resolve(&desk, &format!("{}/os-{n}:stable", registry.host())));
    // Each architecture by a run of its own: the second one finds the first one's, and the tag moves once.
    let repository = format!("{}/two", registry.host());
    let publish = |version: &str, arch: &str, tag: &[&str]| {
        let options = [&["--repository", &repository, "--plain-http"][..], tag].concat();
        desk.script(SCRIPT, version, &[arch], &options).output().unwrap()
    };
    for (version, tags) in [("1.2.0", &["--tag", "stable"][..]), ("1.3.0", &[])] {
        assert!(publish(version, "amd64", tags).status.success());
        let out = publish(version, "arm64", &["--tag", "stable"]);
        assert!(out.status.success(), "{}", stderr(&out));
    }
    // A single manifest, an index in an index, and what is no update at all.
    desk.oras(&["tag", "--plain-http", &format!("{repository}:1.2.0-arm64"), "manifest"]);
    let inner = resolve(&desk, &format!("{repository}:1.2.0"));
    desk.oras(&["manifest", "index", "create", "--plain-http", &format!("{repository}:outer"), &inner]);
    fs::write(desk.path("file"), "x").unwrap();
    desk.oras(&["push", "--plain-http", &format!("{repository}:other"), "file"]);
    desk.prepare("1.4.0");
    for (tag, lost) in [("manifest", "arm64"), ("outer", "arm64"), ("stable", "arm64")] {
        let before = writes(&registry).len();
        refused(&publish("1.4.0", "amd64", &["--tag", tag]), &[&format!(":{tag} leads {lost} to an update")]);
        assert_eq!(writes(&registry).len(), before, "{tag}");
    }
    assert!(publish("1.4.0", "amd64", &["--tag", "other"]).status.success());
}

#[apply(test)]
fn no_tag_of_a_layout_leaves_an_architecture() {
    let desk = desk();
    let index = |n: usize| fs::read_to_string(desk.path(&format!("layout-{n}/index.json"))).unwrap();
    hold(&desk, "publish-layout.sh", &|n| words(&format!("--layout layout-{n} --tag stable")), &index);
}

#[apply(test)]
fn no_latest_json_leaves_an_architecture() {
    let desk = desk();
    let place = |n: usize| {
        fs::create_dir_all(desk.path(&format!("www-{n}"))).unwrap();
        words(&format!("--dir www-{n}"))
    };
    hold(&desk, "publish-http.sh", &place, &|n| {
        fs::read_to_string(desk.path(&format!("www-{n}/latest.json"))).unwrap()
    });
}
