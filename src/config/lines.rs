//! What a value of `update.conf` may look like: what an editor, a shell or a slip of the hand makes of it is named. Pure.
//!
//! Must never: show what may be secret, or what a terminal would act on.

use crate::base::error::{Error, Kind, Result};
use crate::base::url::without_secrets;

/// Those that take a URL, and leave out what is secret in it where they show it.
pub(super) const URL_KEYS: [&str; 3] = ["server", "registry", "mirror"];
/// What another format, a shell or a word processor puts around a value.
pub(super) const QUOTES: &[char] =
    &['"', '\'', '`', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{201e}', '\u{ab}', '\u{bb}'];
/// What some editors write in front of UTF-8.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';
/// Says whether a character is one that no screen shows.
pub(super) fn is_hidden(c: char) -> bool {
    let is_invisible =
        matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
    c != '\t' && c.is_control() || is_invisible || matches!(c, '\u{2060}'..='\u{206f}' | BYTE_ORDER_MARK)
}

/// Refuses what no value holds.
/// Errors: Config: quotation marks, or a URL where none belongs.
pub(super) fn check_value(key: &str, value: &str) -> Result<()> {
    if value.starts_with(QUOTES) || value.ends_with(QUOTES) {
        let why = format!("`{key}` has quotation marks: write the value without them");
        return Err(Error::new(Kind::Config, why));
    }
    if URL_KEYS.contains(&key) { Ok(()) } else { refuse_url(key, value) }
}

/// Refuses a URL where none belongs: what it holds may be secret, and would be shown with the path that it is taken for.
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

/// Says what a text is that is no UTF-8.
pub(super) fn encoding_of(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16: save it as UTF-8",
        _ => "it is not UTF-8: save it as UTF-8",
    }
}
