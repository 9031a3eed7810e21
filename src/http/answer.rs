//! Server responses: classifies statuses, reads bodies to the end, and names host and reason in errors.
//!
//! Must never: show a URL's query, or hand out a body with a content encoding that was not requested.

use super::deadline::{Limit, Timeouts};
use super::failure::{Cause, Failure, explain, malformed, of_ureq, why};
use super::message::Document;
use super::proxy::Proxy;
use super::status::reason;
use super::{guard, retry};
use crate::base::clock::Now;
use crate::base::error::{Error, Kind, Result};
use crate::base::url::Url;
use crate::http::challenge;
use std::io::{self, ErrorKind, Read};
use ureq::http::Response;
use ureq::http::response::Parts;

/// Longest ETag that is kept, in bytes.
const MAX_ETAG: usize = 256;

/// Growth step of a buffer for a body of unknown length, in bytes; more than one piece of it.
const ROOM: usize = 64 << 10;

/// An answer whose body is still unread.
pub(super) struct Answer {
    head: Parts,
    body: Reader,
    pub url: Url,
    now: Now,
    /// Whether the request carried a secret.
    authorized: bool,
    /// Which credentials the request carried, for the hints.
    shown: Shown,
    /// The proxy that may have answered in the server's place.
    proxy: Option<String>,
}

pub(super) const CREDENTIALS_HINT: &str = "set auth_file to a Docker config.json with an entry for this host";

/// The request that is being answered.
pub(super) struct Asked {
    pub url: Url,
    /// Whether it is a HEAD request, whose answer has no body.
    pub is_head: bool,
    /// Whether the request carried a secret.
    pub knows_secret: bool,
}

impl Answer {
    /// Errors: Network: the body's length is undefined.
    pub fn new(
        response: Response<ureq::Body>,
        Asked { url, is_head, knows_secret }: Asked,
        timeouts: &Timeouts,
        now: Now,
        limit: Limit,
    ) -> std::result::Result<Answer, Failure> {
        let (head, body) = response.into_parts();
        guard::framing(head.status, head.version, &head.headers, is_head)
            .map_err(|why| explain(malformed(why), &url, timeouts, limit))?;
        let host = url.host().to_owned();
        let body = Reader { body: Some(body.into_reader()), host, timeouts: *timeouts, limit };
        Ok(Answer { head, body, url, now, authorized: knows_secret, shown: Shown::Nothing, proxy: None })
    }

    /// Records which credentials the request carried.
    pub fn shown(self, shown: Shown) -> Answer {
        Answer { shown, ..self }
    }

    /// Records the proxy in between, which can send answers of its own.
    pub fn through(self, proxy: Option<&Proxy>) -> Answer {
        Answer { proxy: proxy.map(|proxy| proxy.host.clone()), ..self }
    }

    /// Names the host that answered.
    pub fn who(&self) -> String {
        match &self.proxy {
            Some(proxy) => format!("{}, or the proxy {proxy},", self.url.host()),
            None => self.url.host().to_owned(),
        }
    }

    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    /// Returns the ETag, if it can be sent back.
    pub fn etag(&self) -> Option<String> {
        self.header("etag").filter(|etag| is_etag(etag))
    }

