//! Progress and remarks on stderr; the answer of a command never goes through here.
//!
//! On a terminal one line that is rewritten; otherwise a line every few seconds.
//! Must never: fail a command because nobody reads stderr.

use crate::onlooker;
use crate::sys;
use crate::text::{human_size, printable};
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const TERMINAL_STEP: Duration = Duration::from_millis(200);
const LOG_STEP: Duration = Duration::from_secs(5);
/// The kernel refuses a record of 1 KiB and more.
const LOG_RECORD_MAX_BYTES: usize = 900;
/// 2 s: at 9,600 baud, 2 KB.
const DRAIN_ROUNDS: u32 = 40;
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// How much is said. Set once, before anything is.
static VOICE: AtomicU8 = AtomicU8::new(PLAIN);
const QUIET: u8 = 0;
const PLAIN: u8 = 1;
const VERBOSE: u8 = 2;

/// Sets how much is said from now on. `--verbose` beside `--quiet` says all.
pub fn speak(quiet: bool, verbose: bool) {
    let voice = if verbose { VERBOSE } else { PLAIN - u8::from(quiet) };
    VOICE.store(voice, Ordering::Relaxed);
}

/// Says whether only what needs a person is to be said.
pub fn is_quiet() -> bool {
    VOICE.load(Ordering::Relaxed) == QUIET
}

/// Says whether all there is is to be said.
pub fn is_verbose() -> bool {
    VOICE.load(Ordering::Relaxed) == VERBOSE
}

/// Says on stderr what is in the ordinary course of things, unless only what needs a person is to be said.
pub fn aside(text: &str) {
    if !is_quiet() {
        note(text);
    }
}

/// Says on stderr what only `--verbose` wants to know.
pub fn detail(text: &dyn Fn() -> String) {
    if is_verbose() {
        note(&text());
    }
}

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

/// Says whether somebody sits in front of it.
pub fn is_watched() -> bool {
    stderr().is_terminal()
}

/// From now on Ctrl-C ends this process with these words, which say what was done and what was not.
pub fn on_interrupt(words: &'static &'static str) {
    // Without them it ends as well.
    let _ = sys::say_on_interrupt(words);
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
        onlooker::tell(&self.what, self.percent());
        let step = if self.terminal { TERMINAL_STEP } else { LOG_STEP };
        if self.shown_at.elapsed() >= step && !is_quiet() {
            self.shown_at = Instant::now();
            self.show();
        }
    }

    fn percent(&self) -> u8 {
        self.done_bytes.saturating_mul(100).checked_div(self.total_bytes).unwrap_or(100).min(100) as u8
    }

    fn show(&mut self) {
        let percent = self.percent();
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

/// Columns of a terminal that are used: a longer line could not be rewritten.
const COLUMNS: usize = 79;

/// Shows what is waited for, and for how long: on a terminal always, elsewhere when it changes.
pub struct Waiting {
    what: String,
    said: String,
    limit: Duration,
    start: Instant,
    terminal: bool,
    shown_at: Option<Instant>,
}

impl Waiting {
    /// Begins to wait. Input: `limit`: for how long at most.
    pub fn new(limit: Duration) -> Waiting {
        let (what, said) = (String::new(), String::new());
        Waiting { what, said, limit, start: Instant::now(), terminal: stderr().is_terminal(), shown_at: None }
    }

    /// Says what is waited for from now on. Input: `running`: as for [`Waiting::tick`].
    pub fn for_what(&mut self, what: &str, running: &str) {
        self.what = printable(what);
        self.tick(running);
    }

    /// Shows it, if that is due. Called often. Input: `running`: the check that runs; shown until it is known what is wrong.
    pub fn tick(&mut self, running: &str) {
        if is_quiet() {
            return;
        }
        let step = if self.terminal { TERMINAL_STEP } else { LOG_STEP };
        // A check that ends soon is no news to a log.
        let first = if self.what.is_empty() && !self.terminal { self.start.elapsed() >= step } else { true };
        if !self.shown_at.map_or(first, |at| at.elapsed() >= step) {
            return;
        }
        let what = if self.what.is_empty() { format!("{} runs", printable(running)) } else { self.what.clone() };
        if !self.terminal && self.said == what {
            return;
        }
        self.shown_at = Some(Instant::now());
        let _ = match self.terminal {
            true => write!(stderr(), "\r{}\x1b[K", line(&what, self.start.elapsed(), self.limit, COLUMNS)),
            false => writeln!(stderr(), "{}", line(&what, self.start.elapsed(), self.limit, usize::MAX)),
        };
        self.said = what;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.terminal && self.shown_at.is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

/// Makes `WHAT; 0:04 of 10:00`, the first part cut where that is too long.
fn line(what: &str, waited: Duration, limit: Duration, columns: usize) -> String {
    let clock = |time: Duration| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60);
    let times = format!("; {} of {}", clock(waited), clock(limit));
    let room = columns.saturating_sub(times.len());
    match what.char_indices().nth(room) {
        None => [what, &times].concat(),
        Some(_) => what.chars().take(room.saturating_sub(3)).chain("...".chars()).chain(times.chars()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn a_line_says_what_is_waited_for_and_fits() {
        let secs = Duration::from_secs;
        let what = "20-db: database not reachable";
        assert_eq!(line(what, secs(4), secs(600), 79), "20-db: database not reachable; 0:04 of 10:00");
        assert_eq!(line(what, secs(3599), secs(7200), usize::MAX), "20-db: database not reachable; 59:59 of 120:00");
        for columns in [10, 20, 30, 43, 44, 45] {
            let cut = line(what, secs(4), secs(600), columns);
            assert!(cut.chars().count() <= columns.max(18) && cut.ends_with("; 0:04 of 10:00"), "{columns}: {cut}");
        }
        assert_eq!(line("é€é€é€é€é€é€é€é€", secs(0), secs(0), 24), "é€é€é€é...; 0:00 of 0:00");
    }

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
