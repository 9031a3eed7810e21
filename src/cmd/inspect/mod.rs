//! `inspect`: what a machine would make of an artifact, judged without a machine: for publishers and their CI.
//!
//! Needs no slots and no root. Must never: read keys, configuration or state that were not named, write anything, or succeed if
//! no signature was checked and the machines require one.

mod subject;

use super::Outcome;
use super::answer::{Members, Reply};
use crate::base::clock::Now;
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::text::{human_size, printable};
use crate::cli::publishers::Inspect;
use crate::cli::{Common, Flags};
use crate::cmd::answer::facts;
use crate::cmd::words::say;
use crate::cmd::{INTERRUPTED, WATCHED_RETRIES};
use crate::config::lines::Raw;
use crate::config::{self, Config, SignaturePolicy};
use crate::ledger::proven::Proven;
use crate::offer::artifact::{Artifact, FileRef};
use crate::offer::gate::{self, Facts, Verdict};
use crate::offer::refusal::{Gate, Refusal, refused};
use crate::os::progress::{self, is_verbose, is_watched, note};
use crate::os::system::System;
use crate::source::Source;
use crate::trust::keyring::Keyring;
use crate::update::ask::{noted, open, resolve};
use crate::update::reuse::fault_of_index;
use std::io::Write;
use std::path::{Path, PathBuf};
use subject::{ARCHITECTURES, Machine};

/// Gates that only a machine can answer: they depend on its history, its content, or the time of asking.
const OF_A_MACHINE: [Gate; 5] = [Gate::TrialPending, Gate::Replayed, Gate::FailedBefore, Gate::Size, Gate::Window];
/// Gates that need `--as` as well.
const OF_ITS_KIND: [Gate; 4] = [Gate::Channel, Gate::Version, Gate::RunningVersion, Gate::MinCompatible];

const INCOMPLETE: &str = "incomplete";

/// The request.
struct Request {
    config: Config,
    machine: Option<Machine>,
    ring: Keyring,
}

/// One artifact that was found, and its verdict.
struct JudgedOffer {
    artifact: Artifact,
    verdict: Verdict,
    /// Why not all of its files are available.
    missing: Option<Error>,
    /// Layers whose chunk index is of no use: machines fetch them whole. `None`: not looked at, since not all is there.
    unindexed: Option<Vec<Digest>>,
}

impl JudgedOffer {
    /// Returns whether a layer's chunk index can be used, if it has one that was looked at.
    fn is_indexed(&self, layer: &FileRef) -> Option<bool> {
        self.unindexed.as_ref().filter(|_| layer.chunks.is_some()).map(|bad| !bad.contains(&layer.sha256))
    }
}

/// Runs the command.
/// Errors: Usage, Config: what was typed, or a key; as [`Source::resolve`]; Source: its versions or dates are malformed.
pub fn run(args: &Inspect, flags: &Flags, out: &mut Reply) -> Result<Outcome> {
    progress::on_interrupt(&INTERRUPTED);
    let system = System::new("/");
    let request = read(args, flags, &system)?;
    let mut source = open(&system, &request.config, &Proven::default(), request.ring.clone())?;
    let machine = request.machine.as_ref();
    let mut all = Vec::new();
    for artifact in find(source.as_mut(), machine)? {
        let verdict = judge(&artifact, machine, system.now())?;
        let files = [&artifact.kernel, &artifact.initramfs];
        let missing = files.into_iter().find_map(|file| source.probe(file).err());
        let unindexed = missing.is_none().then(|| unindexed(&artifact, source.as_mut()));
        all.push(JudgedOffer { artifact, verdict, missing, unindexed });
    }
    let (word, outcome) = conclude(&request, &all);
    out.result(word);
    if let Some(missing) = all.iter().find_map(|seen| seen.missing.as_ref()).filter(|_| word != INCOMPLETE) {
        note(&missing.to_string());
    }
    match out.is_text() {
        true => describe(out, &request, &all, &outcome)?,
        false => answer(&mut out.members, &request, &all),
    }
    Ok(outcome)
}

