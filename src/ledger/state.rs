//! The update attempt as an explicit state machine: schema, codec, transitions. Pure.
//!
//! Every change of phase goes through [`State::step`], so a phase that the table does not
//! allow is an error and never a surprise on disk. Must never: read a clock or a file.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::{Moment, rfc3339};
use crate::ledger::history::{Attempt, History, Part, ROLLBACK, VERSION_MAX_BYTES, cut};
use crate::ledger::traffic::Traffic;
use crate::slot::record::{Record, Slot};

pub use crate::ledger::phase::Phase;

/// Largest state file that is read, in bytes.
pub const STATE_MAX_BYTES: u64 = 64 * 1024;
/// Longest error or source kept, in bytes.
pub(crate) const TEXT_MAX_BYTES: usize = 4096;
/// Longest cause of a failed trial kept, in bytes.
pub(crate) const CAUSE_MAX_BYTES: usize = 1024;
/// Longest boot id kept, in bytes.
pub(crate) const BOOT_ID_MAX_BYTES: usize = 256;

/// Everything the agent remembers of the current or last attempt. The content of `state.json`.
///
/// Power cut: written by [`crate::os::files::replace`], so the file is the old state or the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Where the attempt stands.
    pub phase: Phase,
    /// The phase to return to after a check without result. Set only while checking.
    pub resume_phase: Option<Phase>,
    /// Version that was running when the attempt began.
    pub from_version: Option<String>,
    /// Version it aims at.
    pub to_version: Option<String>,
    /// Attempts at `to_version`.
    pub attempt_count: u64,
    /// Attempts ever.
    pub attempts_total: u64,
    /// Rollbacks ever.
    pub rollbacks_total: u64,
    /// Bytes of all updates ever.
    pub traffic_total: Traffic,
    /// Whether the recorded rollback still waits for the machine to restart: until then it is not counted.
    pub is_under_way: bool,
    /// Why the last attempt failed or was rolled back.
    pub last_error: Option<String>,
    /// [`Kind::label`] of that, or `rollback`.
    pub last_error_kind: Option<String>,
    /// When the attempt began.
    pub started_at: Option<Moment>,
    /// When this was written.
    pub updated_at: Option<Moment>,
    /// Slot being written, or on trial.
    pub target_slot: Option<Slot>,
    /// Where the artifact comes from, without secrets.
    pub source: Option<String>,
    /// Identity of the artifact.
    pub manifest_digest: Option<Digest>,
    /// Boot (`/proc/sys/kernel/random/boot_id`) in which the agent last switched the active slot.
    pub switched_boot_id: Option<String>,
    /// What was wrong at the last check of the slot on trial; kept when GRUB has gone back.
    pub unhealthy: Option<String>,
    /// Which slot that was.
    pub unhealthy_slot: Option<Slot>,
    /// Name of the first check that failed then.
    pub failed_check: Option<String>,
    /// The artifact that was called off before it ever booted, until an artifact is staged or activated again.
    pub called_off: Option<Digest>,
    /// Whether a person insisted on the staged artifact, although it failed here.
    pub insisted: bool,
    /// The last attempts.
    pub history: History,
}

impl State {
    /// Moves to another phase.
    /// Errors: State: the table does not allow it, or the target slot is missing; nothing is changed then.
    pub fn step(&mut self, next: Phase, now_secs: u64) -> Result<()> {
        let before = self.phase;
        if self.target_slot.is_none() && next.needs_slot() {
            return Err(Error::new(Kind::State, "it names no slot").at("change", "update state"));
        }
        self.enter(next, now_secs)?;
        if next == Phase::Staged {
            // From an earlier attempt: this one has succeeded.
            self.last_error = None;
            self.last_error_kind = None;
            self.called_off = None;
        }
        self.record(before);
        Ok(())
    }

    fn enter(&mut self, next: Phase, now_secs: u64) -> Result<()> {
        if !self.phase.may_become(next) {
            let why = format!("an attempt that is {} cannot become {}", self.phase.name(), next.name());
            return Err(Error::new(Kind::State, why).at("change", "update state"));
        }
        self.phase = next;
        self.resume_phase = None;
        self.updated_at = Some(Moment(now_secs));
        Ok(())
    }

    /// Updates the history with the attempt's phase. Input: `before`: the previous phase.
    fn record(&mut self, before: Phase) {
        let at = text(self.updated_at);
        let mut attempt = Attempt::new(self.phase, self.started_at.map(|at| at.to_string()).as_deref().unwrap_or(&at));
        attempt.set(Part::FromVersion, self.from_version.as_deref());
        attempt.set(Part::ToVersion, self.to_version.as_deref());
        attempt.set(Part::Slot, self.target_slot.map(Slot::name));
        if matches!(self.phase, Phase::Failed | Phase::RolledBack) {
            attempt.set(Part::ErrorKind, self.last_error_kind.as_deref());
            attempt.set(Part::Error, self.last_error.as_deref());
        }
        if !matches!(self.phase, Phase::Downloading | Phase::Verifying) {
            attempt.set(Part::EndedAt, Some(&at));
        }
        self.history.follow(before, attempt);
    }

