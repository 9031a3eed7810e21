//! `latest.json` and `latest.json.sig`: two documents under names that move, from a server, through a cache, from a mirror.

use crate::support::disk::need_disks;
use crate::support::listener::{Listener, Request};
use crate::support::machine::Machine;
use crate::support::need;
use crate::support::pull::{machine, put};
use crate::support::registry::Registry;
use crate::support::release::{Release, Target};
use crate::support::root::Run;
use crate::support::signed::{release, small};
use crate::support::signing::{KeyPair, base64};
use crate::support::web::Answer;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// Two releases as a publisher signs them, and a machine that trusts the key.
struct Site {
    dir: TempDir,
    machine: Machine,
    key: KeyPair,
}

impl Site {
    fn new() -> Site {
        need_disks();
        need("openssl");
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::p256(dir.path(), "key");
        let machine = Machine::new();
        std::fs::create_dir_all(machine.root.path("etc/kubesolo/update-keys.d")).unwrap();
        put(&machine, "update-keys.d/key.pub", key.pem(), 0o644);
        Site { dir, machine, key }
    }

    /// The document of a version, and its signature.
    fn signed(&self, version: &str) -> [String; 2] {
        let document = Release { version: version.into(), ..small(&release()) }.latest_json();
        let signature = base64(&self.key.sign(document.as_bytes()));
        [document, signature]
    }

    #[track_caller]
    fn check(&self, server: &Listener, code: i32, words: &[&str]) -> Run {
        self.check_at(server, "?sas=1", code, words)
    }

    #[track_caller]
    fn check_at(&self, server: &Listener, query: &str, code: i32, words: &[&str]) -> Run {
        self.machine.root.configure(&format!("server = http://{}/{query}\nretries = 0\n", server.host()));
        self.machine.root.agent(&["check"]).expect(code, words)
    }
}

fn path(request: &Request) -> &str {
    request.target.split('?').next().unwrap()
}

const ANOTHER: &str = "or the signature is of another latest.json (a cache?)";

#[apply(test)]
fn a_signature_of_another_age_is_asked_for_once_more() {
    let site = Site::new();
    let (old, new) = (site.signed("1.5.0"), site.signed("2.0.0"));
    // What of the two is old, and how often it is sent before the new one comes; None: for ever.
    for (stale, times, works) in [
        ("/latest.json.sig", Some(1), true),
        ("/latest.json", Some(1), true),
        ("/latest.json.sig", Some(2), false),
        ("/latest.json.sig", None, false),
        ("/latest.json", None, false),
    ] {
        let (old, new, sent) = (old.clone(), new.clone(), AtomicUsize::new(0));
        let server = Listener::start("127.0.0.1", None, move |request| {
            let is_old =
                path(request) == stale && times.is_none_or(|times| sent.fetch_add(1, Ordering::SeqCst) < times);
            let [document, signature] = if is_old { &old } else { &new };
            match path(request) {
                "/latest.json" => Answer::ok(document.as_str()),
                "/latest.json.sig" => Answer::ok(signature.as_str()),
                _ => Answer::status(404),
            }
        });
        match works {
            true => site.check(&server, 0, &["2.0.0"]),
            false => site.check(&server, 5, &["none is by an installed key: sha256:", "(key.pub)", ANOTHER]),
        };
        let seen = server.seen();
        let asked: Vec<&str> = seen.iter().map(|request| request.target.as_str()).collect();
        let pair = ["/latest.json?sas=1", "/latest.json.sig?sas=1"];
        assert_eq!(asked, [pair, pair].concat(), "{stale} {times:?}");
        assert!(seen.iter().all(|request| request.header("cache-control") == Some("no-cache")), "{seen:?}");
    }
}

