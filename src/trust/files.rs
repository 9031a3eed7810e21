//! Files in a directory of trust: which is a key, which is a revocation list, and which of them may be relied on.
//!
//! Must never: read what others may write, follow a link, or ignore what may be meant to revoke.

use super::key::Key;
use crate::base::digest::Digest;
use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::directory;
use crate::os::files::{read_bounded, read_required};
use crate::os::permissions::Insist;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Longest key file, in bytes; a P-256 key has 178.
pub(super) const KEY_MAX_BYTES: u64 = 4 << 10;
/// Longest revocation list, in bytes; a digest has 71.
pub(super) const LIST_MAX_BYTES: u64 = 256 << 10;
/// Directory of revocation lists, beside the keys.
pub(super) const REVOKED: &str = "revoked";
/// The directory of keys; its parent is the agent's configuration directory.
pub(super) const KEYS_DIR: &str = "update-keys.d";
/// Most files in `revoked/`.
pub(super) const MAX_LISTS: usize = 64;

pub(super) fn is_key(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "pub")
}

/// Role of an entry in the directory of keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A key, valid or not.
    Key,
    /// The directory of revocation lists, or an entry that replaced it.
    Revoked,
    /// Not a key by its name: a README, an editor's backup. It does not count.
    PassedOver,
    /// It may be a revocation list, or contain some, and would be ignored.
    Unexpected(Why),
}

/// Why an entry must not lie among the keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Why(&'static str);

impl Why {
    /// Returns the error for it.
    pub(super) fn at(&self, path: &Path) -> Error {
        let hint = "move it into revoked/, or out of this directory; keys are files named *.pub";
        Error::new(Kind::Config, self.0).at("trust", path.display()).hint(hint)
    }
}

/// Determines the role by name and file type. Pure.
pub(super) fn role(name: &str, kind: fs::FileType) -> Role {
    let is_hidden = name.starts_with('.');
    match () {
        _ if name == REVOKED => Role::Revoked,
        _ if says_revoking(name) => Role::Unexpected(Why(
            "its name says that it revokes something, but only files in the directory revoked/ do",
        )),
        _ if !is_hidden && is_key(Path::new(name)) => Role::Key,
        _ if kind.is_dir() => Role::Unexpected(Why("a directory: of those, only `revoked` is looked into")),
        _ if kind.is_file() || name.starts_with(".#") => Role::PassedOver,
        _ => Role::Unexpected(Why("neither a file nor the directory `revoked`")),
    }
}

/// Refuses lists one directory too high, beside the directory of keys, where they would revoke nothing.
pub(super) fn refuse_above(dir: &Path) -> Result<()> {
    dir.parent().filter(|_| dir.ends_with(KEYS_DIR)).map_or(Ok(()), refuse_named)
}

/// Refuses entries of a directory whose names suggest revocation. A missing directory has none.
pub(super) fn refuse_named(dir: &Path) -> Result<()> {
    let listed = match directory::list(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed,
    };
    let paths = listed.io(Kind::Config, "list", dir.display())?;
    match paths.iter().find(|path| names_revoking(path)) {
        None => Ok(()),
        Some(path) => {
            Err(Error::new(Kind::Config, "its name says that it revokes something, but it would not count here")
                .at("trust", path.display())
                .hint("move it into update-keys.d/revoked/, or out of this directory"))
        }
    }
}

fn names_revoking(path: &Path) -> bool {
    path.file_name().is_some_and(|name| says_revoking(&name.to_string_lossy()))
}

/// Returns whether a name suggests revocation. Pure.
fn says_revoking(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("revok") || name.contains("revoc")
}

/// Refuses a possible revocation list among the keys, where it would revoke nothing: one in which any line begins with a
/// digest, whatever follows.
pub(super) fn refuse_stray_list(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok_and(|meta| meta.is_file()) { refuse_list(path) } else { Ok(()) }
}

/// The same for an existing file, also through a link.
pub(super) fn refuse_list(path: &Path) -> Result<()> {
    let text = match read_bounded(path, LIST_MAX_BYTES) {
        // Too long for a list.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Ok(()),
        read => read.io(Kind::Config, "read", path.display())?.unwrap_or_default(),
    };
    match String::from_utf8_lossy(&text).trim_start_matches('\u{feff}').split(['\n', '\r']).any(names_digest) {
        true => Err(Error::new(Kind::Config, "a list of digests: what is revoked counts in revoked/ only")
            .at("trust", path.display())
            .hint(mend(path, "move it into revoked/ if it is to revoke what it names; if not, out of this directory"))),
        false => Ok(()),
    }
}

/// Describes how to fix a file. The boot hook copies its files again at the next boot, whatever is done with the copies.
fn mend(path: &Path, how: &str) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.strip_prefix('.').unwrap_or(&name).starts_with("site-") {
        true => format!(
            "{how}; it is a copy: do that in site/update-keys.d on the data partition, then run kubesolo-update-boot"
        ),
        false => how.to_owned(),
    }
}

/// Returns whether a line begins with a digest, in upper or lower case. Pure.
pub(super) fn names_digest(line: &str) -> bool {
    let Some((name, hex)) = line.trim_start().split_at_checked("sha256:".len()) else { return false };
    let digits = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
    name.eq_ignore_ascii_case("sha256:") && digits == 64
}

