//! ureq's connections: our socket with our TLS over it, so that every wait has an end.
//!
//! ureq's `unversioned` interface may change with any release: it is used here only, and Cargo.toml pins the
//! release (`tests/pure/crates.rs`). Must never: wait without an end, use a kept connection for a server other than
//! the one it was made for, or take a break for the end of a body.

use super::deadline::{Until, wait};
use super::failure::malformed;
use super::guard::{Guard, MAX_HEAD, Seen};
use super::peers::Peers;
use rustls::{ClientConnection, StreamOwned};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Instant;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Agent, Error};

/// Bytes read at a time while waiting for a head.
const HEAD_BYTES: usize = 8 << 10;
/// Bytes read at a time of a body; a head with the bytes read beyond it fits as well.
const BODY_BYTES: usize = 48 << 10;
const _: () = assert!(BODY_BYTES >= MAX_HEAD + HEAD_BYTES);
/// Longest line of a request: a URL with every byte percent-encoded.
const OUTPUT_BYTES: usize = 32 << 10;

/// A socket whose every wait ends.
pub(crate) struct Socket {
    pub(super) tcp: TcpStream,
    pub(super) until: Until,
}

impl Socket {
    /// Turns "would block", the kernel's error for an expired timeout, into what was waited for.
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

pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Stream {
    fn socket(&mut self) -> &mut Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &mut tls.sock,
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
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
        match self {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }

    /// Returns whether no unsolicited data has arrived, the end of the connection included.
    fn is_quiet(&mut self) -> bool {
        if let Stream::Tls(tls) = self
            && !tls.conn.wants_read()
        {
            return false;
        }
        is_quiet(&self.socket().tcp)
    }
}

/// Returns whether nothing is readable, the end included.
pub(super) fn is_quiet(tcp: &TcpStream) -> bool {
    let peeked = tcp.set_nonblocking(true).and_then(|()| tcp.peek(&mut [0]));
    tcp.set_nonblocking(false).is_ok() && peeked.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
}

/// Makes connections; implemented by [`super::dial`].
pub(super) trait Dial: Send + Sync + 'static {
    /// Input: the server's scheme, host and port; the deadline of the connection.
    fn dial(&self, uri: &Uri, config: &Config, until: Until) -> Result<Wire, Error>;
}

/// Returns an agent that uses `dial` for its connections.
pub(super) fn agent(config: Config, dial: Box<dyn Dial>) -> Agent {
    Agent::with_parts(config, Dialer(dial), NoNames)
}

struct Dialer(Box<dyn Dial>);

impl Connector for Dialer {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Wire>, Error> {
        self.0.dial(details.uri, details.config, until(details.timeout)).map(Some)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

/// Names are resolved when connecting: ureq would do it before each request, even on a kept connection.
#[derive(Debug)]
struct NoNames;

impl Resolver for NoNames {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Converts ureq's timeout.
fn until(timeout: NextTimeout) -> Until {
    let after = (!timeout.after.is_not_happening()).then_some(*timeout.after);
    Until::new(after.and_then(|after| Instant::now().checked_add(after)), wait(timeout.reason))
}

/// ureq zeroes its buffers, so all of each counts as memory; a request and an answer never exist at the same time.
fn for_request() -> LazyBuffers {
    LazyBuffers::new(1, OUTPUT_BYTES)
}

fn for_answer() -> LazyBuffers {
    LazyBuffers::new(BODY_BYTES, 1)
}

/// One connection.
pub(super) struct Wire {
    stream: Stream,
    buffers: LazyBuffers,
    /// While waiting for the head of an answer: its bytes so far, which are kept from ureq.
    head: Option<(Guard, Vec<u8>)>,
    /// Bytes of it read at a time.
    head_step: usize,
    may_keep: bool,
    peers: Peers,
    /// `None`: only the proxy knows.
    address: Option<IpAddr>,
    /// Origin that a proxy needs in front of a path.
    origin: Option<String>,
}

impl Wire {
    /// Input: `origin`: scheme and authority, where the request goes to a proxy; `address`: the server's, if
    /// known.
    pub fn new(stream: Stream, peers: Peers, address: Option<IpAddr>, origin: Option<String>) -> Wire {
        Wire {
            stream,
            buffers: for_request(),
            head: None,
            head_step: HEAD_BYTES,
            may_keep: true,
            peers,
            address,
            origin,
        }
    }

    /// Reads nothing beyond the head, for a caller that takes over the connection.
    pub fn no_further_than_the_head(self) -> Wire {
        Wire { head_step: 1, ..self }
    }

    /// Reads a whole head, and passes it on. Returns: `false`: the connection ended before.
    fn await_head(&mut self) -> io::Result<bool> {
        while let Some((guard, bytes)) = &mut self.head {
            match guard.look(bytes).map_err(malformed)? {
                Seen::Part => {
                    let old = bytes.len();
                    bytes.resize(old + self.head_step, 0);
                    let length = self.stream.read(&mut bytes[old..])?;
                    bytes.truncate(old + length);
                    if length == 0 {
                        return Ok(false);
                    }
                }
                Seen::Interim(length) => drop(bytes.drain(..length)),
                Seen::Head { may_keep } => {
                    self.may_keep &= may_keep;
                    self.buffers = for_answer();
                    self.buffers.input_append_buf()[..bytes.len()].copy_from_slice(bytes);
                    self.buffers.input_appended(bytes.len());
                    self.head = None;
                }
            }
        }
        Ok(true)
    }

