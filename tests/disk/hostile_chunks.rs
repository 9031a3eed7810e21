//! The hostile tables once more, where the release has chunk indexes and the running slot most of it: every row that comes as far
//! as the files, and rows about indexes and about parts. No byte that is wrong is staged; a fault of an index or of a part costs
//! the whole file at most, and a bounded number of requests.

use crate::support::delta::{Delta, index};
use crate::support::disk::{A, B, kernel_noise, need_disks, noise};
use crate::support::hostile::{Ask, Length, Reply, Step};
use crate::support::hostile_table::{
    CHUNKED, PUBLISHED, Published, Row, Slot, apply, assert_listed, hold_all, manifest, part, row,
};
use crate::support::machine::Machine;
use crate::support::release::{Release, sha256};
use std::sync::LazyLock;
use std::time::Duration;

/// The two indexes, and the second range of each file.
const MORE: usize = 4;
/// Document, HEAD, two indexes, two ranges of each file.
const GOOD: usize = 8;
/// The same with the kernel in one piece.
const WHOLE: usize = 7;
/// Enough tries for a break, and quick ones.
const TRIES: &str = "retries = 3\nstall_timeout = 5";
const GIB: u64 = 1 << 30;

/// A server that spoils what is asked for as a whole, or all of it alike, spoils nothing that is asked for here.
const AVOIDED: [&str; 3] = [
    "a part that nobody asked for, registry",
    "a part that nobody asked for, server",
    "the entity changes all the time",
];

/// What comes behind an announced part is a break, and not one more byte of the file.
const MORE_THAN_A_PART: [&str; 3] = ["right digest, one byte", "right digest, bytes without end", "chunks without end"];

fn again(row: Row) -> Row {
    let begins = |words: &str| row.name.starts_with(words);
    let is_avoided = AVOIDED.contains(&row.name.as_str());
    let is_other_end = MORE_THAN_A_PART.iter().any(|words| begins(words));
    // Each request of a redirect takes another one, or six; and what goes on comes as far as the initramfs.
    let more = if begins("redirect") { 2 * MORE } else { MORE + usize::from(is_avoided) };
    let row = row.again(is_avoided, more);
    if is_other_end { row.ends(6, "network").says(&["more than the part"]) } else { row }
}

fn second_pass() -> Vec<Row> {
    [super::hostile_files::rows(), super::hostile_ranges::rows(), super::hostile_redirects::rows()]
        .into_iter()
        .flatten()
        .filter(Row::touches_files)
        .map(again)
        .collect()
}

type Answer = fn(&Published, &Ask, Reply) -> Reply;

/// A row about a release with indexes, of which all but this is honest.
fn spoilt(name: &str, is_it: fn(&Published, &Ask) -> bool, answer: Answer) -> Row {
    let script = move |p: &Published, a: &Ask| match a.is_get() && is_it(p, a) {
        true => answer(p, a, p.honest(a)),
        false => p.honest(a),
    };
    row(name, script).of(&CHUNKED).says(&["staged"])
}

/// The kernel's index is spoilt: the kernel is fetched whole.
fn bad_index(name: &str, answer: Answer) -> Row {
    spoilt(&format!("index: {name}"), |p, a| p.index_of(a) == Some(0), answer)
        .says(&["vmlinuz: that layer is fetched whole", "staged"])
        .works(WHOLE)
}

