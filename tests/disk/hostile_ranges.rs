//! The hostile table: what is left of a file, and servers that refuse to send the rest of it, or send it in pieces.
//!
//! Whatever becomes of a request with Range, the file is asked for from its start in the same run, once; and an honest
//! piece is progress.

use crate::support::disk::{B, need_disks};
use crate::support::hostile::{Ask, Length, Reply, Step};
use crate::support::hostile_bench::{Bench, MIRRORED, honest};
use crate::support::hostile_table::{
    PUBLISHED, Published, Row, Slot, apply, assert_listed, assert_staged, hold_all, part_name, row,
};
use crate::support::machine::Machine;

const CUT: usize = 700_000;
/// Enough tries for a break, and quick ones.
const TRIES: &str = "retries = 3\nstall_timeout = 1";

type Refuse = fn(&Published, &Ask) -> Reply;

/// The first answer breaks off; whatever asks for the rest is answered by this; the whole is there for everybody.
fn refused(name: &str, refuse: Refuse) -> Row {
    let script = move |p: &Published, a: &Ask| match (p.is_kernel(a) && a.is_get(), a.nth, &a.range) {
        (true, 0, _) => p.honest(a).then(CUT, vec![Step::Reset]),
        (true, _, Some(_)) => refuse(p, a),
        _ if a.path == "/loop" => Reply::redirect("/loop"),
        _ => p.honest(a),
    };
    row(format!("Range refused: {name}"), script).conf(TRIES).says(&["Range", "asking for the whole", "staged"])
}

/// Refused for good: the whole is asked for at once.
fn at_once(name: &str, refuse: Refuse) -> Row {
    refused(name, refuse).works(6).ranges(&[0, CUT, 0])
}

/// It may be a passing trouble: once more with Range.
fn in_doubt(name: &str, refuse: Refuse) -> Row {
    refused(name, refuse).works(7).ranges(&[0, CUT, CUT, 0])
}

/// An honest part with other headers.
fn rest(p: &Published, a: &Ask) -> Reply {
    p.honest(a)
}

fn refusal_rows() -> Vec<Row> {
    let nothing = |p: &Published, a: &Ask| match (p.is_kernel(a) && a.is_get(), a.nth) {
        (true, 0) => p.honest(a).then(CUT, vec![Step::Reset]),
        (true, _) => Reply::new(403, ""),
        _ => p.honest(a),
    };
    let never_whole = |p: &Published, a: &Ask| match (p.is_kernel(a) && a.is_get(), a.nth, &a.range) {
        (true, 0, _) => p.honest(a).then(CUT, vec![Step::Reset]),
        (true, _, Some(_)) => Reply::new(500, ""),
        (true, _, None) => Reply::raw(vec![]),
        _ => p.honest(a),
    };
    vec![
        at_once("400", |_, _| Reply::new(400, "")),
        at_once("401, nothing to show", |_, _| Reply::new(401, "")),
        at_once("403", |_, _| Reply::new(403, "")),
        at_once("404", |_, _| Reply::new(404, "")),
        at_once("416", |_, _| Reply::new(416, "")),
        at_once("204", |_, _| Reply::new(204, "")),
        at_once("304", |_, _| Reply::new(304, "")),
        refused("an endless redirect", |_, _| Reply::redirect("/loop")).works(11).ranges(&[0, CUT, 0]),
        at_once("a redirect to plain HTTP elsewhere", |_, _| Reply::redirect("http://192.0.2.1/x")),
        at_once("a redirect to nowhere", |_, _| Reply::new(302, "")),
        at_once("200 of another length", |p, _| Reply::ok(&p.kernel[CUT..])),
        at_once("200 that is HTML", |_, _| Reply::ok("<html>").header("Content-Type", "text/html")),
        at_once("206 of no bytes, announced", |p, a| rest(p, a).change(Vec::clear)),
        at_once("206 of fewer bytes than its range", |p, a| rest(p, a).change(|b| b.truncate(9))),
        at_once("206, packed", |p, a| rest(p, a).header("Content-Encoding", "gzip")),
        at_once("what is not HTTP", |_, _| Reply::raw(vec![Step::Send(b"SSH-2.0-x\r\n".to_vec())])),
        in_doubt("500", |_, _| Reply::new(500, "")),
        in_doubt("503", |_, _| Reply::new(503, "")),
        in_doubt("429", |_, _| Reply::new(429, "")),
        waits_for_range().works(8).ranges(&[0, CUT, 0, 0, 0]),
        // Longer than a download may take: there will be no second try.
        at_once("429, two hours", |_, _| Reply::new(429, "").header("Retry-After", "7200")),
        at_once("503, two hours", |_, _| Reply::new(503, "").header("Retry-After", "7200")),
        at_once("500, for longer than a number holds", |_, _| {
            Reply::new(500, "").header("Retry-After", &"9".repeat(30))
        }),
        at_once("503, until a date", |_, _| Reply::new(503, "").header("Retry-After", "Fri, 31 Dec 2100 23:59:59 GMT")),
        in_doubt("429, a second", |_, _| Reply::new(429, "").header("Retry-After", "1")),
        in_doubt("the connection is closed", |_, _| Reply::raw(vec![])),
        in_doubt("the connection is reset", |_, _| Reply::raw(vec![Step::Reset])),
        in_doubt("silence", |_, _| Reply::raw(vec![Step::Stall])),
        in_doubt("206 without a byte", |p, a| rest(p, a).then(0, vec![])),
        in_doubt("206 without a byte, silence", |p, a| rest(p, a).then(0, vec![Step::Stall])),
        row("Range refused, and the whole as well", nothing)
            .conf(TRIES)
            .network()
            .says(&["Range", "403"])
            .leaves(Slot::Part(CUT), 5)
            .ranges(&[0, CUT, 0]),
        row("Range refused, and the whole never comes", never_whole)
            .conf("retries = 2\nstall_timeout = 1")
            .network()
            .says(&["Range", "before the end"])
            .leaves(Slot::Part(CUT), 6),
    ]
}

