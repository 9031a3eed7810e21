//! `check`: asks the source, holds the answer against the gates, and says what there is.
//!
//! Must never: change anything, or take the lock.

use crate::cli;
use crate::clock::Now;
use crate::cmd::answer::{Members, Reply};
use crate::cmd::{Outcome, tell};
use crate::config::Config;
use crate::credentials;
use crate::error::{Course, Error, Kind, Result};
use crate::failed::Failures;
use crate::gate::{self, Facts, Verdict};
use crate::http::{Client, HttpOptions, ProxyEnv};
use crate::inspect::View;
use crate::machine::{ARCHITECTURE, Machine};
use crate::next_step::{self, Memory, Other};
use crate::oci::digest::Digest;
use crate::progress::{self, is_watched, note, setback};
use crate::reconcile::{self, pending_trial};
use crate::report::Report;
use crate::seen::Seen;
use crate::session::remember;
use crate::slot::Slot;
use crate::source::{self, Artifact, Source, SourceSpec};
use crate::state::{Phase, State};
use crate::store::Store;
use crate::sys::{self, Access};
use crate::system::System;
use crate::text::{human_size, printable};
use crate::tls::Pem;
use crate::trust::keyring::Keyring;
use crate::trust::proven::Proven;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What this machine brings to the gates, read once.
pub struct Situation {
    /// The running slot.
    pub running: View,
    /// The slot an update would go to.
    pub target: View,
    /// Why that slot must not be touched, if so.
    pub trial_pending: Option<String>,
    /// Artifacts that rolled back.
    pub failed: Vec<(Digest, String)>,
    /// What is staged in the target slot.
    pub staged_digest: Option<Digest>,
    /// Whether that was staged although it failed here before.
    pub staged_insisted: bool,
    /// What is known of the time.
    pub now: Now,
    /// What was confirmed here.
    pub proven: Proven,
}

/// Tries after the first where somebody waits for them and has said nothing else: three seconds at most for a server that
/// is not there.
pub const WATCHED_RETRIES: u32 = 2;

/// Said when a person interrupts a command that only looks.
pub const INTERRUPTED: &str = "\nkubesolo-update: interrupted; nothing was changed\n";

/// What the person allows.
#[derive(Clone, Copy)]
pub struct Overrides {
    /// `--allow-downgrade`
    pub allow_downgrade: bool,
    /// `--retry-failed`
    pub retry_failed: bool,
    /// `--ignore-window`
    pub ignore_window: bool,
}

impl Overrides {
    /// Writes them as options, each with a blank before it: without them `apply` may refuse what was judged with them.
    fn options(self) -> String {
        let all = [
            (self.allow_downgrade, " --allow-downgrade"),
            (self.retry_failed, " --retry-failed"),
            (self.ignore_window, " --ignore-window"),
        ];
        all.into_iter().filter(|(is_given, _)| *is_given).map(|(_, option)| option).collect()
    }
}

/// Runs the command.
/// Errors: as [`consult`]; Config: no source is named.
pub fn run(system: &System, config: &Config, args: &cli::Check, out: &mut Reply) -> Result<Outcome> {
    progress::on_interrupt(&INTERRUPTED);
    let config = &Config { retries: config.retries.or(is_watched().then_some(WATCHED_RETRIES)), ..config.clone() };
    splay(system, args.splay);
    let machine = Machine::look(system);
    let data = machine.data(config.state_file.as_deref(), Access::Read).ok();
    let store = data.as_ref().map(|data| &data.store);
    let situation = look(system, &machine, store)?;
    let ring = keyring(system, config, store)?;
    let mut source = open(system, config, &situation.proven, ring.clone())?;
    let overrides = Overrides {
        allow_downgrade: args.allow_downgrade,
        retry_failed: args.retry_failed,
        ignore_window: args.ignore_window,
    };
    let (artifact, verdict) = match consult(source.as_mut(), config, &situation, overrides, &ring, store) {
        Err(e) if e.course() == Course::Nothing => return Ok(nothing_there(&e, out)),
        consulted => consulted?,
    };
    if verdict == Verdict::Take {
        out.release();
    }
    match out.is_text() {
        true => describe(out, &artifact, &verdict, &situation, &ring, overrides)?,
        false => answer(out, &artifact, &verdict, &situation),
    }
    Ok(match verdict {
        Verdict::Take => Outcome::Done,
        Verdict::UpToDate | Verdict::Staged => Outcome::Nothing,
        Verdict::Refused(refusals) => {
            Outcome::Refused(gate::refused(&format!("version {}", artifact.version), &refusals))
        }
    })
}

