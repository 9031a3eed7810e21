//! Memory: the largest documents that are read, in every framing. A static build is held to the limit; a debug build is
//! only seen to work.

use crate::support::hostile::{Length, Reply, Step};
use crate::support::hostile_bench::{Bench, SOURCES, each, hold, honest, is_document};
use crate::support::need;

/// Most memory that a run may have at once.
const MAX_RSS_KIB: u64 = 6 << 10;
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
