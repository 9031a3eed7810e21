//! A real docker-registry, filled by a real oras, with certificates made by a real openssl.

use super::disk::wait_for;
use super::net::Net;
use super::{command, run};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const KERNEL_TYPE: &str = "application/vnd.kubesolo.os.kernel.v1+octet-stream";
pub const INITRAMFS_TYPE: &str = "application/vnd.kubesolo.os.initramfs.v1+gzip";
pub const CHUNKS_TYPE: &str = "application/vnd.kubesolo.os.chunks.v1";
const WAIT: Duration = Duration::from_secs(20);

/// Kills a child process when the test ends, however it ends.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a server that did not start ended, if it did, and the end of its log: the directory goes with the test.
pub fn last_words(child: &mut Guard, log: &Path) -> String {
    let ended = child.0.try_wait().unwrap().map_or("it runs".into(), |status| status.to_string());
    let text = fs::read_to_string(log).unwrap_or_else(|e| e.to_string());
    let lines: Vec<&str> = text.lines().collect();
    format!("{ended}; {}", lines[lines.len().saturating_sub(20)..].join("\n"))
}

/// What a registry may be like beyond the default.
#[derive(Default)]
pub struct Settings<'a> {
    /// It speaks TLS only.
    pub tls: Option<&'a ServerCert>,
    /// It wants to see a certificate of this CA.
    pub client_ca: Option<&'a Path>,
    /// More of its configuration, as YAML: who may do what, for example.
    pub extra: &'a str,
    /// It runs in this network, on its address.
    pub inside: Option<&'a Net>,
}

/// A running registry on a port of its own.
pub struct Registry {
    pub port: u16,
    address: String,
    log: PathBuf,
    _child: Guard,
}

impl Registry {
    /// Starts one on loopback that keeps everything below `dir`; with `tls`, it speaks TLS only.
    pub fn start(dir: &Path, tls: Option<&ServerCert>) -> Registry {
        Registry::start_with(dir, &Settings { tls, ..Settings::default() })
    }

    /// Starts one. All that are started with the same `dir` serve the same.
    pub fn start_with(dir: &Path, settings: &Settings) -> Registry {
        let address = settings.inside.map_or("127.0.0.1", |net| net.address).to_string();
        // The port is free when it is chosen and may be taken when it is used: then another one.
        let mut said = String::new();
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let log = dir.join(format!("registry-{port}.log"));
            let mut child = Guard(spawn(dir, &format!("{address}:{port}"), &log, settings));
            if wait_until_ready(&mut child.0, &log) {
                return Registry { port, address, log, _child: child };
            }
            said = last_words(&mut child, &log);
        }
        panic!("docker-registry does not start: {said}");
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// Stops it, runs its own cleaning of what has no tag, and starts it anew, on another port. Input: what it was started with.
    pub fn clean(self, dir: &Path) -> Registry {
        let config = self.log.with_extension("yml");
        drop(self);
        let mut clean = command("docker-registry");
        run(clean.args(["garbage-collect", "--delete-untagged"]).arg(config).current_dir(dir));
        Registry::start(dir, None)
    }

    /// What it has logged so far: among other things one line with the path for each request.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Method, path and status of each request so far. It is logged when it has been answered, perhaps a little later.
    pub fn requests(&self) -> Vec<String> {
        // 127.0.0.1 - - [23/Nov/2026:04:00:00 +0000] "GET /v2/ HTTP/1.1" 200 2 "" "kubesolo-update/0.1.0"
        let request = |line: &str| {
            let (_, rest) = line.split_once("] \"")?;
            let (request, rest) = rest.split_once("\" ")?;
            let (target, _) = request.rsplit_once(' ')?;
            Some(format!("{target} {}", rest.split(' ').next()?))
        };
        self.log().lines().filter_map(request).collect()
    }

    /// The same, once all that was asked for before is in it. Only for a plain registry on loopback.
    pub fn settled_requests(&self, marker: &str) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET /v2/{marker} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        let path = format!("GET /v2/{marker} ");
        let is_marker = |line: &String| line.starts_with(&path);
        assert!(wait_for(WAIT, || self.requests().iter().any(is_marker)), "no {marker} in {}", self.log());
        self.requests().into_iter().take_while(|line| !is_marker(line)).collect()
    }
}

fn spawn(dir: &Path, address: &str, log: &Path, settings: &Settings) -> Child {
    let config = log.with_extension("yml");
    let storage = dir.join("storage");
    let mut tls = settings.tls.map_or(String::new(), |c| {
        format!("  tls:\n    certificate: {}\n    key: {}\n", c.certificate.display(), c.key.display())
    });
    if let Some(ca) = settings.client_ca {
        tls.push_str(&format!("    clientcas: [{}]\n", ca.display()));
    }
    let text = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
         http:\n  addr: {address}\n  secret: test\n{tls}{}",
        storage.display(),
        settings.extra
    );
    fs::write(&config, text).unwrap();
    let out = File::create(log).unwrap();
    let mut serve = settings.inside.map_or_else(|| command("docker-registry"), |net| net.command("docker-registry"));
    serve.arg("serve").arg(&config).stdin(Stdio::null()).stderr(out.try_clone().unwrap()).stdout(out);
    serve.spawn().unwrap()
}

