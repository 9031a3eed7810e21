//! The one HTTP client: limits, timeouts, redirects, retries, mirrors, and errors that name host and reason.
//!
//! Must never: follow a redirect from https to http, take credentials along to another server, read a document beyond
//! its cap, wait or try for ever, or put a URL's query string into a message. Requests go out without compression: what
//! is hashed is what is sent.

mod answer;
mod auth;
mod deadline;
mod peers;
mod proxy;
mod resume;
mod retry;

use crate::credentials::{Credentials, Secret};
use crate::error::{Error, Kind, Result};
use crate::progress::note;
use crate::system::System;
use crate::tls::{Clock, Identity, TlsConnector, Trust};
use crate::url::Url;
use answer::{Answer, Failure, Reader, error_detail, explain, is_gzip};
use auth::Auth;
use deadline::{Limit, Watch};
use peers::Peers;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderValue, Method, Request, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};

pub use proxy::ProxyEnv;
pub use resume::Body;

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;
/// What is read from a socket at once; also the longest unread input that a connection keeps.
const INPUT_BUFFER: usize = 64 << 10;
/// Room for one request's head.
const OUTPUT_BUFFER: usize = 16 << 10;
/// Longest response head.
const MAX_HEAD: usize = 32 << 10;
/// Most tries in a row that bring nothing; the waits between them add up to two minutes at most.
const DEFAULT_TRIES: u32 = 8;

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
    /// Slowest average that a file may come at; 0: its length gives it no more time.
    pub bytes_per_sec: u64,
}

impl Timeouts {
    /// Puts what is configured in place of the defaults. Input: longest silence; longest time for one thing as a whole.
    pub fn limit(&mut self, silence: Option<Duration>, whole: Option<Duration>) {
        if let Some(silence) = silence {
            (self.connect, self.headers, self.stall) = (silence, silence, silence);
        }
        if let Some(whole) = whole {
            (self.document, self.body, self.bytes_per_sec) = (whole, whole, 0);
        }
    }
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
    /// Most tries in a row that bring nothing; 1: none is repeated.
    pub tries: u32,
    /// Who we are, and to whom.
    pub credentials: Credentials,
    /// Client certificate and key, for servers that want to see one.
    pub identity: Option<Identity>,
    /// Proxies.
    pub proxy: ProxyEnv,
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
            tries: DEFAULT_TRIES,
            credentials: Credentials::default(),
            identity: None,
            proxy: ProxyEnv::default(),
        }
    }
}

/// Sends requests. Cheap to clone; clones share connections, tokens and what is known of servers.
#[derive(Clone)]
pub struct Client {
    direct: ureq::Agent,
    /// For http and for https URLs.
    proxied: [Option<ureq::Agent>; 2],
    proxy: ProxyEnv,
    plain_http: PlainHttp,
    timeouts: Timeouts,
    tries: u32,
    now: Clock,
    watch: Watch,
    peers: Peers,
    auth: Auth,
    /// Addresses of the same files: the source's own first.
    bases: Vec<Url>,
}

/// One request. The default: a GET for anything.
#[derive(Clone, Copy, Default)]
struct Ask<'a> {
    is_head: bool,
    accept: &'a str,
    /// First byte wanted.
    range: Option<u64>,
    /// ETag that must hold for a part to be sent.
    if_range: Option<&'a str>,
    /// ETag of what is known already.
    if_none_match: Option<&'a str>,
    /// A form to be posted.
    form: Option<&'a str>,
}

/// Holds a small answer, wholly read.
#[derive(Clone, Debug)]
pub struct Document {
    /// Status, 200 to 299; 304 where an ETag was given.
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

impl Client {
    /// Sets the client up; reads no file and opens no connection.
    /// Errors: Config: the user agent is not fit for a header, or a proxy's address is malformed.
    pub fn new(options: HttpOptions) -> Result<Client> {
        // ureq takes a bad one with a panic.
        if HeaderValue::from_str(&options.user_agent).is_err() {
            return Err(Error::new(Kind::Config, "not fit for an HTTP header").at("use", "user agent"));
        }
        let (watch, peers) = (Watch::default(), Peers::default());
        let tls = TlsConnector::new(Trust {
            ca_file: options.ca_file,
            ca_candidates: options.ca_candidates,
            now: options.now.clone(),
            floor_secs: options.clock_floor_secs,
            identity: options.identity,
        });
        let agent = |proxy| agent(&options.user_agent, &options.timeouts, proxy, &watch, &peers, &tls);
        let through = |name: &str, address: &Option<String>| {
            // Its address may hold a password.
            let bad = |_| Error::new(Kind::Config, "not a proxy's address, as http://host:3128").at("read", name);
            let proxy = address.as_ref().map(|a| ureq::Proxy::new(a).map_err(bad)).transpose()?;
            Ok::<_, Error>(proxy.map(|proxy| agent(Some(proxy))))
        };
        let proxied = [through("HTTP_PROXY", &options.proxy.http)?, through("HTTPS_PROXY", &options.proxy.https)?];
        Ok(Client {
            direct: agent(None),
            proxied,
            proxy: options.proxy,
            plain_http: PlainHttp::Auto,
            timeouts: options.timeouts,
            tries: options.tries.max(1),
            now: options.now,
            watch: watch.clone(),
            peers: peers.clone(),
            auth: Auth::new(options.credentials),
            bases: Vec::new(),
        })
    }

