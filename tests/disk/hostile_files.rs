//! The hostile table, second half: the files themselves, and what is left of them for the next run.
//!
//! A fault in the network leaves the part that came; wrong bytes leave none; either way the slot has no record and the
//! next honest server's update succeeds.

use crate::support::disk::{B, need_disks, wait_for};
use crate::support::hostile::{Ask, Hostile, Length, Reply, Step};
use crate::support::hostile_table::{
    PUBLISHED, Published, Row, Slot, apply, assert_listed, assert_staged, hold_all, part_name, row,
};
use crate::support::machine::{Left, Machine};
use std::sync::Arc;
use std::time::Duration;

const CUT: usize = 700_000;
const DRIP: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(60);
/// Enough tries for a break, and quick ones.
const TRIES: &str = "retries = 3\nstall_timeout = 5";

type Spoil = fn(&Published, &Ask, Reply) -> Reply;

/// Everything is honest but the answer to a GET for the kernel.
fn kernel(name: impl Into<String>, spoil: Spoil) -> Row {
    row(name, move |p, a| match p.is_kernel(a) && a.is_get() {
        true => spoil(p, a, p.honest(a)),
        false => p.honest(a),
    })
}

/// Over both protocols; requests: the document, HEAD of one file, GET of the other.
fn both(name: &str, spoil: Spoil, finish: fn(Row) -> Row) -> Vec<Row> {
    let rows = [kernel(format!("{name}, registry"), spoil), kernel(format!("{name}, server"), spoil).http()];
    rows.map(|row| finish(row.leaves(Slot::Emptied, 3))).into()
}

/// Of a part that has not more, half.
fn halve(bytes: &mut Vec<u8>) {
    bytes.truncate(CUT.min(bytes.len() / 2));
}

/// Bytes that are not what was announced.
fn byte_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(both(
        "short body",
        |_, _, r| r.then(CUT, vec![]),
        |r| r.network().says(&["before the end"]).leaves(Slot::Part(CUT), 3),
    ));
    rows.extend(both(
        "short body, announced",
        |_, _, r| r.change(halve),
        |r| r.digest().says(&["sends 700000 bytes"]).leaves(Slot::Whole, 3),
    ));
    let cut_without_length = |_: &Published, _: &Ask, r: Reply| r.change(halve).length(Length::Absent);
    rows.extend(both("short body, no length", cut_without_length, |r| {
        r.network().says(&["before the end"]).leaves(Slot::Part(CUT), 3)
    }));
    rows.extend(both(
        "long body, announced",
        |_, _, r| r.change(|b| b.push(0)),
        |r| r.digest().says(&["sends 1500008 bytes"]).leaves(Slot::Whole, 3),
    ));
    rows.extend(both(
        "right digest, one byte behind it",
        |_, _, r| r.change(|b| b.push(0)).length(Length::Absent),
        |r| r.digest().says(&["longer than"]),
    ));
    rows.extend(both(
        "right digest, bytes without end behind it",
        |_, _, r| r.length(Length::Absent).then_flood(&[0; 4096]),
        |r| r.digest().says(&["longer than"]),
    ));
    rows.extend(both(
        "chunks without end",
        |_, _, r| r.chunked(vec![Step::Flood([b"1000\r\n".as_slice(), &[7; 4096], b"\r\n"].concat())]),
        |r| r.digest().says(&["longer than"]),
    ));
    rows.extend(both(
        "chunks, the last is missing",
        |_, _, r| r.change(halve).chunked(vec![]),
        |r| r.network().says(&["before the end"]).leaves(Slot::Part(CUT), 3),
    ));
    rows.extend(both(
        "wrong digest, one bit",
        |_, _, r| {
            r.change(|b| {
                let middle = b.len() / 2;
                b[middle] ^= 4;
            })
        },
        |r| r.digest().says(&["expected was sha256:"]),
    ));
    rows.extend(both(
        "wrong digest, the first byte",
        |_, _, r| r.change(|b| b[0] ^= 1),
        |r| r.digest().says(&["expected was sha256:"]),
    ));
    rows.extend(both(
        "wrong digest, the last byte",
        |_, _, r| r.change(|b| *b.last_mut().unwrap() ^= 1),
        |r| r.digest().says(&["expected was sha256:"]),
    ));
    rows
}

