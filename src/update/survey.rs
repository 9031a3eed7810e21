//! Everything there is to know about this machine's updates, read at once: for `status` and `metrics`.
//!
//! Always there: what can not be read is said among the remarks.
//! Must never: take the lock, change anything, or fail because something is damaged.

use crate::base::clock::Now;
use crate::base::error::{Course, Error, Kind, Result};
use crate::boot::block::BootVars;
use crate::boot::env_copy::{EnvCopy, REPAIR_HINT};
use crate::boot::env_files::env_remarks;
use crate::config::Config;
use crate::ledger::failures::Failures;
use crate::ledger::proven::Proven;
use crate::ledger::state::{Phase, State};
use crate::machine::view::View;
use crate::machine::{Data, Machine};
use crate::offer::artifact::Artifact;
use crate::offer::gate;
use crate::offer::version::Version;
use crate::os::onlooker::Work;
use crate::os::sys::Access;
use crate::os::system::System;
use crate::slot::record::Slot;
use crate::trust::keyring::Keyring;
use crate::update::next_step::{self, Facts, Memory, Other};
use crate::update::reconcile::{self, Boot, Finding};
use crate::update::session::remember;
use std::time::{Duration, Instant};

/// What was found.
pub struct Report {
    /// The running slot, where the kernel command line names it.
    pub running: Option<Slot>,
    /// Both slots, A first.
    pub slots: [View; 2],
    /// GRUB's variables, where they can be read.
    pub vars: Option<BootVars>,
    /// Whether another run keeps them from being read: nothing is known of them then.
    pub is_boot_busy: bool,
    /// Which copy of them counts.
    pub env_source: Option<EnvCopy>,
    /// The run that is at work, or was cut off.
    pub work: Option<Work>,
    /// Why nothing could be looked at: whoever asks is not root.
    pub denied: Option<Error>,
    /// The update attempt.
    pub state: State,
    /// Artifacts that rolled back here, recorded or not.
    pub failures: Failures,
    /// What the source offered when it was asked last.
    pub offered: Option<Artifact>,
    /// What was confirmed here.
    pub proven: Proven,
    /// This boot's id.
    pub boot_id: Option<String>,
    /// What keeps this machine from taking, and from activating, anything: `update.conf`, the keys, what is revoked.
    pub stopped: Option<Error>,
    /// What is wrong, or not recorded yet: sentences.
    pub remarks: Vec<String>,
    /// What happened and is not recorded yet.
    pub finding: Finding,
    /// What a person should do next: one sentence.
    pub next: String,
}

/// How long another run is waited for that writes the boot variables: `healthcheck` of a new version's first boot does for a
/// moment, just when a person looks. A download takes minutes, and is not waited for.
const BOOT_BUSY_LIMIT: Duration = Duration::from_secs(2);

/// How often everything is read while other runs write between the state and the boot variables.
const MOST_READS: u32 = 3;

impl Report {
    /// Reads everything, mounting privately what is not mounted. Takes no lock, changes nothing.
    pub fn gather(system: &System, config: &Config) -> Report {
        let (mut reads, until) = (1, Instant::now() + BOOT_BUSY_LIMIT);
        loop {
            let report = Report::read(system, config);
            if report.is_boot_busy && Instant::now() < until {
                // Each try to mount them waits a while by itself.
                continue;
            }
            let data = Machine::look(system).data(config.state_file.as_deref(), Access::Read);
            // What is recorded meanwhile would be seen half before, half after.
            let is_one_moment = data.map_or(true, |data| data.store.state().value == report.state);
            if is_one_moment || reads == MOST_READS {
                return report;
            }
            reads += 1;
        }
    }

    fn read(system: &System, config: &Config) -> Report {
        let machine = Machine::look(system);
        let data = machine.data(config.state_file.as_deref(), Access::Read);
        let site = data.as_ref().ok().map(|data| data.store.site());
        let signature = (config.signature, config.signature_threshold);
        let ring = Keyring::of_machine(&system.keys_dir(), signature, site.as_deref());
        let stopped = stopped(config, &ring);
        let mut remarks: Vec<String> = stopped.iter().map(ToString::to_string).collect();
        let running = machine.running().map_err(|e| remarks.push(e.to_string())).ok();
        let slots = [machine.view(Slot::A), machine.view(Slot::B)];
        let Remembered { state, mut failures, offered, proven, work } = Remembered::read(data, &mut remarks);
        let boot = BootRead::of(&machine, &mut remarks);
        let boot_id = machine.boot_id();
        let finding = match running.zip(boot.vars) {
            Some((running, vars)) => {
                let skipped = machine.skipped();
                reconcile::find(&state, &Boot { running, vars, boot_id: boot_id.as_deref(), skipped })
            }
            None => Finding::Nothing,
        };
        remember(&mut failures, &finding, &state, &machine);
        remarks.extend(not_recorded_yet(&finding));
        let mut report = Report {
            running,
            slots,
            vars: boot.vars,
            is_boot_busy: boot.is_busy,
            env_source: boot.source,
            work,
            denied: None,
            state,
            failures,
            offered,
            proven,
            boot_id,
            stopped,
            remarks,
            finding,
            next: String::new(),
        };
        report.conclude(system, config, &ring, (boot.in_use, machine.skipped()));
        report
    }

