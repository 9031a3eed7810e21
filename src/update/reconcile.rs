//! What happened since the last run: the state file held against GRUB's variables and this boot. Pure.
//!
//! A power cut can fall between the boot variables and the state file, and GRUB can roll back by
//! itself; the boot variables are the truth, the state follows them.
//! Must never: decide anything about an update that is not on trial or staged.

use crate::boot::block::{Block, BootVars};
use crate::ledger::state::{Phase, State};
use crate::slot::record::Slot;

/// The reason of a rollback that a person asked for.
pub const MANUAL: &str = "manual rollback";

/// What this run sees.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// The running slot.
    pub running: Slot,
    /// GRUB's variables.
    pub vars: BootVars,
    /// This boot's id, where the kernel tells it.
    pub boot_id: Option<&'a str>,
    /// The other slot, if GRUB tried it first in this boot and could not load it.
    pub skipped: Option<Slot>,
}

impl Boot<'_> {
    fn active(&self) -> Slot {
        self.vars.active_slot.unwrap_or(self.running)
    }

    fn on_trial(&self) -> bool {
        self.vars.boot_success == Some(false)
    }

    /// Says whether GRUB gave the running slot up and went back to the other one, which was confirmed before: and yet
    /// that one does not run. The mark stays until it is known why.
    pub fn runs_though_given_up(&self) -> bool {
        self.vars.rollback_from == Some(self.running) && self.active() != self.running && !self.on_trial()
    }
}

/// What must be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// State and boot variables agree.
    Nothing,
    /// `activate` wrote the boot variables, and was cut off before it wrote the state.
    WasActivated,
    /// `healthcheck` confirmed the trial, and was cut off before it wrote the state.
    WasConfirmed,
    /// The machine is back on the other slot.
    RolledBack {
        /// The slot that did not make it.
        gave_up: Slot,
        /// Why, for people.
        reason: String,
        /// Whether what it holds is to blame.
        blame: Blame,
    },
    /// The active slot is on trial and another one runs; GRUB has not named it as skipped, and no check has found it unhealthy:
    /// it was not tried, or left before it was judged.
    Unjudged {
        /// That slot.
        slot: Slot,
        /// Why, for people.
        reason: String,
    },
    /// The active slot is on trial, and GRUB named it as the one that it could not load, or that is not what its list says:
    /// which of the two is to be looked at in the slot.
    Skipped {
        /// That slot.
        slot: Slot,
    },
    /// The trial of a slot, of an update or of a rollback, was called off before its first boot: by `rollback`, which was cut
    /// off, or by hand.
    CalledOff,
    /// GRUB gave a slot up that no attempt of ours knows; the mark has to be cleared.
    StaleMark,
    /// The other slot is active and confirmed, and GRUB says that it could not load it.
    Unloadable,
    /// The other slot is active and confirmed, and yet this one runs: a person chose it in GRUB's menu, or a GRUB that
    /// does not say so could not load that one.
    NotTheActiveSlot,
}

/// Whether an artifact is to blame that was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// It is: a person decided so, or GRUB could not load it.
    Decided,
    /// It was not confirmed in time: whether by its own fault, the slot that runs now must tell.
    Undecided,
    /// It is not: the slot that held it is damaged. It may be installed again.
    Slot,
}

/// Says whether the running slot is the one that was confirmed.
pub fn is_confirmed(running: Slot, vars: &BootVars) -> bool {
    vars.boot_success == Some(true) && vars.active_slot == Some(running)
}

/// Says why the target slot must not be touched, while a trial is pending.
pub fn pending_trial(running: Slot, vars: &BootVars) -> Option<String> {
    let active = vars.active_slot.unwrap_or(running);
    let other = active.other();
    if vars.boot_success != Some(false) {
        return (active != running)
            .then(|| format!("slot {active} is active again and boots next; slot {running} still runs: restart"));
    }
    Some(match active == running {
        true => format!("slot {active} runs on trial and slot {other} is its fallback: `healthcheck` decides it"),
        false => {
            format!("a trial is pending: slot {active} waits for its first boot: restart, or rollback to call it off")
        }
    })
}

/// Changes the boot variables once a rollback is recorded.
pub fn after_rollback(seen: &Boot<'_>, gave_up: Slot, block: &mut Block) {
    if !seen.runs_though_given_up() {
        block.clear_rollback();
    }
    // The slot that was left may still run, until the restart.
    if seen.active() != seen.running && seen.running != gave_up {
        if seen.on_trial() && seen.skipped != Some(gave_up) {
            block.doubt_canary();
        }
        block.back_to_confirmed(seen.running);
    }
}

