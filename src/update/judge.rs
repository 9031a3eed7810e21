//! Holds what is offered against the gates, with what this machine is and remembers. The one place where they are called.
//!
//! Must never: change anything, or take the lock.

use crate::base::clock::Now;
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::ledger::failures::Failures;
use crate::ledger::proven::Proven;
use crate::ledger::state::{Phase, State};
use crate::ledger::store::Store;
use crate::machine::view::View;
use crate::machine::{ARCHITECTURE, Machine};
use crate::offer::artifact::Artifact;
use crate::offer::gate::{self, Facts, Verdict};
use crate::os::progress::note;
use crate::os::sys::Access;
use crate::os::system::System;
use crate::slot::record::Slot;
use crate::source::Source;
use crate::trust::keyring::Keyring;
use crate::update::ask;
use crate::update::next_step::{self, Memory, Other, Stuck};
use crate::update::reconcile::{self, pending_trial};
use crate::update::session::remember;
use crate::update::survey::Report;

/// What this machine brings to the gates, read once.
pub struct Situation {
    /// The running slot.
    pub running: View,
    /// The slot an update would go to.
    pub target: View,
    /// Why that slot must not be touched, if so.
    pub trial_pending: Option<String>,
    /// Artifacts that rolled back.
    pub failed: Vec<(Digest, String)>,
    /// What is staged in the target slot.
    pub staged_digest: Option<Digest>,
    /// Whether that was staged although it failed here before.
    pub staged_insisted: bool,
    /// What is known of the time.
    pub now: Now,
    /// What was confirmed here.
    pub proven: Proven,
}

/// What the person allows.
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
    /// Writes them as options, each with a blank before it: without them `apply` may refuse what was judged with them.
    pub(crate) fn options(self) -> String {
        let all = [
            (self.allow_downgrade, " --allow-downgrade"),
            (self.retry_failed, " --retry-failed"),
            (self.ignore_window, " --ignore-window"),
        ];
        all.into_iter().filter(|(is_given, _)| *is_given).map(|(_, option)| option).collect()
    }
}

/// What is asked: is there something to take?
pub struct Question<'a> {
    /// Who is asked.
    pub source: &'a mut dyn Source,
    /// What the configuration wants.
    pub config: &'a Config,
    /// Who must have signed it.
    pub ring: &'a Keyring,
    /// What the person allows.
    pub overrides: Overrides,
}

/// Asks the source and judges what it offers.
/// Input: `store`: where what was offered last is remembered. What is [`Artifact::is_hearsay`] comes from there.
/// Errors: what the source ends with; Slot: the running slot cannot be looked into; Device: the target can not be read.
pub fn consult(
    question: &mut Question<'_>,
    situation: &Situation,
    store: Option<&Store>,
) -> Result<(Artifact, Verdict)> {
    demand_known(situation, question.ring)?;
    let artifact = ask::ask(question.source, question.ring, store)?;
    let standing = Standing {
        trial_pending: situation.trial_pending.as_deref(),
        staged_digest: situation.staged_digest,
        staged_insisted: situation.staged_insisted,
        failed: &situation.failed,
        now: situation.now,
        newest_release_secs: situation.proven.release_secs,
    };
    let views = [&situation.running, &situation.target];
    let verdict = judge(&artifact, question.config, views, &standing, question.overrides)?;
    if let Some(remark) = gate::stands_still(&artifact, &verdict, situation.now)? {
        note(&remark);
    }
    // Room that can not be told is not room.
    match (&verdict, situation.target.room_bytes, &situation.target.record) {
        (Verdict::Take, None, Err(error)) => Err(error.clone()),
        _ => Ok((artifact, verdict)),
    }
}

/// What this machine remembers, as the gates need it.
struct Standing<'a> {
    trial_pending: Option<&'a str>,
    staged_digest: Option<Digest>,
    staged_insisted: bool,
    failed: &'a [(Digest, String)],
    now: Now,
    newest_release_secs: Option<u64>,
}

/// Holds an artifact against the gates: the one place where they are called.
/// Errors: as [`gate::judge`].
fn judge(
    artifact: &Artifact,
    config: &Config,
    [running, target]: [&View; 2],
    standing: &Standing<'_>,
    overrides: Overrides,
) -> Result<Verdict> {
    let record = running.record.as_ref().ok();
    let facts = Facts {
        architecture: ARCHITECTURE,
        channel: &config.channel,
        running_version: running.version(),
        running_digest: record.and_then(|r| r.manifest_digest),
        running_files: record.map(|r| [r.kernel.sha256, r.initramfs.sha256]),
        trial_pending: standing.trial_pending,
        staged_digest: standing.staged_digest,
        staged_insisted: standing.staged_insisted,
        failed: standing.failed,
        now: standing.now,
        newest_release_secs: standing.newest_release_secs,
        room_bytes: target.room_bytes,
        window: config.window.as_ref(),
        allow_downgrade: overrides.allow_downgrade,
        retry_failed: overrides.retry_failed,
        ignore_window: overrides.ignore_window,
    };
    gate::judge(artifact, &facts)
}

