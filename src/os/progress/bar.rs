//! Progress, rate and remaining time of a long step. Pure: the time is given.
//!
//! Must never: count bytes that were there already as moved, or show a remaining time that is not known.

use crate::base::text::{human_size, of_size};
use std::collections::VecDeque;
use std::time::Duration;

/// Longest period over which the rate is averaged.
const WINDOW: Duration = Duration::from_secs(10);
/// Shortest such period.
const KNOWN_AFTER: Duration = Duration::from_secs(1);
/// Time between samples: at most 20 are kept.
const SAMPLE: Duration = Duration::from_millis(500);
/// Time without a byte after which the line says so instead of a rate.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// A longer remaining time counts as unknown.
const LONGEST_SECS: u64 = 99 * 3600;

/// One pass over the bytes: fetching, reading back.
pub struct Phase {
    what: String,
    total_bytes: u64,
    done_bytes: u64,
    /// Bytes that will be copied from what is at hand, and those that were.
    at_hand_bytes: u64,
    copied_bytes: u64,
    /// In bytes per second, as last known.
    rate: u64,
}

impl Phase {
    /// A phase that has not begun. Input: `what`: "fetching", for example; `total_bytes`: 0: not known.
    pub fn new(what: &str, total_bytes: u64) -> Phase {
        Phase { what: what.into(), total_bytes, done_bytes: 0, at_hand_bytes: 0, copied_bytes: 0, rate: 0 }
    }

    /// Sets how many of its bytes are at hand, and only have to be copied.
    pub fn of_which(self, at_hand_bytes: u64) -> Phase {
        Phase { at_hand_bytes, ..self }
    }
}

/// All phases of a run, one of them current.
pub struct Bar {
    phases: Vec<Phase>,
    at: usize,
    file: &'static str,
    /// Times and bytes moved by then, in this piece of this phase.
    samples: VecDeque<(Duration, u64)>,
    moved_bytes: u64,
    moved_at: Duration,
}

impl Bar {
    /// Begins with the first phase. Input: `phases`: not empty.
    pub fn new(phases: Vec<Phase>) -> Bar {
        let samples = VecDeque::new();
        Bar { phases, at: 0, file: "", samples, moved_bytes: 0, moved_at: Duration::ZERO }
    }

    /// Continues a phase, or repeats a piece of it.
    /// Input: `file`: its current file; `before_bytes`: bytes of the phase already done; `now`: since the run began.
    pub fn start(&mut self, at: usize, file: &'static str, before_bytes: u64, now: Duration) {
        self.at = at.min(self.phases.len() - 1);
        self.file = file;
        self.phases[self.at].done_bytes = before_bytes;
        // Whatever follows a repeated piece is repeated too.
        for later in &mut self.phases[self.at + 1..] {
            later.done_bytes = later.done_bytes.min(before_bytes);
        }
        self.moved_bytes = 0;
        self.moved_at = now;
        self.samples.clear();
        self.samples.push_back((now, 0));
    }

    /// Adds bytes that were there already.
    pub fn found(&mut self, bytes: u64, now: Duration) {
        self.phases[self.at].done_bytes += bytes;
        self.moved_at = now;
        // Nothing was moved before, so that time does not count.
        self.samples.clear();
        self.samples.push_back((now, self.moved_bytes));
    }

    /// Adds bytes that were copied from what is at hand.
    pub fn copied(&mut self, bytes: u64, now: Duration) {
        let phase = &mut self.phases[self.at];
        phase.done_bytes = phase.done_bytes.saturating_add(bytes);
        phase.copied_bytes = phase.copied_bytes.saturating_add(bytes);
        self.moved_at = now;
    }

    /// Adds bytes that were moved.
    pub fn moved(&mut self, bytes: u64, now: Duration) {
        let phase = &mut self.phases[self.at];
        phase.done_bytes = phase.done_bytes.saturating_add(bytes);
        self.moved_bytes = self.moved_bytes.saturating_add(bytes);
        self.moved_at = now;
        if self.samples.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= SAMPLE) {
            self.samples.push_back((now, self.moved_bytes));
        }
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
            self.samples.pop_front();
        }
        if let Some((since, before)) = self.samples.front()
            && now.saturating_sub(*since) >= KNOWN_AFTER
        {
            let millis = now.saturating_sub(*since).as_millis() as u64;
            phase.rate = (self.moved_bytes - before).saturating_mul(1000) / millis;
        }
    }

    /// Returns the progress of the phase.
    pub fn percent(&self) -> u8 {
        let phase = &self.phases[self.at];
        phase.done_bytes.saturating_mul(100).checked_div(phase.total_bytes).unwrap_or(100).min(100) as u8
    }

    /// Describes the current phase and file.
    pub fn what(&self) -> String {
        [&self.phases[self.at].what, " ", self.file].concat().trim_end().to_owned()
    }

    /// Formats the line.
    pub fn text(&self, now: Duration) -> String {
        let phase = &self.phases[self.at];
        let mut line = self.what();
        match phase.total_bytes {
            0 => line.push_str(&["  ", &human_size(phase.done_bytes)].concat()),
            total => line.push_str(&format!("  {} %  {}", self.percent(), of_size(phase.done_bytes, total))),
        }
        let still = now.saturating_sub(self.moved_at);
        if still >= STALLED_AFTER {
            return [&line, "  no bytes for ", &clock(still.as_secs())].concat();
        }
        if phase.rate > 0 && self.moved_bytes > 0 {
            line.push_str(&["  ", &human_size(phase.rate), "/s"].concat());
            if let Some(left) = self.left_secs() {
                line.push_str(&["  ", &clock(left), " left"].concat());
            }
        }
        // Last: a narrow terminal cuts it off.
        if phase.copied_bytes > 0 {
            line.push_str(&["  ", &human_size(phase.copied_bytes), " copied"].concat());
        }
        line
    }

    /// Returns the remaining time of all phases with a known rate.
    fn left_secs(&self) -> Option<u64> {
        // Copying takes next to no time.
        let rest = |phase: &Phase| {
            let at_hand = phase.at_hand_bytes.saturating_sub(phase.copied_bytes);
            phase.total_bytes.saturating_sub(phase.done_bytes).saturating_sub(at_hand).checked_div(phase.rate)
        };
        let known = self.phases[self.at].total_bytes > 0;
        let secs = self.phases.iter().filter_map(rest).fold(0u64, u64::saturating_add);
        (known && secs < LONGEST_SECS).then_some(secs)
    }
}

/// Formats minutes and seconds.
pub fn clock(secs: u64) -> String {
    format!("{}:{:02}", secs / 60, secs % 60)
}

#[cfg(test)]
#[path = "bar_tests.rs"]
mod tests;
