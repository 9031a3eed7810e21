//! The progress line on stderr: rewritten on a capable terminal, otherwise a new line every few seconds.
//!
//! Must never: send an escape sequence to what is not a terminal, or to one that has none.

use super::voice::is_quiet;
use crate::os::sys;
use std::io::{IsTerminal, Write, stderr};
use std::os::linux::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Interval between rewrites.
pub const TERMINAL_STEP: Duration = Duration::from_millis(200);
/// Interval between added lines.
pub const LOG_STEP: Duration = Duration::from_secs(5);
/// Assumed width of a terminal that does not report one.
const COLUMNS: usize = 80;

/// Whether the cursor is after a line that will be rewritten.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);

/// Erases the current line, if any, so that the next message begins at the left.
pub fn make_room() {
    if IS_SHOWN.swap(false, Ordering::Relaxed) {
        let _ = write!(stderr(), "\r\x1b[K");
    }
}

/// Shows successive lines.
pub struct Line {
    /// Most columns of a rewritten line.
    columns: Option<usize>,
    begun_at: Instant,
    shown_at: Option<Instant>,
}

impl Line {
    /// Finds out what stderr is.
    pub fn new() -> Line {
        let term = std::env::var("TERM").ok();
        let device = std::fs::metadata("/proc/self/fd/2").map_or(0, |meta| meta.st_rdev());
        let can = stderr().is_terminal() && can_rewrite((libc::major(device), libc::minor(device)), term.as_deref());
        let wide = || sys::columns(&stderr()).unwrap_or(COLUMNS).clamp(20, COLUMNS);
        // A full line would move the cursor to the next.
        Line { columns: can.then(|| wide() - 1), begun_at: Instant::now(), shown_at: None }
    }

    /// Returns whether the line is rewritten.
    pub fn is_rewritten(&self) -> bool {
        self.columns.is_some()
    }

    /// Returns whether a line is due. A step that ends soon is not worth a log line.
    pub fn is_due(&self) -> bool {
        let since = |at: Instant, step| at.elapsed() >= step;
        !is_quiet()
            && match (self.shown_at, self.is_rewritten()) {
                (None, true) => true,
                (Some(at), true) => since(at, TERMINAL_STEP),
                (at, false) => since(at.unwrap_or(self.begun_at), LOG_STEP),
            }
    }

    /// Shows one. Input: `text`: one line; `end`: the part that is never cut.
    pub fn show(&mut self, text: &str, end: &str) {
        self.shown_at = Some(Instant::now());
        let _ = match self.columns {
            Some(columns) => {
                IS_SHOWN.store(true, Ordering::Relaxed);
                write!(stderr(), "\r{}\x1b[K", cut(text, end, columns))
            }
            None => writeln!(stderr(), "{text}{end}"),
        };
    }
}

impl Default for Line {
    fn default() -> Line {
        Line::new()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_rewritten() && self.shown_at.is_some() {
            make_room();
        }
    }
}

/// Returns whether a line can be rewritten there: on a screen, not on a serial line, where a logger keeps each of them.
/// Input: `device`: major and minor number; `term`: `TERM`.
/// Source: Linux, Documentation/admin-guide/devices.txt: 4, below 64: screens; 136 to 143: pseudo-terminals.
fn can_rewrite(device: (u32, u32), term: Option<&str>) -> bool {
    term.is_some_and(|term| !term.is_empty() && term != "dumb") && matches!(device, (4, 0..=63) | (136..=143, _))
}

/// Joins two parts into a line, cutting the first if both are too long.
fn cut(text: &str, end: &str, columns: usize) -> String {
    let room = columns.saturating_sub(end.chars().count());
    match text.char_indices().nth(room) {
        None => [text, end].concat(),
        Some(_) => text.chars().take(room.saturating_sub(3)).chain("...".chars()).chain(end.chars()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_screens_that_can_are_rewritten() {
        for (device, term, can) in [
            ((136, 0), Some("vt100"), true),
            ((143, 9), Some("xterm-256color"), true),
            ((4, 1), Some("linux"), true),
            ((136, 0), Some("dumb"), false),
            ((136, 0), Some(""), false),
            ((136, 0), None, false),
            // ttyS0, console, hvc0, ttyAMA0, ttyUSB0.
            ((4, 64), Some("vt100"), false),
            ((5, 1), Some("linux"), false),
            ((229, 0), Some("vt220"), false),
            ((204, 64), Some("vt220"), false),
            ((188, 0), Some("vt220"), false),
        ] {
            assert_eq!(can_rewrite(device, term), can, "{device:?} {term:?}");
        }
    }

    #[test]
    fn a_line_fits() {
        let what = "20-db: database not reachable";
        let end = "; 0:04 of 10:00";
        assert_eq!(cut(what, end, 79), "20-db: database not reachable; 0:04 of 10:00");
        for columns in [10, 20, 30, 43, 44, 45] {
            let line = cut(what, end, columns);
            assert!(line.chars().count() <= columns.max(18) && line.ends_with(end), "{columns}: {line}");
        }
        assert_eq!(cut("é€é€é€é€é€é€é€é€", "; 0:00 of 0:00", 24), "é€é€é€é...; 0:00 of 0:00");
    }
}
