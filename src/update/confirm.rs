//! Confirms the trial boot of a healthy machine, and records one that is not: one write to the boot variables.
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

/// Says what a restart of an unhealthy machine is good for, if it is.
pub fn worth_a_restart(system: &System, config: &Config, trial: Trial) -> Option<&'static str> {
    match trial {
        Trial::GoesOn => Some("so that GRUB counts this boot"),
        Trial::Confirmed => None,
        Trial::Over => {
            let session = Session::open(system, config).ok()?;
            // Only if that is on record does the next boot know that this one was the first.
            session.worth_a_restart().then_some("so that GRUB tries the slot that was confirmed once more")
        }
    }
}

/// What the run began with. The second session cannot ask for it where the first could record nothing.
pub struct Begun {
    /// Whether this boot is on trial.
    pub on_trial: bool,
    /// See [`crate::update::reconcile::no_way_back`].
    pub no_way_back: bool,
    /// What comes out of it decides whether an artifact is to blame that failed before.
    pub is_control: bool,
}

/// Says whether this boot is on trial, and if so records that it is being verified.
pub fn begin(system: &System, config: &Config) -> Result<Begun> {
    let mut session = Session::open_to_recover(system, config)?;
    let on_trial = session.runs_on_trial();
    if on_trial && session.trial_is_of_this_attempt() && session.state().phase.may_become(Phase::Verifying) {
        let now = session.now();
        session.change(Recording::Afterwards, &mut |state| state.step(Phase::Verifying, now))?;
    }
    Ok(Begun { on_trial, no_way_back: session.no_way_back(), is_control: session.failures.has_undecided() })
}

/// What became of the trial.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// The running slot is confirmed.
    Confirmed,
    /// GRUB counts the next boot as well.
    GoesOn,
    /// There is none, or no more: another restart changes nothing.
    Over,
}

/// Records how the trial ended.
/// Power cut: before the boot variables are written: the trial goes on. After it: confirmed; the next run finds
/// the state behind and follows.
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
            // First: a cut between the two would leave it remembered as failed for good.
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
