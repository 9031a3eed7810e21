//! `healthcheck`: waits until the node is healthy, and then confirms the trial boot: one write to the boot variables.
//!
//! On a machine that is not on trial it looks and changes nothing.
//! Must never: hold the lock or a mount while a check runs, or confirm a slot that is not the running one.

use crate::cli;
use crate::cmd::activate::refuse_reboot_below_root;
use crate::cmd::{Outcome, say, say_json};
use crate::config::Config;
use crate::error::{Error, IoContext, Kind, Result};
use crate::grubenv::Block;
use crate::health::{self, Round, executables};
use crate::progress::{note, note_last};
use crate::session::Session;
use crate::state::Phase;
use crate::sys::MountNamespace;
use crate::system::System;
use crate::text::printable;
use miniserde::Serialize;
use std::io::Write;
use std::time::Duration;

const TIMEOUT_SECS: u64 = 600;
const CHECK_TIMEOUT_SECS: u64 = 30;

/// Runs the command.
/// Errors: Unhealthy: a check failed to the end, or could not be made. Boot, Device, State: the result could not be
/// recorded.
pub fn run(system: &System, config: &Config, args: &cli::Healthcheck, out: &mut dyn Write) -> Result<Outcome> {
    refuse_reboot_below_root(system, args.reboot_on_failure)?;
    let home = MountNamespace::current().io(Kind::Internal, "look at", "the mount namespace")?;
    let on_trial = begin(system, config)?;
    // The checks see the machine as everybody does, not our private mounts.
    home.enter().io(Kind::Internal, "leave", "the private mount namespace")?;
    let limit = Duration::from_secs(args.check_timeout.unwrap_or(CHECK_TIMEOUT_SECS));
    let timeout = Duration::from_secs(args.timeout.unwrap_or(TIMEOUT_SECS));
    let last = health::wait_until_healthy(timeout, &mut || round(system, config, limit));
    let unhealthy = (!last.passed()).then(|| {
        let error = Error::new(Kind::Unhealthy, last.reason()).at("check", "the health of this node");
        match last.checks.is_empty() {
            true => error.hint(format!("checks are executables in {}", system.health_dir().display())),
            false => error,
        }
    });
    let trial = if on_trial { record(system, config, unhealthy.as_ref())? } else { Trial::Over };
    let confirmed = trial == Trial::Confirmed;
    if args.json {
        say_json(out, &answer(&last, on_trial, confirmed))?;
    } else {
        describe(out, &last, on_trial, confirmed)?;
    }
    match unhealthy {
        None => Ok(Outcome::Done),
        Some(error) => {
            let what_for = match trial {
                Trial::GoesOn => "so that GRUB counts this boot",
                // Only if that is on record does the next boot know that this one was the first.
                Trial::Over if Session::open(system, config).is_ok_and(|s| s.worth_a_restart()) => {
                    "so that GRUB tries the slot that was confirmed once more"
                }
                _ => return Ok(Outcome::Refused(error)),
            };
            if !args.reboot_on_failure {
                return Ok(Outcome::Refused(error));
            }
            note_last(&format!("{error}; restarting, {what_for}"), &system.kernel_log());
            Err(crate::session::reboot())
        }
    }
}

/// Says whether this boot is on trial, and if so records that it is being verified.
fn begin(system: &System, config: &Config) -> Result<bool> {
    let mut session = Session::open_to_recover(system, config)?;
    let on_trial = session.runs_on_trial();
    if on_trial && session.trial_is_of_this_attempt() && session.state.phase.may_become(Phase::Verifying) {
        let now = session.now();
        session.state.step(Phase::Verifying, now)?;
        session.note_state();
    }
    Ok(on_trial)
}

/// What became of the trial.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// The running slot is confirmed.
    Confirmed,
    /// GRUB counts the next boot as well.
    GoesOn,
    /// There is none, or no more: another restart changes nothing.
    Over,
}

/// Records how the trial ended.
/// Power cut: before the boot variables are written: the trial goes on. After it: confirmed; the next run finds
/// the state behind and follows.
fn record(system: &System, config: &Config, unhealthy: Option<&Error>) -> Result<Trial> {
    let mut session = Session::open_to_recover(system, config)?;
    if !session.runs_on_trial() {
        note("the trial ended while the checks ran: nothing is recorded");
        return Ok(Trial::Over);
    }
    let now = session.now();
    let ours = session.state.phase == Phase::Verifying;
    match unhealthy {
        Some(error) if session.no_way_back() => {
            let why = format!("{error}; GRUB could not load slot {}, the way back", session.target());
            session.take_over(&why, true)?;
            Ok(Trial::Over)
        }
        Some(error) if ours => {
            session.state.fail(error, now)?;
            session.note_state();
            Ok(Trial::GoesOn)
        }
        Some(_) => Ok(Trial::GoesOn),
        None => {
            session.save_boot(Block::confirm)?;
            session.forget_failure()?;
            session.remember_proof()?;
            if ours {
                session.state.succeed(now)?;
                session.note_state();
            }
            Ok(Trial::Confirmed)
        }
    }
}

/// Runs every check once. A later one is not run when an earlier one failed: they build on each other.
/// Errors: Config: the checks can not be listed, or the agent's configuration can not be read: a system that could
/// never be updated again is not healthy.
fn round(system: &System, config: &Config, limit: Duration) -> Result<Round> {
    if let Some(fault) = &config.fault {
        return Err(fault.clone());
    }
    let mut round = Round::default();
    for path in executables::list(&system.health_dir())? {
        let outcome = executables::run(&path, limit);
        let failed = outcome.failure.is_some();
        round.checks.push(outcome);
        if failed {
            break;
        }
    }
    Ok(round)
}

fn describe(out: &mut dyn Write, last: &Round, on_trial: bool, confirmed: bool) -> Result<()> {
    for check in &last.checks {
        let result = check.failure.as_deref().unwrap_or("ok");
        say(out, &format!("{:<24} {} ({} ms)", check.name, printable(result), check.duration_millis))?;
    }
    say(
        out,
        match (last.passed(), on_trial, confirmed) {
            (true, _, true) => "healthy; the trial boot is confirmed",
            (true, true, false) => "healthy; the trial had ended already",
            (true, false, _) => "healthy; this boot is not on trial",
            (false, true, _) => "NOT healthy; the trial boot is not confirmed",
            (false, false, _) => "NOT healthy; this boot is not on trial",
        },
    )
}

#[derive(Serialize)]
struct Answer {
    healthy: bool,
    on_trial: bool,
    confirmed: bool,
    checks: Vec<CheckAnswer>,
}

#[derive(Serialize)]
struct CheckAnswer {
    name: String,
    passed: bool,
    reason: Option<String>,
    duration_millis: u64,
}

fn answer(last: &Round, on_trial: bool, confirmed: bool) -> Answer {
    let checks = last.checks.iter().map(|c| CheckAnswer {
        name: c.name.clone(),
        passed: c.failure.is_none(),
        reason: c.failure.as_deref().map(printable),
        duration_millis: c.duration_millis,
    });
    Answer { healthy: last.passed(), on_trial, confirmed, checks: checks.collect() }
}
