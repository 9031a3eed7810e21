//! System calls that std lacks: the only `unsafe` in the crate.
//!
//! Each function wraps one call, checks its result, and decides nothing.
//! Must never: keep a raw pointer or descriptor beyond the call it was made for.
#![allow(unsafe_code)]

#[cfg(any(target_env = "musl", test))]
mod musl;
pub mod spawn;
pub mod thread;

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

/// How a file system is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing is written, not even a journal replay.
    Read,
    /// Read and write.
    Write,
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Returns a number that nobody can guess; 0 where the kernel has none to give.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes).map_or(0, |()| u64::from_ne_bytes(bytes))
}

/// Returns the user that this process acts as.
pub fn user() -> u32 {
    // SAFETY: takes nothing, and can not fail.
    unsafe { libc::geteuid() }
}

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

/// Opens a directory as a place to look things up from. Input: a path whose last part may be a mount point.
pub fn open_dir(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)
}

/// Opens a block device that nobody has mounted, in whichever namespace; until it is closed nobody can.
/// Errors: EBUSY: somebody has.
pub fn claim(device: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(device)
}

/// Takes the flags off a file or directory that keep even root from changing or removing it, or what is in it: a bit in a
/// damaged inode, or `chattr +i`. Does nothing where that can not be done, and to anything else: who then tries learns it.
/// Source: ioctl_iflags(2); FS_IMMUTABLE_FL, FS_APPEND_FL.
pub fn allow_changes(path: &Path) {
    const KEPT: libc::c_int = !(0x10 | 0x20);
    if !std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() || meta.is_dir()) {
        return;
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return };
    let mut flags: libc::c_int = 0;
    // SAFETY: an open descriptor; the kernel writes and reads one int, which is ours alone for the length of the calls.
    unsafe {
        if libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &raw mut flags) == 0 && flags & !KEPT != 0 {
            flags &= KEPT;
            libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS as _, &raw mut flags);
        }
    }
}

/// Makes reads return at once where there is nothing to read. Its other flags stay.
pub fn set_nonblocking(file: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: plain values and an open descriptor.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: as above.
        flags => match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        },
    }
}

/// Waits until one of these is ready, a signal came, or the time is over.
pub fn poll(waiting: &mut [libc::pollfd], limit: Duration) -> io::Result<()> {
    // Rounded up: what is due in half a millisecond must not be asked for a thousand times.
    let millis = libc::c_int::try_from(limit.as_millis()).map_or(libc::c_int::MAX, |millis| millis.saturating_add(1));
    // SAFETY: pointer and length are those of a slice that is ours alone for the length of the call.
    match unsafe { libc::poll(waiting.as_mut_ptr(), waiting.len() as libc::nfds_t, millis) } {
        -1 => Err(io::Error::last_os_error())
            .or_else(|e| if e.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(e) }),
        _ => Ok(()),
    }
}

/// What is said when Ctrl-C comes.
static LAST_WORDS: AtomicPtr<&'static str> = AtomicPtr::new(std::ptr::null_mut());

/// Lets SIGINT say something on stderr before it ends this process as it would have without. Where it is ignored, it stays so.
pub fn say_on_interrupt(words: &'static &'static str) -> io::Result<()> {
    LAST_WORDS.store((&raw const *words).cast_mut(), Ordering::SeqCst);
    // SAFETY: plain old data, for which zero is a value: no flags, an empty mask.
    let (mut action, mut before) = unsafe { std::mem::zeroed::<(libc::sigaction, libc::sigaction)>() };
    action.sa_sigaction = say_last_words as *const () as usize;
    // After the first one, and while it is handled, it is what it is for everybody.
    action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER;
    // SAFETY: both structures outlive the calls; null is allowed for what is not wanted.
    unsafe {
        check(libc::sigaction(libc::SIGINT, std::ptr::null(), &raw mut before))?;
        match before.sa_sigaction {
            libc::SIG_IGN => Ok(()),
            _ => check(libc::sigaction(libc::SIGINT, &raw const action, std::ptr::null_mut())),
        }
    }
}

