//! A server that keeps to no rule: what it announces, what it sends and when it stops are the test's choice.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// One answer.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    /// What Content-Length says; without it the body ends with the connection.
    pub announced: Option<usize>,
    pub body: Vec<u8>,
    /// After so many bytes of the body: tell the test, then wait until the client goes.
    pub hold_after: Option<usize>,
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
        let body = body.into();
        Reply { status: 200, announced: Some(body.len()), body, hold_after: None }
    }

    pub fn status(status: u16) -> Reply {
        Reply { status, announced: Some(0), body: Vec::new(), hold_after: None }
    }
}

/// A running server on a loopback port of its own; stops when dropped.
pub struct Raw {
    pub port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    held: Receiver<()>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Raw {
    /// Starts one. Input: `answer`: gets the path.
    pub fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, stopping) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (told, held) = channel();
        let (log, stop, answer) = (seen.clone(), stopping.clone(), Arc::new(answer));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer, told): (_, _, Sender<()>) = (log.clone(), answer.clone(), told.clone());
                // One thread a connection: a held one must not stop the next run of the agent.
                thread::spawn(move || serve(stream.unwrap(), &log, answer.as_ref(), &told));
            }
        });
        Raw { port, seen, held, stopping, thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Paths of all requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until an answer is held.
    pub fn wait_held(&self) {
        self.held.recv_timeout(Duration::from_secs(60)).expect("the agent never asked for what is held");
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<String>>, answer: &dyn Fn(&str) -> Reply, told: &Sender<()>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    // The client may hang up at any time: that is for the test to notice.
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let Some(path) = line.split(' ').nth(1).map(str::to_string) else { return };
    while line.trim() != "" {
        line.clear();
        if !matches!(reader.read_line(&mut line), Ok(n) if n > 0) {
            return;
        }
    }
    log.lock().unwrap().push(path.clone());
    let reply = answer(&path);
    let length = reply.announced.map_or(String::new(), |n| format!("Content-Length: {n}\r\n"));
    let head = format!("HTTP/1.1 {} X\r\n{length}Connection: close\r\n\r\n", reply.status);
    let first = reply.hold_after.unwrap_or(reply.body.len());
    if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&reply.body[..first])).is_err() {
        return;
    }
    if reply.hold_after.is_some() {
        let _ = told.send(());
        let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
        let _ = reader.read(&mut [0]);
    }
}
