//! Decides which bytes of a file come from what is at hand, and which are fetched, in how many ranges. Pure.
//!
//! Must never: let an index, whatever it says, lead to more ranges than [`MAX_RANGES`], or leave a byte out.

use crate::chunks::cut::{Chunk, Rule, cut};
use std::io::{self, Read};
use std::ops::Range;

/// What lies between two ranges is fetched as well where it is shorter: a request costs a round trip.
const LEAST_GAP: u64 = 16 << 10;
/// Most ranges of one file.
pub const MAX_RANGES: usize = 256;

/// A stretch of a file, from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the file.
    pub at: u64,
    /// Length in bytes.
    pub length: u64,
    /// Where it lies in what is at hand; `None`: it is fetched.
    pub found: Option<u64>,
}

impl Piece {
    /// Returns where it ends in the file.
    pub fn end(&self) -> u64 {
        self.at + self.length
    }
}

/// Adds a piece behind the others, joining it to the last where both are one stretch.
pub fn push(pieces: &mut Vec<Piece>, length: u64, found: Option<u64>) {
    let at = pieces.last().map_or(0, Piece::end);
    match pieces.last_mut() {
        _ if length == 0 => {}
        Some(last) if last.found.map(|found| found + last.length) == found => last.length += length,
        _ => pieces.push(Piece { at, length, found }),
    }
}

/// Joins ranges with short gaps, and across the shortest others, until few enough are left. A gap is all that is at hand between two
/// ranges, wherever it lies.
pub fn join(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let mut gaps = gaps(&pieces);
    gaps.sort_unstable();
    let excess = (gaps.len() + 1).saturating_sub(MAX_RANGES);
    // All gaps below `limit` are closed, and as many of exactly this length as it takes.
    let limit = excess.checked_sub(1).map_or(0, |last| gaps[last]).max(LEAST_GAP);
    let mut of_limit = excess.saturating_sub(gaps.partition_point(|gap| *gap < limit));
    drop(gaps);
    let mut is_closed = |gap: u64| {
        let is_one = gap == limit && of_limit > 0;
        of_limit -= usize::from(is_one);
        gap < limit || is_one
    };
    // In place: how many pieces are kept, and the last range among them.
    let (mut kept, mut last) = (0, None::<usize>);
    for read in 0..pieces.len() {
        let piece = pieces[read];
        match last {
            Some(last) if piece.found.is_none() && is_closed(piece.at - pieces[last].end()) => {
                pieces[last].length = piece.end() - pieces[last].at;
                kept = last + 1;
            }
            _ => {
                pieces[kept] = piece;
                last = if piece.found.is_none() { Some(kept) } else { last };
                kept += 1;
            }
        }
    }
    pieces.truncate(kept);
    pieces
}

/// Returns the lengths of the gaps between ranges.
fn gaps(pieces: &[Piece]) -> Vec<u64> {
    let mut gaps = Vec::new();
    let mut last = None;
    for range in pieces.iter().filter(|piece| piece.found.is_none()) {
        gaps.extend(last.map(|end| range.at - end));
        last = Some(range.end());
    }
    gaps
}

/// Counts the ranges to fetch.
pub fn ranges(pieces: &[Piece]) -> usize {
    pieces.iter().filter(|piece| piece.found.is_none()).count()
}

/// Counts the bytes to fetch.
pub fn to_fetch(pieces: &[Piece]) -> u64 {
    pieces.iter().filter(|piece| piece.found.is_none()).map(|piece| piece.length).sum()
}

/// Chunks that are looked for. 24 bytes a chunk.
pub struct Search {
    found: Found,
    /// Numbers of the chunks, in the order of their hashes.
    order: Vec<u32>,
}

/// Chunks that were looked for, and where they were found. 20 bytes a chunk.
pub struct Found {
    chunks: Vec<Chunk>,
    /// [`NOWHERE`]: not found.
    places: Vec<u64>,
}

const NOWHERE: u64 = u64::MAX;

impl Search {
    /// Begins to look for chunks.
    pub fn new(chunks: Vec<Chunk>) -> Search {
        let mut order: Vec<u32> = (0..chunks.len() as u32).collect();
        order.sort_unstable_by_key(|number| chunks[*number as usize]);
        Search { found: Found { places: vec![NOWHERE; chunks.len()], chunks }, order }
    }

    /// Looks for them in a stream. Input: `looked` gets the number of bytes read.
    /// Errors: it cannot be read.
    pub fn look_through(mut self, stream: &mut dyn Read, rule: Rule, looked: &mut dyn FnMut(u64)) -> io::Result<Found> {
        cut(stream, rule, &mut |piece| looked(piece.len() as u64), &mut |chunk, at| self.see(chunk, at))?;
        Ok(self.found)
    }

    /// Notes where a chunk lies. The first place counts.
    fn see(&mut self, chunk: Chunk, at: u64) {
        let Found { chunks, places } = &mut self.found;
        let from = self.order.partition_point(|number| chunks[*number as usize] < chunk);
        for number in self.order[from..].iter().map(|number| *number as usize) {
            if chunks[number] != chunk || places[number] != NOWHERE {
                break;
            }
            places[number] = at;
        }
    }
}

