//! What even root cannot change, for as long as a value lives.

use super::{need, require};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file that cannot be written or removed, or a directory in which nothing can be made, renamed or removed.
pub struct Immutable(PathBuf);

impl Immutable {
    pub fn new(path: &Path) -> Immutable {
        need("chattr");
        let done = chattr("+i", path);
        require(done, "a file system on which chattr +i works");
        Immutable(path.to_path_buf())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        chattr("-i", &self.0);
    }
}

fn chattr(flag: &str, path: &Path) -> bool {
    Command::new("chattr").arg(flag).arg(path).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A directory below which nothing can be written, as on a file system that was remounted read-only: no flag that somebody
/// could take off.
pub struct ReadOnly(PathBuf);

impl ReadOnly {
    pub fn new(path: &Path) -> ReadOnly {
        let mount = |args: &[&str]| super::run(super::command("mount").args(args).arg(path));
        super::run(super::command("mount").arg("--bind").args([path, path]));
        let guard = ReadOnly(path.to_path_buf());
        mount(&["-o", "remount,bind,ro"]);
        guard
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
