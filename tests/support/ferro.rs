//! A real ferro-oci-server: a registry that is not docker-registry's kin, and ignores Range.

use super::command;
use super::disk::wait_for;
use super::registry::{Guard, last_words};
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(20);

/// A running one on a loopback port of its own.
pub struct Ferro {
    pub port: u16,
    _child: Guard,
}

impl Ferro {
    /// Starts one that keeps everything below `dir`.
    pub fn start(dir: &Path) -> Ferro {
        // The port is free when it is chosen and may be taken when it is used: then it ends, and another one is chosen.
        let mut said = String::new();
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let log = dir.join(format!("ferro-{port}.log"));
            let out = File::create(&log).unwrap();
            let mut serve = command("ferro-oci-server");
            serve.env("FERRO_OCI_LISTEN", format!("127.0.0.1:{port}"));
            serve.env("FERRO_OCI_STORAGE_DIR", dir.join("ferro")).current_dir(dir);
            serve.stdin(Stdio::null()).stderr(out.try_clone().unwrap()).stdout(out);
            let mut child = Guard(serve.spawn().unwrap());
            let answers = || TcpStream::connect(("127.0.0.1", port)).is_ok();
            let ready = wait_for(WAIT, || child.0.try_wait().unwrap().is_some() || answers());
            if ready && child.0.try_wait().unwrap().is_none() {
                return Ferro { port, _child: child };
            }
            said = last_words(&mut child, &log);
        }
        panic!("ferro-oci-server does not start: {said}");
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
