//! The phases of an update attempt, and which may follow which. Pure.
//!
//! Must never: know what else the state holds.

/// Where an update attempt stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No attempt was made yet.
    #[default]
    Idle,
    /// The source is being queried.
    Checking,
    /// Bytes go into the target slot.
    Downloading,
    /// The target slot is written and verified.
    Staged,
    /// GRUB will try the target slot.
    Activated,
    /// The target slot is running, and its health is being watched.
    Verifying,
    /// The trial boot passed.
    Success,
    /// The attempt ended with an error.
    Failed,
    /// The machine went back to the slot it came from.
    RolledBack,
}

impl Phase {
    /// All nine phases, in the order of an update.
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

    /// Parses a name; `None` for any other text.
    pub fn parse(name: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Returns whether an attempt in this phase was cut off: by a kill, a crash or a power cut.
    pub fn is_unfinished(self) -> bool {
        matches!(self, Phase::Checking | Phase::Downloading)
    }

    pub(crate) fn needs_slot(self) -> bool {
        matches!(self, Phase::Staged | Phase::Activated | Phase::Verifying)
    }

    /// Returns whether the table allows the step from here to `next`.
    ///
    /// Besides the straight line: another trial boot of a slot that was unhealthy before is verified again; a slot with a
    /// good record may be activated although the state file was lost (`idle`) or a later attempt failed; and a person
    /// may roll back from any phase in which nothing is half-done.
    pub fn may_become(self, next: Phase) -> bool {
        use Phase::*;
        match next {
            // A staged or activated slot that never booted is called off.
            Idle => matches!(self, Staged | Activated | RolledBack),
            Checking => matches!(self, Idle | Staged | Success | Failed | RolledBack),
            Downloading => self == Checking,
            Staged => self == Downloading,
            Activated => matches!(self, Staged | Idle | Success | Failed | RolledBack),
            // A second or third trial boot, after an unhealthy one.
            Verifying => matches!(self, Activated | Failed),
            Success => matches!(self, Activated | Verifying),
            Failed => !matches!(self, Idle | Success | RolledBack),
            RolledBack => !matches!(self, Checking | Downloading),
        }
    }
}
