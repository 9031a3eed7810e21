//! The command line as argh structs; nothing else. Config decides what the words mean.
//!
//! Must never: read a file or decide anything.
//!
//! May import: base, os. Must never import: config, cmd: words have no meaning here.

pub mod flags;
pub mod publishers;
pub mod usage;

use crate::cli::publishers::{Device, Inspect, Lint};
use argh::FromArgs;
use std::path::PathBuf;

/// A/B update agent of KubeSolo OS. Exit codes: 0 done, 1 internal, 2 usage or configuration, 3 nothing to do,
/// 4 refused by a gate, 5 not authentic, 6 network, registry, or what lies there is no update, 7 device, slot
/// or boot state, 8 another run holds the lock, 9 unhealthy.
#[derive(FromArgs, Debug)]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Cli {
    /// print the version and exit
    #[argh(switch, short = 'V')]
    pub version: bool,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
    /// print variables that a shell can eval
    #[argh(switch)]
    pub shell: bool,
    /// what to do
    #[argh(subcommand)]
    pub command: Option<Command>,
}

/// The flags that several commands take; those that the command does not take are not set (flags.rs says which takes which).
/// argh cannot flatten a struct into another, and written into each command they take 15 KB more (size-budget.md): usage.rs
/// parts them from the command's own.
#[derive(FromArgs, Debug, Default)]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Flags {
    /// configuration file (default /etc/kubesolo/update.conf)
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,
    /// state file (default update/state.json on the data partition)
    #[argh(option, arg_name = "file")]
    pub state: Option<PathBuf>,
    /// directory to use as / (tests, chroots, rescue)
    #[argh(option, arg_name = "directory")]
    pub root: Option<PathBuf>,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
    /// print variables that a shell can eval
    #[argh(switch)]
    pub shell: bool,
    /// print only what an operator must act on
    #[argh(switch)]
    pub quiet: bool,
    /// also print each request and check, and whole digests
    #[argh(switch)]
    pub verbose: bool,
    /// update server: an HTTP(S) URL or an OCI reference
    #[argh(option, arg_name = "url")]
    pub server: Option<String>,
    /// OCI reference: host/repository, also with :tag or @digest
    #[argh(option, arg_name = "reference")]
    pub registry: Option<String>,
    /// tag to use instead of the reference's, or an entry of the layout
    #[argh(option)]
    pub tag: Option<String>,
    /// OCI image layout: a directory, or a tar or tar.gz file
    #[argh(option, arg_name = "path")]
    pub layout: Option<PathBuf>,
    /// retries in a row without a new byte before giving up, 0 to 100
    #[argh(option, arg_name = "number")]
    pub retries: Option<u32>,
    /// wait a random time first, at most SECONDS, so that the machines of a fleet do not all ask at once
    #[argh(option, arg_name = "seconds")]
    pub splay: Option<u64>,
    /// accept a version that is older than the running one
    #[argh(switch)]
    pub allow_downgrade: bool,
    /// accept an artifact that failed on this machine before
    #[argh(switch)]
    pub retry_failed: bool,
    /// continue outside the maintenance window, or while the clock is not set
    #[argh(switch)]
    pub ignore_window: bool,
    /// restart the machine afterwards
    #[argh(switch)]
    pub reboot: bool,
    /// continue although GRUB has not proven that it can write its environment block
    #[argh(switch)]
    pub allow_unproven_bootloader: bool,
}

/// What was typed apart from a command's own options.
#[derive(Debug, Default)]
pub struct Common {
    /// Its flags
    pub flags: Flags,
    /// The command itself
    pub command: &'static str,
}

/// Ask the source for an update and run the gates; changes nothing.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Check {}

/// Download an update into the slot that is not running, and read it back.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "apply")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Apply {
    /// exit 0 instead of 3 (nothing to do), 8 (already running), or 4 if the update only has to wait: for its window, for the end
    /// of a trial, or for another version than the one that failed
    #[argh(switch)]
    pub ok_if_nothing: bool,
    /// activate the update once it is staged; --reboot implies it
    #[argh(switch)]
    pub activate: bool,
    /// only report what would be taken, and how much of it would be fetched: it is check
    #[argh(switch)]
    pub dry_run: bool,
}

/// Let GRUB try the staged slot at the next boot.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "activate")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Activate {}

/// Go back to the other slot at the next boot.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "rollback")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Rollback {}

/// Wait until containerd, the API server, the node and the site's checks are healthy; confirms a trial boot.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "healthcheck")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Healthcheck {
    /// report the node as unhealthy after SECONDS (default 900)
    #[argh(option, arg_name = "seconds")]
    pub timeout: Option<u64>,
    /// let each check take at most SECONDS (default 30)
    #[argh(option, arg_name = "seconds")]
    pub check_timeout: Option<u64>,
    /// wait until all checks have passed for SECONDS without a break (default 0)
    #[argh(option, arg_name = "seconds")]
    pub stable_for: Option<u64>,
    /// watchdog device to feed while waiting, such as /dev/watchdog
    #[argh(option, arg_name = "device")]
    pub watchdog: Option<PathBuf>,
    /// restart the machine if a trial boot is unhealthy, so that GRUB counts the failure
    #[argh(switch)]
    pub reboot_on_failure: bool,
}

/// Show slots, boot variables and the state of the update.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Status {}

/// Serve metrics for Prometheus, or write them once.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "metrics")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Metrics {
    /// IP address and port to serve on (default 127.0.0.1:9199)
    #[argh(option, arg_name = "address:port")]
    pub listen: Option<String>,
    /// print the metrics and exit
    #[argh(switch)]
    pub once: bool,
    /// write the metrics to a file (NAME.prom) for node_exporter's textfile collector, or to standard output (-), and exit
    #[argh(option, arg_name = "file")]
    pub textfile: Option<PathBuf>,
}

/// Read both slots and the boot variables, and compare them with their records.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "verify")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Verify {
    /// read only this slot
    #[argh(option, arg_name = "A|B")]
    pub slot: Option<String>,
    /// also ask the source: who signed what it offers, and whether a slot holds it
    #[argh(switch)]
    pub source: bool,
    /// rewrite both copies of the boot variables if one of them is damaged or full
    #[argh(switch)]
    pub repair_boot_variables: bool,
}

/// The commands.
#[derive(FromArgs, Debug)]
#[argh(subcommand)]
#[allow(missing_docs)] // each is documented at its own struct
pub enum Command {
    Check(Check),
    Apply(Apply),
    Activate(Activate),
    Rollback(Rollback),
    Healthcheck(Healthcheck),
    Status(Status),
    Metrics(Metrics),
    Verify(Verify),
    Device(Device),
    Inspect(Inspect),
    Lint(Lint),
}
