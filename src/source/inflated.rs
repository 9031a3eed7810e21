//! The bytes of an archive, inflated if compressed.

use crate::base::error::{Error, Kind, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::BufReader;
use std::io::Read;
use std::io::SeekFrom;
use std::io::{self, Seek};
use std::path::PathBuf;

/// Most bytes that an archive may inflate to.
pub(super) const INFLATED_MAX: u64 = 4 << 30;
/// Most bytes inflated in total to read documents that were not kept. They are read before the archive's origin is proven, and
/// while the lock is held. Enough for about 40 reads of a 200 MB release.
pub(super) const AGAIN_MAX: u64 = 2 * INFLATED_MAX;

pub(super) enum Stream {
    Plain { file: File, length: u64 },
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Stream {
    pub(crate) fn new(file: File, is_gzip: bool) -> io::Result<Stream> {
        Ok(match is_gzip {
            true => Stream::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(64 << 10, file)))),
            false => Stream::Plain { length: file.metadata()?.len(), file },
        })
    }

    /// Fills the buffer. Returns: false at the end. Errors: UnexpectedEof: it ends within the buffer.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
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

    /// Errors: UnexpectedEof: fewer bytes remain.
    pub(crate) fn skip(&mut self, bytes: u64) -> io::Result<()> {
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

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain { file, .. } => file.read(buffer),
            Stream::Gzip(inner) => inner.read(buffer),
        }
    }
}

/// Opened and positioned on the first read, so that a check of existence does not wait.
pub(super) struct Later {
    /// The archive, whether it is gzip, and the first byte.
    pub(super) place: (PathBuf, bool, u64),
    pub(super) stream: Option<Stream>,
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

pub(super) fn bad(why: String) -> Error {
    Error::new(Kind::Source, why)
}

pub(super) fn broken(e: io::Error) -> Error {
    bad(match e.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut short".to_owned(),
        _ => e.to_string(),
    })
}

pub(super) fn exact(filled: io::Result<bool>) -> Result<()> {
    match filled {
        Ok(true) => Ok(()),
        Ok(false) => Err(bad("it is cut short".into())),
        Err(e) => Err(broken(e)),
    }
}
