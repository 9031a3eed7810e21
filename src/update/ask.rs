//! Asks the configured source, with the keys of this machine: what is offered, and which keys signed it.
//!
//! Must never: accept what the keys do not prove.

use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::http::credentials;
use crate::http::tls::Pem;
use crate::http::{Client, HttpOptions, ProxyEnv};
use crate::ledger::proven::Proven;
use crate::ledger::seen::{Forecast, LastOffer};
use crate::ledger::store::Store;
use crate::ledger::traffic::Traffic;
use crate::machine::view::View;
use crate::machine::{ARCHITECTURE, Machine};
use crate::offer::artifact::Artifact;
use crate::os::permissions::Insist;
use crate::os::progress::{note, setback};
use crate::os::system::System;
use crate::source::Source;
use crate::source::spec::{SourceSpec, open_source};
use crate::trust::keyring::Keyring;
use crate::update::reuse::{self, AtHand};
use std::path::PathBuf;

/// Reads the keys, reports invalid ones, and makes sure that signatures can be judged.
/// Errors: as [`Keyring::load`] and [`Keyring::demands_signatures`].
pub fn keyring(system: &System, config: &Config, store: Option<&Store>) -> Result<Keyring> {
    let site = store.map(Store::site);
    noted(Keyring::of_machine(&system.keys_dir(), config.demand(), site.as_deref())?)
}

/// Reports invalid keys, and makes sure that signatures can be judged.
/// Errors: as [`Keyring::demands_signatures`].
pub fn noted(ring: Keyring) -> Result<Keyring> {
    ring.faults().iter().for_each(|fault| note(&format!("{fault}; this key does not count")));
    if !ring.demands_signatures()? {
        // It may be a misnamed key, while everything is accepted unsigned.
        let name = |path: &PathBuf| note(&format!("{}: it does not count: a key's name ends in .pub", path.display()));
        ring.passed_over().iter().for_each(name);
    }
    Ok(ring)
}

/// Opens the source named by configuration and command line.
/// Errors: Config: none is named, or it cannot be used.
pub fn open(system: &System, config: &Config, proven: &Proven, ring: Keyring) -> Result<Box<dyn Source>> {
    let spec = config.source.clone().ok_or_else(|| {
        Error::new(Kind::Config, "no source of updates is named")
            .hint("set server, registry or layout in update.conf, or give --server, --registry or --layout")
    })?;
    let mut options = HttpOptions::new(system);
    options.clock_floor_secs = proven.no_earlier_than(0);
    if let SourceSpec::Layout { .. } = spec {
        // Network settings must not prevent the use of a stick.
        return open_source(spec, &Client::new(options)?, ring);
    }
    options.ca = config.ca_file.clone().map(Pem::File);
    options.identity = config.identity.clone();
    options.tries = config.retries.map_or(options.tries, |retries| retries + 1);
    options.timeouts.limit(config.stall_timeout, config.download_timeout);
    options.proxy = ProxyEnv::read(|name| std::env::var(name).ok());
    if let Some(path) = &config.auth_file {
        // `inspect` may run as root with a user's own file.
        let insist = if config.command == "inspect" { Insist::NamedSecret } else { Insist::Secret };
        options.credentials = credentials::load(path, insist)?;
    }
    open_source(spec, &Client::new(options)?, ring)
}

/// Asks what is offered; in one request if nothing has changed since the last time.
pub fn ask(source: &mut dyn Source, ring: &Keyring, store: Option<&Store>) -> Result<Artifact> {
    let described = source.describe();
    // Verified then with the same keys and the same revocations.
    let is_same = |seen: &LastOffer| seen.artifact.source == described && seen.keyring == ring.fingerprint();
    let seen = match store.and_then(Store::seen) {
        Some(seen) if is_same(&seen) && source.is_unchanged(&seen.validator) => return Ok(seen.artifact),
        other => other,
    };
    let artifact = resolve(source, ARCHITECTURE)?;
    if let (Some(store), Some(validator)) = (store, source.validator()) {
        let forecast = seen.filter(|seen| seen.artifact.digest == artifact.digest).and_then(|seen| seen.forecast);
        let artifact = artifact.clone();
        store.remember_seen(&LastOffer { validator, keyring: ring.fingerprint(), artifact, forecast });
    }
    Ok(artifact)
}

/// Finds out what an update to an artifact would fetch; for one that is only known from the last offer, what was found out then,
/// or else by asking once more.
/// Input: `running`: the running slot. Returns: `None`: not known.
pub fn forecast(
    machine: &Machine<'_>,
    running: &View,
    artifact: &Artifact,
    source: &mut dyn Source,
    store: Option<&Store>,
) -> Option<Traffic> {
    let runs = running.record.as_ref().map_or(artifact.digest, |record| record.initramfs.sha256);
    let seen = store.and_then(Store::seen).filter(|seen| seen.artifact.digest == artifact.digest);
    let mut asked = None;
    if artifact.is_hearsay() {
        let known = seen.as_ref().and_then(|seen| seen.forecast.as_ref()).filter(|known| known.running == runs);
        if let Some(known) = known {
            return Some(known.traffic);
        }
        let fail = |e: &Error| setback(e, "what would be fetched is not known");
        let again = resolve(source, ARCHITECTURE).inspect_err(fail).ok();
        asked = Some(again.filter(|again| again.digest == artifact.digest)?);
    }
    let traffic = reuse::predict(AtHand::look(machine, running).as_ref(), asked.as_ref().unwrap_or(artifact), source);
    if let Some((store, seen)) = store.zip(seen) {
        store.remember_seen(&LastOffer { forecast: Some(Forecast { running: runs, traffic }), ..seen });
    }
    Some(traffic)
}

/// Asks what is offered, and which keys signed it: also a mirror, if the first place lacks or withholds the signature.
/// Errors: as [`Source::resolve`]; the first place's, if no other had a better result.
pub fn resolve(source: &mut dyn Source, architecture: &str) -> Result<Artifact> {
    let mut first = None;
    loop {
        match source.resolve(architecture) {
            Ok(artifact) => return Ok(artifact),
            Err(e) if e.kind() == Kind::Signature && source.doubt() => {
                setback(&e, "asking the next place");
                first.get_or_insert(e);
            }
            Err(e) => return Err(first.unwrap_or(e)),
        }
    }
}
