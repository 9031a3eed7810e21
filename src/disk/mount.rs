//! Mounts partitions out of sight: in no directory and in no namespace (docs/decisions/0011).
//!
//! A killed agent leaves no mounts behind, and a running one keeps no other process's mounts busy.
//! Must never: mount a slot for writing that another process has mounted, replay a slot's journal when only reading was
//! requested, or return in another namespace than it was called in.

use crate::base::error::{self, Course, Error, IoContext, Kind, Result};
use crate::disk::partition::{self, BIND_HINT, EFI, Partition};
use crate::disk::superblock::FileSystem;
use crate::os::mountinfo::{self, find_mounts};
use crate::os::progress::note;
use crate::os::sys::{self, Access, FileSystemContext, MountNamespace};
use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A mounted file system; if mounted here, unmounted when dropped.
pub struct Mounted {
    dir: PathBuf,
    ours: Option<File>,
    alone: Option<Partition>,
    _hold: Option<Hold>,
}

/// Keeps other runs of this agent away from a partition, whatever state file and namespace they use: a writer excludes all
/// others, a reader excludes writers.
pub struct Hold {
    _device: File,
}

/// Mounts a partition, or for reading uses an existing mount. What others have mounted for writing may be mounted for writing
/// here as well: sufficient for files with their own locks.
/// Errors: Device: not root, no file system, visibly mounted while writing was requested. Busy: mounted the other way.
pub fn mount(part: &Partition, access: Access) -> Result<Mounted> {
    let hold = match mounted_at(part) {
        Some(dir) if access == Access::Read => return Ok(Mounted { dir, ours: None, alone: None, _hold: None }),
        Some(dir) => return Err(mounted_in_sight(part, &dir)),
        None => hold(part, access)?,
    };
    let mut mounted = mount_with(part, access, false)?;
    mounted._hold = Some(hold);
    Ok(mounted)
}

/// Mounts a slot for writing, if no other process has it mounted, anywhere.
/// Input: `hold`: taken on it for writing, so that no other run of this agent is at work on it.
/// Errors: as [`mount`]. Device, in use: another process has it mounted, in another namespace or outside of this chroot.
pub fn mount_alone(part: &Partition, _hold: &Hold) -> Result<Mounted> {
    match mounted_at(part) {
        Some(dir) => Err(mounted_in_sight(part, &dir)),
        None => mount_with(part, Access::Write, true),
    }
}

fn mounted_in_sight(part: &Partition, dir: &Path) -> Error {
    Error::new(Kind::Device, format!("it is mounted at {}", dir.display()))
        .at("write to", format!("{} ({})", part.label, part.name))
        .hint("unmount it, then try again")
        .taking(Course::InUse)
}

/// Called with a [`Hold`]: any other mount then belongs to a process other than this agent.
fn mount_with(part: &Partition, access: Access, alone: bool) -> Result<Mounted> {
    let what = format!("{} ({})", part.label, part.name);
    let (fstype, options) = match (partition::probe(&part.node)?, access) {
        (FileSystem::Ext { .. }, Access::Read) => ("ext4", "noload"),
        (FileSystem::Ext { .. }, Access::Write) => ("ext4", "errors=remount-ro"),
        (FileSystem::Fat { .. }, _) if part.label == EFI => ("vfat", "umask=077"),
        (FileSystem::Fat { .. }, _) => {
            let why = "it has a FAT file system where an ext4 has to be";
            return Err(Error::new(Kind::Device, why).at("mount", what).taking(Course::Damaged));
        }
        (FileSystem::Unknown, _) => {
            let why = "it has neither an ext4 nor a FAT file system";
            return Err(Error::new(Kind::Device, why).at("mount", what).taking(Course::Damaged));
        }
    };
    let order = Order { device: &part.node, fstype, options, access, alone, errno: Cell::new(None) };
    let file = match wait_while_busy(busy_limit(access), || order.carry_out()) {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            let why = "another process has it mounted, in another mount namespace or outside of this chroot";
            return Err(Error::new(Kind::Device, why).at("mount", what).taking(Course::InUse).hint(format!(
                "`grep {} /proc/[0-9]*/mountinfo`, outside of a chroot, finds the mount: unmount it, then try again",
                part.name
            )));
        }
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            let denied = |e: Error| e.hint("mounting needs root").taking(Course::Denied);
            return Err(e).io(Kind::Device, "mount", what).map_err(denied);
        }
        mounted => mounted.io(Kind::Device, "mount", &what).map_err(|e| match order.errno.get() {
            // What the kernel reports for an invalid superblock, journal or root directory.
            Some(libc::EUCLEAN | libc::EBADMSG | libc::EINVAL | libc::EIO | libc::ESTALE) => e.taking(Course::Damaged),
            // Nothing is known of the file system then.
            Some(libc::EACCES | libc::EROFS) if access == Access::Write && part.is_read_only() => {
                e.taking(Course::Fault).hint(part.read_only_hint())
            }
            _ => e,
        })?,
    };
    let dir = path_of(&file).map_err(|e| e.at("mount", what))?;
    error::call_it(&dir.to_string_lossy(), &part.label);
    Ok(Mounted { dir, ours: Some(file), alone: alone.then(|| part.clone()), _hold: None })
}

