//! Pulling from real registries, by the program itself: what real tools have pushed; broken connections; mirrors; blobs
//! on another server; polling; client certificates.

use crate::support::disk::{need_disks, wait_for};
use crate::support::ferro::Ferro;
use crate::support::listener::Listener;
use crate::support::machine::Machine;
use crate::support::pull::{AUTH_FILE, P256, assert_staged, configure, machine, published, put};
use crate::support::registry::{Ca, Registry, Settings};
use crate::support::relay::{Fault, Relay};
use crate::support::release::{Medium, Release, Target, sha256};
use crate::support::web::Answer;
use crate::support::{self, command, need_all, run};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);

fn ready(more: &[&str]) {
    need_disks();
    need_all(&["docker-registry", "oras"]);
    need_all(more);
}

/// A port that refuses connections.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Copies a layout with all its architectures; skopeo 1.9 writes the index anew, and the manifests as they are. Input: where to, as skopeo names it.
fn skopeo_copy(dir: &Path, medium: &Medium, to: &str) {
    let mut copy = command("skopeo");
    copy.args(["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"]);
    copy.arg(format!("oci:{}:latest", medium.path())).arg(to).current_dir(dir).env("HOME", dir);
    run(&mut copy);
}

/// The digest that `apply` installed.
fn digest_of(run: &support::root::Run) -> String {
    run.jq(".manifest_digest")
}

#[apply(test)]
fn what_oras_and_skopeo_have_pushed_is_pulled() {
    ready(&["skopeo", "ferro-oci-server"]);
    let dir = tempfile::tempdir().unwrap();
    let release = Release::new("2.0.0");
    let medium = Medium::new(dir.path(), &release);
    let (docker, ferro) = (Registry::start(dir.path(), None), Ferro::start(dir.path()));
    for host in [docker.host(), ferro.host()] {
        let by_oras = release.publish(dir.path(), Target::Registry, &format!("{host}/oras/os"), "v1");
        assert_eq!(by_oras, medium.digest);
        skopeo_copy(dir.path(), &medium, &format!("docker://{host}/skopeo/os:v1"));
        for name in ["oras", "skopeo"] {
            let machine = machine(&format!("registry = {host}/{name}/os:v1\nretries = 0\n"), None);
            let done = machine.apply(&["--json"]).expect(0, &["staged"]);
            assert_eq!(digest_of(&done), medium.digest, "{name} at {host}");
            assert_staged(&machine, &release);
        }
    }
}

#[apply(test)]
fn a_broken_download_goes_on_whether_ranges_are_known_or_not() {
    ready(&["ferro-oci-server"]);
    let (dir, release, _) = published();
    let (docker, ferro) = (Registry::start(dir.path(), None), Ferro::start(dir.path()));
    release.publish(dir.path(), Target::Registry, &format!("{}/os", ferro.host()), "v1");
    // What a client without wishes gets for a range.
    for (port, status) in [(docker.port, "206"), (ferro.port, "200")] {
        let blob = format!("http://127.0.0.1:{port}/v2/os/blobs/sha256:{}", sha256(&release.ours().kernel));
        let said = run(command("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-r", "1000-", &blob]));
        assert_eq!(said, status);
        let relay = Relay::start(port, Fault::Cut(700_000));
        let machine = machine(&format!("registry = {}/os:v1\nretries = 2\n", relay.host()), None);
        machine.apply(&[]).expect(0, &["2.0.0 is staged", "connection closed before the end"]);
        assert_staged(&machine, &release);
        assert_eq!(relay.faults(), 1);
        assert!(relay.asked().contains("\r\nrange: bytes="), "{}", relay.asked());
    }
}

#[apply(test)]
fn a_killed_download_goes_on_in_the_next_run() {
    ready(&[]);
    let (dir, release, _) = published();
    let registry = Registry::start(dir.path(), None);
    let relay = Relay::start(registry.port, Fault::Hold(1_000_000));
    let machine = machine(&format!("registry = {}/os:v1\nretries = 0\n", relay.host()), None);
    let mut agent = machine.root.command(&["apply"]);
    let mut child = agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    relay.wait();
    let written = || {
        let io = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
        io.lines().find_map(|l| l.strip_prefix("wchar: ")?.parse::<u64>().ok()).unwrap()
    };
    assert!(wait_for(WAIT, || written() > 500_000), "nothing is written");
    assert!(!relay.asked().contains("\r\nrange:"));
    child.kill().unwrap();
    child.wait().unwrap();
    machine.disk.wait_unmounted(support::disk::B);
    machine.apply(&[]).expect(0, &["2.0.0 is staged", "vmlinuz: continuing after"]);
    assert_staged(&machine, &release);
    let asked = relay.asked();
    let (_, range) = asked.split_once("\r\nrange: bytes=").expect("a part is asked for");
    let from: u64 = range.split_once('-').unwrap().0.parse().unwrap();
    assert!((400_000..1_000_000).contains(&from), "{from}");
    let requests = registry.settled_requests("end");
    assert_eq!(requests.iter().filter(|line| line.ends_with(" 206")).count(), 1, "{requests:?}");
}

