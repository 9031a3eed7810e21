//! The commands: each reads, lets pure code decide, acts, and reports. One file a command.

pub mod activate;
pub mod apply;
pub mod check;
pub mod healthcheck;
pub mod lint;
pub mod metrics;
pub mod rollback;
pub mod status;
pub mod verify;

use crate::error::{Error, Result};
use crate::progress::note;
use miniserde::{Serialize, json};
use std::io::{Write, stdout};
use std::process::ExitCode;

/// How a command ended that has given its answer.
#[derive(Debug)]
pub enum Outcome {
    /// It did what it was asked. Exit code 0.
    Done,
    /// There was nothing to do. Exit code 3.
    Nothing,
    /// The answer is on stdout, and this is what it comes down to.
    Refused(Error),
    /// Something stood in the way, and whoever called it said that this is well. Exit code 0.
    Excused(Error),
}

/// Writes a line of the answer. What was done is done: where nobody can read it, that is said on stderr, and no more.
/// Errors: none; the result makes it fit in a chain.
pub fn say(out: &mut dyn Write, line: &str) -> Result<()> {
    match writeln!(out, "{line}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => note(&format!("the answer could not be written: {e}")),
        _ => {}
    }
    Ok(())
}

/// Writes the answer as one JSON document.
/// Errors: Internal: stdout is gone.
pub fn say_json<T: Serialize>(out: &mut dyn Write, answer: &T) -> Result<()> {
    say(out, &json::to_string(answer))
}

#[derive(Serialize)]
struct Failure {
    result: &'static str,
    kind: &'static str,
    exit_code: u8,
    message: String,
}

/// Ends the program: says the error on stderr, and with `--json` as a document where no answer was given.
pub fn finish(ended: Result<Outcome>, json: bool) -> ExitCode {
    let (error, answered, exit_code) = match ended {
        Ok(Outcome::Done) => return ExitCode::SUCCESS,
        Ok(Outcome::Nothing) => return ExitCode::from(3),
        Ok(Outcome::Excused(error)) => (error, false, Some(0)),
        Ok(Outcome::Refused(error)) => (error, true, None),
        Err(error) => (error, false, None),
    };
    let exit_code = exit_code.unwrap_or_else(|| error.exit_code());
    let message = error.to_string();
    note(&message);
    let kind = error.kind().label();
    if json && !answered {
        // Nothing is left to report a failure of this to.
        let _ = say_json(&mut stdout(), &Failure { result: "error", kind, exit_code, message });
    }
    ExitCode::from(exit_code)
}
