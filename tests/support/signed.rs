//! Signed releases: on paper, for scripted registries and layouts whose files nobody downloads; and in real registries,
//! with keys of several people, for the matrix of who may have signed what.

use super::disk::{architecture, initramfs_of, noise, other_architecture};
use super::ferro::Ferro;
use super::listener::Request;
use super::machine::Machine;
use super::pull::put;
use super::registry::{INITRAMFS_TYPE, KERNEL_TYPE, Registry, oras};
use super::release::{Release, Target};
use super::root::jq;
use super::run;
use super::signing::{BUNDLE_TYPE, Forge, KeyPair, attach, cosign};
use super::web::Answer;
use kubesolo_update::parts::base::digest::Digest;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// `sha256:HEX`
pub fn digest(bytes: impl AsRef<[u8]>) -> String {
    Digest::of(bytes.as_ref()).to_string()
}

/// A descriptor. Input: `more`: further members, each after a comma.
pub fn descriptor(media_type: &str, bytes: impl AsRef<[u8]>, more: &str) -> String {
    let bytes = bytes.as_ref();
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}{more}}}"#, digest(bytes), bytes.len())
}

/// An image index of these descriptors.
pub fn list(descriptors: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":[{}]}}"#, descriptors.join(","))
}

/// A release for one architecture.
pub fn manifest(architecture: &str, version: &str) -> String {
    let config = descriptor(EMPTY_TYPE, "{}", "");
    let kernel = descriptor(KERNEL_TYPE, format!("kernel {architecture} {version}"), "");
    let initramfs = descriptor(INITRAMFS_TYPE, format!("initramfs {architecture} {version}"), "");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{config},"layers":[{kernel},{initramfs}],"annotations":{{"io.kubesolo.os.version":"{version}","io.kubesolo.os.channel":"stable","io.kubesolo.os.architecture":"{architecture}","io.kubesolo.os.release_date":"2026-02-01T00:00:00Z"}}}}"#
    )
}

/// The index that leads to a manifest for this machine.
pub fn index_of(manifest: &str) -> String {
    let platform = format!(r#","platform":{{"os":"linux","architecture":"{}"}}"#, architecture());
    list(&[descriptor(MANIFEST_TYPE, manifest, &platform)])
}

/// The manifest around a bundle. Input: `subject`: a descriptor.
pub fn referrer(subject: &str, bundle: &[u8]) -> String {
    let layer = descriptor(BUNDLE_TYPE, bundle, "");
    let config = descriptor(EMPTY_TYPE, "{}", "");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","artifactType":"{BUNDLE_TYPE}","config":{config},"layers":[{layer}],"subject":{subject},"annotations":{{"org.opencontainers.image.created":"2026-01-01T00:00:00Z"}}}}"#
    )
}

/// The entry of a list for a manifest around a bundle.
pub fn listed(referrer: &str) -> String {
    descriptor(MANIFEST_TYPE, referrer, &format!(r#","artifactType":"{BUNDLE_TYPE}""#))
}

/// Every way to flip one bit. Input of `visit`: which byte, and the bytes.
pub fn each_flip(bytes: &[u8], mut visit: impl FnMut(usize, &[u8])) {
    let mut flipped = bytes.to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            flipped[at] ^= 1 << bit;
            visit(at, &flipped);
            flipped[at] ^= 1 << bit;
        }
    }
    assert!(flipped == bytes);
}

/// Writes a blob into a layout. Returns: its digest.
pub fn put_blob(layout: &Path, bytes: impl AsRef<[u8]>) -> String {
    let name = digest(&bytes);
    fs::write(blob_path(layout, &name), bytes).unwrap();
    name
}

/// Where a layout keeps a blob.
pub fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").expect("a digest"))
}

/// What a scripted registry holds, by digest and by tag.
#[derive(Clone, Default)]
pub struct Shelf {
    things: BTreeMap<String, Vec<u8>>,
}

impl Shelf {
    /// Puts something on it under its digest. Returns: that.
    pub fn put(&mut self, bytes: impl AsRef<[u8]>) -> String {
        let name = digest(&bytes);
        self.name(&name, bytes);
        name
    }

    /// Puts something on it under any name: a tag, or a digest that is not its own.
    pub fn name(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        self.things.insert(name.to_owned(), bytes.as_ref().to_vec());
    }

    /// Puts a bundle and the manifest around it there. Returns: the entry of the list.
    pub fn attach(&mut self, subject: &str, bundle: &str) -> String {
        self.put(bundle);
        let referrer = referrer(subject, bundle.as_bytes());
        self.put(&referrer);
        listed(&referrer)
    }

    /// Everything on it that is text like this.
    pub fn find(&self, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        let texts = self.things.values().filter_map(|bytes| String::from_utf8(bytes.clone()).ok());
        texts.filter(|text| is_it(text)).collect()
    }

