//! Tests of the threads: layers, faults in each of them, and what waits for what.

use super::*;
use crate::base::digest::Digest;
use crate::slot::initramfs;
use crate::slot::record::KERNEL;
use crate::slot::stage::{self, Part, Step};
use std::io::Read;
use std::io::Write as _;
use std::process::{Command, Stdio};

fn noise(length: usize) -> Vec<u8> {
    let mut seed = 5u32;
    (0..length)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .collect()
}

/// A member of one file, packed.
fn member(name: &str, length: usize) -> Vec<u8> {
    packed(&archive(name, length))
}

fn archive(name: &str, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in [(name, &noise(length)[..]), ("TRAILER!!!", b"")] {
        let mut header = "070701".to_string();
        for number in [7, 0o100_644, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0] {
            header.push_str(&format!("{number:08x}"));
        }
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip").arg("-n1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = gzip.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes).unwrap());
        let mut out = Vec::new();
        gzip.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        assert!(gzip.wait().unwrap().success());
        out
    })
}

fn record_of(bytes: &[u8]) -> FileRecord {
    FileRecord { size_bytes: bytes.len() as u64, sha256: Digest::of(bytes) }
}

/// Stages an initramfs of layers.
fn staged(layers: &[Vec<u8>]) -> Result<u32> {
    let bytes = layers.concat();
    let lengths: Vec<u64> = layers.iter().map(|layer| layer.len() as u64).collect();
    let dir = tempfile::tempdir().unwrap();
    let (expected, mut back) = (record_of(&bytes), 0);
    let part = Part { is_initramfs: true, layers: &lengths, ..Part::new(KERNEL, &expected) };
    let staged = stage::write(dir.path(), &part, 0, &mut &bytes[..], &mut |step| {
        if let Step::ReadBack(n) = step {
            back += n;
        }
    });
    assert_eq!(back, expected.size_bytes, "what is read back is told, whatever is found");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), usize::from(staged.is_ok()));
    staged
}

fn whole(bytes: &[u8]) -> std::result::Result<(), String> {
    let mut judge = Judge::default();
    judge.update(bytes, &mut |_| {})?;
    judge.finish()
}

/// The verdict of the layers alone.
fn alone(layers: &[Vec<u8>]) -> std::result::Result<(), String> {
    let (mut all, mut offset) = (initramfs::Accepted::default(), 0);
    for (number, layer) in layers.iter().enumerate() {
        let mut judge = Judge::behind(offset);
        judge.update(layer, &mut |_| {})?;
        all.add(&judge.finish_part(number + 1 == layers.len())?);
        offset += layer.len() as u64;
    }
    all.refusal().map_or(Ok(()), Err)
}

#[test]
fn layers_that_are_taken_alone_are_taken_together() {
    let aligned = |mut bytes: Vec<u8>| {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let gzip = member("one", 5000);
    let plain = archive("early", 9);
    let empty = packed(b"");
    let zeros = |count: usize| vec![0; count];
    let with = |pieces: &[&[u8]]| pieces.concat();
    let pieces = [
        gzip.clone(),
        aligned(gzip.clone()),
        plain.clone(),
        with(&[&plain, &zeros(1)]),
        with(&[&plain, &zeros(4)]),
        plain[..plain.len() - 1].to_vec(),
        with(&[&zeros(1), &gzip]),
        with(&[&zeros(3), &gzip]),
        with(&[&zeros(4), &plain]),
        with(&[&gzip, &zeros(2)]),
        packed(&with(&[&zeros(512), &plain])),
        empty,
        zeros(1),
        zeros(8),
        gzip[..700].to_vec(),
        gzip[700..].to_vec(),
        b"junk".to_vec(),
    ];
    let (mut taken, mut only_together) = (0, 0);
    for first in &pieces {
        for second in &pieces {
            for third in &pieces {
                let layers = [first.clone(), second.clone(), third.clone()];
                let (alone, whole) = (alone(&layers), whole(&layers.concat()));
                assert!(alone.is_err() || whole.is_ok(), "taken alone, and together {whole:?}");
                taken += u32::from(alone.is_ok());
                only_together += u32::from(alone.is_err() && whole.is_ok());
            }
        }
    }
    println!("{taken} taken alone, {only_together} only together");
    assert!(taken > 100 && only_together > 10);
}

#[test]
fn layers_are_judged_side_by_side_and_a_fault_in_any_is_found() {
    let good = || [member("a", 700_000), member("b", 10), member("c", 2_000_000), member("d", 300)].to_vec();
    staged(&good()).unwrap();
    for number in 0..4 {
        let mut layers = good();
        let at = layers[number].len() - 5;
        layers[number][at] ^= 1;
        let e = staged(&layers).unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().contains("its checksum is wrong"), "{number}: {e}");
    }
}

#[test]
fn a_cut_within_a_member_is_decided_by_the_whole() {
    let one = member("a", 300_000);
    for at in [1, 10, 100_000, one.len() - 8, one.len() - 1] {
        staged(&[one[..at].to_vec(), one[at..].to_vec()]).unwrap();
        let mut bad = one.clone();
        *bad.last_mut().unwrap() ^= 1;
        let e = staged(&[bad[..at].to_vec(), bad[at..].to_vec()]).unwrap_err();
        assert!(e.to_string().contains("its length is wrong"), "{at}: {e}");
    }
    staged(&[vec![], one.clone(), vec![], vec![]]).unwrap();
    staged(&[archive("early", 3), one.clone()]).unwrap();
    let e = staged(&[archive("early", 3), archive("plain", 3)]).unwrap_err();
    assert!(e.to_string().contains("without compression"), "{e}");
    let e = staged(&[vec![], vec![]]).unwrap_err();
    assert!(e.to_string().contains("it is empty"), "{e}");
}

