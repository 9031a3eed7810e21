//! Names in a release that machines do not know: a note on the machine, a refusal of `scripts/sign.sh`; both by one table, out
//! of a registry, a layout and a `latest.json`.

use crate::support::disk::{architecture, initramfs_of, need_disks};
use crate::support::machine::Machine;
use crate::support::publish::stderr;
use crate::support::registry::{INITRAMFS_TYPE, KERNEL_TYPE, Registry, oras};
use crate::support::release::{Release, Target};
use crate::support::root::{Run, jq};
use crate::support::signed::{INDEX_TYPE, blob_path, digest};
use crate::support::signing::{KeyPair, Signed, sign_command};
use crate::support::web::{Answer, Web};
use crate::support::{need_all, run};
use std::fs;
use std::path::Path;

fn ready() {
    need_disks();
    need_all(&["openssl", "oras", "docker-registry", "jq"]);
}

/// An annotation as somebody writes it, and what is meant; "": ours, and nothing like what is known.
const ANNOTATIONS: [(&str, Option<&str>); 36] = [
    ("io.kubesolo.os.verison", Some("version")),
    ("io.kubesolo.os.Version", Some("version")),
    ("io.kubesolo.os.vers1on", Some("version")),
    ("io.kubesolo.os.expire", Some("expires")),
    ("io.kubesolo.os.exipres", Some("expires")),
    ("io.kubesolo.os.expiry", Some("expires")),
    ("io.kubesolo.os.expires_at", Some("expires")),
    ("io.kubesolo.os.releaseDate", Some("release_date")),
    ("io.kubesolo.os.release-date", Some("release_date")),
    ("io.kubesolo.os.min-compatible-version", Some("min_compatible_version")),
    ("io.kubesolo.os.minVersion", Some("min_compatible_version")),
    ("io.kubesolo.os.arch", Some("architecture")),
    ("io.kubesolo.os.chanel", Some("channel")),
    ("io.kubesolo.os.initramfs-digest", Some("initramfs_digest")),
    ("io.kubesolo.os-expires", Some("expires")),
    ("IO.KUBESOLO.OS.EXPIRES", Some("expires")),
    ("io.kubesolo.expires", Some("expires")),
    ("io.kubsolo.os.expires", Some("expires")),
    ("io.kubesolo.so.expires", Some("expires")),
    ("io.kubsolo.os.expiry", Some("expires")),
    ("kubesolo.os.expires", Some("expires")),
    ("com.kubesolo.os.expire", Some("expires")),
    ("io.kubesolo.update.expires", Some("expires")),
    ("os.kubesolo.io/expires", Some("expires")),
    ("kubesolo.io/channel", Some("channel")),
    ("io.kubesolo.os.rollout", Some("")),
    ("io.kubesolo.os.", Some("")),
    ("io.kubesolo.os.é", Some("")),
    ("io.kubesolo.agent.commit", None),
    ("org.opencontainers.image.version", None),
    ("expires", None),
    ("com.example.os.expires", None),
    ("com.example.expires", None),
    ("io.kubernetes.os.version", None),
    ("com.kubesolo.os.image", None),
    ("kubesolo.version", None),
];

/// So many on one release: machines name no more than 8.
const AT_ONCE: usize = 7;

/// The same for a field of `latest.json`, and the objects that it may stand in: `.`, `.artifacts[0]`, its `.kernel`.
const FIELDS: [(&str, &str, Option<&str>); 18] = [
    (".", "verison", Some("version")),
    (".", "expire", Some("expires")),
    (".", "Expires", Some("expires")),
    (".", "expiresAt", Some("expires")),
    (".", "valid_until", Some("expires")),
    (".", "release-date", Some("release_date")),
    (".", "minCompatibleVersion", Some("min_compatible_version")),
    (".", "artefacts", Some("artifacts")),
    (".", "io.kubesolo.os.expires", Some("expires")),
    (".artifacts[0]", "expirse", Some("expires")),
    (".artifacts[1]", "arch", Some("architecture")),
    (".artifacts[0]", "channels", Some("channel")),
    (".", "build", None),
    (".", "$schema", None),
    (".", "date", None),
    (".", "rollout", None),
    (".artifacts[0]", "mirrors", None),
    (".artifacts[0].kernel", "sig", None),
];

struct Desk {
    dir: tempfile::TempDir,
    key: KeyPair,
}

