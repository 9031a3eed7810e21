//! Rejects answers that two readers could parse differently: their bytes before ureq reads them, and their headers after.
//! Pure.
//!
//! ureq and httparse decide what a header is. These are the rules that they lack; each has its test. Must never:
//! read a value that ureq reads as well.

use ureq::http::header::{HeaderMap, TRANSFER_ENCODING};
use ureq::http::{StatusCode, Version};

/// Longest head of an answer, in bytes.
pub(super) const MAX_HEAD: usize = 32 << 10;
/// Most interim heads (1xx) before that of the answer.
const MAX_INTERIM: usize = 8;
/// How every answer begins.
const VERSION: &[u8] = b"HTTP/1.";
/// Most lines of a head; ureq's limit (`MAX_RESPONSE_HEADERS`), for a better message.
const MAX_LINES: usize = 128;

/// State of the answer to one request.
#[derive(Debug, Default)]
pub(super) struct Guard {
    interim: usize,
}

/// What the received bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// An incomplete head.
    Part,
    /// An interim head (1xx) of this length, to be dropped.
    Interim(usize),
    /// A head, and whether the connection may be reused: if the body's length is given in two ways, an intermediary
    /// may have used the other one. Source: RFC 9112, section 6.3.
    Head { may_keep: bool },
}

impl Guard {
    /// Inspects the received bytes, and replaces line folds with blanks. Source: RFC 9112, section 5.2.
    /// Errors: why this is not an answer.
    pub fn look(&mut self, bytes: &mut [u8]) -> Result<Seen, String> {
        let shown = bytes.len().min(VERSION.len());
        if bytes[..shown] != VERSION[..shown] {
            return Err("the answer is not HTTP/1.1".to_owned());
        }
        let Some(length) = head_length(bytes) else {
            return if bytes.len() > MAX_HEAD { Err(too_long()) } else { Ok(Seen::Part) };
        };
        if length > MAX_HEAD {
            return Err(too_long());
        }
        let head = &mut bytes[..length];
        unfold(head);
        match head.split(|b| *b == b'\n').position(|line| !is_line(line)) {
            None => {}
            Some(0) => return Err("the status line is not that of HTTP/1.1".to_owned()),
            Some(_) => return Err("a header line is malformed".to_owned()),
        }
        // Plus the status line, and the parts after the two last line ends.
        if head.split(|b| *b == b'\n').count() > MAX_LINES + 3 {
            return Err(format!("more than {MAX_LINES} header lines"));
        }
        if !is_interim(head) {
            return Ok(Seen::Head { may_keep: !(has(head, b"transfer-encoding:") && has(head, b"content-length:")) });
        }
        self.interim += 1;
        match self.interim {
            0..=MAX_INTERIM => Ok(Seen::Interim(length)),
            _ => Err(format!("more than {MAX_INTERIM} headers before that of the answer")),
        }
    }
}

/// Returns whether a head is interim (1xx), which 101 is not. Malformed ones are left for ureq to refuse.
fn is_interim(head: &[u8]) -> bool {
    let rest = &head[VERSION.len()..];
    let [b'0' | b'1', b' ', b'1', ten, one, b' ' | b'\r' | b'\n', ..] = rest else { return false };
    let mut lines = rest.split(|b| *b == b'\n').skip(1).filter(|line| !matches!(line, [] | [b'\r']));
    ten.is_ascii_digit() && one.is_ascii_digit() && [*ten, *one] != *b"01" && lines.all(|line| line.contains(&b':'))
}

fn too_long() -> String {
    format!("the headers are longer than {MAX_HEAD} bytes")
}

/// Returns the length of the head at the start of these bytes, if it is complete.
fn head_length(bytes: &[u8]) -> Option<usize> {
    let ends = |at: usize| match &bytes[at + 1..] {
        [b'\r', b'\n', ..] => Some(at + 3),
        [b'\n', ..] => Some(at + 2),
        _ => None,
    };
    bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').find_map(|(at, _)| ends(at))
}

/// Joins folded header lines; the status line cannot be folded.
fn unfold(head: &mut [u8]) {
    let first = head.iter().position(|b| *b == b'\n').unwrap_or(head.len());
    for at in first + 1..head.len() {
        if let [b'\n', b' ' | b'\t'] = head[at..].get(..2).unwrap_or_default() {
            if head[at - 1] == b'\r' {
                head[at - 1] = b' ';
            }
            head[at] = b' ';
        }
    }
}

/// Returns whether a line is free of characters that could be taken for its end. Source: RFC 9110, section 5.5.
fn is_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f))
}

