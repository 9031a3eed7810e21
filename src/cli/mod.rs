//! The command line as argh structs; nothing else. What the words mean is config's business.
//!
//! Must never: read a file or decide anything.
//!
//! May import: base, os. Must never import: config, cmd: words have no meaning here.

pub mod flags;
pub mod publishers;
pub mod usage;

use crate::cli::publishers::{Device, Inspect, Lint};
use argh::{FromArgs, SubCommand, SubCommands};
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
    /// answer with one JSON document
    #[argh(switch)]
    pub json: bool,
    /// answer with variables that a shell can eval
    #[argh(switch)]
    pub shell: bool,
    /// what to do
    #[argh(subcommand)]
    pub command: Option<Command>,
}

/// Flags of every command on a machine. argh can not flatten a struct into another, and written into each command they take
/// 15 KB more (size-budget.md): usage.rs parts them from the command's own.
#[derive(FromArgs, Debug, Default)]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Flags {
    /// configuration file (default /etc/kubesolo/update.conf)
    #[argh(option)]
    pub config: Option<PathBuf>,
    /// state file (default update/state.json on the data partition)
    #[argh(option)]
    pub state: Option<PathBuf>,
    /// directory that stands for / (tests, chroots, rescue)
    #[argh(option)]
    pub root: Option<PathBuf>,
    /// update server: an HTTP(S) URL, or an OCI reference
    #[argh(option)]
    pub server: Option<String>,
    /// OCI reference: host/repository, with :tag or @digest if need be
    #[argh(option)]
    pub registry: Option<String>,
    /// tag to use in place of the reference's
    #[argh(option)]
    pub tag: Option<String>,
    /// OCI image layout: a directory, or a tar or tar.gz file
    #[argh(option)]
    pub layout: Option<PathBuf>,
    /// answer with one JSON document
    #[argh(switch)]
    pub json: bool,
    /// answer with variables that a shell can eval
    #[argh(switch)]
    pub shell: bool,
    /// print only what needs a person
    #[argh(switch)]
    pub quiet: bool,
    /// print more: each request and check, whole digests
    #[argh(switch)]
    pub verbose: bool,
}

