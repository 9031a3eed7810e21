//! Counts whether enough trusted keys have signed an artifact: candidates are taken one by one. Pure.
//!
//! A candidate's content is believed only after a key has verified it; the reason why one did not count is kept for the error.
//! Must never: count a key twice, or count a signature of anything else.

use super::bundle::Bundle;
use super::key::{Algorithm, Key};
use super::keyring::Keyring;
use crate::base::base64;
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::text::hex;
use crate::trust::beside::Other;

/// Most candidates examined once enough keys have signed: with a signature by another trusted key, it does not matter if the
/// first one is revoked before the artifact is activated.
const MAX_EXTRA: usize = 4;
/// Most signatures in a detached file.
const MAX_DETACHED: usize = 16;
/// Longest detached file that is read, in bytes.
pub const DETACHED_MAX_BYTES: u64 = 8 << 10;

/// Why a candidate did not count; the most informative comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blame {
    Unreadable,
    UnknownKey,
    OtherArtifact,
    Gone,
    Broken,
    Revoked,
}

/// Count of the keys that have signed one artifact.
pub struct Tally<'a> {
    ring: &'a Keyring,
    by: Vec<Digest>,
    extra: usize,
    limit: Option<usize>,
    blame: Option<(Blame, String)>,
    other: Option<Other>,
    postponed: Option<Error>,
}

