//! `scripts/publish-http.sh`: what a web server then offers, as the agent reads it; what it refuses; what is seen while it works
//! and when it is killed.

use crate::support::disk::{B, architecture, need_disks, other_architecture};
use crate::support::publish::{DATE, Desk, assert_taken, before_path, killing, refused, stderr};
use crate::support::release::sha256;
use crate::support::root::jq;
use crate::support::signing::{KeyPair, Signed, script, sign};
use crate::support::web::{Answer, Web};
use crate::support::{need, need_all, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPT: &str = "publish-http.sh";

fn ready() {
    need_disks();
    need_all(&["jq", "openssl", "flock"]);
}

fn desk() -> Desk {
    let desk = Desk::new();
    fs::create_dir(desk.path("www")).unwrap();
    desk
}

/// Publishes these architectures in `www`, signed.
fn publish(desk: &Desk, version: &str, arches: &[&str], more: &[&str]) -> Command {
    let key = desk.key.private.to_str().unwrap();
    desk.script(SCRIPT, version, arches, &[&["--dir", "www", "--key", key], more].concat())
}

fn serve(dir: PathBuf) -> Web {
    Web::start(move |path| match fs::read(dir.join(path.trim_start_matches('/'))) {
        Ok(bytes) => Answer::ok(bytes),
        Err(_) => Answer::status(404),
    })
}

/// Every file below a directory, with its bytes.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(content(&entry)),
            false => found.push((entry.clone(), fs::read(&entry).unwrap())),
        }
    }
    found.sort();
    found
}

#[apply(test)]
fn two_runs_publish_two_architectures_and_the_agent_takes_its_own() {
    ready();
    let desk = desk();
    let release = desk.prepare("1.2.0");
    run(&mut publish(
        &desk,
        "1.2.0",
        &[other_architecture()],
        &["--notes", "first\nsecond", "--min-compatible", "1.0.0"],
    ));
    let said = run(&mut publish(
        &desk,
        "1.2.0",
        &[architecture()],
        &["--notes", "first\nsecond", "--min-compatible", "1.0.0"],
    ));
    let document = fs::read_to_string(desk.path("www/latest.json")).unwrap();
    assert_eq!(said.trim(), sha256(document.as_bytes()));
    for pair in &release.pairs {
        let entry = format!(".artifacts[] | select(.architecture == \"{}\")", pair.architecture);
        for (name, bytes) in [("kernel", &pair.kernel), ("initramfs", &pair.initramfs)] {
            let file = |field: &str| jq(&document, &format!("{entry} | .{name}.{field}"));
            assert!(fs::read(desk.path("www").join(file("url"))).unwrap() == *bytes);
            assert_eq!((file("sha256"), file("size")), (sha256(bytes), bytes.len().to_string()));
        }
    }
    assert_eq!(
        jq(&document, "[.version, .release_date, .release_notes, .artifacts[].architecture] | join(\" \")"),
        format!("1.2.0 {DATE} first\nsecond amd64 arm64")
    );
    let web = serve(desk.path("www"));
    let machine = desk.machine(&format!("server = {}\n", web.url("")));
    machine.root.agent(&["check"]).expect(0, &["1.2.0", &desk.key.fingerprint()]);
    machine.apply(&[]).expect(0, &["1.2.0 is staged"]);
    assert_taken(&machine, &release);
}

#[apply(test)]
fn the_same_again_and_a_dry_run_change_nothing() {
    ready();
    let desk = desk();
    desk.prepare("1.2.0");
    let dry = run(&mut publish(&desk, "1.2.0", &["amd64", "arm64"], &["--dry-run"]));
    assert_eq!(content(&desk.path("www")), []);
    let digest = run(&mut publish(&desk, "1.2.0", &["amd64", "arm64"], &[]));
    assert_eq!(dry, digest);
    let before = content(&desk.path("www"));
    let made = fs::metadata(desk.path("www/latest.json")).unwrap().modified().unwrap();
    for arches in [&["arm64", "amd64"][..], &["amd64"], &["arm64"]] {
        assert_eq!(run(&mut publish(&desk, "1.2.0", arches, &[])), digest);
        run(&mut publish(&desk, "1.2.0", arches, &["--dry-run"]));
    }
    assert!(content(&desk.path("www")) == before);
    assert_eq!(fs::metadata(desk.path("www/latest.json")).unwrap().modified().unwrap(), made);
}

#[apply(test)]
fn parts_of_an_initramfs_become_one_file() {
    ready();
    let desk = desk();
    desk.prepare("1.2.0");
    let (parts, whole) = desk.prepare_parts(3);
    let mut publish = publish(&desk, "1.2.0", &[], &[]);
    publish.args(["--arch", architecture(), "--kernel", &format!("vmlinuz-1.2.0-{}", architecture())]);
    run(publish.args(parts.iter().flat_map(|part| ["--initramfs", part])));
    let web = serve(desk.path("www"));
    let machine = desk.machine(&format!("server = {}\n", web.url("")));
    machine.apply(&[]).expect(0, &["1.2.0 is staged"]);
    assert!(machine.disk.file(B, "kubesolo-os.gz").unwrap() == whole);
}

