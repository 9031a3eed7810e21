//! HTTP/1.1 as bytes: writes the head of a request, reads the head of an answer. Pure.
//!
//! Must never: write a character that could end a header line, or guess where a body ends.

use crate::error::{Error, Kind, Result};

/// Longest head of an answer, in bytes; as long as its trailer may be.
pub(super) const MAX_HEAD: usize = 32 << 10;
/// Longest ETag that is kept, in bytes.
const MAX_ETAG: usize = 256;
/// What every answer begins with.
const VERSION: &[u8] = b"HTTP/1.";

/// Writes a request, head and body.
/// Input: `target`: a path, or a URL or authority for a proxy; `headers`: besides Host; `body`: its length is added.
/// Errors: Source: a value that is not fit for a header; the header is named and not shown.
/// Source: RFC 9112, sections 3 and 5.
pub(super) fn request(
    method: &str,
    target: &str,
    host: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(512);
    let mut add = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    add(&[method, " ", target, " HTTP/1.1\r\nHost: ", host, "\r\n"]);
    for (name, value) in headers {
        if value.chars().any(char::is_control) {
            return Err(Error::new(Kind::Source, "not fit for an HTTP header").at("send", name));
        }
        add(&[name, ": ", value, "\r\n"]);
    }
    if let Some(body) = body {
        add(&["Content-Length: ", &body.len().to_string(), "\r\n"]);
    }
    add(&["\r\n", body.unwrap_or_default()]);
    Ok(out)
}

/// Returns how long a head is that begins these bytes, if they hold all of it. Input: `from`: where to begin looking.
pub(super) fn head_length(bytes: &[u8], from: usize) -> Option<usize> {
    let mut line = from;
    while let Some(end) = bytes[line..].iter().position(|b| *b == b'\n') {
        let next = line + end + 1;
        match &bytes[next..] {
            [b'\r', b'\n', ..] => return Some(next + 2),
            [b'\n', ..] => return Some(next + 1),
            _ => line = next,
        }
    }
    None
}

/// Says whether these bytes can not be the beginning of an answer.
pub(super) fn is_not_http(bytes: &[u8]) -> bool {
    let shown = bytes.len().min(VERSION.len());
    bytes[..shown] != VERSION[..shown]
}

/// Where a body ends. Source: RFC 9112, section 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After a chunk without bytes.
    Chunked,
    /// With the connection.
    Close,
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub status: u16,
    /// Whether the connection can be used again, once the body is read.
    pub keeps: bool,
    minor: u8,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Parses a whole head. Input: see [`head_length`]. Errors: why it is none.
    /// Source: RFC 9112, sections 4 and 5. A line of the head may end without a carriage return (section 2.2), and a value
    /// may go on in the next line (section 5.2).
    pub fn parse(bytes: &[u8]) -> std::result::Result<Head, String> {
        let mut lines = bytes.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let (minor, status) =
            status_line(lines.next().unwrap_or_default()).ok_or("the status line is not that of HTTP/1.1")?;
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            match (line, headers.last_mut()) {
                ([b' ' | b'\t', ..], Some((_, folded))) => {
                    let more = text(line).ok_or("a header line is malformed")?;
                    let blank = if folded.is_empty() || more.is_empty() { "" } else { " " };
                    folded.push_str(blank);
                    folded.push_str(&more);
                }
                _ => headers.push(header(line).ok_or("a header line is malformed")?),
            }
        }
        let mut head = Head { status, keeps: minor == 1, minor, headers };
        if head.all("connection").flat_map(|v| v.split(',')).any(|o| o.trim().eq_ignore_ascii_case("close")) {
            head.keeps = false;
        }
        Ok(head)
    }

    pub fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Returns every header of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Errors: why it can not be said where the body ends.
    pub fn framing(&mut self, answers_head: bool) -> std::result::Result<Framing, String> {
        let length = self.length()?;
        let is_coded = self.header("transfer-encoding").is_some();
        let coded = self.all("transfer-encoding").collect::<Vec<_>>().join(", ");
        if answers_head || matches!(self.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        if is_coded {
            if !coded.eq_ignore_ascii_case("chunked") || self.minor == 0 {
                let coded = if coded.is_empty() { "that is empty" } else { &coded };
                return Err(format!("sent with Transfer-Encoding {coded}, which was not asked for"));
            }
            // With a length beside it, somebody on the way may see another end than we do.
            self.keeps &= length.is_none();
            return Ok(Framing::Chunked);
        }
        self.keeps &= length.is_some();
        Ok(length.map_or(Framing::Close, Framing::Length))
    }

    /// Returns Content-Length. Errors: it is no number, or two numbers.
    pub fn length(&self) -> std::result::Result<Option<u64>, String> {
        let mut length = None;
        for text in self.all("content-length").flat_map(|v| v.split(',')).map(|v| v.trim_matches([' ', '\t'])) {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse::<u64>().ok().filter(|n| digits && length.is_none_or(|l| l == *n));
            length = Some(number.ok_or_else(|| format!("its length makes no sense (Content-Length: {text})"))?);
        }
        Ok(length)
    }
}

