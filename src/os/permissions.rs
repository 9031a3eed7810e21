//! Which users could have changed a file that this program relies on, or can read a secret one: one check for all callers.
//!
//! One rule for keys, lists of what is revoked, checks and `update.conf`:
//! - the file belongs to root or to the user that runs this program, and neither its group nor others may write it;
//! - so does each directory on its path, from the root on. A sticky one (/tmp, a Secret's mount) may be writable by others:
//!   they cannot replace files that are not theirs. One that is listed may not: they could add to it;
//! - so does each symbolic link on the path; it is followed, and its target is checked too (Kubernetes' `..data`, a store that
//!   /etc leads into).
//!
//! Checked from the root on, so no other user can change what was seen, and the file opened next is the one that was checked.
//! Its descriptor is checked again. A relative path begins in the working directory. A secret is checked on its own, by its
//! descriptor: others must not read it; its group may. A user who replaces it can only choose among files
//! that root, or this user, keeps secret already.
//! Must never: wait for a pipe, read what is not a regular file, or treat what cannot be examined as absent.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::files::{open, read_all};
use crate::os::sys;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Write permission for group and others.
const WRITABLE: u32 = 0o022;
/// Permissions that a secret file must not have: its group may only read it, others nothing.
const OTHERS: u32 = 0o027;
/// Links that are followed, as many as the kernel does. Source: path_resolution(7).
const MAX_LINKS: u32 = 40;

/// Requirement for what lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insist {
    /// A file that is believed.
    Trusted,
    /// A file that is run.
    Executable,
    /// A file that others may not read.
    Secret,
    /// The same of a file that a publisher names: of any owner.
    NamedSecret,
    /// A directory that is listed.
    Directory,
}

impl Insist {
    /// Checks what lies at a path itself, not the directories above. Input: `meta`: of the open file if there is one.
    /// Errors: Config: why it is refused, and the command that fixes it.
    pub fn check(self, path: &Path, meta: &Metadata) -> Result<()> {
        let (is_kind, kind) = match self {
            Insist::Directory => (meta.is_dir(), "not a directory"),
            _ => (meta.is_file(), "not a regular file"),
        };
        if !is_kind {
            return Err(Error::new(Kind::Config, kind).at("trust", path.display()));
        }
        let is_secret = matches!(self, Insist::Secret | Insist::NamedSecret);
        if self != Insist::NamedSecret {
            check_owner(path, meta)?;
        }
        if self == Insist::Executable && meta.mode() & 0o111 == 0 {
            return Err(refused(path, "it is a program, and not executable".into(), "chmod +x"));
        }
        refuse_mode(path, meta, if is_secret { OTHERS } else { WRITABLE })
    }

    /// Checks what lies at a path, through links, and the directories above. Returns: whether it exists.
    /// Errors: Config: as [`Insist::check`]; others could redirect the path; it cannot be examined; a link is dangling.
    pub fn find(self, path: &Path) -> Result<bool> {
        // A relative path begins in a directory that is checked too; an absolute one replaces it.
        self.follow(&Path::new(".").join(path), MAX_LINKS, false)
    }

    fn follow(self, path: &Path, links: u32, is_needed: bool) -> Result<bool> {
        let whole = path.as_os_str().as_bytes();
        for end in 1..=whole.len() {
            let (start, rest) = whole.split_at(end);
            if end > 1 && !rest.is_empty() && rest[0] != b'/' {
                continue;
            }
            let here = Path::new(OsStr::from_bytes(start));
            let meta = match here.symlink_metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound && !is_needed => return Ok(false),
                meta => meta.io(Kind::Config, "read", here.display())?,
            };
            if meta.is_symlink() {
                check_owner(here, &meta)?;
                let target = match links {
                    0 => Err(io::Error::from_raw_os_error(libc::ELOOP)),
                    _ => here.read_link(),
                };
                let mut next = here.with_file_name(target.io(Kind::Config, "read", here.display())?).into_os_string();
                next.push(OsStr::from_bytes(rest));
                let copy =
                    |e: Error| e.hint_instead(&format!("put a copy in the place of the link {}", here.display()));
                return self.follow(Path::new(&next), links - 1, is_needed || rest.is_empty()).map_err(copy);
            }
            if rest.is_empty() {
                self.check(here, &meta)?;
            } else {
                let others = if meta.mode() & libc::S_ISVTX == 0 { WRITABLE } else { 0 };
                check_owner(here, &meta).and_then(|()| refuse_mode(here, &meta, others))?;
            }
        }
        Ok(true)
    }

    /// Reads a whole small file to rely on, through links. Returns: `None`: it does not exist.
    /// Errors: Config: as [`Insist::find`]; longer than `max_bytes`.
    pub fn read(self, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        match self.find(path)? {
            false => Ok(None),
            true => self.read_open(path, max_bytes, 0).map(Some),
        }
    }

    /// Reads a required file, and checks only the file itself. Input: `flags`: to open it with.
    /// Errors: as [`Insist::check`]; Config: it does not exist, or is longer than `max_bytes`.
    pub fn read_open(self, path: &Path, max_bytes: u64, flags: i32) -> Result<Vec<u8>> {
        let opened = open(path, flags).and_then(|file| Ok((file.metadata()?, file)));
        let (meta, file) = opened.io(Kind::Config, "read", path.display())?;
        self.check(path, &meta)?;
        read_all(file, max_bytes).io(Kind::Config, "read", path.display())
    }
}

/// Refuses a file that users other than its owner may write.
pub fn refuse_writable(path: &Path, meta: &Metadata) -> Result<()> {
    refuse_mode(path, meta, WRITABLE)
}

/// Input: `others`: permissions that others must not have.
fn refuse_mode(path: &Path, meta: &Metadata, others: u32) -> Result<()> {
    let (words, next) = match others {
        OTHERS => ("can read or change a secret", "chmod 600"),
        _ => ("than its owner may write it", "chmod go-w"),
    };
    match meta.mode() & others {
        0 => Ok(()),
        _ => Err(refused(path, format!("its mode is {:o}: others {words}", meta.mode() & 0o7777), next)),
    }
}

/// Refuses a file owned by a user other than root and this program's user.
pub fn check_owner(path: &Path, meta: &Metadata) -> Result<()> {
    match meta.uid() {
        user if user == 0 || user == sys::user() => Ok(()),
        user => Err(refused(path, format!("it belongs to user {user}, who could change it"), "chown root")),
    }
}

#[cold]
#[inline(never)]
fn refused(path: &Path, why: String, next: &str) -> Error {
    let path = path.display();
    Error::new(Kind::Config, why).at("trust", &path).hint(format!("run `{next} {path}`"))
}

#[cfg(test)]
#[path = "permissions_tests.rs"]
mod tests;
