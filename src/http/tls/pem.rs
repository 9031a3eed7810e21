//! PEM: CA bundles, client certificates and keys, as tools and people write them.
//!
//! Must never: accept text labelled as something else, or report such a file as empty.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::files::read_required;
use crate::os::permissions::Insist;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::PathBuf;

/// Largest CA bundle that is read, in bytes. Debian's has 220 KB.
const MAX_BUNDLE: u64 = 8 << 20;

/// PEM text, or its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// A file, read when needed.
    File(PathBuf),
    /// Text that was read already.
    Text {
        /// Its origin, for messages.
        from: String,
        /// The text.
        bytes: Vec<u8>,
    },
}

impl Pem {
    /// Reads the text, without a byte order mark; X509 CERTIFICATE is an older name of CERTIFICATE, which OpenSSL
    /// accepts and RFC 7468, section 5.1, allows for old files.
    /// Input: `is_secret`: it is a private key. Errors: Config: the file cannot be read, or is not a regular file; a secret
    /// file belongs to another user, or others may read or change it.
    pub(crate) fn read(&self, op: &str, is_secret: bool) -> Result<Vec<u8>> {
        let mut pem = match self {
            Pem::File(path) if is_secret => Insist::Secret.read_open(path, MAX_BUNDLE, 0)?,
            Pem::File(path) => read_required(path, MAX_BUNDLE).io(Kind::Config, op, self)?,
            Pem::Text { bytes, .. } => bytes.clone(),
        };
        if pem.starts_with(BOM) {
            pem.drain(..BOM.len());
        }
        if contains(&pem, b"X509 CERTIFICATE-----") {
            let text = String::from_utf8_lossy(&pem).replace(" X509 CERTIFICATE-----", " CERTIFICATE-----");
            pem = text.into_bytes();
        }
        Ok(pem)
    }
}

/// A byte order mark in UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Content that is mistaken for certificates, by its label or first bytes, and what to do about it.
const OTHERS: [(&[u8], &str); 7] = [
    (
        b"-BEGIN TRUSTED CERTIFICATE-",
        "it has TRUSTED CERTIFICATEs, which only openssl reads: `openssl x509 -in FILE -out NEW` makes ordinary ones",
    ),
    (b"-BEGIN PKCS7-", "it is PKCS #7: `openssl pkcs7 -print_certs -in FILE -out NEW` takes the certificates out"),
    (b"-BEGIN CERTIFICATE REQUEST-", "it is a certificate request: the CA makes a certificate of it"),
    (b"PRIVATE KEY-", "it has a private key and no certificate"),
    (b"-BEGIN PUBLIC KEY-", "it has a public key and no certificate"),
    (b"\x30\x82", "it is DER, not PEM: `openssl x509 -inform DER -in FILE -out NEW` makes PEM of it"),
    (b"\xff\xfe", "it is UTF-16: save it as ASCII or UTF-8"),
];

/// Names the content if it is not a certificate and is recognized.
pub(crate) fn other_than_certificates(pem: &[u8]) -> Option<&'static str> {
    let is_there = |part: &[u8]| {
        if part[0].is_ascii_graphic() && part[0] != b'0' { contains(pem, part) } else { pem.starts_with(part) }
    };
    OTHERS.iter().find(|(part, _)| is_there(part)).map(|(_, words)| *words)
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => path.display().fmt(f),
            Pem::Text { from, .. } => f.write_str(from),
        }
    }
}

/// Trusted roots.
pub(crate) struct Roots {
    pub store: RootCertStore,
    /// SHA-256 of each certificate that the operator chose: a server may present one of them itself.
    pub chosen: Vec<[u8; 32]>,
}

/// Finds the certificates in a PEM text. Errors: it is not PEM.
pub(crate) fn certificates(pem: &[u8]) -> std::result::Result<Vec<CertificateDer<'static>>, pem::Error> {
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        all.push(certificate?);
    }
    Ok(all)
}

/// Reads a PEM bundle. Input: `is_chosen`: the operator named it, rather than the system's default.
/// Errors: Config: unreadable, malformed, or without a usable certificate; other content is named.
pub(crate) fn read_roots(from: &Pem, is_chosen: bool) -> Result<Roots> {
    let hint = if matches!(from, Pem::File(_)) { "set ca_file to a PEM bundle" } else { "" };
    let fail = |why: String| Error::new(Kind::Config, why).at("read CA certificates", from).hint(hint);
    let pem = from.read("read CA certificates", false)?;
    let mut roots = Roots { store: RootCertStore::empty(), chosen: Vec::new() };
    for certificate in certificates(&pem).map_err(|e| fail(format!("not PEM: {e}")))? {
        if is_chosen {
            roots.chosen.push(Sha256::digest(&certificate).into());
        }
        // Bundles in the field hold a few certificates that webpki rejects: they are left out.
        roots.store.add_parsable_certificates([certificate]);
    }
    match roots.store.is_empty() {
        true => Err(fail(other_than_certificates(&pem).unwrap_or("no usable certificate in it").to_owned())),
        false => Ok(roots),
    }
}
