//! A small HTTP server that shows a test whole requests, headers and all, with TLS if need be.

use super::registry::ServerCert;
use super::web::Answer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Longest body that is taken, in bytes.
const BODY_MAX: usize = 64 << 10;

/// One request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    /// The value of a header. Input: its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn read(stream: &mut dyn BufRead) -> Option<Request> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line) {
                Ok(n) if n > 0 && line.trim_end().is_empty() => break,
                Ok(n) if n > 0 => lines.push(line.trim_end().to_string()),
                _ => return None,
            }
        }
        let mut first = lines.first()?.split(' ').map(str::to_string);
        let (method, target) = (first.next()?, first.next()?);
        let header = |line: &String| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_string()));
        let mut request =
            Request { method, target, headers: lines[1..].iter().filter_map(header).collect(), ..Request::default() };
        let length = request.header("content-length").map_or(0, |n| n.parse().unwrap());
        request.body = match request.header("transfer-encoding") {
            Some(_) => read_chunks(stream)?,
            None => read_text(stream, length)?,
        };
        Some(request)
    }
}

fn read_text(stream: &mut dyn BufRead, length: usize) -> Option<String> {
    let mut bytes = vec![0; length.min(BODY_MAX)];
    stream.read_exact(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

fn read_chunks(stream: &mut dyn BufRead) -> Option<String> {
    let mut body = String::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        body.push_str(&read_text(stream, length)?);
        stream.read_line(&mut line).ok()?;
        if length == 0 {
            return Some(body);
        }
    }
}

/// A running server; stops when dropped.
pub struct Listener {
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts one. Input: `ip`: where it listens, on a port of its own; `answer`: what a request gets.
    pub fn start(
        ip: &str,
        tls: Option<&ServerCert>,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Listener {
        Listener::start_for(ip, tls.map(|tls| config(tls, None)), answer)
    }

    /// Starts one that speaks TLS, and only to clients with a certificate of this CA.
    pub fn start_demanding(
        tls: &ServerCert,
        ca: &Path,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Listener {
        Listener::start_for("127.0.0.1", Some(config(tls, Some(ca))), answer)
    }

    fn start_for(
        ip: &str,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Listener {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, stopping) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, stop, tls, answer) = (seen.clone(), stopping.clone(), tls, Arc::new(answer));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer, tls, stream) = (log.clone(), answer.clone(), tls.clone(), stream.unwrap());
                thread::spawn(move || match tls {
                    None => serve(stream, &log, answer.as_ref()),
                    Some(tls) => {
                        serve(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream), &log, answer.as_ref())
                    }
                });
            }
        });
        Listener { address, seen, stopping, thread: Some(thread) }
    }

    /// `IP:PORT`.
    pub fn host(&self) -> &str {
        &self.address
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn config(tls: &ServerCert, ca: Option<&Path>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let certificates =
        |file: &Path| CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    let key = PrivateKeyDer::from_pem_file(&tls.key).unwrap();
    let config = match ca {
        None => config.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(ca));
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            config.with_client_cert_verifier(verifier)
        }
    };
    Arc::new(config.with_single_cert(certificates(&tls.certificate), key).unwrap())
}

/// One connection: requests until the client goes. It may well go in the middle of one.
fn serve(stream: impl Read + Write, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Answer) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = Request::read(&mut stream) {
        log.lock().unwrap().push(request.clone());
        let Answer { status, headers, body } = answer(&request);
        let mut head = format!("HTTP/1.1 {status} X\r\n");
        // Source: RFC 9110, section 8.6: none with 304.
        if status != 304 {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = if request.method == "HEAD" { &[] } else { body.as_slice() };
        let out = stream.get_mut();
        let sent = out.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| out.write_all(body));
        if sent.and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
