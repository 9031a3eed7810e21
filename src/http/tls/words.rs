//! TLS failures in words that name what to fix.
//!
//! Must never: call something wrong that is merely unsupported.

use rustls::CertificateError;

/// Usable private keys. Source: `crypto::Keys`; ring, `rsa::KeyPair`.
pub(crate) const KEYS: &str = "P-256, P-384, and RSA of 2048 to 4096 bits can";

/// Algorithms of keys and signatures, by the object identifier in their DER; the first match counts.
/// Source: RFC 5480, 5639, 8410, 4055, 3279.
const ALGORITHMS: [(&[u8], &str); 14] = [
    (b"\x06\x05\x2b\x81\x04\x00\x23", "a P-521"),
    (b"\x06\x05\x2b\x81\x04\x00\x21", "a P-224"),
    (b"\x06\x05\x2b\x81\x04\x00\x0a", "a secp256k1"),
    (b"\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01", "a Brainpool"),
    (b"\x06\x03\x2b\x65\x70", "an Ed25519"),
    (b"\x06\x03\x2b\x65\x71", "an Ed448"),
    (b"\x06\x07\x2a\x86\x48\xce\x38\x04", "a DSA"),
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04", "an ECDSA (SHA-512, as by a P-521 key)"),
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x01", "an ECDSA (SHA-224)"),
    (b"\x06\x07\x2a\x86\x48\xce\x3d\x04\x01", "an ECDSA (SHA-1)"),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", "an RSA (SHA-1)"),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", "an RSA-PSS"),
    (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01", "an RSA"),
    (b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", "an elliptic"),
];

/// Number of leading bytes of a private key that are searched: in SEC1 with P-521, the curve follows the number's 66 bytes.
const SEARCHED: usize = 96;

/// Names the algorithm of a private key in DER.
pub(crate) fn algorithm(der: &[u8]) -> &'static str {
    let der = &der[..der.len().min(SEARCHED)];
    let found = ALGORITHMS.iter().find(|(id, _)| der.windows(id.len()).any(|part| part == *id));
    found.map_or("an unknown kind of", |(_, name)| name)
}

/// Describes a TLS failure. rustls's own messages need Debug formatting, which the release build leaves out for size.
pub(crate) fn words(error: &rustls::Error) -> String {
    use CertificateError as C;
    let text = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            C::UnknownIssuer => "the server's certificate was signed by an unknown CA",
            C::BadSignature => {
                "the signature of the server's certificate is wrong, or its CA has an RSA key of less than 2048 bits"
            }
            C::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                "the server's certificate is for another name: it has no subjectAltName, and the common name does not count"
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => "the server's certificate is for another name",
            C::Expired | C::ExpiredContext { .. } => "the server's certificate has expired",
            C::NotValidYet | C::NotValidYetContext { .. } => "the server's certificate is not valid yet",
            C::Revoked => "the server's certificate is revoked",
            C::BadEncoding => "the server's certificate is malformed",
            C::UnhandledCriticalExtension => UNKNOWN_EXTENSION,
            C::InvalidPurpose | C::InvalidPurposeContext { .. } => "the server's certificate is not for servers",
            C::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: id, .. } => return unread(id),
            C::UnsupportedSignatureAlgorithmForPublicKeyContext { public_key_algorithm_id: id, .. } => {
                return unread(id);
            }
            C::Other(other) => match other.0.downcast_ref() {
                Some(webpki::Error::CaUsedAsEndEntity) => {
                    "the server's certificate says that it is a CA's (basicConstraints CA:TRUE), and does not stand in \
                     ca_file itself"
                }
                Some(webpki::Error::UnsupportedCertVersion) => {
                    "the server's certificate is X.509 of version 1, which has no place for a host name"
                }
                Some(webpki::Error::UnsupportedCriticalExtension) => UNKNOWN_EXTENSION,
                _ => "the server's certificate is not acceptable",
            },
            _ => "the server's certificate is not acceptable",
        },
        rustls::Error::AlertReceived(alert) => {
            let code = u8::from(*alert);
            return format!("the server refused with TLS alert {code}{}", alert_name(code));
        }
        rustls::Error::InvalidMessage(_) => "the answer is not TLS",
        rustls::Error::PeerIncompatible(_) => "the server offers no TLS version and cipher that are secure",
        rustls::Error::PeerMisbehaved(_) => "the server breaks the TLS protocol",
        rustls::Error::NoCertificatesPresented => "the server shows no certificate",
        rustls::Error::DecryptError => "a record cannot be decrypted",
        _ => return error.to_string(),
    };
    text.to_owned()
}

/// Source: RFC 8446 section 6, the alerts that servers send for reasons an operator can fix.
fn alert_name(code: u8) -> &'static str {
    match code {
        // A client with such a key cannot sign, and sends no certificate.
        40 => {
            " (handshake failure: no cipher or curve in common (curves here: P-256, P-384), or its key is of another kind than P-256, P-384, Ed25519 and RSA)"
        }
        42 | 46 => " (it does not accept the client certificate, or there is none: client_cert, client_key)",
        48 => " (it does not know the client certificate's CA)",
        70 => " (protocol version)",
        112 => " (it does not know this host name)",
        116 => " (it wants a client certificate: client_cert, client_key)",
        _ => "",
    }
}

/// Input: `id`: an algorithm in DER, with or without its tag.
fn unread(id: &[u8]) -> String {
    let name = algorithm(id);
    format!(
        "a certificate of the server's chain has {name} signature: P-256, P-384 (SHA-256, SHA-384), Ed25519 and RSA are read"
    )
}

const UNKNOWN_EXTENSION: &str = "the server's certificate has a critical extension that is not known";

/// How to make a certificate that every client accepts.
const MAKE: &str = "openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=HOST -addext subjectAltName=DNS:HOST \
                    -addext basicConstraints=critical,CA:FALSE -keyout KEY -out CERT; then CERT in ca_file";

/// Returns what to do about a TLS failure, where that is known.
pub(crate) fn advice(error: &rustls::Error) -> &'static str {
    use CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "set ca_file to the CA that signed this server's certificate (in a kubeconfig: certificate-authority)"
        }
        rustls::Error::InvalidCertificate(C::NotValidForNameContext { presented, .. }) if presented.is_empty() => MAKE,
        rustls::Error::InvalidCertificate(C::Other(other)) => match other.0.downcast_ref() {
            Some(webpki::Error::CaUsedAsEndEntity | webpki::Error::UnsupportedCertVersion) => MAKE,
            _ => "",
        },
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "use the name that stands in the server's certificate"
        }
        rustls::Error::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => "check this machine's clock, and the server's certificate",
        rustls::Error::InvalidMessage(_) => "does this port speak TLS?",
        _ => "",
    }
}
