//! The agent's files on the data partition: lock, state, failed artifacts.
//!
//! A broken file is set aside and reported, and never stops an update. A file that could not be read is not broken: it may be
//! readable next time, and until then nothing is decided by it or changed.
//! Must never: hold a second copy of the state in memory across commands.

use crate::base::error::{Error, IoContext, Kind, Result, legible};
use crate::ledger::failures::{FAILED_MAX_BYTES, Failures};
use crate::ledger::proven::{PROVEN_MAX_BYTES, Proven};
use crate::ledger::seen::{LastOffer, SEEN_MAX_BYTES};
use crate::ledger::state::{STATE_MAX_BYTES, State};
use crate::os::files::{self, read_own};
use crate::os::obstacles::{self, ASIDE, in_the_way, make_way, make_way_for_directory};
use crate::os::onlooker::{self, LINE_MAX_BYTES, Work};
use crate::os::progress::note;
use crate::os::sys;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The kernel's list of locks. Never below a `--root`: it belongs to this kernel.
const LOCKS: &str = "/proc/locks";

/// Advice where the agent's own file cannot be replaced.
const UNMOUNT: &str = "unmount it: the file is the agent's own";

/// Paths of the agent's files.
pub struct Store {
    state_file: PathBuf,
    /// The operator named the state file: another object in its place is not moved out of the way.
    is_named: bool,
    dir: PathBuf,
}

/// Held by the one run that may change anything; released when the process ends.
pub struct Lock {
    file: File,
    /// Whether the file may be written: it has no other hard link, which might be another program's file.
    is_ours: bool,
}

impl Lock {
    /// Publishes what this run does. Input: `command`: the word that was typed; `now_secs`: since 1970.
    pub fn tell(&self, command: &str, now_secs: u64) {
        if self.is_ours {
            onlooker::begin(&self.file, command, now_secs);
        }
    }

    /// An unwritable file holds no message.
    fn clear(&self) {
        if self.is_ours {
            let _ = self.file.set_len(0);
        }
    }
}

impl Drop for Lock {
    /// Clears the file: this run was not cut off.
    fn drop(&mut self) {
        onlooker::end();
        self.clear();
    }
}

/// A file's content, and what was wrong with it.
pub struct Kept<T> {
    /// The content; the default if the file is missing or broken.
    pub value: T,
    /// Why it could not be used.
    pub damage: Option<Error>,
    /// Whether its content is the cause, rather than the disk.
    is_broken: bool,
}

/// Everything remembered between runs.
#[derive(Default)]
pub struct Memory {
    /// The attempt's state.
    pub state: State,
    /// Artifacts that rolled back.
    pub failures: Failures,
    /// What was confirmed on this machine.
    pub proven: Proven,
    /// Messages for stderr on broken files.
    pub said: Vec<String>,
}

impl Store {
    /// Points at `update/` on the data partition. A `--state` file relocates only the state.
    pub fn new(data_dir: &Path, state_flag: Option<&Path>) -> Store {
        let dir = data_dir.join("update");
        let state_file = state_flag.map_or_else(|| dir.join("state.json"), Path::to_path_buf);
        Store { state_file, is_named: state_flag.is_some(), dir }
    }

    /// Returns the site's directory on the data partition, for the boot hook (docs/decisions/0010).
    pub fn site(&self) -> PathBuf {
        self.dir.with_file_name("site")
    }

