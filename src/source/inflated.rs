//! The bytes of an archive, inflated where it is packed.

use crate::base::error::{Error, Kind, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::BufReader;
use std::io::Read;
use std::io::SeekFrom;
use std::io::{self, Seek};
use std::path::PathBuf;

/// Most that an archive may inflate to, in bytes.
pub(super) const INFLATED_MAX: u64 = 4 << 30;
/// Most that is inflated in all to get at documents that were not kept, in bytes. They are read before it is known who
/// made the archive, and while the lock is held. Of a release of 200 MB with more than is kept, some 40.
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

    /// Fills the buffer. Returns: false at the end. Errors: UnexpectedEof: the end comes in the middle of it.
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

    /// Errors: UnexpectedEof: there is less.
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

/// What is opened, and its place looked for, when somebody reads it: who asks only whether it is there, waits for nothing.
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
