//! Lists a directory: one function for all callers, since each reader of std's own costs 300 bytes.
//!
//! Must never: omit an entry, or return part of a list after a read failed.

use std::cmp::Ordering;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Returns the paths of all entries of a directory, sorted by name.
/// Errors: it cannot be listed completely.
pub fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        paths.push(entry?.path());
    }
    paths.sort_unstable_by(by_bytes);
    Ok(paths)
}

/// Orders paths that differ only in their last part; one function for all callers.
#[expect(clippy::ptr_arg, reason = "what a slice of them is sorted by")]
fn by_bytes(a: &PathBuf, b: &PathBuf) -> Ordering {
    a.as_os_str().cmp(b.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    /// Compared with std's own order of paths.
    #[test]
    fn all_is_listed_in_the_order_of_names() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<Vec<u8>> =
            (0..60u8).map(|n| vec![b'z' - n % 26, b'!' + n]).filter(|n| !n.contains(&b'/')).collect();
        let odd = [&b"\xff"[..], b".hidden", b"a b", b"a", b"a.", b"a-b", b"B"];
        for name in names.iter().map(Vec::as_slice).chain(odd) {
            fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
        }
        fs::create_dir(dir.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let mut expected: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        expected.sort();
        assert_eq!(list(dir.path()).unwrap(), expected);
        assert_eq!(list(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(list(&dir.path().join("a")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
