//! Configuration: what the file says, overlaid by what was typed, then validated into what it means.
//!
//! Must never: guess at an unknown key, or let two sources stand.
//!
//! May import: base, os, oci, offer, trust, http, source, health, cli. Must never import: machine, update, cmd: it is
//! read before anything is looked at.

pub(crate) mod lines;
mod source;

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::cli::Common;
use crate::config::lines::Raw;
use crate::config::source::{as_usage, source};
use crate::health::workloads::Workload;
use crate::http::PlainHttp;
use crate::http::tls::{Identity, Pem};
use crate::offer::gate::DEFAULT_CHANNEL;
use crate::offer::window::Window;
use crate::os::files::read_bounded;
use crate::os::permissions::Insist;
use crate::os::progress::note;
use crate::os::system::System;
use crate::source::spec::SourceSpec;
use lines::{encoding_of, refuse_url};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::trust::keyring::SignaturePolicy;

/// Largest configuration file that is read, in bytes.
const CONFIG_MAX_BYTES: u64 = 64 * 1024;

/// Most tries after the first that `retries` may ask for: what keeps a request going is its deadline.
const MAX_RETRIES: u32 = 100;
/// Most keys that an update can have to be signed by.
const MAX_THRESHOLD: u32 = 16;
/// Longest time that can be waited for, in seconds: a week.
const MAX_TIMEOUT_SECS: u32 = 7 * 24 * 3600;

/// The configuration, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where updates come from, if anything says so.
    pub source: Option<SourceSpec>,
    /// Channel to follow.
    pub channel: String,
    /// Whether an update must be signed.
    pub signature: SignaturePolicy,
    /// How many different keys must have signed an update.
    pub signature_threshold: usize,
    /// CA bundle in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Docker `config.json` with credentials.
    pub auth_file: Option<PathBuf>,
    /// Client certificate.
    pub identity: Option<Identity>,
    /// Tries in a row that may bring nothing, after the first; `None`: the default.
    pub retries: Option<u32>,
    /// Longest silence of a server; `None`: the default.
    pub stall_timeout: Option<Duration>,
    /// Longest time for one document or file, retries included; `None`: the default.
    pub download_timeout: Option<Duration>,
    /// When updates may be applied.
    pub window: Option<Window>,
    /// containerd's socket, for the health check.
    pub containerd_socket: Place,
    /// The administrator's kubeconfig, for the health check.
    pub kubeconfig: Place,
    /// Deployments that must have an available replica, for the health check.
    pub workloads: Vec<Workload>,
    /// `--state`.
    pub state_file: Option<PathBuf>,
    /// The command, as it was typed.
    pub command: &'static str,
    /// Why the file does not count, for a command that goes on without it.
    pub fault: Option<Error>,
}

/// Where something is that a health check asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Where KubeSolo has it.
    #[default]
    Usual,
    /// Somewhere else.
    At(PathBuf),
    /// There is none here: it is not asked.
    Off,
}

/// Reads the file of a machine, overlays the flags, validates.
/// Errors: Config, Usage: what is wrong, and where. Config: others could have changed the file, or taken it away.
pub fn load(system: &System, flags: &Common) -> Result<Config> {
    read(system, flags, &|path| {
        if flags.config.is_none() {
            Insist::Directory.find(path.parent().unwrap_or(path))?;
        }
        Insist::Trusted.read(path, CONFIG_MAX_BYTES)
    })
}

/// The same of a file that a publisher names, to look at it: of any owner, and any mode.
pub fn load_named(system: &System, flags: &Common) -> Result<Config> {
    read(system, flags, &|path| read_bounded(path, CONFIG_MAX_BYTES).io(Kind::Config, "read", path.display()))
}

fn read(system: &System, flags: &Common, bytes: &dyn Fn(&Path) -> Result<Option<Vec<u8>>>) -> Result<Config> {
    for (flag, path) in [("--config", &flags.config), ("--state", &flags.state), ("--layout", &flags.layout)] {
        path.as_deref().map_or(Ok(()), |path| refuse_url(flag, &path.to_string_lossy())).map_err(as_usage)?;
    }
    let path = flags.config.clone().unwrap_or_else(|| system.config_file());
    let raw = match bytes(&path)? {
        None if flags.config.is_some() => {
            return Err(Error::new(Kind::Config, "there is no such file").at("read", path.display()));
        }
        None => Raw::default(),
        Some(bytes) => {
            let text = String::from_utf8(bytes)
                .map_err(|e| Error::new(Kind::Config, encoding_of(e.as_bytes())).at("read", path.display()))?;
            Raw::parse(&text).map_err(|e| e.at("read", path.display()))?
        }
    };
    validate(&raw, flags, &|text| system.path(text)).map_err(|e| match e.kind() {
        // The file has no part in what was typed.
        Kind::Usage => e,
        _ => e.at("read", path.display()),
    })
}

/// The same for a command that must work on a damaged machine: a broken file is said on stderr and in the result, and
/// counts as empty.
/// Errors: Usage: what was typed makes no sense.
pub fn load_leniently(system: &System, flags: &Common) -> Result<Config> {
    match load(system, flags) {
        Err(e) if e.kind() == Kind::Config => {
            note(&e.to_string());
            let config = validate(&Raw::default(), flags, &|text| system.path(text))?;
            Ok(Config { fault: Some(e), ..config })
        }
        loaded => loaded,
    }
}

