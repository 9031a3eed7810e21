//! Parses one HTTP request's head into a page or an error status. Pure.
//!
//! Must never: read beyond its input, or echo a client's bytes in an answer.

/// Longest head that is read, in bytes.
pub const HEAD_MAX_BYTES: usize = 4096;

/// The pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/metrics`
    Metrics,
    /// `/healthz`
    Health,
    /// `/`: for people.
    Index,
}

/// A status line without the version.
pub type Status = &'static str;

/// Success.
pub const OK: Status = "200 OK";
/// Not a request.
pub const BAD_REQUEST: Status = "400 Bad Request";
/// No such page.
pub const NOT_FOUND: Status = "404 Not Found";
/// A method other than GET and HEAD.
pub const METHOD_NOT_ALLOWED: Status = "405 Method Not Allowed";
/// The first line alone is too long.
pub const URI_TOO_LONG: Status = "414 URI Too Long";
/// The head is too long.
pub const HEADERS_TOO_LARGE: Status = "431 Request Header Fields Too Large";
/// Not HTTP/1.
pub const VERSION_NOT_SUPPORTED: Status = "505 HTTP Version Not Supported";

/// Finds the end of a head: an empty line.
/// Input: `from`: how many bytes were searched before. Returns: its length, the empty line included.
/// Source: RFC 9112, section 2.2: a bare LF ends a line as well; empty lines before the first are ignored.
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let starts = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
    let mut at = from.saturating_sub(3).max(starts);
    while at < bytes.len() {
        if bytes[at] == b'\n' {
            match bytes.get(at + 1..) {
                Some([b'\n', ..]) => return Some(at + 2),
                Some([b'\r', b'\n', ..]) => return Some(at + 3),
                _ => {}
            }
        }
        at += 1;
    }
    None
}

/// Returns the status for a head without end, once [`HEAD_MAX_BYTES`] of it have arrived.
pub fn too_long(bytes: &[u8]) -> Status {
    let starts = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    if bytes[starts..].contains(&b'\n') { HEADERS_TOO_LARGE } else { URI_TOO_LONG }
}

/// Returns whether an answer must have no body.
pub fn is_head(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"HEAD ")
}

/// Parses a whole head.
/// Errors: the status for the client.
/// Source: RFC 9112, sections 2, 3 and 5.
pub fn judge(head: &[u8]) -> Result<Page, Status> {
    let text = std::str::from_utf8(head).map_err(|_| BAD_REQUEST)?;
    let mut lines = text.trim_start_matches(['\r', '\n']).split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l));
    let mut words = lines.next().unwrap_or("").split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD_REQUEST);
    };
    if !is_token(method) || target.is_empty() || !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(BAD_REQUEST);
    }
    let is_newer = match version {
        "HTTP/1.0" => false,
        _ if version.len() == 8 && version.starts_with("HTTP/1.") && version.as_bytes()[7].is_ascii_digit() => true,
        _ if version.starts_with("HTTP/") => return Err(VERSION_NOT_SUPPORTED),
        _ => return Err(BAD_REQUEST),
    };
    let mut hosts = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(BAD_REQUEST)?;
        if !is_token(name) || value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
            return Err(BAD_REQUEST);
        }
        hosts += usize::from(name.eq_ignore_ascii_case("host"));
    }
    if hosts > 1 || (is_newer && hosts == 0) {
        return Err(BAD_REQUEST);
    }
    let page = match path(target) {
        "/metrics" => Page::Metrics,
        "/healthz" => Page::Health,
        "/" => Page::Index,
        _ => return Err(NOT_FOUND),
    };
    if matches!(method, "GET" | "HEAD") { Ok(page) } else { Err(METHOD_NOT_ALLOWED) }
}

/// Returns a target's path: without the query, and for an absolute URL without scheme and host.
fn path(target: &str) -> &str {
    let target = target.split('?').next().unwrap_or(target);
    match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    }
}

