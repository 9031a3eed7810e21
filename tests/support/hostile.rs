//! A server that does whatever a test's script says, byte by byte, on two hosts at once.
//!
//! A script is a function from a request to a reply. Every request is recorded. A reset is a connection that is closed
//! with a byte of the request still unread: Linux sends RST then (RFC 2525, section 2.17).

use super::disk::wait_for;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest time that anything here waits for the agent.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a waiting connection looks whether the test is over.
const LOOK: Duration = Duration::from_millis(200);
/// Longest request that is read.
const MAX_REQUEST: usize = 64 << 10;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// One thing that a connection does.
#[derive(Clone)]
pub enum Step {
    Send(Vec<u8>),
    /// One byte, then a pause, and so on.
    Drip(Vec<u8>, Duration),
    /// The same bytes again and again, until the client goes.
    Flood(Vec<u8>),
    /// Nothing, until the client goes.
    Stall,
    /// Waits until all that was sent has arrived, then RST.
    Reset,
}

/// What Content-Length says.
#[derive(Clone)]
pub enum Length {
    Fits,
    Says(String),
    /// There is none: the body ends with the connection.
    Absent,
}

/// One answer.
#[derive(Clone)]
pub struct Reply {
    /// 0: there is no head, the body is all that is sent.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub length: Length,
    pub body: Vec<Step>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: Vec::new(), length: Length::Fits, body: vec![Step::Send(body.into())] }
    }

    pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply::new(200, body)
    }

    /// No head but what the steps send.
    pub fn raw(body: Vec<Step>) -> Reply {
        Reply { status: 0, headers: Vec::new(), length: Length::Absent, body }
    }

    pub fn redirect(to: &str) -> Reply {
        Reply::new(302, "").header("Location", to)
    }

    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn length(mut self, length: Length) -> Reply {
        self.length = length;
        self
    }

    pub fn says(self, length: impl ToString) -> Reply {
        self.length(Length::Says(length.to_string()))
    }

    pub fn status(mut self, status: u16) -> Reply {
        self.status = status;
        self
    }

    /// The same bytes again and again behind the body, until the client goes.
    pub fn then_flood(mut self, bytes: &[u8]) -> Reply {
        self.body.push(Step::Flood(bytes.to_vec()));
        self
    }

    /// Sends the first bytes of the body, then does something else; announced is the whole. Of a part that has not more, half.
    pub fn then(mut self, bytes: usize, more: Vec<Step>) -> Reply {
        let whole = self.bytes();
        let bytes = if bytes <= whole.len() { bytes } else { whole.len() / 2 };
        self.length = Length::Says(whole.len().to_string());
        self.body = vec![Step::Send(whole[..bytes].to_vec())];
        self.body.extend(more);
        self
    }

    /// The same in chunks of which the last is missing: `more` comes in its place.
    pub fn chunked(mut self, more: Vec<Step>) -> Reply {
        let whole = self.bytes();
        let mut chunk = format!("{:x}\r\n", whole.len()).into_bytes();
        chunk.extend(whole);
        chunk.extend(b"\r\n");
        self.body = vec![Step::Send(chunk)];
        self.body.extend(more);
        self.header("Transfer-Encoding", "chunked").length(Length::Absent)
    }

    pub fn change(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Reply {
        let mut whole = self.bytes();
        change(&mut whole);
        self.body = vec![Step::Send(whole)];
        self
    }

    fn bytes(&self) -> Vec<u8> {
        match self.body.as_slice() {
            [Step::Send(bytes)] => bytes.clone(),
            _ => panic!("the body is more than bytes"),
        }
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.length {
            Length::Fits => head.push_str(&format!("Content-Length: {}\r\n", self.bytes().len())),
            Length::Says(said) => head.push_str(&format!("Content-Length: {said}\r\n")),
            Length::Absent => {}
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// One request.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Whether it came to the second host.
    pub is_other: bool,
    pub method: String,
    /// Path and query.
    pub path: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub body: String,
    /// Requests before it with the same host, method and path.
    pub nth: usize,
    /// `127.0.0.1:PORT` and `127.0.0.2:PORT`.
    pub here: String,
    pub other: String,
}

impl Ask {
    /// First byte asked for; 0 without a Range.
    pub fn from(&self) -> usize {
        self.bounds().and_then(|(from, _)| from.parse().ok()).unwrap_or(0)
    }

    /// Where the part that is asked for ends; `None`: with the file.
    pub fn end(&self) -> Option<usize> {
        self.bounds().and_then(|(_, last)| last.parse::<usize>().ok()).map(|last| last + 1)
    }

    fn bounds(&self) -> Option<(&str, &str)> {
        self.range.as_deref()?.strip_prefix("bytes=")?.split_once('-')
    }

    pub fn is_get(&self) -> bool {
        self.method == "GET"
    }
}

pub type Script = dyn Fn(&Ask) -> Reply + Send + Sync;

/// A running server on 127.0.0.1 and 127.0.0.2; stops when dropped.
pub struct Hostile {
    /// `127.0.0.1:PORT`.
    pub here: String,
    /// `127.0.0.2:PORT`.
    pub other: String,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    here: String,
    other: String,
    seen: Mutex<Vec<Ask>>,
    stopping: AtomicBool,
    script: Arc<Script>,
}

impl Hostile {
    pub fn start(script: Arc<Script>) -> Hostile {
        let listeners = ["127.0.0.1:0", "127.0.0.2:0"].map(|at| TcpListener::bind(at).unwrap());
        let [here, other] = listeners.each_ref().map(|l| l.local_addr().unwrap().to_string());
        let (seen, stopping) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let shared = Arc::new(Shared { here: here.clone(), other: other.clone(), seen, stopping, script });
        let accept = |(listener, is_other): (TcpListener, bool)| {
            let shared = shared.clone();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if shared.stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let (Ok(stream), shared) = (stream, shared.clone()) else { continue };
                    // One thread a connection: one that is held must not hold the others.
                    thread::spawn(move || shared.serve(stream, is_other));
                }
            })
        };
        let threads = listeners.into_iter().zip([false, true]).map(accept).collect();
        Hostile { here, other, shared, threads }
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Ask> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for at in [&self.here, &self.other] {
            let _ = TcpStream::connect(at.as_str());
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream, is_other: bool) {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let Some(mut ask) = read_request(&mut stream) else { return };
        (ask.is_other, ask.here, ask.other) = (is_other, self.here.clone(), self.other.clone());
        {
            let mut seen = self.seen.lock().unwrap();
            let same = |a: &&Ask| (a.is_other, &a.method, &a.path) == (is_other, &ask.method, &ask.path);
            ask.nth = seen.iter().filter(same).count();
            seen.push(ask.clone());
        }
        let reply = (self.script)(&ask);
        if reply.status != 0 && stream.write_all(&reply.head()).is_err() {
            return;
        }
        if ask.method != "HEAD" || reply.status == 0 {
            for step in &reply.body {
                match self.play(&mut stream, step) {
                    true => {}
                    // The byte that is still unread makes it a reset.
                    false => return,
                }
            }
        }
        let _ = stream.read(&mut [0]);
    }

    /// Returns whether to go on.
    fn play(&self, stream: &mut TcpStream, step: &Step) -> bool {
        match step {
            Step::Send(bytes) => stream.write_all(bytes).is_ok(),
            Step::Drip(bytes, pause) => {
                bytes.iter().all(|byte| stream.write_all(&[*byte]).is_ok() && self.pause(stream, *pause))
            }
            Step::Flood(bytes) => {
                while stream.write_all(bytes).is_ok() {
                    if self.stopping.load(Ordering::SeqCst) {
                        break;
                    }
                }
                false
            }
            Step::Stall => {
                while self.pause(stream, LOOK) {}
                false
            }
            Step::Reset => {
                assert!(wait_for(PATIENCE, || has_arrived(stream)), "what was sent does not arrive");
                false
            }
        }
    }

    /// Waits. Returns whether client and test are still there.
    fn pause(&self, stream: &TcpStream, time: Duration) -> bool {
        // One byte of the request is unread, so that an end of the client shows only in the state of the socket.
        thread::sleep(time);
        !self.stopping.load(Ordering::SeqCst) && is_established(stream)
    }
}

