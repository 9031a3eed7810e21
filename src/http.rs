//! The one HTTP client: limits, timeouts, redirects, retries, mirrors, and errors that name host and reason.
//!
//! Must never: follow a redirect from https to http, take credentials along to another server, read a document beyond
//! its cap, wait or try for ever, or put a URL's query string into a message. Requests go out without compression: what
//! is hashed is what is sent.

mod answer;
mod auth;
mod call;
mod deadline;
mod dial;
mod failure;
mod guard;
mod names;
mod options;
mod peers;
mod proxy;
mod range;
mod resume;
mod retry;
mod status;
mod transport;

use crate::credentials::Secret;
use crate::error::{Error, Kind, Result};
use crate::progress::{detail, setback};
use crate::tls::{Clock, TlsConnector, Trust};
use crate::url::Url;
use answer::{Answer, Reader, Shown, error_detail, is_gzip};
use auth::Auth;
use deadline::Limit;
use dial::Dialling;
use failure::Failure;
use peers::Peers;
use proxy::{Proxies, Proxy};
use std::sync::Arc;
use std::time::Duration;
use ureq::http::Method;
use ureq::http::header::{self, HeaderName};

pub use deadline::Timeouts;
pub use options::{HttpOptions, PlainHttp};
pub use proxy::ProxyEnv;
pub use resume::Body;

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;

/// Sends requests. Cheap to clone; clones share connections, tokens and what is known of servers.
#[derive(Clone)]
pub struct Client {
    dialling: Dialling,
    /// For servers that may not know who we are, and for those that may.
    agents: [ureq::Agent; 2],
    plain_http: PlainHttp,
    timeouts: Timeouts,
    tries: u32,
    now: Clock,
    auth: Auth,
    /// Addresses of the same files: the source's own first.
    bases: Vec<Url>,
    /// When all documents have to be there, if so.
    whole: Option<Limit>,
    /// So many of them have sent something wrong.
    doubted: usize,
    /// Whether caches on the way are told to ask the server.
    past_caches: bool,
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
    /// A redirect is an answer like any other, and not followed.
    stays: bool,
}

impl Ask<'_> {
    fn method(&self) -> Method {
        match (self.is_head, self.form) {
            (true, _) => Method::HEAD,
            (_, Some(_)) => Method::POST,
            _ => Method::GET,
        }
    }
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
    /// Link, as sent, in however many lines.
    pub link: Option<String>,
    /// Content-Length, where it is known.
    pub length: Option<u64>,
    /// Whether a cache says that this is its copy. Source: RFC 9111, section 5.1.
    pub is_copy: bool,
    /// The body; empty for HEAD.
    pub body: Vec<u8>,
    /// Where the answer came from, after redirects.
    pub final_url: Url,
}

impl Client {
    /// Sets the client up; reads no file and opens no connection.
    /// Errors: Config: the user agent is not fit for a header.
    pub fn new(options: HttpOptions) -> Result<Client> {
        if options.user_agent.chars().any(char::is_control) {
            return Err(Error::new(Kind::Config, "not fit for an HTTP header").at("use", "user agent"));
        }
        let tls = TlsConnector::new(Trust {
            ca: options.ca,
            ca_candidates: options.ca_candidates,
            now: options.now.clone(),
            floor_secs: options.clock_floor_secs,
            shares_clock: options.shares_clock,
            server_name: options.server_name,
            identity: options.identity,
        });
        let dialling = Dialling {
            tls,
            peers: Peers::default(),
            proxies: Proxies::new(options.proxy),
            user_agent: options.user_agent,
            timeouts: options.timeouts,
            made: Arc::default(),
        };
        Ok(Client {
            agents: call::agents(&dialling),
            dialling,
            plain_http: PlainHttp::Auto,
            timeouts: options.timeouts,
            tries: options.tries.max(1),
            now: options.now,
            auth: Auth::new(options.credentials),
            bases: Vec::new(),
            whole: None,
            doubted: 0,
            past_caches: false,
        })
    }

    /// Returns the same client with another rule for plain HTTP, which holds for redirects as well.
    pub fn with_plain_http(&self, plain_http: PlainHttp) -> Client {
        Client { plain_http, ..self.clone() }
    }

