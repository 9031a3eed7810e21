//! Content of `status` and `metrics`: the survey of the machine, its problems, and the operator's next step.
//!
//! Always available: what cannot be read is reported among the remarks.
//! Must never: take the lock, change anything, or fail because something is damaged.

use crate::base::clock::Now;
use crate::base::error::{Course, Error, Kind, Result};
use crate::boot::env_copy::EnvCopy;
use crate::boot::vars::BootVars;
use crate::config::Config;
use crate::ledger::state::Phase;
use crate::ledger::store::Memory;
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
use crate::update::next_step::{self, Facts, Other, Standing};
use crate::update::reconcile::{self, Finding};
use crate::update::survey::{BootRead, Survey};
use std::time::{Duration, Instant};

/// What was found.
pub struct Report {
    /// How the machine booted, the content of its slots, and its records.
    pub survey: Survey,
    /// Whether another run prevents reading the boot variables, which are then unknown.
    pub is_boot_busy: bool,
    /// Which copy of them counts.
    pub env_source: Option<EnvCopy>,
    /// The run that is working, or was cut off.
    pub work: Option<Work>,
    /// Why nothing could be read: the caller is not root.
    pub denied: Option<Error>,
    /// The source's last offer.
    pub offered: Option<Artifact>,
    /// What prevents this machine from taking or activating anything: `update.conf`, the keys, revocations.
    pub stopped: Option<Error>,
    /// Problems and unrecorded events: sentences.
    pub remarks: Vec<String>,
    /// The operator's next step: one sentence.
    pub next: String,
}

/// Longest wait for another run that writes the boot variables: `healthcheck` in a new version's first boot does so briefly,
/// just when an operator looks. A download takes minutes, and is not waited for.
const BOOT_BUSY_LIMIT: Duration = Duration::from_secs(2);

/// Most times everything is read while other runs write between the state and the boot variables.
const MOST_READS: u32 = 3;

impl Report {
    /// Reads everything, privately mounting what is not mounted. Takes no lock, changes nothing.
    pub fn gather(system: &System, config: &Config) -> Report {
        let (mut reads, until) = (1, Instant::now() + BOOT_BUSY_LIMIT);
        loop {
            let machine = Machine::look(system);
            let report = Report::read(system, &machine, config);
            if report.is_boot_busy && Instant::now() < until {
                // Each attempt to mount them waits a while by itself.
                continue;
            }
            let data = machine.data(config.state_file.as_deref(), Access::Read);
            // A record made meanwhile would be only half visible.
            let is_one_moment = data.map_or(true, |data| data.store.state().value == report.survey.state);
            if is_one_moment || reads == MOST_READS {
                return report;
            }
            reads += 1;
        }
    }

    fn read(system: &System, machine: &Machine<'_>, config: &Config) -> Report {
        let data = machine.data(config.state_file.as_deref(), Access::Read);
        let site = data.as_ref().ok().map(|data| data.store.site());
        let ring = Keyring::of_machine(&system.keys_dir(), config.demand(), site.as_deref());
        let stopped = stopped(config, &ring);
        let mut remarks: Vec<String> = stopped.iter().map(ToString::to_string).collect();
        remarks.extend(machine.running().err().map(|e| e.to_string()));
        let (memory, offered, work) = match data.as_ref().map(|data| &data.store) {
            Ok(store) => (store.glance(), store.seen().map(|seen| seen.artifact), store.work()),
            Err(e) => (Memory { said: vec![e.to_string()], ..Memory::default() }, None, None),
        };
        remarks.extend_from_slice(&memory.said);
        let mut boot = BootRead::of(machine);
        remarks.append(&mut boot.remarks);
        let (is_boot_busy, env_source) = (boot.is_busy(), boot.copy);
        let in_use = boot.way_out;
        let survey = Survey::of(machine, memory, boot.vars.ok(), system.now());
        remarks.extend(not_recorded_yet(&survey.finding));
        // The line of a run that ended, or that changed nothing, is out of date.
        let work = work.filter(|work| work.is_alive || survey.state.phase.is_unfinished());
        let next = String::new();
        let mut report =
            Report { survey, is_boot_busy, env_source, work, denied: None, offered, stopped, remarks, next };
        report.conclude(system, config, &ring, in_use);
        report
    }

