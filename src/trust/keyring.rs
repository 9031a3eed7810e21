//! The keys that this machine trusts, and what it never accepts: `/etc/kubesolo/update-keys.d`.
//!
//! Keys are a list of who is allowed: a key file that is no good is not trusted and stops nothing, so that one bad file in
//! an image does not end the updates of a fleet. What is revoked forbids: it is read whole, wherever it may be meant to
//! lie, or nothing is accepted at all.
//! Must never: trust a file that others may write, take the absence of good keys for the absence of keys, or pass over
//! what may be a list of what is revoked.

use super::files::{REVOKED, Role, read_key, read_named, refuse_above, refuse_stray_list, revoked_in, roles};
use super::key::Key;
use super::site;
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::os::permissions::Insist;
use std::fs;
use std::path::{Path, PathBuf};

/// Most key files: each may be tried on each signature.
pub(super) const MAX_KEYS: usize = 16;

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
    /// Errors: Config: the directory, `revoked/` or a file in that cannot be read, or others may write it; more than 16
    /// keys; something lies there, or beside `update-keys.d`, that is neither, and may be meant to revoke.
    pub fn load(dir: &Path, policy: SignaturePolicy, threshold: usize) -> Result<Keyring> {
        let mut ring = Keyring::empty(policy, threshold);
        refuse_above(dir)?;
        let keys = ring.sort_out(dir)?;
        ring.installed = keys.len();
        ring.demand_few().map_err(|e| e.at("read keys in", dir.display()))?;
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
    /// Errors: as [`Keyring::load`]; Config: as well of what lies in the site's directory, and where others may change the
    /// directory of the agent's configuration, or the way to it.
    pub fn of_machine(
        dir: &Path,
        (policy, threshold): (SignaturePolicy, usize),
        site: Option<&Path>,
    ) -> Result<Keyring> {
        // Others could put another directory in its place, or take it away.
        Insist::Directory.find(dir.parent().unwrap_or(dir))?;
        Insist::Directory.find(dir)?;
        let mut ring = Keyring::load(dir, policy, threshold)?;
        if let Some(site) = site {
            ring.revoked.extend(site::revoked(site)?);
        }
        Ok(ring)
    }

    /// Reads keys that a person names, off the machine: each a key file, or a directory as a machine has it, with what it
    /// revokes. Whoever names a file says that it counts, so it may be a link, and others may write it; and it is a key.
    /// Without any nothing has to be signed, see [`Keyring::is_empty`].
    /// Errors: Config: as [`Keyring::load`]; a file is no good key; more than 16 keys.
    pub fn named(paths: &[PathBuf], threshold: usize) -> Result<Keyring> {
        let mut ring = Keyring::empty(SignaturePolicy::Off, threshold);
        for path in paths {
            let more = match path.is_dir() {
                true => Keyring::load(path, ring.policy, threshold)?,
                false => {
                    Keyring { installed: 1, keys: vec![read_named(path)?], ..Keyring::empty(ring.policy, threshold) }
                }
            };
            ring.installed += more.installed;
            for key in more.keys {
                if ring.keys.iter().all(|known| known.id != key.id) {
                    ring.keys.push(key);
                }
            }
            ring.revoked.extend(more.revoked);
            ring.faults.extend(more.faults);
            ring.passed_over.extend(more.passed_over);
        }
        ring.demand_few().map_err(|e| e.at("read the keys of", "--key"))?;
        Ok(ring)
    }

    fn empty(policy: SignaturePolicy, threshold: usize) -> Keyring {
        let (keys, revoked, faults, passed_over) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Keyring { policy, threshold, installed: 0, keys, revoked, faults, passed_over }
    }

    fn demand_few(&self) -> Result<()> {
        match self.installed {
            0..=MAX_KEYS => Ok(()),
            n => Err(Error::new(Kind::Config, format!("{n} key files, where at most {MAX_KEYS} are looked at"))),
        }
    }

    /// Says whether there is no key at all, good or not.
    pub fn is_empty(&self) -> bool {
        self.installed == 0
    }

    /// Lists what lies beside the keys, and notes what does not count. Returns: the key files.
    /// Errors: Config: something may be meant to revoke, and would not.
    fn sort_out(&mut self, dir: &Path) -> Result<Vec<PathBuf>> {
        let mut keys = Vec::new();
        for (path, role) in roles(dir, fs::metadata(dir))? {
            match role {
                Role::Key => keys.push(path),
                Role::PassedOver => {
                    refuse_stray_list(&path)?;
                    self.passed_over.push(path);
                }
                Role::Revoked | Role::Unexpected(_) => {}
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
                Err(Error::new(Kind::Config, why).hint("no artifact can carry that many signatures"))
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

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "named_tests.rs"]
mod named_tests;
