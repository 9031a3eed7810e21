//! The site's revocations on its data partition, in `site/update-keys.d/revoked` (docs/decisions/0010).
//!
//! The boot hook installs keys and lists; the lists also count here, at once, and even if the hook had no data partition.
//! Whatever would stop the agent after the next boot stops it now.
//! Must never: trust a key that lies there, or ignore what may be meant to revoke.

use super::files::{KEYS_DIR, REVOKED, Role, check_safe, entries, refuse_named, refuse_stray_list, revoked_in, roles};
use crate::base::digest::Digest;
use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::permissions::Insist;
use std::io;
use std::path::Path;

/// Reads the revocations. Input: `site`: the directory; a missing one revokes nothing.
/// Errors: Config: a directory or a list that others than root may write, or that cannot be read; or an entry may be meant to
/// revoke, and would not.
pub fn revoked(site: &Path) -> Result<Vec<Digest>> {
    let keys = site.join(KEYS_DIR);
    let meta = match site.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        meta => meta.io(Kind::Config, "read", site.display())?,
    };
    let is_safe = check_safe(site, &meta, Insist::Directory);
    if is_safe.is_err() && meta.is_dir() && is_absent(&keys) {
        // Nothing of it is installed, but names that suggest revocation are still not ignored.
        return refuse_named(site).map(|()| Vec::new());
    }
    is_safe?;
    for (path, role) in roles(&keys, keys.symlink_metadata())? {
        if role != Role::Revoked {
            refuse_stray_list(&path)?;
        }
    }
    refuse_astray(site, &keys)?;
    revoked_in(&keys.join(REVOKED))
}

fn is_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// Refuses lists one directory too high or too deep, where they would revoke nothing.
fn refuse_astray(site: &Path, keys: &Path) -> Result<()> {
    refuse_named(site)?;
    for path in entries(site, site.symlink_metadata())? {
        let is_dir = path.symlink_metadata().io(Kind::Config, "read", path.display())?.is_dir();
        if !is_dir || path == keys {
            continue;
        }
        refuse_named(&path)?;
        let too_deep = path.join(KEYS_DIR);
        if !is_absent(&too_deep) {
            return Err(Error::new(Kind::Config, "it is not looked into")
                .at("trust", too_deep.display())
                .hint(format!("what is revoked lies in {}: move it there, or out of this directory", keys.display())));
        }
    }
    Ok(())
}
