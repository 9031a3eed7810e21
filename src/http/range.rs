//! Interprets the answer to a request with Range. Pure.
//!
//! Must never: take one part for another, or an unreachable server for one that refuses Range.

use super::failure::Failure;
use crate::base::error::Kind;

/// This many consecutive Range requests without bytes count as a refusal, whatever the error: one may be a temporary failure.
const REFUSALS: u32 = 2;

/// Returns whether a failed Range request counts as a refusal of Range. Pure.
/// Input: `refused`: such requests in a row, 1 and more; `is_last`: there is no other try.
pub(super) fn is_refusal(failure: &Failure, refused: u32, is_last: bool) -> bool {
    let is_answer = matches!(failure.error.kind(), Kind::Network | Kind::Source | Kind::Digest);
    is_answer && !failure.unreached && (!failure.is_passing || refused >= REFUSALS || is_last)
}

/// Checks a Content-Range against the request. Input: `from`: first byte wanted, of all up to the end; `length`: of
/// the body, where it is known. Returns: where the part ends; that may be before the end of the file.
/// Source: RFC 9110, section 14.4.
pub(super) fn check_range(
    header: Option<&str>,
    from: u64,
    size_bytes: u64,
    length: Option<u64>,
) -> std::result::Result<u64, String> {
    let text = header.ok_or("it does not say which")?;
    let parsed = || {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
        let total = if total == "*" { size_bytes } else { number(total)? };
        Some((number(first)?, number(last)?, total))
    };
    match parsed() {
        Some((first, last, total)) if first == from && total == size_bytes && last >= first && last < total => {
            let end = last + 1;
            match length.filter(|length| *length != end - first) {
                None => Ok(end),
                Some(length) => Err(format!("'{text}' in {length} bytes")),
            }
        }
        _ => Err(format!("'{text}', not bytes {from}-{}/{size_bytes}", size_bytes.saturating_sub(1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Error;

    #[test]
    fn a_part_is_the_part_that_was_asked_for() {
        for (header, good) in [
            (Some("bytes 3-9/10"), true),
            (Some("bytes 3-9/*"), true),
            (Some("bytes 3-5/10"), true),
            (Some("bytes 0-9/10"), false),
            (Some("bytes 4-9/10"), false),
            (Some("bytes 3-9/11"), false),
            (Some("bytes 3-10/10"), false),
            (Some("bytes 3-2/10"), false),
            (Some("bytes */10"), false),
            (Some("items 3-9/10"), false),
            (Some("bytes 3-9"), false),
            (Some("bytes +3-9/10"), false),
            (Some("bytes 3-99999999999999999999/10"), false),
            (None, false),
        ] {
            assert_eq!(check_range(header, 3, 10, None).is_ok(), good, "{header:?}");
        }
        for (header, length, end) in [
            ("bytes 3-9/10", Some(7), Some(10)),
            ("bytes 3-3/10", Some(1), Some(4)),
            ("bytes 3-5/*", None, Some(6)),
            ("bytes 3-5/10", Some(7), None),
            ("bytes 3-9/10", Some(6), None),
            ("bytes 3-9/10", Some(0), None),
        ] {
            assert_eq!(check_range(Some(header), 3, 10, length).ok(), end, "{header} {length:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_from_a_passing_trouble() {
        let failure = |kind, is_passing, unreached| {
            let error = Error::new(kind, "x");
            Failure { is_passing, unreached, ..Failure::from(error) }
        };
        for (failure, refused, is_last, refusal) in [
            // 403, 404, 400; an endless redirect; a file of another length.
            (failure(Kind::Network, false, false), 1, false, true),
            (failure(Kind::Source, false, false), 1, false, true),
            (failure(Kind::Digest, false, false), 1, false, true),
            // 500, 503, a closed connection: only if repeated.
            (failure(Kind::Network, true, false), 1, false, false),
            (failure(Kind::Network, true, false), 2, false, true),
            (failure(Kind::Network, true, false), 1, true, true),
            // No server was reached.
            (failure(Kind::Network, true, true), 9, true, false),
            (failure(Kind::Network, false, true), 9, true, false),
            (failure(Kind::Config, false, false), 9, true, false),
        ] {
            assert_eq!(is_refusal(&failure, refused, is_last), refusal, "{failure:?} {refused} {is_last}");
        }
    }
}
