//! A hardware watchdog, fed while the agent waits: a machine that hangs in its trial boot restarts, and GRUB counts the boot.
//!
//! The working thread feeds it, so a hang stops the feeding. Must never: feed it once the waiting is over.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::sys;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Timeout that the device is set to. A check of ours may take [`LONGEST_STEP`] without a sign of life.
const TIMEOUT_SECS: u32 = 60;
/// Longest time between two calls of [`Watchdog::feed`] when all is well.
pub const LONGEST_STEP: Duration = Duration::from_secs(20);
/// Shortest time between two feedings.
const PERIOD: Duration = Duration::from_secs(1);

/// A running watchdog. Dropped without [`Watchdog::stop`], it keeps running, and resets the machine.
pub struct Watchdog {
    device: File,
    fed: Instant,
}

impl Watchdog {
    /// Starts it by opening the device.
    /// Errors: Device: there is none, or another process has it.
    pub fn start(path: &Path) -> Result<Watchdog> {
        let device = OpenOptions::new().write(true).open(path).io(Kind::Device, "open watchdog", path.display())?;
        // Some devices have a fixed timeout.
        let _ = sys::set_watchdog_timeout(&device, TIMEOUT_SECS);
        let mut dog = Watchdog { device, fed: Instant::now() };
        dog.write(b"\0");
        Ok(dog)
    }

    /// Feeds it if it is due.
    pub fn feed(&mut self) {
        if self.fed.elapsed() >= PERIOD {
            self.write(b"\0");
        }
    }

    /// Stops it, unless the kernel was built not to (nowayout): then another process must feed it.
    /// Source: Linux, Documentation/watchdog/watchdog-api.rst, "Magic Close feature".
    pub fn stop(mut self) {
        self.write(b"V");
    }

    fn write(&mut self, bytes: &[u8]) {
        // A device that cannot be written to resets the machine: nothing can be done about it here.
        let _ = self.device.write_all(bytes);
        self.fed = Instant::now();
    }
}

/// Starts the configured watchdog. A missing one must not cost a trial boot: it is only reported.
pub fn start(path: Option<&Path>, say: &dyn Fn(&Error)) -> Option<Watchdog> {
    Watchdog::start(path?).inspect_err(say).ok()
}