/// Waits for its own word that it listens, since the port may be somebody else's.
fn wait_until_ready(child: &mut Child, log: &Path) -> bool {
    let listens = || fs::read_to_string(log).unwrap().contains("listening on");
    wait_for(WAIT, || listens() || child.try_wait().unwrap().is_some()) && listens()
}

/// Makes an `oras` command that touches nobody's configuration.
pub fn oras(home: &Path) -> Command {
    let mut oras = command("oras");
    oras.env("HOME", home).env("DOCKER_CONFIG", home).env_remove("HTTP_PROXY").env_remove("HTTPS_PROXY");
    oras.env_remove("http_proxy").env_remove("https_proxy").current_dir(home);
    oras
}

/// What `push` publishes for one architecture.
pub struct Files {
    pub dir: PathBuf,
    pub architecture: &'static str,
    pub kernel: Vec<u8>,
    pub initramfs: Vec<u8>,
}

impl Files {
    /// Writes a kernel and an initramfs whose bytes differ by architecture.
    pub fn new(dir: &Path, architecture: &'static str) -> Files {
        let dir = dir.join(format!("files-{architecture}"));
        fs::create_dir_all(&dir).unwrap();
        let fill =
            |seed: &str, len: usize| format!("{seed}-{architecture}\n").bytes().cycle().take(len).collect::<Vec<u8>>();
        let (kernel, initramfs) = (fill("kernel", 300_000), fill("initramfs", 70_001));
        fs::write(dir.join("vmlinuz"), &kernel).unwrap();
        fs::write(dir.join("kubesolo-os.gz"), &initramfs).unwrap();
        Files { dir, architecture, kernel, initramfs }
    }

    /// Adds to an `oras push` what publishes these files, with or without a platform in the config.
    pub fn push(&self, mut push: Command, target: &str, with_platform: bool) {
        push.current_dir(&self.dir).args(["--artifact-type", "application/vnd.kubesolo.os.update.v1"]);
        if with_platform {
            push.arg("--artifact-platform").arg(format!("linux/{}", self.architecture));
        }
        for (key, value) in [
            ("org.opencontainers.image.created", "2026-01-01T00:00:00Z"),
            ("io.kubesolo.os.version", "1.2.0"),
            ("io.kubesolo.os.channel", "stable"),
            ("io.kubesolo.os.min_compatible_version", "1.0.0"),
            ("io.kubesolo.os.release_notes", "first\nsecond"),
            ("io.kubesolo.os.architecture", self.architecture),
        ] {
            push.arg("-a").arg(format!("{key}={value}"));
        }
        push.arg(target).arg(format!("vmlinuz:{KERNEL_TYPE}")).arg(format!("kubesolo-os.gz:{INITRAMFS_TYPE}"));
        run(&mut push);
    }
}

/// A private CA.
pub struct Ca {
    dir: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A server's certificate and key.
#[derive(Clone)]
pub struct ServerCert {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Ca {
    /// Makes one below `dir`. Input: `name` tells several apart.
    pub fn new(dir: &Path, name: &str) -> Ca {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).unwrap();
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let mut req = command("openssl");
        req.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
        req.arg("-subj").arg(format!("/CN={name}")).arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        req.args(["-addext", "keyUsage=critical,keyCertSign"]);
        run(&mut req);
        Ca { dir, certificate, key }
    }

    /// Issues a certificate. Input: `san`: `IP:127.0.0.1`; `key_args`: what `openssl req -newkey` takes.
    pub fn issue(&self, name: &str, san: &str, key_args: &[&str]) -> ServerCert {
        let file = |ending: &str| self.dir.join(format!("{name}.{ending}"));
        fs::write(file("ext"), format!("subjectAltName={san}\nbasicConstraints=CA:FALSE\n")).unwrap();
        let mut req = command("openssl");
        req.args(["req", "-new", "-nodes", "-subj", "/CN=server", "-newkey"]).args(key_args);
        run(req.arg("-keyout").arg(file("key")).arg("-out").arg(file("csr")));
        let mut sign = command("openssl");
        sign.args(["x509", "-req", "-days", "30", "-CAcreateserial", "-CA"]).arg(&self.certificate);
        sign.arg("-CAkey").arg(&self.key).arg("-in").arg(file("csr")).arg("-extfile").arg(file("ext"));
        run(sign.arg("-out").arg(file("pem")));
        ServerCert { certificate: file("pem"), key: file("key") }
    }
}