/// So many bytes of what is asked for, honestly announced.
fn piece(p: &Published, a: &Ask, most: usize) -> Reply {
    let (from, whole) = (a.from(), &p.kernel);
    let end = whole.len().min(from + most);
    Reply::new(206, &whole[from..end]).header("Content-Range", &format!("bytes {from}-{}/{}", end - 1, whole.len()))
}

/// The first answer breaks off; the rest comes as this says.
fn in_pieces(name: &str, answer: Refuse) -> Row {
    let script = move |p: &Published, a: &Ask| match (p.is_kernel(a) && a.is_get(), a.nth, &a.range) {
        (true, 0, _) => p.honest(a).then(CUT, vec![Step::Reset]),
        (true, _, Some(_)) => answer(p, a),
        _ => p.honest(a),
    };
    // One try after the break: a piece that counted as another one would be the end.
    row(format!("in pieces: {name}"), script).conf("retries = 1\nstall_timeout = 5").says(&["staged"])
}

/// It asks for a wait that is longer than there is time whenever it sees Range, and breaks off three times.
fn waits_for_range() -> Row {
    let script = |p: &Published, a: &Ask| match (p.is_kernel(a) && a.is_get(), a.nth, &a.range) {
        (true, _, Some(_)) => Reply::new(429, "").header("Retry-After", "7200"),
        (true, 0, None) => p.honest(a).then(CUT, vec![Step::Reset]),
        (true, 2, None) => p.honest(a).then(CUT + 300_000, vec![Step::Reset]),
        (true, 3, None) => p.honest(a).then(CUT + 600_000, vec![Step::Reset]),
        _ => p.honest(a),
    };
    row("Range refused: 429 and a long wait, and it breaks off again", script).conf(TRIES).says(&[
        "Range",
        "asking for the whole",
        "staged",
    ])
}

fn piece_rows() -> Vec<Row> {
    let left = PUBLISHED.kernel.len() - CUT;
    let requests = |most: usize| 4 + left.div_ceil(most);
    vec![
        in_pieces("1 MiB", |p, a| piece(p, a, 1 << 20)).works(requests(1 << 20)),
        in_pieces("64 KiB", |p, a| piece(p, a, 64 << 10)).works(requests(64 << 10)),
        in_pieces("1000 bytes", |p, a| piece(p, a, 1000)).works(requests(1000)),
        in_pieces("all but the last byte", |p, a| piece(p, a, p.kernel.len() - 1 - a.from().min(p.kernel.len() - 2)))
            .works(6),
        in_pieces("in chunks", |p, a| piece(p, a, 64 << 10).chunked(vec![Step::Send(b"0\r\n\r\n".to_vec())]))
            .works(requests(64 << 10)),
        in_pieces("no length", |p, a| piece(p, a, 64 << 10).length(Length::Absent)).works(requests(64 << 10)),
        in_pieces("a total of *", |p, a| {
            let mut reply = piece(p, a, 64 << 10);
            reply.headers.iter_mut().for_each(|(_, value)| *value = value.replace("/1500007", "/*"));
            reply
        })
        .works(requests(64 << 10)),
        // Behind a piece comes what is from nowhere: a break, and no byte of it is used.
        in_pieces("more than it says, no length", |p, a| {
            piece(p, a, 64 << 10).change(|b| b.extend(*b"xxxx")).length(Length::Absent)
        })
        .network()
        .ends(6, "network")
        .says(&["more than the part"])
        .leaves(Slot::SomePart, 6),
        in_pieces("a byte at a time", |p, a| piece(p, a, 1))
            .ends(6, "network")
            .says(&["too many pieces"])
            .leaves(Slot::Part(CUT + 4096 + 91 + 1), 4 + 4096 + 91 + 1),
    ]
}

