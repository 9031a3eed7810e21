//! Decides which bytes of a file come from what is at hand, and which are fetched, in how many ranges. Pure.
//!
//! Must never: let an index, whatever it says, lead to more ranges than [`MAX_RANGES`], or leave a byte out.

use crate::chunks::cut::{Chunk, Rule, cut};
use std::io::{self, Read};

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

/// Joins ranges with short gaps, and so many that few enough are left.
pub fn join(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let mut gap = LEAST_GAP;
    loop {
        let mut joined = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let is_between = at > 0 && at + 1 < pieces.len();
            let found = piece.found.filter(|_| piece.length >= gap || !is_between || joined_to_found(&pieces, at));
            push(&mut joined, piece.length, found);
        }
        if ranges(&joined) <= MAX_RANGES {
            return joined;
        }
        (pieces, gap) = (joined, gap * 2);
    }
}

/// Returns whether the neighbours are at hand too, elsewhere: then no request is saved by fetching this one.
fn joined_to_found(pieces: &[Piece], at: usize) -> bool {
    pieces[at - 1].found.is_some() && pieces[at + 1].found.is_some()
}

/// Counts the ranges to fetch.
pub fn ranges(pieces: &[Piece]) -> usize {
    pieces.iter().filter(|piece| piece.found.is_none()).count()
}

/// Counts the bytes to fetch.
pub fn to_fetch(pieces: &[Piece]) -> u64 {
    pieces.iter().filter(|piece| piece.found.is_none()).map(|piece| piece.length).sum()
}

/// Chunks that are looked for, and where they were found. 24 bytes a chunk.
pub struct Search {
    chunks: Vec<Chunk>,
    /// [`NOWHERE`]: not found.
    places: Vec<u64>,
    /// Numbers of the chunks, in the order of their hashes.
    order: Vec<u32>,
}

const NOWHERE: u64 = u64::MAX;

impl Search {
    /// Begins to look for chunks.
    pub fn new(chunks: Vec<Chunk>) -> Search {
        let mut order: Vec<u32> = (0..chunks.len() as u32).collect();
        order.sort_unstable_by_key(|number| chunks[*number as usize]);
        Search { places: vec![NOWHERE; chunks.len()], chunks, order }
    }

    /// Looks for them in a stream. Input: `looked` gets the number of bytes read.
    /// Errors: it cannot be read.
    pub fn look_through(&mut self, stream: &mut dyn Read, rule: Rule, looked: &mut dyn FnMut(u64)) -> io::Result<()> {
        cut(stream, rule, &mut |piece| looked(piece.len() as u64), &mut |chunk, at| self.see(chunk, at))
    }

    /// Notes where a chunk lies. The first place counts.
    fn see(&mut self, chunk: Chunk, at: u64) {
        let from = self.order.partition_point(|number| self.chunks[*number as usize] < chunk);
        for number in self.order[from..].iter().map(|number| *number as usize) {
            if self.chunks[number] != chunk || self.places[number] != NOWHERE {
                break;
            }
            self.places[number] = at;
        }
    }

    /// Returns the chunks in their order, each with its place.
    pub fn found(&self) -> impl Iterator<Item = (Chunk, Option<u64>)> {
        let place = |place: &u64| Some(*place).filter(|place| *place != NOWHERE);
        self.chunks.iter().copied().zip(self.places.iter().map(place))
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
        let (chunks, places): (Vec<_>, Vec<_>) = search.found().unzip();
        assert_eq!(places, [Some(100), None, Some(100), Some(300), None]);
        assert_eq!(chunks, wanted);
    }
}
