//! The one HTTP client: limits, timeouts, redirects, and errors that name host and reason.
//!
//! Must never: follow a redirect from https to http, read a document beyond its cap, wait for ever, or put a
//! URL's query string into a message. Requests go out without compression: what is hashed is what is sent.

mod deadline;

use crate::error::{Error, Kind, Result};
use crate::system::System;
use crate::tls::{Clock, TlsConnector, Trust, advice, words};
use crate::url::Url;
use deadline::{Limit, Watch};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderValue, Method, Request, Response, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;
/// What is read from a socket at once; also the longest unread input that a connection keeps.
const INPUT_BUFFER: usize = 64 << 10;
/// Room for one request's head.
const OUTPUT_BUFFER: usize = 16 << 10;
/// Longest response head.
const MAX_HEAD: usize = 32 << 10;

/// Says where plain HTTP may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// To this machine only.
    #[default]
    Auto,
    /// To every host.
    Yes,
    /// To none.
    No,
}

impl PlainHttp {
    /// Says whether a registry on this host is spoken to without TLS.
    pub fn for_registry(self, is_loopback: bool) -> bool {
        self == PlainHttp::Yes || (self == PlainHttp::Auto && is_loopback)
    }

    fn check(self, url: &Url) -> Result<()> {
        if url.is_secure() || self.for_registry(url.is_loopback()) {
            return Ok(());
        }
        Err(Error::new(Kind::Config, "plain HTTP is not allowed to this host")
            .at("fetch", url)
            .hint("use https, or set plain_http = yes"))
    }
}

/// Says how long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the head of a response, once the request is out.
    pub headers: Duration,
    /// For the next bytes of a body.
    pub stall: Duration,
    /// For a document as a whole, redirects included.
    pub document: Duration,
    /// For a file as a whole, redirects included; a second is added for each `bytes_per_sec` of its length.
    pub body: Duration,
    /// Slowest average that a file may come at.
    pub bytes_per_sec: u64,
}

/// Says how the client is set up.
pub struct HttpOptions {
    /// PEM bundle of trusted CAs; nothing else is read where it is set.
    pub ca_file: Option<PathBuf>,
    /// Otherwise the first of these that exists.
    pub ca_candidates: Vec<PathBuf>,
    /// A time that is certainly past, in seconds since 1970: TLS uses the later of it and `now`.
    pub clock_floor_secs: u64,
    /// The system clock.
    pub now: Clock,
    /// Value of the User-Agent header.
    pub user_agent: String,
    /// How long to wait.
    pub timeouts: Timeouts,
}

impl HttpOptions {
    /// Makes the defaults of a machine: its CA bundles, its clock; 30 s to begin, 60 s of silence, 120 s for a
    /// document, and 300 s and 2 KiB/s for a file.
    pub fn new(system: &System) -> HttpOptions {
        let clock = system.clone();
        HttpOptions {
            ca_file: None,
            ca_candidates: system.ca_bundles().to_vec(),
            clock_floor_secs: 0,
            now: Arc::new(move || clock.now_secs()),
            user_agent: concat!("kubesolo-update/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: Timeouts {
                connect: Duration::from_secs(30),
                headers: Duration::from_secs(30),
                stall: Duration::from_secs(60),
                document: Duration::from_secs(120),
                body: Duration::from_secs(300),
                bytes_per_sec: 2048,
            },
        }
    }
}

/// Sends requests. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    plain_http: PlainHttp,
    timeouts: Timeouts,
    watch: Watch,
}

/// Holds a small answer, wholly read.
#[derive(Clone, Debug)]
pub struct Document {
    /// Status, 200 to 299.
    pub status: u16,
    /// Content-Type, as sent.
    pub content_type: Option<String>,
    /// Docker-Content-Digest, as sent.
    pub digest_header: Option<String>,
    /// ETag, as sent.
    pub etag: Option<String>,
    /// Content-Length, where it is known.
    pub length: Option<u64>,
    /// The body; empty for HEAD.
    pub body: Vec<u8>,
    /// Where the answer came from, after redirects.
    pub final_url: Url,
}

/// Holds a body that is still to be read.
pub struct Body {
    /// Its length, where the server says.
    pub length: Option<u64>,
    /// Its bytes. An error's text says host and reason; the connection is given back at the end.
    pub reader: Box<dyn Read>,
}

