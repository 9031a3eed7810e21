//! The keys that this machine trusts, and what it never accepts: `/etc/kubesolo/update-keys.d`.
//!
//! Keys are a list of who is allowed: a key file that is no good is not trusted and stops nothing, so that one bad file in
//! an image does not end the updates of a fleet. What is revoked forbids: it is read whole, wherever it may be meant to
//! lie, or nothing is accepted at all.
//! Must never: trust a file that others may write, take the absence of good keys for the absence of keys, or pass over
//! what may be a list of what is revoked.

use super::keys::Key;
use super::site;
use crate::atomic::read_bounded;
use crate::error::{Error, IoContext, Kind, Result};
use crate::oci::digest::Digest;
use crate::sys;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most key files: each may be tried on each signature.
const MAX_KEYS: usize = 16;
/// Longest key file, in bytes; a P-256 key has 178.
const KEY_MAX_BYTES: u64 = 4 << 10;
/// Longest list of what is revoked, in bytes; a digest has 71.
const LIST_MAX_BYTES: u64 = 256 << 10;
/// Directory of what is revoked, beside the keys.
pub(super) const REVOKED: &str = "revoked";
/// The directory of keys; what lies beside it is the agent's configuration.
pub(super) const KEYS_DIR: &str = "update-keys.d";
/// Most files in `revoked/`.
const MAX_LISTS: usize = 64;
/// Write permission for group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Whether an update must be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignaturePolicy {
    /// The default.
    Required,
    /// `signature = off`: insecurity, chosen.
    Off,
}

/// Holds what decides whether a signature counts.
#[derive(Clone, Debug)]
pub struct Keyring {
    policy: SignaturePolicy,
    threshold: usize,
    /// Key files, good or not.
    installed: usize,
    /// Good ones, one for each key; what is revoked is among them, so that it can be named.
    keys: Vec<Key>,
    revoked: Vec<Digest>,
    faults: Vec<Error>,
    passed_over: Vec<PathBuf>,
}

impl Keyring {
    /// Reads `*.pub` in a directory, and all files in its `revoked/`. A directory that is not there has no keys.
    /// Input: `threshold`: how many different keys must have signed.
    /// Errors: Config: the directory, `revoked/` or a file in that can not be read, or others may write it; more than 16
    /// keys; something lies there, or beside `update-keys.d`, that is neither, and may be meant to revoke.
    pub fn load(dir: &Path, policy: SignaturePolicy, threshold: usize) -> Result<Keyring> {
        let mut ring = Keyring {
            policy,
            threshold,
            installed: 0,
            keys: Vec::new(),
            revoked: Vec::new(),
            faults: vec![],
            passed_over: vec![],
        };
        refuse_above(dir)?;
        let keys = ring.sort_out(dir)?;
        ring.installed = keys.len();
        if keys.len() > MAX_KEYS {
            let why = format!("{} key files, where at most {MAX_KEYS} are looked at", keys.len());
            return Err(Error::new(Kind::Config, why).at("read keys in", dir.display()));
        }
        for path in &keys {
            match read_key(path) {
                Ok(key) if ring.keys.iter().any(|known| known.id == key.id) => {}
                Ok(key) => ring.keys.push(key),
                Err(e) => {
                    refuse_stray_list(path)?;
                    ring.faults.push(e);
                }
            }
        }
        ring.revoked = revoked_in(&dir.join(REVOKED))?;
        Ok(ring)
    }

    /// Reads the keys of a machine, and what it revokes: beside them, and on the data partition, in the site's lists.
    /// Input: `site`: its directory there; `None`: there is no data partition.
    /// Errors: as [`Keyring::load`]; Config: as well of what lies in the site's directory.
    pub fn of_machine(
        dir: &Path,
        (policy, threshold): (SignaturePolicy, usize),
        site: Option<&Path>,
    ) -> Result<Keyring> {
        let mut ring = Keyring::load(dir, policy, threshold)?;
        if let Some(site) = site {
            ring.revoked.extend(site::revoked(site)?);
        }
        Ok(ring)
    }

