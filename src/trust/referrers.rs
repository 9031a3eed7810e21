//! Lists of a document's signatures, and the way from a list to a bundle. Pure.
//!
//! A list is untrusted: its entries are fetched by digest, and count only if they name the document in turn.
//! Must never: take a manifest for a signature of a document that is not its subject.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::json::{self, Field};
use crate::oci::descriptor::{Descriptor, MANIFEST_TYPES, RawDescriptor};
use crate::oci::manifest::Entry;
use crate::trust::beside::{self, Other, RawReferrer};
use crate::trust::bundle;
use miniserde::Deserialize;

/// Media type of a list of referrers. Source: distribution-spec 1.1, "Listing Referrers".
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a manifest around a bundle. Source: image-spec 1.1, manifest.md.
pub const MANIFEST_TYPE: &str = MANIFEST_TYPES[0];
/// Longest manifest around a bundle that is read, in bytes; cosign's has about 900.
pub const MANIFEST_MAX_BYTES: u64 = 64 << 10;
/// Type of cosign's entry in the list of a registry without the referrers API (measured: cosign 3.1.1).
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// Prefix of the annotation `kind` in entries written by `cosign save` (measured: cosign 3.1.1).
const SAVED: &str = "dev.cosignproject.cosign/";

#[derive(Deserialize)]
struct RawList {
    #[serde(rename = "mediaType")]
    media_type: Field<String>,
    manifests: Option<Vec<RawDescriptor>>,
}

/// Names the tag that lists a document's referrers if the registry has no API for that.
/// Source: distribution-spec 1.1, "Referrers Tag Schema".
pub fn tag(subject: Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// Reads a list. Returns: possible manifests around bundles, in the order of [`order`], and the kind of other objects. A
/// malformed entry is skipped: it cannot be a readable signature.
/// Errors: Source: not an image index.
pub fn candidates(bytes: &[u8], name: &str) -> Result<(Vec<Descriptor>, Option<Other>)> {
    let raw: RawList = json::parse(bytes, name)?;
    let no_index = || Error::new(Kind::Source, "not an image index").at("read", name);
    let of_type = raw.media_type.optional("mediaType").ok().flatten();
    let entries = raw.manifests.filter(|_| of_type.is_none_or(|t| t == INDEX_TYPE)).ok_or_else(no_index)?;
    let mut entries: Vec<Entry> = entries.into_iter().enumerate().filter_map(|(n, raw)| raw.entry(n).ok()).collect();
    let other = entries.iter().filter_map(kind).max();
    entries.retain(may_hold_bundle);
    entries.sort_by_key(order);
    Ok((entries.into_iter().map(|entry| entry.descriptor).collect(), other))
}

/// Sorts declared signatures of artifacts first, and attestations last: nightly scans must not hide a signature.
pub fn order(entry: &Entry) -> u8 {
    match entry.predicate_type.as_deref() {
        Some(bundle::PREDICATE_TYPE) => 0,
        None => 1,
        Some(_) => 2,
    }
}

/// Returns the kind of an entry that is not a readable signature.
pub fn kind(entry: &Entry) -> Option<Other> {
    beside::of_type(entry.artifact_type.as_deref()?, entry.predicate_type.as_deref())
}

/// Returns whether an entry is marked as a signature or as part of one: by `cosign save`, or by its type.
pub fn is_signature(entry: &Entry) -> bool {
    let is_beside = |kind: &str| ["sigs", "atts", "sboms"].iter().any(|end| kind.strip_prefix(SAVED) == Some(end));
    entry.artifact_type.as_deref().is_some_and(is_known)
        || entry.saved_as.as_deref().is_some_and(is_beside)
        || kind(entry).is_some()
}

fn is_known(kind: &str) -> bool {
    kind == bundle::MEDIA_TYPE || kind == EMPTY_TYPE
}

/// Returns whether an entry of a list may be the manifest around a bundle.
pub fn may_hold_bundle(entry: &Entry) -> bool {
    let is_manifest = entry.descriptor.media_type == MANIFEST_TYPES[0];
    is_manifest
        && entry.platform.is_none()
        && entry.descriptor.size_bytes <= MANIFEST_MAX_BYTES
        && entry.artifact_type.as_deref().is_none_or(is_known)
}

/// Reads a manifest around a bundle. Returns: the bundle's descriptor; `None`: it has another subject or content.
/// Errors: Source: malformed; names the field.
/// Source: image-spec 1.1, manifest.md, "subject"; measured: cosign 3.1.1.
pub fn bundle_layer(bytes: &[u8], subject: Digest) -> Result<Option<Descriptor>> {
    let raw: RawReferrer = json::parse(bytes, "the manifest of a signature")?;
    if raw.schema_version.need("schemaVersion")? != 2 {
        return Err(Error::new(Kind::Source, "'schemaVersion' is not 2"));
    }
    let named = raw.subject.map(|subject| subject.check("subject")).transpose()?;
    if named.is_none_or(|named| named.digest != subject) {
        return Ok(None);
    }
    let of_config = raw.config.and_then(|config| config.media_type.optional("config.mediaType").ok().flatten());
    let kind = raw.artifact_type.optional("artifactType")?.or(of_config);
    if kind.as_deref() != Some(bundle::MEDIA_TYPE) {
        return Ok(None);
    }
    let states =
        raw.annotations.and_then(|annotations| annotations.predicate_type.optional("annotations").ok().flatten());
    if states.is_some_and(|states| states != bundle::PREDICATE_TYPE) {
        return Ok(None);
    }
    let mut layers = raw.layers.unwrap_or_default().into_iter();
    match (layers.next(), layers.next()) {
        (Some(layer), None) => {
            let layer = layer.check("layers[0]")?;
            if layer.media_type != bundle::MEDIA_TYPE {
                return Err(Error::new(Kind::Source, format!("'layers[0].mediaType' is {}", layer.media_type)));
            }
            if layer.size_bytes > bundle::MAX_BYTES {
                let (size, most) = (layer.size_bytes, bundle::MAX_BYTES);
                return Err(Error::new(Kind::Source, format!("a bundle of {size} bytes, where it has at most {most}")));
            }
            Ok(Some(layer))
        }
        _ => Err(Error::new(Kind::Source, "'layers' has not exactly one entry")),
    }
}

/// Finds the next page in a Link header. Returns: its target, not yet resolved.
/// Source: RFC 8288, section 3; distribution-spec 1.1, "Listing Referrers".
pub fn next_page(link: &str) -> Option<String> {
    let mut rest = link;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, tail) = after.split_once('>')?;
        let (parameters, others) = tail.split_at(tail.find('<').unwrap_or(tail.len()));
        let is_next = |parameter: &str| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let value = value.trim_end_matches([' ', ',']).trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel") && value.split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
        };
        if parameters.split(';').any(is_next) {
            return Some(target.to_owned());
        }
        rest = others;
    }
    None
}

#[cfg(test)]
#[path = "referrers_tests.rs"]
mod tests;
