//! An OCI image layout as one file: tar, or gzipped tar. Read in place, never unpacked.
//!
//! An archive is as untrusted as a network: names and sizes are checked, links are not followed, and its table of contents is
//! bounded. Must never: write, or keep more than a few small documents in memory.

use super::inflated::INFLATED_MAX;
use super::magic;
use crate::base::error::{Error, IoContext, Kind, Result};
use crate::source::inflated::{AGAIN_MAX, Later, Stream, bad, broken, exact};
use crate::source::tar::{BLOCK, Extended, Header, clean, padded};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

/// Most members examined. A layout with two architectures has about 20.
const MAX_MEMBERS: usize = 4096;

/// Largest document kept while the table of contents is built, in bytes: in gzip, each later access starts at the beginning.
const KEPT_EACH: u64 = 32 << 10;
/// Total that is kept, in bytes.
const KEPT_TOTAL: usize = 512 << 10;

/// The table of contents of one archive.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    is_gzip: bool,
    members: Vec<Member>,
    /// Bytes that may still be inflated to read documents.
    left: Cell<u64>,
}

#[derive(Debug)]
struct Member {
    name: String,
    /// Offset of its bytes in the tar.
    offset: u64,
    /// `None`: not a regular file.
    size_bytes: Option<u64>,
    kept: Option<Vec<u8>>,
}

impl Archive {
    /// Builds the table of contents of an open file.
    /// Errors: Source: neither tar nor gzipped tar, cut short, or something in it is hostile.
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

    /// Names a file in it, for messages.
    pub fn place(&self, name: &str) -> String {
        format!("{name} in {}", self.path.display())
    }

    /// Returns the length of a file in it. Errors: Source: it does not exist, or is not a regular file.
    pub fn size_bytes(&self, name: &str) -> Result<u64> {
        self.find(name).map(|(_, size_bytes)| size_bytes)
    }

    /// Returns whether it contains this name.
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name)
    }

    /// Lists the names of small files in it that can be read at once, with their bytes: in gzip, access to any other inflates
    /// everything before it.
    pub fn kept(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.members.iter().filter_map(|member| Some((member.name.as_str(), member.kept.as_deref()?)))
    }

    /// Opens a document in it, as [`Archive::open`] does. In gzip, each one that was not kept is read from the beginning, and
    /// there may be a thousand of them: their total is limited.
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

    /// Returns an error if the inflation limit was reached: the unseen part may have held what was wanted.
    pub fn is_spent(&self) -> Option<Error> {
        let why = "to get at more documents, it would be inflated from its beginning again and again";
        let error = || Error::new(Kind::Source, why).at("read", self.path.display());
        (self.left.get() == 0).then(|| error().hint("gunzip it, and name the tar"))
    }

    /// Returns whether each opening of a file inflates what is before it.
    pub fn is_gzip(&self) -> bool {
        self.is_gzip
    }

    /// Opens a file in it; seeks to it on the first read. Input: `from`: first byte wanted.
    /// Errors: Source: it does not exist, or is not a regular file. Reading: it cannot be read.
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
                // Without the two blocks of zeros: tar itself accepts that.
                return if seen > 0 { Ok(()) } else { Err(bad("it is empty".into())) };
            }
            at += BLOCK as u64;
            let Some(mut header) = Header::parse(&block).map_err(bad)? else { return Ok(()) };
            seen += 1;
            if seen > MAX_MEMBERS {
                return Err(bad(format!("it has more than {MAX_MEMBERS} members")));
            }
            if matches!(header.kind, b'x' | b'L' | b'K' | b'g') {
                at += extended.read(&header, stream)?;
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

/// Returns whether a layout needs a file of this name. Source: image-spec 1.1, image-layout.md.
fn is_wanted(name: &str) -> bool {
    let is_blob = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    name == "oci-layout" || name == "index.json" || name.strip_prefix("blobs/sha256/").is_some_and(is_blob)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
