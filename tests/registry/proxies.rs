//! A real proxy that wants a password, tinyproxy, in a network of its own: nothing in it is loopback.
//!
//! TLS goes through it by CONNECT, plain HTTP by requests for whole URLs.

use crate::support::disk::{need_disks, wait_for};
use crate::support::machine::Machine;
use crate::support::net::Net;
use crate::support::pull::{P256, assert_secrecy, assert_staged, machine, published, put};
use crate::support::registry::{Ca, Guard, Registry, Settings};
use crate::support::root::Run;
use crate::support::{command, need_all, run};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const PASSWORD: &str = "hunter2";
const PORT: u16 = 3128;
const WAIT: Duration = Duration::from_secs(20);

fn ready() {
    let programs = ["docker-registry", "oras", "openssl", "htpasswd", "tinyproxy", "ip", "nsenter", "unshare"];
    need_disks();
    need_all(&programs);
}

/// A running proxy.
struct Proxy {
    log: PathBuf,
    _child: Guard,
}

impl Proxy {
    fn start(net: &Net, dir: &std::path::Path) -> Proxy {
        let (config, log) = (dir.join("tinyproxy.conf"), dir.join("tinyproxy.log"));
        let text = format!(
            "Port {PORT}\nListen {}\nTimeout 60\nLogFile \"{}\"\nLogLevel Info\nMaxClients 20\nBasicAuth node {PASSWORD}\n",
            net.address,
            log.display()
        );
        fs::write(&config, text).unwrap();
        fs::write(&log, "").unwrap();
        let mut serve = net.command("tinyproxy");
        serve.arg("-d").arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let proxy = Proxy { log, _child: Guard(serve.spawn().unwrap()) };
        assert!(wait_for(WAIT, || proxy.log().contains("Accepting connections")), "{}", proxy.log());
        proxy
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// How often it was asked for a server: for a tunnel, or in plain HTTP for something on it.
    fn asked_for(&self, host: &str) -> usize {
        let log = self.log();
        ["CONNECT ", "GET http://", "HEAD http://"]
            .map(|asked| log.matches(&format!("{asked}{host}")).count())
            .iter()
            .sum()
    }
}

/// Runs the agent in a network, with these variables.
fn agent(machine: &Machine, net: &Net, args: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command: Command = machine.root.command_under(net.wrapper(), args);
    command.envs(variables.iter().copied()).output().unwrap().into()
}

#[apply(test)]
fn a_proxy_with_a_password_leads_to_registries() {
    ready();
    let (dir, release, _) = published();
    let net = Net::new();
    let proxy = Proxy::start(&net, dir.path());
    let ca = Ca::new(dir.path(), "ca");
    let cert = ca.issue("server", &format!("IP:{}", net.address), &P256);
    let inside = Some(&net);
    let tls = Registry::start_with(dir.path(), &Settings { tls: Some(&cert), inside, ..Settings::default() });
    let plain = Registry::start_with(dir.path(), &Settings { inside, ..Settings::default() });
    let address = |user: &str| format!("http://{user}@{}:{PORT}", net.address);
    let (good, wrong) = (address(&format!("node:{PASSWORD}")), address("node:qwertz9"));
    let text = |registry: &Registry| format!("registry = {}/os:v1\nretries = 0\n", registry.host());
    for (registry, variable, other, ca) in
        [(&tls, "HTTPS_PROXY", "HTTP_PROXY", Some(&ca)), (&plain, "HTTP_PROXY", "HTTPS_PROXY", None)]
    {
        let rule = if ca.is_none() { "plain_http = yes\n" } else { "" };
        let machine = machine(&format!("{}{rule}", text(registry)), ca);
        let check = |variables: &[(&str, &str)]| agent(&machine, &net, &["check"], variables);
        let hidden = |run: &Run| assert_secrecy(&machine, run, &[PASSWORD, "qwertz9", "bm9kZTpodW50ZXIy"]);
        // Nobody goes through it who need not.
        check(&[]).expect(0, &["2.0.0"]);
        check(&[(other, &wrong)]).expect(0, &["2.0.0"]);
        check(&[(variable, &wrong), ("NO_PROXY", net.address)]).expect(0, &["2.0.0"]);
        check(&[(variable, &wrong), ("no_proxy", "192.0.2.0/24")]).expect(0, &["2.0.0"]);
        assert_eq!(proxy.asked_for(&registry.host()), 0, "{}", proxy.log());
        let refused = check(&[(variable, &wrong)]).expect(6, &["proxy"]);
        hidden(&refused);
        let before = proxy.asked_for(&registry.host());
        assert!(before > 0, "{}", proxy.log());
        let done = agent(&machine, &net, &["apply"], &[(variable, &good), ("NO_PROXY", "192.0.2.2,example.com")]);
        hidden(&done.expect(0, &["2.0.0 is staged"]));
        assert_staged(&machine, &release);
        assert!(proxy.asked_for(&registry.host()) > before, "{}", proxy.log());
    }
}

/// The line of docs/configuration.md that writes credentials down without Docker, for another host and to stdout.
fn write_auth(host: &str) -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).unwrap();
    let line = page.lines().find(|line| line.starts_with(r#"printf '{"auths""#)).expect("the page writes it down");
    let (printf, target) = line.split_once(" >").unwrap();
    assert!(target == "/etc/kubesolo/config.json" && printf.contains("ghcr.io"), "{line}");
    printf.replace("ghcr.io", host)
}

/// The second example of docs/registries.md, with addresses in place of names.
#[apply(test)]
fn ca_client_certificate_password_mirror_and_proxy_at_once() {
    ready();
    let (dir, release, _) = published();
    let net = Net::new();
    let proxy = Proxy::start(&net, dir.path());
    let (ca, clients) = (Ca::new(dir.path(), "ca"), Ca::new(dir.path(), "clients"));
    let cert = ca.issue("server", &format!("IP:{}", net.address), &P256);
    let client = clients.issue("client", "DNS:node-7", &P256);
    let passwords = dir.path().join("htpasswd");
    fs::write(&passwords, run(command("htpasswd").args(["-Bbn", "robot", PASSWORD]))).unwrap();
    let extra = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", passwords.display());
    let (tls, client_ca) = (Some(&cert), Some(clients.certificate.as_path()));
    let mirror = Registry::start_with(dir.path(), &Settings { tls, client_ca, extra: &extra, inside: Some(&net) });
    let text = format!(
        "registry = {}:{}/os\ntag = v1\nmirror = {}/os\nauth_file = /etc/kubesolo/config.json\n\
         client_cert = /etc/kubesolo/client.pem\nclient_key = /etc/kubesolo/client.key\n\
         retries = 3\nstall_timeout = 20\ndownload_timeout = 60\n",
        net.address,
        1, // nobody listens there
        mirror.host()
    );
    let machine = machine(&text, Some(&ca));
    put(&machine, "client.pem", fs::read(client.certificate).unwrap(), 0o644);
    put(&machine, "client.key", fs::read(client.key).unwrap(), 0o600);
    let mut write = Command::new("sh");
    write.arg("-c").arg(write_auth(&mirror.host())).env("login", format!("robot:{PASSWORD}"));
    put(&machine, "config.json", run(&mut write), 0o600);
    let through = format!("http://node:{PASSWORD}@{}:{PORT}", net.address);
    let done = agent(&machine, &net, &["apply"], &[("HTTPS_PROXY", &through)]).expect(0, &["2.0.0 is staged"]);
    assert_secrecy(&machine, &done, &[PASSWORD]);
    assert_staged(&machine, &release);
    for host in [format!("{}:1", net.address), mirror.host()] {
        assert!(proxy.asked_for(&host) > 0, "{host}: {}", proxy.log());
    }
}
