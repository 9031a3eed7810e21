//! Node health: runs rounds of checks until they have passed for the requested time, or the timeout expires.
//!
//! Must never: touch the state or the boot variables; the commands do that.
//!
//! May import: base, os, http. Must never import: config, machine, ledger, boot: the caller passes in what to check, and
//! confirms the slot.

pub mod apiserver;
pub mod containerd;
pub mod executables;
pub mod kubeconfig;
pub mod node;
pub mod round;
pub mod watchdog;
pub mod workloads;
mod yaml;

use crate::base::error::Result;
use crate::base::text::secs;
use std::time::{Duration, Instant};

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest time within the pause without a call of `alive`.
const NAP: Duration = Duration::from_millis(500);

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Healthy, with the check's message.
    Passed(String),
    /// Why it failed.
    Failed(String),
    /// Not run: an earlier required check, on which it builds, failed.
    NotRun,
}

/// One check's outcome in the last round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Name of the check.
    pub name: String,
    /// Whether a failure makes the node unhealthy.
    pub is_required: bool,
    /// How it ended.
    pub ending: Ending,
    /// Reason for the latest failure, in this round or an earlier one.
    pub last_failure: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_millis: u64,
}

/// Every check of one round, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round(pub Vec<Outcome>);

/// How long to wait for health.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time limit in all.
    pub timeout: Duration,
    /// How long every check must have passed without a break.
    pub stable_for: Duration,
}

/// Outcome of the waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The last round.
    pub last: Round,
    /// Whether the node is healthy, and has been for the requested time.
    pub healthy: bool,
    /// Why not: one line.
    pub reason: String,
    /// Number of rounds.
    pub rounds: u64,
    /// How long it took.
    pub waited: Duration,
}

impl Round {
    /// Returns whether every required check passed, and there is at least one.
    pub fn passed(&self) -> bool {
        let mut required = self.0.iter().filter(|c| c.is_required).peekable();
        required.peek().is_some() && required.all(|c| matches!(c.ending, Ending::Passed(_)))
    }

    /// Describes in one line what is wrong.
    fn reason(&self) -> String {
        if !self.0.iter().any(|c| c.is_required) {
            return "no health checks are installed".into();
        }
        let failed = self.0.iter().filter_map(|c| match &c.ending {
            Ending::Failed(why) if c.is_required => Some(format!("{}: {why}", c.name)),
            _ => None,
        });
        failed.collect::<Vec<_>>().join("; ")
    }

    /// Takes over the earlier failures from the round before.
    fn remember(&mut self, before: &Round) {
        for check in &mut self.0 {
            if let Ending::Failed(why) = &check.ending {
                check.last_failure = Some(why.clone());
            } else if let Some(old) = before.0.iter().find(|c| c.name == check.name) {
                check.last_failure = old.last_failure.clone();
            }
        }
    }
}

impl Watched {
    /// Names the first required check that failed in the last round.
    pub fn failed_check(&self) -> Option<&str> {
        let failed = |c: &&Outcome| c.is_required && matches!(c.ending, Ending::Failed(_));
        self.last.0.iter().find(failed).map(|c| c.name.as_str())
    }
}

/// The step after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Healthy,
    Again,
    GiveUp,
}

/// Decides the next step. Pure.
/// Input: the time since the start, and the end of the first round since which all have passed.
fn next(pace: Pace, now: Duration, passing_since: Option<Duration>) -> Next {
    match passing_since {
        Some(since) if now.saturating_sub(since) >= pace.stable_for => Next::Healthy,
        // Too late to become stable in time.
        Some(since) if since.saturating_add(pace.stable_for) > pace.timeout => Next::GiveUp,
        None if now.saturating_add(PAUSE) >= pace.timeout => Next::GiveUp,
        _ => Next::Again,
    }
}

/// Runs rounds until they pass, or the time is up; at least one is run.
/// Input: `alive`: called at least every [`crate::health::watchdog::LONGEST_STEP`]; `told`: gets, after a round, what is still
/// waited for; `round`: runs every check once, each within its own limit, and calls its argument as often as `alive`. Its error
/// cannot be cured by waiting: it counts as a failed check, and ends the rounds.
pub fn wait_until_healthy(
    pace: Pace,
    alive: &mut dyn FnMut(),
    told: &mut dyn FnMut(&str),
    round: &mut dyn FnMut(&mut dyn FnMut()) -> Result<Round>,
) -> Watched {
    let start = Instant::now();
    let (mut before, mut passing_since, mut rounds) = (Round::default(), None, 0);
    loop {
        rounds += 1;
        let (mut last, is_last) = match round(alive) {
            Ok(last) => {
                // Waiting does not install checks.
                let is_empty = !last.0.iter().any(|check| check.is_required);
                (last, is_empty)
            }
            Err(e) => (Round(vec![Outcome::new("configuration", true, Err(e), 0)]), true),
        };
        last.remember(&before);
        let now = start.elapsed();
        passing_since = if last.passed() { passing_since.or(Some(now)) } else { None };
        let next = if is_last { Next::GiveUp } else { next(pace, now, passing_since) };
        if next != Next::Again {
            let healthy = next == Next::Healthy;
            let reason = match last.passed() {
                true if healthy => String::new(),
                true => format!("all checks pass, but not for {} s without a break", secs(pace.stable_for)),
                false => last.reason(),
            };
            return Watched { last, healthy, reason, rounds, waited: now };
        }
        match last.passed() {
            true => told(&format!("all checks pass; is it so for {} s?", secs(pace.stable_for))),
            false => told(&last.reason()),
        }
        before = last;
        rest(alive);
    }
}

