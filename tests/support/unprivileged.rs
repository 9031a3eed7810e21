//! Commands of this repository, run by a user who owns nothing. Must never: rely on where the repository was cloned.

use super::{command, need};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

/// In a mount namespace of its own: root's home, where root clones, is closed to others.
const SCRIPT: &str = "mount --bind \"$1\" \"$2\"; cd \"$3\"; shift 3; \
    exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";

/// Makes the command that runs `of` as such a user, in `dir` unless it has a directory of its own.
/// Input: `dir`: one that everybody can enter; the repository is mounted below it.
pub fn unprivileged(dir: &Path, of: &Command) -> Command {
    need("setpriv");
    need("unshare");
    let (repo, there) = (env!("CARGO_MANIFEST_DIR"), dir.join("repository"));
    fs::create_dir_all(&there).unwrap();
    let moved = |word: &OsStr| word.to_str().unwrap().replace(repo, there.to_str().unwrap());
    let mut command = command("unshare");
    command.args(["--mount", "sh", "-euc", SCRIPT, "sh", repo]).arg(&there);
    command.arg(of.get_current_dir().unwrap_or(dir)).arg(moved(of.get_program())).args(of.get_args().map(moved));
    for (name, value) in of.get_envs() {
        match value {
            Some(value) => command.env(name, moved(value)),
            None => command.env_remove(name),
        };
    }
    command
}