    /// Returns all values of a header.
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.head.headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }

    /// Errors: Source: there is no target, or a forbidden one.
    pub fn redirect_target(&self) -> Result<Url> {
        redirect_target(self.header("location"), &self.url)
    }

    /// Rejects every status but 2xx, and every unexpected content encoding.
    /// Input: `stored_gzip`: gzip is what was asked for; length and digest are checked anyway.
    pub fn check_status(self, stored_gzip: bool) -> std::result::Result<Answer, Failure> {
        if (200..300).contains(&self.status()) {
            let taken = if stored_gzip { &["identity", "gzip", "x-gzip"][..] } else { &["identity"] };
            let encoding = self.header("content-encoding");
            return match encoding.filter(|e| !taken.iter().any(|t| e.eq_ignore_ascii_case(t))) {
                None => Ok(self),
                Some(e) => {
                    let why = format!("sent with Content-Encoding {e}, which was not asked for");
                    Err(Error::new(Kind::Source, why).at("fetch", self.url).into())
                }
            };
        }
        let status = self.status();
        let is_passing = retry::is_passing(status);
        let asked = self.header("retry-after").and_then(|h| retry::retry_after(&h, self.now));
        let (url, who, shown, by_proxy) = (self.url.clone(), self.who(), self.shown, self.proxy.is_some());
        let wants = challenge::schemes(self.all("www-authenticate").iter().map(String::as_str));
        let wants = if status == 401 && !wants.is_empty() { format!("; it wants {wants}") } else { String::new() };
        let detail = self.into_detail().map_or(String::new(), |d| format!(": {d}"));
        let error = Error::new(Kind::Network, format!("{who} answered {status} {}{detail}{wants}", reason(status)));
        let error = match status {
            401 | 403 => error.hint(shown.hint(status)),
            404 if url.path().contains("/sha256:") => error.hint(
                "it is listed there: a cleaning of the registry may have removed it; what has a tag of its own is kept",
            ),
            404 if url.path().starts_with("/v2/") => error.hint("does the repository exist, and have this tag?"),
            404 if url.path().ends_with("/latest.json/latest.json") => {
                error.hint("`server` is the directory that holds latest.json: leave /latest.json out")
            }
            404 if url.path().ends_with("/latest.json") => error.hint("is the path right?"),
            404 => error.hint("latest.json, or a redirect, names this address: is the file published there?"),
            400 if !url.is_secure() => {
                error.hint("does this port speak TLS? Then https:// or, for a registry, plain_http = no")
            }
            400 => error
                .hint("some say this where they want a client certificate, or do not take it: client_cert, client_key"),
            407 if by_proxy => error.hint("the proxy wants a user and a password: http://user:password@host:port"),
            _ => error,
        };
        Err(Failure { error: error.at("fetch", url), is_passing, asked, unreached: false })
    }

    pub fn length(&self) -> Option<u64> {
        // ureq has checked that all of them are the same.
        self.header("content-length")?.split(',').next()?.trim().parse().ok()
    }

    pub fn describe(&self) -> Document {
        Document {
            status: self.status(),
            content_type: self.header("content-type"),
            digest_header: self.header("docker-content-digest"),
            etag: self.etag(),
            link: Some(self.all("link").join(", ")).filter(|link| !link.is_empty()),
            length: self.length(),
            is_copy: self.header("age").is_some(),
            body: Vec::new(),
            final_url: self.url.clone(),
        }
    }

    /// Reads the whole body. Errors: Source: longer than `cap_bytes`. Network: it breaks off.
    pub fn into_document(self, cap_bytes: u64) -> std::result::Result<Document, Failure> {
        let mut document = self.describe();
        if document.length.is_some_and(|n| n > cap_bytes) {
            let why = format!("longer than {cap_bytes} bytes");
            return Err(Error::new(Kind::Source, why).at("fetch", &document.final_url).into());
        }
        // A known length is allocated exactly, an unknown one in steps: `read_to_end` allocates twice the size, and fills it
        // with zeros.
        let mut body = Vec::with_capacity(document.length.map_or(0, |n| n as usize));
        self.pour(cap_bytes, &mut |piece| {
            if body.capacity() - body.len() < piece.len() {
                body.reserve_exact(ROOM);
            }
            body.extend_from_slice(piece);
            Ok(())
        })?;
        document.body = body;
        Ok(document)
    }

    /// Passes the body to `take`, piece by piece. Errors: as [`Answer::into_document`], and those of `take`.
    pub fn pour(self, cap_bytes: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> std::result::Result<(), Failure> {
        let url = self.url.clone();
        let (mut reader, mut piece, mut left) = (self.into_reader(), [0; 4096], cap_bytes);
        loop {
            let read = reader.read(&mut piece);
            match read.map_err(|e| Failure::passing(Error::new(Kind::Network, e.to_string()).at("fetch", &url)))? {
                0 => return Ok(()),
                length => {
                    left = left.checked_sub(length as u64).ok_or_else(|| {
                        Error::new(Kind::Source, format!("longer than {cap_bytes} bytes")).at("fetch", &url)
                    })?;
                    take(&piece[..length])?;
                }
            }
        }
    }

    /// Returns the error message in the body.
    pub fn into_detail(self) -> Option<String> {
        error_detail(self.body, self.authorized)
    }

    pub fn into_reader(self) -> Reader {
        self.body
    }
}

