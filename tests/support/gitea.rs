//! The part of Gitea's API that releases are made with, as its source has it (routers/api/v1/repo/release*.go), and
//! faults that come when the test says.

use super::root::jq;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef01234567";
pub const REPO: &str = "site/kubesolo-update";
const API: &str = "/api/v1/repos/site/kubesolo-update/releases";

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Answered so, and not done.
    Status(u16),
    /// Done, then answered so.
    DoneBut(u16),
    /// Done, and the connection ends without an answer.
    DoneButCut,
    /// The connection ends within the request; nothing is done.
    Cut,
}

/// One uploaded file.
#[derive(Clone, Debug, PartialEq)]
pub struct Asset {
    pub id: usize,
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The release of a tag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Release {
    pub tag: String,
    pub draft: bool,
    pub prerelease: bool,
    pub assets: Vec<Asset>,
}

/// What the server knows, and what it will do wrong.
#[derive(Default)]
pub struct State {
    pub release: Option<Release>,
    /// Start of method and path, and what happens to the first request that starts so; then it is gone from here.
    pub faults: Vec<(String, Fault)>,
    /// Method and path of every request.
    pub seen: Vec<String>,
    /// Done to every upload before it is kept.
    pub spoil: Option<fn(&mut Vec<u8>)>,
    ids: usize,
}

/// A running server on a loopback port of its own; stops when dropped.
pub struct Gitea {
    pub port: u16,
    pub state: Arc<Mutex<State>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Gitea {
    pub fn start() -> Gitea {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, stopping) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicBool::new(false)));
        let (shared, stop) = (state.clone(), stopping.clone());
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                // A client that goes in mid-request is its own affair.
                let _ = serve(stream.unwrap(), &shared);
            }
        });
        Gitea { port, state, stopping, thread: Some(thread) }
    }

    /// Plans faults. Input: pairs of the start of "METHOD path below releases", and what happens.
    pub fn fail(&self, faults: &[(&str, Fault)]) {
        self.state.lock().unwrap().faults = faults.iter().map(|(at, fault)| (at.to_string(), *fault)).collect();
    }

    /// The release as it stands. Panics: there is none.
    pub fn release(&self) -> Release {
        self.state.lock().unwrap().release.clone().expect("no release")
    }

    /// Says how many requests started so.
    pub fn count(&self, start: &str) -> usize {
        self.state.lock().unwrap().seen.iter().filter(|line| line.starts_with(start)).count()
    }
}