/// Refuses a link, and whatever [`Insist::check`] refuses.
pub(super) fn check_safe(path: &Path, meta: &fs::Metadata, insist: Insist) -> Result<()> {
    if meta.is_symlink() {
        let why = "a symbolic link, which is not followed: copy what it leads to";
        return Err(Error::new(Kind::Config, why).at("trust", path.display()));
    }
    // The directory of revocation lists, or an entry of it.
    let is_revoking = path.ends_with(REVOKED) || path.parent().is_some_and(|dir| dir.ends_with(REVOKED));
    let hint = match is_revoking {
        true => {
            "what is revoked are the files right in the directory revoked/: move it there, or out of this directory"
        }
        false => "keys are files named *.pub, in a directory: move it out of the way",
    };
    insist.check(path, meta).map_err(|e| e.hint(hint))
}

/// Lists a directory, sorted by name. Input: `meta`: of what is to be checked, a link or its target.
pub(super) fn entries(dir: &Path, meta: io::Result<fs::Metadata>) -> Result<Vec<PathBuf>> {
    let context = |result: io::Result<Vec<PathBuf>>| result.io(Kind::Config, "list", dir.display());
    let meta = match meta {
        // A dangling link is not an absent directory: its target may not be mounted yet.
        Err(e) if e.kind() == io::ErrorKind::NotFound && dir.symlink_metadata().is_err() => return Ok(Vec::new()),
        Err(e) => return context(Err(e)),
        Ok(meta) => meta,
    };
    check_safe(dir, &meta, Insist::Directory)?;
    context(directory::list(dir))
}

/// Lists the entries of a directory of keys with their roles. Errors: as [`entries`]; Config: an entry may be meant to revoke,
/// and would not.
pub(super) fn roles(dir: &Path, meta: io::Result<fs::Metadata>) -> Result<Vec<(PathBuf, Role)>> {
    let mut all = Vec::new();
    for path in entries(dir, meta)? {
        let kind = path.symlink_metadata().io(Kind::Config, "read", path.display())?.file_type();
        match role(&path.file_name().unwrap_or_default().to_string_lossy(), kind) {
            Role::Unexpected(why) => return Err(why.at(&path)),
            role => all.push((path, role)),
        }
    }
    Ok(all)
}

fn read_safely(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let meta = path.symlink_metadata().io(Kind::Config, "read", path.display())?;
    check_safe(path, &meta, Insist::Trusted)?;
    // The open file is checked again: a process that may change the directory could have replaced it.
    Insist::Trusted.read_open(path, max_bytes, libc::O_NOFOLLOW)
}

pub(super) fn read_key(path: &Path) -> Result<Key> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Key::parse(&read_safely(path, KEY_MAX_BYTES)?, &name)
}

/// Reads a key that the caller names.
pub(super) fn read_named(path: &Path) -> Result<Key> {
    Key::parse(
        &read_required(path, KEY_MAX_BYTES).io(Kind::Config, "read", path.display())?,
        &path.display().to_string(),
    )
}

/// Reads the digests that a directory of lists revokes; a missing one revokes nothing.
/// Errors: Config: it, or a list, cannot be read, or others may write it.
pub(super) fn revoked_in(dir: &Path) -> Result<Vec<Digest>> {
    let lists = entries(dir, dir.symlink_metadata())?;
    if lists.len() > MAX_LISTS {
        let why = format!("{} files, where at most {MAX_LISTS} are read", lists.len());
        return Err(Error::new(Kind::Config, why).at("read what is revoked in", dir.display()));
    }
    let mut all = Vec::new();
    // Hidden ones too: each of them counts, or stops everything.
    for path in &lists {
        all.extend(read_revoked(path)?);
    }
    Ok(all)
}

/// Reads one file of `revoked/`: a public key, or lines of digests, each of a key or an artifact.
fn read_revoked(path: &Path) -> Result<Vec<Digest>> {
    if is_key(path) {
        // The key's error names only the last part of the path.
        let revokes = |e: Error| Error::new(Kind::Config, e.to_string()).at("revoke the key in", path.display());
        return Ok(vec![read_key(path).map_err(revokes)?.id]);
    }
    let text = String::from_utf8_lossy(&read_safely(path, LIST_MAX_BYTES)?).into_owned();
    let hint = mend(path, "a line is sha256: and 64 hex digits, as `check --verbose` shows them");
    revoked_lines(&text).map_err(|e| e.at("read what is revoked in", path.display()).hint(hint))
}

/// Reads lines of `sha256:<64 hex>`; `#` begins a comment, `!` the reason why a list is missing (the boot hook). Pure.
pub(super) fn revoked_lines(text: &str) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    // A bare CR ends a line as well; otherwise whatever follows it would be part of a comment.
    for (number, line) in (1..).zip(text.split(['\n', '\r'])) {
        let bad = |why: &dyn std::fmt::Display| Error::new(Kind::Config, format!("line {number}: {why}"));
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(bad(&"a control character"));
        }
        if let Some(why) = line.strip_prefix('!') {
            let hint = "mend it there; a restart, or kubesolo-update-boot, takes it over then";
            return Err(Error::new(Kind::Config, why.trim()).hint(hint));
        }
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            digests.push(Digest::parse(line).map_err(|e| bad(&e))?);
        }
    }
    Ok(digests)
}
