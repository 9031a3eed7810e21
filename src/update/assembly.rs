//! One file as a stream, from what the running slot has of it and from the blobs of the source.
//!
//! Must never: omit, repeat or add a byte unnoticed. The reader checks the digest of the whole; the length of each blob is
//! checked here.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::chunks::plan::Piece;
use crate::http::Body;
use crate::ledger::traffic::Traffic;
use crate::offer::artifact::FileRef;
use crate::os::progress::aside;
use crate::source::Source;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Instant;

/// How a file is put together.
pub struct Recipe {
    /// Its blobs, in order.
    pub blobs: Vec<FileRef>,
    /// Its pieces; those that are at hand lie in `local`.
    pub pieces: Rc<Vec<Piece>>,
    /// The file of the running slot; `None`: every piece is fetched.
    pub local: Option<File>,
}

/// A file that is being read.
pub struct Opened {
    recipe: Recipe,
    /// Offset of the next byte.
    at: u64,
    end: u64,
    /// Number of the current piece.
    piece: usize,
    open: Option<Open>,
    /// Number of the blob that was opened last, and when it was for the first time.
    begun: Option<(usize, Instant)>,
    is_pieced: bool,
}

/// Reads a file piece by piece.
pub struct Assembly<'a> {
    file: Opened,
    source: &'a mut dyn Source,
    traffic: &'a Cell<Traffic>,
}

/// A part of a blob that is being read.
struct Open {
    body: Body,
    /// Where the blob begins and ends in the file.
    begin: u64,
    end: u64,
    sha256: Digest,
    is_last: bool,
}

impl Open {
    /// Returns where its bytes end in the file.
    fn until(&self) -> u64 {
        (self.begin + self.body.until.get()).min(self.end)
    }
}

impl Opened {
    /// Begins at an offset. What has to be fetched there is opened at once, so that a source that is not available is seen.
    /// Errors: as [`Source::open`].
    pub fn new(source: &mut dyn Source, recipe: Recipe, from: u64) -> Result<Opened> {
        let end = recipe.blobs.iter().fold(0u64, |end, blob| end.saturating_add(blob.size_bytes));
        let mut file = Opened { recipe, at: from, end, piece: 0, open: None, begun: None, is_pieced: false };
        if file.place().is_none() {
            file.open_next(source)?;
        }
        Ok(file)
    }

    /// Returns where it begins.
    pub fn from(&self) -> u64 {
        self.at
    }

    /// Returns a reader. Input: `traffic`: counts the bytes.
    pub fn read<'a>(self, source: &'a mut dyn Source, traffic: &'a Cell<Traffic>) -> Assembly<'a> {
        Assembly { file: self, source, traffic }
    }

    /// Returns where the next byte lies in the local file, and how many follow it there.
    fn place(&mut self) -> Option<(u64, u64)> {
        let pieces = &self.recipe.pieces;
        while pieces.get(self.piece).is_some_and(|piece| piece.end() <= self.at) {
            self.piece += 1;
        }
        let piece = pieces.get(self.piece).filter(|_| self.recipe.local.is_some())?;
        Some((piece.found? + (self.at - piece.at), piece.end() - self.at))
    }

    /// Opens the blob that has the next byte, up to where something is at hand again.
    fn open_next(&mut self, source: &mut dyn Source) -> Result<()> {
        let piece = self.recipe.pieces.get(self.piece).filter(|_| self.recipe.local.is_some());
        let until = piece.map_or(u64::MAX, Piece::end);
        let mut begin = 0;
        for (number, blob) in self.recipe.blobs.iter().enumerate() {
            let end = begin + blob.size_bytes;
            if self.at < end {
                let known = self.begun.filter(|(known, _)| *known == number);
                let (_, begun) = *self.begun.insert(known.unwrap_or_else(|| (number, Instant::now())));
                let body = source.open(blob, self.at - begin..end.min(until) - begin, begun)?;
                let is_last = number + 1 == self.recipe.blobs.len();
                self.open = Some(Open { body, begin, end, sha256: blob.sha256, is_last });
                break;
            }
            begin = end;
        }
        Ok(())
    }

    /// Reads from the open blob. Returns: 0 if nothing more comes.
    fn read_blob(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(Open { body, begin, end, sha256, is_last }) = &mut self.open else { return Ok(0) };
        // One byte more, so that an excess is seen, but not read.
        let room = usize::try_from(*end - self.at + 1).unwrap_or(usize::MAX).min(buffer.len());
        let got = body.reader.read(&mut buffer[..room])?;
        self.is_pieced |= body.is_pieced.get();
        let fault = |kind, why: String| io::Error::other(Error::new(kind, why).at("read", *sha256));
        let at = self.at + got as u64;
        // Of the last one, who reads tells both.
        if at > *end && !*is_last {
            let why = format!("it is longer than the {} bytes that the manifest says", *end - *begin);
            return Err(fault(Kind::Digest, why));
        }
        let until = (*begin + body.until.get()).min(*end);
        if got == 0 && at < until && !*is_last {
            return Err(fault(Kind::Network, format!("it ended {} bytes early", until - at)));
        }
        self.at = at;
        Ok(got)
    }

    /// Reads from the local file. Returns: `None`: it does not have what it should.
    fn read_local(&mut self, (from, left): (u64, u64), buffer: &mut [u8]) -> Option<usize> {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.recipe.local.as_ref()?.read_at(&mut buffer[..room], from);
        let why = match got {
            Ok(0) => "it is shorter than its record says".to_owned(),
            Ok(got) => {
                self.at += got as u64;
                return Some(got);
            }
            Err(e) => e.to_string(),
        };
        aside(&format!("the running slot cannot be used: {why}; the rest is fetched"));
        None
    }
}

impl<'a> Assembly<'a> {
    /// Returns the counter of its bytes.
    pub fn traffic(&self) -> &'a Cell<Traffic> {
        self.traffic
    }

    /// Returns whether bytes came from several answers, which may be about different files.
    pub fn is_pieced(&self) -> bool {
        self.file.is_pieced
    }

    fn count(&self, fetched_bytes: u64, copied_bytes: u64) {
        let mut traffic = self.traffic.get();
        traffic.add(Traffic { fetched_bytes, copied_bytes });
        self.traffic.set(traffic);
    }
}

impl Read for Assembly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            if self.file.open.is_some() {
                let got = self.file.read_blob(buffer)?;
                let dropped = self.file.open.as_ref().map_or(0, |open| open.body.dropped.take());
                self.count(got as u64 + dropped, 0);
                let is_cut = self.file.open.as_ref().is_some_and(|open| self.file.at < open.until());
                if got > 0 || is_cut {
                    return Ok(got);
                }
                self.file.open = None;
            }
            if self.file.at >= self.file.end {
                break;
            }
            match self.file.place() {
                None => self.file.open_next(self.source).map_err(io::Error::other)?,
                Some(place) => match self.file.read_local(place, buffer) {
                    None => self.file.recipe.local = None,
                    Some(got) => {
                        self.count(0, got as u64);
                        return Ok(got);
                    }
                },
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
#[path = "assembly_tests.rs"]
mod tests;