/// A server that is overloaded for a moment does not make what it then sends a matter of the network: what is wrong with
/// that is told, and decides the exit code. A line more is a case more.
#[apply(test)]
fn trouble_that_passes_hides_nothing() {
    let site = Site::new();
    let [document, signature] = site.signed("2.0.0");
    let forged = base64(&KeyPair::p256(site.dir.path(), "stranger").sign(document.as_bytes()));
    let nothing = "{}".to_owned();
    let unsigned = base64(&site.key.sign(nothing.as_bytes()));
    // What is sent; how many 503 come before it, None: nothing else ever, and a mirror sends it.
    for (document, signature, before, code, words) in [
        (&document, &signature, Some(1), 0, "2.0.0"),
        (&document, &forged, Some(0), 5, "none is by an installed key"),
        (&document, &forged, Some(1), 5, "none is by an installed key"),
        (&document, &forged, Some(2), 5, "none is by an installed key"),
        (&document, &forged, None, 5, "none is by an installed key"),
        (&nothing, &unsigned, Some(1), 6, "is missing"),
        (&nothing, &unsigned, None, 6, "is missing"),
    ] {
        let sent = AtomicUsize::new(0);
        let honest = [document.clone(), signature.clone()];
        let answer = move |request: &Request| match path(request) {
            "/latest.json" => Answer::ok(honest[0].as_str()),
            "/latest.json.sig" => Answer::ok(honest[1].as_str()),
            _ => Answer::status(404),
        };
        let mirror = Listener::start("127.0.0.1", None, answer.clone());
        let first = Listener::start("127.0.0.1", None, move |request| {
            match before.is_some_and(|before| sent.fetch_add(1, Ordering::SeqCst) >= before) {
                true => answer(request),
                false => Answer::status(503),
            }
        });
        let more = if before.is_none() { format!("mirror = http://{}/\n", mirror.host()) } else { String::new() };
        site.machine.root.configure(&format!("server = http://{}/\n{more}retries = 2\n", first.host()));
        let run = site.machine.root.agent(&["check"]);
        // The last line is the reason; what passed is said before it.
        let last = if code == 0 { &run.stdout } else { run.stderr.lines().last().unwrap() };
        assert!(run.code == code && last.contains(words), "{before:?}, {words}: {run:?}");
    }
}

