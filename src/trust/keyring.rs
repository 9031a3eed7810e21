//! The keys that this machine trusts, and the digests it never accepts: `/etc/kubesolo/update-keys.d`.
//!
//! Keys permit: an invalid key file is not trusted and stops nothing, so that one bad file in an image does not end the updates
//! of a fleet. Revocations forbid: they are read completely, wherever they may be meant to lie, or nothing is accepted.
//! Must never: trust a file that others may write, treat keys that are all invalid as if none were installed, or ignore a
//! possible revocation list.

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
    /// `signature = off`: insecure by choice.
    Off,
}

/// What a machine demands of signatures.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Whether there must be any.
    pub policy: SignaturePolicy,
    /// How many different keys must have signed.
    pub threshold: usize,
}

/// Everything that decides whether a signature counts.
#[derive(Clone, Debug)]
pub struct Keyring {
    policy: SignaturePolicy,
    threshold: usize,
    /// Number of key files, valid or not.
    installed: usize,
    /// Valid keys, each once; includes revoked ones, so that they can be named.
    keys: Vec<Key>,
    revoked: Vec<Digest>,
    faults: Vec<Error>,
    passed_over: Vec<PathBuf>,
}

impl Keyring {
    /// Reads `*.pub` in a directory, and all files in its `revoked/`. A missing directory has no keys.
    /// Input: `threshold`: number of different keys that must have signed.
    /// Errors: Config: the directory, `revoked/` or a file in it cannot be read, or others may write it; more than 16 keys; an
    /// entry there, or beside `update-keys.d`, is neither, and may be meant to revoke.
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

    /// Reads the keys of a machine, and its revocations: beside the keys, and in the site's lists on the data partition.
    /// Input: `site`: its directory there; `None`: there is no data partition.
    /// Errors: as [`Keyring::load`]; Config: the same for the site's directory, and if others may change the configuration
    /// directory or its path.
    pub fn of_machine(dir: &Path, demand: Demand, site: Option<&Path>) -> Result<Keyring> {
        // Otherwise others could replace or remove the directory.
        Insist::Directory.find(dir.parent().unwrap_or(dir))?;
        Insist::Directory.find(dir)?;
        let mut ring = Keyring::load(dir, demand.policy, demand.threshold)?;
        if let Some(site) = site {
            ring.revoked.extend(site::revoked(site)?);
        }
        Ok(ring)
    }

    /// Reads keys that the caller names, off the machine: each a key file, or a directory laid out as on a machine, with its
    /// revocations. A named file counts by that, so it may be a link, or writable by others; but it must be a key. Without any,
    /// nothing has to be signed, see [`Keyring::is_empty`].
    /// Errors: Config: as [`Keyring::load`]; a file is not a valid key; more than 16 keys.
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

    /// Returns whether there is no key at all, valid or not.
    pub fn is_empty(&self) -> bool {
        self.installed == 0
    }

    /// Classifies the entries beside the keys, and notes those that do not count. Returns: the key files.
    /// Errors: Config: an entry may be meant to revoke, and would not.
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

    /// Returns whether an artifact must be signed.
    /// Errors: Signature: it must, and no key is installed. Config: no key is valid, or fewer than the threshold.
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

    /// Refuses what is listed in `revoked/`, by any of its digests. Applies to unsigned artifacts as well.
    /// Errors: Signature: it is listed.
    pub fn refuse_revoked(&self, digests: &[Digest]) -> Result<()> {
        match digests.iter().find(|digest| self.is_revoked(**digest)) {
            Some(digest) => Err(Error::new(Kind::Signature, format!("{digest} is revoked on this machine"))
                .hint("its digest stands in /etc/kubesolo/update-keys.d/revoked/")),
            None => Ok(()),
        }
    }

    /// Checks whether an artifact accepted before is still acceptable.
    /// Input: `signed_by`: the keys whose signatures were verified then; `digests`: those by which it may be revoked.
    /// Errors: Signature: too few of the keys are still trusted, or it is revoked. Others: as [`Keyring::demands_signatures`].
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

    /// Returns a digest of all that decides here: it changes with any key or revocation, and then earlier acceptance no longer
    /// counts.
    pub fn fingerprint(&self) -> Digest {
        let mut all: Vec<Digest> = self.keys.iter().map(|key| key.id).collect();
        all.extend(&self.revoked);
        let (keys, threshold) = (self.keys.len(), self.threshold);
        Digest::of(format!("{keys} {threshold} {}", Digest::texts(&all).join(" ")).as_bytes())
    }

    /// Returns the number of different keys that must have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Returns whether a key or an artifact is revoked.
    pub fn is_revoked(&self, digest: Digest) -> bool {
        self.revoked.contains(&digest)
    }

    /// Returns why key files are not trusted.
    pub fn faults(&self) -> &[Error] {
        &self.faults
    }

    /// Returns the entries beside the keys whose names are not a key's: they do not count.
    pub fn passed_over(&self) -> &[PathBuf] {
        &self.passed_over
    }

    /// Names a key for messages: fingerprint, file, and the reason if it is not trusted.
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
#[cfg(test)]
#[path = "revoked_tests.rs"]
mod revoked_tests;