/// Names each layer whose chunk index is of no use, and says why. It stops no machine.
fn unindexed(artifact: &Artifact, source: &mut dyn Source) -> Vec<Digest> {
    let mut unindexed = Vec::new();
    for (name, file) in [("kernel", &artifact.kernel), ("initramfs", &artifact.initramfs)] {
        for blob in file.blobs() {
            if let Some(e) = fault_of_index(&blob, source) {
                let layer = short(blob.sha256);
                note(&format!("{name}, {layer}: {e}; machines fetch it whole: make its index anew (kubesolo-chunks)"));
                unindexed.push(blob.sha256);
            }
        }
    }
    unindexed
}

/// Reads the arguments, and the files that they name.
fn read(args: &Inspect, flags: &Flags, system: &System) -> Result<Request> {
    let is_there = |path: &str| Path::new(path).symlink_metadata().is_ok();
    let mut found = subject::place(&args.source, flags.tag.as_deref(), &is_there)?;
    found.config.clone_from(&args.config);
    found.retries = flags.retries;
    let flags = Common { flags: found, command: "inspect" };
    let (mut config, channel) = match args.config {
        Some(_) => (config::load_named(system, &flags)?, true),
        None => (config::validate(&Raw::default(), &flags, &|path| PathBuf::from(path))?, false),
    };
    let channel = channel.then_some(config.channel.as_str());
    let machine = args.machine.as_deref().map(|text| Machine::parse(text, channel)).transpose()?;
    let ring = noted(Keyring::named(&args.key, config.signature_threshold)?)?;
    config.retries = config.retries.or(is_watched().then_some(WATCHED_RETRIES));
    if let Some(path) = &args.authfile {
        config.auth_file = Some(path.clone());
    }
    Ok(Request { config, machine, ring })
}

/// Asks for the machine's architecture; without a machine, for each architecture.
/// Errors: as [`Source::resolve`]; Gate: nothing for this architecture, or for any.
fn find(source: &mut dyn Source, machine: Option<&Machine>) -> Result<Vec<Artifact>> {
    if let Some(machine) = machine {
        return Ok(vec![resolve(source, &machine.architecture)?]);
    }
    let (mut found, mut nothing) = (Vec::<Artifact>::new(), None);
    for architecture in ARCHITECTURES {
        match resolve(source, architecture) {
            // A document without a choice is offered to all architectures.
            Ok(artifact) if found.iter().any(|other| other.digest == artifact.digest) => {}
            Ok(artifact) => found.push(artifact),
            Err(e) if e.kind() == Kind::Gate => nothing = nothing.or(Some(e)),
            Err(e) => return Err(e),
        }
    }
    match nothing.filter(|_| found.is_empty()) {
        Some(e) => Err(e),
        None => Ok(found),
    }
}

/// Checks an artifact against the gates, as a machine without a history would. Pure.
/// Errors: as [`gate::judge`].
fn judge(artifact: &Artifact, machine: Option<&Machine>, now: Now) -> Result<Verdict> {
    let said = artifact.release.architecture.as_deref().filter(|said| ARCHITECTURES.contains(said));
    let version = machine.map(|machine| machine.version.as_str());
    gate::judge(
        artifact,
        &Facts {
            architecture: machine.map_or(said.unwrap_or(ARCHITECTURES[0]), |machine| &machine.architecture),
            channel: machine
                .map_or(artifact.release.channel.as_deref().unwrap_or(gate::DEFAULT_CHANNEL), |m| &m.channel),
            // An equal version is taken for the same release, as with a slot without a record: `v1.0.0` is 1.0.0.
            running_version: version
                .map(|v| if is_same(v, &artifact.release.version) { &artifact.release.version } else { v }),
            running_digest: None,
            running_files: None,
            trial_pending: None,
            staged_digest: None,
            staged_insisted: false,
            failed: &[],
            now,
            room_bytes: None,
            window: None,
            newest_release: None,
            // No version runs that it could be older than.
            allow_downgrade: machine.is_none(),
            retry_failed: false,
            ignore_window: false,
        },
    )
}

