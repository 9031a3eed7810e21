//! `apply`: checks, downloads into the slot that is not running, proves it, and records it as staged.
//!
//! Must never: touch a slot while a trial is pending, or the running slot at all.

use crate::base::digest::Digest;
use crate::base::error::{Course, Kind, Result};
use crate::base::text::{human_size, printable};
use crate::cli::{self, Flags};
use crate::cmd::answer::Reply;
use crate::cmd::words::{say_activated, signers, tell};
use crate::cmd::{Outcome, restart as restart_machine};
use crate::cmd::{nothing_there, overrides, splay};
use crate::config::Config;
use crate::ledger::traffic::Traffic;
use crate::machine::view::View;
use crate::offer::refusal::{Gate, Refusal, refused};
use crate::os::progress::{is_quiet, on_interrupt};
use crate::os::system::System;
use crate::slot::record::Slot;
use crate::trust::keyring::Keyring;
use crate::update::activate::{self, Activation, Terms, shut};
use crate::update::ask::{keyring, open};
use crate::update::attempt::{self, Attempted, record_stop};
use crate::update::judge::Question;
use crate::update::next_step::is_lost;
use crate::update::restart::refuse_reboot_below_root;
use crate::update::session::Session;
use std::io::Write;

/// True until something is activated.
const INTERRUPTED: &str = "\nkubesolo-update: interrupted; the running slot is as it was, what was downloaded is kept, and the \
                           next apply continues there (kubesolo-update status: where it stands)\n";

/// True from then on.
const ACTIVATING: &str = "\nkubesolo-update: interrupted; what is staged may be activated already (kubesolo-update status: which slot \
                          boots next; activate continues)\n";

/// Runs the command.
/// Errors: Signature: unsigned updates are not allowed. Gate: a gate refuses. Others: what went wrong, and the
/// state says `failed`.
pub fn run(system: &System, config: &Config, args: &cli::Apply, flags: &Flags, out: &mut Reply) -> Result<Outcome> {
    let ended = update(system, config, args, flags, out);
    if !args.ok_if_nothing {
        return ended;
    }
    match ended {
        Ok(Outcome::Nothing) => Ok(Outcome::Done),
        Ok(Outcome::Refused(e)) | Err(e) if e.course() == Course::Waits => {
            if !is_quiet() {
                tell(out, &format!("nothing to do now: {e}"))?;
            }
            Ok(Outcome::Waits(e))
        }
        Err(e) if e.kind() == Kind::Busy => Ok(Outcome::Excused(e)),
        ended => ended,
    }
}

fn update(system: &System, config: &Config, args: &cli::Apply, flags: &Flags, out: &mut Reply) -> Result<Outcome> {
    let reboot = flags.reboot;
    on_interrupt(&INTERRUPTED);
    refuse_reboot_below_root(system, reboot)?;
    // Before the lock: no other run should wait for one that sleeps.
    splay(system, flags.splay);
    let mut session = Session::open(system, config)?;
    let ready = keyring(system, config, Some(session.store()))
        .and_then(|ring| Ok((open(system, config, session.proven(), ring.clone())?, ring)));
    let (mut source, ring) = ready.inspect_err(|error| record_stop(&mut session, config, error))?;
    if let Some(why) = session.pending_trial() {
        // First of all, and without a mark in the state: that belongs to the trial.
        return Err(refused("a new version", &[Refusal { gate: Gate::TrialPending, why, hint: "" }]));
    }
    let overrides = overrides(flags);
    let mut question = Question { source: source.as_mut(), config, ring: &ring, overrides };
    let attempt = match attempt::attempt(&mut session, &mut question) {
        Err(e) if e.course() == Course::Nothing && is_quiet() && out.is_text() => return Ok(Outcome::Nothing),
        Err(e) if e.course() == Course::Nothing => return Ok(nothing_there(&e, out)),
        ended => ended?,
    };
    let after = go_on(&mut session, config, args, flags, &attempt)?;
    let is_silent = is_quiet() && !after.is_activated() && !matches!(attempt, Attempted::Staged(..));
    match out.is_text() {
        false => answer(out, &attempt, session.running, &after),
        true if is_silent => {}
        true => describe(out, &attempt, &session.machine.view(session.target()), &after, &ring)?,
    }
    match (shut(&after.activation, after.restart.as_ref()), after.restart) {
        // Completed steps stay: what is staged is activated in the next window; what is active boots at the next restart, and
        // `activate --reboot` restarts the machine.
        (Some(error), _) => Ok(Outcome::Refused(error)),
        (None, Some(_)) => Err(restart_machine(out, None)),
        (None, None) => Ok(match attempt {
            Attempted::UpToDate(_) => Outcome::Nothing,
            Attempted::StagedBefore(_) if !(args.activate || reboot) => Outcome::Nothing,
            _ => Outcome::Done,
        }),
    }
}

