//! What is known of the time: an interval, not a moment. Pure.
//!
//! A machine without a clock battery starts in 1970, and its clock may never be set. The time is then known to be no earlier
//! than the build of this program, or the date of a release that ran here (the floor); how much later is unknown.
//! Must never: return the time of day from a clock that is not set.

use crate::base::time::rfc3339;
use std::fmt;

/// How far the clock may be behind the build and still give the time of day, in seconds: builders use their own time zone, and
/// clocks drift.
const SLACK_SECS: u64 = 24 * 3600;

/// The present time, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    clock_secs: u64,
    build_secs: u64,
    floor_secs: u64,
}

impl Now {
    /// Input: `clock_secs`: the system clock; `build_secs`: when this program was built. Both in seconds since
    /// 1970, UTC.
    pub fn new(clock_secs: u64, build_secs: u64) -> Now {
        Now { clock_secs, build_secs, floor_secs: build_secs }
    }

    /// Returns the same with one more time known to be past, according to a publisher: the date of a release.
    pub fn with_floor(self, floor_secs: u64) -> Now {
        Now { floor_secs: self.floor_secs.max(floor_secs), ..self }
    }

    /// Returns the lower end: whatever ends before it has ended. For expiry, and for stamps.
    pub fn earliest_secs(self) -> u64 {
        self.clock_secs.max(self.floor_secs)
    }

    /// Returns what the clock reads, right or wrong: dates made on this machine come from it.
    pub fn clock_secs(self) -> u64 {
        self.clock_secs
    }

    /// Returns whether the time has no known upper end: the clock is behind a time that is certainly past. Then nothing can be
    /// said to lie in the future.
    pub fn has_no_upper_end(self) -> bool {
        self.clock_secs < self.floor_secs
    }

    /// Returns the moment, for a time of day or of the week; `None`: the clock is not set. A release dated ahead does not cause
    /// that: it would close every window until then.
    pub fn moment_secs(self) -> Option<u64> {
        (self.clock_secs.saturating_add(SLACK_SECS) >= self.build_secs).then_some(self.clock_secs)
    }
}

/// Describes what is wrong with the clock.
impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.moment_secs() {
            Some(moment) => write!(f, "now is {}", rfc3339(moment)),
            None => {
                let (clock, build) = (rfc3339(self.clock_secs), rfc3339(self.build_secs));
                write!(f, "the clock is not set ({clock}): it is before {build}, when this program was built")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::parse_rfc3339;

    /// Each line is a case; a case is added by adding a line. `gate_tests.rs` has the words.
    const TABLE: &str = include_str!("../../tests/fixtures/clocks.tsv");

    #[test]
    fn each_question_has_its_own_answer() {
        let secs = |text: &str| parse_rfc3339(text).expect(text);
        let mut cases = 0;
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let [clock, build, release, earliest, moment, open] =
                line.split('\t').collect::<Vec<_>>().try_into().expect(line);
            let mut now = Now::new(secs(clock), secs(build));
            if release != "-" {
                now = now.with_floor(secs(release));
            }
            assert_eq!(rfc3339(now.earliest_secs()), earliest, "{line}");
            assert_eq!(now.moment_secs().map_or("-".into(), rfc3339), moment, "{line}");
            assert_eq!(now.has_no_upper_end(), open == "open", "{line}");
            let says_so = now.to_string().contains(&format!("the clock is not set ({clock})"));
            assert_eq!(says_so, moment == "-", "{line}: {now}");
            cases += 1;
        }
        assert!(cases >= 8, "{cases}");
    }
}
