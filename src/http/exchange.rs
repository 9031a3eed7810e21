//! One request with its redirects: which headers a server gets, where it may redirect, and who may see our credentials.
//!
//! Must never: follow a redirect from https to http, or take credentials along to another server.

use super::answer::{Answer, Asked};
use super::call::Caller;
use super::deadline::Limit;
use super::failure::Failure;
use super::message::Ask;
use super::options::PlainHttp;
use super::proxy::Proxy;
use crate::base::error::{Error, Kind, Result};
use crate::base::url::Url;
use crate::http::credentials::Secret;
use crate::http::tls::Clock;
use crate::os::progress::detail;
use ureq::http::header::{self, HeaderName};

/// Most redirects followed for one request.
const MAX_REDIRECTS: usize = 5;

/// Sends requests. Clones share connections and knowledge of servers.
#[derive(Clone)]
pub(super) struct Exchange {
    pub caller: Caller,
    pub plain_http: PlainHttp,
    pub now: Clock,
    /// Base URLs of the same files: the source's own first.
    pub bases: Vec<Url>,
    /// Whether caches on the way must revalidate their copies.
    pub past_caches: bool,
}

impl Exchange {
    /// Returns whether the configuration names this server, as the source or as a mirror: our identity is for these alone.
    /// A server that only a document, a redirect or a token realm names does not count. Source: RFC 6454, section 4.
    pub fn is_configured(&self, url: &Url) -> bool {
        self.bases.iter().any(|base| base.origin() == url.origin())
    }

    /// Errors: plain HTTP is not allowed there. Config: our own configuration names it. Source: a server names it.
    fn check_plain_http(&self, url: &Url) -> Result<()> {
        self.plain_http.check(url).map_err(|e| match self.bases.first() {
            Some(own) if !self.is_configured(url) => {
                let why = format!("{} names it, and plain HTTP is not allowed for this host", own.host());
                Error::new(Kind::Source, why).at("fetch", url).hint("it has to name an https address")
            }
            _ => e,
        })
    }

    /// Sends one request and follows redirects. Input: `authorization`: sent to the server of `url` and to no other; likewise
    /// the client certificate, where the configuration names that server.
    pub fn send(
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
            // Of TLS, a proxy sees only the destination.
            let proxy = self.caller.dialling.proxies.of(&url)?.filter(|_| !url.is_secure());
            let range = ask.range.map(|(from, until)| match until {
                Some(until) => format!("bytes={from}-{}", until.saturating_sub(1)),
                None => format!("bytes={from}-"),
            });
            let headers = self.headers(ask, range.as_deref(), authorization, proxy);
            // Printed without its query, which may be a secret.
            detail(&|| format!("{} {url}", ask.method()));
            let came = self.caller.call(&url, identified, (ask, headers), limit)?;
            let knows_secret = authorization.is_some() || ask.form.is_some();
            let asked = Asked { url, is_head: ask.is_head, knows_secret };
            let answer = Answer::new(came, asked, &self.caller.dialling.timeouts, (self.now)(), limit)?.through(proxy);
            if ask.stays || !matches!(answer.status(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            if ask.form.is_some() {
                let why = "it redirects what is posted to it";
                return Err(Error::new(Kind::Source, why).at("fetch", &answer.url).into());
            }
            let to = answer.redirect_target()?;
            if let Err(e) = self.plain_http.check(&to) {
                // This address is not the operator's choice.
                let why = format!("it leads to {}: {e}", to.host());
                return Err(Error::new(Kind::Source, why).at("follow the redirect from", &answer.url).into());
            }
            // Once dropped, it is not restored: the redirect then comes from another server.
            if to.origin() != answer.url.origin() {
                (authorization, identified) = (None, false);
            }
            url = to;
        }
        Err(Error::new(Kind::Source, format!("more than {MAX_REDIRECTS} redirects")).at("fetch", url).into())
    }

    /// Returns the headers for a server, or for the proxy that forwards them. Source: RFC 9110, sections 11.7, 13 and 14.
    fn headers<'a>(
        &'a self,
        ask: &Ask<'a>,
        range: Option<&'a str>,
        authorization: Option<&'a Secret>,
        proxy: Option<&'a Proxy>,
    ) -> Vec<(HeaderName, &'a str)> {
        let all = [
            (header::USER_AGENT, Some(self.caller.dialling.user_agent.as_str())),
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
