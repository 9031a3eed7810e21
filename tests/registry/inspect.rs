//! `inspect` against real registries, layouts and servers: what it says of an artifact is what `check` says on a machine with
//! the same keys, configuration and version; and what only it says.

use crate::support::disk::{A, BORN, architecture, need_disks, other_architecture};
use crate::support::machine::Machine;
use crate::support::pull::put;
use crate::support::registry::{Registry, oras};
use crate::support::release::{Release, Target, sha256};
use crate::support::root::{Root, Run, jq};
use crate::support::signed::small;
use crate::support::signing::{Forge, KeyPair, attach, base64};
use crate::support::web::{Answer, Web};
use crate::support::{need_all, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What is put where the source looks.
#[derive(Clone, Copy, PartialEq)]
pub enum Shape {
    /// An index of both architectures.
    Both,
    /// An index without ours.
    OtherIndex,
    /// The other architecture's manifest itself.
    Other,
    /// Our manifest itself.
    Ours,
    /// Nothing.
    Nothing,
}

/// What the machine revokes.
#[derive(Clone, Copy, PartialEq)]
pub enum Revoked {
    No,
    Key,
    Kernel,
}

/// One artifact, and what is to come of it.
#[derive(Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    pub version: &'static str,
    /// Annotations, as `latest.json` and manifests have them.
    pub facts: &'static [(&'static str, &'static str)],
    pub shape: Shape,
    /// Numbers of the keys that sign.
    pub by: &'static [usize],
    pub revoked: Revoked,
    pub conf: &'static str,
    /// Exit code of `check`, and of `inspect`.
    pub code: i32,
    /// The gates that refuse.
    pub gates: &'static str,
}

pub const GOOD: Row = Row {
    name: "good",
    version: "2.0.0",
    facts: &[],
    shape: Shape::Both,
    by: &[0],
    revoked: Revoked::No,
    conf: "",
    code: 0,
    gates: "[]",
};

const fn gate(name: &'static str, facts: &'static [(&'static str, &'static str)], gates: &'static str) -> Row {
    Row { name, facts, code: 4, gates, ..GOOD }
}

