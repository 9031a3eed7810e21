//! An OCI image layout as one file: tar, or tar in gzip. Read in place, nothing is unpacked.
//!
//! An archive is as foreign as a network: names and sizes are checked, links are not followed, and its table of contents
//! has a limit. Must never: write, or keep more than a few small documents in memory.

use super::magic;
use crate::base::error::{Error, IoContext, Kind, Result};
use flate2::bufread::MultiGzDecoder;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// tar's unit, in bytes.
const BLOCK: usize = 512;
/// Most members that are looked at. A layout with two architectures has some 20.
const MAX_MEMBERS: usize = 4096;
/// Longest member of tar's own that carries a long name or extended headers, in bytes.
const MAX_EXTENDED: u64 = 64 << 10;
/// Documents up to this size, in bytes, are kept while the table of contents is made: in gzip, each later look starts
/// at the beginning.
const KEPT_EACH: u64 = 32 << 10;
/// All that is kept, in bytes.
const KEPT_TOTAL: usize = 512 << 10;
/// Most that an archive may inflate to, in bytes.
const INFLATED_MAX: u64 = 4 << 30;
/// Most that is inflated in all to get at documents that were not kept, in bytes. They are read before it is known who
/// made the archive, and while the lock is held. Of a release of 200 MB with more than is kept, some 40.
const AGAIN_MAX: u64 = 2 * INFLATED_MAX;

/// The table of contents of one archive.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    is_gzip: bool,
    members: Vec<Member>,
    /// What may still be inflated to get at documents, in bytes.
    left: Cell<u64>,
}

#[derive(Debug)]
struct Member {
    name: String,
    /// Where its bytes begin, in the tar.
    offset: u64,
    /// `None`: no regular file.
    size_bytes: Option<u64>,
    kept: Option<Vec<u8>>,
}

/// What one header says. Pure.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    name: String,
    size_bytes: u64,
    kind: u8,
}

impl Archive {
    /// Reads the table of contents of a file that was opened already.
    /// Errors: Source: it is neither tar nor tar in gzip, it is cut short, or something in it is hostile.
    pub fn scan(path: &Path, file: File) -> Result<Archive> {
        let mut archive =
            Archive { path: path.to_owned(), is_gzip: false, members: Vec::new(), left: Cell::new(AGAIN_MAX) };
        let mut magic = [0; magic::LENGTH];
        let mut file = file;
        let _ = file.read(&mut magic).io(Kind::Source, "read", path.display())?;
        file.rewind().io(Kind::Source, "read", path.display())?;
        archive.is_gzip = magic.starts_with(&[0x1f, 0x8b]);
        if let Some(why) = magic::other_format(&magic) {
            return Err(bad(why).at("read", path.display()));
        }
        let mut stream = Stream::new(file, archive.is_gzip).io(Kind::Source, "read", path.display())?;
        archive.list(&mut stream).map_err(|e| e.at("read", path.display()))?;
        Ok(archive)
    }

    /// Names a file in it for people.
    pub fn place(&self, name: &str) -> String {
        format!("{name} in {}", self.path.display())
    }

    /// Returns how long a file in it is. Errors: Source: it is not there, or no regular file.
    pub fn size_bytes(&self, name: &str) -> Result<u64> {
        self.find(name).map(|(_, size_bytes)| size_bytes)
    }

