//! OCI image layout, a directory or a tar of one: the same artifact as in a registry, on a medium.
//!
//! A medium is as untrusted as a network: every document is hashed, and only regular files below the layout are opened.
//! Must never: follow a symbolic link inside it, hang on a pipe, or write to it.

use super::Source;
use super::archive::Archive;
use super::choose::choose;
use super::remarks::Remarks;
use super::signatures::{FetchPiece, Wanted, Wish, look_at, prove};
use super::unlisted;
use crate::base::digest::Digest;
use crate::base::error::{Course, Error, IoContext, Kind, Result};
use crate::base::json::{self, Field};
use crate::http::Body;
use crate::oci::descriptor::{DOCUMENT_CAP, Descriptor, check_document_size};
use crate::oci::manifest::{self, Document, Entry};
use crate::offer::artifact::{Artifact, FileRef};
use crate::source::follow::{Fetch, Top, follow};
use crate::source::limits::check_bytes;
use crate::trust::keyring::Keyring;
use crate::trust::referrers;
use crate::trust::tally::Tally;
use std::cmp::Ordering;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Most manifests read to find the signatures of one: those of all releases are stored together here.
const MAX_MANIFESTS: usize = 1024;
/// Hint for a blob that is missing or too short.
const INCOMPLETE: &str =
    "the copy of the layout is not complete: copy it again, and unmount the stick before it is pulled out";

/// One layout.
pub struct Layout {
    path: PathBuf,
    tag: Option<String>,
    is_typed: bool,
    ring: Keyring,
    medium: Option<Medium>,
}

/// Form of the layout.
enum Medium {
    Directory(PathBuf),
    Archive(Archive),
}

#[derive(miniserde::Deserialize)]
struct Marker {
    #[serde(rename = "imageLayoutVersion")]
    version: Field<String>,
}

impl Layout {
    /// Creates the source. Opens no file. Input: `ring`: required signers.
    pub fn new(path: PathBuf, tag: Option<String>, is_typed: bool, ring: Keyring) -> Layout {
        Layout { path, tag, is_typed, ring, medium: None }
    }

    /// Opens the medium, once. Errors: Source: neither a directory nor a tar archive; or nothing at all, which is not a fault
    /// unless an operator typed the path.
    fn medium(&mut self) -> Result<&Medium> {
        let medium = match self.medium.take() {
            Some(medium) => medium,
            None if is_vacant(&self.path) => return Err(vacant(self.is_typed).at("open layout", self.path.display())),
            None if self.path.is_dir() => Medium::Directory(self.path.clone()),
            None => {
                // The path that an operator names may be a link; entries inside the layout may not.
                let whole = self.path.canonicalize().io(Kind::Source, "open", self.path.display())?;
                Medium::Archive(Archive::scan(&whole, open_regular(&whole)?.0)?)
            }
        };
        Ok(self.medium.insert(medium))
    }

    /// Reads the entries, and finds the starting one.
    fn top(&mut self) -> Result<(Descriptor, Vec<Entry>)> {
        let tag = self.tag.clone();
        let medium = self.medium()?;
        medium.check_marker()?;
        let name = medium.place("index.json");
        let mut bytes = medium.document("index.json")?;
        json::shorten(&mut bytes).map_err(|e| e.at("read", &name))?;
        match manifest::parse(&bytes, Some(referrers::INDEX_TYPE), &name)? {
            Document::Index(index) => {
                if let Some(fault) = index.fault_of(tag.as_deref()) {
                    return Err(fault.clone());
                }
                let top = choose(index.entries(), tag.as_deref()).cloned().map_err(|e| e.at("read", name))?;
                Ok((top, index.into_entries()))
            }
            Document::Manifest(_) => Err(Error::new(Kind::Source, "not an image index").at("read", name)),
        }
    }
}

/// Returns whether no medium is present: no such path, a dangling link, a card reader without a card, or an empty mount point.
/// A path that exists but cannot be read or is something else is not vacant, nor is an empty medium that is mounted.
fn is_vacant(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let is_empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
            is_empty && fs::metadata(path.join("..")).is_ok_and(|above| above.dev() == meta.dev())
        }
        Ok(_) => false,
        Err(e) => e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENOMEDIUM),
    }
}

/// Reports that nothing is there. An unattended run has nothing to do then.
fn vacant(is_typed: bool) -> Error {
    match is_typed {
        true => {
            Error::new(Kind::Source, "there is nothing").hint("is the stick mounted, and has its layout that name?")
        }
        false => Error::new(
            Kind::Source,
            "there is nothing (no stick is plugged in or mounted, or its layout has another name): nothing to do",
        )
        .taking(Course::Nothing),
    }
}