    /// Returns the same client with another rule for plain HTTP, which holds for redirects as well.
    pub fn with_plain_http(&self, plain_http: PlainHttp) -> Client {
        Client { plain_http, ..self.clone() }
    }

    /// Returns the same client for a source that has mirrors.
    /// Input: what its URLs begin with, path and all, and what they begin with elsewhere, in the order of trying.
    pub fn with_bases(&self, bases: Vec<Url>) -> Client {
        Client { bases, ..self.clone() }
    }

    /// Fetches a document whole.
    /// Input: `accept`: the Accept header; `cap_bytes`: refused above this, before reading where the
    /// length is known, and never read further than one byte beyond; `etag`: of what is known: 304 is then an answer.
    /// Errors: Network: connection, TLS, timeout, or a status that is not 2xx. Source: too long,
    /// compressed, or a bad redirect. Config: no CA certificates, or plain HTTP where it is not allowed.
    pub fn document(&self, url: &Url, accept: &str, cap_bytes: u64, etag: Option<&str>) -> Result<Document> {
        let ask = Ask { accept, if_none_match: etag, ..Ask::default() };
        self.try_all(url, &mut |url, limit| {
            let answer = self.send(url, &ask, limit)?;
            if etag.is_some() && answer.status() == 304 {
                return Ok(answer.describe());
            }
            answer.check_status(false)?.into_document(cap_bytes)
        })
    }

    /// Asks for a document's headers only.
    /// Returns: `None`: the server knows no HEAD. Errors: as [`Client::document`].
    pub fn head(&self, url: &Url, accept: &str) -> Result<Option<Document>> {
        let ask = Ask { accept, is_head: true, ..Ask::default() };
        self.try_all(url, &mut |url, limit| {
            let answer = self.send(url, &ask, limit)?;
            match answer.status() {
                405 | 501 => Ok(None),
                _ => Ok(Some(answer.check_status(false)?.describe())),
            }
        })
    }

    /// Asks whether a body could be opened, and reads nothing of it.
    /// Returns: its length, where the server says. A server that knows no HEAD is taken to have it.
    /// Errors: as [`Client::stream`].
    pub fn probe(&self, url: &Url) -> Result<Option<u64>> {
        let head = Ask { accept: "*/*", is_head: true, ..Ask::default() };
        self.try_all(url, &mut |url, limit| {
            let answer = self.send(url, &head, limit)?;
            match answer.status() {
                405 | 501 => Ok(None),
                // Presigned addresses are signed for GET alone. The body is dropped with its connection.
                403 => {
                    let answer = self.send(url, &Ask { is_head: false, ..head }, limit)?;
                    Ok(answer.check_status(is_gzip(url))?.length())
                }
                _ => Ok(answer.check_status(is_gzip(url))?.length()),
            }
        })
    }

    /// Returns the URLs at which the same thing lies: the one given first.
    fn places(&self, url: &Url) -> Vec<Url> {
        let mut places = vec![url.clone()];
        let rest = self.bases.iter().find_map(|base| url.beyond(base));
        places.extend(rest.iter().flat_map(|rest| self.bases.iter().map(|base| base.extended(rest))));
        let mut seen: Vec<Url> = Vec::new();
        places.retain(|place| {
            let new = !seen.contains(place);
            seen.push(place.clone());
            new
        });
        places
    }

    /// Does something with each place until it works; again, after a wait, where the trouble may pass.
    /// Errors: that of the place named first, if no other worked.
    fn try_all<T>(&self, url: &Url, once: &mut Once<'_, T>) -> Result<T> {
        let limit = Limit::document(&self.timeouts);
        let (mut places, mut first, mut failed) = (self.places(url), None, 0);
        loop {
            let mut waits: Option<(Error, Option<Duration>)> = None;
            let mut at = 0;
            while let Some(place) = places.get(at) {
                let Failure { error, is_passing, asked } = match once(place, limit) {
                    Ok(done) => return Ok(done),
                    Err(failure) => failure,
                };
                if is_passing {
                    at += 1;
                } else {
                    places.remove(at);
                }
                if let Some(next) = places.get(at) {
                    note(&format!("{error}; trying {}", next.host()));
                }
                if is_passing {
                    waits.get_or_insert((error.clone(), asked));
                }
                first.get_or_insert(error);
            }
            failed += 1;
            match waits {
                Some((error, asked)) => self.wait(failed, limit, asked, error)?,
                None => return Err(first.unwrap_or_else(|| Error::new(Kind::Internal, "nowhere to ask"))),
            }
        }
    }

