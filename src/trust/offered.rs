//! Keys and revocation lists before they are installed on machines: in an image, or on a stick. For publishers (`lint`).
//!
//! As machines read them ([`super::keyring`]), but stricter: there, an invalid key is ignored; here it is refused, since the
//! publisher means it to count. Links are followed and owners ignored: what is installed is a copy.
//! Must never: be used on a machine, or accept what would stop one.

use super::files::{
    KEY_MAX_BYTES, KEYS_DIR, LIST_MAX_BYTES, MAX_LISTS, Role, is_key, refuse_list, revoked_lines, role,
};
use super::key::Key;
use super::keyring::MAX_KEYS;
use super::site;
use crate::base::digest::Digest;
use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::directory;
use crate::os::files::read_required;
use crate::os::permissions::refuse_writable;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

/// Marks a private key, wherever it lies.
const PRIVATE: &str = "PRIVATE KEY";
const CONFIG_NAME: &str = "update.conf";

/// Files to be installed on machines.
#[derive(Default)]
pub struct Offered {
    /// Key files.
    pub keys: Vec<PathBuf>,
    /// Revocation lists.
    pub lists: Vec<PathBuf>,
    /// Warnings about them.
    pub warnings: Vec<String>,
    known: Vec<Key>,
    revoked: Vec<Digest>,
}

impl Offered {
    /// Reads a publisher's directory of keys: its `*.pub`, and its `revoked/`.
    /// Errors: Config: an entry is invalid, has a name or a place where it would not count, or may be changed by others.
    pub fn load(dir: &Path) -> Result<Offered> {
        let mut offered = Offered::default();
        for path in list(dir)? {
            offered.sort(&path)?;
        }
        let refuse = |why: String| Err(Error::new(Kind::Config, why));
        match offered.keys.len() {
            0 => return refuse(format!("there is no *.pub in {}", dir.display())),
            count if count > MAX_KEYS => {
                return refuse(format!("{} has {count} keys; machines look at {MAX_KEYS} at most", dir.display()));
            }
            _ => {}
        }
        for (key, path) in offered.known.iter().zip(&offered.keys) {
            if offered.revoked.contains(&key.id) {
                let (key, dir) = (key.id, dir.display());
                let why = format!(
                    "warning: {} ({key}) is revoked by {dir}/revoked: no machine counts its signatures",
                    path.display()
                );
                offered.warnings.push(why);
            }
        }
        if offered.known.iter().all(|key| offered.revoked.contains(&key.id)) {
            let dir = dir.display();
            // The image may have another: the machine's final directory is checked with that.
            offered.warnings.push(format!(
                "warning: {dir}/revoked revokes each key in {dir}: machines without another key take no update"
            ));
        }
        Ok(offered)
    }

    /// Reads a site's directory as it will lie on the data partition. Errors: as for keys; whatever would stop the agent there;
    /// a key where none is looked for.
    pub fn of_site(dir: &Path) -> Result<Offered> {
        site::revoked(dir)?;
        let keys = dir.join(KEYS_DIR);
        for path in list(dir)? {
            let why = match path.file_name().unwrap_or_default().to_str() {
                Some(KEYS_DIR | CONFIG_NAME) => continue,
                _ if is_key(&path) => "no key is looked for here",
                Some(name) if name.starts_with(CONFIG_NAME) => "its name is not update.conf: it would not count",
                _ => continue,
            };
            let hint = format!("keys lie in {}, the configuration is {CONFIG_NAME} beside it", keys.display());
            return Err(Error::new(Kind::Config, why).at("trust", path.display()).hint(hint));
        }
        if keys.symlink_metadata().is_ok() { Offered::load(&keys) } else { Ok(Offered::default()) }
    }

