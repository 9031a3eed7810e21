//! Who signed what a registry or a layout offers: candidates are looked at until enough of them count.
//!
//! Must never: let one broken candidate hide a good one, or look at more of them than there is a limit for.

use super::Artifact;
use crate::error::{Error, Kind, Result};
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::referrers;
use crate::trust::keyring::Keyring;
use crate::trust::verify::Tally;

/// Looks for signatures of a document, until the tally has enough.
pub(super) type Look<'a> = &'a mut dyn FnMut(Digest, &mut Tally<'_>) -> Result<()>;

/// What a candidate is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The manifest that refers to what is signed.
    Manifest,
    /// The bundle: a blob.
    Bundle,
}

/// Fetches a piece by descriptor; what it returns has been checked with [`super::check_bytes`].
pub(super) type FetchPiece<'a> = &'a mut dyn FnMut(Piece, &Descriptor) -> Result<Vec<u8>>;

/// Finds out who signed what an index or a manifest led to. A signature may be on either.
/// Errors: Signature: not those who must, or it is revoked. Network: that can not be found out.
pub(super) fn prove(artifact: &mut Artifact, ring: &Keyring, look: Look) -> Result<()> {
    let what = format!("{} from {}", artifact.digest, artifact.source);
    ring.refuse_revoked(&artifact.digests()).map_err(|e| e.at("verify", &what))?;
    if ring.demands_signatures()? {
        let mut tally = Tally::new(ring);
        for subject in artifact.index_digest.into_iter().chain([artifact.digest]) {
            if tally.wants_more() {
                look(subject, &mut tally)?;
            }
        }
        artifact.signed_by = tally.finish(&what)?;
    }
    Ok(())
}

/// Looks at candidates, each once. Input: `known`: those looked at before.
/// Errors: Network: one can not be fetched; it might have been the good one.
pub(super) fn look_at(
    candidates: &[Descriptor],
    subject: Digest,
    known: &mut Vec<Digest>,
    tally: &mut Tally<'_>,
    fetch: FetchPiece,
) -> Result<()> {
    for candidate in candidates {
        if !tally.wants_more() {
            break;
        }
        if known.contains(&candidate.digest) {
            continue;
        }
        known.push(candidate.digest);
        tally.begin();
        match bundle(candidate, subject, fetch) {
            Ok(Some(bundle)) => tally.take_bundle(&bundle, subject),
            Ok(None) => {}
            Err(e) if e.kind() == Kind::Network => return Err(e),
            Err(e) => tally.pass_over(&e),
        }
    }
    Ok(())
}

fn bundle(candidate: &Descriptor, subject: Digest, fetch: FetchPiece) -> Result<Option<Vec<u8>>> {
    let at = |e: Error| e.at("read", format_args!("manifest {}", candidate.digest));
    let manifest = fetch(Piece::Manifest, candidate)?;
    match referrers::bundle_layer(&manifest, subject).map_err(at)? {
        Some(layer) => fetch(Piece::Bundle, &layer).map(Some),
        None => Ok(None),
    }
}
