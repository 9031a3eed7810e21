//! A real docker-registry, filled by a real oras, with certificates made by a real openssl.

use super::{command, run};
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub const KERNEL_TYPE: &str = "application/vnd.kubesolo.os.kernel.v1+octet-stream";
pub const INITRAMFS_TYPE: &str = "application/vnd.kubesolo.os.initramfs.v1+gzip";
const START_SECS: u64 = 20;

/// Kills a child process when the test ends, however it ends.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running registry on a loopback port of its own.
pub struct Registry {
    pub port: u16,
    log: PathBuf,
    _child: Guard,
}

impl Registry {
    /// Starts one that keeps everything below `dir`; with `tls`, it speaks TLS only.
    pub fn start(dir: &Path, tls: Option<&ServerCert>) -> Registry {
        // The port is free when it is chosen and may be taken when it is used: then another one.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let log = dir.join(format!("registry-{port}.log"));
            let mut child = Guard(spawn(dir, port, &log, tls));
            if wait_until_ready(&mut child.0, port, &log) {
                return Registry { port, log, _child: child };
            }
        }
        panic!("docker-registry does not start; see {}", dir.display());
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has logged so far: among other things one line with the path for each request.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

fn spawn(dir: &Path, port: u16, log: &Path, tls: Option<&ServerCert>) -> Child {
    let config = dir.join(format!("registry-{port}.yml"));
    let storage = dir.join("storage");
    let tls = tls.map_or(String::new(), |c| {
        format!("  tls:\n    certificate: {}\n    key: {}\n", c.certificate.display(), c.key.display())
    });
    let text = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
         http:\n  addr: 127.0.0.1:{port}\n  secret: test\n{tls}",
        storage.display()
    );
    fs::write(&config, text).unwrap();
    let out = File::create(log).unwrap();
    let mut serve = command("docker-registry");
    serve.arg("serve").arg(&config).stdin(Stdio::null()).stderr(out.try_clone().unwrap()).stdout(out);
    serve.spawn().unwrap()
}

fn wait_until_ready(child: &mut Child, port: u16, log: &Path) -> bool {
    let deadline = Instant::now() + Duration::from_secs(START_SECS);
    while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        // Its own word that it listens, since the port may be somebody else's.
        let listens = fs::read_to_string(log).unwrap().contains("listening on");
        if listens && TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        sleep(Duration::from_millis(20));
    }
    false
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
    key: PathBuf,
}

/// A server's certificate and key.
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
