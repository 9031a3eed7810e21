//! A small HTTP server for a test: what it answers is a function of the request.

use std::io::Cursor;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use tiny_http::{Header, Response, Server};

/// One answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Answer {
        Answer { status: 200, headers: Vec::new(), body: body.into() }
    }

    pub fn status(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running server on a loopback port of its own; stops when dropped.
pub struct Web {
    pub port: u16,
    server: Arc<Server>,
    seen: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Starts one. Input: `answer`: gets path and query.
    pub fn start(answer: impl Fn(&str) -> Answer + Send + 'static) -> Web {
        Web::start_by_method(move |_, path| answer(path))
    }

    /// Starts one. Input: `answer`: gets the method, and path and query. To HEAD, no body is sent.
    pub fn start_by_method(answer: impl Fn(&str, &str) -> Answer + Send + 'static) -> Web {
        let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
        let port = server.server_addr().to_ip().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (incoming, log) = (server.clone(), seen.clone());
        let thread = thread::spawn(move || {
            for request in incoming.incoming_requests() {
                log.lock().unwrap().push(format!("{} {}", request.method(), request.url()));
                let Answer { status, headers, body } = answer(request.method().as_str(), request.url());
                let length = body.len();
                let mut response = Response::new(status.into(), Vec::new(), Cursor::new(body), Some(length), None);
                for (name, value) in headers {
                    response.add_header(Header::from_bytes(name, value).unwrap());
                }
                // The client may well hang up on what it refuses.
                let _ = request.respond(response.with_chunked_threshold(usize::MAX));
            }
        });
        Web { port, server, seen, thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT` and the path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Method and path of every request so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