/// One place of two fails, and the other one answers. Cron hears of what may be an attack, and of no network's troubles.
#[apply(test)]
fn cron_hears_of_a_signature_that_does_not_verify_although_a_mirror_answers() {
    let site = Site::new();
    let [document, signature] = site.signed("2.0.0");
    let [another, its_own] = site.signed("2.1.0");
    let forged = base64(&KeyPair::p256(site.dir.path(), "stranger").sign(document.as_bytes()));
    let told = "no signature of it counts";
    // What the bad place sends as the document and its signature, empty: 404; whether the good place comes first, with two 503; what
    // is heard, empty: nothing.
    for (document_of, signature_of, is_bad_last, heard) in [
        (document.as_str(), forged.as_str(), false, told),
        (document.as_str(), forged.as_str(), true, told),
        (document.as_str(), its_own.as_str(), false, told),
        (another.as_str(), signature.as_str(), true, told),
        (document.as_str(), "", false, "it is not signed"),
        (document.as_str(), "bm90IG9uZQ==", false, told),
        (r#"{"version":"6.6.6"}"#, signature.as_str(), false, told),
        ("<html>maintenance</html>", "<html>maintenance</html>", false, told),
        // It has nothing at all, and is asked for the signature as well: that is not where it was said to be.
        ("", "", false, "it is not signed"),
        // The network's.
        ("", signature.as_str(), true, ""),
        ("", signature.as_str(), false, ""),
    ] {
        let bad = [document_of.to_owned(), signature_of.to_owned()];
        let sent = |text: &str| if text.is_empty() { Answer::status(404) } else { Answer::ok(text) };
        let bad = Listener::start("127.0.0.1", None, move |request| match path(request) {
            "/latest.json" => sent(&bad[0]),
            "/latest.json.sig" => sent(&bad[1]),
            _ => Answer::status(404),
        });
        let good = [document.clone(), signature.clone()];
        let asked = AtomicUsize::new(0);
        let good = Listener::start("127.0.0.1", None, move |request| match path(request) {
            _ if is_bad_last && asked.fetch_add(1, Ordering::SeqCst) < 2 => Answer::status(503),
            "/latest.json" => Answer::ok(good[0].as_str()),
            "/latest.json.sig" => Answer::ok(good[1].as_str()),
            _ => Answer::status(404),
        });
        let places = if is_bad_last { [good.host(), bad.host()] } else { [bad.host(), good.host()] };
        let conf = format!("server = http://{}/\nmirror = http://{}/\nretries = 2\n", places[0], places[1]);
        site.machine.root.configure(&conf);
        let run = site.machine.root.agent(&["check", "--quiet"]).expect(0, &["2.0.0"]);
        match heard.is_empty() {
            true => assert_eq!(run.stderr, "", "{document_of}, {signature_of}, {is_bad_last}"),
            false => {
                let is_named = run.stderr.contains(heard) && run.stderr.contains(bad.host());
                assert!(is_named, "{document_of}, {signature_of}, {is_bad_last}: {run:?}");
            }
        }
    }
}

/// A document from one place and its signature from another: what does not verify is not blamed on the place of the document.
#[apply(test)]
fn a_mirrors_signature_is_the_mirrors() {
    let site = Site::new();
    let [document, _] = site.signed("2.0.0");
    let forged = base64(&KeyPair::p256(site.dir.path(), "stranger").sign(document.as_bytes()));
    let first = Listener::start("127.0.0.1", None, move |request| match path(request) {
        "/latest.json" => Answer::ok(document.as_str()),
        _ => Answer::status(503),
    });
    let mirror = Listener::start("127.0.0.1", None, move |request| match path(request) {
        "/latest.json.sig" => Answer::ok(forged.as_str()),
        _ => Answer::status(404),
    });
    let conf = format!("server = http://{}/\nmirror = http://{}/\nretries = 0\n", first.host(), mirror.host());
    site.machine.root.configure(&conf);
    let run = site.machine.root.agent(&["check"]).expect(5, &["none is by an installed key"]);
    let last = run.stderr.lines().last().unwrap();
    assert!(
        last.contains(&format!("http://{}/latest.json.sig", mirror.host())) && !last.contains(first.host()),
        "{last}"
    );
    assert!(run.stderr.contains(&format!("trying {}", mirror.host())), "{run:?}");
}

/// Caches that do not ask the server because a client says so, as RFC 9111 lets them, and that say how old their copy is.
#[apply(test)]
fn a_cache_that_keeps_what_is_old_is_asked_by_another_name() {
    let site = Site::new();
    let (old, new) = (site.signed("1.5.0"), site.signed("2.0.0"));
    for (stale, age) in [("/latest.json.sig", "0"), ("/latest.json", "86400")] {
        let (old, new) = (old.clone(), new.clone());
        let server = Listener::start("127.0.0.1", None, move |request| {
            let is_known = request.target.ends_with("?sas=1");
            let [document, signature] = if path(request) == stale && is_known { &old } else { &new };
            let answer = match path(request) {
                "/latest.json" => Answer::ok(document.as_str()),
                "/latest.json.sig" => Answer::ok(signature.as_str()),
                _ => Answer::status(404),
            };
            if is_known && path(request) == stale { answer.header("Age", age) } else { answer }
        });
        site.check(&server, 0, &["2.0.0"]);
        let seen = server.seen();
        assert_eq!(seen.len(), 4, "{seen:?}");
        let names: Vec<&str> =
            seen[2..].iter().map(|request| request.target.split_once("?sas=1&fresh=").unwrap().1).collect();
        assert!(names[0] == names[1] && names[0].parse::<u64>().is_ok(), "{seen:?}");
        // No two runs go by one name.
        site.check(&server, 0, &["2.0.0"]);
        assert!(!server.seen()[4..].iter().any(|request| request.target.ends_with(names[0])), "{:?}", server.seen());
    }
}

/// Caches that do neither: they answer from what they have, and do not say so.
#[apply(test)]
fn a_cache_that_does_not_say_what_it_is_is_asked_by_another_name() {
    let site = Site::new();
    let (old, new) = (site.signed("1.5.0"), site.signed("2.0.0"));
    for (stale, header) in [
        ("/latest.json.sig", ("X-Cache-Status", "HIT")),
        ("/latest.json.sig", ("Via", "1.1 proxy")),
        ("/latest.json", ("X-Cache", "HIT from proxy")),
        ("/latest.json", ("Date", "Thu, 01 Jan 2026 00:00:00 GMT")),
    ] {
        let (old, new) = (old.clone(), new.clone());
        let server = Listener::start("127.0.0.1", None, move |request| {
            let [document, signature] = if request.target == stale { &old } else { &new };
            match path(request) {
                "/latest.json" => Answer::ok(document.as_str()).header(header.0, header.1),
                "/latest.json.sig" => Answer::ok(signature.as_str()).header(header.0, header.1),
                _ => Answer::status(404),
            }
        });
        site.check_at(&server, "", 0, &["2.0.0"]);
        let seen: Vec<String> = server.seen().into_iter().map(|request| request.target).collect();
        let (first, second) = seen.split_at(2);
        assert_eq!(first, ["/latest.json", "/latest.json.sig"], "{stale}");
        let fresh = second[0].strip_prefix("/latest.json?fresh=").unwrap();
        assert!(fresh.parse::<u64>().is_ok(), "{seen:?}");
        assert_eq!(second, [format!("/latest.json?fresh={fresh}"), format!("/latest.json.sig?fresh={fresh}")]);
    }
    // Nothing is old, and nothing fits: two pairs, the first one's error, and no advice to make what is there.
    let (old, new) = (old[1].clone(), new[0].clone());
    let server = Listener::start("127.0.0.1", None, move |request| match path(request) {
        "/latest.json" => Answer::ok(new.as_str()),
        "/latest.json.sig" => Answer::ok(old.as_str()),
        _ => Answer::status(404),
    });
    let run = site.check_at(&server, "", 5, &[ANOTHER]);
    assert!(!run.stderr.contains("is expected at"), "{}", run.stderr);
    assert_eq!(server.seen().len(), 4);
}

#[apply(test)]
fn a_signature_is_read_as_editors_and_uploads_leave_it() {
    let site = Site::new();
    let [document, signature] = site.signed("2.0.0");
    let [_, other] = site.signed("1.5.0");
    let (head, tail) = signature.split_at(64);
    let (head76, tail76) = signature.split_at(76);
    let raw = String::from("raw");
    let none = "none is by an installed key";
    for (text, words) in [
        (signature.clone(), ""),
        (format!("{signature}\n"), ""),
        (format!("{signature}\r\n"), ""),
        (format!("{signature} "), ""),
        (format!("{signature}\t \n"), ""),
        (format!("{signature}\n\n\r\n"), ""),
        (format!("  {signature}\n"), ""),
        (format!("\r\n{signature}"), ""),
        (format!("\u{feff}{signature}\r\n"), ""),
        (format!("{head}\r\n{tail}\r\n"), ""),
        (format!("{head} \n{tail} \n"), ""),
        (format!("{head76}\r\n{tail76}\r\n"), ""),
        (format!("{other}\r\n{signature}\r\n"), ""),
        // Blanks around a line, not in it; and what is none stays none.
        (format!("{head} {tail}\n"), "not base64"),
        (format!("{signature}\u{a0}"), "not base64"),
        (format!("\"{signature}\""), "not base64"),
        (other.clone(), none),
        (" \r\n\t\r\n".into(), "it is empty"),
        ("<!DOCTYPE html><title>404</title>".into(), "HTML or XML"),
        (raw.clone(), "raw bytes or UTF-16"),
    ] {
        let bytes = if text == raw { site.key.sign(document.as_bytes()) } else { text.clone().into_bytes() };
        let served = document.clone();
        let server = Listener::start("127.0.0.1", None, move |request| match path(request) {
            "/latest.json" => Answer::ok(served.as_str()),
            "/latest.json.sig" => Answer::ok(bytes.clone()),
            _ => Answer::status(404),
        });
        println!("{text:?}");
        match words.is_empty() {
            true => site.check(&server, 0, &["2.0.0"]),
            false => site.check(&server, 5, &[words]),
        };
    }
    drop(site.dir);
}

/// What a place answers that is of no use.
type Broken = fn(&Request) -> Answer;

#[apply(test)]
fn a_mirror_is_asked_although_it_was_asked_before() {
    need_disks();
    let broken: [(&str, Broken); 5] = [
        ("a page", |_| Answer::ok("<html>maintenance</html>").header("ETag", "\"page\"")),
        ("nothing", |_| Answer::ok("").header("ETag", "\"nothing\"")),
        ("no architecture", |_| Answer::ok(r#"{"artifacts":[]}"#)),
        ("an error", |_| Answer::status(500)),
        ("compressed", |_| Answer::ok("{}").header("Content-Encoding", "br")),
    ];
    for (name, broken) in broken {
        let document = small(&release()).latest_json();
        let good = move |request: &Request| match (path(request), request.header("if-none-match")) {
            ("/latest.json", Some("\"one\"")) => Answer::status(304),
            ("/latest.json", _) => Answer::ok(document.as_str()).header("ETag", "\"one\""),
            _ => Answer::status(404),
        };
        let (first, is_broken) = (good.clone(), std::sync::Arc::new(AtomicUsize::new(0)));
        let switch = is_broken.clone();
        let first = Listener::start("127.0.0.1", None, move |request| match switch.load(Ordering::SeqCst) {
            0 => first(request),
            _ => broken(request),
        });
        let mirror = Listener::start("127.0.0.1", None, good);
        let conf = format!("server = http://{}/\nmirror = http://{}/\nretries = 0\n", first.host(), mirror.host());
        let machine = machine(&conf, None);
        std::fs::create_dir_all(machine.root.path("var/lib/kubesolo/update")).unwrap();
        // Without what was seen before, with it, and again.
        is_broken.store(1, Ordering::SeqCst);
        machine.root.agent(&["check"]).expect(0, &["2.0.0"]);
        let _ = std::fs::remove_file(machine.root.path("var/lib/kubesolo/update/seen.json"));
        is_broken.store(0, Ordering::SeqCst);
        machine.root.agent(&["check"]).expect(0, &["2.0.0"]);
        assert!(machine.root.path("var/lib/kubesolo/update/seen.json").exists(), "{name}: nothing is kept");
        is_broken.store(1, Ordering::SeqCst);
        for _ in 0..2 {
            let before = mirror.seen().len();
            machine.root.agent(&["check"]).expect(0, &["2.0.0"]);
            assert!(mirror.seen().len() > before, "{name}: the mirror is not asked");
        }
        // It is well again: one request, and nobody else is asked.
        is_broken.store(0, Ordering::SeqCst);
        let before = [first.seen().len(), mirror.seen().len()];
        machine.root.agent(&["check"]).expect(0, &["2.0.0"]);
        assert_eq!([first.seen().len(), mirror.seen().len()], [before[0] + 1, before[1]], "{name}");
    }
}

/// A tag is a name that moves, and a digest is none.
#[apply(test)]
fn a_tag_is_asked_for_past_caches() {
    need_disks();
    need("docker-registry");
    need("oras");
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), None);
    Release::new("2.0.0").publish(dir.path(), Target::Registry, &format!("{}/os", registry.host()), "v1");
    let inner = registry.host().to_owned();
    // What the agent asks is seen in between, and a real registry answers.
    let relay = Listener::start("127.0.0.1", None, move |request| {
        let mut curl = Command::new("curl");
        curl.args([
            "-s",
            "-H",
            "Accept: application/vnd.oci.image.index.v1+json,application/vnd.oci.image.manifest.v1+json",
        ]);
        let url = format!("http://{inner}{}", request.target);
        let out = curl.args(["-w", "\n%{http_code} %{content_type}"]).arg(url).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (body, last) = text.rsplit_once('\n').unwrap();
        let (status, content_type) = last.split_once(' ').unwrap();
        Answer { status: status.parse().unwrap(), ..Answer::ok(body) }.header("Content-Type", content_type)
    });
    let machine = machine(&format!("registry = {}/os:v1\nretries = 0\n", relay.host()), None);
    machine.root.agent(&["check"]).expect(0, &["2.0.0"]);
    machine.root.agent(&["check"]).expect(0, &["2.0.0"]);
    let seen = relay.seen();
    let (tags, others): (Vec<_>, Vec<_>) = seen.iter().partition(|request| request.target.ends_with("/manifests/v1"));
    assert!(tags.len() >= 2 && !others.is_empty(), "{seen:?}");
    assert!(tags.iter().all(|request| request.header("cache-control") == Some("no-cache")), "{tags:?}");
    assert!(others.iter().all(|request| request.header("cache-control").is_none()), "{others:?}");
}