/// Calls nothing but what signal-safety(7) allows.
extern "C" fn say_last_words(signal: libc::c_int) {
    // SAFETY: null, or a reference that lives for ever.
    if let Some(words) = unsafe { LAST_WORDS.load(Ordering::SeqCst).as_ref() } {
        // SAFETY: pointer and length are those of a string that lives for ever.
        unsafe { libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len()) };
    }
    // SAFETY: a plain value; what was set is gone already, so this ends the process.
    unsafe { libc::raise(signal) };
}

/// Kills a process group that this process made. Called before its leader is waited for: until then, the number is no other
/// group's.
/// Errors: ESRCH: no process is left in it. InvalidInput: 0 and 1, which mean this process's own group, and all processes.
pub fn kill_group(leader: u32) -> io::Result<()> {
    let group = group_of(leader).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: plain values.
    check(unsafe { libc::kill(group, libc::SIGKILL) })
}

/// As kill(2) wants it. Pure.
fn group_of(leader: u32) -> Option<libc::pid_t> {
    libc::pid_t::try_from(leader).ok().filter(|leader| *leader > 1).map(|leader| -leader)
}

/// Says whether a child has ended, and leaves it to be waited for: its number stays its own until then.
/// Errors: ECHILD: there is no such child.
pub fn has_ended(child: u32) -> io::Result<bool> {
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: plain old data, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::waitid(libc::P_PID, child, &raw mut info, how) })?;
    // SAFETY: waitid(2): what it fills in has this member, and is left alone where no child has ended.
    Ok(unsafe { info.si_pid() } != 0)
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

fn descriptor(result: libc::c_long) -> io::Result<File> {
    match libc::c_int::try_from(result) {
        // SAFETY: a descriptor that was just made, and that nobody else has.
        Ok(fd @ 0..) => Ok(unsafe { File::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes an exclusive lock that ends with the process.
/// Returns: false if another process holds it.
pub fn try_lock(file: &File) -> io::Result<bool> {
    try_lock_for(file, Access::Write)
}

/// The same, or for reading one that others who read may hold as well.
pub fn try_lock_for(file: &File, access: Access) -> io::Result<bool> {
    let kind = if access == Access::Read { libc::LOCK_SH } else { libc::LOCK_EX };
    // SAFETY: the descriptor is open for the length of the call.
    match check(unsafe { libc::flock(file.as_raw_fd(), kind | libc::LOCK_NB) }) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Marks a file as this process's, for whoever asks [`marked_by`]: it keeps nobody out, and ends with the process.
/// Source: fcntl(2), advisory record locks. Closing any descriptor of that file ends it as well.
pub fn mark(file: &File) -> io::Result<()> {
    let mark = whole_file();
    // SAFETY: the descriptor is open for the length of the call, and the structure is read only.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const mark) })
}

/// Says whose a file is, without taking it.
/// Returns: `None`: nobody's; 0: a process's that cannot be seen from here, in another container.
pub fn marked_by(file: &File) -> io::Result<Option<u32>> {
    let mut mark = whole_file();
    // SAFETY: the descriptor is open, and the structure outlives the call, which fills it.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut mark) })?;
    let is_marked = i32::from(mark.l_type) != libc::F_UNLCK;
    Ok(is_marked.then(|| u32::try_from(mark.l_pid).unwrap_or(0)))
}

fn whole_file() -> libc::flock {
    // SAFETY: all fields are numbers, for which zero is a value.
    let mut mark: libc::flock = unsafe { std::mem::zeroed() };
    mark.l_type = libc::F_WRLCK as libc::c_short;
    mark.l_whence = libc::SEEK_SET as libc::c_short;
    mark
}

/// Size and free room of a file system, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Allocation unit.
    pub block_bytes: u64,
    /// Free to everybody: without what the file system keeps back, from root as well (ext4: 2 %, at most 4,096 blocks).
    pub free_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
}

/// Reads the room on the file system that `path` lies on.
pub fn space(path: &Path) -> io::Result<Space> {
    let path = c_path(path)?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the string is NUL-terminated; the kernel fills the structure, which is plain old data.
    let stat = unsafe {
        check(libc::statvfs(path.as_ptr(), stat.as_mut_ptr()))?;
        stat.assume_init()
    };
    #[allow(clippy::useless_conversion)] // its fields' widths differ between the C libraries
    let (unit, free, total) = (u64::from(stat.f_frsize), u64::from(stat.f_bavail), u64::from(stat.f_blocks));
    Ok(Space { block_bytes: unit, free_bytes: free.saturating_mul(unit), total_bytes: total.saturating_mul(unit) })
}

/// Asks the kernel to start writing a range out, and does not wait: the final fsync is short then.
pub fn start_writeback(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let (offset, length) = (offset as libc::off64_t, length as libc::off64_t);
    // SAFETY: plain values and an open descriptor.
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) })
}

/// Drops a file's clean pages, so that the next read comes from the device.
pub fn drop_cache(file: &File) -> io::Result<()> {
    // SAFETY: plain values and an open descriptor.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Fills a buffer with random bytes from the kernel.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &mut bytes[done..];
        // SAFETY: pointer and length are those of a buffer that is ours alone for the length of the call.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => done += got,
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
        }
    }
    Ok(())
}

