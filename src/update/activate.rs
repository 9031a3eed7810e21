//! Activates a staged slot: reads it once more, then lets GRUB try it with one write to the boot variables.
//!
//! Must never: activate a slot that it has not just read completely, or while GRUB could not count the trial's boots.

use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;
use crate::ledger::state::Phase;
use crate::machine::ARCHITECTURE;
use crate::offer::gate;
use crate::offer::refusal::{Gate, Refusal, refused, refused_to};
use crate::offer::version::Version;
use crate::offer::window::Window;
use crate::os::progress::Progress;
use crate::slot::record::{Record, Slot};
use crate::trust::keyring::Keyring;
use crate::update::session::{Recording, Session};

/// Terms of an activation, from the operator or the configuration.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// When it may happen; `None`: at any time.
    pub window: Option<&'a Window>,
    /// `--allow-unproven-bootloader`
    pub allow_unproven_bootloader: bool,
}

impl<'a> Terms<'a> {
    /// Refuses if it must not happen now.
    /// Errors: Gate: the maintenance window is closed.
    pub fn demand_window(&self, session: &Session<'_>, op: &str, subject: &str) -> Result<()> {
        match self.window.and_then(|window| gate::outside(window, session.time())) {
            None => Ok(()),
            Some(refusal) => Err(refused_to(op, subject, &[refusal])),
        }
    }
}

impl Terms<'_> {
    /// Returns whether the machine restarts now. Input: `reboot`: whether that was requested; `activation`: its outcome.
    /// Returns: `None`: there is no reason to. Errors: Gate: the maintenance window has closed meanwhile.
    pub fn restart(&self, session: &Session<'_>, reboot: bool, activation: &Activation) -> Option<Result<()>> {
        let is_active = matches!(activation, Activation::Done | Activation::Before);
        (reboot && is_active).then(|| self.demand_window(session, "restart", "the machine"))
    }
}

/// Returns the error if nothing was activated, or the machine does not restart, because the window is closed.
pub fn shut(activation: &Activation, restart: Option<&Result<()>>) -> Option<Error> {
    match (activation, restart) {
        (Activation::Shut(error), _) | (_, Some(Err(error))) => Some(error.clone()),
        _ => None,
    }
}

/// Outcome of an activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GRUB will try the slot at the next boot.
    Done,
    /// It was activated before, and waits for that boot.
    Before,
    /// Nothing is staged.
    Nothing,
    /// The window is closed: the staged update stays staged. The error to end with.
    Shut(Error),
}

/// Activates the target slot.
///
/// Errors: Signature: its content was not verified by keys that are trusted now, or is revoked. Config: the keys. Gate: a trial
/// is pending (a closed window is not an error). Boot: GRUB is not proven. Slot: the slot is not what its record says.
/// Power cut: before the boot variables are written: staged, as before. After it: on trial; the next run finds the state out of
/// date and updates it.
pub fn activate(session: &mut Session<'_>, terms: Terms<'_>) -> Result<Activation> {
    let slot = session.target();
    let ring = session.keyring()?;
    ring.demands_signatures()?;
    if let Some(why) = session.pending_trial() {
        if session.vars.active_slot == Some(slot) {
            if let Ok(record) = session.machine.view(slot).record {
                demand_trust(&ring, &record, slot, "`rollback` calls the trial off")?;
            }
            return Ok(Activation::Before);
        }
        return Err(refused("another slot", &[Refusal { gate: Gate::TrialPending, why, hint: "" }]));
    }
    match session.state().phase {
        Phase::Staged if session.state().insisted => {}
        Phase::Staged => session.refuse_known_bad(slot, "take", "`apply --retry-failed` takes it")?,
        _ if is_newer(session, slot) => {}
        _ => return Ok(Activation::Nothing),
    }
    demand_proven_bootloader(session, terms.allow_unproven_bootloader)?;
    let shut = |session: &Session<'_>| terms.demand_window(session, "activate", &format!("slot {slot}")).err();
    if let Some(error) = shut(session) {
        return Ok(Activation::Shut(error));
    }
    let (record, _) = scrub(session, slot)?;
    demand_trust(&ring, &record, slot, "run apply again")?;
    let expected = session.state().manifest_digest.filter(|_| session.state().phase == Phase::Staged);
    if expected.is_some() && record.manifest_digest != expected {
        return Err(Error::new(Kind::Slot, "it holds another artifact than the one that was staged")
            .at("activate", format!("slot {slot}"))
            .hint("run apply again"));
    }
    // Reading a slot takes minutes on slow flash.
    if let Some(error) = shut(session) {
        return Ok(Activation::Shut(error));
    }
    session.save_boot(|block| block.activate(slot))?;
    let now = session.now();
    let running = session.machine.view(session.running);
    session.carry_out(Recording::Afterwards, &mut |plan, here| {
        plan.switched(here);
        plan.state.activate(running.version(), slot, &record, now)
    })?;
    Ok(Activation::Done)
}