#[apply(test)]
fn what_is_published_stays_what_it_was() {
    ready();
    let desk = desk();
    for version in ["1.2.0", "1.2.1", "1.3.0-rc.1", "1.3.0", "2.0.0"] {
        desk.prepare(version);
    }
    run(&mut publish(&desk, "1.2.0", &["amd64"], &[]));
    let before = content(&desk.path("www"));
    let other = |version: &str, arch: &str, more: &[&str], words: &[&str]| {
        refused(&publish(&desk, version, &[arch], more).output().unwrap(), words);
        assert!(content(&desk.path("www")) == before, "{words:?}: something was written");
    };
    other("1.2.0", "amd64", &["--notes", "other"], &["other content", "here:", "release_notes"]);
    other("1.2.0", "arm64", &["--channel", "beta"], &["other content", "beta"]);
    other("1.2.0", "arm64", &["--expires", "2098-01-01T00:00:00Z"], &["other content", "2098"]);
    fs::rename(desk.path("os-1.2.0-amd64"), desk.path("kept")).unwrap();
    fs::copy(desk.path("os-1.2.0-arm64"), desk.path("os-1.2.0-amd64")).unwrap();
    other("1.2.0", "amd64", &[], &["other content", "there:", "sha256"]);
    fs::rename(desk.path("kept"), desk.path("os-1.2.0-amd64")).unwrap();
    // Machines take both spellings for one version.
    desk.prepare("v1.2.0");
    other("v1.2.0", "arm64", &[], &["has this version as 1.2.0", "give --version 1.2.0"]);
    // A file of a version that nobody has announced.
    fs::create_dir_all(desk.path("www/2.0.0/amd64")).unwrap();
    fs::write(desk.path("www/2.0.0/amd64/vmlinuz"), "something").unwrap();
    for more in [&[][..], &["--dry-run"]] {
        let out = publish(&desk, "2.0.0", &["amd64"], more).output().unwrap();
        refused(&out, &["vmlinuz is there with other content", "nothing was written"]);
    }
    fs::remove_dir_all(desk.path("www/2.0.0")).unwrap();
    // Backwards.
    run(&mut publish(&desk, "1.3.0", &["amd64"], &[]));
    let older =
        |version: &str, words: &[&str]| refused(&publish(&desk, version, &["amd64"], &[]).output().unwrap(), words);
    older("1.2.0", &["has 1.3.0, which is newer than 1.2.0", "--allow-older"]);
    older("1.2.1", &["newer than 1.2.1"]);
    older("1.3.0-rc.1", &["newer than 1.3.0-rc.1"]);
    let mut early = script(desk.dir.path(), SCRIPT);
    early.args(["--dir", "www", "--key", desk.key.private.to_str().unwrap(), "--version", "2.0.0", "--arch", "amd64"]);
    early.args(["--kernel", "vmlinuz-2.0.0-amd64", "--initramfs", "os-2.0.0-amd64"]);
    early.args(["--release-date", "2025-01-01T00:00:00Z"]);
    refused(&early.output().unwrap(), &["later than --release-date 2025"]);
    run(&mut publish(&desk, "1.2.1", &["amd64"], &["--allow-older"]));
    assert_eq!(jq(&fs::read_to_string(desk.path("www/latest.json")).unwrap(), ".version"), "1.2.1");
}

/// What is said has names that a person knows.
#[apply(test)]
fn a_warning_names_latest_json_and_no_temporary_file() {
    ready();
    let desk = desk();
    desk.prepare("1.2.0");
    for more in [&["--dry-run"][..], &[]] {
        let mut undated = script(desk.dir.path(), SCRIPT);
        undated.args(["--dir", "www", "--key", "release.key", "--version", "1.2.0", "--arch", "amd64"]).args(more);
        undated.args(["--kernel", "vmlinuz-1.2.0-amd64", "--initramfs", "os-1.2.0-amd64"]);
        let out = undated.env("TMPDIR", desk.dir.path()).output().unwrap();
        assert!(out.status.success(), "{}", stderr(&out));
        for line in ["has no release_date", "has no expires"] {
            let line = format!("publish-http: warning: latest.json {line}");
            assert!(stderr(&out).lines().any(|said| said.starts_with(&line)), "no '{line}': {}", stderr(&out));
        }
        assert!(!stderr(&out).contains(desk.dir.path().to_str().unwrap()), "{}", stderr(&out));
    }
}

