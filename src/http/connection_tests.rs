//! Tests of connections and what arrives on them: chunks, kept connections, malformed heads, proxies.

use super::tests::{answer, client, serve, url};
use super::*;
use crate::os::system::System;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

#[test]
fn a_body_in_chunks_is_put_together() {
    let chunked = |rest: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
    for (rest, want) in [
        ("3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nA: b\r\n\r\n", Ok("abcde")),
        ("0\r\n\r\n", Ok("")),
        ("3\r\nabcd\r\n0\r\n\r\n", Err("chunk expected crlf")),
        ("3\r\nabcXY\r\n0\r\n\r\n", Err("chunk expected crlf")),
        ("3\r\nabc\r\n", Err("closed before the end")),
        ("3\r\nab", Err("closed before the end")),
        // The last chunk has arrived, so nothing is missing. Source: RFC 9112, section 8.
        ("3\r\nabc\r\n0\r\n", Ok("abc")),
        ("00000000000000000003\r\nabc\r\n0\r\n\r\n", Ok("abc")),
        // ureq rejects a line of more than 20 bytes.
        ("0000000000000000000003\r\nabc\r\n0\r\n\r\n", Err("chunk expected crlf")),
        ("3\nabc\r\n0\r\n\r\n", Err("chunk length cannot be read")),
        ("3;x=y\nabc\r\n0\r\n\r\n", Err("closed before the end")),
        ("3\r\nabc\n0\r\n\r\n", Err("chunk expected crlf")),
        ("3\r\nabc\r\n0\r\n\n", Err("closed before the end")),
        ("3;\rx\r\nabc\r\n0\r\n\r\n", Err("closed before the end")),
        ("fffffffffffffffff\r\n", Err("chunk length cannot be read")),
    ] {
        let (port, server) = serve(vec![chunked(rest)]);
        let got = client().document(&url(port, "/"), "*/*", 99, None).map(|d| String::from_utf8(d.body).unwrap());
        server.join().unwrap();
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{rest}"),
            (Err(e), Err(words)) => assert!(e.to_string().contains(words), "{rest}: {e}"),
            (got, want) => panic!("{rest}: {got:?}, wanted {want:?}"),
        }
    }
}

/// Answers any number of requests on each of `count` connections. Input: `answers`: sent on one connection, in
/// order; then it is closed. Returns how many requests each connection carried.
fn serve_kept(count: usize, answers: &'static [&'static str]) -> (u16, JoinHandle<Vec<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let one = move |mut stream: TcpStream| {
        let (mut seen, mut byte, mut head) = (0, [0], Vec::new());
        while seen < answers.len() && stream.read(&mut byte).unwrap_or(0) == 1 {
            head.push(byte[0]);
            if head.ends_with(b"\r\n\r\n") {
                let _ = stream.write_all(answers[seen].as_bytes());
                seen += 1;
                head.clear();
            }
        }
        seen
    };
    (port, thread::spawn(move || (0..count).map(|_| one(listener.accept().unwrap().0)).collect()))
}

#[test]
fn a_connection_is_used_again_where_that_is_safe() {
    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    for (answers, connections, requests, counts) in [
        (&[GOOD, CHUNKED, GOOD, CHUNKED][..], 1, 4, vec![4]),
        // It closes after two: the third is sent again, on a new one.
        (&[GOOD, GOOD][..], 2, 4, vec![2, 2]),
        (&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"][..], 3, 3, vec![1; 3]),
        (&["HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"][..], 2, 2, vec![1; 2]),
        // An unsolicited answer does not count for the next request.
        (
            &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"][..],
            2,
            2,
            vec![1; 2],
        ),
        // An interim answer, then the final one.
        (
            &[
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ][..],
            1,
            1,
            vec![1],
        ),
    ] {
        let (port, server) = serve_kept(connections, answers);
        let client = client();
        for request in 0..requests {
            let got = client.document(&url(port, "/"), "*/*", 99, None);
            assert_eq!(got.unwrap_or_else(|e| panic!("{request} of {answers:?}: {e}")).body, b"ok");
        }
        drop(client);
        assert_eq!(server.join().unwrap(), counts, "{answers:?}");
    }
}

/// The end is not seen before the request is sent: a server may close a connection at that very moment.
#[test]
fn a_request_goes_out_again_where_a_kept_connection_ends_under_it() {
    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let head = |stream: &mut TcpStream| {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        head.len()
    };
    let server = thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        head(&mut first);
        first.write_all(GOOD.as_bytes()).unwrap();
        assert!(head(&mut first) > 0, "the second request, on the same connection");
        drop(first);
        let (mut second, _) = listener.accept().unwrap();
        head(&mut second);
        second.write_all(GOOD.as_bytes()).unwrap();
    });
    let client = client();
    for _ in 0..2 {
        assert_eq!(client.document(&url(port, "/"), "*/*", 9, None).unwrap().body, b"ok");
    }
    server.join().unwrap();
}