pub fn rows() -> Vec<Row> {
    [refusal_rows(), piece_rows()].into_iter().flatten().collect()
}

#[apply(test)]
fn a_server_that_refuses_range_is_asked_for_the_whole() {
    need_disks();
    hold_all(refusal_rows());
}

#[apply(test)]
fn a_server_may_send_the_rest_in_pieces() {
    need_disks();
    hold_all(piece_rows());
}

/// What an earlier run left is no reason to fail for ever: one try is enough.
#[apply(test)]
fn what_is_left_of_a_download_does_not_stop_the_next_run() {
    need_disks();
    let refusals: [(&str, Refuse); 6] = [
        ("403", |_, _| Reply::new(403, "")),
        ("429, two hours", |_, _| Reply::new(429, "").header("Retry-After", "7200")),
        ("500", |_, _| Reply::new(500, "")),
        ("closed", |_, _| Reply::raw(vec![])),
        ("no byte", |p, a| rest(p, a).then(0, vec![])),
        ("an endless redirect", |_, a| Reply::redirect(&a.path)),
    ];
    for (name, refuse) in refusals {
        let machine = Machine::new();
        let server = row(name, |p, a| match p.is_kernel(a) && a.is_get() {
            true => p.honest(a).then(CUT, vec![]),
            false => p.honest(a),
        })
        .start(&machine);
        apply(&machine).expect(6, &["before the end"]);
        drop(server);
        let _server = row(name, move |p, a| match (p.is_kernel(a), &a.range) {
            (true, Some(_)) => refuse(p, a),
            _ => p.honest(a),
        })
        .start(&machine);
        apply(&machine).expect(0, &["Range", "asking for the whole", "2.0.0 is staged"]);
        assert_staged(&machine, name);
    }
}

/// What an earlier run left may be spoilt (by the disk, by a place that is not asked any more, by a power cut while it was read
/// back): the place that sends the rest is not to blame for it, unless it sends something else as a whole.
#[apply(test)]
fn what_is_left_and_spoilt_is_blamed_on_nobody() {
    const WITH: &str = "vmlinuz: with what an earlier run left it is not what was published; from the start again";
    let wrong = |ask: &Ask| {
        let kernel = PUBLISHED.kernel.iter().map(|b| !b).collect::<Vec<u8>>();
        if PUBLISHED.is_kernel(ask) && !ask.is_other { Reply::ok(kernel) } else { honest(ask) }
    };
    for conf in MIRRORED {
        for is_first_wrong in [false, true] {
            let bench = Bench::new(conf, move |ask| if is_first_wrong { wrong(ask) } else { honest(ask) });
            let whole = PUBLISHED.kernel.len() as u64;
            for left in [CUT as u64, whole] {
                bench.machine.in_slot(B, &format!("rm -f vmlinuz; head -c {left} /dev/zero >{}", part_name()));
                let before = bench.at_other().len();
                let run = bench.run(&["apply", "--retry-failed"]);
                assert!(run.stderr.contains(WITH), "{run:?}");
                assert_eq!(run.stderr.contains("tampered"), is_first_wrong, "{run:?}");
                assert_eq!(run.stderr.contains("at the next place"), is_first_wrong, "{run:?}");
                assert_eq!(bench.at_other().len() > before, is_first_wrong, "{run:?}");
                bench.staged(run);
                bench.machine.root.agent(&["rollback"]).expect(0, &[]);
            }
        }
    }
}

#[apply(test)]
fn the_table_is_listed() {
    assert_listed("hostile_ranges", &rows());
}
