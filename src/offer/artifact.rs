//! What a source offers for one architecture: its version and dates, its files, and who signed it. Plain data.
//!
//! Must never: know how a source is asked.

use crate::base::digest::Digest;
use crate::base::url::Url;
use crate::oci::descriptor::Descriptor;
pub use crate::oci::metadata::Metadata;

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
/// through `text::printable` before it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// What its publisher says of it.
    pub release: Metadata,
    /// Identity: the digest of the per-architecture manifest; for HTTP see `latest::identity` in `source`.
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
    /// Says whether this is only what was heard of it before: then its files cannot be opened.
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