    /// Says what follows from what was read. Input: what to do first where the boot variables could not be read; which slot
    /// GRUB passed over.
    fn conclude(
        &mut self,
        system: &System,
        config: &Config,
        ring: &Result<Keyring>,
        (in_use, skipped): (Option<&'static str>, Option<Slot>),
    ) {
        let refusals = self.failures.refusals(self.boot_id.as_deref());
        let memory = Memory { refusals: &refusals, proven: &self.proven, ring };
        let running = self.running;
        let other = running
            .map_or(Other::Lost, |running| other_slot(&self.slots[running.other() as usize], &self.state, &memory));
        // What stops everything says it already.
        let judged = running.filter(|_| self.stopped.is_none());
        let not_accepted = judged.and_then(|running| not_accepted(&self.slots, running, &self.state, &memory));
        self.remarks.extend(not_accepted);
        let mut denied = self.slots.iter().filter_map(|view| view.record.as_ref().err());
        self.denied = denied.find(|e| e.course() == Course::Denied).cloned();
        let digest = self.state.manifest_digest;
        let next = match in_use.filter(|_| running.is_some()) {
            _ if self.denied.is_some() => "ask as root of the machine itself, not from a container".into(),
            _ if self.state.phase.is_unfinished() && self.is_at_work() => "wait until that run ends".into(),
            Some(next) => next.into(),
            None => next_step::next_step(&Facts {
                running: running.map(|slot| (slot, &self.slots)),
                vars: self.vars.as_ref(),
                state: &self.state,
                finding: &self.finding,
                doubt: digest.and_then(|digest| self.failures.doubt_of(digest, self.boot_id.as_deref())),
                is_refused: !self.state.insisted && refusals.iter().any(|(refused, _)| digest == Some(*refused)),
                is_stopped: self.stopped.is_some(),
                other,
                is_skipped: running.is_some() && skipped == running.map(Slot::other),
            }),
        };
        self.next = next + &when_open(config, system, running.zip(self.vars.as_ref()));
        let what_runs = running.and_then(|slot| self.slots[slot as usize].version());
        let no_order = what_runs.and_then(incomparable);
        self.remarks.extend(no_order);
        self.remarks.extend(never_open(config, system.now().with_floor(self.proven.no_earlier_than(0))));
        self.remarks = once_each(std::mem::take(&mut self.remarks));
    }

    /// Says whether what was left last is remembered as failed: else its slot was to blame, or nobody.
    pub fn is_blamed(&self) -> bool {
        self.state.manifest_digest.is_some_and(|digest| self.failures.holds(digest))
    }

    /// Says whether a run is at work: its lock says so, or the slot that it writes.
    pub fn is_at_work(&self) -> bool {
        is_at_work(self.work.as_ref(), &self.slots)
    }

    /// Returns what is in the running slot, where that is known.
    pub fn running_view(&self) -> Option<&View> {
        self.slots.iter().find(|view| Some(view.slot) == self.running)
    }
}

/// What is written down.
#[derive(Default)]
struct Remembered {
    state: State,
    failures: Failures,
    offered: Option<Artifact>,
    proven: Proven,
    work: Option<Work>,
}

impl Remembered {
    fn read(data: Result<Data>, remarks: &mut Vec<String>) -> Remembered {
        let store = match &data {
            Ok(data) => &data.store,
            Err(e) => {
                remarks.push(e.to_string());
                return Remembered::default();
            }
        };
        let (state, failures, proven) = (store.state(), store.failures(), store.proven());
        let damage = [state.damage, failures.damage, proven.damage];
        remarks.extend(damage.iter().flatten().map(ToString::to_string));
        // What a run has left that came to its end, or one that changed nothing, says nothing any more.
        let work = store.work().filter(|work| work.is_alive || state.value.phase.is_unfinished());
        let offered = store.seen().map(|seen| seen.artifact);
        Remembered { state: state.value, failures: failures.value, offered, proven: proven.value, work }
    }
}

/// What GRUB's side says.
#[derive(Default)]
struct BootRead {
    vars: Option<BootVars>,
    source: Option<EnvCopy>,
    is_busy: bool,
    /// What is to be done first.
    in_use: Option<&'static str>,
}

impl BootRead {
    fn of(machine: &Machine<'_>, remarks: &mut Vec<String>) -> BootRead {
        let env = match machine.boot_env(Access::Read) {
            // That says nothing of them.
            Err(e) if e.kind() == Kind::Busy => {
                let in_use = Some("`status` again, when that run has ended");
                return BootRead { is_busy: true, in_use, ..BootRead::default() };
            }
            Err(e) => {
                // No command gets at them either.
                remarks.push(e.to_string());
                let in_use = Some("do what the NOTE says; until then nothing can be activated");
                return BootRead { in_use, ..BootRead::default() };
            }
            Ok(env) => env,
        };
        let loaded = env.files.load();
        let vars = loaded.usable().map(|(_, vars)| vars).ok();
        let is_stuck = vars.is_none() && loaded.way_out() != REPAIR_HINT;
        let in_use = is_stuck.then_some(
            "do what the NOTE says: what cannot be read is not written over; if it stays so, move that file away, then `verify --repair-boot-variables`",
        );
        remarks.extend(env_remarks(&loaded));
        BootRead { vars, source: loaded.block.as_ref().map(|_| loaded.which), is_busy: false, in_use }
    }
}

fn is_at_work(work: Option<&Work>, slots: &[View; 2]) -> bool {
    work.is_some_and(|work| work.is_alive)
        || slots.iter().any(|view| view.record.as_ref().is_err_and(|e| e.kind() == Kind::Busy))
}

/// Judges the slot that does not run.
fn other_slot(view: &View, state: &State, memory: &Memory<'_>) -> Other {
    let digest = view.record.as_ref().ok().and_then(|record| record.manifest_digest);
    let is_meant = state.phase == Phase::Staged && state.target_slot == Some(view.slot);
    Other::of(view, (is_meant && state.manifest_digest == digest, state.insisted), memory)
}

/// Says why the other slot's content is not accepted, where that stands in the way: it is staged, or the only valid one.
fn not_accepted(slots: &[View; 2], running: Slot, state: &State, memory: &Memory<'_>) -> Option<String> {
    let other = &slots[running.other() as usize];
    let matters = state.phase == Phase::Staged || next_step::is_lost(&slots[running as usize]);
    let record = other.record.as_ref().ok().filter(|_| matters)?;
    let error = next_step::trust(memory.proven, memory.ring, record).err()?;
    Some(error.at("accept", format!("slot {}", other.slot)).to_string())
}

/// Finds what every `apply` and `activate` would end with, before they ask anybody.
fn stopped(config: &Config, ring: &Result<Keyring>) -> Option<Error> {
    // Without the file it is not known whether signatures are required.
    config.fault.clone().or_else(|| match ring {
        Ok(ring) => ring.demands_signatures().err(),
        Err(e) => Some(e.clone()),
    })
}

/// Says when the next update may be taken, where a maintenance window is shut and no trial is pending.
fn when_open(config: &Config, system: &System, boot: Option<(Slot, &BootVars)>) -> String {
    let Some((running, vars)) = boot else { return String::new() };
    let window = config.window.as_ref().filter(|_| reconcile::pending_trial(running, vars).is_none());
    match window.and_then(|window| gate::opens_next(window, system.now())) {
        Some(next) => format!("; the maintenance window opens at {next}"),
        None => String::new(),
    }
}

/// Says that no version can be told to be newer than the one that runs.
fn incomparable(version: &str) -> Option<String> {
    let error = Version::parse(version).err()?;
    Some(format!("{error}; only `apply --allow-downgrade` takes an update"))
}

/// Says that a maintenance window does not open by a clock that is not set.
fn never_open(config: &Config, now: Now) -> Option<String> {
    config
        .window
        .as_ref()
        .filter(|_| now.moment_secs().is_none())
        .and_then(|window| gate::outside(window, now))
        .map(|r| r.to_string())
}

/// Keeps the first of those that say the same: one fault is met in several places.
fn once_each(remarks: Vec<String>) -> Vec<String> {
    let mut kept = Vec::new();
    for remark in remarks {
        if !kept.contains(&remark) {
            kept.push(remark);
        }
    }
    kept
}

/// Says what the next changing command is going to record. Pure.
fn not_recorded_yet(finding: &Finding) -> Option<String> {
    match finding {
        Finding::Nothing | Finding::StaleMark => None,
        Finding::WasActivated => Some("the staged slot is activated; the state file is one step behind".into()),
        Finding::WasConfirmed => Some("the trial is confirmed; the state file is one step behind".into()),
        Finding::RolledBack { reason, .. } => Some(format!("rolled back, not recorded yet: {reason}")),
        Finding::Unjudged { reason, .. } => Some(format!("not recorded yet: {reason}")),
        Finding::Skipped { slot } => Some(format!("not recorded yet: {}", reconcile::not_loaded(*slot, slot.other()))),
        Finding::CalledOff => {
            Some("the trial was called off before its first boot; the state file is one step behind".into())
        }
        Finding::Unloadable => Some(
            "GRUB could not load the active slot (or it is not what its slot.crc32 says), and booted the other one"
                .into(),
        ),
        Finding::NotTheActiveSlot => Some("GRUB did not boot the active slot, but the other one".into()),
    }
}
