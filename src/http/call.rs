//! One request through ureq, and its answer: configures ureq, passes it the request, and translates its errors.
//!
//! Redirects, statuses, retries, proxies and what a server may learn of us are decided above, names and connections below.
//! Must never: let ureq decide one of these, or send a POST twice.

use super::deadline::Limit;
use super::dial::{Dialling, Introduced};
use super::failure::{Cause, Failure, explain, explain_of, of_ureq};
use super::message::{Ask, request};
use super::transport;
use crate::base::url::Url;
use std::io::{self, Cursor, ErrorKind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use ureq::config::{AutoHeaderValue, Config};
use ureq::http::{HeaderName, Response, header};
use ureq::{Agent, Body, SendBody};

/// Connections that are kept: to a registry, and to the target of its redirects.
const MAX_KEPT: usize = 2;
/// Idle time after which a server has most likely closed a connection.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// Sends requests through ureq. Clones share connections.
#[derive(Clone)]
pub(super) struct Caller {
    pub dialling: Dialling,
    /// For servers that must not see our identity, and for those that may.
    agents: [Agent; 2],
}

fn agents(dialling: &Dialling) -> [Agent; 2] {
    let t = dialling.timeouts;
    let config = Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(AutoHeaderValue::None)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .max_idle_connections(MAX_KEPT)
        .max_idle_age(MAX_IDLE)
        .timeout_connect(sayable(t.connect))
        .timeout_send_request(sayable(t.headers))
        .timeout_send_body(sayable(t.headers))
        .timeout_recv_response(sayable(t.headers))
        .timeout_per_read(sayable(t.stall))
        .build();
    [false, true].map(|identified| transport::agent(config.clone(), Box::new(Introduced(dialling.clone(), identified))))
}

/// Returns a duration that the clock can represent; `None`: no limit.
fn sayable(time: Duration) -> Option<Duration> {
    Instant::now().checked_add(time).map(|_| time)
}

impl Caller {
    /// Sets ureq up.
    pub fn new(dialling: Dialling) -> Caller {
        Caller { agents: agents(&dialling), dialling }
    }

    /// Sends a request, on a kept connection if there is one, and reads the head of the answer.
    /// Input: `identified`: whether the server may see our identity; `headers`: besides Host; `ask.form`: it is sent once.
    pub fn call(
        &self,
        url: &Url,
        identified: bool,
        (ask, mut headers): (&Ask<'_>, Vec<(HeaderName, &str)>),
        limit: Limit,
    ) -> std::result::Result<Response<Body>, Failure> {
        let agent = &self.agents[usize::from(identified)];
        let (host, length) = (url.authority(), ask.form.map(|form| form.len().to_string()));
        // First, as RFC 9110, section 7.2, recommends.
        headers.insert(0, (header::HOST, &host));
        headers.extend(length.as_deref().map(|length| (header::CONTENT_LENGTH, length)));
        let mut repeatable = ask.form.is_none();
        loop {
            let made = self.dialling.made.load(Ordering::Relaxed);
            let form = |form: &str| SendBody::from_owned_reader(Cursor::new(form.to_owned()));
            let body = ask.form.map_or_else(SendBody::none, form);
            let request = request(ask.method(), &url.request_text(), &headers, body).map_err(|e| e.at("fetch", url))?;
            let config = agent.configure_request(request).timeout_global(sayable(limit.left()));
            let config = if ask.form.is_some() { config.max_idle_age(Duration::ZERO) } else { config };
            let error = match agent.run(config.build()) {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let made_none = made == self.dialling.made.load(Ordering::Relaxed);
            let (cause, unreached) = of_ureq(error);
            let failure = match cause {
                Cause::Io(e) if repeatable && made_none && has_ended(&e) => {
                    repeatable = false;
                    continue;
                }
                Cause::Io(e) => explain(e, url, &self.dialling.timeouts, limit),
                Cause::Failure(failure) => failure,
                Cause::OfProxy(who, e) => explain_of(&who, e, url, &self.dialling.timeouts, limit),
                Cause::Refused(status) => self.dialling.proxies.refused(status, url)?,
            };
            return Err(Failure { unreached: failure.unreached || unreached, ..failure });
        }
    }
}

/// Returns whether a kept connection had ended before its reuse, or held data of an earlier request.
fn has_ended(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, NotConnected, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | InvalidData | NotConnected | UnexpectedEof
    )
}
