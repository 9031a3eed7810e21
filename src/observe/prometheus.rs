//! Metrics as Prometheus text. Pure: facts in, text format 0.0.4 out.
//!
//! Names, labels and defaults: docs/metrics.md. Every series is always present, so that an alert never waits for one; but a
//! series that could not be determined at all is left out: a default would be wrong, and raise an alarm.
//! Must never: touch a file, a clock or a network, or leave a series out because something is damaged.

use crate::base::error::Kind;
use crate::base::text::printable;
use crate::base::time::Moment;
use crate::ledger::history::ROLLBACK;
use crate::ledger::state::Phase;
use crate::machine::ARCHITECTURE;
use crate::machine::view::View;
use crate::os::onlooker::Work;
use crate::slot::record::Slot;
use crate::update::report::Report;

/// Value of a label that is not known. Not empty: Prometheus treats an empty label as missing.
const UNKNOWN: &str = "unknown";

/// Input for the text.
pub struct Facts<'a> {
    /// Slots, boot variables, state.
    pub report: &'a Report,
    /// Whether `check` would offer the last offer again.
    pub available: bool,
    /// Content of `/proc/meminfo`.
    pub meminfo: &'a [u8],
    /// Content of `/proc/stat`.
    pub stat: &'a [u8],
}

/// Writes all series.
/// Returns: the Prometheus text format, version 0.0.4; bounded, whatever the files say.
pub fn text(facts: &Facts<'_>) -> String {
    let mut page = Page(String::with_capacity(8192));
    let is_readable = facts.report.denied.is_none();
    if is_readable {
        page.machine(facts);
    }
    page.build(is_readable);
    page.numbers(&[
        ("kubesolo_boot_time_seconds", number(facts.stat, "btime "), "When this machine booted."),
        ("kubesolo_memory_total_bytes", kib(facts, "MemTotal:"), "Memory of this machine."),
        ("kubesolo_memory_available_bytes", kib(facts, "MemAvailable:"), "Memory that can be had without swapping."),
    ]);
    page.0
}