/// Errors: Usage, Config: there are not so many.
fn retries(raw: &Raw, flags: &Common) -> Result<Option<u32>> {
    match flags.retries {
        Some(typed) if typed > MAX_RETRIES => {
            Err(Error::new(Kind::Usage, format!("`--retries {typed}` is not between 0 and {MAX_RETRIES}")))
        }
        Some(typed) => Ok(Some(typed)),
        None => number(raw, "retries", 0..=MAX_RETRIES),
    }
}

/// Turns lines and flags into what they mean. Pure.
/// Input: `rooted`: puts a path of the file below `--root`; a path that was typed is taken as it is.
/// Errors: Config, Usage: a value that makes no sense, or two sources.
pub fn validate(raw: &Raw, flags: &Common, rooted: &dyn Fn(&str) -> PathBuf) -> Result<Config> {
    let plain_http = match raw.value("plain_http") {
        None | Some("auto") => PlainHttp::Auto,
        Some("yes") => PlainHttp::Yes,
        Some("no") => PlainHttp::No,
        Some(other) => return Err(raw.blame("plain_http", one_of("plain_http", other, "auto, yes, no"))),
    };
    let signature = match raw.value("signature") {
        None | Some("required") => SignaturePolicy::Required,
        Some("off") => SignaturePolicy::Off,
        Some(other) => return Err(raw.blame("signature", one_of("signature", other, "required, off"))),
    };
    let window = raw.value("maintenance_window").map(Window::parse).transpose();
    let channel = raw.value("channel").unwrap_or(DEFAULT_CHANNEL).to_string();
    if !channel.bytes().all(|b| b.is_ascii_graphic()) {
        let error = Error::new(Kind::Config, "`channel` must be printable ASCII without blanks");
        return Err(raw.blame("channel", error));
    }
    Ok(Config {
        source: source(raw, flags, plain_http, rooted)?,
        channel,
        signature,
        signature_threshold: number(raw, "signature_threshold", 1..=MAX_THRESHOLD)?.unwrap_or(1) as usize,
        ca_file: raw.value("ca_file").map(rooted),
        auth_file: raw.value("auth_file").map(rooted),
        identity: identity(raw, rooted)?,
        retries: retries(raw, flags)?,
        stall_timeout: timeout(raw, "stall_timeout")?,
        download_timeout: timeout(raw, "download_timeout")?,
        window: window.map_err(|e| raw.blame("maintenance_window", e))?,
        containerd_socket: place(raw, "containerd_socket", rooted),
        kubeconfig: place(raw, "kubeconfig", rooted),
        workloads: workloads(raw)?,
        state_file: flags.state.clone(),
        command: flags.command,
        fault: None,
    })
}

fn place(raw: &Raw, key: &str, rooted: &dyn Fn(&str) -> PathBuf) -> Place {
    match raw.value(key) {
        None => Place::Usual,
        Some("off") => Place::Off,
        Some(path) => Place::At(rooted(path)),
    }
}

/// Errors: Config: another shape, or no API server to be asked.
fn workloads(raw: &Raw) -> Result<Vec<Workload>> {
    let Some(text) = raw.value("workloads").filter(|text| *text != "off") else { return Ok(Vec::new()) };
    let list = Workload::parse_list(text).map_err(|e| raw.blame("workloads", e))?;
    match raw.value("kubeconfig") {
        Some("off") => {
            Err(raw.blame("workloads", Error::new(Kind::Config, "it needs an API server, and `kubeconfig` is off")))
        }
        _ => Ok(list),
    }
}

fn number(raw: &Raw, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>> {
    let Some(text) = raw.value(key) else { return Ok(None) };
    match text.parse().ok().filter(|n| range.contains(n)) {
        Some(number) => Ok(Some(number)),
        None => {
            let why = format!("`{key} = {text}` is not between {} and {}", range.start(), range.end());
            Err(raw.blame(key, Error::new(Kind::Config, why)))
        }
    }
}

fn timeout(raw: &Raw, key: &str) -> Result<Option<Duration>> {
    Ok(number(raw, key, 1..=MAX_TIMEOUT_SECS)?.map(|secs| Duration::from_secs(secs.into())))
}

fn identity(raw: &Raw, rooted: &dyn Fn(&str) -> PathBuf) -> Result<Option<Identity>> {
    match (raw.value("client_cert"), raw.value("client_key")) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (Pem::File(rooted(certificate)), Pem::File(rooted(key)));
            Ok(Some(Identity { certificate, key }))
        }
        (Some(_), None) => Err(raw.blame("client_cert", Error::new(Kind::Config, "`client_key` is missing"))),
        (None, Some(_)) => Err(raw.blame("client_key", Error::new(Kind::Config, "`client_cert` is missing"))),
    }
}

fn one_of(key: &str, value: &str, known: &str) -> Error {
    Error::new(Kind::Config, format!("`{key} = {value}` is none of: {known}"))
}

/// Says what [`is_channel`] holds a name to.
pub const CHANNEL_RULE: &str = "--channel may hold letters, digits, '.', '_' and '-' only, 1 to 64 of them";

/// Says whether a release may be published to a channel of this name. What a machine may be set to is wider: printable ASCII.
pub fn is_channel(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl Place {
    /// Returns where it is. Input: `usual`: where nothing else is said.
    pub fn resolve(&self, usual: impl Fn() -> PathBuf) -> Option<PathBuf> {
        match self {
            Place::Usual => Some(usual()),
            Place::At(path) => Some(Path::to_path_buf(path)),
            Place::Off => None,
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
