//! What happened since the last run: the state file held against GRUB's variables and this boot. Pure.
//!
//! A power cut can fall between the boot variables and the state file, and GRUB can roll back by
//! itself; the boot variables are the truth, the state follows them.
//! Must never: decide anything about an update that is not on trial or staged.

use crate::grubenv::BootVars;
use crate::slot::Slot;
use crate::state::{Phase, State};

/// The reason of a rollback that a person asked for.
pub const MANUAL: &str = "manual rollback";

/// What this run sees.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The running slot.
    pub running: Slot,
    /// GRUB's variables.
    pub vars: BootVars,
    /// This boot's id, where the kernel tells it.
    pub boot_id: Option<&'a str>,
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
    },
    /// GRUB gave a slot up that no attempt of ours knows; the mark has to be cleared.
    StaleMark,
    /// The other slot is active and confirmed, and yet this one runs: GRUB could not load that one, or a person chose
    /// this one in its menu.
    NotTheActiveSlot,
}

/// Says why the target slot must not be touched, while a trial is pending.
pub fn pending_trial(running: Slot, vars: &BootVars) -> Option<String> {
    let active = vars.active_slot.unwrap_or(running);
    let other = active.other();
    if vars.boot_success != Some(false) {
        return (active != running)
            .then(|| format!("slot {active} is active again and boots next; slot {running} still runs"));
    }
    Some(match active == running {
        true => format!("slot {active} runs on trial and slot {other} is its fallback"),
        false => format!("slot {active} is activated and waits for its first boot; slot {other} is its fallback"),
    })
}

/// Finds what the last run or GRUB left to be recorded.
pub fn find(state: &State, seen: &Seen<'_>) -> Finding {
    if let Some(gave_up) = seen.vars.rollback_from {
        // Recorded already, and cut off before the mark was cleared; or nothing that can be recorded.
        let recorded = state.phase == Phase::RolledBack && state.target_slot == Some(gave_up);
        if recorded || !state.phase.may_become(Phase::RolledBack) {
            return Finding::StaleMark;
        }
        let reason = match state.phase {
            Phase::RolledBack => format!("slot {gave_up} did not come up after a rollback to it; GRUB went back"),
            _ => format!("slot {gave_up} was not confirmed in three boots; GRUB went back"),
        };
        return Finding::RolledBack { gave_up, reason };
    }
    let active = seen.vars.active_slot.unwrap_or(seen.running);
    let on_trial = seen.vars.boot_success == Some(false);
    if on_trial && active != seen.running && was_tried(state, seen) {
        let reason = format!("slot {active} could not be loaded; GRUB booted slot {}", seen.running);
        return Finding::RolledBack { gave_up: active, reason };
    }
    match (state.phase, state.target_slot) {
        (Phase::Activated | Phase::Verifying, Some(target)) => trial(target, active, on_trial, seen),
        (Phase::Staged, Some(target)) if target == active && (on_trial || target == seen.running) => {
            Finding::WasActivated
        }
        // `rollback` writes the boot variables first.
        (Phase::Success, Some(left)) if active != left && on_trial => {
            Finding::RolledBack { gave_up: left, reason: MANUAL.to_string() }
        }
        _ if active != seen.running && !on_trial && !same_boot(state, seen) => Finding::NotTheActiveSlot,
        _ => Finding::Nothing,
    }
}

/// Says whether the agent itself switched the active slot in this boot: then it is not for GRUB's doing that
/// another slot runs.
fn same_boot(state: &State, seen: &Seen<'_>) -> bool {
    state.switched_boot_id.is_some() && state.switched_boot_id.as_deref() == seen.boot_id
}

