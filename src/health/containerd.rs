//! Asks containerd for its version over gRPC: one HTTP/2 stream on its socket, with the minimum that takes.
//!
//! A socket that accepts connections proves nothing: a stopped or hung containerd leaves one behind.
//! Must never: wait beyond its limit, or read more than `MAX_FRAMES` frames from the peer.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::base::text::{printable, secs};
use crate::os::sys;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Largest frame that is read, in bytes: a peer may send it unasked. Source: RFC 9113, section 4.2.
const MAX_FRAME: usize = 16 * 1024;
/// Most frames before the answer. containerd sends five.
const MAX_FRAMES: usize = 64;

/// The client preface, then our (empty) SETTINGS. Source: RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The header block of the call, built from static table entries and literals. Source: RFC 7541, sections 6.1 and 6.2.2,
/// appendix A; gRPC over HTTP/2, "Requests".
const HEADERS: &[u8] = b"\x83\x86\x04\x2f/containerd.services.version.v1.Version/Version\
    \x01\x09localhost\x0f\x10\x10application/grpc\0\x02te\x08trailers";

const DATA: u8 = 0;
const HEADERS_FRAME: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Asks for the version.
/// Input: `limit`: for the whole call.
/// Returns: `containerd` and its version.
/// Errors: Unhealthy: it does not answer, or not as a gRPC server that knows the call.
pub fn check(socket: &Path, limit: Duration) -> Result<String> {
    let late = |e: Error| e.at("ask", format!("containerd at {}", socket.display()));
    let start = Instant::now();
    let asked = sys::connect_unix(socket, limit).and_then(|stream| ask(&stream, start, limit));
    match asked {
        Ok(reply) => reply.version().map_err(late),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(late(Error::new(Kind::Unhealthy, format!("no answer for {} s", secs(limit)))))
        }
        Err(e) => Err(e).io(Kind::Unhealthy, "ask", format!("containerd at {}", socket.display())),
    }
}

fn ask(mut stream: &UnixStream, start: Instant, limit: Duration) -> io::Result<Reply> {
    let left = || limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero()).ok_or(io::ErrorKind::TimedOut);
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(&request())?;
    let mut reply = Reply::default();
    for _ in 0..MAX_FRAMES {
        let mut head = [0; 9];
        read_exact(stream, &mut head, &left)?;
        let [_, high, low, kind, flags, rest @ ..] = head;
        let length = usize::from(high) << 8 | usize::from(low);
        if head[0] != 0 || length > MAX_FRAME {
            return Err(io::Error::other("what answers does not speak HTTP/2"));
        }
        let mut payload = vec![0; length];
        read_exact(stream, &mut payload, &left)?;
        let answer = reply.take(kind, flags, u32::from_be_bytes(rest), &payload).map_err(io::Error::other)?;
        stream.set_write_timeout(Some(left()?))?;
        stream.write_all(&answer)?;
        if reply.is_whole {
            return Ok(reply);
        }
    }
    Err(io::Error::other("too many frames without an answer"))
}

fn read_exact(
    mut stream: &UnixStream,
    mut buffer: &mut [u8],
    left: &dyn Fn() -> std::result::Result<Duration, io::ErrorKind>,
) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(buffer) {
            Ok(0) => return Err(io::Error::other("it closed the connection without an answer")),
            Ok(length) => buffer = &mut buffer[length..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes the whole request. Pure.
fn request() -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    frame(&mut out, HEADERS_FRAME, END_HEADERS, 1, HEADERS);
    // An empty message, not compressed. Source: gRPC over HTTP/2, "Length-Prefixed-Message".
    frame(&mut out, DATA, END_STREAM, 1, &[0; 5]);
    out
}

/// Source: RFC 9113, section 4.1.
fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
    // Our payloads are short.
    out.extend_from_slice(&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream]);
    out.extend_from_slice(payload);
}

/// What the server has sent. Pure.
#[derive(Default)]
struct Reply {
    settings: bool,
    data: Vec<u8>,
    is_whole: bool,
}

