//! The machine this runs on: root prefix, clock, and every path the agent uses.
//!
//! Tests, chroots and rescue consoles point `--root` elsewhere; no other module may know an
//! absolute path. Must never: open a file, or decide anything.

use crate::base::clock::Now;
use crate::base::time::BUILD_EPOCH;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Hands out paths below a root, and the time.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
    fixed_now: Option<u64>,
}

impl System {
    /// Creates a system whose paths all lie below `root` (`/` on a real machine).
    pub fn new(root: impl Into<PathBuf>) -> Self {
        System { root: root.into(), fixed_now: None }
    }

    /// Sets the clock to a fixed time. Input: seconds since 1970, UTC.
    pub fn with_now(mut self, unix_secs: u64) -> Self {
        self.fixed_now = Some(unix_secs);
        self
    }

    /// Returns what is known of the time: the system clock's, and that it is not before this program's build.
    pub fn now(&self) -> Now {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Now::new(self.fixed_now.unwrap_or_else(clock), BUILD_EPOCH)
    }

    /// Returns whether paths are the machine's own, not below a prefix.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Returns an absolute path below the root.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.path("/etc/kubesolo/update.conf")
    }

    /// Directory of trusted public keys.
    pub fn keys_dir(&self) -> PathBuf {
        self.path("/etc/kubesolo/update-keys.d")
    }

    /// Directory of the site's health checks.
    pub fn health_dir(&self) -> PathBuf {
        self.path("/etc/kubesolo/health.d")
    }

    /// containerd's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.path("/var/lib/kubesolo/containerd/containerd.sock")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("/var/lib/kubesolo/pki/admin/admin.kubeconfig")
    }

    /// This machine's name.
    pub fn host_name(&self) -> PathBuf {
        self.path("/proc/sys/kernel/hostname")
    }

    /// CA bundles of the common distributions, tried in order if `ca_file` is not set.
    pub fn ca_bundles(&self) -> [PathBuf; 4] {
        [
            self.path("/etc/ssl/certs/ca-certificates.crt"),
            self.path("/etc/pki/tls/certs/ca-bundle.crt"),
            self.path("/etc/ssl/cert.pem"),
            self.path("/etc/ssl/ca-bundle.pem"),
        ]
    }

    /// Kernel command line of this boot.
    pub fn kernel_cmdline(&self) -> PathBuf {
        self.path("/proc/cmdline")
    }

    /// Identity of this boot.
    pub fn boot_id(&self) -> PathBuf {
        self.path("/proc/sys/kernel/random/boot_id")
    }

    /// The kernel's log, which a network console or pstore may keep across a restart.
    pub fn kernel_log(&self) -> PathBuf {
        self.path("/dev/kmsg")
    }

    /// Block devices as the kernel lists them.
    pub fn class_block(&self) -> PathBuf {
        self.path("/sys/class/block")
    }

    /// Device node of a kernel block-device name.
    pub fn device(&self, name: &str) -> PathBuf {
        self.path("/dev").join(name)
    }

    /// Mount point of the EFI partition.
    pub fn efi_dir(&self) -> PathBuf {
        self.path("/boot/efi")
    }

    /// Mount point of the data partition.
    pub fn data_dir(&self) -> PathBuf {
        self.path("/var/lib/kubesolo")
    }

    /// Directory of lock and state until the restart, if there is no data partition.
    pub fn run_dir(&self) -> PathBuf {
        self.path("/run/kubesolo-update")
    }
}
