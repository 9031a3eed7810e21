//! Restarts the machine.
//!
//! Must never: restart the machine when it only holds a `--root`.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::onlooker;
use crate::os::progress::{drain, note};
use crate::os::sys;
use crate::os::system::System;
use std::time::Duration;

/// Refuses to restart a machine that only holds a `--root`.
/// Errors: Usage: a restart was requested.
pub fn refuse_reboot_below_root(system: &System, reboot: bool) -> Result<()> {
    match reboot && !system.is_live() {
        true => Err(Error::new(Kind::Usage, "--reboot and --root cannot be used together")),
        false => Ok(()),
    }
}

/// Longest wait for everything to be written out before a restart. The agent's own files are written already; other unwritten
/// data is lost, as in a power cut. A machine that waits forever for a dead disk is lost itself.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// Writes everything out, including messages, and restarts the machine; returns only on failure.
pub fn reboot() -> Error {
    // Before all is written out: the next boot must not find an interrupted run.
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
