//! The commands: each reads, lets pure code decide, acts, and reports. One file a command.

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

use crate::error::{Course, Error, Result};
use crate::progress::{is_quiet, is_verbose, note};
use crate::session;
use crate::text::{folded, short_digests};
use answer::Reply;
use std::io::Write;
use std::process::ExitCode;

/// Exit code of a run that had nothing to do.
const NOTHING: u8 = 3;

/// Where a line's text begins, at most: behind a name of 16 characters.
const MOST_LABEL_COLUMNS: usize = 20;

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
    /// The same of what comes by itself: not on stderr, where a job's faults are looked for.
    Waits(Error),
}

/// Writes a line of the answer for a person. What was done is done: what could not be written is known to the [`Reply`].
/// Errors: none; the result makes it fit in a chain.
pub fn say(out: &mut dyn Write, line: &str) -> Result<()> {
    let _ = writeln!(out, "{line}");
    Ok(())
}

/// Writes a line for a person in as many lines as it takes; digests short, unless `--verbose` asks for whole ones.
/// Errors: as [`say`].
pub fn tell(out: &mut dyn Write, line: &str) -> Result<()> {
    say(out, &lines(line, is_verbose()))
}

/// Makes lines of one: what goes on stands below the text, right of its label.
fn lines(line: &str, is_verbose: bool) -> String {
    let line = if is_verbose { line.to_owned() } else { short_digests(line) };
    let is_blank = |at: usize| line.as_bytes().get(at) == Some(&b' ');
    // A label ends with two blanks at least, or is nothing but blanks.
    let gap = (0..MOST_LABEL_COLUMNS).find(|at| is_blank(*at) && is_blank(at + 1));
    let text = gap.and_then(|gap| (gap..=MOST_LABEL_COLUMNS).find(|at| !is_blank(*at)));
    folded(&line, text.filter(|at| line.is_char_boundary(*at)).unwrap_or(2))
}

/// Restarts the machine; the answer is given before. Input: `error`: what the run would end with.
/// Returns: why it was not restarted.
pub fn restart(out: &mut Reply, error: Option<&Error>) -> Error {
    out.give(error.map_or(0, Error::exit_code), error);
    session::reboot()
}

/// Says whether what came of a run is in the ordinary course of things, or comes by itself.
fn needs_nobody(ended: &Result<Outcome>) -> bool {
    match ended {
        Ok(Outcome::Done | Outcome::Nothing | Outcome::Waits(_) | Outcome::Excused(_)) => true,
        Ok(Outcome::Refused(error)) | Err(error) => matches!(error.course(), Course::Waits | Course::Nothing),
    }
}

/// Ends the program: says the error on stderr, and gives the answer.
pub fn finish(ended: Result<Outcome>, mut reply: Reply) -> ExitCode {
    let is_silent = is_quiet() && needs_nobody(&ended);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_stands_right_of_the_label() {
        let words = "word ".repeat(30);
        for (line, indent) in [
            (format!("Slot A  {words}"), 8),
            (format!("Running   {words}"), 10),
            (format!("        {words}"), 8),
            (format!("10-db            ok          3 ms  {words}"), 17),
            (format!("healthy; {words}"), 2),
            (format!("a name that is long      and {words}"), 2),
            (format!("é  {words}"), 4),
        ] {
            let lines = lines(line.trim_end(), false);
            let mut all = lines.lines();
            assert!(line.starts_with(all.next().unwrap()), "{lines}");
            for next in all {
                assert_eq!(next.len() - next.trim_start().len(), indent, "{lines}");
                assert!(next.len() < 80, "{lines}");
            }
        }
        let digest = format!("Source  sha256:{}", "a".repeat(64));
        assert_eq!(lines(&digest, false), "Source  sha256:aaaaaaaaaaaa");
        assert_eq!(lines(&digest, true).lines().map(str::trim_start).collect::<String>().len(), digest.len());
    }
}
