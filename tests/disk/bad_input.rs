//! Sources that lie, break off or offer what this machine must not take.
//!
//! Whatever comes: the documented exit code, an error that names the fault, the running slot untouched, a state
//! file that is true, nothing half-written that counts as a system; and a good source afterwards still works.

use crate::support::disk::{architecture, need_disks, noise, other_architecture};
use crate::support::initramfs_table::{ROWS, Says, make, need_table, prepare};
use crate::support::machine::{Left, Machine};
use crate::support::raw::{Raw, Reply};
use crate::support::release::{Medium, Release, Target, sha256};
use crate::support::{self, need, run};
use std::fs;
use std::path::Path;

/// Serves a release with one file's answer changed.
fn lying(release: &Release, name: &'static str, change: fn(&mut Reply)) -> Raw {
    let (release, document) = (release.clone(), release.latest_json());
    Raw::start(move |path| match path {
        "/latest.json" => Reply::ok(document.clone()),
        _ => {
            let mut reply = release.file(path).map_or(Reply::status(404), Reply::ok);
            if path.ends_with(name) {
                change(&mut reply);
            }
            reply
        }
    })
}

type Lie = fn(&mut Reply);

/// Makes a body longer or shorter than the document says; with a Content-Length that fits the body, or none.
fn resize(reply: &mut Reply, by: isize, announced: bool) {
    reply.body.resize(reply.body.len().checked_add_signed(by).unwrap(), 0);
    reply.announced = announced.then_some(reply.body.len());
}

#[apply(test)]
fn blobs_that_are_not_what_was_announced() {
    need_disks();
    let release = Release::new("2.0.0");
    let faults: [(&str, Lie, i32, &str, &str); 8] = [
        ("breaks off", |r| r.body.truncate(700_000), 6, "network", "download"),
        ("breaks off at once", |r| r.body.clear(), 6, "network", "download"),
        ("short and honest", |r| resize(r, -1, true), 5, "digest", " sends "),
        ("short, no length", |r| resize(r, -1, false), 6, "network", "closed before the end"),
        ("long and honest", |r| resize(r, 1, true), 5, "digest", " sends "),
        ("long, no length", |r| resize(r, 1, false), 5, "digest", "longer than"),
        ("one bit", |r| r.body[500_000] ^= 4, 5, "digest", "expected was sha256:"),
        ("absent", |r| *r = Reply::status(404), 6, "network", "404"),
    ];
    for (what, change, code, kind, word) in faults {
        for name in ["vmlinuz", "kubesolo-os.gz"] {
            let (machine, what) = (Machine::new(), format!("{name} {what}"));
            let server = lying(&release, name, change);
            machine.apply(&["--server", &server.url()]).expect(code, &[word]);
            assert!(server.seen().iter().any(|path| path.ends_with(name)), "{what}: nothing was injected");
            // What is refused by its length alone, or is not there, costs the slot nothing. The kernel is asked for when
            // the slot is mounted, to go on from what an earlier run left.
            let before_any_byte = [" sends ", "404"].contains(&word);
            let target = match (before_any_byte, name) {
                (true, "vmlinuz") => Left::SameFiles,
                (true, _) => Left::Untouched,
                (false, _) => Left::Invalid,
            };
            machine.assert_unharmed(&what, "failed", kind, target);
            assert_eq!(machine.root.state_field("to_version"), "2.0.0");
            machine.assert_recovers(&what);
        }
    }
}

type Tampering = fn(&Path);

fn link_to_zeros(path: &Path) {
    fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path).unwrap();
}

