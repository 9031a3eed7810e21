//! Artifacts that rolled back, so that they are not retried automatically. Pure.
//!
//! The content of `update/failed.json`. An unhealthy artifact is not to blame if the slot that the machine came back to is
//! unhealthy too (a network switch is down): until that slot has been checked the blame is undecided, and it stays so if that
//! slot also fails. An undecided artifact is retried, at most [`MAX_RETRIES`] times.
//! Must never: grow without bound.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;
use miniserde::{Deserialize, Serialize, json};

/// Number of failures kept; the oldest are forgotten first.
const KEPT: usize = 32;
/// Largest file that is read, in bytes.
pub const FAILED_MAX_BYTES: u64 = 256 * 1024;
/// How often an undecided artifact is retried.
pub const MAX_RETRIES: u64 = 2;

/// Health of the slot that the machine came back to, the control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Not checked since.
    Unchecked,
    /// It was not healthy either, and still is not.
    Unhealthy,
    /// It was not healthy either, but has recovered.
    Recovered,
}

const CONTROLS: [(&str, Control); 3] =
    [("unchecked", Control::Unchecked), ("unhealthy", Control::Unhealthy), ("recovered", Control::Recovered)];

impl Control {
    fn name(self) -> &'static str {
        CONTROLS[self as usize].0
    }
}

/// Why an artifact that failed may not be to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Number of such failures.
    pub tries: u64,
    /// Health of the other slot.
    pub control: Control,
    /// The boot in which it was recorded: a check is still to come in it.
    pub boot_id: Option<String>,
    /// The boot in which that trial was activated: recorded twice, because the first run was cut off, it counts as one try.
    pub activated_in: Option<String>,
}

/// One artifact that must not be installed again automatically.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Identity of the artifact.
    pub digest: Digest,
    /// Its version, for display.
    pub version: String,
    /// Why it was rolled back.
    pub reason: String,
    /// When it failed (RFC 3339).
    pub at: String,
    /// `None`: it is to blame.
    pub doubt: Option<Doubt>,
}

impl Failure {
    /// Returns why it is refused now; `None`: it may be retried.
    fn refusal(&self, boot_id: Option<&str>) -> Option<String> {
        let why = match &self.doubt {
            None => String::new(),
            Some(doubt) if doubt.tries > MAX_RETRIES => format!("; tried {} times", doubt.tries),
            Some(doubt) => match doubt.control {
                Control::Recovered => return None,
                Control::Unhealthy => {
                    "; the slot that runs was not healthy either: it is tried again once that is".to_owned()
                }
                Control::Unchecked if boot_id.is_some() && doubt.boot_id.as_deref() == boot_id => {
                    "; whether it is to blame is decided when `healthcheck` has checked the slot that runs; unchecked, it is tried again in the next boot"
                        .to_owned()
                }
                // No health checks run here.
                Control::Unchecked => return None,
            },
        };
        Some(format!("failed here before: {}{why}", self.reason))
    }
}

/// The remembered failures, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(Vec<Failure>);

#[derive(Serialize, Deserialize)]
struct RawFailure {
    manifest_digest: String,
    version: Option<String>,
    reason: Option<String>,
    at: Option<String>,
    undecided: Option<String>,
    tries: Option<u64>,
    boot_id: Option<String>,
    activated_in: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    failed: Vec<RawFailure>,
}

impl Failures {
    /// Parses `failed.json`.
    /// Errors: State: not JSON, or a malformed digest.
    pub fn parse(bytes: &[u8]) -> Result<Failures> {
        let bad = || Error::new(Kind::State, "is not a list of failed artifacts");
        let text = std::str::from_utf8(bytes).map_err(|_| bad())?;
        let raw: Raw = json::from_str(text).map_err(|_| bad())?;
        let mut failures = Failures::default();
        for f in raw.failed {
            // A newer agent's unknown control value counts as blame.
            let control = f.undecided.and_then(|name| CONTROLS.iter().find(|(known, _)| *known == name));
            let (boot_id, activated_in) = (f.boot_id, f.activated_in);
            let doubt = control.map(|(_, control)| {
                let tries = f.tries.unwrap_or(1);
                Doubt { tries, control: *control, boot_id, activated_in }
            });
            failures.remember(Failure {
                digest: Digest::parse(&f.manifest_digest).map_err(|_| bad())?,
                doubt,
                version: f.version.unwrap_or_default(),
                reason: f.reason.unwrap_or_default(),
                at: f.at.unwrap_or_default(),
            });
        }
        Ok(failures)
    }

