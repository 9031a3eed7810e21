//! The update attempt as an explicit state machine: schema, codec, transitions. Pure.
//!
//! Every change of phase goes through [`State::step`], so a phase that the table does not
//! allow is an error and never a surprise on disk. Must never: read a clock or a file.

use crate::error::{Error, Kind, Result};
use crate::oci::digest::Digest;
use crate::slot::Slot;
use crate::text::printable;
use crate::time::rfc3339;
use miniserde::{Deserialize, Serialize, json};

/// Largest state file that is read, in bytes.
pub const STATE_MAX_BYTES: u64 = 64 * 1024;

/// Where an update attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was tried yet.
    Idle,
    /// The source is being asked.
    Checking,
    /// Bytes go into the target slot.
    Downloading,
    /// The target slot is written and proven.
    Staged,
    /// GRUB will try the target slot.
    Activated,
    /// The target slot runs and its health is being watched.
    Verifying,
    /// The trial boot passed.
    Success,
    /// The attempt ended with an error.
    Failed,
    /// The machine went back to the slot it came from.
    RolledBack,
}

impl Phase {
    /// All nine, in the order of an update.
    pub const ALL: [Phase; 9] = [
        Phase::Idle,
        Phase::Checking,
        Phase::Downloading,
        Phase::Staged,
        Phase::Activated,
        Phase::Verifying,
        Phase::Success,
        Phase::Failed,
        Phase::RolledBack,
    ];

    /// Returns the name used in the state file, in metrics and in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Checking => "checking",
            Phase::Downloading => "downloading",
            Phase::Staged => "staged",
            Phase::Activated => "activated",
            Phase::Verifying => "verifying",
            Phase::Success => "success",
            Phase::Failed => "failed",
            Phase::RolledBack => "rolled_back",
        }
    }

    fn parse(name: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Says whether an attempt was cut off here: by a kill, a crash or a power cut.
    pub fn is_unfinished(self) -> bool {
        matches!(self, Phase::Checking | Phase::Downloading)
    }

    /// Says whether the table allows to go from here to `next`.
    ///
    /// Beside the straight line: another trial boot of a slot that was not healthy before is verified again; a slot whose record is good may be
    /// activated although the state file was lost (`idle`) or a later attempt failed; and a person may roll back
    /// from any phase in which nothing is half-done.
    pub fn may_become(self, next: Phase) -> bool {
        use Phase::*;
        match next {
            Idle => false,
            Checking => matches!(self, Idle | Staged | Success | Failed | RolledBack),
            Downloading => self == Checking,
            Staged => self == Downloading,
            Activated => matches!(self, Staged | Idle | Success | Failed | RolledBack),
            // A second or third trial boot, after one that was not healthy.
            Verifying => matches!(self, Activated | Failed),
            Success => matches!(self, Activated | Verifying),
            Failed => !matches!(self, Idle | Success | RolledBack),
            RolledBack => !matches!(self, Checking | Downloading),
        }
    }
}

/// Everything the agent remembers of the current or last attempt. The content of `state.json`.
///
/// Power cut: written by [`crate::atomic::replace`], so the file is the old state or the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Where the attempt stands.
    pub phase: Phase,
    /// The phase that a check without result goes back to. Set only while checking.
    pub resume_phase: Option<Phase>,
    /// Version that ran when the attempt began.
    pub from_version: Option<String>,
    /// Version it aims at.
    pub to_version: Option<String>,
    /// Attempts at `to_version`.
    pub attempt_count: u64,
    /// Attempts ever.
    pub attempts_total: u64,
    /// Rollbacks ever.
    pub rollbacks_total: u64,
    /// Why the last attempt failed or was rolled back.
    pub last_error: Option<String>,
    /// [`Kind::label`] of that, or `rollback`.
    pub last_error_kind: Option<String>,
    /// When the attempt began.
    pub started_at: Option<String>,
    /// When this was written.
    pub updated_at: Option<String>,
    /// Slot that is written to, or on trial.
    pub target_slot: Option<Slot>,
    /// Where the artifact comes from, without secrets.
    pub source: Option<String>,
    /// Identity of the artifact.
    pub manifest_digest: Option<Digest>,
    /// Boot (`/proc/sys/kernel/random/boot_id`) in which the agent last switched the active slot.
    pub switched_boot_id: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    phase: String,
    resume_phase: Option<String>,
    from_version: Option<String>,
    to_version: Option<String>,
    attempt_count: Option<u64>,
    attempts_total: Option<u64>,
    rollbacks_total: Option<u64>,
    last_error: Option<String>,
    last_error_kind: Option<String>,
    started_at: Option<String>,
    updated_at: Option<String>,
    target_slot: Option<String>,
    source: Option<String>,
    manifest_digest: Option<String>,
    switched_boot_id: Option<String>,
}

