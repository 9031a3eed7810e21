//! What can be seen of a machine from outside, read without the agent's code: boot variables, state, slots.

use crate::support::disk::Disk;
use crate::support::release::{Medium, Release};
use kubesolo_update::parts::slot::record::Slot;
use miniserde::json::{self, Value};
use std::collections::{BTreeMap, BTreeSet};

const SIGNATURE: &str = "# GRUB Environment Block\n";

/// What one copy of the boot variables says, or the first good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vars {
    pub active: Slot,
    pub success: bool,
    pub counter: u8,
    pub rollback_from: Option<Slot>,
    pub canary: bool,
}

impl Vars {
    /// Reads a copy that is as it should be. `None`: it is not.
    pub fn read(bytes: &[u8]) -> Option<Vars> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() == 1024)?;
        let body = text.strip_prefix(SIGNATURE)?.trim_end_matches('#');
        let vars: BTreeMap<&str, &str> = body.lines().map(|line| line.split_once('=')).collect::<Option<_>>()?;
        Some(Vars {
            active: Slot::parse(vars.get("active_slot")?)?,
            success: *vars.get("boot_success")? == "1",
            counter: vars.get("boot_counter")?.parse().ok()?,
            rollback_from: Slot::parse(vars.get("rollback_from").unwrap_or(&"")),
            canary: vars.get("boot_canary") == Some(&"1"),
        })
    }

    /// The common ones on one line.
    pub fn line(&self) -> String {
        let (active, success) = (self.active.letter(), u8::from(self.success));
        let from = self.rollback_from.map_or("none".into(), |slot| slot.letter().to_string());
        format!("active {active} success {success} counter {} rollback_from {from}", self.counter)
    }
}

/// A field of a JSON object.
pub fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => object.get(name),
        _ => None,
    }
}

/// A text field of a JSON object.
pub fn text(value: &Value, name: &str) -> Option<String> {
    match field(value, name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

fn number(value: &Value, name: &str) -> u64 {
    match field(value, name) {
        Some(Value::Number(json::Number::U64(n))) => *n,
        _ => 0,
    }
}

/// `state.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub phase: String,
    pub resume_phase: Option<String>,
    pub to_version: Option<String>,
    pub count: u64,
    pub total: u64,
    /// Those that are counted, and the one that waits for its restart.
    pub rollbacks: u64,
    pub counted: u64,
    pub under_way: bool,
    pub error: Option<String>,
    pub error_kind: Option<String>,
    pub target: Option<Slot>,
    pub digest: Option<String>,
    /// What was taken back before it ever booted.
    pub called_off: Option<String>,
    /// A person insisted on what is staged.
    pub insisted: bool,
    /// Of each attempt of the history, in order: when it began, and how often it ended so. `None`: the file has no history.
    pub history: Option<Vec<(String, u64)>>,
    /// Phase that it has once a check is answered.
    pub answered: String,
}

impl State {
    /// Reads it. A file that is not there is a machine that has tried nothing. Errors: what is wrong with it.
    pub fn read(file: Option<&str>) -> Result<State, String> {
        let value: Value = match file {
            None => Value::Object(Default::default()),
            Some(file) => json::from_str(file).map_err(|_| format!("state.json is no JSON: {file}"))?,
        };
        let phase = text(&value, "phase").or(file.is_none().then(|| "idle".into()));
        let history = match field(&value, "history") {
            Some(Value::Array(entries)) => {
                Some(entries.iter().map(|e| (text(e, "started_at").unwrap_or_default(), number(e, "count"))).collect())
            }
            _ => file.is_none().then(Vec::new),
        };
        let phase = phase.ok_or("state.json has no phase")?;
        Ok(State {
            answered: answered(&phase, &value),
            phase,
            resume_phase: text(&value, "resume_phase"),
            to_version: text(&value, "to_version"),
            count: number(&value, "attempt_count"),
            total: number(&value, "attempts_total"),
            rollbacks: number(&value, "rollbacks_total") + u64::from(under_way(&value)),
            counted: number(&value, "rollbacks_total"),
            under_way: under_way(&value),
            error: text(&value, "last_error"),
            error_kind: text(&value, "last_error_kind"),
            target: text(&value, "target_slot").and_then(|slot| Slot::parse(&slot)),
            digest: text(&value, "manifest_digest"),
            called_off: text(&value, "called_off"),
            insisted: matches!(field(&value, "insisted"), Some(Value::Bool(true))),
            history,
        })
    }
}

/// A rollback that waits for the restart is not counted yet.
fn under_way(value: &Value) -> bool {
    matches!(field(value, "under_way"), Some(Value::Bool(true)))
}

/// How often what is undecided is tried again.
const RETRIES: u64 = 2;

/// Digests in `failed.json` that must not be tried by themselves. Input: `boot`: this boot's id.
pub fn refused(failed: &str, boot: &str) -> BTreeSet<String> {
    let value: Value = json::from_str(failed).unwrap_or(Value::Null);
    let Some(Value::Array(entries)) = field(&value, "failed") else { return BTreeSet::new() };
    let is_refused = |entry: &&Value| match text(entry, "undecided").as_deref() {
        None | Some("unhealthy") => true,
        Some("recovered") => number(entry, "tries") > RETRIES,
        Some("unchecked") => number(entry, "tries") > RETRIES || text(entry, "boot_id").as_deref() == Some(boot),
        other => panic!("undecided: {other:?}"),
    };
    entries.iter().filter(is_refused).filter_map(|entry| text(entry, "manifest_digest")).collect()
}

/// A check that failed is over when one is answered: then the state is that of the attempt before.
fn answered(phase: &str, value: &Value) -> String {
    let Some(Value::Array(entries)) = field(value, "history") else { return phase.into() };
    if phase != "failed" || entries.last().is_none_or(|newest| text(newest, "slot").is_some()) {
        return phase.into();
    }
    let placed = entries.iter().rev().find(|entry| text(entry, "slot").is_some());
    let result = placed.and_then(|entry| text(entry, "result"));
    // What was called off is over, and came to nothing.
    result.filter(|result| ["success", "failed", "rolled_back"].contains(&result.as_str())).unwrap_or("idle".into())
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// By its record.
    pub version: Option<String>,
    pub digest: Option<String>,
    /// GRUB can load it: both files are there, whatever is in them.
    pub loads: bool,
    /// Both files are there as long as the record says.
    pub fits: bool,
    /// Every byte is that of a good release, the one that the record names.
    pub whole: bool,
}

/// What a publisher made of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Good,
    /// A file that is not what the manifest says.
    Damaged,
    /// For the other architecture alone.
    Foreign,
    Expired,
}

