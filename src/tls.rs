//! TLS for the HTTP client: rustls, roots from a file, a clock that cannot be too early.
//!
//! Roots are loaded when the first https connection is made, so a machine without any can still use
//! a medium or a loopback registry. Must never: skip a certificate check, or fall back to plain HTTP.

use crate::atomic::read_required;
use crate::credentials::check_private;
use crate::crypto;
use crate::error::{Error, IoContext, Kind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Tells the time in seconds since 1970, UTC.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Largest CA bundle that is read, in bytes. Debian's has 220 KB.
const MAX_BUNDLE: u64 = 8 << 20;
/// Sessions kept for resumption: a few hosts, a few redirects.
const SESSIONS: usize = 8;

/// Says which servers are trusted, and what time it is.
pub(crate) struct Trust {
    /// The configured CA bundle; nothing else is read where it is set.
    pub ca: Option<Pem>,
    /// Otherwise the first of these that exists.
    pub ca_candidates: Vec<PathBuf>,
    /// The system clock.
    pub now: Clock,
    /// A time that is certainly past, in seconds since 1970: certificates are checked at the later of both.
    pub floor_secs: u64,
    /// Who we are, for servers that ask.
    pub identity: Option<Identity>,
}

/// PEM text, or the file that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// Read when it is needed.
    File(PathBuf),
    /// Read already.
    Text {
        /// What it is from, for messages.
        from: String,
        /// The text.
        bytes: Vec<u8>,
    },
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those of its issuers.
    pub certificate: Pem,
    /// Its private key; PKCS #8, SEC1 or PKCS #1.
    pub key: Pem,
}

/// Wraps connections in TLS. Clones share what was loaded.
#[derive(Clone)]
pub(crate) struct TlsConnector(Arc<Shared>);

struct Shared {
    trust: Trust,
    config: OnceLock<Result<Arc<ClientConfig>>>,
}

impl TlsConnector {
    pub(crate) fn new(trust: Trust) -> Self {
        TlsConnector(Arc::new(Shared { trust, config: OnceLock::new() }))
    }
}

impl TlsConnector {
    /// Shakes hands over a connection. Input: `host` as in a URL, IPv6 in brackets.
    /// Errors: what went wrong, as a `rustls::Error` or an [`Error`] (Config: no usable roots or client key) inside.
    pub(crate) fn connect<S: Read + Write>(
        &self,
        host: &str,
        mut socket: S,
    ) -> io::Result<StreamOwned<ClientConnection, S>> {
        let config = self.0.config.get_or_init(|| self.0.trust.client_config());
        let config = config.clone().map_err(io::Error::other)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let bad = |_| io::Error::new(io::ErrorKind::InvalidData, "not a valid TLS server name");
        let name = ServerName::try_from(bare.to_owned()).map_err(bad)?;
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned { conn: connection, sock: socket })
    }
}

impl Trust {
    fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let clock = FloorClock { now: self.now.clone(), floor_secs: self.floor_secs };
        let internal = |e: &dyn fmt::Display| Error::new(Kind::Internal, e.to_string()).at("set up", "TLS");
        let provider = Arc::new(crypto::provider());
        let algorithms = provider.signature_verification_algorithms;
        let roots = self.roots()?;
        let verifier = ClockedVerifier { roots, algorithms, now: self.now.clone(), floor_secs: self.floor_secs };
        let config = ClientConfig::builder_with_details(provider, Arc::new(clock))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| internal(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.load()?;
                config.with_client_auth_cert(chain, key).map_err(|e| {
                    let why = format!("it does not belong to {}: {}", identity.certificate, words(&e));
                    Error::new(Kind::Config, why).at("use the client key", &identity.key)
                })?
            }
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore> {
        if let Some(pem) = &self.ca {
            return read_roots(pem);
        }
        match self.ca_candidates.iter().find(|p| p.exists()) {
            Some(path) => read_roots(&Pem::File(path.clone())),
            None => Err(Error::new(Kind::Config, "no CA certificates on this machine")
                .at("set up", "TLS")
                .hint("set ca_file to a PEM bundle")),
        }
    }
}

impl Identity {
    /// Errors: Config: a file is unreadable or malformed, or others can read the key.
    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = self.certificate.read("read the client certificate")?;
        let bad = |why: &str| Error::new(Kind::Config, why);
        let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        let certificates = certificates.ok().filter(|c| !c.is_empty());
        let certificates = certificates
            .ok_or_else(|| bad("no certificate in PEM").at("read the client certificate", &self.certificate))?;
        if let Pem::File(path) = &self.key {
            check_private(path)?;
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key.read("read the client key")?);
        let hint = "a key without passphrase; `openssl pkey -in KEY -out NEW` takes a passphrase away";
        let key = key.map_err(|_| bad("no private key in PEM").at("read the client key", &self.key).hint(hint))?;
        Ok((certificates, key))
    }
}

