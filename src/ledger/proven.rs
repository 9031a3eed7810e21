//! What was confirmed on this machine: the artifacts, and the newest release date among them, which only ever
//! grows. Pure.
//!
//! The content of `update/proven.json`. That date has certainly passed, so it is a floor for the clock; and no older release
//! is installed. Must never: move the date back, or jump ahead because a publisher mistyped a date.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::Moment;
use crate::slot::record::Record;
use miniserde::{Deserialize, Serialize, json};

/// Largest file that is read, in bytes.
pub const PROVEN_MAX_BYTES: u64 = 16 << 10;
/// Number of artifacts kept; the oldest are forgotten first.
const KEPT: usize = 16;
/// Furthest ahead of the clock that a date is believed, in seconds: ten years. Machines without a clock battery are
/// years behind; a date further off is a mistake.
const FURTHEST_SECS: u64 = 10 * 365 * 24 * 3600;

/// What was confirmed on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proven {
    /// Newest release date; `None`: no artifact with a signed date was confirmed yet.
    pub newest_release: Option<Moment>,
    /// Digests, in the order of confirmation.
    artifacts: Vec<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    newest_release_date: Option<String>,
    artifacts: Option<Vec<String>>,
}

impl Proven {
    /// Parses `proven.json`. Errors: State: malformed.
    pub fn parse(bytes: &[u8]) -> Result<Proven> {
        let bad = || Error::new(Kind::State, "is not a list of what was confirmed");
        let text = std::str::from_utf8(bytes).map_err(|_| bad())?;
        let raw: Raw = json::from_str(text).map_err(|_| bad())?;
        let newest_release = raw.newest_release_date.map(|date| Moment::parse(&date)).transpose();
        let artifacts = Digest::parse_all(&raw.artifacts.unwrap_or_default());
        Ok(Proven { newest_release: newest_release.map_err(|_| bad())?, artifacts: artifacts.map_err(|_| bad())? })
    }

    /// Writes it as one JSON line.
    pub fn encode(&self) -> String {
        let artifacts = Some(Digest::texts(&self.artifacts));
        let raw = Raw { newest_release_date: self.newest_release.map(|date| date.to_string()), artifacts };
        let mut text = json::to_string(&raw);
        text.push('\n');
        text
    }

    /// Records a confirmed artifact. Input: `date`: its release date, if that was signed;
    /// `now_secs`: the clock. Returns: whether anything changed.
    pub fn add(&mut self, artifact: Digest, date: Option<Moment>, now_secs: u64) -> bool {
        let before = self.clone();
        // Moved to the end: the other slot's artifact was confirmed just before this one, however old it is.
        self.artifacts.retain(|known| *known != artifact);
        self.artifacts.push(artifact);
        if self.artifacts.len() > KEPT {
            self.artifacts.remove(0);
        }
        let furthest = self.no_earlier_than(now_secs).saturating_add(FURTHEST_SECS);
        self.newest_release = self.newest_release.max(date.filter(|date| date.0 <= furthest));
        *self != before
    }

    /// Records a confirmed slot's artifact. The image builder's has no digest, and proves nothing.
    pub fn add_record(&mut self, record: &Record, now_secs: u64) -> bool {
        record.manifest_digest.is_some_and(|digest| self.add(digest, record.release_date, now_secs))
    }

    /// Returns whether an artifact was confirmed here.
    pub fn holds(&self, artifact: Digest) -> bool {
        self.artifacts.contains(&artifact)
    }

    /// Returns the later of a clock and the newest confirmed release date.
    pub fn no_earlier_than(&self, now_secs: u64) -> u64 {
        now_secs.max(self.newest_release.map_or(0, |date| date.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn artifact(n: usize) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    #[test]
    fn a_date_only_grows() {
        let mut proven = Proven::default();
        assert_eq!(proven.no_earlier_than(5), 5);
        let now = Moment::parse("2026-01-01T00:00:00Z").unwrap().0;
        assert!(proven.add(artifact(1), Moment::parse("2026-03-01T00:00:00Z").ok(), now));
        for (date, moves) in [
            (Some("2026-03-01T00:00:00Z"), false),
            (Some("2020-01-01T00:00:00Z"), false),
            (None, false),
            (Some("2026-03-01T00:00:01Z"), true),
        ] {
            let before = proven.newest_release;
            assert_eq!(proven.add(artifact(1), date.and_then(|date| Moment::parse(date).ok()), now), moves, "{date:?}");
            assert!(proven.newest_release >= before);
        }
        assert_eq!(proven.no_earlier_than(now), now + 59 * DAY + 1);
        assert_eq!(proven.no_earlier_than(now + 100 * DAY), now + 100 * DAY);
    }

    #[test]
    fn a_slip_of_the_pen_does_not_count() {
        let mut proven = Proven::default();
        let now = Moment::parse("2026-01-01T00:00:00Z").unwrap().0;
        proven.add(artifact(1), Moment::parse("2099-01-01T00:00:00Z").ok(), now);
        assert_eq!(proven.newest_release, None);
        proven.add(artifact(1), Moment::parse("2035-12-01T00:00:00Z").ok(), now);
        assert!(proven.newest_release.is_some());
    }

    #[test]
    fn artifacts_are_remembered_once_and_not_for_ever() {
        let mut proven = Proven::default();
        for n in 0..KEPT + 3 {
            assert!(proven.add(artifact(n), None, 0) && !proven.add(artifact(n), None, 0));
        }
        assert!(proven.holds(artifact(KEPT + 2)) && proven.holds(artifact(3)) && !proven.holds(artifact(2)));
        assert_eq!(Proven::parse(proven.encode().as_bytes()).unwrap(), proven);
        // Confirmed again, an artifact is not the next one to be forgotten.
        assert!(proven.add(artifact(3), None, 0) && !proven.add(artifact(3), None, 0));
        proven.add(artifact(100), None, 0);
        assert!(proven.holds(artifact(3)) && !proven.holds(artifact(4)));
    }

    #[test]
    fn survives_a_round_trip_and_is_none_when_broken() {
        let mut dated = Proven::default();
        dated.add(artifact(1), Moment::parse("2026-03-01T00:00:00Z").ok(), 1_700_000_000);
        for proven in [Proven::default(), dated] {
            assert_eq!(Proven::parse(proven.encode().as_bytes()).unwrap(), proven);
        }
        for bad in ["", "[]", r#"{"newest_release_date":"x"}"#, r#"{"artifacts":["x"]}"#, r#"{"artifacts":{}}"#, "\0"] {
            assert_eq!(Proven::parse(bad.as_bytes()).unwrap_err().exit_code(), 7, "{bad}");
        }
    }
}
