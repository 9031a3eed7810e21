//! `verify`: reads slots from the device and checks them against their records; looks at both copies of the boot variables, and
//! rewrites them if the operator asks for it.
//!
//! A signature covers a source's offer, so it is checked there (`--source`); for a slot, the report names the signers of its
//! content, and whether they are still trusted.
//! Must never: repair anything unasked, or write to a slot.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;
use crate::boot::env_copy::REPAIR_HINT;
use crate::boot::env_files::env_remarks;
use crate::cli;
use crate::cmd::Outcome;
use crate::cmd::answer::{Members, Reply};
use crate::cmd::words::{signers, tell};
use crate::config::Config;
use crate::machine::{ARCHITECTURE, Machine};
use crate::offer::artifact::Artifact;
use crate::offer::gate;
use crate::os::progress::Progress;
use crate::os::sys::Access;
use crate::os::system::System;
use crate::slot::record::{Record, Slot};
use crate::trust::keyring::Keyring;
use crate::update::ask::{open, resolve};
use crate::update::repair::repair;
use std::io::Write;

/// What was found.
struct Findings {
    slots: Vec<(Slot, Result<Record>)>,
    remarks: Vec<String>,
    /// What the operator can do about them.
    way_out: &'static str,
    repaired: bool,
    ring: Result<Keyring>,
    /// What the source offers, if it was asked.
    offered: Option<Result<Artifact>>,
}

/// Runs the command.
/// Errors: Usage: no such slot. Slot, Boot, Device: what was read is wrong, or could not be read. With `--source`: the error of
/// asking it; Signature: its offer lacks the required signatures.
pub fn run(system: &System, config: &Config, args: &cli::Verify, out: &mut Reply) -> Result<Outcome> {
    let wanted = match args.slot.as_deref() {
        None => vec![Slot::A, Slot::B],
        Some(name) => vec![
            Slot::parse(name)
                .ok_or_else(|| Error::new(Kind::Usage, format!("--slot takes A or B, not `{}`", printable(name))))?,
        ],
    };
    let machine = Machine::look(system);
    let repaired = args.repair_boot_variables && repair(&machine, config)?;
    let data = machine.data(config.state_file.as_deref(), Access::Read).ok();
    let running = machine.running().ok();
    // No run writes to the running slot.
    let is_busy = |slot| running != Some(slot) && data.as_ref().is_some_and(|data| data.store.is_locked());
    let read_slot = |slot| {
        // The run at work on the slot may end while it is read.
        let was_busy = is_busy(slot);
        (slot, read(&machine, slot).map_err(|e| blame(e, slot, was_busy || is_busy(slot))))
    };
    let slots = wanted.into_iter().map(read_slot).collect();
    let (remarks, way_out) = match machine.boot_env(Access::Read).map(|env| env.files.load()) {
        Ok(loaded) => (env_remarks(&loaded), loaded.way_out()),
        Err(e) => (vec![e.to_string()], REPAIR_HINT),
    };
    let site = data.as_ref().map(|d| d.store.site());
    let ring = Keyring::of_machine(&system.keys_dir(), config.demand(), site.as_deref());
    let offered = args.source.then(|| ring.clone().and_then(|ring| ask(system, config, &machine, ring)));
    let findings = Findings { slots, remarks, way_out, repaired, ring, offered };
    let fault = judge(&findings);
    match out.is_text() {
        true => describe(out, &findings)?,
        false => {
            out.result(match &fault {
                None => "sound",
                // Its content is unknown.
                Some(error) if error.is_in_use() => "busy",
                Some(error) if error.is_unseen() => "not_looked",
                Some(_) => "faulty",
            });
            answer(&mut out.members, &findings);
        }
    }
    Ok(match fault {
        None => Outcome::Done,
        Some(error) => Outcome::Refused(error),
    })
}

fn read(machine: &Machine<'_>, slot: Slot) -> Result<Record> {
    let total = machine.view(slot).record.map_or(0, |r| r.kernel.size_bytes.saturating_add(r.initramfs.size_bytes));
    let progress = Progress::of(&format!("reading slot {slot}"), total);
    machine.scrub_as_it_is(slot, &mut |n| progress.add(n))
}

