//! Image indexes: which entry is for this machine. Pure.
//!
//! An entry that makes no sense here (another digest algorithm, no size) is skipped if it is for other machines; if it is the
//! one for this machine, it is the error. Must never: choose another entry instead.

use super::entries::Entries;
use super::misspellings::is_misspelt_architecture;
use super::reference;
use crate::base::error::{Error, Kind, Result};
use crate::oci::descriptor::{Descriptor, RawDescriptor, plain_type};

/// Most manifests that are read when an index does not say which platforms they are for.
pub(super) const MAX_CANDIDATES: usize = 8;
/// Most architectures that an error names.
const MAX_NAMED: usize = 16;

/// An image index whose entries have been checked.
#[derive(Debug)]
pub struct Index {
    name: String,
    entries: Vec<Entry>,
    faults: Vec<Fault>,
}

/// Why an entry is skipped, and which machine it is for.
#[derive(Debug)]
struct Fault {
    /// Number of good entries before it.
    before: usize,
    platform: Option<(String, String)>,
    ref_name: Option<String>,
    error: Error,
}

/// One entry of an index.
#[derive(Debug)]
pub struct Entry {
    /// What it points to.
    pub descriptor: Descriptor,
    /// Operating system and architecture, where the index gives both.
    pub platform: Option<(String, String)>,
    /// `org.opencontainers.image.ref.name`: the tag, in an image layout's index.
    pub ref_name: Option<String>,
    /// `artifactType` of the manifest, as the index gives it.
    pub artifact_type: Option<String>,
    /// Predicate type of a signature, as the index gives it (cosign's annotation).
    pub predicate_type: Option<String>,
    /// Kind of entry according to `cosign save`.
    pub saved_as: Option<String>,
}

/// Which manifest of an index is for this machine.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// This one.
    One(&'a Descriptor),
    /// One of these, if its own annotation says so: the index gives no platform for them.
    LookInto(Vec<&'a Descriptor>),
}

impl Index {
    /// Checks each entry. Input: `name`: for errors.
    pub(super) fn of(entries: Entries, name: &str) -> Index {
        let mut index = Index { name: name.to_owned(), entries: Vec::new(), faults: Vec::new() };
        let mut has_bare = false;
        for (place, raw) in entries.list {
            let (platform, ref_name) = (raw.platform(), raw.ref_name());
            // Of the entries without platform and tag, one fault is enough: a long list of them must not take memory.
            let is_bare = platform.is_none() && ref_name.is_none();
            match raw.entry(place) {
                Ok(entry) => index.entries.push(entry),
                Err(_) if is_bare && has_bare => {}
                Err(error) => {
                    has_bare |= is_bare;
                    let (before, error) = (index.entries.len(), error.at("read", name));
                    index.faults.push(Fault { before, platform, ref_name, error });
                }
            }
        }
        index
    }

    /// Returns the entries, for an image layout's index, whose entries carry tags.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Takes the entries out.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Returns whether there is an entry for linux on this architecture, sound or not.
    pub fn offers(&self, architecture: &str) -> bool {
        let mut platforms = self.entries.iter().map(|e| &e.platform).chain(self.faults.iter().map(|f| &f.platform));
        platforms.any(|platform| is_for(platform, architecture))
    }

    /// Finds the entry for linux on `architecture` (Go's name: amd64, arm64). The first of several wins.
    /// Errors: Gate: nothing here for this machine, naming what is offered. Source: the entry makes no sense, is neither
    /// manifest nor index, or larger than a document may be; or no entry makes sense.
    /// Source: image-spec 1.1, image-index.md: the first matching entry should be used.
    pub fn select(&self, architecture: &str) -> Result<Choice<'_>> {
        let found = self.entries.iter().position(|entry| is_for(&entry.platform, architecture));
        let first =
            |fault: &&Fault| is_for(&fault.platform, architecture) && found.is_none_or(|found| fault.before <= found);
        if let Some(fault) = self.faults.iter().find(first) {
            return Err(fault.error.clone());
        }
        if let Some(entry) = found.and_then(|found| self.entries.get(found)) {
            entry.descriptor.check_document().map_err(|e| e.at("read", &self.name))?;
            return Ok(Choice::One(&entry.descriptor));
        }
        let unmarked: Vec<&Descriptor> = self
            .entries
            .iter()
            .filter(|e| e.platform.is_none() && e.descriptor.check_document().is_ok())
            .map(|e| &e.descriptor)
            .take(MAX_CANDIDATES)
            .collect();
        match unmarked.is_empty() {
            true => Err(self.nothing_for(architecture, &[], None)),
            false => Ok(Choice::LookInto(unmarked)),
        }
    }

    /// Returns why an entry was skipped that may be for any machine.
    pub fn fault(&self) -> Option<&Error> {
        self.faults.iter().find(|fault| fault.platform.is_none()).map(|fault| &fault.error)
    }

    /// Returns the fault of an image layout's entry that may be the one meant: it has this tag; or, where no tag is asked for
    /// and no sound entry is `latest`, it has any tag, or has none like all the others.
    pub fn fault_of(&self, tag: Option<&str>) -> Option<&Error> {
        let wanted = tag.unwrap_or("latest");
        let is_tagged = |name: &Option<String>| name.as_deref().is_some_and(|name| !reference::is_tag(name));
        let is_there = tag.is_some() || self.entries.iter().any(|e| e.ref_name.as_deref() == Some(wanted));
        let has_tags = self.entries.iter().any(|e| is_tagged(&e.ref_name));
        let is_meant = |fault: &&Fault| match is_there {
            true => fault.ref_name.as_deref() == Some(wanted),
            false => is_tagged(&fault.ref_name) || !has_tags,
        };
        self.faults.iter().find(is_meant).map(|fault| &fault.error)
    }

    /// Reports that nothing is offered for this machine. Input: `found`: architectures that unmarked manifests turned out to be
    /// for; `below`: why something was skipped in an index inside this one.
    pub fn nothing_for(&self, architecture: &str, found: &[String], below: Option<&Error>) -> Error {
        let fault = self.fault().or(below);
        if let (true, Some(fault)) = (self.entries.is_empty(), fault) {
            return fault.clone();
        }
        let marked = self.entries.iter().filter_map(|e| e.platform.as_ref());
        let marked = marked.chain(self.faults.iter().filter_map(|f| f.platform.as_ref()));
        // Attestations are filed under unknown/unknown.
        let marked = marked.filter(|(os, _)| os != "unknown").map(|(os, a)| format!("{os}/{a}"));
        let found = found.iter().map(|a| format!("linux/{a}"));
        let error = nothing_for(architecture, marked.chain(found)).at("choose a manifest from", &self.name);
        match fault {
            Some(fault) => error.hint(format!("skipped what cannot be used here: {fault}")),
            None => error,
        }
    }
}

