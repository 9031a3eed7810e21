//! The publisher's public keys: PEM, SubjectPublicKeyInfo, Ed25519 or ECDSA P-256. Pure.
//!
//! Each has exactly one encoding, which is compared byte for byte: no parsing.
//! Must never: take a key of another kind, or mistake one encoding for another.

use crate::base::base64;
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use rustls::pki_types::SignatureVerificationAlgorithm;

/// Bytes before the 32 of an Ed25519 key. Source: RFC 8410, section 4.
const ED25519_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Bytes before the 65 of a P-256 point, and the 4 for "uncompressed".
/// Source: RFC 5480, section 2; SEC 1, section 2.3.3.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----\n";
const END: &str = "\n-----END PUBLIC KEY-----";
/// Characters in a line of PEM.
const LINE: usize = 64;
const ED25519_BYTES: usize = 32;
/// Without the leading 4.
const P256_BYTES: usize = 64;

/// Signature algorithm of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 8032, pure: over the message itself.
    Ed25519,
    /// ECDSA over SHA-256; signatures in DER.
    P256,
}

impl Algorithm {
    /// Returns its display name.
    pub fn label(self) -> &'static str {
        match self {
            Algorithm::Ed25519 => "Ed25519",
            Algorithm::P256 => "ECDSA P-256",
        }
    }
}

/// One public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// How it signs.
    pub algorithm: Algorithm,
    /// SHA-256 of its SubjectPublicKeyInfo: its name in `revoked/`, in errors, and in a bundle's hint.
    pub id: Digest,
    /// Its file, for messages.
    pub name: String,
    point: Vec<u8>,
}

impl Key {
    /// Reads a key. Input: the file's bytes; `name`: the file, for messages.
    /// Errors: Config: not exactly one public key in PEM and nothing else, or of another kind.
    /// Source: RFC 7468, sections 3 and 13, in its strict form.
    pub fn parse(pem: &[u8], name: &str) -> Result<Key> {
        let bad = |why: &str| Error::new(Kind::Config, why).at("read the key", name);
        let hint = "a file as `openssl pkey -pubout` or `cosign generate-key-pair` writes it";
        let text = String::from_utf8_lossy(pem).replace("\r\n", "\n");
        let text = text.trim_end_matches('\n');
        let body = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
        let body = body.ok_or_else(|| match text.contains("PRIVATE KEY") {
            true => bad("it is a PRIVATE key, which has no place on this machine: anyone who reads it can sign"),
            false if text.starts_with('\u{feff}') => bad("it begins with a byte order mark").hint(hint),
            false => bad("it is not one public key in PEM, with nothing before, after or between").hint(hint),
        })?;
        if body.contains("-----BEGIN") {
            return Err(bad("it holds more than one key").hint("one key in each file"));
        }
        let der = base64::decode(&body.replace('\n', "")).filter(|der| lines(der) == body);
        let der = der.ok_or_else(|| bad("malformed PEM").hint(hint))?;
        let (algorithm, point) = match (der.strip_prefix(ED25519_PREFIX), der.strip_prefix(P256_PREFIX)) {
            (Some(point), _) if point.len() == ED25519_BYTES => (Algorithm::Ed25519, point),
            // The leading 4 is part of the point.
            (_, Some(rest)) if rest.len() == P256_BYTES => (Algorithm::P256, &der[P256_PREFIX.len() - 1..]),
            _ => return Err(bad("it is neither an Ed25519 nor an ECDSA P-256 key").hint(hint)),
        };
        Ok(Key { algorithm, id: Digest::of(&der), name: name.to_owned(), point: point.to_vec() })
    }

    /// Returns whether this key made this signature over this message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn SignatureVerificationAlgorithm = match self.algorithm {
            Algorithm::Ed25519 => webpki::ring::ED25519,
            Algorithm::P256 => webpki::ring::ECDSA_P256_SHA256,
        };
        algorithm.verify_signature(&self.point, message, signature).is_ok()
    }
}

/// Breaks PEM content into lines.
fn lines(der: &[u8]) -> String {
    let text = base64::encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(LINE).map(|l| std::str::from_utf8(l).unwrap_or_default()).collect();
    lines.join("\n")
}

#[cfg(test)]
#[path = "key_tests.rs"]
pub(super) mod tests;