/// Without a stated length, TLS must signal the end of a body: otherwise anyone on the path could truncate it.
#[test]
fn a_body_that_tls_does_not_end_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (pem, config) = crate::http::tls::test_server(dir.path(), &rustls::version::TLS13);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        for ends in [true, false] {
            let tcp = listener.accept().unwrap().0;
            let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), tcp);
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && tls.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            tls.write_all(b"HTTP/1.1 200 OK\r\n\r\nabc").unwrap();
            if ends {
                tls.conn.send_close_notify();
            }
            tls.flush().unwrap();
        }
    });
    let mut options = HttpOptions::new(&System::new("/"));
    options.tries = 1;
    options.ca = Some(crate::http::tls::Pem::File(pem));
    options.server_name = Some("registry.example".to_owned());
    let client = Client::new(options).unwrap();
    let url = Url::parse(&format!("https://127.0.0.1:{port}/")).unwrap();
    assert_eq!(client.document(&url, "*/*", 9, None).unwrap().body, b"abc");
    let e = client.document(&url, "*/*", 9, None).unwrap_err();
    assert!(e.to_string().contains("connection closed before the end"), "{e}");
    server.join().unwrap();
}

#[test]
fn answers_that_are_none_end() {
    let wait = "HTTP/1.1 100 Continue\r\n\r\n";
    for (text, words) in [
        (wait.repeat(9), "more than 8 headers before that of the answer"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_owned(), "another protocol"),
        ("SSH-2.0-OpenSSH\r\nHANG".to_owned(), "the answer is not HTTP/1.1"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
            "conflicting content-length",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(), "Transfer-Encoding gzip"),
    ] {
        let (port, server) = serve(vec![text]);
        let e = client().document(&url(port, "/"), "*/*", 99, None).unwrap_err();
        assert!(e.kind() == Kind::Network && e.to_string().contains(words), "{words}: {e}");
        server.join().unwrap();
    }
}

#[test]
fn plain_http_through_a_proxy_names_the_server_and_keeps_its_password_from_it() {
    let (port, proxy) = serve(vec![
        answer("200 OK", "", "ok"),
        answer("407 Proxy Authentication Required", "", ""),
        answer("403 Forbidden", "", ""),
    ]);
    let mut options = HttpOptions::new(&System::new("/nonexistent"));
    options.tries = 1;
    options.proxy.http = Some(("HTTP_PROXY", format!("http://u:hunter2@127.0.0.1:{port}")));
    options.proxy.https = options.proxy.http.clone();
    let client = Client::new(options).unwrap().with_plain_http(PlainHttp::Yes);
    // Not our own address: only the proxy is asked.
    let far = |text: &str| Url::parse(text).unwrap();
    assert_eq!(client.document(&far("http://r.invalid/x?k=v"), "*/*", 9, None).unwrap().body, b"ok");
    for (status, words) in [("407", "does not take this user"), ("403", "rules")] {
        let e = client.document(&far("https://r.invalid/x"), "*/*", 9, None).unwrap_err();
        let text = e.to_string();
        assert!(text.contains(status) && text.contains(words) && !text.contains("hunter2"), "{text}");
    }
    let heads = proxy.join().unwrap();
    assert!(heads[0].starts_with("GET http://r.invalid/x?k=v HTTP/1.1\r\nhost: r.invalid\r\n"), "{}", heads[0]);
    assert!(heads[1].starts_with("CONNECT r.invalid:443 HTTP/1.1\r\n") && !heads[1].contains("/x"), "{}", heads[1]);
    for head in heads {
        assert!(
            head.contains("\r\nproxy-authorization: Basic dTpodW50ZXIy\r\n") && !head.contains("\r\nauthorization")
        );
    }
}

