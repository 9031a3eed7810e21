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
const UNPACKED_MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;

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
    offset: u64,
    began: u64,
    members: u64,
    has_plain: bool,
    cpio: cpio::Reader,
    member: Member,
}

impl Judge {
    /// Takes the next bytes. Input: `see` receives each entry, in the order in which the kernel creates them.
    /// Errors: what is wrong with them, as text for the operator.
    pub fn update(&mut self, mut bytes: &[u8], see: &mut dyn FnMut(&Seen<'_>)) -> Result<(), String> {
        while let Some(first) = bytes.first() {
            let taken = match self.at {
                At::Between if *first == 0 => bytes.iter().take_while(|b| **b == 0).count(),
                At::Between => {
                    self.begin(*first == b'0');
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
                return Err("it unpacks to more than 8 GiB".into());
            }
        }
        Ok(())
    }

    /// The kernel accepts an uncompressed archive only at a multiple of four.
    fn begin(&mut self, is_cpio: bool) {
        self.began = self.offset;
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
            (0, true) => Err("it is cpio without compression: compress it with gzip".into()),
            _ => Ok(()),
        }
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
