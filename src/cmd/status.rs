//! `status`: slots, boot variables and the state of the update, for a person or as JSON.
//!
//! Always answers: what can not be read is said in its place.
//! Must never: take the lock, change anything, or fail because something is damaged.

use crate::cli;
use crate::cmd::{Outcome, say, say_json};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::grubenv::BootVars;
use crate::grubenv_file::Copy;
use crate::inspect::View;
use crate::machine::{ARCHITECTURE, Machine};
use crate::reconcile::{self, Finding, Seen};
use crate::session::env_remarks;
use crate::slot::Slot;
use crate::state::{Phase, State};
use crate::sys::Access;
use crate::system::System;
use crate::text::printable;
use miniserde::Serialize;
use std::io::Write;

/// Everything that `status` shows.
struct Report {
    running: Option<Slot>,
    slots: [View; 2],
    vars: Option<BootVars>,
    env_source: Option<Copy>,
    state: State,
    remarks: Vec<String>,
    next: String,
}

/// Runs the command.
/// Errors: Internal: stdout is gone.
pub fn run(system: &System, config: &Config, args: &cli::Status, out: &mut dyn Write) -> Result<Outcome> {
    let report = gather(system, config);
    if args.json {
        say_json(out, &answer(&report))?;
    } else {
        describe(out, &report)?;
    }
    Ok(Outcome::Done)
}

fn gather(system: &System, config: &Config) -> Report {
    let machine = Machine::look(system);
    let mut remarks: Vec<String> = config.fault.iter().map(ToString::to_string).collect();
    let mut told = |e: Error| remarks.push(e.to_string());
    let running = machine.running().map_err(&mut told).ok();
    let slots = [machine.view(Slot::A), machine.view(Slot::B)];
    let mut state = State::default();
    match machine.data(config.state_file.as_deref(), Access::Read) {
        Err(e) => told(e),
        Ok(data) => {
            let loaded = data.store.state();
            state = loaded.value;
            loaded.damage.into_iter().chain(data.store.failures().damage).for_each(&mut told);
        }
    }
    let (mut vars, mut env_source) = (None, None);
    match machine.boot_env(Access::Read) {
        Err(e) => told(e),
        Ok(env) => {
            let loaded = env.files.load();
            env_source = loaded.block.as_ref().map(|_| loaded.which);
            vars = loaded.usable().map(|(_, vars)| vars).ok();
            remarks.extend(env_remarks(&loaded));
        }
    }
    let finding = match (running, vars) {
        (Some(running), Some(vars)) => {
            let (boot_id, skipped) = (machine.boot_id(), machine.skipped());
            reconcile::find(&state, &Seen { running, vars, boot_id: boot_id.as_deref(), skipped })
        }
        _ => Finding::Nothing,
    };
    remarks.extend(not_recorded_yet(&finding));
    let next = next_step(running, vars.as_ref(), &state, &finding);
    let mut said: Vec<String> = Vec::new();
    remarks.retain(|r| {
        !said.contains(r) && {
            said.push(r.clone());
            true
        }
    });
    Report { running, slots, vars, env_source, state, remarks, next }
}

/// Says what the next changing command is going to record. Pure.
fn not_recorded_yet(finding: &Finding) -> Option<String> {
    match finding {
        Finding::Nothing | Finding::StaleMark => None,
        Finding::WasActivated => Some("the staged slot is activated; the state file is one step behind".into()),
        Finding::WasConfirmed => Some("the trial is confirmed; the state file is one step behind".into()),
        Finding::RolledBack { reason, .. } => Some(format!("rolled back, not recorded yet: {reason}")),
        Finding::Unloadable => Some("GRUB could not load the active slot, and booted the other one".into()),
        Finding::NotTheActiveSlot => Some("GRUB did not boot the active slot, but the other one".into()),
    }
}

