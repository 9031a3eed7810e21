//! Reaches a server: looks its name up, connects, tunnels through a proxy where one is set, and starts TLS.
//!
//! Must never: connect to a network that is not allowed now, or speak to a server before the proxy has connected us.

use super::deadline::{Timeouts, Until};
use super::failure::{Cause, of_ureq};
use super::message::request;
use super::names::look_up;
use super::peers::{Peers, check_loopback, literal};
use super::proxy::{Proxies, Proxy};
use super::transport::{Dial, Socket, Stream, Wire, agent, is_quiet};
use crate::base::error::{Error, Kind};
use crate::base::url::Url;
use crate::http::tls::TlsConnector;
use crate::os::sys::thread::lock;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use ureq::SendBody;
use ureq::config::Config;
use ureq::http::uri::Scheme;
use ureq::http::{Method, Uri, header};

/// Connects to a request's server.
#[derive(Clone)]
pub(super) struct Dialling {
    pub tls: TlsConnector,
    pub peers: Peers,
    pub proxies: Proxies,
    pub user_agent: String,
    pub timeouts: Timeouts,
    /// Number of connections made.
    pub made: Arc<AtomicUsize>,
}

/// Connects to servers that may see our identity (`true`), or that must not (`false`).
pub(super) struct Introduced(pub Dialling, pub bool);

impl Dial for Introduced {
    fn dial(&self, uri: &Uri, config: &Config, until: Until) -> Result<Wire, ureq::Error> {
        let Introduced(dialling, identified) = self;
        dialling.made.fetch_add(1, Ordering::Relaxed);
        let (host, secure) = (uri.host().unwrap_or_default(), uri.scheme() == Some(&Scheme::HTTPS));
        let url = Url::from_parts(secure, host, uri.port_u16(), "/".to_owned());
        dialling.connect(&url, *identified, config, until).map_err(carried)
    }
}

impl Dialling {
    fn connect(&self, url: &Url, identified: bool, config: &Config, until: Until) -> Result<Wire, Cause> {
        let proxy = self.proxies.of(url)?;
        let (host, port) = proxy.map_or((url.host(), url.port()), |p| (p.host.as_str(), p.port));
        // Names the proxy, where the fault is not the server's.
        let blame = |e: io::Error| match proxy {
            Some(proxy) => Cause::OfProxy(format!("the proxy {}:{}", proxy.host, proxy.port), e),
            None => Cause::Io(e),
        };
        let addresses = look_up(host, port, until.for_name()).map_err(blame)?;
        // Behind a proxy the addresses are unknown, unless the host is a literal one: the proxy resolves it.
        let literal = literal(url.host());
        let seen: Vec<IpAddr> = match proxy {
            None => addresses.iter().map(SocketAddr::ip).collect(),
            Some(_) => literal.into_iter().collect(),
        };
        self.peers.check(url.host(), &seen)?;
        if !url.is_secure() && url.is_loopback() {
            // Plain HTTP is allowed only because it goes to this machine.
            check_loopback(url.host(), &seen)?;
        }
        let mut socket = dial(&addresses, until).map_err(blame)?;
        let address = if proxy.is_none() { socket.tcp.peer_addr().ok().map(|a| a.ip()) } else { literal };
        if let Some(address) = address {
            self.peers.reached(url.host(), address);
        }
        if !url.is_secure() {
            let origin = proxy.map(|_| format!("http://{}", url.authority()));
            return Ok(Wire::new(Stream::Plain(socket), self.peers.clone(), address, origin));
        }
        if let Some(proxy) = proxy {
            socket.tcp = self.tunnel(socket.tcp, proxy, url, config).map_err(|cause| match cause {
                Cause::Io(e) => blame(e),
                cause => cause,
            })?;
        }
        let tls = self.tls.connect(url.host(), identified, socket)?;
        Ok(Wire::new(Stream::Tls(Box::new(tls)), self.peers.clone(), address, None))
    }

    /// Source: RFC 9110, section 9.3.6.
    fn tunnel(&self, tcp: TcpStream, proxy: &Proxy, url: &Url, config: &Config) -> Result<TcpStream, Cause> {
        let target = format!("{}:{}", url.host(), url.port());
        let mut headers = vec![(header::HOST, target.as_str()), (header::USER_AGENT, &self.user_agent)];
        headers.extend(proxy.authorization.as_ref().map(|secret| (header::PROXY_AUTHORIZATION, secret.reveal())));
        let request = request(Method::CONNECT, &format!("http://{target}"), &headers, SendBody::none())?;
        let own = tcp.try_clone()?;
        let through = Box::new(Through(Mutex::new(Some(tcp)), self.peers.clone()));
        let answer = agent(config.clone(), through).run(request).map_err(|e| of_ureq(e).0)?;
        match answer.status().as_u16() {
            200..300 => {}
            status => return Err(Cause::Refused(status)),
        }
        // Bytes that arrive before ours are not TLS, but a captive portal's page, as in hotels.
        match is_quiet(&own) {
            true => Ok(own),
            false => Err(Error::new(Kind::Source, "the proxy speaks in the server's place")
                .at("connect to", url.host())
                .into()),
        }
    }
}

fn carried(cause: Cause) -> ureq::Error {
    ureq::Error::Other(Box::new(cause))
}

/// An open connection to a proxy, for the CONNECT request.
struct Through(Mutex<Option<TcpStream>>, Peers);

impl Dial for Through {
    fn dial(&self, _: &Uri, _: &Config, until: Until) -> Result<Wire, ureq::Error> {
        let tcp = lock(&self.0).take();
        let tcp = tcp.ok_or_else(|| io::Error::from(ErrorKind::NotConnected))?;
        Ok(Wire::new(Stream::Plain(Socket { tcp, until }), self.1.clone(), None, None).no_further_than_the_head())
    }
}

/// Connects to the first address that answers; each gets a share of the time.
fn dial(addresses: &[SocketAddr], until: Until) -> io::Result<Socket> {
    let mut last: Option<io::Error> = None;
    for (index, address) in addresses.iter().enumerate() {
        let share = match until.left()? {
            Some(left) => left / (addresses.len() - index) as u32,
            None => Duration::MAX,
        };
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                return Ok(Socket { tcp, until });
            }
            Err(e) if e.kind() == ErrorKind::TimedOut => last = Some(until.late()),
            // This machine's lack of IPv6 says nothing about the server.
            Err(e)
                if last.is_some()
                    && matches!(e.kind(), ErrorKind::AddrNotAvailable | ErrorKind::NetworkUnreachable) => {}
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| ErrorKind::NotFound.into()))
}
