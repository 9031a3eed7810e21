//! `activate`: reads the staged slot once more, then lets GRUB try it: one write to the boot variables.
//!
//! Must never: activate a slot that it has not just read completely, or while GRUB could not count the trial's boots.

use crate::base::error::Result;
use crate::base::text::printable;
use crate::cli::Flags;
use crate::cmd::answer::Reply;
use crate::cmd::words::{say_activated, tell};
use crate::cmd::{Outcome, restart as restart_machine};
use crate::config::Config;
use crate::os::system::System;
use crate::update::activate::{self, Activation, Terms, shut};
use crate::update::next_step::{self, Held, Other, Standing, Stuck};
use crate::update::restart::refuse_reboot_below_root;
use crate::update::session::Session;

/// Runs the command.
/// Errors: as [`activate`]; Usage: `--reboot` below a `--root`.
pub fn run(system: &System, config: &Config, flags: &Flags, out: &mut Reply) -> Result<Outcome> {
    refuse_reboot_below_root(system, flags.reboot)?;
    let mut session = Session::open(system, config)?;
    let slot = session.target();
    let terms = Terms {
        window: config.window.as_ref().filter(|_| !flags.ignore_window),
        allow_unproven_bootloader: flags.allow_unproven_bootloader,
    };
    let activation = activate::activate(&mut session, terms)?;
    let restart = terms.restart(&session, flags.reboot, &activation);
    let shut = shut(&activation, restart.as_ref());
    let restarts = matches!(restart, Some(Ok(())));
    out.result(match &activation {
        Activation::Done => "activated",
        Activation::Before => "activated_before",
        Activation::Nothing => "nothing_staged",
        Activation::Shut(_) => "refused",
    });
    out.members.field("slot", &slot.name());
    out.members.field("version", &session.state().to_version.as_deref().map(printable));
    out.members.field("restarts", &restarts);
    match &activation {
        Activation::Done => say_activated(out, slot, restarts)?,
        Activation::Before => out.message(&format!("slot {slot} is active already; restart to boot it")),
        Activation::Nothing => out.message(&format!("nothing is staged; {}", way_on(&session))),
        Activation::Shut(_) => tell(out, &format!("what is staged in slot {slot} stays staged"))?,
    }
    match (shut, restart, activation) {
        (Some(error), ..) => Ok(Outcome::Refused(error)),
        (None, Some(_), _) => Err(restart_machine(out, None)),
        (None, None, Activation::Done) => Ok(Outcome::Done),
        (None, None, _) => Ok(Outcome::Nothing),
    }
}

/// Returns the commands that continue if nothing is staged.
fn way_on(session: &Session<'_>) -> String {
    let view = session.machine.view(session.running);
    if !next_step::is_lost(&view) || session.pending_trial().is_some() {
        return "`kubesolo-update apply` stages an update".into();
    }
    let (refusals, ring) = (session.refusals(), session.keyring());
    let standing = Standing { refusals: &refusals, proven: session.proven(), ring: &ring };
    let other = Other::of(&session.machine.view(session.target()), Held::Other, &standing);
    let is_unknown = next_step::is_unknown(&view);
    next_step::way_on(Stuck { slot: session.running, is_unknown, has_proof: session.vars.boot_canary }, other)
}
