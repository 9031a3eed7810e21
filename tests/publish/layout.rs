//! `scripts/publish-layout.sh`: what it publishes, as a real oras and the agent read it; what it refuses.

use crate::support::disk::{Disk, architecture, initramfs_of, kernel_noise, need_disks, noise, other_architecture};
use crate::support::registry::oras;
use crate::support::release::{Release, Target};
use crate::support::root::{Root, jq};
use crate::support::signing::{KeyPair, script};
use crate::support::{self, need, need_all, run, script_code};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const DATE: &str = "2026-01-31T12:00:00Z";
const EXPIRES: &str = "2099-01-31T12:00:00Z";
const NOTES: &str = "first\n\"second\"\t\\ \u{fc}ber";

/// A directory with files to publish, and a layout to publish into.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        for (seed, arch) in [(1, "amd64"), (2, "arm64")] {
            fs::write(bench.path(&format!("vmlinuz-{arch}")), kernel_noise(seed, 200_001)).unwrap();
            let initramfs = initramfs_of(bench.dir.path(), &noise(seed + 10, 50_003));
            fs::write(bench.path(&format!("initramfs-{arch}")), initramfs).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn layout(&self) -> PathBuf {
        self.path("layout")
    }

    /// The script, in the directory of the files.
    fn script(&self) -> Command {
        let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/publish-layout.sh"));
        script.current_dir(self.dir.path()).args(["--layout", "layout"]);
        script
    }

    /// Publishes both architectures. Returns: the digest that the script prints.
    fn publish(&self, version: &str, tags: &[&str], more: &[&str]) -> String {
        let mut script = self.script();
        script.args(["--version", version]).args(more);
        for tag in tags {
            script.args(["--tag", tag]);
        }
        for arch in ["arm64", "amd64"] {
            script.args(["--arch", arch]).args(files(arch));
        }
        run(&mut script).trim_end().to_string()
    }

    fn oras(&self, args: &[&str]) -> String {
        run(oras(self.dir.path()).args(args))
    }

    fn index(&self) -> String {
        fs::read_to_string(self.layout().join("index.json")).unwrap()
    }

    /// Every file of the layout with its bytes.
    fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut dirs = vec![self.layout()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
                match entry.is_dir() {
                    true => dirs.push(entry),
                    false => found.push((entry.clone(), fs::read(&entry).unwrap())),
                }
            }
        }
        found.sort();
        found
    }
}

fn files(arch: &str) -> [String; 4] {
    ["--kernel".into(), format!("vmlinuz-{arch}"), "--initramfs".into(), format!("initramfs-{arch}")]
}

fn tools() {
    need_all(&["jq", "flock", "gzip"]);
}

#[track_caller]
fn refused(out: &Output, word: &str) {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(script_code(&said)) && said.contains(word), "wanted '{word}': {said}");
    assert!(out.stdout.is_empty(), "a digest for nothing");
}

#[apply(test)]
fn oras_reads_what_was_published() {
    tools();
    need("oras");
    let bench = Bench::new();
    let more = ["--channel", "beta", "--min-compatible", "1.0.0", "--notes", NOTES, "--release-date", DATE];
    let digest = bench.publish("1.2.0", &["1.2.0", "latest"], &[&more[..], &["--expires", EXPIRES]].concat());
    for arch in ["amd64", "arm64"] {
        let platform = format!("linux/{arch}");
        let manifest = bench.oras(&["manifest", "fetch", "--oci-layout", "--platform", &platform, "layout:latest"]);
        let annotations = jq(&manifest, "[.annotations | to_entries[] | \"\\(.key)=\\(.value)\"] | sort | join(\"|\")");
        let wanted = [
            format!("architecture={arch}"),
            "channel=beta".into(),
            format!("expires={EXPIRES}"),
            "min_compatible_version=1.0.0".into(),
            format!("release_date={DATE}"),
            format!("release_notes={NOTES}"),
            "version=1.2.0".into(),
        ];
        assert_eq!(annotations, wanted.map(|text| format!("io.kubesolo.os.{text}")).join("|"));
        let config =
            bench.oras(&["manifest", "fetch-config", "--oci-layout", "--platform", &platform, "layout:latest"]);
        assert_eq!(jq(&config, "[.architecture, .os]"), format!("[\"{arch}\",\"linux\"]"));
        // It checks every digest and length on the way.
        let out = format!("pulled-{arch}");
        bench.oras(&["pull", "--oci-layout", "--platform", &platform, "-o", &out, "layout:1.2.0"]);
        for (pulled, published) in [("vmlinuz", "vmlinuz"), ("kubesolo-os.gz", "initramfs")] {
            let pulled = fs::read(bench.path(&out).join(pulled)).unwrap();
            assert!(pulled == fs::read(bench.path(&format!("{published}-{arch}"))).unwrap(), "{published} {arch}");
        }
    }
    let resolved = bench.oras(&["resolve", "--oci-layout", "layout:latest"]);
    assert_eq!(resolved.trim(), digest);
    // All of it, as a copy to a registry or another medium would take it.
    bench.oras(&["cp", "--from-oci-layout", "--to-oci-layout", "layout:latest", "copy:latest"]);
    assert_eq!(bench.oras(&["resolve", "--oci-layout", "copy:latest"]).trim(), digest);
}

