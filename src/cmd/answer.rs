//! The answer of a command: words for a person, or one document for a program (`--json`, `--shell`). The document is written
//! only here, when the exit code is known.
//!
//! Must never: write two documents, or treat an answer that could not be written as written.

use crate::base::digest::Digest;
use crate::base::error::Error;
use crate::base::text::printable;
use crate::cli::usage::Form;
use crate::cmd::words::tell;
use crate::offer::artifact::Artifact;
use crate::os::progress::note;
use miniserde::ser::Fragment;
use miniserde::{Serialize, json};
use std::io::{self, ErrorKind, Write, stdout};

/// Version of the documents' shape; docs/json-schema.json says when it changes.
const SCHEMA_VERSION: u64 = 2;
/// Prefix of the variable names of `--shell`.
const PREFIX: &str = "KUBESOLO";
/// Exit code of an answer that was not written.
const UNWRITTEN: u8 = 1;

/// The answer being built. As a [`Write`] it takes the lines for a person, and drops them if a program asked.
pub struct Reply {
    form: Form,
    command: Option<&'static str>,
    result: &'static str,
    message: String,
    /// What the command adds to the envelope.
    pub members: Members,
    failure: Option<io::Error>,
    is_given: bool,
    /// Lines for a person, held until it is known whether they are needed.
    held: Option<Vec<u8>>,
}

impl Reply {
    /// Starts an answer. Input: `command`: `None`: none was recognised.
    pub fn new(form: Form, command: Option<&'static str>) -> Reply {
        let (result, message, members) = ("", String::new(), Members::new(form));
        Reply { form, command, result, message, members, failure: None, is_given: false, held: None }
    }

    /// Returns whether the answer is for a person.
    pub fn is_text(&self) -> bool {
        self.form == Form::Text
    }

    /// Holds lines back from now on, until [`Reply::release`] or the end.
    pub fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    /// Writes the held lines, and holds none from now on.
    pub fn release(&mut self) {
        if let Some(lines) = self.held.take() {
            self.put(&lines);
        }
    }

    /// Drops the held lines: no operator is needed.
    pub fn forget(&mut self) {
        self.held = self.held.take().map(|_| Vec::new());
    }

    /// Sets the result, a word of the schema. Input: empty: the command failed.
    pub fn result(&mut self, word: &'static str) {
        self.result = word;
    }

    /// Sets the result unless it is set already.
    pub fn result_or(&mut self, word: &'static str) {
        if self.result.is_empty() {
            self.result = word;
        }
    }

    /// Gives a sentence: a line for a person, the document's `message` for a program.
    pub fn message(&mut self, text: &str) {
        self.line(text);
        self.message = printable(text);
    }

    fn line(&mut self, text: &str) {
        // The failure is kept for the exit code.
        let _ = tell(self, text);
    }

    /// Writes the document, once; a person's lines are already printed.
    /// Returns: the exit code, or 1 if anything could not be written.
    pub fn give(&mut self, exit_code: u8, error: Option<&Error>) -> u8 {
        if !self.is_text() && !self.is_given {
            let document = self.document(exit_code, error);
            self.put(document.as_bytes());
        }
        self.is_given = true;
        self.release();
        if let Err(e) = stdout().flush() {
            self.keep(e);
        }
        match &self.failure {
            None => exit_code,
            Some(e) => {
                note(&format!("the answer could not be written: {e}"));
                UNWRITTEN
            }
        }
    }

    fn document(&self, exit_code: u8, error: Option<&Error>) -> String {
        let refusals = error.map_or(&[][..], Error::refusals);
        let result = match (self.result, error) {
            ("", None) => "done",
            ("", Some(_)) if refusals.is_empty() => "error",
            ("", Some(_)) => "refused",
            (word, _) => word,
        };
        let mut head = Members::new(self.form);
        head.field("schema_version", &SCHEMA_VERSION);
        head.field("command", &self.command);
        head.field("result", &result);
        head.field("exit_code", &u64::from(exit_code));
        // A variable of an earlier answer must not persist.
        if error.is_some() || head.is_shell {
            head.field("kind", &error.map(|error| error.kind().label()));
        }
        let message = error.map_or_else(|| self.message.clone(), Error::to_string);
        if !message.is_empty() || head.is_shell {
            head.field("message", &message);
        }
        head.open("refusals", '[');
        for refusal in refusals {
            head.open("", '{');
            head.field("gate", &refusal.gate);
            head.field("reason", &printable(&refusal.why));
            head.field("hint", &Some(refusal.hint).filter(|hint| !hint.is_empty()));
            head.close('}');
        }
        head.close(']');
        head.join(&self.members)
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Err(e) = stdout().write_all(bytes) {
            self.keep(e);
        }
    }

    /// A reader that closes a pipe has read enough.
    fn keep(&mut self, error: io::Error) {
        if error.kind() != ErrorKind::BrokenPipe {
            self.failure.get_or_insert(error);
        }
    }
}

