//! The operator's next step, and how to recover from a running slot that is not valid. Pure.
//!
//! Must never: name a command that refuses in that situation.

use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::boot::vars::BootVars;
use crate::ledger::failures::Control;
use crate::ledger::proven::Proven;
use crate::ledger::state::{Phase, State};
use crate::machine::view::View;
use crate::slot::record::{Record, Slot};
use crate::trust::keyring::Keyring;
use crate::update::reconcile::{Blame, Finding};

/// What the inactive slot can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// It is not valid, or cannot be read.
    Lost,
    /// It is in use, and its content unknown.
    InUse,
    /// It holds what is staged.
    Staged,
    /// Its content failed here, and is not tried automatically.
    KnownBad,
    /// Its content is not accepted: never proven here, and its signature does not count (any more), or it is revoked.
    Untrusted,
    /// It can be returned to: it ran here, or was called off before it ran.
    Good,
}

/// Facts by which the other slot is judged.
pub struct Standing<'a> {
    /// Artifacts that must not be taken now, and why.
    pub refusals: &'a [(Digest, String)],
    /// What was confirmed here.
    pub proven: &'a Proven,
    /// The keys and revocations.
    pub ring: &'a Result<Keyring>,
}

/// What a slot holds, according to the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Not the staged artifact.
    Other,
    /// The staged artifact.
    Staged,
    /// The same, on which an operator insisted although it failed here.
    Insisted,
}

impl Other {
    /// Judges the slot.
    pub fn of(view: &View, held: Held, standing: &Standing<'_>) -> Other {
        let record = match &view.record {
            Ok(record) => record,
            Err(e) if e.is_in_use() => return Other::InUse,
            Err(_) => return Other::Lost,
        };
        let is_bad = standing.refusals.iter().any(|(digest, _)| Some(*digest) == record.manifest_digest);
        match trust(standing.proven, standing.ring, record) {
            Err(_) => Other::Untrusted,
            Ok(()) if is_bad && held != Held::Insisted => Other::KnownBad,
            Ok(()) if held == Held::Other => Other::Good,
            Ok(()) => Other::Staged,
        }
    }
}

/// Refuses content that the publisher has revoked, or that was never confirmed here and is not trusted (any more). Content
/// confirmed once needs no key that is still trusted, as keys change and this is a recovery; so unreadable keys block only the
/// rest. A record without a manifest digest is the unsigned slot of an image.
/// Errors: Signature: it is not accepted. Others: the keys cannot be read.
pub fn trust(proven: &Proven, ring: &Result<Keyring>, record: &Record) -> Result<()> {
    let is_proven = record.manifest_digest.is_none_or(|digest| proven.holds(digest));
    match ring {
        Err(_) if is_proven => Ok(()),
        Err(e) => Err(e.clone()),
        Ok(ring) if is_proven => ring.refuse_revoked(&record.digests()),
        Ok(ring) => ring.still_accepts(&record.signed_by, &record.digests()),
    }
}

/// Returns whether a slot's content is lost. False if it could not be examined because it is in use.
pub fn is_lost(view: &View) -> bool {
    view.record.as_ref().is_err_and(|e| !e.is_in_use())
}

/// Returns whether nothing of a slot can be read, not even its version: `apply` then decides nothing.
pub fn is_unknown(view: &View) -> bool {
    view.version().is_none() && view.room_bytes.is_none()
}

/// Returns whether GRUB would not boot a slot again, as far as known without reading its files: nothing of it can be read. GRUB
/// does not need the record.
pub fn is_unbootable(view: &View) -> bool {
    is_lost(view) && is_unknown(view)
}

/// The running slot of a machine that needs a recovery.
#[derive(Clone, Copy)]
pub struct Stuck {
    /// The slot.
    pub slot: Slot,
    /// Whether nothing of it can be read.
    pub is_unknown: bool,
    /// Whether GRUB has shown that it can write.
    pub has_proof: bool,
}

/// Next step where the boot disk was not found: nothing is known of either slot.
pub const NO_DISK: &str =
    "do what is said of the slots above, so that the boot disk is found, then `status` again; do not restart before";

