//! Authenticates to a registry: answers its challenge, fetches tokens, and caches them while they are valid.
//!
//! Must never: send a password to another host in the clear, or to a host on a network that the registry is not on; send
//! a token to any server but the one that asked for it; try more than one fresh token for a request.

use super::answer::{Answer, CREDENTIALS_HINT, Shown, error_detail};
use super::deadline::Limit;
use super::exchange::Exchange;
use super::failure::Failure;
use super::message::Ask;
use crate::base::base64;
use crate::base::error::{Error, Kind, Result};
use crate::base::json::{self, Field};
use crate::base::url::Url;
use crate::http::challenge::{self, Challenge};
use crate::http::credentials::{Credential, Credentials, Secret};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest answer of a token server, in bytes.
const TOKEN_ANSWER_MAX: u64 = 64 << 10;
/// Longest token, in bytes: it must fit into a request's head.
const TOKEN_MAX: usize = 12 << 10;
/// Lifetime of a token whose server states none. Source: distribution-spec 1.1, "Token authentication".
const DEFAULT_SECS: u64 = 60;
/// A token is no longer used this long before it expires: requests take time, and clocks differ.
const MARGIN: Duration = Duration::from_secs(10);

/// Our credentials and tokens. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Auth(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    credentials: Credentials,
    held: Vec<Held>,
}

/// The Authorization header for one repository on one server.
#[derive(Debug)]
struct Held {
    origin: String,
    repository: String,
    header: Secret,
    /// What the header reveals of us.
    shown: Shown,
    /// `None`: does not expire.
    until: Option<Instant>,
}

impl Auth {
    pub fn new(credentials: Credentials) -> Auth {
        Auth(Arc::new(Mutex::new(State { credentials, held: Vec::new() })))
    }

    /// Returns the Authorization header for a request, and what it reveals of us, if a valid one is held.
    pub fn header(&self, url: &Url) -> Option<(Secret, Shown)> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        state.held.retain(|held| held.until.is_none_or(|until| now < until));
        let (origin, repository) = (url.origin(), repository_of(url.path()));
        let held = state.held.iter().find(|held| held.origin == origin && held.repository == repository);
        held.map(|held| (held.header.clone(), held.shown))
    }

    fn keep(&self, url: &Url, header: Secret, shown: Shown, until: Option<Instant>) {
        self.forget(url);
        let repository = repository_of(url.path()).to_owned();
        let held = Held { origin: url.origin(), repository, header, shown, until };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).held.push(held);
    }

    pub fn forget(&self, url: &Url) {
        let (origin, repository) = (url.origin(), repository_of(url.path()));
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.held.retain(|held| held.origin != origin || held.repository != repository);
    }

    fn find(&self, url: &Url) -> Result<Option<Credential>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.credentials.find(&url.authority(), repository_of(url.path()))
    }
}

impl Auth {
    /// Answers a challenge, so that the next request carries the requested authorization.
    /// Input: `refused`: the server's 401; `url`: the URL requested.
    /// Errors: Network: final: there are no credentials, or the token server refused. Source: a
    /// challenge that cannot be answered, or must not. Config: the credentials are unavailable.
    pub fn authenticate(
        &self,
        exchange: &Exchange,
        refused: Answer,
        url: &Url,
        limit: Limit,
    ) -> std::result::Result<(), Failure> {
        let at = |e: Error| Failure::from(e.at("authenticate for", url));
        let challenge = challenge::choose(refused.all("www-authenticate").iter().map(String::as_str));
        // Read to the end, so that the connection can be reused.
        let who = refused.who();
        let detail = refused.into_detail();
        let credential = self.find(url).map_err(at)?;
        if credential.is_some() && !url.is_secure() && !exchange.is_configured(url) {
            let why = "credentials go without TLS only to a server that the configuration names";
            return Err(at(Error::new(Kind::Source, why)));
        }
        match (challenge.map_err(at)?, credential) {
            (Challenge::Basic, Some(Credential::Password { user, password })) => {
                self.keep(url, basic(&user, &password), Shown::Credentials, None);
                Ok(())
            }
            (Challenge::Basic, Some(Credential::Identity(_))) => {
                Err(at(Error::new(Kind::Config, "this server wants a password, and auth_file has an identitytoken")))
            }
            (Challenge::Basic, None) => {
                let detail = detail.map_or(String::new(), |d| format!(": {d}"));
                let why = format!("{who} answered 401 Unauthorized{detail}");
                Err(at(Error::new(Kind::Network, why).hint(CREDENTIALS_HINT)))
            }
            (Challenge::Bearer { realm, service, scope }, credential) => {
                let realm = Url::parse(&realm).map_err(|e| at(Error::new(Kind::Source, format!("realm: {e}"))))?;
                check_realm(&realm, url, credential.is_some()).map_err(at)?;
                let form = TokenForm { realm, service, scope };
                exchange.caller.dialling.peers.confine_to_network_of(url.host());
                let token = fetch_token(exchange, &form, url, credential.as_ref(), limit);
                exchange.caller.dialling.peers.set_free();
                let (token, lasts) = token?;
                let until = Instant::now().checked_add(lasts.saturating_sub(MARGIN).max(lasts / 2));
                let shown = if credential.is_some() { Shown::Credentials } else { Shown::Anonymous };
                self.keep(url, Secret::new(format!("Bearer {token}")), shown, until);
                Ok(())
            }
        }
    }
}

