//! A file that is split into several blobs, read as one.
//!
//! Must never: omit, repeat or add a byte unnoticed. The reader checks the digest of the whole; the length of each blob is
//! checked here.

use crate::base::error::{Error, Kind, Result};
use crate::http::Body;
use crate::offer::artifact::FileRef;
use crate::source::limits::bounded;
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Opens a blob at an offset.
type Open = Box<dyn FnMut(&FileRef, u64) -> Result<Body>>;

/// Opens a file that consists of one or several blobs.
/// Input: `from`: bytes of the whole that are there already; `open`: opens one blob.
/// Returns: the rest, and at most one byte more; unverified. Blobs are opened one after another, the first at once.
/// Errors: those of `open`. Reading: Digest: a blob is longer than its descriptor says; it ends early.
pub(super) fn open(
    file: &FileRef,
    from: u64,
    mut open: impl FnMut(&FileRef, u64) -> Result<Body> + 'static,
) -> Result<Body> {
    let blobs = file.blobs();
    if let [only] = blobs.as_slice() {
        return Ok(bounded(open(only, from)?, only.size_bytes, from));
    }
    let (mut skipped, mut at) = (0, from);
    // The last one even at its end: a request for nothing gets an end of file, not an error.
    while skipped + 1 < blobs.len() && at >= blobs[skipped].size_bytes {
        at -= blobs[skipped].size_bytes;
        skipped += 1;
    }
    let is_pieced: Rc<Cell<bool>> = Rc::default();
    let mut joined = Joined {
        blobs: blobs.into_iter().skip(skipped).collect(),
        open: Box::new(open),
        body: None,
        left: 0,
        is_pieced: is_pieced.clone(),
    };
    joined.next(at)?;
    Ok(Body { reader: Box::new(joined), is_pieced })
}

struct Joined {
    /// The blobs not opened yet, and the open one.
    blobs: std::collections::VecDeque<FileRef>,
    open: Open,
    body: Option<Body>,
    /// Remaining bytes of this blob.
    left: u64,
    is_pieced: Rc<Cell<bool>>,
}

impl Joined {
    /// Opens the first of the blobs.
    fn next(&mut self, from: u64) -> Result<()> {
        let Some(blob) = self.blobs.front() else { return Ok(()) };
        self.left = blob.size_bytes.saturating_sub(from);
        self.body = Some(bounded((self.open)(blob, from)?, blob.size_bytes, from));
        Ok(())
    }

    /// Reads from the open blob. Returns: 0 if it is complete and has no further bytes.
    fn read_blob(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (Some(body), Some(blob)) = (self.body.as_mut(), self.blobs.front()) else { return Ok(0) };
        let got = body.reader.read(buffer)?;
        if body.is_pieced.get() {
            self.is_pieced.set(true);
        }
        let fault = |kind, why: String| io::Error::other(Error::new(kind, why).at("read", blob.sha256));
        if got as u64 > self.left {
            let why = format!("it is longer than the {} bytes that the manifest says", blob.size_bytes);
            return Err(fault(Kind::Digest, why));
        }
        if got == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(fault(Kind::Network, format!("it ended {} bytes early", self.left)));
        }
        self.left -= got as u64;
        Ok(got)
    }
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.body.is_some() {
            let got = self.read_blob(buffer)?;
            if got > 0 {
                return Ok(got);
            }
            self.body = None;
            self.blobs.pop_front();
            self.next(0).map_err(io::Error::other)?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;
    use crate::oci::descriptor::Descriptor;
    use crate::offer::artifact::Place;
    use std::io::Cursor;

    const WHOLE: &[u8] = b"abcdefghij";

    fn file() -> FileRef {
        let layer = |bytes: &[u8]| Descriptor {
            media_type: String::new(),
            digest: Digest::of(bytes),
            size_bytes: bytes.len() as u64,
        };
        let place = Place::Blobs(vec![layer(b"abc"), layer(b"d"), layer(b"efghij")]);
        FileRef { size_bytes: 10, sha256: Digest::of(WHOLE), place }
    }

    /// Content of a blob from an offset. Input: `more`: bytes more, or fewer, than it should have.
    fn serve(more: i64) -> impl FnMut(&FileRef, u64) -> Result<Body> {
        move |blob, from| {
            let all: &[u8] = match blob.size_bytes {
                3 => b"abc!",
                1 => b"d!",
                _ => b"efghij!",
            };
            let end = (blob.size_bytes as i64 + if blob.size_bytes == 1 { more } else { 0 }) as usize;
            Ok(Body::whole(Cursor::new(all[from as usize..end].to_vec())))
        }
    }

    fn read(from: u64, more: i64, step: usize) -> io::Result<Vec<u8>> {
        let mut body = open(&file(), from, serve(more)).unwrap();
        let (mut out, mut buffer) = (Vec::new(), vec![0; step]);
        loop {
            match body.reader.read(&mut buffer)? {
                0 => return Ok(out),
                n => out.extend_from_slice(&buffer[..n]),
            }
        }
    }

    #[test]
    fn reads_on_from_every_byte_in_steps_of_every_length() {
        for from in 0..=10 {
            for step in 1..12 {
                assert_eq!(read(from, 0, step).unwrap(), &WHOLE[from as usize..], "{from} {step}");
            }
        }
    }

    #[test]
    fn a_blob_of_another_length_is_an_error() {
        for (more, word) in [(1, "longer"), (-1, "early")] {
            let e = read(0, more, 4).unwrap_err();
            assert!(e.to_string().contains(word), "{e}");
            let kind = e.get_ref().unwrap().downcast_ref::<Error>().unwrap().kind();
            assert_eq!(kind, if more > 0 { Kind::Digest } else { Kind::Network });
        }
    }

    #[test]
    fn a_blob_that_cannot_be_opened_is_the_error_of_whoever_reads() {
        let mut serve = serve(0);
        let mut body = open(&file(), 0, move |blob, from| match blob.size_bytes {
            1 => Err(Error::new(Kind::Source, "gone")),
            _ => serve(blob, from),
        })
        .unwrap();
        let e = body.reader.read_to_end(&mut Vec::new()).unwrap_err();
        let ours = e.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert!(ours.kind() == Kind::Source && ours.to_string().contains("gone"), "{ours}");
    }

    #[test]
    fn says_when_one_blob_came_in_pieces() {
        let mut serve = serve(0);
        let mut body = open(&file(), 0, move |blob, from| {
            let body = serve(blob, from)?;
            body.is_pieced.set(blob.size_bytes == 1);
            Ok(body)
        })
        .unwrap();
        assert!(!body.is_pieced.get());
        body.reader.read_to_end(&mut Vec::new()).unwrap();
        assert!(body.is_pieced.get());
    }
}