impl Desk {
    fn new() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::p256(dir.path(), "key");
        Desk { dir, key }
    }

    fn home(&self) -> &Path {
        self.dir.path()
    }

    /// Pushes one manifest for this machine, as a publisher does by hand. Input: further options of `oras push`.
    fn push(&self, target: Target, name: &str, more: &[String]) {
        fs::write(self.home().join("vmlinuz"), "kernel").unwrap();
        fs::write(self.home().join("os.gz"), initramfs_of(self.home(), b"initramfs")).unwrap();
        let mut push = oras(self.home());
        push.args(["push", target.flag(), "--artifact-type", "application/vnd.kubesolo.os.update.v1"]);
        push.args(["--artifact-platform", &format!("linux/{}", architecture()), "-a", "io.kubesolo.os.version=2.0.0"]);
        push.args(more).arg(name).arg(format!("vmlinuz:{KERNEL_TYPE}")).arg(format!("os.gz:{INITRAMFS_TYPE}"));
        run(&mut push);
    }

    /// What sign.sh says of it, and whether it would sign.
    fn sign(&self, what: Signed) -> (bool, String) {
        let out = sign_command(&[&self.key], what).arg("--dry-run").output().unwrap();
        (out.status.success(), stderr(&out))
    }
}

fn ours() -> String {
    format!("io.kubesolo.os.architecture={}", architecture())
}

fn options(annotations: &[&str]) -> Vec<String> {
    annotations.iter().flat_map(|a| ["-a".to_owned(), (*a).to_owned()]).collect()
}

fn machine() -> Machine {
    let machine = Machine::new();
    machine.root.configure("signature = off\nretries = 0\n");
    machine
}

/// Lines of the agent's that are remarks.
fn remarks(run: &Run) -> Vec<String> {
    run.stderr.lines().filter(|line| line.contains("counts for nothing")).map(str::to_owned).collect()
}

#[apply(test)]
fn an_annotation_is_noted_by_machines_and_refused_by_the_script() {
    ready();
    let desk = Desk::new();
    let machine = machine();
    let registry = Registry::start(desk.home(), None);
    let (wrong, right): (Vec<_>, Vec<_>) = ANNOTATIONS.into_iter().partition(|(_, meant)| meant.is_some());
    for (n, rows) in wrong.chunks(AT_ONCE).chain([&right[..]]).enumerate() {
        let reference = format!("{}/os:v{n}", registry.host());
        let annotations: Vec<String> = rows.iter().map(|(name, _)| format!("{name}=x")).chain([ours()]).collect();
        desk.push(Target::Registry, &reference, &options(&annotations.iter().map(String::as_str).collect::<Vec<_>>()));
        let run = machine.root.agent(&["check", "--registry", &reference]).expect(0, &["an update is available"]);
        let (is_signed, said) = desk.sign(Signed::Registry(&reference));
        assert_eq!(is_signed, rows == right, "{rows:?}: {said}");
        let by_agent = rows.iter().filter_map(|(name, meant)| {
            let hint = match (*meant)? {
                "" => String::new(),
                meant => format!(" (io.kubesolo.os.{meant} is meant?)"),
            };
            Some(format!("kubesolo-update: the annotation {name} is not known and counts for nothing{hint}"))
        });
        let mut by_agent: Vec<String> = by_agent.collect();
        by_agent.sort();
        let mut noted = remarks(&run);
        noted.sort();
        assert_eq!(noted, by_agent);
        for (name, meant) in rows {
            let words = match meant {
                None => continue,
                Some("") => format!("{name} is not an annotation that machines know\n"),
                Some(meant) => {
                    format!("{name} is not an annotation that machines know: is io.kubesolo.os.{meant} meant?\n")
                }
            };
            assert!(said.contains(&words) && said.contains("will not be signed"), "{words}: {said}");
        }
    }
    // Each time that it is asked for, although nothing has changed; and once where something is applied.
    fs::create_dir_all(machine.root.path("var/lib/kubesolo/update")).unwrap();
    let reference = format!("{}/os:v0", registry.host());
    for _ in 0..2 {
        let run = machine.root.agent(&["check", "--registry", &reference]);
        assert_eq!(remarks(&run).len(), AT_ONCE, "{}", run.stderr);
    }
    let run = machine.apply(&["--registry", &reference]).expect(0, &["is staged"]);
    assert_eq!(remarks(&run).len(), AT_ONCE, "{}", run.stderr);
}

