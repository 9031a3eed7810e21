//! What a source offers for one architecture: its version and dates, its files, and its signers. Plain data.
//!
//! Must never: know how to query a source.

use crate::base::digest::Digest;
use crate::base::url::Url;
use crate::oci::descriptor::{Descriptor, Layer};
pub use crate::oci::metadata::Metadata;

/// Names one file of an artifact: its length, digest and location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// Length in bytes; above 0 and below 2^63.
    pub size_bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: Digest,
    /// Its chunk index, if the publisher made one.
    pub chunks: Option<Box<FileRef>>,
    pub(crate) place: Place,
}

impl FileRef {
    /// Lists the blobs that make up the file.
    pub fn blobs(&self) -> Vec<FileRef> {
        match self.layers() {
            [] => vec![self.clone()],
            layers => layers.to_vec(),
        }
    }

    /// Lists the layers of a file that has several.
    pub fn layers(&self) -> &[FileRef] {
        match &self.place {
            Place::Blobs(layers) => layers,
            _ => &[],
        }
    }

    /// Makes a blob of a layer.
    pub(crate) fn of_layer(layer: Layer) -> FileRef {
        let chunks = layer.chunks.map(|chunks| Box::new(FileRef::of_layer(chunks.into())));
        let Descriptor { size_bytes, digest, .. } = layer.descriptor;
        FileRef { size_bytes, sha256: digest, chunks, place: Place::Blob }
    }
}

/// Location of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A blob of the source's repository or layout, named by the file's own digest.
    Blob,
    /// Several such blobs, concatenated.
    Blobs(Vec<FileRef>),
    /// A URL.
    Url(Url),
    /// Unknown: only recorded earlier, see `seen`.
    Nowhere,
}

/// What a source offers for one architecture. Every text is as the source gave it, so it must pass through `text::printable`
/// before it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The publisher's metadata.
    pub release: Metadata,
    /// Identity: the digest of the per-architecture manifest; for HTTP see `latest::identity` in `source`.
    pub digest: Digest,
    /// Digest of the index that named the manifest, if any.
    pub index_digest: Option<Digest>,
    /// Other documents on the way or parts of it: nested indexes, the layers of its initramfs, a `latest.json`.
    pub passed: Vec<Digest>,
    /// Keys whose signatures of it were verified; empty where none is demanded.
    pub signed_by: Vec<Digest>,
    /// The source, for messages and records; without secrets.
    pub source: String,
    /// The kernel.
    pub kernel: FileRef,
    /// The initramfs.
    pub initramfs: FileRef,
}

impl Artifact {
    /// Returns whether this is only an earlier record of the artifact, whose files cannot be opened.
    pub fn is_hearsay(&self) -> bool {
        self.kernel.place == Place::Nowhere
    }

    /// Returns every digest by which it may be revoked.
    pub fn digests(&self) -> Vec<Digest> {
        let mut digests = vec![self.digest, self.kernel.sha256, self.initramfs.sha256];
        digests.extend(self.index_digest);
        digests.extend(&self.passed);
        digests
    }
}
