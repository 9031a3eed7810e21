//! A run that may change something: locked, with its state read, and the events since the last run recorded.
//!
//! Must never: be opened by a command that only reads (check, status).

use crate::base::clock::Now;
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;
use crate::boot::block::Block;
use crate::boot::env_files::env_remarks;
use crate::boot::vars::BootVars;
use crate::config::Config;
use crate::ledger::failures::Failures;
use crate::ledger::proven::Proven;
use crate::ledger::state::{Phase, State};
use crate::ledger::store::{Lock, Memory, Store};
use crate::machine::{BootEnv, Data, Machine};
use crate::offer::refusal::{Gate, Refusal, refused_to};
use crate::os::progress::note;
use crate::os::sys::Access;
use crate::os::system::System;
use crate::slot::record::Slot;
use crate::trust::keyring::{Demand, Keyring};
use crate::update::plan::{BootWrite, Here, Plan};
use crate::update::reconcile::{self, Boot};
use crate::update::survey::{Survey, artifact_in};

/// Consequence of a change that cannot be recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Recording {
    /// The run fails: the record is the act.
    Required,
    /// The run fails, unless it recovers a damaged machine ([`Session::open_to_recover`]), where the act matters more.
    Due,
    /// A warning only: the change is made, and the next run finds the state out of date and updates it.
    Afterwards,
}

/// Everything a changing command works on.
pub struct Session<'a> {
    /// The machine.
    pub machine: Machine<'a>,
    /// The running slot.
    pub running: Slot,
    /// Artifacts that rolled back.
    pub(super) failures: Failures,
    /// What was confirmed on this machine.
    pub(super) proven: Proven,
    /// GRUB's variables as they are now.
    pub vars: BootVars,
    state: State,
    system: &'a System,
    demand: Demand,
    must_record: bool,
    /// Why the records could not be read.
    unreadable: Option<Error>,
    block: Block,
    env: BootEnv,
    data: Data,
    _lock: Lock,
}

