//! What is to be recorded of what happened since the last run, and what becomes of the boot variables. Pure: a plan is made here
//! and carried out by the session.
//!
//! Must never: touch a file; what has to be looked up in a slot is asked for.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::rfc3339;
use crate::boot::block::{Block, BootVars};
use crate::ledger::failures::{Failure, Failures};
use crate::ledger::proven::Proven;
use crate::ledger::state::{Phase, State};
use crate::machine::view::View;
use crate::slot::record::Slot;
use crate::update::next_step;
use crate::update::reconcile::{self, Blame, Boot, Finding};
use crate::update::survey::{artifact_in, remember};

/// What a plan goes by.
pub struct Here<'a> {
    /// The running slot.
    pub running: Slot,
    /// This boot's id.
    pub boot_id: Option<String>,
    /// The other slot, if GRUB tried it first in this boot and could not load it.
    pub skipped: Option<Slot>,
    /// Looks into a slot.
    pub view: &'a dyn Fn(Slot) -> View,
    /// What was confirmed on this machine.
    pub proven: &'a Proven,
    /// The time for stamps.
    pub now_secs: u64,
}

/// What a look at the files of the other slot has brought.
pub enum Look {
    /// It is whole.
    Whole,
    /// It is whole, and the list that GRUB goes by was wrong: it is written anew.
    Mended,
    /// Another run is at work on it: that proves nothing.
    InUse(Error),
    /// It is not what its record says.
    Damaged(Error),
}

/// What is remembered and what GRUB is told, as they are to be.
pub struct Plan {
    /// The attempt's state.
    pub state: State,
    /// Artifacts that rolled back.
    pub failures: Failures,
    /// The boot variables.
    pub block: Block,
    /// What is said of it on standard error.
    pub said: Vec<String>,
    /// Whether the boot variables are written first.
    /// Power cut: else each step is found again by the next run: failures, then the state, then the boot variables. Of a slot that
    /// takes the other one's place, only the reason is lost.
    pub boot_first: bool,
}

impl Plan {
    fn boot<'a>(&self, here: &'a Here<'_>) -> Result<Boot<'a>> {
        let vars = BootVars::read_whole(&self.block)?;
        Ok(Boot { running: here.running, vars, boot_id: here.boot_id.as_deref(), skipped: here.skipped })
    }

    /// Plans what follows from all that can be told without reading the other slot.
    /// Returns the finding for which that slot has to be read, see [`Plan::answer`].
    /// Errors: State: the table of phases does not allow it.
    pub fn follow(&mut self, here: &Here<'_>) -> Result<Option<Finding>> {
        if self.state.phase.is_unfinished() {
            self.state.cut_off(here.now_secs)?;
        }
        if self.state.is_under_way && self.state.target_slot != Some(here.running) {
            self.state.arrive();
        }
        // Activated, confirmed, done: three findings at most follow from one another.
        for _ in 0..3 {
            match reconcile::find(&self.state, &self.boot(here)?) {
                Finding::Nothing => break,
                Finding::WasActivated => {
                    self.state.step(Phase::Activated, here.now_secs)?;
                    // If that slot does not run in the next boot either, GRUB could not load it.
                    self.switched(here);
                }
                Finding::WasConfirmed => self.state.succeed(here.now_secs)?,
                Finding::RolledBack { gave_up, reason, blame } => self.roll_back(here, gave_up, &reason, blame)?,
                Finding::Unjudged { slot, reason } => {
                    self.unjudged(here, slot, &Error::new(Kind::Boot, reason))?;
                    reconcile::after_no_try(here.running, &mut self.block);
                    break;
                }
                Finding::CalledOff => self.call_off(here)?,
                Finding::StaleMark => self.block.clear_rollback(),
                open @ (Finding::Skipped { .. } | Finding::Unloadable | Finding::NotTheActiveSlot) => {
                    return Ok(Some(open));
                }
            }
        }
        Ok(None)
    }

    /// Plans what follows from a finding and from a look at the slot that does not run.
    /// Errors: as [`Plan::follow`]; Busy, Device: the slot is in use, and nothing is known of it.
    pub fn answer(&mut self, here: &Here<'_>, finding: &Finding, look: Look) -> Result<()> {
        let (running, other, boot) = (here.running, here.running.other(), self.boot(here)?);
        let given_up = boot.runs_though_given_up();
        match (finding, look) {
            // GRUB finds it whole in the next boot.
            (Finding::Unloadable, Look::Mended) => self.switched(here),
            (Finding::Unloadable, _) => {
                let why = format!("GRUB could not load slot {other}, the active one");
                return self.take_over(here, &why, given_up);
            }
            (_, Look::InUse(e)) => return Err(e),
            (Finding::Skipped { slot }, Look::Mended) => {
                self.said.push(format!("slot {slot} stays on trial; the next boot tries it"));
                self.switched(here);
            }
            (Finding::Skipped { slot }, Look::Whole) => {
                let reason = format!("slot {slot} could not be loaded; GRUB booted slot {running}");
                return self.roll_back(here, *slot, &reason, Blame::Decided);
            }
            // What has rotted on the disk is no fault of the release.
            (Finding::Skipped { slot }, Look::Damaged(e)) => {
                let why = format!("it is not any more what was staged, and GRUB booted slot {running}: {e}");
                let error = Error::new(Kind::Slot, why).at("boot", format!("slot {slot}"));
                self.unjudged(here, *slot, &error)?;
                reconcile::after_rot(running, &mut self.block);
            }
            // The other slot is active and confirmed, and this one runs. Only if that one is proven to be damaged does this one
            // take its place. Otherwise a person chose it in GRUB's menu, and the next boot goes to the active one.
            (_, Look::Damaged(e)) => return self.take_over(here, &e.to_string(), given_up),
            (_, Look::Whole | Look::Mended) if given_up => self.block.clear_rollback(),
            (_, Look::Whole | Look::Mended) => {}
        }
        Ok(())
    }

