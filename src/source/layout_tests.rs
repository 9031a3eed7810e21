//! Tests of `layout.rs` on handwritten layouts; real ones are in `tests/registry/sources.rs`.

use super::*;
use crate::oci::initramfs::INITRAMFS_TYPE;
use crate::oci::manifest::KERNEL_TYPE;
use crate::source::choose::SHORT_DIGEST;
use crate::trust::keyring::SignaturePolicy;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;
use tempfile::TempDir;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A layout with one manifest under each of the given tags; no tag where it is empty.
/// A machine without keys that has chosen to accept unsigned artifacts.
fn unsigned() -> Keyring {
    Keyring::load(Path::new("/nonexistent"), SignaturePolicy::Off, 1).unwrap()
}

struct Fixture {
    dir: TempDir,
    manifest: Digest,
}

impl Fixture {
    fn new(tags: &[&str]) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let mut fixture = Fixture { dir, manifest: Digest::of(b"") };
        let layer = |t: &str, bytes: &[u8]| {
            format!(r#"{{"mediaType":"{t}","digest":"{}","size":{}}}"#, fixture.put(bytes), bytes.len())
        };
        let layers = [layer(KERNEL_TYPE, b"kernel"), layer(INITRAMFS_TYPE, b"initramfs")].join(",");
        let text = format!(
            r#"{{"schemaVersion":2,"layers":[{layers}],"annotations":{{"io.kubesolo.os.version":"1.2.0","io.kubesolo.os.architecture":"amd64"}}}}"#
        );
        fixture.manifest = fixture.put(text.as_bytes());
        let entry = |tag: &&str| {
            let size = text.len();
            let annotations = match tag.is_empty() {
                true => String::new(),
                false => format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}"#),
            };
            format!(r#"{{"mediaType":"{MANIFEST_TYPE}","digest":"{}","size":{size}{annotations}}}"#, fixture.manifest)
        };
        let entries = tags.iter().map(entry).collect::<Vec<_>>().join(",");
        fs::write(fixture.path("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.path("blobs/sha256").join(digest.hex())
    }

    fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        fs::write(self.blob(digest), bytes).unwrap();
        digest
    }

    fn source(&self, tag: Option<&str>) -> Layout {
        Layout::new(self.dir.path().to_owned(), tag.map(str::to_owned), false, unsigned())
    }

    fn fails(&self, kind: Kind, word: &str) {
        let e = self.source(None).resolve("amd64").unwrap_err();
        assert!(e.kind() == kind && e.to_string().contains(word), "{word}: {e}");
    }
}

#[test]
fn reads_and_opens_an_artifact() {
    let fixture = Fixture::new(&["v1"]);
    let mut source = fixture.source(None);
    let a = source.resolve("amd64").unwrap();
    assert_eq!(
        (a.release.version.as_str(), a.release.architecture.as_deref(), a.digest),
        ("1.2.0", Some("amd64"), fixture.manifest)
    );
    let mut text = String::new();
    source
        .open(&a.initramfs, 0..a.initramfs.size_bytes, Instant::now())
        .unwrap()
        .reader
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "initramfs");
}

