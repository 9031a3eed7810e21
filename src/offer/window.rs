//! The maintenance window: when updates may be applied. Pure.
//!
//! `02:00-05:30`, or `Sat,Sun 22:00-04:00`; times are UTC, and a window that passes midnight belongs to the day on which it
//! opens. Must never: read a clock.

use crate::base::error::{Error, Kind, Result};
use crate::base::time::weekday_and_minute;
use std::fmt;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_MINUTES: u16 = 24 * 60;
const DAY_SECS: u64 = 24 * 3600;

/// One weekly window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    days: [bool; 7],
    open_minute: u16,
    close_minute: u16,
    text: String,
}

impl Window {
    /// Parses `[Day[,Day...] ]HH:MM-HH:MM`.
    /// Errors: Config: any other shape, or a window of zero length.
    pub fn parse(text: &str) -> Result<Window> {
        let bad = || {
            Error::new(
                Kind::Config,
                format!("`{text}` is not a window such as `02:00-05:00` or `Sat,Sun 22:00-04:00` (UTC)"),
            )
        };
        let (days_text, range) = match text.trim().rsplit_once(' ') {
            Some((days, range)) => (Some(days.trim()), range),
            None => (None, text.trim()),
        };
        let mut days = [days_text.is_none(); 7];
        for name in days_text.into_iter().flat_map(|d| d.split(',')) {
            let index = DAYS.iter().position(|d| d.eq_ignore_ascii_case(name.trim())).ok_or_else(bad)?;
            days[index] = true;
        }
        let (open, close) = range.split_once('-').ok_or_else(bad)?;
        let (open_minute, close_minute) = (minute(open).ok_or_else(bad)?, minute(close).ok_or_else(bad)?);
        if open_minute == close_minute || open_minute == DAY_MINUTES {
            return Err(bad());
        }
        Ok(Window { days, open_minute, close_minute, text: text.trim().to_string() })
    }

    /// Returns whether the window is open at a time (seconds since 1970, UTC).
    pub fn is_open(&self, unix_secs: u64) -> bool {
        let (day, minute) = weekday_and_minute(unix_secs);
        let today = self.days[usize::from(day)];
        let yesterday = self.days[usize::from((day + 6) % 7)];
        if self.open_minute < self.close_minute {
            return today && (self.open_minute..self.close_minute).contains(&minute);
        }
        (today && minute >= self.open_minute) || (yesterday && minute < self.close_minute)
    }

    /// Returns when it opens next, in seconds since 1970. Input: a time at which it is closed.
    pub fn opens_next(&self, unix_secs: u64) -> u64 {
        let (today, minute) = weekday_and_minute(unix_secs);
        let midnight = unix_secs - unix_secs % DAY_SECS;
        // Seven days ahead is today's weekday again.
        let opens = |ahead: u8| self.days[usize::from((today + ahead) % 7)] && (ahead > 0 || minute < self.open_minute);
        let ahead = (0..7).find(|ahead| opens(*ahead)).unwrap_or(7);
        midnight + u64::from(ahead) * DAY_SECS + u64::from(self.open_minute) * 60
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two =
        |t: &str| if t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit()) { t.parse::<u16>().ok() } else { None };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MINUTES).then_some(total)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} UTC", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // 2026-11-22T20:00:00Z, a Sunday.
    const SUNDAY_20: u64 = 1_795_377_600;
    const HOUR: u64 = 3600;

    #[test]
    fn opens_and_closes() {
        for (window, offset_hours, open) in [
            ("20:00-21:00", 0, true),
            ("20:01-21:00", 0, false),
            ("19:00-20:00", 0, false),
            ("19:00-24:00", 3, true),
            ("Sun 20:00-21:00", 0, true),
            ("Mon 20:00-21:00", 0, false),
            ("Mon,sun 22:00-04:00", 2, true),
            ("Sun 22:00-04:00", 7, true),  // Monday 03:00, opened on Sunday
            ("Sun 22:00-04:00", 8, false), // Monday 04:00
            ("Mon 22:00-04:00", 7, false), // Monday 03:00, opens on Monday evening
        ] {
            let w = Window::parse(window).unwrap();
            assert_eq!(w.is_open(SUNDAY_20 + offset_hours * HOUR), open, "{window} +{offset_hours}h");
        }
    }

    /// The next opening, compared with a search minute by minute.
    #[test]
    fn says_when_it_opens_next() {
        for text in [
            "02:00-03:00",
            "Sun 20:00-21:00",
            "Sun 19:00-19:01",
            "Mon,sun 22:00-04:00",
            "Sat 00:00-24:00",
            "20:01-20:00",
        ] {
            let w = Window::parse(text).unwrap();
            for offset_minutes in (0..8 * 24 * 60).step_by(37) {
                let now = SUNDAY_20 + offset_minutes * 60 + 17;
                if w.is_open(now) {
                    continue;
                }
                let minutes = (now / 60 + 1)..;
                let found = minutes.map(|minute| minute * 60).find(|secs| w.is_open(*secs)).unwrap();
                assert_eq!(w.opens_next(now), found, "{text} {now}");
            }
        }
    }

    #[test]
    fn refuses_other_shapes() {
        for bad in [
            "",
            "02:00",
            "2:00-5:00",
            "02:00-02:00",
            "24:00-05:00",
            "25:00-26:00",
            "02:60-03:00",
            "Foo 02:00-03:00",
            "02:00-24:01",
        ] {
            assert_eq!(Window::parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