#[test]
fn lengths_that_do_not_add_up_are_one_layer() {
    assert_eq!(split(&[], 9), [(0, 9)]);
    assert_eq!(split(&[0, 4, 0, 5], 9), [(0, 4), (4, 9)]);
    for wrong in [&[4, 4][..], &[9, 1], &[u64::MAX, 10], &[0]] {
        assert_eq!(split(wrong, 9), [(0, 9)]);
    }
    assert_eq!(split(&[0, 0], 0), [(0, 0)]);
}

/// Lets all of a file through. Input: `stack_bytes`: too many, and no thread starts.
fn flowed(bytes: &[u8], layers: Vec<(u64, u64)>, stack_bytes: usize) -> Result<Outcome> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let mut flow = Flow::start(file, &path, layers, stack_bytes);
    for (number, piece) in bytes.chunks(BUFFER).enumerate() {
        flow.file().write_all_at(piece, (number * BUFFER) as u64).unwrap();
        flow.add(piece.len() as u64).unwrap();
    }
    let mut back = 0;
    let outcome = flow.finish(&mut |n| back += n);
    assert!(outcome.is_err() || back == bytes.len() as u64);
    outcome
}

#[test]
fn without_threads_the_same_is_found() {
    let good = [member("a", 100_000), member("b", 1)];
    let bytes = good.concat();
    let middle = good[0].len() as u64;
    for stack_bytes in [STACK_BYTES, 1 << 46] {
        for layers in [vec![], vec![(0, bytes.len() as u64)], vec![(0, middle), (middle, bytes.len() as u64)]] {
            let outcome = flowed(&bytes, layers, stack_bytes).unwrap();
            assert_eq!((outcome.found.0, outcome.refused), (record_of(&bytes), None));
        }
        let outcome = flowed(b"junk", vec![(0, 4)], stack_bytes).unwrap();
        assert!(outcome.refused.is_some() && !outcome.is_doubt && outcome.found.0 == record_of(b"junk"));
    }
}

/// Each layer is small enough. The last one is never looked at, or it would be what is told.
#[test]
fn layers_that_are_too_large_together_are_not_unpacked_to_the_end() {
    let large = member("a", 20 << 20);
    let bytes = [&large[..], &large, &large, b"junk"].concat();
    let layers = split(&[large.len(), large.len(), large.len(), 4].map(|length| length as u64), bytes.len() as u64);
    assert_eq!(layers.len(), 4);
    let outcome = flowed(&bytes, layers, STACK_BYTES).unwrap();
    assert_eq!(outcome.refused.as_deref(), Some("it unpacks to more than 8 GiB"));
}

#[test]
fn every_length_is_read_back() {
    let most = noise(2 * STRETCH as usize + 1);
    let stretch = STRETCH as usize;
    for length in [0, 1, 4096, BUFFER - 1, BUFFER, BUFFER + 1, stretch, stretch + 1, 2 * stretch, 2 * stretch + 1] {
        let outcome = flowed(&most[..length], vec![], STACK_BYTES).unwrap();
        assert!(outcome.found.0 == record_of(&most[..length]), "{length}");
    }
}

/// Of what is written, long before the rest has come; and only once it is checked.
#[test]
fn what_is_written_is_read_back_while_the_rest_still_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let mut flow = Flow::start(file, &path, vec![], STACK_BYTES);
    flow.file().write_all_at(&noise(STRETCH as usize), 0).unwrap();
    flow.add(STRETCH).unwrap();
    let mut state = flow.shared.state();
    while state.read_back < STRETCH {
        state = flow.shared.wait(state);
    }
    drop(state);
    // Nothing more comes: it ends, and so do its threads.
    let shared = Arc::downgrade(&flow.shared);
    drop(flow);
    assert!(shared.upgrade().is_none());
}

#[test]
fn a_fault_of_the_reader_ends_the_run_before_the_body_does() {
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += buffer.len() as u64;
            Ok(buffer.len())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let mut flow = Flow::start(file, &path, vec![], STACK_BYTES);
    // What cannot be opened again cannot be read back.
    std::fs::remove_file(&path).unwrap();
    let (mut body, mut buffer) = (Endless(0), vec![0; BUFFER]);
    let e = loop {
        let length = body.read(&mut buffer).unwrap() as u64;
        flow.file().write_all_at(&buffer, (body.0 - length) % STRETCH).unwrap();
        if let Err(e) = flow.add(length) {
            break e;
        }
    };
    assert!(e.kind() == Kind::Device && e.to_string().contains("read back"), "{e}");
}

#[test]
fn a_body_that_fails_while_threads_work_leaves_what_came() {
    struct Fails<'a>(&'a [u8]);
    impl Read for Fails<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.is_empty() {
                true => Err(io::ErrorKind::ConnectionReset.into()),
                false => self.0.read(buffer),
            }
        }
    }
    let bytes = member("a", STRETCH as usize + 3_000_000);
    let (expected, dir) = (record_of(&bytes), tempfile::tempdir().unwrap());
    let part = Part { is_initramfs: true, ..Part::new(KERNEL, &expected) };
    let came = STRETCH as usize + 1_234_567;
    let e = stage::write(dir.path(), &part, 0, &mut Fails(&bytes[..came]), &mut |_| {}).unwrap_err();
    assert_eq!(e.kind(), Kind::Network, "{e}");
    let from = stage::left_over(dir.path(), &part);
    assert!(from > STRETCH, "{from}");
    stage::write(dir.path(), &part, from, &mut &bytes[from as usize..], &mut |_| {}).unwrap();
}
