//! Children and their process groups: killing them, and testing whether they have ended.

use super::call::check;
use std::io;

/// Kills a process group that this process created. Called before its leader is reaped: until then, no other group can have the
/// number.
/// Errors: ESRCH: no process is left in it. InvalidInput: 0 and 1, which mean this process's own group, and all processes.
pub fn kill_group(leader: u32) -> io::Result<()> {
    let group = group_of(leader).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: plain values.
    check(unsafe { libc::kill(group, libc::SIGKILL) })
}

/// Converts to the form of kill(2). Pure.
fn group_of(leader: u32) -> Option<libc::pid_t> {
    libc::pid_t::try_from(leader).ok().filter(|leader| *leader > 1).map(|leader| -leader)
}

/// Returns whether a child has ended, without reaping it: its number stays reserved until then.
/// Errors: ECHILD: no such child.
pub fn has_ended(child: u32) -> io::Result<bool> {
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: plain old data, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::waitid(libc::P_PID, child, &raw mut info, how) })?;
    // SAFETY: waitid(2): the member exists in what it fills in, and is untouched if no child has ended.
    Ok(unsafe { info.si_pid() } != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    /// Not tested on the kernel: 0 would end this process, and 1 all processes.
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
}