#[apply(test)]
fn blobs_on_a_medium_that_was_tampered_with() {
    need_disks();
    need("oras");
    let release = Release::new("2.0.0");
    let faults: [(&str, Tampering, i32, &str, &str); 5] = [
        ("one bit", |p| rewrite(p, |b| b[70_000] ^= 1), 5, "digest", "expected was sha256:"),
        (
            "short",
            |p| rewrite(p, |b| b.truncate(1000)),
            6,
            "source",
            "the copy of the layout is not complete: copy it again",
        ),
        ("long", |p| rewrite(p, |b| b.push(0)), 5, "digest", "bytes, the manifest says"),
        ("gone", |p| fs::remove_file(p).unwrap(), 6, "source", "No such file"),
        ("a link", link_to_zeros, 6, "source", "a symbolic link"),
    ];
    for (what, spoil, code, kind, word) in faults {
        let machine = Machine::new();
        let medium = Medium::new(machine.disk.dir(), &release);
        spoil(&medium.blob(&release.ours().kernel));
        machine.apply(&["--layout", medium.path()]).expect(code, &[word]);
        // All but the bit is seen before a file in the slot is touched.
        let target = if what == "one bit" { Left::Invalid } else { Left::SameFiles };
        machine.assert_unharmed(what, "failed", kind, target);
        machine.assert_recovers(what);
    }
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    let mut permissions = fs::metadata(path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(path, permissions).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

type Spoil = fn(&mut Vec<u8>);

#[apply(test)]
fn an_initramfs_that_is_no_whole_gzip() {
    need_disks();
    let spoils: [(&str, Spoil); 4] = [
        ("not gzip at all", |b| *b = noise(5, b.len())),
        ("cut", |b| b.truncate(b.len() / 2)),
        ("checksum", |b| {
            let at = b.len() - 6;
            b[at] ^= 1
        }),
        ("rubbish behind it", |b| b.extend(b"rubbish")),
    ];
    for (what, spoil) in spoils {
        let machine = Machine::new();
        let mut release = Release::new("2.0.0");
        // Published like this: length and digest are right.
        spoil(&mut release.ours_mut().initramfs);
        let server = release.serve();
        machine
            .apply(&["--server", &server.url("")])
            .expect(6, &["look through kubesolo-os.gz", "kernels do not unpack it whole"]);
        machine.assert_unharmed(what, "failed", "source", Left::Invalid);
        machine.assert_recovers(what);
    }
}

/// Of tests/support/initramfs_table.rs, which `lint` and real kernels are asked too.
#[apply(test)]
fn an_initramfs_is_taken_where_kernels_unpack_it() {
    need_disks();
    need_table();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("init"), "#!/bin/sh\n").unwrap();
    prepare(dir.path(), "init\n");
    for name in [
        "512 zeros between two members",
        "5,000 members",
        "an early archive in front, aligned",
        "a comment (pigz -C)",
        "an extra field (bgzip)",
        "cut within a file",
        "an early archive and zstd",
        "nothing is compressed",
    ] {
        let row = ROWS.iter().find(|row| row.0 == name).unwrap();
        let machine = Machine::new();
        let mut release = Release::new("2.0.0");
        release.ours_mut().initramfs = make(dir.path(), row);
        let server = release.serve();
        let run = machine.apply(&["--server", &server.url("")]);
        match row.3 {
            Says::Refuses(words) => {
                run.expect(6, &["kubesolo-os.gz", words, "kernels do not unpack it whole"]);
                machine.assert_unharmed(name, "failed", "source", Left::Invalid);
            }
            _ => drop(run.expect(0, &["2.0.0 is staged"])),
        }
    }
}

/// What the gates refuse is refused before a byte is downloaded.
#[apply(test)]
fn artifacts_that_this_machine_must_not_take() {
    need_disks();
    let release = Release::new("2.0.0");
    let good = release.latest_json();
    let ours = format!("\"{}\"", architecture());
    let theirs = format!("\"{}\"", other_architecture());
    let with = |field: &str| good.replacen('{', &format!("{{{field},"), 1);
    for (what, document, phase, words) in [
        ("expired", with("\"expires\":\"2020-01-01T00:00:00Z\""), "failed", vec!["expired at 2020-01-01", "now is 20"]),
        ("channel", good.replace("stable", "edge"), "failed", vec!["on channel edge, this machine follows stable"]),
        ("min", with("\"min_compatible_version\":\"1.5.0\""), "failed", vec!["at least 1.5.0", "1.0.0 is running"]),
        // The ordinary course of things: no fault, and the state goes back.
        ("older", good.replace("2.0.0", "1.0.0-rc.9"), "idle", vec!["1.0.0-rc.9 is older than the running 1.0.0"]),
        ("absent", good.replace(&ours, "\"riscv64\""), "failed", vec![architecture(), "riscv64"]),
        (
            "two",
            good.replace("stable", "edge").replace("2.0.0", "0.1.0"),
            "failed",
            vec!["channel edge", "0.1.0 is older"],
        ),
        ("alone", good.replace(&theirs, "\"riscv64\""), "staged", vec!["is staged"]),
    ] {
        assert_ne!(document, good, "{what}: nothing was changed");
        let (machine, release) = (Machine::new(), release.clone());
        let server = Raw::start(move |path| match path {
            "/latest.json" => Reply::ok(document.clone()),
            _ => release.file(path).map_or(Reply::status(404), Reply::ok),
        });
        let taken = phase == "staged";
        machine.apply(&["--server", &server.url()]).expect(if taken { 0 } else { 4 }, &words);
        if !taken {
            assert_eq!(server.seen(), ["/latest.json"], "{what}: something was downloaded");
            let kind = if phase == "failed" { "gate" } else { "null" };
            machine.assert_unharmed(what, phase, kind, Left::Untouched);
            machine.assert_recovers(what);
        }
    }
}

#[apply(test)]
fn oci_artifacts_for_another_architecture() {
    need_disks();
    need("oras");
    let machine = Machine::new();
    let dir = machine.disk.dir();
    let release = Release::new("2.0.0");
    let medium = Medium::new(dir, &release);
    let other_tag = format!("latest-{}", other_architecture());
    let two = [other_architecture(), architecture()];
    // The other one's manifest by its own tag.
    machine.apply(&["--layout", medium.path(), "--tag", &other_tag]).expect(4, &two);
    machine.assert_unharmed("by tag", "failed", "gate", Left::Untouched);
    // An index that has only the other one.
    let layout = medium.path();
    let mut index = support::registry::oras(dir);
    index.args(["manifest", "index", "create", "--oci-layout", &format!("{layout}:only"), &other_tag]);
    run(&mut index);
    machine.apply(&["--layout", layout, "--tag", "only"]).expect(4, &two);
    machine.assert_unharmed("index without", "failed", "gate", Left::Untouched);
    // An index that offers the other one's manifest under this machine's platform.
    let swapped = Release::new("2.0.1").with("io.kubesolo.os.architecture", other_architecture());
    swapped.publish(dir, Target::Layout, layout, "swapped");
    machine.apply(&["--layout", layout, "--tag", "swapped"]).expect(4, &two);
    machine.assert_unharmed("swapped", "failed", "gate", Left::Untouched);
    machine.assert_recovers("architecture");
}

#[apply(test)]
fn documents_that_are_malformed() {
    need_disks();
    let release = Release::new("2.0.0");
    let good = release.latest_json();
    let kernel_sha = sha256(&release.ours().kernel);
    let cut = good.len() / 2;
    let machine = Machine::new();
    for (what, document, word) in [
        ("empty", String::new(), "latest.json"),
        ("cut", good[..cut].to_string(), "latest.json"),
        ("more behind it", format!("{good}{{}}"), "latest.json"),
        ("a list", format!("[{good}]"), "latest.json"),
        ("no version", good.replace("\"version\"", "\"x\""), "version"),
        ("version that is none", good.replace("2.0.0", "two"), "two"),
        ("version with an escape", good.replace("2.0.0", "2.0.0\\u001b[31m"), "version"),
        ("short digest", good.replace(&kernel_sha, &kernel_sha[..63]), "sha256"),
        ("digest that is a path", good.replace(&kernel_sha, "../../../../etc/passwd"), "sha256"),
        ("size as text", good.replace("\"size\":", "\"size\":\"1\",\"x\":"), "size"),
        ("no size", good.replace("\"size\"", "\"x\""), "size"),
        ("size 0", good.replace("\"size\":", "\"size\":0,\"x\":"), "size"),
        ("size below 0", good.replace("\"size\":", "\"size\":-5,\"x\":"), "size"),
        ("no kernel", good.replace("\"kernel\"", "\"x\""), "kernel"),
        ("kernel that is a number", good.replace("\"kernel\":{", "\"kernel\":7,\"x\":{"), "latest.json"),
        ("url of another kind", good.replace("\"url\":\"", "\"url\":\"file:///etc/"), "url"),
        ("deep", format!("{{\"a\":{}", "[".repeat(200_000)), "latest.json"),
    ] {
        assert_ne!(document, good, "{what}: nothing was changed");
        let server = Raw::start(move |_| Reply::ok(document.clone()));
        let run = machine.apply(&["--server", &server.url()]).expect(6, &[word]);
        assert!(!run.stderr.contains('\u{1b}'), "{what}: an escape reached the terminal");
        assert_eq!(server.seen(), ["/latest.json"], "{what}");
        machine.assert_unharmed(what, "failed", "source", Left::Untouched);
    }
    machine.assert_recovers("malformed latest.json");
}

#[apply(test)]
fn layouts_that_are_malformed() {
    need_disks();
    need("oras");
    let machine = Machine::new();
    let medium = Medium::new(machine.disk.dir(), &Release::new("2.0.0"));
    let at = |name: &str| medium.dir.join(name);
    let [marker, index] = ["oci-layout", "index.json"].map(|name| fs::read_to_string(at(name)).unwrap());
    for (name, text, word) in [
        ("oci-layout", "{".to_string(), "oci-layout"),
        ("oci-layout", marker.replace("1.0.0", "7.0.0"), "7.0.0"),
        ("index.json", String::new(), "index.json"),
        ("index.json", index[..index.len() - 2].to_string(), "index.json"),
        ("index.json", "{}".to_string(), "index.json"),
        ("index.json", index.replace("sha256:", "sha256:../../"), "digest"),
        ("index.json", index.replace("\"size\":", "\"size\":\"x\",\"y\":"), "size"),
        ("index.json", index.replace("\"schemaVersion\":2", "\"schemaVersion\":1"), "schemaVersion"),
    ] {
        assert!(text != marker && text != index, "{name}: nothing was changed");
        fs::write(at(name), &text).unwrap();
        machine.apply(&["--layout", medium.path()]).expect(6, &[word]);
        machine.assert_unharmed(name, "failed", "source", Left::Untouched);
        fs::write(at("oci-layout"), &marker).unwrap();
        fs::write(at("index.json"), &index).unwrap();
    }
    // A manifest that does not hash to what the index says.
    let manifest = medium.dir.join("blobs").join(medium.digest.replace(':', "/"));
    rewrite(&manifest, |bytes| bytes[0] = b'[');
    machine.apply(&["--layout", medium.path()]).expect(5, &["hashes to"]);
    machine.assert_unharmed("manifest", "failed", "digest", Left::Untouched);
    machine.assert_recovers("malformed layout");
}
