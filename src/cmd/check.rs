//! `check`: asks the source, checks the answer against the gates, and reports what is offered.
//!
//! Must never: change anything, or take the lock.

use crate::base::error::{Course, Result};
use crate::base::text::{human_size, printable};
use crate::cli::Flags;
use crate::cmd::answer::{Members, Reply, facts};
use crate::cmd::words::{signers, tell};
use crate::cmd::{INTERRUPTED, Outcome, WATCHED_RETRIES, nothing_there, overrides, splay};
use crate::config::Config;
use crate::ledger::traffic::Traffic;
use crate::machine::{ARCHITECTURE, Machine};
use crate::offer::artifact::Artifact;
use crate::offer::gate::{self, Verdict};
use crate::offer::refusal::{reasons, refused};
use crate::os::progress::{self, is_watched};
use crate::os::sys::Access;
use crate::os::system::System;
use crate::trust::keyring::Keyring;
use crate::update::ask::{forecast, keyring, open};
use crate::update::judge::{Overrides, Question, Situation, consult, look};
use std::io::Write;

/// Runs the command.
/// Errors: as [`consult`]; Config: no source is named.
pub fn run(system: &System, config: Config, flags: &Flags, out: &mut Reply) -> Result<Outcome> {
    progress::on_interrupt(&INTERRUPTED);
    let config = &Config { retries: config.retries.or(is_watched().then_some(WATCHED_RETRIES)), ..config };
    splay(system, flags.splay);
    let machine = Machine::look(system);
    let data = machine.data(config.state_file.as_deref(), Access::Read).ok();
    let store = data.as_ref().map(|data| &data.store);
    let running = machine.running()?;
    let survey = look(system, &machine, store);
    let situation = Situation::of(&survey, running, system.now());
    let ring = keyring(system, config, store)?;
    let mut source = open(system, config, &survey.proven, ring.clone())?;
    let overrides = overrides(flags);
    let mut question = Question { source: source.as_mut(), config, ring: &ring, overrides };
    let (artifact, verdict) = match consult(&mut question, &situation, store) {
        Err(e) if e.course() == Course::Nothing => return Ok(nothing_there(&e, out)),
        consulted => consulted?,
    };
    let mut traffic = None;
    if verdict == Verdict::Take {
        out.release();
        traffic = forecast(&machine, situation.running, &artifact, question.source, store);
    }
    let found =
        Found { artifact: &artifact, verdict: &verdict, traffic, situation: &situation, ring: &ring, overrides };
    match out.is_text() {
        true => describe(out, &found)?,
        false => answer(out, &found),
    }
    Ok(match verdict {
        Verdict::Take => Outcome::Done,
        Verdict::UpToDate | Verdict::Staged => Outcome::Nothing,
        Verdict::Refused(refusals) => {
            Outcome::Refused(refused(&format!("version {}", artifact.release.version), &refusals))
        }
    })
}

/// What a person is shown.
struct Found<'a> {
    artifact: &'a Artifact,
    verdict: &'a Verdict,
    traffic: Option<Traffic>,
    situation: &'a Situation<'a>,
    ring: &'a Keyring,
    overrides: Overrides,
}

fn describe(out: &mut dyn Write, found: &Found<'_>) -> Result<()> {
    let Found { artifact, verdict, traffic, situation, ring, overrides } = found;
    let running = situation.running.version().unwrap_or("(unknown version)");
    tell(out, &format!("Running   {} (slot {}, {ARCHITECTURE})", printable(running), situation.running.slot))?;
    let (kernel, initramfs) = (human_size(artifact.kernel.size_bytes), human_size(artifact.initramfs.size_bytes));
    tell(
        out,
        &format!(
            "Offered   {} from {}",
            printable(&artifact.release.version),
            printable(&gate::place(&artifact.source))
        ),
    )?;
    tell(out, &format!("          kernel {kernel}, initramfs {initramfs}, {}", artifact.digest))?;
    if let Some(index) = artifact.index_digest {
        tell(out, &format!("          index {index}"))?;
    }
    if let Some(Traffic { fetched_bytes, copied_bytes }) = traffic {
        let others = match copied_bytes {
            0 => String::new(),
            _ => format!("; slot {} has the other {}", situation.running.slot, human_size(*copied_bytes)),
        };
        tell(out, &format!("To fetch  {}{others}", human_size(*fetched_bytes)))?;
    }
    tell(out, &format!("Signed    {}", signers(&artifact.signed_by, ring)))?;
    for (name, value) in [("Released", &artifact.release.release_date), ("Expires ", &artifact.release.expires)] {
        if let Some(value) = value {
            tell(out, &format!("{name}  {}", printable(value)))?;
        }
    }
    for line in artifact.release.release_notes.iter().flat_map(|notes| notes.lines()).take(20) {
        tell(out, &format!("Notes     {}", printable(line)))?;
    }
    let result = match verdict {
        Verdict::Take => format!("an update is available; `kubesolo-update apply{}` takes it", overrides.options()),
        Verdict::UpToDate => "up to date".to_string(),
        Verdict::Staged => {
            format!("staged in slot {}; `kubesolo-update activate` lets GRUB try it", situation.target.slot)
        }
        Verdict::Refused(refusals) => {
            format!("refused: {}", reasons(refusals))
        }
    };
    tell(out, &format!("Result    {}", printable(&result)))
}

fn answer(out: &mut Reply, found: &Found<'_>) {
    let Found { artifact, verdict, traffic, situation, .. } = *found;
    out.result(match verdict {
        Verdict::Take => "available",
        Verdict::UpToDate => "up_to_date",
        Verdict::Staged => "staged",
        Verdict::Refused(_) => "refused",
    });
    let members = &mut out.members;
    members.field("update_available", &(*verdict == Verdict::Take));
    members.field("running_version", &situation.running.version().map(printable));
    members.field("running_slot", &situation.running.slot.name());
    members.field("fetch_bytes", &traffic.map(|traffic| traffic.fetched_bytes));
    members.field("at_hand_bytes", &traffic.map(|traffic| traffic.copied_bytes));
    offered(members, artifact);
}

/// Adds what a source offers, as `offered`.
pub fn offered(members: &mut Members, artifact: &Artifact) {
    members.open("offered", '{');
    facts(members, artifact);
    members.close('}');
}