    /// Says whether there is such a name in it.
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name)
    }

    /// Lists the names of small files in it that can be read at once, with their bytes: in gzip, a look at any other
    /// inflates what stands before it.
    pub fn kept(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.members.iter().filter_map(|member| Some((member.name.as_str(), member.kept.as_deref()?)))
    }

    /// Opens a document in it, as [`Archive::open`] does. In gzip, each one that was not kept is looked for from the
    /// beginning, and there may be a thousand of them: all that is limited together.
    /// Errors: as there; Source: too much was inflated.
    pub fn open_document(&self, name: &str) -> Result<Box<dyn Read>> {
        let (member, size_bytes) = self.find(name)?;
        if self.is_gzip && member.kept.is_none() {
            let left = self.left.get().checked_sub(member.offset.saturating_add(size_bytes));
            self.left.set(left.unwrap_or_default());
            if let Some(spent) = self.is_spent() {
                return Err(spent);
            }
        }
        self.open(name, 0)
    }

    /// Says that there was more to look at than may be inflated: what was not seen may have been what was looked for.
    pub fn is_spent(&self) -> Option<Error> {
        let why = "to get at more documents, it would be inflated from its beginning again and again";
        let error = || Error::new(Kind::Source, why).at("read", self.path.display());
        (self.left.get() == 0).then(|| error().hint("gunzip it, and name the tar"))
    }

    /// Opens a file in it; looks for its place when it is read. Input: `from`: first byte wanted.
    /// Errors: Source: it is not there, or no regular file. Reading: it can not be read.
    pub fn open(&self, name: &str, from: u64) -> Result<Box<dyn Read>> {
        let (member, size_bytes) = self.find(name)?;
        let left = size_bytes.saturating_sub(from);
        if let Some(kept) = &member.kept {
            let rest = kept.get(from as usize..).unwrap_or_default().to_vec();
            return Ok(Box::new(io::Cursor::new(rest)));
        }
        let place = (self.path.clone(), self.is_gzip, member.offset + from.min(size_bytes));
        Ok(Box::new(Later { place, stream: None }.take(left)))
    }

    fn find(&self, name: &str) -> Result<(&Member, u64)> {
        let at = |e: Error| e.at("open", self.place(name));
        let member = self.members.iter().find(|member| member.name == name);
        let member = member.ok_or_else(|| at(Error::new(Kind::Source, "it is not there")))?;
        let size_bytes = member.size_bytes.ok_or_else(|| at(Error::new(Kind::Source, "not a regular file")))?;
        Ok((member, size_bytes))
    }

    /// Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar, "Basic Tar Format".
    fn list(&mut self, stream: &mut Stream) -> Result<()> {
        let (mut at, mut seen, mut kept) = (0u64, 0usize, 0usize);
        let mut extended = Extended::default();
        loop {
            let mut block = [0; BLOCK];
            if !stream.fill(&mut block).map_err(broken)? {
                // Without the two blocks of zeros: tar itself takes that.
                return if seen > 0 { Ok(()) } else { Err(bad("it is empty".into())) };
            }
            at += BLOCK as u64;
            let Some(mut header) = Header::parse(&block).map_err(bad)? else { return Ok(()) };
            seen += 1;
            if seen > MAX_MEMBERS {
                return Err(bad(format!("it has more than {MAX_MEMBERS} members")));
            }
            if matches!(header.kind, b'x' | b'L' | b'K' | b'g') {
                if header.size_bytes > MAX_EXTENDED {
                    return Err(bad(format!("an extended header of {} bytes", header.size_bytes)));
                }
                let padded = padded(header.size_bytes);
                let mut text = vec![0; padded as usize];
                exact(stream.fill(&mut text))?;
                text.truncate(header.size_bytes as usize);
                extended.take(header.kind, &text).map_err(bad)?;
                at += padded;
                continue;
            }
            std::mem::take(&mut extended).apply(&mut header);
            let name = clean(&header.name).map_err(bad)?;
            let size = header.size_bytes;
            if size > i64::MAX as u64 || at.saturating_add(padded(size)) > INFLATED_MAX {
                return Err(bad(format!("'{name}' is said to have {size} bytes")));
            }
            let mut member = Member { name, offset: at, size_bytes: header.is_file().then_some(size), kept: None };
            // A link or a directory has no content, whatever its size says.
            let content = if header.is_file() || !matches!(header.kind, b'1'..=b'6') { padded(size) } else { 0 };
            let keep =
                header.is_file() && size <= KEPT_EACH && kept + size as usize <= KEPT_TOTAL && is_wanted(&member.name);
            if keep {
                let mut bytes = vec![0; content as usize];
                exact(stream.fill(&mut bytes))?;
                bytes.truncate(size as usize);
                kept += bytes.len();
                member.kept = Some(bytes);
            } else {
                stream.skip(content).map_err(broken)?;
            }
            at += content;
            if !is_wanted(&member.name) || header.kind == b'5' {
                continue;
            }
            if self.members.iter().any(|other| other.name == member.name) {
                return Err(bad(format!("'{}' is there twice", member.name)));
            }
            self.members.push(member);
        }
    }
}

fn bad(why: String) -> Error {
    Error::new(Kind::Source, why)
}

fn broken(e: io::Error) -> Error {
    bad(match e.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut short".to_owned(),
        _ => e.to_string(),
    })
}

fn exact(filled: io::Result<bool>) -> Result<()> {
    match filled {
        Ok(true) => Ok(()),
        Ok(false) => Err(bad("it is cut short".into())),
        Err(e) => Err(broken(e)),
    }
}