    /// Lists what lies beside the keys, and notes what does not count. Returns: the key files.
    /// Errors: Config: something may be meant to revoke, and would not.
    fn sort_out(&mut self, dir: &Path) -> Result<Vec<PathBuf>> {
        let mut keys = Vec::new();
        for path in entries(dir, fs::metadata(dir))? {
            let meta = path.symlink_metadata().io(Kind::Config, "read", path.display())?;
            match role(&path.file_name().unwrap_or_default().to_string_lossy(), meta.file_type()) {
                Role::Key => keys.push(path),
                Role::Revoked => {}
                Role::PassedOver => {
                    refuse_stray_list(&path)?;
                    self.passed_over.push(path);
                }
                Role::Unexpected(why) => return Err(why.at(&path)),
            }
        }
        Ok(keys)
    }

    /// Says whether an artifact must be signed.
    /// Errors: Signature: it must, and no key is installed. Config: no good key is, or fewer than it takes.
    pub fn demands_signatures(&self) -> Result<bool> {
        let hint = "install the publisher's public key as /etc/kubesolo/update-keys.d/NAME.pub; `signature = off` in \
                    update.conf takes unsigned updates";
        match (self.installed, self.policy) {
            (0, SignaturePolicy::Off) => return Ok(false),
            (0, SignaturePolicy::Required) => {
                let named = |path: &PathBuf| format!("; {} does not count", path.display());
                let others = self.passed_over.iter().map(named).collect::<String>();
                let why = format!("signatures are required, and no key is installed{others}");
                return Err(Error::new(Kind::Signature, why).hint(hint));
            }
            _ => {}
        }
        let good = self.trusted().count();
        let bad = self.faults.first().map_or(String::new(), |e| format!(": {e}"));
        match (good, self.threshold) {
            (0, _) => {
                let keys: Vec<String> = self.keys.iter().map(|key| format!("; {}", self.name(key.id))).collect();
                let why = format!("none of the installed keys is good and not revoked{bad}{}", keys.concat());
                Err(Error::new(Kind::Config, why).hint("install another key"))
            }
            (good, threshold) if good < threshold => {
                let why = format!("{good} good keys are installed, and signature_threshold is {threshold}{bad}");
                Err(Error::new(Kind::Config, why).hint("no artifact can be signed by so many"))
            }
            _ => Ok(true),
        }
    }

    /// Refuses what is listed in `revoked/`, by any digest that names it. Holds for unsigned artifacts as well.
    /// Errors: Signature: it is listed.
    pub fn refuse_revoked(&self, digests: &[Digest]) -> Result<()> {
        match digests.iter().find(|digest| self.is_revoked(**digest)) {
            Some(digest) => Err(Error::new(Kind::Signature, format!("{digest} is revoked on this machine"))
                .hint("its digest stands in /etc/kubesolo/update-keys.d/revoked/")),
            None => Ok(()),
        }
    }

    /// Says whether what was accepted before is still to be accepted.
    /// Input: `signed_by`: the keys whose signatures were verified then; `digests`: what it may be revoked by.
    /// Errors: Signature: too few of them are still trusted, or it is revoked. Others: as [`Keyring::demands_signatures`].
    pub fn still_accepts(&self, signed_by: &[Digest], digests: &[Digest]) -> Result<()> {
        self.refuse_revoked(digests)?;
        if !self.demands_signatures()? {
            return Ok(());
        }
        let count = self.trusted().filter(|key| signed_by.contains(&key.id)).count();
        match count >= self.threshold {
            true => Ok(()),
            false if signed_by.is_empty() => Err(Error::new(Kind::Signature, "no signature of it was ever verified")),
            false => {
                let by: Vec<String> = signed_by.iter().map(|id| self.name(*id)).collect();
                let need = self.threshold;
                let why = format!("signed by {}: {count} trusted keys, where it takes {need}", by.join(", "));
                Err(Error::new(Kind::Signature, why))
            }
        }
    }