/// Makes the running slot active in place of the other one, which does not load or is damaged.
///
/// On trial, since nothing has confirmed it. Only if GRUB has given it up already, and in two boots could not load the
/// other one (or has gone for that one although this one is on trial: [`no_way_back`]), it is active for good: another
/// trial would end in the same place, and the machine would restart for ever. And nobody could mend it: no update is
/// written while a trial is pending.
pub fn take_over(running: Slot, for_good: bool, block: &mut Block) {
    block.clear_rollback();
    match for_good {
        true => block.back_to_confirmed(running),
        false => block.activate(running),
    }
}

/// Says whether the trial of the running slot cannot end by itself: in this very trial GRUB tried the other slot
/// first, since it cannot count any more, and it did not load. (Of slots that a person asked for, it says nothing.)
pub fn no_way_back(state: &State, seen: &Boot<'_>) -> bool {
    // If the trial began in this boot, that slot was skipped before there was a trial.
    let skipped = seen.skipped == Some(seen.running.other()) && !same_boot(state, seen);
    skipped && seen.on_trial() && seen.active() == seen.running
}

/// Says whether a restart may bring the confirmed slot back: GRUB gave the running one up and, as it says, could not load
/// that one, and this boot is the first of which that is known. Once, since the next boot is not the first.
pub fn worth_a_restart(state: &State, seen: &Boot<'_>) -> bool {
    seen.runs_though_given_up() && seen.skipped == Some(seen.active()) && same_boot(state, seen)
}

/// Finds what the last run or GRUB left to be recorded.
pub fn find(state: &State, seen: &Boot<'_>) -> Finding {
    let (active, on_trial) = (seen.active(), seen.on_trial());
    if let Some(gave_up) = seen.vars.rollback_from {
        // Recorded already, and cut off before the mark was cleared; or nothing that can be recorded.
        let recorded = state.phase == Phase::RolledBack && state.target_slot == Some(gave_up);
        if !recorded && state.phase.may_become(Phase::RolledBack) {
            return given_up(state, seen, gave_up);
        }
        if !seen.runs_though_given_up() {
            return Finding::StaleMark;
        }
    }
    if on_trial && active != seen.running && had_its_turn(state, seen) {
        return passed_over(state, seen);
    }
    match (state.phase, state.target_slot) {
        (Phase::Activated, Some(target)) if target != active && !on_trial && counted(seen) == 0 => Finding::CalledOff,
        // A rollback that was not booted, and its slot is not on trial any more.
        (Phase::RolledBack, Some(left))
            if state.is_under_way && left == seen.running && active == left && !on_trial && counted(seen) == 0 =>
        {
            Finding::CalledOff
        }
        (Phase::Activated | Phase::Verifying, Some(target)) => trial(target, active, on_trial, seen),
        (Phase::Staged, Some(target)) if target == active && (on_trial || target == seen.running) => {
            Finding::WasActivated
        }
        // `rollback` writes the boot variables first.
        (Phase::Success, Some(left)) if active != left && on_trial => {
            Finding::RolledBack { gave_up: left, reason: MANUAL.to_string(), blame: Blame::Decided }
        }
        _ if active == seen.running || on_trial => Finding::Nothing,
        // Switched in this boot; or GRUB's mark was recorded in it: whether the other one loads next time is not known yet.
        _ if same_boot(state, seen) => Finding::Nothing,
        _ if seen.skipped == Some(active) => Finding::Unloadable,
        _ => Finding::NotTheActiveSlot,
    }
}

/// Says whether the agent itself switched the active slot in this boot: then it is not for GRUB's doing that
/// another slot runs.
fn same_boot(state: &State, seen: &Boot<'_>) -> bool {
    state.switched_boot_id.is_some() && state.switched_boot_id.as_deref() == seen.boot_id
}

/// Trial boots that GRUB has when a slot is activated.
const ALL_BOOTS: u8 = 3;

/// How often GRUB has counted a boot of the slot on trial, or of the one that it gave up.
fn counted(seen: &Boot<'_>) -> u8 {
    ALL_BOOTS.saturating_sub(seen.vars.boot_counter.unwrap_or(0))
}

/// Adds to a reason what the last check of the trial found, where one was made.
pub fn with_cause(state: &State, gave_up: Slot, reason: String) -> String {
    match state.cause(gave_up) {
        Some(cause) => format!("{reason} (last: {cause})"),
        None => reason,
    }
}