fn padded(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
}

/// Says whether a layout needs a file of this name. Source: image-spec 1.1, image-layout.md.
fn is_wanted(name: &str) -> bool {
    let is_blob = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    name == "oci-layout" || name == "index.json" || name.strip_prefix("blobs/sha256/").is_some_and(is_blob)
}

/// Takes `./` away. Errors: the name leads out of the archive, or is none.
fn clean(name: &str) -> std::result::Result<String, String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    match name.starts_with('/') || parts.contains(&"..") {
        true => Err(format!("'{name}' leads out of the archive")),
        false => Ok(parts.join("/")),
    }
}

impl Header {
    fn is_file(&self) -> bool {
        matches!(self.kind, 0 | b'0' | b'7')
    }

    /// Reads one header. Returns: `None` at the end of the archive. Errors: what is wrong with it.
    fn parse(block: &[u8; BLOCK]) -> std::result::Result<Option<Header>, String> {
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
        // The field of the checksum itself counts as blanks.
        let found = sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..]);
        if number(&block[148..156]) != Some(found) {
            return Err("it is no tar archive, or a header in it is damaged".into());
        }
        let text = |field: &[u8]| {
            let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
            String::from_utf8(field[..end].to_vec()).map_err(|_| "a name in it is not UTF-8".to_owned())
        };
        let mut name = text(&block[..100])?;
        // GNU's older format has times in the place of the prefix.
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            name = format!("{}/{name}", text(&block[345..500])?);
        }
        let size_bytes = number(&block[124..136]).ok_or_else(|| format!("the size of '{name}' is no number"))?;
        Ok(Some(Header { name, size_bytes, kind: block[156] }))
    }
}

/// Reads a number: octal digits, or GNU's base 256.
fn number(field: &[u8]) -> Option<u64> {
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

/// What stands before a header, for it alone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Extended {
    name: Option<String>,
    size_bytes: Option<u64>,
}

impl Extended {
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
                            self.size_bytes = Some(size.ok_or("a size in it is no number")?);
                        }
                        _ if key.starts_with(b"GNU.sparse") => return Err("it holds a sparse file".into()),
                        _ => {}
                    }
                    rest = tail;
                }
            }
            // Names of link targets, and what holds for all: nothing that a layout needs.
            _ => {}
        }
        Ok(())
    }

    fn apply(self, header: &mut Header) {
        if let Some(name) = self.name {
            header.name = name;
        }
        header.size_bytes = self.size_bytes.unwrap_or(header.size_bytes);
    }
}

/// Takes one record, `LENGTH KEY=VALUE\n`, off extended headers.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = text.iter().position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&text[..blank]).ok()?.parse().ok()?;
    let (whole, tail) = text.split_at_checked(length)?;
    let body = whole.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    Some((&body[..equals], &body[equals + 1..], tail))
}

enum Stream {
    Plain { file: File, length: u64 },
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Stream {
    fn new(file: File, is_gzip: bool) -> io::Result<Stream> {
        Ok(match is_gzip {
            true => Stream::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(64 << 10, file)))),
            false => Stream::Plain { length: file.metadata()?.len(), file },
        })
    }

    /// Fills the buffer. Returns: false at the end. Errors: UnexpectedEof: the end comes in the middle of it.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Errors: UnexpectedEof: there is less.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        match self {
            Stream::Plain { file, length } => {
                let to = file.stream_position()?.saturating_add(bytes);
                if to > *length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                file.seek(SeekFrom::Start(to)).map(drop)
            }
            Stream::Gzip(inner) => match io::copy(&mut inner.take(bytes), &mut io::sink())? {
                skipped if skipped == bytes => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        }
    }
}

/// What is opened, and its place looked for, when somebody reads it: who asks only whether it is there, waits for nothing.
struct Later {
    /// The archive, whether it is gzip, and the first byte.
    place: (PathBuf, bool, u64),
    stream: Option<Stream>,
}

impl Read for Later {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let (path, is_gzip, at) = &self.place;
                let mut stream = Stream::new(File::open(path)?, *is_gzip)?;
                stream.skip(*at)?;
                self.stream.insert(stream)
            }
        };
        stream.read(buffer)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain { file, .. } => file.read(buffer),
            Stream::Gzip(inner) => inner.read(buffer),
        }
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