#[apply(test)]
fn the_same_shape_as_oras_makes() {
    tools();
    need("oras");
    let bench = Bench::new();
    bench.publish("1.2.0", &["ours"], &[]);
    for arch in ["amd64", "arm64"] {
        fs::create_dir(bench.path(arch)).unwrap();
        for (link, file) in [("vmlinuz", "vmlinuz"), ("kubesolo-os.gz", "initramfs")] {
            symlink(bench.path(&format!("{file}-{arch}")), bench.path(arch).join(link)).unwrap();
        }
        let mut push = oras(bench.dir.path());
        push.current_dir(bench.path(arch)).args(["push", "--oci-layout", "--artifact-platform"]);
        push.args([&format!("linux/{arch}"), "--artifact-type", "application/vnd.kubesolo.os.update.v1"]);
        for annotation in ["version=1.2.0".into(), "channel=stable".into(), format!("architecture={arch}")] {
            push.arg("-a").arg(format!("io.kubesolo.os.{annotation}"));
        }
        push.args([&format!("../theirs:{arch}"), "vmlinuz:application/vnd.kubesolo.os.kernel.v1+octet-stream"]);
        run(push.arg("kubesolo-os.gz:application/vnd.kubesolo.os.initramfs.v1+gzip"));
    }
    let kind = "application/vnd.kubesolo.os.update.v1";
    bench.oras(&[
        "manifest",
        "index",
        "create",
        "--oci-layout",
        "--artifact-type",
        kind,
        "theirs:it",
        "amd64",
        "arm64",
    ]);
    // oras adds the time of day, and orders keys otherwise; everything else is the same.
    let shape = |args: &[&str], filter: &str| {
        let text = bench.oras(&[&["manifest", "fetch", "--oci-layout"], args].concat());
        jq(&text, &format!("{filter} | walk(if type == \"object\" then to_entries | sort_by(.key) else . end)"))
    };
    for arch in ["amd64", "arm64"] {
        let platform = format!("--platform=linux/{arch}");
        let manifest =
            |reference| shape(&[&platform, reference], "del(.annotations[\"org.opencontainers.image.created\"])");
        assert_eq!(manifest("layout:ours"), manifest("theirs:it"));
    }
    let index = |reference| shape(&[reference], "del(.manifests[].digest, .manifests[].size)");
    assert_eq!(index("layout:ours"), index("theirs:it"));
}

#[apply(test)]
fn publishing_again_changes_nothing_and_a_tag_moves() {
    tools();
    let bench = Bench::new();
    let tags = "[.manifests[] | [.annotations[\"org.opencontainers.image.ref.name\"], .digest]]";
    let first = bench.publish("1.1.0", &["1.1.0", "latest"], &[]);
    let before = bench.content();
    assert_eq!(before.len(), 2 + 4 + 2 + 2 + 1, "marker, index.json, files, configs, manifests, index");
    assert_eq!(bench.publish("1.1.0", &["1.1.0", "latest"], &[]), first);
    assert!(bench.content() == before, "the same input gave other bytes");

    let second = bench.publish("1.2.0", &["1.2.0", "latest"], &[]);
    assert_ne!(first, second);
    let wanted = format!("[[\"1.1.0\",\"{first}\"],[\"latest\",\"{second}\"],[\"1.2.0\",\"{second}\"]]");
    assert_eq!(jq(&bench.index(), tags), wanted);
    // The old version is whole: every file that was there is there, and blobs are shared.
    let after = bench.content();
    assert_eq!(after.len(), before.len() + 3);
    assert!(before.iter().all(|old| old.0.ends_with("index.json") || after.contains(old)));
    // One rename cannot leave anything but this.
    assert!(after.iter().all(|(path, _)| !path.to_string_lossy().contains(".publish.")));
}

