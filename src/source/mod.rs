//! Where updates come from: HTTP server, OCI registry, or OCI image layout, behind one small trait.
//!
//! A source describes an artifact and opens its files; it decides nothing (see `gate`) and
//! writes nothing (see `stage`). Must never: hand out a document whose digest was asked for and not checked.

pub mod archive;
mod joined;
pub mod latest;
pub mod layout;
mod magic;
pub mod registry;
mod remarks;
mod signatures;
mod unlisted;

use crate::error::{Error, Kind, Result};
use crate::http::{Body, Client};
use crate::json;
use crate::oci::digest::Digest;
use crate::oci::manifest::{self, Choice, Descriptor, Document, Index, Manifest};
use crate::oci::reference::Reference;
use crate::trust::keyring::Keyring;
use crate::url::Url;
use std::io::Read;
use std::path::PathBuf;

pub use crate::http::PlainHttp;

/// Longest version, in characters.
const MAX_VERSION: usize = 128;
/// Longest text of an artifact that is kept, in bytes; release notes have [`json::MAX_TEXT`].
const MAX_TEXT: usize = 1 << 10;

/// Names one file of an artifact: how long it is, what it must hash to, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// Length in bytes; above 0 and below 2^63.
    pub size_bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: Digest,
    pub(crate) place: Place,
}

impl FileRef {
    /// Lists the blobs that it consists of.
    pub fn blobs(&self) -> Vec<FileRef> {
        match &self.place {
            Place::Blobs(layers) => {
                let blob = |d: &Descriptor| FileRef { size_bytes: d.size_bytes, sha256: d.digest, place: Place::Blob };
                layers.iter().map(blob).collect()
            }
            _ => vec![self.clone()],
        }
    }
}

/// Where a file lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A blob of the source's repository or layout, named by the file's own digest.
    Blob,
    /// Several such blobs, one behind the other.
    Blobs(Vec<Descriptor>),
    /// A URL.
    Url(Url),
    /// It was only heard of, see `seen`.
    Nowhere,
}

/// Describes what a source offers for one architecture. Every text is as the source gave it, so it goes
/// through `text::printable` before it is shown; what is longer than 1 KiB is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Version: 1 to 128 printable ASCII characters without spaces.
    pub version: String,
    /// Channel.
    pub channel: Option<String>,
    /// What the artifact says it is for, in Go's names (amd64, arm64). Not checked against the request.
    pub architecture: Option<String>,
    /// Lowest version that can be updated to this one.
    pub min_compatible_version: Option<String>,
    /// Release notes, possibly with newlines; at most the first 64 KiB of them.
    pub release_notes: Option<String>,
    /// Release date.
    pub release_date: Option<String>,
    /// After this the artifact is not to be installed.
    pub expires: Option<String>,
    /// Identity: the digest of the per-architecture manifest; for HTTP see [`latest::identity`].
    pub digest: Digest,
    /// Digest of the index that led to the manifest, where one did.
    pub index_digest: Option<Digest>,
    /// What else led to it, or is part of it: indexes inside that one, the layers of its initramfs, a `latest.json`.
    pub passed: Vec<Digest>,
    /// Keys whose signatures of it were verified; none where none is demanded.
    pub signed_by: Vec<Digest>,
    /// The source, for people and for records; without secrets.
    pub source: String,
    /// The kernel.
    pub kernel: FileRef,
    /// The initramfs.
    pub initramfs: FileRef,
}

impl Artifact {
    /// Says whether this is only what was heard of it before: then its files can not be opened.
    pub fn is_hearsay(&self) -> bool {
        self.kernel.place == Place::Nowhere
    }

    /// Returns every digest that it may be revoked by.
    pub fn digests(&self) -> Vec<Digest> {
        let mut digests = vec![self.digest, self.kernel.sha256, self.initramfs.sha256];
        digests.extend(self.index_digest);
        digests.extend(&self.passed);
        digests
    }
}

/// A place that updates come from.
pub trait Source {
    /// Finds out what is offered, and proves who signed it. Reads metadata only, never a file. Input: `architecture`:
    /// amd64, arm64. Errors: Signature: not signed by those who must. Gate: nothing here for this architecture. Digest: a document is not what it should
    /// be. Source: a document is malformed. Network: not reachable. Config: no way to ask.
    fn resolve(&mut self, architecture: &str) -> Result<Artifact>;

