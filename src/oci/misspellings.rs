//! Unknown names in a release's documents, and what was probably meant: a misspelt `expires` must not silently drop a policy.
//! Pure.
//!
//! An annotation with our prefix is ours, so an unknown one is reported. A `latest.json` may hold its publisher's own fields,
//! so only a field that differs from a known one by a slip is reported. Must never: take a misspelt name for the right one.

use miniserde::de::{Map, Visitor};
use miniserde::{Deserialize, make_place};

/// Prefix of our annotations.
pub const PREFIX: &str = "io.kubesolo.os.";
/// All names: first those of manifests only, then those of both, then those of `latest.json` only.
const NAMES: [&str; 15] = [
    "initramfs_digest",
    "version",
    "channel",
    "architecture",
    "min_compatible_version",
    "release_notes",
    "release_date",
    "expires",
    "kernel",
    "initramfs",
    "artifacts",
    "url",
    "sha256",
    "size",
    "chunks",
];
/// Annotations of a manifest, without the prefix.
const ANNOTATIONS: &[&str] = NAMES.split_at(8).0;
/// Fields of a `latest.json`, in any of its objects.
const FIELDS: &[&str] = NAMES.split_at(1).1;
/// What publishers write instead.
const SYNONYMS: [(&str, &str); 7] = [
    ("arch", "architecture"),
    ("expiry", "expires"),
    ("expiration", "expires"),
    ("expiresat", "expires"),
    ("validuntil", "expires"),
    ("minversion", "min_compatible_version"),
    ("mincompatible", "min_compatible_version"),
];
/// What publishers write instead of the prefix, or nearly; [`annotation_remark`] knows two more.
const PREFIXES: [&str; 4] = ["iokubesoloos", "iokubesoloupdate", "kubesoloio", "oskubesoloio"];
/// Most names kept of one object, counting only those worth a remark, and the longest such name.
const MAX_NAMES: usize = 64;
const MAX_LENGTH: usize = 128;

/// Names in a JSON object that deserve a remark, and the known annotations; none of their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Names {
    /// Describes what is wrong with each annotation that may be meant to be ours.
    pub fn unknown_annotations(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|name| annotation_remark(name))
    }

    /// Describes what is wrong with each field of a `latest.json` that differs from a known one by a slip.
    pub fn misspelt_fields(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|name| field_remark(name))
    }

    /// Lists the known annotations.
    pub fn known_annotations(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|name| is_annotation(name))
    }
}

fn is_annotation(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|name| ANNOTATIONS.contains(&name))
}

fn annotation_remark(name: &str) -> Option<String> {
    if is_annotation(name) {
        return None;
    }
    // In any spelling; `io.kubesolo.version`, which lacks a part; `com.kubesolo.os.version`; and a slip before a known name.
    let plain = plain(name);
    let close = |rest: &str| meant(rest, ANNOTATIONS);
    let meant = match plain.strip_prefix("iokubesoloos") {
        Some(rest) => close(rest),
        None => Some(
            plain
                .strip_prefix("iokubesolo")
                .and_then(close)
                .or_else(|| plain.split_once("kubesoloos").and_then(|(_, rest)| close(rest)))
                .or_else(|| behind_a_slip(&plain))?,
        ),
    };
    let hint = meant.map_or(String::new(), |meant| format!(" ({PREFIX}{meant} is meant?)"));
    Some(format!("the annotation {name} is not known and counts for nothing{hint}"))
}

/// Finds the known annotation at the end of a plain name, after something close to our prefix.
fn behind_a_slip(plain: &str) -> Option<&'static str> {
    let known = ANNOTATIONS.iter().map(|name| (self::plain(name), *name));
    let all = known.chain(SYNONYMS.iter().map(|(other, meant)| ((*other).to_owned(), *meant)));
    let is_prefix = |front: &str| PREFIXES.iter().any(|p| differs_by_a_slip(front.as_bytes(), p.as_bytes()));
    let mut fitting = all.filter(|(end, _)| plain.strip_suffix(end.as_str()).is_some_and(is_prefix));
    fitting.next().map(|(_, meant)| meant)
}

fn field_remark(name: &str) -> Option<String> {
    if FIELDS.contains(&name) {
        return None;
    }
    let plain = plain(name);
    let meant = meant(plain.strip_prefix("iokubesoloos").unwrap_or(&plain), FIELDS)?;
    Some(format!("the field '{name}' of latest.json is not known and counts for nothing ('{meant}' is meant?)"))
}

/// Finds the known name that a plain name stands for.
fn meant(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == name).map(|(_, meant)| *meant);
    let is_close = |known: &&&str| differs_by_a_slip(name.as_bytes(), plain(known).as_bytes());
    synonym.or_else(|| known.iter().find(is_close).copied())
}

/// Drops from a name what spellings differ in: case, and separators between words.
fn plain(name: &str) -> String {
    name.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase() as char).collect()
}

/// Returns whether two names differ by one letter missing, added or replaced, or by two neighbours swapped.
fn differs_by_a_slip(a: &[u8], b: &[u8]) -> bool {
    let front = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[front..], &b[front..]);
    let back = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    match (&a[..a.len() - back], &b[..b.len() - back]) {
        ([] | [_], [] | [_]) => true,
        ([a, b], [c, d]) => a == d && b == c,
        _ => false,
    }
}

/// Returns whether this is another spelling of an architecture that we support.
pub fn is_misspelt_architecture(name: &str) -> bool {
    let plain = plain(name);
    let plain = plain.strip_prefix("linux").unwrap_or(&plain);
    ["amd64", "arm64", "x8664", "x64", "amd", "aarch64", "armv8", "arm64v8"].contains(&plain)
        && !["amd64", "arm64"].contains(&name)
}

make_place!(Place);

impl Deserialize for Names {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }

    fn default() -> Option<Self> {
        Some(Names(Vec::new()))
    }
}

impl Visitor for Place<Names> {
    fn null(&mut self) -> miniserde::Result<()> {
        self.out = Some(Names(Vec::new()));
        Ok(())
    }

    fn map(&mut self) -> miniserde::Result<Box<dyn Map + '_>> {
        Ok(Box::new(Keys { out: &mut self.out, names: Names(Vec::new()) }))
    }
}

struct Keys<'a> {
    out: &'a mut Option<Names>,
    names: Names,
}

impl Map for Keys<'_> {
    fn key(&mut self, name: &str) -> miniserde::Result<&mut dyn Visitor> {
        // Not limited by position: a slip may follow any number of the publisher's own names.
        let counts = || is_annotation(name) || annotation_remark(name).is_some() || field_remark(name).is_some();
        if self.names.0.len() < MAX_NAMES && name.len() <= MAX_LENGTH && counts() {
            self.names.0.push(name.to_owned());
        }
        Ok(<dyn Visitor>::ignore())
    }

    fn finish(&mut self) -> miniserde::Result<()> {
        *self.out = Some(std::mem::take(&mut self.names));
        Ok(())
    }
}

#[cfg(test)]
#[path = "misspellings_tests.rs"]
mod tests;