/// A slot that another run is writing is not damaged.
fn blame(error: Error, slot: Slot, is_busy: bool) -> Error {
    match error.kind() == Kind::Slot && is_busy {
        true => Error::new(Kind::Busy, "another run is at work on it")
            .at("read", format!("slot {slot}"))
            .hint("wait until that run ends"),
        false => error,
    }
}

/// Asks the source what it offers, and who signed that. Downloads no file.
fn ask(system: &System, config: &Config, machine: &Machine<'_>, ring: Keyring) -> Result<Artifact> {
    let data = machine.data(config.state_file.as_deref(), Access::Read);
    // Certificates and signatures are judged by it.
    let proven = data.ok().map(|data| data.store.proven().known()).transpose()?.unwrap_or_default();
    resolve(open(system, config, &proven, ring)?.as_mut(), ARCHITECTURE)
}

/// Returns whether a slot holds exactly what a source offers.
fn is_same(record: &Record, artifact: &Artifact) -> bool {
    record.manifest_digest == Some(artifact.digest)
        && (record.kernel.size_bytes, record.kernel.sha256) == (artifact.kernel.size_bytes, artifact.kernel.sha256)
        && (record.initramfs.size_bytes, record.initramfs.sha256)
            == (artifact.initramfs.size_bytes, artifact.initramfs.sha256)
}

fn judge(findings: &Findings) -> Option<Error> {
    let errors = || findings.slots.iter().filter_map(|(_, read)| read.as_ref().err());
    // A known fault counts for more than something that could not be read.
    if let Some(error) = errors().find(|e| !e.is_unseen()).or_else(|| errors().next()) {
        return Some(error.clone());
    }
    let ring = match &findings.ring {
        Ok(ring) => ring,
        Err(error) => return Some(error.clone()),
    };
    for (slot, read) in &findings.slots {
        if let Some(Err(error)) = read.as_ref().ok().map(|record| ring.refuse_revoked(&record.digests())) {
            return Some(error.at("accept", format!("slot {slot}")));
        }
    }
    if let Some(Err(error)) = &findings.offered {
        return Some(error.clone());
    }
    let remark = findings.remarks.first()?;
    Some(Error::new(Kind::Boot, remark.clone()).hint(findings.way_out))
}

fn describe(out: &mut dyn Write, findings: &Findings) -> Result<()> {
    if findings.repaired {
        tell(out, "Boot variables: both copies were written anew")?;
    }
    for (slot, read) in &findings.slots {
        let text = match read {
            Ok(record) => {
                let version = printable(&record.version);
                format!("{version} is what its record says; {}", signature_of(record, findings))
            }
            Err(e) if e.is_unseen() => format!("not read: {e}"),
            Err(e) => format!("INVALID: {e}"),
        };
        tell(out, &format!("Slot {slot}  {text}"))?;
    }
    describe_source(out, findings)?;
    if let Ok(ring) = &findings.ring {
        for key in ring.keys() {
            tell(out, &format!("Key     {} {}", key.algorithm.label(), printable(&ring.name(key.id))))?;
        }
        for fault in ring.faults() {
            tell(out, &format!("Key     {}: it does not count", printable(&fault.to_string())))?;
        }
        for path in ring.passed_over() {
            let name = printable(&path.display().to_string());
            tell(out, &format!("Key     {name}: it does not count: a key's name ends in .pub"))?;
        }
    }
    // Otherwise the run ends with this error.
    if let (Err(e), true) = (&findings.ring, findings.slots.iter().any(|(_, read)| read.is_err())) {
        tell(out, &format!("Key     {}", printable(&e.to_string())))?;
    }
    match findings.remarks.is_empty() {
        true => tell(out, "Boot    both copies of the boot variables are sound"),
        false => findings.remarks.iter().try_for_each(|remark| tell(out, &format!("Boot    {}", printable(remark)))),
    }
}

