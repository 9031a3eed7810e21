//! TLS for the HTTP client: rustls, roots from a file, and a clock with a lower bound.
//!
//! Roots are loaded when the first https connection is made, so a machine without any can still use
//! a medium or a loopback registry. Must never: skip a certificate check, or fall back to plain HTTP.

mod pem;
mod sessions;
mod verifier;
pub(crate) mod words;

use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;
use crate::http::crypto;
use pem::{Roots, certificates, read_roots};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, SignatureScheme, StreamOwned};
use sessions::Sessions;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use verifier::{ClockedVerifier, FloorClock};

pub use pem::Pem;
#[cfg(test)]
pub(crate) use sessions::tests::server as test_server;
pub use verifier::Clock;
pub(crate) use words::{advice, words};

/// Which servers are trusted, and at what time.
pub(crate) struct Trust {
    /// The configured CA bundle; if set, no other is read.
    pub ca: Option<Pem>,
    /// Otherwise the first of these that exists.
    pub ca_candidates: Vec<PathBuf>,
    /// Returns the known time.
    pub now: Clock,
    /// Another time that is past, in seconds since 1970, unless mistyped: an expiry by this time alone does not count.
    pub floor_secs: u64,
    /// Whether the server uses the same clock.
    pub shares_clock: bool,
    /// The name or address that must be in the certificate, if not the URL's.
    pub server_name: Option<String>,
    /// Client certificate, for servers that request one.
    pub identity: Option<Identity>,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those of its issuers.
    pub certificate: Pem,
    /// Its private key; PKCS #8, SEC1 or PKCS #1.
    pub key: Pem,
}

/// Wraps connections in TLS. Clones share the loaded configuration.
#[derive(Clone)]
pub(crate) struct TlsConnector(Arc<Shared>);

struct Shared {
    trust: Trust,
    /// For servers that must not see our identity, and for those that may.
    configs: OnceLock<Result<[Arc<ClientConfig>; 2]>>,
}

impl TlsConnector {
    pub(crate) fn new(trust: Trust) -> Self {
        TlsConnector(Arc::new(Shared { trust, configs: OnceLock::new() }))
    }
}

impl TlsConnector {
    /// Performs a TLS handshake. Input: `host` as in a URL, IPv6 in brackets; `identified`: whether the server may see the
    /// client certificate.
    /// Errors: what went wrong, as a `rustls::Error` or an [`Error`] (Config: no usable roots or client key) inside.
    pub(crate) fn connect<S: Read + Write>(
        &self,
        host: &str,
        identified: bool,
        mut socket: S,
    ) -> io::Result<StreamOwned<ClientConnection, S>> {
        let configs = self.0.configs.get_or_init(|| self.0.trust.client_configs());
        let config = configs.as_ref().map_err(|e| io::Error::other(e.clone()))?[usize::from(identified)].clone();
        let wanted = self.0.trust.server_name.as_deref().unwrap_or(host);
        let bare = wanted.trim_start_matches('[').trim_end_matches(']');
        let bad =
            |_| io::Error::new(io::ErrorKind::InvalidData, format!("{}: not a TLS server name", printable(wanted)));
        let name = ServerName::try_from(bare.to_owned()).map_err(bad)?;
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned { conn: connection, sock: socket })
    }
}

impl Trust {
    fn client_configs(&self) -> Result<[Arc<ClientConfig>; 2]> {
        let known = self.client_config()?;
        let mut unknown = known.clone();
        unknown.client_auth_cert_resolver = Arc::new(NoIdentity);
        // Its own session store: a resumed session keeps the client's identity.
        unknown.resumption = Resumption::store(Arc::new(Sessions::default()));
        Ok([Arc::new(unknown), Arc::new(known)])
    }

    fn client_config(&self) -> Result<ClientConfig> {
        let clock = FloorClock::new(self.now.clone(), self.floor_secs);
        let internal = |e: &dyn fmt::Display| Error::new(Kind::Internal, e.to_string()).at("set up", "TLS");
        let provider = Arc::new(crypto::provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier =
            ClockedVerifier::new(self.roots()?, algorithms, self.now.clone(), self.floor_secs, self.shares_clock);
        let config = ClientConfig::builder_with_details(provider, Arc::new(clock))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| internal(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.load()?;
                let algorithm = words::algorithm(key.secret_der());
                config.with_client_auth_cert(chain, key).map_err(|e| identity.refused(&e, algorithm))?
            }
        };
        config.resumption = Resumption::store(Arc::new(Sessions::default()));
        Ok(config)
    }

    fn roots(&self) -> Result<Roots> {
        if let Some(pem) = &self.ca {
            return read_roots(pem, true);
        }
        match self.ca_candidates.iter().find(|p| p.exists()) {
            Some(path) => read_roots(&Pem::File(path.clone()), false),
            None => Err(Error::new(Kind::Config, "no CA certificates on this machine")
                .at("set up", "TLS")
                .hint("set ca_file to a PEM bundle")),
        }
    }
}

/// Offers no client certificate.
#[derive(Debug)]
struct NoIdentity;

impl ResolvesClientCert for NoIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl Identity {
    /// Explains why certificate and key cannot be used. Input: `algorithm`: the key's.
    fn refused(&self, error: &rustls::Error, algorithm: &str) -> Error {
        let key = |why: String| Error::new(Kind::Config, why).at("use the client key", &self.key);
        match error {
            rustls::Error::InconsistentKeys(_) => key(format!("it does not belong to {}", self.certificate)),
            rustls::Error::InvalidCertificate(_) => Error::new(Kind::Config, "it is no X.509 certificate of version 3")
                .at("use the client certificate", &self.certificate),
            _ => key(format!("{algorithm} key cannot be used here: {}", words::KEYS)),
        }
    }

    /// Errors: Config: a file is unreadable or malformed, or others can read the key.
    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = self.certificate.read("read the client certificate", false)?;
        let bad = |why: &str| Error::new(Kind::Config, why);
        let certificates = certificates(&chain).ok().filter(|c| !c.is_empty());
        let certificates = certificates
            .ok_or_else(|| bad("no certificate in PEM").at("read the client certificate", &self.certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key.read("read the client key", true)?);
        let hint = "a key without passphrase; `openssl pkey -in KEY -out NEW` takes a passphrase away";
        let key = key.map_err(|_| bad("no private key in PEM").at("read the client key", &self.key).hint(hint))?;
        Ok((certificates, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Now;

    fn trust(ca_file: Option<PathBuf>, ca_candidates: Vec<PathBuf>) -> Trust {
        let now: Clock = Arc::new(|| Now::new(100, 0));
        Trust {
            ca: ca_file.map(Pem::File),
            ca_candidates,
            now,
            floor_secs: 0,
            shares_clock: false,
            server_name: None,
            identity: None,
        }
    }

    #[test]
    fn says_which_bundle_is_unusable_and_what_to_set() {
        let dir = tempfile::tempdir().unwrap();
        let (absent, empty, broken) = (dir.path().join("absent"), dir.path().join("empty"), dir.path().join("broken"));
        std::fs::write(&empty, "").unwrap();
        std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
        for (case, word) in [
            (trust(Some(absent.clone()), vec![empty.clone()]), "absent"),
            (trust(Some(broken), vec![]), "not PEM"),
            (trust(None, vec![absent.clone(), empty]), "no usable certificate"),
            (trust(None, vec![absent]), "set ca_file"),
            (trust(None, vec![]), "set ca_file"),
        ] {
            let e = case.client_config().unwrap_err();
            assert_eq!(e.kind(), Kind::Config);
            assert!(e.to_string().contains(word), "{word}: {e}");
        }
    }
}