/// Source: distribution-spec 1.1 "Token authentication"; for identity tokens RFC 6749, section 6.
fn fetch_token(
    exchange: &Exchange,
    form: &TokenForm,
    url: &Url,
    credential: Option<&Credential>,
    limit: Limit,
) -> std::result::Result<(String, Duration), Failure> {
    let repository = repository_of(url.path());
    let scope =
        form.scope.clone().or_else(|| (!repository.is_empty()).then(|| format!("repository:{repository}:pull")));
    let mut pairs = Vec::new();
    pairs.extend(form.service.as_deref().map(|service| ("service", service)));
    pairs.extend(scope.as_deref().map(|scope| ("scope", scope)));
    let header;
    let (target, body, authorization) = match credential {
        Some(Credential::Identity(token)) => {
            pairs.extend([("grant_type", "refresh_token"), ("client_id", "kubesolo-update")]);
            pairs.push(("refresh_token", token.reveal()));
            (form.realm.clone(), Some(crate::base::url::form(&pairs)), None)
        }
        Some(Credential::Password { user, password }) => {
            header = basic(user, password);
            (form.realm.with_query(&pairs), None, Some(&header))
        }
        None => (form.realm.with_query(&pairs), None, None),
    };
    let ask = Ask { accept: "application/json", form: body.as_deref(), ..Ask::default() };
    let answer = exchange.send(&target, &ask, authorization, limit)?;
    if matches!(answer.status(), 400 | 401 | 403) {
        let (status, host) = (answer.status(), answer.url.host().to_owned());
        let detail = error_detail(answer.into_reader(), credential.is_some());
        let detail = detail.map_or(String::new(), |d| format!(": {d}"));
        let hint = match credential {
            Some(_) => "are the credentials in auth_file right, and may they pull this repository?",
            None => CREDENTIALS_HINT,
        };
        let why = format!("the token server {host} answered {status}{detail}");
        return Err(Error::new(Kind::Network, why).at("authenticate for", url).hint(hint).into());
    }
    let document = answer.check_status(false)?.into_document(TOKEN_ANSWER_MAX)?;
    read_token(&document.body).map_err(|e| e.at("read the token for", url).into())
}

struct TokenForm {
    realm: Url,
    service: Option<String>,
    scope: Option<String>,
}

/// Checks that a token may be requested there. Addresses are checked when the connection is made, see `peers`.
/// Errors: Source: it may not.
fn check_realm(realm: &Url, registry: &Url, with_secret: bool) -> Result<()> {
    let fail = |why: String| {
        Err(Error::new(Kind::Source, why)
            .hint("this registry's settings are wrong, or something in between answers in its place"))
    };
    if registry.is_secure() && !realm.is_secure() {
        return fail(format!("it wants its token from {}, without TLS", realm.host()));
    }
    if with_secret && !realm.is_secure() && realm.host() != registry.host() {
        return fail(format!("it wants credentials sent to {}, another host, without TLS", realm.host()));
    }
    Ok(())
}

fn basic(user: &str, password: &Secret) -> Secret {
    Secret::new(format!("Basic {}", base64::encode(format!("{user}:{}", password.reveal()).as_bytes())))
}

#[derive(miniserde::Deserialize)]
struct RawToken {
    token: Field<String>,
    access_token: Field<String>,
    expires_in: Field<u64>,
}

