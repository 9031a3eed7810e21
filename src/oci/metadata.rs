//! A publisher's metadata of a release: seven texts, as annotations of a manifest or as fields of `latest.json`. Pure.
//!
//! Must never: interpret a text. Its meaning is up to the code that decides by it.

use super::misspellings::PREFIX;
use crate::base::error::{Error, Kind, Result};
use crate::base::json::Field;
use miniserde::de::{Map, Visitor};
use miniserde::{Deserialize, Serialize, make_place};

/// Longest version, in characters.
const MAX_VERSION: usize = 128;

/// Longest text that is kept, in bytes; release notes have `json::MAX_TEXT`.
const MAX_TEXT: usize = 1 << 10;

/// Field names, in the order of the fields of [`Metadata`]; in manifests with [`PREFIX`] before them.
const NAMES: [&str; 7] =
    ["version", "channel", "architecture", "min_compatible_version", "release_notes", "release_date", "expires"];
/// Selects the machine, so an entry of a list has its own.
const ARCHITECTURE: usize = 2;
const RELEASE_NOTES: usize = 4;

/// A publisher's metadata of a release, each text as published; longer texts are cut to 1 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Version: 1 to 128 printable ASCII characters without spaces.
    pub version: String,
    /// Channel.
    pub channel: Option<String>,
    /// Architecture the artifact declares, in Go's names (amd64, arm64). Not checked against the request.
    pub architecture: Option<String>,
    /// Lowest version that can be updated to this one.
    pub min_compatible_version: Option<String>,
    /// Release notes, possibly with newlines; at most the first 64 KiB of them.
    pub release_notes: Option<String>,
    /// Release date.
    pub release_date: Option<String>,
    /// Expiry: the artifact must not be installed after this.
    pub expires: Option<String>,
}

/// The same before each value is known to be a text.
#[derive(Debug, Default)]
pub struct RawMetadata([Option<Field<String>>; NAMES.len()]);

impl RawMetadata {
    /// Returns the place of a value by the name of its field.
    pub fn member(&mut self, name: &str) -> Option<&mut dyn Visitor> {
        let at = NAMES.iter().position(|known| *known == name)?;
        Some(Field::begin(&mut self.0[at]))
    }

    /// Returns the architecture, to choose by it.
    pub fn architecture(&self) -> &Field<String> {
        self.0[ARCHITECTURE].as_ref().unwrap_or(&Field::Missing)
    }

    /// Fills missing fields from values shared by several releases, never the architecture.
    pub fn or(&mut self, fallback: RawMetadata) {
        for (at, (own, other)) in self.0.iter_mut().zip(fallback.0).enumerate() {
            if at != ARCHITECTURE && matches!(own, None | Some(Field::Missing)) {
                *own = other;
            }
        }
    }

    /// Checks each field. Input: `prefix`: what precedes the names, for errors.
    /// Errors: Source: a value is not a text, or the version is unusable.
    pub fn check(self, prefix: &str) -> Result<Metadata> {
        let mut texts: [Option<String>; NAMES.len()] = Default::default();
        for (at, field) in self.0.into_iter().enumerate() {
            let text = field.unwrap_or_default().optional(&[prefix, NAMES[at]].concat())?;
            texts[at] = text.map(|text| if at == RELEASE_NOTES { text } else { kept(text) });
        }
        let [version, channel, architecture, min_compatible_version, release_notes, release_date, expires] = texts;
        Ok(Metadata {
            version: check_version(version, &[prefix, NAMES[0]].concat())?,
            channel,
            architecture,
            min_compatible_version,
            release_notes,
            release_date,
            expires,
        })
    }
}

/// Refuses a version that cannot be shown, compared or stored.
fn check_version(version: Option<String>, field: &str) -> Result<String> {
    let fail = |why: &str| Err(Error::new(Kind::Source, format!("'{field}' {why}")));
    match version {
        None => fail("is missing"),
        Some(v) if v.is_empty() => fail("is empty"),
        Some(v) if v.len() > MAX_VERSION => fail("is longer than 128 characters"),
        Some(v) if !v.bytes().all(|b| b.is_ascii_graphic()) => fail("is not printable ASCII without spaces"),
        Some(v) => Ok(v),
    }
}

/// Cuts a text to the length that is kept.
fn kept(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().take(MAX_TEXT + 1).find(|(at, c)| at + c.len_utf8() > MAX_TEXT) {
        text.truncate(end);
    }
    text.shrink_to_fit();
    text
}

/// The annotations of a manifest that are ours.
#[derive(Debug, Default)]
pub struct Annotations {
    /// The publisher's metadata of the release.
    pub release: RawMetadata,
    /// `io.kubesolo.os.initramfs_digest`.
    pub initramfs_digest: Option<Field<String>>,
}

make_place!(Place);

impl Deserialize for Annotations {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
}

impl Visitor for Place<Annotations> {
    fn map(&mut self) -> miniserde::Result<Box<dyn Map + '_>> {
        Ok(Box::new(Members { out: &mut self.out, read: <Annotations as Default>::default() }))
    }
}

struct Members<'a> {
    out: &'a mut Option<Annotations>,
    read: Annotations,
}

impl Map for Members<'_> {
    fn key(&mut self, name: &str) -> miniserde::Result<&mut dyn Visitor> {
        Ok(match name.strip_prefix(PREFIX) {
            Some("initramfs_digest") => Field::begin(&mut self.read.initramfs_digest),
            Some(name) => self.read.release.member(name).unwrap_or(<dyn Visitor>::ignore()),
            None => <dyn Visitor>::ignore(),
        })
    }

    fn finish(&mut self) -> miniserde::Result<()> {
        *self.out = Some(std::mem::take(&mut self.read));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_short_and_printable() {
        let long = "1".repeat(129);
        for (version, word) in
            [("", "empty"), ("1 2", "printable"), ("1\u{1b}", "printable"), ("ü", "printable"), (&long, "128")]
        {
            let e = check_version(Some(version.to_owned()), "v").unwrap_err();
            assert!(e.to_string().contains(word) && e.kind() == Kind::Source, "{e}");
        }
        assert!(check_version(None, "v").unwrap_err().to_string().contains("'v' is missing"));
        assert_eq!(check_version(Some("1.2.0-rc.1+b".to_owned()), "v").unwrap(), "1.2.0-rc.1+b");
    }

    #[test]
    fn texts_are_kept_up_to_1_kib() {
        for (text, kept_bytes) in
            [("x".repeat(2000), 1024), ("x".repeat(1024), 1024), ("é".repeat(2000), 1024), ("€".repeat(342), 1023)]
        {
            let short = kept(text.clone());
            assert!(
                text.starts_with(&short) && short.len() == kept_bytes && short.capacity() < 1100,
                "{}",
                short.len()
            );
        }
    }
}
