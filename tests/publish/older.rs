//! What is published already, whatever it is published with: no name that machines follow goes back to what they would not take,
//! and a run that is started again goes on by the line that is named.

use super::registry::{SCRIPT, push, ready, resolve, writes};
use crate::support::publish::{DATE, Desk, EXPIRES, before_path, killing, refused, stderr};
use crate::support::registry::Registry;
use crate::support::root::jq;
use crate::support::signing::{Signed, script, sign_command};
use crate::support::{command, run};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const LATER: &str = "2026-02-01T00:00:00Z";

/// Version and date of what a name leads to; of what it is to lead to; and why it may not, or nothing. No date: `-`.
#[rustfmt::skip]
const MOVES: &[(&str, &str, &str, &str, &str)] = &[
    ("1.10.0", DATE, "1.9.0", DATE, "has 1.10.0, which is newer than 1.9.0 (--allow-older replaces it)"),
    ("1.2.0", DATE, "1.2.0-rc.1", LATER, "which is newer than 1.2.0-rc.1"),
    ("1.2.0-rc.10", "-", "1.2.0-rc.9", DATE, "which is newer than 1.2.0-rc.9"),
    ("v1.3.0", DATE, "1.2.0", LATER, "has v1.3.0, which is newer than 1.2.0"),
    ("1.0.0-rc", DATE, "1.0.0-2", DATE, "which is newer than 1.0.0-2"),
    ("1.0.0-Rc.b", DATE, "1.0.0-Rc.9", DATE, "which is newer than 1.0.0-Rc.9"),
    ("1.2.0", LATER, "1.3.0", DATE, "has 1.2.0 of 2026-02-01T00:00:00Z, which is later than --release-date 2026-01-31T12:00:00Z: \
        machines that ran it would not take 1.3.0 (--allow-older goes on)"),
    ("1.2.0", "2026-01-31T12:00:01+00:00", "1.3.0", "2026-01-31T13:00:00+01:00", "which is later than --release-date"),
    ("1.2.0", DATE, "1.3.0", "-", "and --release-date is missing: machines that ran it would not take 1.3.0"),
    ("1.2.0", DATE, "1.3.0", "2026-01-31T13:00:00+01:00", ""),
    ("1.2.0", "-", "1.3.0", "-", ""),
    ("1.2.0-rc.1", DATE, "1.2.0", DATE, ""),
    ("1.9.0", DATE, "1.10.0", LATER, ""),
    ("1.2.0+b.2", DATE, "1.2.0+b.1", DATE, ""),
];

/// One way to publish, for one architecture, unsigned, on the desk with the files of 1.0.0.
type Publish<'a> = &'a dyn Fn(usize, &str, &str, &[&str]) -> Command;

fn plain(desk: &Desk, name: &str, version: &str, date: &str, more: &[&str]) -> Command {
    let mut publish = script(desk.dir.path(), name);
    publish.args(["--version", version, "--arch", "amd64", "--kernel", "vmlinuz-1.0.0-amd64"]);
    publish.args(["--initramfs", "os-1.0.0-amd64"]).args(more);
    if date != "-" {
        publish.args(["--release-date", date]);
    }
    publish
}

/// Rows that are enough for another script: they ask one rule.
const SOME: [usize; 5] = [0, 6, 8, 9, 13];

/// Input: which rows, a way to publish, and what its name leads to.
fn hold_moves(rows: impl Iterator<Item = usize>, publish: Publish, named: &dyn Fn(usize) -> String) {
    for n in rows {
        let (before, before_date, version, date, words) = &MOVES[n];
        let first = run(&mut publish(n, before, before_date, &[]));
        assert_eq!(named(n), first.trim());
        if words.is_empty() {
            let out = publish(n, version, date, &[]).output().unwrap();
            assert!(out.status.success(), "{before} to {version}: {}", stderr(&out));
        } else {
            for more in [&[][..], &["--dry-run"]].into_iter().take(if n == 0 { 2 } else { 1 }) {
                refused(&publish(n, version, date, more).output().unwrap(), &[words]);
                assert_eq!(named(n), first.trim(), "{before} to {version}");
            }
            run(&mut publish(n, version, date, &["--allow-older"]));
        }
        assert_ne!(named(n), first.trim(), "{before} to {version}");
    }
}

