//! The screen of `status`, for a person at a rescue console: 80 columns, the most important first. Pure.
//!
//! Must never: be wider than 80 columns, or let text from outside colour it.

use crate::base::text::{Margins, fold, printable, short_digests};
use crate::ledger::history::{Attempt, Part};
use crate::ledger::state::Phase;
use crate::machine::ARCHITECTURE;
use crate::machine::view::View;
use crate::os::onlooker::Work;
use crate::os::progress;
use crate::slot::record::Slot;
use crate::update::next_step::is_lost;
use crate::update::reconcile::Finding;
use crate::update::report::Report;

const COLUMNS: usize = 80;
/// Column where texts begin, after the labels.
const INDENT: usize = 8;
/// Attempts shown, not counting the present one.
const SHOWN: usize = 3;

// Marks in our own texts; a printable text contains none. Each becomes a terminal's escape sequence, or nothing.
const PLAIN: &str = "\u{1}";
const BOLD: &str = "\u{2}";
const GREEN: &str = "\u{3}";
const YELLOW: &str = "\u{4}";
const RED: &str = "\u{5}";
/// Escape sequences of terminals, in the order of the marks.
const ESCAPES: [&str; 5] = ["\x1b[0m", "\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[31m"];

/// Returns whether to use colours: on a terminal that has them, unless NO_COLOR is set.
/// Source: no-color.org: set and not empty.
pub fn is_coloured(is_terminal: bool, term: Option<&str>, no_color: Option<&str>) -> bool {
    let has_colours = term.is_some_and(|term| !term.is_empty() && term != "dumb");
    is_terminal && has_colours && no_color.is_none_or(str::is_empty)
}

/// Finds the most important condition.
/// Returns: its name in `--json`, and its meaning, preceded by its colour.
pub fn condition(report: &Report) -> (&'static str, &'static str) {
    let Some(running) = report.survey.running else {
        return ("not_booted_from_a_slot", "\u{5}it CANNOT be updated like this");
    };
    if report.denied.is_some() {
        return ("not_looked", "\u{4}could not look: its devices cannot be read");
    }
    if report.is_boot_busy {
        return ("boot_busy", "\u{4}another run is at work; the boot variables were not read");
    }
    let Some(vars) = report.survey.vars else {
        return ("boot_unreadable", "\u{5}the boot variables CANNOT be read");
    };
    let is_invalid = |slot: Slot| report.survey.slots[slot as usize].record.is_err();
    if report.survey.slots[running as usize].record.as_ref().is_err_and(|e| e.is_in_use()) {
        return ("running_slot_busy", "\u{4}the running slot is in use, and was not read");
    }
    if is_invalid(running) {
        return ("running_slot_invalid", "\u{5}the running slot is NOT valid");
    }
    let is_lost_beside = is_lost(&report.survey.slots[running.other() as usize]);
    if matches!(report.survey.finding, Finding::RolledBack { .. }) {
        return went_back(is_lost_beside);
    }
    if report.survey.finding == Finding::Unloadable {
        return match running {
            Slot::A => ("restart_needed", "\u{4}slot B did NOT load; slot A runs in its place"),
            Slot::B => ("restart_needed", "\u{4}slot A did NOT load; slot B runs in its place"),
        };
    }
    let phase = report.survey.state.phase;
    match (vars.boot_success == Some(false), vars.active_slot.is_none_or(|active| active == running)) {
        (true, true) if phase == Phase::Failed => ("unhealthy", "\u{5}ON TRIAL, and NOT healthy"),
        (true, true) if is_lost_beside => ("trial", "\u{4}ON TRIAL, not confirmed yet; there is NO way back"),
        (true, true) => ("trial", "\u{4}ON TRIAL, not confirmed yet"),
        (true, false) => ("activated", "\u{4}well; the next boot TRIES the other slot"),
        (false, false) => ("restart_needed", "\u{4}the next boot goes to the OTHER slot"),
        (false, true) => at_rest(report, running, vars.boot_canary),
    }
}

