//! An initramfs in one layer or several: which layers belong together, and what the whole must hash to.
//!
//! The kernel unpacks consecutive gzip streams, so a part that is the same in two releases can be a layer of its own
//! (docs/decisions/0009). Must never: accept several layers without a digest of the whole.

use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::oci::descriptor::{Layer, source};

/// Media type of an initramfs's layers.
pub const INITRAMFS_TYPE: &str = "application/vnd.kubesolo.os.initramfs.v1+gzip";
/// Most layers of one initramfs.
pub const MAX_LAYERS: usize = 16;
/// Annotation of the manifest with the digest of all layers together.
pub const DIGEST_ANNOTATION: &str = "io.kubesolo.os.initramfs_digest";

/// The initramfs of a manifest: its layers in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initramfs {
    /// Digest of the whole: that of the only layer, or the value of annotation [`DIGEST_ANNOTATION`].
    pub digest: Digest,
    /// Length of the whole, in bytes; below 2^63.
    pub size_bytes: u64,
    /// 1 to [`MAX_LAYERS`].
    pub layers: Vec<Layer>,
}

impl Initramfs {
    /// Puts the layers together. Input: `whole`: the annotation, if there is one.
    /// Errors: Source: none, too many, or several without the annotation; a malformed or another digest; too long.
    pub(super) fn of(layers: Vec<Layer>, whole: Option<String>) -> Result<Initramfs> {
        let whole = match whole {
            Some(text) => Some(Digest::parse(&text).map_err(|e| source(format!("'{DIGEST_ANNOTATION}': {e}")))?),
            None => None,
        };
        let digest = match (layers.as_slice(), whole) {
            ([], _) => return Err(source(format!("no initramfs layer ({INITRAMFS_TYPE})"))),
            ([only], Some(whole)) if whole != only.descriptor.digest => {
                return Err(source(format!(
                    "'{DIGEST_ANNOTATION}' is {whole}, the only initramfs layer {}",
                    only.descriptor.digest
                )));
            }
            ([only], _) => only.descriptor.digest,
            (several, _) if several.len() > MAX_LAYERS => {
                return Err(source(format!("more than {MAX_LAYERS} initramfs layers")));
            }
            (_, Some(whole)) => whole,
            (_, None) => return Err(source(format!("more than one initramfs layer, and no '{DIGEST_ANNOTATION}'"))),
        };
        let size_bytes = layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.descriptor.size_bytes));
        match size_bytes.filter(|n| i64::try_from(*n).is_ok()) {
            Some(size_bytes) => Ok(Initramfs { digest, size_bytes, layers }),
            None => Err(source("the initramfs layers are longer than any file")),
        }
    }
}