/// A job that runs once more with `--release-date now`, for one.
#[apply(test)]
fn what_is_signed_is_not_taken_away_by_another_build_of_it() {
    tools();
    need_all(&["oras", "openssl"]);
    let bench = Bench::new();
    let key = KeyPair::p256(bench.dir.path(), "release");
    let dates = |date: &'static str| ["--release-date", date, "--expires", EXPIRES];
    bench.publish("1.1.0", &["stable"], &dates(DATE));
    // Nobody has signed it yet: it may still change.
    let first = bench.publish("1.1.0", &["stable"], &dates("2026-01-31T12:00:01Z"));
    run(script(bench.dir.path(), "sign.sh").args(["--layout", "layout:stable", "--key"]).arg(&key.private));
    let before = bench.content();
    assert_eq!(bench.publish("1.1.0", &["stable"], &dates("2026-01-31T12:00:01Z")), first);
    let mut again = bench.script();
    again.args(["--version", "1.1.0", "--tag", "stable", "--arch", "amd64"]).args(files("amd64"));
    again.args(["--arch", "arm64"]).args(files("arm64")).args(dates("2026-01-31T12:00:02Z"));
    refused(&again.output().unwrap(), "layout:stable has version 1.1.0, signed, and this is another build of it");
    assert!(bench.content() == before, "something was written");
    run(again.arg("--allow-older"));
    // The next version is signed when it is there.
    bench.publish("1.2.0", &["stable"], &dates("2026-02-01T12:00:00Z"));
}

/// To a machine, equal in order is not the same: a publisher hears it before the fleet does.
#[apply(test)]
fn what_machines_would_refuse_as_another_build_is_warned_of() {
    tools();
    let bench = Bench::new();
    let warnings = |version: &str, tag: &str| {
        let mut publish = bench.script();
        let out = publish
            .args(["--version", version, "--tag", tag, "--arch", "amd64"])
            .args(files("amd64"))
            .output()
            .unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success(), "{said}");
        said.lines().filter(|line| line.contains("warning: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    for (version, words) in [
        ("1.29.4", None),
        ("1.29.4-rc.1", None),
        ("1.29.4+k3s1", Some(["the + in 1.29.4+k3s1", "that runs 1.29.4,", "(1.29.5)", "such as 1.29.5-1"])),
        (
            "1.29.4-rc.1+k3s2",
            Some(["the + in 1.29.4-rc.1+k3s2", "that runs 1.29.4-rc.1,", "(1.29.5)", "such as 1.29.5-1"]),
        ),
    ] {
        let said = warnings(version, version.replace('+', "_").as_str());
        match words {
            None => assert_eq!(said, [""; 0], "{version}"),
            Some(words) => assert!(said.len() == 1 && words.iter().all(|w| said[0].contains(w)), "{version}: {said:?}"),
        }
    }
    // The same files again, in an index of their own or under another tag.
    assert_eq!(warnings("1.29.4", "again"), [""; 0]);
    // Other files.
    fs::write(bench.path("vmlinuz-amd64"), kernel_noise(99, 3000)).unwrap();
    for tag in ["1.29.4", "another"] {
        let said = warnings("1.29.4", tag);
        assert!(said.len() == 1 && said[0].contains("has version 1.29.4 (stable) for amd64 already"), "{said:?}");
    }
    assert_eq!(warnings("1.29.5", "1.29.5"), [""; 0]);
}

#[apply(test)]
fn what_other_tools_left_stays() {
    tools();
    let bench = Bench::new();
    bench.publish("1.1.0", &["latest"], &[]);
    // Compact, as oras writes it, without tag, with unknown fields, and with a tag twice.
    let theirs = "{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"size\":2,\"x\":{\"y\":[1,null]},\
        \"digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"}";
    let latest = jq(&bench.index(), ".manifests[0]");
    let text =
        format!("{{\"schemaVersion\":2,\"annotations\":{{\"a\":\"b\"}},\"manifests\":[{theirs},{latest},{latest}]}}");
    fs::write(bench.layout().join("index.json"), text).unwrap();
    let digest = bench.publish("1.2.0", &["latest"], &[]);
    let index = bench.index();
    assert_eq!(jq(&index, ".manifests[0]"), jq(theirs, "."));
    assert_eq!(
        jq(&index, "[.annotations.a, (.manifests | length), .manifests[1].digest]"),
        format!("[\"b\",2,\"{digest}\"]")
    );
}