/// Answers that no medium is plugged in.
pub fn nothing_there(why: &Error, out: &mut Reply) -> Outcome {
    out.result("no_medium");
    out.message(&why.to_string());
    Outcome::Nothing
}

/// Waits a random time, in the whole range alike. Input: at most so many seconds.
pub fn splay(system: &System, most_secs: Option<u64>) {
    if let Some(millis) = most_secs.map(|secs| secs.saturating_mul(1000)).filter(|millis| *millis > 0) {
        let time = Duration::from_millis(sys::random_u64() % millis);
        progress::wait(time, "so that a fleet does not ask all at once", system.now().clock_secs());
    }
}

/// Reads the keys, says which of them are no good, and makes sure that something can be decided.
/// Errors: as [`Keyring::load`] and [`Keyring::demands_signatures`].
pub fn keyring(system: &System, config: &Config, store: Option<&Store>) -> Result<Keyring> {
    let (signature, site) = ((config.signature, config.signature_threshold), store.map(Store::site));
    noted(Keyring::of_machine(&system.keys_dir(), signature, site.as_deref())?)
}

/// Says which keys are no good, and makes sure that something can be decided.
/// Errors: as [`Keyring::demands_signatures`].
pub fn noted(ring: Keyring) -> Result<Keyring> {
    ring.faults().iter().for_each(|fault| note(&format!("{fault}; this key does not count")));
    if !ring.demands_signatures()? {
        // It may have been meant for one, and everything is taken unsigned.
        let name = |path: &PathBuf| note(&format!("{}: it does not count: a key's name ends in .pub", path.display()));
        ring.passed_over().iter().for_each(name);
    }
    Ok(ring)
}

/// Opens the source that configuration and command line name.
/// Errors: Config: none is named, or it can not be used.
pub fn open(system: &System, config: &Config, proven: &Proven, ring: Keyring) -> Result<Box<dyn Source>> {
    let spec = config.source.clone().ok_or_else(|| {
        Error::new(Kind::Config, "no source of updates is named")
            .hint("set server, registry or layout in update.conf, or give --server, --registry or --layout")
    })?;
    let mut options = HttpOptions::new(system);
    options.clock_floor_secs = proven.no_earlier_than(0);
    if let SourceSpec::Layout { .. } = spec {
        // What is set for a network must not stand in the way of a stick.
        return source::open_source(spec, &Client::new(options)?, ring);
    }
    options.ca = config.ca_file.clone().map(Pem::File);
    options.identity = config.identity.clone();
    options.tries = config.retries.map_or(options.tries, |retries| retries + 1);
    options.timeouts.limit(config.stall_timeout, config.download_timeout);
    options.proxy = ProxyEnv::read(|name| std::env::var(name).ok());
    if let Some(path) = &config.auth_file {
        options.credentials = credentials::load(path)?;
    }
    source::open_source(spec, &Client::new(options)?, ring)
}

