//! The hostile table: where a server sends us, and what it wants to know of us. A secret goes to the registry's own host
//! and nowhere else; what is refused is refused before anything is downloaded.

use crate::support::disk::need_disks;
use crate::support::hostile::{Ask, Hostile, Length, Reply, Step};
use crate::support::hostile_table::{PUBLISHED, Published, Row, TOKEN, apply, assert_listed, hold_all, row};
use crate::support::machine::{Left, Machine};
use crate::support::registry::{Ca, Guard};
use crate::support::{command, need};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;

const MIB: usize = 1 << 20;
/// One second of silence, two for everything.
const HASTY: &str = "retries = 0\nstall_timeout = 1\ndownload_timeout = 2";

fn redirect_rows() -> Vec<Row> {
    let to = |name: &str, make: fn(&Ask) -> String| row(name, move |_, a| Reply::redirect(&make(a)));
    let html = "<html><body>Please log in</body></html>";
    let login = move |_: &Published, a: &Ask| match a.path.as_str() {
        "/login" => Reply::ok(html).header("Content-Type", "text/html"),
        _ => Reply::redirect("/login"),
    };
    let mut rows = vec![
        to("redirect to itself", |a| a.path.clone()).says(&["more than 5 redirects"]).most(6),
        to("redirects, ever longer", |a| format!("{}/x", a.path)).says(&["more than 5 redirects"]).most(6),
        to("redirects to and fro between hosts", |a| {
            format!("http://{}{}", if a.is_other { &a.here } else { &a.other }, a.path)
        })
        .says(&["more than 5 redirects"])
        .most(6),
        row("10 hops", |p, a| match hop(a) {
            10 => p.honest(&Ask { path: "/v2/os/manifests/v1".into(), ..a.clone() }),
            n => Reply::redirect(&format!("/hop/{}", n + 1)),
        })
        .says(&["more than 5 redirects"])
        .most(6),
        row("5 hops: good", |p, a| match hop(a) {
            5 => p.honest(&Ask { path: "/v2/os/manifests/v1".into(), ..a.clone() }),
            _ if a.path.contains("/blobs/") => p.honest(a),
            n => Reply::redirect(&format!("/hop/{}", n + 1)),
        })
        .says(&["staged"])
        .works(9),
        row("redirect without a location", |_, _| Reply::new(302, "")).says(&["no location"]),
        to("redirect to plain HTTP on another machine", |_| "http://192.0.2.1/v1".into())
            .says(&["192.0.2.1", "plain HTTP is not allowed"]),
        to("redirect to file:", |_| "file:///etc/passwd".into()).says(&["redirect", "only http and https"]),
        to("redirect to ftp:", |_| "ftp://127.0.0.1/x".into()).says(&["redirect", "only http and https"]),
        to("redirect with user and password", |a| format!("http://a:b@{}/x", a.other)).says(&["user name or password"]),
        to("redirect to 9000 bytes", |_| format!("/{}", "x".repeat(9000))).says(&["redirect"]),
        to("redirect to no URL", |_| "http://[::1".into()).says(&["redirect"]),
        row("HTML after a redirect, manifest", login).says(&["not valid JSON"]).most(2),
        row("HTML after a redirect, latest.json", login).http().says(&["not valid JSON"]).most(2),
        row("HTML in place of the document, latest.json", move |_, _| Reply::ok(html)).http().says(&["not valid JSON"]),
    ];
    // Basic credentials are for the registry alone, wherever it sends us.
    let asks_first = |p: &Published, a: &Ask| match (&a.authorization, a.is_other) {
        (None, false) => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
        (_, false) => Reply::redirect(&format!("http://{}{}", a.other, a.path)),
        _ => p.honest(a),
    };
    rows.push(row("redirects of everything to another host, with credentials", asks_first).says(&["staged"]).works(9));
    let by_name = |p: &Published, a: &Ask| match (&a.authorization, a.path.starts_with("/elsewhere")) {
        (None, false) => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
        (_, false) => Reply::redirect(&format!("http://localhost:{}/elsewhere", a.here.rsplit(':').next().unwrap())),
        (None, true) => p.honest(&Ask { path: "/nothing".into(), ..a.clone() }),
        (Some(_), true) => Reply::new(500, "shown"),
    };
    rows.push(
        row("redirect to the same machine by another name, with credentials", by_name).network().says(&["404"]).most(3),
    );
    rows
}

