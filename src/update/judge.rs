//! Checks what is offered against the gates, with the facts and records of this machine. For this machine the gates are called here and nowhere else.
//!
//! Must never: change anything, or take the lock.

use crate::base::clock::Now;
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::ledger::store::Store;
use crate::machine::view::View;
use crate::machine::{ARCHITECTURE, Machine};
use crate::offer::artifact::Artifact;
use crate::offer::gate::{self, Facts, Verdict};
use crate::os::progress::note;
use crate::os::system::System;
use crate::slot::record::Slot;
use crate::source::Source;
use crate::trust::keyring::Keyring;
use crate::update::ask;
use crate::update::next_step::{self, Other, Standing, Stuck};
use crate::update::reconcile::pending_trial;
use crate::update::report::Report;
use crate::update::survey::{BootRead, Survey};

/// Facts of this machine for the gates.
pub struct Situation<'a> {
    /// The survey that it was made from.
    pub survey: &'a Survey,
    /// The running slot.
    pub running: &'a View,
    /// The slot an update would go to.
    pub target: &'a View,
    /// What is staged there.
    pub staged_digest: Option<Digest>,
    /// Why that slot must not be touched, if it must not.
    trial_pending: Option<String>,
    /// Artifacts that must not be taken now, and why.
    failed: Vec<(Digest, String)>,
    /// What is known of the time.
    now: Now,
}

impl<'a> Situation<'a> {
    /// Derives it from the survey. Pure.
    pub fn of(survey: &'a Survey, running: Slot, now: Now) -> Situation<'a> {
        Situation {
            survey,
            running: survey.slot(running),
            target: survey.slot(running.other()),
            staged_digest: survey.staged_in(running.other()),
            trial_pending: survey.vars.and_then(|vars| pending_trial(running, &vars)),
            failed: survey.failures.refusals(survey.boot_id.as_deref()),
            now: now.with_floor(survey.proven.no_earlier_than(0)),
        }
    }
}

/// What the operator allows.
#[derive(Clone, Copy)]
pub struct Overrides {
    /// `--allow-downgrade`
    pub allow_downgrade: bool,
    /// `--retry-failed`
    pub retry_failed: bool,
    /// `--ignore-window`
    pub ignore_window: bool,
}

impl Overrides {
    /// Formats them as options, each after a blank: without them `apply` may refuse what was judged with them.
    pub(crate) fn options(self) -> String {
        let all = [
            (self.allow_downgrade, " --allow-downgrade"),
            (self.retry_failed, " --retry-failed"),
            (self.ignore_window, " --ignore-window"),
        ];
        all.into_iter().filter(|(is_given, _)| *is_given).map(|(_, option)| option).collect()
    }
}

/// The question whether there is something to take.
pub struct Question<'a> {
    /// The source to ask.
    pub source: &'a mut dyn Source,
    /// The configuration.
    pub config: &'a Config,
    /// The keys that must have signed it.
    pub ring: &'a Keyring,
    /// What the operator allows.
    pub overrides: Overrides,
}

/// Asks the source and judges what it offers.
/// Input: `store`: holds the last offer, from which an artifact that [`Artifact::is_hearsay`] comes.
/// Errors: those of the source; Slot: the running slot cannot be examined; Device: the target cannot be read.
pub fn consult(
    question: &mut Question<'_>,
    situation: &Situation<'_>,
    store: Option<&Store>,
) -> Result<(Artifact, Verdict)> {
    demand_known(situation, question.ring)?;
    let artifact = ask::ask(question.source, question.ring, store)?;
    let verdict = judge(&artifact, question.config, situation, question.overrides)?;
    if let Some(remark) = gate::stands_still(&artifact, &verdict, situation.now)? {
        note(&remark);
    }
    // Unknown room does not count as room.
    match (&verdict, situation.target.room_bytes, &situation.target.record) {
        (Verdict::Take, None, Err(error)) => Err(error.clone()),
        _ => Ok((artifact, verdict)),
    }
}

/// Checks an artifact against the gates: their only caller for this machine.
/// Errors: as [`gate::judge`].
fn judge(artifact: &Artifact, config: &Config, situation: &Situation<'_>, overrides: Overrides) -> Result<Verdict> {
    let record = situation.running.record.as_ref().ok();
    let facts = Facts {
        architecture: ARCHITECTURE,
        channel: &config.channel,
        running_version: situation.running.version(),
        running_digest: record.and_then(|r| r.manifest_digest),
        running_files: record.map(|r| [r.kernel.sha256, r.initramfs.sha256]),
        trial_pending: situation.trial_pending.as_deref(),
        staged_digest: situation.staged_digest,
        staged_insisted: situation.survey.state.insisted,
        failed: &situation.failed,
        now: situation.now,
        newest_release: situation.survey.proven.newest_release,
        room_bytes: situation.target.room_bytes,
        window: config.window.as_ref(),
        allow_downgrade: overrides.allow_downgrade,
        retry_failed: overrides.retry_failed,
        ignore_window: overrides.ignore_window,
    };
    gate::judge(artifact, &facts)
}

/// Returns whether the last offer would be taken now, as far as known without asking the source or proving a signature.
pub fn would_take(report: &Report, config: &Config, now: Now) -> bool {
    let Some((offered, running)) = report.offered.as_ref().zip(report.survey.running) else { return false };
    let situation = Situation::of(&report.survey, running, now);
    let overrides = Overrides { allow_downgrade: false, retry_failed: false, ignore_window: false };
    // Unknown room does not count as room.
    let is_possible = report.stopped.is_none() && situation.target.room_bytes.is_some();
    is_possible && judge(offered, config, &situation, overrides).is_ok_and(|verdict| verdict == Verdict::Take)
}

/// Refuses to decide anything while the running slot cannot be examined: the other one may be the only one that boots.
/// Errors: Slot: it cannot be mounted.
pub fn demand_known(situation: &Situation<'_>, ring: &Keyring) -> Result<()> {
    let running = situation.running;
    let (true, Err(e)) = (next_step::is_unknown(running), &running.record) else { return Ok(()) };
    if e.is_unseen() || next_step::is_disk_unknown([running, situation.target]) {
        // Its content is unknown, and the error has its own hint.
        return Err(e.clone());
    }
    let (survey, target) = (situation.survey, situation.target);
    let standing = Standing { refusals: &situation.failed, proven: &survey.proven, ring: &Ok(ring.clone()) };
    let other = Other::of(target, survey.held_in(target.slot), &standing);
    Err(Error::new(Kind::Slot, e.to_string())
        .at("find the version of", format!("the running slot {}", running.slot))
        .hint(next_step::way_on(Stuck { slot: running.slot, is_unknown: true, has_proof: true }, other)))
}

/// Reads what the gates need, without the lock and without recording anything. Reports problems.
pub fn look(system: &System, machine: &Machine<'_>, store: Option<&Store>) -> Survey {
    let memory = store.map(Store::glance).unwrap_or_default();
    memory.said.iter().for_each(|damage| note(&format!("{damage}; it counts as empty here")));
    let vars = BootRead::of(machine).vars;
    if let Err(e) = &vars {
        note(&format!("{e}; whether a trial is pending is not known"));
    }
    Survey::of(machine, memory, vars.ok(), system.now())
}
