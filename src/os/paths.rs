//! Directories and names beside a path.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

pub(super) fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(dir) => Ok(dir),
        None => Err(ErrorKind::InvalidInput.into()),
    }
}

pub(super) fn with_ending(path: &Path, ending: &str) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_os_string();
    name.push(ending);
    Ok(path.with_file_name(name))
}

/// Makes renames and removals in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