#[apply(test)]
fn a_mirror_stands_in_for_a_registry_that_is_down() {
    ready(&[]);
    let (dir, release, digest) = published();
    let (registry, down) = (Registry::start(dir.path(), None), closed_port());
    let machine =
        machine(&format!("registry = 127.0.0.1:{down}/os:v1\nmirror = {}\nretries = 1\n", registry.host()), None);
    let done = machine.apply(&["--json"]).expect(0, &["refused", "; trying 127.0.0.1"]);
    assert_eq!(digest_of(&done), digest);
    assert_staged(&machine, &release);
    // The mirror is down, and the registry is not; then both are.
    let text = format!("registry = {}/os:v1\nmirror = 127.0.0.1:{down}\nretries = 0\n", registry.host());
    configure(&machine, &text, None);
    machine.root.agent(&["check"]).expect(3, &["2.0.0", "staged in slot B"]);
    let text =
        format!("registry = 127.0.0.1:{down}/os:v1\nmirror = 127.0.0.1:{}/else/where\nretries = 0\n", closed_port());
    configure(&machine, &text, None);
    machine.root.agent(&["check"]).expect(6, &[&format!("127.0.0.1:{down}")]);
    configure(&machine, &text.replace("else/where", "os:v2"), None);
    machine.root.agent(&["check"]).expect(2, &["line 3", "without tag and digest"]);
}

#[apply(test)]
fn a_mirror_is_asked_where_nothing_is_tried_twice() {
    ready(&[]);
    let (dir, release, _) = published();
    let registry = Registry::start(dir.path(), None);
    let text = format!("registry = 127.0.0.1:{}/os:v1\nmirror = {}\nretries = 0\n", closed_port(), registry.host());
    let machine = machine(&text, None);
    machine.apply(&[]).expect(0, &["refused", "2.0.0 is staged"]);
    assert_staged(&machine, &release);
}

#[apply(test)]
fn blobs_on_another_server_are_fetched_without_credentials() {
    ready(&["htpasswd"]);
    let (dir, release, _) = published();
    let storage = dir.path().join("storage");
    let files = Listener::start("127.0.0.1", None, move |request| {
        match fs::read(format!("{}{}", storage.display(), request.target)) {
            Ok(bytes) => Answer::ok(bytes),
            Err(_) => Answer::status(404),
        }
    });
    let passwords = dir.path().join("htpasswd");
    fs::write(&passwords, run(command("htpasswd").args(["-Bbn", "user", "secret"]))).unwrap();
    let extra = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\nmiddleware:\n  storage:\n    - name: redirect\n      options:\n        baseurl: http://{}/\n",
        passwords.display(),
        files.host()
    );
    let registry = Registry::start_with(dir.path(), &Settings { extra: &extra, ..Settings::default() });
    let machine =
        machine(&format!("registry = {}/os:v1\nauth_file = {AUTH_FILE}\nretries = 0\n", registry.host()), None);
    // user:secret
    let auth = format!(r#"{{"auths": {{"{}": {{"auth": "dXNlcjpzZWNyZXQ="}}}}}}"#, registry.host());
    put(&machine, "config.json", auth, 0o600);
    machine.apply(&[]).expect(0, &["2.0.0 is staged"]);
    assert_staged(&machine, &release);
    let requests = registry.settled_requests("end");
    let is_sent_away = |line: &&String| line.contains("/blobs/") && line.ends_with(" 307");
    assert!(requests.iter().filter(is_sent_away).count() >= 2, "nothing was redirected: {requests:?}");
    let seen = files.seen();
    assert!(seen.iter().filter(|request| request.method == "GET").count() >= 2, "{seen:?}");
    assert!(seen.iter().all(|request| request.header("authorization").is_none()), "{seen:?}");
}

#[apply(test)]
fn asking_again_costs_one_small_request() {
    ready(&[]);
    let (dir, ..) = published();
    let registry = Registry::start(dir.path(), None);
    let machine = machine(&format!("registry = {}/os:v1\nretries = 0\n", registry.host()), None);
    let asked = |marker: &str| registry.settled_requests(marker).len();
    machine.apply(&[]).expect(0, &["2.0.0 is staged"]);
    let before = asked("before");
    machine.root.agent(&["check", "--splay", "0"]).expect(3, &["2.0.0", "staged in slot B"]);
    machine.root.agent(&["apply", "--splay", "1"]).expect(3, &["staged in slot B already"]);
    let requests = registry.settled_requests("again");
    assert_eq!(requests[before + 1..], ["HEAD /v2/os/manifests/v1 200", "HEAD /v2/os/manifests/v1 200"]);
    // The tag moves.
    Release::new("2.1.0").publish(dir.path(), Target::Registry, &format!("{}/os", registry.host()), "v1");
    machine.root.agent(&["check"]).expect(0, &["2.1.0"]);
    machine.root.agent(&["check", "--splay", "soon"]).expect(2, &["splay"]);
}

