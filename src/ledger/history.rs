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

/// How many attempts are kept, beside one that is downloading: that may turn out to be one more of the same.
pub const KEPT: usize = 20;
/// Longest version that is kept, in bytes: as long as a version may be.
pub const VERSION_MAX_BYTES: usize = 128;
/// Longest reason in an entry, in bytes; the whole one of the last attempt is `last_error`.
const ERROR_MAX_BYTES: usize = 200;
/// What is said of an attempt that was taken back before its first boot.
const CALLED_OFF: &str = "called off before its first boot";
/// The same of a rollback.
const ROLLBACK_CALLED_OFF: &str = "rollback: called off before its first boot";
/// The kind of an attempt that rolled back.
pub const ROLLBACK: &str = "rollback";

/// A text of an attempt; each of them is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Version that ran when it began.
    FromVersion,
    /// Version it aimed at; of a rollback: the version that was left.
    ToVersion,
    /// Slot that holds, or was to hold, that version. None: it failed before that was known.
    Slot,
    /// Name of the phase that it came to; always there, never idle or checking.
    Result,
    /// Label of the error's kind, or [`ROLLBACK`].
    ErrorKind,
    /// Why it failed or was rolled back, cut to 200 bytes.
    Error,
    /// When it began, the first time (RFC 3339); always there.
    StartedAt,
    /// When it came to this result, the last time (RFC 3339). None: it is downloading or verifying.
    EndedAt,
}

/// The parts' names in JSON, in their order.
const NAMES: [&str; 8] =
    ["from_version", "to_version", "slot", "result", "error_kind", "error", "started_at", "ended_at"];
const COUNT: &str = "count";

/// One attempt: checked texts in a row, so that one loop reads and one writes them all (size-budget.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    texts: [Option<String>; 8],
    /// How often it ended so, one time after the other.
    pub count: u64,
}

/// The attempts that are remembered, oldest first.
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
    /// Reads the history in a state file.
    /// Input: a JSON document with a member `history`.
    /// Returns: the entries that make sense; none where it is no list of objects.
    pub fn parse(state: &str) -> History {
        let raw: Option<Raw> = json::from_str(state).ok();
        let mut history = History::default();
        for raw in raw.and_then(|raw| raw.history).unwrap_or_default() {
            history.0.extend(Attempt::read(raw));
        }
        history.bound();
        history
    }

    /// Returns the attempts, oldest first. They are written to JSON as they are.
    pub fn attempts(&self) -> &Vec<Attempt> {
        &self.0
    }

    /// Returns the attempts in the order in which they ended, the one that goes on last; those that fell at one moment as they
    /// were recorded. A clock that was set back meanwhile is believed: both times stand there.
    pub fn by_end(&self) -> Vec<&Attempt> {
        let mut sorted: Vec<&Attempt> = Vec::new();
        // The times are RFC 3339 in UTC, all of one length: their order is that of the letters. (The library's sort takes some KB.)
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
    /// What succeeded or rolled back is over: what comes then is another attempt.
    pub fn follow(&mut self, before: Phase, mut now: Attempt) {
        let goes_on = !matches!(before, Phase::Success | Phase::RolledBack);
        // Checks that failed meanwhile have no slot.
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

    /// Adds an attempt that failed before it was known what would be downloaded.
    pub fn add_check(&mut self, kind: &str, why: &str, at: &str) {
        let mut attempt = Attempt::new(Phase::Failed, at);
        attempt.set(Part::ErrorKind, Some(kind));
        attempt.set(Part::Error, Some(why));
        attempt.set(Part::EndedAt, Some(at));
        self.0.push(attempt);
        self.settle();
    }

    /// Says of the newest attempt that it was called off before its first boot. Input: `at`: when.
    pub fn call_off(&mut self, at: Option<&str>) {
        let last = self.0.iter_mut().rfind(|attempt| attempt.text(Part::Slot).is_some());
        if let Some(last) = last {
            last.set(Part::Error, Some(CALLED_OFF));
            last.set(Part::EndedAt, at);
        }
    }

    /// Makes of the newest attempt, a rollback that was called off before its first boot, what it came to: the slot that it was
    /// to was activated, and nothing was left. Input: `from`: version that runs; `to`: version in that slot; `at`: when.
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

    /// Returns the newest attempt of which it is known what it was to download.
    pub fn last_placed(&self) -> Option<&Attempt> {
        self.0.iter().rfind(|attempt| attempt.text(Part::Slot).is_some())
    }

    /// Says whether the newest entry is a check that failed.
    pub fn ends_in_failed_checks(&self) -> bool {
        self.0.last().is_some_and(|newest| newest.text(Part::Slot).is_none() && newest.has_come_to(Phase::Failed))
    }

    fn settle(&mut self) {
        self.merge();
        self.bound();
    }

    /// Counts the newest failure where the same one stands among the failures right before it.
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

    /// Forgets the oldest: those that failed before a download go first.
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
    /// Makes one that begins now. Input: `at`: RFC 3339.
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

    /// Returns a text, if it is there.
    pub fn text(&self, part: Part) -> Option<&str> {
        self.texts[part as usize].as_deref()
    }

    /// Says whether its result is this phase.
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
                // Of a newer agent, perhaps.
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

/// Cuts a text that may be there, see [`cut`].
#[inline(never)]
pub fn limited(text: Option<String>, max_bytes: usize) -> Option<String> {
    text.map(|text| cut(&text, max_bytes))
}

/// Says whether a text is the label of an error's kind, or [`ROLLBACK`].
pub fn is_kind(text: &str) -> bool {
    text == ROLLBACK || Kind::ALL.iter().any(|kind| kind.label() == text)
}

/// Makes a text fit for a terminal and for a file of limited size.
/// Returns: at most `max_bytes`; what was longer ends in `…`. Cutting again changes nothing.
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