/// A machine that runs BORN, and follows `stable` unless its configuration says more.
const ROWS: [Row; 27] = [
    GOOD,
    Row { name: "a pre-release", version: "2.0.0-rc.1", ..GOOD },
    Row { name: "a leading v", version: "v2.0.0", ..GOOD },
    Row { name: "a manifest without an index", shape: Shape::Ours, ..GOOD },
    Row { name: "by two of two", by: &[0, 1], conf: "signature_threshold = 2", ..GOOD },
    Row { name: "another channel, followed", facts: &[("channel", "beta")], conf: "channel = beta", ..GOOD },
    Row { name: "what runs", version: BORN, code: 3, ..GOOD },
    Row { name: "what runs, expired", version: BORN, facts: &[("expires", "2020-01-01T00:00:00Z")], code: 3, ..GOOD },
    Row { name: "older", version: "0.9.0", code: 4, gates: r#"["newer"]"#, ..GOOD },
    Row { name: "older, a pre-release of what runs", version: "1.0.0-rc.1", code: 4, gates: r#"["newer"]"#, ..GOOD },
    gate("another channel", &[("channel", "beta")], r#"["channel"]"#),
    Row { name: "the machine on another channel", conf: "channel = lts", code: 4, gates: r#"["channel"]"#, ..GOOD },
    gate("too far", &[("min_compatible_version", "1.5.0")], r#"["min_compatible_version"]"#),
    gate("expired", &[("expires", "2020-01-01T00:00:00Z")], r#"["expired"]"#),
    Row {
        name: "four gates at once",
        version: "0.9.0",
        facts: &[("channel", "beta"), ("expires", "2020-01-01T00:00:00Z"), ("min_compatible_version", "1.5.0")],
        ..gate("", &[], r#"["channel","newer","min_compatible_version","expired"]"#)
    },
    gate("an architecture that none has", &[("architecture", "x86_64")], r#"["architecture"]"#),
    Row { name: "the other architecture", shape: Shape::Other, ..gate("", &[], r#"["architecture"]"#) },
    Row { name: "nothing for this one", shape: Shape::OtherIndex, ..gate("", &[], "[]") },
    Row { name: "nothing", shape: Shape::Nothing, code: 6, ..GOOD },
    Row { name: "a version that is none", version: "2024.01", code: 6, ..GOOD },
    Row { name: "a least version that is none", facts: &[("min_compatible_version", "1")], code: 6, ..GOOD },
    Row { name: "a date that is none", facts: &[("expires", "tomorrow")], code: 6, ..GOOD },
    Row { name: "a release date that is none", facts: &[("release_date", "31.12.2026")], code: 6, ..GOOD },
    Row { name: "unsigned", by: &[], code: 5, ..GOOD },
    Row { name: "by a stranger", by: &[2], code: 5, ..GOOD },
    Row { name: "by one of two", conf: "signature_threshold = 2", code: 5, ..GOOD },
    Row { name: "a revoked kernel", revoked: Revoked::Kernel, code: 5, ..GOOD },
];
const REVOKED_KEY: Row = Row { name: "by a revoked key", revoked: Revoked::Key, code: 5, ..GOOD };

/// A publisher's directory, with keys and a registry; and a machine.
pub struct Bench {
    dir: TempDir,
    pub keys: [KeyPair; 3],
    registry: Registry,
    machine: Machine,
}

impl Bench {
    pub fn new() -> Bench {
        need_disks();
        need_all(&["docker-registry", "oras", "openssl", "jq"]);
        let dir = tempfile::tempdir().unwrap();
        let keys = ["first", "second", "stranger"].map(|name| KeyPair::p256(dir.path(), name));
        let registry = Registry::start(dir.path(), None);
        Bench { dir, keys, registry, machine: Machine::new() }
    }

    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    pub fn repository(&self) -> String {
        format!("{}/os", self.registry.host())
    }

    fn signers(&self, row: &Row) -> Vec<&KeyPair> {
        row.by.iter().map(|n| &self.keys[*n]).collect()
    }

    /// What a row publishes; of the running version, what runs.
    pub fn release(&self, row: &Row) -> Release {
        let mut release = small(&Release::new(row.version));
        if row.version == BORN {
            let file = |name| self.machine.disk.file(A, name).expect("a file of the running slot");
            (release.ours_mut().kernel, release.ours_mut().initramfs) = (file("vmlinuz"), file("kubesolo-os.gz"));
        }
        // Else rows that are signed otherwise would be the same manifest.
        let release = release.with("io.kubesolo.os.release_notes", row.name);
        row.facts.iter().fold(release, |release, (name, value)| release.with(&format!("io.kubesolo.os.{name}"), value))
    }

    /// Publishes a row into the registry, and signs it. Returns: the reference.
    pub fn publish(&self, row: &Row, tag: &str) -> String {
        let (release, repository) = (self.release(row), self.repository());
        let reference = format!("{repository}:{tag}");
        let push = |name: &str| {
            let pair = release.pairs.iter().find(|pair| pair.architecture == name).unwrap();
            release.push(self.home(), Target::Registry, &reference, pair);
        };
        match row.shape {
            Shape::Both => drop(release.publish(self.home(), Target::Registry, &repository, tag)),
            Shape::Ours => push(architecture()),
            Shape::Other => push(other_architecture()),
            Shape::OtherIndex => {
                release.publish(self.home(), Target::Registry, &repository, tag);
                let mut index = oras(self.home());
                index.args(["manifest", "index", "create", "--plain-http", &reference]);
                run(index.arg(format!("{tag}-{}", other_architecture())));
            }
            Shape::Nothing => return reference,
        }
        if !row.by.is_empty() {
            // By hand: scripts/sign.sh signs nothing that no machine would take.
            let digest = run(oras(self.home()).args(["resolve", "--plain-http", &reference]));
            let bundle = Forge::new(digest.trim(), &self.signers(row)).bundle();
            attach(self.home(), Target::Registry, &format!("{repository}@{}", digest.trim()), bundle.as_bytes());
        }
        reference
    }

    /// A copy of it on a medium, and a tar.gz of that.
    pub fn copy(&self, reference: &str, tag: &str) -> [String; 2] {
        let layout = self.home().join(format!("{tag}.layout"));
        let mut copy = oras(self.home());
        copy.args(["cp", "-r", "--from-plain-http", "--to-oci-layout", reference]);
        run(copy.arg(format!("{}:latest", layout.display())));
        let tar = self.home().join(format!("{tag}.tar.gz"));
        run(Command::new("tar").arg("-czf").arg(&tar).arg("-C").arg(&layout).arg("."));
        [layout, tar].map(|path| path.display().to_string())
    }

    /// The same as a `latest.json`; `None`: it has no such shape.
    pub fn serve(&self, row: &Row) -> Option<Web> {
        let is_plain = row.shape == Shape::Both && row.facts.iter().all(|(name, _)| *name != "architecture");
        if !is_plain {
            return None;
        }
        let release = self.release(row);
        let set = |(name, value): &(&str, &str)| format!(" | .{name} = \"{value}\"");
        let filter = row.facts.iter().map(set).collect::<String>();
        let document = jq(&release.latest_json(), &format!(".{filter}"));
        let lines = self.signers(row).into_iter().map(|key| base64(&key.sign(document.as_bytes())) + "\n");
        let signature = Some(lines.collect::<String>()).filter(|lines| !lines.is_empty());
        Some(Web::start(move |path| match path.split('?').next().unwrap() {
            "/latest.json" => Answer::ok(document.clone()),
            "/latest.json.sig" => signature.clone().map_or(Answer::status(404), Answer::ok),
            _ => release.file(path).map_or(Answer::status(404), Answer::ok),
        }))
    }

    /// Makes the machine the one that a row speaks of. Returns: its keys and its configuration.
    fn set_up(&self, row: &Row) -> [PathBuf; 2] {
        let keys = self.machine.root.path("etc/kubesolo/update-keys.d");
        fs::create_dir_all(keys.join("revoked")).unwrap();
        for (key, name) in self.keys.iter().zip(["first", "second"]) {
            put(&self.machine, &format!("update-keys.d/{name}.pub"), key.pem(), 0o644);
        }
        let list = match row.revoked {
            Revoked::No => String::new(),
            Revoked::Key => self.keys[0].fingerprint(),
            Revoked::Kernel => format!("sha256:{}", sha256(&self.release(row).ours().kernel)),
        };
        put(&self.machine, "update-keys.d/revoked/list", format!("{list}\n"), 0o644);
        self.machine.root.configure(&format!("retries = 0\n{}\n", row.conf));
        [keys, self.machine.root.path("etc/kubesolo/update.conf")]
    }

    /// Runs `inspect`, with nothing of the tester's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut agent = Command::new(Root::program());
        agent.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir(self.home());
        agent.arg("inspect").args(args);
        agent
    }

    pub fn inspect(&self, args: &[&str]) -> Run {
        self.command(args).output().unwrap().into()
    }

    /// Holds that `inspect` says what `check` says.
    fn hold(&self, row: &Row, option: &str, source: &str) {
        let what = format!("{}: {option} {source}", row.name);
        eprintln!("{what}");
        let paths = self.set_up(row);
        let [keys, config] = paths.each_ref().map(|path| path.to_str().unwrap());
        let check = self.machine.root.agent(&["check", "--json", option, source]).expect(row.code, &[]);
        let asked = format!("{BORN}/{}", architecture());
        let args = [source, "--json", "--as", &asked, "--key", keys, "--config", config];
        let inspect = self.inspect(&args).expect(row.code, &[]);
        // The two do not run in the same second.
        let ended = r#"[.kind, .message, .refusals] | tostring | gsub("now is [-0-9T:]+Z"; "now is")"#;
        assert_eq!(check.jq(ended), inspect.jq(ended), "{what}");
        let seen = inspect.jq("[[.refusals[].gate], .would_take]");
        let takes = if inspect.stdout.contains("\"would_take\"") { (row.code == 0).to_string() } else { "null".into() };
        assert_eq!(seen, format!("[{},{takes}]", row.gates), "{what}");
        let facts = inspect.jq(".artifacts[0] | del(.complete, .kernel, .initramfs)");
        assert_eq!(check.jq(".offered"), facts, "{what}");
        // For a person as well, and with keys that are named one by one and without a configuration.
        let text = self.inspect(&[source, "--as", &asked, "--key", keys, "--config", config]).expect(row.code, &[]);
        assert!(text.stdout.lines().all(|line| line.chars().count() < 80), "{what}: {}", text.stdout);
        if row.conf.is_empty() && row.revoked == Revoked::No {
            let [first, second] = [0, 1].map(|n| self.keys[n].public.to_str().unwrap());
            let args = [source, "--json", "--as", &format!("{asked}/stable"), "--key", first, "--key", second];
            let named = self.inspect(&args).expect(row.code, &[]);
            let seen = "[[.refusals[].gate], .artifacts]";
            assert_eq!(named.jq(seen), inspect.jq(seen), "{what}");
        }
    }
}

#[apply(test)]
fn it_says_what_a_machine_says() {
    let bench = Bench::new();
    for (n, row) in ROWS.iter().chain([&REVOKED_KEY]).enumerate() {
        let tag = format!("row-{n}");
        let reference = bench.publish(row, &tag);
        bench.hold(row, "--registry", &reference);
        if row.shape != Shape::Nothing {
            // A directory and a tar.gz by turns: they differ in how a file is opened.
            let copies = bench.copy(&reference, &tag);
            bench.hold(row, "--layout", &copies[n % 2]);
        }
    }
}

#[apply(test)]
fn it_says_what_a_machine_says_of_a_server() {
    let bench = Bench::new();
    for row in ROWS.iter().chain([&REVOKED_KEY]) {
        if let Some(server) = bench.serve(row) {
            bench.hold(row, "--server", &server.url(""));
        }
    }
}

/// What a publisher compares with what `sign.sh` has printed, and what a step in CI prints where all is well.
#[apply(test)]
fn whole_digests_are_shown_where_they_are_asked_for_and_nothing_where_that_is() {
    let bench = Bench::new();
    let [keys, config] = bench.set_up(&GOOD);
    let asked = format!("{BORN}/{}", architecture());
    let source = bench.publish(&GOOD, "digests");
    let args = [source.as_str(), "--as", &asked, "--key", keys.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let digests = |run: &Run| -> Vec<usize> {
        let parts = run.stdout.split("sha256:").skip(1);
        parts.map(|part| part.bytes().take_while(u8::is_ascii_hexdigit).count()).collect()
    };
    for (more, wide) in [(&[][..], 12), (&["--verbose"], 64), (&["--verbose", "--quiet"], 64)] {
        let run = bench.inspect(&[&args[..], more].concat()).expect(0, &["such a machine would take it"]);
        let all = digests(&run);
        assert!(all.len() >= 4 && all.iter().all(|digits| *digits == wide), "{more:?}: {run:?}");
    }
    let quiet = bench.inspect(&[&args[..], &["--quiet"]].concat()).expect(0, &[]);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    let refused = ["--quiet", "--as", "9.0.0/arm64/stable"];
    let refused = bench.inspect(&[&args[..1], &args[3..], &refused[..]].concat()).expect(4, &["9.0.0"]);
    assert!(!refused.stdout.is_empty(), "{refused:?}");
}