impl<'a> Session<'a> {
    /// Takes the lock, reads everything, records what happened since the last run.
    /// Errors: Busy: another run. Device, Boot, State: the machine cannot be changed safely.
    pub fn open(system: &'a System, config: &Config) -> Result<Session<'a>> {
        Session::open_with(system, config, true)
    }

    /// The same for rollback and confirmation, which must work on a damaged machine: with a data partition that is full,
    /// read-only or gone they are not recorded, with a warning, but still carried out.
    /// Errors: as [`Session::open`], except for the data partition.
    pub fn open_to_recover(system: &'a System, config: &Config) -> Result<Session<'a>> {
        Session::open_with(system, config, false)
    }

    fn open_with(system: &'a System, config: &Config, must_record: bool) -> Result<Session<'a>> {
        let machine = Machine::look(system);
        let running = machine.running()?;
        let (data, lock) = locked_data(&machine, config, must_record)?;
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
        let mut session = Session {
            machine,
            running,
            state: memory.state,
            failures: memory.failures,
            proven: memory.proven,
            vars,
            system,
            demand: config.demand(),
            must_record,
            unreadable,
            block,
            env,
            data,
            _lock: lock,
        };
        session.settle()?;
        session.remember_proof()?;
        Ok(session)
    }

    /// Reads the keys and revocations.
    /// Errors: as [`Keyring::load`].
    pub fn keyring(&self) -> Result<Keyring> {
        Keyring::of_machine(&self.system.keys_dir(), self.demand, Some(&self.data.store.site()))
    }

    /// Records that the running artifact has proven itself, if it has. The next run makes up for an interrupted one.
    /// Errors: State: the data partition cannot be written.
    pub fn remember_proof(&mut self) -> Result<()> {
        if !reconcile::is_confirmed(self.running, &self.vars) {
            return Ok(());
        }
        match self.machine.view(self.running).record {
            Ok(record) if self.proven.add_record(&record, self.system.now().earliest_secs()) => {
                self.recorded(Recording::Due, self.data.store.save_proven(&self.proven))
            }
            _ => Ok(()),
        }
    }

    /// Names the artifact in a slot, digest and version.
    pub fn artifact_in(&self, slot: Slot) -> Option<(Digest, String)> {
        artifact_in(&self.state, &self.machine.view(slot))
    }

    /// Combines what is known now, for the gates.
    pub fn survey(&self) -> Survey {
        let (state, failures, proven) = (self.state.clone(), self.failures.clone(), self.proven.clone());
        let memory = Memory { state, failures, proven, said: Vec::new() };
        Survey::of(&self.machine, memory, Some(self.vars), self.system.now())
    }

    /// Returns the attempt's state; [`Session::change`] changes it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns what was confirmed on this machine.
    pub fn proven(&self) -> &Proven {
        &self.proven
    }

    /// Refuses to try artifacts that may have failed here, if the records cannot be read.
    /// Errors: State: the files.
    pub fn demand_memory(&self) -> Result<()> {
        self.unreadable.clone().map_or(Ok(()), Err)
    }

    /// Returns the artifacts that must not be taken now, and why.
    pub fn refusals(&self) -> Vec<(Digest, String)> {
        self.failures.refusals(self.machine.boot_id().as_deref())
    }

    /// Refuses to try an artifact that failed here. Input: the operation, and how to force it.
    /// Errors: Gate: it must not be tried automatically.
    pub fn refuse_known_bad(&self, slot: Slot, op: &str, way_out: &'static str) -> Result<()> {
        let Some((digest, version)) = self.artifact_in(slot) else { return Ok(()) };
        match self.refusals().into_iter().find(|(failed, _)| *failed == digest) {
            Some((_, reason)) => {
                let why = format!("it {}", printable(&reason));
                let refusals = [Refusal { gate: Gate::FailedBefore, why, hint: way_out }];
                Err(refused_to(op, &format!("version {version}"), &refusals))
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

    /// Returns the time for timestamps.
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

    /// Changes the state and records it.
    /// Errors: as [`Session::carry_out`].
    pub fn change(&mut self, recording: Recording, change: &mut dyn FnMut(&mut State) -> Result<()>) -> Result<()> {
        self.carry_out(recording, &mut |plan, _| change(&mut plan.state))
    }

    /// Makes a plan of records and boot variables, and carries it out durably: the only way to record anything of an attempt.
    /// Errors: as [`Recording`] defines; State: the change is not allowed, or the data partition cannot be written. Boot,
    /// Device: as [`Session::save_boot`].
    pub fn carry_out(
        &mut self,
        recording: Recording,
        make: &mut dyn FnMut(&mut Plan, &Here<'_>) -> Result<()>,
    ) -> Result<()> {
        let machine = &self.machine;
        let here = Here {
            running: self.running,
            boot_id: machine.boot_id(),
            skipped: machine.skipped(),
            view: &|slot| machine.view(slot),
            proven: &self.proven,
            now_secs: self.now(),
        };
        let (state, failures, block) = (self.state.clone(), self.failures.clone(), self.block.clone());
        let mut plan = Plan { state, failures, block, said: Vec::new(), write: BootWrite::No };
        if let Err(e) = make(&mut plan, &here) {
            return self.recorded(recording, Err(e));
        }
        plan.said.iter().for_each(|said| note(said));
        if plan.write == BootWrite::First {
            self.write_boot(&plan.block)?;
        }
        if self.failures != plan.failures {
            self.failures = plan.failures;
            self.recorded(recording, self.data.store.save_failures(&self.failures))?;
        }
        // After the deed it is written in any case: what was read may not be what is on the disk.
        if self.state != plan.state || recording != Recording::Due {
            self.state = plan.state;
            self.recorded(recording, self.data.store.save_state(&self.state))?;
        }
        if plan.write == BootWrite::Last {
            self.write_boot(&plan.block)?;
        }
        Ok(())
    }

    /// Returns the error of a record, or only reports it.
    fn recorded(&self, recording: Recording, saved: Result<()>) -> Result<()> {
        let Err(e) = saved else { return Ok(()) };
        match recording {
            Recording::Due if !self.must_record => note(&format!("not recorded: {e}")),
            Recording::Afterwards => note(&format!("done, but not recorded: {e}")),
            Recording::Due | Recording::Required => return Err(e),
        }
        Ok(())
    }

    /// Changes the boot variables: both copies, each verified.
    /// Errors: Boot, Device: the main copy could not be written; nothing of this run counts then.
    pub fn save_boot(&mut self, change: impl FnOnce(&mut Block)) -> Result<()> {
        let mut block = self.block.clone();
        change(&mut block);
        self.write_boot(&block)
    }

    // Separate from the generic function above, which is compiled again for each change (size-budget.md).
    #[inline(never)]
    fn write_boot(&mut self, block: &Block) -> Result<()> {
        // Retried: single write failures are common on cheap flash, and GRUB may act on what they left.
        let saved = self.env.files.save(block).or_else(|e| {
            note(&format!("{e}; trying once more"));
            self.env.files.save(block)
        })?;
        if let Some(error) = saved.backup {
            note(&format!("the second copy of the boot variables is not written: {error}"));
        }
        self.vars = BootVars::read_whole(block)?;
        self.block.clone_from(block);
        Ok(())
    }

    /// Returns whether a slot's content was called off before it ever booted.
    pub fn holds_called_off(&self, slot: Slot) -> bool {
        let holds = |digest| self.artifact_in(slot).is_some_and(|(held, _)| held == digest);
        self.state.called_off.is_some_and(holds)
    }

    /// Records the health of the running confirmed slot: what failed before on this machine may not be to blame.
    /// Errors: as [`Session::carry_out`].
    pub fn control_failures(&mut self, healthy: bool) -> Result<()> {
        let running = self.artifact_in(self.running).map(|(digest, _)| digest);
        self.carry_out(Recording::Due, &mut |plan, _| {
            plan.failures.control(healthy, running);
            Ok(())
        })
    }

    /// Combines the records with this boot.
    fn boot<'b>(&self, boot_id: Option<&'b str>) -> Boot<'b> {
        Boot { running: self.running, vars: self.vars, boot_id, skipped: self.machine.skipped() }
    }

    /// Returns whether the trial of the running slot cannot end by itself, see [`reconcile::no_way_back`].
    pub fn no_way_back(&self) -> bool {
        reconcile::no_way_back(&self.state, &self.boot(self.machine.boot_id().as_deref()))
    }

    /// Returns whether a restart may bring the confirmed slot back, see [`reconcile::worth_a_restart`].
    pub fn worth_a_restart(&self) -> bool {
        reconcile::worth_a_restart(&self.state, &self.boot(self.machine.boot_id().as_deref()))
    }

    /// Returns whether the running slot is on trial.
    pub fn runs_on_trial(&self) -> bool {
        self.vars.boot_success == Some(false) && self.vars.active_slot == Some(self.running)
    }

    /// Returns whether that trial belongs to the attempt in the state, not to a manual rollback.
    pub fn trial_is_of_this_attempt(&self) -> bool {
        let digest = self.artifact_in(self.running).map(|(digest, _)| digest);
        let same = self.state.target_slot == Some(self.running) && self.state.manifest_digest == digest;
        same && self.state.phase != Phase::RolledBack
    }
}

/// Opens the data partition and takes the lock. Input: `must_record`: false: memory that lasts until the restart is enough.
fn locked_data(machine: &Machine<'_>, config: &Config, must_record: bool) -> Result<(Data, Lock)> {
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
    Ok((data, lock))
}
