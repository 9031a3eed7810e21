//! Objects beside a release that are not usable signatures, recognised by type, so that errors name them instead of calling
//! them absent. Pure.
//!
//! Must never: count as a signature.

use crate::base::digest::Digest;
use crate::base::json::{self, Field};
use crate::oci::descriptor::{Descriptor, RawDescriptor};
use crate::trust::bundle;
use miniserde::Deserialize;

/// Layer of a cosign 2 signature; its bytes name the signed document. Source: sigstore/cosign, `specs/SIGNATURE_SPEC.md`.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// An object that is not read as a signature; the most informative comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Other {
    /// A statement about the release: an SBOM, a scan, a build.
    Attestation,
    /// Signature by notation (`notation sign`).
    Notation,
    /// A sigstore bundle of a version that is not read.
    AnotherBundle,
    /// Signature by cosign 2: the tag `sha256-HEX.sig`.
    Cosign2,
}

impl Other {
    /// Describes it: the rest of a sentence that begins with the release.
    pub fn words(self) -> &'static str {
        match self {
            Other::Attestation => "it is not signed; there is an attestation, which is not a signature",
            Other::Notation => "it is signed by notation, whose format is not read",
            Other::AnotherBundle => "it is signed in a sigstore bundle of another version, and 0.3 alone is read",
            Other::Cosign2 => "it is signed in cosign 2's format, which is not read",
        }
    }
}

/// Names the tags that cosign 2 and similar tools make for a release.
/// Source: measured: cosign 3.1.1 with `--new-bundle-format=false`.
pub fn tags(subject: Digest) -> [String; 2] {
    ["sig", "att"].map(|end| format!("sha256-{}.{end}", subject.hex()))
}

/// Recognises it by the type of an artifact or layer. Input: `states`: cosign's annotation, the type of the statement.
pub fn of_type(kind: &str, states: Option<&str>) -> Option<Other> {
    match kind {
        bundle::MEDIA_TYPE => states.filter(|states| *states != bundle::PREDICATE_TYPE).map(|_| Other::Attestation),
        "application/vnd.dsse.envelope.v1+json" | "application/vnd.in-toto+json" => Some(Other::Attestation),
        "application/vnd.cncf.notary.signature" => Some(Other::Notation),
        // The second is cosign 2's with `--registry-referrers-mode=oci-1-1`.
        SIMPLE_SIGNING | "application/vnd.dev.cosign.artifact.sig.v1+json" => Some(Other::Cosign2),
        _ if kind.starts_with("application/vnd.dev.sigstore.bundle") => Some(Other::AnotherBundle),
        _ => None,
    }
}

/// Recognises it by a manifest that is not a bundle's. Returns: its kind, and the layer that names its subject if the manifest
/// itself does not.
pub fn of_manifest(bytes: &[u8], subject: Digest) -> Option<(Other, Option<Descriptor>)> {
    let raw: RawReferrer = json::parse(bytes, "").ok()?;
    let is_bound = raw.subject.is_some();
    let named = raw.subject.and_then(|named| named.check("subject").ok());
    if is_bound && named.is_none_or(|named| named.digest != subject) {
        return None;
    }
    let states = raw.annotations.and_then(|annotations| annotations.predicate_type.optional("").ok().flatten());
    let of_type = |kind: &str| of_type(kind, states.as_deref());
    let by_artifact = raw.artifact_type.optional("").ok().flatten().and_then(|kind| of_type(&kind));
    let layer = raw.layers.unwrap_or_default().into_iter().next().and_then(|layer| layer.check("layers[0]").ok());
    let other = by_artifact.or_else(|| layer.as_ref().and_then(|layer| of_type(&layer.media_type)))?;
    Some((other, layer.filter(|layer| !is_bound && layer.media_type == SIMPLE_SIGNING)))
}

#[derive(Deserialize)]
pub(crate) struct RawAnnotations {
    #[serde(rename = "dev.sigstore.bundle.predicateType")]
    pub(crate) predicate_type: Field<String>,
}

#[derive(Deserialize)]
pub(crate) struct RawReferrer {
    #[serde(rename = "schemaVersion")]
    pub(crate) schema_version: Field<u64>,
    #[serde(rename = "artifactType")]
    pub(crate) artifact_type: Field<String>,
    pub(crate) config: Option<RawDescriptor>,
    pub(crate) layers: Option<Vec<RawDescriptor>>,
    pub(crate) subject: Option<RawDescriptor>,
    pub(crate) annotations: Option<RawAnnotations>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_by_its_type() {
        for (kind, states, want) in [
            (bundle::MEDIA_TYPE, None, None),
            (bundle::MEDIA_TYPE, Some(bundle::PREDICATE_TYPE), None),
            (bundle::MEDIA_TYPE, Some("https://spdx.dev/Document"), Some(Other::Attestation)),
            ("application/vnd.dev.sigstore.bundle.v0.2+json", None, Some(Other::AnotherBundle)),
            ("application/vnd.dev.sigstore.bundle+json;version=0.1", None, Some(Other::AnotherBundle)),
            (SIMPLE_SIGNING, None, Some(Other::Cosign2)),
            ("application/vnd.dev.cosign.artifact.sig.v1+json", None, Some(Other::Cosign2)),
            ("application/vnd.cncf.notary.signature", None, Some(Other::Notation)),
            ("application/vnd.dsse.envelope.v1+json", None, Some(Other::Attestation)),
            ("application/spdx+json", None, None),
            ("", None, None),
        ] {
            assert_eq!(of_type(kind, states), want, "{kind}");
        }
        assert!(Other::Cosign2 > Other::Notation && Other::Notation > Other::Attestation);
    }

    #[test]
    fn a_manifest_is_looked_at_if_it_belongs_to_the_release_or_does_not_say() {
        let subject = Digest::of(b"release");
        let layer = format!(r#"{{"mediaType":"{SIMPLE_SIGNING}","digest":"{}","size":9}}"#, Digest::of(b"layer"));
        let of = |digest: Digest| format!(r#","subject":{{"mediaType":"m","digest":"{digest}","size":9}}"#);
        let whole = |more: &str| format!(r#"{{"schemaVersion":2,"layers":[{layer}]{more}}}"#);
        let told = |text: &str| of_manifest(text.as_bytes(), subject);
        let (other, named_by) = told(&whole("")).unwrap();
        assert_eq!((other, named_by.unwrap().digest), (Other::Cosign2, Digest::of(b"layer")));
        assert_eq!(told(&whole(&of(subject))), Some((Other::Cosign2, None)));
        for text in [
            &whole(&of(Digest::of(b"another"))),
            &whole(r#","subject":{"digest":"sha512:00"}"#),
            &whole("").replace("simplesigning", "other"),
            r#"{"layers":[]}"#,
            "{",
        ] {
            assert_eq!(told(text), None, "{text}");
        }
    }
}
