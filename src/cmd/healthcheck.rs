//! `healthcheck`: waits until the node is healthy, and then confirms the trial boot: one write to the boot variables.
//!
//! On a machine that is not on trial it only looks and changes nothing.
//! Must never: hold the lock or a mount while a check runs, or confirm a slot other than the running one.

use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;
use crate::boot::this_boot;
use crate::cli;
use crate::cmd::answer::Reply;
use crate::cmd::words::tell;
use crate::cmd::{Outcome, restart};
use crate::config::Config;
use crate::health::round::{Plan, Subjects};
use crate::health::watchdog::{self, Watchdog};
use crate::health::{self, Ending, Outcome as Checked, Pace, Watched};
use crate::os::progress::{Waiting, note, note_last};
use crate::os::system::System;
use crate::update::confirm::{self, Trial};
use crate::update::restart::refuse_reboot_below_root;
use crate::update::session::Session;
use std::cell::RefCell;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Duration;

/// KubeSolo itself allows its parts 600 s from the same moment. Source: KubeSolo, startupTimeoutSeconds.
const TIMEOUT_SECS: u64 = 900;
const CHECK_TIMEOUT_SECS: u64 = 30;

/// Runs the command.
/// Errors: Usage: the stable period does not fit into the timeout. Unhealthy: a check failed to the end, or could not be made.
/// Boot, Device, State: the result could not be recorded.
pub fn run(system: &System, config: &Config, args: &cli::Healthcheck, out: &mut Reply) -> Result<Outcome> {
    refuse_reboot_below_root(system, args.reboot_on_failure)?;
    let pace = pace(args)?;
    let begun = confirm::begin(system, config)?;
    let on_trial = begun.on_trial;
    let check_limit = Duration::from_secs(args.check_timeout.unwrap_or(CHECK_TIMEOUT_SECS));
    let watched = watch(&Plan::new(system, subjects(system, config), check_limit), pace, args);
    let unhealthy = (!watched.healthy).then(|| {
        let error = Error::new(Kind::Unhealthy, watched.reason.as_str()).at("check", "the health of this node");
        match watched.last.0.is_empty() {
            true => error.hint(format!("checks are executables in {}", system.health_dir().display())),
            false => error,
        }
    });
    let trial = match on_trial {
        true => confirm::record(system, config, &begun, unhealthy.as_ref().map(|error| (error, &watched)))?,
        false => {
            if begun.is_control {
                let session = Session::open_to_recover(system, config);
                // The health result stands even if another run holds the lock; the next check decides it as well.
                if let Err(e) = session.and_then(|mut session| session.control_failures(watched.healthy)) {
                    note(&format!("{e}; the next check decides what caused the last rollback"));
                }
            }
            Trial::Over
        }
    };
    let checked = Verdict { watched: &watched, on_trial, confirmed: trial == Trial::Confirmed };
    match out.is_text() {
        true => describe(out, &checked)?,
        false => answer(out, &checked),
    }
    let Some(error) = unhealthy else { return Ok(Outcome::Done) };
    let what_for = if args.reboot_on_failure { confirm::worth_a_restart(system, config, trial) } else { None };
    let Some(what_for) = what_for else {
        // On one screen, the reason is directly above.
        let is_seen = out.is_text() && stdout().is_terminal() && stderr().is_terminal();
        return Ok(Outcome::Refused(if is_seen {
            Error::new(Kind::Unhealthy, "not healthy, see above")
        } else {
            error
        }));
    };
    // Should the restart hang, the watchdog resets the machine: nothing feeds or stops this one.
    let _dog = start_watchdog(args);
    note_last(&format!("{error}; restarting, {what_for}"), &system.kernel_log());
    Err(restart(out, Some(&error)))
}

fn pace(args: &cli::Healthcheck) -> Result<Pace> {
    let pace = Pace {
        timeout: Duration::from_secs(args.timeout.unwrap_or(TIMEOUT_SECS)),
        stable_for: Duration::from_secs(args.stable_for.unwrap_or(0)),
    };
    if pace.stable_for > pace.timeout {
        return Err(Error::new(Kind::Usage, "--stable-for is longer than --timeout: nothing could ever pass"));
    }
    if args.check_timeout == Some(0) {
        return Err(Error::new(Kind::Usage, "--check-timeout 0: no check could ever pass"));
    }
    Ok(pace)
}

