//! The last attempts and how each ended, for people and tools. Pure.
//!
//! Part of `state.json`. One entry is one attempt: it begins with the download, or with a failure before that, and its
//! result follows the phase to the end. A repeated identical failure is counted, not listed again.
//! Must never: grow without bound, or lose the state over one broken entry: such an entry is dropped.

use crate::base::error::Kind;
use crate::base::json::Field;
use crate::base::text::printable;
use crate::base::time::Moment;
use crate::ledger::phase::Phase;
use crate::slot::record::Slot;
use miniserde::ser::{self, Fragment};
use miniserde::{Deserialize, Serialize, de, json, make_place};
use std::borrow::Cow;

/// Attempts kept, not counting a download in progress, which may turn out to repeat the last one.
pub const KEPT: usize = 20;
/// Longest version kept, in bytes: the longest that a version may be.
pub const VERSION_MAX_BYTES: usize = 128;
/// Longest reason in an entry, in bytes; the last attempt's is in `last_error` in full.
const ERROR_MAX_BYTES: usize = 200;
/// Reason of an attempt that was called off before its first boot.
const CALLED_OFF: &str = "called off before its first boot";
/// The same for a rollback.
const ROLLBACK_CALLED_OFF: &str = "rollback: called off before its first boot";
/// Error kind of an attempt that rolled back.
pub const ROLLBACK: &str = "rollback";

/// A text of an attempt, which may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Version that was running when it began.
    FromVersion,
    /// Version it aimed at; for a rollback: the version that was left.
    ToVersion,
    /// Slot for that version. None: it failed before that was known.
    Slot,
    /// Name of the phase it reached; always present, never idle or checking.
    Result,
    /// Label of the error's kind, or [`ROLLBACK`].
    ErrorKind,
    /// Why it failed or was rolled back, cut to 200 bytes.
    Error,
    /// When it first began (RFC 3339); always present.
    StartedAt,
    /// When it last reached this result (RFC 3339). None: it is downloading or verifying.
    EndedAt,
}

/// JSON names of the parts, in their order.
const NAMES: [&str; 8] =
    ["from_version", "to_version", "slot", "result", "error_kind", "error", "started_at", "ended_at"];
const COUNT: &str = "count";

/// One attempt: an array of checked texts, so that one loop reads them all and one writes them (size-budget.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    texts: [Option<String>; 8],
    /// How often it ended this way, consecutively.
    pub count: u64,
}

/// The remembered attempts, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Vec<Attempt>);

#[derive(Deserialize)]
struct Raw {
    history: Option<Vec<RawAttempt>>,
}

#[derive(Default)]
struct RawAttempt {
    texts: [Option<Field<String>>; 8],
    count: Option<Field<u64>>,
}

impl History {
    /// Parses the history in a state file.
    /// Input: a JSON document with a member `history`.
    /// Returns: the valid entries; none if it is not a list of objects.
    pub fn parse(state: &str) -> History {
        let raw: Option<Raw> = json::from_str(state).ok();
        let mut history = History::default();
        for raw in raw.and_then(|raw| raw.history).unwrap_or_default() {
            history.0.extend(Attempt::read(raw));
        }
        history.bound();
        history
    }

    /// Returns the attempts, oldest first, as they are written to JSON.
    pub fn attempts(&self) -> &Vec<Attempt> {
        &self.0
    }

    /// Returns the attempts in the order in which they ended, one in progress last; those that ended at the same time in the
    /// order of recording. A clock that was set back meanwhile is believed: both times are in the entry.
    pub fn by_end(&self) -> Vec<&Attempt> {
        let mut sorted: Vec<&Attempt> = Vec::new();
        // The times are RFC 3339 in UTC, of equal length, so they sort as text. (The library's sort takes some KB.)
        let end = |attempt: &Attempt| attempt.text(Part::EndedAt).unwrap_or("~").to_owned();
        for attempt in &self.0 {
            let before = sorted.iter().rposition(|other| end(other) <= end(attempt));
            sorted.insert(before.map_or(0, |at| at + 1), attempt);
        }
        sorted
    }

    /// Follows the state into a phase.
    /// Input: `before`: the phase it comes from; `now`: the attempt as the state tells it.
    ///
    /// An attempt that succeeded or rolled back is over: what follows is another one.
    pub fn follow(&mut self, before: Phase, mut now: Attempt) {
        let goes_on = !matches!(before, Phase::Success | Phase::RolledBack);
        // Failed checks in between have no slot.
        let last = self.0.iter_mut().rev().find(|attempt| attempt.text(Part::Slot).is_some());
        match last {
            Some(last) if goes_on && last.has_come_to(before) && last.is_about(&now) => {
                for part in [Part::Result, Part::ErrorKind, Part::Error, Part::EndedAt] {
                    last.texts[part as usize] = now.texts[part as usize].take();
                }
            }
            _ => self.0.push(now),
        }
        self.settle();
    }

