//! A file's bytes, or a part of them, as one continuous stream, across broken connections.
//!
//! After a break the rest is requested by Range. A server that cannot do that, or refuses, sends the whole file, and what was
//! read before is dropped. A server that sends less than the rest is asked for the next piece. The reader checks the result
//! by a digest over all of it.
//! Must never: continue without end, or hand out a byte twice or from the wrong place.

use super::answer::{Answer, Reader, is_gzip};
use super::client::Client;
use super::deadline::Limit;
use super::failure::Failure;
use super::message::Ask;
use super::range::{check_range, is_refusal};
use super::retry;
use crate::base::error::{Error, Kind, Result};
use crate::base::url::Url;
use crate::os::progress::{aside, setback};
use std::cell::Cell;
use std::io::{self, Read};
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

/// This many bytes without a break count as progress: earlier failures are forgotten.
const PROGRESS_BYTES: u64 = 256 << 10;
/// Most pieces that a server may split a file into, plus one for each [`BYTES_PER_PIECE`]. Caps in the field are 1 MiB and
/// more; with one byte a piece, it would be tried for hours.
const MAX_PIECES: u64 = 4096;
const BYTES_PER_PIECE: u64 = 16 << 10;
/// The same for a short part, of which a file may have hundreds.
const MAX_PIECES_OF_PART: u64 = 16;
const BYTES_PER_PIECE_OF_PART: u64 = 256;
/// Bytes dropped at a time, where a server resends what was read before.
const DROP_BYTES: usize = 16 << 10;

/// A body that is still unread.
pub struct Body {
    /// Its bytes, from the requested offset. An error's text names host and reason.
    pub reader: Box<dyn Read>,
    /// Whether the bytes come from several answers, which may be about different files.
    pub is_pieced: Rc<Cell<bool>>,
    /// Where they end in the file: as asked for, or further on where only more can be had at once.
    pub until: Rc<Cell<u64>>,
    /// Bytes that came and were dropped, since a server sends what was read before once more.
    pub dropped: Rc<Cell<u64>>,
}

impl Body {
    /// Wraps a body that comes in one piece. Input: `until`: where it ends in the file.
    pub fn whole(reader: impl Read + 'static, until: u64) -> Body {
        Body {
            reader: Box::new(reader),
            is_pieced: Rc::default(),
            until: Rc::new(Cell::new(until)),
            dropped: Rc::default(),
        }
    }
}

impl Client {
    /// Opens a part of a file. Input: `size_bytes`: the file's length, which also sets the time limit for all of its parts;
    /// `begun`: when the first of them was asked for. A server that does not
    /// send parts sends all of it: what comes behind the part is then handed out as well.
    /// Errors: Network: not reachable, or a status that is not 2xx. Digest: the server announces another length. Source: a
    /// bad redirect, or compressed. Config: no CA certificates, or plain HTTP where it is not allowed.
    pub fn stream(&self, url: &Url, size_bytes: u64, part: Range<u64>, begun: Instant) -> Result<Body> {
        let (from, until) = (part.start, Rc::new(Cell::new(part.end)));
        if part.is_empty() {
            return Ok(Body::whole(io::empty(), part.end));
        }
        let (is_pieced, dropped) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let mut transfer = Transfer {
            client: self.clone(),
            places: self.places(url).into_iter().map(|url| Place { url, ranges: true, refused: 0 }).collect(),
            size_bytes,
            at: from,
            etag: None,
            body: None,
            began_at: from,
            piece_end: None,
            pieces_left: most_pieces(part.end.saturating_sub(from)),
            is_last: false,
            round: 0,
            failed: 0,
            since_break: 0,
            limit: Limit::body(self.timeouts(), size_bytes, begun),
            is_pieced: is_pieced.clone(),
            until: until.clone(),
            dropped: dropped.clone(),
        };
        transfer.open_again(None)?;
        Ok(Body { reader: Box::new(transfer), is_pieced, until, dropped })
    }
}

fn most_pieces(length: u64) -> u64 {
    let most = MAX_PIECES.saturating_add(length / BYTES_PER_PIECE);
    most.min(MAX_PIECES_OF_PART.saturating_add(length / BYTES_PER_PIECE_OF_PART))
}

/// One server that has the file.
struct Place {
    url: Url,
    /// Whether the server is assumed to support Range.
    ranges: bool,
    /// Consecutive Range requests to it that brought nothing.
    refused: u32,
}

