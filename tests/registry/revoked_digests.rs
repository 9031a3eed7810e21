//! A release is refused by any digest that led to it, or that is in it: in a real registry, in a layout that a real oras
//! wrote, and from an HTTP server; before it is staged, and after.

use crate::support::disk::{B, architecture, initramfs_of, need_disks, noise};
use crate::support::machine::Machine;
use crate::support::pull::put;
use crate::support::registry::{INITRAMFS_TYPE, KERNEL_TYPE, Registry, oras};
use crate::support::release::{Release, Target};
use crate::support::root::{Run, jq};
use crate::support::signed::{INDEX_TYPE, MANIFEST_TYPE, descriptor, digest, list, small};
use crate::support::signing::{Forge, KeyPair, attach};
use crate::support::web::{Answer, Web};
use crate::support::{need_all, run};
use kubesolo_update::parts::base::base64;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn ready() {
    need_disks();
    need_all(&["docker-registry", "oras", "openssl"]);
}

/// An index in an index, a manifest in that, an initramfs in two layers; and a signature of the outer index.
struct Chain {
    /// What each is called, and its digest.
    links: Vec<(&'static str, String)>,
    /// What is of the signature: no part of the release, and of no use either once it is revoked.
    signature: Vec<(&'static str, String)>,
}

impl Chain {
    /// Publishes it. Input: `is_marked`: the entries say for which platform they are; `target`: without its tag.
    fn publish(dir: &Path, key: &KeyPair, kind: Target, target: &str, is_marked: bool) -> Chain {
        let files = dir.join("files");
        fs::create_dir_all(&files).unwrap();
        let kernel = noise(9, 50_001);
        let layers = [3, 4].map(|seed| initramfs_of(dir, &noise(seed, 40_003)));
        fs::write(files.join("vmlinuz"), &kernel).unwrap();
        for (layer, name) in layers.iter().zip(["one.gz", "two.gz"]) {
            fs::write(files.join(name), layer).unwrap();
        }
        let mut push = oras(dir);
        push.current_dir(&files).args([
            "push",
            kind.flag(),
            "--artifact-type",
            "application/vnd.kubesolo.os.update.v1",
        ]);
        for (name, value) in [
            ("version", "2.0.0"),
            ("architecture", architecture()),
            ("initramfs_digest", digest(layers.concat()).as_str()),
        ] {
            push.arg("-a").arg(format!("io.kubesolo.os.{name}={value}"));
        }
        push.arg(format!("{target}:manifest")).arg(format!("vmlinuz:{KERNEL_TYPE}"));
        run(push.args(["one.gz", "two.gz"].map(|name| format!("{name}:{INITRAMFS_TYPE}"))));
        let fetch = |what: &str| {
            let mut fetch = oras(dir);
            fetch.args(["manifest", "fetch"]).arg(kind.flag()).arg(format!("{target}{what}"));
            run(&mut fetch)
        };
        let platform = match is_marked {
            true => format!(r#","platform":{{"os":"linux","architecture":"{}"}}"#, architecture()),
            false => String::new(),
        };
        let manifest = fetch(":manifest");
        let inner = list(&[descriptor(MANIFEST_TYPE, &manifest, &platform)]);
        let outer = list(&[descriptor(INDEX_TYPE, &inner, &platform)]);
        for (text, name) in [(&inner, "inner"), (&outer, "v1")] {
            fs::write(dir.join("push.json"), text).unwrap();
            let mut push = oras(dir);
            push.args(["manifest", "push", "--media-type", INDEX_TYPE]).arg(kind.flag());
            run(push.arg(format!("{target}:{name}")).arg(dir.join("push.json")));
        }
        let bundle = Forge::new(&digest(&outer), &[key]).bundle();
        attach(dir, kind, &format!("{target}@{}", digest(&outer)), bundle.as_bytes());
        let mut discover = oras(dir);
        discover.args(["discover", "--format", "json"]).arg(kind.flag()).arg(format!("{target}:v1"));
        let around = jq(&run(&mut discover), ".referrers[0].digest");
        Chain {
            links: vec![
                ("outer index", digest(&outer)),
                ("inner index", digest(&inner)),
                ("manifest", digest(&manifest)),
                ("kernel", digest(&kernel)),
                ("first layer", digest(&layers[0])),
                ("second layer", digest(&layers[1])),
                ("initramfs", digest(layers.concat())),
            ],
            signature: vec![("manifest of the signature", around), ("bundle", digest(&bundle))],
        }
    }
}

struct Bench {
    dir: TempDir,
    key: KeyPair,
    machine: Machine,
    /// Options that name it.
    source: Vec<String>,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::p256(dir.path(), "key");
        let machine = Machine::new();
        fs::create_dir_all(machine.root.path("etc/kubesolo/update-keys.d/revoked")).unwrap();
        put(&machine, "update-keys.d/key.pub", key.pem(), 0o644);
        machine.root.configure("retries = 0\n");
        Bench { dir, key, machine, source: Vec::new() }
    }

    fn agent(&self, command: &str) -> Run {
        let options = ["check", "apply"].contains(&command).then_some(&self.source);
        let args: Vec<&str> = [command].into_iter().chain(options.into_iter().flatten().map(String::as_str)).collect();
        self.machine.root.agent(&args)
    }

    fn revoke(&self, digest: &str) {
        put(&self.machine, "update-keys.d/revoked/list", format!("{digest}\n"), 0o644);
    }

    /// Holds that this is taken while nothing of it is revoked, and refused by each of its digests.
    #[track_caller]
    fn is_refused_by(&self, digests: &[(&str, String)], what: &str) {
        for (name, digest) in digests {
            // What is remembered of this one must not be believed.
            self.revoke("");
            self.agent("check").expect(0, &["2.0.0"]);
            self.revoke(digest);
            println!("{what}, {name}");
            self.agent("check").expect(5, &[digest, "revoked"]);
            self.agent("apply").expect(5, &[digest, "revoked"]);
            assert!(self.machine.disk.bytes(B) == self.machine.target, "{what}, {name}: the slot was written");
        }
        self.revoke("");
    }

    /// The same for what is staged already.
    #[track_caller]
    fn is_refused_in_the_slot_by(&self, digests: &[(&str, String)], what: &str) {
        self.agent("apply").expect(0, &["2.0.0 is staged"]);
        for (name, digest) in digests {
            self.revoke(digest);
            println!("staged: {what}, {name}");
            for command in ["verify", "activate", "apply"] {
                self.agent(command).expect(5, &[digest, "revoked"]);
            }
            assert_eq!(self.machine.root.boot_variables()["active_slot"], "A");
        }
        self.revoke(&digests[0].1.replace("sha256:", "# "));
        self.agent("verify").expect(0, &[]);
        self.agent("activate").expect(0, &["on trial"]);
    }
}

#[apply(test)]
fn every_link_of_a_chain_in_a_layout() {
    ready();
    for is_marked in [true, false] {
        let mut bench = Bench::new();
        let (dir, what) = (bench.dir.path(), format!("a layout, marked: {is_marked}"));
        let layout = dir.join("layout").display().to_string();
        let chain = Chain::publish(dir, &bench.key, Target::Layout, &layout, is_marked);
        bench.source = ["--layout", &layout, "--tag", "v1"].map(String::from).into();
        bench.is_refused_by(&chain.links, &what);
        bench.is_refused_by(&chain.signature, &what);
        bench.is_refused_in_the_slot_by(&chain.links, &what);
    }
}

#[apply(test)]
fn every_link_of_a_chain_in_a_registry() {
    ready();
    let bench = Bench::new();
    let (dir, what) = (bench.dir.path(), "a registry");
    let registry = Registry::start(dir, None);
    let repository = format!("{}/os", registry.host());
    let chain = Chain::publish(dir, &bench.key, Target::Registry, &repository, true);
    bench.machine.root.configure(&format!("registry = {repository}:v1\nretries = 0\n"));
    bench.is_refused_by(&chain.links, what);
    bench.is_refused_by(&chain.signature, what);
    // An agent that did not keep what led to it has asked last.
    let seen = bench.machine.root.path("var/lib/kubesolo/update/seen.json");
    bench.machine.root.agent(&["check"]).expect(0, &["2.0.0"]);
    let text = fs::read_to_string(&seen).unwrap();
    let inner = &chain.links[1].1;
    assert!(text.contains("keyring"), "{text}");
    fs::write(&seen, jq(&text, "del(.keyring)")).unwrap();
    bench.revoke(inner);
    bench.machine.root.agent(&["check"]).expect(5, &[inner, "revoked"]);
    bench.revoke("");
    bench.is_refused_in_the_slot_by(&chain.links, what);
}

#[apply(test)]
fn whatever_a_server_offers_it_by() {
    need_disks();
    need_all(&["openssl"]);
    let bench = Bench::new();
    let release = small(&Release::new("2.0.0"));
    let document = release.latest_json();
    let signature = base64::encode(&bench.key.sign(document.as_bytes()));
    let mut digests = vec![
        ("kernel", digest(&release.ours().kernel)),
        ("initramfs", digest(&release.ours().initramfs)),
        ("latest.json", digest(&document)),
        ("latest.json.sig", digest(&signature)),
    ];
    let web = Web::start(move |path| match path {
        "/latest.json" => Answer::ok(document.clone()),
        "/latest.json.sig" => Answer::ok(signature.clone()),
        _ => release.file(path).map_or(Answer::status(404), Answer::ok),
    });
    bench.machine.root.configure(&format!("server = {}\nretries = 0\n", web.url("")));
    digests.push(("identity", bench.machine.root.agent(&["check", "--json"]).jq(".offered.manifest_digest")));
    bench.is_refused_by(&digests, "a server");
    // A slot keeps who had signed, and no signature.
    digests.retain(|(name, _)| *name != "latest.json.sig");
    bench.is_refused_in_the_slot_by(&digests, "a server");
}