fn rest(alive: &mut dyn FnMut()) {
    let start = Instant::now();
    while start.elapsed() < PAUSE {
        alive();
        std::thread::sleep(NAP);
    }
}

impl Outcome {
    /// Makes an outcome from a check's result.
    pub fn new(name: &str, is_required: bool, ended: Result<String>, duration_millis: u64) -> Outcome {
        let ending = match ended {
            Ok(said) => Ending::Passed(said),
            Err(e) => Ending::Failed(e.to_string()),
        };
        Outcome { name: name.to_owned(), is_required, ending, last_failure: None, duration_millis }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::{Error, Kind};

    fn outcome(failure: Option<&str>) -> Outcome {
        let ended = failure.map_or(Ok("fine".into()), |why| Err(Error::new(Kind::Unhealthy, why)));
        Outcome::new("10-api", true, ended, 1)
    }

    fn wanted(failure: Option<&str>) -> Outcome {
        Outcome { is_required: false, name: "20-nice".into(), ..outcome(failure) }
    }

    const SOON: Pace = Pace { timeout: Duration::from_secs(600), stable_for: Duration::ZERO };

    #[test]
    fn no_check_is_no_health() {
        for empty in [Round::default(), Round(vec![wanted(None)])] {
            assert!(!empty.passed() && empty.reason().contains("no health checks"));
        }
        for empty in [Round::default(), Round(vec![wanted(None)])] {
            let watched = wait_until_healthy(SOON, &mut || {}, &mut |_| {}, &mut |_| Ok(empty.clone()));
            assert_eq!((watched.last, watched.rounds, watched.healthy), (empty, 1, false));
        }
    }

    #[test]
    fn waits_for_a_round_in_which_all_pass_and_tells_what_was_wrong() {
        let (mut rounds, mut signs, mut heard) = (0, 0, Vec::new());
        let mut told = |what: &str| heard.push(what.to_owned());
        let watched = wait_until_healthy(SOON, &mut || signs += 1, &mut told, &mut |alive| {
            rounds += 1;
            alive();
            Ok(Round(vec![outcome((rounds < 2).then_some("not ready")), wanted(Some("no sun"))]))
        });
        assert!(watched.healthy && watched.rounds == 2 && signs > 2);
        assert_eq!(heard, ["10-api: not ready"]);
        let said: Vec<_> = watched.last.0.iter().map(|c| c.last_failure.as_deref()).collect();
        assert_eq!(said, [Some("not ready"), Some("no sun")]);
    }

    #[test]
    fn gives_up_when_the_time_is_up() {
        let pace = Pace { timeout: Duration::ZERO, ..SOON };
        let round = Round(vec![outcome(None), outcome(Some("not ready"))]);
        let watched = wait_until_healthy(pace, &mut || {}, &mut |_| {}, &mut |_| Ok(round.clone()));
        assert_eq!(watched.reason, "10-api: not ready");
    }

    #[test]
    fn what_can_not_mend_itself_is_a_failed_check_and_not_waited_for() {
        let watched = wait_until_healthy(SOON, &mut || {}, &mut |_| {}, &mut |_| {
            Err(Error::new(Kind::Config, "line 1: unknown key"))
        });
        assert_eq!((watched.reason.as_str(), watched.rounds), ("configuration: line 1: unknown key", 1));
        assert!(!watched.healthy);
    }

    #[test]
    fn stable_is_as_long_as_was_asked_without_a_break() {
        let secs = Duration::from_secs;
        let pace = Pace { timeout: secs(100), stable_for: secs(30) };
        for (now, since, expected) in [
            (0, None, Next::Again),
            (97, None, Next::Again),
            (98, None, Next::GiveUp),
            (10, Some(10), Next::Again),
            (39, Some(10), Next::Again),
            (40, Some(10), Next::Healthy),
            (70, Some(70), Next::Again),
            (99, Some(70), Next::Again),
            (100, Some(70), Next::Healthy),
            (71, Some(71), Next::GiveUp),
            // A round may end after the timeout: its result still counts.
            (130, Some(70), Next::Healthy),
        ] {
            assert_eq!(next(pace, secs(now), since.map(secs)), expected, "{now} {since:?}");
        }
        let at_once = Pace { stable_for: Duration::ZERO, ..pace };
        assert_eq!(next(at_once, secs(500), Some(secs(500))), Next::Healthy);
    }
}