    /// Draws conclusions from what was read. Input: `in_use`: what to do first if the boot variables could not be read.
    fn conclude(&mut self, system: &System, config: &Config, ring: &Result<Keyring>, in_use: Option<&'static str>) {
        let survey = &self.survey;
        let Survey { running, vars, state, slots, .. } = survey;
        let refusals = survey.failures.refusals(survey.boot_id.as_deref());
        let standing = Standing { refusals: &refusals, proven: &survey.proven, ring };
        let other = running.map_or(Other::Lost, |running| {
            Other::of(survey.slot(running.other()), survey.held_in(running.other()), &standing)
        });
        // The reason for stopping everything already covers it.
        let judged = running.filter(|_| self.stopped.is_none());
        let not_accepted = judged.and_then(|running| not_accepted(survey, running, &standing));
        self.remarks.extend(not_accepted);
        let mut denied = slots.iter().filter_map(|view| view.record.as_ref().err());
        self.denied = denied.find(|e| e.course() == Course::Denied).cloned();
        let digest = state.manifest_digest;
        let next = match in_use.filter(|_| running.is_some()) {
            _ if self.denied.is_some() => "ask as root of the machine itself, not from a container".into(),
            _ if running.is_some() && next_step::is_disk_unknown([&slots[0], &slots[1]]) => next_step::NO_DISK.into(),
            _ if state.phase.is_unfinished() && self.is_at_work() => "wait until that run ends".into(),
            Some(next) => next.into(),
            None => next_step::next_step(&Facts {
                running: running.map(|slot| (slot, slots)),
                vars: vars.as_ref(),
                state,
                finding: &survey.finding,
                doubt: digest.and_then(|digest| survey.failures.doubt_of(digest, survey.boot_id.as_deref())),
                is_refused: !state.insisted && refusals.iter().any(|(refused, _)| digest == Some(*refused)),
                is_stopped: self.stopped.is_some(),
                other,
                is_skipped: running.is_some() && survey.skipped == running.map(Slot::other),
            }),
        };
        self.next = next + &when_open(config, system, running.zip(vars.as_ref()));
        let what_runs = running.and_then(|slot| survey.slot(slot).version());
        let no_order = what_runs.and_then(incomparable);
        self.remarks.extend(no_order);
        self.remarks.extend(never_open(config, system.now().with_floor(survey.proven.no_earlier_than(0))));
        self.remarks = once_each(std::mem::take(&mut self.remarks));
    }

    /// Returns whether the artifact that was left last is recorded as failed: otherwise its slot was to blame, or nothing.
    pub fn is_blamed(&self) -> bool {
        self.survey.state.manifest_digest.is_some_and(|digest| self.survey.failures.holds(digest))
    }

    /// Returns whether a run is working: according to its lock, or the slot that it writes.
    pub fn is_at_work(&self) -> bool {
        let is_busy = |view: &View| view.record.as_ref().is_err_and(|e| e.kind() == Kind::Busy);
        self.work.as_ref().is_some_and(|work| work.is_alive) || self.survey.slots.iter().any(is_busy)
    }
}

/// Describes why the other slot's content is not accepted, if that matters: it is staged, or the only valid one.
fn not_accepted(survey: &Survey, running: Slot, standing: &Standing<'_>) -> Option<String> {
    let other = survey.slot(running.other());
    let matters = survey.state.phase == Phase::Staged || next_step::is_lost(survey.slot(running));
    let record = other.record.as_ref().ok().filter(|_| matters)?;
    let error = next_step::trust(standing.proven, standing.ring, record).err()?;
    Some(error.at("accept", format!("slot {}", other.slot)).to_string())
}

/// Finds the error with which every `apply` and `activate` would end before asking any source.
fn stopped(config: &Config, ring: &Result<Keyring>) -> Option<Error> {
    // Without the file it is unknown whether signatures are required.
    config.fault.clone().or_else(|| match ring {
        Ok(ring) => ring.demands_signatures().err(),
        Err(e) => Some(e.clone()),
    })
}

/// Describes when the next update may be taken, if a maintenance window is closed and no trial is pending.
fn when_open(config: &Config, system: &System, boot: Option<(Slot, &BootVars)>) -> String {
    let Some((running, vars)) = boot else { return String::new() };
    let window = config.window.as_ref().filter(|_| reconcile::pending_trial(running, vars).is_none());
    match window.and_then(|window| gate::opens_next(window, system.now())) {
        Some(next) => format!("; the maintenance window opens at {next}"),
        None => String::new(),
    }
}

/// Reports that no version can be compared with the running one.
fn incomparable(version: &str) -> Option<String> {
    let error = Version::parse(version).err()?;
    Some(format!("{error}; only `apply --allow-downgrade` takes an update from it"))
}

/// Reports that a maintenance window does not open while the clock is not set.
fn never_open(config: &Config, now: Now) -> Option<String> {
    config
        .window
        .as_ref()
        .filter(|_| now.moment_secs().is_none())
        .and_then(|window| gate::outside(window, now))
        .map(|r| r.to_string())
}

/// Keeps the first of equal remarks: one fault is found in several places.
fn once_each(remarks: Vec<String>) -> Vec<String> {
    let mut kept = Vec::new();
    for remark in remarks {
        if !kept.contains(&remark) {
            kept.push(remark);
        }
    }
    kept
}

/// Describes what the next changing command will record. Pure.
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
