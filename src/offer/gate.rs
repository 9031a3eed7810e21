//! The gates: every policy that refuses an artifact before any of it is downloaded. Pure.
//!
//! Called from `update/judge.rs` for this machine, with the same facts for every source, and from `cmd/inspect` for a
//! hypothetical one.
//! Must never: fetch, read or write anything, or stop at the first refusal.

use crate::base::clock::Now;
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::text::{human_size, printable};
use crate::base::time::{Moment, rfc3339};
use crate::oci::misspellings::is_misspelt_architecture;
use crate::offer::artifact::Artifact;
use crate::offer::refusal::{Gate, Refusal};
use crate::offer::version::Version;
use crate::offer::window::Window;
use std::cmp::Ordering;

/// Channel of an artifact whose publisher named none.
pub const DEFAULT_CHANNEL: &str = "stable";

/// What the gates need to know of this machine, now.
pub struct Facts<'a> {
    /// `amd64` or `arm64`.
    pub architecture: &'a str,
    /// Channel that the configuration follows.
    pub channel: &'a str,
    /// Version of the running slot, if it states one.
    pub running_version: Option<&'a str>,
    /// Artifact in the running slot, if known.
    pub running_digest: Option<Digest>,
    /// Digests of its kernel and initramfs, if known.
    pub running_files: Option<[Digest; 2]>,
    /// Why the target slot must not be touched now.
    pub trial_pending: Option<&'a str>,
    /// Artifact staged in the target slot.
    pub staged_digest: Option<Digest>,
    /// Whether that was staged although it had failed here before.
    pub staged_insisted: bool,
    /// Artifacts that must not be taken now because they rolled back, and why: the rest of a sentence.
    pub failed: &'a [(Digest, String)],
    /// What is known of the time.
    pub now: Now,
    /// Room in the target slot once its old files are gone; `None`: unknown.
    pub room_bytes: Option<u64>,
    /// When updates may be applied.
    pub window: Option<&'a Window>,
    /// Release date of the newest verified release that has run here.
    pub newest_release: Option<Moment>,
    /// `--allow-downgrade`.
    pub allow_downgrade: bool,
    /// `--retry-failed`.
    pub retry_failed: bool,
    /// `--ignore-window`.
    pub ignore_window: bool,
}

/// Outcome of the gates for an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be taken.
    Take,
    /// It may be taken, and is in the target slot already.
    Staged,
    /// It is running already.
    UpToDate,
    /// It must not be taken; at least one refusal.
    Refused(Vec<Refusal>),
}

/// An artifact and what it is compared with.
struct Case<'a> {
    artifact: &'a Artifact,
    facts: &'a Facts<'a>,
    offered: Version,
    /// `None`: the running system has no version, or one without an order: builders of images write `2024.01`.
    running: Option<Version>,
    is_staged: bool,
    /// The staged artifact has passed the gates of order, or an operator insisted on it.
    takes_any: bool,
}

