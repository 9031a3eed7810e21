//! Headers of a tar archive. Pure, except for reading an extended header.
//!
//! Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar, "Basic Tar Format".

use crate::base::error::Result;
use crate::source::inflated::{Stream, bad, exact};

/// tar's unit, in bytes.
pub(super) const BLOCK: usize = 512;

/// Longest tar-internal member that carries a long name or extended headers, in bytes.
pub(super) const MAX_EXTENDED: u64 = 64 << 10;

/// Content of one header. Pure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) size_bytes: u64,
    pub(super) kind: u8,
}

impl Header {
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.kind, 0 | b'0' | b'7')
    }

    /// Reads one header. Returns: `None` at the end of the archive. Errors: what is wrong with it.
    pub(crate) fn parse(block: &[u8; BLOCK]) -> std::result::Result<Option<Header>, String> {
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
        // The checksum field itself counts as blanks.
        let found = sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..]);
        if number(&block[148..156]) != Some(found) {
            return Err("not a tar archive, or one of its headers is damaged".into());
        }
        let text = |field: &[u8]| {
            let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
            String::from_utf8(field[..end].to_vec()).map_err(|_| "a name in it is not UTF-8".to_owned())
        };
        let mut name = text(&block[..100])?;
        // GNU's older format has times in place of the prefix.
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            name = format!("{}/{name}", text(&block[345..500])?);
        }
        let size_bytes = number(&block[124..136]).ok_or_else(|| format!("the size of '{name}' is not a number"))?;
        Ok(Some(Header { name, size_bytes, kind: block[156] }))
    }
}

/// Reads a number: octal digits, or GNU's base 256.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    if let [first @ (0x80 | 0xff), rest @ ..] = field {
        let fits = *first == 0x80 && rest.len() >= 8 && rest[..rest.len() - 8].iter().all(|b| *b == 0);
        return fits.then(|| rest[rest.len() - 8..].iter().fold(0, |value, b| value << 8 | u64::from(*b)));
    }
    let is_blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !is_blank(b))?;
    let digits: Vec<u8> = field[start..].iter().copied().take_while(|b| !is_blank(b)).collect();
    if !field[start + digits.len()..].iter().all(is_blank) {
        return None;
    }
    digits.iter().try_fold(0u64, |value, b| match b {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

/// Extended headers that apply to the next header only.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) name: Option<String>,
    pub(super) size_bytes: Option<u64>,
}

impl Extended {
    /// Reads a header of this kind. Returns: its number of bytes in the archive.
    pub(crate) fn read(&mut self, header: &Header, stream: &mut Stream) -> Result<u64> {
        if header.size_bytes > MAX_EXTENDED {
            return Err(bad(format!("an extended header of {} bytes", header.size_bytes)));
        }
        let padded = padded(header.size_bytes);
        let mut text = vec![0; padded as usize];
        exact(stream.fill(&mut text))?;
        text.truncate(header.size_bytes as usize);
        self.take(header.kind, &text).map_err(bad)?;
        Ok(padded)
    }

    fn take(&mut self, kind: u8, text: &[u8]) -> std::result::Result<(), String> {
        let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| "a name in it is not UTF-8".to_owned());
        match kind {
            b'L' => {
                let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
                self.name = Some(utf8(&text[..end])?);
            }
            b'x' => {
                let mut rest = text;
                while !rest.is_empty() {
                    let (key, value, tail) = record(rest).ok_or("an extended header in it is malformed")?;
                    match key {
                        b"path" => self.name = Some(utf8(value)?),
                        b"size" => {
                            let size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                            self.size_bytes = Some(size.ok_or("a size in it is not a number")?);
                        }
                        _ if key.starts_with(b"GNU.sparse") => return Err("it holds a sparse file".into()),
                        _ => {}
                    }
                    rest = tail;
                }
            }
            // Names of link targets, and global headers: not needed for a layout.
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn apply(self, header: &mut Header) {
        if let Some(name) = self.name {
            header.name = name;
        }
        header.size_bytes = self.size_bytes.unwrap_or(header.size_bytes);
    }
}

/// Splits one record, `LENGTH KEY=VALUE\n`, off extended headers.
pub(super) fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = text.iter().position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&text[..blank]).ok()?.parse().ok()?;
    let (whole, tail) = text.split_at_checked(length)?;
    let body = whole.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    Some((&body[..equals], &body[equals + 1..], tail))
}

pub(super) fn padded(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
}

/// Removes `./`. Errors: the name leaves the archive.
pub(super) fn clean(name: &str) -> std::result::Result<String, String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    match name.starts_with('/') || parts.contains(&"..") {
        true => Err(format!("'{name}' leads out of the archive")),
        false => Ok(parts.join("/")),
    }
}
