//! One flipped bit, in every bit of every byte of everything that a signature depends on: in what is signed, in the key and
//! in the signature itself it is refused; anywhere else it makes nothing else accepted.
//!
//! Each flip is tried as damage, and as an attacker makes it: with every digest on the way to it computed anew.

use crate::support::disk::architecture;
use crate::support::signed::{
    INDEX_TYPE, MANIFEST_TYPE, blob_path, descriptor, each_flip, index_of, list, listed, manifest, put_blob, referrer,
};
use crate::support::signing::{Forge, KeyPair, base64};
use crate::support::web::{Answer, Web};
use crate::support::{self, need};
use kubesolo_update::parts::base::error::{Kind, Result};
use kubesolo_update::parts::config::SignaturePolicy;
use kubesolo_update::parts::http::{Client, HttpOptions, PlainHttp};
use kubesolo_update::parts::offer::artifact::Artifact;
use kubesolo_update::parts::os::system::System;
use kubesolo_update::parts::source::spec::{SourceSpec, open_source};
use kubesolo_update::parts::trust::keyring::Keyring;
use kubesolo_update::parts::trust::tally::Tally;
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signed {
    Index,
    Manifest,
}

/// A layout with one signed release, and the key that it is signed with.
struct Bench {
    dir: TempDir,
    client: Client,
    key: KeyPair,
    manifest: String,
    top: String,
    top_type: &'static str,
    bundle: String,
    original: Artifact,
}