/// Names the next step of whoever reads this. Pure.
fn next_step(running: Option<Slot>, vars: Option<&BootVars>, state: &State, finding: &Finding) -> String {
    let Some(running) = running else { return "boot a slot; only then can this machine be updated".into() };
    let Some(vars) = vars else { return "mend the boot variables; until then nothing can be activated".into() };
    if matches!(finding, Finding::RolledBack { .. }) {
        return "look at the reason above; `apply` takes the next version".into();
    }
    if *finding == Finding::Unloadable {
        return format!("`healthcheck`: it makes slot {running} active, since slot {} does not load", running.other());
    }
    if vars.boot_success == Some(false) {
        return match vars.active_slot == Some(running) {
            true => "this boot is on trial: `healthcheck` confirms it, `rollback` goes back".into(),
            false => format!("restart to try slot {}; `rollback` calls it off", running.other()),
        };
    }
    if vars.active_slot.is_some_and(|active| active != running) {
        return format!("restart: slot {} is the active one", running.other());
    }
    match state.phase {
        Phase::Staged => "`activate`, then restart".into(),
        Phase::Checking | Phase::Downloading => {
            "an `apply` is at work, or was cut off; run it again to find out".into()
        }
        Phase::Failed => "look at the error above, then run `apply` again".into(),
        _ => "`check` asks for an update".into(),
    }
}

fn describe(out: &mut dyn Write, report: &Report) -> Result<()> {
    let running = report.running.and_then(|slot| report.slots.iter().find(|v| v.slot == slot));
    let version = running.and_then(View::version).map_or("(unknown version)".into(), printable);
    let place = report.running.map_or("not booted from a slot".into(), |slot| format!("slot {slot}"));
    say(out, &format!("KubeSolo OS {version}, {ARCHITECTURE}, {place}"))?;
    say(out, "")?;
    for view in &report.slots {
        say(out, &slot_line(view, report))?;
    }
    say(out, &format!("Boot    {}", boot_line(report)))?;
    say(out, &format!("Update  {}", state_line(&report.state)))?;
    if let Some(error) = &report.state.last_error {
        say(out, &format!("        {}", printable(error)))?;
    }
    for remark in &report.remarks {
        say(out, &format!("Note    {}", printable(remark)))?;
    }
    say(out, &format!("Next    {}", report.next))
}

fn slot_line(view: &View, report: &Report) -> String {
    let mut marks = Vec::new();
    if report.running == Some(view.slot) {
        marks.push("running");
    }
    if let Some(vars) = &report.vars
        && vars.active_slot == Some(view.slot)
    {
        marks.push("active");
        if vars.boot_success == Some(false) {
            marks.push("on trial");
        }
    }
    let version = view.version().map_or("-".into(), printable);
    let validity = match &view.record {
        Ok(_) => "valid".to_string(),
        Err(e) => format!("INVALID: {e}"),
    };
    format!("Slot {}  {version:<12} {:<25} {validity}", view.slot, marks.join(", "))
}

fn boot_line(report: &Report) -> String {
    let Some(vars) = &report.vars else { return "variables unreadable".into() };
    let active = vars.active_slot.map_or('?', Slot::letter);
    let left = vars.boot_counter.unwrap_or(0);
    let trial = match vars.boot_success {
        Some(false) => format!("on trial, {left} boots left"),
        _ => "confirmed".to_string(),
    };
    let proven = if vars.boot_canary { "" } else { "; GRUB has not shown yet that it can write (boot_canary 0)" };
    format!("slot {active} {trial}{proven}")
}

fn state_line(state: &State) -> String {
    let mut line = state.phase.name().replace('_', " ");
    if let Some(to) = &state.to_version {
        let from = state.from_version.as_deref().unwrap_or("?");
        line.push_str(&format!(": {} to {}, attempt {}", printable(from), printable(to), state.attempt_count));
    }
    if let Some(at) = &state.updated_at {
        line.push_str(&format!(", {}", printable(at)));
    }
    line
}