struct Transfer {
    client: Client,
    /// The first is the one in use.
    places: Vec<Place>,
    size_bytes: u64,
    /// Offset of the next byte.
    at: u64,
    /// ETag of the current place's first answer, if it is a strong one.
    etag: Option<String>,
    body: Option<Reader>,
    /// Offset at which the current answer began.
    began_at: u64,
    /// Offset at which it ends, if it answers a Range request.
    piece_end: Option<u64>,
    pieces_left: u64,
    /// A server asked for a longer wait than the time left: there is no further round.
    is_last: bool,
    /// Places that have failed in the current round.
    round: usize,
    /// Consecutive rounds without progress.
    failed: u32,
    since_break: u64,
    limit: Limit,
    is_pieced: Rc<Cell<bool>>,
    /// Offset behind the last byte wanted.
    until: Rc<Cell<u64>>,
    dropped: Rc<Cell<u64>>,
}

impl Transfer {
    /// Opens the file at `self.at`, retrying as long as that is worthwhile. Input: the failure before, if any.
    fn open_again(&mut self, broken: Option<Failure>) -> Result<()> {
        let mut failure = broken;
        loop {
            if let Some(failure) = failure.take() {
                self.after(failure)?;
            }
            match self.open_once() {
                Ok(reader) => {
                    self.body = Some(reader);
                    return Ok(());
                }
                Err(e) => failure = Some(e),
            }
        }
    }

    /// Chooses the next step after a failure. Errors: no try is left.
    fn after(&mut self, failure: Failure) -> Result<()> {
        let Failure { error, is_passing, asked, .. } = failure;
        if !is_passing || self.places.len() > 1 {
            // This place's ETag means nothing to another one.
            self.etag = None;
        }
        if is_passing {
            self.places.rotate_left(1);
            self.round += 1;
        } else {
            self.places.remove(0);
        }
        match self.places.first() {
            None => Err(error),
            Some(next) if self.round < self.places.len() => {
                setback(&error, &format!("trying {}", next.url.authority()));
                Ok(())
            }
            Some(_) if self.is_last => Err(error),
            // Every place has failed once more.
            Some(_) => {
                (self.round, self.failed) = (0, self.failed + 1);
                self.client.wait(self.failed, self.limit, asked, error)
            }
        }
    }

    fn open_once(&mut self) -> std::result::Result<Reader, Failure> {
        let url = self.places[0].url.clone();
        if (self.at > 0 || self.until.get() < self.size_bytes) && self.places[0].ranges {
            match self.open_rest(&url) {
                Ok(Some(reader)) => return Ok(reader),
                Ok(None) => self.places[0].ranges = false,
                Err(failure) => self.after_refusal(failure)?,
            }
        }
        self.piece_end = None;
        let ask = Ask { accept: "*/*", ..Ask::default() };
        let answer = self.client.send(&url, &ask, self.limit)?.check_status(is_gzip(&url))?;
        match answer.status() {
            206 => {
                Err(Error::new(Kind::Source, "a part was sent where the whole was asked for").at("fetch", &url).into())
            }
            _ => self.whole(answer, &url),
        }
    }

    /// Judges a Range request that brought nothing: a temporary failure, or a server that will never answer one. In the
    /// latter case the file is requested from its start, once: success of that does not depend on Range.
    /// Errors: a temporary failure is returned.
    fn after_refusal(&mut self, failure: Failure) -> std::result::Result<(), Failure> {
        let place = &mut self.places[0];
        place.refused += 1;
        let refused = place.refused;
        // A wait longer than the time left is not waited out, so there is no other try then.
        let is_last = self.round + 1 >= self.places.len()
            && retry::may_be_last(self.failed + 1, self.client.tries, self.limit.left(), failure.asked);
        if !is_refusal(&failure, refused, is_last) {
            return Err(failure);
        }
        let then = format!("asked with Range, from byte {}; asking for the whole", self.at);
        setback(&failure.error, &then);
        self.places[0].ranges = false;
        self.is_last |= failure.asked.is_some_and(|asked| asked > self.limit.left());
        Ok(())
    }

