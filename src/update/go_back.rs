//! Returns to the other slot at the next boot.
//!
//! From a confirmed slot the other one goes on trial, so that GRUB returns if it fails; from an unconfirmed trial it is
//! straight back to the confirmed slot. What was staged or called off is tried only if GRUB could not boot the running slot
//! again: it would then boot the other one anyway.
//! Must never: activate a slot that it has not just read completely, except the running one.

use crate::base::error::{Course, Error, Kind, Result};
use crate::boot::vars::BootVars;
use crate::ledger::state::Phase;
use crate::os::progress::note;
use crate::slot::record::{Record, Slot};
use crate::update::activate::{demand_proven_bootloader, read_as_it_is, scrub};
use crate::update::next_step::{self, is_unbootable};
use crate::update::plan::Plan;
use crate::update::reconcile::{self, Blame, MANUAL};
use crate::update::session::{Recording, Session};

/// What the operator consents to.
#[derive(Clone, Copy)]
pub struct Consent {
    /// `--allow-unproven-bootloader`
    pub unproven_bootloader: bool,
    /// `--retry-failed`
    pub known_bad: bool,
}

/// Makes the other slot boot next, or cancels that.
/// Errors: Slot: the other slot is not whole. Signature: its content is revoked, or was never confirmed here and is not
/// trusted. Gate: its content failed here before. Boot: GRUB is not proven.
/// Power cut: before the boot variables are written: as before. After it: the next boot goes to the other slot, and the next
/// run finds the state out of date and updates it.
pub fn go_back(session: &mut Session<'_>, consent: Consent) -> Result<Back> {
    let (running, other) = (session.running, session.running.other());
    let (back, is_damaged) = choose(session);
    match back {
        Back::Before | Back::Nowhere => {}
        Back::Discard => {
            // Required: without the record the slot would still be tried.
            session.carry_out(Recording::Required, &mut Plan::call_off)?;
        }
        Back::Cancel => {
            session.save_boot(|block| block.back_to_confirmed(running))?;
            session.carry_out(Recording::Afterwards, &mut Plan::call_off)?;
        }
        Back::ToConfirmed => {
            prove(session, other)?;
            session.save_boot(|block| block.back_to_confirmed(other))?;
            let reason = reconcile::with_cause(session.state(), running, MANUAL.to_owned());
            session.carry_out(Recording::Afterwards, &mut |plan, here| {
                plan.leave(here, running, &reason, Blame::Decided)
            })?;
        }
        Back::OnTrial => {
            session.demand_memory()?;
            demand_proven_bootloader(session, consent.unproven_bootloader)?;
            let is_insisted = session.state().phase == Phase::Staged && session.state().insisted;
            if !consent.known_bad && !is_insisted {
                session.refuse_known_bad(other, "go back to", "--retry-failed goes back anyway")?;
            }
            let (record, _) = scrub(session, other)?;
            refuse_untrusted(session, &record, other)?;
            session.save_boot(|block| block.activate(other))?;
            let (reason, blame) = match is_damaged {
                true => (&*format!("{MANUAL}: slot {running} is not valid"), Blame::Slot),
                false => (MANUAL, Blame::Decided),
            };
            session.carry_out(Recording::Afterwards, &mut |plan, here| plan.leave(here, running, reason, blame))?;
        }
    }
    Ok(back)
}

/// Reads the whole slot, and refuses it as [`refuse_unloadable`] does, unless this run has repaired the cause.
fn prove(session: &Session<'_>, slot: Slot) -> Result<Record> {
    let (record, was_mended) = scrub(session, slot).map_err(|e| match is_rotten(&e) {
        // Not while the running slot is on trial.
        true => e.hint_instead(
            "`healthcheck` confirms the slot that runs; then `apply` of another release than that one writes this one anew",
        ),
        false => e,
    })?;
    if !was_mended {
        refuse_unloadable(session, slot)?;
    }
    Ok(record)
}