fn index_rows() -> Vec<Row> {
    const HASTY: &str = "retries = 0\nstall_timeout = 1";
    let moved = |p: &Published, a: &Ask, _: Reply| match a.path.strip_prefix("/moved") {
        Some(path) => p.honest(&Ask { path: path.into(), ..a.clone() }),
        None => Reply::redirect(&format!("/moved{}", a.path)),
    };
    vec![
        bad_index("cut", |_, _, r| r.then(100, vec![])),
        bad_index("cut, announced", |_, _, r| r.change(|b| b.truncate(100))),
        bad_index("cut, announced, server", |_, _, r| r.change(|b| b.truncate(100))).http(),
        bad_index("empty", |_, _, r| r.change(Vec::clear)),
        bad_index("too long, announced", |_, _, r| r.change(|b| b.push(0))),
        bad_index("too long, no length", |_, _, r| r.change(|b| b.push(0)).length(Length::Absent)),
        bad_index("too long, no length, server", |_, _, r| r.change(|b| b.push(0)).length(Length::Absent)).http(),
        bad_index("without end", |_, _, r| r.length(Length::Absent).then_flood(&[7; 4096])),
        bad_index("chunks without end", |_, _, r| {
            r.chunked(vec![Step::Flood([b"1000\r\n".as_slice(), &[7; 4096], b"\r\n"].concat())])
        }),
        bad_index("1 GiB by its header", |_, _, r| r.says(GIB)),
        bad_index("1 GiB by its header, server", |_, _, r| r.says(GIB)).http(),
        bad_index("Content-Encoding", |_, _, r| r.header("Content-Encoding", "gzip")),
        bad_index("HTML", |_, _, _| Reply::ok("<html>").header("Content-Type", "text/html")),
        bad_index("one bit", |_, _, r| r.change(|b| b[70] ^= 4)),
        bad_index("the other one", |p, _, _| Reply::ok(p.indexes.as_ref().unwrap()[1].as_slice())),
        bad_index("a part that nobody asked for", |_, _, r| r.status(206)),
        bad_index("404", |_, _, _| Reply::new(404, "")),
        bad_index("401", |_, _, _| Reply::new(401, "")),
        bad_index("500", |_, _, _| Reply::new(500, "")),
        bad_index("429, a year", |_, _, _| Reply::new(429, "").header("Retry-After", "31536000")).conf(""),
        bad_index("closed at once", |_, _, _| Reply::raw(vec![])),
        bad_index("reset at once", |_, _, _| Reply::raw(vec![Step::Reset])),
        bad_index("no answer", |_, _, _| Reply::raw(vec![Step::Stall])).conf(HASTY),
        bad_index("stall", |_, _, r| r.then(100, vec![Step::Stall])).conf(HASTY),
        bad_index("a redirect loop", |_, a, _| Reply::redirect(&a.path)).works(WHOLE + 5),
        spoilt("index: redirected: good", |p, a| p.index_of(a) == Some(0), moved).works(GOOD + 1),
    ]
}

/// A release with another index of its kernel, which is announced as it is.
fn lie(name: &str, change: impl Fn(&mut Vec<u8>)) -> Row {
    let mut indexes = CHUNKED.indexes.clone().unwrap();
    change(&mut indexes[0]);
    let published: &'static Published = Box::leak(Box::new(PUBLISHED.with_indexes(indexes)));
    row(format!("index: {name}"), |p, a| p.honest(a))
        .of(published)
        .says(&["vmlinuz: that layer is fetched whole", "staged"])
        .works(WHOLE)
}

/// Every other chunk is one that nobody has.
fn alternate(index: &mut [u8]) {
    index[56..].chunks_mut(24).for_each(|two| two[4] ^= 1);
}

fn lie_rows() -> Vec<Row> {
    let number =
        |at: usize, bytes: &'static [u8]| move |index: &mut Vec<u8>| index[at..at + bytes.len()].copy_from_slice(bytes);
    let described = |name: &str, to: &'static str| {
        // In the manifest alone.
        let script = move |p: &Published, a: &Ask| {
            let length = format!("\"size\":{}", p.indexes.as_ref().unwrap()[0].len());
            match a.path.contains("/manifests/") {
                true => manifest(&p.manifest.replacen(&length, to, 1)),
                false => p.honest(a),
            }
        };
        row(format!("index: {name}"), script).of(&CHUNKED)
    };
    let whole = &["vmlinuz: that layer is fetched whole", "staged"];
    vec![
        lie("2^32 - 1 chunks", number(12, &[255; 4])),
        lie("cut by rule 2^32 - 1", number(8, &[255; 4])),
        lie("of a layer of 2^64 - 1 bytes", number(16, &[255; 8])),
        lie("a chunk of 2^32 - 1 bytes", number(56, &[255; 4])),
        lie("a chunk of no bytes", number(56, &[0; 4])),
        lie("a million chunks", |index| index.resize(56 + 12_000_000, 1)),
        lie("every other chunk unknown: good", |index| alternate(index)).says(&["staged"]).works(GOOD + 40),
        lie("every chunk unknown: good", |index| index[56..].chunks_mut(12).for_each(|one| one[4] ^= 1))
            .says(&["staged"])
            .works(WHOLE),
        lie("two chunks have each other's hash", |index| {
            let (first, second) = (56 + 12 * 3 + 4, 56 + 12 * 4 + 4);
            (0..8).for_each(|at| index.swap(first + at, second + at));
        })
        .says(&["staged"])
        .works(GOOD + 1),
        described("described with 1 GiB", "\"size\":1073741824").says(whole).works(WHOLE - 1),
        described("described with 2^63 - 1 bytes", "\"size\":9223372036854775807").says(whole).works(WHOLE - 1),
        described("described with too few bytes", "\"size\":100").says(whole).works(WHOLE),
        described("described with no bytes", "\"size\":0").says(&["size"]),
    ]
}