#[apply(test)]
fn a_damaged_or_cut_off_layout_is_mended() {
    tools();
    let bench = Bench::new();
    bench.publish("1.1.0", &["latest"], &[]);
    let good = bench.content();
    for (path, bytes) in &good {
        if path.parent().unwrap().ends_with("sha256") {
            // What a bad stick makes of it: the same length, another bit.
            let mut bad = bytes.clone();
            bad[0] ^= 1;
            fs::write(path, bad).unwrap();
        }
    }
    // What a killed run leaves.
    fs::write(bench.layout().join("blobs/sha256/.publish.1"), "half").unwrap();
    fs::write(bench.layout().join(".publish.1"), "half").unwrap();
    bench.publish("1.1.0", &["latest"], &[]);
    assert!(bench.content() == good);
    // Killed before the first index.json.
    fs::remove_file(bench.layout().join("index.json")).unwrap();
    bench.publish("1.1.0", &["latest"], &[]);
    assert!(bench.content() == good);
}

#[apply(test)]
fn a_dry_run_writes_nothing() {
    tools();
    let bench = Bench::new();
    let foretold = bench.publish("1.2.0", &["latest"], &["--dry-run"]);
    assert!(!bench.layout().exists());
    assert_eq!(bench.publish("1.2.0", &["latest"], &[]), foretold);
    let before = bench.content();
    bench.publish("1.3.0", &["latest"], &["--dry-run"]);
    assert!(bench.content() == before);
}

#[apply(test)]
fn two_at_once_are_refused() {
    tools();
    let bench = Bench::new();
    bench.publish("1.1.0", &["latest"], &[]);
    let before = bench.content();
    let mut script = Command::new("flock");
    script.arg(bench.layout()).arg(bench.script().get_program()).current_dir(bench.dir.path());
    script.args(["--layout", "layout", "--tag", "x", "--version", "1.2.0", "--arch", "amd64"]).args(files("amd64"));
    refused(&script.output().unwrap(), "another run");
    assert!(bench.content() == before);
}

