//! The chunk index of a layer: `application/vnd.kubesolo.os.chunks.v1`. Pure.
//!
//! Little-endian: 8 bytes magic, u32 rule, u32 number of chunks, u64 length of the layer, 32 bytes its SHA-256; then for each
//! chunk in order: u32 length, the first 8 bytes of its SHA-256.
//! Must never: accept an index of another layer, or one whose chunks are not, together, exactly as long as the layer.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::chunks::cut::{Chunk, Rule, cut};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// Most chunks of all layers of a file together: bounds the memory of an update.
pub const MAX_CHUNKS: usize = 64 << 10;
/// Longest index, in bytes.
pub const INDEX_MAX_BYTES: u64 = (HEAD + EACH * MAX_CHUNKS) as u64;
/// The last byte is the version.
const MAGIC: &[u8; 8] = b"KSCHUNK\x01";
const HEAD: usize = 56;
const EACH: usize = 12;

/// The chunks of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// How it was cut.
    pub rule: Rule,
    /// Length of the layer, in bytes.
    pub size_bytes: u64,
    /// Digest of the layer.
    pub layer: Digest,
    /// In order.
    pub chunks: Vec<Chunk>,
}

impl Index {
    /// Reads an index. Input: `layer`, `size_bytes`: of the layer that it must be of.
    /// Errors: Source: malformed, too long, or not of this layer.
    pub fn parse(bytes: &[u8], layer: Digest, size_bytes: u64) -> Result<Index> {
        let bad = |why: &str| Error::new(Kind::Source, why).at("read", "the chunk index");
        let (head, list) = bytes.split_at_checked(HEAD).ok_or_else(|| bad("it is cut off in its header"))?;
        let (magic, numbers) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(bad("it does not begin as version 1 of one does"));
        }
        let rule = Rule::new(number(&numbers[..4]) as u32).ok_or_else(|| bad("it was cut by an unknown rule"))?;
        if number(&numbers[8..16]) != size_bytes || numbers[16..] != layer.bytes()[..] {
            return Err(bad("it is of another layer"));
        }
        let count = number(&numbers[4..8]) as usize;
        if count > MAX_CHUNKS {
            return Err(bad("it has too many chunks"));
        }
        if list.len() != count * EACH {
            return Err(bad("it is not as long as its number of chunks says"));
        }
        let mut left = size_bytes;
        let mut chunks = Vec::with_capacity(count);
        for entry in list.chunks_exact(EACH) {
            let length = number(&entry[..4]) as u32;
            let is_last = u64::from(length) == left;
            if length > rule.most() || length == 0 || (length < rule.least() && !is_last) {
                return Err(bad("a chunk has a length that its rule does not give"));
            }
            left = left.checked_sub(length.into()).ok_or_else(|| bad("its chunks are longer than the layer"))?;
            chunks.push(Chunk { length, sha256_head: entry[4..].try_into().unwrap_or_default() });
        }
        match left {
            0 => Ok(Index { rule, size_bytes, layer, chunks }),
            _ => Err(bad("its chunks are shorter than the layer")),
        }
    }

    /// Makes the index of a layer. Errors: it cannot be read.
    pub fn of(layer: &mut dyn Read, size_bytes: u64) -> io::Result<Index> {
        let rule = Rule::of_size(size_bytes);
        let (mut chunks, mut size_bytes, mut sha256) = (Vec::new(), 0, Sha256::new());
        let mut piece = |bytes: &[u8]| {
            sha256.update(bytes);
            size_bytes += bytes.len() as u64;
        };
        cut(layer, rule, &mut piece, &mut |chunk, _| chunks.push(chunk))?;
        Ok(Index { rule, size_bytes, layer: Digest::finish(sha256), chunks })
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + EACH * self.chunks.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.rule.bits().to_le_bytes());
        bytes.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.size_bytes.to_le_bytes());
        bytes.extend_from_slice(self.layer.bytes());
        for chunk in &self.chunks {
            bytes.extend_from_slice(&chunk.length.to_le_bytes());
            bytes.extend_from_slice(&chunk.sha256_head);
        }
        bytes
    }
}

/// Reads a little-endian number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn layer() -> Vec<u8> {
        (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
    }

    fn index() -> Index {
        let layer = layer();
        Index::of(&mut layer.as_slice(), layer.len() as u64).unwrap()
    }

    fn parse_as(good: &Index, bytes: &[u8]) -> Result<Index> {
        Index::parse(bytes, good.layer, good.size_bytes)
    }

    #[test]
    fn survives_a_round_trip_and_no_truncation() {
        let good = index();
        let bytes = good.encode();
        assert!(good.chunks.len() > 10);
        assert_eq!((good.layer, good.size_bytes), (Digest::of(&layer()), 1_200_000));
        assert_eq!(bytes.len(), 56 + 12 * good.chunks.len());
        assert_eq!(parse_as(&good, &bytes).unwrap(), good);
        for end in 0..bytes.len() {
            assert_eq!(parse_as(&good, &bytes[..end]).unwrap_err().kind(), Kind::Source, "{end}");
        }
        let more = [&bytes[..], &[0; 12]].concat();
        assert!(parse_as(&good, &more).unwrap_err().to_string().contains("as long as"));
    }

    /// Machines in the field hold every index against these bytes: another cut would fetch everything.
    #[test]
    fn the_format_stays_what_it_is() {
        let mut text = String::new();
        index().encode()[..56 + 12].iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        assert_eq!(text, include_str!("../../tests/fixtures/chunk-index-head.txt").trim());
    }

    /// Each lie, and the word that tells it.
    #[test]
    fn no_lie_is_believed() {
        let good = index();
        let with = |change: &dyn Fn(&mut Index)| {
            let mut index = good.clone();
            change(&mut index);
            index.encode()
        };
        let raw = |at: usize, bytes: &[u8]| {
            let mut all = good.encode();
            all[at..at + bytes.len()].copy_from_slice(bytes);
            all
        };
        let ones = |index: &mut Index| {
            index.chunks = vec![Chunk { length: 1, sha256_head: [0; 8] }; 60_000];
        };
        for (bytes, word) in [
            (raw(0, b"CHUNKS"), "does not begin"),
            (raw(7, &[2]), "does not begin"),
            (raw(8, &23u32.to_le_bytes()), "unknown rule"),
            (raw(8, &0u32.to_le_bytes()), "unknown rule"),
            (raw(12, &u32::MAX.to_le_bytes()), "too many"),
            (raw(12, &65_537u32.to_le_bytes()), "too many"),
            (raw(12, &0u32.to_le_bytes()), "as long as"),
            (raw(16, &1u64.to_le_bytes()), "another layer"),
            (raw(24, &[0; 32]), "another layer"),
            (with(&|i| i.chunks[0].length = 0), "does not give"),
            (with(&|i| i.chunks[0].length = 65_537), "does not give"),
            (with(&|i| i.chunks[1].length = 4_095), "does not give"),
            (with(&ones), "does not give"),
            (with(&|i| i.chunks.truncate(3)), "shorter"),
            (with(&|i| i.chunks.clear()), "shorter"),
            (with(&|i| i.chunks.push(i.chunks[0])), "longer"),
            (with(&|i| i.chunks.push(Chunk { length: 1, sha256_head: [0; 8] })), "does not give"),
        ] {
            let e = parse_as(&good, &bytes).unwrap_err();
            assert!(e.kind() == Kind::Source && e.to_string().contains(word), "{word}: {e}");
        }
        // The order is not checked here: the digest of the whole is what tells.
        parse_as(&good, &with(&|i| i.chunks.swap(0, 1))).unwrap();
    }
}