/// Something else altogether.
fn answer_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(both(
        "the other file",
        |p, _, _| Reply::ok(p.initramfs.as_slice()),
        |r| r.digest().says(&["sends"]).leaves(Slot::Whole, 3),
    ));
    rows.extend(both(
        "HTML",
        |_, _, _| Reply::ok("<html>").header("Content-Type", "text/html"),
        |r| r.digest().says(&["sends 6 bytes"]).leaves(Slot::Whole, 3),
    ));
    rows.extend(both("HTML of the right length after a redirect", html_after_redirect, |r| {
        r.digest().says(&["expected was sha256:"]).leaves(Slot::Emptied, 4)
    }));
    rows.extend(both(
        "Content-Encoding",
        |_, _, r| r.header("Content-Encoding", "gzip"),
        |r| r.says(&["Content-Encoding gzip"]).leaves(Slot::Whole, 3),
    ));
    rows.extend(both(
        "a part that nobody asked for",
        |_, _, r| r.status(206),
        |r| r.says(&["the whole was asked for"]).leaves(Slot::Whole, 3),
    ));
    rows.extend(both(
        "416 to no Range",
        |_, _, _| Reply::new(416, ""),
        |r| r.network().says(&["416"]).leaves(Slot::Whole, 3),
    ));
    rows
}

fn html_after_redirect(p: &Published, ask: &Ask, _: Reply) -> Reply {
    match ask.path.starts_with("/login") {
        true => Reply::ok(b"<html>".iter().copied().cycle().take(p.kernel.len()).collect::<Vec<u8>>()),
        false => Reply::redirect(&format!("/login{}", ask.path)),
    }
}

/// A server that takes its time, or wants more of it.
fn slow_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(both(
        "stall",
        |_, _, r| r.then(CUT, vec![Step::Stall]),
        |r| r.conf("retries = 0\nstall_timeout = 1").network().says(&["no data for 1 s"]).leaves(Slot::Part(CUT), 3),
    ));
    let drip = |_: &Published, _: &Ask, r: Reply| r.then(4096, vec![Step::Drip(vec![7; 10_000], DRIP)]);
    rows.extend(both("slow drip", drip, |r| {
        r.conf("retries = 0\nstall_timeout = 9\ndownload_timeout = 2")
            .network()
            .says(&["not complete after 2 s"])
            .leaves(Slot::SomePart, 3)
    }));
    // Each try brings something, and none of them enough to count.
    let little = |_: &Published, ask: &Ask, r: Reply| {
        let rest = 1_500_007 - ask.from();
        r.then(rest.min(100), vec![Step::Reset])
    };
    rows.extend(both("100 bytes a try, then reset", little, |r| {
        r.conf("retries = 2").network().leaves(Slot::Part(300), 5).says(&["vmlinuz"])
    }));
    rows.extend(both(
        "503 in the middle, Retry-After a year",
        |_, a, r| match a.from() {
            0 => r.then(CUT, vec![]),
            _ => Reply::new(503, "").header("Retry-After", "31536000"),
        },
        |r| r.conf("").network().says(&["503", "asking for the whole", "before the end"]).leaves(Slot::Part(CUT), 5),
    ));
    rows.extend(both(
        "redirect loop",
        |_, a, _| Reply::redirect(&a.path),
        |r| r.says(&["more than 5 redirects"]).leaves(Slot::Whole, 8),
    ));
    rows
}

/// The connection breaks at one byte, and the rest is had by Range.
fn break_rows() -> Vec<Row> {
    let size = PUBLISHED.kernel.len();
    let mut rows = Vec::new();
    for at in [0, 1, 4095, 4096, 65_535, 65_536, 131_071, 131_072, 262_144, 1_000_003, size - 1] {
        let ranges = [0, at];
        for (how, steps) in [("reset", vec![Step::Reset]), ("closed", vec![])] {
            let script = move |p: &Published, a: &Ask| match p.is_kernel(a) && a.is_get() && a.nth == 0 {
                true => p.honest(a).then(at, steps.clone()),
                false => p.honest(a),
            };
            rows.push(
                row(format!("{how} at byte {at}"), script).conf(TRIES).says(&["staged"]).works(5).ranges(&ranges),
            );
        }
    }
    rows
}