impl Bench {
    fn new(make: fn(&std::path::Path, &str) -> KeyPair, signed: Signed) -> Bench {
        // Some 100,000 files are written, one after the other.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let key = make(dir.path(), "key");
        fs::create_dir_all(dir.path().join("layout/blobs/sha256")).unwrap();
        fs::create_dir(dir.path().join("keys")).unwrap();
        fs::write(dir.path().join("keys/key.pub"), key.pem()).unwrap();
        fs::write(dir.path().join("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let manifest = manifest(architecture(), "2.0.0");
        let (top, top_type) = match signed {
            Signed::Index => (index_of(&manifest), INDEX_TYPE),
            Signed::Manifest => (manifest.clone(), MANIFEST_TYPE),
        };
        let bundle = Forge::new(&support::signed::digest(&top), &[&key]).bundle();
        let client = client();
        let layout = dir.path().join("layout");
        for text in [&manifest, &top, &bundle] {
            put_blob(&layout, text);
        }
        let around = referrer(&descriptor(top_type, &top, ""), bundle.as_bytes());
        put_blob(&layout, &around);
        write_index(&layout, &descriptor(top_type, &top, ""), &around);
        let original = resolve(&dir, &client).unwrap();
        assert_eq!(original.signed_by.iter().map(ToString::to_string).collect::<Vec<_>>(), [key.fingerprint()]);
        Bench { dir, client, key, manifest, top, top_type, bundle, original }
    }

    fn layout(&self) -> std::path::PathBuf {
        self.dir.path().join("layout")
    }

    fn resolve(&self) -> Result<Artifact> {
        resolve(&self.dir, &self.client)
    }

    /// Holds that the layout is as it was, and accepted.
    fn is_whole(&self) {
        assert_eq!(self.resolve().unwrap(), self.original);
    }

    /// Replaces a file, looks what comes of it, and puts the old one back.
    fn with_file(&self, path: &std::path::Path, bytes: &[u8]) -> Result<Artifact> {
        let old = fs::read(path).unwrap();
        fs::write(path, bytes).unwrap();
        let result = self.resolve();
        fs::write(path, old).unwrap();
        result
    }

    /// A top document of the attacker's, with the old bundle around which all digests are right.
    fn with_top(&self, top: &[u8]) -> Result<Artifact> {
        let top_descriptor = descriptor(self.top_type, top, "");
        let around = referrer(&top_descriptor, self.bundle.as_bytes());
        self.with_layout(&[top, around.as_bytes()], &top_descriptor, &around)
    }

    /// Does something while the manifest around the right bundle is away: it would be found without being listed.
    fn without_the_right_one<T>(&self, act: impl FnOnce() -> T) -> T {
        let top = descriptor(self.top_type, &self.top, "");
        let path = blob_path(&self.layout(), &support::signed::digest(referrer(&top, self.bundle.as_bytes())));
        let aside = self.dir.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        let result = act();
        fs::rename(aside, path).unwrap();
        result
    }

    /// New blobs, and an `index.json` that leads to them.
    fn with_layout(&self, blobs: &[&[u8]], top: &str, around: &str) -> Result<Artifact> {
        let layout = self.layout();
        let names: Vec<String> = blobs.iter().map(|blob| put_blob(&layout, blob)).collect();
        let index = fs::read(layout.join("index.json")).unwrap();
        write_index(&layout, top, around);
        let result = self.resolve();
        fs::write(layout.join("index.json"), index).unwrap();
        names.iter().for_each(|name| fs::remove_file(blob_path(&layout, name)).unwrap());
        result
    }
}

fn client() -> Client {
    Client::new(HttpOptions { tries: 1, ..HttpOptions::new(&System::new("/nonexistent")) }).unwrap()
}

fn resolve(dir: &TempDir, client: &Client) -> Result<Artifact> {
    let ring = Keyring::load(&dir.path().join("keys"), SignaturePolicy::Required, 1)?;
    let spec = SourceSpec::Layout { path: dir.path().join("layout"), tag: None, is_typed: false };
    open_source(spec, client, ring)?.resolve(architecture())
}

fn write_index(layout: &std::path::Path, top: &str, around: &str) {
    let name = r#","annotations":{"org.opencontainers.image.ref.name":"latest"}}"#;
    let top = format!("{}{name}", top.strip_suffix('}').unwrap());
    fs::write(layout.join("index.json"), list(&[top, listed(around)])).unwrap();
}

type Make = fn(&std::path::Path, &str) -> KeyPair;
const KINDS: [Make; 2] = [KeyPair::p256, KeyPair::ed25519];

/// Runs a test for both kinds of keys at once.
fn for_both(test: impl Fn(Make) + Sync) {
    need("openssl");
    std::thread::scope(|scope| {
        for make in KINDS {
            let test = &test;
            scope.spawn(move || test(make));
        }
    });
}

/// Where a part of a text stands. Panics: not exactly once.
fn place(text: &str, part: &str) -> Range<usize> {
    assert_eq!(text.matches(part).count(), 1, "{part}");
    let from = text.find(part).unwrap();
    from..from + part.len()
}

/// The texts of a bundle that no bit may change in: the payload, and the signature.
fn vital(bundle: &str) -> [Range<usize>; 2] {
    [r#""payload":""#, r#""sig":""#].map(|before| {
        let from = place(bundle, before).end;
        from..from + bundle[from..].find('"').unwrap()
    })
}

#[apply(test)]
fn a_flipped_bit_in_the_public_key_is_refused() {
    for_both(|make| {
        let bench = Bench::new(make, Signed::Manifest);
        let mut kinds = BTreeSet::new();
        let path = bench.dir.path().join("keys/key.pub");
        each_flip(&bench.key.pem(), |at, key| {
            let error = bench.with_file(&path, key).expect_err(&format!("byte {at} of the key"));
            kinds.insert(error.kind().label());
        });
        // Some flips make it no key, others make it another key.
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["config", "signature"]);
        bench.is_whole();
    });
}

#[apply(test)]
fn a_flipped_bit_in_the_manifest_is_refused() {
    for_both(|make| {
        // Signed itself.
        let bench = Bench::new(make, Signed::Manifest);
        let path = blob_path(&bench.layout(), &bench.original.digest.to_string());
        let mut unsigned = 0;
        each_flip(bench.top.as_bytes(), |at, manifest| {
            let error = bench.with_file(&path, manifest).expect_err(&format!("byte {at}, damaged"));
            assert_eq!(error.kind(), Kind::Digest, "byte {at}: {error}");
            let error = bench.with_top(manifest).expect_err(&format!("byte {at}, with new digests"));
            unsigned += usize::from(error.kind() == Kind::Signature);
        });
        assert!(unsigned > 1000, "only {unsigned} flips came as far as the signature");
        bench.is_whole();
    });
}