#[apply(test)]
fn no_tag_of_a_registry_goes_back() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.0.0");
    let registry = Registry::start(desk.dir.path(), None);
    let repository = |n: usize| format!("{}/os-{n}", registry.host());
    let publish = |n: usize, version: &str, date: &str, more: &[&str]| {
        let options = ["--repository", &repository(n), "--plain-http", "--tag", "stable"];
        plain(&desk, SCRIPT, version, date, &[&options, more].concat())
    };
    hold_moves(SOME.into_iter(), &publish, &|n| resolve(&desk, &format!("{}:stable", repository(n))));
}

#[apply(test)]
fn no_tag_of_a_layout_goes_back() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.0.0");
    let publish = |n: usize, version: &str, date: &str, more: &[&str]| {
        let options = ["--layout", &format!("layout-{n}"), "--tag", "stable"];
        plain(&desk, "publish-layout.sh", version, date, &[&options, more].concat())
    };
    hold_moves(SOME.into_iter(), &publish, &|n| {
        let index = fs::read_to_string(desk.path(&format!("layout-{n}/index.json"))).unwrap();
        jq(&index, ".manifests[0].digest")
    });
}

#[apply(test)]
fn no_latest_json_goes_back() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.0.0");
    let publish = |n: usize, version: &str, date: &str, more: &[&str]| {
        let www = format!("www-{n}");
        fs::create_dir_all(desk.path(&www)).unwrap();
        plain(&desk, "publish-http.sh", version, date, &[&["--dir", &www], more].concat())
    };
    hold_moves(0..MOVES.len(), &publish, &|n| {
        crate::support::release::sha256(&fs::read(desk.path(&format!("www-{n}/latest.json"))).unwrap())
    });
}

#[apply(test)]
fn what_a_tag_names_is_judged_whatever_it_is() {
    ready(&[]);
    let desk = Desk::new();
    for version in ["1.2.0", "1.3.0", "1.4.0"] {
        desk.prepare(version);
    }
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let options = |tag: &'static str| {
        ["--repository".to_owned(), repository.clone(), "--plain-http".into(), "--tag".into(), tag.into()]
    };
    let publish = |version: &str, arch: &str, tag: &'static str, more: &[&str]| {
        let options = options(tag);
        let options: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
        desk.script(SCRIPT, version, &[arch], &options).output().unwrap()
    };
    // Another architecture's, and one of several tags: nothing is written.
    assert!(publish("1.3.0", "arm64", "stable", &[]).status.success());
    let written = writes(&registry).len();
    refused(&publish("1.2.0", "amd64", "new", &["--tag", "stable"]), &["os:stable has 1.3.0, which is newer"]);
    assert_eq!(writes(&registry).len(), written);
    // A manifest, and an index in an index.
    let inner = resolve(&desk, &format!("{repository}:stable"));
    desk.oras(&["tag", "--plain-http", &format!("{repository}:1.3.0-arm64"), "manifest"]);
    desk.oras(&["manifest", "index", "create", "--plain-http", &format!("{repository}:outer"), &inner]);
    refused(&publish("1.2.0", "amd64", "manifest", &[]), &["os:manifest has 1.3.0, which is newer"]);
    refused(&publish("1.2.0", "amd64", "outer", &[]), &["os:outer has 1.3.0, which is newer"]);
    // What machines would not take is no release: no version, no update at all.
    for (tag, annotation) in [("dev", "io.kubesolo.os.version=dev"), ("other", "a=b")] {
        fs::write(desk.path("file"), tag).unwrap();
        desk.oras(&["push", "--plain-http", "-a", annotation, &format!("{repository}:{tag}"), "file"]);
        let out = publish("1.2.0", "amd64", tag, &[]);
        assert!(out.status.success(), "{}", stderr(&out));
    }
    // The other architecture of the same version may have been released later.
    for (arch, date, more) in [("arm64", LATER, "--partial"), ("amd64", DATE, "--plain-http")] {
        let out = publish("1.4.0", arch, "dev", &["--release-date", date, more]);
        assert!(out.status.success(), "{}", stderr(&out));
    }
}