/// Returns whether both slots are out of reach for the same reason: their disk. That proves nothing about either.
pub fn is_disk_unknown(slots: [&View; 2]) -> bool {
    let [a, b] = slots.map(|view| view.record.as_ref().err());
    a.is_some() && a == b
}

/// Describes how to recover from a running slot that is not valid.
pub fn way_on(running: Stuck, other: Other) -> String {
    let slot = running.slot.other();
    let proof = if running.has_proof { "" } else { " --allow-unproven-bootloader" };
    match (other, running.is_unknown) {
        (Other::Staged, _) => format!("`activate{proof}`, then restart: slot {slot} is staged, and valid"),
        (Other::Lost, true) => {
            "do not restart: neither slot can be read; write the disk anew with `usb-provision.sh`".into()
        }
        (Other::InUse, true) => {
            "do not restart before a slot can be read: see what is said of it above, then run `status` again".into()
        }
        (_, false) => "`verify` looks closer; `apply` writes an update into the other slot".into(),
        (Other::Good, true) => {
            format!("`rollback{proof}`, then restart: slot {slot} is valid, and `apply` needs a slot that can be read")
        }
        (Other::KnownBad, true) => format!(
            "`rollback --retry-failed{proof}`, then restart: slot {slot} is valid, what it holds failed here, and `apply` needs a \
             slot that can be read"
        ),
        (Other::Untrusted, true) => format!(
            "mend the keys: once they accept what slot {slot} holds, `rollback{proof}`, then restart; else write the disk anew \
             with `usb-provision.sh`"
        ),
    }
}

/// Facts that determine the next step.
pub struct Facts<'a> {
    /// The running slot, and the content of both.
    pub running: Option<(Slot, &'a [View; 2])>,
    /// GRUB's variables.
    pub vars: Option<&'a BootVars>,
    /// The attempt.
    pub state: &'a State,
    /// The finding that is not recorded yet.
    pub finding: &'a Finding,
    /// Set while it is undecided whether what rolled back is to blame.
    pub doubt: Option<Control>,
    /// Whether the artifact of the attempt must not be taken now.
    pub is_refused: bool,
    /// Whether no updates are taken; a remark gives the reason.
    pub is_stopped: bool,
    /// What the other slot can be used for.
    pub other: Other,
    /// Whether GRUB could not load the other slot in this boot.
    pub is_skipped: bool,
}

/// Describes the operator's next step.
pub fn next_step(facts: &Facts<'_>) -> String {
    let Some((running, slots)) = facts.running else {
        return "boot a slot; only then can this machine be updated".into();
    };
    let Some(vars) = facts.vars else {
        return "`verify --repair-boot-variables` mends the boot variables; until then nothing can be activated".into();
    };
    let here = &slots[running as usize];
    let is_passed =
        matches!(facts.finding, Finding::RolledBack { .. } | Finding::Unjudged { .. } | Finding::Skipped { .. });
    let on_trial = vars.boot_success == Some(false);
    let is_active = vars.active_slot.is_none_or(|active| active == running);
    if is_lost(here) && (is_passed || (is_active && !on_trial)) {
        return way_on(Stuck { slot: running, is_unknown: is_unknown(here), has_proof: vars.boot_canary }, facts.other);
    }
    if matches!(facts.finding, Finding::RolledBack { blame: Blame::Undecided, .. }) {
        return "`healthcheck` of this slot decides whether that version is to blame".into();
    }
    if is_passed {
        return "look at the reason above; `apply` takes the next version".into();
    }
    if *facts.finding == Finding::Unloadable {
        let other = running.other();
        return format!(
            "`healthcheck`: it makes slot {running} active, unless only slot.crc32 of slot {other} is wrong, which it writes anew"
        );
    }
    match (on_trial, is_active) {
        (true, true) => in_trial(running, is_lost(here), facts),
        (true, false) => format!("restart to try slot {}; `rollback` calls it off", running.other()),
        (false, false) => format!("restart: slot {} is the active one", running.other()),
        (false, true) => settled(running, slots, vars, facts),
    }
}

