//! Chooses the release meant in a layout. Pure.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::oci::descriptor::Descriptor;
use crate::oci::manifest::Entry;
use crate::oci::reference;
use crate::trust::referrers;

/// Most tags that an error names.
pub(super) const MAX_NAMED: usize = 16;

/// Picks the entry for a tag or digest; without one: `latest`, else the only tag, else the only entry that is not a signature.
/// Errors: Config: no such tag, or none chosen among several. Source: nothing there, or one tag on two different things.
pub(super) fn choose<'a>(entries: &'a [Entry], tag: Option<&str>) -> Result<&'a Descriptor> {
    let tagged = |want: &str| -> Result<Option<&'a Descriptor>> {
        let mut found: Option<&'a Descriptor> = None;
        for entry in entries.iter().filter(|e| e.ref_name.as_deref() == Some(want)) {
            if found.is_some_and(|f| f.digest != entry.descriptor.digest) {
                return Err(Error::new(Kind::Source, format!("tag '{want}' is on more than one entry")));
            }
            found = Some(&entry.descriptor);
        }
        Ok(found)
    };
    // Entries that belong to signatures cannot be chosen.
    let is_listed = |entry: &Entry| entry.ref_name.as_deref().is_some_and(reference::is_tag);
    let loose: Vec<&'a Entry> = entries.iter().filter(|e| !referrers::is_signature(e) && !is_listed(e)).collect();
    let mut tags: Vec<&str> = loose.iter().filter_map(|e| e.ref_name.as_deref()).collect();
    tags.sort_unstable();
    tags.dedup();
    let listed = || offered(&tags, &loose);
    // A tag has no colon.
    if let Some(digest) = tag.filter(|tag| tag.contains(':')) {
        return by_digest(digest, entries, &listed());
    }
    if let Some(tag) = tag {
        let missing = || Error::new(Kind::Config, format!("no tag '{tag}' here; {}", listed())).hint(CHOOSE);
        return tagged(tag)?.ok_or_else(missing);
    }
    if let Some(found) = tagged("latest")? {
        return Ok(found);
    }
    match (tags.as_slice(), loose.as_slice()) {
        ([only], _) => tagged(only)?.ok_or_else(|| Error::new(Kind::Internal, "a tag got lost")),
        ([], [only]) => Ok(&only.descriptor),
        ([], []) => Err(Error::new(Kind::Source, "the layout is empty")),
        _ => {
            let why = format!("{} entries and none is tagged 'latest'; {}", loose.len(), listed());
            Err(Error::new(Kind::Config, why).hint(match tags.is_empty() {
                true => "choose one with --tag sha256:HEX, or name it: oras tag --oci-layout DIR@sha256:HEX latest",
                false => CHOOSE,
            }))
        }
    }
}

/// Length of a digest as shown to operators: `sha256:` and 12 digits.
pub(super) const SHORT_DIGEST: usize = 19;

/// Finds an entry by its digest, or by the digits of it that operators are shown, if unambiguous.
pub(super) fn by_digest<'a>(wanted: &str, entries: &'a [Entry], listed: &str) -> Result<&'a Descriptor> {
    let missing = |why: String| Error::new(Kind::Config, format!("{why} {wanted} here; {listed}")).hint(CHOOSE);
    let is_hex = |hex: &str| hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if wanted.len() < SHORT_DIGEST || !wanted.strip_prefix("sha256:").is_some_and(is_hex) {
        Digest::parse(wanted).map_err(|e| Error::new(Kind::Config, e.to_string()))?;
    }
    let mut found =
        entries.iter().map(|entry| &entry.descriptor).filter(|it| it.digest.to_string().starts_with(wanted));
    let first = found.next();
    match found.any(|other| first.is_some_and(|first| first.digest != other.digest)) {
        true => Err(missing("several entries begin with".into())),
        false => first.ok_or_else(|| missing("no entry".into())),
    }
}

/// A run by cron has no flag.
pub(super) const CHOOSE: &str = "choose one with --tag, or `tag` in update.conf";

/// Lists the choices.
pub(super) fn offered(tags: &[&str], loose: &[&Entry]) -> String {
    if tags.is_empty() {
        let digests: Vec<String> = loose.iter().take(MAX_NAMED).map(|e| e.descriptor.digest.to_string()).collect();
        return format!("it has no tags; it holds {}", digests.join(", "));
    }
    format!("it has: {}", tags[..tags.len().min(MAX_NAMED)].join(", "))
}