    /// Reads more of a body. Returns: `false`: the connection ended.
    fn await_body(&mut self) -> io::Result<bool> {
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            return Err(malformed("a line of the body is too long"));
        }
        let length = self.stream.read(room).map_err(|e| match e.kind() {
            // ureq takes these for the end of a body of unknown length.
            ErrorKind::UnexpectedEof => io::Error::new(ErrorKind::BrokenPipe, "connection closed before the end"),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                io::Error::new(ErrorKind::BrokenPipe, e.to_string())
            }
            _ => e,
        })?;
        self.buffers.input_appended(length);
        Ok(length > 0)
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.socket().until = until(timeout);
        let output = &self.buffers.output()[..amount];
        let begins = self.head.is_none();
        self.head.get_or_insert_default();
        // Source: RFC 9112, section 3.2.2.
        let method = output.iter().position(|b| *b == b' ').map_or(0, |blank| blank + 1);
        let origin = self.origin.as_deref().filter(|_| begins).unwrap_or_default();
        self.stream.send(&[&output[..method], origin.as_bytes(), &output[method..]].concat())?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let is_head = self.head.is_some();
        self.stream.socket().until = until(if is_head { timeout } else { timeout.for_read() });
        Ok(if is_head { self.await_head()? } else { self.await_body()? })
    }

    fn is_open(&mut self) -> bool {
        self.buffers = for_request();
        self.may_keep && self.address.is_none_or(|address| self.peers.may(address)) && self.stream.is_quiet()
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::deadline::Wait;
    use std::net::TcpListener;
    use std::time::Duration;
    use ureq::Timeout;
    use ureq::unversioned::transport::time;

    fn next(after: time::Duration, reason: Timeout) -> NextTimeout {
        NextTimeout { after, reason, ..NextTimeout::default() }
    }

    #[test]
    fn each_wait_of_ureqs_has_its_end_and_its_words() {
        for (reason, name) in [
            (Timeout::Global, Wait::Whole),
            (Timeout::PerCall, Wait::Whole),
            (Timeout::Resolve, Wait::Connect),
            (Timeout::Connect, Wait::Connect),
            (Timeout::SendRequest, Wait::Answer),
            (Timeout::SendBody, Wait::Answer),
            (Timeout::RecvResponse, Wait::Answer),
            (Timeout::RecvBody, Wait::Data),
            (Timeout::PerRead, Wait::Data),
        ] {
            assert_eq!(wait(reason), name);
            let soon = until(next(time::Duration::from_secs(9), reason)).left().unwrap().unwrap();
            assert!(soon > Duration::from_secs(5) && soon <= Duration::from_secs(9));
        }
        assert!(until(next(time::Duration::NotHappening, Timeout::Global)).left().unwrap().is_none());
        assert!(until(next(time::Duration::from_secs(0), Timeout::Global)).left().is_err());
        assert!(until(next(time::Duration::Exact(Duration::MAX), Timeout::Global)).left().unwrap().is_none());
    }

    /// A connection, and the peer's side of it.
    fn wire() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket { tcp, until: Until::new(None, Wait::Data) };
        (Wire::new(Stream::Plain(socket), Peers::default(), None, None), listener.accept().unwrap().0)
    }

    fn long() -> NextTimeout {
        next(time::Duration::from_secs(20), Timeout::RecvResponse)
    }

    /// Behaviour that ureq relies on, by its documentation.
    #[test]
    fn ureq_sees_a_head_once_it_is_whole_and_then_what_comes() {
        let (mut wire, mut peer) = wire();
        wire.buffers().output()[..4].copy_from_slice(b"GET ");
        wire.transmit_output(4, long()).unwrap();
        for part in ["HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200", " OK\r\n", "\r\nbo"] {
            peer.write_all(part.as_bytes()).unwrap();
        }
        assert!(!wire.buffers().can_use_input());
        assert!(wire.await_input(long()).unwrap());
        assert!(wire.buffers().input().starts_with(b"HTTP/1.1 200 OK\r\n\r\n"));
        wire.buffers().input_consume(0);
        assert!(!wire.buffers().can_use_input(), "it could make nothing of this");
        wire.buffers().input_consume("HTTP/1.1 200 OK\r\n\r\n".len());
        peer.write_all(b"dy").unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        while wire.await_input(long()).unwrap() {}
        assert_eq!(wire.buffers().input(), b"body");
        assert!(wire.buffers().can_use_input() && !wire.is_open());
    }

    #[test]
    fn a_connection_is_kept_while_it_is_quiet() {
        let (mut wire, mut peer) = wire();
        assert!(wire.is_open() && wire.is_open());
        peer.write_all(b"x").unwrap();
        // Waits until it has arrived.
        let socket = wire.stream.socket();
        socket.tcp.peek(&mut [0]).unwrap();
        assert!(!wire.is_open());
        let (mut other, gone) = self::wire();
        drop(gone);
        other.stream.socket().tcp.peek(&mut [0]).unwrap();
        assert!(!other.is_open());
    }

    #[test]
    fn a_break_is_not_the_end_of_a_body() {
        let (mut wire, peer) = wire();
        // A close with unread bytes becomes a reset.
        wire.stream.send(b"x").unwrap();
        peer.peek(&mut [0]).unwrap();
        drop(peer);
        let Err(Error::Io(e)) = wire.await_input(long()) else { panic!("no error") };
        assert_eq!(e.kind(), ErrorKind::BrokenPipe, "{e}");
    }

    #[test]
    fn a_line_without_end_has_one() {
        let (mut wire, mut peer) = wire();
        let sends = std::thread::spawn(move || peer.write_all(&vec![b'x'; BODY_BYTES + 1]));
        let e = loop {
            match wire.await_input(long()) {
                Ok(more) => assert!(more),
                Err(e) => break e,
            }
        };
        assert!(e.to_string().contains("too long"), "{e}");
        drop(wire);
        let _ = sends.join().unwrap();
    }
}