/// Asks the source and judges what it offers.
/// Input: `ring`: who must have signed it; `store`: where what was offered last is remembered. What is
/// [`Artifact::is_hearsay`] comes from there.
/// Errors: what the source ends with; Slot: the running slot cannot be looked into; Device: the target can not be read.
pub fn consult(
    source: &mut dyn Source,
    config: &Config,
    situation: &Situation,
    overrides: Overrides,
    ring: &Keyring,
    store: Option<&Store>,
) -> Result<(Artifact, Verdict)> {
    demand_known(situation, ring)?;
    let artifact = ask(source, ring, store)?;
    let standing = Standing {
        trial_pending: situation.trial_pending.as_deref(),
        staged_digest: situation.staged_digest,
        staged_insisted: situation.staged_insisted,
        failed: &situation.failed,
        now: situation.now,
        newest_release_secs: situation.proven.release_secs,
    };
    let views = [&situation.running, &situation.target];
    let verdict = judge(&artifact, config, views, &standing, overrides)?;
    if let Some(remark) = gate::stands_still(&artifact, &verdict, situation.now)? {
        note(&remark);
    }
    // Room that can not be told is not room.
    match (&verdict, situation.target.room_bytes, &situation.target.record) {
        (Verdict::Take, None, Err(error)) => Err(error.clone()),
        _ => Ok((artifact, verdict)),
    }
}

/// What this machine remembers, as the gates need it.
struct Standing<'a> {
    trial_pending: Option<&'a str>,
    staged_digest: Option<Digest>,
    staged_insisted: bool,
    failed: &'a [(Digest, String)],
    now: Now,
    newest_release_secs: Option<u64>,
}

/// Holds an artifact against the gates: the one place where they are called.
/// Errors: as [`gate::judge`].
fn judge(
    artifact: &Artifact,
    config: &Config,
    [running, target]: [&View; 2],
    standing: &Standing<'_>,
    overrides: Overrides,
) -> Result<Verdict> {
    let record = running.record.as_ref().ok();
    let facts = Facts {
        architecture: ARCHITECTURE,
        channel: &config.channel,
        running_version: running.version(),
        running_digest: record.and_then(|r| r.manifest_digest),
        running_files: record.map(|r| [r.kernel.sha256, r.initramfs.sha256]),
        trial_pending: standing.trial_pending,
        staged_digest: standing.staged_digest,
        staged_insisted: standing.staged_insisted,
        failed: standing.failed,
        now: standing.now,
        newest_release_secs: standing.newest_release_secs,
        room_bytes: target.room_bytes,
        window: config.window.as_ref(),
        allow_downgrade: overrides.allow_downgrade,
        retry_failed: overrides.retry_failed,
        ignore_window: overrides.ignore_window,
    };
    gate::judge(artifact, &facts)
}

/// Says whether what the source offered last would be taken now, as far as that can be told without asking it: nobody is
/// asked, and no signature is proven.
pub fn would_take(report: &Report, config: &Config, now: Now) -> bool {
    let (Some(offered), Some(running)) = (&report.offered, report.running) else { return false };
    let [a, b] = &report.slots;
    let views = if running == Slot::A { [a, b] } else { [b, a] };
    let failed = report.failures.refusals(report.boot_id.as_deref());
    let (mut proven, mut trial_pending) = (report.proven.clone(), None);
    if let Some(vars) = &report.vars {
        trial_pending = pending_trial(running, vars);
        if let (true, Ok(record)) = (reconcile::is_confirmed(running, vars), &views[0].record) {
            proven.add_record(record, now.earliest_secs());
        }
    }
    let standing = Standing {
        trial_pending: trial_pending.as_deref(),
        staged_digest: staged_digest(&report.state, views[1]),
        staged_insisted: report.state.insisted,
        failed: &failed,
        now: now.with_floor(proven.no_earlier_than(0)),
        newest_release_secs: proven.release_secs,
    };
    let overrides = Overrides { allow_downgrade: false, retry_failed: false, ignore_window: false };
    let verdict = judge(offered, config, views, &standing, overrides);
    // Room that can not be told is not room.
    report.stopped.is_none() && views[1].room_bytes.is_some() && verdict.is_ok_and(|verdict| verdict == Verdict::Take)
}