/// However many annotations of other people's there are.
#[apply(test)]
fn a_slip_behind_many_other_names_is_noted_and_refused() {
    ready();
    let desk = Desk::new();
    let machine = machine();
    let foreign = (0..71).map(|n| format!("com.example.k{n}=x"));
    let all: Vec<String> = foreign.chain(["io.kubesolo.os.expire=x".to_owned(), ours()]).collect();
    desk.push(Target::Layout, "layout:v1", &options(&all.iter().map(String::as_str).collect::<Vec<_>>()));
    let layout = desk.home().join("layout");
    let run = machine.root.agent(&["check", "--layout", layout.to_str().unwrap()]).expect(0, &[]);
    assert_eq!(remarks(&run).len(), 1, "{}", run.stderr);
    let (is_signed, said) = desk.sign(Signed::Layout(&format!("{}:v1", layout.display())));
    assert!(!is_signed && said.contains("is io.kubesolo.os.expires meant?"), "{said}");
}

#[apply(test)]
fn what_stands_where_nobody_looks_is_noted_and_refused() {
    ready();
    let desk = Desk::new();
    let machine = machine();
    let layout = desk.home().join("layout");
    desk.push(Target::Layout, "layout:v1", &options(&[&ours()]));
    let v1 = run(oras(desk.home()).args(["resolve", "--oci-layout", "layout:v1"]));
    let index = |annotations: &[&str], tag: &str| {
        let mut create = oras(desk.home());
        create.args(["manifest", "index", "create", "--oci-layout"]);
        create.args(annotations.iter().flat_map(|a| ["--annotation", a])).arg(format!("layout:{tag}"));
        run(create.arg(v1.trim()));
    };
    let path = layout.to_str().unwrap();
    for (n, (annotations, noted, refused)) in [
        (
            &["io.kubesolo.os.expires=2099-01-01T00:00:00Z"][..],
            Some("stands in the index alone"),
            Some("stands in the index"),
        ),
        (&["io.kubesolo.os.expries=x"], Some("is not known"), Some("is not an annotation")),
        // Said again, it is the same; said otherwise, it is not, which only the script has to see.
        (&["io.kubesolo.os.version=2.0.0"], None, None),
        (&["io.kubesolo.os.version=2.0.1"], None, Some("stands in the index")),
        (&["org.opencontainers.image.title=x"], None, None),
    ]
    .into_iter()
    .enumerate()
    {
        let tag = format!("index-{n}");
        index(annotations, &tag);
        let run = machine.root.agent(&["check", "--layout", path, "--tag", &tag]).expect(0, &[]);
        let said = remarks(&run);
        assert_eq!(said.len(), usize::from(noted.is_some()), "{annotations:?}: {}", run.stderr);
        assert!(noted.is_none_or(|words| said[0].contains(words)), "{said:?}");
        let (is_signed, said) = desk.sign(Signed::Layout(&format!("{path}:{tag}")));
        assert_eq!(is_signed, refused.is_none(), "{annotations:?}: {said}");
        assert!(refused.is_none_or(|words| said.contains(words)), "{said}");
    }
    // What is there, and empty: a channel of no name is no machine's.
    for name in ["channel", "expires", "release_date", "min_compatible_version", "release_notes"] {
        let empty = format!("io.kubesolo.os.{name}=");
        desk.push(Target::Layout, "layout:empty", &options(&[&ours(), &empty]));
        let (is_signed, said) = desk.sign(Signed::Layout(&format!("{path}:empty")));
        let words = if ["expires", "release_date"].contains(&name) { "is ''" } else { "is empty: give it a value" };
        assert!(!is_signed && said.contains(&format!("io.kubesolo.os.{name} {words}")), "{said}");
    }
    // At a layer, and in the index's entry.
    let text = fs::read_to_string(blob_path(&layout, v1.trim())).unwrap();
    let spoilt = jq(&text, ".layers[0].annotations[\"io.kubesolo.os.expires\"] = \"2099-01-01T00:00:00Z\"");
    fs::write(blob_path(&layout, &digest(&spoilt)), &spoilt).unwrap();
    let reference = format!("{path}@{}", digest(&spoilt));
    let (is_signed, said) = desk.sign(Signed::Layout(&reference));
    assert!(!is_signed && said.contains("io.kubesolo.os.expires stands at a layer"), "{said}");
    let top = run(oras(desk.home()).args(["manifest", "fetch", "--oci-layout", "layout:index-2"]));
    let spoilt = jq(&top, ".manifests[0].annotations = {\"io.kubesolo.os.expires\": \"2099-01-01T00:00:00Z\"}");
    assert!(spoilt.contains(INDEX_TYPE));
    fs::write(blob_path(&layout, &digest(&spoilt)), &spoilt).unwrap();
    let (is_signed, said) = desk.sign(Signed::Layout(&format!("{path}@{}", digest(&spoilt))));
    assert!(!is_signed && said.contains("io.kubesolo.os.expires stands in the index"), "{said}");
}

