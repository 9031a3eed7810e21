//! The hostile table: where lines, heads, chunks and bodies end. What RFC 9112 lets a server send is read, however old its
//! form; what two readers could read in two ways is refused, before a byte of it is used.

use crate::support::disk::need_disks;
use crate::support::hostile::{Reply, Step};
use crate::support::hostile_table::{MANIFEST_TYPE, PUBLISHED, Row, assert_listed, hold_all, row};

/// Answers the manifest with these bytes; `{type}`, `{length}`, `{hex}` and `{body}` are those of the manifest.
fn framed(name: &str, answer: &'static str) -> Row {
    row(format!("framing: {name}"), move |p, a| match a.path.contains("/manifests/") {
        true => {
            let length = p.manifest.len();
            let text = answer.replace("{type}", MANIFEST_TYPE).replace("{length}", &length.to_string());
            let text = text.replace("{hex}", &format!("{length:x}")).replace("{body}", &p.manifest);
            Reply::raw(vec![Step::Send(text.into_bytes())])
        }
        false => p.honest(a),
    })
}

fn read(name: &str, answer: &'static str) -> Row {
    framed(name, answer).says(&["staged"]).works(5)
}

fn refused(name: &str, word: &'static str, answer: &'static str) -> Row {
    framed(name, answer).network().says(&[word])
}

#[rustfmt::skip]
fn framing_rows() -> Vec<Row> {
    const LINE: &str = "a header line is malformed";
    const CHUNK: &str = "chunk expected crlf";
    const CUT: &str = "closed before the end";
    vec![
        read("a folded header", "HTTP/1.1 200 OK\r\nContent-Type:\r\n {type}\r\nContent-Length: {length}\r\n\r\n{body}"),
        read("a header folded twice, with a tab", "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX: a\r\n\tb\r\n  c\r\nContent-Type: {type}\r\n\r\n{body}"),
        read("a folded length", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nContent-Length:\r\n {length}\r\n\r\n{body}"),
        read("a folded coding", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding:\r\n chunked\r\n\r\n{hex}\r\n{body}\r\n0\r\n\r\n"),
        read("a chunk's length with 15 zeros in front", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n000000000000000{hex}\r\n{body}\r\n0\r\n\r\n"),
        read("the last chunk's length of 20 zeros", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex}\r\n{body}\r\n00000000000000000000\r\n\r\n"),
        read("a chunk with an extension", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex} ; x=\"y\"\r\n{body}\r\n0\r\n\r\n"),
        read("a head without carriage returns", "HTTP/1.1 200 OK\nContent-Type: {type}\nContent-Length: {length}\n\n{body}"),
        read("no reason", "HTTP/1.1 200\r\nContent-Type: {type}\r\nContent-Length: {length}\r\n\r\n{body}"),
        // A chunk's line of more than 20 bytes is none to ureq; nobody is known to send one.
        refused("a chunk's length with 20 zeros in front", CHUNK, "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000000{hex}\r\n{body}\r\n0\r\n\r\n"),
        // The last chunk says that nothing is missing: what would follow it is no part of the body. Source: RFC 9112, section 8.
        read("an end behind the last chunk", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex}\r\n{body}\r\n0\r\n"),
        refused("a coding that HTTP/1.0 has not", "Transfer-Encoding", "HTTP/1.0 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex}\r\n{body}\r\n0\r\n\r\n"),
        refused("two codings", "Transfer-Encoding", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{hex}\r\n{body}\r\n0\r\n\r\n"),
        refused("an empty line before the status", "not HTTP/1.1", "\r\nHTTP/1.1 200 OK\r\nContent-Type: {type}\r\nContent-Length: {length}\r\n\r\n{body}"),
        refused("a fold with nothing before it", "invalid header name", "HTTP/1.1 200 OK\r\n X: y\r\nContent-Type: {type}\r\nContent-Length: {length}\r\n\r\n{body}"),
        refused("a length that goes on in the next line", "length", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nContent-Length: {length}\r\n {length}\r\n\r\n{body}"),
        refused("a form feed behind the length", LINE, "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nContent-Length: {length}\x0c\r\n\r\n{body}"),
        refused("a vertical tab before the length", LINE, "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nContent-Length:\x0b{length}\r\n\r\n{body}"),
        refused("a carriage return before the coding", LINE, "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: \rchunked\r\n\r\n{hex}\r\n{body}\r\n0\r\n\r\n"),
        refused("two carriage returns behind a header", LINE, "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\r\nContent-Length: {length}\r\n\r\n{body}"),
        refused("an empty coding", "Transfer-Encoding", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding:\r\n\r\n{body}"),
        refused("an empty coding and a length", "Transfer-Encoding", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: \r\nContent-Length: {length}\r\n\r\n{body}"),
        refused("a NUL in the reason", "status line", "HTTP/1.1 200 O\0K\r\nContent-Type: {type}\r\nContent-Length: {length}\r\n\r\n{body}"),
        refused("a carriage return in the reason", "status line", "HTTP/1.1 200 O\rK\r\nContent-Type: {type}\r\nContent-Length: {length}\r\n\r\n{body}"),
        refused("DEL in the reason", "status line", "HTTP/1.1 200 O\x7fK\r\nContent-Type: {type}\r\nContent-Length: {length}\r\n\r\n{body}"),
        refused("no carriage return behind a chunk's length", CHUNK, "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex}\n{body}\r\n0\r\n\r\n"),
        refused("no carriage return behind an extension", CHUNK, "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex};x=y\n{body}\r\n0\r\n\r\n"),
        refused("no carriage return behind a chunk", CHUNK, "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex}\r\n{body}\n0\r\n\r\n"),
        read("no carriage return behind the last chunk", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex}\r\n{body}\r\n0\n\r\n"),
        refused("no carriage return at the end", CUT, "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex}\r\n{body}\r\n0\r\n\n"),
        refused("a carriage return in an extension", CUT, "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex};x\ry\r\n{body}\r\n0\r\n\r\n"),
        read("a form feed behind a chunk's length", "HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n{hex}\x0c\r\n{body}\r\n0\r\n\r\n"),
    ]
}

/// What a CDN says when the server behind it does not answer: tried again, like 502 to 504.
fn status_rows() -> Vec<Row> {
    let first = |status: u16| {
        row(format!("{status}, then an answer"), move |p, a| match a.path.contains("/manifests/") && a.nth == 0 {
            true => Reply::new(status, ""),
            false => p.honest(a),
        })
        .conf("retries = 1")
    };
    let mut rows: Vec<Row> =
        [507, 520, 521, 522, 523, 524, 529].map(|status| first(status).says(&["again", "staged"]).works(6)).into();
    // These do not pass: what is asked for, or a certificate, is wrong.
    rows.extend([501, 505, 525, 526].map(|status| {
        let words = [status.to_string()];
        first(status).network().says(&words.each_ref().map(String::as_str)).most(1)
    }));
    rows
}

fn rows() -> Vec<Row> {
    [framing_rows(), status_rows()].into_iter().flatten().collect()
}

#[apply(test)]
fn where_things_end_and_what_passes() {
    need_disks();
    assert!(PUBLISHED.manifest.len() > 16, "a chunk's length of two digits");
    hold_all(rows());
}

#[apply(test)]
fn the_table_is_listed() {
    assert_listed("hostile_framing", &rows());
}
