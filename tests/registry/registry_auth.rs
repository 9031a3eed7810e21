//! Registries that want to know who asks: a real docker-registry with passwords and with tokens, over TLS; credentials
//! written by a real `oras login`.

use crate::support::disk::need_disks;
use crate::support::machine::Machine;
use crate::support::pull::{AUTH_FILE, P256, assert_secrecy, assert_staged, configure, machine, publish, put};
use crate::support::registry::{Ca, Registry, ServerCert, Settings, oras};
use crate::support::relay::{Fault, Relay};
use crate::support::release::Release;
use crate::support::token_server::{self, PASSWORD, REFRESH_TOKEN, Signer, USER, basic, pairs};
use crate::support::{command, need_all, run};
use kubesolo_update::parts::base::base64;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

/// Another host than 127.0.0.1, on this machine all the same.
const OTHER_HOST: &str = "127.0.0.2";

fn ready() {
    need_disks();
    need_all(&["docker-registry", "oras", "openssl", "htpasswd"]);
}

/// A directory with a release, and what TLS needs: one certificate for both hosts.
struct Site {
    dir: tempfile::TempDir,
    release: Release,
    ca: Ca,
    cert: ServerCert,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let release = Release::new("2.0.0");
        publish(dir.path(), &release);
        let ca = Ca::new(dir.path(), "ca");
        let cert = ca.issue("server", "IP:127.0.0.1,IP:127.0.0.2", &P256);
        Site { dir, release, ca, cert }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn registry(&self, extra: &str) -> Registry {
        Registry::start_with(self.dir(), &Settings { tls: Some(&self.cert), extra, ..Settings::default() })
    }
}

/// Configuration of a registry that knows one user's password.
fn htpasswd(dir: &Path) -> String {
    let file = dir.join("htpasswd");
    fs::write(&file, run(command("htpasswd").args(["-Bbn", USER, PASSWORD]))).unwrap();
    format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
}

