//! Signatures in a layout that no list names: `cosign save` leaves them so (measured: cosign 3.1.1).
//!
//! Must never: examine more blobs than the limit, or take them for anything but candidates.

use super::archive::Archive;
use crate::base::digest::Digest;
use crate::oci::descriptor::Descriptor;
use crate::trust::bundle;
use crate::trust::referrers::{MANIFEST_MAX_BYTES, MANIFEST_TYPE};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Most small blobs read, and most names examined.
const MAX_READ: usize = 1024;
const MAX_NAMES: usize = 4096;

/// Finds possible manifests around a bundle of `subject`. Input: `blobs`: the directory `blobs/sha256`.
pub(super) fn in_directory(blobs: &Path, subject: Digest) -> Vec<Descriptor> {
    let Ok(names) = blobs.read_dir() else { return Vec::new() };
    let small = names.take(MAX_NAMES).filter_map(|entry| {
        let entry = entry.ok()?;
        let meta = entry.metadata().ok().filter(|meta| meta.is_file() && meta.len() <= MANIFEST_MAX_BYTES)?;
        Some((Digest::parse_hex(entry.file_name().to_str()?).ok()?, meta.len()))
    });
    let is_one = |(digest, size_bytes): &(Digest, u64)| {
        // It may have become a pipe or a link since.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(blobs.join(digest.hex()));
        let mut bytes = Vec::with_capacity(*size_bytes as usize);
        file.and_then(|file| file.take(MANIFEST_MAX_BYTES).read_to_end(&mut bytes)).is_ok() && names_it(&bytes, subject)
    };
    small.take(MAX_READ).filter(is_one).map(|(digest, size_bytes)| candidate(digest, size_bytes)).collect()
}

/// The same in an archive, among the documents in memory.
pub(super) fn in_archive(archive: &Archive, subject: Digest) -> Vec<Descriptor> {
    let of_subject = archive.kept().filter(|(_, bytes)| names_it(bytes, subject));
    let described = of_subject.filter_map(|(name, bytes)| {
        let digest = Digest::parse_hex(name.strip_prefix("blobs/sha256/")?).ok()?;
        Some(candidate(digest, bytes.len() as u64))
    });
    described.collect()
}

/// Returns whether a blob contains what a manifest around a bundle must contain.
fn names_it(bytes: &[u8], subject: Digest) -> bool {
    let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    holds(bundle::MEDIA_TYPE) && holds("\"subject\"") && holds(&subject.to_string())
}

fn candidate(digest: Digest, size_bytes: u64) -> Descriptor {
    Descriptor { media_type: MANIFEST_TYPE.to_owned(), digest, size_bytes }
}