impl Pem {
    /// Errors: Config: the file can not be read, or is none.
    fn read(&self, op: &str) -> Result<Vec<u8>> {
        let path = match self {
            Pem::File(path) => path,
            Pem::Text { bytes, .. } => return Ok(bytes.clone()),
        };
        read_required(path, MAX_BUNDLE).io(Kind::Config, op, self)
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => path.display().fmt(f),
            Pem::Text { from, .. } => f.write_str(from),
        }
    }
}

/// Reads a PEM bundle. Errors: Config: unreadable, malformed, or without one usable certificate.
fn read_roots(from: &Pem) -> Result<RootCertStore> {
    let hint = if matches!(from, Pem::File(_)) { "set ca_file to a PEM bundle" } else { "" };
    let fail = |why: String| Error::new(Kind::Config, why).at("read CA certificates", from).hint(hint);
    let pem = from.read("read CA certificates")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| fail(format!("not PEM: {e}")))?;
        // Bundles in the field hold a few certificates that webpki does not take: they are left out.
        roots.add_parsable_certificates([certificate]);
    }
    match roots.is_empty() {
        true => Err(fail("no usable certificate in it".to_owned())),
        false => Ok(roots),
    }
}

/// Says what went wrong. rustls's own words need Debug formatting, which the release build leaves out for size.
pub(crate) fn words(error: &rustls::Error) -> String {
    use CertificateError as C;
    let text = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            C::UnknownIssuer => "the server's certificate was signed by an unknown CA",
            C::BadSignature => "the signature of the server's certificate is wrong",
            C::NotValidForName | C::NotValidForNameContext { .. } => "the server's certificate is for another name",
            C::Expired | C::ExpiredContext { .. } => "the server's certificate has expired",
            C::NotValidYet | C::NotValidYetContext { .. } => "the server's certificate is not valid yet",
            C::Revoked => "the server's certificate is revoked",
            C::BadEncoding => "the server's certificate is malformed",
            C::UnhandledCriticalExtension => "the server's certificate has a critical extension that is not known",
            C::InvalidPurpose | C::InvalidPurposeContext { .. } => "the server's certificate is not for servers",
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
        rustls::Error::DecryptError => "a record can not be decrypted",
        _ => return error.to_string(),
    };
    text.to_owned()
}

/// Source: RFC 8446 section 6, the alerts that servers send for reasons an operator can mend.
fn alert_name(code: u8) -> &'static str {
    match code {
        40 => " (handshake failure)",
        42 | 46 => " (it does not accept the client certificate, or there is none: client_cert, client_key)",
        48 => " (it does not know the client certificate's CA)",
        70 => " (protocol version)",
        112 => " (it does not know this host name)",
        116 => " (it wants a client certificate: client_cert, client_key)",
        _ => "",
    }
}

/// Says what to do about a TLS failure, where that is known.
pub(crate) fn advice(error: &rustls::Error) -> &'static str {
    use CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "set ca_file to the CA that signed this server's certificate"
        }
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

/// Checks certificates as rustls does, at the later of clock and floor; what has expired by the floor alone is checked again
/// by the clock. So a floor that is wrong (a release with a date in the future) costs nobody the way to the next update, and
/// nothing is taken that the machine's own clock would not take.
struct ClockedVerifier {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    now: Clock,
    floor_secs: u64,
}

impl ServerCertVerifier for ClockedVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{Expired, ExpiredContext};
        let parsed = ParsedCertificate::try_from(certificate)?;
        let at =
            |time| verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, chain, time, self.algorithms.all);
        let clock = (self.now)();
        let signed = match at(now) {
            Err(rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. })) if clock < self.floor_secs => {
                at(UnixTime::since_unix_epoch(Duration::from_secs(clock)))
            }
            signed => signed,
        };
        signed?;
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for ClockedVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockedVerifier")
    }
}

struct FloorClock {
    now: Clock,
    floor_secs: u64,
}

impl TimeProvider for FloorClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs((self.now)().max(self.floor_secs))))
    }
}

impl fmt::Debug for FloorClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FloorClock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(ca_file: Option<PathBuf>, ca_candidates: Vec<PathBuf>) -> Trust {
        Trust { ca: ca_file.map(Pem::File), ca_candidates, now: Arc::new(|| 100), floor_secs: 0, identity: None }
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

    #[test]
    fn the_clock_is_never_before_the_floor() {
        for (now, floor_secs, want) in [(0, 500, 500), (900, 500, 900)] {
            let clock = FloorClock { now: Arc::new(move || now), floor_secs };
            assert_eq!(clock.current_time().unwrap().as_secs(), want);
        }
    }
}
