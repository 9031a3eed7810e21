//! `rollback`: back to the other slot at the next boot (`update::go_back`).

use crate::base::error::Result;
use crate::cli::Flags;
use crate::cmd::answer::Reply;
use crate::cmd::{Outcome, restart as restart_machine};
use crate::config::Config;
use crate::os::system::System;
use crate::update::go_back::{Back, Consent, go_back};
use crate::update::restart::refuse_reboot_below_root;
use crate::update::session::Session;

/// Runs the command.
/// Errors: as [`go_back`]; Usage: `--reboot` below a `--root`.
pub fn run(system: &System, config: &Config, flags: &Flags, out: &mut Reply) -> Result<Outcome> {
    refuse_reboot_below_root(system, flags.reboot)?;
    let mut session = Session::open_to_recover(system, config)?;
    let (running, other) = (session.running, session.running.other());
    let consent = Consent { unproven_bootloader: flags.allow_unproven_bootloader, known_bad: flags.retry_failed };
    let back = go_back(&mut session, consent)?;
    let stays = matches!(back, Back::Cancel | Back::Discard | Back::Nowhere);
    let slot = if stays { running } else { other };
    let restarts = flags.reboot && !stays;
    out.result(match back {
        Back::Before => "rolled_back_before",
        Back::Nowhere => "nothing_to_roll_back_to",
        Back::Cancel | Back::Discard => "called_off",
        Back::ToConfirmed | Back::OnTrial => "rolled_back",
    });
    out.members.field("slot", &slot.name());
    out.members.field("on_trial", &(back == Back::OnTrial));
    out.members.field("restarts", &restarts);
    out.message(
            &match back {
                Back::Before => format!("slot {slot} is active already; restart to go back"),
                Back::Nowhere => {
                    format!(
                        "slot {other} holds an update that was called off before it ever ran: there is nothing to go back to"
                    )
                }
                Back::Discard => {
                    format!(
                        "what was staged in slot {other} will not be tried, unless slot {slot} does not load; slot {slot} stays active"
                    )
                }
                Back::Cancel => format!("the trial of slot {other} is called off; slot {slot} stays active"),
                Back::ToConfirmed => {
                    format!("slot {slot}, which was confirmed before, is active again; restart to go back")
                }
                Back::OnTrial => format!("slot {slot} is active, on trial for three boots; restart to go back"),
            },
        );
    if restarts {
        return Err(restart_machine(out, None));
    }
    Ok(if matches!(back, Back::Before | Back::Nowhere) { Outcome::Nothing } else { Outcome::Done })
}