    /// Asks, in one request, whether what was resolved before is still what is offered.
    /// Input: what [`Source::validator`] returned then. Returns: false where that can not be told: then
    /// [`Source::resolve`] says why.
    fn is_unchanged(&mut self, _validator: &str) -> bool {
        false
    }

    /// Returns what tells whether the answer of [`Source::resolve`] still holds, if there is such a thing.
    fn validator(&self) -> Option<String> {
        None
    }

    /// Opens a file of an artifact that this source resolved. Input: `from`: bytes of it that are there already.
    /// Returns: the rest of it, and at most one byte more; **unverified**: the reader of it checks length and digest.
    /// Errors: as above; Digest: the source announces another length.
    fn open(&mut self, file: &FileRef, from: u64) -> Result<Body>;

    /// Says that what was opened last turned out to be wrong. Returns: whether there is another place to open it from.
    fn doubt(&mut self) -> bool {
        false
    }

    /// Says whether a file can be had, and reads nothing of it: asked before its old copy is given up.
    /// Errors: as [`Source::open`]. A server that can not say is taken to have it.
    fn probe(&mut self, file: &FileRef) -> Result<()>;

    /// Names the source for people, without secrets.
    fn describe(&self) -> String;
}

/// Says which source to use: what configuration and command line come down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// An HTTP server with a `latest.json`.
    Http {
        /// URL of the directory that holds it.
        server: String,
        /// URLs of directories that hold the same, in the order of trying.
        mirrors: Vec<String>,
        /// Where plain HTTP may be used.
        plain_http: PlainHttp,
    },
    /// A repository in an OCI registry.
    Registry {
        /// Which.
        reference: Reference,
        /// Repositories that hold the same, in the order of trying; their tag does not count.
        mirrors: Vec<Reference>,
        /// Where plain HTTP may be used.
        plain_http: PlainHttp,
    },
    /// An OCI image layout on a medium.
    Layout {
        /// Its directory.
        path: PathBuf,
        /// Which entry; needed where several are there and none is `latest`.
        tag: Option<String>,
        /// Whether a person typed it: then it is a fault that nothing is there.
        is_typed: bool,
    },
}

/// Makes the source. Opens no connection and no file. Input: `ring`: who must have signed what it offers.
/// Errors: Config: the server URL is malformed, or plain HTTP is not allowed to it.
pub fn open_source(spec: SourceSpec, client: &Client, ring: Keyring) -> Result<Box<dyn Source>> {
    Ok(match spec {
        SourceSpec::Http { server, mirrors, plain_http } => {
            Box::new(latest::Latest::new(&server, &mirrors, &client.with_plain_http(plain_http), ring)?)
        }
        SourceSpec::Registry { reference, mirrors, plain_http } => {
            let client = client.with_plain_http(plain_http);
            Box::new(registry::Registry::new(reference, &mirrors, plain_http, &client, ring))
        }
        SourceSpec::Layout { path, tag, is_typed } => Box::new(layout::Layout::new(path, tag, is_typed, ring)),
    })
}

/// Refuses a version that could not be shown, compared or kept.
fn check_version(version: Option<String>, field: &str) -> Result<String> {
    let fail = |why: &str| Err(Error::new(Kind::Source, format!("'{field}' {why}")));
    match version {
        None => fail("is missing"),
        Some(v) if v.is_empty() => fail("is empty"),
        Some(v) if v.len() > MAX_VERSION => fail("is longer than 128 characters"),
        Some(v) if !v.bytes().all(|b| b.is_ascii_graphic()) => fail("is not printable ASCII without spaces"),
        Some(v) => Ok(v),
    }
}

/// Fetches a document by descriptor; what it returns has been checked with [`check_bytes`].
type Fetch<'a> = &'a mut dyn FnMut(&Descriptor) -> Result<Vec<u8>>;

/// Holds bytes against the descriptor that led to them. Errors: Digest: another length or digest.
fn check_bytes(bytes: &[u8], want: &Descriptor) -> Result<()> {
    if bytes.len() as u64 != want.size_bytes {
        let (got, want) = (bytes.len(), want.size_bytes);
        return Err(Error::new(Kind::Digest, format!("{got} bytes, where its descriptor says {want}")));
    }
    match Digest::of(bytes) {
        d if d == want.digest => Ok(()),
        d => Err(Error::new(Kind::Digest, format!("hashes to {d}"))),
    }
}

/// Deepest nesting of indexes: one by platform, in one by variant, in one that a tool made around both.
const MAX_INDEXES: usize = 3;
/// Most documents that are read to find one manifest.
const MAX_DOCUMENTS: usize = 16;

