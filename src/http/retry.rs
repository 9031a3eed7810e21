//! Whether to retry a failed request, and how long to wait first. Pure: no clock, no dice.
//!
//! Must never: try without end, wait beyond the deadline, or retry at the same moment as all other machines.

use crate::base::clock::Now;
use crate::base::time::parse_http_date;
use std::time::Duration;

/// Longest wait before the second try; doubled before the third, and so on.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait of our own choosing.
const LONGEST: Duration = Duration::from_secs(60);
/// Next step after a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try again after this time.
    Wait(Duration),
    /// No tries are left.
    Enough,
    /// The server asks for more time than is left.
    TooLong(Duration),
}

/// Decides. Input: `failed`: consecutive tries without progress, 1 and more; `tries`: how many are allowed, whatever time
/// is left; `left`: until the deadline; `asked`: the wait that the server asks for; `dice`: a fresh random number.
///
/// Full jitter: any time between zero and a limit that doubles, so that machines that lost one server together do not
/// return together. The server's requested wait is added on top.
pub(crate) fn next(failed: u32, tries: u32, left: Duration, asked: Option<Duration>, dice: u64) -> Next {
    if failed >= tries {
        return Next::Enough;
    }
    let limit = longest(failed);
    let jitter = Duration::from_millis(dice % (limit.as_millis() as u64 + 1));
    let wait = asked.unwrap_or_default().saturating_add(jitter);
    match (wait < left, asked) {
        (true, _) => Next::Wait(wait),
        (false, Some(asked)) if asked >= left => Next::TooLong(asked),
        _ => Next::Enough,
    }
}

/// Returns whether a try may be the last one, whatever the dice. Input: as for [`next`].
pub(crate) fn may_be_last(failed: u32, tries: u32, left: Duration, asked: Option<Duration>) -> bool {
    failed >= tries || asked.is_some_and(|asked| asked.saturating_add(longest(failed)) >= left)
}

/// Longest wait of our own choosing after this many failures.
fn longest(failed: u32) -> Duration {
    FIRST.saturating_mul(1 << (failed.max(1) - 1).min(16)).min(LONGEST)
}

/// Describes how long retrying continues. Input: as for [`next`]; `is_watched`: a person is watching.
pub(crate) fn going_on(failed: u32, tries: u32, left: Duration, is_watched: bool) -> String {
    let try_of = format!(" (try {} of {tries}", failed.saturating_add(1));
    match is_watched {
        true => format!("{try_of}, for {} s at most; Ctrl-C is safe)", left.as_secs()),
        false => format!("{try_of})"),
    }
}

/// Returns whether a status is a temporary failure; 520 to 524 and 529 are a CDN's, about the server behind it.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502..=504 | 507 | 520..=524 | 529)
}

/// Parses `Retry-After`: seconds, or a date. Returns: `None` also for a date while the clock is not set.
/// Source: RFC 9110, section 10.2.3.
pub(crate) fn retry_after(header: &str, now: Now) -> Option<Duration> {
    let text = header.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // An overflowing number is longer than any wait of ours.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let now_secs = now.moment_secs()?;
    parse_http_date(text, now_secs).map(|at| Duration::from_secs(at.saturating_sub(now_secs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MAX_TRIES: u32 = 8;

    #[test]
    fn waits_double_up_to_a_minute_and_end() {
        let longest = |failed| match next(failed, MAX_TRIES, HOUR, None, u64::MAX) {
            Next::Wait(wait) => wait,
            other => panic!("{other:?}"),
        };
        for failed in 1..MAX_TRIES {
            let limit = Duration::from_secs((1 << (failed - 1)).min(60));
            assert!(longest(failed) <= limit);
            // Any wait up to the limit, both ends included.
            let millis = limit.as_millis() as u64;
            assert_eq!(next(failed, MAX_TRIES, HOUR, None, millis), Next::Wait(limit));
            assert_eq!(next(failed, MAX_TRIES, HOUR, None, millis + 1), Next::Wait(Duration::ZERO));
        }
        assert_eq!(next(MAX_TRIES, MAX_TRIES, HOUR, None, 0), Next::Enough);
        assert_eq!(next(u32::MAX, MAX_TRIES, HOUR, None, 0), Next::Enough);
    }

    #[test]
    fn no_wait_passes_the_deadline() {
        let second = Duration::from_secs(1);
        assert_eq!(next(1, MAX_TRIES, second / 2, None, 700), Next::Enough);
        assert_eq!(next(1, MAX_TRIES, Duration::ZERO, None, 0), Next::Enough);
        assert_eq!(next(1, MAX_TRIES, HOUR, Some(10 * second), 500), Next::Wait(10 * second + second / 2));
        assert_eq!(next(1, MAX_TRIES, HOUR, Some(HOUR * 24 * 365), 0), Next::TooLong(HOUR * 24 * 365));
        assert_eq!(next(1, MAX_TRIES, HOUR, Some(Duration::MAX), 0), Next::TooLong(Duration::MAX));
    }

    #[test]
    fn a_wait_that_may_not_be_waited_out_is_the_last_try() {
        let second = Duration::from_secs(1);
        for (failed, asked, is_last) in [
            (1, None, false),
            (1, Some(Duration::ZERO), false),
            (1, Some(HOUR - 2 * second), false),
            (1, Some(HOUR - second), true),
            (7, Some(HOUR - 61 * second), false),
            (7, Some(HOUR - 60 * second), true),
            (1, Some(HOUR), true),
            (1, Some(Duration::MAX), true),
            (MAX_TRIES, None, true),
        ] {
            assert_eq!(may_be_last(failed, MAX_TRIES, HOUR, asked), is_last, "{failed} {asked:?}");
            // A try said not to be the last is followed by a wait, whatever the dice.
            let worst = longest(failed).as_millis() as u64;
            let waits = matches!(next(failed, MAX_TRIES, HOUR, asked, worst), Next::Wait(_));
            assert_eq!(waits, !is_last, "{failed} {asked:?}");
        }
    }

    #[test]
    fn both_forms_of_retry_after() {
        for (header, secs) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:57 GMT", Some(20)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(header, Now::new(784_111_777, 0)), secs.map(Duration::from_secs), "{header}");
        }
        // A clock that is not set cannot tell how far away a date is.
        let not_set = Now::new(0, 784_111_777);
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:57 GMT", not_set), None);
        assert_eq!(retry_after("120", not_set), Some(Duration::from_secs(120)));
    }

    #[test]
    fn only_passing_trouble_is_tried_again() {
        let passing: Vec<u16> = (100..600).filter(|s| is_passing(*s)).collect();
        assert_eq!(passing, [408, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529]);
    }

    #[test]
    fn how_long_trying_goes_on() {
        let left = Duration::from_millis(117_900);
        assert_eq!(going_on(1, 3, left, false), " (try 2 of 3)");
        assert_eq!(going_on(2, 3, left, true), " (try 3 of 3, for 117 s at most; Ctrl-C is safe)");
    }
}