impl Client {
    /// Sets the client up; reads no file and opens no connection.
    /// Errors: Config: the user agent is not fit for a header.
    pub fn new(options: HttpOptions) -> Result<Client> {
        // ureq takes a bad one with a panic.
        if HeaderValue::from_str(&options.user_agent).is_err() {
            return Err(Error::new(Kind::Config, "not fit for an HTTP header").at("use", "user agent"));
        }
        let t = options.timeouts;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .accept_encoding("identity")
            .user_agent(&options.user_agent)
            .max_response_header_size(MAX_HEAD)
            .input_buffer_size(INPUT_BUFFER)
            .output_buffer_size(OUTPUT_BUFFER)
            .max_idle_connections(2)
            .max_idle_connections_per_host(1)
            .timeout_connect(Some(t.connect))
            .timeout_send_request(Some(t.headers))
            .timeout_recv_response(Some(t.headers))
            .timeout_per_read(Some(t.stall))
            // No timeout for name lookup: ureq would spend a thread on it, and libc's resolver has its own.
            .build();
        let trust = Trust {
            ca_file: options.ca_file,
            ca_candidates: options.ca_candidates,
            now: options.now,
            floor_secs: options.clock_floor_secs,
        };
        let watch = Watch::default();
        let connector = ().chain(TcpConnector::default()).chain(watch.clone()).chain(TlsConnector::new(trust));
        let agent = ureq::Agent::with_parts(config, connector, DefaultResolver::default());
        Ok(Client { agent, plain_http: PlainHttp::Auto, timeouts: t, watch })
    }

    /// Returns the same client with another rule for plain HTTP, which holds for redirects as well.
    pub fn with_plain_http(&self, plain_http: PlainHttp) -> Client {
        Client { plain_http, ..self.clone() }
    }

    /// Fetches a document whole.
    /// Input: `accept`: the Accept header; `cap_bytes`: refused above this, before reading where the
    /// length is known, and never read further than one byte beyond.
    /// Errors: Network: connection, TLS, timeout, or a status that is not 2xx. Source: too long,
    /// compressed, or a bad redirect. Config: no CA certificates, or plain HTTP where it is not allowed.
    pub fn document(&self, url: &Url, accept: &str, cap_bytes: u64) -> Result<Document> {
        let answer = self.send(Method::GET, url, accept, Limit::document(&self.timeouts))?.check_status(false)?;
        let mut document = answer.describe();
        let too_long =
            || Error::new(Kind::Source, format!("longer than {cap_bytes} bytes")).at("fetch", &document.final_url);
        if document.length.is_some_and(|n| n > cap_bytes) {
            return Err(too_long());
        }
        // Where the length is known, no room is taken beyond it.
        let mut body = Vec::with_capacity(document.length.map_or(0, |n| n as usize));
        answer
            .into_reader()
            .take(cap_bytes.saturating_add(1))
            .read_to_end(&mut body)
            .map_err(|e| Error::new(Kind::Network, e.to_string()).at("fetch", &document.final_url))?;
        if body.len() as u64 > cap_bytes {
            return Err(too_long());
        }
        document.body = body;
        Ok(document)
    }

    /// Asks for a document's headers only. Errors: as [`Client::document`].
    pub fn head(&self, url: &Url, accept: &str) -> Result<Document> {
        let answer = self.send(Method::HEAD, url, accept, Limit::document(&self.timeouts))?;
        Ok(answer.check_status(false)?.describe())
    }

    /// Opens a body of any length. Input: `size_bytes`: what it should have, which says how long it may take.
    /// Errors: as [`Client::document`], without the cap.
    pub fn stream(&self, url: &Url, accept: &str, size_bytes: u64) -> Result<Body> {
        let answer = self.send(Method::GET, url, accept, Limit::body(&self.timeouts, size_bytes))?;
        let answer = answer.check_status(is_gzip(url))?;
        Ok(Body { length: answer.length(), reader: Box::new(answer.into_reader()) })
    }

    /// Asks whether a body could be opened, and reads nothing of it.
    /// Returns: its length, where the server says. A server that knows no HEAD is taken to have it.
    /// Errors: as [`Client::stream`].
    pub fn probe(&self, url: &Url) -> Result<Option<u64>> {
        let answer = self.send(Method::HEAD, url, "*/*", Limit::document(&self.timeouts))?;
        match answer.response.status().as_u16() {
            405 | 501 => Ok(None),
            // Presigned addresses are signed for GET alone. The body is dropped with its connection.
            403 => Ok(self.stream(url, "*/*", 0)?.length),
            _ => Ok(answer.check_status(is_gzip(url))?.length()),
        }
    }

    /// Sends one request and follows redirects.
    fn send(&self, method: Method, url: &Url, accept: &str, limit: Limit) -> Result<Answer> {
        let mut url = url.clone();
        let Client { timeouts, watch, .. } = self;
        for _ in 0..=MAX_REDIRECTS {
            self.plain_http.check(&url)?;
            let request = Request::builder()
                .method(method.clone())
                .uri(url.request_text())
                .header(header::ACCEPT, accept)
                .body(())
                .map_err(|e| Error::new(Kind::Source, e.to_string()).at("fetch", &url))?;
            watch.begin(limit);
            let response = self.agent.run(request).map_err(|e| explain(e, &url, timeouts, limit))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer { response, url, timeouts: *timeouts, watch: watch.clone(), limit });
            }
            url = redirect_target(&response, &url)?;
        }
        Err(Error::new(Kind::Source, format!("more than {MAX_REDIRECTS} redirects")).at("fetch", url))
    }
}