#[test]
fn finds_the_tag() {
    for (tags, tag, ok) in [
        (&["v1", "v2"][..], Some("v2"), Ok(())),
        (&["v1", "latest"], None, Ok(())),
        (&["v1"], None, Ok(())),
        (&["v1", ""], None, Ok(())),
        (&[""], None, Ok(())),
        (&["v1", "v1"], Some("v1"), Ok(())),
        (&["v1"], Some("v2"), Err("no tag 'v2' here; it has: v1 (choose one with --tag, or `tag` in update.conf)")),
        (&["v1"], Some("latest"), Err("no tag 'latest'")),
        (&["v2", "v1"], None, Err("it has: v1, v2 (choose one with --tag, or `tag` in update.conf)")),
        (&["", ""], None, Err("it has no tags")),
        (&[], None, Err("the layout is empty")),
    ] {
        let got = Fixture::new(tags).source(tag).resolve("amd64");
        match ok {
            Ok(()) => assert!(got.is_ok(), "{tags:?} {tag:?}"),
            Err(word) => assert!(got.unwrap_err().to_string().contains(word), "{tags:?} {tag:?}"),
        }
    }
    // By its digest, or by the part of it that operators are shown.
    let fixture = Fixture::new(&["", ""]);
    let index = fs::read_to_string(fixture.path("index.json")).unwrap();
    let digest = index.split('"').find(|word| word.starts_with("sha256:")).unwrap().to_owned();
    let is_told = |tag: &str| fixture.source(Some(tag)).resolve("amd64").map(|_| ()).map_err(|e| e.to_string());
    assert_eq!(is_told(&digest), Ok(()));
    assert_eq!(is_told(&digest[..SHORT_DIGEST]), Ok(()));
    for (tag, words) in [
        (&digest[..SHORT_DIGEST - 1], "64 lower-case hex digits"),
        ("sha256:", "64 lower-case hex digits"),
        ("sha256:000000000000", "no entry sha256:000000000000 here; it has no tags"),
        ("sha512:000000000000", "digest"),
        (&digest.to_uppercase(), "digest"),
    ] {
        let told = is_told(tag).unwrap_err();
        assert!(told.contains(words), "{tag}: {told}");
    }
    // Signatures, and lists of them, cannot be chosen.
    for tag in ["v1", ""] {
        let fixture = Fixture::new(&[tag]);
        let index = fs::read_to_string(fixture.path("index.json")).unwrap();
        let digest = Digest::of(b"bundle");
        let kind = crate::trust::bundle::MEDIA_TYPE;
        let list = format!(r#""annotations":{{"org.opencontainers.image.ref.name":"{}"}}"#, referrers::tag(digest));
        for more in [format!(r#""artifactType":"{kind}""#), list] {
            let entry = format!(r#",{{"mediaType":"{MANIFEST_TYPE}","digest":"{digest}","size":9,{more}}}]"#);
            fs::write(fixture.path("index.json"), index.replace(']', &entry)).unwrap();
            assert!(fixture.source(None).resolve("amd64").is_ok(), "{entry}");
        }
    }
    let fixture = Fixture::new(&["v1", "v1"]);
    let index = fs::read_to_string(fixture.path("index.json")).unwrap();
    let other = index.replacen(&fixture.manifest.hex(), &"0".repeat(64), 1);
    fs::write(fixture.path("index.json"), other).unwrap();
    fixture.fails(Kind::Source, "more than one entry");
}

#[test]
fn refuses_a_layout_that_is_none() {
    let cases: [(&str, Option<&str>, &str); 8] = [
        ("oci-layout", None, "is this the directory"),
        ("oci-layout", Some("{}"), "'imageLayoutVersion' is missing"),
        ("oci-layout", Some(r#"{"imageLayoutVersion":"2.0.0"}"#), "'2.0.0'"),
        ("oci-layout", Some("x"), "not valid JSON"),
        ("index.json", None, "index.json"),
        ("index.json", Some("{"), "not valid JSON"),
        ("index.json", Some(r#"{"schemaVersion":2,"layers":[]}"#), "'manifests' is missing"),
        ("blobs", None, "blobs"),
    ];
    for (name, content, word) in cases {
        let fixture = Fixture::new(&["v1"]);
        let path = fixture.path(name);
        match content {
            Some(text) => fs::write(&path, text).unwrap(),
            None if path.is_dir() => fs::remove_dir_all(&path).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        fixture.fails(Kind::Source, word);
    }
}

#[test]
fn every_truncated_index_is_an_error() {
    let fixture = Fixture::new(&["v1"]);
    let index = fs::read(fixture.path("index.json")).unwrap();
    for cut in 0..index.len() {
        fs::write(fixture.path("index.json"), &index[..cut]).unwrap();
        fixture.fails(Kind::Source, "index.json");
    }
}

#[test]
fn damaged_documents_and_files_are_seen() {
    let fixture = Fixture::new(&["v1"]);
    let path = fixture.blob(fixture.manifest);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    fs::write(&path, &flipped).unwrap();
    fixture.fails(Kind::Digest, "hashes to");
    fs::write(&path, &good[1..]).unwrap();
    fixture.fails(Kind::Digest, "bytes, its descriptor says");
    fs::remove_file(&path).unwrap();
    fixture.fails(Kind::Source, "No such file");
    fs::write(&path, &good).unwrap();
    let mut source = fixture.source(None);
    let a = source.resolve("amd64").unwrap();
    fs::write(fixture.blob(a.kernel.sha256), "kernel+").unwrap();
    assert_eq!(source.open(&a.kernel, 0..a.kernel.size_bytes, Instant::now()).err().unwrap().kind(), Kind::Digest);
    assert_eq!(source.probe(&a.kernel).err().unwrap().kind(), Kind::Digest);
    source.probe(&a.initramfs).unwrap();
    fs::remove_file(fixture.blob(a.initramfs.sha256)).unwrap();
    let e = source.probe(&a.initramfs).err().unwrap();
    assert!(e.kind() == Kind::Source && e.to_string().contains("No such file"), "{e}");
}

#[test]
fn follows_no_link_and_waits_for_no_pipe() {
    for name in ["index.json", "oci-layout", "blobs", "blobs/sha256", "manifest"] {
        let fixture = Fixture::new(&["v1"]);
        let path = match name {
            "manifest" => fixture.blob(fixture.manifest),
            name => fixture.path(name),
        };
        let aside = fixture.path("aside");
        fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        let e = fixture.source(None).resolve("amd64").unwrap_err();
        let word = if name.starts_with("blobs") { "not a directory" } else { "symbolic link" };
        assert!(e.to_string().contains(word), "{name}: {e}");
        if !aside.is_dir() {
            fs::remove_file(&path).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            fixture.fails(Kind::Source, "not a regular file");
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            fixture.fails(Kind::Source, "not a regular file");
        }
    }
}

#[test]
fn documents_are_capped_before_they_are_read() {
    let fixture = Fixture::new(&["v1"]);
    for name in ["index.json", "oci-layout"] {
        let file = OpenOptions::new().write(true).open(fixture.path(name)).unwrap();
        file.set_len(DOCUMENT_CAP + 1).unwrap();
        fixture.fails(Kind::Source, "more than a document may have");
        fs::write(fixture.path("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        if name == "index.json" {
            fs::write(fixture.path(name), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        }
    }
}
