//! Is this node healthy? Checks are run in rounds until one round passes or the time is up.
//!
//! Must never: touch the state or the boot variables; that is for the command.

pub mod executables;

use crate::error::Result;
use std::time::{Duration, Instant};

/// How long to wait between two rounds.
const PAUSE: Duration = Duration::from_secs(2);

/// One check's outcome in the last round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Name of the check.
    pub name: String,
    /// Why it failed; `None` if it passed.
    pub failure: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_millis: u64,
}

/// The last round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Every check, in order.
    pub checks: Vec<Outcome>,
}

impl Round {
    /// Says whether the node is healthy: there is at least one check, and all passed.
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|c| c.failure.is_none())
    }

    /// Says in one line what is wrong.
    pub fn reason(&self) -> String {
        if self.checks.is_empty() {
            return "no health checks are installed".into();
        }
        let failed = self.checks.iter().filter_map(|c| Some(format!("{}: {}", c.name, c.failure.as_ref()?)));
        failed.collect::<Vec<_>>().join("; ")
    }
}

/// Runs rounds until one passes, or there is no time for another; one is always run.
/// Input: `round`: runs every check once, each within its own limit. What it ends with as an error waiting does not
/// mend: that is a failed check, and the last round.
pub fn wait_until_healthy(timeout: Duration, round: &mut dyn FnMut() -> Result<Round>) -> Round {
    let start = Instant::now();
    loop {
        let last = match round() {
            Ok(last) => last,
            Err(e) => {
                let (name, failure) = ("configuration".to_string(), Some(e.to_string()));
                return Round { checks: vec![Outcome { name, failure, duration_millis: 0 }] };
            }
        };
        // Waiting does not install checks.
        if last.passed() || last.checks.is_empty() || start.elapsed() + PAUSE >= timeout {
            return last;
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    fn outcome(failure: Option<&str>) -> Outcome {
        Outcome { name: "10-api".into(), failure: failure.map(str::to_string), duration_millis: 1 }
    }

    #[test]
    fn no_check_is_no_health() {
        let empty = Round::default();
        assert!(!empty.passed() && empty.reason().contains("no health checks"));
        let mut rounds = 0;
        let last = wait_until_healthy(Duration::from_secs(600), &mut || {
            rounds += 1;
            Ok(Round::default())
        });
        assert_eq!((last, rounds), (Round::default(), 1));
    }

    #[test]
    fn waits_for_a_round_in_which_all_pass() {
        let mut rounds = 0;
        let last = wait_until_healthy(Duration::from_secs(60), &mut || {
            rounds += 1;
            Ok(Round { checks: vec![outcome(None), outcome((rounds < 2).then_some("not ready"))] })
        });
        assert!(last.passed() && rounds == 2);
    }

    #[test]
    fn gives_up_when_the_time_is_up() {
        let round = Round { checks: vec![outcome(None), outcome(Some("not ready"))] };
        let last = wait_until_healthy(Duration::ZERO, &mut || Ok(round.clone()));
        assert_eq!(last.reason(), "10-api: not ready");
    }

    #[test]
    fn what_can_not_mend_itself_is_a_failed_check_and_not_waited_for() {
        let mut rounds = 0;
        let last = wait_until_healthy(Duration::from_secs(600), &mut || {
            rounds += 1;
            Err(Error::new(Kind::Config, "line 1: unknown key"))
        });
        assert_eq!((last.reason().as_str(), rounds), ("configuration: line 1: unknown key", 1));
        assert!(!last.passed());
    }
}