/// Resolves Location. Source: RFC 9110, section 10.2.2.
fn redirect_target(response: &Response<ureq::Body>, from: &Url) -> Result<Url> {
    let fail = |why: String| Error::new(Kind::Source, why).at("follow the redirect from", from);
    let location = text_header(response, "location").ok_or_else(|| fail("it says no location".to_owned()))?;
    let to = from.join(&location).map_err(|e| fail(e.to_string()))?;
    match from.is_secure() && !to.is_secure() {
        true => Err(fail(format!("it leads from https to plain http, at {}", to.host()))),
        false => Ok(to),
    }
}

/// Says whether a file is compressed by its name: servers that know the ending send it with Content-Encoding, and
/// as it is stored (Apache's AddEncoding).
fn is_gzip(url: &Url) -> bool {
    url.path().ends_with(".gz")
}

struct Answer {
    response: Response<ureq::Body>,
    url: Url,
    timeouts: Timeouts,
    watch: Watch,
    limit: Limit,
}

impl Answer {
    /// Sorts out every status but 2xx, and what is encoded in any way.
    /// Input: `stored_gzip`: gzip is what was asked for; length and digest are checked all the same.
    fn check_status(self, stored_gzip: bool) -> Result<Answer> {
        if self.response.status().is_success() {
            let taken = if stored_gzip { &["identity", "gzip", "x-gzip"][..] } else { &["identity"] };
            let encoding = text_header(&self.response, "content-encoding");
            return match encoding.filter(|e| !taken.iter().any(|t| e.eq_ignore_ascii_case(t))) {
                None => Ok(self),
                Some(e) => {
                    Err(Error::new(Kind::Source, format!("sent with Content-Encoding {e}, which was not asked for"))
                        .at("fetch", self.url))
                }
            };
        }
        let status = self.response.status();
        let (url, host) = (self.url.clone(), self.url.host().to_owned());
        let detail = error_detail(self.into_reader()).map_or(String::new(), |d| format!(": {d}"));
        let reason = status.canonical_reason().unwrap_or("unknown status");
        let error = Error::new(Kind::Network, format!("{host} answered {} {reason}{detail}", status.as_u16()));
        let error = match status.as_u16() {
            401 | 403 => error.hint("this needs credentials, which this version cannot send yet"),
            404 if url.path().starts_with("/v2/") => error.hint("does the repository exist, and have this tag?"),
            404 => error.hint("is the path right?"),
            _ => error,
        };
        Err(error.at("fetch", url))
    }

    fn length(&self) -> Option<u64> {
        text_header(&self.response, "content-length")?.parse().ok()
    }

    fn describe(&self) -> Document {
        Document {
            status: self.response.status().as_u16(),
            content_type: text_header(&self.response, "content-type"),
            digest_header: text_header(&self.response, "docker-content-digest"),
            etag: text_header(&self.response, "etag"),
            length: self.length(),
            body: Vec::new(),
            final_url: self.url.clone(),
        }
    }

    fn into_reader(self) -> Reader {
        let Answer { response, url, timeouts, watch, limit } = self;
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        Reader { body, host: url.host().to_owned(), timeouts, watch, limit }
    }
}

fn text_header(response: &Response<ureq::Body>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// Reads a body; rewrites errors so that they say which host and why.
struct Reader {
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
fn error_detail(reader: Reader) -> Option<String> {
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

fn explain(error: ureq::Error, url: &Url, timeouts: &Timeouts, limit: Limit) -> Error {
    let ours = match &error {
        ureq::Error::Other(inner) => inner.downcast_ref::<Error>(),
        _ => None,
    };
    if let Some(ours) = ours {
        return ours.clone();
    }
    let (why, hint) = why(&error, timeouts, limit);
    Error::new(Kind::Network, format!("{}: {why}", url.host())).at("fetch", url).hint(hint)
}

/// Says why a request failed, and what to do about it. Never shows a URL: it may hold a secret.
fn why(error: &ureq::Error, timeouts: &Timeouts, limit: Limit) -> (String, &'static str) {
    use ureq::Timeout as T;
    let waited = |what: &str, time: Duration| format!("{what} for {} s", time.as_secs_f32());
    match error {
        ureq::Error::Timeout(T::Connect) => (waited("no connection", timeouts.connect), "is the host reachable?"),
        ureq::Error::Timeout(T::PerRead) => (waited("no data", timeouts.stall), ""),
        ureq::Error::Timeout(T::RecvBody) => (limit.words(), ""),
        ureq::Error::Timeout(_) => (waited("no answer", timeouts.headers), ""),
        ureq::Error::Io(e) => match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => (format!("TLS: {}", words(tls)), advice(tls)),
            None if e.kind() == io::ErrorKind::UnexpectedEof => ("connection closed before the end".to_owned(), ""),
            None => (e.to_string(), ""),
        },
        ureq::Error::BadUri(_) => ("not a usable URL".to_owned(), ""),
        ureq::Error::HostNotFound => ("host not found".to_owned(), "check the name and the DNS server"),
        other => (other.to_string(), ""),
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
