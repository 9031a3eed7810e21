//! Starts one program by posix_spawn(3): std's own takes 11 KB more for features that no caller here needs.
//!
//! Must never: send a signal to the number of a reaped process, or leave a descriptor open in the program that is not one of
//! its three.

use super::c_path;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

unsafe extern "C" {
    /// Source: environ(7). Nothing in this program changes it.
    static environ: *const *mut libc::c_char;
}

/// A started program. Dropping this does not end it.
pub struct Child {
    number: libc::pid_t,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts a program without arguments, in this process's working directory and environment, as the leader of its own
    /// process group. Its input is empty, and both its outputs share one destination. It inherits blocked and ignored signals,
    /// except SIGPIPE, which std makes this process ignore.
    /// Input: `path`: with a slash in it: PATH is not searched. `output`: close-on-exec, like everything std opens.
    /// Errors: as the kernel reports: ENOENT also if its interpreter is missing, ENOEXEC, EACCES, ETXTBSY.
    pub fn spawn(path: &Path, output: &impl AsRawFd) -> io::Result<Child> {
        let (input, path) = (File::open("/dev/null")?, c_path(path)?);
        let copies = [(&input as &dyn AsRawFd, 0), (output, 1), (output, 2)].map(|(from, to)| (from.as_raw_fd(), to));
        let (arguments, mut number) = ([path.as_ptr().cast_mut(), std::ptr::null_mut()], 0);
        // SAFETY: plain old data, for which zero is a value until it is initialised.
        let (mut actions, mut attributes) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: open descriptors; strings that are NUL-terminated, an array that ends with null, and initialised structures,
        // all of which outlive the calls; what the initialisation allocated is freed on every path.
        unsafe {
            let mut code = libc::posix_spawn_file_actions_init(&raw mut actions);
            for (from, to) in copies {
                code = code.max(libc::posix_spawn_file_actions_adddup2(&raw mut actions, from, to));
            }
            code = code.max(describe(&raw mut attributes));
            if code == 0 {
                code = libc::posix_spawn(
                    &raw mut number,
                    path.as_ptr(),
                    &raw const actions,
                    &raw const attributes,
                    arguments.as_ptr(),
                    environ,
                );
            }
            libc::posix_spawnattr_destroy(&raw mut attributes);
            libc::posix_spawn_file_actions_destroy(&raw mut actions);
            match code {
                0 => Ok(Child { number, ended: None }),
                code => Err(io::Error::from_raw_os_error(code)),
            }
        }
    }

    /// Returns the number of its process and its group.
    pub fn id(&self) -> u32 {
        self.number.unsigned_abs()
    }

    /// Kills the process alone, without reaping it. Does nothing if it was reaped.
    pub fn kill(&self) -> io::Result<()> {
        match self.ended {
            // SAFETY: plain values; the number is the child's until it is waited for.
            None => super::check(unsafe { libc::kill(self.number, libc::SIGKILL) }),
            Some(_) => Ok(()),
        }
    }

    /// Returns its exit status; `None`: it is running.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let mut status = 0;
            // SAFETY: plain values, and a number that is exclusively ours during the call.
            match unsafe { libc::waitpid(self.number, &raw mut status, libc::WNOHANG) } {
                -1 => return Err(io::Error::last_os_error()),
                0 => {}
                _ => self.ended = Some(ExitStatus::from_raw(status)),
            }
        }
        Ok(self.ended)
    }
}

/// Requests its own process group and the default SIGPIPE.
/// Returns: 0, or an errno. Safety: points to a structure that only the caller uses.
unsafe fn describe(attributes: *mut libc::posix_spawnattr_t) -> libc::c_int {
    let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGDEF;
    // SAFETY: the caller guarantees the structure; the set outlives the calls, and zero is a value of it.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGPIPE);
        libc::posix_spawnattr_init(attributes)
            .max(libc::posix_spawnattr_setpgroup(attributes, 0))
            .max(libc::posix_spawnattr_setsigdefault(attributes, &raw const signals))
            .max(libc::posix_spawnattr_setflags(attributes, flags as libc::c_short))
    }
}