    /// Makes the running slot active in place of the other one, which does not load or is damaged. The boot variables come first.
    pub fn take_over(&mut self, here: &Here<'_>, why: &str, for_good: bool) -> Result<()> {
        let (running, other) = (here.running, here.running.other());
        let reason = match for_good {
            true => format!("{why}; neither slot is proven; slot {running} is active, as the only one that boots"),
            false => format!("{why}; slot {running}, which runs in its place, is made active, on trial"),
        };
        reconcile::take_over(running, for_good, &mut self.block);
        self.boot_first = true;
        // The slot is to blame, not its artifact: that may be installed again.
        self.state.roll_back(other, self.artifact_in(here, other), &reason, here.now_secs)?;
        self.said.push(reason);
        self.switched(here);
        Ok(())
    }

    /// Plans that nothing is known against what a slot on trial holds.
    fn unjudged(&mut self, here: &Here<'_>, slot: Slot, error: &Error) -> Result<()> {
        let reason = error.to_string();
        if self.state.phase.may_become(Phase::Failed) {
            self.state.fail(error, here.now_secs)?;
        } else {
            self.state.roll_back(slot, self.artifact_in(here, slot), &reason, here.now_secs)?;
        }
        self.said.push(reason);
        self.switched(here);
        Ok(())
    }

    fn roll_back(&mut self, here: &Here<'_>, gave_up: Slot, reason: &str, blame: Blame) -> Result<()> {
        let boot = self.boot(here)?;
        // A `rollback` that was cut off had seen it.
        let is_rot = reason == reconcile::MANUAL && next_step::is_unbootable(&(here.view)(gave_up));
        self.leave(here, gave_up, reason, if is_rot { Blame::Slot } else { blame })?;
        self.said.push(format!("rolled back: {reason}"));
        reconcile::after_rollback(&boot, gave_up, &mut self.block);
        Ok(())
    }

    /// Plans that a slot is left: its artifact is remembered, and the state moves.
    /// Errors: State: the table of phases does not allow it.
    pub fn leave(&mut self, here: &Here<'_>, gave_up: Slot, reason: &str, blame: Blame) -> Result<()> {
        let artifact = self.artifact_in(here, gave_up);
        self.state.roll_back(gave_up, artifact.clone(), reason, here.now_secs)?;
        // The slot that is left runs on until the restart, and that may be called off.
        if gave_up == here.running && self.boot(here)?.vars.rollback_from != Some(gave_up) {
            self.state.await_restart();
        }
        let activated_in = self.state.switched_boot_id.take();
        self.switched(here);
        if let Some((digest, version)) = artifact {
            let failure = Failure { digest, version, reason: reason.into(), at: rfc3339(here.now_secs), doubt: None };
            remember(&mut self.failures, failure, blame, here.boot_id.clone(), activated_in);
        }
        Ok(())
    }

    /// Plans that nothing is to be tried any more, and nothing known against it. What a rollback blamed that is called off is blamed
    /// no more.
    /// Errors: State: the table of phases does not allow it.
    pub fn call_off(&mut self, here: &Here<'_>) -> Result<()> {
        let was_rollback = self.state.phase == Phase::RolledBack;
        let target = (here.view)(here.running.other());
        self.state.call_off(target.version(), here.now_secs)?;
        if was_rollback {
            // A rollback was to what never ran here: that is still called off.
            let digest = target.record.ok().and_then(|record| record.manifest_digest);
            self.state.called_off = digest.filter(|digest| !here.proven.holds(*digest));
            self.forget_failure(here);
        }
        self.switched(here);
        Ok(())
    }

    /// Forgets that the running artifact failed before.
    pub fn forget_failure(&mut self, here: &Here<'_>) {
        if let Some((digest, _)) = self.artifact_in(here, here.running) {
            self.failures.forget(digest);
        }
    }

    /// Notes that the agent settled in this boot what boots next: whether that loads is known in the next one.
    pub fn switched(&mut self, here: &Here<'_>) {
        self.state.switched_boot_id.clone_from(&here.boot_id);
    }

    fn artifact_in(&self, here: &Here<'_>, slot: Slot) -> Option<(Digest, String)> {
        artifact_in(&self.state, &(here.view)(slot))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
