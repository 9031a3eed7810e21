//! A run that may change something: locked, its state read, and what happened since the last run recorded.
//!
//! Must never: be opened by a command that only looks (check, status).

use crate::base::clock::Now;
use crate::base::digest::Digest;
use crate::base::error::{Error, IoContext, Kind, Result};
use crate::base::text::printable;
use crate::base::time::rfc3339;
use crate::boot::block::{Block, BootVars};
use crate::boot::env_files::Loaded;
use crate::config::{Config, SignaturePolicy};
use crate::ledger::failures::{Failure, Failures};
use crate::ledger::proven::Proven;
use crate::ledger::state::{Phase, State};
use crate::ledger::store::{Lock, Store};
use crate::machine::{BootEnv, Data, Machine};
use crate::offer::gate::{self, Gate, Refusal};
use crate::os::onlooker;
use crate::os::progress::{drain, note};
use crate::os::sys::{self, Access};
use crate::os::system::System;
use crate::slot::record::Slot;
use crate::trust::keyring::Keyring;
use crate::update::next_step;
use crate::update::reconcile::{self, Blame, Finding, Seen};
use std::time::Duration;

/// Everything a changing command works on.
pub struct Session<'a> {
    /// The machine.
    pub machine: Machine<'a>,
    /// The running slot.
    pub running: Slot,
    /// The attempt's state; change it, then [`Session::save_state`].
    pub state: State,
    /// Artifacts that rolled back.
    pub failures: Failures,
    /// What was confirmed on this machine.
    pub proven: Proven,
    /// GRUB's variables as they are now.
    pub vars: BootVars,
    system: &'a System,
    /// Policy and threshold.
    signature: (SignaturePolicy, usize),
    must_record: bool,
    /// Why what is remembered could not be read.
    unreadable: Option<Error>,
    block: Block,
    env: BootEnv,
    data: Data,
    _lock: Lock,
}