#[apply(test)]
fn asking_again_with_an_etag_costs_one_small_request() {
    need_disks();
    let release = Release::new("2.0.0");
    let (served, document) = (release.clone(), release.latest_json());
    let server = Listener::start("127.0.0.1", None, move |request| match request.target.as_str() {
        "/latest.json" if request.header("if-none-match") == Some("\"one\"") => Answer::status(304),
        "/latest.json" => Answer::ok(document.clone()).header("ETag", "\"one\""),
        path => served.file(path).map_or(Answer::status(404), Answer::ok),
    });
    let machine = machine(&format!("server = http://{}/\nretries = 0\n", server.host()), None);
    machine.apply(&[]).expect(0, &["2.0.0 is staged"]);
    let before = server.seen().len();
    machine.root.agent(&["check"]).expect(3, &["2.0.0", "staged in slot B"]);
    let seen = server.seen();
    assert_eq!(seen.len(), before + 1, "{:?}", &seen[before..]);
    assert_eq!(seen[before].header("if-none-match"), Some("\"one\""));
}

#[apply(test)]
fn a_registry_that_wants_a_certificate_gets_one() {
    ready(&["openssl"]);
    let (dir, release, _) = published();
    let (ca, clients) = (Ca::new(dir.path(), "ca"), Ca::new(dir.path(), "clients"));
    let cert = ca.issue("server", "IP:127.0.0.1", &P256);
    let settings = Settings { tls: Some(&cert), client_ca: Some(&clients.certificate), ..Settings::default() };
    let registry = Registry::start_with(dir.path(), &settings);
    let anonymous = format!("registry = {}/os:v1\nretries = 0\n", registry.host());
    let text = format!("{anonymous}client_cert = /etc/kubesolo/client.pem\nclient_key = /etc/kubesolo/client.key\n");
    let machine = machine(&anonymous, Some(&ca));
    let show = |ca: &Ca, name: &str, key_args: &[&str]| {
        let client = ca.issue(name, "DNS:node-7", key_args);
        put(&machine, "client.pem", fs::read(client.certificate).unwrap(), 0o644);
        put(&machine, "client.key", fs::read(client.key).unwrap(), 0o600);
    };
    machine.apply(&[]).expect(6, &["client certificate"]);
    configure(&machine, &text, Some(&ca));
    // Of another CA.
    show(&ca, "stranger", &P256);
    machine.apply(&[]).expect(6, &["client certificate"]);
    for (name, key_args) in [("p256", &P256[..]), ("rsa", &["rsa:2048"])] {
        show(&clients, name, key_args);
        machine.root.agent(&["check"]).expect(0, &["2.0.0"]);
    }
    machine.apply(&[]).expect(0, &["2.0.0 is staged"]);
    assert_staged(&machine, &release);
    put(&machine, "client.key", fs::read(dir.path().join("clients/p256.key")).unwrap(), 0o600);
    machine.apply(&[]).expect(2, &["client.key", "does not belong to"]);
    put(&machine, "client.key", fs::read(dir.path().join("clients/rsa.key")).unwrap(), 0o644);
    machine.apply(&[]).expect(2, &["client.key", "chmod 600"]);
    put(&machine, "client.key", fs::read(dir.path().join("clients/rsa.key")).unwrap(), 0o600);
    std::os::unix::fs::chown(machine.root.path("etc/kubesolo/client.key"), Some(65534), None).unwrap();
    machine.apply(&[]).expect(2, &["client.key: it belongs to user 65534", "chown root"]);
}

#[apply(test)]
fn layouts_in_one_file_as_skopeo_and_tar_write_them() {
    ready(&["skopeo"]);
    let dir = tempfile::tempdir().unwrap();
    let release = Release::new("2.0.0");
    let medium = Medium::new(dir.path(), &release);
    let (archive, tarred) = (dir.path().join("skopeo.tar"), dir.path().join("oras.tar"));
    skopeo_copy(dir.path(), &medium, &format!("oci-archive:{}:latest", archive.display()));
    run(Command::new("tar").arg("-cf").arg(&tarred).arg("-C").arg(medium.path()).arg("."));
    for tar in [archive, tarred] {
        run(Command::new("gzip").arg("-k").arg(&tar));
        let gzipped = format!("{}.gz", tar.display());
        for path in [tar.to_str().unwrap(), &gzipped] {
            let machine = Machine::new();
            let done = machine.apply(&["--json", "--layout", path]).expect(0, &["staged"]);
            assert_eq!(digest_of(&done), medium.digest, "{path}");
            assert_staged(&machine, &release);
        }
    }
}