    /// Writes the list as one JSON line.
    pub fn encode(&self) -> String {
        let failed = self.0.iter().map(|f| RawFailure {
            manifest_digest: f.digest.to_string(),
            version: Some(f.version.clone()),
            reason: Some(f.reason.clone()),
            at: Some(f.at.clone()),
            undecided: f.doubt.as_ref().map(|doubt| doubt.control.name().to_owned()),
            tries: f.doubt.as_ref().map(|doubt| doubt.tries),
            boot_id: f.doubt.as_ref().and_then(|doubt| doubt.boot_id.clone()),
            activated_in: f.doubt.as_ref().and_then(|doubt| doubt.activated_in.clone()),
        });
        let mut text = json::to_string(&Raw { failed: failed.collect() });
        text.push('\n');
        text
    }

    /// Adds a failure; it replaces an older entry of the same artifact.
    pub fn remember(&mut self, mut failure: Failure) {
        failure.reason = printable(&failure.reason);
        self.0.retain(|f| f.digest != failure.digest);
        self.0.push(failure);
        if self.0.len() > KEPT {
            self.0.remove(0);
        }
    }

    /// Adds a failure with undecided blame. An artifact known to be to blame stays so.
    /// Input: `boot_id`: this boot's; `activated_in`: the boot in which the trial was activated.
    pub fn remember_undecided(&mut self, failure: Failure, boot_id: Option<String>, activated_in: Option<String>) {
        let tries = match self.0.iter().find(|f| f.digest == failure.digest).map(|f| &f.doubt) {
            Some(None) => return self.remember(failure),
            Some(Some(doubt)) if activated_in.is_some() && doubt.activated_in == activated_in => doubt.tries,
            Some(Some(doubt)) => doubt.tries.saturating_add(1),
            None => 1,
        };
        let doubt = Some(Doubt { tries, control: Control::Unchecked, boot_id, activated_in });
        self.remember(Failure { doubt, ..failure });
    }

    /// Returns the running slot's health, if an artifact's blame is undecided. Input: `boot_id`:
    /// this boot's.
    pub fn doubt_of(&self, digest: Digest, boot_id: Option<&str>) -> Option<Control> {
        let failure = self.0.iter().find(|f| f.digest == digest)?;
        let doubt = failure.doubt.as_ref().filter(|doubt| doubt.tries <= MAX_RETRIES)?;
        // In a boot without a check, it is retried.
        Some(if failure.refusal(boot_id).is_none() { Control::Recovered } else { doubt.control })
    }

    /// Returns whether an artifact is remembered, to blame or not.
    pub fn holds(&self, digest: Digest) -> bool {
        self.0.iter().any(|f| f.digest == digest)
    }

    /// Returns whether a check of the running slot would decide anything.
    pub fn has_undecided(&self) -> bool {
        self.0.iter().any(|f| f.doubt.is_some())
    }

    /// Records the health of the slot that has run since then: the first check decides whether the failed artifacts are to
    /// blame. Input: `running`: the artifact in it, which cannot be its own control. Returns: whether anything changed.
    pub fn control(&mut self, healthy: bool, running: Option<Digest>) -> bool {
        let before = self.clone();
        for failure in self.0.iter_mut().filter(|f| Some(f.digest) != running) {
            let Some(doubt) = &mut failure.doubt else { continue };
            match (doubt.control, healthy) {
                (Control::Unchecked, true) => failure.doubt = None,
                (Control::Unchecked, false) => doubt.control = Control::Unhealthy,
                (Control::Unhealthy, true) => doubt.control = Control::Recovered,
                _ => {}
            }
        }
        *self != before
    }

    /// Removes an artifact that has since proven itself.
    /// Returns: whether it was there.
    pub fn forget(&mut self, digest: Digest) -> bool {
        let before = self.0.len();
        self.0.retain(|f| f.digest != digest);
        self.0.len() != before
    }

