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