fn went_back(is_lost_beside: bool) -> (&'static str, &'static str) {
    match is_lost_beside {
        true => ("rolled_back", "\u{4}it went back; the last update was ROLLED BACK; there is NO way back"),
        false => ("rolled_back", "\u{4}it went back; the last update was ROLLED BACK"),
    }
}

/// As [`condition`], for a machine that runs its active slot, which is confirmed.
fn at_rest(report: &Report, running: Slot, is_bootloader_proven: bool) -> (&'static str, &'static str) {
    let other = &report.survey.slots[running.other() as usize];
    let is_lost_beside = is_lost(other);
    match report.survey.state.phase {
        Phase::Checking | Phase::Downloading if report.is_at_work() => ("working", "\u{4}an update is at work"),
        Phase::Checking | Phase::Downloading => ("cut_off", "\u{4}an update was CUT OFF; `apply` continues it"),
        _ if report.stopped.is_some() => ("stopped", "\u{5}no update is taken: see the NOTES below"),
        Phase::Failed => ("failed", "\u{5}the last attempt FAILED"),
        // The slot was left, but its content is not to blame.
        Phase::RolledBack if is_lost_beside && !report.is_blamed() => match running {
            Slot::A => ("no_fallback", "\u{4}slot B is DAMAGED, slot A runs in its place; there is NO way back"),
            Slot::B => ("no_fallback", "\u{4}slot A is DAMAGED, slot B runs in its place; there is NO way back"),
        },
        Phase::RolledBack => went_back(is_lost_beside),
        Phase::Staged if is_lost_beside => ("staged_invalid", "\u{4}well; what was staged is DAMAGED"),
        Phase::Staged => ("staged", "\u{3}well; an update is staged"),
        _ if !is_bootloader_proven => ("bootloader_unproven", "\u{4}well, but no update can be TRIED yet"),
        _ if other.record.is_err() => ("no_fallback", "\u{4}well, but there is NO way back"),
        _ if !report.remarks.is_empty() => ("remarks", "\u{4}it runs; see the NOTES below"),
        _ => ("well", "\u{3}all is well"),
    }
}

/// Returns whether everything takes its ordinary course and no operator has to look.
pub fn needs_nobody(report: &Report) -> bool {
    const ORDINARY: [&str; 7] = ["well", "staged", "activated", "working", "boot_busy", "running_slot_busy", "trial"];
    ORDINARY.contains(&condition(report).0) && report.remarks.is_empty()
}

/// Formats a run as `process 1234, 43 %`, as far as it is known.
fn who(work: &Work) -> String {
    let mut text = match work.pid {
        Some(pid) => ["process ", &pid.to_string()].concat(),
        None => "a process in a container".into(),
    };
    if let Some(percent) = work.percent {
        text.push_str(&[", ", &percent.to_string(), " %"].concat());
    }
    text
}

/// Draws the screen.
pub fn draw(report: &Report, coloured: bool) -> String {
    let mut page = Page { text: String::new(), said: Vec::new(), coloured, is_verbose: progress::is_verbose() };
    let (_, verdict) = condition(report);
    let version = report.survey.running_view().and_then(View::version).map_or("(unknown version)".into(), printable);
    let place = match report.survey.running {
        Some(Slot::A) => "slot A",
        Some(Slot::B) => "slot B",
        None => "not booted from a slot",
    };
    let headline = [BOLD, "KubeSolo OS ", &version, PLAIN, ", ", ARCHITECTURE, ", ", place, ": ", verdict, PLAIN];
    page.line("", &headline);
    page.text.push('\n');
    for view in &report.survey.slots {
        page.slot(view, report);
        let digest = view.record.as_ref().ok().and_then(|record| record.manifest_digest);
        if let Some(digest) = digest.filter(|_| progress::is_verbose()) {
            page.line("", &[&digest.to_string()]);
        }
    }
    page.boot(report);
    page.work(report);
    page.update(report);
    let present = present(report);
    let past = report.survey.state.history.by_end().into_iter().rev();
    let (mut label, shown) = ("Past", if progress::is_verbose() { usize::MAX } else { SHOWN });
    for attempt in past.filter(|attempt| !present.is_some_and(|present| std::ptr::eq(present, *attempt))).take(shown) {
        page.attempt(label, attempt);
        label = "";
    }
    for remark in report.remarks.iter().filter(|remark| !page.said.contains(remark)).collect::<Vec<_>>() {
        page.line("Note", &[&printable(remark)]);
    }
    page.line("Next", &[BOLD, &report.next, PLAIN]);
    page.finish()
}

