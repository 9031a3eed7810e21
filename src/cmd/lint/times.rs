//! Dates of a release: as machines read them, and, for publishers, `now` and a span such as `180d`. Pure.
//!
//! Must never: accept what other tools (date, scripts/sign.sh) do not read, or count a span from an unexpected date.

use crate::base::error::{Error, Kind, Result};
use crate::base::time::{parse_rfc3339, rfc3339};

/// How far a date may be ahead of the local clock without a warning, in seconds. Source: scripts/sign.sh signs no more.
const AHEAD_SECS: u64 = 24 * 3600;
/// Most digits of a span.
const DIGITS_MAX: usize = 5;

/// The dates of a release, as text.
pub(super) struct Dates {
    /// A moment.
    pub(super) release: Option<String>,
    /// A moment.
    pub(super) expires: Option<String>,
    /// Whether one of them was not given as a moment.
    pub(super) are_made: bool,
}

/// Turns `now` and spans into moments. Input: a span counts from the release date, or, without one, from now.
/// Errors: Source: neither a moment nor a span.
pub(super) fn settle(release: Option<&str>, expires: Option<&str>, now_secs: u64) -> Result<Dates> {
    let is_now = release == Some("now");
    let release = if is_now { Some(rfc3339(now_secs)) } else { release.map(str::to_owned) };
    let span_secs = expires.and_then(span);
    let expires = match span_secs {
        None => expires.map(str::to_owned),
        Some(secs) => {
            let from_secs = release.as_deref().map_or(Ok(now_secs), |text| read("--release-date", text))?;
            Some(rfc3339(from_secs + secs))
        }
    };
    Ok(Dates { release, expires, are_made: is_now || span_secs.is_some() })
}

/// Reads a span: whole hours, days or weeks. Returns: seconds; `None`: not a span.
fn span(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_secs = match unit {
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        _ => return None,
    };
    let is_number = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
    number.parse::<u64>().ok().filter(|_| is_number && number.len() <= DIGITS_MAX).map(|count| count * unit_secs)
}

/// Returns: a warning about dates that are accepted now and may be regretted.
/// Errors: Source: no machine would take the release.
pub(super) fn judge(dates: &Dates, now_secs: u64) -> Result<Option<String>> {
    let date = dates.release.as_deref().map(|text| read("--release-date", text)).transpose()?;
    let now = rfc3339(now_secs);
    if let Some(text) = &dates.expires {
        let expires_secs = read("--expires", text)?;
        let refused = |why: String| Err(Error::new(Kind::Source, why).at("judge --expires", text));
        if expires_secs <= now_secs {
            return refused(format!("it is past, now is {now}: no machine would take the release"));
        }
        if date.is_some_and(|date_secs| expires_secs <= date_secs) {
            return refused("it is not after --release-date: no machine would ever take the release".into());
        }
    }
    let is_ahead = date.is_some_and(|date_secs| date_secs > now_secs.saturating_add(AHEAD_SECS));
    Ok(dates.release.as_ref().filter(|_| is_ahead).map(|text| {
        format!(
            "--release-date {text} is more than a day ahead, now is {now}: a machine on which the release has run takes none \
             with an earlier date, so no other release reaches it until then"
        )
    }))
}

fn read(option: &str, text: &str) -> Result<u64> {
    let other =
        if option == "--expires" { "a span such as 180d (h, d or w, from the release date or now on)" } else { "now" };
    let hint = || format!("{option} must be a time that exists, such as 2026-01-31T12:00:00Z, or {other}");
    let secs = parse_rfc3339(text).map_err(|e| e.hint(hint()))?;
    if !is_plain(text) {
        let why = "machines read it, and other tools (date, scripts/sign.sh) do not";
        return Err(Error::new(Kind::Source, why).at("read time", text).hint(hint()));
    }
    Ok(secs)
}

/// Returns whether a time has capital letters, no blank and no leap second.
fn is_plain(time: &str) -> bool {
    time.bytes().all(|b| b.is_ascii_digit() || b"TZ:.+-".contains(&b)) && time.get(17..19) != Some("60")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-31T12:00:00Z
    const NOW_SECS: u64 = 1_769_860_800;

    /// Release date, expiry, and both as moments; nothing: refused. One line is one case.
    type Row = (Option<&'static str>, Option<&'static str>, Option<(&'static str, &'static str)>);
    const ROWS: &[Row] = &[
        (None, Some("180d"), Some(("", "2026-07-30T12:00:00Z"))),
        (None, Some("36h"), Some(("", "2026-02-02T00:00:00Z"))),
        (None, Some("26w"), Some(("", "2026-08-01T12:00:00Z"))),
        (None, Some("99999d"), Some(("", "2299-11-15T12:00:00Z"))),
        (Some("now"), None, Some(("2026-01-31T12:00:00Z", ""))),
        (Some("now"), Some("1d"), Some(("2026-01-31T12:00:00Z", "2026-02-01T12:00:00Z"))),
        (Some("2026-01-30T00:00:00Z"), Some("29d"), Some(("2026-01-30T00:00:00Z", "2026-02-28T00:00:00Z"))),
        (Some("2026-01-31T01:00:00+01:00"), Some("24h"), Some(("2026-01-31T01:00:00+01:00", "2026-02-01T00:00:00Z"))),
        (Some("2026-01-01T00:00:00Z"), Some("7d"), None), // past
        (Some("yesterday"), Some("7d"), None),
        (None, Some("now"), None),
        (Some("7d"), None, None),
        (None, Some("0d"), None),
        (None, Some("-1d"), None),
        (None, Some("+180d"), None),
        (None, Some("180 d"), None),
        (None, Some("180 days"), None),
        (None, Some("180days"), None),
        (None, Some("180D"), None),
        (None, Some("180"), None),
        (None, Some("d"), None),
        (None, Some(""), None),
        (None, Some("6m"), None),
        (None, Some("1y"), None),
        (None, Some("1d12h"), None),
        (None, Some("1.5d"), None),
        (None, Some("007d"), None),
        (None, Some("100000d"), None),
        (None, Some("99999999999999999999d"), None),
        (None, Some("P180D"), None),
        (None, Some("１d"), None),
        (None, Some("1ｄ"), None),
    ];

    #[test]
    fn a_span_counts_from_the_release_date_or_from_now() {
        for (release, expires, wanted) in ROWS {
            let settled = settle(*release, *expires, NOW_SECS);
            let judged = settled.and_then(|dates| judge(&dates, NOW_SECS).map(|_| dates));
            match wanted {
                None => assert!(judged.is_err(), "{release:?} {expires:?}"),
                Some((date, end)) => {
                    let dates = judged.unwrap();
                    let both = (dates.release.as_deref().unwrap_or(""), dates.expires.as_deref().unwrap_or(""));
                    assert_eq!(both, (*date, *end), "{release:?} {expires:?}");
                }
            }
        }
    }
}
