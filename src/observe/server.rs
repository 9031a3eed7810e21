//! The HTTP server that Prometheus scrapes: one thread, poll(2), and bounds on everything that a client can do.
//!
//! A connection is read until one head is complete, answered, and closed. A slow client is cut off after some seconds; when
//! there are too many, the one that has waited longest without a complete request is dropped.
//! Must never: block on a client, or hold more than [`CLIENTS_MAX`] of them.

use crate::base::error::{IoContext, Kind, Result};
use crate::base::time::http_date;
use crate::observe::request::{self, HEAD_MAX_BYTES, METHOD_NOT_ALLOWED, OK, Page};
use crate::os::sys;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Most connections at a time.
pub const CLIENTS_MAX: usize = 32;
/// Time for a client to send its request, and then to read the answer.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long, and how much, is still read after the answer: closing a connection with unread bytes resets it, and
/// the client may lose the answer.
const REST_LIMIT: Duration = Duration::from_secs(1);
const REST_MAX_BYTES: usize = 64 * 1024;
/// How long all clients get the same text: reading a slot keeps a writer out for some milliseconds.
const TEXT_LIFE: Duration = Duration::from_secs(1);
/// Pause in accepting after the system was out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Makes a new text.
pub type Gather<'a> = dyn FnMut() -> Result<String> + 'a;
/// Returns the time, in seconds since 1970, if the clock is set.
pub type Clock<'a> = dyn Fn() -> Option<u64> + 'a;

/// Page for a browser without a path.
const INDEX: &str = "<!DOCTYPE html><title>kubesolo-update</title><p><a href=\"/metrics\">metrics</a>\n";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves until the process ends.
/// Input: `gather`: called at most once a second; `clock`: for the answers' `Date`.
/// Returns: only on failure. Errors: as `gather`; Internal: poll(2) failed.
pub fn serve(listener: &TcpListener, gather: &mut Gather<'_>, clock: &Clock<'_>) -> Result<()> {
    listener.set_nonblocking(true).io(Kind::Internal, "prepare", "the listening socket")?;
    let (mut text, mut clients) = (Text { gather, clock, last: None }, Vec::<Client>::new());
    loop {
        let mut waiting = vec![wait_for(listener, libc::POLLIN)];
        let mut limit = IDLE_LIMIT;
        let now = Instant::now();
        for client in &clients {
            let what = if client.stage == Stage::Answer { libc::POLLOUT } else { libc::POLLIN };
            waiting.push(wait_for(&client.stream, what));
            limit = limit.min(client.due.saturating_duration_since(now));
        }
        sys::poll(&mut waiting, limit).io(Kind::Internal, "wait for", "clients")?;
        let now = Instant::now();
        for (client, waited) in clients.iter_mut().zip(&waiting[1..]) {
            if waited.revents != 0 {
                client.go_on(&mut text)?;
            }
            client.open &= client.due > now;
        }
        clients.retain(|client| client.open);
        if waiting[0].revents != 0 {
            accept(listener, &mut clients, &mut text)?;
        }
    }
}

fn wait_for(socket: &impl AsRawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 }
}

/// Accepts a bounded batch so that connected clients are served first.
fn accept(listener: &TcpListener, clients: &mut Vec<Client>, text: &mut Text<'_>) -> Result<()> {
    for _ in 0..CLIENTS_MAX / 2 {
        match listener.accept() {
            Ok((stream, _)) => {
                if stream.set_nonblocking(true).is_err() {
                    continue;
                }
                let mut client = Client::new(stream);
                // Served at once: a complete request does not wait for slow clients, nor is dropped for the next one.
                client.go_on(text)?;
                if client.open {
                    if clients.len() >= CLIENTS_MAX {
                        drop_one(clients);
                    }
                    clients.push(client);
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(_) => {
                // Out of descriptors or memory: the listener would stay ready, and accepting keep failing, for ever.
                drop_one(clients);
                std::thread::sleep(ACCEPT_PAUSE);
                break;
            }
        }
    }
    Ok(())
}

/// Drops one: a client that has its answer already, else the one that has waited longest without a complete request.
fn drop_one(clients: &mut Vec<Client>) {
    let mut worst = 0;
    for (at, client) in clients.iter().enumerate() {
        // Clients are in the order of arrival.
        if client.stage < clients[worst].stage {
            worst = at;
        }
    }
    if worst < clients.len() {
        clients.remove(worst);
    }
}

/// The text, and when it was made.
struct Text<'a> {
    gather: &'a mut Gather<'a>,
    clock: &'a Clock<'a>,
    last: Option<(Instant, String)>,
}

impl Text<'_> {
    fn now(&mut self) -> Result<&str> {
        if self.last.as_ref().is_none_or(|(made, _)| made.elapsed() >= TEXT_LIFE) {
            let text = (self.gather)()?;
            self.last = Some((Instant::now(), text));
        }
        Ok(self.last.as_ref().map_or("", |(_, text)| text))
    }
}