impl Write for Reply {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_text = self.is_text();
        match &mut self.held {
            _ if !is_text => {}
            Some(lines) => lines.extend_from_slice(bytes),
            None => self.put(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Members of a document, in order. A struct per object took 3 KB more (size-budget.md).
pub struct Members {
    is_shell: bool,
    text: String,
    /// Name of the variable, for `--shell`.
    path: String,
    /// For each open object or array: length of the path before it, and number of its members.
    open: Vec<(usize, u32)>,
}

impl Members {
    /// Starts without members.
    pub fn new(form: Form) -> Members {
        Members { is_shell: form == Form::Shell, text: String::new(), path: PREFIX.into(), open: Vec::new() }
    }

    /// Begins an object or an array. Input: `name`: empty in an array.
    pub fn open(&mut self, name: &str, bracket: char) {
        let before = self.enter(name);
        self.open.push((before, 0));
        if !self.is_shell {
            self.text.push(bracket);
        }
    }

    /// Ends an object or an array.
    pub fn close(&mut self, bracket: char) {
        let (before, count) = self.open.pop().unwrap_or((PREFIX.len(), 0));
        match (self.is_shell, bracket) {
            (false, _) => self.text.push(bracket),
            (true, ']') => {
                self.path.push_str("_COUNT");
                self.assign(&count.to_string());
            }
            (true, _) => {}
        }
        self.path.truncate(before);
    }

    /// Adds a member.
    #[inline(never)]
    pub fn field(&mut self, name: &str, value: &dyn Serialize) {
        let before = self.enter(name);
        match self.is_shell {
            false => self.text.push_str(&json::to_string(value)),
            true => self.flatten(value),
        }
        self.path.truncate(before);
    }

    /// Begins a member. Returns: the earlier length of the path.
    fn enter(&mut self, name: &str) -> usize {
        let before = self.path.len();
        let index = self.open.last_mut().map_or(0, |(_, count)| {
            *count += 1;
            *count - 1
        });
        if self.is_shell {
            let index = if name.is_empty() { index.to_string() } else { String::new() };
            self.path.push('_');
            let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            self.path.extend([name, &index].concat().chars().map(plain));
            return before;
        }
        if !self.text.is_empty() && !self.text.ends_with(['{', '[']) {
            self.text.push(',');
        }
        if !name.is_empty() {
            self.text.push_str(&["\"", name, "\":"].concat());
        }
        before
    }

    /// Writes a value as variables: an array has a number for each item, and a count.
    fn flatten(&mut self, value: &dyn Serialize) {
        match value.begin() {
            Fragment::Null => self.assign(""),
            Fragment::Str(text) => self.assign(&text),
            Fragment::Seq(mut items) => {
                self.open.push((self.path.len(), 0));
                while let Some(item) = items.next() {
                    self.field("", item);
                }
                self.close(']');
            }
            Fragment::Map(mut members) => {
                // A count of its own: its members are not items of the enclosing array.
                self.open.push((self.path.len(), 0));
                while let Some((name, member)) = members.next() {
                    self.field(&name, member);
                }
                self.close('}');
            }
            _ => self.assign(&json::to_string(value)),
        }
    }

    /// Writes a variable. Within single quotes a shell interprets only the quote itself (POSIX, 2.2.2); no variable can hold a
    /// NUL.
    fn assign(&mut self, value: &str) {
        let value = value.replace('\0', "").replace('\'', r"'\''");
        self.text.push_str(&[&self.path, "='", &value, "'\n"].concat());
    }

    /// Makes the document: own members first, then `rest`.
    fn join(self, rest: &Members) -> String {
        if self.is_shell {
            return self.text + &rest.text;
        }
        let comma = if rest.text.is_empty() { "" } else { "," };
        ["{", &self.text, comma, &rest.text, "}\n"].concat()
    }
}

/// Adds the facts of an artifact.
pub fn facts(members: &mut Members, artifact: &Artifact) {
    let text = |value: &Option<String>| value.as_deref().map(printable);
    let size = artifact.kernel.size_bytes.saturating_add(artifact.initramfs.size_bytes);
    members.field("version", &printable(&artifact.release.version));
    members.field("channel", &text(&artifact.release.channel));
    members.field("architecture", &text(&artifact.release.architecture));
    members.field("manifest_digest", &artifact.digest.to_string());
    members.field("index_digest", &artifact.index_digest.map(|d| d.to_string()));
    members.field("signed_by", &Digest::texts(&artifact.signed_by));
    members.field("source", &printable(&artifact.source));
    members.field("size_bytes", &size);
    members.field("min_compatible_version", &text(&artifact.release.min_compatible_version));
    members.field("release_date", &text(&artifact.release.release_date));
    members.field("release_notes", &text(&artifact.release.release_notes));
    members.field("expires", &text(&artifact.release.expires));
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