    /// Adds an attempt that failed before its download was chosen.
    pub fn add_check(&mut self, kind: &str, why: &str, at: &str) {
        let mut attempt = Attempt::new(Phase::Failed, at);
        attempt.set(Part::ErrorKind, Some(kind));
        attempt.set(Part::Error, Some(why));
        attempt.set(Part::EndedAt, Some(at));
        self.0.push(attempt);
        self.settle();
    }

    /// Marks the newest attempt as called off before its first boot. Input: `at`: when.
    pub fn call_off(&mut self, at: Option<&str>) {
        let last = self.0.iter_mut().rfind(|attempt| attempt.text(Part::Slot).is_some());
        if let Some(last) = last {
            last.set(Part::Error, Some(CALLED_OFF));
            last.set(Part::EndedAt, at);
        }
    }

    /// Rewrites the newest attempt, a rollback called off before its first boot, as what it came to: its target slot was
    /// activated, and no slot was left. Input: `from`: version that runs; `to`: version in that slot; `at`: when.
    pub fn call_off_rollback(&mut self, from: Option<&str>, to: Option<&str>, slot: Slot, at: Option<&str>) {
        let last = self.0.iter_mut().rfind(|attempt| attempt.text(Part::Slot).is_some());
        if let Some(last) = last.filter(|last| last.has_come_to(Phase::RolledBack)) {
            last.set(Part::FromVersion, from);
            last.set(Part::ToVersion, to);
            last.set(Part::Slot, Some(slot.name()));
            last.set(Part::Result, Some(Phase::Activated.name()));
            last.set(Part::ErrorKind, None);
            last.set(Part::Error, Some(ROLLBACK_CALLED_OFF));
            last.set(Part::EndedAt, at);
        }
    }

    /// Returns the newest attempt with a known target.
    pub fn last_placed(&self) -> Option<&Attempt> {
        self.0.iter().rfind(|attempt| attempt.text(Part::Slot).is_some())
    }

    /// Returns whether the newest entry is a failed check.
    pub fn ends_in_failed_checks(&self) -> bool {
        self.0.last().is_some_and(|newest| newest.text(Part::Slot).is_none() && newest.has_come_to(Phase::Failed))
    }

    fn settle(&mut self) {
        self.merge();
        self.bound();
    }

    /// Merges the newest failure with an identical one among the failures directly before it.
    fn merge(&mut self) {
        let failures = self.0.iter().rev().take_while(|attempt| attempt.has_come_to(Phase::Failed)).count();
        let Some(mut newest) = self.0.pop() else { return };
        for at in (self.0.len() + 1).saturating_sub(failures)..self.0.len() {
            if self.0[at].is_about(&newest) && self.0[at].text(Part::ErrorKind) == newest.text(Part::ErrorKind) {
                let old = self.0.remove(at);
                newest.count = newest.count.saturating_add(old.count);
                newest.set(Part::StartedAt, old.text(Part::StartedAt));
                break;
            }
        }
        self.0.push(newest);
    }

    /// Drops the oldest: those that failed before a download first.
    fn bound(&mut self) {
        let is_loading = self.0.last().is_some_and(|newest| newest.has_come_to(Phase::Downloading));
        while self.0.len() > KEPT + usize::from(is_loading) {
            let before_newest = &self.0[..self.0.len() - 1];
            let least = before_newest.iter().position(|attempt| attempt.text(Part::Slot).is_none());
            self.0.remove(least.unwrap_or(0));
        }
    }
}

impl Attempt {
    /// Makes an attempt that begins now. Input: `at`: RFC 3339.
    pub fn new(result: Phase, at: &str) -> Attempt {
        let mut attempt = Attempt { texts: Default::default(), count: 1 };
        attempt.set(Part::Result, Some(result.name()));
        attempt.set(Part::StartedAt, Some(at));
        attempt
    }

    /// Sets a text, cut to its limit.
    pub fn set(&mut self, part: Part, text: Option<&str>) {
        self.texts[part as usize] = text.map(|text| cut(text, part.max_bytes()));
    }

    /// Returns a text, if present.
    pub fn text(&self, part: Part) -> Option<&str> {
        self.texts[part as usize].as_deref()
    }

    /// Returns whether its result is this phase.
    pub fn has_come_to(&self, phase: Phase) -> bool {
        self.text(Part::Result) == Some(phase.name())
    }

