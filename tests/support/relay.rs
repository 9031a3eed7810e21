//! A relay before a server: it sees what is asked, and breaks one connection at a byte of the test's choice.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What happens to the first connection that has brought so many bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both ends are closed.
    Cut(usize),
    /// No more bytes: the test is told, and the client goes.
    Hold(usize),
}

struct Shared {
    /// Before the fault, and after it.
    targets: [u16; 2],
    fault: Fault,
    faults: AtomicUsize,
    asked: Mutex<Vec<u8>>,
    told: Mutex<Sender<()>>,
    stopping: AtomicBool,
}

/// A running relay on a loopback port of its own; stops when dropped.
pub struct Relay {
    pub port: u16,
    shared: Arc<Shared>,
    held: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts one before a port of this machine.
    pub fn start(target: u16, fault: Fault) -> Relay {
        Relay::switching([target, target], fault)
    }

    /// Starts one that leads to the second port once the fault has happened.
    pub fn switching(targets: [u16; 2], fault: Fault) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, held) = channel();
        let shared = Arc::new(Shared {
            targets,
            fault,
            faults: AtomicUsize::new(0),
            asked: Mutex::new(Vec::new()),
            told: Mutex::new(told),
            stopping: AtomicBool::new(false),
        });
        let state = shared.clone();
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if state.stopping.load(Ordering::SeqCst) {
                    return;
                }
                connect(client.unwrap(), &state);
            }
        });
        Relay { port, shared, held, thread: Some(thread) }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How often the fault has happened: once, or not yet.
    pub fn faults(&self) -> usize {
        self.shared.faults.load(Ordering::SeqCst)
    }

    /// Waits until the fault has happened.
    pub fn wait(&self) {
        self.held.recv_timeout(Duration::from_secs(60)).expect("so many bytes never came");
    }

    /// All that clients have sent, in lower case. With TLS it cannot be read.
    pub fn asked(&self) -> String {
        String::from_utf8_lossy(&self.shared.asked.lock().unwrap()).to_lowercase()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn connect(client: TcpStream, shared: &Arc<Shared>) {
    let target = shared.targets[shared.faults.load(Ordering::SeqCst)];
    // Without a server the client is closed on, as by a host that is down.
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
    let (up, down) = (shared.clone(), shared.clone());
    let ends = [(&client, &server)].map(|(c, s)| [c.try_clone().unwrap(), s.try_clone().unwrap()]);
    let [[mut from, mut to]] = ends;
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(n) = from.read(&mut buffer) {
            up.asked.lock().unwrap().extend(&buffer[..n]);
            if n == 0 || to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        close(&from, &to);
    });
    thread::spawn(move || bring(server, client, &down));
}

/// Brings the server's bytes to the client, up to the fault or to the end.
fn bring(mut server: TcpStream, mut client: TcpStream, shared: &Shared) {
    let (Fault::Cut(limit) | Fault::Hold(limit)) = shared.fault;
    let (mut buffer, mut brought) = ([0; 16 << 10], 0);
    while let Ok(n) = server.read(&mut buffer) {
        let is_due =
            brought + n >= limit && shared.faults.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let n = if is_due { limit - brought } else { n };
        if n == 0 || client.write_all(&buffer[..n]).is_err() {
            break;
        }
        brought += n;
        if is_due {
            let _ = shared.told.lock().unwrap().send(());
            if matches!(shared.fault, Fault::Hold(_)) {
                // What ends it is the client's going, which the other thread sees.
                return;
            }
            break;
        }
    }
    close(&server, &client);
}

fn close(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}
