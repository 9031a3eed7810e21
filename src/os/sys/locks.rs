//! Locks and marks on files: they end with the process.

use super::call::{Access, check};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Takes an exclusive lock that ends with the process.
/// Returns: false if another process holds it.
pub fn try_lock(file: &File) -> io::Result<bool> {
    try_lock_for(file, Access::Write)
}

/// The same, or a shared lock for reading.
pub fn try_lock_for(file: &File, access: Access) -> io::Result<bool> {
    let kind = if access == Access::Read { libc::LOCK_SH } else { libc::LOCK_EX };
    // SAFETY: the descriptor stays open during the call.
    match check(unsafe { libc::flock(file.as_raw_fd(), kind | libc::LOCK_NB) }) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Marks a file as this process's, for callers of [`marked_by`]: it excludes no process, and ends with this one.
/// Source: fcntl(2), advisory record locks. Closing any descriptor of that file ends it as well.
pub fn mark(file: &File) -> io::Result<()> {
    let mark = whole_file();
    // SAFETY: the descriptor stays open during the call, and the structure is only read.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const mark) })
}

/// Returns which process has marked a file, without taking the mark.
/// Returns: `None`: not marked; 0: by a process that is invisible here, in another container.
pub fn marked_by(file: &File) -> io::Result<Option<u32>> {
    let mut mark = whole_file();
    // SAFETY: the descriptor is open, and the structure, which the call fills, outlives it.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut mark) })?;
    let is_marked = i32::from(mark.l_type) != libc::F_UNLCK;
    Ok(is_marked.then(|| u32::try_from(mark.l_pid).unwrap_or(0)))
}

fn whole_file() -> libc::flock {
    // SAFETY: all fields are numbers, for which zero is a value.
    let mut mark: libc::flock = unsafe { std::mem::zeroed() };
    mark.l_type = libc::F_WRLCK as libc::c_short;
    mark.l_whence = libc::SEEK_SET as libc::c_short;
    mark
}
