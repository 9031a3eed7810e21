//! Long documents, shortened before they are parsed: long texts are cut, runs of white space become one.
//!
//! The parser copies each text that contains an escape, so a document of 4 MiB would take 12. Must never: decide
//! what is JSON. The parser sees everything that was sent: what is cut off a text is parsed separately, as a text.

use crate::base::error::{Error, Kind, Result};

/// Longest text that [`shorten`] leaves, in bytes; its last character may extend beyond.
pub const MAX_TEXT: usize = 64 << 10;
/// Longest document that [`shorten`] leaves, in bytes. The rest of the document is as it came: the whole agent uses
/// 5.0 MiB of memory with the largest, of 4 MiB, and 3.8 MiB with 1 MiB of 680 entries (measured, static amd64).
const MAX_SHORTENED: usize = 1 << 20;
/// Bytes of cut-off text parsed at a time.
const PIECE: usize = 4 << 10;

/// Cuts texts beyond [`MAX_TEXT`] and runs of white space out of a document, in place, so that both the input and the
/// parsed result are small. A text that must be shorter than that is still too long, and release notes are cut. Names
/// stay whole: two that begin alike remain two.
/// Input: the document, already verified: its digest changes. What is not JSON does not become JSON.
/// Errors: Source: not UTF-8, invalid JSON in what was cut off, or more than 1 MiB is left.
pub fn shorten(document: &mut Vec<u8>) -> Result<()> {
    if document.len() <= MAX_TEXT {
        return Ok(());
    }
    let kept = cut(document).map_err(|why| {
        // The beginning is unchanged.
        Error::new(Kind::Source, super::shape::other_than_json(document).unwrap_or(why))
    })?;
    document.truncate(kept);
    document.shrink_to_fit();
    Ok(())
}

/// Moves what is kept to the front. Returns: its length. Errors: as [`shorten`].
fn cut(document: &mut [u8]) -> std::result::Result<usize, &'static str> {
    if std::str::from_utf8(document).is_err() {
        return Err("not UTF-8 text");
    }
    let (mut at, mut kept, mut cut) = (0, 0, Cut::default());
    // Where the open text begins, within what is kept, and whether it is a name.
    let mut open: Option<(usize, bool)> = None;
    while at < document.len() {
        let rest = &document[at..];
        let step = step(rest, open.is_some());
        let keep = match open {
            Some(_) if rest[0] == b'"' => {
                open = None;
                cut.end()?;
                true
            }
            Some((from, is_name)) => is_name || kept - from < MAX_TEXT || cut.take(&rest[..step])?,
            None if rest[0] == b'"' => {
                open = Some((kept + 1, is_name(&rest[1..])));
                true
            }
            None => !(is_blank(rest[0]) && kept > 0 && is_blank(document[kept - 1])),
        };
        if keep {
            document.copy_within(at..at + step, kept);
            kept += step;
        }
        at += step;
    }
    match kept > MAX_SHORTENED {
        true => Err("more than 1 MiB of JSON, with every long text cut to 64 KiB"),
        false => Ok(kept),
    }
}

/// Returns whether a byte is white space. Source: RFC 8259, section 2: a form feed is not.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Returns whether a text is a name, by what follows it.
fn is_name(text: &[u8]) -> bool {
    let behind = text.get(super::shape::text_length(text) + 1..).unwrap_or_default();
    behind.iter().find(|byte| !is_blank(**byte)) == Some(&b':')
}

/// Returns the length of the first unit that must not be split: in a text an escape (two, where they form one character)
/// or a character; outside, a byte. Source: RFC 8259, section 7.
fn step(rest: &[u8], in_text: bool) -> usize {
    let is_half = |at: usize, digits: std::ops::RangeInclusive<u8>| match rest.get(at..at + 4) {
        Some([b'\\', b'u', b'd' | b'D', digit]) => digits.contains(&digit.to_ascii_lowercase()),
        _ => false,
    };
    let whole = match rest {
        _ if !in_text => 1,
        // The second half of a pair is `\udc00` to `\udfff`, the first `\ud800` to `\udbff`.
        [b'\\', b'u', ..] if (is_half(0, b'8'..=b'9') || is_half(0, b'a'..=b'b')) && is_half(6, b'c'..=b'f') => 12,
        [b'\\', b'u', ..] => 6,
        [b'\\', ..] => 2,
        [first, ..] => first.leading_ones().max(1) as usize,
        [] => 1,
    };
    whole.min(rest.len())
}

/// What was cut off the open text, and not parsed yet.
#[derive(Default)]
struct Cut(Vec<u8>);

impl Cut {
    /// Takes a unit that must not be split. Returns: false: it is not kept. Errors: as [`Cut::end`].
    fn take(&mut self, unit: &[u8]) -> std::result::Result<bool, &'static str> {
        if self.0.is_empty() {
            self.0.push(b'"');
        }
        self.0.extend_from_slice(unit);
        if self.0.len() > PIECE {
            self.end()?;
        }
        Ok(false)
    }

    /// Parses it. Errors: it is not valid JSON.
    fn end(&mut self) -> std::result::Result<(), &'static str> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.push(b'"');
        let text = std::str::from_utf8(&self.0).ok().map(miniserde::json::from_str::<String>);
        self.0.clear();
        match text {
            Some(Ok(_)) => Ok(()),
            _ => Err("not valid JSON (in a text, beyond its first 64 KiB)"),
        }
    }
}

#[cfg(test)]
#[path = "long_tests.rs"]
mod tests;