/// The result of the command.
struct Verdict<'a> {
    watched: &'a Watched,
    on_trial: bool,
    confirmed: bool,
}

/// Returns what the configuration says of this machine's checks.
fn subjects(system: &System, config: &Config) -> Subjects {
    Subjects {
        containerd: config.containerd_socket.resolve(|| system.containerd_socket()),
        kubeconfig: config.kubeconfig.resolve(|| system.kubeconfig()),
        workloads: config.workloads.clone(),
        boot_id: this_boot::boot_id(system),
        fault: config.fault.clone(),
    }
}

/// Waits until the node is healthy, and feeds the watchdog meanwhile.
fn watch(plan: &Plan<'_>, pace: Pace, args: &cli::Healthcheck) -> Watched {
    let mut dog = start_watchdog(args);
    let waiting = RefCell::new(Waiting::new(pace.timeout));
    let mut alive = || {
        if let Some(dog) = &mut dog {
            dog.feed();
        }
        waiting.borrow_mut().tick(&plan.running());
    };
    let mut told = |what: &str| waiting.borrow_mut().for_what(what, &plan.running());
    let watched = health::wait_until_healthy(pace, &mut alive, &mut told, &mut |alive| plan.run(alive));
    drop(waiting);
    if let Some(dog) = dog {
        dog.stop();
    }
    watched
}

fn start_watchdog(args: &cli::Healthcheck) -> Option<Watchdog> {
    watchdog::start(args.watchdog.as_deref(), &|e| note(&format!("{e}; continuing without it")))
}

fn describe(out: &mut dyn Write, &Verdict { watched, on_trial, confirmed }: &Verdict<'_>) -> Result<()> {
    for check in &watched.last.0 {
        let (result, said) = result(check);
        let mut line = format!("{:<16} {result:<7} {:>6} ms  {}", check.name, check.duration_millis, printable(said));
        if let (Ending::Passed(_), Some(why)) = (&check.ending, &check.last_failure) {
            line.push_str(&format!(" (before: {})", printable(why)));
        }
        tell(out, line.trim_end())?;
    }
    tell(
        out,
        match (watched.healthy, on_trial, confirmed) {
            (true, _, true) => "healthy; the trial boot is confirmed",
            (true, true, false) => "healthy; the trial had ended already",
            (true, false, _) => "healthy; this boot is not on trial",
            (false, true, _) => "NOT healthy; the trial boot is not confirmed",
            (false, false, _) => "NOT healthy; this boot is not on trial",
        },
    )
}

/// Returns how a check ended, as a word, and its output.
fn result(check: &Checked) -> (&'static str, &str) {
    match (&check.ending, check.is_required) {
        (Ending::Passed(said), _) => ("ok", said),
        (Ending::Failed(why), true) => ("FAILED", why),
        (Ending::Failed(why), false) => ("warning", why),
        (Ending::NotRun, _) => ("not run", ""),
    }
}

fn answer(out: &mut Reply, &Verdict { watched, on_trial, confirmed }: &Verdict<'_>) {
    out.result(if watched.healthy { "healthy" } else { "unhealthy" });
    let members = &mut out.members;
    members.field("healthy", &watched.healthy);
    members.field("on_trial", &on_trial);
    members.field("confirmed", &confirmed);
    members.field("reason", &text(&watched.reason));
    members.field("rounds", &watched.rounds);
    members.field("waited_secs", &watched.waited.as_secs());
    members.open("checks", '[');
    for check in &watched.last.0 {
        let (result, detail) = match &check.ending {
            Ending::Passed(said) => ("passed", said.as_str()),
            Ending::Failed(why) => ("failed", why.as_str()),
            Ending::NotRun => ("not_run", ""),
        };
        members.open("", '{');
        members.field("name", &printable(&check.name));
        members.field("required", &check.is_required);
        members.field("result", &result);
        members.field("detail", &text(detail));
        members.field("last_failure", &check.last_failure.as_deref().and_then(text));
        members.field("duration_millis", &check.duration_millis);
        members.close('}');
    }
    members.close(']');
}

fn text(said: &str) -> Option<String> {
    (!said.is_empty()).then(|| printable(said))
}
