//! The client's settings: where plain HTTP is allowed, trusted CAs, credentials, timeouts.

use super::deadline::Timeouts;
use super::proxy::ProxyEnv;
use crate::base::error::{Error, Kind, Result};
use crate::base::url::Url;
use crate::http::credentials::Credentials;
use crate::http::tls::{Clock, Identity, Pem};
use crate::os::system::System;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Most consecutive tries without progress; the waits between them add up to two minutes at most.
const DEFAULT_TRIES: u32 = 8;

/// Where plain HTTP may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// To this machine only.
    #[default]
    Auto,
    /// To every host.
    Yes,
    /// To no host.
    No,
}

impl PlainHttp {
    /// Returns whether a registry on this host is contacted without TLS.
    pub fn for_registry(self, is_loopback: bool) -> bool {
        self == PlainHttp::Yes || (self == PlainHttp::Auto && is_loopback)
    }

    pub(super) fn check(self, url: &Url) -> Result<()> {
        if url.is_secure() || self.for_registry(url.is_loopback()) {
            return Ok(());
        }
        Err(Error::new(Kind::Config, "plain HTTP is not allowed for this host")
            .at("fetch", url)
            .hint("use https, or set plain_http = yes"))
    }
}

/// Settings of the client.
pub struct HttpOptions {
    /// PEM bundle of trusted CAs; if set, no other is read.
    pub ca: Option<Pem>,
    /// Otherwise the first of these that exists.
    pub ca_candidates: Vec<PathBuf>,
    /// Date of the newest release that has run here, in seconds since 1970: a floor for the clock, unless mistyped.
    pub clock_floor_secs: u64,
    /// Returns the known time.
    pub now: Clock,
    /// Whether the server runs on this machine: what its clock dated, right or wrong, is judged by that clock as well.
    pub shares_clock: bool,
    /// The name or address that must be in the server's certificate, if not the URL's.
    pub server_name: Option<String>,
    /// Value of the User-Agent header.
    pub user_agent: String,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Most consecutive tries without progress; 1: no retry.
    pub tries: u32,
    /// Our credentials, and for which servers.
    pub credentials: Credentials,
    /// Client certificate and key, for servers that request one.
    pub identity: Option<Identity>,
    /// Proxies.
    pub proxy: ProxyEnv,
}

impl HttpOptions {
    /// Returns the defaults of a machine: its CA bundles, its clock; 30 s to begin, 60 s of silence, 120 s for a
    /// document, and 300 s and 2 KiB/s for a file.
    pub fn new(system: &System) -> HttpOptions {
        let clock = system.clone();
        HttpOptions {
            ca: None,
            ca_candidates: system.ca_bundles().to_vec(),
            clock_floor_secs: 0,
            now: Arc::new(move || clock.now()),
            shares_clock: false,
            server_name: None,
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
