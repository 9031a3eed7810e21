//! The command line of what needs no machine: `inspect` and `lint` of publishers, `device` of init.

use argh::FromArgs;
use std::path::PathBuf;

/// Print the device of the boot disk's partition of a label.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "device")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Device {
    /// KSOLOEFI, KSOLOA, KSOLOB or KSOLODATA
    #[argh(positional)]
    pub label: String,
    /// answer with one JSON document
    #[argh(switch)]
    pub json: bool,
    /// answer with variables that a shell can eval
    #[argh(switch)]
    pub shell: bool,
    /// directory that stands for / (tests, chroots, rescue)
    #[argh(option)]
    pub root: Option<PathBuf>,
}

/// Say what a machine would make of an update, who signed it and what would be fetched; touches no machine.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "inspect")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Inspect {
    /// OCI reference, HTTP(S) URL of a server, or OCI image layout (a directory, or a tar or tar.gz file)
    #[argh(positional)]
    pub source: String,
    /// answer with one JSON document
    #[argh(switch)]
    pub json: bool,
    /// answer with variables that a shell can eval
    #[argh(switch)]
    pub shell: bool,
    /// print nothing where a machine would take it
    #[argh(switch)]
    pub quiet: bool,
    /// print more: each request, whole digests
    #[argh(switch)]
    pub verbose: bool,
    /// public key of the publisher, or a directory of keys as machines have it; may be given several times
    #[argh(option)]
    pub key: Vec<PathBuf>,
    /// machine to judge it for: VERSION/ARCH, or VERSION/ARCH/CHANNEL
    #[argh(option, long = "as")]
    pub machine: Option<String>,
    /// tag to use in place of the reference's, or of an entry of the layout
    #[argh(option)]
    pub tag: Option<String>,
    /// credentials for the source: a Docker config.json
    #[argh(option)]
    pub authfile: Option<PathBuf>,
    /// update.conf of the machines: their channel, signatures, and how they ask; its source does not count
    #[argh(option)]
    pub config: Option<PathBuf>,
}

/// Hold what is about to be published against the rules that machines have; touches no machine.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "lint")]
#[argh(help_triggers("-h", "--help", "help"))]
pub struct Lint {
    /// answer with one JSON document
    #[argh(switch)]
    pub json: bool,
    /// answer with variables that a shell can eval
    #[argh(switch)]
    pub shell: bool,
    /// a file that kernels must unpack whole; given several times, the parts of one. Its keys and update.conf are judged
    #[argh(option)]
    pub initramfs: Vec<PathBuf>,
    /// directory of public keys, with its revoked/; beside --initramfs, added to its keys as a site's are
    #[argh(option)]
    pub keys: Vec<PathBuf>,
    /// a site's directory, as it lies on the data partition: update-keys.d and update.conf
    #[argh(option)]
    pub site_dir: Option<PathBuf>,
    /// an update.conf
    #[argh(option)]
    pub conf: Option<PathBuf>,
    /// a kernel, of --arch
    #[argh(option)]
    pub kernel: Option<PathBuf>,
    /// amd64 or arm64: what the kernel is for
    #[argh(option)]
    pub arch: Option<String>,
    /// print what kernels make of it: kind, mode, names, path and target, with a tab between them; no keys are judged
    #[argh(switch)]
    pub list: bool,
    /// version of a release; a leading v is allowed
    #[argh(option)]
    pub version: Option<String>,
    /// channel of a release
    #[argh(option)]
    pub channel: Option<String>,
    /// least running version that takes a release; not above its own
    #[argh(option)]
    pub min_compatible: Option<String>,
    /// when a release was made, or `now`; a warning, if that is more than a day ahead of the clock here
    #[argh(option)]
    pub release_date: Option<String>,
    /// from when on no machine takes it; ahead of the clock here, and after the release date. Or a span from that date, or
    /// from now: 36h, 180d, 26w. What was no moment is printed as one
    #[argh(option)]
    pub expires: Option<String>,
}
