//! One connection to a server: its name looked up, dialled, tunnelled through a proxy where one is set, with TLS; and the
//! few that are kept for the next request.
//!
//! Every wait has an end that is set before it begins. Must never: wait without one, or use a kept connection for
//! another server than the one it was made for.

use super::deadline::{Limit, Until, Wait};
use super::failure::{Failure, explain, malformed};
use super::names::look_up;
use super::peers::{check_loopback, literal};
use super::proxy::Proxy;
use super::wire::{self, Head, MAX_HEAD};
use super::{Client, Timeouts};
use crate::error::{Error, Kind};
use crate::url::Url;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is read from a connection at once.
const INPUT_BYTES: usize = 16 << 10;
/// Connections that are kept: a registry, and where it redirects to.
const MAX_KEPT: usize = 2;
/// After this, a server has most likely closed it.
const MAX_IDLE: Duration = Duration::from_secs(15);
/// Most heads of the kind "wait a little" before an answer.
const MAX_INTERIM: usize = 8;

/// A socket whose every wait ends.
pub(crate) struct Socket {
    tcp: TcpStream,
    until: Until,
}

impl Socket {
    /// Turns "would block", which is what the kernel says when the time has passed, into what was waited for.
    fn late(&self, error: io::Error) -> io::Error {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.until.late(),
            _ => error,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(self.until.left()?)?;
        self.tcp.read(buf).map_err(|e| self.late(e))
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(self.until.left()?)?;
        self.tcp.write(buf).map_err(|e| self.late(e))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

/// A connection, and what was read from it and not used yet.
pub(super) struct Connection {
    stream: Stream,
    input: Vec<u8>,
    at: usize,
    /// Whom it leads to.
    origin: String,
    /// Whether it was made for somebody who may know who we are.
    identified: bool,
    /// `None`: a proxy knows.
    address: Option<IpAddr>,
    idle_since: Instant,
}

impl Connection {
    fn new(stream: Stream, origin: String, identified: bool, address: Option<IpAddr>) -> Connection {
        Connection { stream, input: Vec::new(), at: 0, origin, identified, address, idle_since: Instant::now() }
    }

    /// Sets the end of what is waited for from now on.
    pub fn wait(&mut self, until: Until) {
        match &mut self.stream {
            Stream::Plain(socket) => socket.until = until,
            Stream::Tls(tls) => tls.sock.until = until,
        }
    }

    fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.stream {
                Stream::Plain(socket) => socket.read(buf),
                Stream::Tls(tls) => tls.read(buf),
            };
            match read {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }

    /// Reads more into `input`. Errors: it has ended.
    fn read_more(&mut self) -> io::Result<()> {
        // What is used goes, or memory would follow what a server sends.
        self.input.drain(..self.at);
        self.at = 0;
        let old = self.input.len();
        self.input.resize(old + INPUT_BYTES, 0);
        // Outside of `self` while `fill` borrows it.
        let mut input = std::mem::take(&mut self.input);
        let read = self.fill(&mut input[old..]);
        input.truncate(old + read.as_ref().map_or(0, |n| *n));
        self.input = input;
        match read {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Reads the head of an answer. Errors: none comes in time, or what comes is none.
    fn head(&mut self) -> io::Result<Head> {
        let mut looked_at = 0;
        loop {
            let bytes = &self.input[self.at..];
            if wire::is_not_http(bytes) {
                return Err(malformed("the answer is not HTTP/1.1"));
            }
            // The end may have begun in what was there before.
            match wire::head_length(bytes, looked_at) {
                Some(length) if length <= MAX_HEAD => {
                    let head = Head::parse(&bytes[..length]).map_err(malformed)?;
                    self.at += length;
                    return Ok(head);
                }
                None if bytes.len() <= MAX_HEAD => looked_at = bytes.len().saturating_sub(4),
                _ => return Err(malformed(format!("the headers are longer than {MAX_HEAD} bytes"))),
            }
            self.read_more()?;
        }
    }

    /// Reads one line of a body's frame, without its end. Errors: it is longer than `most` bytes, and one for a carriage
    /// return; it ends in another way. Source: RFC 9112, section 7.1: only the lines of a head may do so.
    pub fn line(&mut self, most: usize) -> io::Result<Vec<u8>> {
        loop {
            let bytes = &self.input[self.at..];
            if let Some(end) = bytes.iter().position(|b| *b == b'\n').filter(|end| *end <= most + 1) {
                let line = bytes[..end].strip_suffix(b"\r").map(<[u8]>::to_vec);
                self.at += end + 1;
                return line.ok_or_else(|| malformed("a line of the body ends without a carriage return"));
            }
            if bytes.len() > most + 1 {
                return Err(malformed("a line of the body is too long"));
            }
            self.read_more()?;
        }
    }

    /// Reads bytes of a body; 0: the connection has ended.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let there = &self.input[self.at..];
        if there.is_empty() {
            return self.fill(buf);
        }
        let length = there.len().min(buf.len());
        buf[..length].copy_from_slice(&there[..length]);
        self.at += length;
        Ok(length)
    }

    /// Sends a request and reads the head of the answer. Input: `timeouts.headers` for each of both.
    pub fn ask(&mut self, request: &[u8], timeouts: &Timeouts, limit: Limit) -> io::Result<Head> {
        self.wait(limit.within(timeouts.headers, Wait::Answer));
        self.send(request)?;
        self.wait(limit.within(timeouts.headers, Wait::Answer));
        for _ in 0..MAX_INTERIM {
            let head = self.head()?;
            match head.status {
                101 => return Err(malformed("the server changes to another protocol, which was not asked for")),
                100..200 => {}
                _ => return Ok(head),
            }
        }
        Err(malformed(format!("more than {MAX_INTERIM} headers before that of the answer")))
    }
}

/// Connects to the first address that answers; each gets its share of the time.
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
            // That this machine has no IPv6 says nothing about the server.
            Err(e)
                if last.is_some()
                    && matches!(e.kind(), ErrorKind::AddrNotAvailable | ErrorKind::NetworkUnreachable) => {}
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| ErrorKind::NotFound.into()))
}