/// More options, and why the release is refused.
const REFUSED: &[(&[&str], &str)] = &[
    (&["--expires", "2020-01-01T00:00:00Z"], "is past"),
    (&["--expires", DATE], "is past"),
    (&["--release-date", "2099-01-31T12:00:00Z"], "is not after --release-date"),
    (
        &["--release-date", "2098-01-31T12:00:00Z"],
        "error: latest.json: release_date is 2098-01-31T12:00:00Z, more than a day",
    ),
    (&["--min-compatible", "1.2.1"], "is above --version 1.2.0"),
    (&["--key", "vmlinuz-1.2.0-amd64"], "is not a private key"),
];

/// What is refused leaves nothing that would be in the way of the same version, mended.
#[apply(test)]
fn what_is_refused_leaves_nothing() {
    ready();
    let desk = desk();
    desk.prepare("1.2.0");
    for (more, words) in REFUSED {
        for more in [[more, &["--dry-run"][..]].concat(), more.to_vec()] {
            refused(&publish(&desk, "1.2.0", &["amd64"], &more).output().unwrap(), &[words]);
            assert_eq!(content(&desk.path("www")), [], "{more:?}");
        }
    }
    // Only now that the files are there.
    let fails = format!("if [ -e {} ]; then exit 1; fi\n", desk.path("www/1.2.0/amd64/vmlinuz").display());
    let mut broken = publish(&desk, "1.2.0", &["amd64"], &[]);
    before_path(&mut broken, &desk.wrap("openssl", &fails));
    refused(&broken.output().unwrap(), &["was not signed: nothing of it is published"]);
    assert!(fs::read_dir(desk.path("www")).unwrap().next().is_none());
    fs::copy(desk.path("os-1.2.0-arm64"), desk.path("os-1.2.0-amd64")).unwrap();
    run(&mut publish(&desk, "1.2.0", &["amd64"], &[]));
    // Of a version that is out, the other architecture.
    let before = content(&desk.path("www"));
    let mut broken = publish(&desk, "1.2.0", &["arm64"], &[]);
    let fails = fails.replace("/amd64/", "/arm64/");
    before_path(&mut broken, &desk.wrap("openssl", &fails));
    refused(&broken.output().unwrap(), &["was not signed"]);
    assert_eq!(content(&desk.path("www")), before);
}

#[apply(test)]
fn nothing_is_vouched_for_that_somebody_else_put_there() {
    ready();
    let desk = desk();
    desk.prepare("1.2.0");
    let stranger = KeyPair::p256(desk.dir.path(), "stranger");
    let theirs = ["--dir", "www", "--key", stranger.private.to_str().unwrap()];
    run(&mut desk.script(SCRIPT, "1.2.0", &["arm64"], &theirs));
    let before = content(&desk.path("www"));
    let out = publish(&desk, "1.2.0", &["amd64"], &[]).output().unwrap();
    refused(&out, &["not signed by the keys given"]);
    // Nor does an unsigned one take the place of a signed one.
    let out = desk.script(SCRIPT, "1.2.0", &["amd64"], &["--dir", "www"]).output().unwrap();
    refused(&out, &["latest.json is signed"]);
    assert!(content(&desk.path("www")) == before);
    sign(&[&desk.key], Signed::Latest(&desk.path("www/latest.json")));
    run(&mut publish(&desk, "1.2.0", &["amd64"], &[]));
}

#[apply(test)]
fn what_is_swapped_between_judging_and_signing_is_not_signed() {
    ready();
    let desk = desk();
    desk.prepare("1.2.0");
    run(&mut publish(&desk, "1.2.0", &["arm64"], &[]));
    let theirs = run(Command::new("jq")
        .arg(format!(".artifacts[0].kernel.sha256 = \"{}\"", "e".repeat(64)))
        .arg(desk.path("www/latest.json")));
    fs::write(desk.path("theirs"), &theirs).unwrap();
    // The first signature that is verified is the one that vouches for what is there.
    let (swapped, served) = (desk.path("swapped"), desk.path("www/latest.json"));
    let swap = format!(
        "\"$real\" \"$@\" || exit\ncase $* in *-verify*) [ -e {0} ] || cp {1} {2}; : >{0} ;; esac\nexit",
        swapped.display(),
        desk.path("theirs").display(),
        served.display()
    );
    let mut publishing = publish(&desk, "1.2.0", &["amd64"], &[]);
    before_path(&mut publishing, &desk.wrap("openssl", &swap));
    run(&mut publishing);
    assert!(swapped.exists(), "nothing was swapped");
    let signed = fs::read_to_string(&served).unwrap();
    assert!(!signed.contains(&"e".repeat(64)), "{signed}");
    assert_eq!(jq(&signed, "[.artifacts[].architecture] | join(\" \")"), "amd64 arm64");
}