/// Returns the token and its lifetime. Errors: Source: it is malformed; nothing of it is shown.
fn read_token(body: &[u8]) -> Result<(String, Duration)> {
    let raw: RawToken = json::parse(body, "the answer of the token server")?;
    let token = raw.token.optional("token")?.filter(|t| !t.is_empty());
    let token = match token {
        Some(token) => token,
        None => raw.access_token.need("token")?,
    };
    if token.is_empty() || token.len() > TOKEN_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::new(Kind::Source, "'token' is empty, too long, or not fit for a header"));
    }
    // Some servers send a float or a text here; the token is valid anyway.
    let secs = raw.expires_in.optional("expires_in").ok().flatten().filter(|secs| *secs > 0);
    Ok((token, Duration::from_secs(secs.unwrap_or(DEFAULT_SECS))))
}

/// Returns the repository in an API path, or an empty text.
/// Source: distribution-spec 1.1, "Endpoints".
pub(super) fn repository_of(path: &str) -> &str {
    let Some(rest) = path.strip_prefix("/v2/") else { return "" };
    let ends = ["/manifests/", "/blobs/", "/referrers/"].into_iter().filter_map(|kind| rest.rfind(kind));
    ends.max().map_or("", |end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_password_goes_in_the_clear_to_the_registrys_own_host_alone() {
        for (realm, registry, with_secret, allowed) in [
            ("https://auth.example/t", "https://r.example/v2/", true, true),
            ("http://auth.example/t", "https://r.example/v2/", false, false),
            ("http://r.example/t", "https://r.example/v2/", true, false),
            ("http://r.example:5001/t", "http://r.example/v2/", true, true),
            ("http://auth.example/t", "http://r.example/v2/", true, false),
            ("http://auth.example/t", "http://r.example/v2/", false, true),
        ] {
            let got = check_realm(&url(realm), &url(registry), with_secret);
            assert_eq!(got.is_ok(), allowed, "{realm} for {registry}: {got:?}");
        }
    }

    #[test]
    fn what_token_servers_answer() {
        let secs = Duration::from_secs;
        for (body, want) in [
            (r#"{"token": "abc", "expires_in": 300, "issued_at": "x"}"#, Some(("abc", secs(300)))),
            (r#"{"access_token": "abc"}"#, Some(("abc", secs(60)))),
            (r#"{"token": "", "access_token": "abc", "expires_in": 0}"#, Some(("abc", secs(60)))),
            (r#"{"token": "abc", "expires_in": "300"}"#, Some(("abc", secs(60)))),
            (r#"{"token": "a b"}"#, None),
            ("{\"token\": \"a\\r\\nX: y\"}", None),
            (r#"{"token": ""}"#, None),
            (r#"{"token": 5}"#, None),
            ("{}", None),
            ("<html>", None),
        ] {
            let got = read_token(body.as_bytes());
            match want {
                Some((token, lasts)) => assert_eq!(got.unwrap(), (token.to_owned(), lasts), "{body}"),
                None => assert_eq!(got.unwrap_err().kind(), Kind::Source, "{body}"),
            }
        }
        let long = format!(r#"{{"token": "{}"}}"#, "x".repeat(TOKEN_MAX + 1));
        assert!(!read_token(long.as_bytes()).unwrap_err().to_string().contains("xxx"));
    }

    #[test]
    fn repositories_in_paths() {
        for (path, repository) in [
            ("/v2/os/kubesolo/manifests/latest", "os/kubesolo"),
            ("/v2/os/kubesolo/blobs/sha256:1", "os/kubesolo"),
            ("/v2/os/blobs/kubesolo/blobs/sha256:1", "os/blobs/kubesolo"),
            ("/v2/os/referrers/sha256:1", "os"),
            ("/v2/", ""),
            ("/latest.json", ""),
        ] {
            assert_eq!(repository_of(path), repository, "{path}");
        }
    }

    #[test]
    fn what_is_held_is_for_one_server_and_repository_and_ends() {
        let auth = Auth::default();
        let at = url("https://r.example/v2/os/manifests/1");
        auth.keep(&at, Secret::new("Bearer x"), Shown::Anonymous, Instant::now().checked_add(Duration::from_secs(100)));
        assert!(auth.header(&at).is_some());
        assert!(auth.header(&url("https://r.example/v2/os/blobs/2")).is_some());
        for other in [
            "https://r.example/v2/other/blobs/2",
            "http://r.example/v2/os/blobs/2",
            "https://r.example:444/v2/os/blobs/2",
            "https://s.example/v2/os/blobs/2",
        ] {
            assert!(auth.header(&url(other)).is_none(), "{other}");
        }
        auth.keep(&at, Secret::new("Bearer y"), Shown::Anonymous, Some(Instant::now()));
        assert!(auth.header(&at).is_none(), "it has ended");
        auth.keep(&at, Secret::new("Bearer z"), Shown::Anonymous, None);
        auth.forget(&at);
        assert!(auth.header(&at).is_none());
    }
}
