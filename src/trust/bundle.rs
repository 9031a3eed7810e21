//! The sigstore bundle that carries a signature: JSON around a DSSE envelope around an in-toto statement. Pure.
//!
//! Parsed in the order of trust: the envelope only as far as its signature needs, and its content only after a key has verified
//! it.
//! Must never: count a statement of another kind as a signature of an artifact.

use crate::base::base64;
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::json::{self, Field};
use miniserde::Deserialize;

/// Media type of the bundle, of the layer that holds it, and of the manifest around that.
/// Source: sigstore protobuf-specs, `Bundle`; measured: cosign 3.1.1.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Longest bundle that is read, in bytes. Cosign's has about 900; a transparency log's proof adds some kilobytes.
pub const MAX_BYTES: u64 = 64 << 10;
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Statement type of `cosign sign`: "this is signed". Attestations (an SBOM, a scan) have other types.
pub const PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";
/// Most characters shown of a wrong text.
const MAX_SHOWN: usize = 100;
/// Most signatures in one envelope, and most subjects in one statement.
const MAX_PARTS: usize = 16;

/// An envelope whose signatures are still to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Signed bytes: the pre-authentication encoding of type and payload.
    pub signed: Vec<u8>,
    /// Signatures, each possibly by any key.
    pub signatures: Vec<Vec<u8>>,
    /// SHA-256 of the alleged signing key. Only a hint.
    pub hint: Option<String>,
    payload: Vec<u8>,
}

#[derive(Deserialize)]
struct RawBundle {
    #[serde(rename = "mediaType")]
    media_type: Field<String>,
    #[serde(rename = "verificationMaterial")]
    material: Option<RawMaterial>,
    #[serde(rename = "dsseEnvelope")]
    envelope: Option<RawEnvelope>,
}

#[derive(Deserialize)]
struct RawMaterial {
    #[serde(rename = "publicKey")]
    public_key: Option<RawHint>,
}

#[derive(Deserialize)]
struct RawHint {
    hint: Field<String>,
}

#[derive(Deserialize)]
struct RawEnvelope {
    payload: Field<String>,
    #[serde(rename = "payloadType")]
    payload_type: Field<String>,
    signatures: Option<Vec<RawSignature>>,
}

#[derive(Deserialize)]
struct RawSignature {
    sig: Field<String>,
}

#[derive(Deserialize)]
struct RawStatement {
    #[serde(rename = "_type")]
    statement_type: Field<String>,
    #[serde(rename = "predicateType")]
    predicate_type: Field<String>,
    subject: Option<Vec<RawSubject>>,
}

#[derive(Deserialize)]
struct RawSubject {
    digest: Option<RawDigest>,
}

#[derive(Deserialize)]
struct RawDigest {
    sha256: Field<String>,
}

fn fail(why: impl Into<String>) -> Error {
    Error::new(Kind::Signature, why)
}

/// Turns a document's fault into an error of authenticity.
fn unproven(error: Error) -> Error {
    fail(error.to_string())
}

fn equals(field: Field<String>, name: &str, want: &str) -> Result<()> {
    match field.need(name).map_err(unproven)? {
        text if text == want => Ok(()),
        text => Err(fail(format!("'{name}' is {}, not {want}", text.chars().take(MAX_SHOWN).collect::<String>()))),
    }
}

fn decoded(field: Field<String>, name: &str) -> Result<Vec<u8>> {
    let text = field.need(name).map_err(unproven)?;
    base64::decode(&text).ok_or_else(|| fail(format!("'{name}' is not base64")))
}

impl Bundle {
    /// Reads a bundle. Input: at most [`MAX_BYTES`] bytes.
    /// Errors: Signature: not a bundle, longer, or of another kind; names the field.
    /// Source: sigstore protobuf-specs, `sigstore_bundle.proto`; DSSE v1, `envelope.md`.
    pub fn parse(bytes: &[u8]) -> Result<Bundle> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(fail(format!("{} bytes, where a bundle has at most {MAX_BYTES}", bytes.len())));
        }
        let raw: RawBundle = json::parse(bytes, "the bundle").map_err(unproven)?;
        equals(raw.media_type, "mediaType", MEDIA_TYPE)?;
        let envelope = raw.envelope.ok_or_else(|| fail("'dsseEnvelope' is missing"))?;
        equals(envelope.payload_type, "dsseEnvelope.payloadType", PAYLOAD_TYPE)?;
        let payload = decoded(envelope.payload, "dsseEnvelope.payload")?;
        let raw_signatures = envelope.signatures.unwrap_or_default();
        if raw_signatures.is_empty() || raw_signatures.len() > MAX_PARTS {
            return Err(fail(format!("'dsseEnvelope.signatures' has not 1 to {MAX_PARTS} entries")));
        }
        let mut signatures = Vec::new();
        for (n, raw) in raw_signatures.into_iter().enumerate() {
            signatures.push(decoded(raw.sig, &format!("dsseEnvelope.signatures[{n}].sig"))?);
        }
        let hint = raw.material.and_then(|m| m.public_key).and_then(|k| k.hint.optional("hint").ok().flatten());
        Ok(Bundle { signed: pre_authentication(PAYLOAD_TYPE, &payload), signatures, hint, payload })
    }

    /// Reads the signed statement. Call it once a key has verified [`Bundle::signed`].
    /// Returns: the digests that the statement names. Errors: Signature: it is a statement of another kind.
    /// Source: in-toto attestation framework, `spec/v1/statement.md`.
    pub fn subjects(&self) -> Result<Vec<Digest>> {
        let raw: RawStatement = json::parse(&self.payload, "the statement").map_err(unproven)?;
        equals(raw.statement_type, "_type", STATEMENT_TYPE)?;
        equals(raw.predicate_type, "predicateType", PREDICATE_TYPE)?;
        let subjects = raw.subject.unwrap_or_default();
        if subjects.is_empty() || subjects.len() > MAX_PARTS {
            return Err(fail(format!("'subject' has not 1 to {MAX_PARTS} entries")));
        }
        let mut digests = Vec::new();
        for subject in subjects {
            let digest = subject.digest.ok_or_else(|| fail("'subject.digest' is missing"))?;
            let hex = digest.sha256.need("subject.digest.sha256").map_err(unproven)?;
            digests.push(Digest::parse_hex(&hex).map_err(unproven)?);
        }
        Ok(digests)
    }
}

/// Encodes the bytes that a DSSE signature covers. Source: DSSE v1, `protocol.md`, "Signature Definition".
pub fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