/// The first answer breaks off; the second is this one's.
fn second(name: &str, answer: Spoil) -> Row {
    let script = move |p: &Published, a: &Ask| match (p.is_kernel(a) && a.is_get(), a.nth) {
        (true, 0) => p.honest(a).header("ETag", "\"one\"").then(CUT, vec![Step::Reset]),
        (true, 1) => answer(p, a, p.honest(a)),
        _ => p.honest(a),
    };
    row(name, script).conf(TRIES).says(&["staged"]).works(6)
}

/// A 206 that says what is given.
fn says_range(reply: Reply, range: &str) -> Reply {
    let mut reply = reply;
    reply.headers.retain(|(name, _)| name != "Content-Range");
    reply.header("Content-Range", range)
}

fn range_rows() -> Vec<Row> {
    let garbage = |p: &Published| vec![b'x'; p.kernel.len()];
    let if_range = |a: &Ask| assert_eq!(a.if_range.as_deref(), Some("\"one\""));
    let again = [0, CUT, 0];
    vec![
        second("the server knows no Range", |p, _, _| Reply::ok(p.kernel.as_slice())).ranges(&[0, CUT]),
        second("206 with a wrong start", |p, _, r| {
            says_range(r, &format!("bytes 0-{}/{}", p.kernel.len() - 1, p.kernel.len()))
        })
        .ranges(&again),
        second("206 with a later start", |p, _, r| {
            says_range(r, &format!("bytes {}-{}/{}", CUT + 1, p.kernel.len() - 1, p.kernel.len()))
        })
        .ranges(&again),
        second("206 with a wrong total", |p, _, r| {
            says_range(r, &format!("bytes {CUT}-{}/{}", p.kernel.len() - 1, p.kernel.len() + 1))
        })
        .ranges(&again),
        second("206 without a range", |_, _, mut r| {
            r.headers.clear();
            r
        })
        .ranges(&again),
        second("206 with a range that is none", |_, _, r| says_range(r, "bytes -1--5/x")).ranges(&again),
        second("416 in the middle", |_, _, _| Reply::new(416, "")).ranges(&again),
        second("206 that breaks off again", |_, a, r| r.then(1000 + a.nth, vec![Step::Reset])).ranges(&[
            0,
            CUT,
            CUT + 1001,
        ]),
        second("500 in the middle", |_, _, _| Reply::new(500, "")).ranges(&[0, CUT, CUT]),
        row("the entity changes, and so does its ETag", move |p, a| match (p.is_kernel(a) && a.is_get(), a.nth) {
            (true, 0) => Reply::ok(garbage(p)).header("ETag", "\"one\"").then(CUT, vec![Step::Reset]),
            (true, 1) => {
                if_range(a);
                Reply::ok(p.kernel.as_slice()).header("ETag", "\"two\"")
            }
            _ => p.honest(a),
        })
        .conf(TRIES)
        .says(&["staged"])
        .works(6)
        .ranges(&again),
        row("the entity changes under the same ETag", move |p, a| match (p.is_kernel(a) && a.is_get(), a.nth) {
            (true, 0) => Reply::ok(garbage(p)).header("ETag", "\"one\"").then(CUT, vec![Step::Reset]),
            _ => p.honest(a).header("ETag", "\"one\""),
        })
        .conf(TRIES)
        .says(&["staged"])
        .works(6)
        .ranges(&again),
        row("the entity changes all the time", move |p, a| match p.is_kernel(a) && a.is_get() {
            true if a.from() == 0 => Reply::ok(garbage(p)).then(CUT, vec![Step::Reset]),
            _ => p.honest(a),
        })
        .conf(TRIES)
        .digest()
        .says(&["expected was sha256:"])
        .leaves(Slot::Emptied, 8),
    ]
}

pub fn rows() -> Vec<Row> {
    [byte_rows(), answer_rows(), slow_rows(), break_rows(), range_rows()].into_iter().flatten().collect()
}

#[apply(test)]
fn hostile_bytes() {
    need_disks();
    hold_all([byte_rows(), answer_rows(), slow_rows()].into_iter().flatten().collect());
}

#[apply(test)]
fn broken_connections() {
    need_disks();
    hold_all([break_rows(), range_rows()].into_iter().flatten().collect());
}

#[apply(test)]
fn the_table_is_listed() {
    assert_listed("hostile_files", &rows());
}

