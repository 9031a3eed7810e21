//! Gates by their names, and the message of a gate that refuses.

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

    /// Returns whether the refusal is a fault that an operator must fix, rather than the ordinary course of things (a closed
    /// window, a mirror that lags, a version already known to be bad).
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

    /// Names the option that overrides it; empty: none does.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Gate::Version | Gate::RunningVersion | Gate::Replayed => "--allow-downgrade takes it",
            Gate::FailedBefore => "--retry-failed takes it",
            Gate::Window | Gate::Clock => "--ignore-window overrides it",
            _ => "",
        }
    }

    /// Returns whether waiting is enough: the window opens, the trial ends, or another version comes. Not so for a source with
    /// an older version or another build of the running one, which its publisher must explain, nor for a clock that is not set:
    /// the window never opens by it.
    pub fn waits(self) -> bool {
        matches!(self, Gate::TrialPending | Gate::FailedBefore | Gate::Window)
    }
}

/// One refusing gate, with the two values it compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which gate.
    pub gate: Gate,
    /// Both values, as text for the operator.
    pub why: String,
    /// What overrides it; empty: nothing on this machine.
    pub hint: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

/// Joins refusals into one sentence.
pub fn reasons(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ")
}

/// Turns refusals into the error that ends a command. Input: `version`: "version 1.2.0", for example.
pub fn refused(version: &str, refusals: &[Refusal]) -> Error {
    refused_to("take", version, refusals)
}

/// The same for other operations on a version. Input: `op`: "take", for example.
pub fn refused_to(op: &str, version: &str, refusals: &[Refusal]) -> Error {
    let error = Error::new(Kind::Gate, format!("refused: {}", reasons(refusals))).at(op, version);
    let told = |refusal: &Refusal| Refused { gate: refusal.gate.label(), why: refusal.why.clone(), hint: refusal.hint };
    let error = error.refusing(refusals.iter().map(told).collect());
    match refusals.iter().all(|refusal| refusal.gate.waits()) {
        true => error.taking(Course::Waits),
        false => error,
    }
}