/// Follows an index or a manifest to the artifact for one architecture.
/// Input: `document`: parsed from bytes that hash to `digest`; `name`: the source, for people; `ring`: nothing below what it
/// revokes is fetched.
/// Returns: whether the manifest itself says what architecture it is for, as well.
/// Errors: as [`Source::resolve`].
fn follow(
    (document, digest): (Document, Digest),
    architecture: &str,
    name: &str,
    ring: &Keyring,
    fetch: Fetch,
) -> Result<(Artifact, bool)> {
    let index = match document {
        Document::Manifest(m) => return artifact(m, digest, None, None, name),
        Document::Index(index) => index,
    };
    let mut walk =
        Walk { architecture, ring, fetch, left: MAX_DOCUMENTS, others: Vec::new(), chain: Vec::new(), fault: None };
    walk.demand_unrevoked(digest)?;
    match walk.look_into(&index, 1)? {
        Some((found, manifest)) => {
            let (mut artifact, is_stated) = artifact(manifest, found, Some(digest), Some(architecture), name)?;
            artifact.passed.append(&mut walk.chain);
            Ok((artifact, is_stated))
        }
        None => Err(index.nothing_for(architecture, &walk.others, walk.fault.as_ref())),
    }
}

/// The search for one manifest below an index.
struct Walk<'a> {
    architecture: &'a str,
    ring: &'a Keyring,
    fetch: Fetch<'a>,
    /// Documents that may still be read.
    left: usize,
    /// Architectures that manifests turned out to be for.
    others: Vec<String>,
    /// Indexes inside the first one that lead to where it is.
    chain: Vec<Digest>,
    /// Why something was passed over that may have been it.
    fault: Option<Error>,
}

impl Walk<'_> {
    /// Finds the manifest for this architecture. What an index says of it counts; where it says nothing, the
    /// manifest's own annotation does.
    fn look_into(&mut self, index: &Index, depth: usize) -> Result<Option<(Digest, Manifest)>> {
        self.fault = self.fault.take().or_else(|| index.fault().cloned());
        let (candidates, is_marked) = match index.select(self.architecture) {
            Ok(Choice::One(descriptor)) => (vec![descriptor], true),
            Ok(Choice::LookInto(candidates)) => (candidates, false),
            // Of an index inside another: there may be more to look into.
            Err(_) if depth > 1 && !index.offers(self.architecture) => (Vec::new(), false),
            Err(e) => return Err(e),
        };
        for descriptor in candidates {
            // What is revoked and perhaps for others only is judged once it is known to be for this machine.
            if is_marked {
                self.demand_unrevoked(descriptor.digest)?;
            }
            match self.fetch(descriptor)? {
                Document::Index(inner) => {
                    if depth == MAX_INDEXES {
                        let why = format!("more than {MAX_INDEXES} indexes inside one another");
                        return Err(Error::new(Kind::Source, why).at("read", descriptor.digest));
                    }
                    self.chain.push(descriptor.digest);
                    if let Some(found) = self.look_into(&inner, depth + 1)? {
                        return Ok(Some(found));
                    }
                    self.chain.pop();
                }
                Document::Manifest(manifest) => match manifest.architecture() {
                    Some(name) if name != self.architecture && !is_marked => self.others.push(name.to_owned()),
                    None if !is_marked => {}
                    _ => return Ok(Some((descriptor.digest, manifest))),
                },
            }
        }
        Ok(None)
    }

    fn demand_unrevoked(&self, digest: Digest) -> Result<()> {
        self.ring.refuse_revoked(&[digest]).map_err(|e| e.at("follow", format_args!("manifest {digest}")))
    }

    fn fetch(&mut self, descriptor: &Descriptor) -> Result<Document> {
        let name = format!("manifest {}", descriptor.digest);
        let too_many = || Error::new(Kind::Source, format!("more than {MAX_DOCUMENTS} documents to look through"));
        self.left = self.left.checked_sub(1).ok_or_else(|| too_many().at("read", &name))?;
        let mut bytes = (self.fetch)(descriptor)?;
        json::shorten(&mut bytes).map_err(|e| e.at("read", &name))?;
        manifest::parse(&bytes, Some(&descriptor.media_type), &name)
    }
}