    /// Returns the same client, but for one that tries each place once.
    pub fn once(&self) -> Client {
        Client { tries: 1, ..self.clone() }
    }

    /// Returns the same client for what changes under its name: caches on the way are to ask the server whether what they
    /// have is still what is there. Source: RFC 9111, section 5.2.1.4.
    pub fn past_caches(&self) -> Client {
        Client { past_caches: true, ..self.clone() }
    }

    /// Returns the same client, which from now on has the time of one document for all that it fetches.
    pub fn with_one_limit(&self) -> Client {
        Client { whole: Some(Limit::document(&self.timeouts)), ..self.clone() }
    }

    /// From now on the place that was first comes last: what came from it was wrong.
    /// Returns: whether there is another one that has not been doubted yet.
    pub fn doubt(&mut self) -> bool {
        self.doubted += 1;
        self.doubted < self.bases.len()
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
        self.document_as(url, accept, cap_bytes, etag, &mut Ok)
    }

    /// The same, and makes something of it; a place whose document is refused is not the last one that is asked.
    /// Errors: as above, and those of `make`.
    pub fn document_as<T>(
        &self,
        url: &Url,
        accept: &str,
        cap_bytes: u64,
        etag: Option<&str>,
        make: &mut dyn FnMut(Document) -> Result<T>,
    ) -> Result<T> {
        let ask = Ask { accept, if_none_match: etag, ..Ask::default() };
        self.try_all(url, &mut |url, limit| {
            let answer = self.send(url, &ask, limit)?;
            if etag.is_some() && answer.status() == 304 {
                return Ok(make(answer.describe())?);
            }
            Ok(make(answer.check_status(false)?.into_document(cap_bytes)?)?)
        })
    }

    /// The same for what need not be there: `make` gets `None` where the server has none, or knows no such thing.
    pub fn document_if_there<T>(
        &self,
        url: &Url,
        accept: &str,
        cap_bytes: u64,
        make: &mut dyn FnMut(Option<Document>) -> Result<T>,
    ) -> Result<T> {
        self.try_all(url, &mut |url, limit| {
            let answer = self.send(url, &Ask { accept, ..Ask::default() }, limit)?;
            match answer.status() {
                400 | 404 | 405 | 410 | 501 => Ok(make(None)?),
                _ => Ok(make(Some(answer.check_status(false)?.into_document(cap_bytes)?))?),
            }
        })
    }

