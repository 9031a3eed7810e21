//! The threads beside the one that receives a file: they check an initramfs, and read back what is durable, while the rest
//! still arrives.
//!
//! The file itself is what they share: a checker reads from the page cache what is written, the reader from the device what is
//! checked too, so that it may drop the cache first. Memory is one buffer for each thread, and one for what is unpacked.
//! Must never: outlive its [`Flow`], or read back what has not been made durable.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::sys;
use crate::os::sys::thread::{Thread, lock};
use crate::slot::initramfs::{Accepted, Judge};
use crate::slot::readback::{BUFFER, Hashing};
use crate::slot::record::FileRecord;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes made durable and read back at once: each costs a commit of the journal.
pub(super) const STRETCH: u64 = if cfg!(test) { 2 << 20 } else { 16 << 20 };
/// Bytes after which a thread tells the others how far it is.
const NEWS: u64 = 1 << 20;
/// Most layers checked side by side.
const CHECKERS: usize = 2;
/// Stack of each thread.
pub(super) const STACK_BYTES: usize = 256 << 10;
/// Position of a checker that needs no byte.
const NOTHING: u64 = u64::MAX;

/// What the threads found.
pub(super) struct Outcome {
    /// Length, digest and CRC-32 of what the device returned.
    pub(super) found: (FileRecord, u32),
    /// Of an initramfs: why it was refused.
    pub(super) refused: Option<String>,
    /// Whether that is only known of one of several layers, so that the whole must be judged.
    pub(super) is_doubt: bool,
}

struct State {
    written: u64,
    /// All is written.
    is_whole: bool,
    /// A fault somewhere: everything ends.
    is_over: bool,
    fault: Option<Error>,
    next_layer: usize,
    /// First byte that each checker still needs.
    needed: [u64; CHECKERS],
    refused: Option<String>,
    accepted: Accepted,
    read_back: u64,
    found: Option<(FileRecord, u32)>,
}

struct Shared {
    file: File,
    path: PathBuf,
    /// First byte and end of each layer to check.
    layers: Vec<(u64, u64)>,
    state: Mutex<State>,
    changed: Condvar,
}

/// The threads of one file. Dropping it ends and joins them.
pub(super) struct Flow {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    checkers: usize,
    has_reader: bool,
    written: u64,
}

impl Flow {
    /// Starts the threads. Where one cannot be started, [`Flow::finish`] does its work.
    /// Input: `layers`: see [`split`]; empty: nothing to check.
    pub(super) fn start(file: File, path: &Path, layers: Vec<(u64, u64)>, stack_bytes: usize) -> Flow {
        let checkers = layers.len().min(sys::cpus()).min(CHECKERS);
        let state = State {
            written: 0,
            is_whole: false,
            is_over: false,
            fault: None,
            next_layer: 0,
            needed: [NOTHING; CHECKERS],
            refused: None,
            accepted: Accepted::default(),
            read_back: 0,
            found: None,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { file, path: path.to_path_buf(), layers, state, changed });
        let mut threads = Vec::new();
        let mut start = |number: usize| {
            let work = shared.clone();
            threads.extend(Thread::start(stack_bytes, move || work.work(number)).ok());
            threads.len()
        };
        let running = (0..checkers).fold(0, |_, number| start(number));
        let has_reader = start(CHECKERS) > running;
        Flow { shared, threads, checkers: running, has_reader, written: 0 }
    }

    /// The file, for writing.
    pub(super) fn file(&self) -> &File {
        &self.shared.file
    }

    /// Adds bytes that lie in the file now. Errors: what a thread failed of.
    pub(super) fn add(&mut self, bytes: u64) -> Result<()> {
        let before = self.written;
        self.written += bytes;
        match before / NEWS == self.written / NEWS {
            true => Ok(()),
            false => self.tell(false),
        }
    }

    fn tell(&self, is_whole: bool) -> Result<()> {
        let mut state = self.shared.state();
        (state.written, state.is_whole) = (self.written, is_whole);
        self.shared.changed.notify_all();
        state.fault.take().map_or(Ok(()), Err)
    }