/// Source: image-spec 1.1, image-layout.md, "Blobs".
fn blob(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Medium {
    /// Names a file, for messages.
    fn place(&self, name: &str) -> String {
        match self {
            Medium::Directory(path) => path.join(name).display().to_string(),
            Medium::Archive(archive) => archive.place(name),
        }
    }

    /// Checks the marker file. Source: image-spec 1.1, image-layout.md, "oci-layout file".
    fn check_marker(&self) -> Result<()> {
        let hint = match self {
            Medium::Directory(_) => "is this the directory of an OCI image layout?",
            Medium::Archive(_) => "is this an OCI image layout, made with `tar -C LAYOUT -cf FILE .`?",
        };
        let bytes = self.document("oci-layout").map_err(|e| e.hint(hint))?;
        let place = self.place("oci-layout");
        let marker: Marker = json::parse(&bytes, &place)?;
        match marker.version.need("imageLayoutVersion").map_err(|e| e.at("read", &place))?.as_str() {
            "1.0.0" => Ok(()),
            other => Err(Error::new(Kind::Source, format!("image layout version '{other}', only 1.0.0 is understood"))
                .at("read", place)),
        }
    }

    /// Opens a file at an offset. Returns: the rest of it, and its whole length.
    fn open(&self, name: &str, from: u64) -> Result<(Box<dyn Read>, u64)> {
        self.open_any(name, from).map_err(|e| self.missed(name, e))
    }

    /// Adds a hint to an error if a file is missing.
    fn missed(&self, name: &str, error: Error) -> Error {
        match name.rsplit_once('/').map(|(_, hex)| Digest::parse_hex(hex)) {
            Some(Ok(digest)) if !self.has(digest) => error.hint(INCOMPLETE),
            _ => error,
        }
    }

    fn open_any(&self, name: &str, from: u64) -> Result<(Box<dyn Read>, u64)> {
        match self {
            Medium::Archive(archive) => Ok((archive.open(name, from)?, archive.size_bytes(name)?)),
            Medium::Directory(path) => {
                let whole = path.join(name);
                check_directories(path, name)?;
                let (mut file, size_bytes) = open_regular(&whole)?;
                file.seek(SeekFrom::Start(from)).io(Kind::Source, "read", whole.display())?;
                Ok((Box::new(file), size_bytes))
            }
        }
    }

    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let at = |e: Error| e.at("read", self.place(name));
        let (reader, size_bytes) = match self {
            Medium::Archive(archive) => {
                let reader = archive.open_document(name).map_err(|e| self.missed(name, e))?;
                (reader, archive.size_bytes(name)?)
            }
            Medium::Directory(_) => self.open(name, 0)?,
        };
        check_document_size(size_bytes).map_err(at)?;
        let mut bytes = Vec::with_capacity(size_bytes as usize + 1);
        reader.take(DOCUMENT_CAP + 1).read_to_end(&mut bytes).io(Kind::Source, "read", self.place(name))?;
        check_document_size(bytes.len() as u64).map_err(at)?;
        Ok(bytes)
    }

    fn fetch(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        check_document_size(descriptor.size_bytes).map_err(|e| e.at("read", descriptor.digest))?;
        let name = blob(descriptor.digest);
        let bytes = self.document(&name)?;
        check_bytes(&bytes, descriptor).map_err(|e| e.at("read", self.place(&name)))?;
        Ok(bytes)
    }

    /// The same for an optional document.
    fn fetch_if_there(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        match self.has(descriptor.digest) {
            true => self.fetch(descriptor).map(Some),
            false => Ok(None),
        }
    }

    fn has(&self, digest: Digest) -> bool {
        let name = blob(digest);
        match self {
            // What cannot be examined may exist.
            Medium::Directory(path) => match path.join(name).symlink_metadata() {
                Err(e) => e.kind() != io::ErrorKind::NotFound,
                Ok(_) => true,
            },
            Medium::Archive(archive) => archive.has(&name),
        }
    }

    /// Examines what refers to a document: the list under its own tag, then the layout's index, then unlisted blobs.
    /// Source: measured: oras 1.3.3 (index), copies of registries without a referrers API (tag), `cosign save` (unlisted).
    fn look_for_signatures(&self, entries: &[Entry], subject: Digest, tally: &mut Tally<'_>) {
        let (tag, mut known) = (referrers::tag(subject), Vec::new());
        let mut candidates = Vec::new();
        for list in entries.iter().filter(|entry| entry.ref_name.as_deref() == Some(&tag)).take(1) {
            let place = self.place(&blob(list.descriptor.digest));
            let listed = self.fetch(&list.descriptor).and_then(|mut bytes| {
                json::shorten(&mut bytes)?;
                referrers::candidates(&bytes, &place)
            });
            match listed {
                Ok((listed, other)) => {
                    candidates = listed;
                    other.into_iter().for_each(|other| tally.see(other));
                }
                Err(e) => tally.pass_over(&e),
            }
        }
        let is_there = |entry: &&Entry| referrers::is_signature(entry) || self.has(entry.descriptor.digest);
        let may_be = entries.iter().filter(|entry| referrers::may_hold_bundle(entry)).filter(is_there);
        let mut loose: Vec<&Entry> = may_be.collect();
        // Entries that state their type first; a tagged one is rarely a signature.
        loose.sort_by_key(|entry| (referrers::order(entry), entry.artifact_type.is_none(), entry.ref_name.is_some()));
        candidates.extend(loose.into_iter().map(|entry| entry.descriptor.clone()));
        let fetch: FetchPiece = &mut |_, descriptor| self.fetch_if_there(descriptor);
        look_at(&candidates, Wish { subject, most: MAX_MANIFESTS }, &mut known, tally, fetch);
        if !tally.is_enough() {
            let candidates = match self {
                Medium::Directory(path) => unlisted::in_directory(&path.join("blobs/sha256"), subject),
                Medium::Archive(archive) => unlisted::in_archive(archive, subject),
            };
            look_at(&candidates, Wish { subject, most: MAX_MANIFESTS }, &mut known, tally, fetch);
        }
        if let Medium::Archive(archive) = self
            && let Some(spent) = archive.is_spent()
        {
            tally.postpone(spent);
        }
    }

    fn open_blob(&self, file: &FileRef, from: u64) -> Result<Box<dyn Read>> {
        let name = blob(file.sha256);
        let (reader, size_bytes) = self.open(&name, from)?;
        let fail = |kind| {
            let why = format!("{size_bytes} bytes, the manifest says {}", file.size_bytes);
            Error::new(kind, why).at("open", self.place(&name))
        };
        match size_bytes.cmp(&file.size_bytes) {
            // Not wrong bytes, but fewer: a medium was removed, or a copy broke off.
            Ordering::Less => Err(fail(Kind::Source).hint(INCOMPLETE)),
            Ordering::Greater => Err(fail(Kind::Digest)),
            Ordering::Equal => Ok(reader),
        }
    }
}

