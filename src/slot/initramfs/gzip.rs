//! A gzip member, as the kernel's `gunzip` reads it: ten bytes, a name, raw deflate, a trailer.
//!
//! Source: RFC 1952; Linux lib/decompress_inflate.c. Must never: allocate for each member, or accept a header that the kernel
//! does not understand: it takes comment, extra field and header checksum for data.

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Part before the name, in bytes.
const HEADER: usize = 10;
/// CRC-32 and length, in bytes.
const TRAILER: usize = 8;
/// Bytes unpacked at once.
const WINDOW: usize = 128 * 1024;
/// Flags of the header's fourth byte. The kernel ignores the first (text) and the last three (reserved).
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;

/// Formats that the kernel or users recognise by the first two bytes.
const FORMATS: [([u8; 2], &str); 11] = [
    ([0x28, 0xb5], "zstd"),
    ([0xfd, 0x37], "xz"),
    ([0x02, 0x21], "lz4"),
    ([0x04, 0x22], "lz4"),
    ([0x42, 0x5a], "bzip2"),
    ([0x5d, 0x00], "lzma"),
    ([0x89, 0x4c], "lzo"),
    ([0x1f, 0x9d], "compress (.Z)"),
    ([0x50, 0x4b], "zip"),
    ([0x68, 0x73], "squashfs"),
    ([0xc7, 0x71], "cpio of the old binary kind"),
];

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Header,
    Name,
    Data,
    Trailer,
}

/// Reads consecutive members, reusing costly allocations.
#[derive(Default)]
pub(crate) struct Member {
    part: Part,
    /// Header or trailer, as far as received.
    head: Vec<u8>,
    inflate: Option<(Decompress, Vec<u8>)>,
    crc: Crc,
}

impl Member {
    /// Begins with the next member.
    pub(crate) fn begin(&mut self) {
        self.part = Part::Header;
        self.head.clear();
        self.crc.reset();
    }

    /// Takes the part of the next bytes that belongs to the member.
    /// Returns: the number of bytes taken, and whether it has ended. Errors: what is wrong with it, or an error of `fill`.
    pub(crate) fn update(
        &mut self,
        bytes: &[u8],
        fill: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(usize, bool), String> {
        match self.part {
            Part::Header => {
                let taken = self.collect(bytes, HEADER);
                check_magic(&self.head)?;
                if self.head.len() == HEADER {
                    self.part = check_flags(self.head[3])?;
                    self.head.clear();
                    match &mut self.inflate {
                        Some((inflate, _)) => inflate.reset(false),
                        none => *none = Some((Decompress::new(false), vec![0; WINDOW])),
                    }
                }
                Ok((taken, false))
            }
            Part::Name => match bytes.iter().position(|b| *b == 0) {
                Some(end) => {
                    self.part = Part::Data;
                    Ok((end + 1, false))
                }
                None => Ok((bytes.len(), false)),
            },
            Part::Data => Ok((self.unpack(bytes, fill)?, false)),
            Part::Trailer => {
                let taken = self.collect(bytes, TRAILER);
                let ended = self.head.len() == TRAILER;
                if ended {
                    self.check_trailer()?;
                }
                Ok((taken, ended))
            }
        }
    }

    fn unpack(&mut self, bytes: &[u8], fill: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<usize, String> {
        let Some((inflate, window)) = &mut self.inflate else { return Err("it has no header".into()) };
        let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(bytes, window, FlushDecompress::None);
        let taken = (inflate.total_in() - before_in) as usize;
        let output = &window[..(inflate.total_out() - before_out) as usize];
        self.crc.update(output);
        fill(output)?;
        match status {
            Ok(Status::StreamEnd) => self.part = Part::Trailer,
            Ok(_) if taken > 0 || !output.is_empty() => {}
            _ => return Err("its compressed data is damaged".into()),
        }
        Ok(taken)
    }

    /// The kernel ignores the trailer, but a difference still means that the content is not what was packed.
    fn check_trailer(&self) -> Result<(), String> {
        let number = |at: usize| u32::from_le_bytes(self.head[at..at + 4].try_into().unwrap_or_default());
        match (number(0) == self.crc.sum(), number(4) == self.crc.amount()) {
            (true, true) => Ok(()),
            (false, _) => Err("its checksum is wrong: it is damaged".into()),
            _ => Err("its length is wrong: it is damaged".into()),
        }
    }

    fn collect(&mut self, bytes: &[u8], wanted: usize) -> usize {
        let taken = bytes.len().min(wanted - self.head.len());
        self.head.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// Describes where the stream was cut.
    pub(crate) fn cut(&self) -> String {
        let place = match self.part {
            Part::Header | Part::Name => "header",
            Part::Data => "data",
            Part::Trailer => "trailer",
        };
        format!("it is cut in its {place}")
    }
}

/// Compressing it again as it is would not help.
const REPACK: &str =
    "unpack that part and compress it with gzip (Debian: COMPRESS=gzip in /etc/initramfs-tools/initramfs.conf)";

fn check_magic(head: &[u8]) -> Result<(), String> {
    if head.starts_with(b"0") {
        return Err("an archive without compression has to begin at a multiple of four bytes: pad with zeros".into());
    }
    if head.len() < 2 {
        return Ok(());
    }
    match format_of(head) {
        Some(name) => Err(format!("it is {name}, machines take gzip: {REPACK}")),
        None if head.iter().zip([0x1f, 0x8b, 8]).all(|(is, wanted)| *is == wanted) => Ok(()),
        None => Err("it is neither gzip nor cpio".into()),
    }
}

fn check_flags(flags: u8) -> Result<Part, String> {
    let field = match flags {
        f if f & EXTRA > 0 => "an extra field (bgzip, mgzip)",
        f if f & COMMENT > 0 => "a comment",
        f if f & HEADER_CRC > 0 => "a checksum",
        f if f & NAME > 0 => return Ok(Part::Name),
        _ => return Ok(Part::Data),
    };
    Err(format!("its header has {field}, which kernels do not understand: compress it with gzip -n"))
}

/// Names the format that begins with these bytes, if known.
fn format_of(first: &[u8]) -> Option<&'static str> {
    FORMATS.iter().find(|(magic, _)| first.starts_with(magic)).map(|(_, name)| *name)
}