    fn sort(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let meta = path.metadata().or_else(|_| path.symlink_metadata()).io(Kind::Config, "read", path.display())?;
        match role(&name, meta.file_type()) {
            // Keys may be kept in a git repository of their own.
            _ if name == ".git" => {}
            Role::Key => {
                self.known.push(key(path, &meta)?);
                self.keys.push(path.to_path_buf());
            }
            Role::Revoked => self.read_lists(path)?,
            Role::Unexpected(why) => return Err(why.at(path)),
            Role::PassedOver if meta.is_file() => {
                refuse_list(path)?;
                let (path, is_private) =
                    (path.display(), holds_private(&read_required(path, LIST_MAX_BYTES).unwrap_or_default()));
                self.warnings.push(match &*name {
                    _ if is_private => {
                        format!("warning: {path} is a PRIVATE key, and not taken: it does not belong beside keys that go onto machines (move it away)")
                    }
                    CONFIG_NAME => format!("{path} is not taken: a configuration is given by itself (--conf)"),
                    _ => format!("{path} is not taken: the name of a key ends in .pub"),
                });
            }
            Role::PassedOver => {}
        }
        Ok(())
    }

    /// Reads all of it: a list omitted here revokes nothing.
    fn read_lists(&mut self, dir: &Path) -> Result<()> {
        for path in list(dir)? {
            let meta = path.metadata().or_else(|_| path.symlink_metadata()).io(Kind::Config, "read", path.display())?;
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                // An empty file keeps the directory in git.
                if path.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0) {
                    continue;
                }
                let why = format!("{} is hidden, and would be left out", path.display());
                return Err(Error::new(Kind::Config, why).hint("give it a name without the dot"));
            }
            let read = if is_key(&path) { Ok(vec![key(&path, &meta)?.id]) } else { lines(&path, &meta) }?;
            if read.is_empty() {
                self.warnings.push(format!("warning: {} revokes nothing: there is no digest in it", path.display()));
            }
            self.revoked.extend(read);
            self.lists.push(path);
        }
        if self.lists.len() > MAX_LISTS {
            let why =
                format!("{} has {} files, and machines read {MAX_LISTS} at most", dir.display(), self.lists.len());
            return Err(Error::new(Kind::Config, why));
        }
        Ok(())
    }
}

/// Lists a directory, sorted by name.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let meta = dir.metadata().or_else(|_| dir.symlink_metadata()).io(Kind::Config, "list", dir.display())?;
    if !meta.is_dir() {
        return Err(Error::new(Kind::Config, format!("{} is not a directory", dir.display())));
    }
    refuse_writable(dir, &meta)?;
    directory::list(dir).io(Kind::Config, "list", dir.display())
}

fn read(path: &Path, meta: &Metadata, max_bytes: u64) -> Result<Vec<u8>> {
    if !meta.is_file() {
        return Err(Error::new(Kind::Config, format!("{} is not a regular file", path.display())));
    }
    refuse_writable(path, meta)?;
    let bytes = read_required(path, max_bytes).io(Kind::Config, "read", path.display())?;
    match holds_private(&bytes) {
        true => Err(Error::new(
            Kind::Config,
            format!("{} is a PRIVATE key: it must not leave your machine", path.display()),
        )),
        false => Ok(bytes),
    }
}

fn key(path: &Path, meta: &Metadata) -> Result<Key> {
    Key::parse(&read(path, meta, KEY_MAX_BYTES)?, &path.display().to_string())
}

fn lines(path: &Path, meta: &Metadata) -> Result<Vec<Digest>> {
    let text = String::from_utf8_lossy(&read(path, meta, LIST_MAX_BYTES)?).into_owned();
    revoked_lines(&text).map_err(|e| {
        let why = format!("{} is not a list of what is revoked: {e}", path.display());
        Error::new(Kind::Config, why).hint("each line is sha256: and 64 hex digits (scripts/keygen.sh --fingerprint)")
    })
}

fn holds_private(bytes: &[u8]) -> bool {
    bytes.windows(PRIVATE.len()).any(|part| part == PRIVATE.as_bytes())
}
