//! Everything there is to know about this machine's updates, read at once: for `status` and `metrics`.
//!
//! Always there: what can not be read is said among the remarks.
//! Must never: take the lock, change anything, or fail because something is damaged.

use crate::clock::Now;
use crate::config::Config;
use crate::error::{Error, Kind};
use crate::failed::{Control, Failures};
use crate::gate;
use crate::grubenv::BootVars;
use crate::grubenv_file::{Copy, REPAIR_HINT};
use crate::inspect::View;
use crate::machine::Machine;
use crate::reconcile::{self, Blame, Finding, Seen};
use crate::session::{env_remarks, remember};
use crate::slot::Slot;
use crate::source::Artifact;
use crate::state::{Phase, State};
use crate::sys::Access;
use crate::system::System;
use crate::trust::keyring::Keyring;
use crate::trust::proven::Proven;
use crate::version::Version;
use std::path::Path;
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
        let stopped = stopped(system, config, site.as_deref());
        let mut remarks: Vec<String> = stopped.iter().map(ToString::to_string).collect();
        let mut told = |e: Error| remarks.push(e.to_string());
        let running = machine.running().map_err(&mut told).ok();
        let slots = [machine.view(Slot::A), machine.view(Slot::B)];
        let (mut state, mut failures, mut offered) = (State::default(), Failures::default(), None);
        let mut proven = Proven::default();
        match data {
            Err(e) => told(e),
            Ok(data) => {
                let (read_state, read_failures) = (data.store.state(), data.store.failures());
                (state, failures) = (read_state.value, read_failures.value);
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
                in_use = e.is_in_use().then_some("do what the NOTE says; until then nothing can be activated");
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
        let is_lost_beside = running.is_some_and(|slot| is_lost(&slots[slot.other() as usize]));
        let next = match (state.phase, is_refused) {
            (Phase::Staged, true) if !is_lost_beside && stopped.is_none() => {
                "what is staged failed here; `apply --retry-failed` insists on it, a newer one replaces it".into()
            }
            _ => match in_use.filter(|_| running.is_some()) {
                Some(next) => next.into(),
                None => {
                    let running = running.map(|slot| (slot, &slots));
                    next_step(running, vars.as_ref(), &state, &finding, doubt, stopped.is_some())
                }
            },
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

    /// Returns what is in the running slot, where that is known.
    pub fn running_view(&self) -> Option<&View> {
        self.slots.iter().find(|view| Some(view.slot) == self.running)
    }
}

/// Says whether what a slot held is lost. What could not be looked at, since it is in use, is not.
pub fn is_lost(view: &View) -> bool {
    view.record.as_ref().is_err_and(|e| !e.is_in_use())
}

/// Names the way on from a running slot that is not valid. Pure.
fn way_on(running: Slot, slots: &[View; 2], phase: Phase) -> String {
    let (here, other) = (&slots[running as usize], running.other());
    let is_known = here.version().is_some() || here.room_bytes.is_some();
    match (slots[other as usize].record.is_ok(), is_known) {
        (true, _) if phase == Phase::Staged => format!("`activate`, then restart: slot {other} is staged, and valid"),
        (_, true) => "`verify` looks closer; `apply` writes an update into the other slot".into(),
        (true, false) => {
            format!("`rollback`, then restart: slot {other} is valid, and `apply` needs a slot that can be read")
        }
        (false, false) if [here, &slots[other as usize]].into_iter().all(is_lost) => {
            "do not restart: neither slot can be read; write the disk anew (`usb-provision.sh`)".into()
        }
        (false, false) => {
            "do not restart before a slot can be read: do what is said of it above, then `status` again".into()
        }
    }
}

/// Finds what every `apply` and `activate` would end with, before they ask anybody.
fn stopped(system: &System, config: &Config, site: Option<&Path>) -> Option<Error> {
    // Without the file it is not known whether signatures are required.
    config.fault.clone().or_else(|| {
        let ring = Keyring::of_machine(&system.keys_dir(), (config.signature, config.signature_threshold), site);
        ring.and_then(|ring| ring.demands_signatures()).err()
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
    config.window.as_ref().filter(|_| now.moment_secs().is_none()).and_then(|window| gate::outside(window, now))
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

/// Names the next step of whoever reads this. Pure. Input: `running`: the slot, and what both hold; `doubt`: where it is
/// undecided whether what rolled back is to blame; `is_stopped`: nothing is taken, and a remark says why.
fn next_step(
    running: Option<(Slot, &[View; 2])>,
    vars: Option<&BootVars>,
    state: &State,
    finding: &Finding,
    doubt: Option<Control>,
    is_stopped: bool,
) -> String {
    let Some((running, slots)) = running else { return "boot a slot; only then can this machine be updated".into() };
    let Some(vars) = vars else {
        return "`verify --repair-boot-variables` mends the boot variables; until then nothing can be activated".into();
    };
    if matches!(finding, Finding::RolledBack { blame: Blame::Undecided, .. }) {
        return "`healthcheck` of this slot decides whether that version is to blame".into();
    }
    if matches!(finding, Finding::RolledBack { .. } | Finding::Unjudged { .. } | Finding::Skipped { .. }) {
        return "look at the reason above; `apply` takes the next version".into();
    }
    if *finding == Finding::Unloadable {
        let other = running.other();
        return format!(
            "`healthcheck`: it makes slot {running} active, unless only slot.crc32 of slot {other} is wrong, which it writes anew"
        );
    }
    if vars.boot_success == Some(false) {
        return match vars.active_slot == Some(running) {
            true if state.phase == Phase::Failed => {
                "`healthcheck` looks again, a restart is the next try, `rollback` goes back".into()
            }
            true => "this boot is on trial: `healthcheck` confirms it, `rollback` goes back".into(),
            false => format!("restart to try slot {}; `rollback` calls it off", running.other()),
        };
    }
    if vars.active_slot.is_some_and(|active| active != running) {
        return format!("restart: slot {} is the active one", running.other());
    }
    match state.phase {
        _ if is_stopped => "mend what the NOTE says; until then no update is taken".into(),
        _ if slots[running as usize].record.as_ref().is_err_and(|e| e.is_in_use()) => {
            "do what is said of the running slot above, then `status` again: nothing is known of it while it is in use"
                .into()
        }
        _ if slots[running as usize].record.is_err() => way_on(running, slots, state.phase),
        Phase::Staged if is_lost(&slots[running.other() as usize]) => "`apply` writes it anew".into(),
        Phase::Staged if !vars.boot_canary => {
            "restart once, for GRUB to show that it writes; `activate`, then restart".into()
        }
        Phase::Idle | Phase::Success | Phase::RolledBack | Phase::Activated | Phase::Verifying if !vars.boot_canary => {
            "restart once, so that GRUB can show that it can write".into()
        }
        Phase::Staged => "`activate`, then restart".into(),
        Phase::RolledBack => match doubt {
            None => "`check` asks for the next version; this one is not tried again by itself",
            Some(Control::Unchecked) => "`healthcheck` of this slot decides whether that version is to blame",
            Some(Control::Unhealthy) => "mend what `healthcheck` names; then `apply` tries that version again",
            Some(Control::Recovered) => "`apply` tries that version again",
        }
        .into(),
        Phase::Checking | Phase::Downloading => {
            "an `apply` is at work, or was cut off; run it again to find out".into()
        }
        Phase::Failed => "look at the error above, then run `apply` again".into(),
        _ => "`check` asks for an update".into(),
    }
}
