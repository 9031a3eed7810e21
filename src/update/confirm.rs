//! Confirms the trial boot of a healthy machine with one write to the boot variables, or records an unhealthy one.
//!
//! Must never: confirm a slot that is not the running one.

use crate::base::error::{Error, Result};
use crate::boot::block::Block;
use crate::config::Config;
use crate::health::Watched;
use crate::ledger::state::Phase;
use crate::os::progress::note;
use crate::os::system::System;
use crate::update::plan::Look;
use crate::update::session::{Recording, Session};

/// Describes the purpose of restarting an unhealthy machine, if there is one.
pub fn worth_a_restart(system: &System, config: &Config, trial: Trial) -> Option<&'static str> {
    match trial {
        Trial::GoesOn => Some("so that GRUB counts this boot"),
        Trial::Confirmed => None,
        Trial::Over => {
            let session = Session::open(system, config).ok()?;
            // Only if it is recorded does the next boot know that this one was the first.
            session.worth_a_restart().then_some("so that GRUB tries the slot that was confirmed once more")
        }
    }
}

/// Facts at the start of the run. The second session cannot find them if the first could record nothing.
pub struct Begun {
    /// Whether this boot is on trial.
    pub on_trial: bool,
    /// See [`crate::update::reconcile::no_way_back`].
    pub no_way_back: bool,
    /// Whether the outcome decides if an artifact that failed before is to blame.
    pub is_control: bool,
}

/// Returns whether this boot is on trial, and if so records that it is being verified.
pub fn begin(system: &System, config: &Config) -> Result<Begun> {
    let mut session = Session::open_to_recover(system, config)?;
    let on_trial = session.runs_on_trial();
    if on_trial && session.trial_is_of_this_attempt() && session.state().phase.may_become(Phase::Verifying) {
        let now = session.now();
        session.change(Recording::Afterwards, &mut |state| state.step(Phase::Verifying, now))?;
    }
    Ok(Begun { on_trial, no_way_back: session.no_way_back(), is_control: session.failures.has_undecided() })
}

/// Outcome of the trial.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// The running slot is confirmed.
    Confirmed,
    /// It continues: GRUB counts the next boot as well.
    GoesOn,
    /// There is no trial, or not any more: another restart changes nothing.
    Over,
}

/// Records how the trial ended.
/// Power cut: before the boot variables are written: the trial continues. After it: confirmed; the next run finds the state out
/// of date and updates it.
pub fn record(system: &System, config: &Config, begun: &Begun, unhealthy: Option<(&Error, &Watched)>) -> Result<Trial> {
    let mut session = Session::open_to_recover(system, config)?;
    if !session.runs_on_trial() {
        note("the trial ended while the checks ran: nothing is recorded");
        return Ok(Trial::Over);
    }
    let now = session.now();
    let ours = session.state().phase == Phase::Verifying;
    match unhealthy {
        Some((error, _))
            if begun.no_way_back && session.no_way_back() && !matches!(session.look_at_other(), Look::Mended) =>
        {
            let why = format!("{error}; GRUB could not load slot {}, the way back", session.target());
            session.carry_out(Recording::Due, &mut |plan, here| plan.take_over(here, &why, true))?;
            Ok(Trial::Over)
        }
        Some((error, watched)) => {
            let running = session.running;
            session.change(Recording::Afterwards, &mut |state| {
                state.keep_cause(running, &watched.reason, watched.failed_check());
                if ours { state.fail(error, now) } else { Ok(()) }
            })?;
            Ok(Trial::GoesOn)
        }
        None => {
            // First: a power cut between the two would leave it recorded as failed for good.
            session.carry_out(Recording::Due, &mut |plan, here| {
                plan.forget_failure(here);
                Ok(())
            })?;
            session.save_boot(Block::confirm)?;
            session.remember_proof()?;
            session.change(Recording::Afterwards, &mut |state| {
                if ours {
                    return state.succeed(now);
                }
                state.forget_cause();
                Ok(())
            })?;
            Ok(Trial::Confirmed)
        }
    }
}