/// Returns whether two versions are equal apart from a leading `v`.
fn is_same(a: &str, b: &str) -> bool {
    a.strip_prefix('v').unwrap_or(a) == b.strip_prefix('v').unwrap_or(b)
}

/// Returns the overall result, and how the program ends: an unsigned artifact is never authentic. Pure.
/// Input: at least one artifact.
fn conclude(request: &Request, all: &[JudgedOffer]) -> (&'static str, Outcome) {
    let first = &all[0].artifact;
    let is_unchecked = request.ring.is_empty() && request.config.signature == SignaturePolicy::Required;
    let mut refusals: Vec<Refusal> = Vec::new();
    for seen in all {
        if let Verdict::Refused(more) = &seen.verdict {
            refusals.extend(more.iter().filter(|one| !refusals.contains(one)).cloned().collect::<Vec<_>>());
        }
    }
    let missing = all.iter().find_map(|seen| seen.missing.clone());
    match missing {
        _ if is_unchecked => ("unchecked", Outcome::Refused(unchecked(first))),
        _ if !refusals.is_empty() => {
            ("refused", Outcome::Refused(refused(&format!("version {}", first.release.version), &refusals)))
        }
        Some(missing) => (INCOMPLETE, Outcome::Refused(missing)),
        None if all.iter().all(|seen| seen.verdict == Verdict::UpToDate) => ("up_to_date", Outcome::Nothing),
        None if request.machine.is_none() && request.ring.is_empty() => ("unchecked", Outcome::Done),
        None if request.machine.is_none() => ("authentic", Outcome::Done),
        None => ("accepted", Outcome::Done),
    }
}

fn unchecked(artifact: &Artifact) -> Error {
    Error::new(Kind::Signature, "no --key was given: no signature of it was checked")
        .at("verify", format_args!("version {} from {}", artifact.release.version, gate::place(&artifact.source)))
        .hint("--key names the publisher's public key, or a directory of keys")
}

fn describe(out: &mut dyn Write, request: &Request, all: &[JudgedOffer], outcome: &Outcome) -> Result<()> {
    for seen in all {
        tell(out, &seen.artifact, &request.ring)?;
        let size = seen.artifact.kernel.size_bytes.saturating_add(seen.artifact.initramfs.size_bytes);
        let there = if seen.missing.is_none() { "all of it is there" } else { "NOT all of it is there" };
        row(out, "Size", &format!("{} ({size} bytes): {there}", human_size(size)))?;
        for (name, file) in [("kernel", &seen.artifact.kernel), ("initramfs", &seen.artifact.initramfs)] {
            for blob in file.blobs() {
                let chunks = match seen.is_indexed(&blob) {
                    None => "",
                    Some(true) => ", with a chunk index",
                    Some(false) => ", with a chunk index that is of no use",
                };
                row(out, "", &format!("{name}: {}, {}{chunks}", human_size(blob.size_bytes), short(blob.sha256)))?;
            }
        }
    }
    if request.machine.is_none() && all.len() < ARCHITECTURES.len() {
        row(out, "Missing", "there is nothing for the other architecture")?;
    }
    if let Some(m) = &request.machine {
        row(out, "As", &format!("version {}, {}, channel {}", m.version, m.architecture, m.channel))?;
    }
    row(out, "Not asked", &not_asked(request).join(", "))?;
    row(
        out,
        "Result",
        &match (outcome, &request.machine) {
            (Outcome::Refused(error), _) => error.to_string(),
            (Outcome::Nothing, _) => "the same version runs there: nothing to do".to_string(),
            (_, Some(_)) => "such a machine would take it".to_string(),
            (_, None) if request.ring.is_empty() => {
                "well made, and all of it is there; no signature was checked (signature = off)".to_string()
            }
            (_, None) => "authentic and well made; --as VERSION/ARCH/CHANNEL says who would take it".to_string(),
        },
    )
}

