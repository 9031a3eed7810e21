//! Tests of `client.rs` against servers that send exactly what a test needs.

use super::*;
use crate::http::answer::redirect_target;
use crate::os::system::System;
use std::io::Read;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Answers one connection with each text, in order, and returns the heads of the requests.
/// A text that ends in `HANG` is not followed by a close: the peer has to time out.
pub(super) fn serve(answers: Vec<String>) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handle = thread::spawn(move || answers.iter().map(|answer| answer_one(&listener, answer)).collect());
    (port, handle)
}

fn answer_one(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    let hang = answer.ends_with("HANG");
    // The client may hang up on what it refuses.
    let _ = stream.write_all(answer.trim_end_matches("HANG").as_bytes());
    if hang {
        let _ = stream.read(&mut byte);
    }
    String::from_utf8(head).unwrap()
}

pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
}

pub(super) fn client() -> Client {
    let mut options = HttpOptions::new(&System::new("/nonexistent"));
    options.timeouts.stall = Duration::from_secs(2);
    options.timeouts.headers = Duration::from_secs(2);
    options.tries = 1;
    Client::new(options).unwrap()
}

pub(super) fn url(port: u16, path: &str) -> Url {
    Url::parse(&format!("http://127.0.0.1:{port}{path}")).unwrap()
}

#[test]
fn fetches_a_document_and_asks_for_it_uncompressed() {
    let headers = "Content-Type: a/b; charset=utf-8\r\nDocker-Content-Digest: d\r\nETag: \"e\"\r\n";
    let (port, server) = serve(vec![answer("200 OK", headers, "hello"), answer("200 OK", headers, "")]);
    let d = client().document(&url(port, "/x?k=v"), "text/x, text/y", 5, None).unwrap();
    assert_eq!((d.status, d.body.as_slice(), d.length), (200, &b"hello"[..], Some(5)));
    assert_eq!(d.content_type.as_deref(), Some("a/b; charset=utf-8"));
    assert_eq!((d.digest_header.as_deref(), d.etag.as_deref()), (Some("d"), Some("\"e\"")));
    let d = client().head(&url(port, "/y"), "*/*").unwrap().unwrap();
    assert!(d.body.is_empty());
    let heads = server.join().unwrap();
    let head = heads[0].to_ascii_lowercase();
    assert!(head.starts_with("get /x?k=v http/1.1\r\n"), "{head}");
    for line in ["accept: text/x, text/y", "accept-encoding: identity", "user-agent: kubesolo-update/"] {
        assert_eq!(head.matches(line).count(), 1, "{head}");
    }
    assert!(heads[1].starts_with("HEAD /y "), "{}", heads[1]);
}

#[test]
fn a_document_never_exceeds_its_cap() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\nHANG".to_owned();
    let unbounded = "HTTP/1.1 200 OK\r\n\r\nabcdefHANG".to_owned();
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nHANG".to_owned();
    for text in [chunked, unbounded, announced] {
        let (port, server) = serve(vec![text]);
        let e = client().document(&url(port, "/"), "*/*", 5, None).unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().contains("longer than 5 bytes"), "{e}");
        server.join().unwrap();
    }
}

#[test]
fn a_short_or_stalled_answer_is_an_error() {
    for (text, word) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "closed before the end"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcHANG", "no data for 2 s"),
        ("HTTP/1.1 200 OK\r\nContHANG", "no answer for 2 s"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "127.0.0.1: "),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "127.0.0.1: "),
        ("", "closed before the end"),
        ("SSH-2.0-x\r\n", "127.0.0.1: "),
    ] {
        let (port, server) = serve(vec![text.to_owned()]);
        let e = client().document(&url(port, "/p"), "*/*", 99, None).unwrap_err();
        assert!(e.kind() == Kind::Network && e.to_string().contains(word), "{text}: {e}");
        assert!(e.to_string().starts_with(&format!("fetch http://127.0.0.1:{port}/p: ")), "{e}");
        server.join().unwrap();
    }
    let (port, server) = serve(vec![format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20))]);
    let e = client().document(&url(port, "/"), "*/*", 99, None).unwrap_err();
    assert!(e.to_string().contains("header"), "{e}");
    server.join().unwrap();
}

/// Answers `count` connections with a head, then repeats the same bytes until the client hangs up.
fn serve_for_ever(count: usize, head: &'static str, more: &'static [u8], pause: Duration) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handle = thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(more).is_ok() {
                thread::sleep(pause);
            }
        }
    });
    (port, handle)
}

const NO_PAUSE: Duration = Duration::ZERO;
const PAUSE: Duration = Duration::from_millis(20);