#[apply(test)]
fn a_flipped_bit_in_a_manifest_below_a_signed_index_is_refused() {
    for_both(|make| {
        let bench = Bench::new(make, Signed::Index);
        let path = blob_path(&bench.layout(), &bench.original.digest.to_string());
        let mut unsigned = 0;
        each_flip(bench.manifest.as_bytes(), |at, manifest| {
            let error = bench.with_file(&path, manifest).expect_err(&format!("byte {at}, damaged"));
            assert_eq!(error.kind(), Kind::Digest, "byte {at}: {error}");
            let Ok(text) = std::str::from_utf8(manifest) else { return };
            let top = index_of(text);
            let top_descriptor = descriptor(INDEX_TYPE, &top, "");
            let around = referrer(&top_descriptor, bench.bundle.as_bytes());
            let blobs = [manifest, top.as_bytes(), around.as_bytes()];
            let error = bench.with_layout(&blobs, &top_descriptor, &around).expect_err("a new index");
            unsigned += usize::from(error.kind() == Kind::Signature);
        });
        assert!(unsigned > 1000, "only {unsigned} flips came as far as the signature");
        bench.is_whole();
    });
}

#[apply(test)]
fn a_flipped_bit_in_the_index_is_refused() {
    for_both(|make| {
        let bench = Bench::new(make, Signed::Index);
        let path = blob_path(&bench.layout(), &bench.original.index_digest.unwrap().to_string());
        let mut unsigned = 0;
        each_flip(bench.top.as_bytes(), |at, index| {
            let error = bench.with_file(&path, index).expect_err(&format!("byte {at}, damaged"));
            assert_eq!(error.kind(), Kind::Digest, "byte {at}: {error}");
            let error = bench.with_top(index).expect_err(&format!("byte {at}, with new digests"));
            unsigned += usize::from(error.kind() == Kind::Signature);
        });
        assert!(unsigned > 100, "only {unsigned} flips came as far as the signature");
        bench.is_whole();
    });
}

#[apply(test)]
fn a_flipped_bit_in_a_bundle_makes_nothing_else_accepted() {
    for_both(|make| {
        let bench = Bench::new(make, Signed::Manifest);
        let subject = descriptor(bench.top_type, &bench.top, "");
        let vital = vital(&bench.bundle);
        assert!(vital[0].len() > 200 && vital[1].len() > 80, "{vital:?}");
        let path = blob_path(&bench.layout(), &support::signed::digest(&bench.bundle));
        let (mut accepted, mut refused) = (0, 0);
        each_flip(bench.bundle.as_bytes(), |at, bundle| {
            bench.with_file(&path, bundle).expect_err(&format!("byte {at}, damaged"));
            let around = referrer(&subject, bundle);
            let resolve = || bench.with_layout(&[bundle, around.as_bytes()], &subject, &around);
            match bench.without_the_right_one(resolve) {
                Ok(artifact) => {
                    assert!(!vital.iter().any(|range| range.contains(&at)), "byte {at}");
                    assert_eq!(artifact, bench.original, "byte {at}");
                    accepted += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Signature, "byte {at}: {error}");
                    refused += 1;
                }
            }
        });
        // The hint is anybody's word, and so is the name of what nobody reads.
        assert!(accepted > 300 && refused > 3000, "{accepted} accepted, {refused} refused");
        bench.is_whole();
    });
}