/// A release and where it lies.
pub struct Offer {
    pub make: Make,
    pub release: Release,
    pub medium: Medium,
}

/// What slots hold when a machine is made.
pub struct Born {
    pub kernel: Vec<u8>,
    pub initramfs: Vec<u8>,
}

/// Reads a slot as GRUB would: no journal is replayed.
pub fn content(disk: &Disk, number: u32, offers: &[Offer], born: Option<&Born>) -> Content {
    let (kernel, initramfs) = (disk.file(number, "vmlinuz"), disk.file(number, "kubesolo-os.gz"));
    let record: Option<Value> = disk.text(number, "slot.json").and_then(|text| json::from_str(&text).ok());
    let loads = [&kernel, &initramfs].iter().all(|file| file.as_ref().is_some_and(|bytes| !bytes.is_empty()));
    let none = Content { version: None, digest: None, loads, fits: false, whole: false };
    let (Some(record), Some(kernel), Some(initramfs)) = (record, kernel, initramfs) else { return none };
    let (version, digest) = (text(&record, "version"), text(&record, "manifest_digest"));
    let size = |name: &str| field(&record, name).map_or(0, |file| self::number(file, "size"));
    let fits = (size("kernel"), size("initramfs")) == (kernel.len() as u64, initramfs.len() as u64);
    let fits = fits && !disk.needs_recovery(number);
    let good = match &digest {
        // The only one without a digest is what the image was made with.
        None => born.is_none_or(|born| born.kernel == kernel && born.initramfs == initramfs),
        Some(digest) => offers.iter().any(|offer| {
            let ours = offer.release.ours();
            offer.make == Make::Good
                && offer.medium.digest == *digest
                && version.as_ref() == Some(&offer.release.version)
                && (&ours.kernel, &ours.initramfs) == (&kernel, &initramfs)
        }),
    };
    Content { version, digest, loads, fits, whole: good && fits }
}