/// A part of the kernel.
fn is_part(p: &Published, a: &Ask) -> bool {
    p.is_kernel(a) && a.range.is_some()
}

fn bad_part(name: &str, answer: Answer) -> Row {
    spoilt(&format!("parts: {name}"), is_part, answer).conf(TRIES)
}

fn of_other_bytes(p: &Published, a: &Ask) -> Reply {
    part(&[&p.initramfs[..], &p.initramfs].concat()[..p.kernel.len()], a)
}

fn part_rows() -> Vec<Row> {
    let wrong_whole = |p: &Published, a: &Ask| match p.is_kernel(a) && a.is_get() {
        true => of_other_bytes(p, a),
        false => p.honest(a),
    };
    let slowly = |p: &Published, _: &Ask, _: Reply| {
        let middle = p.kernel.len() / 2;
        let drip = Step::Drip(p.kernel[middle..middle + 9].to_vec(), Duration::from_millis(100));
        Reply::ok("")
            .says(p.kernel.len())
            .then(0, vec![Step::Send(p.kernel[..middle].to_vec()), drip, Step::Send(p.kernel[middle + 9..].to_vec())])
            .says(p.kernel.len())
    };
    // A part is wrong, and by then it is too late to ask for that part alone.
    let changed = |p: &Published, a: &Ask, r: Reply| match a.nth {
        0 => of_other_bytes(p, a).header("ETag", "\"one\""),
        _ => r.header("ETag", "\"two\""),
    };
    vec![
        bad_part("another file's bytes", |p, a, _| of_other_bytes(p, a))
            .says(&["it is not what was published", "all of it fetched", "staged"])
            .works(GOOD + 1),
        row("parts: another file's bytes, and the whole as well", wrong_whole)
            .of(&CHUNKED)
            .conf(TRIES)
            .digest()
            .says(&["all of it fetched", "expected was sha256:"])
            .leaves(Slot::NotStaged, GOOD),
        bad_part("the file changes between two", changed).says(&["all of it fetched", "staged"]).works(GOOD + 1),
        bad_part("the first alone, then 403", |_, a, r| if a.nth == 0 { r } else { Reply::new(403, "") })
            .works(GOOD + 1),
        bad_part("the first alone, then 500", |_, a, r| if a.nth == 0 { r } else { Reply::new(500, "") })
            .works(GOOD + 2),
        bad_part("the first alone, then closed", |_, a, r| if a.nth == 0 { r } else { Reply::raw(vec![]) })
            .works(GOOD + 2),
        bad_part("the first alone, then silence", |_, a, r| if a.nth == 0 { r } else { Reply::raw(vec![Step::Stall]) })
            .conf("retries = 3\nstall_timeout = 1")
            .works(GOOD + 2),
        bad_part("the whole, slowly, for each", slowly).works(WHOLE),
        bad_part("the whole, of another length", |_, _, _| Reply::ok(vec![7; 9])).works(GOOD + 1),
        bad_part("all that follows, for each", |p, a, _| {
            part(&p.kernel, &Ask { range: Some(format!("bytes={}-", a.from())), ..a.clone() })
        })
        .works(WHOLE),
        bad_part("half of it, for each", |p, a, _| {
            let end = a.from() + (a.end().unwrap_or(p.kernel.len()) - a.from()).div_ceil(2);
            part(&p.kernel, &Ask { range: Some(format!("bytes={}-{}", a.from(), end - 1)), ..a.clone() })
        })
        .works(GOOD + 2 * 18),
        bad_part("one byte more than was asked for, announced", |p, a, _| {
            part(&p.kernel, &Ask { range: Some(format!("bytes={}-{}", a.from(), a.end().unwrap())), ..a.clone() })
        })
        .works(GOOD),
        bad_part("each breaks off once", |_, a, r| if a.nth % 2 == 0 { r.then(30_000, vec![Step::Reset]) } else { r })
            .works(GOOD + 2),
        bad_part("chunked, with a length as well", |_, _, r| r.header("Transfer-Encoding", "chunked")).works(GOOD + 2),
        bad_part("boundaries of several at once", |_, _, mut r| {
            r.headers.clear();
            r.header("Content-Type", "multipart/byteranges; boundary=x")
        })
        .works(GOOD),
    ]
}

fn rows() -> Vec<Row> {
    [second_pass(), index_rows(), lie_rows(), part_rows()].into_iter().flatten().collect()
}

