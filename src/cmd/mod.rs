//! The commands: each reads, lets pure code decide, acts, and reports. One file a command.

pub mod activate;
pub mod apply;
pub mod check;
pub mod healthcheck;
pub mod rollback;
pub mod status;
pub mod verify;

use crate::error::{Error, IoContext, Kind, Result};
use miniserde::{Serialize, json};
use std::io::Write;

/// How a command ended that has given its answer.
#[derive(Debug)]
pub enum Outcome {
    /// It did what it was asked. Exit code 0.
    Done,
    /// There was nothing to do. Exit code 3.
    Nothing,
    /// The answer is on stdout, and this is what it comes down to.
    Refused(Error),
}

/// Writes a line of the answer.
/// Errors: Internal: stdout is gone.
pub fn say(out: &mut dyn Write, line: &str) -> Result<()> {
    writeln!(out, "{line}").io(Kind::Internal, "write", "the answer")
}

/// Writes the answer as one JSON document.
/// Errors: Internal: stdout is gone.
pub fn say_json<T: Serialize>(out: &mut dyn Write, answer: &T) -> Result<()> {
    say(out, &json::to_string(answer))
}

/// Makes the error of a command whose turn has not come.
pub fn not_built(command: &str) -> Error {
    Error::new(Kind::Internal, "not built yet").at("run", command)
}