/// Describes an artifact, and names its signers.
fn tell(out: &mut dyn Write, artifact: &Artifact, ring: &Keyring) -> Result<()> {
    let architecture = artifact.release.architecture.as_deref().unwrap_or("no architecture");
    let channel = artifact.release.channel.as_deref().unwrap_or(gate::DEFAULT_CHANNEL);
    row(out, "Artifact", &format!("{} for {architecture}, channel {channel}", artifact.release.version))?;
    row(out, "", &format!("manifest {}", short(artifact.digest)))?;
    if let Some(index) = artifact.index_digest {
        row(out, "", &format!("index {}", short(index)))?;
    }
    row(out, "Source", &gate::place(&artifact.source))?;
    let needs =
        artifact.release.min_compatible_version.as_ref().map(|version| format!("{version} or later to update from"));
    let texts =
        [("Needs", &needs), ("Released", &artifact.release.release_date), ("Expires", &artifact.release.expires)];
    for (title, text) in texts {
        text.as_deref().map_or(Ok(()), |text| row(out, title, text))?;
    }
    for id in &artifact.signed_by {
        let file = ring.keys().iter().find(|key| key.id == *id).map_or("", |key| &key.name);
        row(out, "Signed", &format!("by {} ({file})", short(*id)))?;
    }
    match artifact.signed_by.is_empty() {
        true => row(out, "Signed", "not checked: no --key was given"),
        false => Ok(()),
    }
}

/// Returns a digest short enough for a screen, or whole.
fn short(digest: Digest) -> String {
    if is_verbose() { digest.to_string() } else { ["sha256:", &digest.short()].concat() }
}

/// Writes a line with a title, wrapped at words.
fn row(out: &mut dyn Write, title: &str, text: &str) -> Result<()> {
    let mut line = format!("{title:<9}");
    for word in printable(text).split(' ') {
        if line.chars().count() + word.chars().count() >= 79 && line.len() > 9 {
            say(out, &line)?;
            line = " ".repeat(9);
        }
        line.push(' ');
        line.push_str(word);
    }
    say(out, &line)
}

fn not_asked(request: &Request) -> Vec<&'static str> {
    let kind = OF_ITS_KIND.iter().filter(|_| request.machine.is_none());
    OF_A_MACHINE.iter().chain(kind).map(|gate| gate.label()).collect()
}

fn answer(members: &mut Members, request: &Request, all: &[JudgedOffer]) {
    let is_unchecked = request.ring.is_empty() && request.config.signature == SignaturePolicy::Required;
    let takes = |seen: &JudgedOffer| seen.verdict == Verdict::Take && seen.missing.is_none() && !is_unchecked;
    members.field("would_take", &request.machine.as_ref().map(|_| all.iter().all(takes)));
    match &request.machine {
        None => members.field("as", &None::<bool>),
        Some(machine) => {
            members.open("as", '{');
            members.field("version", &printable(&machine.version));
            members.field("architecture", &machine.architecture);
            members.field("channel", &printable(&machine.channel));
            members.close('}');
        }
    }
    members.open("keys", '[');
    for key in request.ring.trusted() {
        members.open("", '{');
        members.field("fingerprint", &key.id.to_string());
        members.field("file", &printable(&key.name));
        members.close('}');
    }
    members.close(']');
    members.open("artifacts", '[');
    for seen in all {
        members.open("", '{');
        facts(members, &seen.artifact);
        members.field("complete", &seen.missing.is_none());
        file(members, "kernel", &seen.artifact.kernel, seen);
        file(members, "initramfs", &seen.artifact.initramfs, seen);
        members.close('}');
    }
    members.close(']');
    members.field("not_asked", &not_asked(request));
}

fn file(members: &mut Members, name: &str, file: &FileRef, seen: &JudgedOffer) {
    members.open(name, '[');
    for blob in file.blobs() {
        members.open("", '{');
        members.field("digest", &blob.sha256.to_string());
        members.field("size_bytes", &blob.size_bytes);
        members.field("chunk_index", &seen.is_indexed(&blob));
        members.close('}');
    }
    members.close(']');
}

#[cfg(test)]
mod tests;
