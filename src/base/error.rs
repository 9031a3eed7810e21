//! The one error type: what was attempted, on what, why it failed, what to do next.
//!
//! Kinds are divided by what the operator must do, not by which module failed; each kind has one
//! exit code (documented in README) and one stable label (state file, metrics).
//! Must never: carry a secret, or let control characters from a network reach the terminal.

use crate::base::text::printable;
use std::fmt;
use std::sync::Mutex;

/// Kind of a failure.
///
/// The label is the `kind` of `last_error`; docs/metrics.md lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A fault of the agent itself. Exit 1.
    Internal,
    /// The command line is wrong. Exit 2.
    Usage,
    /// The configuration is wrong. Exit 2.
    Config,
    /// A gate refused the artifact. Exit 4.
    Gate,
    /// Bytes do not match their digest or size. Exit 5.
    Digest,
    /// No acceptable signature. Exit 5.
    Signature,
    /// The network failed: connection, TLS, timeout. Exit 6.
    Network,
    /// The server, registry or layout answered something unusable. Exit 6.
    Source,
    /// A partition, mount, file system or disk failed. Exit 7.
    Device,
    /// A slot is not what it should be. Exit 7.
    Slot,
    /// The boot loader's state forbids it. Exit 7.
    Boot,
    /// The state on the data partition forbids it. Exit 7.
    State,
    /// Another run holds the lock. Exit 8.
    Busy,
    /// The node is not healthy. Exit 9.
    Unhealthy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 14] = [
        Kind::Internal,
        Kind::Usage,
        Kind::Config,
        Kind::Gate,
        Kind::Digest,
        Kind::Signature,
        Kind::Network,
        Kind::Source,
        Kind::Device,
        Kind::Slot,
        Kind::Boot,
        Kind::State,
        Kind::Busy,
        Kind::Unhealthy,
    ];

    /// Returns the stable label used in state.json and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Internal => "internal",
            Kind::Usage => "usage",
            Kind::Config => "config",
            Kind::Gate => "gate",
            Kind::Digest => "digest",
            Kind::Signature => "signature",
            Kind::Network => "network",
            Kind::Source => "source",
            Kind::Device => "device",
            Kind::Slot => "slot",
            Kind::Boot => "boot",
            Kind::State => "state",
            Kind::Busy => "busy",
            Kind::Unhealthy => "unhealthy",
        }
    }

    /// Returns the process exit code for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Internal => 1,
            Kind::Usage | Kind::Config => 2,
            Kind::Gate => 4,
            Kind::Digest | Kind::Signature => 5,
            Kind::Network | Kind::Source => 6,
            Kind::Device | Kind::Slot | Kind::Boot | Kind::State => 7,
            Kind::Busy => 8,
            Kind::Unhealthy => 9,
        }
    }
}

/// Whether someone must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// An operator must repair it, or the next attempt may succeed.
    Fault,
    /// An update waits for something that happens by itself: a window opens, a trial ends, another version is offered.
    Waits,
    /// Nothing needs doing: no medium is plugged in.
    Nothing,
    /// The file system is damaged: its content can be made again.
    Damaged,
    /// The object is in use elsewhere: this proves nothing about its content.
    InUse,
    /// The caller lacks permission to read: this proves nothing either.
    Denied,
}

/// Describes one failure for a person and for a machine.
///
/// One pointer wide, and built out of line: it is on the cold path of nearly every function (size-budget.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Detail>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Detail {
    kind: Kind,
    course: Course,
    op: String,
    why: String,
    hint: String,
    refusals: Vec<Refused>,
}

