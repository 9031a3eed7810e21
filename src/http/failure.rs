//! Failures on the way: host and reason in words, and whether a retry may succeed.
//!
//! Must never: show a URL's query.

use super::deadline::{Late, Limit, Timeouts, Wait, wait};
use super::names::Unresolved;
use crate::base::error::{Error, Kind};
use crate::base::text::secs;
use crate::base::url::Url;
use crate::http::tls::advice;
use crate::http::tls::words;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// A failed try.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    /// Whether a retry may succeed.
    pub is_passing: bool,
    /// How long the server asks us to wait.
    pub asked: Option<Duration>,
    /// No connection was made, so the request itself is not to blame.
    pub unreached: bool,
}

impl Failure {
    pub fn passing(error: Error) -> Failure {
        Failure { error, is_passing: true, asked: None, unreached: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, is_passing: false, asked: None, unreached: false }
    }
}

/// Cause of a failure underneath ureq, or in it.
#[derive(Debug)]
pub(super) enum Cause {
    /// On the way: its message needs the URL and the limits.
    Io(io::Error),
    /// With its message.
    Failure(Failure),
    /// The proxy's status when it refuses to connect us.
    Refused(u16),
    /// On the way to a proxy: the proxy's name, and the error.
    OfProxy(String, io::Error),
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Cause {
        Cause::Io(error)
    }
}

impl From<Error> for Cause {
    fn from(error: Error) -> Cause {
        Cause::Failure(error.into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection")
    }
}

impl std::error::Error for Cause {}

/// Unwraps ureq's error. Returns: also whether it occurred while connecting.
pub(super) fn of_ureq(error: ureq::Error) -> (Cause, bool) {
    let cause = match error {
        ureq::Error::Io(e) => match e.downcast::<ureq::Error>() {
            Ok(inside) => return of_ureq(inside),
            Err(e) => e,
        },
        ureq::Error::Timeout(reason) => io::Error::new(ErrorKind::TimedOut, Late(wait(reason))),
        ureq::Error::Other(other) => match other.downcast::<Cause>() {
            Ok(cause) => return (*cause, true),
            Err(other) => io::Error::other(other),
        },
        // The connection ended between two chunks of a body.
        ureq::Error::BodyStalled => ErrorKind::UnexpectedEof.into(),
        ureq::Error::Protocol(e) => malformed(format!("the answer cannot be read: {e}")),
        e => malformed(e.to_string()),
    };
    (cause.into(), false)
}

/// Makes the error for a peer that breaks the protocol: a retry would fail the same way.
pub(super) fn malformed(why: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.into())
}

/// Explains what went wrong on the way, and whether a retry may succeed.
pub(super) fn explain(error: io::Error, url: &Url, timeouts: &Timeouts, limit: Limit) -> Failure {
    explain_of(url.host(), error, url, timeouts, limit)
}

/// As [`explain`], for a failure of the named intermediary.
pub(super) fn explain_of(who: &str, error: io::Error, url: &Url, timeouts: &Timeouts, limit: Limit) -> Failure {
    if let Some(ours) = inside::<Error>(&error) {
        return ours.clone().into();
    }
    let is_passing = inside::<rustls::Error>(&error).is_none() && error.kind() != ErrorKind::InvalidData;
    let (why, hint) = why(&error, timeouts, limit);
    let error = Error::new(Kind::Network, format!("{who}: {why}")).at("fetch", url).hint(hint);
    Failure { error, is_passing, asked: None, unreached: false }
}

fn inside<T: std::error::Error + 'static>(error: &io::Error) -> Option<&T> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Explains why a request failed, and what to do about it. Never shows a URL: it may hold a secret.
pub(super) fn why(error: &io::Error, timeouts: &Timeouts, limit: Limit) -> (String, &'static str) {
    let waited = |what: &str, time: Duration| format!("{what} for {} s", secs(time));
    if let Some(Late(wait)) = inside(error) {
        return match wait {
            Wait::Connect => (waited("no connection", timeouts.connect), "is the host reachable?"),
            Wait::Name => (
                waited("no answer from the name server", timeouts.connect),
                "is the one in /etc/resolv.conf reachable?",
            ),
            Wait::Answer => (waited("no answer", timeouts.headers), ""),
            Wait::Data => (waited("no data", timeouts.stall), ""),
            Wait::Whole => (limit.words(), ""),
        };
    }
    if let Some(tls) = inside(error) {
        return (format!("TLS: {}", words(tls)), advice(tls));
    }
    if let Some(name) = inside::<Unresolved>(error) {
        return (name.to_string(), name.1);
    }
    match error.kind() {
        ErrorKind::UnexpectedEof => ("connection closed before the end".to_owned(), ""),
        ErrorKind::ConnectionRefused => (error.to_string(), "does a server run there, on this port?"),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => (error.to_string(), "is there a route to it?"),
        _ => (error.to_string(), ""),
    }
}
