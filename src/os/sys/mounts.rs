//! Mounts, and the namespaces that they are seen in.

use super::call::open_dir;
use super::call::{Access, c_path, check, descriptor};
use std::ffi::CStr;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Leaves the mount namespace for a copy of it that nobody else is in; it goes when nobody is in it any more.
/// Errors: EPERM without CAP_SYS_ADMIN.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: plain values; this thread alone loses its view. Others only look names up, see `unshare_directories`.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })
}

/// Gives this thread a root and a working directory of its own: the kernel lets nobody go to another mount namespace who
/// shares his. Where that is forbidden, it stays so: whoever may not do this may not mount either.
pub fn unshare_directories() {
    // SAFETY: plain values; what changes is this thread's alone.
    let _ = unsafe { libc::unshare(libc::CLONE_FS) };
}

/// Keeps what is mounted below a mount point away from other namespaces, but not what they unmount from this one.
/// Input: `everything_below`: also for all mounts below it.
/// Errors: EINVAL: it is no mount point.
pub fn follow_mounts(dir: &Path, everything_below: bool) -> io::Result<()> {
    let dir = c_path(dir)?;
    let flags = libc::MS_SLAVE | if everything_below { libc::MS_REC } else { 0 };
    // SAFETY: both strings are NUL-terminated and outlive the call; null is allowed for the unused arguments.
    check(unsafe { libc::mount(c"none".as_ptr(), dir.as_ptr(), std::ptr::null(), flags, std::ptr::null()) })
}

/// A mount namespace to come back to.
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

    /// Goes back there. What was mounted elsewhere meanwhile is gone from view.
    /// Errors: EPERM without CAP_SYS_ADMIN and CAP_SYS_CHROOT. Afterwards the root directory may be another one: the
    /// process must not go on.
    pub fn enter(&self) -> io::Result<()> {
        // A thread that was just begun may still share them with this one: setns fails then (EINVAL).
        unshare_directories();
        // SAFETY: plain values and open descriptors; no other thread shares its directories. setns also moves the root to
        // that of the namespace, hence the way back into what may be a chroot.
        unsafe {
            check(libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNS))?;
            check(libc::fchdir(self.root.as_raw_fd()))?;
            check(libc::chroot(c".".as_ptr()))?;
            // Paths that were typed may be relative to it.
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

/// A file system that is being described to the kernel (Linux 5.2, fsopen(2)).
pub struct FileSystemContext(File);

impl FileSystemContext {
    /// Begins one. Errors: ENOSYS: an older kernel. EPERM: without CAP_SYS_ADMIN, or a filter that knows no such call.
    /// ENODEV: the kernel has no such file system.
    pub fn open(fstype: &str) -> io::Result<FileSystemContext> {
        let fstype = CString::new(fstype)?;
        // SAFETY: a NUL-terminated string that outlives the call.
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), libc::FSOPEN_CLOEXEC) })
            .map(FileSystemContext)
    }

    /// Sets an option. Input: `value`: `None` for one that takes none.
    pub fn set(&self, name: &str, value: Option<&Path>) -> io::Result<()> {
        let (name, value) = (CString::new(name)?, value.map(c_path).transpose()?);
        let command = if value.is_some() { libc::FSCONFIG_SET_STRING } else { libc::FSCONFIG_SET_FLAG };
        self.configure(command, Some(&name), value.as_deref())
    }

    /// Finds or makes the file system. Input: `alone`: only makes.
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

    /// Mounts it nowhere, without set-uid, device nodes or programs: it is gone when this is closed and no file on it is open.
    pub fn mount(&self, access: Access) -> io::Result<File> {
        let mut flags =
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOATIME;
        if access == Access::Read {
            flags |= libc::MOUNT_ATTR_RDONLY;
        }
        // SAFETY: plain values and an open descriptor.
        descriptor(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), libc::FSMOUNT_CLOEXEC, flags) })
    }

    /// Takes what the kernel has to say about the last failure: one message a read, `e` for an error in front.
    pub fn said(&self) -> String {
        let (mut said, mut buffer) = (Vec::new(), [0; 256]);
        while let Ok(length @ 1..) = (&self.0).read(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]);
            said.push(message.split_once(' ').map_or(&*message, |(_, text)| text).trim().to_string());
        }
        said.join("; ")
    }
}