/// Returns the minor version and the status.
fn status_line(line: &[u8]) -> Option<(u8, u16)> {
    let [minor @ (b'0' | b'1'), b' ', a, b, c, rest @ ..] = line.strip_prefix(VERSION)? else { return None };
    let digits = [*a, *b, *c];
    let reason = matches!(rest, [] | [b' ', ..]) && rest.iter().all(is_text);
    if !digits.iter().all(u8::is_ascii_digit) || !reason || *a == b'0' {
        return None;
    }
    Some((minor - b'0', digits.iter().fold(0, |sum, d| sum * 10 + u16::from(d - b'0'))))
}

fn header(line: &[u8]) -> Option<(String, String)> {
    let colon = line.iter().position(|b| *b == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    if name.is_empty() || !name.iter().all(is_token) {
        return None;
    }
    Some((text(name)?, text(value)?))
}

/// What may stand in a line of a head. Source: RFC 9110, section 5.5; RFC 9112, section 4.
fn is_text(byte: &u8) -> bool {
    *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)
}

/// Takes a value without the blanks around it. Source: RFC 9110, sections 5.5 and 5.6.3: a form feed is none.
fn text(bytes: &[u8]) -> Option<String> {
    let text = bytes.iter().all(is_text).then(|| String::from_utf8_lossy(bytes))?;
    Some(text.trim_matches([' ', '\t']).to_owned())
}

/// Says whether this is an ETag that is fit to be kept and sent back. Source: RFC 9110, section 8.8.3; its length is ours.
pub(super) fn is_etag(text: &str) -> bool {
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    text.len() <= MAX_ETAG && inner.is_some_and(|inner| inner.bytes().all(|b| b.is_ascii_graphic() && b != b'"'))
}

/// Reads the line that begins a chunk; zeros in front say nothing. Source: RFC 9112, section 7.1.
pub(super) fn chunk_length(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|b| *b == b';').unwrap_or(line.len());
    // What stands behind is not used, and could hide a line of its own.
    let (digits, after) = (std::str::from_utf8(&line[..end]).ok()?, &line[end..]);
    let digits = digits.trim_end_matches([' ', '\t']);
    let is_hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| is_hex && after.iter().all(is_text))
}