impl Default for State {
    fn default() -> Self {
        State {
            phase: Phase::Idle,
            resume_phase: None,
            from_version: None,
            to_version: None,
            attempt_count: 0,
            attempts_total: 0,
            rollbacks_total: 0,
            last_error: None,
            last_error_kind: None,
            started_at: None,
            updated_at: None,
            target_slot: None,
            source: None,
            manifest_digest: None,
            switched_boot_id: None,
        }
    }
}

impl State {
    /// Reads `state.json`.
    /// Input: UTF-8 JSON, at most [`STATE_MAX_BYTES`].
    /// Errors: State: not JSON, or a phase, slot or digest that does not exist.
    pub fn parse(bytes: &[u8]) -> Result<State> {
        let bad = |why: String| Error::new(Kind::State, why);
        let text = std::str::from_utf8(bytes).map_err(|_| bad("is not UTF-8".into()))?;
        let raw: Raw = json::from_str(text).map_err(|_| bad("is not a JSON object with a phase".into()))?;
        let phase = |name: &str| Phase::parse(name).ok_or_else(|| bad(format!("has the unknown phase `{name}`")));
        let slot = |name: String| Slot::parse(&name).ok_or_else(|| bad(format!("has the unknown slot `{name}`")));
        let digest = |text: String| Digest::parse(&text).map_err(|_| bad("has a malformed manifest_digest".into()));
        let needs_slot = ["staged", "activated", "verifying"].contains(&raw.phase.as_str());
        if needs_slot && raw.target_slot.is_none() {
            return Err(bad(format!("is {} without a target_slot", raw.phase)));
        }
        Ok(State {
            phase: phase(&raw.phase)?,
            resume_phase: raw.resume_phase.map(|p| phase(&p)).transpose()?,
            from_version: raw.from_version,
            to_version: raw.to_version,
            attempt_count: raw.attempt_count.unwrap_or(0),
            attempts_total: raw.attempts_total.unwrap_or(0),
            rollbacks_total: raw.rollbacks_total.unwrap_or(0),
            last_error: raw.last_error,
            last_error_kind: raw.last_error_kind,
            started_at: raw.started_at,
            updated_at: raw.updated_at,
            target_slot: raw.target_slot.map(slot).transpose()?,
            source: raw.source,
            manifest_digest: raw.manifest_digest.map(digest).transpose()?,
            switched_boot_id: raw.switched_boot_id,
        })
    }

    /// Writes the state as one JSON line.
    pub fn encode(&self) -> String {
        let mut text = json::to_string(&Raw {
            phase: self.phase.name().into(),
            resume_phase: self.resume_phase.map(|p| p.name().into()),
            from_version: self.from_version.clone(),
            to_version: self.to_version.clone(),
            attempt_count: Some(self.attempt_count),
            attempts_total: Some(self.attempts_total),
            rollbacks_total: Some(self.rollbacks_total),
            last_error: self.last_error.clone(),
            last_error_kind: self.last_error_kind.clone(),
            started_at: self.started_at.clone(),
            updated_at: self.updated_at.clone(),
            target_slot: self.target_slot.map(|s| s.to_string()),
            source: self.source.clone(),
            manifest_digest: self.manifest_digest.map(|d| d.to_string()),
            switched_boot_id: self.switched_boot_id.clone(),
        });
        text.push('\n');
        text
    }

    /// Moves to another phase.
    /// Errors: State: the table does not allow it; nothing is changed then.
    pub fn step(&mut self, next: Phase, now_secs: u64) -> Result<()> {
        if !self.phase.may_become(next) {
            let why = format!("an attempt that is {} can not become {}", self.phase.name(), next.name());
            return Err(Error::new(Kind::State, why).at("change", "update state"));
        }
        self.phase = next;
        self.resume_phase = None;
        self.updated_at = Some(rfc3339(now_secs));
        Ok(())
    }