/// Connections that wait for the next request. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<Connection>>>);

impl Kept {
    pub fn put(&self, mut connection: Connection) {
        // What a server says without being asked belongs to no request.
        if connection.at < connection.input.len() {
            return;
        }
        connection.idle_since = Instant::now();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        kept.push(connection);
    }

    fn take(&self, origin: &str, identified: bool, may: impl Fn(IpAddr) -> bool) -> Option<Connection> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|connection| connection.idle_since.elapsed() < MAX_IDLE);
        let is_it = |c: &Connection| c.origin == origin && c.identified == identified && c.address.is_none_or(&may);
        let at = kept.iter().position(is_it)?;
        Some(kept.remove(at))
    }
}

impl Client {
    /// Sends a request, on a kept connection if there is one.
    /// Input: `identified`: whether the server may know who we are; `repeatable`: it may be sent once more where a kept connection turns out to have ended.
    pub(super) fn round_trip(
        &self,
        url: &Url,
        identified: bool,
        (request, repeatable): (&[u8], bool),
        limit: Limit,
    ) -> Result<(Head, Connection), Failure> {
        let explain = |e| explain(e, url, &self.timeouts, limit);
        let kept = || self.kept.take(&url.origin(), identified, |address| self.peers.may(address));
        if let Some(mut connection) = repeatable.then(kept).flatten() {
            match connection.ask(request, &self.timeouts, limit) {
                Ok(head) => return Ok((head, connection)),
                Err(e) if has_ended(&e) => {}
                Err(e) => return Err(explain(e)),
            }
        }
        let mut connection = self.connect(url, identified, limit).map_err(|f| Failure { unreached: true, ..f })?;
        let head = connection.ask(request, &self.timeouts, limit).map_err(explain)?;
        Ok((head, connection))
    }

    fn connect(&self, url: &Url, identified: bool, limit: Limit) -> Result<Connection, Failure> {
        let explain = |e| explain(e, url, &self.timeouts, limit);
        let until = limit.within(self.timeouts.connect, Wait::Connect);
        let proxy = self.proxy_for(url)?;
        let (host, port) = proxy.map_or((url.host(), url.port()), |p| (p.host.as_str(), p.port));
        let addresses = look_up(host, port, until.for_name()).map_err(explain)?;
        // Behind a proxy there are no addresses, unless the name is one: the proxy decides.
        let literal = literal(url.host());
        let seen: Vec<IpAddr> = match proxy {
            None => addresses.iter().map(SocketAddr::ip).collect(),
            Some(_) => literal.into_iter().collect(),
        };
        self.peers.check(url.host(), &seen)?;
        if !url.is_secure() && url.is_loopback() {
            // What is allowed for this machine's sake is for this machine.
            check_loopback(url.host(), &seen)?;
        }
        let mut socket = dial(&addresses, until).map_err(explain)?;
        let address = if proxy.is_none() { socket.tcp.peer_addr().ok().map(|a| a.ip()) } else { literal };
        if let Some(address) = address {
            self.peers.reached(url.host(), address);
        }
        if !url.is_secure() {
            return Ok(Connection::new(Stream::Plain(socket), url.origin(), identified, address));
        }
        if let Some(proxy) = proxy {
            socket = self.tunnel(socket, proxy, url, limit)?;
        }
        let tls = self.tls.connect(url.host(), identified, socket).map_err(explain)?;
        Ok(Connection::new(Stream::Tls(Box::new(tls)), url.origin(), identified, address))
    }

    /// Source: RFC 9110, section 9.3.6.
    fn tunnel(&self, socket: Socket, proxy: &Proxy, url: &Url, limit: Limit) -> Result<Socket, Failure> {
        let explain = |e| explain(e, url, &self.timeouts, limit);
        let target = format!("{}:{}", url.host(), url.port());
        let mut headers = vec![("User-Agent", self.user_agent.as_str())];
        headers.extend(proxy.authorization.as_ref().map(|secret| ("Proxy-Authorization", secret.reveal())));
        let request = wire::request("CONNECT", &target, &target, &headers, None)?;
        let mut connection = Connection::new(Stream::Plain(socket), String::new(), false, None);
        let head = connection.ask(&request, &self.timeouts, limit).map_err(explain)?;
        if !(200..300).contains(&head.status) {
            return Err(proxy.refused(head.status, url));
        }
        match connection.stream {
            Stream::Plain(socket) if connection.at == connection.input.len() => Ok(socket),
            _ => Err(Error::new(Kind::Source, "the proxy speaks in the server's place").at("fetch", url).into()),
        }
    }
}

/// Says whether a kept connection had ended before it was used again, or brought what belongs to the request before.
fn has_ended(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, NotConnected, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | InvalidData | NotConnected | UnexpectedEof
    )
}