#[derive(Serialize)]
struct Answer<'a> {
    architecture: &'static str,
    agent_version: &'static str,
    running_slot: Option<String>,
    running_version: Option<String>,
    slots: Vec<SlotAnswer>,
    boot: BootAnswer,
    update: UpdateAnswer<'a>,
    remarks: Vec<String>,
    next: &'a str,
}

#[derive(Serialize)]
struct SlotAnswer {
    slot: String,
    valid: bool,
    running: bool,
    active: bool,
    version: Option<String>,
    architecture: Option<String>,
    channel: Option<String>,
    source: Option<String>,
    manifest_digest: Option<String>,
    room_bytes: Option<u64>,
    error: Option<String>,
}

#[derive(Serialize)]
struct BootAnswer {
    readable: bool,
    copy: Option<&'static str>,
    active_slot: Option<String>,
    boot_success: Option<bool>,
    boot_counter: Option<u8>,
    rollback_from: Option<String>,
    boot_canary: Option<bool>,
}

#[derive(Serialize)]
struct UpdateAnswer<'a> {
    phase: &'static str,
    from_version: Option<&'a String>,
    to_version: Option<&'a String>,
    target_slot: Option<String>,
    attempt_count: u64,
    attempts_total: u64,
    rollbacks_total: u64,
    last_error: Option<&'a String>,
    last_error_kind: Option<&'a String>,
    started_at: Option<&'a String>,
    updated_at: Option<&'a String>,
    source: Option<&'a String>,
    manifest_digest: Option<String>,
}

fn answer(report: &Report) -> Answer<'_> {
    let running = report.running.and_then(|slot| report.slots.iter().find(|v| v.slot == slot));
    let (state, vars) = (&report.state, report.vars.as_ref());
    Answer {
        architecture: ARCHITECTURE,
        agent_version: env!("CARGO_PKG_VERSION"),
        running_slot: report.running.map(|s| s.to_string()),
        running_version: running.and_then(View::version).map(printable),
        slots: report.slots.iter().map(|view| slot_answer(view, report)).collect(),
        boot: BootAnswer {
            readable: vars.is_some(),
            copy: report.env_source.map(Copy::file_name),
            active_slot: vars.and_then(|v| v.active_slot).map(|s| s.to_string()),
            boot_success: vars.and_then(|v| v.boot_success),
            boot_counter: vars.and_then(|v| v.boot_counter),
            rollback_from: vars.and_then(|v| v.rollback_from).map(|s| s.to_string()),
            boot_canary: vars.map(|v| v.boot_canary),
        },
        update: UpdateAnswer {
            phase: state.phase.name(),
            from_version: state.from_version.as_ref(),
            to_version: state.to_version.as_ref(),
            target_slot: state.target_slot.map(|s| s.to_string()),
            attempt_count: state.attempt_count,
            attempts_total: state.attempts_total,
            rollbacks_total: state.rollbacks_total,
            last_error: state.last_error.as_ref(),
            last_error_kind: state.last_error_kind.as_ref(),
            started_at: state.started_at.as_ref(),
            updated_at: state.updated_at.as_ref(),
            source: state.source.as_ref(),
            manifest_digest: state.manifest_digest.map(|d| d.to_string()),
        },
        remarks: report.remarks.clone(),
        next: &report.next,
    }
}

fn slot_answer(view: &View, report: &Report) -> SlotAnswer {
    let record = view.record.as_ref().ok();
    SlotAnswer {
        slot: view.slot.to_string(),
        valid: record.is_some(),
        running: report.running == Some(view.slot),
        active: report.vars.is_some_and(|v| v.active_slot == Some(view.slot)),
        version: view.version().map(printable),
        architecture: record.map(|r| printable(&r.architecture)),
        channel: record.map(|r| printable(&r.channel)),
        source: record.map(|r| printable(&r.source)),
        manifest_digest: record.and_then(|r| r.manifest_digest).map(|d| d.to_string()),
        room_bytes: view.room_bytes,
        error: view.record.as_ref().err().map(ToString::to_string),
    }
}