#[apply(test)]
fn an_architecture_that_is_missing_or_written_otherwise_is_named() {
    ready();
    let desk = Desk::new();
    let machine = machine();
    let hint = "write amd64 or arm64";
    let missing = "annotation io.kubesolo.os.architecture (in latest.json: architecture) is missing";
    for (n, (said, words)) in [
        ("", &[missing][..]),
        ("x86_64", &["artifact is for x86_64, this machine is", hint]),
        ("aarch64", &["artifact is for aarch64, this machine is", hint]),
        ("AMD64", &["artifact is for AMD64, this machine is", hint]),
        ("linux/arm64", &["artifact is for linux/arm64, this machine is", hint]),
        ("riscv64", &["artifact is for riscv64, this machine is"]),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("layout:v{n}");
        let annotation = format!("io.kubesolo.os.architecture={said}");
        let annotations = if said.is_empty() { vec![] } else { options(&[&annotation]) };
        desk.push(Target::Layout, &name, &annotations);
        let layout = desk.home().join("layout");
        let args = ["check", "--layout", layout.to_str().unwrap(), "--tag", &format!("v{n}")];
        let run = machine.root.agent(&args).expect(4, words);
        assert_eq!(run.stderr.contains(hint) || run.stdout.contains(hint), words.contains(&hint), "{said}");
        let (is_signed, why) = desk.sign(Signed::Layout(&format!("{}:v{n}", layout.display())));
        assert_eq!(is_signed, said.is_empty(), "{said}: {why}");
        assert!(said.is_empty() || why.contains(&format!("its architecture is {said}, which")), "{why}");
        assert!(
            !said.is_empty() || why.contains("warning: ") && why.contains("no io.kubesolo.os.architecture"),
            "{why}"
        );
    }
}

#[apply(test)]
fn a_field_of_latest_json_is_noted_by_machines_and_refused_by_the_script() {
    ready();
    let desk = Desk::new();
    let machine = machine();
    let release = Release::new("2.0.0");
    let file = desk.home().join("latest.json");
    for (place, name, meant) in FIELDS {
        eprintln!("{place} {name}");
        let document = jq(&release.latest_json(), &format!("{place} |= (.[\"{name}\"] = \"x\")"));
        assert!(document.contains(name), "{document}");
        fs::write(&file, &document).unwrap();
        let served = document.clone();
        let web = Web::start(move |path| match path {
            "/latest.json" => Answer::ok(served.clone()),
            _ => Answer::status(404),
        });
        let run = machine.root.agent(&["check", "--server", &web.url("")]).expect(0, &["an update is available"]);
        let (is_signed, said) = desk.sign(Signed::Latest(&file));
        let by_agent: Vec<String> = meant
            .map(|meant| {
                let why = format!("the field '{name}' of latest.json is not known and counts for nothing");
                format!("kubesolo-update: {why} ('{meant}' is meant?)")
            })
            .into_iter()
            .collect();
        assert_eq!(remarks(&run), by_agent, "{name}");
        assert_eq!(is_signed, meant.is_none(), "{name}: {said}");
        let words = meant.map(|meant| format!("{name} is not a field that machines know: is {meant} meant?\n"));
        assert!(words.is_none_or(|words| said.contains(&words)), "{name}: {said}");
    }
    for place in [".channel", ".artifacts[0].min_compatible_version", ".artifacts[1].release_notes"] {
        fs::write(&file, jq(&release.latest_json(), &format!("{place} = \"\""))).unwrap();
        let (is_signed, said) = desk.sign(Signed::Latest(&file));
        let name = place.rsplit('.').next().unwrap();
        assert!(!is_signed && said.contains(&format!("{name} is empty: give it a value")), "{said}");
    }
    let odd = jq(&release.latest_json(), ".artifacts[1].architecture = \"x86_64\"");
    fs::write(&file, odd).unwrap();
    let (is_signed, said) = desk.sign(Signed::Latest(&file));
    assert!(!is_signed && said.contains("write amd64 or arm64"), "{said}");
}