/// Asks what is offered; in one request, where nothing has changed since it was asked last.
fn ask(source: &mut dyn Source, ring: &Keyring, store: Option<&Store>) -> Result<Artifact> {
    let described = source.describe();
    if let Some(seen) = store.and_then(Store::seen)
        && seen.artifact.source == described
        // What was verified then, by the same keys, and with the same revoked.
        && seen.keyring == ring.fingerprint()
        && source.is_unchanged(&seen.validator)
    {
        return Ok(seen.artifact);
    }
    let artifact = resolve(source, ARCHITECTURE)?;
    if let (Some(store), Some(validator)) = (store, source.validator()) {
        store.remember_seen(&Seen { validator, keyring: ring.fingerprint(), artifact: artifact.clone() });
    }
    Ok(artifact)
}

/// Asks what is offered, and who signed it: a mirror, where the first place lacks the signature or keeps it back.
/// Errors: as [`Source::resolve`]; the first place's, if no other had better.
pub fn resolve(source: &mut dyn Source, architecture: &str) -> Result<Artifact> {
    let mut first = None;
    loop {
        match source.resolve(architecture) {
            Ok(artifact) => return Ok(artifact),
            Err(e) if e.kind() == Kind::Signature && source.doubt() => {
                setback(&e, "asking the next place");
                first.get_or_insert(e);
            }
            Err(e) => return Err(first.unwrap_or(e)),
        }
    }
}

/// Refuses to decide anything while the running slot cannot be looked into: perhaps the other one is the only one that boots.
/// Errors: Slot: it cannot be mounted.
pub fn demand_known(situation: &Situation, ring: &Keyring) -> Result<()> {
    let running = &situation.running;
    let (true, Err(e)) = (next_step::is_unknown(running), &running.record) else { return Ok(()) };
    if e.is_unseen() {
        // Nothing is known of it, and it has its own way out.
        return Err(e.clone());
    }
    let memory = Memory { refusals: &situation.failed, proven: &situation.proven, ring: &Ok(ring.clone()) };
    let staged = (situation.staged_digest.is_some(), situation.staged_insisted);
    let other = Other::of(&situation.target, staged, &memory);
    Err(Error::new(Kind::Slot, e.to_string())
        .at("find the version of", format!("the running slot {}", running.slot))
        .hint(next_step::way_on(running.slot, true, other, true)))
}

/// Reads what the gates need, without the lock and without recording anything.
fn look(system: &System, machine: &Machine<'_>, store: Option<&Store>) -> Result<Situation> {
    let running: Slot = machine.running()?;
    let (state, mut failures, mut proven) = match store {
        Some(store) => {
            let (state, failures, proven) = (store.state(), store.failures(), store.proven());
            let damage = [state.damage, failures.damage, proven.damage];
            damage.iter().flatten().for_each(|e| note(&format!("{e}; it counts as empty here")));
            (state.value, failures.value, proven.value)
        }
        None => (State::default(), Failures::default(), Proven::default()),
    };
    let boot_id = machine.boot_id();
    let (mut trial_pending, mut is_confirmed) = (None, false);
    match machine.boot_env(Access::Read).and_then(|env| Ok(env.files.load().usable()?.1)) {
        Err(e) => note(&format!("{e}; whether a trial is pending is not known")),
        Ok(vars) => {
            trial_pending = pending_trial(running, &vars);
            is_confirmed = reconcile::is_confirmed(running, &vars);
            let seen = reconcile::Seen { running, vars, boot_id: boot_id.as_deref(), skipped: machine.skipped() };
            // A rollback that no changing command has recorded yet counts all the same.
            remember(&mut failures, &reconcile::find(&state, &seen), &state, machine);
        }
    }
    let (running, target) = (machine.view(running), machine.view(running.other()));
    if let (true, Ok(record)) = (is_confirmed, &running.record) {
        proven.add_record(record, system.now().earliest_secs());
    }
    let now = system.now().with_floor(proven.no_earlier_than(0));
    let staged_digest = staged_digest(&state, &target);
    let (staged_insisted, failed) = (state.insisted, failures.refusals(boot_id.as_deref()));
    Ok(Situation { running, target, trial_pending, staged_digest, staged_insisted, failed, now, proven })
}

