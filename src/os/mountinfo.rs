//! The table of mounts, `/proc/self/mountinfo`: which mounts this process sees.
//!
//! Must never: mount anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The kernel's list of this process's mounts. Never below a `--root`: it is about the process.
const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Room for the list of an ordinary machine; a longer one is read as well.
const USUAL_BYTES: usize = 8192;

/// Reads the list. In large pieces: it may change between two of them, and each costs the kernel as much.
pub(crate) fn table() -> io::Result<String> {
    let mut table = String::with_capacity(USUAL_BYTES);
    File::open(MOUNTINFO)?.read_to_string(&mut table)?;
    Ok(table)
}

/// Returns whether something is mounted at a directory.
pub fn is_mount_point(dir: &Path) -> bool {
    let Ok(dir) = fs::canonicalize(dir) else { return false };
    let Ok(table) = table() else { return false };
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(&unescape(at)) == dir))
}

/// Returns whether anything is mounted at a path or below it, as far as this process sees; also true if unknown. Device numbers
/// do not tell: another directory of the same file system may be mounted.
pub fn is_mounted_in(path: &Path) -> bool {
    // Not by its name: a mount without a directory is reached through a descriptor and has no name.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path);
    let real = opened.and_then(|file| fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())));
    let (Ok(path), Ok(table)) = (real, table()) else { return true };
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(&unescape(at)).starts_with(&path)))
}

/// Returns the mount points where a whole file system is the topmost mount. Pure.
/// Source: proc(5), mountinfo: fields 3 (major:minor), 4 (root), 5 (mount point); of two lines of one mount point, the later
/// hides the earlier (measured).
pub(crate) fn find_mounts(table: &str, device_number: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in table.lines() {
        let mut fields = line.split(' ').skip(2);
        let (Some(number), Some(root), Some(at)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let at = PathBuf::from(unescape(at));
        found.retain(|dir| *dir != at);
        if number == device_number && root == "/" {
            found.push(at);
        }
    }
    found
}

/// Decodes the octal escapes of blank, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut out = text.to_string();
    for (escape, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(escape, plain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n\
        31 22 7:3 /sub /mnt/part rw - ext4 /dev/loop0p2 rw\n\
        32 22 7:3 / /mnt/a\\040b\\134c rw - ext4 /dev/loop0p2 rw\n";

    #[test]
    fn finds_whole_mounts_on_top_only() {
        let found = |table: &str, number| find_mounts(table, number);
        assert_eq!(found(TABLE, "7:3"), [PathBuf::from("/mnt/a b\\c")]);
        assert_eq!(found(TABLE, "254:0"), [PathBuf::from("/")]);
        assert!(found(TABLE, "7:31").is_empty() && found("garbage\n\n", "7:3").is_empty());
        // Hidden by another disk, then by a directory of its own, then on top again.
        let mut table = TABLE.to_string();
        for (line, is_on_top) in [
            ("33 32 7:9 / /mnt/a\\040b\\134c rw - vfat /dev/loop1p1 rw\n", false),
            ("34 33 7:3 / /mnt/a\\040b\\134c rw - ext4 /dev/loop0p2 rw\n", true),
            ("35 34 7:3 /boot /mnt/a\\040b\\134c rw - ext4 /dev/loop0p2 rw\n", false),
        ] {
            table.push_str(line);
            assert_eq!(!found(&table, "7:3").is_empty(), is_on_top, "{line}");
        }
    }

    #[test]
    fn the_root_is_a_mount_point_and_a_new_directory_is_not() {
        assert!(is_mount_point(Path::new("/")));
        assert!(!is_mount_point(tempfile::tempdir().unwrap().path()));
    }
}