/// In the order in which clients are dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has its answer; what it still sends is discarded.
    Rest,
    /// Its request is being read.
    Head,
    /// The answer is being sent.
    Answer,
}

struct Client {
    stream: TcpStream,
    stage: Stage,
    /// The head so far; then the answer.
    bytes: Vec<u8>,
    /// Bytes of the answer sent; then bytes discarded.
    done: usize,
    due: Instant,
    open: bool,
}

impl Client {
    fn new(stream: TcpStream) -> Client {
        Client { stream, stage: Stage::Head, bytes: Vec::new(), done: 0, due: Instant::now() + HEAD_LIMIT, open: true }
    }

    /// Proceeds as far as possible without blocking.
    fn go_on(&mut self, text: &mut Text<'_>) -> Result<()> {
        let mut piece = [0; 1024];
        while self.open && self.stage == Stage::Head {
            let room = piece.len().min(HEAD_MAX_BYTES - self.bytes.len());
            let Some(got) = self.read(&mut piece[..room]) else { return Ok(()) };
            let before = self.bytes.len();
            self.bytes.extend_from_slice(&piece[..got]);
            match request::end(&self.bytes, before) {
                Some(end) => self.answer(request::judge(&self.bytes[..end]), text)?,
                None if self.bytes.len() == HEAD_MAX_BYTES => {
                    self.answer(Err(request::too_long(&self.bytes)), text)?;
                }
                None => {}
            }
        }
        while self.open && self.stage == Stage::Answer {
            match self.stream.write(&self.bytes[self.done..]) {
                Ok(sent) => self.done += sent,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.open = false,
            }
            if self.done == self.bytes.len() {
                self.open &= self.stream.shutdown(Shutdown::Write).is_ok();
                (self.stage, self.done, self.bytes) = (Stage::Rest, 0, Vec::new());
                self.due = Instant::now() + REST_LIMIT;
            }
        }
        while self.open {
            let Some(got) = self.read(&mut piece) else { return Ok(()) };
            self.done += got;
            self.open = self.done < REST_MAX_BYTES;
        }
        Ok(())
    }

    /// Returns: `None` if nothing can be read now, or ever again.
    fn read(&mut self, piece: &mut [u8]) -> Option<usize> {
        match self.stream.read(piece) {
            Ok(got) if got > 0 => return Some(got),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            _ => self.open = false,
        }
        None
    }

    fn answer(&mut self, wanted: std::result::Result<Page, request::Status>, text: &mut Text<'_>) -> Result<()> {
        let is_head = request::is_head(&self.bytes);
        let status = wanted.err().unwrap_or(OK);
        // A server without a clock must not send a date (RFC 9110, section 6.6.1).
        let date = (text.clock)().map_or(String::new(), |secs| ["\r\nDate: ", &http_date(secs)].concat());
        let (kind, body) = match wanted {
            Ok(Page::Metrics) => ("text/plain; version=0.0.4; charset=utf-8", text.now()?),
            Ok(Page::Health) => (PLAIN, "ok\n"),
            Ok(Page::Index) => ("text/html; charset=utf-8", INDEX),
            Err(status) => (PLAIN, status),
        };
        let allow = if status == METHOD_NOT_ALLOWED { "Allow: GET, HEAD\r\n" } else { "" };
        let length = body.len().to_string();
        self.bytes.clear();
        for part in [
            "HTTP/1.1 ",
            status,
            &date,
            "\r\nContent-Type: ",
            kind,
            "\r\nConnection: close\r\n",
            allow,
            "Content-Length: ",
            &length,
            "\r\n\r\n",
            if is_head { "" } else { body },
        ] {
            self.bytes.extend_from_slice(part.as_bytes());
        }
        (self.stage, self.done, self.due) = (Stage::Answer, 0, Instant::now() + ANSWER_LIMIT);
        Ok(())
    }
}
