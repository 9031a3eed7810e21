//! `apply`: checks, downloads into the slot that is not running, proves it, and records it as staged.
//!
//! Must never: touch a slot while a trial is pending, or the running slot at all.

use crate::cli;
use crate::cmd::activate::{self, Activation, Terms};
use crate::cmd::answer::Reply;
use crate::cmd::check::{self, Overrides, Situation};
use crate::cmd::{Outcome, restart as restart_machine, tell};
use crate::config::Config;
use crate::error::{Course, Error, Kind, Result};
use crate::gate::{self, DEFAULT_CHANNEL, Gate, Refusal, Verdict};
use crate::http::Body;
use crate::inspect::{self, View};
use crate::machine::ARCHITECTURE;
use crate::mount::Hold;
use crate::next_step::is_lost;
use crate::oci::digest::Digest;
use crate::progress::bar::Phase as Stretch;
use crate::progress::{Progress, aside, is_quiet, note, on_interrupt, setback};
use crate::readback;
use crate::remake;
use crate::session::Session;
use crate::slot::{FileRecord, INITRAMFS, KERNEL, Record, Slot};
use crate::source::{Artifact, FileRef, Source};
use crate::stage::{self, Part, Step};
use crate::state::{Phase, Taken};
use crate::system::System;
use crate::text::{human_size, printable};
use crate::trust::keyring::Keyring;
use std::io::Write;
use std::path::Path;

/// True until something is activated.
const INTERRUPTED: &str = "\nkubesolo-update: interrupted; the running slot is as it was, what was downloaded is kept, and the \
                           next apply goes on there (kubesolo-update status: where it stands)\n";

/// True from then on.
const ACTIVATING: &str = "\nkubesolo-update: interrupted; what is staged may be activated already (kubesolo-update status: which slot \
                          boots next; activate goes on)\n";

/// How an attempt ended that did not fail.
enum Attempt {
    Staged(Artifact),
    StagedBefore(Artifact),
    UpToDate(Artifact),
}

impl Attempt {
    fn artifact(&self) -> &Artifact {
        match self {
            Attempt::Staged(artifact) | Attempt::StagedBefore(artifact) | Attempt::UpToDate(artifact) => artifact,
        }
    }
}

/// Runs the command.
/// Errors: Signature: unsigned updates are not allowed. Gate: a gate refuses. Others: what went wrong, and the
/// state says `failed`.
pub fn run(system: &System, config: &Config, args: &cli::Apply, out: &mut Reply) -> Result<Outcome> {
    let ended = update(system, config, args, out);
    if !args.ok_if_nothing {
        return ended;
    }
    match ended {
        Ok(Outcome::Nothing) => Ok(Outcome::Done),
        Ok(Outcome::Refused(e)) | Err(e) if e.course() == Course::Waits => {
            if !is_quiet() {
                tell(out, &format!("nothing is to be done now: {e}"))?;
            }
            Ok(Outcome::Waits(e))
        }
        Err(e) if e.kind() == Kind::Busy => Ok(Outcome::Excused(e)),
        ended => ended,
    }
}