/// One gate. Returns: `None`: the artifact passes.
/// Errors: Source: the artifact's own metadata is malformed.
type Rule = fn(&Case<'_>) -> Result<Option<Refusal>>;

/// Every gate, in the order in which refusals are reported. These apply even to the running artifact: a mismatch may be a
/// fault.
const OF_WHAT_IT_IS: [Rule; 2] = [architecture, channel];
/// These apply even to the staged artifact.
const OF_ORDER: [Rule; 5] = [version, min_compatible_version, expiry, release_date, failed_before];
/// These do not: it already occupies its slot.
const OF_PLACE_AND_TIME: [Rule; 3] = [pending_trial, size, maintenance_window];

/// Checks an artifact against every gate.
/// Errors: Source: the artifact's own versions or dates are malformed.
pub fn judge(artifact: &Artifact, facts: &Facts<'_>) -> Result<Verdict> {
    let is_staged = facts.staged_digest == Some(artifact.digest);
    let case = Case {
        artifact,
        facts,
        offered: Version::parse(&artifact.release.version).map_err(|e| malformed(artifact, "version", &e))?,
        running: facts.running_version.and_then(|text| Version::parse(text).ok()),
        is_staged,
        takes_any: facts.allow_downgrade || is_staged,
    };
    let is_same_order = case.running.as_ref().is_none_or(|running| case.offered.cmp(running) == Ordering::Equal);
    let runs_already = is_same_order && runs_already(artifact, facts);
    let (verdict, gates): (Verdict, &[&[Rule]]) = match (runs_already, is_staged) {
        (true, _) => (Verdict::UpToDate, &[&OF_WHAT_IT_IS]),
        (false, true) => (Verdict::Staged, &[&OF_WHAT_IT_IS, &OF_ORDER]),
        (false, false) => (Verdict::Take, &[&OF_WHAT_IT_IS, &OF_ORDER, &OF_PLACE_AND_TIME]),
    };
    let mut refusals = Vec::new();
    for gate in gates.iter().copied().flatten() {
        refusals.extend(gate(&case)?);
    }
    Ok(if refusals.is_empty() { verdict } else { Verdict::Refused(refusals) })
}

fn refuse(gate: Gate, why: String) -> Result<Option<Refusal>> {
    Ok(Some(Refusal { gate, why, hint: gate.hint() }))
}

fn architecture(case: &Case<'_>) -> Result<Option<Refusal>> {
    let (said, ours) = (case.artifact.release.architecture.as_deref(), case.facts.architecture);
    match said == Some(ours) {
        true => Ok(None),
        false => refuse(Gate::Architecture, other_architecture(said, ours)),
    }
}

fn channel(case: &Case<'_>) -> Result<Option<Refusal>> {
    let channel = case.artifact.release.channel.as_deref().unwrap_or(DEFAULT_CHANNEL);
    match channel == case.facts.channel {
        true => Ok(None),
        false => {
            let why = format!("artifact is on {}, this machine follows {}", named(channel), case.facts.channel);
            refuse(Gate::Channel, why)
        }
    }
}

fn version(case: &Case<'_>) -> Result<Option<Refusal>> {
    if case.takes_any {
        return Ok(None);
    }
    let Some(running) = &case.running else {
        return refuse(Gate::RunningVersion, incomparable(&case.offered, case.facts));
    };
    match case.offered.cmp(running) {
        Ordering::Greater => Ok(None),
        Ordering::Equal => refuse(Gate::Version, another_build(case.artifact, running)),
        Ordering::Less => refuse(Gate::Version, format!("{} is older than the running {running}", case.offered)),
    }
}

fn min_compatible_version(case: &Case<'_>) -> Result<Option<Refusal>> {
    let Some(minimum) = &case.artifact.release.min_compatible_version else { return Ok(None) };
    let minimum = Version::parse(minimum).map_err(|e| malformed(case.artifact, "min_compatible_version", &e))?;
    // A running version without an order passes here: the version gate refuses it unless an operator insists.
    match case.running.as_ref().filter(|running| **running < minimum) {
        None => Ok(None),
        Some(running) => {
            refuse(Gate::MinCompatible, format!("it needs at least {minimum} to update from, {running} is running"))
        }
    }
}

fn expiry(case: &Case<'_>) -> Result<Option<Refusal>> {
    let Some(expires) = &case.artifact.release.expires else { return Ok(None) };
    let now = case.facts.now.earliest_secs();
    if date_of(case.artifact, expires, "expires")?.0 > now {
        return Ok(None);
    }
    refuse(Gate::Expired, format!("it expired at {}, now is {}", printable(expires), rfc3339(now)))
}

fn release_date(case: &Case<'_>) -> Result<Option<Refusal>> {
    // Only a signed release date counts.
    if case.artifact.signed_by.is_empty() {
        return Ok(None);
    }
    let said = case.artifact.release.release_date.as_deref();
    let released = said.map(|date| date_of(case.artifact, date, "release_date")).transpose()?;
    let Some(newest) = case.facts.newest_release.filter(|_| !case.takes_any) else { return Ok(None) };
    if released.is_some_and(|released| released >= newest) {
        return Ok(None);
    }
    let date = said.map_or("a time that it does not say".to_string(), printable);
    refuse(Gate::Replayed, format!("it was released at {date}, one of {newest} has run"))
}

fn failed_before(case: &Case<'_>) -> Result<Option<Refusal>> {
    let (artifact, facts) = (case.artifact, case.facts);
    let is_insisted = facts.retry_failed || (case.is_staged && facts.staged_insisted);
    match facts.failed.iter().find(|(digest, _)| *digest == artifact.digest && !is_insisted) {
        None => Ok(None),
        Some((_, reason)) => {
            refuse(Gate::FailedBefore, format!("{} {}", printable(&artifact.release.version), printable(reason)))
        }
    }
}

fn pending_trial(case: &Case<'_>) -> Result<Option<Refusal>> {
    case.facts.trial_pending.map_or(Ok(None), |why| refuse(Gate::TrialPending, why.to_string()))
}

fn size(case: &Case<'_>) -> Result<Option<Refusal>> {
    let needed = case.artifact.kernel.size_bytes.saturating_add(case.artifact.initramfs.size_bytes);
    let Some(room) = case.facts.room_bytes.filter(|room| needed > *room) else { return Ok(None) };
    let (n, r) = (human_size(needed), human_size(room));
    refuse(Gate::Size, format!("it needs {n} ({needed} bytes), the target slot has room for {r} ({room} bytes)"))
}

fn maintenance_window(case: &Case<'_>) -> Result<Option<Refusal>> {
    let window = case.facts.window.filter(|_| !case.facts.ignore_window);
    Ok(window.and_then(|window| outside(window, case.facts.now)))
}

/// Describes which other machine an artifact is for. Input: its own architecture; this machine's.
fn other_architecture(said: Option<&str>, ours: &str) -> String {
    match said {
        None => format!(
            "artifact does not say what it is for: annotation io.kubesolo.os.architecture (in latest.json: architecture) is \
             missing, this machine is {ours}"
        ),
        Some(said) => {
            let hint = if is_misspelt_architecture(said) { " (write amd64 or arm64)" } else { "" };
            format!("artifact is for {}, this machine is {ours}{hint}", printable(said))
        }
    }
}

/// Reads a date of an artifact. Errors: Source: not a date; names document and field.
fn date_of(artifact: &Artifact, text: &str, field: &str) -> Result<Moment> {
    Moment::parse(text).map_err(|e| malformed(artifact, field, &e))
}

/// Names the document and the field of a value as the publisher writes it: in `latest.json`, or as an annotation.
fn malformed(artifact: &Artifact, field: &str, why: &Error) -> Error {
    let (prefix, document) = match artifact.source.strip_prefix("http ") {
        Some(url) => ("", url),
        None => ("io.kubesolo.os.", artifact.source.as_str()),
    };
    Error::new(Kind::Source, format!("'{prefix}{field}': {why}")).at("read", document)
}

/// Names a source as flags and `update.conf` do: `server http://…`, where records have `http http://…`.
pub fn place(source: &str) -> String {
    source.strip_prefix("http ").map_or(source.to_owned(), |url| format!("server {url}"))
}

/// Reports that a source still offers the running version although it has expired: the source stands still, or updates are held
/// back. Errors: Source: not a date.
pub fn stands_still(artifact: &Artifact, verdict: &Verdict, now: Now) -> Result<Option<String>> {
    let Some(expires) = artifact.release.expires.as_deref().filter(|_| *verdict == Verdict::UpToDate) else {
        return Ok(None);
    };
    let is_past = date_of(artifact, expires, "expires")?.0 <= now.earliest_secs();
    let expires = printable(expires);
    Ok(is_past
        .then(|| format!("what runs expired at {expires}, and nothing newer is offered: does the source stand still?")))
}

/// Returns why nothing may be changed now; `None`: the window is open.
///
/// Asked at the start, and again before a slot is activated and before the machine restarts: hours may pass in between.
pub fn outside(window: &Window, now: Now) -> Option<Refusal> {
    let is_open = now.moment_secs().is_some_and(|moment| window.is_open(moment));
    (!is_open).then(|| {
        let gate = if now.moment_secs().is_some() { Gate::Window } else { Gate::Clock };
        let next = opens_next(window, now).map_or(String::new(), |next| format!(", it opens next at {next}"));
        Refusal { gate, why: format!("the maintenance window is {window}, {now}{next}"), hint: gate.hint() }
    })
}

/// Returns when a closed window opens; `None`: it is open, or the clock is not set.
pub fn opens_next(window: &Window, now: Now) -> Option<String> {
    let moment = now.moment_secs().filter(|moment| !window.is_open(*moment))?;
    Some(rfc3339(window.opens_next(moment)))
}

/// Names a channel so that a blank in it, or an empty name, is visible.
fn named(channel: &str) -> String {
    match channel {
        "" => "a channel with an empty name".to_owned(),
        _ if channel.contains(|c: char| !c.is_ascii_graphic()) => format!("channel '{}'", printable(channel)),
        _ => format!("channel {channel}"),
    }
}

/// Describes why the offered version cannot be compared with the running one.
fn incomparable(offered: &Version, facts: &Facts<'_>) -> String {
    let runs = match facts.running_version {
        Some(text) => format!("what runs says that it is '{}', which is not a semantic version", printable(text)),
        None => "what runs does not say which version it is".to_owned(),
    };
    format!("{runs}: whether {offered} is newer cannot be told")
}

/// Returns whether the artifact is the running one: equal versions alone do not prove it.
fn runs_already(artifact: &Artifact, facts: &Facts<'_>) -> bool {
    let files = [artifact.kernel.sha256, artifact.initramfs.sha256];
    match facts.running_files {
        Some(running) => running == files || facts.running_digest == Some(artifact.digest),
        // A slot without a record is known only by its version.
        None => facts.running_version == Some(&artifact.release.version),
    }
}

/// Source: semver.org 2.0.0, item 10: build metadata is ignored in the order.
fn another_build(artifact: &Artifact, running: &Version) -> String {
    let (offered, running) = (printable(&artifact.release.version), running.to_string());
    let why = match offered == running {
        true => "was it published twice?".to_owned(),
        false => "Semantic Versioning does not order the two".to_owned(),
    };
    format!("{offered} has other files than {running}, which runs, but is not newer: another build of it; {why}")
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