    /// Starts an attempt: the source is about to be asked. Versions and source stay those of the previous attempt until
    /// an artifact is taken.
    /// Errors: State: a trial is pending, or an attempt was not settled (see [`State::cut_off`]).
    pub fn begin(&mut self, now_secs: u64) -> Result<()> {
        let resume = self.phase;
        self.enter(Phase::Checking, now_secs)?;
        self.resume_phase = Some(resume);
        Ok(())
    }

    /// Ends a check that found nothing to take: returns to the phase before.
    pub fn nothing_taken(&mut self, now_secs: u64) {
        if let (Phase::Checking, Some(resume)) = (self.phase, self.resume_phase) {
            self.phase = resume;
            self.resume_phase = None;
            self.updated_at = Some(Moment(now_secs));
        }
    }

    /// Ends a check that was answered, with nothing to take: an earlier failed check is over, too, and the
    /// state before that is restored. A failed download is not undone by it.
    pub fn answered(&mut self, now_secs: u64) {
        self.nothing_taken(now_secs);
        if self.phase != Phase::Failed || !self.history.ends_in_failed_checks() {
            return;
        }
        let before = self.history.last_placed();
        let text = |part| before.and_then(|attempt| attempt.text(part)).map(str::to_owned);
        let (phase, error, kind) = (text(Part::Result), text(Part::Error), text(Part::ErrorKind));
        self.phase = match phase.as_deref().and_then(Phase::parse) {
            Some(phase @ (Phase::Success | Phase::Failed | Phase::RolledBack)) => phase,
            _ => Phase::Idle,
        };
        (self.last_error, self.last_error_kind) = (error, kind);
    }

    /// Settles an attempt that was killed, crashed or lost power: no run holds the lock any more.
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

    /// Records what the attempt is about to download, and counts it.
    /// Errors: State: the attempt is not checking.
    pub fn take(&mut self, what: &Taken<'_>, now_secs: u64) -> Result<()> {
        self.enter(Phase::Downloading, now_secs)?;
        self.aim_at(what.version);
        self.attempt_count = self.attempt_count.saturating_add(1);
        self.attempts_total = self.attempts_total.saturating_add(1);
        self.from_version = what.from_version.map(|version| cut(version, VERSION_MAX_BYTES));
        self.source = Some(cut(what.source, TEXT_MAX_BYTES));
        self.manifest_digest = Some(what.digest);
        self.target_slot = Some(what.target);
        self.started_at = Some(Moment(now_secs));
        self.switched_boot_id = None;
        self.insisted = what.insisted;
        self.forget_cause();
        self.record(Phase::Checking);
        Ok(())
    }

    /// Clears what was wrong in a trial.
    pub fn forget_cause(&mut self) {
        self.unhealthy = None;
        self.unhealthy_slot = None;
        self.failed_check = None;
    }

    /// Sets the target version; a new one has no attempts yet.
    fn aim_at(&mut self, version: &str) {
        let version = Some(cut(version, VERSION_MAX_BYTES));
        if self.to_version != version {
            self.attempt_count = 0;
            self.to_version = version;
        }
    }

    /// Records that GRUB will try a slot.
    /// Input: `from_version`: the running version; `record`: the slot's, which need not be the last one staged: the
    /// state may have been lost, or a later attempt may have failed.
    /// Errors: State: an attempt is half-done, or a trial is pending.
    pub fn activate(&mut self, from_version: Option<&str>, target: Slot, record: &Record, now_secs: u64) -> Result<()> {
        let before = self.phase;
        self.enter(Phase::Activated, now_secs)?;
        let is_known = before == Phase::Staged && self.target_slot == Some(target);
        self.forget_cause();
        // The error belongs to another attempt than this slot's.
        (self.last_error, self.last_error_kind) = (None, None);
        self.called_off = None;
        self.insisted = false;
        self.aim_at(&record.version);
        self.target_slot = Some(target);
        self.manifest_digest = record.manifest_digest;
        if !is_known {
            self.from_version = from_version.map(|version| cut(version, VERSION_MAX_BYTES));
            self.source = Some(cut(&record.source, TEXT_MAX_BYTES));
            self.started_at = self.updated_at;
        }
        self.record(before);
        Ok(())
    }

    /// Ends the attempt with an error.
    ///
    /// An attempt that fails before it touched the target slot keeps an earlier `staged` phase: that slot is
    /// still verified. Only the history records the failure.
    /// Errors: State: there is no attempt to fail.
    pub fn fail(&mut self, error: &Error, now_secs: u64) -> Result<()> {
        let (before, resume, kind) = (self.phase, self.resume_phase, error.kind().label());
        let why = error.to_string();
        self.enter(Phase::Failed, now_secs)?;
        if before == Phase::Checking {
            self.history.add_check(kind, &why, &rfc3339(now_secs));
            if resume == Some(Phase::Staged) {
                self.phase = Phase::Staged;
                return Ok(());
            }
            self.attempts_total = self.attempts_total.saturating_add(1);
            self.started_at = self.updated_at;
        }
        self.last_error = Some(cut(&why, TEXT_MAX_BYTES));
        self.last_error_kind = Some(kind.into());
        if before != Phase::Checking {
            self.record(before);
        }
        Ok(())
    }

