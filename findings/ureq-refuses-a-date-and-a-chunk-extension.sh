#!/bin/sh
# ureq refuses a chunk whose size and extension take more than 20 bytes, and a `100 Continue` that has a header field.
#
# Guessed: ureq reads each answer that RFC 9112 allows. "A recipient MUST ignore unrecognized chunk extensions" (7.1.1), of any
#          length that fits its buffer (128 KiB); an interim answer ends with its header section, and "a client MUST be able to
#          parse" it "even if the client does not expect one" (RFC 9110, 15.2): what 103 may have, 100 may have.
# Seen:    `5;name=...` of 20 bytes is read, of 21 it is "chunk expected crlf as next character". `103` with a Date is passed over,
#          `100` with the same Date is "received headers with 100-continue response". Both are errors; nothing is read as what it
#          is not. curl reads all of it. ureq 3.5.2, ureq-proto 0.7.1, httparse 1.10.1; curl 7.88.
# Matters: the agent takes interim answers away before ureq sees them (src/http/guard.rs). It reads no chunks itself: a registry
#          or proxy that signs its chunks in extensions cannot be used, and the error names no extension.
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
    say "as found: 20 bytes before a chunk, and no field beside 100"
}

# Guessed: hello everywhere, of both.
expected() {
    cat <<'END'
an extension, 20 bytes: ureq: hello; curl: hello
an extension, 21 bytes: ureq: protocol: chunk expected crlf as next character; curl: hello
an extension, 200 bytes: ureq: protocol: chunk expected crlf as next character; curl: hello
103 with a date: ureq: hello; curl: hello
100 alone: ureq: hello; curl: hello
100 with a date: ureq: protocol: received headers with 100-continue response; curl: hello
END
}

program() {
    cat <<'END'
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

/// Answers one connection. Returns where.
fn serve(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let (mut request, mut byte) = (Vec::new(), [0]);
        while !request.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|read| read == 1) {
            request.push(byte[0]);
        }
        let _ = socket.write_all(answer.as_bytes());
        let _ = socket.shutdown(Shutdown::Write);
        // Until the other side has all of it.
        let _ = socket.read(&mut byte);
    });
    format!("http://{address}/")
}

fn by_ureq(address: &str) -> String {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).proxy(None).build();
    let answer = ureq::Agent::new_with_config(config).get(address).call();
    match answer.and_then(|mut answer| answer.body_mut().read_to_string()) {
        Ok(text) => text,
        Err(error) => error.to_string(),
    }
}

fn by_curl(address: &str) -> String {
    let options = ["-q", "-sS", "--http1.1", "--noproxy", "*", "--max-time", "20"];
    let output = Command::new("curl").args(options).arg(address).output().unwrap();
    match output.status.code() {
        Some(0) => String::from_utf8_lossy(&output.stdout).into_owned(),
        code => format!("refused ({})", code.unwrap_or(-1)),
    }
}

fn compare(what: &str, answer: &str) {
    let ureq = by_ureq(&serve(answer.to_owned()));
    let curl = by_curl(&serve(answer.to_owned()));
    println!("{what}: ureq: {ureq}; curl: {curl}");
}

fn main() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    for length in [20, 21, 200] {
        let line = format!("{:v<length$}", "5;name=");
        compare(&format!("an extension, {length} bytes"), &format!("{chunked}{line}\r\nhello\r\n0\r\n\r\n"));
    }
    let date = "Date: Mon, 30 Nov 2026 12:00:00 GMT\r\n";
    compare("103 with a date", &format!("HTTP/1.1 103 Early Hints\r\n{date}\r\n{FINAL}"));
    compare("100 alone", &format!("HTTP/1.1 100 Continue\r\n\r\n{FINAL}"));
    compare("100 with a date", &format!("HTTP/1.1 100 Continue\r\n{date}\r\n{FINAL}"));
}
END
}

main "$@"