impl Found {
    /// Adds some of the chunks, in their order, to the pieces of a file. Input: `numbers`: of the chunks.
    pub fn push_to(&self, pieces: &mut Vec<Piece>, numbers: Range<usize>) {
        let chunks = self.chunks[numbers.clone()].iter().zip(&self.places[numbers]);
        chunks.for_each(|(chunk, at)| push(pieces, chunk.length.into(), Some(*at).filter(|at| *at != NOWHERE)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: u8, length: u32) -> Chunk {
        Chunk { sha256_head: [number; 8], length }
    }

    fn piece(at: u64, length: u64, found: Option<u64>) -> Piece {
        Piece { at, length, found }
    }

    #[test]
    fn what_is_one_stretch_is_one_piece() {
        let mut pieces = Vec::new();
        for (length, found) in
            [(10, Some(5)), (3, Some(15)), (0, Some(90)), (2, Some(20)), (4, None), (0, None), (6, None), (1, Some(0))]
        {
            push(&mut pieces, length, found);
        }
        let wanted = [piece(0, 13, Some(5)), piece(13, 2, Some(20)), piece(15, 10, None), piece(25, 1, Some(0))];
        assert_eq!(pieces, wanted);
        assert_eq!((ranges(&pieces), to_fetch(&pieces)), (1, 10));
    }

    #[test]
    fn a_short_gap_is_fetched_too() {
        let pieces = |gap: u64| {
            let mut pieces = Vec::new();
            for (length, found) in [(8, Some(0)), (100, None), (gap, Some(1000)), (100, None), (8, Some(90_000))] {
                push(&mut pieces, length, found);
            }
            join(pieces)
        };
        assert_eq!(ranges(&pieces(LEAST_GAP)), 2);
        assert_eq!(ranges(&pieces(LEAST_GAP - 1)), 1);
        assert_eq!(to_fetch(&pieces(LEAST_GAP - 1)), 199 + LEAST_GAP);
        // At the ends, a request is saved by nothing.
        assert_eq!(pieces(5)[0], piece(0, 8, Some(0)));
        assert_eq!(pieces(5).last().unwrap().found, Some(90_000));
    }

    /// What a pass over lengths cannot see: stretches that lie in many places.
    #[test]
    fn gaps_of_many_pieces_are_joined_too() {
        for each in [1, 90, 104, 110, 200] {
            let mut pieces = Vec::new();
            for _ in 0..300 {
                push(&mut pieces, 5_000, None);
                (0..each).for_each(|number| push(&mut pieces, 5_000, Some(9_000_000 - number * 6_000)));
            }
            let joined = join(pieces.clone());
            let least = if each == 1 { 1 } else { MAX_RANGES };
            assert_eq!(ranges(&joined), least, "{each}");
            // The last gap is none, and 44 of the others are closed.
            let closed = if each == 1 { 299 } else { 44 };
            assert_eq!(to_fetch(&joined), 300 * 5_000 + closed * each * 5_000, "{each}");
            assert_eq!(joined.last(), pieces.last());
        }
    }

    #[test]
    fn one_range_too_many_costs_the_shortest_gap() {
        let mut pieces = Vec::new();
        for number in 0..=MAX_RANGES as u64 {
            push(&mut pieces, 1_000, None);
            push(&mut pieces, if number == 77 { 60_000 } else { 1_000_000 }, Some(number * 2_000_000));
        }
        let joined = join(pieces.clone());
        assert_eq!(ranges(&joined), MAX_RANGES);
        assert_eq!(to_fetch(&joined), 257 * 1_000 + 60_000);
        assert_eq!(join(joined.clone()), joined);
        // All of one length, which is not too short by itself.
        let mut pieces = Vec::new();
        for number in 0..300 {
            push(&mut pieces, 1_000, None);
            push(&mut pieces, LEAST_GAP, Some(number * 2_000_000));
        }
        assert_eq!(ranges(&join(pieces)), MAX_RANGES);
    }

    #[test]
    fn no_index_leads_to_many_requests() {
        let mut pieces = Vec::new();
        for number in 0..32_768u64 {
            push(&mut pieces, 20_000, None);
            push(&mut pieces, 20_000 + number, Some(number * 1_000_000));
        }
        let joined = join(pieces.clone());
        assert!(ranges(&joined) <= MAX_RANGES, "{}", ranges(&joined));
        assert_eq!(joined.last().unwrap().end(), pieces.last().unwrap().end());
        let mut at = 0;
        for piece in joined {
            assert_eq!(piece.at, at);
            at = piece.end();
        }
    }

    #[test]
    fn finds_each_chunk_wherever_it_lies_and_however_often() {
        let wanted = [chunk(3, 10), chunk(1, 20), chunk(3, 10), chunk(3, 11), chunk(2, 5)];
        let mut search = Search::new(wanted.to_vec());
        for (chunk, at) in [(chunk(3, 10), 100), (chunk(9, 1), 7), (chunk(3, 10), 200), (chunk(3, 11), 300)] {
            search.see(chunk, at);
        }
        let mut pieces = Vec::new();
        search.found.push_to(&mut pieces, 1..5);
        assert_eq!(
            pieces,
            [piece(0, 20, None), piece(20, 10, Some(100)), piece(30, 11, Some(300)), piece(41, 5, None)]
        );
    }
}