/// One waits before it moves `stable`, and a newer release is published meanwhile; or it has moved it, and looks once more.
#[apply(test)]
fn what_another_run_publishes_meanwhile_is_not_taken_back() {
    ready(&[]);
    let desk = Desk::new();
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        desk.prepare(version);
    }
    let registry = Registry::start(desk.dir.path(), None);
    // Before which call of oras it waits, and how it ends.
    for (n, (call, succeeds, words)) in [
        ("tag 1.2.0", false, "os-0:stable has 1.3.0, which is newer than 1.2.0 (--allow-older"),
        ("manifest fetch stable again", true, "os-1:stable was moved on by another run"),
    ]
    .into_iter()
    .enumerate()
    {
        let repository = format!("{}/os-{n}", registry.host());
        run(&mut push(&desk, &repository, "1.1.0", &["amd64"], &[]));
        let (reached, go, held) =
            (desk.path(&format!("reached-{n}")), desk.path(&format!("go-{n}")), desk.path(&format!("held-{n}")));
        run(command("mkfifo").args([&reached, &go]));
        let wait = format!(
            "[ -e {0} ] || {{ : >{0}; echo >{1}; read -r _ <{2}; }}",
            held.display(),
            reached.display(),
            go.display()
        );
        let hold = match call {
            "tag 1.2.0" => format!("case \"$1 $3\" in 'tag 1.2.0') {wait} ;; esac"),
            _ => format!(
                "case \"$*\" in tag*stable*) : >moved-{n} ;; 'manifest fetch '*:stable) [ ! -e moved-{n} ] || {wait} ;; esac"
            ),
        };
        let mut slow = push(&desk, &repository, "1.2.0", &["amd64"], &[]);
        before_path(&mut slow, &desk.wrap("oras", &hold));
        let slow = slow.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        fs::read_to_string(&reached).unwrap();
        let newer = run(&mut push(&desk, &repository, "1.3.0", &["amd64"], &[]));
        fs::write(&go, "\n").unwrap();
        let out = slow.wait_with_output().unwrap();
        assert_eq!(out.status.success(), succeeds, "{}", stderr(&out));
        assert!(stderr(&out).contains(words), "{}", stderr(&out));
        assert_eq!(resolve(&desk, &format!("{repository}:stable")), newer.trim());
        resolve(&desk, &format!("{repository}:1.2.0"));
    }
}

/// The options that a message names behind these words, to its line's end.
fn named_behind<'a>(said: &'a str, words: &str) -> Vec<&'a str> {
    let (_, rest) = said.split_once(words).unwrap_or_else(|| panic!("no '{words}': {said}"));
    rest.lines().next().unwrap().split("; or,").next().unwrap().split_whitespace().collect()
}

const DATES: &str = "Only the dates differ: to go on, start this again with those that are there:";

/// A push of 1.3.0 whose dates are those of another hour.
fn hour_later(desk: &Desk, repository: &str, more: &[&str]) -> Command {
    let dates = ["--release-date", LATER, "--expires", "2099-02-01T00:00:00Z"];
    push(desk, repository, "1.3.0", &["amd64"], &[&dates, more].concat())
}

#[apply(test)]
fn an_interrupted_run_goes_on_with_the_dates_that_it_names() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.3.0");
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let killer = format!("case \"$1 $3\" in 'tag 1.3.0') {} ;; esac", killing(&desk.path("calls"), 1));
    let mut first = push(&desk, &repository, "1.3.0", &["amd64"], &[]);
    before_path(&mut first, &desk.wrap("oras", &killer));
    assert!(!first.output().unwrap().status.success() && desk.path("calls.killed").exists());
    let out = hour_later(&desk, &repository, &[]).output().unwrap();
    refused(
        &out,
        &[
            "version 1.3.0 is there for amd64 with other content",
            "there:",
            DATE,
            "a version is published once; nothing",
        ],
    );
    assert!(!stderr(&out).contains("sign.sh"), "{}", stderr(&out));
    let said = stderr(&out);
    let named = named_behind(&said, DATES);
    assert_eq!(named, ["--release-date", DATE, "--expires", EXPIRES]);
    let out = hour_later(&desk, &repository, &named).output().unwrap();
    assert!(out.status.success(), "{}", stderr(&out));
    // Not where anything else differs as well, be it a file.
    let out = hour_later(&desk, &repository, &["--notes", "other"]).output().unwrap();
    refused(&out, &["other content", "Take another --version"]);
    assert!(!stderr(&out).contains("Only the dates"));
    fs::copy(desk.path("os-1.3.0-arm64"), desk.path("os-1.3.0-amd64")).unwrap();
    assert!(!stderr(&hour_later(&desk, &repository, &[]).output().unwrap()).contains("Only the dates"));
}