fn is_for(platform: &Option<(String, String)>, architecture: &str) -> bool {
    matches!(platform, Some((os, name)) if os == "linux" && name == architecture)
}

/// Reports that a source offers nothing for this machine. Input: `offered`: what it offers instead.
pub(crate) fn nothing_for(architecture: &str, offered: impl Iterator<Item = String>) -> Error {
    let mut names: Vec<String> = offered.take(MAX_NAMED).collect();
    names.dedup();
    let offered = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let is_misspelt = |name: &String| is_misspelt_architecture(name.strip_prefix("linux/").unwrap_or(name));
    let hint = if names.iter().any(is_misspelt) { " (write amd64 or arm64)" } else { "" };
    Error::new(Kind::Gate, format!("nothing for linux/{architecture} here; offered: {offered}{hint}"))
}

impl RawDescriptor {
    /// Reads an entry of an index. Input: `index`: its number in the document.
    pub(crate) fn entry(mut self, index: usize) -> Result<Entry> {
        let place = format!("manifests[{index}]");
        let platform = match self.platform.take() {
            None => None,
            Some(p) => {
                let os = p.os.optional(&format!("{place}.platform.os"))?;
                os.zip(p.architecture.optional(&format!("{place}.platform.architecture"))?)
            }
        };
        let (ref_name, predicate_type, saved_as) = match self.annotations.take() {
            None => (None, None, None),
            Some(a) => (
                a.ref_name.optional(&format!("{place}: org.opencontainers.image.ref.name"))?,
                a.predicate_type.optional(&format!("{place}: dev.sigstore.bundle.predicateType"))?,
                a.kind.optional("kind").ok().flatten(),
            ),
        };
        let artifact_type = std::mem::take(&mut self.artifact_type).optional(&format!("{place}.artifactType"))?;
        let artifact_type = artifact_type.map(|text| plain_type(&text)).filter(|text| !text.is_empty());
        Ok(Entry { descriptor: self.check(&place)?, platform, ref_name, artifact_type, predicate_type, saved_as })
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
