//! `metrics` as a server, and clients of every sort.

use super::disk::wait_for;
use super::root::Root;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Longer than the server lets anybody take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server on a loopback port of its own; killed when dropped.
pub struct Served {
    pub child: Child,
    pub port: u16,
}

/// What came back.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Served {
    /// Starts it for a machine.
    pub fn of(root: &Root) -> Served {
        Served::start(root.command(&["metrics", "--listen", "127.0.0.1:0"]))
    }

    /// Starts it where there is nothing at all: every value is a default.
    pub fn nowhere(dir: &Path) -> Served {
        let mut agent = Command::new(Root::program());
        Served::start(std::mem::replace(
            agent.env_clear().args(["metrics", "--listen", "127.0.0.1:0", "--root"]).arg(dir),
            Command::new(""),
        ))
    }

    /// Starts it, and waits until it says where it listens.
    pub fn start(mut command: Command) -> Served {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, first) = channel();
        // What it says later goes where the test's own words go.
        thread::spawn(move || {
            let mut said = String::new();
            let _ = stderr.read_line(&mut said);
            let _ = send.send(said);
            stderr.lines().map_while(Result::ok).for_each(|line| eprintln!("{line}"));
        });
        let said = first.recv_timeout(PATIENCE);
        if said.is_err() {
            let _ = child.kill();
        }
        let said = said.expect("it never said where it listens");
        let place = said.split("http://127.0.0.1:").nth(1).and_then(|rest| rest.split('/').next());
        let port = place.unwrap_or_else(|| panic!("no address: {said}")).parse().unwrap();
        Served { child, port }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes and reads the answer to its end.
    #[track_caller]
    pub fn send(&self, request: &[u8]) -> Got {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        read_answer(&mut stream)
    }

    #[track_caller]
    pub fn fetch(&self, path: &str) -> Got {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())
    }

    /// The metrics. Panics: they do not come, or not whole.
    #[track_caller]
    pub fn scrape(&self) -> String {
        let got = self.fetch("/metrics");
        assert_eq!(got.status, 200, "{got:?}");
        assert!(got.body.contains("kubesolo_boot_time_seconds"), "{got:?}");
        got.body
    }

    /// A field of `/proc/PID/status`, in kB or as a number.
    pub fn proc_status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    }

    /// How many descriptors it has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    pub fn mounts(&self) -> String {
        fs::read_to_string(format!("/proc/{}/mountinfo", self.child.id())).unwrap()
    }

    /// Waits until no more connections are open than these.
    #[track_caller]
    pub fn wait_for_files(&self, most: usize) {
        assert!(wait_for(PATIENCE, || self.open_files() <= most), "{} files stay open", self.open_files());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads one answer until the server closes, and holds its length against what it announces.
#[track_caller]
pub fn read_answer(stream: &mut TcpStream) -> Got {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap_or_else(|e| panic!("{e} after {} bytes", bytes.len()));
    let _ = stream.shutdown(Shutdown::Both);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{head}"))[..3].parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    if !body.is_empty() {
        assert_eq!(body.len(), length.parse::<usize>().unwrap(), "{head}");
    }
    Got { status, head: head.into(), body: body.into() }
}
