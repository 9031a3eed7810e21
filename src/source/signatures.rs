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
pub(super) type Look<'a> = &'a mut dyn FnMut(Digest, &mut Tally<'_>);

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

/// Most bundles, and in a registry most manifests around them, that are looked at for one document: each costs a request.
pub(super) const MAX_CANDIDATES: usize = 128;

/// Finds out who signed what an index or a manifest led to. A signature may be on either.
/// Input: `is_stated`: the manifest itself says which architecture it is for. If only an index does, that counts once the
/// index is signed: anybody can file a signed manifest under another architecture.
/// Errors: Signature: not those who must, or it is revoked. Network: that can not be found out.
pub(super) fn prove(artifact: &mut Artifact, is_stated: bool, ring: &Keyring, look: Look) -> Result<()> {
    let what = format!("{} from {}", artifact.digest, artifact.source);
    ring.refuse_revoked(&artifact.digests()).map_err(|e| e.at("verify", &what))?;
    if ring.demands_signatures()? {
        let mut tally = Tally::new(ring);
        let mut is_index_signed = false;
        if let Some(index) = artifact.index_digest {
            look(index, &mut tally);
            is_index_signed = tally.is_enough();
        }
        if tally.wants_more() {
            look(artifact.digest, &mut tally);
        }
        let hint = "the publisher signs with `cosign sign --key` (P-256) or scripts/sign.sh";
        artifact.signed_by =
            tally.finish(&what).map_err(|e| if e.kind() == Kind::Signature { e.hint(hint) } else { e })?;
        if !is_stated && !is_index_signed {
            artifact.architecture = None;
        }
    }
    Ok(())
}

/// Looks at candidates, each once.
/// Input: `known`: those looked at before; `most`: so many may be looked at in all.
pub(super) fn look_at(
    candidates: &[Descriptor],
    (subject, most): (Digest, usize),
    known: &mut Vec<Digest>,
    tally: &mut Tally<'_>,
    fetch: FetchPiece,
) {
    let mut bundles = 0;
    for candidate in candidates {
        if !tally.wants_more() {
            break;
        }
        if known.contains(&candidate.digest) {
            continue;
        }
        if known.len() == most || bundles == MAX_CANDIDATES {
            tally.cut_short(if bundles == MAX_CANDIDATES { bundles } else { most });
            break;
        }
        known.push(candidate.digest);
        if tally.is_revoked(candidate.digest) {
            continue;
        }
        tally.begin();
        match bundle(candidate, subject, fetch) {
            Ok(Some(bundle)) => {
                bundles += 1;
                tally.take_bundle(&bundle, subject);
            }
            Ok(None) => {}
            Err(e) if e.kind() == Kind::Network => tally.postpone(e),
            Err(e) => tally.pass_over(&e),
        }
    }
}

fn bundle(candidate: &Descriptor, subject: Digest, fetch: FetchPiece) -> Result<Option<Vec<u8>>> {
    let at = |e: Error| e.at("read", format_args!("manifest {}", candidate.digest));
    let manifest = fetch(Piece::Manifest, candidate)?;
    match referrers::bundle_layer(&manifest, subject).map_err(at)? {
        Some(layer) => fetch(Piece::Bundle, &layer).map(Some),
        None => Ok(None),
    }
}