    /// Returns the keys that were read, revoked ones too.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Names what decides here: another key, or another digest that is revoked, and what was accepted before is no answer
    /// any more.
    pub fn fingerprint(&self) -> Digest {
        let mut all: Vec<Digest> = self.keys.iter().map(|key| key.id).collect();
        all.extend(&self.revoked);
        let (keys, threshold) = (self.keys.len(), self.threshold);
        Digest::of(format!("{keys} {threshold} {}", Digest::texts(&all).join(" ")).as_bytes())
    }

    /// Returns how many different keys must have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Says whether a key or an artifact is revoked.
    pub fn is_revoked(&self, digest: Digest) -> bool {
        self.revoked.contains(&digest)
    }

    /// Returns why key files are not trusted.
    pub fn faults(&self) -> &[Error] {
        &self.faults
    }

    /// Returns what lies beside the keys and is no key by its name: it does not count.
    pub fn passed_over(&self) -> &[PathBuf] {
        &self.passed_over
    }

    /// Names a key for people: fingerprint, its file, and what keeps it from being trusted.
    pub fn name(&self, id: Digest) -> String {
        let file = self.keys.iter().find(|key| key.id == id).map(|key| key.name.as_str());
        match (file, self.is_revoked(id)) {
            (Some(file), false) => format!("{id} ({file})"),
            (Some(file), true) => format!("{id} ({file}, revoked)"),
            (None, true) => format!("{id} (revoked)"),
            (None, false) => format!("{id} (not installed)"),
        }
    }

    /// Returns the keys whose signatures count.
    pub fn trusted(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(|key| !self.is_revoked(key.id))
    }
}

fn is_key(path: &Path) -> bool {
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
        _ if name.to_ascii_lowercase().contains("revok") => Role::Unexpected(Why(
            "its name says that it revokes something, but only files in the directory revoked/ do",
        )),
        _ if !is_hidden && is_key(Path::new(name)) => Role::Key,
        _ if kind.is_dir() => Role::Unexpected(Why("a directory: of those, only `revoked` is looked into")),
        _ if kind.is_file() || is_hidden => Role::PassedOver,
        _ => Role::Unexpected(Why("neither a file nor the directory `revoked`")),
    }
}

/// Refuses what was put one directory too high, beside the directory of keys, where it would revoke nothing.
fn refuse_above(dir: &Path) -> Result<()> {
    dir.parent().filter(|_| dir.ends_with(KEYS_DIR)).map_or(Ok(()), refuse_named)
}

/// Refuses what lies in a directory and has a name that says that it revokes. A directory that is not there has none.
pub(super) fn refuse_named(dir: &Path) -> Result<()> {
    let listed = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()),
    };
    let paths = listed.io(Kind::Config, "list", dir.display())?;
    match paths.iter().filter(|path| names_revoking(path)).min() {
        None => Ok(()),
        Some(path) => {
            Err(Error::new(Kind::Config, "its name says that it revokes something, but it would not count here")
                .at("trust", path.display())
                .hint("move it into update-keys.d/revoked/, or out of this directory"))
        }
    }
}

fn names_revoking(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().contains("revok"))
}

/// Refuses what may be a list of what is revoked and lies among the keys, where it would revoke nothing: any line of it
/// begins with a digest, whatever stands behind.
pub(super) fn refuse_stray_list(path: &Path) -> Result<()> {
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(());
    }
    let text = match read_bounded(path, LIST_MAX_BYTES) {
        // Too long to be one.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Ok(()),
        read => read.io(Kind::Config, "read", path.display())?.unwrap_or_default(),
    };
    match String::from_utf8_lossy(&text).trim_start_matches('\u{feff}').split(['\n', '\r']).any(names_digest) {
        true => Err(Error::new(Kind::Config, "a list of digests: what is revoked counts in revoked/ only")
            .at("trust", path.display())
            .hint("move it into revoked/ if it is to revoke what it names; if not, out of this directory")),
        false => Ok(()),
    }
}

/// Says whether a line begins with a digest, in whichever case. Pure.
fn names_digest(line: &str) -> bool {
    let Some((name, hex)) = line.trim_start().split_at_checked("sha256:".len()) else { return false };
    let digits = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
    name.eq_ignore_ascii_case("sha256:") && digits == 64
}

