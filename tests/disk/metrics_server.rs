//! `metrics` as a server: what it answers, and what clients who are slow, broken or hostile can do to it: nothing.

use crate::support::disk::wait_for;
use crate::support::served::{PATIENCE, Served, read_answer};
use crate::support::{self, need, run};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Less than the server lets a slow client take, so that nobody can have waited for one.
const BOUND: Duration = Duration::from_secs(3);

fn served() -> (tempfile::TempDir, Served) {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::nowhere(dir.path());
    (dir, served)
}

#[apply(test)]
fn answers_as_curl_sees_them() {
    need("curl");
    let (_dir, served) = served();
    let curl = |args: &[&str], path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-S", "--noproxy", "*", "--max-time", "20"]).args(args);
        run(curl.arg(format!("http://{}{path}", served.address())))
    };
    const CODE: [&str; 2] = ["-w", "\n%{http_code} %{content_type} %{size_download}"];
    let page = curl(&CODE, "/metrics");
    assert!(page.starts_with("# HELP kubesolo_os_info "), "{page}");
    let (body, said) = page.rsplit_once('\n').unwrap();
    assert_eq!(said, format!("200 text/plain; version=0.0.4; charset=utf-8 {}", body.len()));
    for (args, path) in
        [(&["--http1.0"][..], "/metrics"), (&["-X", "GET"], "/metrics?name[]=x&y"), (&["-d", ""], "/nothing")]
    {
        let wanted = if path == "/nothing" { "404" } else { "200" };
        assert!(curl(&[&CODE, args].concat(), path).contains(&format!("\n{wanted} text/plain")), "{path}");
    }
    // What is no metrics is not called that.
    for (path, kind) in [
        ("/", "200 text/html; charset=utf-8"),
        ("/?x", "200 text/html; charset=utf-8"),
        ("/healthz", "200 text/plain; charset=utf-8"),
        ("/nothing", "404 text/plain; charset=utf-8"),
        ("/index.html", "404 text/plain; charset=utf-8"),
        ("/metrics", "200 text/plain; version=0.0.4; charset=utf-8"),
    ] {
        let said = curl(&["-o", "/dev/null", "-w", "%{http_code} %{content_type}"], path);
        assert_eq!(said, kind, "{path}");
        // The date is one that curl understands, and now.
        let head = curl(&["--head"], path);
        let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap_or_else(|| panic!("{head}"));
        let secs = run(Command::new("date").args(["-u", "+%s", "-d", date])).trim().parse::<u64>().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(secs) < 60 && date.ends_with(" GMT"), "{path}: {date}");
    }
    let landed = curl(&[], "/");
    assert!(landed.contains("<a href=\"/metrics\">"), "{landed}");
    assert!(curl(&["-i", "-X", "POST"], "/").contains("\r\nAllow: GET, HEAD\r\n"));
    assert_eq!(curl(&[], "/healthz"), "ok\n");
    let head = curl(&["--head"], "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    assert!(curl(&["--head"], "/x").starts_with("HTTP/1.1 404 Not Found\r\n"));
    let posted = curl(&["-i", "-d", "body"], "/metrics");
    assert!(posted.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{posted}");
    assert!(posted.contains("\r\nAllow: GET, HEAD\r\n"), "{posted}");
    assert!(curl(&["-i", "-X", "PUT"], "/healthz").starts_with("HTTP/1.1 405 "));
}

#[apply(test)]
fn malformed_requests_are_refused_and_the_next_is_answered() {
    let (_dir, served) = served();
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(5000));
    let long_head = format!("GET /metrics HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(5000));
    let fits = format!("GET /metrics HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(4000));
    for (request, status) in [
        (long_line.as_bytes(), 414),
        (long_head.as_bytes(), 431),
        (fits.as_bytes(), 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\x00\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\nHost: h\n\n", 200),
        (b"GET http://h/metrics HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        (b"POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nabc", 405),
    ] {
        let got = served.send(request);
        assert_eq!(got.status, status, "{} {got:?}", String::from_utf8_lossy(request));
        // Nothing of the request comes back.
        assert!(!got.body.contains("xxx"), "{got:?}");
    }
    assert_eq!(served.send(b"HEAD /metrics HTTP/1.0\r\n\r\n").body, "");
    assert_eq!(served.send(b"HEAD /nothing HTTP/1.0\r\n\r\n").body, "");
    served.scrape();
}

#[apply(test)]
fn slow_clients_starve_nobody() {
    let (_dir, served) = served();
    let idle = served.open_files();
    served.scrape();
    let mut slow: Vec<TcpStream> = (0..50).map(|_| served.connect()).collect();
    slow.iter_mut().for_each(|s| drop(s.write_all(b"GET /metrics HT")));
    for _ in 0..20 {
        let start = Instant::now();
        served.scrape();
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
        // They go on, a byte at a time, and those who were dropped come back.
        for stream in &mut slow {
            if stream.write_all(b"T").is_err() {
                *stream = served.connect();
            }
        }
    }
    assert!(served.open_files() <= idle + 33, "{}", served.open_files());
    // Nobody stays for ever: neither who falls silent, nor who sends a byte now and then, long before the head is full.
    let mut silent = served.connect();
    silent.write_all(b"GET").unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    let mut one = served.connect();
    one.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut sent = 0;
    let dropped = wait_for(PATIENCE, || {
        sent += 1;
        let gone = one.write_all(b"G").is_err();
        let read = one.read(&mut [0; 1]);
        assert!(!matches!(read, Ok(1)), "it is answered");
        gone || read.is_ok() || read.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
    });
    assert!(dropped && sent < 4000, "{sent} bytes");
    drop(slow);
    served.wait_for_files(idle + 1);
}

#[apply(test)]
fn a_request_that_comes_byte_by_byte_is_answered() {
    let (_dir, served) = served();
    let mut stream = served.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"\r\nGET /healthz?x HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_answer(&mut stream).body, "ok\n");
    // The end of the request is the end of what is sent: no reason not to answer.
    let mut stream = served.connect();
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_answer(&mut stream).body, "ok\n");
    // Half a request and the end of it: nothing to say.
    let mut stream = served.connect();
    stream.write_all(b"GET /healthz HTTP/1.0\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[apply(test)]
fn pipelined_requests_get_one_answer_and_endless_ones_an_end() {
    let (_dir, served) = served();
    let got = served.send(&b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100));
    assert_eq!((got.status, got.body.as_str()), (200, "ok\n"));
    for endless in [&b"X: y\r\n"[..], b"xxxxxxxx", b"\r\n"] {
        let mut stream = served.connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
        let mut sent = 0;
        // It is cut off, not read for ever.
        while sent < 64 << 20 && stream.write_all(&endless.repeat(1000)).is_ok() {
            sent += endless.len() * 1000;
        }
        assert!(sent < 64 << 20, "everything was read");
    }
    served.scrape();
}

#[apply(test)]
fn a_client_that_never_reads_and_one_that_resets_hold_nothing() {
    let (_dir, served) = served();
    served.scrape();
    let idle = served.open_files();
    let deaf: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = served.connect();
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for round in 0..100 {
        let mut stream = served.connect();
        let request = b"GET /metrics HTTP/1.0\r\n\r\n";
        stream.write_all(&request[..round % request.len()]).unwrap();
        reset(stream);
    }
    let start = Instant::now();
    served.scrape();
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    served.wait_for_files(idle);
    drop(deaf);
}

/// Closes a connection with a reset. Source: socket(7): SO_LINGER with a time of 0.
#[allow(unsafe_code)]
fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: an open descriptor, and a structure of that length.
    let set = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length)
    };
    assert_eq!(set, 0);
}

#[apply(test)]
fn thousands_of_requests_leave_nothing_behind() {
    let (_dir, served) = served();
    let round = || {
        for _ in 0..100 {
            served.scrape();
            assert_eq!(served.fetch("/healthz").status, 200);
            assert_eq!(served.fetch("/nothing").status, 404);
            assert_eq!(served.send(b"\x01\r\n\r\n").status, 400);
        }
    };
    round();
    let (memory, files) = (served.proc_status("VmRSS"), served.open_files());
    (0..12).for_each(|_| round());
    let after = served.proc_status("VmRSS");
    assert!(after <= memory + 64, "from {memory} to {after} kB");
    served.wait_for_files(files);
    // 32 clients with 4 KiB each do not show either.
    assert!(served.proc_status("VmHWM") < 8 << 10, "{} kB", served.proc_status("VmHWM"));
}

#[apply(test)]
fn a_termination_ends_it_at_once() {
    let (_dir, mut served) = served();
    let slow: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = served.connect();
            stream.write_all(b"GET /metr").unwrap();
            stream
        })
        .collect();
    served.scrape();
    let pid = served.child.id().to_string();
    let start = Instant::now();
    run(Command::new("kill").args(["-TERM", &pid]));
    let status = served.child.wait().unwrap();
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    assert_eq!(status.signal(), Some(libc::SIGTERM));
    drop(slow);
}