/// Refuses a name with a link, or anything but a directory, on its path.
fn check_directories(path: &Path, name: &str) -> Result<()> {
    for (end, _) in name.match_indices('/') {
        let part = path.join(&name[..end]);
        let meta = part.symlink_metadata().io(Kind::Source, "open", part.display())?;
        if !meta.is_dir() {
            return Err(Error::new(Kind::Source, "not a directory").at("open", part.display()));
        }
    }
    Ok(())
}

impl Source for Layout {
    fn resolve(&mut self, architecture: &str) -> Result<Artifact> {
        let (top, entries) = self.top()?;
        let (described, ring) = (self.describe(), self.ring.clone());
        let medium = self.medium()?;
        let name = format!("document {}", top.digest);
        let mut bytes = medium.fetch(&top)?;
        json::shorten(&mut bytes).map_err(|e| e.at("read", &name))?;
        let mut remarks = Remarks::default();
        remarks.look(top.digest, &bytes);
        let document = manifest::parse(&bytes, Some(&top.media_type), &name)?;
        drop(bytes);
        let fetch: Fetch = &mut |descriptor| {
            let bytes = medium.fetch(descriptor)?;
            remarks.look(descriptor.digest, &bytes);
            Ok(bytes)
        };
        let (mut artifact, is_stated) =
            follow(Top { document, digest: top.digest }, architecture, &described, &ring, fetch)?;
        prove(&mut artifact, is_stated, &ring, &mut |wanted, subject, tally| match wanted {
            Wanted::Signatures => medium.look_for_signatures(&entries, subject, tally),
            Wanted::Others => entries.iter().filter_map(referrers::kind).for_each(|other| tally.see(other)),
        })?;
        remarks.say(&artifact);
        Ok(artifact)
    }

    fn open(&mut self, blob: &FileRef, part: Range<u64>, _begun: Instant) -> Result<Body> {
        let medium = self.medium()?;
        let reader = medium.open_blob(blob, part.start)?;
        Ok(match medium {
            // Each opening inflates it from its beginning.
            Medium::Archive(archive) if archive.is_gzip() => Body::whole(reader, blob.size_bytes),
            _ => Body::whole(reader.take(part.end.saturating_sub(part.start)), part.end),
        })
    }

    fn probe(&mut self, file: &FileRef) -> Result<()> {
        let medium = self.medium()?;
        file.blobs().iter().try_for_each(|blob| medium.open_blob(blob, 0).map(drop))
    }

    fn describe(&self) -> String {
        match &self.tag {
            Some(tag) => format!("layout {}:{tag}", self.path.display()),
            None => format!("layout {}", self.path.display()),
        }
    }
}

/// Opens a regular file and returns its length. Errors: Source: absent, a link, or anything else.
fn open_regular(path: &Path) -> Result<(File, u64)> {
    // Non-blocking, so that a pipe in a file's place is detected without waiting.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|e| match e.raw_os_error() {
            Some(libc::ELOOP) => Error::new(Kind::Source, "a symbolic link, which is not followed"),
            _ => Error::new(Kind::Source, e.to_string()),
        })
        .map_err(|e| e.at("open", path.display()))?;
    let meta = file.metadata().io(Kind::Source, "open", path.display())?;
    match meta.is_file() {
        true => Ok((file, meta.len())),
        false => Err(Error::new(Kind::Source, "not a regular file").at("open", path.display())),
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
