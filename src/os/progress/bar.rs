//! How far a long step is, at which rate, and how long it still takes. Pure: the time is given.
//!
//! Must never: take what was there already for what was moved, or promise a time that is not known.

use crate::base::text::{human_size, of_size};
use std::collections::VecDeque;
use std::time::Duration;

/// What a rate is the mean of, at most.
const WINDOW: Duration = Duration::from_secs(10);
/// What it is the mean of, at least.
const KNOWN_AFTER: Duration = Duration::from_secs(1);
/// Between the samples: no more than 20 are kept.
const SAMPLE: Duration = Duration::from_millis(500);
/// After so long without a byte that is said in place of a rate.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// A longer time is as good as unknown.
const LONGEST_SECS: u64 = 99 * 3600;

/// What is done with each byte: fetched, read back.
pub struct Phase {
    what: String,
    total_bytes: u64,
    done_bytes: u64,
    /// In bytes a second, as it was last known.
    rate: u64,
}

impl Phase {
    /// One of which nothing is done. Input: `what`: "fetching", for example; `total_bytes`: 0: not known.
    pub fn new(what: &str, total_bytes: u64) -> Phase {
        Phase { what: what.into(), total_bytes, done_bytes: 0, rate: 0 }
    }
}

/// All phases of a run, of which one goes on.
pub struct Bar {
    phases: Vec<Phase>,
    at: usize,
    file: &'static str,
    /// When how much had been moved, in this piece of this phase.
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

    /// Goes on with a phase, or does a piece of it again.
    /// Input: `file`: what it is done with; `before_bytes`: what is done of the phase; `now`: since the run began.
    pub fn start(&mut self, at: usize, file: &'static str, before_bytes: u64, now: Duration) {
        self.at = at.min(self.phases.len() - 1);
        self.file = file;
        self.phases[self.at].done_bytes = before_bytes;
        // What comes after a piece that is done again is done again as well.
        for later in &mut self.phases[self.at + 1..] {
            later.done_bytes = later.done_bytes.min(before_bytes);
        }
        self.moved_bytes = 0;
        self.moved_at = now;
        self.samples.clear();
        self.samples.push_back((now, 0));
    }

    /// Adds what was there already.
    pub fn found(&mut self, bytes: u64, now: Duration) {
        self.phases[self.at].done_bytes += bytes;
        self.moved_at = now;
        // Before it nothing was moved, and the time does not count.
        self.samples.clear();
        self.samples.push_back((now, self.moved_bytes));
    }

    /// Adds what was moved.
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

    /// Returns how much of the phase is done.
    pub fn percent(&self) -> u8 {
        let phase = &self.phases[self.at];
        phase.done_bytes.saturating_mul(100).checked_div(phase.total_bytes).unwrap_or(100).min(100) as u8
    }

    /// Says what is done, in words.
    pub fn what(&self) -> String {
        [&self.phases[self.at].what, " ", self.file].concat().trim_end().to_owned()
    }

    /// Makes the line of it.
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
        line
    }

    /// Returns how long all phases of which the rate is known take from now on.
    fn left_secs(&self) -> Option<u64> {
        let rest = |phase: &Phase| phase.total_bytes.saturating_sub(phase.done_bytes).checked_div(phase.rate);
        let known = self.phases[self.at].total_bytes > 0;
        let secs = self.phases.iter().filter_map(rest).fold(0u64, u64::saturating_add);
        (known && secs < LONGEST_SECS).then_some(secs)
    }
}

/// Writes minutes and seconds.
pub fn clock(secs: u64) -> String {
    format!("{}:{:02}", secs / 60, secs % 60)
}

#[cfg(test)]
#[path = "bar_tests.rs"]
mod tests;
