//! `status`: slots, boot variables and the state of the update, for a person or as JSON.
//!
//! Always answers: what can not be read is said in its place.
//! Must never: take the lock, change anything, or fail because something is damaged.

mod screen;

use crate::cli;
use crate::cmd::{Outcome, say};
use crate::config::Config;
use crate::error::Result;
use crate::grubenv_file::Copy;
use crate::inspect::View;
use crate::machine::ARCHITECTURE;
use crate::oci::digest::Digest;
use crate::report::Report;
use crate::slot::Slot;
use crate::system::System;
use crate::text::printable;
use miniserde::{Serialize, json};
use std::io::{IsTerminal, Write, stdout};

/// Version of the shape of `--json`; docs/status-schema.json says when it changes.
const SCHEMA_VERSION: u64 = 1;

/// Runs the command.
/// Errors: Internal: stdout is gone.
pub fn run(system: &System, config: &Config, args: &cli::Status, out: &mut dyn Write) -> Result<Outcome> {
    let report = Report::gather(system, config);
    if args.json {
        say(out, &answer(&report))?;
    } else {
        // What is no UTF-8 names no terminal that we know.
        let (term, no_color) = (std::env::var("TERM").ok(), std::env::var("NO_COLOR").ok());
        let coloured = screen::is_coloured(stdout().is_terminal(), term.as_deref(), no_color.as_deref());
        say(out, screen::draw(&report, coloured).trim_end())?;
    }
    Ok(Outcome::Done)
}

/// Writes the document, field by field: a struct for each object took 3 KB more (size-budget.md).
fn answer(report: &Report) -> String {
    let (state, vars) = (&report.state, report.vars.as_ref());
    let mut doc = Document(String::new());
    doc.open("", "{");
    doc.field("schema_version", &SCHEMA_VERSION);
    doc.field("architecture", &ARCHITECTURE);
    doc.field("agent_version", &env!("CARGO_PKG_VERSION"));
    doc.field("running_slot", &report.running.map(Slot::name));
    doc.field("running_version", &report.running_view().and_then(View::version).map(printable));
    doc.open("slots", "[");
    report.slots.iter().for_each(|view| doc.slot(view, report));
    doc.close("]");
    doc.open("boot", "{");
    doc.field("readable", &vars.is_some());
    doc.field("copy", &report.env_source.map(Copy::file_name));
    doc.field("active_slot", &vars.and_then(|v| v.active_slot).map(Slot::name));
    doc.field("boot_success", &vars.and_then(|v| v.boot_success));
    doc.field("boot_counter", &vars.and_then(|v| v.boot_counter));
    doc.field("rollback_from", &vars.and_then(|v| v.rollback_from).map(Slot::name));
    doc.field("boot_canary", &vars.map(|v| v.boot_canary));
    doc.close("}");
    doc.open("update", "{");
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
    doc.field("started_at", &state.started_at);
    doc.field("updated_at", &state.updated_at);
    doc.field("source", &state.source);
    doc.digest(state.manifest_digest);
    doc.close("}");
    doc.field("history", state.history.attempts());
    match &report.offered {
        None => doc.field("offered", &None::<u64>),
        Some(artifact) => {
            doc.open("offered", "{");
            doc.field("version", &printable(&artifact.version));
            doc.digest(Some(artifact.digest));
            doc.field("channel", &artifact.channel.as_deref().map(printable));
            doc.field("source", &printable(&artifact.source));
            doc.close("}");
        }
    }
    doc.field("condition", &screen::condition(report).0);
    doc.field("remarks", &report.remarks);
    doc.field("next", &report.next);
    doc.close("}");
    doc.0
}

/// A JSON document in the making.
struct Document(String);

impl Document {
    fn name(&mut self, name: &str) {
        if !self.0.is_empty() && !self.0.ends_with(['{', '[']) {
            self.0.push(',');
        }
        if !name.is_empty() {
            self.0.push('"');
            self.0.push_str(name);
            self.0.push_str("\":");
        }
    }

    /// Begins an object or an array. Input: `name`: empty in an array.
    fn open(&mut self, name: &str, bracket: &str) {
        self.name(name);
        self.0.push_str(bracket);
    }

    fn close(&mut self, bracket: &str) {
        self.0.push_str(bracket);
    }

    #[inline(never)]
    fn field(&mut self, name: &str, value: &dyn Serialize) {
        self.name(name);
        self.0.push_str(&json::to_string(value));
    }

    fn digest(&mut self, digest: Option<Digest>) {
        self.field("manifest_digest", &digest.map(|digest| digest.to_string()));
    }

    fn slot(&mut self, view: &View, report: &Report) {
        let record = view.record.as_ref().ok();
        self.open("", "{");
        self.field("slot", &view.slot.name());
        self.field("valid", &record.is_some());
        self.field("running", &(report.running == Some(view.slot)));
        self.field("active", &report.vars.is_some_and(|v| v.active_slot == Some(view.slot)));
        self.field("version", &view.version().map(printable));
        self.field("architecture", &record.map(|r| printable(&r.architecture)));
        self.field("channel", &record.map(|r| printable(&r.channel)));
        self.field("source", &record.map(|r| printable(&r.source)));
        self.digest(record.and_then(|r| r.manifest_digest));
        self.field("room_bytes", &view.room_bytes);
        self.field("error", &view.record.as_ref().err().map(ToString::to_string));
        self.close("}");
    }
}
