//! What happened since the last run: the state file compared with GRUB's variables and this boot. Pure.
//!
//! A power cut can occur between the boot variables and the state file, and GRUB can roll back by itself; the boot variables
//! are authoritative, and the state follows them.
//! Must never: decide anything about an update that is not on trial or staged.

use crate::boot::block::Block;
use crate::boot::vars::BootVars;
use crate::ledger::state::{Phase, State};
use crate::slot::record::Slot;

/// The reason of a rollback requested by an operator.
pub const MANUAL: &str = "manual rollback";

/// Facts seen by this run.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// The running slot.
    pub running: Slot,
    /// GRUB's variables.
    pub vars: BootVars,
    /// This boot's id, if the kernel provides it.
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

    /// Returns whether GRUB gave the running slot up and returned to the other one, confirmed before, but that one does not
    /// run. The mark stays until the reason is known.
    pub fn runs_though_given_up(&self) -> bool {
        self.vars.rollback_from == Some(self.running) && self.active() != self.running && !self.on_trial()
    }
}

/// What must be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// State and boot variables agree.
    Nothing,
    /// `activate` wrote the boot variables, and was interrupted before it wrote the state.
    WasActivated,
    /// `healthcheck` confirmed the trial, and was interrupted before it wrote the state.
    WasConfirmed,
    /// The machine is back on the other slot.
    RolledBack {
        /// The slot that failed.
        gave_up: Slot,
        /// Why, as text for the operator.
        reason: String,
        /// Whether its content is to blame.
        blame: Blame,
    },
    /// The active slot is on trial and another one runs; GRUB has not named it as skipped, and no check has found it unhealthy:
    /// it was not tried, or was left before it was judged.
    Unjudged {
        /// That slot.
        slot: Slot,
        /// Why, as text for the operator.
        reason: String,
    },
    /// The active slot is on trial, and GRUB named it as one that it could not load, or that does not match its checksums: the
    /// slot must be examined to tell which.
    Skipped {
        /// That slot.
        slot: Slot,
    },
    /// The trial of a slot, of an update or of a rollback, was called off before its first boot: by an interrupted `rollback`,
    /// or by hand.
    CalledOff,
    /// GRUB gave up a slot that no attempt of ours knows; the mark must be cleared.
    StaleMark,
    /// The other slot is active and confirmed, and GRUB reports that it could not load it.
    Unloadable,
    /// The other slot is active and confirmed, but this one runs: an operator chose it in GRUB's menu, or a GRUB that does not
    /// report it could not load the other.
    NotTheActiveSlot,
}

/// Whether an artifact that was left is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// It is: an operator decided so, or GRUB could not load it.
    Decided,
    /// It was not confirmed in time: the slot that runs now must show whether by its own fault.
    Undecided,
    /// It is not: its slot is damaged. It may be installed again.
    Slot,
}

/// Returns whether the running slot is the confirmed one.
pub fn is_confirmed(running: Slot, vars: &BootVars) -> bool {
    vars.boot_success == Some(true) && vars.active_slot == Some(running)
}

/// Returns why the target slot must not be touched, while a trial is pending.
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
    // The slot that was left may still run until the restart.
    if seen.active() != seen.running && seen.running != gave_up {
        if seen.on_trial() && seen.skipped != Some(gave_up) {
            block.doubt_canary();
        }
        block.back_to_confirmed(seen.running);
    }
}

/// Makes the running slot active because the other one does not load or is damaged.
///
/// On trial, since nothing has confirmed it. It is active for good only if GRUB has already given it up and could not load the
/// other one in two boots (or tried that one although this one is on trial: [`no_way_back`]): another trial would end in the
/// same place, the machine would restart forever, and it could not be repaired, since no update is written while a trial is
/// pending.
pub fn take_over(running: Slot, for_good: bool, block: &mut Block) {
    block.clear_rollback();
    match for_good {
        true => block.back_to_confirmed(running),
        false => block.activate(running),
    }
}