    /// Keeps what was wrong in a trial boot; GRUB may give that slot another one.
    /// Input: `unhealthy`: what the checks said; `check`: the first that failed, where it was a check.
    pub fn keep_cause(&mut self, slot: Slot, unhealthy: &str, check: Option<&str>) {
        self.unhealthy = Some(cut(unhealthy, CAUSE_MAX_BYTES));
        self.unhealthy_slot = Some(slot);
        self.failed_check = check.map(|name| cut(name, VERSION_MAX_BYTES));
    }

    /// Returns what was wrong at a slot's last check on trial.
    pub fn cause(&self, slot: Slot) -> Option<&str> {
        self.unhealthy.as_deref().filter(|_| self.unhealthy_slot == Some(slot))
    }

    /// Calls off what was staged or activated and never booted: nothing is known against it. A trial that is missing in the
    /// state (the file was lost) leaves nothing to call off. Input: `back_to`: version of the slot that a rollback was to.
    /// Errors: none; it returns a `Result` only for chaining.
    pub fn call_off(&mut self, back_to: Option<&str>, now_secs: u64) -> Result<()> {
        let before = self.phase;
        if !before.may_become(Phase::Idle) {
            return Ok(());
        }
        self.enter(Phase::Idle, now_secs)?;
        self.forget_cause();
        self.last_error = None;
        self.last_error_kind = None;
        // If a rollback is called off, the slot that was to be left continues to run.
        match (before, self.target_slot) {
            (Phase::RolledBack, Some(left)) if self.is_under_way => {
                let at = text(self.updated_at);
                self.history.call_off_rollback(self.to_version.as_deref(), back_to, left.other(), Some(&at));
            }
            (Phase::RolledBack, _) => {}
            _ => {
                self.called_off = self.manifest_digest;
                self.history.call_off(Some(&text(self.updated_at)));
            }
        }
        self.is_under_way = false;
        Ok(())
    }

    /// Records that the machine is, or will be, back on the other slot.
    /// Input: `gave_up`: the slot that was left; `artifact`: digest and version of its content, if known.
    /// Errors: State: an attempt is half-done.
    pub fn roll_back(
        &mut self,
        gave_up: Slot,
        artifact: Option<(Digest, String)>,
        reason: &str,
        now_secs: u64,
    ) -> Result<()> {
        let before = self.phase;
        self.enter(Phase::RolledBack, now_secs)?;
        let is_same_slot = self.target_slot == Some(gave_up);
        if !is_same_slot {
            // Back from a rollback: what had been left ran meanwhile or not; of anything else nothing is known.
            self.from_version = self.to_version.take().filter(|_| before == Phase::RolledBack);
        }
        if artifact.is_some() || !is_same_slot {
            let (digest, version) = artifact.unzip();
            self.manifest_digest = digest;
            match version {
                Some(version) => self.aim_at(&version),
                None => (self.to_version, self.attempt_count) = (None, 0),
            }
        }
        if matches!(before, Phase::Idle | Phase::Success | Phase::RolledBack) || !is_same_slot {
            self.started_at = Some(Moment(now_secs));
        }
        self.target_slot = Some(gave_up);
        self.arrive();
        self.rollbacks_total = self.rollbacks_total.saturating_add(1);
        self.last_error = Some(cut(reason, TEXT_MAX_BYTES));
        self.last_error_kind = Some(ROLLBACK.into());
        self.record(before);
        Ok(())
    }

    /// Excludes the rollback just recorded from the count, until [`State::arrive`].
    pub fn await_restart(&mut self) {
        self.rollbacks_total = self.rollbacks_total.saturating_sub(1);
        self.is_under_way = true;
    }

    /// Counts a rollback after its restart.
    pub fn arrive(&mut self) {
        self.rollbacks_total = self.rollbacks_total.saturating_add(u64::from(self.is_under_way));
        self.is_under_way = false;
    }

    /// Records that the trial boot passed.
    /// Errors: State: no slot is on trial.
    pub fn succeed(&mut self, now_secs: u64) -> Result<()> {
        let before = self.phase;
        self.enter(Phase::Success, now_secs)?;
        self.last_error = None;
        self.last_error_kind = None;
        self.forget_cause();
        self.record(before);
        Ok(())
    }
}

/// The artifact that an attempt is about to download.
pub struct Taken<'a> {
    /// Version running now, if known.
    pub from_version: Option<&'a str>,
    /// Version of the artifact.
    pub version: &'a str,
    /// Its source.
    pub source: &'a str,
    /// Its identity.
    pub digest: Digest,
    /// Slot it goes to.
    pub target: Slot,
    /// `--retry-failed`.
    pub insisted: bool,
}

/// Formats a moment for the history.
fn text(moment: Option<Moment>) -> String {
    moment.map_or(String::new(), |moment| moment.to_string())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