/// Describes the signature of a slot's content.
fn signature_of(record: &Record, findings: &Findings) -> String {
    let ring = match &findings.ring {
        Ok(ring) => ring,
        // The run ends with the reason.
        Err(_) => return "its signature was not checked: see below".to_owned(),
    };
    if let Some(Ok(artifact)) = &findings.offered
        && is_same(record, artifact)
        && !artifact.signed_by.is_empty()
    {
        return format!("signed {}, checked now at the source", signers(&artifact.signed_by, ring));
    }
    if record.signed_by.is_empty() {
        return "no signature of it was ever checked".to_owned();
    }
    let trusted = match ring.still_accepts(&record.signed_by, &record.digests()) {
        Ok(()) => String::new(),
        Err(e) => format!("; NOT trusted any more: {}", printable(&e.to_string())),
    };
    format!("signed {} when it was staged, not checked again{trusted}", signers(&record.signed_by, ring))
}

fn describe_source(out: &mut dyn Write, findings: &Findings) -> Result<()> {
    let (artifact, ring) = match (&findings.offered, &findings.ring) {
        (None, _) => return Ok(()),
        (Some(Ok(artifact)), Ok(ring)) => (artifact, ring),
        (_, Err(_)) => return tell(out, "Source  not asked: see below"),
        (Some(Err(e)), _) => return tell(out, &format!("Source  {}", printable(&e.to_string()))),
    };
    let (version, source) = (printable(&artifact.release.version), printable(&gate::place(&artifact.source)));
    tell(out, &format!("Source  {version} from {source}, {}", artifact.digest))?;
    tell(out, &format!("        signed {}", signers(&artifact.signed_by, ring)))?;
    tell(out, "        its files were not downloaded: what is signed names their digests, which `apply` checks")
}

fn answer(members: &mut Members, findings: &Findings) {
    let offered = findings.offered.as_ref().and_then(|offered| offered.as_ref().ok());
    members.open("slots", '[');
    for (slot, read) in &findings.slots {
        members.open("", '{');
        members.field("slot", &slot.name());
        answer_slot(members, read, offered, findings);
        members.close('}');
    }
    members.close(']');
    members.field("boot_variables_sound", &findings.remarks.is_empty());
    members.field("boot_variables_repaired", &findings.repaired);
    members.open("keys", '[');
    for (ring, key) in findings.ring.iter().flat_map(|ring| ring.keys().iter().map(move |key| (ring, key))) {
        members.open("", '{');
        members.field("id", &key.id.to_string());
        members.field("file", &printable(&key.name));
        members.field("algorithm", &key.algorithm.label());
        members.field("revoked", &ring.is_revoked(key.id));
        members.close('}');
    }
    members.close(']');
    match &findings.offered {
        None => members.field("source", &None::<u64>),
        Some(asked) => {
            members.open("source", '{');
            members.field("version", &offered.map(|a| printable(&a.release.version)));
            members.field("manifest_digest", &offered.map(|a| a.digest.to_string()));
            members.field("index_digest", &offered.and_then(|a| a.index_digest).map(|d| d.to_string()));
            members.field("signed_by", &offered.map_or_else(Vec::new, |a| Digest::texts(&a.signed_by)));
            members.field("error", &asked.as_ref().err().map(ToString::to_string));
            members.close('}');
        }
    }
    let remarks: Vec<String> = findings.remarks.iter().map(|r| printable(r)).collect();
    members.field("remarks", &remarks);
}

/// Adds what was read of a slot.
fn answer_slot(members: &mut Members, read: &Result<Record>, offered: Option<&Artifact>, findings: &Findings) {
    let record = read.as_ref().ok();
    let accepts = |record: &&Record| {
        let accepts = |ring: &Keyring| ring.still_accepts(&record.signed_by, &record.digests()).is_ok();
        !record.signed_by.is_empty() && findings.ring.as_ref().is_ok_and(accepts)
    };
    let checked_now = |record: &&Record| offered.is_some_and(|a| is_same(record, a) && !a.signed_by.is_empty());
    members.field("valid", &record.is_some());
    members.field("looked_at", &read.as_ref().err().is_none_or(|e| !e.is_unseen()));
    members.field("version", &record.map(|r| printable(&r.version)));
    members.field("manifest_digest", &record.and_then(|r| r.manifest_digest).map(|d| d.to_string()));
    members.field("signed_by", &record.map_or_else(Vec::new, |r| Digest::texts(&r.signed_by)));
    members.field("signature_trusted", &record.filter(accepts).is_some());
    members.field("signature_checked_now", &record.filter(checked_now).is_some());
    members.field("error", &read.as_ref().err().map(ToString::to_string));
}