/// Says whether GRUB has tried the active slot, which does not run: it counted a boot, or this is another boot than
/// the one in which that slot was made active.
fn was_tried(state: &State, seen: &Seen<'_>) -> bool {
    let was_counted = seen.vars.boot_counter.is_some_and(|left| left < 3);
    // The id in the state is of the boot in which that very slot was made active.
    let switched_to = match state.phase {
        Phase::Activated | Phase::Verifying | Phase::Failed => state.target_slot,
        Phase::RolledBack => state.target_slot.map(Slot::other),
        _ => None,
    };
    let ids_known = state.switched_boot_id.is_some() && seen.boot_id.is_some();
    was_counted || (switched_to == seen.vars.active_slot && ids_known && !same_boot(state, seen))
}

fn trial(target: Slot, active: Slot, on_trial: bool, seen: &Seen<'_>) -> Finding {
    let back = |reason: String| Finding::RolledBack { gave_up: target, reason };
    match (active == target, seen.running == target, on_trial) {
        (false, _, _) => back(format!("slot {active} was made active again before slot {target} was confirmed")),
        (true, true, true) => Finding::Nothing,
        (true, true, false) => Finding::WasConfirmed,
        // Not tried yet: it waits for its first boot.
        (true, false, true) => Finding::Nothing,
        // Confirmed, and yet this one runs: that is looked into once the confirmation is recorded.
        (true, false, false) => Finding::WasConfirmed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(active: Slot, success: bool, counter: u8) -> BootVars {
        BootVars {
            active_slot: Some(active),
            boot_success: Some(success),
            boot_counter: Some(counter),
            rollback_from: None,
            boot_canary: true,
        }
    }

    fn seen(running: Slot, vars: BootVars) -> Seen<'static> {
        Seen { running, vars, boot_id: Some("second") }
    }

    fn state(phase: Phase) -> State {
        let switched_boot_id = Some("first".to_string());
        State { phase, target_slot: Some(Slot::B), switched_boot_id, ..State::default() }
    }

    #[test]
    fn agreement_is_nothing() {
        for (phase, running, vars) in [
            (Phase::Idle, Slot::A, vars(Slot::A, true, 3)),
            (Phase::Staged, Slot::A, vars(Slot::A, true, 3)),
            (Phase::Activated, Slot::B, vars(Slot::B, false, 2)),
            (Phase::Verifying, Slot::B, vars(Slot::B, false, 0)),
            (Phase::Success, Slot::B, vars(Slot::B, true, 2)),
            (Phase::Failed, Slot::B, vars(Slot::B, false, 1)), // another trial boot after an unhealthy one
            (Phase::Failed, Slot::A, vars(Slot::A, true, 3)),  // a download that failed
            (Phase::RolledBack, Slot::A, vars(Slot::A, true, 0)),
        ] {
            assert_eq!(find(&state(phase), &seen(running, vars)), Finding::Nothing, "{phase:?}");
        }
    }

    #[test]
    fn waiting_for_the_reboot_is_not_a_rollback() {
        let waiting = Seen { boot_id: Some("first"), ..seen(Slot::A, vars(Slot::B, false, 3)) };
        assert_eq!(find(&state(Phase::Activated), &waiting), Finding::Nothing);
    }

    #[test]
    fn every_way_back_is_seen() {
        let marked = BootVars { rollback_from: Some(Slot::B), ..vars(Slot::A, true, 0) };
        for (phase, running, vars, words) in [
            (Phase::Activated, Slot::A, marked, "three boots"),
            (Phase::Verifying, Slot::A, marked, "three boots"),
            (Phase::Staged, Slot::A, marked, "three boots"),
            (Phase::Idle, Slot::A, marked, "three boots"), // the state file was lost
            (Phase::Activated, Slot::A, vars(Slot::B, false, 3), "could not be loaded"), // another boot, not counted
            (Phase::Activated, Slot::A, vars(Slot::B, false, 2), "could not be loaded"),
            (Phase::Failed, Slot::A, vars(Slot::B, false, 1), "could not be loaded"),
            (Phase::Idle, Slot::A, vars(Slot::B, false, 2), "could not be loaded"), // the state file was lost
            (Phase::Failed, Slot::A, marked, "three boots"),
            (Phase::Activated, Slot::A, vars(Slot::A, true, 3), "made active again"),
            (Phase::Success, Slot::B, vars(Slot::A, false, 3), "manual rollback"), // cut off before the state
        ] {
            match find(&state(phase), &seen(running, vars)) {
                Finding::RolledBack { gave_up: Slot::B, reason } => assert!(reason.contains(words), "{reason}"),
                other => panic!("{phase:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn cuts_between_boot_variables_and_state_are_mended() {
        assert_eq!(find(&state(Phase::Staged), &seen(Slot::A, vars(Slot::B, false, 3))), Finding::WasActivated);
        assert_eq!(find(&state(Phase::Staged), &seen(Slot::B, vars(Slot::B, false, 2))), Finding::WasActivated);
        assert_eq!(find(&state(Phase::Staged), &seen(Slot::B, vars(Slot::B, true, 2))), Finding::WasActivated);
        assert_eq!(find(&state(Phase::Activated), &seen(Slot::B, vars(Slot::B, true, 2))), Finding::WasConfirmed);
        assert_eq!(find(&state(Phase::Verifying), &seen(Slot::B, vars(Slot::B, true, 2))), Finding::WasConfirmed);
        // Confirmed, and then the other slot was booted by hand.
        assert_eq!(find(&state(Phase::Verifying), &seen(Slot::A, vars(Slot::B, true, 2))), Finding::WasConfirmed);
    }

    #[test]
    fn a_confirmed_slot_that_does_not_boot_is_not_active_any_more() {
        for phase in [Phase::Idle, Phase::Success, Phase::Failed, Phase::RolledBack, Phase::Staged] {
            let finding = find(&state(phase), &seen(Slot::A, vars(Slot::B, true, 3)));
            assert_eq!(finding, Finding::NotTheActiveSlot, "{phase:?}");
        }
    }

    #[test]
    fn a_manual_rollback_to_a_slot_that_can_not_be_loaded_is_seen() {
        match find(&state(Phase::RolledBack), &seen(Slot::B, vars(Slot::A, false, 2))) {
            Finding::RolledBack { gave_up: Slot::A, reason } => assert!(reason.contains("could not be loaded")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rollback_that_waits_for_its_restart_is_not_undone() {
        let waiting = Seen { boot_id: Some("first"), ..seen(Slot::B, vars(Slot::A, true, 2)) };
        assert_eq!(find(&state(Phase::RolledBack), &waiting), Finding::Nothing);
        assert!(pending_trial(Slot::B, &waiting.vars).unwrap().contains("slot A is active again"));
    }

    #[test]
    fn a_mark_nobody_can_record_is_cleared() {
        let marked = BootVars { rollback_from: Some(Slot::B), ..vars(Slot::A, true, 0) };
        assert_eq!(find(&state(Phase::Downloading), &seen(Slot::A, marked)), Finding::StaleMark);
        // The state was written, then the power went before the mark was cleared.
        assert_eq!(find(&state(Phase::RolledBack), &seen(Slot::A, marked)), Finding::StaleMark);
    }

    #[test]
    fn a_rollback_to_a_slot_that_fails_is_recorded() {
        let marked = BootVars { rollback_from: Some(Slot::A), ..vars(Slot::B, true, 0) };
        match find(&state(Phase::RolledBack), &seen(Slot::B, marked)) {
            Finding::RolledBack { gave_up: Slot::A, reason } => {
                assert!(reason.contains("after a rollback"), "{reason}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn trials_are_named() {
        assert_eq!(pending_trial(Slot::A, &vars(Slot::A, true, 3)), None);
        assert!(pending_trial(Slot::B, &vars(Slot::B, false, 2)).unwrap().contains("slot B runs on trial"));
        assert!(pending_trial(Slot::A, &vars(Slot::B, false, 3)).unwrap().contains("waits for its first boot"));
    }
}
