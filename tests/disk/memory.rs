//! Memory: the largest documents that are read, in every framing. A static build is held to the limit; a debug build is
//! only seen to work.

use crate::support::delta;
use crate::support::disk::noise;
use crate::support::hostile::{Hostile, Length, Reply, Step};
use crate::support::hostile_bench::{Bench, SOURCES, each, hold, honest, is_document};
use crate::support::hostile_table::{CHUNKED, PUBLISHED, Published, assert_staged, before};
use crate::support::need;
use crate::support::release::Release;
use crate::support::root::Run;
use kubesolo_update::parts::chunks::cut::{Rule, cut};
use std::sync::Arc;

/// Most memory that a run may have at once.
const MAX_RSS_KIB: u64 = 6 << 10;
/// The same for an update, whatever its size.
const MAX_RSS_APPLY_KIB: u64 = 3 << 10;
/// Longest document that is read.
const LONGEST: usize = 4 << 20;

/// Makes a document as long as one may be. Input: what it is, and what fills it.
type Fill = fn(&str, usize) -> String;

const FILLS: [(&str, Fill); 5] = [
    ("blanks", |document, room| format!("{document}{}", " ".repeat(room))),
    ("one text", |document, room| with_field(document, &"x".repeat(room - 9))),
    ("one text of escapes", |document, room| with_field(document, &r"\u00e9".repeat(room / 6 - 2))),
    ("one text of pairs", |document, room| with_field(document, &r"\ud83d\ude00".repeat(room / 12 - 2))),
    ("one text of line feeds", |document, room| with_field(document, &r"\n".repeat(room / 2 - 9))),
];

fn with_field(document: &str, text: &str) -> String {
    document.replacen('{', &format!("{{\"x\":\"{text}\","), 1)
}

fn in_chunks(bytes: &[u8]) -> Vec<u8> {
    let chunk = |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
    let mut out: Vec<u8> = bytes.chunks(16 << 10).flat_map(chunk).collect();
    out.extend(b"0\r\n\r\n");
    out
}

#[apply(test)]
fn the_longest_documents_fit_in_however_they_are_sent() {
    need("time");
    let framed = [("blanks", "its length"), ("blanks", "chunks")].into_iter();
    let framed: Vec<_> = framed.chain(FILLS.iter().map(|(fill, _)| (*fill, "the end"))).collect();
    let cases = each(&SOURCES, &framed);
    hold(cases, |(conf, (fill, framing))| {
        let (_, fill) = FILLS.iter().find(|(name, _)| *name == fill).unwrap();
        let bench = Bench::new(conf, move |ask| {
            let good = honest(ask);
            if ask.method == "HEAD" || !is_document(ask) {
                return good;
            }
            let [Step::Send(bytes)] = good.body.as_slice() else { panic!("no bytes") };
            let document = String::from_utf8(bytes.clone()).unwrap();
            let filled = fill(&document, LONGEST - document.len()).into_bytes();
            assert!(filled.len() <= LONGEST && filled.len() > LONGEST - 64, "{}", filled.len());
            match framing {
                "its length" => Reply { body: vec![Step::Send(filled)], ..good },
                "chunks" => Reply { body: vec![Step::Send(in_chunks(&filled))], ..good }
                    .header("Transfer-Encoding", "chunked")
                    .length(Length::Absent),
                _ => Reply { body: vec![Step::Send(filled)], ..good }.length(Length::Absent),
            }
        });
        let (done, kib) = bench.measure(&["check"]);
        eprintln!("peak {kib} KiB");
        done.expect(0, &["2.0.0"]);
        match std::env::var_os("KUBESOLO_UPDATE_BIN") {
            Some(_) => assert!(kib < MAX_RSS_KIB, "{kib} KiB"),
            None => eprintln!("a debug build: its {kib} KiB are held to nothing"),
        }
    });
}

/// Runs a command against an honest server of a release with indexes. Returns: the run, and its peak memory in KiB.
fn measure(published: &'static Published, conf: &str, arguments: &[&str]) -> (Bench, Run, u64) {
    let server = Hostile::start(Arc::new(|ask| published.honest(ask)));
    let bench = Bench { machine: published.machine(), server };
    bench.configure(conf);
    let (done, kib) = bench.measure(arguments);
    eprintln!("{arguments:?}: peak {kib} KiB");
    (bench, done, kib)
}

fn is_held() -> bool {
    std::env::var_os("KUBESOLO_UPDATE_BIN").is_some()
}

#[apply(test)]
fn an_update_by_chunks_takes_no_more_than_any_other() {
    need("time");
    hold(SOURCES, |conf| {
        let (bench, done, kib) = measure(&CHUNKED, conf, &["apply"]);
        done.expect(0, &["2.0.0 is staged", " fetched, "]);
        assert_staged(&bench.machine, conf);
        assert!(kib < MAX_RSS_APPLY_KIB || !is_held(), "{kib} KiB");
    });
}

/// The longest index that there may be, of which every other chunk is at hand, or all of them; no two of them are one stretch.
#[apply(test)]
fn the_longest_index_fits_in() {
    need("time");
    hold(each(&[true, false], &SOURCES), |(is_all, conf)| {
        let published: &'static Published = Box::leak(Box::new(with_longest_index(is_all)));
        let server = Hostile::start(Arc::new(|ask| published.honest(ask)));
        let bench = Bench { machine: CHUNKED.machine_with(160), server };
        bench.configure(conf);
        for (verb, says) in [("check", ["2.0.0", "slot A has"]), ("apply", ["2.0.0 is staged", "all of it fetched"])] {
            let (done, kib) = bench.measure(&[verb]);
            eprintln!("{verb} with the longest index: peak {kib} KiB");
            done.expect(0, &says);
            assert!(kib < MAX_RSS_KIB || !is_held(), "{verb}: {kib} KiB");
        }
    });
}

fn with_longest_index(is_all: bool) -> Published {
    const CHUNKS: u32 = 64 << 10;
    const LEAST: u32 = 1024;
    let (mut known, kernel) = (Vec::new(), before(&PUBLISHED.kernel));
    cut(&mut kernel.as_slice(), Rule::new(12).unwrap(), &mut |_| {}, &mut |chunk, _| known.push(chunk)).unwrap();
    // The last one may be shorter than the rule gives elsewhere.
    known.pop();
    let known = known.into_iter().min_by_key(|chunk| chunk.length).unwrap();
    let mut release = Release::new("2.0.0");
    let other = if is_all { known.length } else { LEAST };
    release.ours_mut().kernel = vec![7; (CHUNKS / 2) as usize * (other + known.length) as usize];
    let mut index = delta::index(&release.ours().kernel)[..56].to_vec();
    index[8..12].copy_from_slice(&12u32.to_le_bytes());
    index[12..16].copy_from_slice(&CHUNKS.to_le_bytes());
    for unknown in noise(5, 4 * CHUNKS as usize).chunks(8) {
        let other = (other, if is_all { &known.sha256_head[..] } else { unknown });
        for (length, hash) in [other, (known.length, &known.sha256_head)] {
            index.extend_from_slice(&length.to_le_bytes());
            index.extend_from_slice(hash);
        }
    }
    let indexes = [index, CHUNKED.indexes.as_ref().unwrap()[1].clone()];
    Published::new(release, Some(indexes))
}