    /// Takes the lock, creating the directory if need be.
    /// Errors: Busy: another run holds it. State: the data partition cannot be written.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.dir.join("lock");
        let busy = || {
            Error::new(Kind::Busy, "another run holds it").at("lock", path.display()).hint("wait until that run ends")
        };
        let open = |write: bool| {
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            OpenOptions::new().read(!write).write(write).create(write).truncate(false).custom_flags(flags).open(&path)
        };
        let make = || {
            self.make_way()?;
            fs::create_dir_all(&self.dir)?;
            make_way(&path)?;
            open(true)
        };
        // An unwritable file can still be locked, if an earlier run has created it.
        let file = match make() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(busy()),
            made => made.or_else(|e| match in_the_way(&path) {
                Ok(None) => open(false).map_err(|_| e),
                _ => Err(e),
            }),
        };
        let file = explain(file, "open", &path, "the data partition may be full, read-only or missing")?;
        if !sys::try_lock(&file).io(Kind::State, "lock", path.display())? {
            return Err(busy());
        }
        let is_ours = file.metadata().is_ok_and(|meta| meta.nlink() == 1);
        let lock = Lock { file, is_ours };
        // The remains of a run that was cut off do not apply to this one.
        lock.clear();
        let _ = sys::mark(&lock.file);
        Ok(lock)
    }

    /// Moves aside what is in the directory's place, unless the operator named the state file: then it may be the operator's.
    fn make_way(&self) -> io::Result<()> {
        if !self.is_named
            && let Some(what) = make_way_for_directory(&self.dir)?
        {
            let dir = legible(self.dir.display().to_string());
            note(&format!(
                "{dir}: not a directory but {what}; kept as {dir}{ASIDE}, and what was remembered counts as new"
            ));
        }
        Ok(())
    }

    /// Returns whether another run holds the lock, without taking it: that run must not find it taken.
    /// Source: proc_locks(5).
    pub fn is_locked(&self) -> bool {
        self.holder().is_some()
    }

    /// Finds the lock holder's process id; 0: not visible from here.
    fn holder(&self) -> Option<u32> {
        let (path, flags) = (self.dir.join("lock"), libc::O_NOFOLLOW | libc::O_NONBLOCK);
        // Only a run of this agent marks the file, but the mark is visible across containers.
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        if let Some(pid) = opened.ok().and_then(|file| sys::marked_by(&file).ok()?) {
            return Some(pid);
        }
        let meta = fs::symlink_metadata(path).ok()?;
        let dev = meta.dev();
        let identity = format!("{:02x}:{:02x}:{}", libc::major(dev), libc::minor(dev), meta.ino());
        let locks = fs::read_to_string(LOCKS).unwrap_or_default();
        let line = locks.lines().find(|line| line.contains("FLOCK") && line.split(' ').any(|word| word == identity))?;
        // `1: FLOCK  ADVISORY  WRITE 1234 07:01:12 0 EOF`
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        Some(words.iter().position(|word| *word == identity).and_then(|at| words[at - 1].parse().ok()).unwrap_or(0))
    }

    /// Describes the run that holds the lock, or was cut off while it did. The holder is the kernel's information: a process id
    /// read from a file may belong to another process by now.
    pub fn work(&self) -> Option<Work> {
        let holder = self.holder();
        let line = read_own(&self.dir.join("lock"), LINE_MAX_BYTES).ok().flatten();
        let said = line.and_then(|line| onlooker::read(&line));
        match holder {
            None => said,
            Some(pid) => {
                Some(Work { is_alive: true, pid: Some(pid).filter(|pid| *pid > 0), ..said.unwrap_or_default() })
            }
        }
    }

    /// Reads the state; a missing file means idle, and so does a broken one.
    pub fn state(&self) -> Kept<State> {
        match in_the_way(&self.state_file) {
            Ok(Some(what)) if self.is_named => {
                let error =
                    Error::new(Kind::Usage, format!("not a regular file but {what}")).hint("--state takes a file");
                Kept::faulty(error.at("read", self.state_file.display()), false)
            }
            _ => load(&self.state_file, STATE_MAX_BYTES, State::parse),
        }
    }

    /// Writes the state, durably.
    /// Errors: State: the data partition cannot be written.
    pub fn save_state(&self, state: &State) -> Result<()> {
        save(&self.state_file, &state.encode())
    }

    /// Reads the remembered failures.
    pub fn failures(&self) -> Kept<Failures> {
        load(&self.failed_file(), FAILED_MAX_BYTES, Failures::parse)
    }

    /// Writes the remembered failures, durably.
    /// Errors: State: the data partition cannot be written.
    pub fn save_failures(&self, failures: &Failures) -> Result<()> {
        save(&self.failed_file(), &failures.encode())
    }

    /// Reads the confirmed artifacts.
    pub fn proven(&self) -> Kept<Proven> {
        load(&self.proven_file(), PROVEN_MAX_BYTES, Proven::parse)
    }

    /// Writes the confirmed artifacts, durably.
    /// Errors: State: the data partition cannot be written.
    pub fn save_proven(&self, proven: &Proven) -> Result<()> {
        save(&self.proven_file(), &proven.encode())
    }

    fn proven_file(&self) -> PathBuf {
        self.dir.join("proven.json")
    }

    /// Reads what a source offered last, if known.
    pub fn seen(&self) -> Option<LastOffer> {
        LastOffer::parse(&read_own(&self.seen_file(), SEEN_MAX_BYTES).ok()??)
    }

    /// Writes the last offer. A failure costs only a few requests, so it is ignored.
    pub fn remember_seen(&self, seen: &LastOffer) {
        let text = seen.encode();
        if text.len() as u64 <= SEEN_MAX_BYTES && self.dir.is_dir() {
            let _ = files::replace(&self.seen_file(), text.as_bytes());
        }
    }

    fn seen_file(&self) -> PathBuf {
        self.dir.join("seen.json")
    }

    /// Reads everything without the lock, and moves nothing: a broken file counts as empty.
    pub fn glance(&self) -> Memory {
        let (state, failures, proven) = (self.state(), self.failures(), self.proven());
        let damage = [state.damage, failures.damage, proven.damage];
        let said = damage.iter().flatten().map(ToString::to_string).collect();
        Memory { state: state.value, failures: failures.value, proven: proven.value, said }
    }

    /// Reads everything under the lock; each file once, so that what is judged is what is used. Broken files are
    /// moved out of the way.
    /// Errors: State: a file could not be read: its content is unknown, and nothing was moved. Usage: `--state` names
    /// something other than a regular file.
    pub fn recall(&self) -> Result<Memory> {
        let (state, failures, proven) = (self.state(), self.failures(), self.proven());
        let faults = [
            (self.state_file.clone(), state.damage, state.is_broken),
            (self.failed_file(), failures.damage, failures.is_broken),
            (self.proven_file(), proven.damage, proven.is_broken),
        ];
        if let Some((_, Some(damage), _)) = faults.iter().find(|(_, damage, is_broken)| damage.is_some() && !is_broken)
        {
            return Err(damage.clone());
        }
        let mut said = Vec::new();
        for (path, damage, _) in faults {
            let Some(damage) = damage else { continue };
            said.push(match obstacles::set_aside(&path) {
                Ok(aside) => {
                    let kept = legible(aside.display().to_string());
                    format!("{damage}; kept as {kept} and counted as new")
                }
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                    format!("{damage}; it could not be moved aside: {e} ({UNMOUNT})")
                }
                Err(e) => format!("{damage}; it could not be moved aside: {e}"),
            });
        }
        Ok(Memory { state: state.value, failures: failures.value, proven: proven.value, said })
    }

    fn failed_file(&self) -> PathBuf {
        self.dir.join("failed.json")
    }
}