impl Reply {
    /// Takes one frame. Returns: the bytes to send back.
    /// Errors: the server refuses the call, or breaks the protocol.
    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
        let mut answer = Vec::new();
        let ours = stream & 0x7fff_ffff == 1;
        match kind {
            // Source: RFC 9113, section 3.4: the first frame of a server.
            SETTINGS if flags & ACK == 0 => {
                self.settings = true;
                frame(&mut answer, SETTINGS, ACK, 0, &[]);
            }
            _ if !self.settings => return Err("what answers does not speak HTTP/2"),
            PING if flags & ACK == 0 && payload.len() == 8 => frame(&mut answer, PING, ACK, 0, payload),
            GOAWAY => return Err("it is shutting down, or refuses the connection"),
            RST_STREAM if ours => return Err("it refuses the call"),
            DATA | HEADERS_FRAME if ours => {
                if kind == DATA && self.data.len() < MAX_FRAME {
                    self.data.extend_from_slice(payload);
                }
                self.is_whole = flags & END_STREAM != 0;
            }
            _ => {}
        }
        Ok(answer)
    }

    /// Reads the message: field 1 of VersionResponse is the version.
    /// Source: containerd, api/services/version/v1/version.proto; Protocol Buffers encoding.
    fn version(&self) -> Result<String> {
        let bad = |why: &str| Err(Error::new(Kind::Unhealthy, why));
        if self.data.is_empty() {
            // gRPC sends an error as trailers without data.
            return bad("it answered the version call with an error");
        }
        let message = match self.data.as_slice() {
            [0, 0, 0, high, low, message @ ..] if message.len() == usize::from(*high) << 8 | usize::from(*low) => {
                message
            }
            _ => return bad("its answer is not a gRPC message"),
        };
        match message {
            [0x0a, length @ 0..=127, rest @ ..] if rest.len() >= usize::from(*length) => {
                let version = String::from_utf8_lossy(&rest[..usize::from(*length)]);
                Ok(format!("containerd {}", printable(&version)))
            }
            _ => bad("its answer has no version"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(frames: &[(u8, u8, u32, &[u8])]) -> std::result::Result<Reply, &'static str> {
        let mut reply = Reply::default();
        for (kind, flags, stream, payload) in frames {
            reply.take(*kind, *flags, *stream, payload)?;
        }
        Ok(reply)
    }

    #[test]
    fn the_header_block_has_the_lengths_it_says() {
        let path = b"/containerd.services.version.v1.Version/Version";
        assert_eq!(usize::from(HEADERS[3]), path.len());
        assert_eq!(&HEADERS[4..4 + path.len()], path);
        assert_eq!(request().len(), PREFACE.len() + 9 + HEADERS.len() + 9 + 5);
        assert!(HEADERS.len() < 256);
    }

    #[test]
    fn a_version_is_read_and_everything_else_is_named() {
        let message = b"\0\0\0\0\x0f\x0a\x061.7.20\x12\x05abcde";
        let whole =
            reply(&[(4, 0, 0, b""), (8, 0, 0, b"\0\0\0\0"), (4, 1, 0, b""), (1, 4, 1, b"\x88"), (0, 0, 1, message)]);
        let mut whole = whole.unwrap();
        assert!(!whole.is_whole);
        whole.take(HEADERS_FRAME, END_STREAM | END_HEADERS, 1, b"\x40").unwrap();
        assert!(whole.is_whole);
        assert_eq!(whole.version().unwrap(), "containerd 1.7.20");
        assert!(reply(&[(1, 5, 1, b"")]).is_err(), "settings come first");
        assert!(reply(&[(4, 0, 0, b""), (7, 0, 0, b"")]).is_err());
        assert!(reply(&[(4, 0, 0, b""), (3, 0, 1, b"\0\0\0\x07")]).is_err());
        for (data, word) in [
            (&b""[..], "with an error"),
            (b"\0\0\0\0\x05abc", "not a gRPC message"),
            (b"\x01\0\0\0\x03abc", "not a gRPC message"),
            (b"\0\0\0\0\x00", "no version"),
            (b"\0\0\0\0\x04\x0a\x09ab", "no version"),
        ] {
            let reply = reply(&[(4, 0, 0, b""), (0, 0, 1, data), (1, 1, 1, b"")]).unwrap();
            assert!(reply.version().unwrap_err().to_string().contains(word), "{word}");
        }
    }

    #[test]
    fn settings_and_pings_are_answered() {
        let mut reply = Reply::default();
        assert_eq!(reply.take(SETTINGS, 0, 0, b"").unwrap(), [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]);
        let pong = reply.take(PING, 0, 0, b"12345678").unwrap();
        assert_eq!((pong[3], pong[4], &pong[9..]), (PING, ACK, &b"12345678"[..]));
        assert!(reply.take(SETTINGS, ACK, 0, b"").unwrap().is_empty());
    }
}