/// Refuses what others than its owner may write, and what is no file, or no directory.
pub(super) fn check_safe(path: &Path, meta: &fs::Metadata, is_kind: bool, kind: &str) -> Result<()> {
    // The directory of what is revoked, or something in it.
    let is_revoking = path.ends_with(REVOKED) || path.parent().is_some_and(|dir| dir.ends_with(REVOKED));
    let hint = match is_revoking {
        true => {
            "what is revoked are the files right in the directory revoked/: move it there, or out of this directory"
        }
        false => "keys are files named *.pub, in a directory: move it out of the way",
    };
    let fail = |why: String| Err(Error::new(Kind::Config, why).at("trust", path.display()));
    match meta.mode() & WRITABLE_BY_OTHERS {
        _ if meta.is_symlink() => fail("a symbolic link, which is not followed: copy what it leads to".into()),
        _ if !is_kind => fail(format!("not a {kind}")).map_err(|e| e.hint(hint)),
        _ if meta.uid() != 0 && meta.uid() != sys::user() => {
            fail(format!("it belongs to user {}, who could change it", meta.uid())).map_err(|e| e.hint("chown root"))
        }
        0 => Ok(()),
        _ => {
            let mode = meta.mode() & 0o777;
            fail(format!("its mode is {mode:o}: others than its owner may write it")).map_err(|e| e.hint("chmod go-w"))
        }
    }
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
    check_safe(dir, &meta, meta.is_dir(), "directory")?;
    let list = || fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = context(list())?;
    paths.sort();
    Ok(paths)
}

fn read_safely(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let meta = path.symlink_metadata().io(Kind::Config, "read", path.display())?;
    check_safe(path, &meta, meta.is_file(), "regular file")?;
    let bytes = read_bounded(path, max_bytes).io(Kind::Config, "read", path.display())?;
    bytes.ok_or_else(|| Error::new(Kind::Config, "it is gone").at("read", path.display()))
}

fn read_key(path: &Path) -> Result<Key> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Key::parse(&read_safely(path, KEY_MAX_BYTES)?, &name)
}

/// Reads what a directory of lists revokes; one that is not there revokes nothing.
/// Errors: Config: it, or one of them, can not be read, or others may write it.
pub(super) fn revoked_in(dir: &Path) -> Result<Vec<Digest>> {
    let lists = entries(dir, dir.symlink_metadata())?;
    if lists.len() > MAX_LISTS {
        let why = format!("{} files, where at most {MAX_LISTS} are read", lists.len());
        return Err(Error::new(Kind::Config, why).at("read what is revoked in", dir.display()));
    }
    // Hidden ones, too: each of them counts, or stops everything.
    let read: Result<Vec<Vec<Digest>>> = lists.iter().map(|path| read_revoked(path)).collect();
    Ok(read?.concat())
}

/// Reads one file of `revoked/`: a public key, or lines of digests, each of a key or of an artifact.
fn read_revoked(path: &Path) -> Result<Vec<Digest>> {
    if is_key(path) {
        // The error of a key names no more than its file's last part.
        let revokes = |e: Error| Error::new(Kind::Config, e.to_string()).at("revoke the key in", path.display());
        return Ok(vec![read_key(path).map_err(revokes)?.id]);
    }
    let text = String::from_utf8_lossy(&read_safely(path, LIST_MAX_BYTES)?).into_owned();
    revoked_lines(&text).map_err(|e| e.at("read what is revoked in", path.display()))
}

/// Reads lines of `sha256:<64 hex>`; a `#` begins a comment, a `!` the reason why a list is not here (the boot hook). Pure.
fn revoked_lines(text: &str) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    // A bare CR ends a line as well, or what stands behind it would belong to a comment.
    for (number, line) in (1..).zip(text.split(['\n', '\r'])) {
        let bad = |why: &dyn std::fmt::Display| {
            Error::new(Kind::Config, format!("line {number}: {why}"))
                .hint("a line is sha256: and 64 hex digits, as `check` shows them")
        };
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

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