/// Returns the path to a mount that is in no directory: through the process's own descriptors.
fn path_of(file: &File) -> Result<PathBuf> {
    let dir = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata().map(identity), fs::metadata(&dir).map(identity)) {
        (Ok(ours), Ok(there)) if ours == there => Ok(dir),
        _ => Err(Error::new(Kind::Device, "/proc does not show this process").hint(BIND_HINT)),
    }
}

/// What to mount, and how.
struct Order<'a> {
    device: &'a Path,
    fstype: &'a str,
    options: &'a str,
    access: Access,
    alone: bool,
    /// The kernel's last error: `io::Error` has its words as well.
    errno: Cell<Option<i32>>,
}

impl Order<'_> {
    fn carry_out(&self) -> io::Result<File> {
        self.try_out().map_err(|(errno, error)| {
            self.errno.set(errno);
            error
        })
    }

    fn try_out(&self) -> std::result::Result<File, (Option<i32>, io::Error)> {
        let failed = |e: io::Error| (e.raw_os_error(), e);
        if self.alone {
            // Closed again immediately: the kernel does not let us mount what we claim ourselves.
            sys::claim(self.device).map_err(failed)?;
        }
        match FileSystemContext::open(self.fstype) {
            Ok(context) => self.detached(&context).map_err(|e| match context.said() {
                said if said.is_empty() => failed(e),
                said => (e.raw_os_error(), io::Error::new(e.kind(), format!("{}: {said}", error::words(&e)))),
            }),
            // A kernel before 5.2, or a container whose filter is older than that.
            Err(e) if [libc::ENOSYS, libc::EPERM].map(Some).contains(&e.raw_os_error()) => self.aside().map_err(failed),
            Err(e) => Err(failed(e)),
        }
    }

    fn detached(&self, context: &FileSystemContext) -> io::Result<File> {
        context.set("source", Some(self.device))?;
        if self.access == Access::Read {
            context.set("ro", None)?;
        }
        for option in self.options.split(',') {
            let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(Path::new(v))));
            context.set(name, value)?;
        }
        match context.create(self.alone) {
            // Then the claim has to suffice: since it was closed, only a mount by hand can have intervened.
            Err(e) if self.alone && e.raw_os_error() == Some(libc::EOPNOTSUPP) => context.create(false)?,
            created => created?,
        }
        context.mount(self.access)
    }

    /// The same for older kernels: mounts in a copy of the namespace, keeps only the mount, and returns, which ends the copy
    /// and everything it kept busy. If the run is killed, the copy ends as well.
    fn aside(&self) -> io::Result<File> {
        let home = MountNamespace::current()?;
        // First of all: a process that may do this may return.
        home.enter()?;
        sys::unshare_mounts()?;
        let mounted = self.over_proc();
        if let Err(e) = home.enter() {
            // The root directory may have changed: no path can be trusted.
            note(&format!("leave a mount namespace of its own: {e}; this run ends here"));
            std::process::exit(i32::from(Kind::Internal.exit_code()));
        }
        mounted
    }

    /// Mounts over the only directory that always exists and is a mount point, in a chroot as well; no other process sees it.
    fn over_proc(&self) -> io::Result<File> {
        let dir = Path::new("/proc");
        // All mounts if possible, so that what is unmounted meanwhile is unmounted here as well.
        sys::follow_mounts(Path::new("/"), true).or_else(|_| sys::follow_mounts(dir, false)).map_err(|e| {
            io::Error::new(e.kind(), format!("neither / nor /proc is a mount point: {e} ({BIND_HINT})"))
        })?;
        sys::mount(self.device, dir, self.fstype, self.access, self.options)?;
        sys::open_dir(dir)
    }
}

