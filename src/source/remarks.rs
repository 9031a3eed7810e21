//! Remarks on ignored names in a source's documents that were probably meant to count: once, only for what is offered.
//!
//! Must never: decide anything, or remark on a document that does not belong to the chosen artifact.

use crate::base::digest::Digest;
use crate::base::json;
use crate::oci::misspellings::Names;
use crate::offer::artifact::Artifact;
use crate::os::progress::note;
use miniserde::Deserialize;

/// Longest document examined, in bytes; one with 64 KiB of release notes is far below it.
const MAX_BYTES: usize = 256 << 10;
/// Most remarks on one release.
const MAX_REMARKS: usize = 8;

/// Annotation names in the documents that were read to find an artifact.
#[derive(Default)]
pub(super) struct Remarks(Vec<(Digest, Annotated)>);

#[derive(Deserialize)]
struct Annotated {
    annotations: Names,
}

impl Remarks {
    /// Keeps the names of a document's annotations.
    pub(super) fn look(&mut self, digest: Digest, bytes: &[u8]) {
        if bytes.len() <= MAX_BYTES
            && let Ok(annotated) = json::parse(bytes, "")
        {
            self.0.push((digest, annotated));
        }
    }

    /// Reports ignored names. Returns: whether there are any.
    pub(super) fn say(&self, artifact: &Artifact) -> bool {
        let of = |digest: Digest| self.0.iter().find(|(known, _)| *known == digest).map(|(_, a)| &a.annotations);
        let nothing = Names(Vec::new());
        let own = of(artifact.digest).unwrap_or(&nothing);
        let index = artifact.index_digest.and_then(of).unwrap_or(&nothing);
        let known: Vec<&str> = own.known_annotations().collect();
        let stray = index.known_annotations().filter(|name| !known.contains(name)).map(|name| {
            format!(
                "the annotation {name} stands in the index alone, where it counts for nothing: put it into the manifest"
            )
        });
        say(&mut own.unknown_annotations().chain(index.unknown_annotations()).chain(stray))
    }
}

#[derive(Deserialize)]
struct Nested {
    kernel: Names,
    initramfs: Names,
    artifacts: Option<Vec<Names>>,
}

/// Reports fields of a `latest.json` that differ from known ones by a slip. Returns: whether there are any.
pub(super) fn say_of_latest(document: &[u8]) -> bool {
    let Ok(top) = json::parse::<Names>(document, "") else { return false };
    let mut all = vec![top];
    if let Ok(nested) = json::parse::<Nested>(document, "") {
        all.extend([nested.kernel, nested.initramfs]);
        all.extend(nested.artifacts.unwrap_or_default());
    }
    say(&mut all.iter().flat_map(Names::misspelt_fields))
}

fn say(remarks: &mut dyn Iterator<Item = String>) -> bool {
    let mut said: Vec<String> = Vec::new();
    for remark in remarks {
        if said.len() < MAX_REMARKS && !said.contains(&remark) {
            note(&remark);
            said.push(remark);
        }
    }
    !said.is_empty()
}
