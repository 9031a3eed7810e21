use super::*;
use crate::chunks::plan::push;
use crate::offer::artifact::{Artifact, Place};
use std::io::{Cursor, Write};

const WHOLE: &[u8] = b"abcdefghij";

/// A source of blobs that are named by their length: `abc`, `d` and `efghij`.
#[derive(Default)]
struct Blobs {
    /// Bytes more, or fewer, that a blob has than it should: of what length that one is.
    more: Option<(u64, i64)>,
    gone: Option<u64>,
    /// A part cannot be had: the rest comes too.
    runs_on: bool,
    pieced: Option<u64>,
    asked: Vec<(u64, u64)>,
    /// Length of each blob that was asked for, and since when.
    begun: Vec<(u64, Instant)>,
}

impl Source for Blobs {
    fn resolve(&mut self, _: &str) -> Result<Artifact> {
        unreachable!("the file is known")
    }

    fn open(&mut self, blob: &FileRef, part: std::ops::Range<u64>, begun: Instant) -> Result<Body> {
        self.begun.push((blob.size_bytes, begun));
        let begin = match blob.size_bytes {
            3 => 0,
            1 => 3,
            _ => 4,
        };
        self.asked.push((begin + part.start, begin + part.end));
        if self.gone == Some(blob.size_bytes) {
            return Err(Error::new(Kind::Source, "gone"));
        }
        let end = if self.runs_on { blob.size_bytes } else { part.end };
        let mut bytes = WHOLE[(begin + part.start) as usize..(begin + end) as usize].to_vec();
        match self.more.filter(|(length, _)| *length == blob.size_bytes) {
            Some((_, more)) if more > 0 => bytes.push(b'!'),
            Some(_) => drop(bytes.pop()),
            None => {}
        }
        let body = Body::whole(Cursor::new(bytes), end);
        body.is_pieced.set(self.pieced == Some(blob.size_bytes));
        Ok(body)
    }

    fn probe(&mut self, _: &FileRef) -> Result<()> {
        Ok(())
    }

    fn describe(&self) -> String {
        String::new()
    }
}

fn blobs() -> Vec<FileRef> {
    let blob = |bytes: &[u8]| FileRef {
        size_bytes: bytes.len() as u64,
        sha256: Digest::of(bytes),
        chunks: None,
        place: Place::Blob,
    };
    vec![blob(b"abc"), blob(b"d"), blob(b"efghij")]
}

/// Of the file, as the slot has it: bytes 1 to 3, 5 to 6, 9.
fn pieces() -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (length, found) in [(1, None), (3, Some(11)), (1, None), (2, Some(5)), (2, None), (1, Some(9))] {
        push(&mut pieces, length, found);
    }
    pieces
}

fn local(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

const LOCAL: &[u8] = b".....fg..j.bcd";

fn read(source: &mut Blobs, local: Option<File>, from: u64, step: usize) -> io::Result<(Vec<u8>, Traffic)> {
    let pieces = if local.is_some() { pieces() } else { Vec::new() };
    let traffic = Cell::default();
    let recipe = Recipe { blobs: blobs(), pieces: Rc::new(pieces), local };
    let mut reader = Opened::new(source, recipe, from).map_err(io::Error::other)?.read(source, &traffic);
    let (mut out, mut buffer) = (Vec::new(), vec![0; step]);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((out, traffic.get())),
            n => out.extend_from_slice(&buffer[..n]),
        }
    }
}

#[test]
fn reads_on_from_every_byte_in_steps_of_every_length() {
    for from in 0..10 {
        for step in 1..12 {
            let (bytes, traffic) = read(&mut Blobs::default(), None, from, step).unwrap();
            assert_eq!(bytes, &WHOLE[from as usize..], "{from} {step}");
            assert_eq!((traffic.fetched_bytes, traffic.copied_bytes), (10 - from, 0));
            for runs_on in [false, true] {
                let mut source = Blobs { runs_on, ..Blobs::default() };
                let (bytes, traffic) = read(&mut source, Some(local(LOCAL)), from, step).unwrap();
                assert_eq!(bytes, &WHOLE[from as usize..], "{from} {step} {runs_on}");
                assert_eq!(traffic.fetched_bytes + traffic.copied_bytes, 10 - from);
            }
        }
    }
}

#[test]
fn only_what_is_not_at_hand_is_fetched() {
    let mut source = Blobs::default();
    let (_, traffic) = read(&mut source, Some(local(LOCAL)), 0, 100).unwrap();
    assert_eq!((traffic.fetched_bytes, traffic.copied_bytes), (4, 6));
    assert_eq!(source.asked, [(0, 1), (4, 5), (7, 9)]);
    // The parts of a blob share its time, and each blob has its own.
    let [(3, _), (6, first), (6, second)] = source.begun[..] else { panic!("{:?}", source.begun) };
    assert!(first == second && first > source.begun[0].1, "{:?}", source.begun);
    // What comes unasked is taken, instead of asking again.
    let mut source = Blobs { runs_on: true, ..Blobs::default() };
    let (_, traffic) = read(&mut source, Some(local(LOCAL)), 0, 100).unwrap();
    assert_eq!((traffic.fetched_bytes, traffic.copied_bytes), (9, 1));
    assert_eq!(source.asked, [(0, 1), (4, 5)]);
}

#[test]
fn a_slot_that_cannot_be_read_costs_only_the_rest() {
    for length in 0..LOCAL.len() {
        let mut source = Blobs::default();
        let (bytes, traffic) = read(&mut source, Some(local(&LOCAL[..length])), 0, 3).unwrap();
        assert_eq!(bytes, WHOLE, "{length}");
        assert!(traffic.fetched_bytes >= 4 && source.asked.len() <= 4, "{length}: {:?}", source.asked);
    }
}

#[test]
fn a_blob_of_another_length_is_an_error() {
    for (more, word) in [(1, "longer"), (-1, "early")] {
        for local in [None, Some(local(LOCAL))] {
            // The whole blob is fetched, or its first byte.
            let length = if local.is_some() { 3 } else { 1 };
            let mut source = Blobs { more: Some((length, more)), runs_on: true, ..Blobs::default() };
            let e = read(&mut source, local, 0, 4).unwrap_err();
            assert!(e.to_string().contains(word), "{e}");
            let kind = e.get_ref().unwrap().downcast_ref::<Error>().unwrap().kind();
            assert_eq!(kind, if more > 0 { Kind::Digest } else { Kind::Network });
        }
    }
}

#[test]
fn a_blob_that_cannot_be_opened_is_the_error_of_whoever_reads() {
    let mut source = Blobs { gone: Some(1), ..Blobs::default() };
    let e = read(&mut source, None, 0, 4).unwrap_err();
    let ours = e.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert!(ours.kind() == Kind::Source && ours.to_string().contains("gone"), "{ours}");
}

#[test]
fn says_when_one_blob_came_in_pieces() {
    for (pieced, said) in [(None, false), (Some(1), true), (Some(6), true)] {
        let mut source = Blobs { pieced, ..Blobs::default() };
        let traffic = Cell::default();
        let recipe = Recipe { blobs: blobs(), pieces: Rc::default(), local: None };
        let mut reader = Opened::new(&mut source, recipe, 0).unwrap().read(&mut source, &traffic);
        assert!(!reader.is_pieced());
        reader.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(reader.is_pieced(), said);
    }
}