/// GRUB gave a slot up: since it used up its boots, or since they could not be counted.
fn given_up(state: &State, seen: &Boot<'_>, gave_up: Slot) -> Finding {
    let reason = match (state.phase, counted(seen)) {
        (_, 0) if seen.running != gave_up => {
            let reason = format!("slot {gave_up} was never tried: GRUB could not count its boot, and went back");
            return Finding::Unjudged { slot: gave_up, reason };
        }
        (Phase::RolledBack, ALL_BOOTS) => {
            format!("slot {gave_up} was not confirmed in three boots after a rollback to it; GRUB went back")
        }
        (_, ALL_BOOTS) => format!("slot {gave_up} was not confirmed in three boots; GRUB went back"),
        (_, n) => {
            format!(
                "slot {gave_up} was not confirmed in {n} of three boots; GRUB could not count the next, and went back"
            )
        }
    };
    Finding::RolledBack { gave_up, reason: with_cause(state, gave_up, reason), blame: Blame::Undecided }
}

/// Says why GRUB passed a slot over, where that was not looked into yet.
pub fn not_loaded(slot: Slot, running: Slot) -> String {
    format!("slot {slot} could not be loaded, or is not what its slot.crc32 says; GRUB booted slot {running}")
}

/// The active slot is on trial, has had its turn, and another one runs. GRUB counts what it tries, and names what it could not
/// load: nothing is guessed.
fn passed_over(state: &State, seen: &Boot<'_>) -> Finding {
    let (active, running) = (seen.active(), seen.running);
    if seen.skipped == Some(active) {
        // In this boot it was looked at already, and mended.
        return if same_boot(state, seen) { Finding::Nothing } else { Finding::Skipped { slot: active } };
    }
    let boots = counted(seen);
    if boots == 0 {
        let reason = format!(
            "slot {active} was never tried: its boot was not counted, and slot {running} runs (GRUB could not write, another boot \
             loader in use, slot {running} chosen by hand, a disk restored?)"
        );
        return Finding::Unjudged { slot: active, reason };
    }
    let then = format!("and then slot {running} was started (by hand, or GRUB could not count the next one)");
    if boots < ALL_BOOTS && state.cause(active).is_none() {
        let reason = format!("slot {active} was booted {boots} of three times, no check of it has ended, {then}");
        return Finding::Unjudged { slot: active, reason };
    }
    let reason = format!("slot {active} was not confirmed in {boots} of three boots, {then}");
    Finding::RolledBack { gave_up: active, reason: with_cause(state, active, reason), blame: Blame::Undecided }
}

/// Changes the boot variables after a slot was not tried: back, and GRUB has to show again that it writes here.
pub fn after_no_try(running: Slot, block: &mut Block) {
    after_rot(running, block);
    block.doubt_canary();
}

/// Changes the boot variables after a slot was passed over that has rotted.
pub fn after_rot(running: Slot, block: &mut Block) {
    block.clear_rollback();
    block.back_to_confirmed(running);
}

/// Says whether the active slot, which does not run, has had its turn: GRUB counted a boot, or this is another boot than
/// the one in which that slot was made active.
fn had_its_turn(state: &State, seen: &Boot<'_>) -> bool {
    let was_counted = counted(seen) > 0;
    // The id in the state is of the boot in which that very slot was made active.
    let switched_to = match state.phase {
        Phase::Activated | Phase::Verifying | Phase::Failed => state.target_slot,
        Phase::RolledBack => state.target_slot.map(Slot::other),
        _ => None,
    };
    let ids_known = state.switched_boot_id.is_some() && seen.boot_id.is_some();
    was_counted || (switched_to == seen.vars.active_slot && ids_known && !same_boot(state, seen))
}

fn trial(target: Slot, active: Slot, on_trial: bool, seen: &Boot<'_>) -> Finding {
    match (active == target, seen.running == target, on_trial) {
        (false, _, _) => Finding::RolledBack {
            gave_up: target,
            reason: format!("slot {active} was made active again before slot {target} was confirmed"),
            blame: Blame::Decided,
        },
        (true, true, true) => Finding::Nothing,
        (true, true, false) => Finding::WasConfirmed,
        // Not tried yet: it waits for its first boot.
        (true, false, true) => Finding::Nothing,
        // Confirmed, and yet this one runs: that is looked into once the confirmation is recorded.
        (true, false, false) => Finding::WasConfirmed,
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
