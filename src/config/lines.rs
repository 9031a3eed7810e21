//! Lines and values of `update.conf`: typical changes by an editor, a shell or a slip are recognized and named. Pure.
//!
//! Must never: show possible secrets, or characters that a terminal would act on.

use crate::base::error::{Error, Kind, Result};
use crate::base::url::without_secrets;
use crate::config::lines;

/// Every key allowed in `update.conf`.
pub(super) const KEYS: [&str; 20] = [
    "server",
    "registry",
    "layout",
    "tag",
    "mirror",
    "channel",
    "signature",
    "signature_threshold",
    "plain_http",
    "auth_file",
    "ca_file",
    "client_cert",
    "client_key",
    "retries",
    "stall_timeout",
    "download_timeout",
    "maintenance_window",
    "containerd_socket",
    "kubeconfig",
    "workloads",
];

/// The only key that may be repeated.
pub(super) const REPEATED: &str = "mirror";

/// Keys that take a URL; their errors omit what is secret in it.
pub(super) const URL_KEYS: [&str; 3] = ["server", "registry", "mirror"];
/// What another format, a shell or a word processor puts around a value.
pub(super) const QUOTES: &[char] =
    &['"', '\'', '`', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{201e}', '\u{ab}', '\u{bb}'];
/// What some editors write in front of UTF-8.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';
/// Returns whether a character is invisible on screens.
pub(super) fn is_hidden(c: char) -> bool {
    let is_invisible =
        matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
    c != '\t' && c.is_control() || is_invisible || matches!(c, '\u{2060}'..='\u{206f}' | BYTE_ORDER_MARK)
}

/// Refuses what no value may contain.
/// Errors: Config: quotation marks, or a URL where none belongs.
pub(super) fn check_value(key: &str, value: &str) -> Result<()> {
    if value.starts_with(QUOTES) || value.ends_with(QUOTES) {
        let why = format!("`{key}` has quotation marks: write the value without them");
        return Err(Error::new(Kind::Config, why));
    }
    if URL_KEYS.contains(&key) { Ok(()) } else { refuse_url(key, value) }
}

/// Refuses a URL where none belongs: it may contain a secret, and would be shown as part of a path.
/// Errors: Config.
pub(super) fn refuse_url(what: &str, text: &str) -> Result<()> {
    let has_password = || text.split_once('@').is_some_and(|(user, _)| !user.starts_with('/') && user.contains(':'));
    if !text.contains("://") && !has_password() {
        return Ok(());
    }
    let why = format!("`{what}` takes no URL, and `{}` is one", without_secrets(text));
    Err(Error::new(Kind::Config, why)
        .hint("`server`, `registry` and `mirror` take URLs; a path is written as /dir/file"))
}

/// Names the encoding of a text that is not UTF-8.
pub(super) fn encoding_of(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16: save it as UTF-8",
        _ => "it is not UTF-8: save it as UTF-8",
    }
}

/// `key = value` lines of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    entries: Vec<(String, String, usize)>,
}

impl Raw {
    /// Parses `update.conf`. Pure.
    /// Errors: Config: an unknown or repeated key, or a line without `=`; the line is named.
    pub fn parse(text: &str) -> Result<Raw> {
        let mut raw = Raw::default();
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let bad = |why: String| Error::new(Kind::Config, format!("line {number}: {why}"));
            let line = without_comment(line).trim();
            if line.is_empty() {
                continue;
            }
            if let Some(hidden) = line.chars().find(|c| is_hidden(*c)) {
                return Err(bad(format!(
                    "it holds U+{:04X}, which is not seen: type the line anew",
                    u32::from(hidden)
                )));
            }
            // A key that is not a word may be the first half of a URL with a secret in it, and is shown as such.
            let pair = line.split_once('=').filter(|(key, _)| is_word(key.trim()));
            let (key, value) =
                pair.ok_or_else(|| bad(format!("`{}` is not of the form key = value", without_secrets(line))))?;
            let (key, value) = (key.trim(), value.trim());
            if !KEYS.contains(&key) {
                return Err(bad(format!("unknown key `{key}`")).hint(format!("known keys: {}", KEYS.join(", "))));
            }
            if let Some((_, _, first)) = raw.entries.iter().find(|(k, _, _)| k == key && key != REPEATED) {
                return Err(bad(format!("`{key}` stands in line {first} already")));
            }
            if value.is_empty() {
                return Err(bad(format!("`{key}` has no value")));
            }
            lines::check_value(key, value).map_err(|e| in_line(number, e))?;
            raw.entries.push((key.to_string(), value.to_string(), number));
        }
        Ok(raw)
    }

    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(k, _, _)| k == key).map(|(_, v, _)| v.as_str())
    }

    /// Returns each value of a key, with its line.
    pub(crate) fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = (&'a str, usize)> {
        self.entries.iter().filter(move |(k, _, _)| k == key).map(|(_, v, line)| (v.as_str(), *line))
    }

    /// Names the line of a value in an error about it.
    pub(crate) fn blame(&self, key: &str, error: Error) -> Error {
        match self.entries.iter().find(|(k, _, _)| k == key) {
            Some((_, _, line)) => in_line(*line, error),
            None => error,
        }
    }
}

pub(super) fn is_word(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

pub(super) fn in_line(line: usize, error: Error) -> Error {
    Error::new(Kind::Config, format!("line {line}: {error}"))
}

/// A comment starts at a `#` that opens the line or follows a blank.
pub(super) fn without_comment(line: &str) -> &str {
    let starts = line.char_indices().find(|(i, c)| *c == '#' && (*i == 0 || line[..*i].ends_with([' ', '\t'])));
    starts.map_or(line, |(i, _)| &line[..i])
}