/// Returns whether the trial of the running slot cannot end by itself: within this trial GRUB tried the other slot first, since
/// it can no longer count, and that one did not load. (It does not report slots that an operator chose.)
pub fn no_way_back(state: &State, seen: &Boot<'_>) -> bool {
    // If the trial began in this boot, that slot was skipped before there was a trial.
    let skipped = seen.skipped == Some(seen.running.other()) && !same_boot(state, seen);
    skipped && seen.on_trial() && seen.active() == seen.running
}

/// Returns whether a restart may bring the confirmed slot back: GRUB gave the running one up and reports that it could not load
/// the confirmed one, and this is the first boot in which that is known. Once only, since the next boot is not the first.
pub fn worth_a_restart(state: &State, seen: &Boot<'_>) -> bool {
    seen.runs_though_given_up() && seen.skipped == Some(seen.active()) && same_boot(state, seen)
}

/// Finds what the last run or GRUB left to be recorded.
pub fn find(state: &State, seen: &Boot<'_>) -> Finding {
    let (active, on_trial) = (seen.active(), seen.on_trial());
    if let Some(gave_up) = seen.vars.rollback_from {
        // Already recorded, but interrupted before the mark was cleared; or it cannot be recorded.
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
        // A rollback that was not booted, and whose slot is no longer on trial.
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
        // Switched in this boot, or GRUB's mark was recorded in it: whether the other one loads next time is still unknown.
        _ if same_boot(state, seen) => Finding::Nothing,
        _ if seen.skipped == Some(active) => Finding::Unloadable,
        _ => Finding::NotTheActiveSlot,
    }
}

/// Returns whether the agent itself switched the active slot in this boot: then GRUB is not the reason why another slot runs.
fn same_boot(state: &State, seen: &Boot<'_>) -> bool {
    state.switched_boot_id.is_some() && state.switched_boot_id.as_deref() == seen.boot_id
}

/// Trial boots that a slot has when activated.
const ALL_BOOTS: u8 = 3;

/// Returns how often GRUB has counted a boot of the slot on trial, or of the one that it gave up.
fn counted(seen: &Boot<'_>) -> u8 {
    ALL_BOOTS.saturating_sub(seen.vars.boot_counter.unwrap_or(0))
}

/// Adds to a reason the result of the trial's last check, if there was one.
pub fn with_cause(state: &State, gave_up: Slot, reason: String) -> String {
    match state.cause(gave_up) {
        Some(cause) => format!("{reason} (last: {cause})"),
        None => reason,
    }
}

/// Finding if GRUB gave a slot up: its boots were used up, or could not be counted.
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

/// Describes why GRUB skipped a slot that has not been examined yet.
pub fn not_loaded(slot: Slot, running: Slot) -> String {
    format!("slot {slot} could not be loaded, or is not what its slot.crc32 says; GRUB booted slot {running}")
}

/// Finding if the active slot is on trial, should have been booted, and another one runs. GRUB counts what it tries, and names
/// what it could not load: nothing is guessed.
fn passed_over(state: &State, seen: &Boot<'_>) -> Finding {
    let (active, running) = (seen.active(), seen.running);
    if seen.skipped == Some(active) {
        // Already examined and repaired in this boot.
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

/// Changes the boot variables after a slot was not tried: back, and GRUB must show again that it can write here.
pub fn after_no_try(running: Slot, block: &mut Block) {
    after_rot(running, block);
    block.doubt_canary();
}

/// Changes the boot variables after a rotten slot was skipped.
pub fn after_rot(running: Slot, block: &mut Block) {
    block.clear_rollback();
    block.back_to_confirmed(running);
}

/// Returns whether the active slot, which does not run, should have been booted: GRUB counted a boot, or this is a later boot
/// than the one in which that slot was made active.
fn had_its_turn(state: &State, seen: &Boot<'_>) -> bool {
    let was_counted = counted(seen) > 0;
    // The id in the state is that of the boot in which this slot was made active.
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
        // Confirmed, but this one runs: examined once the confirmation is recorded.
        (true, false, false) => Finding::WasConfirmed,
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