impl Drop for Gitea {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let Some((method, target)) = head.split_once(' ').map(|(m, rest)| (m, rest.split(' ').next().unwrap_or(""))) else {
        return Ok(());
    };
    let header = |name: &str| {
        head.lines().filter_map(|l| l.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    };
    let at = format!("{method} {}", target.strip_prefix(API).unwrap_or(target));
    let mut state = state.lock().unwrap();
    state.seen.push(at.clone());
    let planned = state.faults.iter().position(|(start, _)| at.starts_with(start));
    let fault = planned.map(|n| state.faults.remove(n).1);
    if fault == Some(Fault::Cut) {
        return Ok(());
    }
    if header("Expect").is_some() {
        (&stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = vec![0; header("Content-Length").map_or(0, |n| n.parse().unwrap())];
    reader.read_exact(&mut body)?;
    let (mut status, mut answer) = match fault {
        Some(Fault::Status(status)) => (status, message("planned")),
        _ if header("Authorization") != Some(&format!("token {TOKEN}")) => (401, message("token is required")),
        _ => state.answer(method, target, &body),
    };
    match fault {
        Some(Fault::DoneBut(other)) => (status, answer) = (other, message("planned")),
        Some(Fault::DoneButCut) => return Ok(()),
        _ => {}
    }
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
    (&stream).write_all(head.as_bytes())?;
    (&stream).write_all(&answer)
}

fn message(text: &str) -> Vec<u8> {
    format!("{{\"message\":\"{text}\"}}").into_bytes()
}

impl State {
    /// Does what a request asks for. Returns: status and body.
    fn answer(&mut self, method: &str, target: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<&str> = path.strip_prefix(API).unwrap_or(path).split('/').skip(1).collect();
        match (method, parts.as_slice()) {
            ("POST", []) => self.create(body),
            ("GET", ["tags", tag]) => self.with(|release| match release.tag == *tag {
                true => (200, shown(release)),
                false => (404, message("not found")),
            }),
            ("PATCH", ["1"]) => self.with(|release| {
                release.draft = jq(&String::from_utf8_lossy(body), ".draft") != "false";
                (200, shown(release))
            }),
            ("GET", ["1", "assets"]) => self.with(|release| {
                let list: Vec<String> = release.assets.iter().map(asset).collect();
                (200, format!("[{}]", list.join(",")).into_bytes())
            }),
            ("DELETE", ["1", "assets", id]) => self.with(|release| {
                let before = release.assets.len();
                release.assets.retain(|asset| asset.id.to_string() != *id);
                (if release.assets.len() < before { 204 } else { 404 }, Vec::new())
            }),
            ("POST", ["1", "assets"]) => self.upload(query, body),
            ("GET", ["site", "kubesolo-update", "releases", "download", tag, name]) => self.with(|release| {
                let found = release.assets.iter().find(|asset| asset.name == *name && release.tag == *tag);
                found.filter(|_| !release.draft).map_or((404, Vec::new()), |asset| (200, asset.bytes.clone()))
            }),
            _ => (404, message("no such path")),
        }
    }

    fn with(&mut self, act: impl FnOnce(&mut Release) -> (u16, Vec<u8>)) -> (u16, Vec<u8>) {
        self.release.as_mut().map_or((404, message("release does not exist")), act)
    }

    fn create(&mut self, body: &[u8]) -> (u16, Vec<u8>) {
        if self.release.is_some() {
            return (409, message("Release is has no Tag"));
        }
        let fields =
            jq(&String::from_utf8_lossy(body), "[.tag_name, .draft, .prerelease] | map(tostring) | join(\" \")");
        let fields: Vec<&str> = fields.split(' ').collect();
        let release = Release {
            tag: fields[0].to_string(),
            draft: fields[1] == "true",
            prerelease: fields[2] == "true",
            assets: Vec::new(),
        };
        let answer = shown(&release);
        self.release = Some(release);
        (201, answer)
    }

    /// Gitea takes a second file of the same name, and keeps both.
    fn upload(&mut self, query: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let name = query.strip_prefix("name=").expect("no name").replace("%2B", "+");
        let boundary = body.windows(2).position(|at| at == b"\r\n").unwrap();
        let start = body.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&body[..start]).into_owned();
        assert!(head.contains("name=\"attachment\"") && head.contains(&format!("filename=\"{name}\"")), "{head}");
        // The last line is the first one and "--".
        let mut bytes = body[start..body.len() - (boundary + 6)].to_vec();
        if let Some(spoil) = self.spoil {
            spoil(&mut bytes);
        }
        self.ids += 1;
        let new = Asset { id: self.ids, name, bytes };
        let answer = asset(&new).into_bytes();
        self.with(|release| {
            release.assets.push(new);
            (201, answer)
        })
    }
}

fn shown(release: &Release) -> Vec<u8> {
    let Release { tag, draft, prerelease, .. } = release;
    format!("{{\"id\":1,\"tag_name\":\"{tag}\",\"draft\":{draft},\"prerelease\":{prerelease}}}").into_bytes()
}

/// The address leads elsewhere: the token must not follow it.
fn asset(asset: &Asset) -> String {
    let Asset { id, name, bytes } = asset;
    let size = bytes.len();
    format!("{{\"id\":{id},\"name\":\"{name}\",\"size\":{size},\"browser_download_url\":\"http://192.0.2.1/{name}\"}}")
}