impl<T: Default> Kept<T> {
    /// Returns the value. Errors: State: the file could not be read, so its content is unknown.
    pub fn known(self) -> Result<T> {
        match self.damage {
            Some(damage) if !self.is_broken => Err(damage),
            _ => Ok(self.value),
        }
    }

    fn faulty(damage: Error, is_broken: bool) -> Kept<T> {
        Kept { value: T::default(), damage: Some(damage), is_broken }
    }
}

fn load<T: Default>(path: &Path, max_bytes: u64, parse: fn(&[u8]) -> Result<T>) -> Kept<T> {
    // A second try: a single failed read is common on cheap flash.
    let bytes = read_own(path, max_bytes).or_else(|_| read_own(path, max_bytes));
    let read = match bytes {
        Ok(Some(bytes)) => parse(&bytes),
        Ok(None) => Ok(T::default()),
        // A file that is too long, or not a regular file, needs no second look.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(Error::new(Kind::State, e.to_string())),
        Err(e) => {
            let error = Error::new(Kind::State, e.to_string()).hint(files::way_out(&e));
            return Kept::faulty(error.at("read", path.display()), false);
        }
    };
    match read {
        Ok(value) => Kept { value, damage: None, is_broken: false },
        Err(e) => Kept::faulty(e.at("read", path.display()), true),
    }
}

fn save(path: &Path, text: &str) -> Result<()> {
    explain(files::replace(path, text.as_bytes()), "write", path, "the data partition may be full or read-only")
}

/// Adds advice: for a mount at that path, or else the likely cause.
fn explain<T>(done: io::Result<T>, op: &str, path: &Path, likely: &str) -> Result<T> {
    let hint = match done.as_ref().map_err(io::Error::kind) {
        Err(io::ErrorKind::ResourceBusy) => UNMOUNT,
        Err(io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) => {
            "something else lies in the place of its directory: move that away"
        }
        _ => likely,
    };
    done.io(Kind::State, op, path.display()).map_err(|e| e.hint(hint))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