    /// Sends one request, with what the server wants to see of us; follows redirects.
    fn send(&self, url: &Url, ask: &Ask<'_>, limit: Limit) -> std::result::Result<Answer, Failure> {
        let held = self.auth.header(url);
        let answer = self.exchange(url, ask, held.as_ref(), limit)?;
        // Another server's 401 is no question to us.
        if answer.status() != 401 || answer.url.origin() != url.origin() {
            return Ok(answer);
        }
        // What we hold has ended, or there is nothing yet: once afresh, and then it is an answer.
        self.auth.forget(url);
        self.authenticate(answer, url, limit)?;
        let fresh = self.auth.header(url);
        self.exchange(url, ask, fresh.as_ref(), limit)
    }

    /// Sends one request and follows redirects. Input: `authorization`: shown to the server of `url` and to no other.
    fn exchange(
        &self,
        url: &Url,
        ask: &Ask<'_>,
        authorization: Option<&Secret>,
        limit: Limit,
    ) -> std::result::Result<Answer, Failure> {
        let (mut url, mut authorization) = (url.clone(), authorization);
        for _ in 0..=MAX_REDIRECTS {
            self.plain_http.check(&url)?;
            let request = request(&url, ask, authorization)
                .map_err(|e| Error::new(Kind::Source, e.to_string()).at("fetch", &url))?;
            self.watch.begin(limit);
            let sent = self.agent(&url).run(request);
            let response = sent.map_err(|e| explain(e, &url, &self.timeouts, limit))?;
            let answer = Answer::new(response, url, self, limit, authorization.is_some());
            if !matches!(answer.status(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            if ask.form.is_some() {
                let why = "it redirects what is posted to it";
                return Err(Error::new(Kind::Source, why).at("fetch", &answer.url).into());
            }
            let to = answer.redirect_target()?;
            // Once gone, it does not come back: who redirects here is another server.
            if to.origin() != answer.url.origin() {
                authorization = None;
            }
            url = to;
        }
        Err(Error::new(Kind::Source, format!("more than {MAX_REDIRECTS} redirects")).at("fetch", url).into())
    }

    fn agent(&self, url: &Url) -> &ureq::Agent {
        let proxied = self.proxied[usize::from(url.is_secure())].as_ref();
        proxied.filter(|_| !self.proxy.is_direct(url.host(), url.port())).unwrap_or(&self.direct)
    }
}

/// One try at one place.
type Once<'a, T> = dyn FnMut(&Url, Limit) -> std::result::Result<T, Failure> + 'a;

fn agent(
    user_agent: &str,
    timeouts: &Timeouts,
    proxy: Option<ureq::Proxy>,
    watch: &Watch,
    peers: &Peers,
    tls: &TlsConnector,
) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(proxy)
        .accept_encoding("identity")
        .user_agent(user_agent)
        .max_response_header_size(MAX_HEAD)
        .input_buffer_size(INPUT_BUFFER)
        .output_buffer_size(OUTPUT_BUFFER)
        .max_idle_connections(2)
        .max_idle_connections_per_host(1)
        .timeout_connect(Some(timeouts.connect))
        .timeout_send_request(Some(timeouts.headers))
        .timeout_recv_response(Some(timeouts.headers))
        .timeout_per_read(Some(timeouts.stall))
        // No timeout for name lookup: ureq would spend a thread on it, and libc's resolver has its own.
        .build();
    let connector = ().chain(peers.clone()).chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
    let connector = connector.chain(watch.clone()).chain(tls.clone());
    ureq::Agent::with_parts(config, connector, DefaultResolver::default())
}

fn request(
    url: &Url,
    ask: &Ask<'_>,
    authorization: Option<&Secret>,
) -> ureq::http::Result<Request<ureq::SendBody<'static>>> {
    let method = match (ask.is_head, ask.form) {
        (true, _) => Method::HEAD,
        (_, Some(_)) => Method::POST,
        _ => Method::GET,
    };
    let mut request = Request::builder().method(method).uri(url.request_text()).header(header::ACCEPT, ask.accept);
    if let Some(secret) = authorization {
        request = request.header(header::AUTHORIZATION, secret.reveal());
    }
    if let Some(from) = ask.range {
        request = request.header(header::RANGE, format!("bytes={from}-"));
        if let Some(etag) = ask.if_range {
            request = request.header(header::IF_RANGE, etag);
        }
    }
    if let Some(etag) = ask.if_none_match {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    if ask.form.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    request.body(match ask.form {
        Some(form) => ureq::SendBody::from_owned_reader(std::io::Cursor::new(form.to_owned())),
        None => ureq::SendBody::none(),
    })
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
