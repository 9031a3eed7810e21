//! The document of a `latest.json`: read, the entry for this architecture chosen, and checked field by field. Pure.
//!
//! Must never: accept a file without digest and size.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::json::{self, Field};
use crate::base::url::Url;
use crate::oci::manifest::nothing_for;
use crate::oci::metadata::RawMetadata;
use crate::offer::artifact::{Artifact, FileRef, Place};
use miniserde::Deserialize;
use miniserde::de::{Map, Visitor};

miniserde::make_place!(Hole);

/// The document itself, with the fields common to its entries.
#[derive(Default)]
struct RawDocument {
    top: RawEntry,
    artifacts: Option<Option<Vec<RawEntry>>>,
}

/// One artifact.
#[derive(Default)]
struct RawEntry {
    release: RawMetadata,
    kernel: Option<Option<RawFile>>,
    initramfs: Option<Option<RawFile>>,
}

#[derive(Deserialize)]
struct RawFile {
    url: Field<String>,
    sha256: Field<String>,
    size: Field<u64>,
    chunks: Option<Box<RawFile>>,
}

/// Reads an object field by field.
trait Members: Default {
    fn member(&mut self, name: &str) -> &mut dyn Visitor;
}

impl Members for RawEntry {
    fn member(&mut self, name: &str) -> &mut dyn Visitor {
        match name {
            "kernel" => Deserialize::begin(&mut self.kernel),
            "initramfs" => Deserialize::begin(&mut self.initramfs),
            name => self.release.member(name).unwrap_or(<dyn Visitor>::ignore()),
        }
    }
}

impl Members for RawDocument {
    fn member(&mut self, name: &str) -> &mut dyn Visitor {
        match name {
            "artifacts" => Deserialize::begin(&mut self.artifacts),
            name => self.top.member(name),
        }
    }
}

impl Deserialize for RawEntry {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Hole::new(out)
    }
}

impl Deserialize for RawDocument {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Hole::new(out)
    }
}

impl<T: Members> Visitor for Hole<T> {
    fn map(&mut self) -> miniserde::Result<Box<dyn Map + '_>> {
        Ok(Box::new(Reading { out: &mut self.out, read: <T as Default>::default() }))
    }
}

struct Reading<'a, T> {
    out: &'a mut Option<T>,
    read: T,
}

impl<T: Members> Map for Reading<'_, T> {
    fn key(&mut self, name: &str) -> miniserde::Result<&mut dyn Visitor> {
        Ok(self.read.member(name))
    }

    fn finish(&mut self) -> miniserde::Result<()> {
        *self.out = Some(std::mem::take(&mut self.read));
        Ok(())
    }
}

/// Reads a `latest.json`. Input: its bytes; `base`: its URL, for relative file URLs; `name`: the source, for messages.
/// Errors: Source: malformed, naming the field. Gate: an `artifacts` array without this architecture.
pub(super) fn parse(bytes: &[u8], base: &Url, architecture: &str, name: &str) -> Result<Artifact> {
    let subject = base.to_string();
    let raw: RawDocument = json::parse(bytes, &subject)?;
    let (entry, place) = choose(raw, architecture).map_err(|e| e.at("read", &subject))?;
    entry.check(base, &place, name).map_err(|e| e.at("read", &subject))
}

/// Picks the entry for this architecture, or the document itself; the text is the prefix of its fields' names.
fn choose(raw: RawDocument, architecture: &str) -> Result<(RawEntry, String)> {
    let Some(entries) = raw.artifacts.flatten() else { return Ok((raw.top, String::new())) };
    let mut chosen = None;
    let mut others = Vec::new();
    for (i, entry) in entries.into_iter().enumerate() {
        match entry.release.architecture() {
            Field::Is(a) if a == architecture => {
                if chosen.replace((i, entry)).is_some() {
                    return Err(Error::new(Kind::Source, format!("'artifacts' has more than one for {architecture}")));
                }
            }
            Field::Is(a) => others.push(format!("linux/{a}")),
            _ => return Err(Error::new(Kind::Source, format!("'artifacts[{i}].architecture' is missing or no text"))),
        }
    }
    let (i, mut entry) = chosen.ok_or_else(|| nothing_for(architecture, others.into_iter()))?;
    entry.release.or(raw.top.release);
    Ok((entry, format!("artifacts[{i}].")))
}

impl RawEntry {
    fn check(self, base: &Url, place: &str, name: &str) -> Result<Artifact> {
        let release = self.release.check(place)?;
        let file = |raw: Option<Option<RawFile>>, name| {
            let place = [place, name].concat();
            let raw = raw.flatten().ok_or_else(|| Error::new(Kind::Source, format!("'{place}' is missing")))?;
            check_file(raw, base, &place)
        };
        let kernel = file(self.kernel, "kernel")?;
        let initramfs = file(self.initramfs, "initramfs")?;
        Ok(Artifact {
            digest: identity(&release.version, release.architecture.as_deref(), &kernel, &initramfs),
            release,
            index_digest: None,
            passed: Vec::new(),
            signed_by: Vec::new(),
            source: name.to_owned(),
            kernel,
            initramfs,
        })
    }
}

fn check_file(raw: RawFile, base: &Url, place: &str) -> Result<FileRef> {
    let fail = |why: String| Error::new(Kind::Source, why);
    let url = raw.url.need(&format!("{place}.url"))?;
    if url.is_empty() {
        return Err(fail(format!("'{place}.url' is empty")));
    }
    let url = base.join(&url).map_err(|e| fail(format!("'{place}.url': {e}")))?;
    let sha256 = raw.sha256.need(&format!("{place}.sha256"))?;
    let sha256 = Digest::parse_hex(&sha256).map_err(|e| fail(format!("'{place}.sha256': {e}")))?;
    let chunks = raw.chunks.map(|chunks| check_file(*chunks, base, &format!("{place}.chunks")));
    let chunks = chunks.transpose()?.map(Box::new);
    match raw.size.need(&format!("{place}.size"))? {
        n if n == 0 || n > i64::MAX as u64 => Err(fail(format!("'{place}.size' is {n}, not between 1 and 2^63-1"))),
        size_bytes => Ok(FileRef { size_bytes, sha256, chunks, place: Place::Url(url) }),
    }
}

/// Computes the identity of an HTTP artifact: SHA-256 over what would be installed.
///
/// The text is six lines, each ending in a newline: `kubesolo-os-artifact-v1`, the version, the
/// architecture (empty where unknown), and `kernel` and `initramfs`, each with its SHA-256 in hex and
/// its size, then `end`. New release notes, another URL or a new signature do not make a new artifact; other
/// bytes do, and so does another version of the same bytes.
pub fn identity(version: &str, architecture: Option<&str>, kernel: &FileRef, initramfs: &FileRef) -> Digest {
    let file = |name: &str, f: &FileRef| format!("{name} {} {}", f.sha256.hex(), f.size_bytes);
    let lines = [
        "kubesolo-os-artifact-v1".to_owned(),
        version.to_owned(),
        architecture.unwrap_or_default().to_owned(),
        file("kernel", kernel),
        file("initramfs", initramfs),
        "end\n".to_owned(),
    ];
    Digest::of(lines.join("\n").as_bytes())
}

#[cfg(test)]
#[path = "latest_json_tests.rs"]
mod tests;