    /// Answers for a manifest or a blob; 404 for what is not there.
    pub fn answer(&self, request: &Request) -> Answer {
        let path = request.target.split('?').next().unwrap_or_default();
        let Some(bytes) = path.rsplit('/').next().and_then(|name| self.things.get(name)) else {
            return Answer::status(404);
        };
        let kind = match path.contains("/blobs/") {
            true => "application/octet-stream",
            false if bytes.windows(13).any(|w| w == b"\"manifests\":[") => INDEX_TYPE,
            false => MANIFEST_TYPE,
        };
        Answer::ok(bytes.clone()).header("Content-Type", kind).header("Docker-Content-Digest", &digest(bytes))
    }
}

/// Whose key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// P-256, as cosign users have it.
    Right,
    /// Ed25519.
    Second,
    /// P-256.
    Third,
    /// P-256, installed nowhere.
    Stranger,
}

/// What a signature is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Index,
    Ours,
    Theirs,
}
use On::{Index, Ours, Theirs};

/// A matrix's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// ferro-oci-server.
    ReferrersApi,
    /// docker-registry.
    TagFallback,
    /// What `oras cp -r` makes of the latter's.
    Layout,
    /// A tar of that.
    Tar,
}

/// Registries, keys, and a release that every row has a copy of.
pub struct World {
    pub dir: TempDir,
    pub column: Column,
    pub host: String,
    pub keys: [KeyPair; 4],
    pub manifests: [String; 2],
    pub servers: (Option<Registry>, Option<Ferro>),
}

impl World {
    pub fn new(column: Column) -> World {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path();
        let keys = [
            KeyPair::p256(home, "right"),
            KeyPair::ed25519(home, "second"),
            KeyPair::p256(home, "third"),
            KeyPair::p256(home, "stranger"),
        ];
        for key in &keys {
            let name = key.private.file_stem().unwrap().to_str().unwrap();
            let prefix = format!("cosign-{name}");
            let mut import = cosign(home);
            import.args(["import-key-pair", "--yes", "--output-key-prefix", &prefix, "--key"]);
            run(import.arg(&key.private));
        }
        run(cosign(home).args(["signing-config", "create", "--out", "config.json"]));
        let servers = match column {
            Column::ReferrersApi => (None, Some(Ferro::start(home))),
            _ => (Some(Registry::start(home, None)), None),
        };
        let host = servers.0.as_ref().map_or_else(|| servers.1.as_ref().unwrap().host(), Registry::host);
        let repository = format!("{host}/os");
        small(&release()).publish(home, Target::Registry, &repository, "template");
        let manifests = [architecture(), other_architecture()].map(|architecture| {
            let name = format!("{repository}:template-{architecture}");
            run(oras(home).args(["manifest", "fetch", "--plain-http", &name]))
        });
        World { dir, column, host, keys, manifests, servers }
    }

    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    pub fn repository(&self) -> String {
        format!("{}/os", self.host)
    }

    pub fn key(&self, who: Who) -> &KeyPair {
        &self.keys[who as usize]
    }

    pub fn fingerprints(&self, who: &[Who]) -> Vec<String> {
        who.iter().map(|who| self.key(*who).fingerprint()).collect()
    }