/// Connects to a Unix socket.
/// Input: `limit`: how long a socket that accepts nobody is waited for, and then each write.
/// Errors: WouldBlock: it accepts nobody.
pub fn connect_unix(path: &Path, limit: std::time::Duration) -> io::Result<UnixStream> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: plain old data, for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // One byte stays zero: the end.
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    // SAFETY: plain values.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made, and that nobody else has.
    let stream = unsafe { UnixStream::from_raw_fd(socket) };
    // Source: unix(7) and socket(7): SO_SNDTIMEO holds for connect as well.
    stream.set_write_timeout(Some(limit))?;
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address lives as long as the call, and `length` is its own.
    check(unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(stream)
}

/// Asks the resolver for a host's addresses, and waits as long as that takes. Their port is 0.
/// Errors: its code, which is negative (getaddrinfo(3)); what is positive is an errno.
pub fn look_up(host: &str) -> std::result::Result<Vec<SocketAddr>, libc::c_int> {
    let host = CString::new(host).map_err(|_| libc::EAI_NONAME)?;
    // SAFETY: plain old data, for which zero is a value.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = std::ptr::null_mut();
    // SAFETY: a NUL-terminated string and hints that outlive the call; null is allowed for the service.
    match unsafe { libc::getaddrinfo(host.as_ptr(), std::ptr::null(), &raw const hints, &raw mut list) } {
        0 => {}
        libc::EAI_SYSTEM => return Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        code => return Err(code),
    }
    let (mut found, mut next) = (Vec::new(), list);
    // SAFETY: each entry lives until the list is freed, and its end is null.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ai_next;
        match entry.ai_family {
            // SAFETY: the family says what the address is.
            libc::AF_INET => {
                let at = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                found.push((Ipv4Addr::from(u32::from_be(at.sin_addr.s_addr)), 0).into());
            }
            // SAFETY: as above.
            libc::AF_INET6 => {
                let at = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                found.push(SocketAddrV6::new(at.sin6_addr.s6_addr.into(), 0, 0, at.sin6_scope_id).into());
            }
            _ => {}
        }
    }
    // SAFETY: it was just made, and nothing of it is used any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

/// Sets after how many seconds a hardware watchdog that is not fed restarts the machine.
/// Errors: ENOTTY: it is no watchdog. EINVAL: it can not wait so long.
/// Source: Linux, include/uapi/linux/watchdog.h: WDIOC_SETTIMEOUT, `_IOWR('W', 6, int)`.
pub fn set_watchdog_timeout(device: &File, secs: u32) -> io::Result<()> {
    const WDIOC_SETTIMEOUT: u32 = 0xc004_5706;
    let mut secs = libc::c_int::try_from(secs).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: an open descriptor; the kernel reads and writes one int, which is ours alone for the length of the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_SETTIMEOUT as _, &raw mut secs) })
}