#[apply(test)]
fn a_forgotten_key_is_mended_by_the_line_that_is_named() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.3.0");
    let registry = Registry::start(desk.dir.path(), None);
    for dates in [true, false] {
        let repository = format!("{}/os-{dates}", registry.host());
        let key = ["--key", desk.key.private.to_str().unwrap()];
        let first = |more: &[&str]| {
            let mut first = script(desk.dir.path(), SCRIPT);
            first
                .args(["--repository", &repository, "--plain-http", "--tag", "stable", "--version", "1.3.0"])
                .args(more);
            first.args(["--release-date", DATE, "--arch", "amd64", "--kernel", "vmlinuz-1.3.0-amd64"]);
            run(first.args(["--initramfs", "os-1.3.0-amd64"]))
        };
        first(&[]);
        let out = hour_later(&desk, &repository, &[]).output().unwrap();
        refused(&out, &["other content", "; or, if all of it is yours and only not signed:"]);
        let said = stderr(&out);
        let named = named_behind(&said, DATES);
        assert_eq!(named, ["--release-date", DATE, "without", "--expires"]);
        if dates {
            first(&key);
        } else {
            let line = said.split_once("\n  scripts/sign.sh ").expect("the line is named").1.trim();
            let line = line.replace("KEY", desk.key.private.to_str().unwrap());
            run(script(desk.dir.path(), "sign.sh").args(line.split(' ')));
        }
        for tag in ["1.3.0", "1.3.0-amd64", "stable"] {
            let again = sign_command(&[&desk.key], Signed::Registry(&format!("{repository}:{tag}"))).output().unwrap();
            assert!(stderr(&again).contains("already signed by"), "{tag}: {}", stderr(&again));
        }
        // Signed now, it is only other.
        assert!(!stderr(&hour_later(&desk, &repository, &[]).output().unwrap()).contains("sign.sh"));
    }
}

#[apply(test)]
fn the_other_architecture_of_a_latest_json_has_its_dates() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.3.0");
    fs::create_dir(desk.path("www")).unwrap();
    let publish = |arch: &str, more: &[&str]| {
        let key = ["--dir", "www", "--key", desk.key.private.to_str().unwrap()];
        desk.script("publish-http.sh", "1.3.0", &[arch], &[&key, more].concat()).output().unwrap()
    };
    assert!(publish("amd64", &[]).status.success());
    let out = publish("arm64", &["--release-date", LATER]);
    refused(&out, &["version 1.3.0 is there with other content"]);
    let said = stderr(&out);
    let named = named_behind(&said, DATES);
    assert_eq!(named, ["--release-date", DATE, "--expires", EXPIRES]);
    let out = publish("arm64", &named);
    assert!(out.status.success(), "{}", stderr(&out));
    let out = publish("arm64", &["--release-date", LATER, "--channel", "beta"]);
    refused(&out, &["a version is published once; nothing was written. Take another --version"]);
}

#[apply(test)]
fn help_says_what_a_person_has_to_know_before() {
    for (name, lines) in [
        (SCRIPT, &["start it again with the dates that it printed", "given to the last run only", "--allow-older"][..]),
        ("publish-layout.sh", &["Not moved to a version older than the one", "--allow-older"]),
        ("publish-http.sh", &["--allow-older"]),
    ] {
        let help = run(script(Path::new("/"), name).arg("--help"));
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for line in lines {
            assert!(help.contains(line), "{name}: no '{line}': {help}");
        }
    }
}
