//! The gates: every policy that refuses an artifact before a byte of it is downloaded. Pure.
//!
//! Called from one place for machines (cmd/check.rs), with the same facts for every source, and from cmd/inspect.rs for a
//! machine that is only spoken of.
//! Must never: fetch, read or write anything, or stop at the first refusal.

use crate::base::clock::Now;
use crate::base::digest::Digest;
use crate::base::error::{Course, Error, Kind, Refused, Result};
use crate::base::text::{human_size, printable};
use crate::base::time::parse_rfc3339;
use crate::oci::annotations::is_misspelt_architecture;
use crate::offer::artifact::Artifact;
use crate::offer::version::Version;
use crate::offer::window::Window;
use std::cmp::Ordering;
use std::fmt;

/// Channel of an artifact whose publisher named none.
pub const DEFAULT_CHANNEL: &str = "stable";

/// What the gates need to know of this machine, now.
pub struct Facts<'a> {
    /// `amd64` or `arm64`.
    pub architecture: &'a str,
    /// Channel that the configuration follows.
    pub channel: &'a str,
    /// Version of the running slot, where it says one.
    pub running_version: Option<&'a str>,
    /// Artifact in the running slot, where it is known.
    pub running_digest: Option<Digest>,
    /// What its kernel and initramfs hash to, where that is known.
    pub running_files: Option<[Digest; 2]>,
    /// Why the target slot must not be touched now.
    pub trial_pending: Option<&'a str>,
    /// What is staged in the target slot.
    pub staged_digest: Option<Digest>,
    /// Whether that was staged although it failed here before.
    pub staged_insisted: bool,
    /// Artifacts that are not to be taken now since they rolled back, and why: the rest of a sentence.
    pub failed: &'a [(Digest, String)],
    /// What is known of the time.
    pub now: Now,
    /// Room in the target slot once its old files are gone; `None` where it can not be told.
    pub room_bytes: Option<u64>,
    /// When updates may be applied.
    pub window: Option<&'a Window>,
    /// When the newest release that was verified and has run here was made, in seconds since 1970.
    pub newest_release_secs: Option<u64>,
    /// `--allow-downgrade`.
    pub allow_downgrade: bool,
    /// `--retry-failed`.
    pub retry_failed: bool,
    /// `--ignore-window`.
    pub ignore_window: bool,
}

/// Names a gate. The label is part of the `--json` output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the labels say it
pub enum Gate {
    TrialPending,
    Architecture,
    Channel,
    Version,
    RunningVersion,
    MinCompatible,
    Expired,
    Replayed,
    FailedBefore,
    Size,
    Window,
    /// There is a window, and the clock is not set.
    Clock,
}

impl Gate {
    /// Returns the stable label.
    pub fn label(self) -> &'static str {
        match self {
            Gate::TrialPending => "trial_pending",
            Gate::Architecture => "architecture",
            Gate::Channel => "channel",
            Gate::Version => "newer",
            Gate::RunningVersion => "running_version",
            Gate::MinCompatible => "min_compatible_version",
            Gate::Expired => "expired",
            Gate::Replayed => "release_date",
            Gate::FailedBefore => "failed_before",
            Gate::Size => "size",
            Gate::Window | Gate::Clock => "maintenance_window",
        }
    }

    /// Says whether the refusal is a fault that a person must mend, rather than the ordinary course
    /// of things (a window that is shut, a mirror that lags, a version already known to be bad).
    pub fn is_fault(self) -> bool {
        matches!(
            self,
            Gate::Architecture
                | Gate::Channel
                | Gate::RunningVersion
                | Gate::MinCompatible
                | Gate::Expired
                | Gate::Size
        )
    }

    /// Names the option that takes it all the same; empty: none does.
    fn hint(self) -> &'static str {
        match self {
            Gate::Version | Gate::RunningVersion | Gate::Replayed => "--allow-downgrade takes it",
            Gate::FailedBefore => "--retry-failed takes it",
            Gate::Window | Gate::Clock => "--ignore-window goes on",
            _ => "",
        }
    }

    /// Says whether nobody has to do anything about the refusal: the window opens, the trial ends, or another version
    /// comes. A source that offers an older version, or another build of what runs, is not that: its publisher is asked.
    /// Nor is a clock that is not set: the window never opens by it.
    pub fn waits(self) -> bool {
        matches!(self, Gate::TrialPending | Gate::FailedBefore | Gate::Window)
    }
}

/// One gate that refused, with the two values it compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which gate.
    pub gate: Gate,
    /// Both values, for people.
    pub why: String,
    /// What takes it all the same; empty: nothing on this machine.
    pub hint: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

/// What the gates say of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be taken.
    Take,
    /// It may be taken, and lies in the target slot already.
    Staged,
    /// It is what runs already.
    UpToDate,
    /// It must not be taken; at least one refusal.
    Refused(Vec<Refusal>),
}

