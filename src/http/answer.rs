//! What a server answers: statuses sorted out, bodies with limits, errors that say host and reason.
//!
//! Must never: show a URL's query, or hand out what is encoded in a way that was not asked for.

use super::deadline::{Limit, Watch};
use super::{Client, Document, Timeouts, retry};
use crate::error::{Error, Kind, Result};
use crate::text::secs;
use crate::tls::{advice, words};
use crate::url::Url;
use std::io::{self, Read};
use std::time::Duration;
use ureq::http::Response;

/// A try that came to nothing.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    /// Whether the next try may fare better.
    pub is_passing: bool,
    /// How long the server wants to be left alone.
    pub asked: Option<Duration>,
}

impl Failure {
    pub fn passing(error: Error) -> Failure {
        Failure { error, is_passing: true, asked: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, is_passing: false, asked: None }
    }
}

/// An answer whose body is still to be read.
pub(super) struct Answer {
    response: Response<ureq::Body>,
    pub url: Url,
    timeouts: Timeouts,
    watch: Watch,
    limit: Limit,
    now_secs: u64,
    /// Whether the server was shown who we are.
    authorized: bool,
}

impl Answer {
    pub fn new(response: Response<ureq::Body>, url: Url, client: &Client, limit: Limit, authorized: bool) -> Answer {
        let Client { timeouts, watch, now, .. } = client;
        Answer { response, url, timeouts: *timeouts, watch: watch.clone(), limit, now_secs: now(), authorized }
    }

    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        text_header(&self.response, name)
    }

    /// Returns every header of that name.
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.response.headers().get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    }

    /// Errors: Source: it leads nowhere, or where it must not.
    pub fn redirect_target(&self) -> Result<Url> {
        redirect_target(self.header("location"), &self.url)
    }

    /// Sorts out every status but 2xx, and what is encoded in any way.
    /// Input: `stored_gzip`: gzip is what was asked for; length and digest are checked all the same.
    pub fn check_status(self, stored_gzip: bool) -> std::result::Result<Answer, Failure> {
        if self.response.status().is_success() {
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
        let status = self.response.status();
        let (is_passing, authorized) = (retry::is_passing(status.as_u16()), self.authorized);
        let asked = self.header("retry-after").and_then(|h| retry::retry_after(&h, self.now_secs));
        let (url, host) = (self.url.clone(), self.url.host().to_owned());
        let detail = error_detail(self.into_reader()).map_or(String::new(), |d| format!(": {d}"));
        let reason = status.canonical_reason().unwrap_or("unknown status");
        let error = Error::new(Kind::Network, format!("{host} answered {} {reason}{detail}", status.as_u16()));
        let error = match status.as_u16() {
            401 | 403 if authorized => error.hint("the credentials in auth_file are known there, and may not do this"),
            401 | 403 => error.hint("this needs credentials: set auth_file to a Docker config.json"),
            404 if url.path().starts_with("/v2/") => error.hint("does the repository exist, and have this tag?"),
            404 => error.hint("is the path right?"),
            407 => error.hint("the proxy wants a user and a password: http://user:password@host:port"),
            _ => error,
        };
        Err(Failure { error: error.at("fetch", url), is_passing, asked })
    }

    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    pub fn describe(&self) -> Document {
        Document {
            status: self.status(),
            content_type: self.header("content-type"),
            digest_header: self.header("docker-content-digest"),
            etag: self.header("etag"),
            length: self.length(),
            body: Vec::new(),
            final_url: self.url.clone(),
        }
    }

    /// Reads it whole. Errors: Source: longer than `cap_bytes`. Network: it breaks off.
    pub fn into_document(self, cap_bytes: u64) -> std::result::Result<Document, Failure> {
        let mut document = self.describe();
        let too_long =
            || Error::new(Kind::Source, format!("longer than {cap_bytes} bytes")).at("fetch", &document.final_url);
        if document.length.is_some_and(|n| n > cap_bytes) {
            return Err(too_long().into());
        }
        // Where the length is known, no room is taken beyond it.
        let mut body = Vec::with_capacity(document.length.map_or(0, |n| n as usize));
        let read = self.into_reader().take(cap_bytes.saturating_add(1)).read_to_end(&mut body);
        read.map_err(|e| Failure::passing(Error::new(Kind::Network, e.to_string()).at("fetch", &document.final_url)))?;
        if body.len() as u64 > cap_bytes {
            return Err(too_long().into());
        }
        document.body = body;
        Ok(document)
    }

    pub fn into_reader(self) -> Reader {
        let Answer { response, url, timeouts, watch, limit, .. } = self;
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        Reader { body, host: url.host().to_owned(), timeouts, watch, limit }
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

/// Says whether a file is compressed by its name: servers that know the ending send it with Content-Encoding, and
/// as it is stored (Apache's AddEncoding).
pub(super) fn is_gzip(url: &Url) -> bool {
    url.path().ends_with(".gz")
}

fn text_header(response: &Response<ureq::Body>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Reads a body; rewrites errors so that they say which host and why.
pub(super) struct Reader {
    body: ureq::BodyReader<'static>,
    host: String,
    timeouts: Timeouts,
    watch: Watch,
    limit: Limit,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.watch.begin_read(self.limit, self.timeouts.stall);
        self.body.read(buf).map_err(|e| {
            let kind = e.kind();
            let why = why(&ureq::Error::from(e), &self.timeouts, self.limit).0;
            io::Error::new(kind, format!("{}: {why}", self.host))
        })
    }
}

/// Takes the first error out of a registry's JSON answer. Reads at most 8 KiB.
/// Source: distribution-spec 1.1, "Error codes".
pub(super) fn error_detail(reader: Reader) -> Option<String> {
    #[derive(miniserde::Deserialize)]
    struct Answer {
        errors: Vec<One>,
    }
    #[derive(miniserde::Deserialize)]
    struct One {
        code: crate::json::Field<String>,
        message: crate::json::Field<String>,
    }
    let mut body = Vec::new();
    reader.take(8 << 10).read_to_end(&mut body).ok()?;
    let first = crate::json::parse::<Answer>(&body, "error").ok()?.errors.into_iter().next()?;
    let (code, message) = (first.code.optional("code").ok()?, first.message.optional("message").ok()?);
    let text = [code, message].into_iter().flatten().collect::<Vec<_>>().join(" ");
    Some(text.chars().take(200).collect()).filter(|t: &String| !t.is_empty())
}

/// Says what went wrong on the way, and whether the next try may fare better.
pub(super) fn explain(error: ureq::Error, url: &Url, timeouts: &Timeouts, limit: Limit) -> Failure {
    let ours = match &error {
        ureq::Error::Other(inner) => inner.downcast_ref::<Error>(),
        _ => None,
    };
    if let Some(ours) = ours {
        return ours.clone().into();
    }
    let is_passing = match &error {
        ureq::Error::Io(e) => tls_error(e).is_none(),
        ureq::Error::Timeout(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::ConnectProxyFailed(_) => true,
        _ => false,
    };
    let (why, hint) = why(&error, timeouts, limit);
    let error = Error::new(Kind::Network, format!("{}: {why}", url.host())).at("fetch", url).hint(hint);
    Failure { error, is_passing, asked: None }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Says why a request failed, and what to do about it. Never shows a URL: it may hold a secret.
fn why(error: &ureq::Error, timeouts: &Timeouts, limit: Limit) -> (String, &'static str) {
    use ureq::Timeout as T;
    let waited = |what: &str, time: Duration| format!("{what} for {} s", secs(time));
    match error {
        ureq::Error::Timeout(T::Connect) => (waited("no connection", timeouts.connect), "is the host reachable?"),
        ureq::Error::Timeout(T::PerRead) => (waited("no data", timeouts.stall), ""),
        ureq::Error::Timeout(T::RecvBody) => (limit.words(), ""),
        ureq::Error::Timeout(_) => (waited("no answer", timeouts.headers), ""),
        ureq::Error::Io(e) => match tls_error(e) {
            Some(tls) => (format!("TLS: {}", words(tls)), advice(tls)),
            None if e.kind() == io::ErrorKind::UnexpectedEof => ("connection closed before the end".to_owned(), ""),
            None => (e.to_string(), ""),
        },
        ureq::Error::BadUri(_) => ("not a usable URL".to_owned(), ""),
        ureq::Error::HostNotFound => ("host not found".to_owned(), "check the name and the DNS server"),
        other => (other.to_string(), ""),
    }
}