    /// Lets the threads finish: the file is whole.
    /// Input: `progress` receives the bytes read back, of what was read back before all at once.
    /// Errors: Device: it cannot be made durable or read.
    pub(super) fn finish(mut self, progress: &mut dyn FnMut(u64)) -> Result<Outcome> {
        self.tell(true)?;
        if self.checkers == 0 {
            self.shared.work(0);
        }
        if !self.has_reader {
            self.shared.work(CHECKERS);
        }
        let mut shown = 0;
        loop {
            let mut state = self.shared.state();
            while state.read_back == shown && state.found.is_none() && !state.is_over {
                state = self.shared.wait(state);
            }
            let (read_back, is_done) = (state.read_back, state.found.is_some() || state.is_over);
            drop(state);
            if read_back > shown {
                progress(read_back - shown);
                shown = read_back;
            }
            if is_done {
                break;
            }
        }
        self.join();
        let mut state = self.shared.state();
        match (state.fault.take(), state.found.take()) {
            (None, Some(found)) => {
                let is_several = self.shared.layers.len() > 1;
                let refused = state.refused.take().or_else(|| state.accepted.refusal().filter(|_| is_several));
                Ok(Outcome { found, is_doubt: refused.is_some() && is_several, refused })
            }
            (fault, _) => Err(fault.unwrap_or_else(|| Error::new(Kind::Device, "it was not read back"))),
        }
    }

    fn join(&mut self) {
        self.threads.drain(..).for_each(Thread::join);
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.changed.notify_all();
        self.join();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the work of a thread. Input: `number`: of a checker, or [`CHECKERS`] for the reader.
    fn work(&self, number: usize) {
        let done = if number < CHECKERS { self.check(number) } else { self.read_back() };
        if let Err(fault) = done {
            let mut state = self.state();
            state.is_over = true;
            state.fault.get_or_insert(fault);
            self.changed.notify_all();
        }
    }

    fn check(&self, number: usize) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        while let Some((from, to)) = self.next_layer(number) {
            let Some(verdict) = self.judge(number, (from, to), &mut buffer)? else { break };
            let mut state = self.state();
            let refusal = match verdict {
                Ok(accepted) => {
                    state.accepted.add(&accepted);
                    state.accepted.refusal().filter(|_| state.accepted.is_too_large())
                }
                Err(why) => Some(why),
            };
            // The first fault; the rest is not worth reading.
            if let Some(why) = refusal {
                state.refused.get_or_insert(why);
                state.next_layer = self.layers.len();
            }
        }
        Ok(())
    }

    fn next_layer(&self, number: usize) -> Option<(u64, u64)> {
        let mut state = self.state();
        let layer = self.layers.get(state.next_layer).copied();
        state.next_layer += 1;
        state.needed[number] = layer.map_or(NOTHING, |(from, _)| from);
        self.changed.notify_all();
        layer
    }

    /// Judges one layer. Returns: the verdict, or nothing where all is over.
    /// Errors: Device: what was written cannot be read.
    fn judge(
        &self,
        number: usize,
        (from, to): (u64, u64),
        buffer: &mut [u8],
    ) -> Result<Option<std::result::Result<Accepted, String>>> {
        let (mut judge, mut at, mut told, mut ready) = (Judge::behind(from), from, from, 0);
        while at < to {
            if at == ready.max(from) || at - told >= NEWS {
                told = at;
                ready = match self.wait_for(number, at) {
                    Some(written) => written.min(to),
                    None => return Ok(None),
                };
            }
            let room = (ready - at).min(buffer.len() as u64) as usize;
            let read = self.file.read_exact_at(&mut buffer[..room], at);
            read.io(Kind::Device, "read", self.path.display())?;
            if let Err(why) = judge.update(&buffer[..room], &mut |_| {}) {
                return Ok(Some(Err(why)));
            }
            at += room as u64;
        }
        let is_last = self.layers.last().is_some_and(|(_, end)| *end == to);
        Ok(Some(if self.layers.len() == 1 {
            judge.finish().map(|()| Accepted::default())
        } else {
            judge.finish_part(is_last)
        }))
    }

