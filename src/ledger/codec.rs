//! Encodes and parses `state.json`: lenient for what is only reported, strict for what decides something. Pure.
//!
//! Must never: write a file that is too large to be read again.

use super::state::{BOOT_ID_MAX_BYTES, CAUSE_MAX_BYTES, Phase, State, TEXT_MAX_BYTES};
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::Moment;
use crate::ledger::history::{self, History, VERSION_MAX_BYTES};
use crate::ledger::traffic::Traffic;
use crate::slot::record::Slot;
use miniserde::{Deserialize, Serialize, json};

#[derive(Serialize, Deserialize)]
struct Raw {
    phase: String,
    resume_phase: Option<String>,
    from_version: Option<String>,
    to_version: Option<String>,
    attempt_count: Option<u64>,
    attempts_total: Option<u64>,
    rollbacks_total: Option<u64>,
    fetched_bytes_total: Option<u64>,
    copied_bytes_total: Option<u64>,
    under_way: Option<bool>,
    last_error: Option<String>,
    last_error_kind: Option<String>,
    started_at: Option<String>,
    updated_at: Option<String>,
    target_slot: Option<String>,
    source: Option<String>,
    manifest_digest: Option<String>,
    switched_boot_id: Option<String>,
    unhealthy: Option<String>,
    unhealthy_slot: Option<String>,
    failed_check: Option<String>,
    called_off: Option<String>,
    insisted: Option<bool>,
}

impl State {
    /// Parses `state.json`.
    /// Input: UTF-8 JSON, at most [`crate::ledger::state::STATE_MAX_BYTES`].
    /// Returns: the state; malformed times, unknown error kinds and broken history entries are left out.
    /// Errors: State: not JSON, or a phase, slot or digest that does not exist.
    pub fn parse(bytes: &[u8]) -> Result<State> {
        let bad = |why: String| Error::new(Kind::State, why);
        let text = std::str::from_utf8(bytes).map_err(|_| bad("is not UTF-8".into()))?;
        let raw: Raw = json::from_str(text).map_err(|_| bad("is not a JSON object with a phase".into()))?;
        let phase = |name: &str| Phase::parse(name).ok_or_else(|| bad(format!("has the unknown phase `{name}`")));
        let slot = |name: String| Slot::parse(&name).ok_or_else(|| bad(format!("has the unknown slot `{name}`")));
        let moment = |text: Option<String>| Moment::parse_own(&text?);
        let digest = |text: String| Digest::parse(&text).map_err(|_| bad("has a malformed manifest_digest".into()));
        if phase(&raw.phase)?.needs_slot() && raw.target_slot.is_none() {
            return Err(bad(format!("is {} without a target_slot", raw.phase)));
        }
        let resume_phase = raw.resume_phase.map(|p| phase(&p)).transpose()?;
        if resume_phase.is_some_and(|resume| !resume.may_become(Phase::Checking)) {
            return Err(bad("goes back to a phase in which no check can begin".into()));
        }
        Ok(State {
            phase: phase(&raw.phase)?,
            resume_phase,
            from_version: history::limited(raw.from_version, VERSION_MAX_BYTES),
            to_version: history::limited(raw.to_version, VERSION_MAX_BYTES),
            attempt_count: raw.attempt_count.unwrap_or(0),
            attempts_total: raw.attempts_total.unwrap_or(0),
            rollbacks_total: raw.rollbacks_total.unwrap_or(0),
            traffic_total: Traffic {
                fetched_bytes: raw.fetched_bytes_total.unwrap_or(0),
                copied_bytes: raw.copied_bytes_total.unwrap_or(0),
            },
            is_under_way: raw.under_way.unwrap_or(false),
            last_error: history::limited(raw.last_error, TEXT_MAX_BYTES),
            last_error_kind: raw.last_error_kind.filter(|kind| history::is_kind(kind)),
            started_at: moment(raw.started_at),
            updated_at: moment(raw.updated_at),
            target_slot: raw.target_slot.map(slot).transpose()?,
            source: history::limited(raw.source, TEXT_MAX_BYTES),
            manifest_digest: raw.manifest_digest.map(digest).transpose()?,
            switched_boot_id: history::limited(raw.switched_boot_id, BOOT_ID_MAX_BYTES),
            unhealthy: history::limited(raw.unhealthy, CAUSE_MAX_BYTES),
            unhealthy_slot: raw.unhealthy_slot.map(slot).transpose()?,
            failed_check: history::limited(raw.failed_check, VERSION_MAX_BYTES),
            called_off: raw.called_off.map(digest).transpose()?,
            insisted: raw.insisted.unwrap_or(false),
            history: History::parse(text),
        })
    }

    /// Writes the state as one JSON line.
    pub fn encode(&self) -> String {
        let mut text = json::to_string(&Raw {
            phase: self.phase.name().into(),
            resume_phase: self.resume_phase.map(|p| p.name().into()),
            from_version: self.from_version.clone(),
            to_version: self.to_version.clone(),
            attempt_count: Some(self.attempt_count),
            attempts_total: Some(self.attempts_total),
            rollbacks_total: Some(self.rollbacks_total),
            fetched_bytes_total: Some(self.traffic_total.fetched_bytes),
            copied_bytes_total: Some(self.traffic_total.copied_bytes),
            under_way: self.is_under_way.then_some(true),
            last_error: self.last_error.clone(),
            last_error_kind: self.last_error_kind.clone(),
            started_at: self.started_at.map(|moment| moment.to_string()),
            updated_at: self.updated_at.map(|moment| moment.to_string()),
            target_slot: self.target_slot.map(|s| s.to_string()),
            source: self.source.clone(),
            manifest_digest: self.manifest_digest.map(|d| d.to_string()),
            switched_boot_id: self.switched_boot_id.clone(),
            unhealthy: self.unhealthy.clone(),
            unhealthy_slot: self.unhealthy_slot.map(|s| s.to_string()),
            failed_check: self.failed_check.clone(),
            called_off: self.called_off.map(|d| d.to_string()),
            insisted: self.insisted.then_some(true),
        });
        // A separate object with its own parser, so that a broken history costs only itself.
        text.pop();
        text.push_str(",\"history\":");
        text.push_str(&json::to_string(self.history.attempts()));
        text.push_str("}\n");
        text
    }
}
