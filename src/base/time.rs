//! RFC 3339 timestamps and the seconds they stand for. Pure: no clock is read here.
//!
//! Must never: guess a time zone, or accept a date without one.

use crate::base::error::{Error, Kind, Result};
use std::fmt;

/// When the binary was built, in seconds since 1970: no clock before it is believed.
/// Source: `KUBESOLO_BUILD_EPOCH`, set by scripts/build.sh; 0 in a plain `cargo build`.
pub const BUILD_EPOCH: u64 = match option_env!("KUBESOLO_BUILD_EPOCH") {
    Some(text) => digits(text.as_bytes()),
    None => 0,
};

const fn digits(text: &[u8]) -> u64 {
    let mut value = 0u64;
    let mut i = 0;
    while i < text.len() {
        if text[i] < b'0' || text[i] > b'9' {
            return 0;
        }
        value = value * 10 + (text[i] - b'0') as u64;
        i += 1;
    }
    value
}

/// A moment: seconds since 1970, UTC. Shown as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Reads an RFC 3339 timestamp. Errors: as [`parse_rfc3339`].
    pub fn parse(text: &str) -> Result<Moment> {
        parse_rfc3339(text).map(Moment)
    }

    /// Reads a timestamp only in the form in which the agent writes it.
    pub fn parse_own(text: &str) -> Option<Moment> {
        Moment::parse(text).ok().filter(|moment| moment.to_string() == text)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&rfc3339(self.0))
    }
}