/// Turns a manifest into an artifact. Input: `platform`: the architecture that an index gave it.
fn artifact(
    manifest: Manifest,
    digest: Digest,
    index_digest: Option<Digest>,
    platform: Option<&str>,
    name: &str,
) -> Result<(Artifact, bool)> {
    let (meta, kernel, initramfs) = manifest.into_parts()?;
    let is_stated = meta.architecture.is_some();
    let version = check_version(meta.version, "io.kubesolo.os.version")
        .map_err(|e| e.at("read", format_args!("manifest {digest}")))?;
    let kernel = FileRef { size_bytes: kernel.size_bytes, sha256: kernel.digest, place: Place::Blob };
    let (place, passed) = match initramfs.layers.len() {
        1 => (Place::Blob, Vec::new()),
        _ => {
            let digests = initramfs.layers.iter().map(|layer| layer.digest).collect();
            (Place::Blobs(initramfs.layers), digests)
        }
    };
    let initramfs = FileRef { size_bytes: initramfs.size_bytes, sha256: initramfs.digest, place };
    let artifact = Artifact {
        version,
        channel: meta.channel.map(kept),
        architecture: meta.architecture.or(platform.map(str::to_owned)).map(kept),
        min_compatible_version: meta.min_compatible_version.map(kept),
        release_notes: meta.release_notes,
        release_date: meta.release_date.map(kept),
        expires: meta.expires.map(kept),
        digest,
        index_digest,
        passed,
        signed_by: Vec::new(),
        source: name.to_owned(),
        kernel,
        initramfs,
    };
    Ok((artifact, is_stated))
}

/// Holds the length that a source announces, if it does, against what was said of a file.
/// Input: `said`: who announces it, and what said it before. Errors: Digest: another one.
fn check_length(announced: Option<u64>, file: &FileRef, said: (&str, &str)) -> Result<()> {
    match announced {
        Some(n) if n != file.size_bytes => {
            let ((who, what), size) = (said, file.size_bytes);
            Err(Error::new(Kind::Digest, format!("{who} sends {n} bytes, {what} says {size}")))
        }
        _ => Ok(()),
    }
}

/// Cuts a text to what is kept of it.
fn kept(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().take(MAX_TEXT + 1).find(|(at, c)| at + c.len_utf8() > MAX_TEXT) {
        text.truncate(end);
    }
    text.shrink_to_fit();
    text
}

/// Bounds what comes from `from` on to one byte more than the file has, so that too much is seen and not endured.
fn bounded(body: Body, size_bytes: u64, from: u64) -> Body {
    let most = size_bytes.saturating_sub(from).saturating_add(1);
    Body { reader: Box::new(body.reader.take(most)), ..body }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod walk_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_short_and_printable() {
        let long = "1".repeat(129);
        for (version, word) in
            [("", "empty"), ("1 2", "printable"), ("1\u{1b}", "printable"), ("ü", "printable"), (&long, "128")]
        {
            let e = check_version(Some(version.to_owned()), "v").unwrap_err();
            assert!(e.to_string().contains(word) && e.kind() == Kind::Source, "{e}");
        }
        assert!(check_version(None, "v").unwrap_err().to_string().contains("'v' is missing"));
        assert_eq!(check_version(Some("1.2.0-rc.1+b".to_owned()), "v").unwrap(), "1.2.0-rc.1+b");
    }

    #[test]
    fn texts_are_kept_up_to_1_kib() {
        for (text, kept_bytes) in
            [("x".repeat(2000), 1024), ("x".repeat(1024), 1024), ("é".repeat(2000), 1024), ("€".repeat(342), 1023)]
        {
            let short = kept(text.clone());
            assert!(
                text.starts_with(&short) && short.len() == kept_bytes && short.capacity() < 1100,
                "{}",
                short.len()
            );
        }
    }

    #[test]
    fn bytes_are_held_against_their_descriptor() {
        let want = Descriptor { media_type: String::new(), digest: Digest::of(b"abc"), size_bytes: 3 };
        assert!(check_bytes(b"abc", &want).is_ok());
        for bytes in [&b"abd"[..], b"abcd", b""] {
            assert_eq!(check_bytes(bytes, &want).unwrap_err().kind(), Kind::Digest);
        }
    }

    #[test]
    fn a_reader_ends_one_byte_after_the_file() {
        let mut out = Vec::new();
        bounded(Body::whole(std::io::repeat(7)), 10, 0).reader.read_to_end(&mut out).unwrap();
        assert_eq!(out.len(), 11);
        bounded(Body::whole(std::io::repeat(7)), 10, 8).reader.read_to_end(&mut out).unwrap();
        assert_eq!(out.len(), 11 + 3);
    }
}
