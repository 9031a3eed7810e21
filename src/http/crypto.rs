//! The cryptography in use, picked by hand from rustls's ring provider; none is implemented here.
//!
//! The default provider is never named: what it lists and we do not (ChaCha20-Poly1305 above all) would stay
//! in the binary (docs/decisions/0001-cryptography-by-hand.md). Written out, it can also not widen silently.
//! Must never: list an algorithm without forward secrecy, or one weaker than 112 bits.

use crate::os::sys;
use rustls::crypto::ring::sign::{RsaSigningKey, any_ecdsa_type};
use rustls::crypto::ring::{cipher_suite as suite, kx_group};
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use rustls::{Error, SignatureScheme as Scheme};
use std::sync::Arc;
use webpki::ring as algorithm;

/// Returns the provider for TLS: 1.2 and 1.3, AES-GCM, ephemeral keys. AES-128 comes first: every peer has it, and it
/// is the cheapest where the CPU supports it. X25519 is left out for its size: P-256 is needed anyway, and TLS 1.3 requires
/// it of every server (RFC 8446, section 9.1; docs/decisions/0015).
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![kx_group::SECP256R1, kx_group::SECP384R1],
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Random,
        key_provider: &Keys,
    }
}

/// Signature algorithms of certificates and handshakes.
/// Source: RFC 8446 section 4.2.3, RFC 5246 section 7.4.1.4.1 (in TLS 1.2 the hash says nothing of the curve).
const SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        algorithm::ECDSA_P256_SHA256,
        algorithm::ECDSA_P256_SHA384,
        algorithm::ECDSA_P384_SHA256,
        algorithm::ECDSA_P384_SHA384,
        algorithm::ED25519,
        algorithm::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        algorithm::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        algorithm::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        algorithm::RSA_PKCS1_2048_8192_SHA256,
        algorithm::RSA_PKCS1_2048_8192_SHA384,
        algorithm::RSA_PKCS1_2048_8192_SHA512,
        algorithm::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
        algorithm::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        algorithm::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    ],
    mapping: &[
        (Scheme::ECDSA_NISTP384_SHA384, &[algorithm::ECDSA_P384_SHA384, algorithm::ECDSA_P256_SHA384]),
        (Scheme::ECDSA_NISTP256_SHA256, &[algorithm::ECDSA_P256_SHA256, algorithm::ECDSA_P384_SHA256]),
        (Scheme::ED25519, &[algorithm::ED25519]),
        (Scheme::RSA_PSS_SHA512, &[algorithm::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
        (Scheme::RSA_PSS_SHA384, &[algorithm::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (Scheme::RSA_PSS_SHA256, &[algorithm::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (Scheme::RSA_PKCS1_SHA512, &[algorithm::RSA_PKCS1_2048_8192_SHA512]),
        (Scheme::RSA_PKCS1_SHA384, &[algorithm::RSA_PKCS1_2048_8192_SHA384]),
        (Scheme::RSA_PKCS1_SHA256, &[algorithm::RSA_PKCS1_2048_8192_SHA256]),
    ],
};

#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        sys::random(bytes).map_err(|_| GetRandomFailed)
    }
}

#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    /// Accepts P-256, P-384 and RSA keys: those that Kubernetes and private CAs issue.
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        match RsaSigningKey::new(&key) {
            Ok(rsa) => Ok(Arc::new(rsa)),
            Err(_) => any_ecdsa_type(&key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signature that a new rustls verifies by default is verified here as well, except those left out on purpose.
    #[test]
    fn verifies_what_rustls_verifies() {
        let theirs = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        assert_eq!(SIGNATURES.supported_schemes(), theirs.supported_schemes());
        assert_eq!(SIGNATURES.all.len(), theirs.all.len());
    }

    #[test]
    fn random_bytes_differ() {
        let (mut one, mut other) = ([0u8; 32], [0u8; 32]);
        Random.fill(&mut one).unwrap();
        Random.fill(&mut other).unwrap();
        assert_ne!(one, other);
    }

    #[test]
    fn offers_both_protocol_versions_and_the_groups_that_everybody_has() {
        let provider = provider();
        let versions = |v| provider.cipher_suites.iter().filter(|s| s.version().version == v).count();
        assert_eq!(versions(rustls::ProtocolVersion::TLSv1_3), 2);
        assert_eq!(versions(rustls::ProtocolVersion::TLSv1_2), 4);
        assert_eq!(provider.kx_groups.len(), 2);
    }
}