/// Finds the entry of the history for the attempt that the state describes.
/// Checks that fail while an update is staged do not end it, and come after it.
fn present(report: &Report) -> Option<&Attempt> {
    report.survey.state.history.attempts().iter().rfind(|attempt| attempt.has_come_to(report.survey.state.phase))
}

/// Formats how often it happened, if more than once.
fn count(attempt: Option<&Attempt>) -> String {
    match attempt {
        Some(attempt) if attempt.count > 1 => {
            [", ", &attempt.count.to_string(), " times since ", attempt.text(Part::StartedAt).unwrap_or_default()]
                .concat()
        }
        _ => String::new(),
    }
}

fn or_unknown(version: Option<&str>) -> &str {
    version.unwrap_or("?")
}

struct Page {
    text: String,
    /// Reasons already on the screen.
    said: Vec<String>,
    coloured: bool,
    is_verbose: bool,
}

impl Page {
    fn slot(&mut self, view: &View, report: &Report) {
        let is_running = report.survey.running == Some(view.slot);
        let active = report.survey.vars.filter(|vars| vars.active_slot == Some(view.slot));
        let marks = match (is_running, active.map(|vars| vars.boot_success == Some(false))) {
            (true, Some(true)) => "running, active, on trial ",
            (true, Some(false)) => "running, active           ",
            (true, None) => "running                   ",
            (false, Some(true)) => "active, on trial          ",
            (false, Some(false)) => "active                    ",
            (false, None) => "                          ",
        };
        let mut version = view.version().map_or("-".into(), printable);
        while version.len() < 12 {
            version.push(' ');
        }
        let label = if view.slot == Slot::A { "Slot A" } else { "Slot B" };
        let error = match &view.record {
            Ok(_) => return self.line(label, &[&version, " ", marks, "valid"]),
            Err(e) => e,
        };
        let work = report.work.as_ref().filter(|work| work.is_alive && error.is_in_use() && !is_running);
        if let Some(work) = work {
            return self.line(label, &[&version, " ", marks, YELLOW, "being written", PLAIN, " by ", &who(work)]);
        }
        let (colour, word) = if error.is_unseen() { (YELLOW, "not read") } else { (RED, "INVALID") };
        let why = self.once(error.to_string());
        self.line(label, &[&version, " ", marks, colour, word, PLAIN, ": ", &why]);
    }

    /// Prints a reason once: the same fault is met in several places.
    fn once(&mut self, why: String) -> String {
        if self.said.contains(&why) {
            return "as above".into();
        }
        self.said.push(why.clone());
        why
    }

    fn work(&mut self, report: &Report) {
        let Some(work) = &report.work else { return };
        let command = work.command.as_deref().unwrap_or("another run");
        let end = if work.is_alive { "" } else { ": was cut off" };
        let before =
            |text: &Option<String>, before: &str| text.as_ref().map_or(String::new(), |t| [before, t].concat());
        let (phase, since) = (before(&work.phase, ", "), before(&work.started_at, ", since "));
        self.line("Run", &[command, ", ", &who(work), &phase, &since, end]);
    }

