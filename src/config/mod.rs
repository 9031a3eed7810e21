//! Configuration: the file, overlaid by the command line, then validated and typed.
//!
//! Must never: guess at an unknown key, or accept two sources.
//!
//! May import: base, os, oci, offer, trust, http, source, health, cli. Must never import: machine, update, cmd: it is read
//! before the machine is looked at.

pub(crate) mod lines;
mod source;

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::cli::{Common, Flags};
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

use crate::trust::keyring::Demand;
pub use crate::trust::keyring::SignaturePolicy;

/// Largest configuration file that is read, in bytes.
const CONFIG_MAX_BYTES: u64 = 64 * 1024;

/// Most retries that `retries` may ask for: a request is limited by its deadline.
const MAX_RETRIES: u32 = 100;
/// Most keys that may be required to sign an update.
const MAX_THRESHOLD: u32 = 16;
/// Longest wait that can be configured, in seconds: a week.
const MAX_TIMEOUT_SECS: u32 = 7 * 24 * 3600;

/// The configuration, validated.
#[derive(Debug)]
pub struct Config {
    /// Where updates come from, if configured.
    pub source: Option<SourceSpec>,
    /// Channel to follow.
    pub channel: String,
    /// Whether an update must be signed.
    pub signature: SignaturePolicy,
    /// How many different keys must have signed an update.
    pub signature_threshold: usize,
    /// CA bundle that replaces the system's.
    pub ca_file: Option<PathBuf>,
    /// Docker `config.json` with credentials.
    pub auth_file: Option<PathBuf>,
    /// Client certificate.
    pub identity: Option<Identity>,
    /// Retries in a row without a new byte; `None`: the default.
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
    /// Why the file does not count, for a command that continues without it.
    pub fault: Option<Error>,
}

impl Config {
    /// Returns what is demanded of signatures.
    pub fn demand(&self) -> Demand {
        Demand { policy: self.signature, threshold: self.signature_threshold }
    }
}

/// Location of something that a health check asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// KubeSolo's default location.
    #[default]
    Usual,
    /// Somewhere else.
    At(PathBuf),
    /// It does not exist here and is not asked.
    Off,
}

/// Reads a machine's file, overlays the flags, validates.
/// Errors: Config, Usage: what is wrong, and where. Config: another user could have changed the file, or removed it.
pub fn load(system: &System, flags: &Common) -> Result<Config> {
    read(system, flags, &|path| {
        if flags.flags.config.is_none() {
            Insist::Directory.find(path.parent().unwrap_or(path))?;
        }
        Insist::Trusted.read(path, CONFIG_MAX_BYTES)
    })
}

/// The same for a file that a publisher names for inspection: it may belong to any user.
pub fn load_named(system: &System, flags: &Common) -> Result<Config> {
    read(system, flags, &|path| read_bounded(path, CONFIG_MAX_BYTES).io(Kind::Config, "read", path.display()))
}

fn read(system: &System, flags: &Common, bytes: &dyn Fn(&Path) -> Result<Option<Vec<u8>>>) -> Result<Config> {
    let Flags { config: typed, state, layout, .. } = &flags.flags;
    let option = if flags.command == "lint" { "--conf" } else { "--config" };
    for (flag, path) in [(option, typed), ("--state", state), ("--layout", layout)] {
        path.as_deref().map_or(Ok(()), |path| refuse_url(flag, &path.to_string_lossy())).map_err(as_usage)?;
    }
    let path = typed.clone().unwrap_or_else(|| system.config_file());
    let raw = match bytes(&path)? {
        None if typed.is_some() => {
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
        // The fault is in what was typed, not in the file.
        Kind::Usage => e,
        _ => e.at("read", path.display()),
    })
}

/// The same for a command that must work on a damaged machine: a broken file is reported on stderr and in the result, and
/// counts as empty.
/// Errors: Usage: what was typed is invalid.
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

/// Errors: Usage, Config: the number is out of range.
fn retries(raw: &Raw, flags: &Common) -> Result<Option<u32>> {
    match flags.flags.retries {
        Some(typed) if typed > MAX_RETRIES => {
            Err(Error::new(Kind::Usage, format!("`--retries {typed}` is not between 0 and {MAX_RETRIES}")))
        }
        Some(typed) => Ok(Some(typed)),
        None => number(raw, "retries", 0..=MAX_RETRIES),
    }
}

/// Turns lines and flags into typed values. Pure.
/// Input: `rooted`: puts a path from the file below `--root`; a typed path is taken as it is.
/// Errors: Config, Usage: an invalid value, or two sources.
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
        state_file: flags.flags.state.clone(),
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

/// Errors: Config: another shape, or the API server is switched off.
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
    Error::new(Kind::Config, format!("`{key} = {value}` is not one of: {known}"))
}

/// States the rule of [`is_channel`].
pub const CHANNEL_RULE: &str = "--channel may hold letters, digits, '.', '_' and '-' only, 1 to 64 of them";

/// Returns whether a release may be published to a channel of this name. Machines accept more: printable ASCII.
pub fn is_channel(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl Place {
    /// Returns the location. Input: `usual`: the default one.
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
