//! The one HTTP client: fetches documents, with retries and from any number of mirrors.
//!
//! Must never: read a document beyond its cap, wait or try for ever, or put a URL's query string into a message.

use super::answer::{Answer, Shown, is_gzip};
use super::auth::Auth;
use super::call::Caller;
use super::deadline::{Limit, Timeouts};
use super::dial::Dialling;
use super::exchange::Exchange;
use super::failure::Failure;
use super::message::{Ask, Document};
use super::options::{HttpOptions, PlainHttp};
use super::peers::Peers;
use super::proxy::Proxies;
use super::retry;
use crate::base::error::{Error, Kind, Result};
use crate::base::text::secs;
use crate::base::url::Url;
use crate::http::tls::{TlsConnector, Trust};
use crate::os::progress::{self, setback};
use std::sync::Arc;
use std::time::Duration;

/// Request for a document, see [`Client::document`].
pub struct DocumentRequest<'a> {
    /// The Accept header.
    pub accept: &'a str,
    /// A longer document is refused.
    pub cap_bytes: u64,
    /// ETag of the known copy: 304 is then an answer.
    pub etag: Option<&'a str>,
}

/// Sends requests. Cheap to clone; clones share connections, tokens and knowledge of servers.
#[derive(Clone)]
pub struct Client {
    pub(super) exchange: Exchange,
    pub(super) tries: u32,
    auth: Auth,
    /// Deadline for all documents together, if set.
    whole: Option<Limit>,
    /// Number of places that have sent something wrong.
    doubted: usize,
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
        let exchange = Exchange {
            caller: Caller::new(dialling),
            plain_http: PlainHttp::Auto,
            now: options.now,
            bases: Vec::new(),
            past_caches: false,
        };
        let auth = Auth::new(options.credentials);
        Ok(Client { exchange, tries: options.tries.max(1), auth, whole: None, doubted: 0 })
    }

    /// Returns the timeouts.
    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.exchange.caller.dialling.timeouts
    }

    /// Returns a client with another rule for plain HTTP, which holds for redirects as well.
    pub fn with_plain_http(&self, plain_http: PlainHttp) -> Client {
        let mut client = self.clone();
        client.exchange.plain_http = plain_http;
        client
    }

    /// Returns a client that tries each place once.
    pub fn once(&self) -> Client {
        Client { tries: 1, ..self.clone() }
    }

    /// Returns a client for content that changes under its name: caches on the way must revalidate their copy with the
    /// server. Source: RFC 9111, section 5.2.1.4.
    pub fn past_caches(&self) -> Client {
        let mut client = self.clone();
        client.exchange.past_caches = true;
        client
    }

    /// Returns a client that from now on has one document's time limit for all that it fetches.
    pub fn with_one_limit(&self) -> Client {
        Client { whole: Some(Limit::document(self.timeouts())), ..self.clone() }
    }

    /// Moves the first place to the end, because it sent something wrong.
    /// Returns: whether there is another place that has not been doubted yet.
    pub fn doubt(&mut self) -> bool {
        self.doubted += 1;
        self.doubted < self.exchange.bases.len()
    }

    /// Returns a client for a source with mirrors.
    /// Input: the source's base URL, path included, and those of its mirrors, in the order of trying.
    pub fn with_bases(&self, bases: Vec<Url>) -> Client {
        let mut client = self.clone();
        client.exchange.bases = bases;
        client
    }

    /// Fetches a whole document.
    /// Input: `accept`: the Accept header; `cap_bytes`: refused above this, before reading where the
    /// length is known, and never read further than one byte beyond; `etag`: of the known copy: 304 is then an answer.
    /// Errors: Network: connection, TLS, timeout, or a status that is not 2xx. Source: too long,
    /// compressed, or a bad redirect. Config: no CA certificates, or plain HTTP where it is not allowed.
    pub fn document(&self, url: &Url, accept: &str, cap_bytes: u64, etag: Option<&str>) -> Result<Document> {
        self.document_as(url, &DocumentRequest { accept, cap_bytes, etag }, &mut Ok)
    }

    /// Fetches a document and passes it to `make`; if `make` refuses it, the remaining places are still tried.
    /// Errors: as above, and those of `make`.
    pub fn document_as<T>(
        &self,
        url: &Url,
        &DocumentRequest { accept, cap_bytes, etag }: &DocumentRequest<'_>,
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

    /// As [`Client::document_as`] for an optional document: `make` gets `None` where the server has none, or does not know it.
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

    /// Fetches an answer of any status, with the client certificate as the only credential, which no other server
    /// gets to see: a redirect is an answer, and not followed.
    /// Input: `take`: gets the status and each piece of the body as it comes, of `cap_bytes` at most.
    /// Errors: Network: connection, TLS, timeout. Source: longer than `cap_bytes`; and those of `take`.
    pub fn whatever(&self, url: &Url, cap_bytes: u64, take: &mut dyn FnMut(u16, &[u8]) -> Result<()>) -> Result<u16> {
        self.try_all(url, &mut |url, limit| {
            let ask = Ask { accept: "application/json, text/plain", stays: true, ..Ask::default() };
            let answer = self.exchange.send(url, &ask, None, limit)?;
            let status = answer.status();
            answer.pour(cap_bytes, &mut |bytes| take(status, bytes))?;
            Ok(status)
        })
    }

    /// Asks for a document's headers only.
    /// Returns: `None`: the server does not support HEAD. Errors: as [`Client::document`].
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

    /// Asks whether a body can be opened, without reading it.
    /// Input: `check`: gets its length, where the server states it. A server without HEAD is assumed to have the body.
    /// Errors: as [`Client::stream`], and those of `check`.
    pub fn probe(&self, url: &Url, check: &mut dyn FnMut(Option<u64>) -> Result<()>) -> Result<()> {
        let head = Ask { accept: "*/*", is_head: true, ..Ask::default() };
        self.try_all(url, &mut |url, limit| {
            let answer = self.send(url, &head, limit)?;
            let length = match answer.status() {
                405 | 501 => None,
                // Presigned URLs are signed for GET alone, and some firewalls pass nothing else. The body is
                // dropped with its connection.
                400..=499 => {
                    let answer = self.send(url, &Ask { is_head: false, ..head }, limit)?;
                    answer.check_status(is_gzip(url))?.length()
                }
                // 0: sent by servers that generate their answers only for GET.
                _ => answer.check_status(is_gzip(url))?.length().filter(|length| *length > 0),
            };
            Ok(check(length)?)
        })
    }

    /// Returns the URLs of the same content: the given one first, and doubted ones last.
    pub(super) fn places(&self, url: &Url) -> Vec<Url> {
        let mut places = vec![url.clone()];
        // One base may lie below another: the nearest tells what is secret. Its own URL is already in the list.
        let below =
            self.exchange.bases.iter().enumerate().rev().filter_map(|(at, base)| Some((at, base, url.beyond(base)?)));
        if let Some((own, _, rest)) = below.max_by_key(|(_, base, _)| base.path().len()) {
            let others = self.exchange.bases.iter().enumerate().filter(|(at, _)| *at != own);
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

    /// Calls `once` with each place until it succeeds; repeats, after a wait, where the failure may be temporary.
    /// Errors: that of the place named first, if no other worked.
    fn try_all<T>(&self, url: &Url, once: &mut Once<'_, T>) -> Result<T> {
        let limit = self.whole.unwrap_or_else(|| Limit::document(self.timeouts()));
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
                    // The wait reports why the first place failed, but not this one, which is not asked again.
                    None if !is_passing && waits.is_some() => setback(&error, "the other places are asked again"),
                    None => {}
                }
                // Wrong content outweighs an earlier temporary failure.
                let is_worse = !is_passing && error.kind() != Kind::Network;
                if first.as_ref().is_none_or(|(_, was_passing)| *was_passing && is_worse) {
                    first = Some((error, is_passing));
                }
            }
            failed += 1;
            let Some((error, asked)) = waits else {
                return Err(first.map_or_else(|| Error::new(Kind::Internal, "nowhere to ask"), |(error, _)| error));
            };
            // The wait may have been for another place: the permanent failure of the first one is the one to report.
            self.wait(failed, limit, asked, error).map_err(|late| match &first {
                Some((error, false)) => error.clone(),
                _ => late,
            })?;
        }
    }

    /// Sends one request, with the authorization that the server wants; follows redirects.
    pub(super) fn send(&self, url: &Url, ask: &Ask<'_>, limit: Limit) -> std::result::Result<Answer, Failure> {
        let exchange = || {
            let (header, shown) = self.auth.header(url).map_or((None, Shown::Nothing), |(h, shown)| (Some(h), shown));
            let answer = self.exchange.send(url, ask, header.as_ref(), limit)?;
            let is_led = answer.url.origin() != url.origin();
            Ok::<_, Failure>(answer.shown(if is_led { Shown::Led } else { shown }))
        };
        let answer = exchange()?;
        // Another server's 401 is not addressed to us.
        if answer.status() != 401 || answer.url.origin() != url.origin() {
            return Ok(answer);
        }
        // Our token has expired, or there is none yet: authenticate once; the next answer is final.
        self.auth.forget(url);
        self.auth.authenticate(&self.exchange, answer, url, limit)?;
        exchange()
    }

    /// Waits before another try. Errors: no try is left: the failure, with the reason.
    pub(super) fn wait(&self, failed: u32, limit: Limit, asked: Option<Duration>, error: Error) -> Result<()> {
        let dice = crate::os::sys::random_u64();
        match retry::next(failed, self.tries, limit.left(), asked, dice) {
            retry::Next::Wait(time) => {
                let going_on = retry::going_on(failed, self.tries, limit.left(), progress::is_watched());
                // The hint is shown only with the final failure.
                setback(&error.hint_instead(""), &format!("trying again in {} s{going_on}", secs(time)));
                std::thread::sleep(time);
                Ok(())
            }
            retry::Next::Enough => Err(error),
            retry::Next::TooLong(time) => Err(error.hint(format!(
                "the server asks for a pause of {} s, and only {} s are left for this: try again later",
                time.as_secs(),
                limit.left().as_secs()
            ))),
        }
    }
}

/// One try at one place.
type Once<'a, T> = dyn FnMut(&Url, Limit) -> std::result::Result<T, Failure> + 'a;

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "connection_tests.rs"]
mod connection_tests;

#[cfg(test)]
#[path = "part_tests.rs"]
mod part_tests;