/// Next step while the running slot is on trial.
fn in_trial(running: Slot, is_lost_here: bool, facts: &Facts<'_>) -> String {
    let has_way_back = facts.other != Other::Lost && !facts.is_skipped;
    match (has_way_back, facts.state.phase == Phase::Failed) {
        (true, _) if is_lost_here => "`rollback` goes back, then restart: this slot is on trial, and not valid".into(),
        (true, true) => "`healthcheck` looks again, a restart is the next try, `rollback` goes back".into(),
        (true, false) => "this boot is on trial: `healthcheck` confirms it, `rollback` goes back".into(),
        (false, _) => {
            format!(
                "this boot is on trial: `healthcheck` confirms it; there is no way back to slot {}",
                running.other()
            )
        }
    }
}

/// Next step while the running slot is active and confirmed.
fn settled(running: Slot, slots: &[View; 2], vars: &BootVars, facts: &Facts<'_>) -> String {
    let is_lost_beside = is_lost(&slots[running.other() as usize]);
    match facts.state.phase {
        _ if facts.is_stopped => "mend what the NOTE says; until then no update is taken".into(),
        _ if slots[running as usize].record.as_ref().is_err_and(|e| e.is_in_use()) => {
            "do what is said of the running slot above, then `status` again: nothing is known of it while it is in use"
                .into()
        }
        Phase::Staged if is_lost_beside => "`apply` writes it anew".into(),
        Phase::Staged if facts.other == Other::Untrusted => {
            "what is staged is not accepted any more, see the NOTE; `apply` stages what is".into()
        }
        Phase::Staged if facts.other == Other::KnownBad => {
            "what is staged failed here; `apply --retry-failed` insists on it, a newer one replaces it".into()
        }
        Phase::Staged if !vars.boot_canary => {
            "restart once, for GRUB to show that it writes; `activate`, then restart".into()
        }
        Phase::Idle | Phase::Success | Phase::RolledBack | Phase::Activated | Phase::Verifying if !vars.boot_canary => {
            "restart once, so that GRUB can show that it can write".into()
        }
        Phase::Staged => "`activate`, then restart".into(),
        Phase::RolledBack => match facts.doubt {
            None if facts.is_refused => "`check` asks for the next version; this one is not tried again by itself",
            None if is_lost_beside => {
                return format!("`apply` writes the next release into slot {}", running.other());
            }
            None => "`check` asks for an update",
            Some(Control::Unchecked) => "`healthcheck` of this slot decides whether that version is to blame",
            Some(Control::Unhealthy) => "mend what `healthcheck` names; then `apply` tries that version again",
            Some(Control::Recovered) => "`apply` tries that version again",
        }
        .into(),
        Phase::Checking | Phase::Downloading => "`apply` again: it continues where it was cut off".into(),
        Phase::Failed => "look at the error above, then run `apply` again".into(),
        _ => "`check` asks for an update".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_on_is_one_that_refuses() {
        let other = [Other::Lost, Other::InUse, Other::Staged, Other::KnownBad, Other::Untrusted, Other::Good];
        let begins = [
            "do not restart: neither",
            "do not restart before",
            "`activate`, then restart: slot B",
            "`rollback --retry-failed`, then restart: slot B",
            "mend the keys: once they accept what slot B holds, `rollback`",
            "`rollback`, then restart: slot B",
        ];
        for (other, begin) in other.into_iter().zip(begins) {
            let said = way_on(Stuck { slot: Slot::A, is_unknown: true, has_proof: true }, other);
            assert!(said.starts_with(begin), "{other:?}: {said}");
            // It appears in parentheses after the error of `apply`.
            assert!(!said.contains('('), "{said}");
            // GRUB has not shown that it can write: a command that tries a slot must override that.
            let unproven = way_on(Stuck { slot: Slot::A, is_unknown: true, has_proof: false }, other);
            assert_eq!(unproven.contains("--allow-unproven-bootloader"), !said.starts_with("do not"), "{unproven}");
        }
        // Its version is known, so `apply` can decide.
        assert!(
            way_on(Stuck { slot: Slot::A, is_unknown: false, has_proof: true }, Other::Good)
                .contains("`apply` writes an update into the other slot")
        );
    }
}