/// How long a mount refused as busy is retried. A reader is done in milliseconds, so a writer waits for it; a writer may take
/// minutes, so a reader reports it instead.
const WRITE_BUSY_LIMIT: Duration = Duration::from_secs(3);
const READ_BUSY_LIMIT: Duration = Duration::from_millis(300);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

fn busy_limit(access: Access) -> Duration {
    match access {
        Access::Read => READ_BUSY_LIMIT,
        Access::Write => WRITE_BUSY_LIMIT,
    }
}

/// The kernel mounts one file system read-only or read-write, not both: a reader keeps a writer out.
fn wait_while_busy<T>(limit: Duration, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && start.elapsed() < limit => {
                std::thread::sleep(BUSY_PAUSE);
            }
            ended => return ended,
        }
    }
}

/// Takes a partition for this run, for reading or for writing.
/// Errors: Busy: another run is at work on it, or seems to be: a lock does not tell its owner. Device: no such device.
pub fn hold(part: &Partition, access: Access) -> Result<Hold> {
    let what = format!("{} ({})", part.label, part.name);
    let opened = File::open(&part.node);
    let is_denied = opened.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
    let device = opened.io(Kind::Device, "open", &what).map_err(|e| match is_denied {
        true => e.hint(partition::ROOT_HINT).taking(Course::Denied),
        false => e.hint(BIND_HINT),
    })?;
    let held = wait_while_busy(busy_limit(access), || match sys::try_lock_for(&device, access)? {
        true => Ok(()),
        false => Err(io::ErrorKind::ResourceBusy.into()),
    });
    match held {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            let why = "another run is at work on it, or some other program holds a lock on it";
            let next = format!("wait until that ends; `fuser {}` shows who has it open", part.node.display());
            Err(Error::new(Kind::Busy, why).at("lock", what).hint(next))
        }
        held => held.io(Kind::Device, "lock", what).map(|()| Hold { _device: device }),
    }
}

impl Mounted {
    /// Returns where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unmounts. A slot mounted for writing alone is then written out, and free.
    /// Errors: Device: a file on it is still open, here or by a process that looked through this process's descriptors.
    pub fn unmount(mut self) -> Result<()> {
        self.close();
        let Some(part) = self.alone.take() else { return Ok(()) };
        // An open file keeps the file system alive, without an error on closing. The superblock shows it, unless another
        // process has opened it meanwhile.
        let free = || match sys::claim(&part.node) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && is_clean(&part) => File::open(&part.node),
            claimed => claimed,
        };
        let freed = wait_while_busy(WRITE_BUSY_LIMIT, free).io(Kind::Device, "unmount", &part.label);
        freed.map(drop).map_err(|e| e.hint("a file on it is still open"))
    }

    fn close(&mut self) {
        if let Some(file) = self.ours.take() {
            error::call_it(&self.dir.to_string_lossy(), "");
            // The kernel unmounts before this returns, unless a file on it is open.
            drop(file);
        }
    }
}

fn is_clean(part: &Partition) -> bool {
    matches!(partition::probe_on_disk(&part.node), Ok(FileSystem::Ext { needs_recovery: false, .. }))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.close();
    }
}

/// Returns where a whole partition is visibly mounted in this namespace.
pub fn mounted_at(part: &Partition) -> Option<PathBuf> {
    let table = mountinfo::table().ok()?;
    find_mounts(&table, &part.device_number)
        .into_iter()
        .find(|dir| number_of(dir).as_ref() == Some(&part.device_number))
}

/// Returns the number of the device whose whole file system a directory shows; `None` for a bind mount of a subdirectory, or a
/// mount that another one covers.
pub fn device_at(dir: &Path) -> Option<String> {
    let (dir, table) = (fs::canonicalize(dir).ok()?, mountinfo::table().ok()?);
    let number = number_of(&dir)?;
    find_mounts(&table, &number).contains(&dir).then_some(number)
}

fn number_of(dir: &Path) -> Option<String> {
    let device = fs::metadata(dir).ok()?.dev();
    Some(format!("{}:{}", libc::major(device), libc::minor(device)))
}
