//! Progress and remarks on stderr; the answer of a command never goes through here.
//!
//! On a terminal one line that is rewritten; otherwise a line every few seconds.
//! Must never: fail a command because nobody reads stderr.

use crate::sys;
use crate::text::{human_size, printable};
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

const TERMINAL_STEP: Duration = Duration::from_millis(200);
const LOG_STEP: Duration = Duration::from_secs(5);
/// The kernel refuses a record of 1 KiB and more.
const LOG_RECORD_MAX_BYTES: usize = 900;
/// 2 s: at 9,600 baud, 2 KB.
const DRAIN_ROUNDS: u32 = 40;
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// Says one sentence on stderr.
pub fn note(text: &str) {
    // A closed stderr is no reason to stop an update.
    let _ = writeln!(stderr(), "kubesolo-update: {}", printable(text));
}

/// Says why the machine restarts: on stderr and, as an error, in the kernel's log.
/// Input: `kernel_log`: each write is one record there; the kernel takes about 1,000 bytes.
pub fn note_last(text: &str, kernel_log: &Path) {
    note(text);
    let record = format!("<3>kubesolo-update: {}", printable(text)).into_bytes();
    // No kernel log, no record: that is no reason to stay.
    if let Ok(mut log) = OpenOptions::new().write(true).open(kernel_log) {
        let _ = log.write_all(record.get(..LOG_RECORD_MAX_BYTES).unwrap_or(&record));
    }
}

/// Waits until a serial line has sent what was said: a restart would cut it off. Not for ever (as tcdrain does): one
/// stray byte on the line may have stopped it.
pub fn drain() {
    for _ in 0..DRAIN_ROUNDS {
        let unsent = [sys::unsent(&stderr()), sys::unsent(&stdout())];
        if unsent.iter().all(Result::is_err) {
            return;
        }
        // Once more after the last byte: a chip holds some, too.
        std::thread::sleep(DRAIN_PAUSE);
        if unsent.iter().flatten().all(|left| *left == 0) {
            return;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn the_last_words_are_one_record_in_the_kernels_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("kmsg");
        note_last("nobody keeps it", &log);
        assert!(!log.exists(), "a kernel log is not made");
        fs::write(&log, "").unwrap();
        note_last("10-api: not\nready; restarting", &log);
        let said = fs::read_to_string(&log).unwrap();
        assert!(said.starts_with("<3>kubesolo-update: 10-api") && !said.contains('\n'), "{said}");
        note_last(&"x".repeat(5000), &log);
        assert_eq!(fs::metadata(&log).unwrap().len(), 900);
    }

    #[test]
    fn what_is_no_terminal_is_not_waited_for() {
        assert!(sys::unsent(&File::open("/dev/null").unwrap()).is_err());
        assert_eq!(File::open("/dev/ptmx").and_then(|pty| sys::unsent(&pty)).unwrap(), 0);
        let start = Instant::now();
        drain();
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
