//! Tests of the findings.

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

fn seen(running: Slot, vars: BootVars) -> Boot<'static> {
    Boot { running, vars, boot_id: Some("second"), skipped: None }
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
    let waiting = Boot { boot_id: Some("first"), ..seen(Slot::A, vars(Slot::B, false, 3)) };
    assert_eq!(find(&state(Phase::Activated), &waiting), Finding::Nothing);
}

#[test]
fn every_way_back_is_seen() {
    let marked = BootVars { rollback_from: Some(Slot::B), ..vars(Slot::A, true, 0) };
    use Blame::{Decided, Undecided};
    for (phase, running, vars, words, blame) in [
        (Phase::Activated, Slot::A, marked, "three boots", Undecided),
        (Phase::Verifying, Slot::A, marked, "three boots", Undecided),
        (Phase::Staged, Slot::A, marked, "three boots", Undecided),
        (Phase::Idle, Slot::A, marked, "three boots", Undecided), // the state file was lost
        (Phase::Failed, Slot::A, marked, "three boots", Undecided),
        (Phase::Activated, Slot::A, BootVars { boot_counter: Some(1), ..marked }, "2 of three boots", Undecided),
        // Each boot was counted, but GRUB has not gone back by itself.
        (Phase::Activated, Slot::A, vars(Slot::B, false, 0), "3 of three boots", Undecided),
        (Phase::Verifying, Slot::A, vars(Slot::A, true, 2), "made active again", Decided),
        (Phase::Success, Slot::B, vars(Slot::A, false, 3), "manual rollback", Decided), // interrupted before the state
    ] {
        match find(&state(phase), &seen(running, vars)) {
            Finding::RolledBack { gave_up: Slot::B, reason, blame: found } => {
                assert!(reason.contains(words) && found == blame, "{phase:?}: {reason} {found:?}");
            }
            other => panic!("{phase:?}: {other:?}"),
        }
    }
}

/// As [`state`], and the last check of slot B failed.
fn unhealthy(phase: Phase) -> State {
    State { unhealthy: Some("10-net: down".into()), unhealthy_slot: Some(Slot::B), ..state(phase) }
}

#[test]
fn what_was_left_with_boots_to_go_is_blamed_only_if_a_check_failed() {
    for (phase, counter, words) in [
        (Phase::Activated, 2, "1 of three"),
        (Phase::Failed, 1, "2 of three"),
        (Phase::Idle, 2, "by hand, or GRUB"), // the state file was lost
    ] {
        // Counted, and not named as skipped: GRUB did not start slot A by itself.
        let now = seen(Slot::A, vars(Slot::B, false, counter));
        match find(&unhealthy(phase), &now) {
            Finding::RolledBack { gave_up: Slot::B, reason, blame: Blame::Undecided } => {
                assert!(reason.contains(words) && reason.ends_with("(last: 10-net: down)"), "{reason}");
            }
            other => panic!("{phase:?}: {other:?}"),
        }
        // A power cut before the first check, or a check of the other slot.
        for judged_nothing in [state(phase), State { unhealthy_slot: Some(Slot::A), ..unhealthy(phase) }] {
            match find(&judged_nothing, &now) {
                Finding::Unjudged { slot: Slot::B, reason } => {
                    let boots = 3 - counter;
                    assert!(reason.contains(&format!("booted {boots} of three times, no check")), "{reason}");
                }
                other => panic!("{phase:?}: {other:?}"),
            }
        }
    }
}

/// If GRUB went to slot A without counting or naming slot B, or could not continue counting, it must show that it can write.
#[test]
fn who_leaves_a_trial_without_grub_has_grub_prove_itself() {
    let canary_after = |now: &Boot<'_>| {
        let mut block = Block::fresh(Slot::A);
        block.activate(Slot::B);
        block.set("boot_canary", b"1").unwrap();
        after_rollback(now, Slot::B, &mut block);
        let vars = BootVars::read_whole(&block).unwrap();
        assert_eq!((vars.active_slot, vars.boot_success), (Some(Slot::A), Some(true)));
        vars.boot_canary
    };
    assert!(!canary_after(&seen(Slot::A, vars(Slot::B, false, 1))));
    // GRUB named it: it was running.
    assert!(canary_after(&skipping(Slot::A, vars(Slot::B, false, 1))));
}

