//! Whom the client certificate is shown to: real openssl servers that ask for one, and log whether it came.
//!
//! The rule is that of `Authorization`: the configured server and its mirrors, by scheme, name and port; nobody whom a
//! redirect, a document or a token realm names.

use crate::support::command;
use crate::support::disk::{need_disks, wait_for};
use crate::support::hostile::{Hostile, Reply};
use crate::support::hostile_table::{MANIFEST_TYPE, PUBLISHED};
use crate::support::machine::Machine;
use crate::support::need;
use crate::support::pull::{P256, configure, put};
use crate::support::registry::{Ca, Guard, ServerCert};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::sync::Arc;
use std::time::Duration;

const OWN: &str =
    "client_cert = /etc/kubesolo/client.pem\nclient_key = /etc/kubesolo/client.key\nretries = 0\nstall_timeout = 2";
const WAIT: Duration = Duration::from_secs(20);

/// `openssl s_server`: answers what lies in its directory, each file a whole answer, one connection after the other.
struct Server {
    dir: PathBuf,
    port: u16,
    _child: Guard,
    _said: BufReader<ChildStdout>,
}

impl Server {
    fn start(dir: &Path, certificate: &ServerCert) -> Server {
        fs::create_dir_all(dir).unwrap();
        let mut server = command("openssl");
        // Without tickets each connection shows who asks.
        server.args(["s_server", "-HTTP", "-accept", "127.0.0.1:0", "-verify", "3", "-num_tickets", "0", "-no_ticket"]);
        server.arg("-cert").arg(&certificate.certificate).arg("-key").arg(&certificate.key).current_dir(dir);
        server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(dir.join("log")).unwrap());
        let mut child = Guard(server.spawn().unwrap());
        let mut said = BufReader::new(child.0.stdout.take().unwrap());
        let address = said.by_ref().lines().find_map(|l| l.unwrap().strip_prefix("ACCEPT ").map(str::to_owned));
        let port = address.unwrap().rsplit(':').next().unwrap().parse().unwrap();
        Server { dir: dir.to_owned(), port, _child: child, _said: said }
    }

    fn put(&self, path: &str, answer: &[u8]) {
        let file = self.dir.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, answer).unwrap();
    }

    /// What was asked for so far, and whether a certificate came with it.
    fn asked(&self) -> Vec<(String, bool)> {
        let (mut shown, mut asked) = (false, Vec::new());
        for line in fs::read_to_string(self.dir.join("log")).unwrap().lines() {
            shown |= line.starts_with("depth=0");
            if let Some(path) = line.strip_prefix("FILE:") {
                asked.push((path.to_owned(), std::mem::take(&mut shown)));
            }
        }
        asked
    }
}

