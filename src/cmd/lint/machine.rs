//! A machine's future `/etc/kubesolo`: the files of an initramfs, and what a site adds. They are put into a directory of their
//! own, where the machines' reader judges them.
//!
//! Must never: leave that directory, or write outside of it: a path in an initramfs is a name here, not a path.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::slot::initramfs::{Lying, Tree};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process;

const CONFIG_DIR: &[u8] = b"/etc/kubesolo";
const CONFIG_FILE: &[u8] = b"/etc/kubesolo/update.conf";
const KEYS_DIR: &[u8] = b"/etc/kubesolo/update-keys.d";
const REVOKED: &[u8] = b"/etc/kubesolo/update-keys.d/revoked";
/// What leads to keys and configuration, and the configuration: machines believe nothing that other users could change.
const WAY: [&[u8]; 4] = [b"/", b"/etc", CONFIG_DIR, CONFIG_FILE];
const HEALTH_DIRS: [&[u8]; 3] =
    [b"/etc/kubesolo/health.d", b"/etc/kubesolo/health.d/required", b"/etc/kubesolo/health.d/wanted"];
/// Write permission for group and others; and the bit with which they cannot replace files of another user.
const WRITABLE: u16 = 0o022;
const STICKY: u16 = 0o1000;
/// Permissions that a machine would apply; and those needed to read and remove the files here.
const MODE: u32 = 0o777;
const OURS: u32 = 0o600;
/// Others may write it: machines skip such a key, as they do another user's.
const OTHERS: u32 = 0o666;
/// Fallback if there is no directory for temporary files: containers have it, and may have no /tmp.
const SHARED_MEMORY: &str = "/dev/shm";
/// Directories of other runs before another place is tried: in a container, each run has the same process id.
const TRIES: u32 = 100;

const AS_ROOT: &str = "make the archive as root's: cpio -o -H newc -R +0:+0";

/// The directory; dropping this removes it.
pub(super) struct Machine {
    root: PathBuf,
    /// Keys of other users, with the user id in the initramfs.
    strange: Vec<(String, u32)>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // An error could not be reported here, and the next run has another name.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Returns the parts of an initramfs that concern the agent's trust: directories before their content.
pub(super) fn of_interest(tree: &Tree) -> Vec<Lying> {
    let mut all: Vec<Lying> = tree.at(CONFIG_DIR).map_or_else(Vec::new, |dir| tree.entries(&dir));
    // Links are followed, as on machines. A dangling one stays.
    let (config, keys) = (tree.at(CONFIG_FILE), tree.at(KEYS_DIR));
    all.retain(|lying| !(lying.path == CONFIG_FILE || lying.path == KEYS_DIR && keys.is_some()));
    all.extend(config);
    if let Some(keys) = keys {
        let entries = tree.entries(&keys);
        all.push(keys);
        let revoked = entries.iter().find(|lying| lying.path == REVOKED).map_or_else(Vec::new, |dir| tree.entries(dir));
        all.extend(entries.into_iter().chain(revoked));
    }
    all
}

impl Machine {
    /// Creates the directory, in the one for temporary files or in memory. Errors: Internal: neither is possible.
    pub(super) fn new() -> Result<Machine> {
        let temporary = std::env::temp_dir();
        let made = make_in(&temporary).or_else(|e| make_in(Path::new(SHARED_MEMORY)).map_err(|_| e));
        let root = made
            .io(Kind::Internal, "make a directory in", temporary.display())
            .map_err(|e| e.hint("set TMPDIR to a directory that lint may write to"))?;
        let machine = Machine { root, strange: Vec::new() };
        machine.make(&machine.place(CONFIG_DIR))?;
        Ok(machine)
    }

    fn make(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).io(Kind::Internal, "make", dir.display())?;
        fs::set_permissions(dir, Permissions::from_mode(0o755)).io(Kind::Internal, "make", dir.display())
    }

    /// Returns where its keys are.
    pub(super) fn keys(&self) -> PathBuf {
        self.place(KEYS_DIR)
    }

    /// Returns where its configuration is, if there is one.
    pub(super) fn config(&self) -> Option<PathBuf> {
        Some(self.place(CONFIG_FILE)).filter(|path| path.exists())
    }

    fn place(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
    }

    /// Words an error as the machine would: without this directory, and with the owners of the initramfs.
    pub(super) fn told(&self, error: &Error) -> String {
        let mut text = error.to_string().replace(&*self.root.to_string_lossy(), "");
        for (path, uid) in &self.strange {
            let here =
                format!("{path}: its mode is {OTHERS:o}: others than its owner may write it (run `chmod go-w {path}`)");
            text = text.replace(&here, &format!("{path}: {} ({AS_ROOT})", of_another(*uid)));
        }
        text
    }