/// Range headers of the GETs for the kernel.
fn kernel_ranges(server: &Hostile) -> Vec<Option<String>> {
    let gets = |a: &Ask| a.is_get() && PUBLISHED.is_kernel(a);
    server.seen().into_iter().filter(gets).map(|a| a.range).collect()
}

/// The Range of the next run where so many bytes are there: without the last page, which a power cut may have left half
/// written.
fn going_on_after(bytes: usize) -> Option<String> {
    let whole_pages = (bytes - 1) / (64 << 10) * (64 << 10);
    (whole_pages > 0).then(|| format!("bytes={whole_pages}-"))
}

/// Lets a second run meet an honest server. Returns: the Ranges it asked for.
fn run_again(machine: &Machine, what: &str) -> Vec<Option<String>> {
    let server = row(what, |p, a| p.honest(a)).start(machine);
    apply(machine).expect(0, &["2.0.0 is staged"]);
    assert_staged(machine, what);
    kernel_ranges(&server)
}

#[apply(test)]
fn the_next_run_goes_on_where_a_run_broke_off() {
    need_disks();
    for at in [1, 65_536, 65_537, CUT, PUBLISHED.kernel.len() - 1] {
        let (machine, what) = (Machine::new(), format!("broke off at {at}"));
        let server = row(&what, move |p, a| match p.is_kernel(a) && a.is_get() {
            true => p.honest(a).then(at, vec![]),
            false => p.honest(a),
        })
        .start(&machine);
        apply(&machine).expect(6, &["before the end"]);
        machine.assert_unharmed(&what, "failed", "network", Left::Invalid);
        assert_eq!(machine.disk.file(B, &part_name()).unwrap(), PUBLISHED.kernel[..at], "{what}");
        drop(server);
        assert_eq!(run_again(&machine, &what), [going_on_after(at)], "{what}");
    }
}

#[apply(test)]
fn the_next_run_goes_on_where_a_run_was_killed() {
    need_disks();
    let machine = Machine::new();
    let server = row("killed", |p, a| match p.is_kernel(a) && a.is_get() {
        true => p.honest(a).then(CUT, vec![Step::Stall]),
        false => p.honest(a),
    })
    .conf("stall_timeout = 60")
    .start(&machine);
    let mut agent = machine.root.command(&["apply"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let written = |pid: u32| -> Option<usize> {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        io.lines().find_map(|l| l.strip_prefix("wchar: ")?.parse().ok())
    };
    assert!(wait_for(LIMIT, || written(agent.id()).is_some_and(|n| n >= CUT)), "it writes nothing");
    agent.kill().unwrap();
    agent.wait().unwrap();
    machine.disk.wait_unmounted(B);
    drop(server);
    // What was not synced may be lost or not: the next run goes by what is there. Mounting replays the journal first.
    let ranges = run_again(&machine, "killed");
    assert_eq!(ranges, [going_on_after(CUT)]);
}

#[apply(test)]
fn a_part_that_is_wrong_is_found_and_thrown_away() {
    need_disks();
    let machine = Machine::new();
    let server = row("tampered", |p, a| match p.is_kernel(a) && a.is_get() {
        true => p.honest(a).change(|b| b[1000] ^= 1).then(CUT, vec![]),
        false => p.honest(a),
    })
    .start(&machine);
    apply(&machine).expect(6, &["before the end"]);
    drop(server);
    let part = machine.disk.file(B, &part_name()).unwrap();
    assert!(part.len() == CUT && part != PUBLISHED.kernel[..CUT], "nothing was tampered with");
    assert_eq!(run_again(&machine, "tampered"), [going_on_after(CUT), None]);
}

/// Another release's part is not gone on with.
#[apply(test)]
fn a_part_of_something_else_is_not_used() {
    need_disks();
    let machine = Machine::new();
    let script = |a: &Ask| match PUBLISHED.is_kernel(a) && a.is_get() {
        true => PUBLISHED.honest(a).then(CUT, vec![]),
        false => PUBLISHED.honest(a),
    };
    let server = Hostile::start(Arc::new(script));
    machine.root.configure(&format!("signature = off\nretries = 0\nregistry = {}/os:v1\n", server.here));
    apply(&machine).expect(6, &["before the end"]);
    machine.assert_recovers("a part of something else");
    assert!(!machine.disk.names(B).contains(&part_name()), "it is still there");
}