/// Refuses content that was not verified by keys that are trusted now.
fn demand_trust(ring: &Keyring, record: &Record, slot: Slot, hint: &str) -> Result<()> {
    let accepted = ring.still_accepts(&record.signed_by, &record.digests());
    accepted.map_err(|e| e.at("activate", format!("slot {slot}")).hint(hint))
}

/// Returns whether a slot may be activated although the state does not call it staged (the state file was lost): it holds a
/// newer version than the running one, which neither failed here nor was called off.
fn is_newer(session: &Session<'_>, slot: Slot) -> bool {
    let (running, target) = (session.machine.view(session.running), session.machine.view(slot));
    let Ok(record) = target.record else { return false };
    if session.refuse_known_bad(slot, "", "").is_err() || session.holds_called_off(slot) {
        return false;
    }
    match (running.version().map(Version::parse), Version::parse(&record.version)) {
        (Some(Ok(running)), Ok(version)) => version > running,
        _ => false,
    }
}

/// Refuses while GRUB has not shown that it can write: it could not count boots, and so not roll back.
/// Errors: Boot: `boot_canary` is not 1.
pub fn demand_proven_bootloader(session: &Session<'_>, allow_unproven: bool) -> Result<()> {
    if session.vars.boot_canary || allow_unproven {
        return Ok(());
    }
    Err(Error::new(Kind::Boot, "GRUB has not shown that it can write its environment block (boot_canary is 0)")
        .at("put a slot", "on trial")
        .hint("restart once so that GRUB can show it; --allow-unproven-bootloader continues without a way back"))
}

/// Reads a whole slot without changing anything. Returns, errors: as [`crate::machine::Machine::scrub_as_it_is`].
pub fn read_as_it_is(session: &Session<'_>, slot: Slot) -> Result<Record> {
    let progress = progress_of(session, slot);
    session.machine.scrub_as_it_is(slot, &mut |n| progress.add(n))
}

fn progress_of(session: &Session<'_>, slot: Slot) -> Progress {
    let total =
        session.machine.view(slot).record.map_or(0, |r| r.kernel.size_bytes.saturating_add(r.initramfs.size_bytes));
    Progress::of(&format!("reading slot {slot}"), total)
}

/// Reads a whole slot and checks that it is for this machine.
/// Returns, errors: as [`crate::machine::Machine::scrub`]; Slot: it is for another architecture.
pub fn scrub(session: &Session<'_>, slot: Slot) -> Result<(Record, bool)> {
    let progress = progress_of(session, slot);
    let (record, was_mended) = session.machine.scrub(slot, &mut |n| progress.add(n))?;
    if record.architecture != ARCHITECTURE {
        let why = format!("it holds a system for {}, this machine is {ARCHITECTURE}", printable(&record.architecture));
        return Err(Error::new(Kind::Slot, why).at("boot", format!("slot {slot}")));
    }
    Ok((record, was_mended))
}