/// As `client`, with 0.5 s for a document, and the same plus the usual rate for a file.
fn impatient() -> Client {
    let mut options = HttpOptions::new(&System::new("/nonexistent"));
    options.timeouts.stall = Duration::from_secs(2);
    options.timeouts.document = Duration::from_millis(500);
    options.timeouts.body = Duration::from_millis(500);
    options.tries = 1;
    Client::new(options).unwrap()
}

#[test]
fn an_endless_trailer_ends() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n";
    const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    for pause in [NO_PAUSE, PAUSE] {
        let (port, server) = serve_for_ever(2, CHUNKED, b"a: b\r\n", pause);
        let e = impatient().document(&url(port, "/"), "*/*", 99, None).unwrap_err();
        assert!(e.kind() == Kind::Network && e.to_string().contains(": not complete after 0.5 s"), "{e}");
        let mut body = impatient().stream(&url(port, "/"), 2, 0..2, Instant::now()).unwrap().reader;
        let mut out = Vec::new();
        let e = body.read_to_end(&mut out).unwrap_err();
        assert!(out == b"{}" && e.to_string().contains("not complete after 0.5 s"), "{e}");
        drop(body);
        server.join().unwrap();
        // An error's text is read under the same limits as any other body.
        let (port, server) = serve_for_ever(1, NOT_FOUND, b"a: b\r\n", pause);
        let e = impatient().stream(&url(port, "/"), 2, 0..2, Instant::now()).err().unwrap();
        assert!(e.to_string().contains("404 Not Found"), "{e}");
        server.join().unwrap();
    }
}

#[test]
fn a_trickle_ends() {
    const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    const UNKNOWN: &str = "HTTP/1.1 200 OK\r\n\r\n";
    let (port, server) = serve_for_ever(1, LONG, b"x", PAUSE);
    let e = impatient().document(&url(port, "/"), "*/*", 100_000, None).unwrap_err();
    assert!(e.kind() == Kind::Network && e.to_string().contains(": not complete after 0.5 s"), "{e}");
    server.join().unwrap();
    let (port, server) = serve_for_ever(2, UNKNOWN, b"x", PAUSE);
    for (size_bytes, words) in [
        (999, "slower than 2 KiB/s: not complete after 0.5 s"),
        (2048, "slower than 2 KiB/s: not complete after 1.5 s"),
    ] {
        let mut body = impatient().stream(&url(port, "/"), size_bytes, 0..size_bytes, Instant::now()).unwrap().reader;
        let e = body.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(e.to_string().contains(words), "{e}");
    }
    server.join().unwrap();
    // A head that never ends, and redirects that are each slow.
    let (port, server) = serve_for_ever(1, "HTTP/1.1 200 OK\r\nX: ", b"x", PAUSE);
    let e = impatient().document(&url(port, "/"), "*/*", 99, None).unwrap_err();
    assert!(e.to_string().contains("not complete after 0.5 s"), "{e}");
    server.join().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Not joined: on a busy machine the client gives up before the third.
    thread::spawn(move || {
        for _ in 0..3 {
            answer_one(&listener, &{
                thread::sleep(Duration::from_millis(220));
                answer("302 Found", "Location: /x\r\n", "")
            });
        }
    });
    let e = impatient().document(&url(port, "/"), "*/*", 99, None).unwrap_err();
    assert!(e.to_string().contains("not complete after 0.5 s"), "{e}");
}

#[test]
fn asks_whether_a_body_is_there() {
    let stored = "Content-Encoding: gzip\r\n";
    for (answers, path, want) in [
        (vec![answer("200 OK", "", "abc")], "/f", Ok(Some(3))),
        (vec!["HTTP/1.1 200 OK\r\n\r\n".to_owned()], "/f", Ok(None)),
        (vec![answer("405 Method Not Allowed", "", "no")], "/f", Ok(None)),
        (vec![answer("501 Not Implemented", "", "no")], "/f", Ok(None)),
        (vec![answer("302 Found", "Location: /g\r\n", ""), answer("200 OK", "", "abcd")], "/f", Ok(Some(4))),
        (vec![answer("403 Forbidden", "", ""), answer("200 OK", "", "abc")], "/f", Ok(Some(3))),
        (vec![answer("403 Forbidden", "", ""), answer("403 Forbidden", "", "")], "/f", Err("403 Forbidden")),
        (vec![answer("404 Not Found", "", ""); 2], "/os/latest.json", Err("404 Not Found (is the path right?)")),
        (vec![answer("404 Not Found", "", ""); 2], "/f", Err("404 Not Found (latest.json, or a redirect, names")),
        (vec![answer("404 Not Found", "", ""); 2], "/os/latest.json/latest.json", Err("leave /latest.json out")),
        (vec![answer("410 Gone", "", ""); 2], "/f", Err("410 Gone")),
        (vec![answer("404 Not Found", "", ""), answer("200 OK", "", "abc")], "/f", Ok(Some(3))),
        (vec![answer("200 OK", stored, "abc")], "/f.gz", Ok(Some(3))),
        (vec![answer("200 OK", stored, "abc")], "/f", Err("Content-Encoding gzip")),
    ] {
        let (port, server) = serve(answers);
        let mut length = None;
        let probed = client().probe(&url(port, path), &mut |said| {
            length = said;
            Ok(())
        });
        let got = probed.map(|()| length).map_err(|e| e.to_string());
        match (&got, want) {
            (Ok(got), Ok(want)) => assert_eq!(*got, want),
            (Err(e), Err(word)) => assert!(e.contains(word), "{e}"),
            _ => panic!("{got:?}, not {want:?}"),
        }
        assert!(server.join().unwrap()[0].starts_with(&format!("HEAD {path} ")));
    }
}

