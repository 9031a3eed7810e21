//! Asks the source that the configuration names, with the keys of this machine: what is offered, and who signed it.
//!
//! Must never: take what the keys do not vouch for.

use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::http::credentials;
use crate::http::tls::Pem;
use crate::http::{Client, HttpOptions, ProxyEnv};
use crate::ledger::proven::Proven;
use crate::ledger::seen::LastOffer;
use crate::ledger::store::Store;
use crate::machine::ARCHITECTURE;
use crate::offer::artifact::Artifact;
use crate::os::progress::{note, setback};
use crate::os::system::System;
use crate::source::Source;
use crate::source::spec::{SourceSpec, open_source};
use crate::trust::keyring::Keyring;
use std::path::PathBuf;

/// Reads the keys, says which of them are no good, and makes sure that something can be decided.
/// Errors: as [`Keyring::load`] and [`Keyring::demands_signatures`].
pub fn keyring(system: &System, config: &Config, store: Option<&Store>) -> Result<Keyring> {
    let (signature, site) = ((config.signature, config.signature_threshold), store.map(Store::site));
    noted(Keyring::of_machine(&system.keys_dir(), signature, site.as_deref())?)
}

/// Says which keys are no good, and makes sure that something can be decided.
/// Errors: as [`Keyring::demands_signatures`].
pub fn noted(ring: Keyring) -> Result<Keyring> {
    ring.faults().iter().for_each(|fault| note(&format!("{fault}; this key does not count")));
    if !ring.demands_signatures()? {
        // It may have been meant for one, and everything is taken unsigned.
        let name = |path: &PathBuf| note(&format!("{}: it does not count: a key's name ends in .pub", path.display()));
        ring.passed_over().iter().for_each(name);
    }
    Ok(ring)
}

/// Opens the source that configuration and command line name.
/// Errors: Config: none is named, or it cannot be used.
pub fn open(system: &System, config: &Config, proven: &Proven, ring: Keyring) -> Result<Box<dyn Source>> {
    let spec = config.source.clone().ok_or_else(|| {
        Error::new(Kind::Config, "no source of updates is named")
            .hint("set server, registry or layout in update.conf, or give --server, --registry or --layout")
    })?;
    let mut options = HttpOptions::new(system);
    options.clock_floor_secs = proven.no_earlier_than(0);
    if let SourceSpec::Layout { .. } = spec {
        // What is set for a network must not stand in the way of a stick.
        return open_source(spec, &Client::new(options)?, ring);
    }
    options.ca = config.ca_file.clone().map(Pem::File);
    options.identity = config.identity.clone();
    options.tries = config.retries.map_or(options.tries, |retries| retries + 1);
    options.timeouts.limit(config.stall_timeout, config.download_timeout);
    options.proxy = ProxyEnv::read(|name| std::env::var(name).ok());
    if let Some(path) = &config.auth_file {
        options.credentials = credentials::load(path)?;
    }
    open_source(spec, &Client::new(options)?, ring)
}

/// Asks what is offered; in one request, where nothing has changed since it was asked last.
pub fn ask(source: &mut dyn Source, ring: &Keyring, store: Option<&Store>) -> Result<Artifact> {
    let described = source.describe();
    if let Some(seen) = store.and_then(Store::seen)
        && seen.artifact.source == described
        // What was verified then, by the same keys, and with the same revoked.
        && seen.keyring == ring.fingerprint()
        && source.is_unchanged(&seen.validator)
    {
        return Ok(seen.artifact);
    }
    let artifact = resolve(source, ARCHITECTURE)?;
    if let (Some(store), Some(validator)) = (store, source.validator()) {
        store.remember_seen(&LastOffer { validator, keyring: ring.fingerprint(), artifact: artifact.clone() });
    }
    Ok(artifact)
}

/// Asks what is offered, and who signed it: a mirror, where the first place lacks the signature or keeps it back.
/// Errors: as [`Source::resolve`]; the first place's, if no other had better.
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