/// What is read of the flags that several commands take.
#[derive(Debug, Default)]
pub struct Common {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--state`
    pub state: Option<PathBuf>,
    /// `--root`
    pub root: Option<PathBuf>,
    /// `--server`
    pub server: Option<String>,
    /// `--registry`
    pub registry: Option<String>,
    /// `--tag`
    pub tag: Option<String>,
    /// `--layout`
    pub layout: Option<PathBuf>,
    /// `--retries`, of those commands that have it
    pub retries: Option<u32>,
    /// `--json`
    pub json: bool,
    /// `--shell`
    pub shell: bool,
    /// `--quiet`
    pub quiet: bool,
    /// `--verbose`
    pub verbose: bool,
    /// The command itself
    pub command: &'static str,
}

/// Ask the source for an update and run the gates; changes nothing.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Check {
    /// wait a random time up to so many seconds first, so that a fleet does not ask all at once
    #[argh(option)]
    pub splay: Option<u64>,
    /// tries after the first that may bring nothing, 0 to 100
    #[argh(option)]
    pub retries: Option<u32>,
    /// take a version that is older than the running one
    #[argh(switch)]
    pub allow_downgrade: bool,
    /// take an artifact that failed here before
    #[argh(switch)]
    pub retry_failed: bool,
    /// go on outside of the maintenance window, or where the clock is not set
    #[argh(switch)]
    pub ignore_window: bool,
}

/// Download an update into the slot that is not running, and prove it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "apply")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Apply {
    /// wait a random time up to so many seconds first, so that a fleet does not ask all at once
    #[argh(option)]
    pub splay: Option<u64>,
    /// tries after the first that may bring nothing, 0 to 100
    #[argh(option)]
    pub retries: Option<u32>,
    /// exit code 0, not 3, 4 or 8, where there is nothing to do, an update waits (for its window, the end of a trial, another
    /// version than the one that failed), or another run does it
    #[argh(switch)]
    pub ok_if_nothing: bool,
    /// activate it when it is staged
    #[argh(switch)]
    pub activate: bool,
    /// activate it and restart the machine
    #[argh(switch)]
    pub reboot: bool,
    /// take a version that is older than the running one
    #[argh(switch)]
    pub allow_downgrade: bool,
    /// take an artifact that failed here before
    #[argh(switch)]
    pub retry_failed: bool,
    /// go on outside of the maintenance window, or where the clock is not set
    #[argh(switch)]
    pub ignore_window: bool,
    /// go on although GRUB has not shown that it can write its environment block
    #[argh(switch)]
    pub allow_unproven_bootloader: bool,
}

/// Let GRUB try the staged slot at the next boot.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "activate")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Activate {
    /// restart the machine afterwards
    #[argh(switch)]
    pub reboot: bool,
    /// go on outside of the maintenance window, or where the clock is not set
    #[argh(switch)]
    pub ignore_window: bool,
    /// go on although GRUB has not shown that it can write its environment block
    #[argh(switch)]
    pub allow_unproven_bootloader: bool,
}

/// Go back to the other slot at the next boot.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "rollback")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Rollback {
    /// go back even to what failed here before
    #[argh(switch)]
    pub retry_failed: bool,
    /// restart the machine afterwards
    #[argh(switch)]
    pub reboot: bool,
    /// go on although GRUB has not shown that it can write its environment block
    #[argh(switch)]
    pub allow_unproven_bootloader: bool,
}

/// Wait until containerd, the API server, the node and the site's checks are healthy; confirms a trial boot.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "healthcheck")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Healthcheck {
    /// seconds until the node counts as unhealthy (default 900)
    #[argh(option)]
    pub timeout: Option<u64>,
    /// seconds that each check may take (default 30)
    #[argh(option)]
    pub check_timeout: Option<u64>,
    /// seconds for which all checks must pass without a break (default 0)
    #[argh(option)]
    pub stable_for: Option<u64>,
    /// watchdog device to feed while waiting, such as /dev/watchdog
    #[argh(option)]
    pub watchdog: Option<PathBuf>,
    /// restart the machine when a trial boot is unhealthy, so that GRUB counts it
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
    /// address and port to serve on (default 127.0.0.1:9199)
    #[argh(option)]
    pub listen: Option<String>,
    /// print them and end
    #[argh(switch)]
    pub once: bool,
    /// write them into this file (NAME.prom), for node_exporter's textfile collector, or to standard output (-), and end
    #[argh(option)]
    pub textfile: Option<PathBuf>,
}

/// Read both slots and the boot variables, and hold them against what they should be.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "verify")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Verify {
    /// read this slot only: A or B
    #[argh(option)]
    pub slot: Option<String>,
    /// ask the source too: who signed what it offers, and whether a slot holds that
    #[argh(switch)]
    pub source: bool,
    /// write both copies of the boot variables anew if one of them is damaged or full
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

impl Command {
    /// Commands that touch no machine, or only look for a device: they have flags of their own, and no others.
    const WITHOUT_FLAGS: [&str; 3] = [Device::COMMAND.name, Inspect::COMMAND.name, Lint::COMMAND.name];

    /// Returns a command that takes the [`Flags`], by its name.
    pub fn with_flags(name: &str) -> Option<&'static str> {
        let known = Self::COMMANDS.iter().map(|command| command.name).find(|known| *known == name);
        known.filter(|known| !Self::WITHOUT_FLAGS.contains(known))
    }
}

impl Cli {
    /// Returns what is read of the flags that several commands take. Input: `flags`: of those with [`Flags`]; `command`: which.
    pub fn common(&self, flags: Flags, command: &'static str) -> Common {
        let Flags { config, state, root, server, registry, tag, layout, .. } = flags;
        let (json, shell, quiet, verbose) = match &self.command {
            Some(Command::Device(c)) => (c.json, c.shell, false, false),
            Some(Command::Lint(c)) => (c.json, c.shell, false, false),
            Some(Command::Inspect(c)) => (c.json, c.shell, c.quiet, c.verbose),
            _ => (flags.json, flags.shell, flags.quiet, flags.verbose),
        };
        let retries = match &self.command {
            Some(Command::Check(c)) => c.retries,
            Some(Command::Apply(c)) => c.retries,
            _ => None,
        };
        Common { config, state, root, server, registry, tag, layout, retries, json, shell, quiet, verbose, command }
    }
}