/// Holds an artifact against every gate.
/// Errors: Source: the artifact's own versions or dates are malformed.
pub fn judge(artifact: &Artifact, facts: &Facts<'_>) -> Result<Verdict> {
    let mut refusals = Vec::new();
    let mut refuse = |gate: Gate, why: String| refusals.push(Refusal { gate, why, hint: gate.hint() });
    // What is none is in no order: builders of images write `2024.01`.
    let running = facts.running_version.and_then(|text| Version::parse(text).ok());
    let offered = Version::parse(&artifact.version).map_err(|e| malformed(artifact, "version", &e))?;

    let architecture = artifact.architecture.as_deref();
    if architecture != Some(facts.architecture) {
        refuse(Gate::Architecture, other_architecture(architecture, facts.architecture));
    }
    let channel = artifact.channel.as_deref().unwrap_or(DEFAULT_CHANNEL);
    if channel != facts.channel {
        refuse(Gate::Channel, format!("artifact is on {}, this machine follows {}", named(channel), facts.channel));
    }
    // What is staged has passed this gate, or a person insisted on it.
    let is_staged = facts.staged_digest == Some(artifact.digest);
    let takes_any = facts.allow_downgrade || is_staged;
    match running.as_ref().map(|running| (offered.cmp(running), running)) {
        Some((Ordering::Equal, _)) | None if runs_already(artifact, facts) => {
            // A wrong architecture or channel is a fault even when it is what runs.
            let same = refusals.is_empty();
            return Ok(if same { Verdict::UpToDate } else { Verdict::Refused(refusals) });
        }
        None if !takes_any => refuse(Gate::RunningVersion, incomparable(&offered, facts)),
        Some((Ordering::Equal, running)) if !takes_any => refuse(Gate::Version, another_build(artifact, running)),
        Some((Ordering::Less, running)) if !takes_any => {
            refuse(Gate::Version, format!("{offered} is older than the running {running}"));
        }
        _ => {}
    }
    if let Some(minimum) = &artifact.min_compatible_version {
        let minimum = Version::parse(minimum).map_err(|e| malformed(artifact, "min_compatible_version", &e))?;
        // A version that is none is left by a person who insists, or not at all.
        if let Some(running) = running.filter(|running| *running < minimum) {
            refuse(Gate::MinCompatible, format!("it needs at least {minimum} to update from, {running} is running"));
        }
    }
    if let Some(expires) = &artifact.expires
        && date_of(artifact, expires, "expires")? <= facts.now.earliest_secs()
    {
        let now = crate::base::time::rfc3339(facts.now.earliest_secs());
        refuse(Gate::Expired, format!("it expired at {}, now is {now}", printable(expires)));
    }
    // The date of what nobody signed is anybody's word.
    if !artifact.signed_by.is_empty() {
        let released =
            artifact.release_date.as_deref().map(|date| date_of(artifact, date, "release_date")).transpose()?;
        if let Some(newest) = facts.newest_release_secs
            && released.is_none_or(|released| released < newest)
            && !takes_any
        {
            let newest = crate::base::time::rfc3339(newest);
            let date = artifact.release_date.as_deref().map_or("a time that it does not say".to_string(), printable);
            refuse(Gate::Replayed, format!("it was released at {date}, one of {newest} has run"));
        }
    }
    let known_bad = facts.failed.iter().find(|(digest, _)| *digest == artifact.digest);
    if let Some((_, reason)) = known_bad
        && !facts.retry_failed
        && !(is_staged && facts.staged_insisted)
    {
        refuse(Gate::FailedBefore, format!("{} {}", printable(&artifact.version), printable(reason)));
    }
    if !is_staged {
        judge_place_and_time(artifact, facts, &mut refuse);
    }
    Ok(match refusals.is_empty() {
        false => Verdict::Refused(refusals),
        true if is_staged => Verdict::Staged,
        true => Verdict::Take,
    })
}

/// Says what an artifact is for instead. Input: what it says; what this machine is.
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

/// Reads a date of an artifact. Errors: Source: it is none; document and field are named.
fn date_of(artifact: &Artifact, text: &str, field: &str) -> Result<u64> {
    parse_rfc3339(text).map_err(|e| malformed(artifact, field, &e))
}

/// Names the document and the field that a value is from, as the publisher writes it: in `latest.json`, or as an annotation.
fn malformed(artifact: &Artifact, field: &str, why: &Error) -> Error {
    let (prefix, document) = match artifact.source.strip_prefix("http ") {
        Some(url) => ("", url),
        None => ("io.kubesolo.os.", artifact.source.as_str()),
    };
    Error::new(Kind::Source, format!("'{prefix}{field}': {why}")).at("read", document)
}

/// Names a source to people, as flag and `update.conf` call it: `server http://…`, where records have `http http://…`.
pub fn place(source: &str) -> String {
    source.strip_prefix("http ").map_or(source.to_owned(), |url| format!("server {url}"))
}

