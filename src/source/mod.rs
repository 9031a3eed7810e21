//! Where updates come from: HTTP server, OCI registry, or OCI image layout, behind one small trait.
//!
//! A source describes an artifact and opens its files; it decides nothing (see `gate`) and writes nothing (see `stage`).
//! Must never: return a document that was requested by digest without checking the digest.
//!
//! May import: base, os, oci, offer, trust, http. Must never import: slot, ledger, config, cmd: a source decides
//! nothing and writes nothing.

pub mod archive;
mod choose;
mod follow;
mod inflated;
pub mod latest;
mod latest_json;
pub mod layout;
mod limits;
mod magic;
pub mod registry;
mod remarks;
mod signatures;
pub mod spec;
mod tar;
mod unlisted;

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::http::Body;
use crate::offer::artifact::{Artifact, FileRef};
use std::io::Read;
use std::ops::Range;
use std::time::Instant;

/// Reads a small blob whole.
/// Errors: as [`Source::open`]; Source: it is said to be longer than `cap_bytes`; Digest: it is not what it should be.
pub fn read_small(source: &mut dyn Source, blob: &FileRef, cap_bytes: u64) -> Result<Vec<u8>> {
    if blob.size_bytes > cap_bytes {
        let why = format!("it has {} bytes, more than it may have ({cap_bytes})", blob.size_bytes);
        return Err(Error::new(Kind::Source, why));
    }
    let body = source.open(blob, 0..blob.size_bytes, Instant::now())?;
    let mut bytes = Vec::with_capacity(blob.size_bytes as usize + 1);
    body.reader.take(blob.size_bytes + 1).read_to_end(&mut bytes).io(Kind::Network, "read", blob.sha256)?;
    limits::check_content(&bytes, blob.size_bytes, blob.sha256)?;
    Ok(bytes)
}

/// A place that updates come from.
pub trait Source {
    /// Finds what is offered, and proves its signers. Reads metadata only, never a file. Input: `architecture`: amd64, arm64.
    /// Errors: Signature: required signatures are missing. Gate: nothing here for this architecture. Digest: a document is not
    /// what it should be. Source: a document is malformed. Network: not reachable. Config: no way to ask.
    fn resolve(&mut self, architecture: &str) -> Result<Artifact>;

    /// Checks, in one request, whether what was resolved before is still what is offered.
    /// Input: the value of [`Source::validator`] then. Returns: false if unknown: then [`Source::resolve`] reports why.
    fn is_unchanged(&mut self, _validator: &str) -> bool {
        false
    }

    /// Returns the value that tells whether the result of [`Source::resolve`] still holds, if any.
    fn validator(&self) -> Option<String> {
        None
    }

    /// Opens a part of one of the blobs of an artifact that this source resolved.
    /// Input: `begun`: when the blob's first part was asked for: all of them share the time limit of one file.
    /// Returns: that part; **unverified**: the reader checks length and digest. A source that cannot send parts sends more:
    /// [`Body::until`].
    /// Errors: as above; Digest: the source announces another length.
    fn open(&mut self, blob: &FileRef, part: Range<u64>, begun: Instant) -> Result<Body>;

    /// Reports that the content opened last was wrong. Returns: whether another place can be tried.
    fn doubt(&mut self) -> bool {
        false
    }

    /// Checks whether a file is available, without reading it: asked before its old copy is deleted.
    /// Errors: as [`Source::open`]. A server that cannot tell is assumed to have it.
    fn probe(&mut self, file: &FileRef) -> Result<()>;

    /// Names the source in messages, without secrets.
    fn describe(&self) -> String;
}