    /// Requests the rest. Returns: `None`: the server cannot send it: its file is shorter, or it sends another part.
    fn open_rest(&mut self, url: &Url) -> std::result::Result<Option<Reader>, Failure> {
        let until = Some(self.until.get()).filter(|until| *until < self.size_bytes);
        let range = Some((self.at, until));
        let ask = Ask { accept: "*/*", range, if_range: self.etag.as_deref(), ..Ask::default() };
        let answer = self.client.send(url, &ask, self.limit)?;
        if answer.status() == 416 {
            aside(&format!("{} answered 416 to Range, bytes from {}; asking for the whole", url.host(), self.at));
            return Ok(None);
        }
        let answer = answer.check_status(is_gzip(url))?;
        if answer.status() != 206 {
            if self.etag.is_none() {
                aside(&format!("{} does not send parts of files (Range): the whole one comes", url.host()));
            }
            return self.whole(answer, url).map(Some);
        }
        let range = answer.header("content-range");
        match check_range(range.as_deref(), self.at, self.size_bytes, answer.length()) {
            Ok(end) => {
                self.is_pieced.set(true);
                (self.began_at, self.piece_end) = (self.at, Some(end));
                // More than was asked for comes anyway.
                self.until.set(self.until.get().max(end));
                Ok(Some(answer.into_reader()))
            }
            Err(why) => {
                aside(&format!("{} sent another part than Range asked for: {why}; asking for the whole", url.host()));
                Ok(None)
            }
        }
    }

    /// Accepts an answer with the whole file, and drops the bytes read before.
    fn whole(&mut self, answer: Answer, url: &Url) -> std::result::Result<Reader, Failure> {
        if let Some(length) = answer.length().filter(|n| *n != self.size_bytes) {
            let why = format!("{} sends {length} bytes, its description says {}", url.host(), self.size_bytes);
            return Err(Error::new(Kind::Digest, why).at("fetch", url).into());
        }
        (self.began_at, self.piece_end) = (self.at, None);
        self.until.set(self.size_bytes);
        // A weak ETag does not guarantee the same bytes.
        let etag = answer.etag().filter(|e| e.starts_with('"'));
        if self.at == 0 {
            self.etag = etag;
            return Ok(answer.into_reader());
        }
        self.is_pieced.set(true);
        self.etag = etag;
        let mut reader = answer.into_reader();
        let (mut left, mut dropped) = (self.at, [0; DROP_BYTES]);
        while left > 0 {
            let room = left.min(DROP_BYTES as u64) as usize;
            let why = match reader.read(&mut dropped[..room]) {
                Ok(0) => format!("{}: connection closed before the end", url.host()),
                Ok(n) => {
                    left -= n as u64;
                    self.dropped.set(self.dropped.get() + n as u64);
                    continue;
                }
                Err(e) => e.to_string(),
            };
            return Err(Failure::passing(Error::new(Kind::Network, why).at("fetch", url)));
        }
        Ok(reader)
    }
}

impl Read for Transfer {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(body) = self.body.as_mut() else { return Ok(0) };
            // Not beyond the announced piece: the position of further bytes is unknown.
            let piece = self.piece_end.filter(|end| *end < self.size_bytes);
            let left = piece.map_or(u64::MAX, |end| (end - self.at).max(1));
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let why = match body.read(&mut buf[..room]) {
                Ok(0) if self.at >= self.until.get() || buf.is_empty() => return Ok(0),
                Ok(0) if piece == Some(self.at) && self.pieces_left > 0 => {
                    self.next_piece()?;
                    continue;
                }
                Ok(0) if piece == Some(self.at) => {
                    format!("{}: the file comes in too many pieces", self.places[0].url.host())
                }
                Ok(1..) if piece == Some(self.at) => {
                    format!("{}: more than the part that it announced", self.places[0].url.host())
                }
                Ok(0) => format!("{}: connection closed before the end", self.places[0].url.host()),
                Ok(n) => {
                    self.at += n as u64;
                    self.since_break += n as u64;
                    if self.since_break >= PROGRESS_BYTES {
                        (self.failed, self.round, self.is_last) = (0, 0, false);
                    }
                    return Ok(n);
                }
                Err(e) => e.to_string(),
            };
            self.break_off(why)?;
        }
    }
}

impl Transfer {
    /// Continues after a complete piece: a server may send less than the rest.
    /// Source: RFC 9110, section 15.3.7.
    fn next_piece(&mut self) -> io::Result<()> {
        self.pieces_left -= 1;
        self.places[0].refused = 0;
        self.body = None;
        self.open_again(None).map_err(io::Error::other)
    }

    /// Continues after a break. Input: why it broke.
    fn break_off(&mut self, why: String) -> io::Result<()> {
        self.body = None;
        self.since_break = 0;
        let broken = Failure::passing(Error::new(Kind::Network, why).at("fetch", &self.places[0].url));
        let broken = match self.piece_end.is_some() && self.at == self.began_at {
            // Not one byte arrived: as good as a refusal.
            true => self.after_refusal(broken).err(),
            false => {
                self.places[0].refused = 0;
                Some(broken)
            }
        };
        self.open_again(broken).map_err(io::Error::other)
    }
}
