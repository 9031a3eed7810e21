//! Verifies server certificates: rustls's check, at each time that the present may be.
//!
//! Must never: accept a certificate for another name, or at a time outside its validity.

use super::pem::Roots;
use crate::base::clock::Now;
use crate::base::time::rfc3339;
use crate::os::progress::note;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Returns the known time; its floor is the time of the build.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Most certificates in one chain that are not valid yet.
const MAX_NOT_YET: usize = 8;

/// Checks certificates as rustls does, at any of the times that the present may be: the earliest possible one (so that a
/// certificate expired by then is refused), and, where the clock is not set, later ones as well (so that none is refused for
/// not being valid yet).
///
/// A certificate expired only by the release date is checked again without that date: a wrong one, in the future, must not
/// block the next update.
pub(crate) struct ClockedVerifier {
    roots: Roots,
    algorithms: WebPkiSupportedAlgorithms,
    now: Clock,
    floor_secs: u64,
    shares_clock: bool,
    /// Whether the skipped check of a certificate's start date has been reported.
    told: AtomicBool,
}

impl ClockedVerifier {
    pub(crate) fn new(
        roots: Roots,
        algorithms: WebPkiSupportedAlgorithms,
        now: Clock,
        floor_secs: u64,
        shares_clock: bool,
    ) -> ClockedVerifier {
        ClockedVerifier { roots, algorithms, now, floor_secs, shares_clock, told: AtomicBool::new(false) }
    }

    /// Returns whether the operator put this very certificate into `ca_file`: then no CA needs to vouch for it.
    fn is_chosen(&self, certificate: &CertificateDer<'_>) -> bool {
        let hash: [u8; 32] = Sha256::digest(certificate).into();
        self.roots.chosen.contains(&hash)
    }

    /// Input: `check`: checks the chain at a given time. Returns: the time at which it is valid.
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

/// Returns whether a certificate lacks only a trusted chain: it is marked as a CA's, as `openssl req -x509`
/// makes them, or its CA is unknown. Its dates have been checked by then.
/// Source: rustls-webpki 0.103.17, `check_issuer_independent_properties`: dates first, then the CA flag.
fn lacks_only_a_chain(error: &rustls::Error) -> bool {
    match error {
        // BadSignature: a known CA has the same name as the one that signed it.
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => true,
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
        }
        _ => false,
    }
}

/// Returns whether a certificate states no purpose, the server's, or any: webpki has not checked that of a CA's.
/// Source: RFC 5280, section 4.2.1.12.
fn may_be_a_server(certificate: &[u8]) -> bool {
    const PURPOSES: &[u8] = b"\x06\x03\x55\x1d\x25";
    const SERVER: &[u8] = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01";
    const ANY: &[u8] = b"\x06\x04\x55\x1d\x25\x00";
    let has = |id: &[u8]| certificate.windows(id.len()).any(|part| part == id);
    !has(PURPOSES) || has(SERVER) || has(ANY)
}

fn is_expired(found: &std::result::Result<u64, rustls::Error>) -> bool {
    use CertificateError::{Expired, ExpiredContext};
    matches!(found, Err(rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. })))
}

/// Returns the earliest possible present at which `check` passes.
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
        let is_chosen = self.is_chosen(certificate);
        let time = self.valid_at(&|secs| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(secs));
            match verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots.store,
                chain,
                time,
                self.algorithms.all,
            ) {
                Err(e) if is_chosen && lacks_only_a_chain(&e) => Ok(()),
                verified => verified,
            }
        })?;
        if is_chosen && !may_be_a_server(certificate) {
            return Err(CertificateError::InvalidPurpose.into());
        }
        verify_server_name(&parsed, name)?;
        let now = (self.now)();
        if time > now.with_floor(self.floor_secs).earliest_secs() && !self.told.swap(true, Ordering::Relaxed) {
            note(&format!(
                "{}: its certificate is valid from {}, and this machine's clock is not set ({}): whether that is past \
                 cannot be judged; continuing",
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

/// The clock that rustls itself uses.
pub(crate) struct FloorClock {
    now: Clock,
    floor_secs: u64,
}

impl FloorClock {
    pub(crate) fn new(now: Clock, floor_secs: u64) -> FloorClock {
        FloorClock { now, floor_secs }
    }
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
    use crate::http::crypto;
    use rustls::RootCertStore;
    use std::sync::Arc;

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
            let roots = Roots { store: RootCertStore::empty(), chosen: Vec::new() };
            let algorithms = crypto::provider().signature_verification_algorithms;
            let now: Clock = Arc::new(move || Now::new(clock, build));
            let verifier = ClockedVerifier::new(roots, algorithms, now, release, shares_clock);
            verifier.valid_at(&chain(parts)).ok()
        };
        // (clock, build, release date, same clock, chain) -> the time at which it is valid
        for (clock, build, release, shares, parts, valid) in [
            // The clock is set: certificates are checked as usual.
            (500, 100, 0, false, &[(400, 600)][..], Some(500)),
            (500, 100, 0, false, &[(501, 600)], None),
            (500, 100, 0, false, &[(400, 499)], None),
            // It is not set: what expired before the build has expired, what begins later may have begun.
            (3, 100, 0, false, &[(50, 600)], Some(100)),
            (3, 100, 0, false, &[(50, 99)], None),
            (3, 100, 0, false, &[(200, 600)], Some(200)),
            (3, 100, 0, false, &[(200, 600), (150, 900), (300, 400)], Some(300)),
            // These two are never valid together.
            (3, 100, 0, false, &[(200, 300), (301, 400)], None),
            (3, 100, 0, false, &[(200, 300), (50, 99)], None),
            // Certificates dated by the same clock are judged by that clock as well, but only those.
            (3, 100, 0, true, &[(0, 50)], Some(3)),
            (3, 100, 0, false, &[(0, 50)], None),
            (3, 100, 0, true, &[(200, 600)], Some(200)),
            (500, 100, 0, true, &[(501, 600)], None),
            // A mistyped release date excludes nothing by itself, and makes no invalid certificate valid.
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
        // The search ends, however many are not valid yet.
        let many: Vec<(u64, u64)> = (0..100).map(|n| (200 + n, 900)).collect();
        assert_eq!(verify(3, 100, 0, false, &many), None);
    }
}
