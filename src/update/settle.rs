//! Records what happened since the last run: each finding of `reconcile` becomes a record, a change of the boot variables, or both.
//!
//! Power cut: each step is found again by the next run: failures, then the state, then the boot variables.

use crate::base::error::{Error, Kind, Result};
use crate::base::time::rfc3339;
use crate::boot::block::Block;
use crate::ledger::failures::Failure;
use crate::ledger::state::Phase;
use crate::os::progress::note;
use crate::slot::record::Slot;
use crate::update::next_step;
use crate::update::reconcile::{self, Blame, Boot, Finding};
use crate::update::session::Recording::{self, Due};
use crate::update::session::Session;
use crate::update::survey::remember;

impl Session<'_> {
    /// Power cut: each step is found again by the next run: failures, then the state, then the boot variables.
    pub(super) fn record_the_past(&mut self) -> Result<()> {
        if self.state().phase.is_unfinished() {
            let now = self.now();
            self.change(Due, |state| state.cut_off(now))?;
        }
        if self.state().is_under_way && self.state().target_slot != Some(self.running) {
            self.change(Due, |state| {
                state.arrive();
                Ok(())
            })?;
        }
        // Activated, confirmed, done: three findings at most follow from one another.
        for _ in 0..3 {
            let (boot_id, now) = (self.machine.boot_id(), self.now());
            match reconcile::find(self.state(), &self.seen(boot_id.as_deref())) {
                Finding::Nothing => return Ok(()),
                Finding::WasActivated => {
                    self.change(Due, |state| {
                        // If that slot does not run in the next boot either, GRUB could not load it.
                        state.switched_boot_id = boot_id;
                        state.step(Phase::Activated, now)
                    })?;
                }
                Finding::WasConfirmed => {
                    self.change(Due, |state| state.succeed(now))?;
                }
                Finding::RolledBack { gave_up, reason, blame } => self.record_rollback(gave_up, &reason, blame)?,
                Finding::Unjudged { slot, reason } => {
                    return self.record_unjudged(slot, Error::new(Kind::Boot, reason), reconcile::after_no_try);
                }
                Finding::Skipped { slot } => return self.record_skipped(slot),
                Finding::CalledOff => self.call_off(Due)?,
                Finding::StaleMark => self.save_boot(Block::clear_rollback)?,
                Finding::Unloadable if self.mend_other() => {
                    // GRUB finds it whole in the next boot.
                    return self.switched_in(boot_id);
                }
                Finding::Unloadable => {
                    let why = format!("GRUB could not load slot {}, the active one", self.target());
                    return self.take_over(&why, self.seen(None).runs_though_given_up());
                }
                Finding::NotTheActiveSlot => return self.look_at_active_slot(),
            }
        }
        Ok(())
    }

    /// The other slot is active and confirmed, and this one runs. Only if that one is proven to be damaged does this
    /// one take its place. Otherwise a person chose it in GRUB's menu, and the next boot goes to the active one.
    fn look_at_active_slot(&mut self) -> Result<()> {
        let given_up = self.seen(None).runs_though_given_up();
        match self.machine.scrub(self.target(), &mut |_| {}) {
            Ok(_) if given_up => self.save_boot(Block::clear_rollback),
            Ok(_) => Ok(()),
            // Somebody is at work on it: that proves nothing.
            Err(e) if e.is_in_use() => self.recorded(Due, Err(e)),
            Err(e) => self.take_over(&e.to_string(), given_up),
        }
    }

    /// Makes the running slot active in place of the other one, which does not load or is damaged.
    /// Errors: as [`Session::save_boot`]; State: as [`Session::save_state`].
    /// Power cut: before the boot variables are written: found again. After it: only the reason is lost.
    pub fn take_over(&mut self, why: &str, for_good: bool) -> Result<()> {
        let (running, other) = (self.running, self.target());
        let reason = match for_good {
            true => format!("{why}; neither slot is proven; slot {running} is active, as the only one that boots"),
            false => format!("{why}; slot {running}, which runs in its place, is made active, on trial"),
        };
        note(&reason);
        self.save_boot(|block| reconcile::take_over(running, for_good, block))?;
        // The slot is to blame, not its artifact: that may be installed again.
        let (artifact, boot_id, now) = (self.artifact_in(other), self.machine.boot_id(), self.now());
        self.change(Due, |state| {
            state.switched_boot_id = boot_id;
            state.roll_back(other, artifact, &reason, now)
        })
    }

    /// Records that what boots next was settled in this boot: whether it loads is known in the next one.
    fn switched_in(&mut self, boot_id: Option<String>) -> Result<()> {
        self.change(Due, |state| {
            state.switched_boot_id = boot_id;
            Ok(())
        })
    }

    /// Says whether the trial of the running slot can not end by itself, see [`reconcile::no_way_back`].
    pub fn no_way_back(&self) -> bool {
        reconcile::no_way_back(self.state(), &self.seen(self.machine.boot_id().as_deref()))
    }

    /// Says whether a restart may bring the confirmed slot back, see [`reconcile::worth_a_restart`].
    pub fn worth_a_restart(&self) -> bool {
        reconcile::worth_a_restart(self.state(), &self.seen(self.machine.boot_id().as_deref()))
    }

    /// Says whether nothing was wrong with the other slot but the list that GRUB goes by; it is written anew then.
    pub fn mend_other(&self) -> bool {
        matches!(self.machine.scrub(self.target(), &mut |_| {}), Ok((_, true)))
    }

    /// Records that nothing is known against what a slot on trial holds. Input: `after`: changes the boot variables.
    /// Power cut: as [`Session::record_the_past`].
    fn record_unjudged(&mut self, slot: Slot, error: Error, after: fn(Slot, &mut Block)) -> Result<()> {
        let reason = error.to_string();
        note(&reason);
        let (artifact, boot_id, now) = (self.artifact_in(slot), self.machine.boot_id(), self.now());
        self.change(Due, |state| {
            state.switched_boot_id = boot_id;
            match state.phase.may_become(Phase::Failed) {
                true => state.fail(&error, now),
                false => state.roll_back(slot, artifact, &reason, now),
            }
        })?;
        let running = self.running;
        self.save_boot(|block| after(running, block))
    }

    /// GRUB passed over the slot on trial: what has rotted on the disk is no fault of the release.
    /// Power cut: as [`Session::record_the_past`].
    fn record_skipped(&mut self, slot: Slot) -> Result<()> {
        match self.machine.scrub(slot, &mut |_| {}) {
            Ok((_, true)) => {
                note(&format!("slot {slot} stays on trial; the next boot tries it"));
                self.switched_in(self.machine.boot_id())
            }
            Ok((_, false)) => {
                let reason = format!("slot {slot} could not be loaded; GRUB booted slot {}", self.running);
                self.record_rollback(slot, &reason, Blame::Decided)
            }
            // Somebody is at work on it: that proves nothing.
            Err(e) if e.is_in_use() => self.recorded(Due, Err(e)),
            Err(e) => {
                let why = format!("it is not any more what was staged, and GRUB booted slot {}: {e}", self.running);
                let error = Error::new(Kind::Slot, why).at("boot", format!("slot {slot}"));
                self.record_unjudged(slot, error, reconcile::after_rot)
            }
        }
    }

    fn record_rollback(&mut self, gave_up: Slot, reason: &str, blame: Blame) -> Result<()> {
        note(&format!("rolled back: {reason}"));
        let seen = self.seen(None);
        // A `rollback` that was cut off had seen it.
        let is_rot = reason == reconcile::MANUAL && next_step::is_unbootable(&self.machine.view(gave_up));
        let blame = if is_rot { Blame::Slot } else { blame };
        self.leave(gave_up, reason, blame, Due)?;
        self.save_boot(|block| reconcile::after_rollback(&seen, gave_up, block))
    }

    /// Records that a slot was left: remembers its artifact, and moves the state.
    /// Errors: as [`Session::change`].
    pub fn leave(&mut self, gave_up: Slot, reason: &str, blame: Blame, recording: Recording) -> Result<()> {
        let (artifact, boot_id, now) = (self.artifact_in(gave_up), self.machine.boot_id(), self.now());
        // First: a cut between the two must not lose that it failed.
        if let Some((digest, version)) = artifact.clone() {
            let failure = Failure { digest, version, reason: reason.into(), at: rfc3339(now), doubt: None };
            let activated_in = self.state().switched_boot_id.clone();
            if remember(&mut self.failures, failure, blame, boot_id.clone(), activated_in) {
                self.save_failures(recording)?;
            }
        }
        // The slot that is left runs on until the restart, and that may be called off.
        let is_under_way = gave_up == self.running && self.vars.rollback_from != Some(gave_up);
        self.change(recording, |state| {
            state.switched_boot_id = boot_id;
            state.roll_back(gave_up, artifact, reason, now)?;
            if is_under_way {
                state.await_restart();
            }
            Ok(())
        })
    }

    /// Records that nothing is to be tried any more, and nothing known against it. What a rollback blamed that is called off
    /// is blamed no more.
    /// Errors: as [`Session::change`].
    pub fn call_off(&mut self, recording: Recording) -> Result<()> {
        let was_rollback = self.state().phase == Phase::RolledBack;
        let target = self.machine.view(self.target());
        // A rollback was to what never ran here: that is still called off.
        let digest = target.record.as_ref().ok().and_then(|record| record.manifest_digest);
        let called_off = digest.filter(|digest| !self.proven.holds(*digest));
        if was_rollback {
            self.forget_failure()?;
        }
        let (boot_id, now) = (self.machine.boot_id(), self.now());
        self.change(recording, |state| {
            state.switched_boot_id = boot_id;
            state.call_off(target.version(), now)?;
            if was_rollback {
                state.called_off = called_off;
            }
            Ok(())
        })
    }

    fn seen<'b>(&self, boot_id: Option<&'b str>) -> Boot<'b> {
        Boot { running: self.running, vars: self.vars, boot_id, skipped: self.machine.skipped() }
    }
}