#[test]
fn a_file_that_is_stored_compressed_may_say_so() {
    for (path, encoding, document_ok, file_ok) in [
        ("/kubesolo-os.gz?k=v", "gzip", false, true),
        ("/kubesolo-os.gz", "x-gzip", false, true),
        ("/kubesolo-os.gz", "X-GZIP", false, true),
        ("/kubesolo-os.gz", "br", false, false),
        ("/kubesolo-os.gz", "gzip, gzip", false, false),
        ("/vmlinuz", "gzip", false, false),
        ("/vmlinuz?f=.gz", "gzip", false, false),
        ("/vmlinuz", "identity", true, true),
        ("/vmlinuz", "Identity", true, true),
    ] {
        let text = answer("200 OK", &format!("Content-Encoding: {encoding}\r\n"), "stored");
        let (port, server) = serve(vec![text.clone(), text]);
        let document = client().document(&url(port, path), "*/*", 9, None);
        assert_eq!(document.is_ok(), document_ok, "{path} {encoding}");
        let mut bytes = String::new();
        let read = client()
            .stream(&url(port, path), 6, 0..6, Instant::now())
            .map(|mut b| b.reader.read_to_string(&mut bytes).unwrap());
        assert_eq!((read.is_ok(), bytes.as_str()), (file_ok, if file_ok { "stored" } else { "" }), "{path} {encoding}");
        server.join().unwrap();
    }
}

#[test]
fn follows_at_most_five_redirects() {
    let hop = |to: &str| answer("302 Found", &format!("Location: {to}\r\n"), "");
    let mut chain: Vec<String> = (1..=5).map(|i| hop(&format!("../h{i}?s={i}"))).collect();
    chain.push(answer("200 OK", "", "end"));
    let (port, server) = serve(chain);
    let d = client().document(&url(port, "/a/b"), "*/*", 9, None).unwrap();
    assert_eq!((d.body.as_slice(), d.final_url.path()), (&b"end"[..], "/h5"));
    assert!(server.join().unwrap()[5].starts_with("GET /h5?s=5 "));
    let (port, server) = serve(vec![hop("/x"); 6]);
    let e = client().document(&url(port, "/"), "*/*", 9, None).unwrap_err();
    assert!(e.to_string().contains("more than 5 redirects"), "{e}");
    server.join().unwrap();
}

#[test]
fn refuses_bad_redirects() {
    let from = Url::parse("https://h/a?secret").unwrap();
    for (location, word) in [
        (Some("http://h/a"), "from https to plain http"),
        (Some("ftp://h/a"), "only http and https"),
        (Some("//u:secret@h/"), "password"),
        (None, "says no location"),
    ] {
        let e = redirect_target(location.map(str::to_owned), &from).unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().contains(word), "{e}");
        assert!(!e.to_string().contains("secret"), "{e}");
    }
    // A loopback server may not send us to another host in the clear.
    let (port, server) = serve(vec![answer("307 Temporary Redirect", "Location: http://192.0.2.1/x?secret\r\n", "")]);
    let e = client().document(&url(port, "/"), "*/*", 9, None).unwrap_err();
    assert!(e.kind() == Kind::Source && e.to_string().contains("plain_http = yes"), "{e}");
    assert!(!e.to_string().contains("secret"), "{e}");
    server.join().unwrap();
}