/// Says that a source offers what runs, although that has expired: it stands still, or is held back.
/// Errors: Source: the date is none.
pub fn stands_still(artifact: &Artifact, verdict: &Verdict, now: Now) -> Result<Option<String>> {
    let Some(expires) = artifact.expires.as_deref().filter(|_| *verdict == Verdict::UpToDate) else { return Ok(None) };
    let is_past = date_of(artifact, expires, "expires")? <= now.earliest_secs();
    let expires = printable(expires);
    Ok(is_past
        .then(|| format!("what runs expired at {expires}, and nothing newer is offered: is the source held back?")))
}

fn judge_place_and_time(artifact: &Artifact, facts: &Facts<'_>, refuse: &mut dyn FnMut(Gate, String)) {
    if let Some(why) = facts.trial_pending {
        refuse(Gate::TrialPending, why.to_string());
    }
    let needed = artifact.kernel.size_bytes.saturating_add(artifact.initramfs.size_bytes);
    if let Some(room) = facts.room_bytes
        && needed > room
    {
        let (n, r) = (human_size(needed), human_size(room));
        refuse(Gate::Size, format!("it needs {n} ({needed} bytes), the target slot has room for {r} ({room} bytes)"));
    }
    let window = facts.window.filter(|_| !facts.ignore_window);
    if let Some(why) = window.and_then(|window| outside(window, facts.now)) {
        refuse(why.gate, why.why);
    }
}

/// Says why nothing may be changed now; `None`: the window is open.
///
/// Asked at the beginning, and again before a slot is activated and before the machine is restarted: between them may be hours.
pub fn outside(window: &Window, now: Now) -> Option<Refusal> {
    let is_open = now.moment_secs().is_some_and(|moment| window.is_open(moment));
    (!is_open).then(|| {
        let gate = if now.moment_secs().is_some() { Gate::Window } else { Gate::Clock };
        let next = opens_next(window, now).map_or(String::new(), |next| format!(", it opens next at {next}"));
        Refusal { gate, why: format!("the maintenance window is {window}, {now}{next}"), hint: gate.hint() }
    })
}

/// Says when a window opens that is shut; `None`: it is open, or the clock is not set.
pub fn opens_next(window: &Window, now: Now) -> Option<String> {
    let moment = now.moment_secs().filter(|moment| !window.is_open(*moment))?;
    Some(crate::base::time::rfc3339(window.opens_next(moment)))
}

/// Names a channel so that a blank in it, or its absence, is seen.
fn named(channel: &str) -> String {
    match channel {
        "" => "a channel with an empty name".to_owned(),
        _ if channel.contains(|c: char| !c.is_ascii_graphic()) => format!("channel '{}'", printable(channel)),
        _ => format!("channel {channel}"),
    }
}

/// Says why it cannot be told whether something is newer than what runs.
fn incomparable(offered: &Version, facts: &Facts<'_>) -> String {
    let runs = match facts.running_version {
        Some(text) => format!("what runs says that it is '{}', which is not a semantic version", printable(text)),
        None => "what runs does not say which version it is".to_owned(),
    };
    format!("{runs}: whether {offered} is newer cannot be told")
}

/// Says whether the artifact is what runs: equal versions alone do not say it.
fn runs_already(artifact: &Artifact, facts: &Facts<'_>) -> bool {
    let files = [artifact.kernel.sha256, artifact.initramfs.sha256];
    match facts.running_files {
        Some(running) => running == files || facts.running_digest == Some(artifact.digest),
        // Of a slot without a record its version is all that is known.
        None => facts.running_version == Some(&artifact.version),
    }
}

/// Source: semver.org 2.0.0, item 10: build metadata does not count in the order.
fn another_build(artifact: &Artifact, running: &Version) -> String {
    let (offered, running) = (printable(&artifact.version), running.to_string());
    let why = match offered == running {
        true => "was it published twice?".to_owned(),
        false => "Semantic Versioning does not order the two".to_owned(),
    };
    format!("{offered} has other files than {running}, which runs, but is not newer: another build of it; {why}")
}

/// Puts refusals into one sentence.
pub fn reasons(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ")
}

/// Turns refusals into the error that a command ends with. Input: `version`: "version 1.2.0", for example.
pub fn refused(version: &str, refusals: &[Refusal]) -> Error {
    refused_to("take", version, refusals)
}

/// The same for what else is done with a version. Input: `op`: "take", for example.
pub fn refused_to(op: &str, version: &str, refusals: &[Refusal]) -> Error {
    let error = Error::new(Kind::Gate, format!("refused: {}", reasons(refusals))).at(op, version);
    let told = |refusal: &Refusal| Refused { gate: refusal.gate.label(), why: refusal.why.clone(), hint: refusal.hint };
    let error = error.refusing(refusals.iter().map(told).collect());
    match refusals.iter().all(|refusal| refusal.gate.waits()) {
        true => error.taking(Course::Waits),
        false => error,
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
