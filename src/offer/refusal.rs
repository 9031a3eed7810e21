//! Gates by their names, and what one that refuses says.

use crate::base::error::{Course, Error, Kind, Refused};
use std::fmt;

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
    pub(super) fn hint(self) -> &'static str {
        match self {
            Gate::Version | Gate::RunningVersion | Gate::Replayed => "--allow-downgrade takes it",
            Gate::FailedBefore => "--retry-failed takes it",
            Gate::Window | Gate::Clock => "--ignore-window overrides it",
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