    /// Returns the artifacts that the gates must refuse now, and why. Input: `boot_id`: this boot's.
    pub fn refusals(&self, boot_id: Option<&str>) -> Vec<(Digest, String)> {
        self.0.iter().filter_map(|f| Some((f.digest, f.refusal(boot_id)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(n: usize) -> Failure {
        let digest = Digest::of(&n.to_le_bytes());
        let (version, reason, at) = (format!("1.0.{n}"), "unhealthy".into(), "2026-11-22T20:00:00Z".into());
        Failure { digest, version, reason, at, doubt: None }
    }

    #[test]
    fn remembers_once_and_not_for_ever() {
        let mut list = Failures::default();
        for n in 0..KEPT + 5 {
            list.remember(failure(n));
            list.remember(failure(n));
        }
        assert_eq!(list.0.len(), KEPT);
        assert_eq!(list.0[0], failure(5));
        assert_eq!(Failures::parse(list.encode().as_bytes()).unwrap(), list);
        assert!(list.forget(failure(7).digest) && !list.forget(failure(7).digest));
    }

    /// Boots of the slot that the machine came back to: whether it is healthy, and whether the release may then be retried.
    #[test]
    fn nobody_is_blamed_without_a_control() {
        const WAITS: &str = "decided when `healthcheck` has checked";
        const AS_WELL: &str = "was not healthy either";
        let may = |list: &Failures, boot: &str| {
            let list = Failures::parse(list.encode().as_bytes()).unwrap();
            list.refusals(Some(boot)).pop().map(|(_, why)| why)
        };
        let said =
            |why: Option<String>, words: &str| assert!(why.as_ref().is_some_and(|w| w.contains(words)), "{why:?}");
        let fail = |list: &mut Failures, boot: &str| {
            list.remember_undecided(failure(1), Some(boot.into()), Some(format!("before {boot}")))
        };
        // The old slot is healthy: the failed artifact is to blame, for good.
        let mut list = Failures::default();
        fail(&mut list, "boot 1");
        said(may(&list, "boot 1"), WAITS);
        assert!(list.control(true, None) && !list.control(false, None));
        said(may(&list, "boot 2"), "failed here before: unhealthy");
        fail(&mut list, "boot 3");
        assert!(!list.has_undecided(), "insisting on it once more makes it no better");
        // The old slot is unhealthy too: the site is down. Retried when it recovers, at most twice.
        let mut list = Failures::default();
        for (n, over) in [(1, false), (2, false), (3, true)] {
            let boot = format!("boot {n}");
            fail(&mut list, &boot);
            said(may(&list, &boot), if over { "tried 3 times" } else { WAITS });
            assert!(list.control(false, None));
            said(may(&list, &boot), if over { "tried 3 times" } else { AS_WELL });
            assert!(!list.control(false, None), "nothing new");
            said(may(&list, "a later boot"), if over { "tried 3 times" } else { AS_WELL });
            list.control(true, None);
            assert_eq!(may(&list, &boot).is_none(), !over, "{n}");
        }
        // Nothing is checked: the next boot retries.
        let mut list = Failures::default();
        fail(&mut list, "boot 1");
        said(may(&list, "boot 1"), WAITS);
        assert_eq!(may(&list, "boot 2"), None);
        // Recorded again, since the first run was cut off before it wrote the state: one trial, one try.
        let mut list = Failures::default();
        for boot in ["boot 1", "boot 1", "boot 2", "boot 3"] {
            list.remember_undecided(failure(1), Some(boot.into()), Some("boot 0".into()));
            said(may(&list, boot), WAITS);
        }
        assert_eq!(list.0[0].doubt.as_ref().unwrap().tries, 1);
        // The artifact itself is running (its own trial was unhealthy): not a control.
        assert!(!list.control(true, Some(failure(1).digest)) && list.has_undecided());
    }

    #[test]
    fn what_is_not_known_of_a_failure_is_blame() {
        let digest = failure(1).digest;
        for (more, refused) in [
            ("", true),
            (r#","undecided":"perhaps","tries":1"#, true),
            (r#","undecided":null"#, true),
            (r#","undecided":"recovered""#, false),
            (r#","undecided":"recovered","tries":3"#, true),
        ] {
            let text = format!(r#"{{"failed":[{{"manifest_digest":"{digest}","reason":"x"{more}}}]}}"#);
            let list = Failures::parse(text.as_bytes()).unwrap();
            assert_eq!(!list.refusals(Some("boot")).is_empty(), refused, "{more}");
        }
    }

    #[test]
    fn broken_files_are_errors() {
        for bad in ["", "{}", "[]", "{\"failed\":[{\"manifest_digest\":\"x\"}]}", "{\"failed\":{}}", "\u{0}"] {
            assert_eq!(Failures::parse(bad.as_bytes()).unwrap_err().exit_code(), 7, "{bad}");
        }
    }
}