#[test]
fn says_what_the_server_said() {
    let registry = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no \u001b[31msuch"},{"code":"B"}]}"#;
    for (status, path, body, words) in [
        ("404 Not Found", "/v2/os/manifests/v1", registry, &["404 Not Found: MANIFEST_UNKNOWN no", "tag?"][..]),
        ("404 Not Found", "/latest.json", "<html>", &["404 Not Found", "path right?"]),
        ("403 Forbidden", "/v2/", "", &["403 Forbidden", "set auth_file"]),
        ("500 Internal Server Error", "/", "{\"errors\":[]}", &["500 Internal Server Error"]),
        ("304 Not Modified", "/", "", &["304 Not Modified"]),
    ] {
        let (port, server) = serve(vec![answer(status, "", body)]);
        let e = client().document(&url(port, &format!("{path}?secret")), "*/*", 9, None).unwrap_err();
        assert_eq!(e.kind(), Kind::Network);
        let text = e.to_string();
        assert!(words.iter().all(|w| text.contains(w)), "{text}");
        assert!(text.contains(path) && !text.contains("secret") && !text.contains('\u{1b}'), "{text}");
        server.join().unwrap();
    }
    let (port, server) = serve(vec![answer("200 OK", "Content-Encoding: gzip\r\n", "x")]);
    let e = client().document(&url(port, "/"), "*/*", 9, None).unwrap_err();
    assert!(e.kind() == Kind::Source && e.to_string().contains("Content-Encoding gzip"), "{e}");
    server.join().unwrap();
}

#[test]
fn plain_http_goes_only_where_it_may() {
    let loopback = Url::parse("http://[::1]/").unwrap();
    let other = Url::parse("http://192.0.2.1/").unwrap();
    let secure = Url::parse("https://192.0.2.1/").unwrap();
    for (rule, here, there) in
        [(PlainHttp::Auto, true, false), (PlainHttp::Yes, true, true), (PlainHttp::No, false, false)]
    {
        assert_eq!(rule.check(&loopback).is_ok(), here);
        assert_eq!(rule.check(&other).is_ok(), there);
        assert!(rule.check(&secure).is_ok());
    }
    let e = client().document(&other, "*/*", 9, None).unwrap_err();
    assert!(e.kind() == Kind::Config && e.to_string().contains("plain_http = yes"), "{e}");
}

#[test]
fn unreachable_hosts_and_missing_roots_are_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let e = client().document(&url(port, "/p?secret"), "*/*", 9, None).unwrap_err();
    assert!(e.kind() == Kind::Network && e.to_string().contains("refused"), "{e}");
    assert!(!e.to_string().contains("secret"), "{e}");
    let (port, server) = serve(vec![String::new()]);
    let secure = Url::parse(&format!("https://127.0.0.1:{port}/")).unwrap();
    let e = client().document(&secure, "*/*", 9, None).unwrap_err();
    assert!(e.kind() == Kind::Config && e.to_string().contains("set ca_file"), "{e}");
    drop(TcpStream::connect(("127.0.0.1", port)));
    let _ = server.join();
    let mut options = HttpOptions::new(&System::new("/nonexistent"));
    options.user_agent = "a\nb".to_owned();
    assert_eq!(Client::new(options).err().unwrap().kind(), Kind::Config);
}

#[test]
fn each_place_has_its_own_secret_and_no_others() {
    let texts = |urls: &[Url]| urls.iter().map(Url::request_text).collect::<Vec<_>>();
    for (bases, at, want) in [
        (
            &["https://a/x/?sig=S", "https://b/y/?key=k"][..],
            "https://a/x/f",
            &["https://a/x/f", "https://b/y/f?key=k"][..],
        ),
        // A mirror below the server's own path: the nearest base tells what is secret.
        (
            &["https://a/?sig=S", "https://a/m/?key=k", "https://c/"],
            "https://a/m/f?key=k",
            &["https://a/m/f?key=k", "https://a/f?sig=S", "https://c/f"],
        ),
        (&["https://a/x/?sig=S", "https://b/y/"], "https://elsewhere/f", &["https://elsewhere/f"]),
        (&[], "https://a/f", &["https://a/f"]),
    ] {
        let bases: Vec<Url> = bases.iter().map(|base| Url::parse(base).unwrap()).collect();
        let mut client = client().with_bases(bases.clone());
        let url = Url::parse(at).unwrap();
        assert_eq!(texts(&client.places(&url)), want);
        // After a place was wrong, the next one is asked.
        for turn in 1..bases.len() {
            assert!(client.doubt(), "{turn} of {bases:?}");
            assert_eq!(texts(&client.places(&url))[0], want[turn % want.len()]);
        }
        assert!(!client.doubt(), "{bases:?}");
    }
}

#[test]
fn the_longest_url_fits_into_a_request() {
    let path = format!("/{}", "\u{e9}".repeat(4000));
    let (port, server) = serve(vec![answer("200 OK", "", "ok")]);
    assert_eq!(client().document(&url(port, &path), "*/*", 9, None).unwrap().body, b"ok");
    let head = &server.join().unwrap()[0];
    assert!(head.starts_with(&format!("GET /{} HTTP/1.1\r\n", "%C3%A9".repeat(4000))));
}
