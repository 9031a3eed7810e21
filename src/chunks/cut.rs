//! Cuts a stream into chunks by its content: a rolling hash of the last 64 bytes chooses the ends, so that an insertion moves
//! the cuts around it and no others.
//!
//! The rule is part of the format (docs/publishing.md, "The chunk index"): any change needs another version of it.
//! Must never: let the pieces in which the bytes arrive change where they are cut.

use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// Smallest and largest [`Rule`].
const BITS: std::ops::RangeInclusive<u32> = 12..=22;
/// Rule for files of up to [`MAX_USUAL_CHUNKS`] such chunks (measured: docs/performance.md).
const USUAL_BITS: u32 = 14;
const MAX_USUAL_CHUNKS: u64 = 32 << 10;
/// Bytes that the rolling hash depends on: each step moves the older ones one bit up and out.
const WINDOW: u32 = 64;

/// Bytes read at once.
const BUFFER: usize = 128 << 10;

/// Length of chunks: 2 to the power of this on average (counted from the least), at least a quarter and at most four times of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule(u32);

impl Rule {
    /// Returns the rule of a number in an index, if there is one.
    pub fn new(bits: u32) -> Option<Rule> {
        BITS.contains(&bits).then_some(Rule(bits))
    }

    /// Chooses a rule for a file: longer chunks for a longer file, so that its index stays small.
    pub fn of_size(size_bytes: u64) -> Rule {
        let fits = |bits: &u32| size_bytes >> bits <= MAX_USUAL_CHUNKS;
        Rule((USUAL_BITS..*BITS.end()).find(fits).unwrap_or(*BITS.end()))
    }

    /// Returns its number in an index.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Returns the least length of a chunk, except for the last of a file, in bytes.
    pub fn least(self) -> u32 {
        1 << (self.0 - 2)
    }

    /// Returns the most that a chunk may have, in bytes.
    pub fn most(self) -> u32 {
        1 << (self.0 + 2)
    }
}

/// One chunk: what an index has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chunk {
    /// The first 8 bytes of its SHA-256.
    pub sha256_head: [u8; 8],
    /// Length in bytes.
    pub length: u32,
}

/// Cuts a whole stream. Input: `piece` gets the bytes as they are read; `each` the chunks in order, with their places.
/// Errors: it cannot be read.
pub fn cut(
    stream: &mut dyn Read,
    rule: Rule,
    piece: &mut dyn FnMut(&[u8]),
    each: &mut dyn FnMut(Chunk, u64),
) -> io::Result<()> {
    let (mut cutter, mut at, mut buffer) = (Cutter::new(rule), 0, vec![0; BUFFER]);
    let mut take = |chunk: Chunk| {
        each(chunk, at);
        at += u64::from(chunk.length);
    };
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                piece(&buffer[..length]);
                cutter.update(&buffer[..length], &mut take);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    cutter.finish().into_iter().for_each(take);
    Ok(())
}

/// Takes a stream in pieces, and hands its chunks out in order.
struct Cutter {
    rule: Rule,
    gear: [u64; 256],
    rolling: u64,
    length: u32,
    sha256: Sha256,
}

impl Cutter {
    /// Begins with the first chunk.
    fn new(rule: Rule) -> Cutter {
        Cutter { rule, gear: gear(), rolling: 0, length: 0, sha256: Sha256::new() }
    }

    /// Takes the next bytes. Input: `each`: gets the chunks that end in them.
    fn update(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(Chunk)) {
        while !bytes.is_empty() {
            let (taken, is_end) = self.find_end(bytes);
            self.sha256.update(&bytes[..taken]);
            self.length += taken as u32;
            if is_end {
                each(self.take());
            }
            bytes = &bytes[taken..];
        }
    }

    /// Ends the stream. Returns: the last chunk; `None`: the stream ended with the one before, or is empty.
    fn finish(mut self) -> Option<Chunk> {
        (self.length > 0).then(|| self.take())
    }

    /// Returns how many of the bytes belong to the current chunk, and whether it ends with them.
    fn find_end(&mut self, bytes: &[u8]) -> (usize, bool) {
        let left = |end: u32| (end.saturating_sub(self.length) as usize).min(bytes.len());
        // What is further than the window before the first place where a chunk may end has no influence.
        let (skip, most) = (left(self.rule.least() - WINDOW), left(self.rule.most()));
        let (least, shift) = (self.rule.least().saturating_sub(self.length) as usize, 64 - self.rule.bits());
        let mut rolling = self.rolling;
        for (at, byte) in bytes[..most].iter().enumerate().skip(skip) {
            rolling = (rolling << 1).wrapping_add(self.gear[usize::from(*byte)]);
            if rolling >> shift == 0 && at + 1 >= least {
                return (at + 1, true);
            }
        }
        self.rolling = rolling;
        (most, self.length + most as u32 == self.rule.most())
    }

