//! Command lines that need no machine: `inspect` and `lint` of publishers, `device` of init.

use argh::FromArgs;
use std::path::PathBuf;

/// Print the device of the partition with this label on the boot disk.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "device")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Device {
    /// KSOLOEFI, KSOLOA, KSOLOB or KSOLODATA
    #[argh(positional)]
    pub label: String,
}

/// Show whether a machine would take an update, who signed it and how large it is; touches no machine.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "inspect")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Inspect {
    /// OCI reference, HTTP(S) URL of a server, or OCI image layout (a directory, or a tar or tar.gz file)
    #[argh(positional)]
    pub source: String,
    /// public key of the publisher, or a directory of keys like that of a machine; may be given several times
    #[argh(option, arg_name = "file|directory")]
    pub key: Vec<PathBuf>,
    /// machine to judge it for: VERSION/ARCH or VERSION/ARCH/CHANNEL
    #[argh(option, long = "as", arg_name = "machine")]
    pub machine: Option<String>,
    /// credentials for the source: a Docker config.json
    #[argh(option, arg_name = "file")]
    pub authfile: Option<PathBuf>,
    /// update.conf of the machines: its channel, signature and network settings are used, its source is not
    #[argh(option, arg_name = "file")]
    pub config: Option<PathBuf>,
}

/// Check a release before it is published, by the rules of the machines; touches no machine. No output: all is well.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "lint")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Lint {
    /// initramfs, or its parts in order if given several times: kernels must unpack it whole; its keys and update.conf are judged
    #[argh(option, arg_name = "file")]
    pub initramfs: Vec<PathBuf>,
    /// directory of public keys, with its revoked/; with --initramfs, added to its keys as a site's keys are
    #[argh(option, arg_name = "directory")]
    pub keys: Vec<PathBuf>,
    /// site directory, as on the data partition: update-keys.d and update.conf
    #[argh(option, arg_name = "directory")]
    pub site_dir: Option<PathBuf>,
    /// an update.conf
    #[argh(option, arg_name = "file")]
    pub conf: Option<PathBuf>,
    /// kernel for the machines of --arch
    #[argh(option, arg_name = "file")]
    pub kernel: Option<PathBuf>,
    /// architecture of the kernel
    #[argh(option, arg_name = "amd64|arm64")]
    pub arch: Option<String>,
    /// print what kernels unpack: kind, mode, number of names, path and target, separated by tabs; no keys are judged
    #[argh(switch)]
    pub list: bool,
    /// version of the release; a leading v is allowed
    #[argh(option)]
    pub version: Option<String>,
    /// channel of the release
    #[argh(option, arg_name = "name")]
    pub channel: Option<String>,
    /// least running version that takes the release; not above the release's own
    #[argh(option, arg_name = "version")]
    pub min_compatible: Option<String>,
    /// when the release was made (RFC 3339), or `now`; warns if it is more than a day ahead of this clock
    #[argh(option, arg_name = "time")]
    pub release_date: Option<String>,
    /// when machines stop taking the release (RFC 3339), later than now and than the release date; or a span from that date, or
    /// from now, such as 36h, 180d or 26w. A span and `now` are printed as the time that they mean
    #[argh(option, arg_name = "time")]
    pub expires: Option<String>,
}
