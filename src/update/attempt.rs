//! One attempt, from the first question to the last proof; its outcome is always recorded in the state file.
//!
//! Must never: touch a slot while a trial is pending, or the running slot at all.

use crate::base::error::{Course, Error, Kind, Result};
use crate::config::Config;
use crate::ledger::state::{Phase, Taken};
use crate::ledger::traffic::Traffic;
use crate::offer::artifact::Artifact;
use crate::offer::gate::Verdict;
use crate::offer::refusal::refused;
use crate::os::progress::{note, setback};
use crate::trust::keyring::Keyring;
use crate::update::activate::scrub;
use crate::update::download::{Supply, stage_all};
use crate::update::judge::{Question, Situation, consult, demand_known};
use crate::update::reuse::AtHand;
use crate::update::session::Recording::Due;
use crate::update::session::Session;
use std::cell::Cell;

/// Outcome of an attempt that did not fail.
pub enum Attempted {
    /// It is staged.
    Staged(Artifact, Traffic),
    /// It was staged already.
    StagedBefore(Artifact),
    /// It runs already.
    UpToDate(Artifact),
}

impl Attempted {
    /// Returns what was offered.
    pub fn artifact(&self) -> &Artifact {
        match self {
            Attempted::Staged(artifact, _) | Attempted::StagedBefore(artifact) | Attempted::UpToDate(artifact) => {
                artifact
            }
        }
    }
}

/// Records that no source could be asked, so that monitoring sees that no update is taken. Not during a trial, to which the
/// state belongs, nor if only the command line is wrong or no source is configured: that machine does not update by itself.
pub fn record_stop(session: &mut Session<'_>, config: &Config, error: &Error) {
    if error.kind() == Kind::Usage || config.source.is_none() || session.pending_trial().is_some() {
        return;
    }
    let now = session.now();
    // Whatever the exit code: nothing inauthentic was offered; this machine needs configuration.
    let recorded = Error::new(Kind::Config, error.to_string());
    // The first error is the one to report.
    if let Err(e) = session.change(Due, &mut |state| state.begin(now).and_then(|()| state.fail(&recorded, now))) {
        note(&format!("not recorded: {e}"));
    }
}

/// Makes one attempt, from the first question to the last proof; its outcome is always recorded in the state file.
pub fn attempt(session: &mut Session<'_>, question: &mut Question<'_>) -> Result<Attempted> {
    let survey = session.survey();
    let situation = Situation::of(&survey, session.running, session.time());
    demand_known(&situation, question.ring)?;
    let now = session.now();
    session.change(Due, &mut |state| state.begin(now))?;
    let mut traffic = Traffic::default();
    let ended = decide_and_stage(session, question, &situation, &mut traffic);
    let now = session.now();
    let recorded = session.change(Due, &mut |state| {
        state.traffic_total.add(traffic);
        match &ended {
            Ok(Attempted::Staged(..)) => state.step(Phase::Staged, now),
            Err(Ended::Failed(error)) => state.fail(error, now),
            ended => {
                // An operator may now insist on what is already staged.
                state.insisted |= matches!(ended, Ok(Attempted::StagedBefore(_))) && question.overrides.retry_failed;
                state.answered(now);
                Ok(())
            }
        }
    });
    match ended {
        Ok(attempt) => recorded.map(|()| attempt),
        // The first error is the one to report.
        Err(Ended::Refused(error) | Ended::Failed(error)) => Err(error),
    }
}

/// An attempt that ended without a staged slot.
enum Ended {
    /// The ordinary course of things: the state returns to its earlier value.
    Refused(Error),
    /// The state becomes `failed`.
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Failed(error)
    }
}

fn decide_and_stage(
    session: &mut Session<'_>,
    question: &mut Question<'_>,
    situation: &Situation<'_>,
    traffic: &mut Traffic,
) -> std::result::Result<Attempted, Ended> {
    let consulted = consult(question, situation, Some(session.store()));
    let (mut artifact, mut verdict) = consulted.map_err(|e| match (e.course(), e.kind()) {
        (Course::Nothing, _) | (_, Kind::Busy) => Ended::Refused(e),
        _ => Ended::Failed(e),
    })?;
    // An operator's insistence still holds if the slot must be rewritten.
    let is_staged = situation.staged_digest == Some(artifact.digest);
    let insisted = question.overrides.retry_failed || (is_staged && situation.survey.state.insisted);
    if verdict == Verdict::Staged {
        if is_whole(session, situation, question.ring) {
            return Ok(Attempted::StagedBefore(artifact));
        }
        verdict = Verdict::Take;
    }
    if verdict == Verdict::Take && artifact.is_hearsay() {
        (artifact, verdict) = consult(question, situation, None)?;
    }
    match verdict {
        Verdict::UpToDate => return Ok(Attempted::UpToDate(artifact)),
        Verdict::Refused(refusals) => {
            let error = refused(&format!("version {}", artifact.release.version), &refusals);
            let fault = refusals.iter().any(|r| r.gate.is_fault());
            return Err(if fault { Ended::Failed(error) } else { Ended::Refused(error) });
        }
        Verdict::Take | Verdict::Staged => {}
    }
    // Before anything is recorded: a reader of the slot ends soon, and nothing has failed.
    let hold = session.machine.hold_target(session.target()).map_err(|e| match e.kind() {
        Kind::Busy => Ended::Refused(e),
        _ => Ended::Failed(e),
    })?;
    let taken = Taken {
        from_version: situation.running.version(),
        version: &artifact.release.version,
        source: &artifact.source,
        digest: artifact.digest,
        target: session.target(),
        insisted,
    };
    let now = session.now();
    session.change(Due, &mut |state| state.take(&taken, now))?;
    if let Err(e) = &situation.running.record {
        setback(e, "everything is fetched");
    }
    let at_hand = AtHand::look(&session.machine, situation.running);
    let mut supply = Supply { source: question.source, at_hand, traffic: Cell::default() };
    let staged = stage_all(session, &mut supply, &artifact, &hold);
    *traffic = supply.traffic.get();
    staged?;
    Ok(Attempted::Staged(artifact, *traffic))
}

/// Returns whether the staged slot may be activated as it is. If it has rotted since, it is staged again.
fn is_whole(session: &Session<'_>, situation: &Situation<'_>, ring: &Keyring) -> bool {
    let Ok(record) = &situation.target.record else { return false };
    ring.still_accepts(&record.signed_by, &record.digests()).is_ok() && scrub(session, session.target()).is_ok()
}
