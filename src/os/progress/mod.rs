//! Progress and remarks on stderr; a command's answer never passes through here.
//!
//! On a terminal one rewritten line; otherwise a line every few seconds (progress/line.rs).
//! Must never: fail a command because stderr has no reader.

pub mod bar;
mod line;
mod voice;

use crate::base::error::{Error, Kind};
use crate::base::text::{self, printable};
use crate::os::onlooker;
use crate::os::sys;
use crate::os::sys::thread::{Thread, lock};
use bar::{Bar, Phase, clock};
use line::{Line, TERMINAL_STEP, make_room};
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use voice::{be_quiet, be_verbose, is_quiet, is_verbose};

/// Stack of the thread that shows progress.
const STACK_BYTES: usize = 64 << 10;
/// The kernel refuses a record of 1 KiB or more.
const LOG_RECORD_MAX_BYTES: usize = 900;
/// 2 s: at 9,600 baud, 2 KB.
const DRAIN_ROUNDS: u32 = 40;
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// Reports an ordinary event on stderr, unless `--quiet` asks only for what an operator must act on.
pub fn aside(text: &str) {
    if !is_quiet() {
        note(text);
    }
}

/// Reports a failure and how it is handled. `--quiet` hides only ordinary network trouble: a source with content that its
/// publisher did not sign is always reported, even if another source is fine.
pub fn setback(error: &Error, then: &str) {
    if !is_quiet() || !is_ordinary(error.kind()) {
        note(&format!("{error}; {then}"));
    }
}

/// Returns whether a source that fails this way is ordinary.
fn is_ordinary(kind: Kind) -> bool {
    matches!(kind, Kind::Network | Kind::Source)
}

/// Reports on stderr what only `--verbose` shows.
pub fn detail(text: &dyn Fn() -> String) {
    if is_verbose() {
        note(&text());
    }
}

/// Writes one sentence to stderr.
pub fn note(text: &str) {
    make_room();
    let text = ["kubesolo-update: ", &printable(text)].concat();
    let text = if is_verbose() { text } else { text::short_digests(&text) };
    // A log keeps each line as its own record, and a line break would split words that are searched for.
    let text = if stderr().is_terminal() { text::folded(&text, 8) } else { text };
    // A closed stderr does not stop an update.
    let _ = writeln!(stderr(), "{text}");
}

/// Reports why the machine restarts: on stderr and, as an error, in the kernel's log.
/// Input: `kernel_log`: each write is one record there; the kernel takes about 1,000 bytes.
pub fn note_last(text: &str, kernel_log: &Path) {
    note(text);
    let record = format!("<3>kubesolo-update: {}", printable(text)).into_bytes();
    // A missing kernel log does not prevent the restart.
    if let Ok(mut log) = OpenOptions::new().write(true).open(kernel_log) {
        let _ = log.write_all(record.get(..LOG_RECORD_MAX_BYTES).unwrap_or(&record));
    }
}

/// Returns whether stderr is a terminal.
pub fn is_watched() -> bool {
    stderr().is_terminal()
}

/// From now on Ctrl-C ends this process with these words about what was done and what was not.
pub fn on_interrupt(words: &'static &'static str) {
    // Without them it ends as well.
    let _ = sys::say_on_interrupt(words);
}

/// Waits until a serial line has sent its output, which a restart would cut off. Not forever (as tcdrain does): one stray byte
/// on the line may have stopped it.
pub fn drain() {
    for _ in 0..DRAIN_ROUNDS {
        let unsent = [sys::unsent(&stderr()), sys::unsent(&stdout())];
        if unsent.iter().all(Result::is_err) {
            return;
        }
        // Once more after the last byte: the chip buffers some too.
        std::thread::sleep(DRAIN_PAUSE);
        if unsent.iter().flatten().all(|left| *left == 0) {
            return;
        }
    }
}

/// Shows the progress of a long step, even while no data arrives: a separate thread watches it.
pub struct Progress {
    shared: Arc<(Mutex<Shown>, Condvar)>,
    begun: Instant,
    thread: Option<Thread>,
}

struct Shown {
    bar: Bar,
    line: Line,
    /// The thread no longer shares directories with the others.
    is_apart: bool,
    has_ended: bool,
}

