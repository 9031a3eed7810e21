//! TLS for the HTTP client: rustls, roots from a file, a clock that cannot be too early.
//!
//! Roots are loaded when the first https connection is made, so a machine without any can still use
//! a medium or a loopback registry. Must never: skip a certificate check, or fall back to plain HTTP.

mod words;

use crate::atomic::read_required;
use crate::clock::Now;
use crate::credentials::check_private;
use crate::crypto;
use crate::error::{Error, IoContext, Kind, Result};
use crate::progress::note;
use crate::text::printable;
use crate::time::rfc3339;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(crate) use words::{advice, words};

/// Tells what is known of the time; its floor is the time of the build.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

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
    /// What is known of the time.
    pub now: Clock,
    /// One more time that is past, in seconds since 1970, unless that is a slip: what it alone excludes is not excluded.
    pub floor_secs: u64,
    /// Whether the server has the same clock.
    pub shares_clock: bool,
    /// The name or address that must stand in the certificate, where it is not that of the URL.
    pub server_name: Option<String>,
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
    /// For those who may not know who we are, and for those who may.
    configs: OnceLock<Result<[Arc<ClientConfig>; 2]>>,
}

impl TlsConnector {
    pub(crate) fn new(trust: Trust) -> Self {
        TlsConnector(Arc::new(Shared { trust, configs: OnceLock::new() }))
    }
}

impl TlsConnector {
    /// Shakes hands over a connection. Input: `host` as in a URL, IPv6 in brackets; `identified`: whether it may see the
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
        // Sessions of their own: who takes one up again is still who he was.
        unknown.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok([Arc::new(unknown), Arc::new(known)])
    }

    fn client_config(&self) -> Result<ClientConfig> {
        let clock = FloorClock { now: self.now.clone(), floor_secs: self.floor_secs };
        let internal = |e: &dyn fmt::Display| Error::new(Kind::Internal, e.to_string()).at("set up", "TLS");
        let provider = Arc::new(crypto::provider());
        let algorithms = provider.signature_verification_algorithms;
        let roots = self.roots()?;
        let (floor_secs, shares_clock) = (self.floor_secs, self.shares_clock);
        let now = self.now.clone();
        let verifier =
            ClockedVerifier { roots, algorithms, now, floor_secs, shares_clock, told: AtomicBool::new(false) };
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
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(config)
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

/// Shows nobody who we are.
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
    /// Says why the two cannot be used. Input: `algorithm`: the key's.
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

/// Most certificates of one chain that are not valid yet.
const MAX_NOT_YET: usize = 8;

/// Checks certificates as rustls does, at any of the times that the present may be: the earliest one that is possible (so what
/// has expired by then is refused), and, where the clock is not set, later ones as well (so nothing is refused for not being
/// valid yet).
///
/// What has expired by the release date alone is checked again without it: a date that is wrong (in the future) costs nobody the
/// way to the next update.
struct ClockedVerifier {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    now: Clock,
    floor_secs: u64,
    shares_clock: bool,
    /// Whether it was said that a certificate's beginning was not judged.
    told: AtomicBool,
}

impl ClockedVerifier {
    /// Input: `check`: checks the chain at a time. Returns: the time at which it is valid.
    fn valid_at(
        &self,
        check: &dyn Fn(u64) -> std::result::Result<(), rustls::Error>,
    ) -> std::result::Result<u64, rustls::Error> {
        let built = (self.now)();
        let now = built.with_floor(self.floor_secs);
        let mut found = valid_within(now, check);
        if is_expired(&found) && built.earliest_secs() < now.earliest_secs() {
            found = valid_within(built, check);
        }
        match found {
            Err(e) if self.shares_clock => check(built.clock_secs()).map(|()| built.clock_secs()).map_err(|_| e),
            found => found,
        }
    }
}

fn is_expired(found: &std::result::Result<u64, rustls::Error>) -> bool {
    use CertificateError::{Expired, ExpiredContext};
    matches!(found, Err(rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. })))
}

/// Finds a time that the present may be, and at which `check` passes; the earliest one.
fn valid_within(
    now: Now,
    check: &dyn Fn(u64) -> std::result::Result<(), rustls::Error>,
) -> std::result::Result<u64, rustls::Error> {
    let mut time = now.earliest_secs();
    for _ in 0..MAX_NOT_YET {
        match check(time) {
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                if now.has_no_upper_end() && not_before.as_secs() > time =>
            {
                time = not_before.as_secs();
            }
            checked => return checked.map(|()| time),
        }
    }
    check(time).map(|()| time)
}

