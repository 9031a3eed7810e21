//! Signers of what a registry or a layout offers: candidates are examined until enough of them count.
//!
//! Must never: let one broken candidate hide a good one, or examine more of them than the limit.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::oci::descriptor::Descriptor;
use crate::offer::artifact::Artifact;
use crate::trust::beside::{self, Other};
use crate::trust::keyring::Keyring;
use crate::trust::referrers;
use crate::trust::tally::Tally;

/// Kind of object to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Signatures of a document, until the tally has enough.
    Signatures,
    /// Whatever exists instead: asked if there are no signatures, for the words of the error.
    Others,
}

/// Looks for this kind of object for a document.
pub(super) type Look<'a> = &'a mut dyn FnMut(Wanted, Digest, &mut Tally<'_>);

/// Part of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The manifest that refers to the signed document.
    Manifest,
    /// The bundle: a blob.
    Bundle,
}

/// Fetches a part by descriptor; its result has been checked with [`super::limits::check_bytes`]. `None`: it does not exist.
pub(super) type FetchPiece<'a> = &'a mut dyn FnMut(Piece, &Descriptor) -> Result<Option<Vec<u8>>>;

/// Most bundles, and in a registry most manifests around them, examined for one document: each costs a request.
pub(super) const MAX_CANDIDATES: usize = 128;

/// Finds out which keys signed an artifact's index or manifest. A signature may be on either.
/// Input: `is_stated`: the manifest itself states its architecture. If only an index does, that counts only if the index is
/// signed: anyone can file a signed manifest under another architecture.
/// Errors: Signature: required signatures are missing, or it is revoked. Network: that cannot be determined.
pub(super) fn prove(artifact: &mut Artifact, is_stated: bool, ring: &Keyring, look: Look) -> Result<()> {
    let what = format!("{} from {}", artifact.digest, artifact.source);
    ring.refuse_revoked(&artifact.digests()).map_err(|e| e.at("verify", &what))?;
    if ring.demands_signatures()? {
        let mut tally = Tally::new(ring);
        let mut is_index_signed = false;
        if let Some(index) = artifact.index_digest {
            look(Wanted::Signatures, index, &mut tally);
            is_index_signed = tally.is_enough();
        }
        if tally.wants_more() {
            look(Wanted::Signatures, artifact.digest, &mut tally);
        }
        for subject in artifact.index_digest.into_iter().chain([artifact.digest]) {
            if tally.knows_nothing() {
                look(Wanted::Others, subject, &mut tally);
            }
        }
        let hint = "the publisher signs with `cosign sign --key` of cosign 3 (P-256) or scripts/sign.sh";
        artifact.signed_by = tally.finish(&what, hint)?;
        if !is_stated && !is_index_signed {
            artifact.release.architecture = None;
        }
    }
    Ok(())
}

/// What candidates are examined for.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    /// What they must have signed.
    pub(super) subject: Digest,
    /// Limit of all examined.
    pub(super) most: usize,
}

/// Examines candidates, each once.
/// Input: `known`: those examined before.
pub(super) fn look_at(
    candidates: &[Descriptor],
    Wish { subject, most }: Wish,
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
        match find(candidate, subject, fetch) {
            Ok(Found::Bundle(bundle)) => {
                bundles += 1;
                tally.take_bundle(&bundle, subject);
            }
            Ok(Found::Gone(part, digest)) => tally.is_gone(part, digest),
            Ok(Found::Other(other)) => tally.see(other),
            Ok(Found::Nothing) => {}
            Err(e) if e.kind() == Kind::Network => tally.postpone(e),
            Err(e) => tally.pass_over(&e),
        }
    }
}

/// What a candidate turns out to be.
enum Found {
    Bundle(Vec<u8>),
    /// Missing: which part, and its digest.
    Gone(&'static str, Digest),
    Other(Other),
    /// Unrelated to signatures of this document.
    Nothing,
}

fn find(candidate: &Descriptor, subject: Digest, fetch: FetchPiece) -> Result<Found> {
    let at = |e: Error| e.at("read", format_args!("manifest {}", candidate.digest));
    let Some(manifest) = fetch(Piece::Manifest, candidate)? else {
        return Ok(Found::Gone("manifest", candidate.digest));
    };
    if let Some(layer) = referrers::bundle_layer(&manifest, subject).map_err(at)? {
        let bundle = fetch(Piece::Bundle, &layer)?;
        return Ok(bundle.map_or(Found::Gone("bundle", layer.digest), Found::Bundle));
    }
    Ok(match beside::of_manifest(&manifest, subject) {
        Some((other, None)) => Found::Other(other),
        // Its payload states what was signed.
        Some((other, Some(layer))) if layer.size_bytes <= referrers::MANIFEST_MAX_BYTES => {
            let payload = fetch(Piece::Bundle, &layer)?.unwrap_or_default();
            match String::from_utf8_lossy(&payload).contains(&subject.to_string()) {
                true => Found::Other(other),
                false => Found::Nothing,
            }
        }
        _ => Found::Nothing,
    })
}