/// Source: RFC 9110, section 5.6.2.
fn is_token(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Page, Status> {
        assert_eq!(end(text.as_bytes(), 0), Some(text.len()), "{text:?}");
        judge(text.as_bytes())
    }

    #[test]
    fn pages() {
        for (request, page) in [
            ("GET /metrics HTTP/1.0\r\n\r\n", Page::Metrics),
            ("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n", Page::Metrics),
            ("HEAD /metrics?a=/healthz&b HTTP/1.1\r\nhOsT:h:9\r\nAccept: a;q=0.5, */*\r\n\r\n", Page::Metrics),
            ("\r\n\r\nGET http://h:1/healthz HTTP/1.1\r\nHost:\r\n\r\n", Page::Health),
            ("GET /healthz HTTP/1.0\n\n", Page::Health),
            ("GET / HTTP/1.0\r\n\r\n", Page::Index),
            ("GET /?x HTTP/1.0\r\n\r\n", Page::Index),
            ("GET http://metrics HTTP/1.0\r\n\r\n", Page::Index),
            ("GET /healthz HTTP/1.7\nHost: grün\tx\n\r\n", Page::Health),
        ] {
            assert_eq!(of(request), Ok(page), "{request:?}");
        }
        assert!(is_head(b"\r\nHEAD /") && !is_head(b"GET /HEAD ") && !is_head(b"HEADS /"));
    }

    #[test]
    fn refusals() {
        for (first, status) in [
            ("GET // HTTP/1.0", NOT_FOUND),
            ("GET /index.html HTTP/1.0", NOT_FOUND),
            ("POST / HTTP/1.0", METHOD_NOT_ALLOWED),
            ("GET /metrics/ HTTP/1.0", NOT_FOUND),
            ("GET /Metrics HTTP/1.0", NOT_FOUND),
            ("OPTIONS * HTTP/1.0", NOT_FOUND),
            ("POST /nothing HTTP/1.0", NOT_FOUND),
            ("POST /metrics HTTP/1.0", METHOD_NOT_ALLOWED),
            ("get /healthz HTTP/1.0", METHOD_NOT_ALLOWED),
            ("GET /metrics HTTP/2.0", VERSION_NOT_SUPPORTED),
            ("GET /metrics HTTP/1.10", VERSION_NOT_SUPPORTED),
            ("GET /metrics", BAD_REQUEST),
            ("GET  /metrics HTTP/1.0", BAD_REQUEST),
            ("GET /metrics HTTP/1.0 ", BAD_REQUEST),
            (" GET /metrics HTTP/1.0", BAD_REQUEST),
            ("GET /met\trics HTTP/1.0", BAD_REQUEST),
            ("G(T /metrics HTTP/1.0", BAD_REQUEST),
            ("GET /metrics http/1.0", BAD_REQUEST),
            ("GET /metrics HTTP/1.1", BAD_REQUEST),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b", BAD_REQUEST),
            ("GET /metrics HTTP/1.1\r\nHost : a", BAD_REQUEST),
            ("GET /metrics HTTP/1.0\r\nX: a\r\n folded", BAD_REQUEST),
            ("GET /metrics HTTP/1.0\r\nX: a\rb", BAD_REQUEST),
            ("GET /metrics HTTP/1.0\r\nno colon", BAD_REQUEST),
            ("GET /metrics HTTP/1.0\r\n: no name", BAD_REQUEST),
            ("\u{0}\u{1}", BAD_REQUEST),
        ] {
            assert_eq!(of(&format!("{first}\r\n\r\n")), Err(status), "{first:?}");
        }
        assert_eq!(judge(b"GET /\xff HTTP/1.0\r\n\r\n"), Err(BAD_REQUEST));
        assert_eq!(judge(b""), Err(BAD_REQUEST));
    }

    #[test]
    fn the_end_is_found_wherever_the_bytes_are_cut() {
        for text in ["GET / HTTP/1.0\r\nA: b\r\n\r\nGET /", "\n\r\nGET / HTTP/1.0\n\nmore", "G\n\r\n\n\n"] {
            let bytes = text.as_bytes();
            let whole = end(bytes, 0).unwrap();
            for first in 0..bytes.len() {
                let found = (first..=bytes.len()).find_map(|n| end(&bytes[..n], n.saturating_sub(1).max(first.min(n))));
                let found = end(&bytes[..first], 0).or(found);
                assert_eq!(found, Some(whole), "{text:?} {first}");
            }
        }
        assert_eq!(end(b"\r\n\r\n\r\n", 0), None);
        assert_eq!(end(b"", 0), None);
        assert_eq!(too_long(&[b'x'; HEAD_MAX_BYTES]), URI_TOO_LONG);
        assert_eq!(too_long(b"\r\nGET /xxx"), URI_TOO_LONG);
        assert_eq!(too_long(b"GET / HTTP/1.0\r\nX: y"), HEADERS_TOO_LARGE);
        assert_eq!(too_long(b"\n\n\n"), HEADERS_TOO_LARGE);
    }
}