#[test]
fn what_was_never_tried_is_not_blamed() {
    let no_try = |state: &State, seen: &Boot<'_>| match find(state, seen) {
        Finding::Unjudged { slot: Slot::B, reason } => reason,
        other => panic!("{state:?}: {other:?}"),
    };
    // Another boot, not counted, and not named as skipped.
    let passed_over = seen(Slot::A, vars(Slot::B, false, 3));
    for phase in [Phase::Activated, Phase::Failed] {
        assert!(no_try(&state(phase), &passed_over).contains("another boot loader in use"), "{phase:?}");
    }
    // GRUB could not count, and went back at once.
    let uncounted = BootVars { rollback_from: Some(Slot::B), ..vars(Slot::A, true, 3) };
    assert!(no_try(&state(Phase::Activated), &seen(Slot::A, uncounted)).contains("could not count its boot"));
    // In the boot in which it was activated it simply waits.
    let same_boot = Boot { boot_id: Some("first"), ..passed_over };
    assert_eq!(find(&state(Phase::Activated), &same_boot), Finding::Nothing);
    // Then the running slot is confirmed, and GRUB must show again that it can count.
    let mut block = Block::fresh(Slot::B);
    block.activate(Slot::B);
    block.set("rollback_from", b"B").unwrap();
    block.set("boot_canary", b"1").unwrap();
    after_no_try(Slot::A, &mut block);
    let after = BootVars::read_whole(&block).unwrap();
    assert_eq!((after.active_slot, after.boot_success, after.boot_canary), (Some(Slot::A), Some(true), false));
    assert_eq!((after.rollback_from, find(&state(Phase::Failed), &seen(Slot::A, after))), (None, Finding::Nothing));
}

#[test]
fn what_was_called_off_before_its_first_boot_is_forgotten() {
    let called_off = seen(Slot::A, vars(Slot::A, true, 3));
    for id in [Some("first"), Some("second"), None] {
        assert_eq!(find(&state(Phase::Activated), &Boot { boot_id: id, ..called_off }), Finding::CalledOff);
    }
    assert_eq!(find(&state(Phase::Idle), &called_off), Finding::Nothing);
    // The same for a rollback: slot B, which was to be left, is the confirmed one again.
    let stays = seen(Slot::B, vars(Slot::B, true, 3));
    let rollback = State { is_under_way: true, ..state(Phase::RolledBack) };
    assert_eq!(find(&rollback, &stays), Finding::CalledOff);
    for (state, seen) in [
        (state(Phase::RolledBack), stays),
        (rollback.clone(), seen(Slot::B, vars(Slot::A, false, 3))),
        (rollback.clone(), seen(Slot::B, vars(Slot::B, true, 2))),
        (rollback.clone(), seen(Slot::A, vars(Slot::A, true, 3))),
    ] {
        assert_ne!(find(&state, &seen), Finding::CalledOff, "{seen:?}");
    }
}

