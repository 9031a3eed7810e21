//! A hardware watchdog, fed while the agent waits: a machine that hangs in its trial boot restarts, and GRUB counts the boot.
//!
//! The working thread feeds it, so a hang stops the feeding. Must never: feed it once the waiting is over.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::sys;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the device is asked to wait for. A check of ours may take [`LONGEST_STEP`] without a sign of life.
const TIMEOUT_SECS: u32 = 60;
/// Longest time between two calls of [`Watchdog::feed`] when all is well.
pub const LONGEST_STEP: Duration = Duration::from_secs(20);
/// How often it is fed.
const PERIOD: Duration = Duration::from_secs(1);

/// A watchdog that runs. Dropped without [`Watchdog::stop`], it goes on running, and bites.
pub struct Watchdog {
    device: File,
    fed: Instant,
}

impl Watchdog {
    /// Starts it: the kernel does, when the device is opened.
    /// Errors: Device: there is none, or somebody else has it.
    pub fn start(path: &Path) -> Result<Watchdog> {
        let device = OpenOptions::new().write(true).open(path).io(Kind::Device, "open watchdog", path.display())?;
        // Some cannot be told; then it bites when it does.
        let _ = sys::set_watchdog_timeout(&device, TIMEOUT_SECS);
        let mut dog = Watchdog { device, fed: Instant::now() };
        dog.write(b"\0");
        Ok(dog)
    }

    /// Feeds it, if it is time.
    pub fn feed(&mut self) {
        if self.fed.elapsed() >= PERIOD {
            self.write(b"\0");
        }
    }

    /// Stops it, unless the kernel was built not to (nowayout): then it wants to be fed by somebody else.
    /// Source: Linux, Documentation/watchdog/watchdog-api.rst, "Magic Close feature".
    pub fn stop(mut self) {
        self.write(b"V");
    }

    fn write(&mut self, bytes: &[u8]) {
        // What cannot be fed bites: nothing better can be done from here.
        let _ = self.device.write_all(bytes);
        self.fed = Instant::now();
    }
}

/// Starts the watchdog that was asked for. One that is not there costs no trial boot: that is said, and no more.
pub fn start(path: Option<&Path>, say: &dyn Fn(&Error)) -> Option<Watchdog> {
    Watchdog::start(path?).inspect_err(say).ok()
}