    fn boot(&mut self, report: &Report) {
        if report.is_boot_busy {
            return self.line("Boot", &[YELLOW, "not read", PLAIN, ": another run is at work on them"]);
        }
        let Some(vars) = &report.survey.vars else { return self.line("Boot", &[RED, "variables unreadable", PLAIN]) };
        let active = vars.active_slot.map_or("?".into(), |slot| slot.to_string());
        let trial = match (vars.boot_success, vars.boot_counter) {
            (Some(false), Some(3)) => " on trial, 3 boots left",
            (Some(false), Some(2)) => " on trial, 2 boots left",
            (Some(false), Some(1)) => " on trial, 1 boot left",
            (Some(false), _) => " on trial, no boots left",
            _ => " confirmed",
        };
        let colour = if vars.boot_success == Some(false) { YELLOW } else { PLAIN };
        let proven = if vars.boot_canary { "" } else { "; GRUB has not shown that it can write (boot_canary 0)" };
        self.line("Boot", &["slot ", &active, colour, trial, PLAIN, proven]);
    }

    fn update(&mut self, report: &Report) {
        let state = &report.survey.state;
        let colour = match state.phase {
            Phase::Failed => RED,
            Phase::RolledBack | Phase::Activated | Phase::Verifying => YELLOW,
            Phase::Success | Phase::Staged => GREEN,
            _ => PLAIN,
        };
        let present = present(report);
        let (times, at) = (count(present), state.updated_at.map(|at| at.to_string()));
        let comma = match (&at, state.phase) {
            (None, _) => "",
            (_, Phase::Idle) if state.history.attempts().is_empty() => "; last asked ",
            (_, Phase::Idle) => "; as of ",
            _ => ", ",
        };
        let at = at.unwrap_or_default();
        let attempt = state.attempt_count.max(1).to_string();
        let (from, to) = (or_unknown(state.from_version.as_deref()), or_unknown(state.to_version.as_deref()));
        let words = match state.phase {
            Phase::Idle if state.history.attempts().is_empty() => &[": no attempt is recorded"][..],
            Phase::Idle => &[": no attempt is under way"],
            _ if present.is_some_and(|attempt| attempt.text(Part::Slot).is_none()) => &[" before a download began"],
            _ if state.to_version.is_none() => &[],
            _ => &[": ", from, " to ", to, ", attempt ", &attempt],
        };
        let name = state.phase.name().replace('_', " ");
        self.line("Update", &[colour, &name, PLAIN, &words.concat(), &times, comma, &at]);
        // A success clears it, and while an attempt is under way it belongs to an earlier one.
        if let (Phase::Failed | Phase::RolledBack, Some(error)) = (state.phase, &state.last_error)
            && !report.remarks.contains(error)
        {
            self.line("", &[error]);
        }
    }

    fn attempt(&mut self, label: &str, attempt: &Attempt) {
        let at = attempt.text(Part::EndedAt).or(attempt.text(Part::StartedAt)).unwrap_or_default();
        let (from, to) = (or_unknown(attempt.text(Part::FromVersion)), or_unknown(attempt.text(Part::ToVersion)));
        let what = match attempt.text(Part::Slot) {
            Some(_) => &["  ", from, " to ", to, ": "][..],
            None => &["  check "],
        };
        let error = attempt.text(Part::Error).unwrap_or_default();
        let colon = if error.is_empty() { "" } else { ": " };
        let result = attempt.text(Part::Result).unwrap_or_default().replace('_', " ");
        self.line(label, &[at, &what.concat(), &result, &count(Some(attempt)), colon, error]);
    }

    /// Adds a text after its label, wrapped.
    fn line(&mut self, label: &str, parts: &[&str]) {
        // Only the headline begins in the first column.
        let column = if self.text.is_empty() { 0 } else { INDENT };
        self.text.push_str(label);
        self.text.extend(std::iter::repeat_n(' ', column.saturating_sub(label.len())));
        let text = parts.concat();
        let text = if self.is_verbose { text } else { short_digests(&text) };
        fold(&mut self.text, Margins { at: column, indent: INDENT, columns: COLUMNS }, &text);
        self.text.push('\n');
    }

    /// Turns the marks into escape sequences.
    fn finish(self) -> String {
        let mut out = String::with_capacity(self.text.len());
        for c in self.text.chars() {
            match ESCAPES.get((c as usize).wrapping_sub(1)) {
                Some(escape) if self.coloured => out.push_str(escape),
                Some(_) => {}
                None => out.push(c),
            }
        }
        out
    }
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