impl<'a> Session<'a> {
    /// Takes the lock, reads everything, records what happened since the last run.
    /// Errors: Busy: another run. Device, Boot, State: the machine is not in a state to be changed.
    pub fn open(system: &'a System, config: &Config) -> Result<Session<'a>> {
        Session::open_with(system, config, true)
    }

    /// The same for what must work on a damaged machine, going back and confirming: a data partition that is full,
    /// read-only or gone costs the record of it, which is said aloud, and not the act.
    /// Errors: as [`Session::open`], but for the data partition.
    pub fn open_to_recover(system: &'a System, config: &Config) -> Result<Session<'a>> {
        Session::open_with(system, config, false)
    }

    fn open_with(system: &'a System, config: &Config, must_record: bool) -> Result<Session<'a>> {
        let machine = Machine::look(system);
        let running = machine.running()?;
        let data = match machine.data(config.state_file.as_deref(), Access::Write) {
            Err(e) if !must_record && e.kind() != Kind::Busy => {
                note(&format!("{e}; nothing of this run will be remembered"));
                machine.volatile_data()
            }
            data => data?,
        };
        let lock = match data.store.lock() {
            Err(e) if !must_record && e.kind() != Kind::Busy => {
                note(&e.to_string());
                machine.volatile_data().store.lock()?
            }
            lock => lock?,
        };
        lock.tell(config.command, system.now().earliest_secs());
        let (data, memory, unreadable) = match data.store.recall() {
            Err(e) if must_record => return Err(e),
            Err(e) => {
                note(&format!("{e}; nothing of this run will be remembered"));
                let volatile = machine.volatile_data();
                let memory = volatile.store.recall().unwrap_or_default();
                (volatile, memory, Some(e))
            }
            Ok(memory) => (data, memory, None),
        };
        memory.said.iter().for_each(|said| note(said));
        let env = machine.boot_env(Access::Write)?;
        let loaded = env.files.load();
        env_remarks(&loaded).iter().for_each(|said| note(said));
        let (block, vars) = loaded.usable().map(|(block, vars)| (block.clone(), vars))?;
        let signature = (config.signature, config.signature_threshold);
        let mut session = Session {
            machine,
            running,
            state: memory.state,
            failures: memory.failures,
            proven: memory.proven,
            vars,
            system,
            signature,
            must_record,
            unreadable,
            block,
            env,
            data,
            _lock: lock,
        };
        session.record_the_past()?;
        session.remember_proof()?;
        Ok(session)
    }

    /// Reads the keys, and what is revoked.
    /// Errors: as [`Keyring::load`].
    pub fn keyring(&self) -> Result<Keyring> {
        Keyring::of_machine(&self.system.keys_dir(), self.signature, Some(&self.data.store.site()))
    }

    /// Remembers that what runs has proven itself, if it has. A run that was cut off before it is made up for by the next one.
    /// Errors: State: the data partition can not be written.
    pub fn remember_proof(&mut self) -> Result<()> {
        if !reconcile::is_confirmed(self.running, &self.vars) {
            return Ok(());
        }
        match self.machine.view(self.running).record {
            Ok(record) if self.proven.add_record(&record, self.system.now().earliest_secs()) => {
                self.recorded(self.data.store.save_proven(&self.proven))
            }
            _ => Ok(()),
        }
    }

    /// Names the artifact in a slot, digest and version.
    pub fn artifact_in(&self, slot: Slot) -> Option<(Digest, String)> {
        artifact_in(&self.state, &self.machine, slot)
    }

    /// Refuses to try what may have failed here, where that cannot be read.
    /// Errors: State: the files.
    pub fn demand_memory(&self) -> Result<()> {
        self.unreadable.clone().map_or(Ok(()), Err)
    }

    /// Returns the artifacts that are not to be taken now, and why.
    pub fn refusals(&self) -> Vec<(Digest, String)> {
        self.failures.refusals(self.machine.boot_id().as_deref())
    }

    /// Refuses to try what failed here. Input: what is done with it, and what does that all the same.
    /// Errors: Gate: it may not be tried by itself.
    pub fn refuse_known_bad(&self, slot: Slot, (op, way_out): (&str, &'static str)) -> Result<()> {
        let Some((digest, version)) = self.artifact_in(slot) else { return Ok(()) };
        match self.refusals().into_iter().find(|(failed, _)| *failed == digest) {
            Some((_, reason)) => {
                let why = format!("it {}", printable(&reason));
                let refusals = [Refusal { gate: Gate::FailedBefore, why, hint: way_out }];
                Err(gate::refused_to(op, &format!("version {version}"), &refusals))
            }
            None => Ok(()),
        }
    }

    /// Returns the agent's files.
    pub fn store(&self) -> &Store {
        &self.data.store
    }

    /// Returns what is known of the time.
    pub fn time(&self) -> Now {
        self.system.now().with_floor(self.proven.no_earlier_than(0))
    }

    /// Returns the time for stamps.
    pub fn now(&self) -> u64 {
        self.time().earliest_secs()
    }

    /// Returns the slot an update goes to.
    pub fn target(&self) -> Slot {
        self.running.other()
    }

    /// Returns why the other slot must not be touched, while a trial is pending.
    pub fn pending_trial(&self) -> Option<String> {
        reconcile::pending_trial(self.running, &self.vars)
    }

    /// Writes the state, durably.
    /// Errors: State: the data partition can not be written.
    pub fn save_state(&self) -> Result<()> {
        self.data.store.save_state(&self.state)
    }

    /// Writes the state after the deed is done: a failure is said and costs only the record. The next run finds
    /// the state behind the boot variables and follows.
    pub fn note_state(&self) {
        Session::note_unrecorded(self.save_state());
    }

    /// Says why a deed that is done is not recorded: the command has not failed.
    pub fn note_unrecorded(recorded: Result<()>) {
        if let Err(e) = recorded {
            note(&format!("done, but not recorded: {e}"));
        }
    }

    /// Lets a failure to record pass, where the act matters more.
    fn recorded(&self, saved: Result<()>) -> Result<()> {
        match saved {
            Err(e) if !self.must_record => {
                note(&format!("not recorded: {e}"));
                Ok(())
            }
            saved => saved,
        }
    }

    /// Changes the boot variables: both copies, each proven.
    /// Errors: Boot, Device: the main copy could not be written; nothing of this run counts then.
    pub fn save_boot(&mut self, change: impl FnOnce(&mut Block)) -> Result<()> {
        let mut block = self.block.clone();
        change(&mut block);
        self.write_boot(block)
    }

    // Apart from the one above, which is compiled anew for each change (size-budget.md).
    #[inline(never)]
    fn write_boot(&mut self, block: Block) -> Result<()> {
        // Once more: one write that fails is common on cheap flash, and what it left may be what GRUB acts on.
        let saved = self.env.files.save(&block).or_else(|e| {
            note(&format!("{e}; once more"));
            self.env.files.save(&block)
        })?;
        if let Some(error) = saved.backup {
            note(&format!("the second copy of the boot variables is not written: {error}"));
        }
        self.vars = BootVars::read_whole(&block)?;
        self.block = block;
        Ok(())
    }

    /// Records that a slot was left: remembers its artifact, and moves the state.
    /// Errors: State: the table does not allow it, or the data partition can not be written.
    pub fn leave(&mut self, gave_up: Slot, reason: &str, blame: Blame) -> Result<()> {
        let artifact = artifact_in(&self.state, &self.machine, gave_up);
        self.state.roll_back(gave_up, artifact.clone(), reason, self.now())?;
        // The slot that is left runs on until the restart, and that may be called off.
        if gave_up == self.running && self.vars.rollback_from != Some(gave_up) {
            self.state.await_restart();
        }
        let (boot_id, activated_in) = (self.machine.boot_id(), self.state.switched_boot_id.take());
        self.state.switched_boot_id.clone_from(&boot_id);
        if let Some((digest, version)) = artifact.filter(|_| blame != Blame::Slot) {
            let at = rfc3339(self.now());
            let failure = Failure { digest, version, reason: reason.into(), at, doubt: None };
            match blame {
                Blame::Undecided => self.failures.remember_undecided(failure, boot_id, activated_in),
                Blame::Decided | Blame::Slot => self.failures.remember(failure),
            }
            self.recorded(self.data.store.save_failures(&self.failures))?;
        }
        self.recorded(self.save_state())
    }

    /// Records that nothing is to be tried any more, and nothing known against it. What a rollback blamed that is called off
    /// is blamed no more.
    /// Errors: State: the table does not allow it, or the data partition can not be written.
    pub fn call_off(&mut self) -> Result<()> {
        let was_rollback = self.state.phase == Phase::RolledBack;
        let target = self.machine.view(self.target());
        self.state.call_off(target.version(), self.now())?;
        if was_rollback {
            // A rollback was to what never ran here: that is still called off.
            let digest = target.record.ok().and_then(|record| record.manifest_digest);
            self.state.called_off = digest.filter(|digest| !self.proven.holds(*digest));
        }
        self.state.switched_boot_id = self.machine.boot_id();
        if was_rollback {
            self.forget_failure()?;
        }
        self.recorded(self.save_state())
    }

    /// Says whether a slot holds what was called off before it ever booted.
    pub fn holds_called_off(&self, slot: Slot) -> bool {
        let holds = |digest| self.artifact_in(slot).is_some_and(|(held, _)| held == digest);
        self.state.called_off.is_some_and(holds)
    }

    /// Records how healthy the confirmed slot is that runs: what failed before on this machine may not be to blame.
    /// Errors: State: the data partition can not be written.
    pub fn control_failures(&mut self, healthy: bool) -> Result<()> {
        let running = self.artifact_in(self.running).map(|(digest, _)| digest);
        match self.failures.control(healthy, running) {
            true => self.recorded(self.data.store.save_failures(&self.failures)),
            false => Ok(()),
        }
    }

    /// Says whether the running slot is on trial.
    pub fn runs_on_trial(&self) -> bool {
        self.vars.boot_success == Some(false) && self.vars.active_slot == Some(self.running)
    }

    /// Says whether that trial is the one of the attempt in the state, not one after a manual rollback.
    pub fn trial_is_of_this_attempt(&self) -> bool {
        let digest = self.artifact_in(self.running).map(|(digest, _)| digest);
        let same = self.state.target_slot == Some(self.running) && self.state.manifest_digest == digest;
        same && self.state.phase != Phase::RolledBack
    }

    /// Forgets that the running artifact failed before: it proved itself.
    /// Errors: State: the data partition can not be written.
    pub fn forget_failure(&mut self) -> Result<()> {
        let artifact = artifact_in(&self.state, &self.machine, self.running);
        match artifact.is_some_and(|(digest, _)| self.failures.forget(digest)) {
            true => self.recorded(self.data.store.save_failures(&self.failures)),
            false => Ok(()),
        }
    }

    /// Power cut: each step is found again by the next run: failures, then the state, then the boot variables.
    fn record_the_past(&mut self) -> Result<()> {
        if self.state.phase.is_unfinished() {
            self.state.cut_off(self.now())?;
            self.recorded(self.save_state())?;
        }
        if self.state.is_under_way && self.state.target_slot != Some(self.running) {
            self.state.arrive();
            self.recorded(self.save_state())?;
        }
        // Activated, confirmed, done: three findings at most follow from one another.
        for _ in 0..3 {
            let boot_id = self.machine.boot_id();
            match reconcile::find(&self.state, &self.seen(boot_id.as_deref())) {
                Finding::Nothing => return Ok(()),
                Finding::WasActivated => {
                    self.state.step(Phase::Activated, self.now())?;
                    // If that slot does not run in the next boot either, GRUB could not load it.
                    self.state.switched_boot_id = boot_id;
                    self.recorded(self.save_state())?;
                }
                Finding::WasConfirmed => {
                    self.state.succeed(self.now())?;
                    self.recorded(self.save_state())?;
                }
                Finding::RolledBack { gave_up, reason, blame } => self.record_rollback(gave_up, &reason, blame)?,
                Finding::Unjudged { slot, reason } => {
                    return self.record_unjudged(slot, Error::new(Kind::Boot, reason), reconcile::after_no_try);
                }
                Finding::Skipped { slot } => return self.record_skipped(slot),
                Finding::CalledOff => self.call_off()?,
                Finding::StaleMark => self.save_boot(Block::clear_rollback)?,
                Finding::Unloadable if self.mend_other() => {
                    // GRUB finds it whole in the next boot.
                    self.state.switched_boot_id = boot_id;
                    return self.recorded(self.save_state());
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
            Err(e) if e.is_in_use() => self.recorded(Err(e)),
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
        let artifact = self.artifact_in(other);
        self.state.roll_back(other, artifact, &reason, self.now())?;
        self.state.switched_boot_id = self.machine.boot_id();
        self.recorded(self.save_state())
    }

    /// Says whether the trial of the running slot can not end by itself, see [`reconcile::no_way_back`].
    pub fn no_way_back(&self) -> bool {
        reconcile::no_way_back(&self.state, &self.seen(self.machine.boot_id().as_deref()))
    }

    /// Says whether a restart may bring the confirmed slot back, see [`reconcile::worth_a_restart`].
    pub fn worth_a_restart(&self) -> bool {
        reconcile::worth_a_restart(&self.state, &self.seen(self.machine.boot_id().as_deref()))
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
        let now = self.now();
        if self.state.phase.may_become(Phase::Failed) {
            self.state.fail(&error, now)?;
        } else {
            let artifact = self.artifact_in(slot);
            self.state.roll_back(slot, artifact, &reason, now)?;
        }
        self.state.switched_boot_id = self.machine.boot_id();
        self.recorded(self.save_state())?;
        let running = self.running;
        self.save_boot(|block| after(running, block))
    }

    /// GRUB passed over the slot on trial: what has rotted on the disk is no fault of the release.
    /// Power cut: as [`Session::record_the_past`].
    fn record_skipped(&mut self, slot: Slot) -> Result<()> {
        match self.machine.scrub(slot, &mut |_| {}) {
            Ok((_, true)) => {
                note(&format!("slot {slot} stays on trial; the next boot tries it"));
                self.state.switched_boot_id = self.machine.boot_id();
                self.recorded(self.save_state())
            }
            Ok((_, false)) => {
                let reason = format!("slot {slot} could not be loaded; GRUB booted slot {}", self.running);
                self.record_rollback(slot, &reason, Blame::Decided)
            }
            // Somebody is at work on it: that proves nothing.
            Err(e) if e.is_in_use() => self.recorded(Err(e)),
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
        self.leave(gave_up, reason, blame)?;
        self.save_boot(|block| reconcile::after_rollback(&seen, gave_up, block))
    }

    fn seen<'b>(&self, boot_id: Option<&'b str>) -> Seen<'b> {
        Seen { running: self.running, vars: self.vars, boot_id, skipped: self.machine.skipped() }
    }
}

/// How long is waited until everything is written out, before a restart. The agent's own files are: of the rest, whatever is
/// not then is lost, as at a power cut. A machine that waits for a dead disk for ever is lost itself.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// Writes everything out, also what was said, and restarts the machine; comes back only when that fails.
pub fn reboot() -> Error {
    // Before all is written out: the next boot is not to find a run that was cut off.
    onlooker::leave();
    if !sys::sync_within(SYNC_LIMIT) {
        note("sync: not done after 30 s, a disk does not answer; the machine restarts all the same");
    }
    drain();
    let failed = Err::<(), _>(sys::reboot()).io(Kind::Internal, "restart", "the machine");
    match failed {
        Err(e) => e.hint("restarting needs root"),
        Ok(()) => Error::new(Kind::Internal, "the kernel did not restart"),
    }
}

/// Names the artifact in a slot, digest and version: by its record, or where that can not be read by the state, if
/// the attempt was about that slot.
pub fn artifact_in(state: &State, machine: &Machine<'_>, slot: Slot) -> Option<(Digest, String)> {
    match machine.view(slot).record {
        Ok(record) => Some((record.manifest_digest?, record.version)),
        Err(_) if state.target_slot == Some(slot) => {
            Some((state.manifest_digest?, state.to_version.clone().unwrap_or_default()))
        }
        Err(_) => None,
    }
}

/// Takes a rollback that is not recorded yet into what is remembered, as the next run that changes something will.
pub fn remember(failures: &mut Failures, finding: &Finding, state: &State, machine: &Machine<'_>) {
    let Finding::RolledBack { gave_up, reason, blame } = finding else { return };
    let Some((digest, version)) = artifact_in(state, machine, *gave_up) else { return };
    let failure = Failure { digest, version, reason: reason.clone(), at: String::new(), doubt: None };
    match blame {
        Blame::Slot => {}
        Blame::Decided => failures.remember(failure),
        Blame::Undecided => failures.remember_undecided(failure, machine.boot_id(), state.switched_boot_id.clone()),
    }
}

/// Says what is wrong with the boot variables' files.
pub fn env_remarks(loaded: &Loaded) -> Vec<String> {
    let mut said: Vec<String> =
        loaded.damage.iter().map(|(copy, fault)| format!("boot variables: {copy} {fault}")).collect();
    let full = |copy| {
        format!("boot variables: {copy} has no room in which GRUB could set `rollback_from`: no trial could be ended")
    };
    said.extend(loaded.full.iter().map(full));
    if loaded.copies_differ {
        said.push("boot variables: the two copies differ (a write was cut off between them); the first counts".into());
    }
    said
}