impl Progress {
    /// Begins with the first of the phases. Input: not empty.
    pub fn new(phases: Vec<Phase>) -> Progress {
        let shown = Shown { bar: Bar::new(phases), line: Line::new(), is_apart: false, has_ended: false };
        let (shared, begun) = (Arc::new((Mutex::new(shown), Condvar::new())), Instant::now());
        let show = {
            let shared = shared.clone();
            move || show(&shared, begun)
        };
        // If no thread can be started, nothing is shown.
        let thread = Thread::start(STACK_BYTES, show).ok();
        if thread.is_some() {
            // Until then, no other thread may change its mount namespace, which old kernels need for each mount.
            let (shown, changed) = &*shared;
            drop(changed.wait_while(lock(shown), |shown| !shown.is_apart));
        }
        Progress { shared, begun, thread }
    }

    /// Begins a step with a single phase. Input: `what`: "reading slot B", for example; `total_bytes`: 0: not known.
    pub fn of(what: &str, total_bytes: u64) -> Progress {
        Progress::new(vec![Phase::new(what, total_bytes)])
    }

    /// Continues a phase, see [`Bar::start`].
    pub fn start(&self, at: usize, file: &'static str, before_bytes: u64) {
        self.with(|bar, now| bar.start(at, file, before_bytes, now));
    }

    /// Adds bytes that were there already.
    pub fn found(&self, bytes: u64) {
        self.with(|bar, now| bar.found(bytes, now));
    }

    /// Adds bytes that were copied from what is at hand.
    pub fn copied(&self, bytes: u64) {
        self.with(|bar, now| bar.copied(bytes, now));
    }

    /// Adds finished bytes.
    pub fn add(&self, bytes: u64) {
        self.with(|bar, now| bar.moved(bytes, now));
    }

    fn with(&self, change: impl FnOnce(&mut Bar, Duration)) {
        let mut shown = lock(&self.shared.0);
        change(&mut shown.bar, self.begun.elapsed());
        onlooker::tell(&shown.bar.what(), shown.bar.percent());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        lock(&self.shared.0).has_ended = true;
        self.shared.1.notify_all();
        // The thread erases the line when it ends.
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

fn show((shown, changed): &(Mutex<Shown>, Condvar), begun: Instant) {
    sys::unshare_directories();
    let mut shown = lock(shown);
    shown.is_apart = true;
    changed.notify_all();
    while !shown.has_ended {
        if shown.line.is_due() {
            let text = shown.bar.text(begun.elapsed());
            shown.line.show(&text, "");
        }
        shown = changed.wait_timeout(shown, TERMINAL_STEP).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Waits, and announces at once until when; on a terminal it counts down.
/// Input: `why`: the reason for waiting; `now_secs`: since 1970.
pub fn wait(time: Duration, why: &str, now_secs: u64) {
    let until = text::clock_of_day(now_secs.saturating_add(time.as_secs()));
    aside(&format!("waiting {} (until {until}), {why}", clock(time.as_secs())));
    let (mut line, begun) = (Line::new(), Instant::now());
    loop {
        let left = time.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return;
        }
        if line.is_rewritten() && line.is_due() {
            line.show("waiting", &["; ", &clock(left.as_secs() + 1), " left"].concat());
        }
        std::thread::sleep(left.min(if line.is_rewritten() { TERMINAL_STEP } else { left }));
    }
}

/// Shows what is being waited for, and how long: on a terminal always, elsewhere when it changes.
pub struct Waiting {
    what: String,
    said: String,
    limit: Duration,
    start: Instant,
    line: Line,
}

impl Waiting {
    /// Begins to wait. Input: `limit`: longest wait.
    pub fn new(limit: Duration) -> Waiting {
        Waiting { what: String::new(), said: String::new(), limit, start: Instant::now(), line: Line::new() }
    }

    /// Sets what is being waited for. Input: `running`: as for [`Waiting::tick`].
    pub fn for_what(&mut self, what: &str, running: &str) {
        self.what = printable(what);
        self.tick(running);
    }

    /// Shows it if due. Called often. Input: `running`: the running check; shown until the problem is known.
    pub fn tick(&mut self, running: &str) {
        // A check that ends soon is not worth a log line; a problem is.
        let is_news = self.said.is_empty() && !self.what.is_empty() && !is_quiet();
        if !self.line.is_due() && !is_news {
            return;
        }
        let what = if self.what.is_empty() { format!("{} runs", printable(running)) } else { self.what.clone() };
        if !self.line.is_rewritten() && self.said == what {
            return;
        }
        let times = format!("; {} of {}", clock(self.start.elapsed().as_secs()), clock(self.limit.as_secs()));
        self.line.show(&what, &times);
        self.said = what;
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
