//! `rollback`: back to the other slot at the next boot.
//!
//! From a confirmed slot the other one goes on trial, so that GRUB comes back if it fails; from an
//! unconfirmed trial it is straight back to the slot that was confirmed.
//! Must never: make a slot active that it has not just read whole, unless that slot is the running one.

use crate::cli;
use crate::cmd::activate::{demand_proven_bootloader, refuse_reboot_below_root, scrub};
use crate::cmd::{Outcome, say, say_json};
use crate::config::Config;
use crate::error::Result;
use crate::reconcile::MANUAL;
use crate::session::{Session, reboot as reboot_machine};
use crate::slot::Slot;
use crate::system::System;
use miniserde::Serialize;
use std::io::Write;

/// Runs the command.
/// Errors: Slot: the other slot is not whole. Boot: GRUB is not proven. Usage: `--reboot` below a `--root`.
/// Power cut: before the boot variables are written: as before. After it: the next boot goes to the other
/// slot, and the next run finds the state behind and follows.
pub fn run(system: &System, config: &Config, args: &cli::Rollback, out: &mut dyn Write) -> Result<Outcome> {
    refuse_reboot_below_root(system, args.reboot)?;
    let mut session = Session::open(system, config)?;
    let (running, other) = (session.running, session.running.other());
    let back = plan(running, session.vars.active_slot, session.pending_trial().is_some());
    if back == Back::OnTrial {
        demand_proven_bootloader(&session, args.allow_unproven_bootloader)?;
    }
    if back != Back::Cancel {
        scrub(&session, other)?;
    }
    let left = if back == Back::Cancel { other } else { running };
    session.save_boot(|block| match back {
        Back::Cancel => block.back_to_confirmed(running),
        Back::ToConfirmed => block.back_to_confirmed(other),
        Back::OnTrial => block.activate(other),
    })?;
    session.leave(left, MANUAL)?;
    let (slot, on_trial) = match back {
        Back::Cancel => (running, false),
        Back::ToConfirmed => (other, false),
        Back::OnTrial => (other, true),
    };
    if args.json {
        say_json(out, &Answer { result: "rolled_back", slot: slot.to_string(), on_trial })?;
    } else {
        say(
            out,
            &match back {
                Back::Cancel => format!("the trial of slot {other} is called off; slot {running} stays active"),
                Back::ToConfirmed => {
                    format!("slot {slot}, which was confirmed before, is active again; restart to go back")
                }
                Back::OnTrial => format!("slot {slot} is active, on trial for three boots; restart to go back"),
            },
        )?;
    }
    if args.reboot && back != Back::Cancel {
        return Err(reboot_machine());
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct Answer {
    result: &'static str,
    slot: String,
    on_trial: bool,
}

/// Which way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    /// The other slot waits for its first trial boot: do not try it.
    Cancel,
    /// The running slot is on trial: to the one that was confirmed.
    ToConfirmed,
    /// The running slot is confirmed: the other one has to prove itself.
    OnTrial,
}

/// Pure.
fn plan(running: Slot, active: Option<Slot>, trial_pending: bool) -> Back {
    match (trial_pending, active == Some(running)) {
        (true, true) => Back::ToConfirmed,
        (true, false) => Back::Cancel,
        (false, _) => Back::OnTrial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_situation_has_its_way_back() {
        assert_eq!(plan(Slot::A, Some(Slot::A), false), Back::OnTrial);
        assert_eq!(plan(Slot::B, Some(Slot::B), true), Back::ToConfirmed);
        assert_eq!(plan(Slot::A, Some(Slot::B), true), Back::Cancel);
    }
}