/// Reads a request, but for the last byte of its head.
fn read_request(stream: &mut TcpStream) -> Option<Ask> {
    let mut buffer = vec![0; MAX_REQUEST];
    let mut head = 0;
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let whole = wait_for(PATIENCE, || match stream.peek(&mut buffer) {
        Ok(0) => true,
        Ok(n) => {
            head = buffer[..n].windows(4).position(|w| w == END_OF_HEAD).map_or(0, |at| at + 4);
            head > 0
        }
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    });
    if !whole || head == 0 {
        return None;
    }
    let text = String::from_utf8(buffer[..head].to_vec()).ok()?;
    let header = |name: &str| {
        let line =
            |l: &str| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned());
        text.lines().find_map(line)
    };
    let mut words = text.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let length: usize = header("Content-Length").map_or(Some(0), |l| l.parse().ok())?;
    let mut rest = vec![0; head + length - 1];
    stream.read_exact(&mut rest).ok()?;
    let body = String::from_utf8_lossy(&rest[rest.len().min(head)..]).into_owned();
    let (authorization, range, if_range) = (header("Authorization"), header("Range"), header("If-Range"));
    Some(Ask { method, path, authorization, range, if_range, body, ..Ask::default() })
}

/// This side's line of /proc/net/tcp: state and the bytes that the client's machine has not acknowledged.
/// Source: Linux, Documentation/networking/proc_net_tcp.rst.
fn socket(stream: &TcpStream) -> Option<(String, String)> {
    let [here, there] =
        [stream.local_addr().ok()?.port(), stream.peer_addr().ok()?.port()].map(|p| format!(":{p:04X}"));
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let ours = |f: &Vec<String>| f.len() > 4 && f[1].ends_with(&here) && f[2].ends_with(&there);
    let line = table.lines().map(fields).find(ours)?;
    Some((line[3].clone(), line[4].split(':').next()?.to_owned()))
}

fn is_established(stream: &TcpStream) -> bool {
    socket(stream).is_some_and(|(state, _)| state == "01")
}

/// Says whether the client has all, or is gone.
fn has_arrived(stream: &TcpStream) -> bool {
    socket(stream).is_none_or(|(state, waiting)| state != "01" || waiting == "00000000")
}