/// Returns what is staged in the target slot, as far as that can be told without reading its files.
pub fn staged_digest(state: &State, target: &View) -> Option<Digest> {
    let digest = target.record.as_ref().ok()?.manifest_digest?;
    let is_staged = state.phase == Phase::Staged && state.target_slot == Some(target.slot);
    (is_staged && state.manifest_digest == Some(digest)).then_some(digest)
}

fn describe(
    out: &mut dyn Write,
    artifact: &Artifact,
    verdict: &Verdict,
    situation: &Situation,
    ring: &Keyring,
    overrides: Overrides,
) -> Result<()> {
    let running = situation.running.version().unwrap_or("(unknown version)");
    tell(out, &format!("Running   {} (slot {}, {ARCHITECTURE})", printable(running), situation.running.slot))?;
    let (kernel, initramfs) = (human_size(artifact.kernel.size_bytes), human_size(artifact.initramfs.size_bytes));
    tell(
        out,
        &format!("Offered   {} from {}", printable(&artifact.version), printable(&gate::place(&artifact.source))),
    )?;
    tell(out, &format!("          kernel {kernel}, initramfs {initramfs}, {}", artifact.digest))?;
    if let Some(index) = artifact.index_digest {
        tell(out, &format!("          index {index}"))?;
    }
    tell(out, &format!("Signed    {}", signers(&artifact.signed_by, ring)))?;
    for (name, value) in [("Released", &artifact.release_date), ("Expires ", &artifact.expires)] {
        if let Some(value) = value {
            tell(out, &format!("{name}  {}", printable(value)))?;
        }
    }
    for line in artifact.release_notes.iter().flat_map(|notes| notes.lines()).take(20) {
        tell(out, &format!("Notes     {}", printable(line)))?;
    }
    let result = match verdict {
        Verdict::Take => format!("an update is available; `kubesolo-update apply{}` takes it", overrides.options()),
        Verdict::UpToDate => "up to date".to_string(),
        Verdict::Staged => {
            format!("staged in slot {}; `kubesolo-update activate` lets GRUB try it", situation.target.slot)
        }
        Verdict::Refused(refusals) => {
            format!("refused: {}", gate::reasons(refusals))
        }
    };
    tell(out, &format!("Result    {}", printable(&result)))
}

/// Names those who signed an artifact.
pub fn signers(signed_by: &[Digest], ring: &Keyring) -> String {
    let names: Vec<String> = signed_by.iter().map(|id| ring.name(*id)).collect();
    match names.is_empty() {
        true => "not checked: signature = off, and no key is installed".to_owned(),
        false => format!("by {}", printable(&names.join(", "))),
    }
}

fn answer(out: &mut Reply, artifact: &Artifact, verdict: &Verdict, situation: &Situation) {
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
    offered(members, artifact);
}

/// Adds what a source offers, as `offered`.
pub fn offered(members: &mut Members, artifact: &Artifact) {
    members.open("offered", '{');
    facts(members, artifact);
    members.close('}');
}

/// Adds what is said of an artifact.
pub fn facts(members: &mut Members, artifact: &Artifact) {
    let text = |value: &Option<String>| value.as_deref().map(printable);
    let size = artifact.kernel.size_bytes.saturating_add(artifact.initramfs.size_bytes);
    members.field("version", &printable(&artifact.version));
    members.field("channel", &text(&artifact.channel));
    members.field("architecture", &text(&artifact.architecture));
    members.field("manifest_digest", &artifact.digest.to_string());
    members.field("index_digest", &artifact.index_digest.map(|d| d.to_string()));
    members.field("signed_by", &Digest::texts(&artifact.signed_by));
    members.field("source", &printable(&artifact.source));
    members.field("size_bytes", &size);
    members.field("min_compatible_version", &text(&artifact.min_compatible_version));
    members.field("release_date", &text(&artifact.release_date));
    members.field("release_notes", &text(&artifact.release_notes));
    members.field("expires", &text(&artifact.expires));
}
