//! Status of a run that holds the lock, for other processes: one line in the lock file, rewritten while it works.
//!
//! Never durable, and never waited for: a killed run leaves it, one that ends removes it. The kernel tells which process holds
//! the lock (`Store::work`); this line only tells what it does.
//! Must never: fail a run because its status cannot be written, or decide anything.

use crate::base::text::printable;
use crate::base::time::rfc3339;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

/// Longest line that is written and read, in bytes.
pub const LINE_MAX_BYTES: u64 = 256;
/// Stands for an unknown percentage.
const UNKNOWN: &str = "-";

/// The line of this process, while it holds the lock.
static LINE: Mutex<Option<Line>> = Mutex::new(None);

struct Line {
    file: File,
    /// Command, process and time.
    head: String,
    phase: String,
    percent: Option<u8>,
}

/// A run that is working, or was cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Whether the lock is held now; otherwise the run was cut off.
    pub is_alive: bool,
    /// Its process id here; `None`: it is invisible, in a container.
    pub pid: Option<u32>,
    /// The command, if stated.
    pub command: Option<String>,
    /// Its current phase, in its own words.
    pub phase: Option<String>,
    /// Progress of that phase.
    pub percent: Option<u8>,
    /// Start time (RFC 3339).
    pub started_at: Option<String>,
}

/// Begins the line. Input: `file`: the lock file; `command`: the word that was typed; `now_secs`: since 1970.
pub fn begin(file: &File, command: &str, now_secs: u64) {
    let Ok(file) = file.try_clone() else { return };
    let head = format!("{command} {} {now_secs}", std::process::id());
    let line = Line { file, head, phase: String::new(), percent: None };
    line.write();
    put(Some(line));
}

/// Removes the line.
pub fn end() {
    put(None);
}

/// Removes the line before a restart, which runs no destructor. An unwritable file has no line.
pub fn leave() {
    if let Some(line) = LINE.lock().ok().and_then(|mut held| held.take()) {
        let _ = line.file.set_len(0);
    }
}

fn put(line: Option<Line>) {
    if let Ok(mut held) = LINE.lock() {
        *held = line;
    }
}

/// Writes the progress. Called often, but written at most a hundred times: data partitions are cheap flash, and the kernel
/// writes unsynced data out every few seconds.
/// Input: `phase`: the current one.
pub fn tell(phase: &str, percent: u8) {
    let Ok(mut held) = LINE.lock() else { return };
    let Some(line) = held.as_mut() else { return };
    if line.phase != phase || line.percent != Some(percent) {
        line.phase = phase.into();
        line.percent = Some(percent);
        line.write();
    }
}

impl Line {
    fn write(&self) {
        let percent = self.percent.map_or(UNKNOWN.into(), |percent| percent.to_string());
        let mut text = [&self.head, " ", &percent, " ", &printable(&self.phase)].concat();
        // Names from outside may be longer; a character is not split.
        while text.len() as u64 >= LINE_MAX_BYTES {
            text.pop();
        }
        text.push('\n');
        // The rest of a longer line stays after the newline.
        let _ = self.file.write_all_at(text.as_bytes(), 0);
    }
}

/// Reads such a line. Pure.
/// Returns: `None`: not such a line: no run has begun, or another agent writes differently.
pub fn read(bytes: &[u8]) -> Option<Work> {
    let text = std::str::from_utf8(bytes.split(|b| *b == b'\n').next()?).ok()?;
    let mut words = text.splitn(5, ' ');
    let command = words.next().filter(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()))?;
    let pid = words.next()?.parse().ok()?;
    let started: u64 = words.next()?.parse().ok()?;
    let percent = words.next()?;
    let phase = words.next()?;
    Some(Work {
        is_alive: false,
        pid: Some(pid),
        command: Some(command.into()),
        phase: Some(printable(phase)).filter(|phase| !phase.is_empty()),
        percent: percent.parse().ok().filter(|percent| *percent <= 100),
        started_at: Some(rfc3339(started)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written_and_nothing_else_is_one() {
        let work = |phase: Option<&str>, percent| Work {
            is_alive: false,
            pid: Some(1234),
            command: Some("apply".into()),
            phase: phase.map(str::to_string),
            percent,
            started_at: Some("2026-11-22T20:00:00Z".into()),
        };
        for (line, read_as) in [
            ("apply 1234 1795377600 - \n", Some(work(None, None))),
            ("apply 1234 1795377600 43 vmlinuz\n", Some(work(Some("vmlinuz"), Some(43)))),
            // The rest of a longer line.
            ("apply 1234 1795377600 100 reading back\n 7 z\n", Some(work(Some("reading back"), Some(100)))),
            ("apply 1234 1795377600 101 x\n", Some(work(Some("x"), None))),
            ("apply 1234 1795377600 -1 x\n", Some(work(Some("x"), None))),
            ("apply 1234 1795377600 5 \x1b[31m\n", Some(work(Some("\u{fffd}[31m"), Some(5)))),
            ("", None),
            ("\n", None),
            ("apply", None),
            ("apply 1234 1795377600 5", None),
            ("App; 1234 1795377600 5 x\n", None),
            ("apply -1 1795377600 5 x\n", None),
            ("apply 1234 soon 5 x\n", None),
            (" 1234 1795377600 5 x\n", None),
        ] {
            assert_eq!(read(line.as_bytes()), read_as, "{line:?}");
        }
        assert_eq!(read(b"apply 1 2 3 \xff\n"), None);
    }

    #[test]
    fn what_is_told_is_short_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let line = Line {
            file: File::create(&path).unwrap(),
            head: "apply 7 1795377600".into(),
            phase: "€".repeat(500),
            percent: Some(5),
        };
        line.write();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() as u64 <= LINE_MAX_BYTES, "{}", bytes.len());
        let work = read(&bytes).unwrap();
        assert_eq!((work.pid, work.percent), (Some(7), Some(5)));
        assert!(work.phase.unwrap().chars().all(|c| c == '€'));
    }
}
