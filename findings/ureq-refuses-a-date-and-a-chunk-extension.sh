#!/bin/sh
# ureq refuses a chunk whose size and extension take more than 20 bytes, and a `100 Continue` that has a header field.
#
# Guessed: ureq reads each answer that RFC 9112 allows. "A recipient MUST ignore unrecognized chunk extensions" (7.1.1), of any length
#          that fits its buffer (128 KiB); an interim answer ends with its header section (RFC 9110, 15.2), and may have fields in it:
#          what 103 may have, 100 may have.
# Seen:    not run yet.
# Matters: not run yet.
set -eu
# shellcheck source=findings/lib/crates.sh
. "$(dirname -- "$0")/lib/crates.sh"

main() {
    no_arguments "$@"
    command -v curl >/dev/null || cannot "curl is missing"
    begin
    program >"$WORK/answers.rs"
    build_pinned answers 'ureq = { version = "=3.5.2", default-features = false }' 'ureq-proto = "=0.7.1"' 'httparse = "=1.10.1"'
    curl --version | head -n 1
    timeout 300 "$WORK/answers" >"$WORK/seen" 2>"$WORK/errors" || cannot "the program ends early: $(tail -n 3 "$WORK/errors")"
    cat "$WORK/seen"
    expected >"$WORK/expected"
    diff "$WORK/expected" "$WORK/seen" >"$WORK/diff" || changed "$(cat "$WORK/diff")"
    say "as found: ..."
}

# Guessed: hello everywhere, of both.
expected() {
    cat <<'END'
END
}

program() {
    cat <<'END'
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

/// Reads until `end` stands at the end of what came; false: it never did.
fn read_until(socket: &mut TcpStream, end: &[u8]) -> bool {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(end) {
        match socket.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// One connection, answered with `first`, and after the request's body, if it has one, with `second`. Returns its address.
fn serve(first: String, body: &'static str, second: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        if !read_until(&mut socket, b"\r\n\r\n") || socket.write_all(first.as_bytes()).is_err() {
            return;
        }
        if body.is_empty() || read_until(&mut socket, body.as_bytes()) {
            let _ = socket.write_all(second.as_bytes());
            let _ = socket.shutdown(std::net::Shutdown::Write);
            // Until the other side has read it all.
            let _ = socket.read(&mut [0]);
        }
    });
    format!("http://{address}/")
}

fn by_ureq(address: &str, body: &str) -> String {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).proxy(None).build();
    let agent = ureq::Agent::new_with_config(config);
    let answer = match body {
        "" => agent.get(address).call(),
        _ => agent.post(address).header("expect", "100-continue").send(body),
    };
    match answer.and_then(|mut answer| answer.body_mut().read_to_string()) {
        Ok(text) => text,
        Err(error) => error.to_string(),
    }
}

fn by_curl(address: &str, body: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-q", "-sS", "--http1.1", "--noproxy", "*", "--max-time", "20"]);
    if !body.is_empty() {
        curl.args(["-H", "Expect: 100-continue", "--expect100-timeout", "10", "--data-binary", body]);
    }
    let output = curl.arg(address).output().unwrap();
    match output.status.code() {
        Some(0) => String::from_utf8_lossy(&output.stdout).into_owned(),
        code => format!("refused ({})", code.unwrap_or(-1)),
    }
}

fn compare(what: &str, first: &str, body: &'static str, second: &'static str) {
    let ureq = by_ureq(&serve(first.to_owned(), body, second), body);
    let curl = by_curl(&serve(first.to_owned(), body, second), body);
    println!("{what}: ureq: {ureq}; curl: {curl}");
}

fn main() {
    let chunked = |line: &str| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{line}\r\nhello\r\n0\r\n\r\n")
    };
    for length in [20, 21, 200] {
        let line = format!("5;name={}", "v".repeat(length - 7));
        compare(&format!("an extension, {length} bytes"), &chunked(&line), "", "");
    }
    for length in [16, 20, 21] {
        compare(&format!("zeros and 5, {length} bytes"), &chunked(&format!("{:0>length$}", 5)), "", "");
    }
    let date = "Date: Mon, 30 Nov 2026 12:00:00 GMT\r\n";
    let get = |what: &str, status: &str, field: &str| {
        compare(what, &format!("HTTP/1.1 {status}\r\n{field}\r\n"), "", FINAL)
    };
    get("GET, 103 with a date", "103 Early Hints", date);
    get("GET, 100 alone", "100 Continue", "");
    get("GET, 100 with a date", "100 Continue", date);
    compare("POST, 100 alone", "HTTP/1.1 100 Continue\r\n\r\n", "body", FINAL);
    compare("POST, 100 with a date", &format!("HTTP/1.1 100 Continue\r\n{date}\r\n"), "body", FINAL);
}
END
}

main "$@"