impl ServerCertVerifier for ClockedVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let time = self.valid_at(&|secs| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(secs));
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, chain, time, self.algorithms.all)
        })?;
        verify_server_name(&parsed, name)?;
        let now = (self.now)();
        if time > now.with_floor(self.floor_secs).earliest_secs() && !self.told.swap(true, Ordering::Relaxed) {
            note(&format!(
                "{}: its certificate is valid from {}, and this machine's clock is not set ({}): whether that is past \
                 cannot be judged; going on",
                name.to_str(),
                rfc3339(time),
                rfc3339(now.clock_secs())
            ));
        }
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
        let now = (self.now)().with_floor(self.floor_secs);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now.earliest_secs())))
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

    #[test]
    fn the_clock_is_never_before_the_floor() {
        for (now, floor_secs, want) in [(0, 500, 500), (900, 500, 900)] {
            let clock = FloorClock { now: Arc::new(move || Now::new(now, 0)), floor_secs };
            assert_eq!(clock.current_time().unwrap().as_secs(), want);
        }
    }

    /// A chain of certificates, as (valid from, valid until), checked as webpki does.
    fn chain(parts: &[(u64, u64)]) -> impl Fn(u64) -> std::result::Result<(), rustls::Error> {
        let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        let parts = parts.to_vec();
        move |secs| {
            for &(from, until) in &parts {
                let error = match secs {
                    _ if secs < from => CertificateError::NotValidYetContext { time: at(secs), not_before: at(from) },
                    _ if secs > until => CertificateError::ExpiredContext { time: at(secs), not_after: at(until) },
                    _ => continue,
                };
                return Err(rustls::Error::InvalidCertificate(error));
            }
            Ok(())
        }
    }

    #[test]
    fn a_certificate_is_judged_at_every_time_that_it_may_be() {
        let verify = |clock, build, release, shares_clock, parts: &[(u64, u64)]| {
            let verifier = ClockedVerifier {
                roots: RootCertStore::empty(),
                algorithms: crypto::provider().signature_verification_algorithms,
                now: Arc::new(move || Now::new(clock, build)),
                floor_secs: release,
                shares_clock,
                told: AtomicBool::new(false),
            };
            verifier.valid_at(&chain(parts)).ok()
        };
        // (clock, build, release date, same clock, chain) -> the time at which it is valid
        for (clock, build, release, shares, parts, valid) in [
            // The clock is set: nothing is different from what everybody does.
            (500, 100, 0, false, &[(400, 600)][..], Some(500)),
            (500, 100, 0, false, &[(501, 600)], None),
            (500, 100, 0, false, &[(400, 499)], None),
            // It is not: what has expired by the build has expired, what begins later may have begun.
            (3, 100, 0, false, &[(50, 600)], Some(100)),
            (3, 100, 0, false, &[(50, 99)], None),
            (3, 100, 0, false, &[(200, 600)], Some(200)),
            (3, 100, 0, false, &[(200, 600), (150, 900), (300, 400)], Some(300)),
            // At no time are these two valid together.
            (3, 100, 0, false, &[(200, 300), (301, 400)], None),
            (3, 100, 0, false, &[(200, 300), (50, 99)], None),
            // What was dated by the same clock is judged by that as well, and only then.
            (3, 100, 0, true, &[(0, 50)], Some(3)),
            (3, 100, 0, false, &[(0, 50)], None),
            (3, 100, 0, true, &[(200, 600)], Some(200)),
            (500, 100, 0, true, &[(501, 600)], None),
            // A release date that is a slip excludes nothing by itself, and makes nothing valid that is not.
            (500, 100, 900, false, &[(400, 600)], Some(500)),
            (500, 100, 900, false, &[(400, 499)], None),
            (3, 100, 900, false, &[(50, 600)], Some(100)),
            (3, 100, 900, false, &[(950, 990)], Some(950)),
        ] {
            assert_eq!(
                verify(clock, build, release, shares, parts),
                valid,
                "{clock} {build} {release} {shares} {parts:?}"
            );
        }
        // However many are not valid yet: it ends.
        let many: Vec<(u64, u64)> = (0..100).map(|n| (200 + n, 900)).collect();
        assert_eq!(verify(3, 100, 0, false, &many), None);
    }
}
