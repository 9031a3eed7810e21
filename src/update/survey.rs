//! Everything there is to know about this machine's updates, read at once: for `status` and `metrics`.
//!
//! Always there: what can not be read is said among the remarks.
//! Must never: take the lock, change anything, or fail because something is damaged.

use crate::base::clock::Now;
use crate::base::error::{Course, Error, Kind, Result};
use crate::boot::block::BootVars;
use crate::boot::env_files::{Copy, REPAIR_HINT};
use crate::config::Config;
use crate::ledger::failures::Failures;
use crate::ledger::proven::Proven;
use crate::ledger::state::{Phase, State};
use crate::machine::Machine;
use crate::machine::view::View;
use crate::offer::artifact::Artifact;
use crate::offer::gate;
use crate::offer::version::Version;
use crate::os::onlooker::Work;
use crate::os::sys::Access;
use crate::os::system::System;
use crate::slot::record::Slot;
use crate::trust::keyring::Keyring;
use crate::update::next_step::{self, Facts, Memory, Other};
use crate::update::reconcile::{self, Finding, Seen};
use crate::update::session::{env_remarks, remember};
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
    pub env_source: Option<Copy>,
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
        let ring =
            Keyring::of_machine(&system.keys_dir(), (config.signature, config.signature_threshold), site.as_deref());
        let stopped = stopped(config, &ring);
        let mut remarks: Vec<String> = stopped.iter().map(ToString::to_string).collect();
        let mut told = |e: Error| remarks.push(e.to_string());
        let running = machine.running().map_err(&mut told).ok();
        let slots = [machine.view(Slot::A), machine.view(Slot::B)];
        let (mut state, mut failures, mut offered) = (State::default(), Failures::default(), None);
        let (mut proven, mut work) = (Proven::default(), None);
        match data {
            Err(e) => told(e),
            Ok(data) => {
                let (read_state, read_failures) = (data.store.state(), data.store.failures());
                (state, failures) = (read_state.value, read_failures.value);
                // What a run has left that came to its end, or one that changed nothing, says nothing any more.
                work = data.store.work().filter(|work| work.is_alive || state.phase.is_unfinished());
                let read_proven = data.store.proven();
                proven = read_proven.value;
                offered = data.store.seen().map(|seen| seen.artifact);
                [read_state.damage, read_failures.damage, read_proven.damage].into_iter().flatten().for_each(&mut told);
            }
        }
        let (mut vars, mut env_source, mut is_boot_busy, mut in_use) = (None, None, false, None);
        match machine.boot_env(Access::Read) {
            // That says nothing of them.
            Err(e) if e.kind() == Kind::Busy => {
                (is_boot_busy, in_use) = (true, Some("`status` again, when that run has ended"));
            }
            Err(e) => {
                // No command gets at them either.
                in_use = Some("do what the NOTE says; until then nothing can be activated");
                told(e);
            }
            Ok(env) => {
                let loaded = env.files.load();
                env_source = loaded.block.as_ref().map(|_| loaded.which);
                vars = loaded.usable().map(|(_, vars)| vars).ok();
                if vars.is_none() && loaded.way_out() != REPAIR_HINT {
                    in_use = Some(
                        "do what the NOTE says: what cannot be read is not written over; if it stays so, move that file away, then `verify --repair-boot-variables`",
                    );
                }
                remarks.extend(env_remarks(&loaded));
            }
        }
        let boot_id = machine.boot_id();
        let finding = match (running, vars) {
            (Some(running), Some(vars)) => {
                let skipped = machine.skipped();
                reconcile::find(&state, &Seen { running, vars, boot_id: boot_id.as_deref(), skipped })
            }
            _ => Finding::Nothing,
        };
        remember(&mut failures, &finding, &state, &machine);
        remarks.extend(not_recorded_yet(&finding));
        let doubt = state.manifest_digest.and_then(|digest| failures.doubt_of(digest, boot_id.as_deref()));
        let refusals = failures.refusals(boot_id.as_deref());
        let is_refused = !state.insisted && refusals.iter().any(|(digest, _)| state.manifest_digest == Some(*digest));
        let memory = Memory { refusals: &refusals, proven: &proven, ring: &ring };
        let other =
            running.map_or(Other::Lost, |running| other_slot(&slots[running.other() as usize], &state, &memory));
        // What stops everything says it already.
        let judged = running.filter(|_| stopped.is_none());
        remarks.extend(judged.and_then(|running| not_accepted(&slots, running, &state, &memory)));
        let mut denied = slots.iter().filter_map(|view| view.record.as_ref().err());
        let denied = denied.find(|e| e.course() == Course::Denied).cloned();
        let next = match in_use.filter(|_| running.is_some()) {
            _ if denied.is_some() => "ask as root of the machine itself, not from a container".into(),
            _ if state.phase.is_unfinished() && is_at_work(work.as_ref(), &slots) => "wait until that run ends".into(),
            Some(next) => next.into(),
            None => next_step::next_step(&Facts {
                running: running.map(|slot| (slot, &slots)),
                vars: vars.as_ref(),
                state: &state,
                finding: &finding,
                doubt,
                is_refused,
                is_stopped: stopped.is_some(),
                other,
                is_skipped: running.is_some() && machine.skipped() == running.map(Slot::other),
            }),
        };
        let next = next + &when_open(config, system, running.zip(vars.as_ref()));
        let what_runs = running.and_then(|slot| slots[slot as usize].version());
        remarks.extend(what_runs.and_then(incomparable));
        remarks.extend(never_open(config, system.now().with_floor(proven.no_earlier_than(0))));
        let remarks = once_each(remarks);
        Report {
            running,
            slots,
            vars,
            is_boot_busy,
            env_source,
            work,
            denied,
            state,
            failures,
            offered,
            proven,
            boot_id,
            stopped,
            remarks,
            finding,
            next,
        }
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
