//! Mounts partitions in a mount namespace of this process's own.
//!
//! Nobody else sees these mounts, and a killed agent leaves none behind.
//! Must never: mount a slot for writing that somebody else has mounted, or replay a slot's journal
//! when only reading was asked.

use crate::error::{Error, IoContext, Kind, Result};
use crate::partition::{self, Partition};
use crate::superblock::FileSystem;
use crate::sys::{self, Access};
use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the kernel tells this process what is mounted. Never below a `--root`: it is about the process.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Mounts partitions below one directory.
pub struct Mounts {
    dir: PathBuf,
    private: Cell<bool>,
}

/// A mounted file system; unmounted when dropped, if it was mounted here.
pub struct Mounted {
    dir: PathBuf,
    owned: bool,
    _lock: Option<File>,
}

impl Mounts {
    /// Prepares to mount below `dir`; nothing happens until the first mount.
    pub fn new(dir: PathBuf) -> Self {
        Mounts { dir, private: Cell::new(false) }
    }

    /// Mounts a partition privately, or for reading uses the mount that is there.
    /// Errors: Device: not root, no file system, mounted elsewhere while writing was asked.
    pub fn mount(&self, part: &Partition, access: Access) -> Result<Mounted> {
        if let Some(dir) = mounted_at(part) {
            if access == Access::Read {
                return Ok(Mounted { dir, owned: false, _lock: None });
            }
            return Err(Error::new(Kind::Device, format!("it is mounted at {}", dir.display()))
                .at("write to", format!("{} ({})", part.label, part.name))
                .hint("unmount it, then try again"));
        }
        let what = format!("{} ({})", part.label, part.name);
        let (fstype, options) = match (partition::probe(&part.node)?, access) {
            (FileSystem::Ext { .. }, Access::Read) => ("ext4", "noload"),
            (FileSystem::Ext { .. }, Access::Write) => ("ext4", "errors=remount-ro"),
            (FileSystem::Fat { .. }, _) => ("vfat", "umask=077"),
            (FileSystem::Unknown, _) => {
                return Err(Error::new(Kind::Device, "it has neither an ext4 nor a FAT file system").at("mount", what));
            }
        };
        self.enter()?;
        let dir = self.dir.join(&part.label);
        fs::create_dir_all(&dir).io(Kind::Device, "create mount point", dir.display())?;
        let lock = match access {
            Access::Read => None,
            Access::Write => Some(lock(part)?),
        };
        let limit = match access {
            Access::Read => READ_BUSY_LIMIT,
            Access::Write => WRITE_BUSY_LIMIT,
        };
        match wait_while_busy(limit, || sys::mount(&part.node, &dir, fstype, access, options)) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                return Err(Error::new(Kind::Busy, "another run is at work on it").at("mount", what));
            }
            mounted => mounted.io(Kind::Device, "mount", what)?,
        }
        Ok(Mounted { dir, owned: true, _lock: lock })
    }

    fn enter(&self) -> Result<()> {
        if !self.private.get() {
            sys::unshare_mounts()
                .io(Kind::Device, "enter", "a private mount namespace")
                .map_err(|e| e.hint("mounting needs root"))?;
            self.private.set(true);
        }
        Ok(())
    }
}

/// How long a mount that is refused as busy is tried again. A reader is done in milliseconds, so a writer waits for
/// it; a writer may take minutes, so a reader says so instead.
const WRITE_BUSY_LIMIT: Duration = Duration::from_secs(3);
const READ_BUSY_LIMIT: Duration = Duration::from_millis(300);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The kernel mounts one file system read-only or read-write, not both: whoever looks at it keeps a writer out.
fn wait_while_busy(limit: Duration, mut mount: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match mount() {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && start.elapsed() < limit => {
                std::thread::sleep(BUSY_PAUSE);
            }
            ended => return ended,
        }
    }
}

/// Keeps other writers away from a partition, whatever state file and namespace they use.
/// Errors: Busy: another run holds it.
fn lock(part: &Partition) -> Result<File> {
    let what = format!("{} ({})", part.label, part.name);
    let device = File::open(&part.node).io(Kind::Device, "open", &what)?;
    match sys::try_lock(&device).io(Kind::Device, "lock", &what)? {
        true => Ok(device),
        false => {
            Err(Error::new(Kind::Busy, "another run writes to it").at("lock", what).hint("wait until that run ends"))
        }
    }
}

impl Mounted {
    /// Returns where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unmounts and says so when that fails: a journal might be left.
    /// Errors: Device: a file on it is still open.
    pub fn unmount(mut self) -> Result<()> {
        if std::mem::take(&mut self.owned) {
            sys::unmount(&self.dir).io(Kind::Device, "unmount", self.dir.display())?;
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.owned {
            // Nothing to add to whatever error is on its way; the namespace ends with the process anyway.
            let _ = sys::unmount(&self.dir);
        }
    }
}

/// Returns where a whole partition is mounted in this namespace.
pub fn mounted_at(part: &Partition) -> Option<PathBuf> {
    let table = fs::read_to_string(MOUNTINFO).ok()?;
    find_mount(&table, &part.device_number)
}

/// Says whether something is mounted at a directory.
pub fn is_mount_point(dir: &Path) -> bool {
    let Ok(dir) = fs::canonicalize(dir) else { return false };
    let Ok(table) = fs::read_to_string(MOUNTINFO) else { return false };
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(&unescape(at)) == dir))
}

/// Source: proc(5), mountinfo: fields 3 (major:minor), 4 (root), 5 (mount point).
fn find_mount(table: &str, device_number: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let (number, root, at) = (fields.next()?, fields.next()?, fields.next()?);
        (number == device_number && root == "/").then(|| PathBuf::from(unescape(at)))
    })
}

/// Undoes the octal escapes of blank, tab, newline and backslash.
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
    fn finds_whole_mounts_only() {
        assert_eq!(find_mount(TABLE, "7:3"), Some(PathBuf::from("/mnt/a b\\c")));
        assert_eq!(find_mount(TABLE, "254:0"), Some(PathBuf::from("/")));
        assert_eq!(find_mount(TABLE, "7:31"), None);
        assert_eq!(find_mount("garbage\n\n", "7:3"), None);
    }

    #[test]
    fn the_root_is_a_mount_point_and_a_new_directory_is_not() {
        assert!(is_mount_point(Path::new("/")));
        assert!(!is_mount_point(tempfile::tempdir().unwrap().path()));
    }
}
