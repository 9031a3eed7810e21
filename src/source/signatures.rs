//! Who signed what a registry or a layout offers: candidates are looked at until enough of them count.
//!
//! Must never: let one broken candidate hide a good one, or look at more of them than there is a limit for.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::oci::descriptor::Descriptor;
use crate::offer::artifact::Artifact;
use crate::trust::beside::{self, Other};
use crate::trust::keyring::Keyring;
use crate::trust::referrers;
use crate::trust::tally::Tally;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Signatures of a document, until the tally has enough.
    Signatures,
    /// What lies there in their place: asked once there are none, for the words of the error.
    Others,
}

/// Looks for it, beside a document.
pub(super) type Look<'a> = &'a mut dyn FnMut(Wanted, Digest, &mut Tally<'_>);

/// What a candidate is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The manifest that refers to what is signed.
    Manifest,
    /// The bundle: a blob.
    Bundle,
}

/// Fetches a piece by descriptor; what it returns has been checked with [`super::limits::check_bytes`]. `None`: it is not there.
pub(super) type FetchPiece<'a> = &'a mut dyn FnMut(Piece, &Descriptor) -> Result<Option<Vec<u8>>>;

/// Most bundles, and in a registry most manifests around them, that are looked at for one document: each costs a request.
pub(super) const MAX_CANDIDATES: usize = 128;

/// Finds out who signed what an index or a manifest led to. A signature may be on either.
/// Input: `is_stated`: the manifest itself says which architecture it is for. If only an index does, that counts once the
/// index is signed: anybody can file a signed manifest under another architecture.
/// Errors: Signature: not those who must, or it is revoked. Network: that cannot be found out.
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
    /// Which part of it, and its digest.
    Gone(&'static str, Digest),
    Other(Other),
    /// Nothing that has to do with signatures of this document.
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
        // It says itself what was signed.
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