/// The credentials that the answering server was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// None, because it did not ask.
    Nothing,
    /// A token for anonymous access: there are no credentials for the server.
    Anonymous,
    /// Those in auth_file, or a token obtained with them.
    Credentials,
    /// None: another server redirected there, where they do not belong.
    Led,
}

impl Shown {
    /// Returns the hint for a 401 or 403.
    fn hint(self, status: u16) -> &'static str {
        match (self, status) {
            (Shown::Nothing, _) => "this needs credentials: set auth_file to a Docker config.json",
            (Shown::Anonymous, _) => CREDENTIALS_HINT,
            (Shown::Credentials, 401) => "are the credentials in auth_file right, and may they do this?",
            (Shown::Credentials, _) => "the credentials in auth_file are known there, and may not do this",
            (Shown::Led, _) => "another server leads there, and no credentials go along: is what it named still open?",
        }
    }
}

/// Resolves Location. Source: RFC 9110, section 10.2.2.
pub(super) fn redirect_target(location: Option<String>, from: &Url) -> Result<Url> {
    let fail = |why: String| Error::new(Kind::Source, why).at("follow the redirect from", from);
    let location = location.ok_or_else(|| fail("it says no location".to_owned()))?;
    let to = from.join(&location).map_err(|e| fail(e.to_string()))?;
    match from.is_secure() && !to.is_secure() {
        true => Err(fail(format!("it leads from https to plain http, at {}", to.host()))),
        false => Ok(to),
    }
}

/// Returns whether an ETag may be kept and sent back. Source: RFC 9110, section 8.8.3; the length limit is ours.
fn is_etag(text: &str) -> bool {
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    text.len() <= MAX_ETAG && inner.is_some_and(|inner| inner.bytes().all(|b| b.is_ascii_graphic() && b != b'"'))
}

/// Returns whether a file is compressed, by its name: servers that know the extension send it with Content-Encoding, and
/// as it is stored (Apache's AddEncoding).
pub(super) fn is_gzip(url: &Url) -> bool {
    url.path().ends_with(".gz")
}

/// Reads a body; rewrites errors to name host and reason.
pub(super) struct Reader {
    /// `None` after an error.
    body: Option<ureq::BodyReader<'static>>,
    host: String,
    timeouts: Timeouts,
    limit: Limit,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(body) = self.body.as_mut().filter(|_| !buf.is_empty()) else { return Ok(0) };
        body.read(buf).map_err(|e| {
            self.body = None;
            let (kind, why) = match of_ureq(e.into()).0 {
                Cause::Io(e) => (e.kind(), why(&e, &self.timeouts, self.limit).0),
                // Causes of connecting, which is over by now.
                cause => (ErrorKind::Other, cause.to_string()),
            };
            io::Error::new(kind, format!("{}: {why}", self.host))
        })
    }
}

/// Registries' error codes. Source: distribution-spec 1.1, "Error codes"; docker/distribution.
const CODES: [&str; 17] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "TAG_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNAVAILABLE",
    "UNKNOWN",
    "UNSUPPORTED",
];

/// Extracts the first error from a registry's JSON answer. Reads at most 8 KiB.
/// Input: `knows_secret`: the server was shown a secret and might echo it: only a standard error code is shown.
pub(super) fn error_detail(reader: Reader, knows_secret: bool) -> Option<String> {
    #[derive(miniserde::Deserialize)]
    struct Answer {
        errors: Vec<One>,
    }
    #[derive(miniserde::Deserialize)]
    struct One {
        code: crate::base::json::Field<String>,
        message: crate::base::json::Field<String>,
    }
    let mut body = Vec::new();
    reader.take(8 << 10).read_to_end(&mut body).ok()?;
    let first = crate::base::json::parse::<Answer>(&body, "error").ok()?.errors.into_iter().next()?;
    let (code, message) = (first.code.optional("code").ok()?, first.message.optional("message").ok()?);
    if knows_secret {
        return code.filter(|code| CODES.contains(&code.as_str()));
    }
    let text = [code, message].into_iter().flatten().collect::<Vec<_>>().join(" ");
    Some(text.chars().take(200).collect()).filter(|t: &String| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::is_etag;

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
}
