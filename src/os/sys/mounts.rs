//! Mounts and mount namespaces.

use super::call::open_dir;
use super::call::{Access, c_path, check, descriptor};
use std::ffi::CStr;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Moves this thread to a private copy of the mount namespace; the copy ends with its last user.
/// Errors: EPERM without CAP_SYS_ADMIN.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: plain values; only this thread's view changes. Others only look names up, see `unshare_directories`.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })
}

/// Gives this thread its own root and working directory: the kernel lets no thread that shares them enter another mount
/// namespace. A failure is ignored: without this permission mounts fail as well.
pub fn unshare_directories() {
    // SAFETY: plain values; the change affects only this thread.
    let _ = unsafe { libc::unshare(libc::CLONE_FS) };
}

/// Hides mounts made below a mount point from other namespaces, but still receives their unmounts.
/// Input: `everything_below`: also for all mounts below it.
/// Errors: EINVAL: not a mount point.
pub fn follow_mounts(dir: &Path, everything_below: bool) -> io::Result<()> {
    let dir = c_path(dir)?;
    let flags = libc::MS_SLAVE | if everything_below { libc::MS_REC } else { 0 };
    // SAFETY: both strings are NUL-terminated and outlive the call; null is allowed for the unused arguments.
    check(unsafe { libc::mount(c"none".as_ptr(), dir.as_ptr(), std::ptr::null(), flags, std::ptr::null()) })
}

/// A mount namespace to return to.
pub struct MountNamespace {
    namespace: File,
    root: File,
    working_dir: Option<File>,
}

impl MountNamespace {
    /// Remembers the namespace, the root directory and the working directory of this process.
    pub fn current() -> io::Result<MountNamespace> {
        let namespace = File::open("/proc/self/ns/mnt")?;
        Ok(MountNamespace { namespace, root: open_dir(Path::new("/"))?, working_dir: open_dir(Path::new(".")).ok() })
    }

    /// Returns to it. What was mounted elsewhere meanwhile is no longer visible.
    /// Errors: EPERM without CAP_SYS_ADMIN and CAP_SYS_CHROOT. Afterwards the root directory may be another one: the process
    /// must not continue.
    pub fn enter(&self) -> io::Result<()> {
        // A thread that has just started may still share them with this one: setns fails then (EINVAL).
        unshare_directories();
        // SAFETY: plain values and open descriptors; no other thread shares its directories. setns also moves the root to that
        // of the namespace, so the original root, perhaps a chroot, is restored.
        unsafe {
            check(libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNS))?;
            check(libc::fchdir(self.root.as_raw_fd()))?;
            check(libc::chroot(c".".as_ptr()))?;
            // Typed paths may be relative to it.
            self.working_dir.as_ref().map_or(Ok(()), |dir| check(libc::fchdir(dir.as_raw_fd())))
        }
    }
}

/// Mounts a block device without set-uid, device nodes or programs, over a directory.
/// Input: `options`: file-system specific, comma-separated.
pub fn mount(device: &Path, dir: &Path, fstype: &str, access: Access, options: &str) -> io::Result<()> {
    let (device, dir) = (c_path(device)?, c_path(dir)?);
    let (fstype, options) = (CString::new(fstype)?, CString::new(options)?);
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_NOATIME;
    if access == Access::Read {
        flags |= libc::MS_RDONLY;
    }
    // SAFETY: all five strings outlive the call and are NUL-terminated.
    check(unsafe { libc::mount(device.as_ptr(), dir.as_ptr(), fstype.as_ptr(), flags, options.as_ptr().cast()) })
}

/// A file system being configured in the kernel (Linux 5.2, fsopen(2)).
pub struct FileSystemContext(File);

impl FileSystemContext {
    /// Begins one. Errors: ENOSYS: an older kernel. EPERM: without CAP_SYS_ADMIN, or a filter that does not know the call.
    /// ENODEV: the kernel lacks this file system.
    pub fn open(fstype: &str) -> io::Result<FileSystemContext> {
        let fstype = CString::new(fstype)?;
        // SAFETY: a NUL-terminated string that outlives the call.
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), libc::FSOPEN_CLOEXEC) })
            .map(FileSystemContext)
    }

    /// Sets an option. Input: `value`: `None` for one without a value.
    pub fn set(&self, name: &str, value: Option<&Path>) -> io::Result<()> {
        let (name, value) = (CString::new(name)?, value.map(c_path).transpose()?);
        let command = if value.is_some() { libc::FSCONFIG_SET_STRING } else { libc::FSCONFIG_SET_FLAG };
        self.configure(command, Some(&name), value.as_deref())
    }

    /// Finds or creates the file system. Input: `alone`: only creates.
    /// Errors: EBUSY: it is mounted the other way (read-only, or not), or at all. EOPNOTSUPP: `alone`, before Linux 6.6.
    pub fn create(&self, alone: bool) -> io::Result<()> {
        let command = if alone { libc::FSCONFIG_CMD_CREATE_EXCL } else { libc::FSCONFIG_CMD_CREATE };
        self.configure(command, None, None)
    }

    fn configure(&self, command: libc::c_uint, name: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        let (name, value) = (pointer(name), pointer(value));
        // SAFETY: an open descriptor; strings that are NUL-terminated and outlive the call, or null.
        match unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, name, value, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Mounts it without a directory, set-uid, device nodes or programs: it ends when this and all its files are closed.
    pub fn mount(&self, access: Access) -> io::Result<File> {
        let mut flags =
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOATIME;
        if access == Access::Read {
            flags |= libc::MOUNT_ATTR_RDONLY;
        }
        // SAFETY: plain values and an open descriptor.
        descriptor(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), libc::FSMOUNT_CLOEXEC, flags) })
    }

    /// Reads the kernel's message about the last failure: one message per read, `e` in front of an error.
    pub fn said(&self) -> String {
        let (mut said, mut buffer) = (Vec::new(), [0; 256]);
        while let Ok(length @ 1..) = (&self.0).read(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]);
            said.push(message.split_once(' ').map_or(&*message, |(_, text)| text).trim().to_string());
        }
        said.join("; ")
    }
}
