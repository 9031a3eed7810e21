//! Plans what to record of the events since the last run, and the new boot variables. Pure: a plan is made here and carried out
//! by the session.
//!
//! Must never: touch a file; the caller looks up what is needed from a slot.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::rfc3339;
use crate::boot::block::Block;
use crate::boot::vars::BootVars;
use crate::ledger::failures::{Failure, Failures};
use crate::ledger::proven::Proven;
use crate::ledger::state::{Phase, State};
use crate::machine::view::View;
use crate::slot::record::Slot;
use crate::update::next_step;
use crate::update::reconcile::{self, Blame, Boot, Finding};
use crate::update::survey::{artifact_in, remember};

/// Facts for a plan.
pub struct Here<'a> {
    /// The running slot.
    pub running: Slot,
    /// This boot's id.
    pub boot_id: Option<String>,
    /// The other slot, if GRUB tried it first in this boot and could not load it.
    pub skipped: Option<Slot>,
    /// Examines a slot.
    pub view: &'a dyn Fn(Slot) -> View,
    /// What was confirmed on this machine.
    pub proven: &'a Proven,
    /// The time for timestamps.
    pub now_secs: u64,
}

/// Result of examining the other slot's files.
pub enum Look {
    /// It is whole.
    Whole,
    /// It is whole, and the checksums that GRUB uses were wrong and have been rewritten.
    Mended,
    /// Another run is working on it: that proves nothing.
    InUse(Error),
    /// It is not what its record says.
    Damaged(Error),
}

/// Records and boot variables as they should become.
pub struct Plan {
    /// The attempt's state.
    pub state: State,
    /// Artifacts that rolled back.
    pub failures: Failures,
    /// The boot variables.
    pub block: Block,
    /// Messages for standard error.
    pub said: Vec<String>,
    /// Whether and when the boot variables are written.
    pub write: BootWrite,
}

/// Whether and when the boot variables are written. That goes into both copies, also where nothing changes in them: a power cut
/// may have left the two different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootWrite {
    /// They stay.
    No,
    /// Before the records. Power cut: if a slot replaces the other as active, only the reason is lost.
    First,
    /// After them. Power cut: the next run finds each step again: failures, then the state, then the boot variables.
    Last,
}

impl Plan {
    fn boot<'a>(&self, here: &'a Here<'_>) -> Result<Boot<'a>> {
        let vars = BootVars::read_whole(&self.block)?;
        Ok(Boot { running: here.running, vars, boot_id: here.boot_id.as_deref(), skipped: here.skipped })
    }

