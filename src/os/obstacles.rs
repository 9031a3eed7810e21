//! Obstacles in the place of our files and directories: described, set aside, removed.
//!
//! Must never: follow a link, or remove what an operator has mounted there.

use crate::base::error::legible;
use crate::os::mountinfo;
use crate::os::paths::{parent, sync_dir, with_ending};
use crate::os::sys;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// Suffix under which an obstacle or a malformed file is kept.
pub const ASIDE: &str = ".corrupt";

/// Describes what lies in the place of a file, without opening it; `None`: a file, or nothing.
pub fn in_the_way(path: &Path) -> io::Result<Option<&'static str>> {
    let mode = match fs::symlink_metadata(path) {
        Ok(meta) => meta.mode() & libc::S_IFMT,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(match mode {
        libc::S_IFREG => None,
        libc::S_IFDIR => Some("a directory"),
        libc::S_IFLNK => Some("a symbolic link"),
        libc::S_IFIFO => Some("a named pipe"),
        libc::S_IFSOCK => Some("a socket"),
        _ => Some("a device"),
    })
}

/// The same for a directory; a link to a directory counts as one.
pub(super) fn in_the_way_of_directory(path: &Path) -> io::Result<Option<&'static str>> {
    match in_the_way(path)? {
        None => Ok(path.try_exists()?.then_some("a file")),
        // What cannot be examined may be a directory.
        Some(what) => match fs::metadata(path) {
            Ok(meta) => Ok((!meta.is_dir()).then_some(what)),
            Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ELOOP) => Ok(Some(what)),
            Err(e) => Err(e),
        },
    }
}

/// Moves what is not a regular file out of the way of one. Input: a path of the agent's own.
/// Returns: what it was.
/// Errors: WouldBlock: another run is doing this.
pub fn make_way(path: &Path) -> io::Result<Option<&'static str>> {
    make_way_if(path, in_the_way)
}

/// The same for a directory.
pub fn make_way_for_directory(path: &Path) -> io::Result<Option<&'static str>> {
    make_way_if(path, in_the_way_of_directory)
}

pub(super) fn make_way_if(
    path: &Path,
    in_the_way: fn(&Path) -> io::Result<Option<&'static str>>,
) -> io::Result<Option<&'static str>> {
    if in_the_way(path)?.is_none() {
        return Ok(None);
    }
    // Of two concurrent runs, the second must not move the first one's new file aside.
    let dir = File::open(parent(path)?)?;
    if !sys::try_lock(&dir)? {
        return Err(ErrorKind::WouldBlock.into());
    }
    match in_the_way(path)? {
        Some(what) => set_aside(path).map(|_| Some(what)),
        None => Ok(None),
    }
}

/// Moves aside whatever lies at a path of the agent's own, replacing what was moved aside before.
/// Returns: its new path.
/// Errors: ResourceBusy: something is mounted there. Then, or if the path cannot be renamed at all, nothing was removed.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    use ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory, PermissionDenied};
    let aside = with_ending(path, ASIDE)?;
    let mut renamed = fs::rename(path, &aside);
    // First what is immutable, then what is in the way: each needs one more try.
    for _ in 0..2 {
        match renamed.as_ref().map_err(io::Error::kind) {
            Err(PermissionDenied) => [path, &aside].into_iter().for_each(sys::allow_changes),
            // A directory and a file do not replace one another, and nothing replaces a directory that is not empty.
            Err(IsADirectory | NotADirectory | DirectoryNotEmpty | AlreadyExists) => {
                remove(&aside)?;
            }
            _ => break,
        }
        renamed = fs::rename(path, &aside);
    }
    renamed.map_err(|e| in_use(e, &[path, &aside]))?;
    sync_dir(parent(path)?)?;
    Ok(aside)
}

/// Explains `Device or resource busy` for a path that cannot be removed: Linux does not refuse because of an open file.
pub(super) fn in_use(error: io::Error, paths: &[&Path]) -> io::Error {
    if error.kind() != ErrorKind::ResourceBusy {
        return error;
    }
    let there = paths.iter().find(|path| mountinfo::is_mounted_in(path)).or(paths.first());
    let there = there.map(|path| legible(path.display().to_string())).unwrap_or_default();
    io::Error::new(ErrorKind::ResourceBusy, format!("something is mounted at {there}, or in it"))
}

/// The same, as durable as the directory's next sync makes it.
/// Errors: NotFound: it does not exist. ResourceBusy: something is mounted there, or below it: then nothing is removed.
pub fn take_away(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            sys::allow_changes(path);
            fs::remove_file(path)
        }
        removed => removed,
    };
    match removed {
        // Otherwise a mount's content would be deleted before the directory proves to be busy.
        Err(e) if e.kind() == ErrorKind::IsADirectory => match mountinfo::is_mounted_in(path) {
            true => Err(ErrorKind::ResourceBusy.into()),
            false => remove_tree(path),
        },
        removed => removed,
    }
    .map_err(|e| in_use(e, &[path]))
}

pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            allow_changes_below(path);
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

/// Follows no link.
pub(super) fn allow_changes_below(path: &Path) {
    sys::allow_changes(path);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => allow_changes_below(&entry.path()),
            _ => sys::allow_changes(&entry.path()),
        }
    }
}

/// Durably removes whatever lies at a path of the agent's own.
/// Returns: whether anything was there.
pub fn remove(path: &Path) -> io::Result<bool> {
    match take_away(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        removed => removed?,
    }
    sync_dir(parent(path)?)?;
    Ok(true)
}