/// Returns whether a slot differs from its record or its file system is damaged; false if it could not be examined.
fn is_rotten(error: &Error) -> bool {
    !error.is_in_use() && (error.kind() == Kind::Slot || error.course() == Course::Damaged)
}

/// Refuses a slot that GRUB could not load in this boot, even if it reads as whole: rolling back would fail too.
fn refuse_unloadable(session: &Session<'_>, slot: Slot) -> Result<()> {
    match session.machine.skipped() == Some(slot) {
        false => Ok(()),
        true => {
            Err(Error::new(Kind::Slot, "GRUB could not load it in this boot, or it is not what its slot.crc32 says")
                .at("go back to", format!("slot {slot}"))
                .hint("once the running slot is confirmed, `apply` can write another system into it"))
        }
    }
}

/// Refuses what [`next_step::trust`] refuses.
fn refuse_untrusted(session: &Session<'_>, record: &Record, slot: Slot) -> Result<()> {
    let ring = session.keyring();
    next_step::trust(&session.proven, &ring, record).map_err(|e| e.at("go back to", format!("slot {slot}")))?;
    if let Err(e) = ring {
        note(&format!("{e}; whether slot {slot} is revoked is not known"));
    }
    Ok(())
}

/// Kinds of rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// The other slot waits for its first trial boot: do not try it.
    Cancel,
    /// The running slot is on trial: return to the confirmed one.
    ToConfirmed,
    /// The other slot, confirmed before, is active already and waits for the restart.
    Before,
    /// The running slot is confirmed, and the other holds an update that was never tried: forget it.
    Discard,
    /// The running slot is confirmed: the other one goes on trial.
    OnTrial,
    /// The running slot is confirmed, and the other one's content was called off before it ever ran.
    Nowhere,
}

/// Chooses the way back. Returns: also whether GRUB could not boot the running slot again: then it boots the other one in any
/// case, and the only question is whether on trial and recorded.
fn choose(session: &Session<'_>) -> (Back, bool) {
    let (running, other) = (session.running, session.running.other());
    let view = session.machine.view(running);
    let is_lost = is_unbootable(&view);
    match plan(running, &session.vars, session.state().phase) {
        Back::Discard if is_lost => (Back::OnTrial, true),
        // A rotten file does not show in the record; nothing else counts against the running slot.
        Back::OnTrial if session.holds_called_off(other) && !is_lost => {
            match view.record.is_ok() && read_as_it_is(session, running).is_err_and(|e| is_rotten(&e)) {
                true => (Back::OnTrial, true),
                false => (Back::Nowhere, false),
            }
        }
        back => (back, is_lost),
    }
}

/// Pure.
fn plan(running: Slot, vars: &BootVars, phase: Phase) -> Back {
    match (vars.boot_success == Some(false), vars.active_slot.unwrap_or(running) == running) {
        (true, true) => Back::ToConfirmed,
        (true, false) => Back::Cancel,
        (false, false) => Back::Before,
        (false, true) if phase == Phase::Staged => Back::Discard,
        (false, true) => Back::OnTrial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_situation_has_its_way_back() {
        let vars = |active, success| BootVars {
            active_slot: Some(active),
            boot_success: Some(success),
            boot_counter: Some(2),
            rollback_from: None,
            boot_canary: true,
        };
        assert_eq!(plan(Slot::A, &vars(Slot::A, true), Phase::Success), Back::OnTrial);
        assert_eq!(plan(Slot::A, &vars(Slot::A, true), Phase::Staged), Back::Discard);
        assert_eq!(plan(Slot::B, &vars(Slot::B, false), Phase::Verifying), Back::ToConfirmed);
        assert_eq!(plan(Slot::A, &vars(Slot::B, false), Phase::Activated), Back::Cancel);
        assert_eq!(plan(Slot::B, &vars(Slot::A, true), Phase::RolledBack), Back::Before);
    }
}