fn update(system: &System, config: &Config, args: &cli::Apply, out: &mut Reply) -> Result<Outcome> {
    let reboot = args.reboot;
    on_interrupt(&INTERRUPTED);
    activate::refuse_reboot_below_root(system, reboot)?;
    // Before the lock: nobody waits for a run that waits.
    check::splay(system, args.splay);
    let mut session = Session::open(system, config)?;
    let ready = check::keyring(system, config, Some(session.store()))
        .and_then(|ring| Ok((check::open(system, config, &session.proven, ring.clone())?, ring)));
    let (mut source, ring) = ready.inspect_err(|error| record_stop(&mut session, config, error))?;
    if let Some(why) = session.pending_trial() {
        // Before anything else, and without a mark in the state: that belongs to the trial.
        return Err(gate::refused("a new version", &[Refusal { gate: Gate::TrialPending, why, hint: "" }]));
    }
    let overrides = Overrides {
        allow_downgrade: args.allow_downgrade,
        retry_failed: args.retry_failed,
        ignore_window: args.ignore_window,
    };
    let attempt = match attempt(&mut session, config, source.as_mut(), overrides, &ring) {
        Err(e) if e.course() == Course::Nothing && is_quiet() && out.is_text() => return Ok(Outcome::Nothing),
        Err(e) if e.course() == Course::Nothing => return Ok(check::nothing_there(&e, out)),
        ended => ended?,
    };
    let goes_on = args.activate || reboot;
    let settled = matches!(attempt, Attempt::UpToDate(_));
    let terms = Terms::new(config, args.ignore_window, args.allow_unproven_bootloader);
    let activation = match goes_on && !settled {
        true => {
            on_interrupt(&ACTIVATING);
            activate::activate(&mut session, terms)?
        }
        false => Activation::Nothing,
    };
    let activated = activation == Activation::Done;
    let restart = terms.restart(&session, reboot, &activation);
    let restarts = matches!(restart, Some(Ok(())));
    let slot = session.target();
    let shut = activate::shut(&activation, restart.as_ref());
    let is_silent = is_quiet() && !activated && !matches!(attempt, Attempt::Staged(_));
    match out.is_text() {
        false => answer(out, &attempt, session.running, (activated, restarts)),
        true if is_silent => {}
        true => describe(out, &attempt, &session.machine.view(slot), (activated, restarts), &ring)?,
    }
    match (shut, restart) {
        // What was done stays done: what is staged is activated in the next window; what is active boots whenever the machine
        // restarts, and `activate --reboot` restarts it.
        (Some(error), _) => return Ok(Outcome::Refused(error)),
        (None, Some(_)) => return Err(restart_machine(out, None)),
        (None, None) => {}
    }
    Ok(match attempt {
        Attempt::UpToDate(_) => Outcome::Nothing,
        Attempt::StagedBefore(_) if !goes_on => Outcome::Nothing,
        _ => Outcome::Done,
    })
}

fn describe(
    out: &mut dyn Write,
    attempt: &Attempt,
    target: &View,
    (activated, reboot): (bool, bool),
    ring: &Keyring,
) -> Result<()> {
    let slot = target.slot;
    let version = printable(&attempt.artifact().version);
    tell(
        out,
        &match attempt {
            Attempt::UpToDate(_) => {
                let more = if is_lost(target) { no_way_back(slot) } else { String::new() };
                return tell(out, &format!("{version} is running already: nothing to do{more}"));
            }
            Attempt::StagedBefore(_) => format!("{version} is staged in slot {slot} already"),
            Attempt::Staged(a) => {
                let size = a.kernel.size_bytes.saturating_add(a.initramfs.size_bytes);
                format!("{version} is staged in slot {slot} ({}, written and read back)", human_size(size))
            }
        },
    )?;
    let signed_by = &attempt.artifact().signed_by;
    if !signed_by.is_empty() {
        tell(out, &format!("Signed {}", check::signers(signed_by, ring)))?;
    }
    match activated {
        true => activate::say_activated(out, slot, reboot),
        false => tell(out, "Next: `kubesolo-update activate`, then restart"),
    }
}

/// Says of a machine that has what is offered that its other slot cannot be had of that.
fn no_way_back(slot: Slot) -> String {
    format!(" (slot {slot} is not valid: there is no way back until another release is offered)")
}

/// Input: what was activated, and whether the machine restarts now.
fn answer(out: &mut Reply, attempt: &Attempt, running: Slot, (activated, restarts): (bool, bool)) {
    let (result, slot) = match attempt {
        Attempt::UpToDate(_) => ("up_to_date", running),
        Attempt::StagedBefore(_) => ("staged_before", running.other()),
        Attempt::Staged(_) => ("staged", running.other()),
    };
    out.result(result);
    let (artifact, members) = (attempt.artifact(), &mut out.members);
    members.field("version", &printable(&artifact.version));
    members.field("manifest_digest", &artifact.digest.to_string());
    members.field("signed_by", &Digest::texts(&artifact.signed_by));
    members.field("slot", &slot.name());
    members.field("activated", &activated);
    members.field("restarts", &restarts);
}

