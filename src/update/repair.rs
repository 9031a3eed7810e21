//! Rewrites the boot variables from what can be read of them.
//!
//! Must never: overwrite what cannot be read.

use crate::base::error::{Kind, Result};
use crate::boot::salvage::Known;
use crate::config::Config;
use crate::ledger::state::{Phase, State};
use crate::machine::Machine;
use crate::os::progress::note;
use crate::os::sys::Access;
use crate::slot::record::Slot;

/// Rewrites both copies if one is damaged or full, or they differ.
///
/// Input: what can be read of them, see `boot::salvage::mend`. If GRUB does not name the running slot and neither copy the
/// active one, a slot with a valid record is used.
/// Returns: whether a repair was needed.
/// Errors: Device: a copy could not be read. State: neither copy is good, and the state, which may say that a slot is on trial,
/// could not be read. Nothing was written.
/// Power cut: see `EnvFiles::repair`.
pub fn repair(machine: &Machine<'_>, config: &Config) -> Result<bool> {
    // The lock keeps an update from changing them meanwhile; a machine without a data partition can still be repaired.
    let data = machine.data(config.state_file.as_deref(), Access::Write);
    let _lock = match &data {
        Ok(data) => match data.store.lock() {
            Err(e) if e.kind() == Kind::Busy => return Err(e),
            lock => lock.ok(),
        },
        Err(e) if e.kind() == Kind::Busy => return Err(e.clone()),
        Err(_) => None,
    };
    let env = machine.boot_env(Access::Write)?;
    let loaded = env.files.load();
    if loaded.is_sound() {
        return Ok(false);
    }
    // A good copy says it by itself.
    let state = match &data {
        Ok(data) if loaded.block.is_none() => data.store.state().known()?,
        Err(e) if loaded.block.is_none() => {
            note(&format!("{e}; whether a slot is on trial can only be read in the boot variables themselves"));
            State::default()
        }
        _ => State::default(),
    };
    let running = machine.running().ok();
    let is_valid = |slot| machine.view(slot).record.is_ok();
    let proven = match running.is_none() && !is_valid(Slot::A) && is_valid(Slot::B) {
        true => Slot::B,
        false => Slot::A,
    };
    let is_in = |phases: &[Phase]| phases.contains(&state.resume_phase.unwrap_or(state.phase));
    // Staged: the boot variables are written first.
    let on_trial = state.target_slot.filter(|_| is_in(&[Phase::Staged, Phase::Activated, Phase::Verifying]));
    let is_this_boot = state.switched_boot_id.is_some() && state.switched_boot_id == machine.boot_id();
    let left = state.target_slot.filter(|_| is_this_boot && is_in(&[Phase::RolledBack]));
    let mended = env.files.mended(Known { running, proven, on_trial, left })?;
    env.files.repair(&mended.block)?;
    for (what, lines) in [("left out of what was written", mended.left_out), ("kept of other lines", mended.kept)] {
        if !lines.is_empty() {
            note(&format!("boot variables: {what}: {}", lines.join(", ")));
        }
    }
    Ok(true)
}
