//! Follows an index or a manifest to the artifact for one architecture.
//!
//! Must never: fetch what the keyring revokes, or follow without a limit.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::json;
use crate::oci::descriptor::Descriptor;
use crate::oci::manifest::{self, Choice, Document, Index, Manifest};
use crate::offer::artifact::{Artifact, FileRef, Place};
use crate::trust::keyring::Keyring;

/// Deepest nesting of indexes: one by platform, within it one by variant, and one that a tool made around both.
pub(super) const MAX_INDEXES: usize = 3;

/// Most documents read to find one manifest.
pub(super) const MAX_DOCUMENTS: usize = 16;

/// Fetches a document by descriptor; its result has been checked with [`super::limits::check_bytes`].
pub(super) type Fetch<'a> = &'a mut dyn FnMut(&Descriptor) -> Result<Vec<u8>>;

/// Where the way to an artifact begins.
pub(super) struct Top {
    /// An index or a manifest.
    pub(super) document: Document,
    /// What its bytes hash to.
    pub(super) digest: Digest,
}

/// Follows an index or a manifest to the artifact for one architecture.
/// Input: `name`: the source, for messages; `ring`: nothing below a
/// revoked document is fetched.
/// Returns: also whether the manifest itself states its architecture.
/// Errors: as [`super::Source::resolve`].
pub(super) fn follow(
    Top { document, digest }: Top,
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
pub(super) struct Walk<'a> {
    architecture: &'a str,
    ring: &'a Keyring,
    fetch: Fetch<'a>,
    /// Documents that may still be read.
    left: usize,
    /// Architectures of other manifests found.
    others: Vec<String>,
    /// Nested indexes on the path to the manifest.
    chain: Vec<Digest>,
    /// Why an entry was skipped that may have been the right one.
    fault: Option<Error>,
}

impl Walk<'_> {
    /// Finds the manifest for this architecture. The index's platform counts; where it has none, the manifest's own annotation
    /// does.
    fn look_into(&mut self, index: &Index, depth: usize) -> Result<Option<(Digest, Manifest)>> {
        self.fault = self.fault.take().or_else(|| index.fault().cloned());
        let (candidates, is_marked) = match index.select(self.architecture) {
            Ok(Choice::One(descriptor)) => (vec![descriptor], true),
            Ok(Choice::LookInto(candidates)) => (candidates, false),
            // For a nested index: other entries may remain to search.
            Err(_) if depth > 1 && !index.offers(self.architecture) => (Vec::new(), false),
            Err(e) => return Err(e),
        };
        for descriptor in candidates {
            // A revoked entry that may be for other machines is judged once it proves to be for this one.
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

/// Turns a manifest into an artifact. Input: `platform`: its architecture according to an index.
pub(super) fn artifact(
    manifest: Manifest,
    digest: Digest,
    index_digest: Option<Digest>,
    platform: Option<&str>,
    name: &str,
) -> Result<(Artifact, bool)> {
    let (mut release, kernel, initramfs) = manifest.into_parts()?;
    let is_stated = release.architecture.is_some();
    release.architecture = release.architecture.or(platform.map(str::to_owned));
    let kernel = FileRef::of_layer(kernel);
    let mut layers: Vec<FileRef> = initramfs.layers.into_iter().map(FileRef::of_layer).collect();
    let (initramfs, passed) = match layers.as_mut_slice() {
        [_] => (layers.remove(0), Vec::new()),
        _ => {
            let digests = layers.iter().map(|layer| layer.sha256).collect();
            let (size_bytes, sha256) = (initramfs.size_bytes, initramfs.digest);
            (FileRef { size_bytes, sha256, chunks: None, place: Place::Blobs(layers) }, digests)
        }
    };
    let artifact = Artifact {
        release,
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

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
