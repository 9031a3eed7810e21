//! All facts of this machine, read once: how it booted, the content of its slots, and its records.
//!
//! Every command decides by them, whether it only reads or also changes something.
//! Must never: take the lock, or change anything.

use crate::base::clock::Now;
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::boot::env_copy::{EnvCopy, REPAIR_HINT};
use crate::boot::env_files::env_remarks;
use crate::boot::vars::BootVars;
use crate::ledger::failures::{Failure, Failures};
use crate::ledger::proven::Proven;
use crate::ledger::state::{Phase, State};
use crate::ledger::store::Memory;
use crate::machine::Machine;
use crate::machine::view::View;
use crate::os::sys::Access;
use crate::slot::record::Slot;
use crate::update::next_step::Held;
use crate::update::reconcile::{self, Blame, Boot, Finding};

/// What was found. Includes what the next changing run will record.
pub struct Survey {
    /// The running slot, if the kernel command line names it.
    pub running: Option<Slot>,
    /// Both slots, A first.
    pub slots: [View; 2],
    /// GRUB's variables, if readable.
    pub vars: Option<BootVars>,
    /// The other slot, if GRUB tried it first in this boot and could not load it.
    pub skipped: Option<Slot>,
    /// This boot's id.
    pub boot_id: Option<String>,
    /// The update attempt.
    pub state: State,
    /// Artifacts that rolled back here.
    pub failures: Failures,
    /// What was confirmed here.
    pub proven: Proven,
    /// What happened and is not recorded yet.
    pub finding: Finding,
}

impl Survey {
    /// Examines both slots, and combines everything that was read.
    pub fn of(machine: &Machine<'_>, memory: Memory, vars: Option<BootVars>, now: Now) -> Survey {
        let mut survey = Survey {
            running: machine.running().ok(),
            slots: [Slot::A, Slot::B].map(|slot| machine.view(slot)),
            vars,
            skipped: machine.skipped(),
            boot_id: machine.boot_id(),
            state: memory.state,
            failures: memory.failures,
            proven: memory.proven,
            finding: Finding::Nothing,
        };
        survey.follow(now);
        survey
    }

    /// Adds what no run has recorded yet: that GRUB gave a slot up, and that the running slot is confirmed. Pure.
    fn follow(&mut self, now: Now) {
        let Some((running, vars)) = self.running.zip(self.vars) else { return };
        let boot = Boot { running, vars, boot_id: self.boot_id.as_deref(), skipped: self.skipped };
        self.finding = reconcile::find(&self.state, &boot);
        if let Finding::RolledBack { gave_up, reason, blame } = &self.finding
            && let Some((digest, version)) = artifact_in(&self.state, &self.slots[*gave_up as usize])
        {
            let failure = Failure { digest, version, reason: reason.clone(), at: String::new(), doubt: None };
            let activated_in = self.state.switched_boot_id.clone();
            remember(&mut self.failures, failure, *blame, self.boot_id.clone(), activated_in);
        }
        if let (true, Ok(record)) = (reconcile::is_confirmed(running, &vars), &self.slots[running as usize].record) {
            self.proven.add_record(record, now.earliest_secs());
        }
    }

    /// Returns the view of a slot.
    pub fn slot(&self, slot: Slot) -> &View {
        &self.slots[slot as usize]
    }

    /// Returns the view of the running slot, if known.
    pub fn running_view(&self) -> Option<&View> {
        self.running.map(|slot| self.slot(slot))
    }

    /// Returns the artifact staged in a slot, as far as known without reading its files.
    pub fn staged_in(&self, slot: Slot) -> Option<Digest> {
        let digest = self.slot(slot).record.as_ref().ok()?.manifest_digest;
        let is_staged = self.state.phase == Phase::Staged && self.state.target_slot == Some(slot);
        digest.filter(|_| is_staged && self.state.manifest_digest == digest)
    }

    /// Returns what a slot holds, according to the attempt.
    pub fn held_in(&self, slot: Slot) -> Held {
        match self.staged_in(slot) {
            None => Held::Other,
            Some(_) if self.state.insisted => Held::Insisted,
            Some(_) => Held::Staged,
        }
    }
}

/// Names the artifact in a slot, digest and version: by its record or, if that cannot be read, by the state if the attempt was
/// about that slot. Pure.
pub fn artifact_in(state: &State, view: &View) -> Option<(Digest, String)> {
    match &view.record {
        Ok(record) => Some((record.manifest_digest?, record.version.clone())),
        Err(_) if state.target_slot == Some(view.slot) => {
            Some((state.manifest_digest?, state.to_version.clone().unwrap_or_default()))
        }
        Err(_) => None,
    }
}

/// Records the artifact of a slot that was left, as far as it is to blame. Input: ids of this boot, and of the one in which
/// that slot was activated.
pub fn remember(
    failures: &mut Failures,
    failure: Failure,
    blame: Blame,
    boot_id: Option<String>,
    activated_in: Option<String>,
) {
    match blame {
        Blame::Slot => {}
        Blame::Decided => failures.remember(failure),
        Blame::Undecided => failures.remember_undecided(failure, boot_id, activated_in),
    }
}

/// GRUB's boot variables as read.
pub struct BootRead {
    /// The variables, or why they are unknown.
    pub vars: Result<BootVars>,
    /// Which copy of them counts.
    pub copy: Option<EnvCopy>,
    /// Problems with them: sentences.
    pub remarks: Vec<String>,
    /// What must be done first.
    pub way_out: Option<&'static str>,
}

impl BootRead {
    /// Reads both copies.
    pub fn of(machine: &Machine<'_>) -> BootRead {
        let env = match machine.boot_env(Access::Read) {
            Ok(env) => env,
            Err(e) => {
                // Being in use by another run is not a problem with them. Other errors block every command.
                let (remarks, way_out) = match e.kind() {
                    Kind::Busy => (Vec::new(), "`status` again, when that run has ended"),
                    _ => (vec![e.to_string()], "do what the NOTE says; until then nothing can be activated"),
                };
                return BootRead { vars: Err(e), copy: None, remarks, way_out: Some(way_out) };
            }
        };
        let loaded = env.files.load();
        let vars = loaded.usable().map(|(_, vars)| vars);
        let is_stuck = vars.is_err() && loaded.way_out() != REPAIR_HINT;
        let way_out = is_stuck.then_some(
            "do what the NOTE says: what cannot be read is not written over; if it stays so, move that file away, then `verify --repair-boot-variables`",
        );
        let copy = loaded.block.as_ref().map(|_| loaded.which);
        BootRead { vars, copy, remarks: env_remarks(&loaded), way_out }
    }

    /// Returns whether another run keeps them from being read.
    pub fn is_busy(&self) -> bool {
        self.vars.as_ref().is_err_and(|e: &Error| e.kind() == Kind::Busy)
    }
}
