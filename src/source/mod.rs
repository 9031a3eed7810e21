//! Where updates come from: HTTP server, OCI registry, or OCI image layout, behind one small trait.
//!
//! A source describes an artifact and opens its files; it decides nothing (see `gate`) and
//! writes nothing (see `stage`). Must never: hand out a document whose digest was asked for and not checked.
//!
//! May import: base, os, oci, offer, trust, http. Must never import: slot, ledger, config, cmd: a source decides
//! nothing and writes nothing.

pub mod archive;
mod choose;
mod follow;
mod inflated;
mod joined;
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

use crate::base::error::Result;
use crate::http::Body;
use crate::offer::artifact::{Artifact, FileRef};

/// A place that updates come from.
pub trait Source {
    /// Finds out what is offered, and proves who signed it. Reads metadata only, never a file. Input: `architecture`:
    /// amd64, arm64. Errors: Signature: not signed by those who must. Gate: nothing here for this architecture. Digest: a document is not what it should
    /// be. Source: a document is malformed. Network: not reachable. Config: no way to ask.
    fn resolve(&mut self, architecture: &str) -> Result<Artifact>;

    /// Asks, in one request, whether what was resolved before is still what is offered.
    /// Input: what [`Source::validator`] returned then. Returns: false where that cannot be told: then
    /// [`Source::resolve`] says why.
    fn is_unchanged(&mut self, _validator: &str) -> bool {
        false
    }

    /// Returns what tells whether the answer of [`Source::resolve`] still holds, if there is such a thing.
    fn validator(&self) -> Option<String> {
        None
    }

    /// Opens a file of an artifact that this source resolved. Input: `from`: bytes of it that are there already.
    /// Returns: the rest of it, and at most one byte more; **unverified**: the reader of it checks length and digest.
    /// Errors: as above; Digest: the source announces another length.
    fn open(&mut self, file: &FileRef, from: u64) -> Result<Body>;

    /// Says that what was opened last turned out to be wrong. Returns: whether there is another place to open it from.
    fn doubt(&mut self) -> bool {
        false
    }

    /// Says whether a file can be had, and reads nothing of it: asked before its old copy is given up.
    /// Errors: as [`Source::open`]. A server that cannot say is taken to have it.
    fn probe(&mut self, file: &FileRef) -> Result<()>;

    /// Names the source for people, without secrets.
    fn describe(&self) -> String;
}