    fn take(&mut self) -> Chunk {
        let mut sha256_head = [0; 8];
        sha256_head.copy_from_slice(&self.sha256.finalize_reset()[..8]);
        let length = std::mem::take(&mut self.length);
        self.rolling = 0;
        Chunk { sha256_head, length }
    }
}

/// Makes the table of the rolling hash: SplitMix64 from 0, so that it need not be written out.
/// Source: Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
fn gear() -> [u64; 256] {
    let mut state = 0u64;
    std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;

    /// Bytes that do not compress, always the same.
    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        (0..length).map(step).collect()
    }

    /// A stream that hands out a few bytes at a time, and is interrupted before each.
    struct Steps<'a>(&'a [u8], usize, bool);

    impl Read for Steps<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let room = self.1.min(buffer.len());
            self.0.read(&mut buffer[..room])
        }
    }

    fn chunks_of(bytes: &[u8], rule: Rule, step: usize) -> Vec<Chunk> {
        let (mut chunks, mut seen, mut end) = (Vec::new(), Vec::new(), 0);
        let mut each = |chunk: Chunk, at| {
            assert_eq!(at, end, "the place of a chunk is the end of the one before");
            end += u64::from(chunk.length);
            chunks.push(chunk);
        };
        cut(&mut Steps(bytes, step, false), rule, &mut |piece| seen.extend_from_slice(piece), &mut each).unwrap();
        assert!(seen == bytes);
        chunks
    }

    /// The rule as docs/publishing.md states it, without a shortcut.
    fn cut_plainly(bytes: &[u8], rule: Rule) -> Vec<Chunk> {
        let (gear, mut chunks, mut start) = (gear(), Vec::new(), 0);
        for end in 1..=bytes.len() {
            let length = end - start;
            let window = &bytes[start..end][length.saturating_sub(64)..];
            let rolling = window.iter().fold(0u64, |h, b| (h << 1).wrapping_add(gear[usize::from(*b)]));
            let is_cut = length >= rule.least() as usize && rolling >> (64 - rule.bits()) == 0;
            if is_cut || length == rule.most() as usize || end == bytes.len() {
                let sha256_head = hex_head(&bytes[start..end]);
                chunks.push(Chunk { sha256_head, length: length as u32 });
                start = end;
            }
        }
        chunks
    }

    fn hex_head(bytes: &[u8]) -> [u8; 8] {
        let hex = Digest::of(bytes).hex();
        std::array::from_fn(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
    }

    #[test]
    fn the_table_is_the_published_one() {
        // The first outputs of SplitMix64 with seed 0, as its authors' code prints them.
        assert_eq!(gear()[..3], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }

    #[test]
    fn cuts_as_the_rule_says_however_the_bytes_arrive() {
        let rule = Rule::new(12).unwrap();
        let mut bytes = noise(200_000, 7);
        // A stretch that never cuts by itself, and one that repeats.
        bytes.extend_from_slice(&[0; 70_000]);
        bytes.extend_from_slice(&noise(9_999, 8).repeat(3));
        let wanted = cut_plainly(&bytes, rule);
        assert!(wanted.len() > 30, "{}", wanted.len());
        assert!(wanted.iter().any(|chunk| chunk.length == rule.most()), "none was cut at its most");
        for step in [1, 63, 64, 65, 1000, 1024, 4096, 48 << 10, bytes.len()] {
            assert_eq!(chunks_of(&bytes, rule, step), wanted, "{step}");
        }
        assert_eq!(chunks_of(&[], rule, 1), Vec::new());
        assert_eq!(chunks_of(b"x", rule, 1), vec![Chunk { sha256_head: hex_head(b"x"), length: 1 }]);
    }

    #[test]
    fn an_insertion_leaves_all_but_a_few_chunks_as_they_were() {
        let rule = Rule::new(12).unwrap();
        let old = noise(1 << 20, 3);
        let mut new = old.clone();
        new.splice(500_000..500_000, [1, 2, 3]);
        let (before, after) = (chunks_of(&old, rule, 4096), chunks_of(&new, rule, 4096));
        let changed = after.iter().filter(|chunk| !before.contains(chunk)).count();
        assert!((1..=3).contains(&changed), "{changed} of {}", after.len());
    }

    #[test]
    fn a_longer_file_has_longer_chunks_and_a_bounded_number() {
        assert_eq!(Rule::of_size(1).bits(), 14);
        assert_eq!(Rule::of_size(512 << 20).bits(), 14);
        assert_eq!(Rule::of_size((512 << 20) + (1 << 14)).bits(), 15);
        assert_eq!(Rule::of_size(1 << 30).bits(), 15);
        assert_eq!(Rule::of_size(u64::MAX), Rule(22));
        assert_eq!([11, 12, 22, 23].map(|bits| Rule::new(bits).is_some()), [false, true, true, false]);
    }
}
