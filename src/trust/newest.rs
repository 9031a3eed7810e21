//! The newest release that this machine has verified and taken: its date only ever grows. Pure.
//!
//! The content of `update/verified.json`. It is a floor for the clock, since that moment has certainly passed, and no
//! release from before it is taken. Must never: move back, or jump by what a slip of the publisher's pen says.

use crate::error::{Error, Kind, Result};
use crate::time::{parse_rfc3339, rfc3339};
use miniserde::{Deserialize, Serialize, json};

/// Largest file that is read, in bytes.
pub const NEWEST_MAX_BYTES: u64 = 4 << 10;
/// Furthest ahead of the clock that a date is believed, in seconds: ten years. Machines without a clock battery are
/// years behind; a date that is further off is a slip, and would lock the machine out of every update until then.
const FURTHEST_SECS: u64 = 10 * 365 * 24 * 3600;

/// Remembers the date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    /// Release date in seconds since 1970, UTC; `None`: no release with a date was taken yet.
    pub release_secs: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    newest_release_date: Option<String>,
}

impl Newest {
    /// Reads `verified.json`. Errors: State: it is none.
    pub fn parse(bytes: &[u8]) -> Result<Newest> {
        let bad = || Error::new(Kind::State, "does not say when the newest verified release was made");
        let text = std::str::from_utf8(bytes).map_err(|_| bad())?;
        let raw: Raw = json::from_str(text).map_err(|_| bad())?;
        let release_secs = raw.newest_release_date.map(|date| parse_rfc3339(&date)).transpose();
        Ok(Newest { release_secs: release_secs.map_err(|_| bad())? })
    }

    /// Writes it as one JSON line.
    pub fn encode(&self) -> String {
        let mut text = json::to_string(&Raw { newest_release_date: self.release_secs.map(rfc3339) });
        text.push('\n');
        text
    }

    /// Takes a verified release into account. Input: `date`: RFC 3339; `now_secs`: the clock.
    /// Returns: whether anything is new. Errors: Source: it is no date.
    pub fn advance(&mut self, date: &str, now_secs: u64) -> Result<bool> {
        let secs = parse_rfc3339(date)?;
        let believable = secs <= self.no_earlier_than(now_secs).saturating_add(FURTHEST_SECS);
        let is_newer = believable && self.release_secs.is_none_or(|known| secs > known);
        if is_newer {
            self.release_secs = Some(secs);
        }
        Ok(is_newer)
    }

    /// Returns the later of a clock and what is certainly past.
    pub fn no_earlier_than(&self, now_secs: u64) -> u64 {
        now_secs.max(self.release_secs.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn a_date_only_grows() {
        let mut newest = Newest::default();
        assert_eq!(newest.no_earlier_than(5), 5);
        let now = parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        assert!(newest.advance("2026-03-01T00:00:00Z", now).unwrap());
        for (date, moves) in
            [("2026-03-01T00:00:00Z", false), ("2020-01-01T00:00:00Z", false), ("2026-03-01T00:00:01Z", true)]
        {
            let before = newest;
            assert_eq!(newest.advance(date, now).unwrap(), moves, "{date}");
            assert!(newest.release_secs >= before.release_secs);
        }
        assert_eq!(newest.no_earlier_than(now), now + 59 * DAY + 1);
        assert_eq!(newest.no_earlier_than(now + 100 * DAY), now + 100 * DAY);
        assert!(newest.advance("tomorrow", now).is_err());
    }

    #[test]
    fn a_slip_of_the_pen_locks_nobody_out() {
        let mut newest = Newest::default();
        let now = parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        assert!(!newest.advance("2099-01-01T00:00:00Z", now).unwrap());
        assert_eq!(newest, Newest::default());
        assert!(newest.advance("2035-12-01T00:00:00Z", now).unwrap());
    }

    #[test]
    fn survives_a_round_trip_and_is_none_when_broken() {
        for newest in [Newest::default(), Newest { release_secs: Some(1_700_000_000) }] {
            assert_eq!(Newest::parse(newest.encode().as_bytes()).unwrap(), newest);
        }
        for bad in ["", "[]", "{\"newest_release_date\":\"x\"}", "{\"newest_release_date\":7}", "\u{0}"] {
            assert_eq!(Newest::parse(bad.as_bytes()).unwrap_err().exit_code(), 7, "{bad}");
        }
    }
}
