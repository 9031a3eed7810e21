//! The commands: each reads, lets pure code decide, acts, and reports. One file per command.
//!
//! May import: base, os, oci, offer, trust, slot, http, boot, disk, ledger, source, health, cli, config, machine,
//! update, observe. Must never import: another command.

pub mod activate;
pub mod answer;
pub mod apply;
pub mod check;
pub mod device;
pub mod healthcheck;
pub mod inspect;
pub mod lint;
pub mod metrics;
pub mod rollback;
pub mod status;
pub mod verify;
pub mod words;

use crate::base::error::{Course, Error, Result};
use crate::cli::Flags;
use crate::os::progress::{self, is_quiet, note};
use crate::os::sys;
use crate::os::system::System;
use crate::update::judge::Overrides;
use crate::update::restart::reboot;
use answer::Reply;
use std::process::ExitCode;
use std::time::Duration;

/// Exit code of a run that had nothing to do.
const NOTHING: u8 = 3;

/// How a command ended that has given its answer.
#[derive(Debug)]
pub enum Outcome {
    /// It did what it was asked. Exit code 0.
    Done,
    /// There was nothing to do. Exit code 3.
    Nothing,
    /// The answer is on stdout; this is the resulting error.
    Refused(Error),
    /// Something prevented it, and the caller asked not to treat that as a failure. Exit code 0.
    Excused(Error),
    /// The same for an update that only has to wait: not on stderr, where operators look for the faults of a job.
    Waits(Error),
}

/// Restarts the machine; the answer is given before. Input: `error`: what the run would otherwise end with.
/// Returns: why it was not restarted.
pub fn restart(out: &mut Reply, error: Option<&Error>) -> Error {
    out.give(error.map_or(0, Error::exit_code), error);
    reboot()
}

/// Returns whether the result of a run needs no action by an operator.
fn is_ordinary(ended: &Result<Outcome>) -> bool {
    match ended {
        Ok(Outcome::Done | Outcome::Nothing | Outcome::Waits(_) | Outcome::Excused(_)) => true,
        Ok(Outcome::Refused(error)) | Err(error) => matches!(error.course(), Course::Waits | Course::Nothing),
    }
}

/// Ends the program: prints the error on stderr, and gives the answer.
pub fn finish(ended: Result<Outcome>, mut reply: Reply) -> ExitCode {
    let is_silent = is_quiet() && is_ordinary(&ended);
    if is_silent {
        reply.forget();
    }
    let (error, exit_code) = match ended {
        Ok(Outcome::Done) => (None, 0),
        Ok(Outcome::Nothing) => (None, NOTHING),
        Ok(Outcome::Waits(error)) => {
            reply.result_or("waits");
            return ExitCode::from(reply.give(0, Some(&error)));
        }
        Ok(Outcome::Excused(error)) => {
            reply.result("busy");
            (Some(error), 0)
        }
        Ok(Outcome::Refused(error)) => {
            let exit_code = error.exit_code();
            (Some(error), exit_code)
        }
        Err(error) => {
            reply.result("");
            let exit_code = error.exit_code();
            (Some(error), exit_code)
        }
    };
    if let Some(error) = error.as_ref().filter(|_| !is_silent) {
        note(&error.to_string());
    }
    ExitCode::from(reply.give(exit_code, error.as_ref()))
}

/// Answers that no medium is plugged in.
pub fn nothing_there(why: &Error, out: &mut Reply) -> Outcome {
    out.result("no_medium");
    out.message(&why.to_string());
    Outcome::Nothing
}

/// Returns the flags that override gates.
pub fn overrides(flags: &Flags) -> Overrides {
    let Flags { allow_downgrade, retry_failed, ignore_window, .. } = *flags;
    Overrides { allow_downgrade, retry_failed, ignore_window }
}

/// Waits a random time, uniformly distributed. Input: `most_secs`: the longest wait.
pub fn splay(system: &System, most_secs: Option<u64>) {
    if let Some(millis) = most_secs.map(|secs| secs.saturating_mul(1000)).filter(|millis| *millis > 0) {
        let time = Duration::from_millis(sys::random_u64() % millis);
        progress::wait(time, "so that a fleet does not ask all at once", system.now().clock_secs());
    }
}

/// Retries if a person waits at a terminal and no number is set: at most three seconds for a server that does not answer.
pub const WATCHED_RETRIES: u32 = 2;

/// Printed when a person interrupts a command that changes nothing.
pub const INTERRUPTED: &str = "\nkubesolo-update: interrupted; nothing was changed\n";