/// A `config.json` with one entry. Input: its fields.
fn entry(host: &str, fields: &str) -> String {
    format!(r#"{{"auths": {{"{host}": {{{fields}}}}}}}"#)
}

fn password_entry(host: &str, password: &str) -> String {
    entry(host, &format!(r#""auth": "{}""#, base64::encode(format!("{USER}:{password}").as_bytes())))
}

fn secrets() -> [String; 3] {
    let pair = basic(USER, PASSWORD);
    [PASSWORD.to_string(), pair.trim_start_matches("Basic ").to_string(), REFRESH_TOKEN.to_string()]
}

fn pulling(host: &str) -> String {
    format!("registry = {host}/os:v1\nauth_file = {AUTH_FILE}\nretries = 0\n")
}

/// Applies; holds the exit code, words, and that nothing secret is said or kept.
#[track_caller]
fn apply(machine: &Machine, code: i32, words: &[&str]) -> String {
    let done = machine.apply(&[]).expect(code, words);
    let secrets = secrets();
    assert_secrecy(machine, &done, &secrets.each_ref().map(String::as_str));
    done.stderr
}

#[apply(test)]
fn a_password_is_taken_from_where_oras_login_put_it() {
    ready();
    let site = Site::new();
    let registry = site.registry(&htpasswd(site.dir()));
    let file = site.dir().join("login.json");
    let mut login = oras(site.dir());
    login.arg("login").arg("--registry-config").arg(&file).arg("--ca-file").arg(&site.ca.certificate);
    run(login.args(["-u", USER, "-p", PASSWORD, &registry.host()]));
    let written = fs::read_to_string(&file).unwrap();
    assert!(written.contains("auths"), "{written}");

    let machine = machine(&pulling(&registry.host()), Some(&site.ca));
    for mode in [0o644, 0o604, 0o660] {
        put(&machine, "config.json", &written, mode);
        apply(&machine, 2, &["others can read or change a secret", "chmod 600", &format!("{mode:o}")]);
    }
    // Another user's, whoever may read it; and one that waits for a writer.
    let place = machine.root.path("etc/kubesolo/config.json");
    put(&machine, "config.json", &written, 0o600);
    chown(&place, Some(65534), None).unwrap();
    apply(&machine, 2, &["config.json: it belongs to user 65534", "chown root"]);
    fs::remove_file(&place).unwrap();
    run(std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&place));
    apply(&machine, 2, &["config.json: not a regular file"]);
    fs::remove_file(&place).unwrap();
    put(&machine, "config.json", password_entry(&registry.host(), "wrong"), 0o600);
    apply(&machine, 6, &["401", &registry.host()]);
    put(&machine, "config.json", password_entry("elsewhere.example", PASSWORD), 0o600);
    apply(&machine, 6, &["401", "auth_file"]);
    put(&machine, "config.json", format!(r#"{{"credHelpers": {{"{}": "pass"}}}}"#, registry.host()), 0o600);
    apply(&machine, 2, &["docker-credential-pass", &registry.host()]);
    let stored = format!(r#"{{"auths": {{"{}": {{}}}}, "credsStore": "pass"}}"#, registry.host());
    put(&machine, "config.json", stored, 0o600);
    apply(&machine, 2, &["docker-credential-pass"]);
    assert!(!registry.requests().iter().any(|line| line.ends_with(" 200") && line.contains("/os/")), "nobody got in");
    // As the kubelet lays a Secret out.
    fs::create_dir_all(machine.root.path("etc/kubesolo/secret/..1")).unwrap();
    put(&machine, "secret/..1/config.json", written, 0o400);
    fs::remove_file(&place).unwrap();
    fs::set_permissions(machine.root.path("etc/kubesolo/secret"), fs::Permissions::from_mode(0o1777)).unwrap();
    for (target, link) in [("..1", "secret/..data"), ("secret/..data/config.json", "config.json")] {
        symlink(target, machine.root.path("etc/kubesolo").join(link)).unwrap();
    }
    apply(&machine, 0, &["2.0.0 is staged"]);
    assert_staged(&machine, &site.release);
}

#[apply(test)]
fn one_token_serves_a_whole_update() {
    ready();
    let site = Site::new();
    let signer = Signer::new(site.dir(), "signer");
    let tokens = token_server::start(OTHER_HOST, Some(&site.cert), vec![signer.clone()]);
    let registry = site.registry(&signer.registry_auth(&format!("https://{}/token", tokens.host())));
    let machine = machine(&pulling(&registry.host()), Some(&site.ca));
    put(&machine, "config.json", password_entry(&registry.host(), PASSWORD), 0o600);
    apply(&machine, 0, &["2.0.0 is staged"]);
    assert_staged(&machine, &site.release);
    let seen = tokens.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].header("authorization"), Some(basic(USER, PASSWORD).as_str()));
    let query = pairs(seen[0].target.split_once('?').unwrap().1);
    assert!(query.contains(&("scope".into(), "repository:os:pull".into())), "{query:?}");
    let gets = registry.requests().iter().filter(|line| line.contains("/os/") && line.ends_with(" 401")).count();
    assert_eq!(gets, 1, "only the first request came without a token: {:?}", registry.requests());

    // The wrong password; none; and a refresh token.
    let again = Machine::new();
    configure(&again, &pulling(&registry.host()), Some(&site.ca));
    put(&again, "config.json", password_entry(&registry.host(), "wrong"), 0o600);
    let said = apply(&again, 6, &["401", "the token server 127.0.0.2", "are the credentials in auth_file right"]);
    assert!(!said.contains("service="), "a query string is shown: {said}");
    put(&again, "config.json", "{}", 0o600);
    apply(&again, 6, &["401", "set auth_file"]);
    let before = tokens.seen().len();
    put(&again, "config.json", entry(&registry.host(), &format!(r#""identitytoken": "{REFRESH_TOKEN}""#)), 0o600);
    apply(&again, 0, &["2.0.0 is staged"]);
    assert_staged(&again, &site.release);
    let seen = tokens.seen();
    assert_eq!((seen.len(), seen[before].method.as_str()), (before + 1, "POST"));
    assert_eq!(seen[before].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert!(!seen[before].target.contains("refresh") && seen[before].header("authorization").is_none());
}

#[apply(test)]
fn a_token_that_ends_in_mid_download_is_replaced_once() {
    ready();
    let site = Site::new();
    let signers = ["old", "new"].map(|name| Signer::new(site.dir(), name));
    let tokens = token_server::start(OTHER_HOST, Some(&site.cert), signers.to_vec());
    let realm = format!("https://{}/token", tokens.host());
    // Two that serve the same; the one behind the break takes no token of the old signer.
    let registries = signers.each_ref().map(|signer| site.registry(&signer.registry_auth(&realm)));
    let relay = Relay::switching(registries.each_ref().map(|r| r.port), Fault::Cut(700_000));
    let machine = machine(&pulling(&relay.host()).replace("retries = 0", "retries = 2"), Some(&site.ca));
    put(&machine, "config.json", password_entry(&relay.host(), PASSWORD), 0o600);
    apply(&machine, 0, &["2.0.0 is staged", "connection closed before the end"]);
    assert_staged(&machine, &site.release);
    assert_eq!(relay.faults(), 1);
    assert_eq!(tokens.seen().len(), 2, "one token before, one after");
    let after = registries[1].requests();
    assert_eq!(after.iter().filter(|line| line.ends_with(" 401")).count(), 1, "{after:?}");
    assert!(after.iter().any(|line| line.contains("/blobs/") && line.ends_with(" 206")), "{after:?}");
}

#[apply(test)]
fn a_password_goes_to_another_host_over_tls_only() {
    ready();
    let site = Site::new();
    let signer = Signer::new(site.dir(), "signer");
    // Registry and realm without TLS, which loopback allows.
    for (host, code, words) in
        [(OTHER_HOST, 6, ["another host, without TLS", OTHER_HOST]), ("127.0.0.1", 0, ["2.0.0", "is staged"])]
    {
        let tokens = token_server::start(host, None, vec![signer.clone()]);
        let extra = signer.registry_auth(&format!("http://{}/token", tokens.host()));
        let registry = Registry::start_with(site.dir(), &Settings { extra: &extra, ..Settings::default() });
        let machine = machine(&pulling(&registry.host()), None);
        put(&machine, "config.json", password_entry(&registry.host(), PASSWORD), 0o600);
        apply(&machine, code, &words);
        assert_eq!(tokens.seen().len(), usize::from(code == 0), "{:?}", tokens.seen());
    }
    // A registry with TLS never sends anybody to a realm without it, on whatever host.
    let tokens = token_server::start("127.0.0.1", None, vec![signer.clone()]);
    let registry = site.registry(&signer.registry_auth(&format!("http://{}/token", tokens.host())));
    let machine = machine(&pulling(&registry.host()), Some(&site.ca));
    put(&machine, "config.json", password_entry(&registry.host(), PASSWORD), 0o600);
    apply(&machine, 6, &["without TLS", "something in between answers"]);
    assert!(tokens.seen().is_empty() && registry.requests().iter().any(|line| line.ends_with(" 401")));
}
