//! Artifacts that rolled back, so that they are not tried again by themselves. Pure.
//!
//! The content of `update/failed.json`. Must never: grow without bound.

use crate::error::{Error, Kind, Result};
use crate::oci::digest::Digest;
use crate::text::printable;
use miniserde::{Deserialize, Serialize, json};

/// How many are remembered; the oldest are forgotten first.
const KEPT: usize = 32;
/// Largest file that is read, in bytes.
pub const FAILED_MAX_BYTES: u64 = 256 * 1024;

/// One artifact that must not be taken again by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Identity of the artifact.
    pub digest: Digest,
    /// Its version, for people.
    pub version: String,
    /// Why it was rolled back.
    pub reason: String,
    /// When (RFC 3339).
    pub at: String,
}

/// Holds the remembered failures, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(Vec<Failure>);

#[derive(Serialize, Deserialize)]
struct RawFailure {
    manifest_digest: String,
    version: Option<String>,
    reason: Option<String>,
    at: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    failed: Vec<RawFailure>,
}

impl Failures {
    /// Reads `failed.json`.
    /// Errors: State: not JSON, or a digest that is none.
    pub fn parse(bytes: &[u8]) -> Result<Failures> {
        let bad = || Error::new(Kind::State, "is not a list of failed artifacts");
        let text = std::str::from_utf8(bytes).map_err(|_| bad())?;
        let raw: Raw = json::from_str(text).map_err(|_| bad())?;
        let mut failures = Failures::default();
        for f in raw.failed {
            failures.remember(Failure {
                digest: Digest::parse(&f.manifest_digest).map_err(|_| bad())?,
                version: f.version.unwrap_or_default(),
                reason: f.reason.unwrap_or_default(),
                at: f.at.unwrap_or_default(),
            });
        }
        Ok(failures)
    }

    /// Writes the list as one JSON line.
    pub fn encode(&self) -> String {
        let failed = self.0.iter().map(|f| RawFailure {
            manifest_digest: f.digest.to_string(),
            version: Some(f.version.clone()),
            reason: Some(f.reason.clone()),
            at: Some(f.at.clone()),
        });
        let mut text = json::to_string(&Raw { failed: failed.collect() });
        text.push('\n');
        text
    }

    /// Adds a failure; an older entry of the same artifact goes.
    pub fn remember(&mut self, mut failure: Failure) {
        failure.reason = printable(&failure.reason);
        self.0.retain(|f| f.digest != failure.digest);
        self.0.push(failure);
        if self.0.len() > KEPT {
            self.0.remove(0);
        }
    }

    /// Removes an artifact: it proved itself after all.
    /// Returns: whether it was there.
    pub fn forget(&mut self, digest: Digest) -> bool {
        let before = self.0.len();
        self.0.retain(|f| f.digest != digest);
        self.0.len() != before
    }

    /// Returns what the gates need.
    pub fn reasons(&self) -> Vec<(Digest, String)> {
        self.0.iter().map(|f| (f.digest, f.reason.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(n: usize) -> Failure {
        let digest = Digest::of(&n.to_le_bytes());
        Failure { digest, version: format!("1.0.{n}"), reason: "unhealthy".into(), at: "2026-11-22T20:00:00Z".into() }
    }

    #[test]
    fn remembers_once_and_not_for_ever() {
        let mut list = Failures::default();
        for n in 0..KEPT + 5 {
            list.remember(failure(n));
            list.remember(failure(n));
        }
        assert_eq!(list.0.len(), KEPT);
        assert_eq!(list.0[0], failure(5));
        assert_eq!(Failures::parse(list.encode().as_bytes()).unwrap(), list);
        assert!(list.forget(failure(7).digest) && !list.forget(failure(7).digest));
    }

    #[test]
    fn broken_files_are_errors() {
        for bad in ["", "{}", "[]", "{\"failed\":[{\"manifest_digest\":\"x\"}]}", "{\"failed\":{}}", "\u{0}"] {
            assert_eq!(Failures::parse(bad.as_bytes()).unwrap_err().exit_code(), 7, "{bad}");
        }
    }
}