/// What was done with a staged slot.
struct After {
    activation: Activation,
    /// Whether the machine is restarted now, or why not; `None`: there is no reason to.
    restart: Option<Result<()>>,
}

impl After {
    fn is_activated(&self) -> bool {
        self.activation == Activation::Done
    }

    fn restarts(&self) -> bool {
        matches!(self.restart, Some(Ok(())))
    }
}

/// Activates the staged slot, if that was asked for.
/// Errors: as [`activate::activate`].
fn go_on(
    session: &mut Session<'_>,
    config: &Config,
    args: &cli::Apply,
    flags: &Flags,
    attempt: &Attempted,
) -> Result<After> {
    let terms = Terms {
        window: config.window.as_ref().filter(|_| !flags.ignore_window),
        allow_unproven_bootloader: flags.allow_unproven_bootloader,
    };
    let is_wanted = (args.activate || flags.reboot) && !matches!(attempt, Attempted::UpToDate(_));
    let activation = match is_wanted {
        true => {
            on_interrupt(&ACTIVATING);
            activate::activate(session, terms)?
        }
        false => Activation::Nothing,
    };
    let restart = terms.restart(session, flags.reboot, &activation);
    Ok(After { activation, restart })
}

fn describe(out: &mut dyn Write, attempt: &Attempted, target: &View, after: &After, ring: &Keyring) -> Result<()> {
    let slot = target.slot;
    let version = printable(&attempt.artifact().release.version);
    tell(
        out,
        &match attempt {
            Attempted::UpToDate(_) => {
                let more = if is_lost(target) { no_way_back(slot) } else { String::new() };
                return tell(out, &format!("{version} is running already: nothing to do{more}"));
            }
            Attempted::StagedBefore(_) => format!("{version} is staged in slot {slot} already"),
            Attempted::Staged(a, traffic) => {
                let size_bytes = a.kernel.size_bytes.saturating_add(a.initramfs.size_bytes);
                let origin = origin(size_bytes, *traffic, slot.other());
                format!("{version} is staged in slot {slot} ({}{origin} written and read back)", human_size(size_bytes))
            }
        },
    )?;
    let signed_by = &attempt.artifact().signed_by;
    if !signed_by.is_empty() {
        tell(out, &format!("Signed {}", signers(signed_by, ring)))?;
    }
    match after.is_activated() {
        true => say_activated(out, slot, after.restarts()),
        false => tell(out, "Next: `kubesolo-update activate`, then restart"),
    }
}

/// Says where the bytes came from, if not all of them from the source in this run. Input: `running`: the running slot.
fn origin(size_bytes: u64, Traffic { fetched_bytes, copied_bytes }: Traffic, running: Slot) -> String {
    if fetched_bytes == size_bytes {
        return ",".to_owned();
    }
    let kept_bytes = size_bytes.saturating_sub(fetched_bytes).saturating_sub(copied_bytes);
    let mut told = format!(": {} fetched", human_size(fetched_bytes));
    if copied_bytes > 0 {
        told += &format!(", {} copied from slot {running}", human_size(copied_bytes));
    }
    if kept_bytes > 0 {
        told += &format!(", {} there already", human_size(kept_bytes));
    }
    told + ";"
}

/// Warns, on a machine that runs the offered version, that this cannot restore the other slot.
fn no_way_back(slot: Slot) -> String {
    format!(" (slot {slot} is not valid: there is no way back until another release is offered)")
}

fn answer(out: &mut Reply, attempt: &Attempted, running: Slot, after: &After) {
    let (result, slot) = match attempt {
        Attempted::UpToDate(_) => ("up_to_date", running),
        Attempted::StagedBefore(_) => ("staged_before", running.other()),
        Attempted::Staged(..) => ("staged", running.other()),
    };
    out.result(result);
    let (artifact, members) = (attempt.artifact(), &mut out.members);
    members.field("version", &printable(&artifact.release.version));
    members.field("manifest_digest", &artifact.digest.to_string());
    members.field("signed_by", &Digest::texts(&artifact.signed_by));
    members.field("slot", &slot.name());
    let traffic = if let Attempted::Staged(_, traffic) = attempt { *traffic } else { Traffic::default() };
    members.field("fetched_bytes", &traffic.fetched_bytes);
    members.field("copied_bytes", &traffic.copied_bytes);
    members.field("activated", &after.is_activated());
    members.field("restarts", &after.restarts());
}