/// Records that nobody could be asked: whoever watches the state sees that no update is taken. Not of a trial, to which the state
/// belongs, and not where the command line alone is wrong, or no source is named: nothing is updated by itself there.
fn record_stop(session: &mut Session<'_>, config: &Config, error: &Error) {
    if error.kind() == Kind::Usage || config.source.is_none() || session.pending_trial().is_some() {
        return;
    }
    let now = session.now();
    // Whatever its exit code is: nothing was offered that is not authentic, and this machine has to be set up.
    let recorded = Error::new(Kind::Config, error.to_string());
    let failed = session.state.begin(now).and_then(|()| session.state.fail(&recorded, now));
    // The first error is the one to report.
    if let Err(e) = failed.and_then(|()| session.save_state()) {
        note(&format!("not recorded: {e}"));
    }
}

/// One attempt, from the first question to the last proof; its end is in the state file, whatever it was.
fn attempt(
    session: &mut Session<'_>,
    config: &Config,
    source: &mut dyn Source,
    overrides: Overrides,
    ring: &Keyring,
) -> Result<Attempt> {
    let mut situation = Situation {
        running: session.machine.view(session.running),
        target: session.machine.view(session.target()),
        trial_pending: None,
        staged_digest: None,
        staged_insisted: session.state.insisted,
        failed: session.refusals(),
        now: session.time(),
        proven: session.proven.clone(),
    };
    situation.staged_digest = check::staged_digest(&session.state, &situation.target);
    check::demand_known(&situation, ring)?;
    session.state.begin(session.now())?;
    session.save_state()?;
    let ended = decide_and_stage(session, config, source, &situation, overrides, ring);
    let now = session.now();
    match &ended {
        Ok(Attempt::Staged(_)) => session.state.step(Phase::Staged, now)?,
        Ok(_) | Err(Ended::Refused(_)) => session.state.answered(now),
        Err(Ended::Failed(error)) => session.state.fail(error, now)?,
    }
    let saved = session.save_state();
    match ended {
        Ok(attempt) => saved.map(|()| attempt),
        // The first error is the one to report.
        Err(Ended::Refused(error) | Ended::Failed(error)) => Err(error),
    }
}

/// An attempt that ended without a staged slot.
enum Ended {
    /// The ordinary course of things: the state goes back to what it was.
    Refused(Error),
    /// The state becomes `failed`.
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Failed(error)
    }
}

fn decide_and_stage(
    session: &mut Session<'_>,
    config: &Config,
    source: &mut dyn Source,
    situation: &Situation,
    overrides: Overrides,
    ring: &Keyring,
) -> std::result::Result<Attempt, Ended> {
    let consult = |source: &mut dyn Source, store| check::consult(source, config, situation, overrides, ring, store);
    let consulted = consult(source, Some(session.store()));
    let (mut artifact, mut verdict) = consulted.map_err(|e| match (e.course(), e.kind()) {
        (Course::Nothing, _) | (_, Kind::Busy) => Ended::Refused(e),
        _ => Ended::Failed(e),
    })?;
    // What was insisted on is insisted on still where it has to be written anew.
    let is_staged = situation.staged_digest == Some(artifact.digest);
    let insisted = overrides.retry_failed || (is_staged && situation.staged_insisted);
    if verdict == Verdict::Staged {
        if is_whole(session, situation, ring) {
            session.state.insisted |= overrides.retry_failed;
            return Ok(Attempt::StagedBefore(artifact));
        }
        verdict = Verdict::Take;
    }
    if verdict == Verdict::Take && artifact.is_hearsay() {
        (artifact, verdict) = consult(source, None)?;
    }
    match verdict {
        Verdict::UpToDate => return Ok(Attempt::UpToDate(artifact)),
        Verdict::Refused(refusals) => {
            let error = gate::refused(&format!("version {}", artifact.version), &refusals);
            let fault = refusals.iter().any(|r| r.gate.is_fault());
            return Err(if fault { Ended::Failed(error) } else { Ended::Refused(error) });
        }
        Verdict::Take | Verdict::Staged => {}
    }
    // Before anything is recorded: whoever reads the slot is done soon, and nothing has failed.
    let hold = session.machine.hold_target(session.target()).map_err(|e| match e.kind() {
        Kind::Busy => Ended::Refused(e),
        _ => Ended::Failed(e),
    })?;
    let taken = Taken {
        from_version: situation.running.version(),
        version: &artifact.version,
        source: &artifact.source,
        digest: artifact.digest,
        target: session.target(),
        insisted,
    };
    session.state.take(&taken, session.now())?;
    session.save_state()?;
    stage_all(session, source, &artifact, &hold)?;
    Ok(Attempt::Staged(artifact))
}

