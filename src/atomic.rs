//! Small files as a whole: read up to a limit; replaced by temporary file, fsync, rename, fsync of the directory.
//!
//! Replacing is for ext4 only (state, slot record). Must never: be used on the EFI partition, where GRUB
//! reads without a journal and a rename is not safe (see grubenv_file.rs).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Reads a whole small file.
/// Returns: `None` if it is not there.
/// Errors: InvalidData: it is longer than `max_bytes`, or no file (a named pipe would be waited for).
pub fn read_bounded(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {max_bytes} bytes")));
    }
    Ok(Some(bytes))
}

/// The same for a file that has to be there. Errors: NotFound: it is not.
pub fn read_required(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no such file");
    read_bounded(path, max_bytes)?.ok_or_else(missing)
}

/// Writes `bytes` to `path`, wholly or not at all.
/// Power cut: the old content or the new, never a mixture; perhaps a stray `.tmp` beside it, which the next
/// write replaces.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_as(path, bytes, None)
}

/// The same, with the permissions that the file is to have from its first instant.
pub fn replace_with_mode(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_as(path, bytes, Some(mode))
}

fn replace_as(path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?.to_os_string();
    name.push(".tmp");
    let temporary = dir.join(name);
    let written = write_durably(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The error that matters is the one in hand; the temporary is replaced by the next write anyway.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(dir)
}

fn write_durably(path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // A link that somebody else put there is not followed: the next write finds it removed.
    let mut file = options.write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes renames and removals in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes a file if it is there, and makes that durable.
/// Returns: whether there was one.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    }
    if let Some(dir) = path.parent() {
        sync_dir(dir)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_an_error_and_waits_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        for odd in [&path, dir.path(), Path::new("/dev/zero")] {
            assert!(read_bounded(odd, 10).unwrap_err().to_string().contains("no file"), "{}", odd.display());
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
        fs::create_dir(dir.path().join("state.json.tmp")).unwrap();
        assert!(replace(&path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
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
