//! System calls that std lacks: the only `unsafe` in the crate.
//!
//! Each function wraps one call, checks its result, and decides nothing.
//! Must never: keep a raw pointer or descriptor beyond the call it was made for.
#![allow(unsafe_code)]

mod call;
mod children;
mod locks;
mod mounts;
#[cfg(any(target_env = "musl", test))]
mod musl;
mod sockets;
pub mod spawn;
pub mod thread;

pub use call::{Access, open_dir};
pub use children::{has_ended, kill_group};
pub use locks::{mark, marked_by, try_lock, try_lock_for};
pub use mounts::{FileSystemContext, MountNamespace, follow_mounts, mount, unshare_directories, unshare_mounts};
pub use sockets::{connect_unix, look_up};

use call::{c_path, check};

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

/// Returns an unpredictable number; 0 if the kernel has none.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes).map_or(0, |()| u64::from_ne_bytes(bytes))
}

/// Returns the effective user of this process.
pub fn user() -> u32 {
    // SAFETY: no arguments, and cannot fail.
    unsafe { libc::geteuid() }
}

/// Opens a block device that is not mounted in any namespace; it cannot be mounted until closed.
/// Errors: EBUSY: it is mounted or claimed.
pub fn claim(device: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(device)
}

/// Clears the flags of a file or directory that keep even root from changing or removing it or its content: a bit in a damaged
/// inode, or `chattr +i`. Does nothing if that fails, or for other kinds of file: the next operation reports the error.
/// Source: ioctl_iflags(2); FS_IMMUTABLE_FL, FS_APPEND_FL.
pub fn allow_changes(path: &Path) {
    const KEPT: libc::c_int = !(0x10 | 0x20);
    if !std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() || meta.is_dir()) {
        return;
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return };
    let mut flags: libc::c_int = 0;
    // SAFETY: an open descriptor; the kernel reads and writes one int, exclusively ours during the calls.
    unsafe {
        if libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &raw mut flags) == 0 && flags & !KEPT != 0 {
            flags &= KEPT;
            libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS as _, &raw mut flags);
        }
    }
}

/// Makes reads return at once when there is no data. Other flags are kept.
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

/// Waits until one of these is ready, a signal arrives, or the time is over.
pub fn poll(waiting: &mut [libc::pollfd], limit: Duration) -> io::Result<()> {
    // Rounded up: what is due in half a millisecond must not be polled a thousand times.
    let millis = libc::c_int::try_from(limit.as_millis()).map_or(libc::c_int::MAX, |millis| millis.saturating_add(1));
    // SAFETY: pointer and length of a slice that is exclusively ours during the call.
    match unsafe { libc::poll(waiting.as_mut_ptr(), waiting.len() as libc::nfds_t, millis) } {
        -1 => Err(io::Error::last_os_error())
            .or_else(|e| if e.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(e) }),
        _ => Ok(()),
    }
}

/// Message to print on Ctrl-C.
static LAST_WORDS: AtomicPtr<&'static str> = AtomicPtr::new(std::ptr::null_mut());

/// Prints a message to stderr on SIGINT before the default action ends this process. If SIGINT is ignored, it stays so.
pub fn say_on_interrupt(words: &'static &'static str) -> io::Result<()> {
    LAST_WORDS.store((&raw const *words).cast_mut(), Ordering::SeqCst);
    // SAFETY: plain old data, for which zero is a value: no flags, an empty mask.
    let (mut action, mut before) = unsafe { std::mem::zeroed::<(libc::sigaction, libc::sigaction)>() };
    action.sa_sigaction = say_last_words as *const () as usize;
    // After the first one, and while it is handled, the default action applies.
    action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER;
    // SAFETY: both structures outlive the calls; null is allowed for unused results.
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
    // SAFETY: null, or a reference with static lifetime.
    if let Some(words) = unsafe { LAST_WORDS.load(Ordering::SeqCst).as_ref() } {
        // SAFETY: pointer and length of a static string.
        unsafe { libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len()) };
    }
    // SAFETY: a plain value; the handler is already reset, so this ends the process.
    unsafe { libc::raise(signal) };
}