/// Says whether what is staged may be activated as it is. What has rotted since then is staged anew.
fn is_whole(session: &Session<'_>, situation: &Situation, ring: &Keyring) -> bool {
    let Ok(record) = &situation.target.record else { return false };
    ring.still_accepts(&record.signed_by, &record.digests()).is_ok()
        && activate::scrub(session, session.target()).is_ok()
}

/// Stages an artifact; where the slot's file system is damaged, in one that is made anew.
/// Power cut: see the functions of `stage` and of `remake`; until the slot is unmounted and its journal seen empty, the
/// state says `downloading`.
fn stage_all(session: &Session<'_>, source: &mut dyn Source, artifact: &Artifact, hold: &Hold) -> Result<()> {
    // A source that is gone must not cost the slot its old content: the last file is asked for first.
    source.probe(&artifact.initramfs)?;
    let part = session.machine.slot_partition(session.target())?;
    let mut staged = stage(session, source, artifact, hold);
    if let Err(damage) = &staged
        && damage.course() == Course::Damaged
        && part.is_named
    {
        note(&format!("{damage}; the file system of slot {} is made anew", session.target()));
        staged = remake::remake(part, session.now(), hold).and_then(|()| stage(session, source, artifact, hold));
    }
    staged.map_err(|e| match (e.kind(), e.course()) {
        (Kind::Device, Course::Fault | Course::Damaged) => remake::hint(e, part),
        _ => e,
    })
}

fn stage(session: &Session<'_>, source: &mut dyn Source, artifact: &Artifact, hold: &Hold) -> Result<()> {
    let slot = session.target();
    let record = Record {
        version: artifact.version.clone(),
        architecture: ARCHITECTURE.to_string(),
        channel: artifact.channel.clone().unwrap_or_else(|| DEFAULT_CHANNEL.to_string()),
        source: printable(&artifact.source),
        manifest_digest: Some(artifact.digest),
        signed_by: artifact.signed_by.clone(),
        index_digest: artifact.index_digest,
        passed: artifact.passed.clone(),
        // What nobody signed is nobody's date.
        release_date: artifact.release_date.clone().filter(|_| !artifact.signed_by.is_empty()),
        kernel: file_record(&artifact.kernel),
        initramfs: file_record(&artifact.initramfs),
    };
    let kernel = Part { name: KERNEL, expected: &record.kernel, is_initramfs: false };
    let initramfs = Part { name: INITRAMFS, expected: &record.initramfs, is_initramfs: true };
    let mounted = session.machine.mount_target(slot, hold)?;
    let dir = mounted.dir();
    let mut wanted = Vec::new();
    let mut kept = Vec::new();
    let mut crcs = [0; 2];
    let all_bytes = artifact.kernel.size_bytes.saturating_add(artifact.initramfs.size_bytes);
    let looking = Progress::of(&format!("looking for the same in slot {slot}"), all_bytes);
    for (n, (part, file)) in [(kernel, &artifact.kernel), (initramfs, &artifact.initramfs)].into_iter().enumerate() {
        // The same kernel in two versions, or what an interrupted run has finished.
        match readback::verify(&dir.join(part.name), part.expected, &mut |n| looking.add(n)) {
            Ok(crc32) => {
                kept.push(part.name);
                crcs[n] = crc32;
            }
            Err(_) => wanted.push((n, part, file)),
        }
    }
    drop(looking);
    let mut first = match wanted.first() {
        Some((_, part, file)) => Some(Opened::new(source, file, stage::left_over(dir, part))?),
        None => None,
    };
    let parts: Vec<Part<'_>> = wanted.iter().map(|(_, part, _)| part.clone()).collect();
    // Unmounted once, so that the record is gone for GRUB as well, which replays no journal.
    stage::invalidate(dir, &kept, &parts)?;
    mounted.unmount()?;
    inspect::journal(session.machine.slot_partition(slot)?)?;
    let mounted = session.machine.mount_target(slot, hold)?;
    let dir = mounted.dir();
    let total = wanted.iter().fold(0, |sum: u64, (_, part, _)| sum.saturating_add(part.expected.size_bytes));
    let progress = Progress::new(vec![Stretch::new("fetching", total), Stretch::new("reading back", total)]);
    let mut before_bytes = 0;
    for (n, part, file) in &wanted {
        crcs[*n] = fetch(dir, part, file, source, first.take(), (&progress, before_bytes))?;
        before_bytes += part.expected.size_bytes;
    }
    drop(progress);
    stage::finish(dir, &record, crcs)?;
    mounted.unmount()?;
    inspect::journal(session.machine.slot_partition(slot)?)
}