    fn is_about(&self, other: &Attempt) -> bool {
        [Part::ToVersion, Part::Slot].into_iter().all(|part| self.text(part) == other.text(part))
    }

    fn read(raw: RawAttempt) -> Option<Attempt> {
        let mut attempt = Attempt { texts: Default::default(), count: 1 };
        match raw.count {
            None | Some(Field::Missing) => {}
            Some(Field::Is(count)) if count > 0 => attempt.count = count,
            Some(_) => return None,
        }
        for (part, text) in Part::ALL.into_iter().zip(raw.texts) {
            let text = match text {
                None | Some(Field::Missing) => continue,
                Some(Field::Wrong) => return None,
                Some(Field::Is(text)) => text,
            };
            let makes_sense = match part {
                Part::Slot => Slot::parse(&text).is_some(),
                Part::Result => Phase::parse(&text).is_some_and(|p| !matches!(p, Phase::Idle | Phase::Checking)),
                Part::StartedAt | Part::EndedAt => Moment::parse_own(&text).is_some(),
                // Perhaps a newer agent's.
                Part::ErrorKind if !is_kind(&text) => continue,
                _ => true,
            };
            if !makes_sense {
                return None;
            }
            attempt.set(part, Some(&text));
        }
        let is_whole = attempt.text(Part::StartedAt).is_some() && attempt.text(Part::Result).is_some();
        let is_placed = attempt.text(Part::Slot).is_some() || attempt.has_come_to(Phase::Failed);
        (is_whole && is_placed).then_some(attempt)
    }
}

impl Part {
    const ALL: [Part; 8] = [
        Part::FromVersion,
        Part::ToVersion,
        Part::Slot,
        Part::Result,
        Part::ErrorKind,
        Part::Error,
        Part::StartedAt,
        Part::EndedAt,
    ];

    fn max_bytes(self) -> usize {
        if self == Part::Error { ERROR_MAX_BYTES } else { VERSION_MAX_BYTES }
    }
}

impl Serialize for Attempt {
    fn begin(&self) -> Fragment<'_> {
        Fragment::Map(Box::new(Writer { attempt: self, at: 0 }))
    }
}

struct Writer<'a> {
    attempt: &'a Attempt,
    at: usize,
}

impl ser::Map for Writer<'_> {
    fn next(&mut self) -> Option<(Cow<'_, str>, &dyn Serialize)> {
        self.at += 1;
        match NAMES.get(self.at - 1) {
            Some(name) => Some((Cow::Borrowed(name), &self.attempt.texts[self.at - 1])),
            None if self.at == NAMES.len() + 1 => Some((Cow::Borrowed(COUNT), &self.attempt.count)),
            None => None,
        }
    }
}

make_place!(Place);

impl Deserialize for RawAttempt {
    fn begin(out: &mut Option<Self>) -> &mut dyn de::Visitor {
        Place::new(out)
    }
}

impl de::Visitor for Place<RawAttempt> {
    fn map(&mut self) -> miniserde::Result<Box<dyn de::Map + '_>> {
        Ok(Box::new(Reader { raw: Default::default(), out: &mut self.out }))
    }
}

struct Reader<'a> {
    raw: RawAttempt,
    out: &'a mut Option<RawAttempt>,
}

impl de::Map for Reader<'_> {
    fn key(&mut self, key: &str) -> miniserde::Result<&mut dyn de::Visitor> {
        Ok(match NAMES.iter().position(|name| *name == key) {
            Some(part) => Deserialize::begin(&mut self.raw.texts[part]),
            None if key == COUNT => Deserialize::begin(&mut self.raw.count),
            None => <dyn de::Visitor>::ignore(),
        })
    }

    fn finish(&mut self) -> miniserde::Result<()> {
        *self.out = Some(std::mem::take(&mut self.raw));
        Ok(())
    }
}

/// Cuts an optional text, see [`cut`].
#[inline(never)]
pub fn limited(text: Option<String>, max_bytes: usize) -> Option<String> {
    text.map(|text| cut(&text, max_bytes))
}

/// Returns whether a text is the label of an error's kind, or [`ROLLBACK`].
pub fn is_kind(text: &str) -> bool {
    text == ROLLBACK || Kind::ALL.iter().any(|kind| kind.label() == text)
}

/// Makes a text safe for a terminal and a file of limited size.
/// Returns: at most `max_bytes`; a longer text ends in `…`. Idempotent.
pub fn cut(text: &str, max_bytes: usize) -> String {
    let mut text = printable(text);
    if text.len() > max_bytes {
        let mut end = max_bytes.saturating_sub('…'.len_utf8());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