fn kib(facts: &Facts<'_>, name: &str) -> u64 {
    number(facts.meminfo, name).saturating_mul(1024)
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"] {
            self.0.push_str(part);
        }
    }

    /// Source: the text format: in a label's value, backslash, quote and newline are escaped.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        let mut before = '{';
        for (label, text) in labels {
            self.0.push(before);
            self.0.push_str(label);
            self.0.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    _ => self.0.push(c),
                }
            }
            self.0.push('"');
            before = ',';
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.0.push(' ');
        self.0.push_str(&value.to_string());
        self.0.push('\n');
    }

    fn labelled(&mut self, name: &str, label: &str, text: &str, value: bool) {
        self.sample(name, &[(label, text)], value.into());
    }

    /// Writes slots, boot variables and state.
    fn machine(&mut self, facts: &Facts<'_>) {
        let state = &facts.report.survey.state;
        self.info(facts.report);
        self.run(facts.report.work.as_ref());
        self.family("kubesolo_update_phase", GAUGE, "1 for the phase of the update attempt, 0 for the others.");
        for phase in Phase::ALL {
            self.labelled("kubesolo_update_phase", "phase", phase.name(), phase == state.phase);
        }
        self.last_error(facts.report);
        self.failed_check(state.failed_check.as_deref());
        self.family(
            "kubesolo_slot_valid",
            GAUGE,
            "1 if the slot has a record and files of the recorded lengths; `verify` reads them.",
        );
        // A slot in use, or being written, was not inspected.
        let is_seen = |view: &&View| view.record.as_ref().err().is_none_or(|e| !e.is_unseen());
        for view in facts.report.survey.slots.iter().filter(is_seen) {
            self.labelled("kubesolo_slot_valid", "slot", view.slot.name(), view.record.is_ok());
        }
        self.attempt_and_boot(facts);
    }

    /// Writes the single-valued series.
    fn attempt_and_boot(&mut self, facts: &Facts<'_>) {
        let (state, vars) = (&facts.report.survey.state, facts.report.survey.vars.as_ref());
        let secs = |moment: Option<Moment>| moment.map_or(0, |moment| moment.0);
        let flag = |value: Option<bool>| u64::from(value == Some(true));
        let boots_left = vars.and_then(|v| v.boot_counter).unwrap_or(0).into();
        let numbers = [
            (
                "kubesolo_update_attempts_total",
                state.attempts_total,
                "Update attempts that took an artifact, or failed before.",
            ),
            (
                "kubesolo_update_rollbacks_total",
                state.rollbacks_total,
                "Times that this machine went back to its other slot.",
            ),
            (
                "kubesolo_update_last_attempt_timestamp_seconds",
                secs(state.started_at),
                "When the last attempt began; 0 if never.",
            ),
            (
                "kubesolo_update_state_timestamp_seconds",
                secs(state.updated_at),
                "When the state was written last; 0 if never.",
            ),
            (
                "kubesolo_update_available",
                facts.available.into(),
                "1 if what the source offered last would be taken now.",
            ),
            (
                "kubesolo_boot_success",
                flag(vars.and_then(|v| v.boot_success)),
                "1 if the active slot is confirmed, 0 on trial or unknown.",
            ),
            ("kubesolo_boot_counter", boots_left, "Trial boots that GRUB has left."),
            (
                "kubesolo_boot_canary",
                flag(vars.map(|v| v.boot_canary)),
                "1 if GRUB has shown that it can write its variables.",
            ),
        ];
        self.numbers(&numbers);
        const BYTES: &str = "kubesolo_update_bytes_total";
        self.family(BYTES, COUNTER, "Bytes that updates fetched (also from a stick), or copied from the running slot.");
        for (origin, bytes) in
            [("network", state.traffic_total.fetched_bytes), ("slot", state.traffic_total.copied_bytes)]
        {
            self.sample(BYTES, &[("origin", origin)], bytes);
        }
    }

    fn numbers(&mut self, numbers: &[(&str, u64, &str)]) {
        for (name, value, help) in numbers {
            self.family(name, if name.ends_with("_total") { COUNTER } else { GAUGE }, help);
            self.sample(name, &[], *value);
        }
    }

    fn build(&mut self, is_readable: bool) {
        const NAME: &str = "kubesolo_update_build_info";
        self.family(NAME, GAUGE, "The agent.");
        self.sample(NAME, &[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.numbers(&[(
            "kubesolo_update_readable",
            is_readable.into(),
            "1 if this machine could be looked at, 0 where `metrics` does not run as root.",
        )]);
    }

    fn run(&mut self, work: Option<&Work>) {
        const NAME: &str = "kubesolo_update_running";
        let work = work.filter(|work| work.is_alive);
        let command = work.map_or("none", |work| work.command.as_deref().unwrap_or(UNKNOWN));
        self.family(NAME, GAUGE, "1 for the command that holds the lock.");
        self.labelled(NAME, "command", command, work.is_some());
        let percent = work.and_then(|work| work.percent).unwrap_or(0);
        self.numbers(&[(
            "kubesolo_update_progress_percent",
            percent.into(),
            "How much that command has done of its step.",
        )]);
    }

    fn info(&mut self, report: &Report) {
        const NAME: &str = "kubesolo_os_info";
        let view = report.survey.running_view();
        let version = view.and_then(|v| v.version()).map_or(UNKNOWN.into(), printable);
        let channel = view.and_then(|v| v.record.as_ref().ok()).map_or(UNKNOWN.into(), |r| printable(&r.channel));
        let slot = report.survey.running.map_or(UNKNOWN, Slot::name);
        self.family(NAME, GAUGE, "The system that runs.");
        let labels =
            [("version", version.as_str()), ("channel", &channel), ("architecture", ARCHITECTURE), ("slot", slot)];
        self.sample(NAME, &labels, 1);
    }

    fn failed_check(&mut self, check: Option<&str>) {
        const NAME: &str = "kubesolo_update_failed_check";
        self.family(NAME, GAUGE, "1 for the check that failed in the last boot on trial that was not healthy.");
        let name = check.map_or("none".into(), printable);
        self.labelled(NAME, "check", &name, check.is_some());
    }

    fn last_error(&mut self, report: &Report) {
        const NAME: &str = "kubesolo_update_last_error";
        let kind = match (&report.survey.state.last_error_kind, &report.survey.state.last_error) {
            // Unknown to the state: an attempt ended on a broken `update.conf`, or while an update was staged.
            (None, None) if report.stopped.is_some() => Some(Kind::Config.label()),
            (Some(kind), _) => Some(kind.as_str()),
            (None, error) => error.as_ref().map(|_| UNKNOWN),
        };
        self.family(NAME, GAUGE, "1 for the kind of the error that the last attempt ended with, 0 for the others.");
        let mut is_known = kind.is_none();
        for label in Kind::ALL.iter().map(|kind| kind.label()).chain([ROLLBACK]) {
            is_known |= kind == Some(label);
            self.labelled(NAME, "kind", label, kind == Some(label));
        }
        self.labelled(NAME, "kind", UNKNOWN, !is_known);
    }
}

/// Finds a line by its first word. Returns: the number after it; 0 where there is none.
fn number(table: &[u8], name: &str) -> u64 {
    let text = std::str::from_utf8(table).unwrap_or("");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
    line.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
mod tests;