    /// Fetches whatever the server answers, of any status, with no other credentials than the client certificate, which no
    /// other server gets to see: a redirect is an answer, and not followed.
    /// Input: `take`: gets the status and each piece of the body as it comes, of `cap_bytes` at most.
    /// Errors: Network: connection, TLS, timeout. Source: longer than `cap_bytes`; and those of `take`.
    pub fn whatever(&self, url: &Url, cap_bytes: u64, take: &mut dyn FnMut(u16, &[u8]) -> Result<()>) -> Result<u16> {
        self.try_all(url, &mut |url, limit| {
            let ask = Ask { accept: "application/json, text/plain", stays: true, ..Ask::default() };
            let answer = self.exchange(url, &ask, None, limit)?;
            let status = answer.status();
            answer.pour(cap_bytes, &mut |bytes| take(status, bytes))?;
            Ok(status)
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
    /// Input: `check`: gets its length, where the server says. A server that knows no HEAD is taken to have it.
    /// Errors: as [`Client::stream`], and those of `check`.
    pub fn probe(&self, url: &Url, check: &mut dyn FnMut(Option<u64>) -> Result<()>) -> Result<()> {
        let head = Ask { accept: "*/*", is_head: true, ..Ask::default() };
        self.try_all(url, &mut |url, limit| {
            let answer = self.send(url, &head, limit)?;
            let length = match answer.status() {
                405 | 501 => None,
                // Presigned addresses are signed for GET alone, and some walls let nothing else through. The body is
                // dropped with its connection.
                400..=499 => {
                    let answer = self.send(url, &Ask { is_head: false, ..head }, limit)?;
                    answer.check_status(is_gzip(url))?.length()
                }
                // 0: said by servers that make their answers only for GET.
                _ => answer.check_status(is_gzip(url))?.length().filter(|length| *length > 0),
            };
            Ok(check(length)?)
        })
    }

    /// Says whether the configuration names this server, as the source or as a mirror of it: who we are is for these alone.
    /// One that a document, a redirect or a token realm names is none of them. Source: RFC 6454, section 4.
    fn is_configured(&self, url: &Url) -> bool {
        self.bases.iter().any(|base| base.origin() == url.origin())
    }

    /// Errors: plain HTTP is not allowed there. Config: our own configuration names it. Source: a server does.
    fn check_plain_http(&self, url: &Url) -> Result<()> {
        self.plain_http.check(url).map_err(|e| match self.bases.first() {
            Some(own) if !self.is_configured(url) => {
                let why = format!("{} names it, and plain HTTP is not allowed to this host", own.host());
                Error::new(Kind::Source, why).at("fetch", url).hint("an https address has to be named there")
            }
            _ => e,
        })
    }

    /// Returns the URLs at which the same thing lies: the one given first, but for those that were doubted.
    fn places(&self, url: &Url) -> Vec<Url> {
        let mut places = vec![url.clone()];
        // One may lie below another: the nearest knows what is secret. Its own place stands there already.
        let below = self.bases.iter().enumerate().rev().filter_map(|(at, base)| Some((at, base, url.beyond(base)?)));
        if let Some((own, _, rest)) = below.max_by_key(|(_, base, _)| base.path().len()) {
            let others = self.bases.iter().enumerate().filter(|(at, _)| *at != own);
            places.extend(others.map(|(_, base)| base.extended(&rest)));
        }
        let mut seen: Vec<Url> = Vec::new();
        places.retain(|place| {
            let new = !seen.contains(place);
            seen.push(place.clone());
            new
        });
        let doubted = self.doubted % places.len();
        places.rotate_left(doubted);
        places
    }

    /// Does something with each place until it works; again, after a wait, where the trouble may pass.
    /// Errors: that of the place named first, if no other worked.
    fn try_all<T>(&self, url: &Url, once: &mut Once<'_, T>) -> Result<T> {
        let limit = self.whole.unwrap_or_else(|| Limit::document(&self.timeouts));
        let (mut places, mut first, mut failed) = (self.places(url), None, 0);
        loop {
            let mut waits: Option<(Error, Option<Duration>)> = None;
            let mut at = 0;
            while let Some(place) = places.get(at) {
                let Failure { error, is_passing, asked, .. } = match once(place, limit) {
                    Ok(done) => return Ok(done),
                    Err(failure) => failure,
                };
                if is_passing {
                    at += 1;
                    waits.get_or_insert((error.clone(), asked));
                } else {
                    places.remove(at);
                }
                match places.get(at) {
                    Some(next) => setback(&error, &format!("trying {}", next.authority())),
                    // The wait says why the first one failed, and nothing of this one, which is not asked again.
                    None if !is_passing && waits.is_some() => setback(&error, "the other places are asked again"),
                    None => {}
                }
                // What is wrong with what a place sends counts for more than the trouble of the moment before it.
                let is_worse = !is_passing && error.kind() != Kind::Network;
                if first.as_ref().is_none_or(|(_, was_passing)| *was_passing && is_worse) {
                    first = Some((error, is_passing));
                }
            }
            failed += 1;
            let Some((error, asked)) = waits else {
                return Err(first.map_or_else(|| Error::new(Kind::Internal, "nowhere to ask"), |(error, _)| error));
            };
            // Another place may have been waited for: what the first one said for good stands.
            self.wait(failed, limit, asked, error).map_err(|late| match &first {
                Some((error, false)) => error.clone(),
                _ => late,
            })?;
        }
    }

    /// Sends one request, with what the server wants to see of us; follows redirects.
    fn send(&self, url: &Url, ask: &Ask<'_>, limit: Limit) -> std::result::Result<Answer, Failure> {
        let exchange = || {
            let (header, shown) = self.auth.header(url).map_or((None, Shown::Nothing), |(h, shown)| (Some(h), shown));
            let answer = self.exchange(url, ask, header.as_ref(), limit)?;
            let is_led = answer.url.origin() != url.origin();
            Ok::<_, Failure>(answer.shown(if is_led { Shown::Led } else { shown }))
        };
        let answer = exchange()?;
        // Another server's 401 is no question to us.
        if answer.status() != 401 || answer.url.origin() != url.origin() {
            return Ok(answer);
        }
        // What we hold has ended, or there is nothing yet: once afresh, and then it is an answer.
        self.auth.forget(url);
        self.authenticate(answer, url, limit)?;
        exchange()
    }

    /// Sends one request and follows redirects. Input: `authorization`: shown to the server of `url` and to no other; so is
    /// the client certificate, where the configuration names that server.
    fn exchange(
        &self,
        url: &Url,
        ask: &Ask<'_>,
        authorization: Option<&Secret>,
        limit: Limit,
    ) -> std::result::Result<Answer, Failure> {
        let (mut url, mut authorization) = (url.clone(), authorization);
        self.check_plain_http(&url)?;
        let mut identified = self.is_configured(&url);
        for _ in 0..=MAX_REDIRECTS {
            // Of TLS, a proxy sees nothing but where it leads.
            let proxy = self.dialling.proxies.of(&url)?.filter(|_| !url.is_secure());
            let range = ask.range.map(|from| format!("bytes={from}-"));
            let headers = self.headers(ask, range.as_deref(), authorization, proxy);
            // Without what comes behind a question mark, which may be a secret.
            detail(&|| format!("{} {url}", ask.method()));
            let came = self.call(&url, identified, (ask, headers), limit)?;
            let knows_secret = authorization.is_some() || ask.form.is_some();
            let answer = Answer::new(came, (url, ask.is_head, knows_secret), self, limit)?.through(proxy);
            if ask.stays || !matches!(answer.status(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            if ask.form.is_some() {
                let why = "it redirects what is posted to it";
                return Err(Error::new(Kind::Source, why).at("fetch", &answer.url).into());
            }
            let to = answer.redirect_target()?;
            if let Err(e) = self.plain_http.check(&to) {
                // Nobody here has chosen that address.
                let why = format!("it leads to {}: {e}", to.host());
                return Err(Error::new(Kind::Source, why).at("follow the redirect from", &answer.url).into());
            }
            // Once gone, it does not come back: who redirects here is another server.
            if to.origin() != answer.url.origin() {
                (authorization, identified) = (None, false);
            }
            url = to;
        }
        Err(Error::new(Kind::Source, format!("more than {MAX_REDIRECTS} redirects")).at("fetch", url).into())
    }

    /// Returns what a server is told, or the proxy that passes it on. Source: RFC 9110, sections 11.7, 13 and 14.
    fn headers<'a>(
        &'a self,
        ask: &Ask<'a>,
        range: Option<&'a str>,
        authorization: Option<&'a Secret>,
        proxy: Option<&'a Proxy>,
    ) -> Vec<(HeaderName, &'a str)> {
        let all = [
            (header::USER_AGENT, Some(self.dialling.user_agent.as_str())),
            (header::ACCEPT, Some(ask.accept)),
            (header::ACCEPT_ENCODING, Some("identity")),
            (header::AUTHORIZATION, authorization.map(Secret::reveal)),
            (header::PROXY_AUTHORIZATION, proxy.and_then(|p| p.authorization.as_ref()).map(Secret::reveal)),
            (header::RANGE, range),
            (header::IF_RANGE, ask.if_range.filter(|_| range.is_some())),
            (header::IF_NONE_MATCH, ask.if_none_match),
            (header::CACHE_CONTROL, self.past_caches.then_some("no-cache")),
            (header::CONTENT_TYPE, ask.form.map(|_| "application/x-www-form-urlencoded")),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// One try at one place.
type Once<'a, T> = dyn FnMut(&Url, Limit) -> std::result::Result<T, Failure> + 'a;

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "http_connection_tests.rs"]
mod connection_tests;