    /// A release of its own for a row, under a tag of its own.
    pub fn publish(&self, tag: &str) -> Scene<'_> {
        let note = format!(r#""io.kubesolo.os.channel":"stable","io.kubesolo.os.release_notes":"{tag}""#);
        let manifests = self.manifests.each_ref().map(|text| {
            let text = jq(text, ".");
            assert!(text.contains(r#""io.kubesolo.os.channel":"stable""#), "{text}");
            text.replace(r#""io.kubesolo.os.channel":"stable""#, &note)
        });
        let platform = |name: &str| format!(r#","platform":{{"os":"linux","architecture":"{name}"}}"#);
        let [ours, theirs] = manifests;
        let index = list(&[
            descriptor(MANIFEST_TYPE, &ours, &platform(architecture())),
            descriptor(MANIFEST_TYPE, &theirs, &platform(other_architecture())),
        ]);
        self.push(&ours, MANIFEST_TYPE, &digest(&ours));
        self.push(&theirs, MANIFEST_TYPE, &digest(&theirs));
        self.push(&index, INDEX_TYPE, tag);
        let digests = [&index, &ours, &theirs].map(digest);
        Scene { world: self, tag: tag.into(), index, digests, attached: RefCell::default() }
    }

    /// Puts a manifest or an index under a tag, or under its digest.
    pub fn push(&self, text: &str, media_type: &str, name: &str) {
        let file = self.home().join("push.json");
        fs::write(&file, text).unwrap();
        let at = if name.starts_with("sha256:") { '@' } else { ':' };
        let mut push = oras(self.home());
        push.args(["manifest", "push", "--plain-http", "--media-type", media_type]);
        run(push.arg(format!("{}{at}{name}", self.repository())).arg(&file));
    }
}

pub fn release() -> Release {
    Release::new("2.0.0")
}

/// The same with files that are copied in no time.
pub fn small(release: &Release) -> Release {
    let mut release = release.clone();
    for (pair, seed) in release.pairs.iter_mut().zip(1..) {
        pair.kernel = noise(seed, 30_007);
        pair.initramfs = initramfs_of(tempfile::tempdir().unwrap().path(), &noise(seed + 9, 20_003));
    }
    release
}

/// One row's release, being signed.
pub struct Scene<'a> {
    pub world: &'a World,
    pub tag: String,
    pub index: String,
    pub digests: [String; 3],
    pub attached: RefCell<Vec<On>>,
}

impl<'a> Scene<'a> {
    pub fn digest(&self, on: On) -> &str {
        &self.digests[on as usize]
    }

    pub fn reference(&self, on: On) -> String {
        format!("{}@{}", self.world.repository(), self.digest(on))
    }

    /// A good bundle, to be spoilt.
    pub fn forge(&self, of: On, who: &[Who]) -> Forge<'a> {
        let keys: Vec<&KeyPair> = who.iter().map(|who| self.world.key(*who)).collect();
        Forge::new(self.digest(of), &keys)
    }

    pub fn attach(&self, on: On, bundle: impl AsRef<[u8]>) {
        attach(self.world.home(), Target::Registry, &self.reference(on), bundle.as_ref());
        self.attached.borrow_mut().push(on);
    }

    /// Signs with a real cosign.
    pub fn cosign(&self, on: On, who: Who) {
        let name = self.world.key(who).private.file_stem().unwrap().to_str().unwrap();
        let mut sign = cosign(self.world.home());
        sign.args(["sign", "--yes", "--key", &format!("cosign-{name}.key"), "--signing-config", "config.json"]);
        run(sign.args(["--allow-http-registry", &self.reference(on)]));
        self.attached.borrow_mut().push(on);
    }

    /// Holds that all that was attached is listed, as a real oras finds it. Input: where: a repository, or a layout.
    pub fn is_listed(&self, flag: &str, place: &str) {
        for on in [Index, Ours, Theirs] {
            let count = self.attached.borrow().iter().filter(|other| **other == on).count();
            if count > 0 {
                let mut discover = oras(self.world.home());
                discover.args(["discover", flag, "--format", "json", "--depth", "1"]);
                let found = run(discover.arg(format!("{place}@{}", self.digest(on))));
                assert_eq!(jq(&found, ".referrers | length"), count.to_string(), "{on:?} of {}: {place}", self.tag);
            }
        }
    }

    /// What the agent is pointed at, as it is told.
    pub fn source(&self) -> [String; 2] {
        self.is_listed("--plain-http", &self.world.repository());
        match self.world.column {
            Column::ReferrersApi | Column::TagFallback => {
                ["--registry".into(), format!("{}:{}", self.world.repository(), self.tag)]
            }
            Column::Layout => ["--layout".into(), self.layout().display().to_string()],
            Column::Tar => {
                let tar = self.world.home().join(format!("{}.tar", self.tag));
                run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(self.layout()).arg("."));
                ["--layout".into(), tar.display().to_string()]
            }
        }
    }

    pub fn layout(&self) -> PathBuf {
        let layout = self.world.home().join(&self.tag);
        let copy = |from: &str, to: &str| {
            let mut copy = oras(self.world.home());
            copy.args(["cp", "-r", "--from-plain-http", "--to-oci-layout", from]);
            run(copy.arg(format!("{}{to}", layout.display())));
        };
        copy(&format!("{}:{}", self.world.repository(), self.tag), ":latest");
        for on in [Ours, Theirs] {
            if self.attached.borrow().contains(&on) {
                copy(&self.reference(on), &format!("@{}", self.digest(on)));
            }
        }
        self.is_listed("--oci-layout", layout.to_str().unwrap());
        layout
    }
}

/// What a machine trusts.
#[derive(Clone, Copy)]
pub struct Trust {
    pub installed: &'static [Who],
    pub revoked: &'static [Who],
    pub threshold: usize,
}

/// Makes a machine trust these keys.
pub fn install(machine: &Machine, world: &World, trust: Trust) {
    let dir = machine.root.path("etc/kubesolo/update-keys.d");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("revoked")).unwrap();
    for who in trust.installed {
        put(machine, &format!("update-keys.d/{who:?}.pub"), world.key(*who).pem(), 0o644);
    }
    let list = world.fingerprints(trust.revoked).join(" # lost\n");
    put(machine, "update-keys.d/revoked/list", format!("# keys\n{list}\n"), 0o644);
}

pub fn configure(machine: &Machine, threshold: usize) {
    machine.root.configure(&format!("retries = 0\nsignature_threshold = {threshold}\n"));
}