/// Says a status in words. Source: RFC 9110, section 15; RFC 6585; RFC 4918; 520 to 529 are what CDNs send.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        507 => "Insufficient Storage",
        520..=524 => "from a CDN: the server behind it gives no good answer",
        529 => "overloaded",
        _ => "unexpected status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_it_was_meant() {
        let bytes = request("GET", "/v2/?a=b", "r:1", &[("Accept", "*/*")], None).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "GET /v2/?a=b HTTP/1.1\r\nHost: r:1\r\nAccept: */*\r\n\r\n");
        let bytes = request("POST", "/t", "r", &[], Some("a=b")).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "POST /t HTTP/1.1\r\nHost: r\r\nContent-Length: 3\r\n\r\na=b");
        for value in ["a\r\nX: y", "a\nb", "\0"] {
            let e = request("GET", "/", "r", &[("If-Range", value)], None).unwrap_err();
            assert!(e.to_string().contains("If-Range"), "{e}");
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_was_cut() {
        for (text, length) in [
            ("HTTP/1.1 200 OK\r\n\r\nbody", Some(19)),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", Some(25)),
            ("HTTP/1.1 200 OK\nA: b\n\nbody\n\n", Some(22)),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r", None),
            ("HTTP/1.1 200 OK\r\nA: b\r\n", None),
            ("", None),
        ] {
            assert_eq!(head_length(text.as_bytes(), 0), length, "{text:?}");
            // As it comes, byte by byte: looked for from a little before the end.
            let found = (0..=text.len()).find_map(|n| head_length(&text.as_bytes()[..n], n.saturating_sub(4)));
            assert_eq!(found, length, "{text:?}");
        }
        assert!(is_not_http(b"SSH-2.0") && is_not_http(b"HTTP/2") && is_not_http(b"<"));
        assert!(!is_not_http(b"HTTP/1.1 2") && !is_not_http(b"HT") && !is_not_http(b""));
    }

    #[test]
    fn a_head_is_read_and_a_malformed_one_refused() {
        let head = Head::parse(b"HTTP/1.1 200\r\nETag: \"a b\" \r\nx-y:\r\nX-Y: 2\r\n\r\n").unwrap();
        assert_eq!((head.status, head.keeps, head.header("etag")), (200, true, Some("\"a b\"")));
        assert_eq!(head.all("X-y").collect::<Vec<_>>(), ["", "2"]);
        for (line, keeps) in [("Connection: keep-alive", true), ("connection: x, CLOSE", false)] {
            let head = Head::parse(format!("HTTP/1.1 404 Not Found\n{line}\n\n").as_bytes()).unwrap();
            assert_eq!((head.status, head.keeps), (404, keeps));
        }
        // The text behind a status may be of any language; a value may go on in the next line.
        for (lines, value) in [
            ("A: b\r\n c", "b c"),
            ("A: b\r\n\tc \r\n  d", "b c d"),
            ("A:\r\n b", "b"),
            ("A: b\r\n \r\nX: y", "b"),
            ("A: b\n c", "b c"),
            ("a:\t b\t", "b"),
        ] {
            let head = Head::parse(format!("HTTP/1.1 200 \u{e9}\t\r\n{lines}\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(head.header("a"), Some(value), "{lines:?}");
        }
        assert!(!Head::parse(b"HTTP/1.0 200 OK\r\n\r\n").unwrap().keeps);
        for text in [
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.2 200\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1 099\r\n\r\n",
            "HTTP/1.1  200\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: v\r\n\r\n",
            "HTTP/1.1 200 OK\r\na b: v\r\n\r\n",
            "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\0d\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
            "HTTP/1.1 200 O\rK\r\n\r\n",
            "HTTP/1.1 200 OK\r\r\n\r\n",
            "HTTP/1.1 200 O\x7fK\r\n\r\n",
            "HTTP/1.1 200 O\x0cK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\x0c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA:\x0bb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \rb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rX: c\r\n\r\n",
        ] {
            assert!(Head::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn where_a_body_ends() {
        let framing = |status: u16, headers: &str, answers_head: bool| {
            let mut head = Head::parse(format!("HTTP/1.1 {status} X\r\n{headers}\r\n").as_bytes()).unwrap();
            head.framing(answers_head).map(|framing| (framing, head.keeps))
        };
        for (headers, want) in [
            ("", Some((Framing::Close, false))),
            ("Content-Length: 7\r\n", Some((Framing::Length(7), true))),
            ("Content-Length: 7, 7\r\nContent-Length: 7\r\n", Some((Framing::Length(7), true))),
            ("Transfer-Encoding: Chunked\r\n", Some((Framing::Chunked, true))),
            ("Transfer-Encoding: chunked\r\nContent-Length: 7\r\n", Some((Framing::Chunked, false))),
            ("Transfer-Encoding: gzip, chunked\r\n", None),
            ("Transfer-Encoding:\r\n", None),
            ("Transfer-Encoding:\r\nContent-Length: 7\r\n", None),
            ("Transfer-Encoding: ,\r\n", None),
            ("Transfer-Encoding:\r\n chunked\r\n", Some((Framing::Chunked, true))),
            ("Content-Length: 7\r\n 7\r\n", None),
            ("Content-Length:\r\n 7\r\n", Some((Framing::Length(7), true))),
            ("Transfer-Encoding: chunked, chunked\r\n", None),
            ("Content-Length: 7\r\nContent-Length: 8\r\n", None),
            ("Content-Length: +7\r\n", None),
            ("Content-Length: -7\r\n", None),
            ("Content-Length:\r\n", None),
            ("Content-Length: 99999999999999999999\r\n", None),
        ] {
            assert_eq!(framing(200, headers, false).ok(), want, "{headers}");
        }
        let nothing = Some((Framing::Length(0), true));
        for (status, answers_head) in [(304, false), (204, false), (200, true)] {
            assert_eq!(framing(status, "Content-Length: 7\r\n", answers_head).ok(), nothing);
        }
    }

    #[test]
    fn etags_that_can_be_sent_back() {
        let (long, longest) = (format!("\"{}\"", "x".repeat(255)), format!("\"{}\"", "x".repeat(254)));
        for (text, good) in [
            ("\"\"", true),
            ("\"a-b_1\"", true),
            ("W/\"a\"", true),
            (longest.as_str(), true),
            (long.as_str(), false),
            ("\"", false),
            ("a", false),
            ("", false),
            ("w/\"a\"", false),
            ("\"a\"b\"", false),
            ("\"a b\"", false),
            ("\"a\tb\"", false),
            ("\"\u{9f}\"", false),
        ] {
            assert_eq!(is_etag(text), good, "{text}");
        }
    }

    #[test]
    fn lengths_of_chunks() {
        for (line, length) in [
            ("0", Some(0)),
            ("1aF", Some(0x1af)),
            ("5;name=value", Some(5)),
            ("5 ;x", Some(5)),
            ("ffffffffffffffff", Some(u64::MAX)),
            ("10000000000000000", None),
            ("00000000000000000000005", Some(5)),
            ("000000000000000000ffffffffffffffff", Some(u64::MAX)),
            ("00000000000000000000", Some(0)),
            ("5\t;x", Some(5)),
            ("5\x0c", None),
            ("5\r", None),
            ("5;x\ry", None),
            ("5;x\0", None),
            ("", None),
            (";x", None),
            ("-5", None),
            ("+5", None),
            (" 5", None),
            ("0x5", None),
        ] {
            assert_eq!(chunk_length(line.as_bytes()), length, "{line}");
        }
    }

    #[test]
    fn any_bytes_end() {
        const LETTERS: &[u8] = b"Content-Length: 07\r\n\n,;\x00\xff";
        let mut dice = 1u64;
        for _ in 0..20_000 {
            let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
            for _ in 0..24 {
                dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                bytes.push(LETTERS[(dice >> 33) as usize % LETTERS.len()]);
            }
            let _ = head_length(&bytes, 0).map(|n| Head::parse(&bytes[..n]).map(|mut head| head.framing(false)));
            let _ = chunk_length(&bytes[17..]);
        }
    }
}
