//! Small files as a whole: read up to a limit; replaced by temporary file, fsync, rename, fsync of the directory.
//!
//! The only access to the agent's own files. Anything may lie in their place, made by another program, a damaged file system or
//! the kubelet (for a missing hostPath). What is not a regular file is never opened (a pipe would block, a device may react)
//! and never written through, but moved aside; what is mounted there stays, and the operator is told. Replacing is for ext4
//! only (state, slot record).
//! Must never: be used to write on the EFI partition, where GRUB reads without a journal and a rename is not safe (see
//! grubenv_file.rs); remove anything on what is mounted at a path or below it, whatever it is mounted from.

use crate::os::obstacles::{in_the_way, in_use, set_aside};
use crate::os::paths::{parent, sync_dir, with_ending};
use crate::os::sys;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

/// Begins the extension of a file that is being written; each writer adds its own end.
pub const TEMPORARY: &str = ".tmp-";
/// Most names tried for a temporary file.
const NAME_TRIES: u32 = 8;

/// Reads a whole small file that another program provides, through links.
/// Returns: `None` if it is not there.
/// Errors: InvalidData: it is longer than `max_bytes`, or not a file (a named pipe would block).
pub fn read_bounded(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    read(path, max_bytes, 0)
}

/// The same for one of the agent's own files: a link does not count.
/// Errors: InvalidData: it is too long, or something else is in its place. Any other: it could not be read, and its content is
/// unknown.
pub fn read_own(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    match in_the_way(path)? {
        Some(what) => Err(io::Error::new(ErrorKind::InvalidData, format!("not a regular file but {what}"))),
        None => read(path, max_bytes, libc::O_NOFOLLOW),
    }
}

fn read(path: &Path, max_bytes: u64, flags: i32) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path, flags) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match file.metadata()?.is_file() {
        true => read_all(file, max_bytes).map(Some),
        false => Err(io::Error::new(ErrorKind::InvalidData, "not a regular file")),
    }
}

/// Opens a file for reading without blocking on a pipe. Input: `flags`: further ones.
pub fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | flags).open(path)
}

/// Reads an open file to its end. Errors: InvalidData: it is longer than `max_bytes`.
pub(super) fn read_all(file: File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max_bytes {
        true => Err(io::Error::new(ErrorKind::InvalidData, format!("longer than {max_bytes} bytes"))),
        false => Ok(bytes),
    }
}

/// The same as [`read_bounded`] for a required file. Errors: NotFound: it does not exist.
pub fn read_required(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let missing = || io::Error::new(ErrorKind::NotFound, "there is no such file");
    read_bounded(path, max_bytes)?.ok_or_else(missing)
}

/// Describes what an operator can do about a file that could not be read.
pub fn way_out(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
            "the machine is short of memory or of open files: try again"
        }
        Some(libc::ENOTDIR | libc::ELOOP) => {
            "something else lies in the place of its directory: `apply` moves that aside"
        }
        Some(libc::EACCES | libc::EPERM) => "run it as root, and look at the permissions",
        _ => "look at the kernel's log, and check the file system with fsck",
    }
}

/// Writes `bytes` to `path`, completely or not at all. Of concurrent writers, one wins.
/// Power cut: the old content or the new, never a mixture; perhaps a stray temporary file beside it, which the next write
/// removes.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_as(path, bytes, None)
}

/// The same, with the file's permissions set from the start.
pub fn replace_with_mode(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_as(path, bytes, Some(mode))
}

fn replace_as(path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    // The descriptor holds the lock until the rename is done.
    let (temporary, mut file) = temporary(path)?;
    let written = write_durably(&mut file, bytes, mode).and_then(|()| rename_over(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(parent(path)?)
}

fn rename_over(temporary: &Path, path: &Path) -> io::Result<()> {
    let renamed = fs::rename(temporary, path);
    match renamed.as_ref().map_err(io::Error::kind) {
        Err(ErrorKind::IsADirectory) => drop(set_aside(path)?),
        Err(ErrorKind::PermissionDenied) => [parent(path)?, path].into_iter().for_each(sys::allow_changes),
        _ => return renamed.map_err(|e| in_use(e, &[path])),
    }
    fs::rename(temporary, path)
}

/// Creates and locks a file beside `path` that no other process writes to. Removes left-overs of killed runs.
fn temporary(path: &Path) -> io::Result<(PathBuf, File)> {
    let prefix = with_ending(path, TEMPORARY)?;
    remove_left_over(&prefix);
    let mut result = Err(ErrorKind::AlreadyExists.into());
    let is_first = |e: &io::Error| e.kind() == ErrorKind::AlreadyExists;
    for _ in 0..NAME_TRIES {
        let name = with_ending(&prefix, &format!("{:x}-{:x}", process::id(), sys::random_u64()))?;
        // Follows no link and replaces nothing.
        match OpenOptions::new().write(true).create_new(true).open(&name) {
            Ok(file) => {
                // Between the two, another run may have removed it as a left-over; never where locks are unsupported.
                let is_ours = sys::try_lock(&file).unwrap_or(true) && file.metadata()?.nlink() > 0;
                if is_ours {
                    return Ok((name, file));
                }
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) if e.kind() == ErrorKind::PermissionDenied && result.as_ref().is_err_and(is_first) => {
                sys::allow_changes(parent(path)?);
                result = Err(e);
            }
            Err(e) => {
                result = Err(e);
                break;
            }
        }
    }
    result
}

/// Removes temporary files without a lock: their writers have ended.
fn remove_left_over(prefix: &Path) {
    let (Ok(dir), Some(prefix)) = (parent(prefix), prefix.file_name()) else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            continue;
        }
        let path = entry.path();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if let (true, Ok(file)) = (is_file, open(&path, libc::O_NOFOLLOW))
            && sys::try_lock(&file).unwrap_or(false)
        {
            // Still locked: a process that has just created it notices the removal.
            let _ = fs::remove_file(&path);
        }
    }
}

fn write_durably(file: &mut File, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::obstacles::remove;

    #[test]
    fn what_is_no_file_is_an_error_and_waits_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        for odd in [&path, dir.path(), Path::new("/dev/zero")] {
            assert!(read_bounded(odd, 10).unwrap_err().to_string().contains("not a regular file"), "{}", odd.display());
        }
        let gone = dir.path().join("gone");
        assert_eq!(read_bounded(&gone, 10).unwrap(), None);
        assert_eq!(read_required(&gone, 10).unwrap_err().to_string(), "there is no such file");
    }

    #[test]
    fn replaces_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, b"one").unwrap();
        let full = File::options().write(true).open("/dev/full");
        assert_eq!(write_durably(&mut full.unwrap(), b"two", None).unwrap_err().kind(), ErrorKind::StorageFull);
        // No name can be that long.
        assert!(replace(&dir.path().join("n".repeat(250)), b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_killed_runs_left_goes_and_what_is_being_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let (at_work, _file) = temporary(&path).unwrap();
        for name in ["state.json.tmp-1-2", "state.json.tmp-", "state.json.tmp-f-ffff"] {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let others = ["other.json.tmp-1-2", "state.json.tmp", "state.json.bak"].map(|name| dir.path().join(name));
        others.iter().for_each(|other| fs::write(other, "theirs").unwrap());
        replace(&path, b"one").unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let mut expected = [vec![path, at_work], others.to_vec()].concat();
        left.sort();
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn removal_says_whether_it_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot.json");
        assert!(!remove(&path).unwrap());
        fs::write(&path, b"x").unwrap();
        assert!(remove(&path).unwrap());
        assert!(!path.exists());
    }
}
