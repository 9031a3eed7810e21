//! Restarts the machine.
//!
//! Must never: restart the machine that merely holds the `--root`.

use crate::base::error::{Error, Kind, Result};
use crate::os::system::System;

/// Refuses to restart the machine that merely holds the `--root`.
/// Errors: Usage: it was asked for.
pub fn refuse_reboot_below_root(system: &System, reboot: bool) -> Result<()> {
    match reboot && !system.is_live() {
        true => Err(Error::new(Kind::Usage, "--reboot and --root exclude each other")),
        false => Ok(()),
    }
}