/// Requests something through a proxy on this port. Returns: the error's text.
fn asked_through(port: u16, text: &str) -> String {
    let mut options = HttpOptions::new(&System::new("/nonexistent"));
    options.tries = 1;
    options.timeouts.connect = Duration::from_secs(5);
    options.proxy.http = Some(("HTTP_PROXY", format!("http://127.0.0.1:{port}")));
    options.proxy.https = options.proxy.http.clone();
    let client = Client::new(options).unwrap().with_plain_http(PlainHttp::Yes);
    client.document(&Url::parse(text).unwrap(), "*/*", 9, None).unwrap_err().to_string()
}

#[test]
fn a_proxy_answers_for_what_is_its_own() {
    let page = answer("200 OK", "Content-Type: text/html\r\n", "<html>log in</html>") + "HANG";
    for (said, words) in [
        (page, "connect to r.invalid: the proxy speaks in the server's place"),
        ("SSH-2.0-x\r\n".to_owned(), "fetch https://r.invalid/x: the proxy 127.0.0.1:PORT: the answer is not HTTP/1.1"),
        (String::new(), "the proxy 127.0.0.1:PORT: connection closed before the end"),
        (
            answer("501 Not Implemented", "", ""),
            "fetch https://r.invalid/x: the proxy 127.0.0.1 answered 501 Not Implemented (it does not know CONNECT",
        ),
        (answer("401 Unauthorized", "", ""), "answered 401 Unauthorized (it wants a user and a password"),
    ] {
        let (port, proxy) = serve(vec![said]);
        let text = asked_through(port, "https://r.invalid/x?k=geheim");
        assert!(
            text.contains(&words.replace("PORT", &port.to_string())) && !text.contains("geheim"),
            "{words}: {text}"
        );
        proxy.join().unwrap();
    }
    // Nothing listens there any more.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for scheme in ["http", "https"] {
        let text = asked_through(port, &format!("{scheme}://r.invalid/x"));
        assert!(text.contains(&format!("the proxy 127.0.0.1:{port}: Connection refused")), "{text}");
    }
}

#[test]
fn a_bad_request_says_what_it_may_mean() {
    let (port, server) = serve(vec![answer("400 Bad Request", "", "")]);
    let e = client().document(&url(port, "/x"), "*/*", 9, None).unwrap_err();
    assert!(e.to_string().ends_with("plain_http = no)"), "{e}");
    server.join().unwrap();
}

/// ureq assumes that many things cannot happen; in the release build, a panic ends the agent without a message.
#[test]
fn any_bytes_end_in_an_answer_or_an_error() {
    const LETTERS: [&str; 24] = [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 204 X\r\n",
        "HTTP/1.1 100 C\r\n",
        "HTTP/1.1 304 N\r\n",
        "HTTP/1.1 999 \n",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Location: /\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        "0\r\n\r\n",
        "3\r\nabc\r\n",
        "ffffffffffffffff\r\n",
        "18446744073709551615\r\n",
        " ",
        ":",
        ";x=y",
        "+5",
        "\0",
        "\u{ff}",
        "x",
    ];
    let mut dice = 1u64;
    let mut answers = Vec::new();
    for _ in 0..600 {
        let mut text = String::new();
        for at in 0..14 {
            dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Half of them begin like answers.
            let letter = (dice >> 33) as usize % LETTERS.len();
            text.push_str(LETTERS[if at == 0 && letter.is_multiple_of(2) { 0 } else { letter }]);
        }
        answers.push(text);
    }
    let count = answers.len();
    let (port, server) = serve(answers);
    let client = client();
    let mut good = 0;
    for _ in 0..count {
        good += usize::from(client.whatever(&url(port, "/"), 99, &mut |_, _| Ok(())).is_ok());
    }
    drop(client);
    assert!(good > 0 && good < count, "{good}");
    server.join().unwrap();
}