    /// Starts an attempt: the source is going to be asked.
    /// Errors: State: a trial is pending, or an attempt was not settled (see [`State::cut_off`]).
    pub fn begin(&mut self, from_version: &str, source: &str, now_secs: u64) -> Result<()> {
        let resume = self.phase;
        self.step(Phase::Checking, now_secs)?;
        self.resume_phase = Some(resume);
        if resume != Phase::Staged {
            self.from_version = Some(from_version.into());
            self.source = Some(source.into());
        }
        Ok(())
    }

    /// Ends a check that found nothing to take: back to where it came from.
    pub fn nothing_taken(&mut self, now_secs: u64) {
        if let (Phase::Checking, Some(resume)) = (self.phase, self.resume_phase) {
            self.phase = resume;
            self.resume_phase = None;
            self.updated_at = Some(rfc3339(now_secs));
        }
    }

    /// Settles an attempt that was killed, crashed or lost its power: no run holds the lock any more.
    pub fn cut_off(&mut self, now_secs: u64) -> Result<()> {
        match self.phase {
            Phase::Checking => {
                self.resume_phase.get_or_insert(Phase::Idle);
                self.nothing_taken(now_secs);
                Ok(())
            }
            Phase::Downloading => {
                let error = Error::new(Kind::State, "the run was cut off: killed, crashed, or the power went")
                    .at("download", self.to_version.as_deref().unwrap_or("an update"));
                self.fail(&error, now_secs)
            }
            _ => Ok(()),
        }
    }

    /// Names what the attempt is going to download, and counts it.
    /// Errors: State: the attempt is not checking.
    pub fn take(&mut self, what: &Taken<'_>, now_secs: u64) -> Result<()> {
        self.step(Phase::Downloading, now_secs)?;
        let same = self.to_version.as_deref() == Some(what.version);
        self.attempt_count = if same { self.attempt_count.saturating_add(1) } else { 1 };
        self.attempts_total = self.attempts_total.saturating_add(1);
        self.from_version = Some(what.from_version.into());
        self.to_version = Some(what.version.into());
        self.source = Some(printable(what.source));
        self.manifest_digest = Some(what.digest);
        self.target_slot = Some(what.target);
        self.started_at = Some(rfc3339(now_secs));
        self.switched_boot_id = None;
        Ok(())
    }

    /// Ends the attempt with an error.
    ///
    /// An attempt that fails before it touched the target slot leaves an earlier `staged` standing: that slot is
    /// still proven.
    /// Errors: State: there is no attempt to fail.
    pub fn fail(&mut self, error: &Error, now_secs: u64) -> Result<()> {
        if self.phase == Phase::Checking && self.resume_phase == Some(Phase::Staged) {
            self.nothing_taken(now_secs);
            return Ok(());
        }
        if self.phase == Phase::Checking {
            self.attempts_total = self.attempts_total.saturating_add(1);
            self.started_at = Some(rfc3339(now_secs));
        }
        self.step(Phase::Failed, now_secs)?;
        self.last_error = Some(error.to_string());
        self.last_error_kind = Some(error.kind().label().into());
        Ok(())
    }

    /// Records that the machine is, or will be, back on the other slot.
    /// Input: `gave_up`: the slot that was left; `artifact`: what was in it, digest and version, if known.
    /// Errors: State: an attempt is half-done.
    pub fn roll_back(
        &mut self,
        gave_up: Slot,
        artifact: Option<(Digest, String)>,
        reason: &str,
        now_secs: u64,
    ) -> Result<()> {
        self.step(Phase::RolledBack, now_secs)?;
        if artifact.is_some() || self.target_slot != Some(gave_up) {
            (self.manifest_digest, self.to_version) = artifact.unzip();
        }
        self.target_slot = Some(gave_up);
        self.rollbacks_total = self.rollbacks_total.saturating_add(1);
        self.last_error = Some(printable(reason));
        self.last_error_kind = Some("rollback".into());
        Ok(())
    }

    /// Records that the trial boot passed.
    /// Errors: State: nothing is on trial.
    pub fn succeed(&mut self, now_secs: u64) -> Result<()> {
        self.step(Phase::Success, now_secs)?;
        self.last_error = None;
        self.last_error_kind = None;
        Ok(())
    }
}

/// What an attempt is going to download.
pub struct Taken<'a> {
    /// Version that runs now.
    pub from_version: &'a str,
    /// Version of the artifact.
    pub version: &'a str,
    /// Where it comes from.
    pub source: &'a str,
    /// Its identity.
    pub digest: Digest,
    /// Slot it goes to.
    pub target: Slot,
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