/// Returns how many bytes of a terminal's output wait to be sent.
/// Errors: ENOTTY: it is no terminal.
pub fn unsent(file: &impl AsRawFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: an open descriptor; the kernel writes one int, which is ours alone for the length of the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Returns how many columns a terminal has, where it knows that.
pub fn columns(file: &impl AsRawFd) -> Option<usize> {
    // SAFETY: plain old data, for which zero is a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor; the kernel fills the structure, which is ours alone for the length of the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Asks to be told of children that end. Who starts us may have SIGCHLD ignored, which is inherited, and then nobody can be asked
/// how a health check ended.
pub fn hear_of_children() {
    // SAFETY: plain values.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Writes out everything the kernel holds, for so long. A disk that has died may keep sync(2) for ever, and nothing ends
/// that: so another process calls it.
/// Returns: whether all of it is written.
pub fn sync_within(limit: Duration) -> bool {
    // SAFETY: no arguments.
    done_within(limit, || unsafe { libc::sync() })
}

/// Input: `work`: calls nothing but what signal-safety(7) allows, and system calls.
fn done_within(limit: Duration, work: fn()) -> bool {
    // SAFETY: the new process does the work, and ends without anything of what is done at an end.
    let child = match unsafe { libc::fork() } {
        0 => {
            work();
            // SAFETY: a plain value.
            unsafe { libc::_exit(0) }
        }
        child => child,
    };
    let Ok(number) = u32::try_from(child) else {
        // Out of processes, as a sick machine is: then without a limit, and not left undone.
        work();
        return true;
    };
    let start = Instant::now();
    let is_done = loop {
        match has_ended(number) {
            Ok(false) if start.elapsed() < limit => std::thread::sleep(PAUSE),
            Ok(is_done) => break is_done,
            // ECHILD: whoever started this one has SIGCHLD ignored, so it has ended, and its number may be another's by now.
            Err(_) => return true,
        }
    };
    // SAFETY: plain values, null is allowed for the status; the number is the child's until it is waited for.
    unsafe {
        if !is_done {
            libc::kill(child, libc::SIGKILL);
        }
        libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG);
    }
    is_done
}

/// How often a process that works for this one is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Restarts the machine, and writes nothing out: see [`sync_within`].
/// Returns: only on failure.
pub fn reboot() -> io::Error {
    // SAFETY: a plain value.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    /// Not asked of the kernel: 0 would end this process, and 1 all that there are.
    #[test]
    fn what_is_no_group_of_ours_is_not_killed() {
        for leader in [0, 1, 1 << 31, u32::MAX] {
            assert_eq!(group_of(leader), None, "{leader}");
        }
        assert_eq!([2, i32::MAX as u32].map(group_of), [Some(-2), Some(-i32::MAX)]);
    }

    #[test]
    fn a_child_that_has_ended_keeps_its_number_until_it_is_waited_for() {
        let mut child = Command::new("cat").process_group(0).stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(!has_ended(child.id()).unwrap());
        drop(child.stdin.take());
        while !has_ended(child.id()).unwrap() {
            std::thread::yield_now();
        }
        kill_group(child.id()).expect("the group is there as long as its leader was not waited for");
        assert!(has_ended(child.id()).unwrap());
        assert!(child.wait().unwrap().success());
        assert_eq!(has_ended(child.id()).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        assert_eq!(kill_group(child.id()).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn other_flags_than_the_one_stay() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = OpenOptions::new().append(true).open(file.path()).unwrap();
        log.write_all(b"one").unwrap();
        set_nonblocking(&log).unwrap();
        log.seek(SeekFrom::Start(0)).unwrap();
        log.write_all(b"two").unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"onetwo");
        let (reader, _writer) = io::pipe().unwrap();
        set_nonblocking(&reader).unwrap();
        assert_eq!((&reader).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_does_not_end_is_not_waited_for() {
        let start = Instant::now();
        // SAFETY: no arguments.
        let for_ever = || loop {
            unsafe { libc::pause() };
        };
        assert!(!done_within(Duration::from_millis(200), for_ever));
        assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < Duration::from_secs(20));
        // SAFETY: as above.
        assert!(done_within(Duration::from_secs(600), || unsafe { libc::sync() }));
        assert!(start.elapsed() < Duration::from_secs(500), "waited for the limit");
        assert!(sync_within(Duration::from_secs(600)));
    }
}