fn answer(status: &str, header: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.0 {status}\r\n{header}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// One server's answers: path, status, a header, body; `{a}` and `{b}` in headers and bodies are the servers' addresses,
/// `{other}` is the second one's by another name.
type Files = &'static [(&'static str, &'static str, &'static str, &'static str)];

struct Row {
    name: &'static str,
    conf: &'static str,
    a: Files,
    b: Files,
    /// Which server is looked at, what it is asked for, and whether it must see the certificate.
    at_b: bool,
    path: &'static str,
    shown: bool,
}

const HTTP: &str = "server = https://{a}";
const REGISTRY: &str = "registry = {a}/os:v1";
const TOKEN: &str = "token?scope=repository%3Aos%3Apull";
const LATEST: (&str, &str, &str, &str) = ("latest.json", "200 OK", "X: y", "{latest}");
const MANIFEST: (&str, &str, &str, &str) =
    ("v2/os/manifests/v1", "200 OK", "Content-Type: {manifest_type}", "{manifest}");
/// The challenge of a registry whose tokens come from elsewhere.
macro_rules! realm {
    ($at:literal) => {
        ("v2/os/manifests/v1", "401 X", concat!("WWW-Authenticate: Bearer realm=\"https://", $at, "/token\""), "")
    };
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "the server itself", conf: HTTP, a: &[LATEST], b: &[], at_b: false, path: "latest.json", shown: true },
    Row { name: "its name in capitals", conf: "server = https://LOCALHOST:{port_a}", a: &[LATEST], b: &[], at_b: false, path: "latest.json", shown: true },
    Row { name: "the registry itself", conf: REGISTRY, a: &[MANIFEST], b: &[], at_b: false, path: MANIFEST.0, shown: true },
    Row { name: "a mirror", conf: "server = https://127.0.0.1:1\nmirror = https://{b}", a: &[], b: &[LATEST], at_b: true, path: "latest.json", shown: true },
    Row { name: "the registry's mirror", conf: "registry = 127.0.0.1:1/os:v1\nmirror = {b}/os", a: &[], b: &[MANIFEST], at_b: true, path: MANIFEST.0, shown: true },
    Row { name: "a redirect within the server", conf: HTTP, a: &[("latest.json", "302 X", "Location: /x/y", ""), ("x/y", "200 OK", "X: y", "{latest}")], b: &[], at_b: false, path: "x/y", shown: true },
    Row { name: "a token realm on the server", conf: REGISTRY, a: &[realm!("{a}"), (TOKEN, "200 OK", "X: y", r#"{"token":"t"}"#)], b: &[], at_b: false, path: TOKEN, shown: true },
    Row { name: "a redirect to another port", conf: HTTP, a: &[("latest.json", "302 X", "Location: https://{b}/latest.json", "")], b: &[LATEST], at_b: true, path: "latest.json", shown: false },
    Row { name: "a redirect to another name", conf: HTTP, a: &[("latest.json", "307 X", "Location: https://{other}/latest.json", "")], b: &[LATEST], at_b: true, path: "latest.json", shown: false },
    Row { name: "a redirect to another name of the server", conf: HTTP, a: &[("latest.json", "301 X", "Location: https://localhost:{port_a}/again", ""), ("again", "200 OK", "X: y", "{latest}")], b: &[], at_b: false, path: "again", shown: false },
    Row { name: "a redirect there and back", conf: HTTP, a: &[("latest.json", "302 X", "Location: https://{b}/x", ""), ("back", "200 OK", "X: y", "{latest}")], b: &[("x", "302 X", "Location: https://{a}/back", "")], at_b: false, path: "back", shown: false },
    Row { name: "a token realm elsewhere", conf: REGISTRY, a: &[realm!("{b}")], b: &[(TOKEN, "200 OK", "X: y", r#"{"token":"t"}"#)], at_b: true, path: TOKEN, shown: false },
    Row { name: "a mirror redirects to nobody that is named", conf: "server = https://127.0.0.1:1\nmirror = https://{a}", a: &[("latest.json", "302 X", "Location: https://{b}/m", "")], b: &[("m", "200 OK", "X: y", "{latest}")], at_b: true, path: "m", shown: false },
];

fn put_files(server: &Server, files: Files, filled: &dyn Fn(&str) -> String) {
    for (path, status, header, body) in files {
        server.put(path, &answer(status, &filled(header), filled(body).as_bytes()));
    }
}

fn hold(row: &Row, site: &Site) {
    let [a, b] =
        ["a", "b"].map(|name| Server::start(&site.dir.path().join(format!("{}-{name}", row.name)), &site.certificate));
    let at = |server: &Server| format!("127.0.0.1:{}", server.port);
    let filled = |text: &str| {
        let places = [("{a}", at(&a)), ("{b}", at(&b)), ("{other}", format!("localhost:{}", b.port))];
        let more = [("{port_a}", a.port.to_string())];
        let texts =
            [("{latest}", &*PUBLISHED.latest), ("{manifest}", &PUBLISHED.manifest), ("{manifest_type}", MANIFEST_TYPE)];
        let texts = texts.map(|(name, text)| (name, text.to_owned()));
        let all = places.into_iter().chain(more).chain(texts);
        all.fold(text.to_owned(), |text, (name, value)| text.replace(name, &value))
    };
    put_files(&a, row.a, &filled);
    put_files(&b, row.b, &filled);
    configure(&site.machine, &format!("{}\n{OWN}\n", filled(row.conf)), Some(&site.ca));
    let run = site.machine.root.agent(&["check"]);
    let server = if row.at_b { &b } else { &a };
    let came = || server.asked().into_iter().find(|(path, _)| path == row.path);
    assert!(wait_for(WAIT, || came().is_some()), "{}: it was not asked for: {}", row.name, run.stderr);
    assert_eq!(came().unwrap().1, row.shown, "{}: {}", row.name, run.stderr);
}

/// A machine with a client certificate, and what TLS needs.
struct Site {
    machine: Machine,
    dir: tempfile::TempDir,
    ca: Ca,
    certificate: ServerCert,
}

impl Site {
    fn new() -> Site {
        need_disks();
        need("openssl");
        let (machine, dir) = (Machine::new(), tempfile::tempdir().unwrap());
        let (ca, clients) = (Ca::new(dir.path(), "ca"), Ca::new(dir.path(), "clients"));
        let certificate = ca.issue("server", "IP:127.0.0.1,DNS:localhost", &P256);
        let client = clients.issue("client", "DNS:node-7", &P256);
        put(&machine, "client.pem", fs::read(client.certificate).unwrap(), 0o644);
        put(&machine, "client.key", fs::read(client.key).unwrap(), 0o600);
        fs::copy(&ca.certificate, machine.root.path("etc/kubesolo/ca.pem")).unwrap();
        Site { machine, dir, ca, certificate }
    }
}

#[apply(test)]
fn the_client_certificate_is_for_the_configured_server_and_its_mirrors() {
    let site = Site::new();
    let fails = |row: &&Row| {
        let held = AssertUnwindSafe(|| hold(row, &site));
        catch_unwind(held).is_err()
    };
    let failed: Vec<&str> = ROWS.iter().filter(fails).map(|row| row.name).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Files that lie with somebody else. The configured server is a plain one here: s_server knows no HEAD.
#[apply(test)]
fn the_client_certificate_is_not_for_those_who_keep_the_files() {
    for (name, source) in [
        ("a file that latest.json names", "server = http://{a}"),
        ("a file that is redirected", "server = http://{a}"),
        ("a blob that is redirected", "registry = {a}/os:v1"),
    ] {
        let site = Site::new();
        let b = Server::start(&site.dir.path().join(name), &site.certificate);
        b.put("cdn", &answer("200 OK", "X: y", &PUBLISHED.kernel));
        let cdn = format!("https://127.0.0.1:{}/cdn", b.port);
        let a = Hostile::start(Arc::new(move |ask| match ask.path.as_str() {
            "/latest.json" if name.ends_with("names") => Reply::ok(PUBLISHED.latest.replace("files/vmlinuz", &cdn)),
            _ if PUBLISHED.is_kernel(ask) => Reply::redirect(&cdn),
            _ => PUBLISHED.honest(ask),
        }));
        let source = source.replace("{a}", &a.here);
        site.machine.root.configure(&format!("signature = off\nca_file = /etc/kubesolo/ca.pem\n{source}\n{OWN}\n"));
        let run = site.machine.root.agent(&["apply"]);
        run.expect(0, &["2.0.0 is staged"]);
        assert_eq!(b.asked(), [("cdn".to_owned(), false)], "{name}");
    }
}