/// Returns whether a header has this name. Input: `name`: in lower case, with its colon.
fn has(head: &[u8], name: &[u8]) -> bool {
    head.split(|b| *b == b'\n').any(|line| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
}

/// Errors: the body has a transfer coding or a protocol that was not asked for.
/// Source: RFC 9112, section 6.1: to HTTP/1.0 and before, a transfer coding means nothing.
pub(super) fn framing(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    answers_head: bool,
) -> Result<(), String> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("the server changes to another protocol, which was not asked for".to_owned());
    }
    if answers_head || matches!(status.as_u16(), 204 | 304) || !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    let codings: Vec<_> =
        headers.get_all(TRANSFER_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let coding = codings.join(", ");
    if coding.eq_ignore_ascii_case("chunked") && version == Version::HTTP_11 {
        return Ok(());
    }
    let coding = if coding.is_empty() { "that is empty" } else { &coding };
    Err(format!("sent with Transfer-Encoding {coding}, which was not asked for"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderValue;

    fn look(text: &str) -> Result<Seen, String> {
        Guard::default().look(&mut text.as_bytes().to_vec())
    }

    const HEAD: Result<Seen, String> = Ok(Seen::Head { may_keep: true });

    #[test]
    fn what_is_not_http_is_refused_at_its_first_bytes() {
        for text in ["SSH-2.0", "HTTP/2", "<", "\r\nHTTP/1.1 200 OK\r\n\r\n", "hTTP/1.1 200 OK\r\n\r\n"] {
            assert!(look(text).is_err(), "{text:?}");
        }
        for text in ["", "HT", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nA: b\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n\r"] {
            assert_eq!(look(text), Ok(Seen::Part), "{text:?}");
        }
    }

    #[test]
    fn a_head_ends_at_an_empty_line_of_either_kind() {
        for text in
            ["HTTP/1.1 200 OK\r\n\r\nbody", "HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "HTTP/1.1 200 OK\nA: b\n\nbody\n\n"]
        {
            assert_eq!(look(text), HEAD, "{text:?}");
        }
    }

    #[test]
    fn a_head_has_its_longest() {
        let head = |length: usize| {
            let text = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(length));
            (text.len(), look(&text))
        };
        let room = MAX_HEAD - "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len();
        assert_eq!(head(room), (MAX_HEAD, HEAD));
        assert!(head(room + 1).1.is_err());
        // It is refused before it is complete.
        assert!(look(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD))).is_err());
    }

    #[test]
    fn a_head_has_so_many_lines() {
        let head = |count: usize| look(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count)));
        assert_eq!(head(MAX_LINES), HEAD);
        assert!(head(MAX_LINES + 1).unwrap_err().contains("128 header lines"));
    }

    #[test]
    fn nothing_can_be_taken_for_the_end_of_a_line() {
        for bad in ["\0", "\x0b", "\x0c", "\x7f", "\rX: c", "\r\r", "\x1b[2J"] {
            for text in [format!("HTTP/1.1 200 O{bad}K\r\n\r\n"), format!("HTTP/1.1 200 OK\r\nA: b{bad}\r\n\r\n")] {
                assert!(look(&text).is_err(), "{text:?}");
            }
        }
        assert_eq!(look("HTTP/1.1 200 \u{e9}\t\r\nA: \u{e9}\tb\r\n\r\n"), HEAD);
    }

    #[test]
    fn folds_become_blanks() {
        for (lines, want) in [
            ("A: b\r\n c\r\n", "A: b   c\r\n"),
            ("A: b\n\tc\n", "A: b \tc\n"),
            ("A:\r\n b\r\n", "A:   b\r\n"),
            ("A: b\r\n \r\nX: y\r\n", "A: b   \r\nX: y\r\n"),
        ] {
            let mut bytes = format!("HTTP/1.1 200 OK\r\n{lines}\r\n a").into_bytes();
            assert_eq!(Guard::default().look(&mut bytes), HEAD, "{lines:?}");
            // The status line cannot be folded, and a body is not ours to change.
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("HTTP/1.1 200 OK\r\n{want}\r\n a"), "{lines:?}");
        }
        let mut first = b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n".to_vec();
        assert_eq!(Guard::default().look(&mut first), HEAD);
        assert!(first.starts_with(b"HTTP/1.1 200 OK\r\n A"), "for ureq to refuse");
    }

    #[test]
    fn waits_end() {
        let (mut guard, mut wait) = (Guard::default(), b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP".to_vec());
        for _ in 0..MAX_INTERIM {
            assert_eq!(guard.look(&mut wait), Ok(Seen::Interim(wait.len() - 4)));
        }
        assert!(guard.look(&mut wait).unwrap_err().contains("more than 8 headers"));
        for line in ["101 Switching Protocols", "1000 X", "1xx X", "1", "10", "200 OK", "103 X\r\nno colon"] {
            assert_eq!(look(&format!("HTTP/1.1 {line}\r\n\r\n")), HEAD, "for ureq to judge: {line}");
        }
        assert_eq!(look("HTTP/1.9 100 X\r\n\r\n"), HEAD);
        assert_eq!(look("HTTP/1.0 199\n\n"), Ok(Seen::Interim(14)));
    }

    #[test]
    fn a_length_beside_chunks_ends_a_connection() {
        let both = "Transfer-Encoding: chunked\r\ncontent-length: 7\r\n";
        for (lines, may_keep) in [
            (both, false),
            ("Content-Length: 7\r\nX: y\r\nTRANSFER-ENCODING:chunked\r\n", false),
            ("Transfer-Encoding: chunked\r\n", true),
            ("Content-Length: 7\r\nX-Transfer-Encoding: x\r\n", true),
        ] {
            assert_eq!(look(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n")), Ok(Seen::Head { may_keep }), "{lines:?}");
        }
    }

    #[test]
    fn a_transfer_coding_is_chunked_or_refused() {
        for (values, version, answers_head, good) in [
            (&["chunked"][..], Version::HTTP_11, false, true),
            (&["Chunked"], Version::HTTP_11, false, true),
            (&["gzip, chunked"], Version::HTTP_11, false, false),
            (&["gzip", "chunked"], Version::HTTP_11, false, false),
            (&["chunked", "chunked"], Version::HTTP_11, false, false),
            (&["identity"], Version::HTTP_11, false, false),
            (&[""], Version::HTTP_11, false, false),
            (&["chunked"], Version::HTTP_10, false, false),
            (&["gzip"], Version::HTTP_11, true, true),
            (&[], Version::HTTP_10, false, true),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRANSFER_ENCODING, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(
                framing(StatusCode::OK, version, &headers, answers_head).is_ok(),
                good,
                "{values:?} {version:?}"
            );
            assert!(framing(StatusCode::NOT_MODIFIED, version, &headers, false).is_ok());
        }
        assert!(framing(StatusCode::SWITCHING_PROTOCOLS, Version::HTTP_11, &HeaderMap::new(), false).is_err());
    }
}