/// How far along a chain of redirects a request is.
fn hop(ask: &Ask) -> usize {
    ask.path.strip_prefix("/hop/").map_or(0, |n| n.parse().unwrap())
}

/// A 401 that names a realm.
fn bearer(realm: &str) -> Reply {
    Reply::new(401, "").header("WWW-Authenticate", &format!("Bearer realm=\"{realm}\",service=\"s\""))
}

/// The registry asks for a token from a place that the ask's addresses make; elsewhere all is honest.
fn realm_row(name: &str, realm: fn(&Ask) -> String) -> Row {
    row(name, move |p, a| match (a.path.starts_with("/v2/"), &a.authorization) {
        (true, None) => bearer(&realm(a)),
        _ => p.honest(a),
    })
}

fn auth_rows() -> Vec<Row> {
    let identity = "retries = 0\nauth_file = /etc/kubesolo/identity.json";
    let open = "retries = 0\nstall_timeout = 2\nplain_http = yes";
    let token = |name: &'static str, answer: fn(&Ask) -> Reply| {
        row(name, move |_, a| match a.path.starts_with("/token") {
            true => answer(a),
            false => bearer(&format!("http://{}/token", a.here)),
        })
    };
    let mut rows = vec![
        realm_row("a token from the registry itself: good", |a| format!("http://{}/token", a.here))
            .says(&["staged"])
            .works(7),
        row("401 loop, Basic", |_, _| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""))
            .network()
            .says(&["401"])
            .most(2),
        row("401 loop, Bearer", |p, a| match a.path.starts_with("/token") {
            true => p.honest(a),
            false => bearer(&format!("http://{}/token", a.here)),
        })
        .network()
        .says(&["401"])
        .most(3),
        row("401 loop, another realm each time", |p, a| match a.path.starts_with("/token") {
            true => p.honest(a),
            false => bearer(&format!("http://{}/token/{}", a.here, a.nth)),
        })
        .network()
        .says(&["401"])
        .most(3),
        token("401 loop of the token server", |a| bearer(&format!("http://{}/token", a.here)))
            .network()
            .says(&["the token server", "401"])
            .most(2),
        row("401 without a challenge", |_, _| Reply::new(401, "")).says(&["does not say in which way"]),
        row("401 with a scheme of its own", |_, _| Reply::new(401, "").header("WWW-Authenticate", "Negotiate"))
            .says(&["Negotiate"]),
        realm_row("realm theft: another host", |a| format!("http://{}/token", a.other))
            .says(&["another host, without TLS"]),
        realm_row("realm theft: another host, identity token", |a| format!("http://{}/token", a.other))
            .conf(identity)
            .says(&["another host, without TLS"]),
        realm_row("realm theft: another name of this host", |a| {
            format!("http://localhost:{}/token", a.here.rsplit(':').next().unwrap())
        })
        .says(&["another host, without TLS"]),
        token("realm theft: the token server redirects to another host", |a| match a.is_other {
            false => Reply::redirect(&format!("http://{}{}", a.other, a.path)),
            true => Reply::new(403, ""),
        })
        .network()
        .says(&["the token server", "403"])
        .most(3),
        token("realm theft: the token server redirects what is posted", |a| {
            Reply::redirect(&format!("http://{}/token", a.other)).status(307)
        })
        .conf(identity)
        .says(&["redirects what is posted"])
        .most(2),
        realm_row("realm file:", |_| "file:///etc/shadow".into()).says(&["realm"]),
        realm_row("realm that is no URL", |_| "token".into()).says(&["realm"]),
        realm_row("realm that is empty", |_| String::new()).says(&["not by Bearer (with a realm)"]),
        token("a token answer of 5 MiB", |_| Reply::ok(vec![b' '; 5 * MIB])).says(&["longer than"]).most(2),
        token("a token without end", |_| Reply::ok("").length(Length::Absent).then_flood(&[b' '; 4096]))
            .says(&["longer than"])
            .most(2),
        token("a token with a newline", |_| Reply::ok(format!(r#"{{"token":"{TOKEN}\r\nX: y"}}"#)))
            .says(&["'token'"])
            .most(2),
        token("a token of 20 KiB", |_| Reply::ok(format!(r#"{{"token":"{}"}}"#, TOKEN.repeat(2000))))
            .says(&["'token'"])
            .most(2),
        token("a token answer that is HTML", |_| Reply::ok("<html>")).says(&["not valid JSON"]).most(2),
        token("no answer for a token", |_| Reply::raw(vec![Step::Stall]))
            .conf(HASTY)
            .network()
            .says(&["no answer"])
            .most(2),
    ];
    // What a server names is not ours to allow; and a hint is about what is set.
    let anonymous = "retries = 0\n# no auth_file";
    let twice = |_: &Published, a: &Ask, then: fn() -> Reply| match (a.path.starts_with("/token"), &a.authorization) {
        (true, _) => Reply::ok(format!(r#"{{"token":"{TOKEN}"}}"#)),
        (_, None) => bearer(&format!("http://{}/token", a.here)),
        _ => then(),
    };
    rows.extend([
        realm_row("realm over plain HTTP on another machine, nothing to show", |_| "http://192.0.2.1/token".into())
            .conf(anonymous)
            .says(&["127.0.0.1 names it", "plain HTTP is not allowed"]),
        row("latest.json names a file over plain HTTP on another machine", |p, _| {
            Reply::ok(p.latest.replace("files/", "http://192.0.2.1/files/"))
        })
        .http()
        .says(&["127.0.0.1 names it", "plain HTTP is not allowed"]),
        row("401 after a token for everybody", move |p, a| twice(p, a, || Reply::new(401, "")))
            .conf(anonymous)
            .network()
            .says(&["401", "with an entry for this host"])
            .most(3),
        row("403 after a token for everybody", move |p, a| twice(p, a, || Reply::new(403, "")))
            .conf(anonymous)
            .network()
            .says(&["403", "with an entry for this host"])
            .most(3),
        row("Bearer, then Basic", move |p, a| {
            twice(p, a, || Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""))
        })
        .network()
        .says(&["401", "it wants Basic", "are the credentials in auth_file right"])
        .most(3),
        row("403 to credentials", move |p, a| twice(p, a, || Reply::new(403, "")))
            .network()
            .says(&["403", "known there, and may not do this"])
            .most(3),
        row("403 where another server leads", |_, a| match a.is_other {
            false => Reply::redirect(&format!("http://{}/x", a.other)),
            true => Reply::new(403, ""),
        })
        .network()
        .says(&["403", "another server leads there"])
        .most(2),
    ]);
    for address in ["169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "[fe80::1]", "[fd00::1]"]
    {
        let challenge = move |_: &Published, _: &Ask| bearer(&format!("https://{address}/token"));
        rows.push(
            row(format!("realm theft: https, {address}"), challenge).conf(open).says(&["the registry is not on"]),
        );
    }
    rows
}

pub fn rows() -> Vec<Row> {
    [redirect_rows(), auth_rows()].into_iter().flatten().collect()
}

#[apply(test)]
fn hostile_redirects_and_realms() {
    need_disks();
    hold_all(rows());
}

/// The one row whose server speaks TLS: a real openssl, since the others do not.
#[apply(test)]
fn a_redirect_from_https_to_plain_http_is_not_followed() {
    need_disks();
    need("openssl");
    let machine = Machine::new();
    let ca = Ca::new(machine.disk.dir(), "ca");
    let certificate = ca.issue("server", "IP:127.0.0.1", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let plain = Hostile::start(Arc::new(|ask| PUBLISHED.honest(ask)));
    let answer = format!("HTTP/1.0 302 X\r\nContent-Length: 0\r\nLocation: http://{}/latest.json\r\n\r\n", plain.here);
    fs::write(machine.disk.dir().join("latest.json"), answer).unwrap();
    let mut server = command("openssl");
    server.args(["s_server", "-HTTP", "-accept", "127.0.0.1:0", "-cert"]).arg(&certificate.certificate);
    server.arg("-key").arg(&certificate.key).current_dir(machine.disk.dir());
    let server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut server = Guard(server.unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let address = lines.find_map(|l| l.unwrap().strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
    fs::copy(&ca.certificate, machine.root.path("etc/kubesolo/ca.pem")).unwrap();
    let source = format!("server = https://{address}\nca_file = /etc/kubesolo/ca.pem");
    machine.root.configure(&format!("signature = off\nretries = 0\n{source}\n"));
    apply(&machine).expect(6, &["from https to plain http"]);
    assert_eq!(plain.seen().len(), 0, "it was followed");
    machine.assert_unharmed("https to http", "failed", "source", Left::Untouched);
    machine.assert_recovers("https to http");
}

#[apply(test)]
fn the_table_is_listed() {
    assert_listed("hostile_redirects", &rows());
}
