//! What lies in a directory of trust: which of it is a key, which is a list of what is revoked, and which of both may be
//! relied on.
//!
//! Must never: read what others may write, follow a link, or pass over what may be meant to revoke.

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
/// Longest list of what is revoked, in bytes; a digest has 71.
pub(super) const LIST_MAX_BYTES: u64 = 256 << 10;
/// Directory of what is revoked, beside the keys.
pub(super) const REVOKED: &str = "revoked";
/// The directory of keys; what lies beside it is the agent's configuration.
pub(super) const KEYS_DIR: &str = "update-keys.d";
/// Most files in `revoked/`.
pub(super) const MAX_LISTS: usize = 64;

pub(super) fn is_key(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "pub")
}

/// What lies in the directory of keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A key, good or not.
    Key,
    /// The directory of what is revoked, or what was put in its place.
    Revoked,
    /// No key by its name: a README, what an editor left. It does not count.
    PassedOver,
    /// It may be meant to revoke something, or hold what is, and would not be looked at.
    Unexpected(Why),
}

/// Why something must not lie among the keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Why(&'static str);

impl Why {
    /// The error of it.
    pub(super) fn at(&self, path: &Path) -> Error {
        let hint = "move it into revoked/, or out of this directory; keys are files named *.pub";
        Error::new(Kind::Config, self.0).at("trust", path.display()).hint(hint)
    }
}

/// Says what something is by its name and kind. Pure.
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

/// Refuses what was put one directory too high, beside the directory of keys, where it would revoke nothing.
pub(super) fn refuse_above(dir: &Path) -> Result<()> {
    dir.parent().filter(|_| dir.ends_with(KEYS_DIR)).map_or(Ok(()), refuse_named)
}

/// Refuses what lies in a directory and has a name that says that it revokes. A directory that is not there has none.
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

/// Says whether a name speaks of revoking, or of a revocation. Pure.
fn says_revoking(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("revok") || name.contains("revoc")
}

/// Refuses what may be a list of what is revoked and lies among the keys, where it would revoke nothing: any line of it
/// begins with a digest, whatever stands behind.
pub(super) fn refuse_stray_list(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok_and(|meta| meta.is_file()) { refuse_list(path) } else { Ok(()) }
}

/// The same of a file that is there, also through a link.
pub(super) fn refuse_list(path: &Path) -> Result<()> {
    let text = match read_bounded(path, LIST_MAX_BYTES) {
        // Too long to be one.
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

/// Says what to do about a file. What the boot hook has copied comes again with the next boot, whatever is done with the copy.
fn mend(path: &Path, how: &str) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.strip_prefix('.').unwrap_or(&name).starts_with("site-") {
        true => format!(
            "{how}; it is a copy: do that in site/update-keys.d on the data partition, then run kubesolo-update-boot"
        ),
        false => how.to_owned(),
    }
}

/// Says whether a line begins with a digest, in whichever case. Pure.
pub(super) fn names_digest(line: &str) -> bool {
    let Some((name, hex)) = line.trim_start().split_at_checked("sha256:".len()) else { return false };
    let digits = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
    name.eq_ignore_ascii_case("sha256:") && digits == 64
}

/// Refuses a link, and what [`Insist::check`] refuses.
pub(super) fn check_safe(path: &Path, meta: &fs::Metadata, insist: Insist) -> Result<()> {
    if meta.is_symlink() {
        let why = "a symbolic link, which is not followed: copy what it leads to";
        return Err(Error::new(Kind::Config, why).at("trust", path.display()));
    }
    // The directory of what is revoked, or something in it.
    let is_revoking = path.ends_with(REVOKED) || path.parent().is_some_and(|dir| dir.ends_with(REVOKED));
    let hint = match is_revoking {
        true => {
            "what is revoked are the files right in the directory revoked/: move it there, or out of this directory"
        }
        false => "keys are files named *.pub, in a directory: move it out of the way",
    };
    insist.check(path, meta).map_err(|e| e.hint(hint))
}

/// Lists a directory, in the order of names. Input: `meta`: of what is to be judged, a link or what it leads to.
pub(super) fn entries(dir: &Path, meta: io::Result<fs::Metadata>) -> Result<Vec<PathBuf>> {
    let context = |result: io::Result<Vec<PathBuf>>| result.io(Kind::Config, "list", dir.display());
    let meta = match meta {
        // A link that leads nowhere is not "nothing": what it leads to may not be mounted.
        Err(e) if e.kind() == io::ErrorKind::NotFound && dir.symlink_metadata().is_err() => return Ok(Vec::new()),
        Err(e) => return context(Err(e)),
        Ok(meta) => meta,
    };
    check_safe(dir, &meta, Insist::Directory)?;
    context(directory::list(dir))
}

/// Lists what lies in a directory of keys, with what it is. Errors: as [`entries`]; Config: something may be meant to revoke,
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
    // What was opened is asked again: it may not be what was looked at.
    Insist::Trusted.read_open(path, max_bytes, libc::O_NOFOLLOW)
}

pub(super) fn read_key(path: &Path) -> Result<Key> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Key::parse(&read_safely(path, KEY_MAX_BYTES)?, &name)
}

/// Reads a key that a person names.
pub(super) fn read_named(path: &Path) -> Result<Key> {
    Key::parse(
        &read_required(path, KEY_MAX_BYTES).io(Kind::Config, "read", path.display())?,
        &path.display().to_string(),
    )
}

/// Reads what a directory of lists revokes; one that is not there revokes nothing.
/// Errors: Config: it, or one of them, can not be read, or others may write it.
pub(super) fn revoked_in(dir: &Path) -> Result<Vec<Digest>> {
    let lists = entries(dir, dir.symlink_metadata())?;
    if lists.len() > MAX_LISTS {
        let why = format!("{} files, where at most {MAX_LISTS} are read", lists.len());
        return Err(Error::new(Kind::Config, why).at("read what is revoked in", dir.display()));
    }
    let mut all = Vec::new();
    // Hidden ones, too: each of them counts, or stops everything.
    for path in &lists {
        all.extend(read_revoked(path)?);
    }
    Ok(all)
}

/// Reads one file of `revoked/`: a public key, or lines of digests, each of a key or of an artifact.
fn read_revoked(path: &Path) -> Result<Vec<Digest>> {
    if is_key(path) {
        // The error of a key names no more than its file's last part.
        let revokes = |e: Error| Error::new(Kind::Config, e.to_string()).at("revoke the key in", path.display());
        return Ok(vec![read_key(path).map_err(revokes)?.id]);
    }
    let text = String::from_utf8_lossy(&read_safely(path, LIST_MAX_BYTES)?).into_owned();
    let hint = mend(path, "a line is sha256: and 64 hex digits, as `check --verbose` shows them");
    revoked_lines(&text).map_err(|e| e.at("read what is revoked in", path.display()).hint(hint))
}

/// Reads lines of `sha256:<64 hex>`; a `#` begins a comment, a `!` the reason why a list is not here (the boot hook). Pure.
pub(super) fn revoked_lines(text: &str) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    // A bare CR ends a line as well, or what stands behind it would belong to a comment.
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
