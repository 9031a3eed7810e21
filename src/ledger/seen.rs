//! What a source offered at the last check, so that the next check costs one small request. Pure.
//!
//! The content of `update/seen.json`. It saves a download of metadata and nothing else: whatever is installed is resolved
//! and verified again. Must never: be what an update is installed from.

use crate::base::digest::Digest;
use crate::ledger::traffic::Traffic;
use crate::offer::artifact::{Artifact, FileRef, Metadata, Place};
use miniserde::{Deserialize, Serialize, json};

/// Largest file that is read, in bytes.
pub const SEEN_MAX_BYTES: u64 = 64 * 1024;

/// One answer of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastOffer {
    /// Identifies the answer: the digest behind a tag, or an ETag.
    pub validator: String,
    /// Fingerprint of keys and revocations at that time: see [`crate::trust::keyring::Keyring::fingerprint`].
    pub keyring: Digest,
    /// The artifact offered. Its files cannot be opened: they have no place.
    pub artifact: Artifact,
    /// What an update to it would fetch, once that was found out.
    pub forecast: Option<Forecast>,
}

/// What an update would fetch, on a machine that runs a certain initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Digest of that initramfs.
    pub running: Digest,
    /// What would be fetched, and copied.
    pub traffic: Traffic,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    source: Option<String>,
    validator: Option<String>,
    release: Option<Metadata>,
    manifest_digest: Option<String>,
    index_digest: Option<String>,
    keyring: Option<String>,
    signed_by: Option<Vec<String>>,
    kernel: Option<RawFile>,
    initramfs: Option<RawFile>,
    forecast: Option<RawForecast>,
}

#[derive(Serialize, Deserialize)]
struct RawForecast {
    running: String,
    fetch: u64,
    at_hand: u64,
}

#[derive(Serialize, Deserialize)]
struct RawFile {
    size: u64,
    sha256: String,
}

impl LastOffer {
    /// Parses `seen.json`. Returns: `None` if it is broken: then the source is asked in full.
    pub fn parse(bytes: &[u8]) -> Option<LastOffer> {
        let raw: Raw = json::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
        let file = |raw: Option<RawFile>| {
            let raw = raw?;
            let sha256 = Digest::parse_hex(&raw.sha256).ok()?;
            Some(FileRef { size_bytes: raw.size, sha256, chunks: None, place: Place::Nowhere })
        };
        let index_digest = match raw.index_digest {
            Some(text) => Some(Digest::parse(&text).ok()?),
            None => None,
        };
        let signed_by = Digest::parse_all(&raw.signed_by.unwrap_or_default()).ok()?;
        let artifact = Artifact {
            release: raw.release?,
            digest: Digest::parse(&raw.manifest_digest?).ok()?,
            index_digest,
            passed: Vec::new(),
            signed_by,
            source: raw.source?,
            kernel: file(raw.kernel)?,
            initramfs: file(raw.initramfs)?,
        };
        let forecast = raw.forecast.and_then(|raw| {
            let running = Digest::parse_hex(&raw.running).ok()?;
            let traffic = Traffic { fetched_bytes: raw.fetch, copied_bytes: raw.at_hand };
            Some(Forecast { running, traffic })
        });
        Some(LastOffer { validator: raw.validator?, keyring: Digest::parse(&raw.keyring?).ok()?, artifact, forecast })
    }

    /// Writes it as one JSON line.
    pub fn encode(&self) -> String {
        let a = &self.artifact;
        let file = |f: &FileRef| Some(RawFile { size: f.size_bytes, sha256: f.sha256.hex() });
        let mut text = json::to_string(&Raw {
            source: Some(a.source.clone()),
            validator: Some(self.validator.clone()),
            release: Some(a.release.clone()),
            manifest_digest: Some(a.digest.to_string()),
            index_digest: a.index_digest.map(|d| d.to_string()),
            keyring: Some(self.keyring.to_string()),
            signed_by: Some(Digest::texts(&a.signed_by)),
            kernel: file(&a.kernel),
            initramfs: file(&a.initramfs),
            forecast: self.forecast.map(|f| RawForecast {
                running: f.running.hex(),
                fetch: f.traffic.fetched_bytes,
                at_hand: f.traffic.copied_bytes,
            }),
        });
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> LastOffer {
        let file = |n| FileRef { size_bytes: n, sha256: Digest::of(b"f"), chunks: None, place: Place::Nowhere };
        let artifact = Artifact {
            release: Metadata {
                version: "1.2.0".into(),
                channel: Some("stable".into()),
                architecture: Some("amd64".into()),
                release_notes: Some("first\nsecond".into()),
                release_date: Some("2026-01-01T00:00:00Z".into()),
                ..<Metadata as Default>::default()
            },
            digest: Digest::of(b"m"),
            index_digest: Some(Digest::of(b"i")),
            passed: Vec::new(),
            signed_by: vec![Digest::of(b"k")],
            source: "registry r/os:latest".into(),
            kernel: file(7),
            initramfs: file(8),
        };
        let forecast =
            Some(Forecast { running: Digest::of(b"r"), traffic: Traffic { fetched_bytes: 9, copied_bytes: 6 } });
        LastOffer { validator: "\"e\"".into(), keyring: Digest::of(b"ring"), artifact, forecast }
    }

    #[test]
    fn survives_a_round_trip_and_no_truncation() {
        let text = seen().encode();
        assert_eq!(LastOffer::parse(text.as_bytes()), Some(seen()));
        let without = LastOffer { forecast: None, ..seen() };
        assert_eq!(LastOffer::parse(without.encode().as_bytes()), Some(without));
        for cut in 0..text.len() - 2 {
            assert_eq!(LastOffer::parse(&text.as_bytes()[..cut]), None, "{cut}");
        }
        for (from, to) in [("sha256:", "sha1:"), ("\"size\":7", "\"size\":-7"), ("validator", "v"), ("keyring", "k")] {
            assert_eq!(LastOffer::parse(text.replacen(from, to, 1).as_bytes()), None, "{to}");
        }
    }
}