#[apply(test)]
fn bad_arguments_are_refused_and_nothing_is_written() {
    tools();
    let bench = Bench::new();
    fs::write(bench.path("empty"), "").unwrap();
    fs::write(bench.path("cut"), &fs::read(bench.path("initramfs-amd64")).unwrap()[..1000]).unwrap();
    fs::create_dir(bench.path("other")).unwrap();
    fs::write(bench.path("other/file"), "x").unwrap();
    fs::create_dir(bench.path("newer")).unwrap();
    fs::write(bench.path("newer/oci-layout"), "{\"imageLayoutVersion\":\"2.0.0\"}").unwrap();
    fs::create_dir(bench.path("broken")).unwrap();
    fs::write(bench.path("broken/oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    fs::write(bench.path("broken/index.json"), "{\"schemaVersion\":2,\"manifests\":[{}").unwrap();
    let tag = "a".repeat(129);
    let good = "--tag t --version 1.2.0";
    let amd64 = "--arch amd64 --kernel vmlinuz-amd64 --initramfs initramfs-amd64";
    let table: Vec<(String, &str)> = vec![
        (format!("--version 1.2.0 {amd64}"), "--tag is missing"),
        (format!("--tag t {amd64}"), "--version is missing"),
        (good.into(), "--arch is missing"),
        (format!("{good} --frob"), "unknown option: --frob"),
        (format!("{good} {amd64} --notes"), "--notes needs a value"),
        (format!("--tag .t --version 1.2.0 {amd64}"), "is not a tag"),
        (format!("--tag a/b --version 1.2.0 {amd64}"), "is not a tag"),
        (format!("--tag {tag} --version 1.2.0 {amd64}"), "is not a tag"),
        (format!("{good} --tag t {amd64}"), "twice"),
        (format!("--tag t --version 1.2 {amd64}"), "semantic version"),
        (format!("--tag t --version 01.2.0 {amd64}"), "semantic version"),
        (format!("--tag t --version 1.2.0-01 {amd64}"), "semantic version"),
        (format!("--tag t --version 1.2.0- {amd64}"), "semantic version"),
        (format!("{good} --min-compatible latest {amd64}"), "--min-compatible"),
        (format!("{good} --channel a/b {amd64}"), "--channel"),
        (format!("{good} --expires 2026-01-31 {amd64}"), "--expires"),
        (format!("{good} --expires 2026-02-30T12:00:00Z {amd64}"), "--expires"),
        (format!("{good} --release-date tomorrow {amd64}"), "--release-date"),
        (format!("{good} --expires 2020-01-01T00:00:00Z {amd64}"), "is past"),
        (format!("{good} --expires {EXPIRES} --release-date {EXPIRES} {amd64}"), "not after --release-date"),
        (format!("{good} --min-compatible 1.2.1 {amd64}"), "above --version"),
        (format!("{good} --arch riscv64"), "amd64 or arm64"),
        (format!("{good} {amd64} {amd64}"), "twice"),
        (format!("{good} {amd64} --kernel empty"), "two kernels"),
        (format!("{good} --kernel vmlinuz-amd64 {amd64}"), "after the --arch"),
        (format!("{good} --arch amd64 --kernel vmlinuz-amd64"), "no --initramfs"),
        (format!("{good} {amd64} --arch arm64"), "--arch arm64 has no --kernel"),
        (format!("{good} --arch amd64 --kernel nowhere --initramfs initramfs-amd64"), "not a file"),
        (format!("{good} --arch amd64 --kernel other --initramfs initramfs-amd64"), "not a file"),
        (format!("{good} --arch amd64 --kernel empty --initramfs initramfs-amd64"), "is empty"),
        (format!("{good} --arch amd64 --kernel vmlinuz-amd64 --initramfs cut"), "it is cut in its"),
        (format!("{good} --layout other {amd64}"), "neither empty nor"),
        (format!("{good} --layout empty {amd64}"), "not a directory"),
        (format!("{good} --layout newer {amd64}"), "imageLayoutVersion"),
        (format!("{good} --layout broken {amd64}"), "not an image index"),
    ];
    let listed = |bench: &Bench| run(Command::new("find").arg(bench.dir.path()).args(["-printf", "%p %s\n"]));
    let before = listed(&bench);
    for (line, word) in &table {
        refused(&bench.script().args(line.split(' ')).output().unwrap(), word);
    }
    for (option, value) in [
        ("--version", "1.2.0\n1.2.1"),
        ("--tag", "t\nlatest"),
        ("--notes", "\u{1b}[2J"),
        ("--expires", "2026-01-31T12:00:00Z\nx"),
    ] {
        let words = good.split(' ').chain(amd64.split(' '));
        refused(&bench.script().args(words).args([option, value]).output().unwrap(), option);
    }
    assert_eq!(listed(&bench), before);
}

#[apply(test)]
fn the_agent_takes_what_was_published() {
    tools();
    need_disks();
    need("oras");
    let bench = Bench::new();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let layout = bench.layout();
    let layout = layout.to_str().unwrap();
    bench.publish("1.1.0", &["1.1.0", "latest"], &["--notes", NOTES]);
    bench.publish("1.2.0-rc.1", &["1.2.0-rc.1", "latest"], &["--notes", NOTES, "--min-compatible", "1.0.0"]);

    let newest = root.agent(&["check", "--layout", layout, "--json"]).expect(0, &[]);
    assert_eq!(
        newest.jq("[.offered.version, .offered.architecture]"),
        format!("[\"1.2.0-rc.1\",\"{}\"]", architecture())
    );
    assert_eq!(newest.jq(".offered.channel"), "stable");
    let older = root.agent(&["check", "--layout", layout, "--tag", "1.1.0", "--json"]).expect(0, &[]);
    assert_eq!(older.jq(".offered.version"), "1.1.0");
    root.agent(&["apply", "--layout", layout]).expect(0, &["1.2.0-rc.1 is staged in slot B"]);
    for (name, file) in [("vmlinuz", "vmlinuz"), ("kubesolo-os.gz", "initramfs")] {
        let published = fs::read(bench.path(&format!("{file}-{}", architecture()))).unwrap();
        assert!(disk.file(support::disk::B, name).unwrap() == published, "{name}");
    }

    // The other architecture alone is nothing for this machine, and says so.
    let mut script = bench.script();
    script.args(["--version", "1.3.0", "--tag", "other", "--arch", other_architecture()]);
    run(script.args(files(other_architecture())));
    root.agent(&["check", "--layout", layout, "--tag", "other"]).expect(4, &[other_architecture()]);
    // The scripts publish nothing that is expired: with oras.
    let expired = Release::new("1.4.0").with("io.kubesolo.os.expires", "2020-01-01T00:00:00Z");
    expired.publish(bench.dir.path(), Target::Layout, layout, "expired");
    root.agent(&["check", "--layout", layout, "--tag", "expired"]).expect(4, &["2020-01-01"]);
}