/// Returns the free bytes on the file system of `path`, without those that it reserves even from root (ext4: 2 %, at most 4,096
/// blocks).
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = c_path(path)?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the string is NUL-terminated; the kernel fills the structure, which is plain old data.
    let stat = unsafe {
        check(libc::statvfs(path.as_ptr(), stat.as_mut_ptr()))?;
        stat.assume_init()
    };
    #[allow(clippy::useless_conversion)] // the fields' widths differ between the C libraries
    let (unit, free) = (u64::from(stat.f_frsize), u64::from(stat.f_bavail));
    Ok(free.saturating_mul(unit))
}

/// Asks the kernel to start writing out a range, without waiting, so that the final fsync is short.
pub fn start_writeback(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let (offset, length) = (offset as libc::off64_t, length as libc::off64_t);
    // SAFETY: plain values and an open descriptor.
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) })
}

/// Drops a file's clean pages, so that the next read comes from the device.
pub fn drop_cache(file: &File) -> io::Result<()> {
    drop_cache_to(file, 0)
}

/// The same of its first bytes; 0: of all.
pub fn drop_cache_to(file: &File, length: u64) -> io::Result<()> {
    // SAFETY: plain values and an open descriptor.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, length as libc::off64_t, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        // Not every C library returns the number itself.
        -1 => Err(io::Error::last_os_error()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Returns how many processors this process may use; 1 where the kernel does not say.
pub fn cpus() -> usize {
    // SAFETY: plain old data, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the structure, exclusively ours during the call.
    let code = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    // SAFETY: only reads the structure.
    let count = if code == 0 { unsafe { libc::CPU_COUNT(&set) } } else { 1 };
    usize::try_from(count).map_or(1, |count| count.max(1))
}

/// Fills a buffer with random bytes from the kernel.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &mut bytes[done..];
        // SAFETY: pointer and length of a buffer that is exclusively ours during the call.
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

/// Sets the timeout in seconds after which an unfed hardware watchdog restarts the machine.
/// Errors: ENOTTY: not a watchdog. EINVAL: timeout too long.
/// Source: Linux, include/uapi/linux/watchdog.h: WDIOC_SETTIMEOUT, `_IOWR('W', 6, int)`.
pub fn set_watchdog_timeout(device: &File, secs: u32) -> io::Result<()> {
    const WDIOC_SETTIMEOUT: u32 = 0xc004_5706;
    let mut secs = libc::c_int::try_from(secs).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: an open descriptor; the kernel reads and writes one int, exclusively ours during the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_SETTIMEOUT as _, &raw mut secs) })
}

/// Returns how many bytes of a terminal's output are still unsent.
/// Errors: ENOTTY: not a terminal.
pub fn unsent(file: &impl AsRawFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: an open descriptor; the kernel writes one int, exclusively ours during the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Returns a terminal's number of columns, if known.
pub fn columns(file: &impl AsRawFd) -> Option<usize> {
    // SAFETY: plain old data, for which zero is a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor; the kernel fills the structure, exclusively ours during the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Resets SIGCHLD to its default. A parent may have ignored it, which is inherited, and then the exit status of a health check
/// would be lost.
pub fn hear_of_children() {
    // SAFETY: plain values.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Writes out everything the kernel holds, within a time limit. On a dead disk sync(2) may hang forever and cannot be killed,
/// so another process calls it.
/// Returns: whether all of it is written.
pub fn sync_within(limit: Duration) -> bool {
    // SAFETY: no arguments.
    done_within(limit, || unsafe { libc::sync() })
}

/// Input: `work`: calls only what signal-safety(7) allows, and system calls.
fn done_within(limit: Duration, work: fn()) -> bool {
    // SAFETY: the new process does the work and ends without running any cleanup.
    let child = match unsafe { libc::fork() } {
        0 => {
            work();
            // SAFETY: a plain value.
            unsafe { libc::_exit(0) }
        }
        child => child,
    };
    let Ok(number) = u32::try_from(child) else {
        // A sick machine may be out of processes: better without a limit than not at all.
        work();
        return true;
    };
    let start = Instant::now();
    let is_done = loop {
        match has_ended(number) {
            Ok(false) if start.elapsed() < limit => std::thread::sleep(PAUSE),
            Ok(is_done) => break is_done,
            // ECHILD: this process's parent had SIGCHLD ignored, so the child has ended, and its number may have been reused.
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

/// Interval at which a process that works for this one is checked.
const PAUSE: Duration = Duration::from_millis(20);

/// Restarts the machine without writing anything out: see [`sync_within`].
/// Returns: only on failure.
pub fn reboot() -> io::Error {
    // SAFETY: a plain value.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom, Write};

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