impl<'a> Tally<'a> {
    /// Begins without signatures.
    pub fn new(ring: &'a Keyring) -> Tally<'a> {
        Tally { ring, by: Vec::new(), extra: 0, limit: None, blame: None, other: None, postponed: None }
    }

    /// Returns whether enough keys have signed.
    pub fn is_enough(&self) -> bool {
        self.by.len() >= self.ring.threshold()
    }

    /// Returns whether another candidate should be examined.
    pub fn wants_more(&self) -> bool {
        !self.is_enough() || (self.by.len() < self.ring.trusted().count() && self.extra < MAX_EXTRA)
    }

    /// Counts a candidate that is about to be fetched.
    pub fn begin(&mut self) {
        self.extra += usize::from(self.is_enough());
    }

    /// Notes that there are more candidates than are examined. Input: number examined.
    pub fn cut_short(&mut self, limit: usize) {
        self.limit = Some(limit);
    }

    /// Notes that a candidate, or a list of them, is unavailable now: it may have been the right one.
    pub fn postpone(&mut self, why: Error) {
        self.postponed.get_or_insert(why);
    }

    /// Notes that a candidate, or a list of them, is unusable.
    pub fn pass_over(&mut self, why: &Error) {
        self.note(Blame::Unreadable, why.to_string());
    }

    /// Returns whether a candidate is itself revoked, by its own digest.
    pub fn is_revoked(&mut self, candidate: Digest) -> bool {
        let is_revoked = self.ring.is_revoked(candidate);
        if is_revoked {
            self.note(Blame::Revoked, format!("the signature {candidate} is revoked on this machine"));
        }
        is_revoked
    }

    /// Notes that a listed part does not exist. Input: its digest.
    pub fn is_gone(&mut self, part: &str, digest: Digest) {
        let why = format!(
            "a signature or an attestation is listed, but its {part} {digest} is gone: lost in a clean-up of the \
             registry, or in an incomplete copy; sign again (scripts/sign.sh gives each signature a tag of its own)"
        );
        self.note(Blame::Gone, why);
    }

    /// Notes an object that is not read as a signature.
    pub fn see(&mut self, other: Other) {
        self.other = self.other.max(Some(other));
    }

    /// Returns whether it is still unknown what exists instead of a signature.
    pub fn knows_nothing(&self) -> bool {
        !self.is_enough() && self.postponed.is_none() && self.blame.is_none() && self.other <= Some(Other::Attestation)
    }

    /// Takes a sigstore bundle. Input: `subject`: the digest of the fetched document.
    pub fn take_bundle(&mut self, bytes: &[u8], subject: Digest) {
        if self.is_revoked(Digest::of(bytes)) {
            return;
        }
        let bundle = match Bundle::parse(bytes) {
            Ok(bundle) => bundle,
            Err(e) => return self.note(Blame::Unreadable, format!("a bundle is malformed: {e}")),
        };
        let signers = self.signers(&bundle.signed, &bundle.signatures);
        if signers.is_empty() {
            let (blame, why) = self.explain(bundle.hint.as_deref());
            return self.note(blame, why);
        }
        match bundle.subjects() {
            Err(e) => self.note(Blame::OtherArtifact, format!("the signed statement is about something else: {e}")),
            Ok(subjects) if !subjects.contains(&subject) => {
                let named: Vec<String> = subjects.iter().take(3).map(Digest::to_string).collect();
                self.note(Blame::OtherArtifact, format!("a signature is for {}, not for {subject}", named.join(", ")));
            }
            Ok(_) => self.count(&signers),
        }
    }

    /// Takes a file of detached signatures over exactly these bytes.
    pub fn take_detached(&mut self, document: &[u8], file: &[u8]) {
        if self.is_revoked(Digest::of(file)) {
            return;
        }
        match detached(file) {
            Err(why) => self.note(Blame::Unreadable, format!("the signature is malformed: {why}")),
            Ok(signatures) => {
                let signers = self.signers(document, &signatures);
                if signers.is_empty() {
                    let keys: Vec<String> = self.ring.keys().iter().map(|key| self.ring.name(key.id)).collect();
                    let why = format!(
                        "none is by an installed key: {}; or the signature is of another latest.json (a \
                         cache?)",
                        keys.join(", ")
                    );
                    return self.note(Blame::UnknownKey, why);
                }
                self.count(&signers);
            }
        }
    }

    /// Returns the keys that have signed it.
    /// Input: `what`: the artifact, for messages; `unsigned`: what to do if there is no readable signature.
    /// Errors: Signature: fewer than the threshold; gives the most informative reason. Network: a candidate was unavailable, so
    /// the question is open.
    pub fn finish(self, what: &str, unsigned: &str) -> Result<Vec<Digest>> {
        let need = self.ring.threshold();
        if self.is_enough() {
            return Ok(self.by);
        }
        if let Some(postponed) = self.postponed {
            return Err(postponed);
        }
        let is_other = self.blame.is_none();
        let other = self.other.filter(|other| self.by.is_empty() || *other > Other::Attestation);
        // A publisher that signed with another key, or wrongly, does not need to be told how to sign.
        let hint = match &self.blame {
            _ if !self.by.is_empty() => "",
            None | Some((Blame::Unreadable, _)) => unsigned,
            Some((Blame::UnknownKey, _)) => {
                "install the publisher's key, if it is the publisher who signed: docs/key-rotation.md"
            }
            Some(_) => "",
        };
        let reason = self.blame.map(|(_, why)| why).or(other.map(|other| other.words().to_owned()));
        let names: Vec<String> = self.by.iter().map(|id| self.ring.name(*id)).collect();
        let mut why = match (names.is_empty(), &reason) {
            (true, None) => "it is not signed".to_owned(),
            (true, Some(reason)) if is_other => reason.clone(),
            (true, Some(reason)) => format!("no signature of it counts: {reason}"),
            (false, _) => format!("{need} keys must have signed it, and only {} has", names.join(", ")),
        };
        if let (false, Some(reason)) = (names.is_empty(), &reason) {
            why.push_str(&format!("; {reason}"));
        }
        if let Some(limit) = self.limit {
            why.push_str(&format!("; the first {limit} candidates were looked at"));
        }
        let error = Error::new(Kind::Signature, why).at("verify", what);
        Err(if hint.is_empty() { error } else { error.hint(hint) })
    }

    /// Returns the keys that made any of these signatures, revoked ones too.
    fn signers(&self, message: &[u8], signatures: &[Vec<u8>]) -> Vec<Digest> {
        let made = |key: &&Key| signatures.iter().any(|signature| key.verifies(message, signature));
        self.ring.keys().iter().filter(made).map(|key| key.id).collect()
    }

    fn count(&mut self, signers: &[Digest]) {
        for id in signers {
            if self.ring.is_revoked(*id) {
                self.note(Blame::Revoked, format!("it is signed by {}", self.ring.name(*id)));
            } else if !self.by.contains(id) {
                self.by.push(*id);
            }
        }
    }

    /// Describes why no key verifies a bundle, as far as its untrusted hint tells.
    fn explain(&self, hint: Option<&str>) -> (Blame, String) {
        let id = hint.and_then(base64::decode).and_then(|raw| Digest::parse_hex(&hex(&raw)).ok());
        let Some(id) = id else { return (Blame::UnknownKey, "it is signed by no installed key".to_owned()) };
        let key = self.ring.keys().iter().find(|key| key.id == id);
        match key.map(|key| key.algorithm) {
            None if self.ring.is_revoked(id) => (Blame::Revoked, format!("it is signed by {}", self.ring.name(id))),
            None => (Blame::UnknownKey, format!("it is signed by {}", self.ring.name(id))),
            Some(Algorithm::P256) => {
                (Blame::Broken, format!("the signature claimed by {} does not verify", self.ring.name(id)))
            }
            Some(Algorithm::Ed25519) => {
                let why = format!(
                    "the signature claimed by {} is not pure Ed25519; stock cosign makes Ed25519ph, which is \
                     not understood: sign with P-256, or with scripts/sign.sh",
                    self.ring.name(id)
                );
                (Blame::Broken, why)
            }
        }
    }

    fn note(&mut self, blame: Blame, why: String) {
        if self.blame.as_ref().is_none_or(|(known, _)| *known < blame) {
            self.blame = Some((blame, why));
        }
    }
}

/// Reads a file of detached signatures: base64, one signature per line. A line of 64 or 76 characters continues in the next
/// one, as `openssl base64` and `base64` break them: no signature has that length (Ed25519 88, ECDSA P-256 92 to 96). Additions
/// by editors, Windows and uploads around a line are ignored: blanks, CRLF, a byte order mark.
fn detached(file: &[u8]) -> std::result::Result<Vec<Vec<u8>>, &'static str> {
    let text = std::str::from_utf8(file).map_err(|_| "it is raw bytes or UTF-16, not base64")?;
    let mut texts = vec![String::new()];
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim_ascii) {
        let goes_on = matches!(line.len(), 64 | 76);
        if let Some(last) = texts.last_mut() {
            last.push_str(line);
        }
        if !goes_on {
            texts.push(String::new());
        }
    }
    texts.retain(|text| !text.is_empty());
    match texts.len() {
        0 => Err("it is empty"),
        n if n > MAX_DETACHED => Err("more than 16 signatures"),
        _ if text.trim_ascii_start().starts_with('<') => {
            Err("it is not base64, but HTML or XML: a page for people perhaps")
        }
        _ => texts.iter().map(|text| base64::decode(text).ok_or("it is not base64")).collect(),
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