/// Writes seconds since 1970 as `YYYY-MM-DDThh:mm:ssZ`.
pub fn rfc3339(unix_secs: u64) -> String {
    let (days, rest) = (unix_secs / 86_400, unix_secs % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Reads an RFC 3339 timestamp; a fraction of a second is dropped.
/// Returns: seconds since 1970, UTC.
/// Errors: Source: any other shape, a day that does not exist, a time before 1970.
/// Source: RFC 3339 section 5.6.
pub fn parse_rfc3339(text: &str) -> Result<u64> {
    parse(text).ok_or_else(|| {
        Error::new(Kind::Source, "not an RFC 3339 time such as 2026-01-31T12:00:00Z").at("read time", text)
    })
}

fn parse(text: &str) -> Option<u64> {
    let b = text.as_bytes();
    let at = |i: usize, c: &[u8]| b.get(i).is_some_and(|x| c.contains(x));
    if !(at(4, b"-") && at(7, b"-") && at(10, b"Tt ") && at(13, b":") && at(16, b":")) {
        return None;
    }
    let num = |from: usize, to: usize| -> Option<u64> {
        let part = b.get(from..to)?;
        if !part.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(part).ok()?.parse().ok()
    };
    let (year, month, day) = (num(0, 4)?, num(5, 7)?, num(8, 10)?);
    let (hour, minute, second) = (num(11, 13)?, num(14, 16)?, num(17, 19)?);
    let real_day = (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month);
    if year < 1970 || !real_day || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut zone = b.get(19..)?;
    if zone.first() == Some(&b'.') {
        let fraction = zone[1..].iter().take_while(|c| c.is_ascii_digit()).count();
        if fraction == 0 {
            return None;
        }
        zone = &zone[1 + fraction..];
    }
    let local = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second.min(59);
    match zone {
        b"Z" | b"z" => Some(local),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|c| c.is_ascii_digit()) => {
            let two = |a: &u8, b: &u8| u64::from(a - b'0') * 10 + u64::from(b - b'0');
            let (hours, minutes) = (two(h1, h2), two(m1, m2));
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3600 + minutes * 60;
            if *sign == b'+' { local.checked_sub(offset) } else { local.checked_add(offset) }
        }
        _ => None,
    }
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_before_year(year: u64) -> u64 {
    let y = year - 1;
    y * 365 + y / 4 - y / 100 + y / 400
}

fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let before_month: u64 = (1..month).map(|m| days_in(year, m)).sum();
    days_before_year(year) - days_before_year(1970) + before_month + day - 1
}

fn civil(days: u64) -> (u64, u64, u64) {
    // 146,097 days are 400 years exactly, so the guess is never more than a year too high.
    let mut year = 1970 + days * 400 / 146_097;
    while days_from_civil(year, 1, 1) > days {
        year -= 1;
    }
    while days_from_civil(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut left = days - days_from_civil(year, 1, 1);
    let mut month = 1;
    while left >= days_in(year, month) {
        left -= days_in(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Writes a date in the form of HTTP: `Sun, 06 Nov 1994 08:49:37 GMT`. Input: seconds since 1970, UTC.
/// Source: RFC 9110, section 5.6.7.
pub fn http_date(unix_secs: u64) -> String {
    let (_, month, _) = civil(unix_secs / 86_400);
    let (weekday, _) = weekday_and_minute(unix_secs);
    // YYYY-MM-DDThh:mm:ssZ
    let text = rfc3339(unix_secs);
    let words = [DAYS[usize::from(weekday)], ", ", &text[8..10], " ", MONTHS[month as usize - 1], " ", &text[..4], " "];
    [&words.concat(), &text[11..19], " GMT"].concat()
}

/// Reads a date of HTTP, in any of its three forms.
/// Returns: seconds since 1970, UTC; `None`: any other shape. Seconds of 60 count as 59.
/// Source: RFC 9110, section 5.6.7; the year of the two-digit form is within fifty years of `now_secs`.
pub fn parse_http_date(text: &str, now_secs: u64) -> Option<u64> {
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|w| !w.is_empty()).collect();
    let number = |word: &str| word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse::<u64>().ok()).flatten();
    let (day, month, year, clock) = match words.as_slice() {
        // Sun, 06 Nov 1994 08:49:37 GMT; Sunday, 06-Nov-94 08:49:37 GMT
        [_, day, month, year, clock, "GMT"] => (day, month, year, clock),
        // Sun Nov  6 08:49:37 1994
        [_, month, day, clock, year] => (day, month, year, clock),
        _ => return None,
    };
    let month = MONTHS.iter().position(|m| m == month)? as u64 + 1;
    let mut year = match (year.len(), number(year)?) {
        (4, year) => year,
        (2, year) => {
            let (this_year, _, _) = civil(now_secs / 86_400);
            let year = this_year / 100 * 100 + year;
            if year > this_year + 50 { year - 100 } else { year }
        }
        _ => return None,
    };
    year = year.clamp(1969, 9999);
    let clock: Vec<u64> = clock.split(':').map(number).collect::<Option<_>>()?;
    let [hour, minute, second] = clock.as_slice() else { return None };
    if *hour > 23 || *minute > 59 || *second > 60 {
        return None;
    }
    let day = number(day)?;
    if year < 1970 || day < 1 || day > days_in(year, month) {
        return None;
    }
    Some(days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + (*second).min(59))
}

/// Returns the weekday, 0 = Monday, and the minute of the day, UTC.
pub fn weekday_and_minute(unix_secs: u64) -> (u8, u16) {
    // 1970-01-01 was a Thursday.
    (((unix_secs / 86_400 + 3) % 7) as u8, (unix_secs % 86_400 / 60) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_date() {
        // `date -u -d @N +%FT%TZ`
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_377_600, "2026-11-22T20:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(secs), text);
            assert_eq!(parse_rfc3339(text).unwrap(), secs);
        }
    }

    #[test]
    fn every_day_round_trips() {
        for day in 0..60_000u64 {
            let secs = day * 86_400 + 12_345;
            assert_eq!(parse_rfc3339(&rfc3339(secs)).unwrap(), secs);
        }
    }

    #[test]
    fn zones_and_fractions() {
        assert_eq!(parse_rfc3339("2026-11-22T21:30:00.25+01:30").unwrap(), 1_795_377_600);
        assert_eq!(parse_rfc3339("2026-11-22t12:00:00-08:00").unwrap(), 1_795_377_600);
    }

    #[test]
    fn refuses_other_shapes() {
        for bad in [
            "",
            "2026-11-22",
            "2026-11-22T20:00:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T20:00:00.Z",
            "2026-11-22T20:00:00+1:00",
            "1969-12-31T23:59:59Z",
            "+026-11-22T20:00:00Z",
            "2026-11-22T20:00:00Zx",
            "1970-01-01T00:00:00+01:00",
            "2026-11-22T20:00:0٣Z",
        ] {
            assert!(parse_rfc3339(bad).is_err(), "{bad}");
        }
    }

    /// Source: RFC 9110, section 5.6.7.
    #[test]
    fn the_three_dates_of_http() {
        let now = 1_795_377_600;
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        for secs in [0, 951_782_399, 1_709_164_800, 1_767_225_599, 4_102_444_800] {
            assert_eq!(parse_http_date(&http_date(secs), secs), Some(secs), "{secs}");
        }
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse_http_date(text, now), Some(784_111_777), "{text}");
        }
        assert_eq!(parse_http_date("Sunday, 22-Nov-26 20:00:00 GMT", now), Some(now));
        assert_eq!(parse_http_date("Monday, 01-Jan-76 00:00:00 GMT", now), Some(3_345_062_400));
        for bad in [
            "",
            "120",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
            "Sun, 06 Nov 1894 08:49:37 GMT",
            "Sun, 0x6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
        ] {
            assert_eq!(parse_http_date(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn weekdays() {
        assert_eq!(weekday_and_minute(1_795_377_600), (6, 20 * 60)); // 2026-11-22 is a Sunday
        assert_eq!(weekday_and_minute(0), (3, 0));
    }
}