/// Most times that a file is fetched anew because its pieces do not make the whole, or a mirror has something else.
const MAX_FRESH_STARTS: u32 = 2;

const AGAIN: &str = "from the start again";

/// A file that is about to come.
struct Opened {
    /// How much of it is there.
    from: u64,
    body: Body,
}

impl Opened {
    fn new(source: &mut dyn Source, file: &FileRef, from: u64) -> Result<Opened> {
        source.open(file, from).map(|body| Opened { from, body })
    }
}

/// Fetches one file, going on where an earlier run stopped. Pieces that together are not what was published, or that the disk
/// does not give back as they came, say nothing of the source: then it is fetched in one piece.
/// Input: `opened`: where it was opened already; `progress`: beside it, how much came before this file.   Returns: its CRC-32.
fn fetch(
    dir: &Path,
    part: &Part<'_>,
    file: &FileRef,
    source: &mut dyn Source,
    mut opened: Option<Opened>,
    progress: (&Progress, u64),
) -> Result<u32> {
    let (mut fresh_starts, mut is_whole) = (0, false);
    loop {
        let Opened { from, mut body } = match opened.take() {
            Some(opened) => opened,
            None if !is_whole => Opened::new(source, file, stage::left_over(dir, part))?,
            None => Opened::new(source, file, 0)?,
        };
        if from > 0 {
            aside(&format!("{}: going on after {}", part.name, human_size(from)));
        }
        let e = match write(dir, part, from, body.reader.as_mut(), progress) {
            Ok(crc32) => return Ok(crc32),
            Err(e) => e,
        };
        if from > 0 && matches!(e.kind(), Kind::Device | Kind::Digest) && stage::left_over(dir, part) == 0 {
            // Which of the two is wrong is not known, and no place is blamed: the whole will tell.
            match e.kind() {
                Kind::Device => setback(&e, AGAIN),
                _ => aside(&format!(
                    "{}: with what an earlier run left it is not what was published; {AGAIN}",
                    part.name
                )),
            }
            is_whole = true;
            continue;
        }
        let pieced = e.kind() == Kind::Digest && body.is_pieced.get();
        let elsewhere = e.kind() == Kind::Digest && source.doubt();
        if !(pieced || elsewhere) || fresh_starts == MAX_FRESH_STARTS {
            return Err(e);
        }
        setback(&e, &if elsewhere { [AGAIN, ", at the next place"].concat() } else { AGAIN.to_owned() });
        fresh_starts += 1;
        is_whole = true;
    }
}

fn write(
    dir: &Path,
    part: &Part<'_>,
    from: u64,
    body: &mut dyn std::io::Read,
    (progress, before_bytes): (&Progress, u64),
) -> Result<u32> {
    progress.start(0, part.name, before_bytes);
    let mut is_back = false;
    stage::write(dir, part, from, body, &mut |step| match step {
        Step::Found(n) => progress.found(n),
        Step::Written(n) => progress.add(n),
        Step::ReadBack(n) => {
            if !is_back {
                progress.start(1, "", before_bytes);
                is_back = true;
            }
            progress.add(n);
        }
    })
}

fn file_record(file: &FileRef) -> FileRecord {
    FileRecord { size_bytes: file.size_bytes, sha256: file.sha256 }
}