/// A gate that refused, in the form that programs receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its label.
    pub gate: &'static str,
    /// The two values that were compared, for people.
    pub why: String,
    /// The option that overrides it; empty: nothing on this machine.
    pub hint: &'static str,
}

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Makes an error from its kind and the reason.
    /// Input: `why`: a sentence without a full stop; control characters are replaced when printed.
    pub fn new(kind: Kind, why: impl Into<String>) -> Self {
        Error::build(kind, why.into())
    }

    #[cold]
    #[inline(never)]
    fn build(kind: Kind, why: String) -> Self {
        let (op, hint) = (String::new(), String::new());
        Error(Box::new(Detail { kind, course: Course::Fault, op, why, hint, refusals: Vec::new() }))
    }

    /// Records what was attempted, and on what. The innermost call wins; later ones are ignored.
    pub fn at(self, op: &str, subject: impl fmt::Display) -> Self {
        self.place(op, &subject)
    }

    #[cold]
    #[inline(never)]
    fn place(mut self, op: &str, subject: &dyn fmt::Display) -> Self {
        if self.0.op.is_empty() {
            self.0.op = legible(format!("{op} {subject}"));
        }
        self
    }

    /// Records what the operator can do about it. The innermost call wins.
    #[cold]
    #[inline(never)]
    pub fn hint(mut self, next: impl Into<String>) -> Self {
        if self.0.hint.is_empty() {
            self.0.hint = next.into();
        }
        self
    }

    /// Replaces what the operator can do, where the earlier hint does not work.
    #[cold]
    #[inline(never)]
    pub fn hint_instead(mut self, next: &str) -> Self {
        self.0.hint = next.into();
        self
    }

    /// Keeps the gates that refused, for programs: the sentence already names them.
    pub fn refusing(mut self, refusals: Vec<Refused>) -> Self {
        self.0.refusals = refusals;
        self
    }

    /// Returns the gates that refused.
    pub fn refusals(&self) -> &[Refused] {
        &self.0.refusals
    }

    /// Sets the course: for errors that are not faults.
    pub fn taking(mut self, course: Course) -> Self {
        self.0.course = course;
        self
    }

    /// Returns whether someone must act on the error.
    pub fn course(&self) -> Course {
        self.0.course
    }

    /// Returns whether the object could not be read because it is in use: nothing is known of its content.
    pub fn is_in_use(&self) -> bool {
        self.0.kind == Kind::Busy || self.0.course == Course::InUse
    }

    /// Returns whether nothing is known of the object's content: it is in use, or the caller lacks permission.
    pub fn is_unseen(&self) -> bool {
        self.is_in_use() || self.0.course == Course::Denied
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns the process exit code.
    pub fn exit_code(&self) -> u8 {
        self.0.kind.exit_code()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.op.is_empty() {
            write!(f, "{}: ", printable(&self.0.op))?;
        }
        f.write_str(&printable(&self.0.why))?;
        if !self.0.hint.is_empty() {
            write!(f, " ({})", printable(&self.0.hint))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Turns an I/O error into ours, with a kind that says whose fault it is.
pub trait IoContext<T> {
    /// Wraps the error: `kind` as given, `op` and `subject` as in [`Error::at`].
    fn io(self, kind: Kind, op: &str, subject: impl fmt::Display) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn io(self, kind: Kind, op: &str, subject: impl fmt::Display) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(e) => Err(from_io(&e, kind, op, &subject)),
        }
    }
}

/// Directories whose paths mean nothing to a person, and their names.
static NAMES: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Names a directory in all later errors; an empty name removes the entry.
pub fn call_it(dir: &str, name: &str) {
    let Ok(mut names) = NAMES.lock() else { return };
    names.retain(|(there, _)| there != dir);
    if !name.is_empty() {
        names.push((dir.into(), name.into()));
    }
}

/// Replaces the paths of named directories by their names: `KSOLOB:/vmlinuz`.
pub fn legible(text: String) -> String {
    let Ok(names) = NAMES.lock() else { return text };
    names.iter().fold(text, |text, (dir, name)| match text.strip_suffix(dir.as_str()) {
        Some(start) => format!("{start}{name}"),
        None => text.replace(&format!("{dir}/"), &format!("{name}:/")),
    })
}

#[cold]
#[inline(never)]
fn from_io(error: &std::io::Error, kind: Kind, op: &str, subject: &dyn fmt::Display) -> Error {
    let built = Error::build(kind, words(error)).place(op, subject);
    // Slots only. A stale source, or a damaged stick, is no reason to reformat a slot.
    let is_slot = matches!(kind, Kind::Device | Kind::Slot);
    if is_slot && may_be_damage(error) { built.taking(Course::Damaged) } else { built }
}

/// Describes an I/O error: the C library's text for a damaged file system, `Bad message`, means nothing to a person.
pub fn words(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code @ (libc::EUCLEAN | libc::EBADMSG)) => format!("the file system is damaged (os error {code})"),
        _ => without_no_words(error.to_string()),
    }
}

/// musl's text for an error without a message tells less than the error number. Pure.
fn without_no_words(text: String) -> String {
    let number = text.strip_prefix("No error information (").and_then(|rest| rest.strip_suffix(')'));
    number.map_or_else(|| text.clone(), str::to_string)
}

/// Returns whether a damaged file system is the likely cause: it reports so itself, became read-only after an
/// inconsistency, or is full although it reported free space. (EIO more likely means the disk.)
pub fn may_be_damage(error: &std::io::Error) -> bool {
    const ERRORS: [i32; 5] = [libc::EUCLEAN, libc::EBADMSG, libc::EROFS, libc::ESTALE, libc::ENOSPC];
    error.raw_os_error().is_some_and(|code| ERRORS.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_on_what_why_and_next() {
        let e = Error::new(Kind::Network, "connection refused")
            .at("fetch manifest", "reg.example/os:v1")
            .at("apply", "outer context is dropped")
            .hint("check the network");
        assert_eq!(e.to_string(), "fetch manifest reg.example/os:v1: connection refused (check the network)");
        assert_eq!(e.exit_code(), 6);
    }

    #[test]
    fn a_directory_is_called_by_its_name() {
        call_it("/proc/self/fd/1", "KSOLOB");
        let said = |path: &str| Error::new(Kind::Device, "no").at("write", path).to_string();
        assert_eq!(said("/proc/self/fd/1/vmlinuz"), "write KSOLOB:/vmlinuz: no");
        assert_eq!(said("/proc/self/fd/1"), "write KSOLOB: no");
        assert_eq!(said("/proc/self/fd/12/vmlinuz"), "write /proc/self/fd/12/vmlinuz: no");
        call_it("/proc/self/fd/1", "");
        assert_eq!(said("/proc/self/fd/1/vmlinuz"), "write /proc/self/fd/1/vmlinuz: no");
    }

    #[test]
    fn an_error_without_words_is_its_number() {
        let said = |code| words(&std::io::Error::from_raw_os_error(code));
        assert_eq!(said(libc::EUCLEAN), "the file system is damaged (os error 117)");
        assert_eq!(said(libc::EBADMSG), "the file system is damaged (os error 74)");
        assert!(said(libc::EIO).ends_with(" (os error 5)"), "{}", said(libc::EIO));
        // As musl writes it.
        for (text, shown) in [
            ("No error information (os error 132)", "os error 132"),
            ("I/O error (os error 5)", "I/O error (os error 5)"),
            ("No error information", "No error information"),
        ] {
            assert_eq!(without_no_words(text.into()), shown);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let e = Error::new(Kind::Source, "bad \x1b[31mname\r\n").at("read", "a\x07b");
        assert!(!e.to_string().chars().any(|c| c.is_control()));
    }
}
