//! The one check of an initramfs: that the kernel's unpacker accepts all of it. Pure, on a stream in pieces, with little
//! memory.
//!
//! Source: Linux init/initramfs.c and lib/decompress_inflate.c, 6.1, 6.12 and 7.3; tests/vm/initramfs.rs compares it with real
//! kernels. The same code checks downloads, and serves the scripts that publish (`lint`).
//! Stricter than the kernel where that silently unpacks only a part, and with gzip's checksum, which the kernel ignores.
//! Must never: hold more than a window of the output and one name, or accept what one of these kernels would not unpack whole.

mod cpio;
mod gzip;
mod tree;

pub use cpio::Seen;
pub use tree::{Lying, Tree};

use gzip::Member;

/// Largest unpacked size, in bytes: far above these machines' memory.
const UNPACKED_MAX_BYTES: u64 = if cfg!(test) { 32 << 20 } else { 8 << 30 };

const TOO_LARGE: &str = "it unpacks to more than 8 GiB";
const UNPACKED: &str = "it is cpio without compression: compress it with gzip";

/// Position in the stream.
#[derive(Default)]
enum At {
    /// Between two archives, where the kernel examines the next bytes.
    #[default]
    Between,
    /// In an uncompressed archive.
    Plain,
    /// In a gzip member, or in its first bytes.
    Packed,
}

/// Takes a stream in pieces, and finally reports whether a kernel unpacks all of it.
#[derive(Default)]
pub struct Judge {
    at: At,
    /// Where the stream began in the whole initramfs.
    first: u64,
    offset: u64,
    began: u64,
    members: u64,
    has_plain: bool,
    cpio: cpio::Reader,
    member: Member,
}

/// What a layer adds to the whole.
#[derive(Default)]
pub struct Accepted {
    has_gzip: bool,
    unpacked_bytes: u64,
}

impl Accepted {
    /// Adds another layer.
    pub fn add(&mut self, other: &Accepted) {
        self.has_gzip |= other.has_gzip;
        self.unpacked_bytes = self.unpacked_bytes.saturating_add(other.unpacked_bytes);
    }

    /// Returns whether the layers so far unpack to more than any initramfs may.
    pub fn is_too_large(&self) -> bool {
        self.unpacked_bytes > UNPACKED_MAX_BYTES
    }

    /// Returns why all layers together are no initramfs, though each was accepted.
    pub fn refusal(&self) -> Option<String> {
        match (self.has_gzip, self.is_too_large()) {
            (false, _) => Some(UNPACKED.into()),
            (true, true) => Some(TOO_LARGE.into()),
            (true, false) => None,
        }
    }
}

impl Judge {
    /// Begins with a layer: what lies before it was, or will be, accepted by [`Judge::finish_part`].
    /// Input: `offset`: where it begins in the whole.
    pub fn behind(offset: u64) -> Judge {
        let mut judge = Judge { first: offset, offset, began: offset, ..Judge::default() };
        if offset > 0 {
            judge.cpio.begin_behind();
        }
        judge
    }

    /// Takes the next bytes. Input: `see` receives each entry, in the order in which the kernel creates them.
    /// Errors: what is wrong with them, as text for the operator.
    pub fn update(&mut self, mut bytes: &[u8], see: &mut dyn FnMut(&Seen<'_>)) -> Result<(), String> {
        while let Some(first) = bytes.first() {
            let taken = match self.at {
                At::Between if *first == 0 => bytes.iter().take_while(|b| **b == 0).count(),
                At::Between => {
                    self.begin(*first == b'0')?;
                    0
                }
                At::Plain => {
                    let taken = self.cpio.update(bytes, see).map_err(|why| self.told(&why))?;
                    if taken < bytes.len() {
                        self.at = At::Between;
                    }
                    taken
                }
                At::Packed => {
                    let cpio = &mut self.cpio;
                    let taken = self.member.update(bytes, &mut |output| cpio.fill(output, see));
                    let (taken, ended) = taken.map_err(|why| self.told(&why))?;
                    if ended {
                        self.cpio.finish().map_err(|why| self.told(&why))?;
                        self.at = At::Between;
                    }
                    taken
                }
            };
            self.offset += taken as u64;
            bytes = &bytes[taken..];
            if self.cpio.unpacked_bytes > UNPACKED_MAX_BYTES {
                return Err(TOO_LARGE.into());
            }
        }
        Ok(())
    }

    /// The kernel accepts an uncompressed archive only at a multiple of four.
    fn begin(&mut self, is_cpio: bool) -> Result<(), String> {
        self.began = self.offset;
        // What is before this layer may be an uncompressed archive, whose zeros must end at a multiple of four.
        let is_behind_zeros = self.members == 0 && !self.has_plain && self.first > 0 && self.offset > self.first;
        if is_behind_zeros && !self.offset.is_multiple_of(4) {
            return Err(self.told("the zeros at the beginning of a layer do not end at a multiple of four bytes"));
        }
        if is_cpio && self.offset.is_multiple_of(4) {
            self.has_plain = true;
            self.cpio.begin();
            self.at = At::Plain;
        } else {
            self.members += 1;
            self.cpio.begin_member();
            self.member.begin();
            self.at = At::Packed;
        }
        Ok(())
    }

    /// Ends the stream.
    /// Errors: it ends within an entry or member; it is empty; nothing in it is gzip.
    pub fn finish(self) -> Result<(), String> {
        match self.at {
            At::Packed => return Err(self.told(&self.member.cut())),
            At::Plain => self.cpio.finish_plain().map_err(|why| self.told(&why))?,
            At::Between => {}
        }
        match (self.members, self.has_plain) {
            (0, false) => Err("it is empty".into()),
            (0, true) => Err(UNPACKED.into()),
            _ => Ok(()),
        }
    }

    /// Ends a layer. Where each layer is accepted alone, and [`Accepted::refusal`] has nothing to say of them together, the whole
    /// is accepted too; not the other way round: a whole may be cut within a member.
    /// Errors: as [`Judge::finish`]; before another layer also what would only be a fault there.
    pub fn finish_part(self, is_last: bool) -> Result<Accepted, String> {
        if !is_last && matches!(self.at, At::Plain) {
            self.cpio.finish().map_err(|why| self.told(&why))?;
            if !self.offset.is_multiple_of(4) {
                return Err(self.told("what follows it would not begin at a multiple of four bytes"));
            }
        }
        let accepted = Accepted { has_gzip: self.members > 0, unpacked_bytes: self.cpio.unpacked_bytes };
        if self.has_plain && self.members == 0 {
            self.cpio.finish_plain().map_err(|why| self.told(&why))?;
            return Ok(accepted);
        }
        self.finish().map(|()| accepted)
    }

    #[cold]
    fn told(&self, why: &str) -> String {
        format!("at byte {}: {why}", self.began)
    }
}

/// Unpacks the beginning of a gzip member. Returns: at least `wanted` bytes, or everything.
/// Errors: not gzip, or damaged; as text for the operator.
pub fn unpack_head(mut bytes: &[u8], wanted: usize) -> Result<Vec<u8>, String> {
    let (mut member, mut head) = (Member::default(), Vec::new());
    member.begin();
    while !bytes.is_empty() && head.len() < wanted {
        let mut keep = |output: &[u8]| {
            head.extend_from_slice(output);
            Ok(())
        };
        let (taken, ended) = member.update(bytes, &mut keep)?;
        bytes = if ended { &[] } else { &bytes[taken..] };
    }
    Ok(head)
}

#[cfg(test)]
mod tests;
