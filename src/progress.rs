//! Progress and remarks on stderr; the answer of a command never goes through here.
//!
//! On a terminal one line that is rewritten; otherwise a line every few seconds.
//! Must never: fail a command because nobody reads stderr.

use crate::text::{human_size, printable};
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

const TERMINAL_STEP: Duration = Duration::from_millis(200);
const LOG_STEP: Duration = Duration::from_secs(5);

/// Says one sentence on stderr.
pub fn note(text: &str) {
    // A closed stderr is no reason to stop an update.
    let _ = writeln!(stderr(), "kubesolo-update: {}", printable(text));
}

/// Shows how far a long step is.
pub struct Progress {
    what: String,
    total_bytes: u64,
    done_bytes: u64,
    terminal: bool,
    shown_at: Instant,
    shown: bool,
}

impl Progress {
    /// Starts a step. Input: `what`: "download kernel", for example.
    pub fn new(what: &str, total_bytes: u64) -> Progress {
        let terminal = stderr().is_terminal();
        Progress { what: printable(what), total_bytes, done_bytes: 0, terminal, shown_at: Instant::now(), shown: false }
    }

    /// Adds what was done.
    pub fn add(&mut self, bytes: u64) {
        self.done_bytes = self.done_bytes.saturating_add(bytes);
        let step = if self.terminal { TERMINAL_STEP } else { LOG_STEP };
        if self.shown_at.elapsed() >= step {
            self.shown_at = Instant::now();
            self.show();
        }
    }

    fn show(&mut self) {
        let percent = self.done_bytes.saturating_mul(100).checked_div(self.total_bytes).unwrap_or(100).min(100);
        let (done, total) = (human_size(self.done_bytes), human_size(self.total_bytes));
        let line = format!("{}: {percent} % ({done} of {total})", self.what);
        self.shown = true;
        let _ = match self.terminal {
            true => write!(stderr(), "\r{line}\x1b[K"),
            false => writeln!(stderr(), "{line}"),
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