#[apply(test)]
fn without_descriptors_it_goes_on_when_there_are_some_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 12; exec \"$@\"", "sh"]).arg(support::root::Root::program());
    few.args(["metrics", "--listen", "127.0.0.1:0", "--root"]).arg(dir.path());
    let served = Served::start(few);
    served.scrape();
    let slow: Vec<TcpStream> = (0..30).map(|_| served.connect()).collect();
    let start = Instant::now();
    assert_eq!(served.fetch("/healthz").status, 200);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    drop(slow);
    served.scrape();
}

#[apply(test)]
fn however_often_it_is_asked_it_looks_once_a_second() {
    let (dir, served) = served();
    std::fs::create_dir(dir.path().join("proc")).unwrap();
    let (start, mut written, mut seen) = (Instant::now(), 0, std::collections::BTreeSet::new());
    // More often asked than looked, however late a busy machine answers.
    while start.elapsed() < Duration::from_secs(3) || (written <= 20 && start.elapsed() < PATIENCE) {
        written += 1;
        std::fs::write(dir.path().join("proc/meminfo"), format!("MemTotal: {written} kB\n")).unwrap();
        seen.insert(support::prometheus::value(&served.scrape(), "kubesolo_memory_total_bytes"));
    }
    assert!(written > 20, "{written}");
    assert!(seen.len() >= 3 && seen.len() as u64 <= start.elapsed().as_secs() + 2, "{} of {written}", seen.len());
}
