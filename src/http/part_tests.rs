//! Tests of `resume.rs` for parts of a file that have an end: what is asked for, and what is handed out.

use super::tests::{answer, client, serve, url};
use crate::http::{Body, Client, HttpOptions};
use crate::os::system::System;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const FILE: &str = "abcdefghij";
const SIZE: u64 = FILE.len() as u64;

/// Answers what comes on each connection, in order; then it closes it. Returns: the Range of each request, by connection.
fn keep(connections: Vec<Vec<String>>) -> (u16, JoinHandle<Vec<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move |answers: Vec<String>| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut ranges = Vec::new();
        for answer in answers {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            if !head.is_empty() {
                let range = head.lines().find_map(|line| line.strip_prefix("range: bytes=")).unwrap_or("-").to_owned();
                ranges.push(range);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
        ranges
    };
    (port, thread::spawn(move || connections.into_iter().map(serve).collect()))
}

/// A 206 with these bytes of the file.
fn part(from: usize, end: usize) -> String {
    let bytes = &FILE[from..end];
    let length = bytes.len();
    let last = end - 1;
    format!("HTTP/1.1 206 X\r\nContent-Range: bytes {from}-{last}/{SIZE}\r\nContent-Length: {length}\r\n\r\n{bytes}")
}

fn whole() -> String {
    format!("HTTP/1.1 200 X\r\nContent-Length: {SIZE}\r\n\r\n{FILE}")
}

fn read(body: &mut Body) -> String {
    let mut text = String::new();
    body.reader.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_part_is_asked_for_and_what_comes_is_handed_out() {
    for (answers, want, until, ranges) in [
        (vec![part(2, 5)], "cde", 5, &["2-4"][..]),
        // From the start, and up to the end, which is the same as the rest.
        (vec![part(0, 3)], "abc", 3, &["0-2"]),
        (vec![part(7, 10)], "hij", 10, &["7-"]),
        // It sends more than was asked for: that is said at once, and handed out.
        (vec![part(2, 8)], "cdefgh", 8, &["2-4"]),
        // Less: the rest of the part is asked for, and nothing beyond it.
        (vec![part(2, 3), part(3, 5)], "cde", 5, &["2-4", "3-4"]),
        (vec![part(2, 3), part(3, 4), part(4, 5)], "cde", 5, &["2-4", "3-4", "4-4"]),
        // Less, then more.
        (vec![part(2, 3), part(3, 9)], "cdefghi", 9, &["2-4", "3-4"]),
        // It sends no parts: all from the place on.
        (vec![whole()], "cdefghij", 10, &["2-4"]),
        // Another part than was asked for: the whole.
        (vec![part(1, 5), whole()], "cdefghij", 10, &["2-4", "-"]),
    ] {
        let from = FILE.find(&want[..1]).unwrap() as u64;
        let end = if ranges[0].ends_with('-') {
            SIZE
        } else {
            ranges[0].split('-').nth(1).unwrap().parse::<u64>().unwrap() + 1
        };
        let opened_until = if answers.len() == 1 { until } else { end };
        // What is refused is not read to its end: its connection is not used again.
        let is_refused = ranges.contains(&"-");
        let connections =
            if is_refused { answers.into_iter().map(|answer| vec![answer]).collect() } else { vec![answers] };
        let (port, server) = keep(connections);
        let mut body = client().stream(&url(port, "/"), SIZE, from..end, Instant::now()).unwrap();
        assert!(body.until.get() == opened_until || is_refused, "{ranges:?}: {}", body.until.get());
        assert_eq!(read(&mut body), want, "{ranges:?}");
        assert_eq!((body.until.get(), body.is_pieced.get()), (until, true), "{ranges:?}");
        assert_eq!(server.join().unwrap().concat(), ranges);
    }
}

#[test]
fn no_part_is_no_request() {
    let (port, server) = keep(vec![]);
    assert!(server.join().unwrap().is_empty());
    // Nobody listens any more.
    assert_eq!(read(&mut client().stream(&url(port, "/"), SIZE, 4..4, Instant::now()).unwrap()), "");
}

#[test]
fn many_parts_come_on_one_connection() {
    let parts: Vec<(usize, usize)> = (0..9).map(|at| (at, at + 1)).collect();
    let (port, server) = keep(vec![parts.iter().map(|(from, end)| part(*from, *end)).collect()]);
    let client = client();
    for (from, end) in parts {
        let mut body = client.stream(&url(port, "/"), SIZE, from as u64..end as u64, Instant::now()).unwrap();
        assert_eq!(read(&mut body), FILE[from..end]);
    }
    // One was accepted, and it carried all of them.
    let ranges: Vec<usize> = server.join().unwrap().iter().map(Vec::len).collect();
    assert_eq!(ranges, [9]);
}

#[test]
fn a_mirror_is_asked_for_what_is_left_of_the_part() {
    const ERROR: &str = "HTTP/1.1 503 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let broken = part(2, 8).replace("cdefgh", "cde");
    for (first, asked, want, from_mirror) in [
        (ERROR.to_owned(), "2-7", "cdefgh", part(2, 8)),
        (String::new(), "2-7", "cdefgh", part(2, 8)),
        (broken.clone(), "5-7", "cdefgh", part(5, 8)),
        // The mirror sends more than the part.
        (broken, "5-7", "cdefghij", part(5, 10)),
    ] {
        let ((port, server), (other, mirror)) = (keep(vec![vec![first]]), keep(vec![vec![from_mirror]]));
        let client = client().with_bases(vec![url(port, "/"), url(other, "/")]);
        let mut body = client.stream(&url(port, "/f"), SIZE, 2..8, Instant::now()).unwrap();
        assert_eq!(read(&mut body), want);
        assert_eq!(body.until.get(), 2 + want.len() as u64);
        assert_eq!(
            (server.join().unwrap().concat(), mirror.join().unwrap().concat()),
            (vec!["2-7".to_owned()], vec![asked.to_owned()])
        );
    }
}

#[test]
fn the_parts_of_a_file_share_its_time() {
    let (port, server) = keep(vec![vec![part(0, 3)]]);
    let limited = || {
        let mut options = HttpOptions::new(&System::new("/nonexistent"));
        (options.timeouts.body, options.timeouts.bytes_per_sec) = (Duration::from_secs(3600), 0);
        options.tries = 1;
        Client::new(options).unwrap()
    };
    let hours_ago = |hours: u64| Instant::now().checked_sub(Duration::from_secs(hours * 3600)).unwrap();
    assert_eq!(read(&mut limited().stream(&url(port, "/"), SIZE, 0..3, hours_ago(0)).unwrap()), "abc");
    server.join().unwrap();
    let e = limited().stream(&url(port, "/"), SIZE, 5..8, hours_ago(2)).err().unwrap();
    assert!(e.to_string().contains("not complete after 3600 s"), "{e}");
}

#[test]
fn a_stream_reports_its_length_and_ends_where_it_should() {
    let (port, server) = serve(vec![answer("200 OK", "", "abc"), "HTTP/1.1 200 OK\r\n\r\nabc".to_owned()]);
    for _ in 0..2 {
        let mut body = client().stream(&url(port, "/"), 3, 0..3, Instant::now()).unwrap();
        let mut out = String::new();
        body.reader.read_to_string(&mut out).unwrap();
        assert_eq!(out, "abc");
    }
    server.join().unwrap();
}
