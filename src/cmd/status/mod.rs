//! `status`: slots, boot variables and the state of the update, for a person or as JSON.
//!
//! Always answers: what cannot be read is reported in its place.
//! Must never: take the lock, change anything, or fail because something is damaged.

mod screen;

use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::base::text::printable;
use crate::boot::env_copy::EnvCopy;
use crate::cmd::Outcome;
use crate::cmd::answer::{Members, Reply};
use crate::cmd::words::say;
use crate::config::Config;
use crate::machine::ARCHITECTURE;
use crate::machine::view::View;
use crate::os::onlooker::Work;
use crate::os::progress;
use crate::os::system::System;
use crate::slot::record::Slot;
use crate::update::report::Report;
use std::io::{IsTerminal, stdout};

/// Runs the command.
/// Errors: Internal: stdout is gone.
pub fn run(system: &System, config: &Config, out: &mut Reply) -> Result<Outcome> {
    let report = Report::gather(system, config);
    let is_silent = progress::is_quiet() && screen::needs_nobody(&report);
    if out.is_text() && !is_silent {
        // A value that is not UTF-8 names no known terminal.
        let (term, no_color) = (std::env::var("TERM").ok(), std::env::var("NO_COLOR").ok());
        let coloured = screen::is_coloured(stdout().is_terminal(), term.as_deref(), no_color.as_deref());
        say(out, screen::draw(&report, coloured).trim_end())?;
    }
    out.result("shown");
    answer(&mut out.members, &report);
    Ok(match report.denied {
        // Nothing is known, so the exit code is not 0.
        Some(denied) => Outcome::Refused(denied),
        None => Outcome::Done,
    })
}

fn answer(doc: &mut Members, report: &Report) {
    let (state, vars) = (&report.survey.state, report.survey.vars.as_ref());
    doc.field("architecture", &ARCHITECTURE);
    doc.field("agent_version", &env!("CARGO_PKG_VERSION"));
    doc.field("running_slot", &report.survey.running.map(Slot::name));
    doc.field("running_version", &report.survey.running_view().and_then(View::version).map(printable));
    doc.open("slots", '[');
    report.survey.slots.iter().for_each(|view| slot(doc, view, report));
    doc.close(']');
    doc.open("boot", '{');
    doc.field("readable", &vars.is_some());
    doc.field("copy", &report.env_source.map(EnvCopy::file_name));
    doc.field("active_slot", &vars.and_then(|v| v.active_slot).map(Slot::name));
    doc.field("boot_success", &vars.and_then(|v| v.boot_success));
    doc.field("boot_counter", &vars.and_then(|v| v.boot_counter));
    doc.field("rollback_from", &vars.and_then(|v| v.rollback_from).map(Slot::name));
    doc.field("boot_canary", &vars.map(|v| v.boot_canary));
    doc.close('}');
    doc.open("update", '{');
    doc.field("phase", &state.phase.name());
    doc.field("from_version", &state.from_version);
    doc.field("to_version", &state.to_version);
    doc.field("target_slot", &state.target_slot.map(Slot::name));
    doc.field("attempt_count", &state.attempt_count);
    doc.field("attempts_total", &state.attempts_total);
    doc.field("rollbacks_total", &state.rollbacks_total);
    doc.field("last_error", &state.last_error);
    doc.field("last_error_kind", &state.last_error_kind);
    doc.field("failed_check", &state.failed_check);
    doc.field("started_at", &state.started_at.map(|at| at.to_string()));
    doc.field("updated_at", &state.updated_at.map(|at| at.to_string()));
    doc.field("source", &state.source);
    digest(doc, state.manifest_digest);
    doc.close('}');
    run_at_work(doc, report.work.as_ref());
    doc.field("history", &state.history.by_end());
    match &report.offered {
        None => doc.field("offered", &None::<u64>),
        Some(artifact) => {
            doc.open("offered", '{');
            doc.field("version", &printable(&artifact.release.version));
            digest(doc, Some(artifact.digest));
            doc.field("channel", &artifact.release.channel.as_deref().map(printable));
            doc.field("source", &printable(&artifact.source));
            doc.close('}');
        }
    }
    doc.field("condition", &screen::condition(report).0);
    doc.field("remarks", &report.remarks);
    doc.field("next", &report.next);
}

/// Adds the run that holds the lock, or was cut off while holding it.
fn run_at_work(doc: &mut Members, work: Option<&Work>) {
    let Some(work) = work else { return doc.field("run", &None::<u64>) };
    doc.open("run", '{');
    doc.field("at_work", &work.is_alive);
    doc.field("pid", &work.pid);
    doc.field("command", &work.command);
    doc.field("phase", &work.phase);
    doc.field("percent", &work.percent);
    doc.field("started_at", &work.started_at);
    doc.close('}');
}

fn digest(doc: &mut Members, digest: Option<Digest>) {
    doc.field("manifest_digest", &digest.map(|digest| digest.to_string()));
}

fn slot(doc: &mut Members, view: &View, report: &Report) {
    let record = view.record.as_ref().ok();
    doc.open("", '{');
    doc.field("slot", &view.slot.name());
    doc.field("valid", &record.is_some());
    doc.field("looked_at", &view.record.as_ref().err().is_none_or(|e| !e.is_unseen()));
    doc.field("running", &(report.survey.running == Some(view.slot)));
    doc.field("active", &report.survey.vars.is_some_and(|v| v.active_slot == Some(view.slot)));
    doc.field("version", &view.version().map(printable));
    doc.field("architecture", &record.map(|r| printable(&r.architecture)));
    doc.field("channel", &record.map(|r| printable(&r.channel)));
    doc.field("source", &record.map(|r| printable(&r.source)));
    digest(doc, record.and_then(|r| r.manifest_digest));
    doc.field("room_bytes", &view.room_bytes);
    doc.field("error", &view.record.as_ref().err().map(ToString::to_string));
    doc.close('}');
}
