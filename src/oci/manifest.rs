//! Image indexes and image manifests: parsed into optional fields, then checked field by field.
//!
//! The architecture reported is that of the manifest's own annotation, even when an index offered the manifest under another
//! one, so that the gate can refuse it. Only a manifest without that annotation takes the platform of its index entry; one
//! reached by tag alone then has none. Must never: guess what a document is when it says two things at once.

use super::descriptor::{INDEX_TYPES, Layer, MANIFEST_TYPES, plain_type, source};
use super::entries::Entries;
pub(crate) use super::index::nothing_for;
pub use super::index::{Choice, Entry, Index};
use super::initramfs::{self, INITRAMFS_TYPE, Initramfs};
use super::metadata::{Annotations, Metadata};
use super::misspellings::PREFIX;
use crate::base::error::Result;
use crate::base::json::{self, Field};
use miniserde::Deserialize;

/// `Accept` for manifests. A registry may answer 404 for an index unless it is named here
/// (measured: docker-registry 2.8.2).
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// Media type of the kernel's layer.
pub const KERNEL_TYPE: &str = "application/vnd.kubesolo.os.kernel.v1+octet-stream";

/// Media type of the chunk index of the layer before it (`chunks::index`).
pub const CHUNKS_TYPE: &str = "application/vnd.kubesolo.os.chunks.v1";

/// What a tag or digest resolves to.
#[derive(Debug)]
pub enum Document {
    /// A list of manifests, one for each platform.
    Index(Index),
    /// One manifest.
    Manifest(Manifest),
}

/// A manifest: its annotations, and its layers still unchecked.
#[derive(Debug)]
pub struct Manifest {
    name: String,
    layers: Entries,
    annotations: Annotations,
}

#[derive(Deserialize)]
struct RawDocument {
    #[serde(rename = "schemaVersion")]
    schema_version: Field<u64>,
    #[serde(rename = "mediaType")]
    media_type: Field<String>,
    manifests: Option<Entries>,
    layers: Option<Entries>,
    annotations: Option<Annotations>,
}

/// Reads an index or a manifest.
/// Input: `bytes`: at most [`super::descriptor::DOCUMENT_CAP`]; `declared_type`: the Content-Type, or the media type of the
/// descriptor that named it; `name`: for errors.
/// Errors: Source: malformed JSON; an unknown type; a type that contradicts `mediaType` or the content; a schemaVersion other
/// than 2. The caller that chooses an entry judges malformed ones, see [`Index`].
/// Source: image-spec 1.1, image-index.md and manifest.md; CVE-2021-41190 (ambiguous documents).
pub fn parse(bytes: &[u8], declared_type: Option<&str>, name: &str) -> Result<Document> {
    read(bytes, declared_type, name).map_err(|e| e.at("read", name))
}

fn read(bytes: &[u8], declared_type: Option<&str>, name: &str) -> Result<Document> {
    let raw: RawDocument = json::parse(bytes, name)?;
    match raw.schema_version.need("schemaVersion")? {
        2 => {}
        other => return Err(source(format!("schemaVersion is {other}, only 2 is understood"))),
    }
    let declared = declared_type.map(plain_type);
    let inner = raw.media_type.optional("mediaType")?.map(|t| plain_type(&t));
    match (&declared, &inner) {
        (Some(declared), Some(inner)) if declared != inner => {
            return Err(source(format!("'mediaType' is {inner}, but it was served as {declared}")));
        }
        _ => {}
    }
    let is_index = match declared.or(inner) {
        Some(t) if INDEX_TYPES.contains(&t.as_str()) => true,
        Some(t) if MANIFEST_TYPES.contains(&t.as_str()) => false,
        Some(t) => return Err(source(format!("media type '{t}' is neither an image index nor an image manifest"))),
        None => raw.manifests.is_some(),
    };
    match (is_index, raw.manifests, raw.layers) {
        (_, Some(_), Some(_)) => Err(source("has both 'manifests' and 'layers'")),
        (true, Some(entries), None) => Ok(Document::Index(Index::of(entries, name))),
        (true, None, _) => Err(source("'manifests' is missing")),
        (false, None, Some(layers)) => Ok(Document::Manifest(Manifest {
            name: name.to_owned(),
            layers,
            annotations: raw.annotations.unwrap_or_default(),
        })),
        (false, _, None) => Err(source("'layers' is missing")),
    }
}

impl Manifest {
    /// Returns the architecture annotation, if usable.
    pub fn architecture(&self) -> Option<&str> {
        match self.annotations.release.architecture() {
            Field::Is(name) => Some(name),
            _ => None,
        }
    }

    /// Takes the metadata, the kernel and the initramfs out.
    /// Errors: Source: a kernel or initramfs layer missing or malformed; a second kernel; several initramfs layers and
    /// no digest of the whole, or too many of them; an annotation that is not a string.
    pub fn into_parts(self) -> Result<(Metadata, Layer, Initramfs)> {
        let name = self.name.clone();
        self.split().map_err(|e| e.at("read", name))
    }

    fn split(self) -> Result<(Metadata, Layer, Initramfs)> {
        // Number, whether it is the kernel, and the layer.
        let mut found: Vec<(usize, bool, Layer)> = Vec::new();
        for (i, layer) in self.layers.list {
            let place = format!("layers[{i}]");
            let Field::Is(media_type) = &layer.media_type else { continue };
            match plain_type(media_type).as_str() {
                INITRAMFS_TYPE => found.push((i, false, layer.check(&place)?.into())),
                KERNEL_TYPE => found.push((i, true, layer.check(&place)?.into())),
                CHUNKS_TYPE => {
                    if let Some((_, _, before)) = found.last_mut().filter(|(number, ..)| number + 1 == i) {
                        before.chunks = Some(layer.check(&place)?);
                    }
                }
                _ => {}
            }
        }
        let (mut kernels, initramfs): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, is_kernel, _)| *is_kernel);
        let layers = initramfs.into_iter().map(|(.., layer)| layer).collect();
        let kernel = match (kernels.pop(), kernels.is_empty()) {
            (Some((.., kernel)), true) => kernel,
            (Some(_), false) => return Err(source("more than one kernel layer")),
            (None, _) => return Err(source(format!("no kernel layer ({KERNEL_TYPE})"))),
        };
        let whole = self.annotations.initramfs_digest.unwrap_or_default().optional(initramfs::DIGEST_ANNOTATION)?;
        Ok((self.annotations.release.check(PREFIX)?, kernel, Initramfs::of(layers, whole)?))
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