    /// Plans what follows from everything known without reading the other slot.
    /// Returns the finding for which that slot has to be read, see [`Plan::answer`].
    /// Errors: State: the table of phases does not allow it.
    pub fn follow(&mut self, here: &Here<'_>) -> Result<Option<Finding>> {
        if self.state.phase.is_unfinished() {
            self.state.cut_off(here.now_secs)?;
        }
        if self.state.is_under_way && self.state.target_slot != Some(here.running) {
            self.state.arrive();
        }
        // Activated, confirmed, done: at most three findings follow from one another.
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
                    reconcile::after_no_try(here.running, self.written(BootWrite::Last));
                    break;
                }
                Finding::CalledOff => self.call_off(here)?,
                Finding::StaleMark => self.written(BootWrite::Last).clear_rollback(),
                open @ (Finding::Skipped { .. } | Finding::Unloadable | Finding::NotTheActiveSlot) => {
                    return Ok(Some(open));
                }
            }
        }
        Ok(None)
    }

    /// Plans what follows from a finding and the examination of the other slot.
    /// Errors: as [`Plan::follow`]; Busy, Device: the slot is in use, and its content unknown.
    pub fn answer(&mut self, here: &Here<'_>, finding: &Finding, look: Look) -> Result<()> {
        let (running, other, boot) = (here.running, here.running.other(), self.boot(here)?);
        let given_up = boot.runs_though_given_up();
        match (finding, look) {
            // GRUB will find it whole in the next boot.
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
            // Rot on the disk is not the release's fault.
            (Finding::Skipped { slot }, Look::Damaged(e)) => {
                let why = format!("it is not any more what was staged, and GRUB booted slot {running}: {e}");
                let error = Error::new(Kind::Slot, why).at("boot", format!("slot {slot}"));
                self.unjudged(here, *slot, &error)?;
                reconcile::after_rot(running, self.written(BootWrite::Last));
            }
            // The other slot is active and confirmed, but this one runs. It takes over only if the other is proven to be
            // damaged. Otherwise an operator chose it in GRUB's menu, and the next boot goes to the active one.
            (_, Look::Damaged(e)) => return self.take_over(here, &e.to_string(), given_up),
            (_, Look::Whole | Look::Mended) if given_up => self.written(BootWrite::Last).clear_rollback(),
            (_, Look::Whole | Look::Mended) => {}
        }
        Ok(())
    }

    /// Makes the running slot active because the other one does not load or is damaged. The boot variables come first.
    pub fn take_over(&mut self, here: &Here<'_>, why: &str, for_good: bool) -> Result<()> {
        let (running, other) = (here.running, here.running.other());
        let reason = match for_good {
            true => format!("{why}; neither slot is proven; slot {running} is active, as the only one that boots"),
            false => format!("{why}; slot {running}, which runs in its place, is made active, on trial"),
        };
        reconcile::take_over(running, for_good, self.written(BootWrite::First));
        // The slot is to blame, not its artifact, which may be installed again.
        self.state.roll_back(other, self.artifact_in(here, other), &reason, here.now_secs)?;
        self.said.push(reason);
        self.switched(here);
        Ok(())
    }

    /// Plans that the content of a slot on trial is not blamed.
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
        // An interrupted `rollback` had seen the damage.
        let is_rot = reason == reconcile::MANUAL && next_step::is_unbootable(&(here.view)(gave_up));
        self.leave(here, gave_up, reason, if is_rot { Blame::Slot } else { blame })?;
        self.said.push(format!("rolled back: {reason}"));
        reconcile::after_rollback(&boot, gave_up, self.written(BootWrite::Last));
        Ok(())
    }

    /// Plans to leave a slot: its artifact is recorded, and the state changes.
    /// Errors: State: the table of phases does not allow it.
    pub fn leave(&mut self, here: &Here<'_>, gave_up: Slot, reason: &str, blame: Blame) -> Result<()> {
        let artifact = self.artifact_in(here, gave_up);
        self.state.roll_back(gave_up, artifact.clone(), reason, here.now_secs)?;
        // The slot being left runs until the restart, which may be called off.
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

    /// Plans that nothing is tried any more, and nothing blamed. What a rollback had blamed is cleared when the rollback is
    /// called off.
    /// Errors: State: the table of phases does not allow it.
    pub fn call_off(&mut self, here: &Here<'_>) -> Result<()> {
        let was_rollback = self.state.phase == Phase::RolledBack;
        let target = (here.view)(here.running.other());
        self.state.call_off(target.version(), here.now_secs)?;
        if was_rollback {
            // A rollback to content that never ran here still leaves that called off.
            let digest = target.record.ok().and_then(|record| record.manifest_digest);
            self.state.called_off = digest.filter(|digest| !here.proven.holds(*digest));
            self.forget_failure(here);
        }
        self.switched(here);
        Ok(())
    }

    /// Clears an earlier failure of the running artifact.
    pub fn forget_failure(&mut self, here: &Here<'_>) {
        if let Some((digest, _)) = self.artifact_in(here, here.running) {
            self.failures.forget(digest);
        }
    }

    /// Notes that the agent chose the next slot in this boot: whether it loads is known in the next one.
    pub fn switched(&mut self, here: &Here<'_>) {
        self.state.switched_boot_id.clone_from(&here.boot_id);
    }

    fn written(&mut self, write: BootWrite) -> &mut Block {
        self.write = write;
        &mut self.block
    }

    fn artifact_in(&self, here: &Here<'_>, slot: Slot) -> Option<(Digest, String)> {
        artifact_in(&self.state, &(here.view)(slot))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