    /// Adds the content of an initramfs. Input: its tree, with the content of what is of interest.
    /// Errors: Config: a relevant file belongs to a user other than root; Internal: it cannot be written.
    pub(super) fn unpack(&mut self, tree: &Tree) -> Result<()> {
        WAY.iter().filter_map(|path| tree.at(path)).try_for_each(|lying| check_way(&lying))?;
        for dir in HEALTH_DIRS.iter().filter_map(|path| tree.at(path)) {
            check_way(&dir)?;
            tree.entries(&dir).iter().try_for_each(check_way)?;
        }
        for lying in of_interest(tree) {
            let place = self.place(&lying.path);
            let mut mode = u32::from(lying.mode) & MODE | OURS;
            if lying.uid != 0 && lying.path.starts_with(KEYS_DIR) {
                let path = String::from_utf8_lossy(&lying.path).into_owned();
                if lying.path == KEYS_DIR || lying.path.starts_with(REVOKED) {
                    return Err(Error::new(Kind::Config, of_another(lying.uid)).at("trust", path).hint(AS_ROOT));
                }
                if lying.is_file() {
                    // It cannot be given to that user here; a file that others may write is skipped alike.
                    mode = OTHERS;
                    self.strange.push((path, lying.uid));
                }
            }
            let made = match () {
                () if lying.is_dir() => self.make(&place).map(|()| Some(mode | 0o100)),
                () if lying.is_file() => write(&place, tree.content(&lying)).map(|()| Some(mode)),
                // A dangling link stands for everything else: neither a file nor a directory.
                () => symlink("nowhere", &place).io(Kind::Internal, "make", place.display()).map(|()| None),
            };
            if let Some(mode) = made? {
                fs::set_permissions(&place, Permissions::from_mode(mode)).io(
                    Kind::Internal,
                    "make",
                    place.display(),
                )?;
            }
        }
        Ok(())
    }

    /// Adds a site's files, as the boot hook does: under names that no image has.
    pub(super) fn add(&self, files: &[PathBuf], is_list: bool) -> Result<()> {
        let dir = self.place(if is_list { REVOKED } else { KEYS_DIR });
        if !dir.exists() {
            self.make(&dir)?;
        }
        for file in files {
            let mut place = dir.join("site-");
            let mut name = OsStr::new("site-").to_owned();
            name.push(file.file_name().unwrap_or_default());
            while place.ends_with("site-") || place.symlink_metadata().is_ok() {
                place = dir.join(&name);
                name = [OsStr::new("site-"), &name].into_iter().collect();
            }
            write(&place, &fs::read(file).io(Kind::Usage, "read", file.display())?)?;
            fs::set_permissions(&place, Permissions::from_mode(0o644)).io(Kind::Internal, "make", place.display())?;
        }
        Ok(())
    }
}

/// Creates a directory under a free name: other runs have theirs, and a killed run leaves one behind.
fn make_in(dir: &Path) -> io::Result<PathBuf> {
    let mut made = Err(io::ErrorKind::AlreadyExists.into());
    for number in 0..TRIES {
        let root = dir.join(format!("kubesolo-update-lint.{}.{number}", process::id()));
        made = DirBuilder::new().mode(0o700).create(&root).map(|()| root);
        if !made.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists) {
            break;
        }
    }
    made
}

/// Refuses what machines do not believe, by `os::permissions`. Errors: Config: another user could change it.
fn check_way(lying: &Lying) -> Result<()> {
    let is_kept = lying.mode & STICKY != 0 && !lying.path.starts_with(CONFIG_DIR);
    let (why, hint) = match () {
        () if !(lying.is_dir() || lying.is_file()) => return Ok(()),
        () if lying.uid != 0 => (of_another(lying.uid), AS_ROOT),
        () if lying.mode & WRITABLE != 0 && !is_kept => (
            format!("its mode is {:o}: others than its owner may write it", lying.mode & 0o7777),
            "run `chmod go-w` on it",
        ),
        () => return Ok(()),
    };
    Err(Error::new(Kind::Config, why).at("trust", String::from_utf8_lossy(&lying.path)).hint(hint))
}

fn of_another(uid: u32) -> String {
    format!("it belongs to user {uid} there, who could change it")
}

fn write(place: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(place, bytes).io(Kind::Internal, "write", place.display())
}
