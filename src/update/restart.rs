//! Restarts the machine.
//!
//! Must never: restart the machine that merely holds the `--root`.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::onlooker;
use crate::os::progress::{drain, note};
use crate::os::sys;
use crate::os::system::System;
use std::time::Duration;

/// Refuses to restart the machine that merely holds the `--root`.
/// Errors: Usage: it was asked for.
pub fn refuse_reboot_below_root(system: &System, reboot: bool) -> Result<()> {
    match reboot && !system.is_live() {
        true => Err(Error::new(Kind::Usage, "--reboot and --root cannot be used together")),
        false => Ok(()),
    }
}

/// How long is waited until everything is written out, before a restart. The agent's own files are: of the rest, whatever is
/// not then is lost, as at a power cut. A machine that waits for a dead disk for ever is lost itself.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// Writes everything out, also what was said, and restarts the machine; comes back only when that fails.
pub fn reboot() -> Error {
    // Before all is written out: the next boot is not to find a run that was cut off.
    onlooker::leave();
    if !sys::sync_within(SYNC_LIMIT) {
        note("sync: not done after 30 s, a disk does not answer; the machine restarts all the same");
    }
    drain();
    let failed = Err::<(), _>(sys::reboot()).io(Kind::Internal, "restart", "the machine");
    match failed {
        Err(e) => e.hint("restarting needs root"),
        Ok(()) => Error::new(Kind::Internal, "the kernel did not restart"),
    }
}