/// Says whether what the source offered last would be taken now, as far as that can be told without asking it: nobody is
/// asked, and no signature is proven.
pub fn would_take(report: &Report, config: &Config, now: Now) -> bool {
    let (Some(offered), Some(running)) = (&report.offered, report.running) else { return false };
    let [a, b] = &report.slots;
    let views = if running == Slot::A { [a, b] } else { [b, a] };
    let failed = report.failures.refusals(report.boot_id.as_deref());
    let (mut proven, mut trial_pending) = (report.proven.clone(), None);
    if let Some(vars) = &report.vars {
        trial_pending = pending_trial(running, vars);
        if let (true, Ok(record)) = (reconcile::is_confirmed(running, vars), &views[0].record) {
            proven.add_record(record, now.earliest_secs());
        }
    }
    let standing = Standing {
        trial_pending: trial_pending.as_deref(),
        staged_digest: staged_digest(&report.state, views[1]),
        staged_insisted: report.state.insisted,
        failed: &failed,
        now: now.with_floor(proven.no_earlier_than(0)),
        newest_release_secs: proven.release_secs,
    };
    let overrides = Overrides { allow_downgrade: false, retry_failed: false, ignore_window: false };
    let verdict = judge(offered, config, views, &standing, overrides);
    // Room that can not be told is not room.
    report.stopped.is_none() && views[1].room_bytes.is_some() && verdict.is_ok_and(|verdict| verdict == Verdict::Take)
}

/// Refuses to decide anything while the running slot cannot be looked into: perhaps the other one is the only one that boots.
/// Errors: Slot: it cannot be mounted.
pub fn demand_known(situation: &Situation, ring: &Keyring) -> Result<()> {
    let running = &situation.running;
    let (true, Err(e)) = (next_step::is_unknown(running), &running.record) else { return Ok(()) };
    if e.is_unseen() {
        // Nothing is known of it, and it has its own way out.
        return Err(e.clone());
    }
    let memory = Memory { refusals: &situation.failed, proven: &situation.proven, ring: &Ok(ring.clone()) };
    let staged = (situation.staged_digest.is_some(), situation.staged_insisted);
    let other = Other::of(&situation.target, staged, &memory);
    Err(Error::new(Kind::Slot, e.to_string())
        .at("find the version of", format!("the running slot {}", running.slot))
        .hint(next_step::way_on(Stuck { slot: running.slot, is_unknown: true, has_proof: true }, other)))
}

/// Reads what the gates need, without the lock and without recording anything.
pub fn look(system: &System, machine: &Machine<'_>, store: Option<&Store>) -> Result<Situation> {
    let running: Slot = machine.running()?;
    let (state, mut failures, mut proven) = match store {
        Some(store) => {
            let (state, failures, proven) = (store.state(), store.failures(), store.proven());
            let damage = [state.damage, failures.damage, proven.damage];
            damage.iter().flatten().for_each(|e| note(&format!("{e}; it counts as empty here")));
            (state.value, failures.value, proven.value)
        }
        None => (State::default(), Failures::default(), Proven::default()),
    };
    let boot_id = machine.boot_id();
    let (mut trial_pending, mut is_confirmed) = (None, false);
    match machine.boot_env(Access::Read).and_then(|env| Ok(env.files.load().usable()?.1)) {
        Err(e) => note(&format!("{e}; whether a trial is pending is not known")),
        Ok(vars) => {
            trial_pending = pending_trial(running, &vars);
            is_confirmed = reconcile::is_confirmed(running, &vars);
            let seen = reconcile::Boot { running, vars, boot_id: boot_id.as_deref(), skipped: machine.skipped() };
            // A rollback that no changing command has recorded yet counts all the same.
            remember(&mut failures, &reconcile::find(&state, &seen), &state, machine);
        }
    }
    let (running, target) = (machine.view(running), machine.view(running.other()));
    if let (true, Ok(record)) = (is_confirmed, &running.record) {
        proven.add_record(record, system.now().earliest_secs());
    }
    let now = system.now().with_floor(proven.no_earlier_than(0));
    let staged_digest = staged_digest(&state, &target);
    let (staged_insisted, failed) = (state.insisted, failures.refusals(boot_id.as_deref()));
    Ok(Situation { running, target, trial_pending, staged_digest, staged_insisted, failed, now, proven })
}

/// Returns what is staged in the target slot, as far as that can be told without reading its files.
pub fn staged_digest(state: &State, target: &View) -> Option<Digest> {
    let digest = target.record.as_ref().ok()?.manifest_digest?;
    let is_staged = state.phase == Phase::Staged && state.target_slot == Some(target.slot);
    (is_staged && state.manifest_digest == Some(digest)).then_some(digest)
}