#[apply(test)]
fn a_flipped_bit_around_a_bundle_makes_nothing_else_accepted() {
    for_both(|make| {
        let bench = Bench::new(make, Signed::Manifest);
        let top = descriptor(bench.top_type, &bench.top, "");
        let around = referrer(&top, bench.bundle.as_bytes());
        let (mut accepted, mut refused) = (0, 0);
        let mut hold = |what: &str, at: usize, result: Result<Artifact>| match result {
            Ok(artifact) => {
                assert_eq!(artifact, bench.original, "{what}: byte {at}");
                accepted += 1;
            }
            Err(_) => refused += 1,
        };
        each_flip(around.as_bytes(), |at, flipped| {
            let entry = listed(&around).replace(&support::signed::digest(&around), &support::signed::digest(flipped));
            let layout = bench.layout();
            let name = put_blob(&layout, flipped);
            let index = fs::read_to_string(layout.join("index.json")).unwrap();
            fs::write(layout.join("index.json"), index.replace(&listed(&around), &entry)).unwrap();
            hold("manifest around the bundle", at, bench.without_the_right_one(|| bench.resolve()));
            fs::write(layout.join("index.json"), index).unwrap();
            fs::remove_file(blob_path(&layout, &name)).unwrap();
        });
        bench.is_whole();
        let path = bench.layout().join("index.json");
        each_flip(&fs::read(&path).unwrap(), |at, flipped| {
            hold("index.json", at, bench.with_file(&path, flipped));
        });
        assert!(accepted > 500 && refused > 3000, "{accepted} accepted, {refused} refused");
        bench.is_whole();
    });
}

fn latest_json() -> String {
    let file = |name: &str| format!(r#"{{"url":"{name}","sha256":"{}","size":9}}"#, "ab".repeat(32));
    format!(
        r#"{{"version":"2.0.0","channel":"stable","architecture":"{}","release_date":"2026-02-01T00:00:00Z","kernel":{},"initramfs":{}}}"#,
        architecture(),
        file("vmlinuz"),
        file("kubesolo-os.gz")
    )
}

#[apply(test)]
fn a_flipped_bit_in_latest_json_or_its_signature_is_refused() {
    for_both(|make| {
        let dir = tempfile::tempdir().unwrap();
        let key = make(dir.path(), "key");
        let document = latest_json();
        let signature = format!("{}\n", base64(&key.sign(document.as_bytes())));
        let ring = Keyring::load(dir.path(), SignaturePolicy::Required, 1).unwrap();
        let tallied = |document: &[u8], signature: &[u8]| {
            let mut tally = Tally::new(&ring);
            tally.take_detached(document, signature);
            tally.finish("it", "sign it")
        };
        // The same over HTTP: what is served is swapped below the source.
        let served = Arc::new(Mutex::new((document.clone().into_bytes(), signature.clone().into_bytes())));
        let answers = served.clone();
        let server = Web::start(move |path| {
            let (document, signature) = answers.lock().unwrap().clone();
            Answer::ok(if path.ends_with(".sig") { signature } else { document })
        });
        let spec = SourceSpec::Http { server: server.url("/"), mirrors: Vec::new(), plain_http: PlainHttp::Auto };
        let mut source = open_source(spec, &client(), ring.clone()).unwrap();
        let mut fetched = |document: &[u8], signature: &[u8]| {
            *served.lock().unwrap() = (document.to_vec(), signature.to_vec());
            source.resolve(architecture())
        };
        let original = fetched(document.as_bytes(), signature.as_bytes()).unwrap();
        assert_eq!(original.signed_by, tallied(document.as_bytes(), signature.as_bytes()).unwrap());
        assert_eq!(original.signed_by.len(), 1);
        let mut hold = |at: usize, document: &[u8], signature: &[u8]| {
            let error = tallied(document, signature).expect_err(&format!("byte {at}"));
            assert_eq!(error.kind(), Kind::Signature, "byte {at}: {error}");
            let error = fetched(document, signature).expect_err(&format!("byte {at}, over HTTP"));
            assert_eq!(error.kind(), Kind::Signature, "byte {at}: {error}");
        };
        each_flip(document.as_bytes(), |at, flipped| hold(at, flipped, signature.as_bytes()));
        each_flip(signature.as_bytes(), |at, flipped| hold(at, document.as_bytes(), flipped));
        assert_eq!(fetched(document.as_bytes(), signature.as_bytes()).unwrap(), original);
    });
}
