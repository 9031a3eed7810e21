//! Descriptors: what a document names, its length and its digest; and the types of documents. Pure.
//!
//! Must never: guess a length or a digest that is not there.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::json::Field;
use miniserde::Deserialize;

/// Largest index or manifest that is read. Source: distribution-spec 1.1, "Pushing manifests" (4 MiB).
pub const DOCUMENT_CAP: u64 = 4 << 20;

pub(crate) const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

pub(crate) const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// Names a blob or document: its type, length and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type, lower case, without parameters.
    pub media_type: String,
    /// Digest of the bytes.
    pub digest: Digest,
    /// Length in bytes; above 0 and below 2^63.
    pub size_bytes: u64,
}

/// A layer, and the descriptor of its chunk index, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The layer itself.
    pub descriptor: Descriptor,
    /// Of the layer directly behind it.
    pub chunks: Option<Descriptor>,
}

impl From<Descriptor> for Layer {
    fn from(descriptor: Descriptor) -> Layer {
        Layer { descriptor, chunks: None }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawDescriptor {
    #[serde(rename = "mediaType")]
    pub(crate) media_type: Field<String>,
    #[serde(rename = "artifactType")]
    pub(super) artifact_type: Field<String>,
    pub(super) digest: Field<String>,
    pub(super) size: Field<u64>,
    pub(super) platform: Option<RawPlatform>,
    pub(super) annotations: Option<EntryAnnotations>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawPlatform {
    pub(super) os: Field<String>,
    pub(super) architecture: Field<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct EntryAnnotations {
    #[serde(rename = "org.opencontainers.image.ref.name")]
    pub(super) ref_name: Field<String>,
    #[serde(rename = "dev.sigstore.bundle.predicateType")]
    pub(super) predicate_type: Field<String>,
    pub(super) kind: Field<String>,
}

impl RawDescriptor {
    pub(crate) fn check(self, place: &str) -> Result<Descriptor> {
        let media_type = plain_type(&self.media_type.need(&format!("{place}.mediaType"))?);
        let digest = self.digest.need(&format!("{place}.digest"))?;
        let digest = Digest::parse(&digest).map_err(|e| source(format!("'{place}.digest': {e}")))?;
        let size_bytes = self.size.need(&format!("{place}.size"))?;
        if size_bytes == 0 || size_bytes > i64::MAX as u64 {
            return Err(source(format!("'{place}.size' is {size_bytes}, not between 1 and 2^63-1")));
        }
        Ok(Descriptor { media_type, digest, size_bytes })
    }

    /// Returns the platform that it declares, if readable.
    pub(super) fn platform(&self) -> Option<(String, String)> {
        match &self.platform {
            Some(RawPlatform { os: Field::Is(os), architecture: Field::Is(name) }) => Some((os.clone(), name.clone())),
            _ => None,
        }
    }

    /// Returns its tag in an image layout, if readable.
    pub(super) fn ref_name(&self) -> Option<String> {
        match &self.annotations {
            Some(EntryAnnotations { ref_name: Field::Is(name), .. }) => Some(name.clone()),
            _ => None,
        }
    }
}

impl Descriptor {
    /// Checks that this may be followed from an index: a manifest or another index, and not too large.
    pub(super) fn check_document(&self) -> Result<()> {
        if !INDEX_TYPES.iter().chain(&MANIFEST_TYPES).any(|known| self.media_type == *known) {
            return Err(source(format!("media type '{}' is not an image manifest", self.media_type)));
        }
        check_document_size(self.size_bytes)
    }
}

pub(super) fn source(why: impl Into<String>) -> Error {
    Error::new(Kind::Source, why)
}

/// Cuts parameters (`; charset=...`) off a media type. Source: RFC 9110, section 8.3.1.
pub(super) fn plain_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Checks a document's size before it is read. Errors: Source: above [`DOCUMENT_CAP`].
pub fn check_document_size(size_bytes: u64) -> Result<()> {
    match size_bytes > DOCUMENT_CAP {
        true => Err(source(format!("{size_bytes} bytes is more than a document may have ({DOCUMENT_CAP})"))),
        false => Ok(()),
    }
}