/// The reason from the trial's last check survives what follows.
#[test]
fn the_cause_survives_the_consequence() {
    let marked = BootVars { rollback_from: Some(Slot::B), ..vars(Slot::A, true, 0) };
    let cause = "10-net: no IPv4 address, exit status 1";
    for phase in [Phase::Failed, Phase::Verifying] {
        let known = State { unhealthy: Some(cause.into()), ..unhealthy(phase) };
        for now in [seen(Slot::A, marked), seen(Slot::A, vars(Slot::B, false, 1))] {
            match find(&known, &now) {
                Finding::RolledBack { reason, .. } => {
                    assert!(reason.ends_with(&format!(" (last: {cause})")), "{reason}")
                }
                other => panic!("{other:?}"),
            }
        }
        // Nothing is known of another slot.
        let other = State { unhealthy_slot: Some(Slot::A), ..known };
        match find(&other, &seen(Slot::A, marked)) {
            Finding::RolledBack { reason, .. } => assert!(!reason.contains(cause), "{reason}"),
            other => panic!("{other:?}"),
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
    let found = find(&state(Phase::RolledBack), &skipping(Slot::B, vars(Slot::A, false, 2)));
    assert_eq!(found, Finding::Skipped { slot: Slot::A });
}

#[test]
fn a_rollback_that_waits_for_its_restart_is_not_undone() {
    let waiting = Boot { boot_id: Some("first"), ..seen(Slot::B, vars(Slot::A, true, 2)) };
    assert_eq!(find(&state(Phase::RolledBack), &waiting), Finding::Nothing);
    assert!(pending_trial(Slot::B, &waiting.vars).unwrap().contains("slot A is active again"));
}

#[test]
fn a_mark_nobody_can_record_is_cleared() {
    let marked = BootVars { rollback_from: Some(Slot::B), ..vars(Slot::A, true, 0) };
    assert_eq!(find(&state(Phase::Downloading), &seen(Slot::A, marked)), Finding::StaleMark);
    // The state was written, then the power failed before the mark was cleared.
    assert_eq!(find(&state(Phase::RolledBack), &seen(Slot::A, marked)), Finding::StaleMark);
}

#[test]
fn a_rollback_to_a_slot_that_fails_is_recorded() {
    let marked = BootVars { rollback_from: Some(Slot::A), ..vars(Slot::B, true, 0) };
    match find(&state(Phase::RolledBack), &seen(Slot::B, marked)) {
        Finding::RolledBack { gave_up: Slot::A, reason, .. } => {
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

/// As [`seen`], in a boot in which GRUB could not load the other slot.
fn skipping(running: Slot, vars: BootVars) -> Boot<'static> {
    Boot { skipped: Some(running.other()), ..seen(running, vars) }
}

#[test]
fn a_confirmed_slot_that_grub_could_not_load_is_known_at_once() {
    for phase in [Phase::Idle, Phase::Success, Phase::Failed, Phase::RolledBack, Phase::Staged] {
        let now = skipping(Slot::A, vars(Slot::B, true, 3));
        assert_eq!(find(&state(phase), &now), Finding::Unloadable, "{phase:?}");
        // The boot in which it became active is unknown: then it was before this one.
        let lost = State { switched_boot_id: None, ..state(phase) };
        assert_eq!(find(&lost, &Boot { boot_id: None, ..now }), Finding::Unloadable, "{phase:?}");
        // It became active after GRUB tried it: its present content has not been tried.
        assert_eq!(find(&state(phase), &Boot { boot_id: Some("first"), ..now }), Finding::Nothing, "{phase:?}");
    }
    // The running slot is the active one: any other was tried because an operator chose it.
    assert_eq!(find(&state(Phase::Success), &skipping(Slot::B, vars(Slot::B, true, 3))), Finding::Nothing);
}

#[test]
fn a_trial_that_grub_could_not_load_is_over_and_one_that_it_has_not_tried_is_not() {
    for (phase, counter) in [(Phase::Activated, 2), (Phase::Activated, 3), (Phase::Failed, 0), (Phase::Idle, 2)] {
        let now = skipping(Slot::A, vars(Slot::B, false, counter));
        assert_eq!(find(&state(phase), &now), Finding::Skipped { slot: Slot::B }, "{phase:?}, {counter}");
        // Examined and repaired in this boot: the next one shows the result.
        let mended = Boot { boot_id: Some("first"), ..now };
        assert_eq!(find(&state(phase), &mended), Finding::Nothing, "{phase:?}, {counter}");
    }
    // Slot B was skipped, then written and activated, all in this boot: it waits for its first boot.
    let waiting = Boot { boot_id: Some("first"), ..skipping(Slot::A, vars(Slot::B, false, 3)) };
    assert_eq!(find(&state(Phase::Activated), &waiting), Finding::Nothing);
    // The state is lost, and GRUB has not counted a boot: the next one shows the result.
    assert_eq!(find(&State::default(), &waiting), Finding::Nothing);
    // Interrupted between boot variables and state.
    let staged = State { switched_boot_id: None, ..state(Phase::Staged) };
    assert_eq!(find(&staged, &waiting), Finding::WasActivated);
}

#[test]
fn a_slot_that_was_given_up_and_runs_keeps_its_mark_until_it_is_known_why() {
    let marked = BootVars { rollback_from: Some(Slot::A), ..vars(Slot::B, true, 0) };
    for now in [seen(Slot::A, marked), skipping(Slot::A, marked)] {
        assert!(matches!(find(&state(Phase::Success), &now), Finding::RolledBack { gave_up: Slot::A, .. }));
        let mut block = Block::fresh(Slot::B);
        block.set("rollback_from", b"A").unwrap();
        let before = block.clone();
        after_rollback(&now, Slot::A, &mut block);
        assert_eq!(block, before, "GRUB's mark is all that is known of the trials of slot A");
        // Nothing is decided in the same boot: the next one may load it. In another one, it is.
        let recorded = |boot: &str| {
            let switched_boot_id = Some(boot.to_string());
            State { target_slot: Some(Slot::A), switched_boot_id, ..state(Phase::RolledBack) }
        };
        assert_eq!(find(&recorded("second"), &now), Finding::Nothing);
        assert_eq!(worth_a_restart(&recorded("second"), &now), now.skipped.is_some());
        assert!(!worth_a_restart(&recorded("first"), &now));
        let next = if now.skipped.is_some() { Finding::Unloadable } else { Finding::NotTheActiveSlot };
        assert_eq!(find(&recorded("first"), &now), next);
    }
    // The ordinary case: the other slot runs.
    let mut block = Block::fresh(Slot::B);
    block.set("rollback_from", b"A").unwrap();
    after_rollback(&seen(Slot::B, marked), Slot::A, &mut block);
    assert_eq!(block.get("rollback_from"), Some(&b""[..]));
}

#[test]
fn the_way_back_is_lost_only_if_it_was_skipped_in_this_trial() {
    let trial = vars(Slot::A, false, 3);
    let before = |boot_id| no_way_back(&state(Phase::RolledBack), &Boot { boot_id, ..skipping(Slot::A, trial) });
    // The last: nothing is known, and restarts would only repeat it.
    assert_eq!([before(Some("second")), before(Some("first")), before(None)], [true, false, true]);
    assert!(!no_way_back(&state(Phase::RolledBack), &seen(Slot::A, trial)));
    assert!(!no_way_back(&state(Phase::RolledBack), &skipping(Slot::A, vars(Slot::A, true, 3))));
    assert!(!no_way_back(&state(Phase::RolledBack), &skipping(Slot::A, vars(Slot::B, false, 3))));
}
