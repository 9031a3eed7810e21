//! Starts one program by posix_spawn(3): std's own way takes 11 KB more, for what no caller here asks of it.
//!
//! Must never: send a signal to a number whose process was waited for, or leave a descriptor open in the program that is not
//! one of its three.

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

/// A program that was started. It runs on where this is dropped.
pub struct Child {
    number: libc::pid_t,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts a program without arguments, in this process's working directory and environment, as the leader of a process
    /// group of its own. It has nothing to read, and both its outputs go to one place. Signals that are blocked or ignored here
    /// are so there, but for SIGPIPE, which std has this process ignore.
    /// Input: `path`: with a slash in it: nothing is looked for in PATH. `output`: closed on exec, as all that std opens.
    /// Errors: what the kernel says of the program: ENOENT also where its interpreter is missing, ENOEXEC, EACCES, ETXTBSY.
    pub fn spawn(path: &Path, output: &impl AsRawFd) -> io::Result<Child> {
        let (input, path) = (File::open("/dev/null")?, c_path(path)?);
        let copies = [(&input as &dyn AsRawFd, 0), (output, 1), (output, 2)].map(|(from, to)| (from.as_raw_fd(), to));
        let (arguments, mut number) = ([path.as_ptr().cast_mut(), std::ptr::null_mut()], 0);
        // SAFETY: plain old data, for which zero is a value until it is initialised.
        let (mut actions, mut attributes) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: open descriptors; strings that are NUL-terminated, an array that ends with null, and structures that were
        // initialised, all of which outlive the calls; what the initialisation took is given back, whatever happened between.
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

    /// The number of its process, and of its group.
    pub fn id(&self) -> u32 {
        self.number.unsigned_abs()
    }

    /// Kills it alone, and leaves it to be waited for. Does nothing where that was done.
    pub fn kill(&self) -> io::Result<()> {
        match self.ended {
            // SAFETY: plain values; the number is the child's until it is waited for.
            None => super::check(unsafe { libc::kill(self.number, libc::SIGKILL) }),
            Some(_) => Ok(()),
        }
    }

    /// Says how it ended. Returns: `None`: it runs.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let mut status = 0;
            // SAFETY: plain values, and a number that is ours alone for the length of the call.
            match unsafe { libc::waitpid(self.number, &raw mut status, libc::WNOHANG) } {
                -1 => return Err(io::Error::last_os_error()),
                0 => {}
                _ => self.ended = Some(ExitStatus::from_raw(status)),
            }
        }
        Ok(self.ended)
    }
}

/// Asks for a process group of its own, and for SIGPIPE as it is for a program that nobody has set it for.
/// Returns: 0, or an errno. Safety: points to a structure that the caller alone has.
unsafe fn describe(attributes: *mut libc::posix_spawnattr_t) -> libc::c_int {
    let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGDEF;
    // SAFETY: the caller's word for the structure; the set outlives the calls, and zero is a value of it.
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