    /// Says that a checker has come to a byte, and waits until it is written. Returns: the number of bytes written.
    fn wait_for(&self, number: usize, at: u64) -> Option<u64> {
        let mut state = self.state();
        state.needed[number] = at;
        self.changed.notify_all();
        loop {
            match state.written > at {
                _ if state.is_over => return None,
                true => return Some(state.written),
                false => state = self.wait(state),
            }
        }
    }

    /// Waits until a stretch behind `done` is written and checked, or everything. Returns: its end, and whether it is the last.
    fn next_stretch(&self, done: u64) -> Option<(u64, bool)> {
        let mut state = self.state();
        loop {
            if state.is_over {
                return None;
            }
            let waiting = self.layers.get(state.next_layer).map_or(NOTHING, |(from, _)| *from);
            let needed = state.needed.iter().fold(waiting, |least, at| least.min(*at));
            if state.is_whole && needed == NOTHING {
                return Some((NOTHING, true));
            }
            let ready = needed.min(state.written).saturating_sub(done);
            if ready >= STRETCH {
                return Some((done + ready / STRETCH * STRETCH, false));
            }
            state = self.wait(state);
        }
    }

    fn read_back(&self) -> Result<()> {
        let unkept = |e: Error| unkept(&self.path, e.to_string());
        let mut hashing: Option<Hashing> = None;
        let mut done = 0;
        while let Some((end, is_last)) = self.next_stretch(done) {
            self.file.sync_data().io(Kind::Device, "sync", self.path.display())?;
            // The pages are clean now; once dropped, a copy in memory cannot replace the device.
            let length = if is_last { 0 } else { end };
            sys::drop_cache_to(&self.file, length).io(Kind::Device, "drop the cache of", self.path.display())?;
            let open = match hashing.take() {
                Some(open) => open,
                None => Hashing::open(&self.path).map_err(unkept)?,
            };
            let open = hashing.insert(open);
            let mut told = done;
            while open.take(&self.path, end).map_err(unkept)? > 0 {
                done = open.size_bytes();
                if done - told >= NEWS {
                    told = done;
                    if self.tell_read_back(done) {
                        return Ok(());
                    }
                }
            }
            self.tell_read_back(done);
            if is_last {
                break;
            }
        }
        // Without, all is over.
        if let Some(hashing) = hashing {
            let mut state = self.state();
            if state.is_whole {
                state.found = Some(hashing.finish());
            }
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Returns whether all is over.
    fn tell_read_back(&self, bytes: u64) -> bool {
        let mut state = self.state();
        state.read_back = bytes;
        self.changed.notify_all();
        state.is_over
    }
}

/// The error of a disk that does not return what was written.
pub(super) fn unkept(path: &Path, why: String) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Error::new(Kind::Device, why)
        .at("prove", name.split(".part-").next().unwrap_or_default())
        .hint("the disk does not keep what is written to it: it may be failing")
}

/// Splits an initramfs into its layers. Where their lengths do not add up, the whole is one.
pub(super) fn split(lengths: &[u64], size_bytes: u64) -> Vec<(u64, u64)> {
    let mut layers = Vec::new();
    let mut at = 0u64;
    for length in lengths.iter().filter(|length| **length > 0) {
        let end = at.saturating_add(*length);
        layers.push((at, end));
        at = end;
    }
    if at == size_bytes && !layers.is_empty() { layers } else { vec![(0, size_bytes)] }
}

/// Judges a whole initramfs in one pass. Errors: the outer: it cannot be read; the inner: kernels do not unpack it whole.
pub(super) fn judge_whole(file: &File) -> io::Result<std::result::Result<(), String>> {
    let (mut judge, mut at, mut buffer) = (Judge::default(), 0, vec![0; BUFFER]);
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(judge.finish()),
            Ok(length) => {
                if let Err(why) = judge.update(&buffer[..length], &mut |_| {}) {
                    return Ok(Err(why));
                }
                at += length as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