#[apply(long_test)]
fn killed_at_every_step_it_leaves_the_old_or_the_new() {
    ready();
    let desk = desk();
    desk.prepare("1.1.0");
    desk.prepare("1.2.0");
    run(&mut publish(&desk, "1.1.0", &["amd64", "arm64"], &[]));
    fs::rename(desk.path("www"), desk.path("old")).unwrap();
    let web = serve(desk.path("www"));
    let machine = desk.machine(&format!("server = {}\n", web.url("")));
    let sees = || machine.root.agent(&["check", "--json"]).expect(0, &[]).jq(".offered.version");
    let (mut killed, mut seen) = (0, [0, 0]);
    for program in ["mv", "sync"] {
        for n in 1.. {
            let calls = desk.path("calls");
            let _ = fs::remove_dir_all(desk.path("www"));
            run(Command::new("cp").arg("-a").arg(desk.path("old")).arg(desk.path("www")));
            fs::write(&calls, "").unwrap();
            let _ = fs::remove_file(desk.path("calls.killed"));
            let mut publishing = publish(&desk, "1.2.0", &["amd64", "arm64"], &[]);
            before_path(&mut publishing, &desk.wrap(program, &killing(&calls, n)));
            let out = publishing.output().unwrap();
            let was_killed = desk.path("calls.killed").exists();
            assert_eq!(!out.status.success(), was_killed, "{program} {n}: {}", stderr(&out));
            match sees().as_str() {
                "1.1.0" => seen[0] += 1,
                "1.2.0" => seen[1] += 1,
                other => panic!("{program} {n}: {other}"),
            }
            if !was_killed {
                break;
            }
            killed += 1;
            run(&mut publish(&desk, "1.2.0", &["amd64", "arm64"], &[]));
            assert_eq!(sees(), "1.2.0", "{program} {n}");
            let hidden =
                content(&desk.path("www")).into_iter().filter(|(path, _)| path.to_string_lossy().contains("/.publish"));
            assert_eq!(hidden.count(), 0, "{program} {n}");
        }
    }
    println!("killed {killed} times; old and new: {seen:?}");
    assert!(killed >= 12 && seen[0] >= 10 && seen[1] >= 2, "{killed} {seen:?}");
}

#[apply(test)]
fn two_at_once_are_refused() {
    ready();
    let desk = desk();
    desk.prepare("1.2.0");
    let held = fs::File::open(desk.path("www")).unwrap();
    #[allow(clippy::incompatible_msrv)] // Rust 1.89; whoever builds the agent alone may have 1.88.
    held.lock().unwrap();
    refused(&publish(&desk, "1.2.0", &["amd64"], &[]).output().unwrap(), &["another run publishes into www"]);
    drop(held);
    run(&mut publish(&desk, "1.2.0", &["amd64"], &[]));
}

#[apply(test)]
fn bad_arguments_are_refused_and_nothing_is_written() {
    need("jq");
    let desk = desk();
    desk.prepare("1.2.0");
    fs::write(desk.path("text"), "no gzip").unwrap();
    let good = ["--dir", "www", "--version", "1.2.0", "--arch", "amd64"];
    let files = ["--kernel", "vmlinuz-1.2.0-amd64", "--initramfs", "os-1.2.0-amd64"];
    for (args, words) in [
        (vec![], "--dir is missing"),
        (vec!["--dir", "absent"], "absent is not a directory"),
        (good[..2].to_vec(), "--version is missing"),
        (good[..4].to_vec(), "--arch is missing"),
        (good.to_vec(), "has no --kernel"),
        ([&good[..], &files[..2]].concat(), "has no --initramfs"),
        ([&good[..], &["--kernel", "text", "--initramfs", "text"]].concat(), "judge the kernel text: not a kernel"),
        ([&good[..], &files[..2], &["--initramfs", "text"]].concat(), "neither gzip nor cpio"),
        ([&good[..], &files, &["--key", "absent.key"]].concat(), "absent.key is not a file"),
        ([&good[..], &files, &["--passphrase-file", "text"]].concat(), "is for --key"),
        ([&good[..], &files, &["--expires", "2026-02-31T00:00:00Z"]].concat(), "must be a time"),
        ([&good[..], &files, &["--min-compatible", "one"]].concat(), "semantic version"),
        ([&good[..], &files, &["--tag", "stable"]].concat(), "unknown option"),
        ([&good[..], &["--dir"]].concat(), "needs a value"),
    ] {
        let out = script(desk.dir.path(), SCRIPT).args(&args).output().unwrap();
        refused(&out, &[words]);
        assert_eq!(content(&desk.path("www")), [], "{args:?}");
    }
    fs::write(desk.path("www/latest.json"), "[]").unwrap();
    refused(&publish(&desk, "1.2.0", &["amd64"], &[]).output().unwrap(), &["no latest.json"]);
}