#[apply(test)]
fn every_row_that_touches_a_file_holds_with_chunks() {
    need_disks();
    hold_all(second_pass());
}

#[apply(test)]
fn hostile_indexes_and_parts() {
    need_disks();
    hold_all([index_rows(), lie_rows(), part_rows()].into_iter().flatten().collect());
}

#[apply(test)]
fn the_table_is_listed() {
    assert_listed("hostile_chunks", &rows());
}

/// A kernel of chunks of this one, each with a little behind it that this one has not: as many ranges as an index can lead to.
/// Returns: the release, and how many such chunks there are.
fn in_fragments(old: &[u8]) -> (Published, usize) {
    const LITTLE: usize = 4096;
    let little = noise(99, LITTLE);
    let head = |sha: &str| -> Vec<u8> {
        (0..sha.len() / 2).map(|at| u8::from_str_radix(&sha[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    let (cuts, mut at) = (index(old), 0);
    let (mut kernel, mut entries, mut count) = (Vec::new(), Vec::new(), 0);
    for entry in cuts[56..].chunks(12) {
        let length = u32::from_le_bytes(entry[..4].try_into().unwrap()) as usize;
        if at == 0 || length >= 16 << 10 {
            kernel.extend_from_slice(&old[at..at + length]);
            kernel.extend_from_slice(&little);
            entries.extend_from_slice(entry);
            entries.extend_from_slice(&(LITTLE as u32).to_le_bytes());
            entries.extend_from_slice(&head(&sha256(&little))[..8]);
            count += 1;
        }
        at += length;
    }
    let mut release = Release::new("2.0.0");
    let mut lies = cuts[..12].to_vec();
    lies.extend_from_slice(&(2 * count as u32).to_le_bytes());
    lies.extend_from_slice(&(kernel.len() as u64).to_le_bytes());
    lies.extend_from_slice(&head(&sha256(&kernel)));
    lies.extend_from_slice(&entries);
    release.ours_mut().kernel = kernel;
    let indexes = [lies, CHUNKED.indexes.as_ref().unwrap()[1].clone()];
    (Published::new(release, Some(indexes)), count)
}

/// A machine that runs the old kernel.
fn running(old: Vec<u8>, new: &Release) -> Machine {
    let mut machine = Machine::new();
    Delta { old_kernel: old, old_initramfs: PUBLISHED.initramfs.clone(), new: new.clone() }.install(&mut machine, &[]);
    machine
}

#[apply(test)]
fn no_index_leads_to_more_than_256_ranges() {
    need_disks();
    let old = kernel_noise(9, 18 << 20);
    let (published, count) = in_fragments(&old);
    assert!(count > 300, "{count}");
    let machine = running(old, &published.release);
    let published: &'static Published = Box::leak(Box::new(published));
    let server = row("fragments", |p, a| p.honest(a)).of(published).start(&machine);
    let run = apply(&machine).expect(0, &["2.0.0 is staged"]);
    assert!(
        machine.disk.file(B, "vmlinuz").unwrap() == published.kernel && machine.disk.bytes(A) == machine.running,
        "{run:?}"
    );
    let ranges = server.seen().iter().filter(|ask| ask.range.is_some()).count();
    assert!((64..=256).contains(&ranges), "{ranges}");
}

/// A byte at a time, of very many short parts: as many requests as the same server costs without an index, and no more.
#[apply(test)]
fn many_parts_are_not_many_times_the_requests() {
    static FRAGMENTS: LazyLock<(Vec<u8>, Published)> = LazyLock::new(|| {
        let old = kernel_noise(9, 3 << 20);
        let published = in_fragments(&old).0;
        (old, published)
    });
    need_disks();
    let machine = running(FRAGMENTS.0.clone(), &FRAGMENTS.1.release);
    let script = |p: &Published, a: &Ask| match is_part(p, a) {
        true => part(&p.kernel, &Ask { range: Some(format!("bytes={0}-{0}", a.from())), ..a.clone() }),
        false => p.honest(a),
    };
    let server = row("a byte at a time", script).of(&FRAGMENTS.1).start(&machine);
    apply(&machine).expect(6, &["too many pieces"]);
    let requests = server.seen().len();
    assert!(requests < 4096, "{requests}");
    drop(server);
    let _honest = row("honest", |p, a| p.honest(a)).of(&FRAGMENTS.1).start(&machine);
    apply(&machine).expect(0, &["2.0.0 is staged"]);
    assert!(machine.disk.file(B, "vmlinuz").unwrap() == FRAGMENTS.1.kernel);
}
