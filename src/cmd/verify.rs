//! `verify`: reads slots from the device and holds them against their records; looks at both copies of the boot
//! variables, and writes them anew if a person asks for it.
//!
//! Says what was checked and what was not: signatures are not, yet.
//! Must never: repair anything that was not asked for, or write to a slot.

use crate::cli;
use crate::cmd::{Outcome, say, say_json};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::grubenv::{Block, BootVars};
use crate::grubenv_file::Loaded;
use crate::machine::Machine;
use crate::progress::Progress;
use crate::session::env_remarks;
use crate::slot::{Record, Slot};
use crate::sys::Access;
use crate::system::System;
use crate::text::printable;
use miniserde::Serialize;
use std::io::Write;

/// What was found.
struct Findings {
    slots: Vec<(Slot, Result<Record>)>,
    remarks: Vec<String>,
    repaired: bool,
}

/// Runs the command.
/// Errors: Usage: no such slot. Slot, Boot, Device: what was read is not what it should be, or could not be read.
pub fn run(system: &System, config: &Config, args: &cli::Verify, out: &mut dyn Write) -> Result<Outcome> {
    let wanted = match args.slot.as_deref() {
        None => vec![Slot::A, Slot::B],
        Some(name) => vec![
            Slot::parse(name)
                .ok_or_else(|| Error::new(Kind::Usage, format!("--slot takes A or B, not `{}`", printable(name))))?,
        ],
    };
    let machine = Machine::look(system);
    let repaired = args.repair_boot_variables && repair(&machine, config)?;
    let slots = wanted.into_iter().map(|slot| (slot, read(&machine, slot))).collect();
    let remarks = match machine.boot_env(Access::Read) {
        Ok(env) => env_remarks(&env.files.load()),
        Err(e) => vec![e.to_string()],
    };
    let findings = Findings { slots, remarks, repaired };
    match args.json {
        true => say_json(out, &answer(&findings))?,
        false => describe(out, &findings)?,
    }
    Ok(match judge(&findings) {
        None => Outcome::Done,
        Some(error) => Outcome::Refused(error),
    })
}

fn read(machine: &Machine<'_>, slot: Slot) -> Result<Record> {
    let total = machine.view(slot).record.map_or(0, |r| r.kernel.size_bytes.saturating_add(r.initramfs.size_bytes));
    let mut progress = Progress::new(&format!("read slot {slot}"), total);
    machine.scrub_as_it_is(slot, &mut |n| progress.add(n))
}

/// Writes both copies anew, if one is damaged or they differ.
///
/// Input: the copy that counts; if there is none, what can still be read of one, completed so that the running
/// slot stays active: on trial if that is what it says, else confirmed.
/// Returns: whether there was anything to repair.
/// Power cut: see `EnvFiles::repair`.
fn repair(machine: &Machine<'_>, config: &Config) -> Result<bool> {
    // The lock keeps an update from changing them meanwhile; a machine without data can still be repaired.
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
    if loaded.damage.is_empty() && !loaded.copies_differ {
        return Ok(false);
    }
    env.files.repair(&sound_block(loaded, machine)?)?;
    Ok(true)
}

fn sound_block(loaded: Loaded, machine: &Machine<'_>) -> Result<Block> {
    if let Some(block) = loaded.block {
        return Ok(block);
    }
    let running = machine.running()?;
    let mut block = loaded.lenient.unwrap_or_else(|| Block::fresh(running));
    block.clear_rollback();
    let on_trial = |vars: BootVars| vars.boot_success == Some(false) && vars.active_slot == Some(running);
    // What can still be read says that this slot has to prove itself: a repair does not confirm it.
    if !BootVars::read_whole(&block).is_ok_and(on_trial) {
        block.back_to_confirmed(running);
    }
    match BootVars::read_whole(&block) {
        Ok(_) => Ok(block),
        // Something in what was left makes no sense: nothing of it is worth keeping.
        Err(_) => Ok(Block::fresh(running)),
    }
}

fn judge(findings: &Findings) -> Option<Error> {
    if let Some((_, Err(error))) = findings.slots.iter().find(|(_, read)| read.is_err()) {
        return Some(error.clone());
    }
    let remark = findings.remarks.first()?;
    let hint = "`verify --repair-boot-variables` writes both copies anew";
    Some(Error::new(Kind::Boot, remark.clone()).hint(hint))
}

fn describe(out: &mut dyn Write, findings: &Findings) -> Result<()> {
    if findings.repaired {
        say(out, "Boot variables: both copies were written anew")?;
    }
    for (slot, read) in &findings.slots {
        let text = match read {
            Ok(record) => {
                format!("{} is what its record says; its signature was not checked", printable(&record.version))
            }
            Err(e) => format!("INVALID: {e}"),
        };
        say(out, &format!("Slot {slot}  {text}"))?;
    }
    match findings.remarks.is_empty() {
        true => say(out, "Boot    both copies of the boot variables are sound"),
        false => findings.remarks.iter().try_for_each(|remark| say(out, &format!("Boot    {}", printable(remark)))),
    }
}

#[derive(Serialize)]
struct Answer {
    slots: Vec<SlotAnswer>,
    boot_variables_sound: bool,
    boot_variables_repaired: bool,
    signatures_checked: bool,
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct SlotAnswer {
    slot: String,
    valid: bool,
    version: Option<String>,
    manifest_digest: Option<String>,
    error: Option<String>,
}

fn answer(findings: &Findings) -> Answer {
    let slots = findings.slots.iter().map(|(slot, read)| SlotAnswer {
        slot: slot.to_string(),
        valid: read.is_ok(),
        version: read.as_ref().ok().map(|r| printable(&r.version)),
        manifest_digest: read.as_ref().ok().and_then(|r| r.manifest_digest).map(|d| d.to_string()),
        error: read.as_ref().err().map(ToString::to_string),
    });
    Answer {
        slots: slots.collect(),
        boot_variables_sound: findings.remarks.is_empty(),
        boot_variables_repaired: findings.repaired,
        signatures_checked: false,
        remarks: findings.remarks.iter().map(|r| printable(r)).collect(),
    }
}
