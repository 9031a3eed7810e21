//! OCI image layout in a directory: the same artifact as in a registry, on a medium.
//!
//! A medium is as foreign as a network: every document is hashed, and only regular files below the
//! layout are opened. Must never: follow a symbolic link inside it, hang on a pipe, or write to it.

use super::{Artifact, Fetch, FileRef, Source, bounded, check_bytes, follow};
use crate::error::{Error, IoContext, Kind, Result};
use crate::http::Body;
use crate::json::{self, Field};
use crate::oci::digest::Digest;
use crate::oci::manifest::{self, DOCUMENT_CAP, Descriptor, Document, Entry, check_document_size};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Most tags that an error names.
const MAX_NAMED: usize = 16;

/// One layout directory.
pub struct Layout {
    path: PathBuf,
    tag: Option<String>,
}

#[derive(miniserde::Deserialize)]
struct Marker {
    #[serde(rename = "imageLayoutVersion")]
    version: Field<String>,
}

impl Layout {
    /// Makes the source. Opens no file.
    pub fn new(path: PathBuf, tag: Option<String>) -> Layout {
        Layout { path, tag }
    }

    /// Checks the marker file. Source: image-spec 1.1, image-layout.md, "oci-layout file".
    fn check_marker(&self) -> Result<()> {
        let path = self.path.join("oci-layout");
        let bytes = read_document(&path).map_err(|e| e.hint("is this the directory of an OCI image layout?"))?;
        let marker: Marker = json::parse(&bytes, &path.display().to_string())?;
        match marker.version.need("imageLayoutVersion").map_err(|e| e.at("read", path.display()))?.as_str() {
            "1.0.0" => Ok(()),
            other => Err(Error::new(Kind::Source, format!("image layout version '{other}', only 1.0.0 is understood"))
                .at("read", path.display())),
        }
    }

    /// Finds the entry to start from.
    fn top(&self) -> Result<Descriptor> {
        self.check_marker()?;
        let path = self.path.join("index.json");
        let name = path.display().to_string();
        let mut bytes = read_document(&path)?;
        json::shorten(&mut bytes).map_err(|e| e.at("read", &name))?;
        match manifest::parse(&bytes, Some(INDEX_TYPE), &name)? {
            Document::Index(index) => {
                choose(index.entries(), self.tag.as_deref()).cloned().map_err(|e| e.at("read", name))
            }
            Document::Manifest(_) => Err(Error::new(Kind::Source, "not an image index").at("read", name)),
        }
    }

    /// Source: image-spec 1.1, image-layout.md, "Blobs".
    fn blob(&self, digest: Digest) -> Result<PathBuf> {
        let blobs = self.path.join("blobs");
        let directory = blobs.join("sha256");
        for part in [&blobs, &directory] {
            let meta = part.symlink_metadata().io(Kind::Source, "open", part.display())?;
            if !meta.is_dir() {
                return Err(Error::new(Kind::Source, "not a directory").at("open", part.display()));
            }
        }
        Ok(directory.join(digest.hex()))
    }

    fn open_blob(&self, file: &FileRef) -> Result<File> {
        let path = self.blob(file.sha256)?;
        let (blob, size_bytes) = open_regular(&path)?;
        if size_bytes != file.size_bytes {
            return Err(Error::new(Kind::Digest, format!("{size_bytes} bytes, the manifest says {}", file.size_bytes))
                .at("open", path.display()));
        }
        Ok(blob)
    }

    fn fetch(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        check_document_size(descriptor.size_bytes).map_err(|e| e.at("read", descriptor.digest))?;
        let path = self.blob(descriptor.digest)?;
        let bytes = read_document(&path)?;
        check_bytes(&bytes, descriptor).map_err(|e| e.at("read", path.display()))?;
        Ok(bytes)
    }
}

impl Source for Layout {
    fn resolve(&mut self, architecture: &str) -> Result<Artifact> {
        let top = self.top()?;
        let name = format!("document {}", top.digest);
        let mut bytes = self.fetch(&top)?;
        json::shorten(&mut bytes).map_err(|e| e.at("read", &name))?;
        let document = manifest::parse(&bytes, Some(&top.media_type), &name)?;
        drop(bytes);
        let fetch: Fetch = &mut |descriptor| self.fetch(descriptor);
        follow(document, top.digest, architecture, &self.describe(), fetch)
    }

    fn open(&mut self, file: &FileRef, from: u64) -> Result<Body> {
        let mut blob = self.open_blob(file)?;
        blob.seek(SeekFrom::Start(from)).io(Kind::Source, "read", file.sha256)?;
        Ok(bounded(Body::whole(blob), file.size_bytes, from))
    }

    fn probe(&mut self, file: &FileRef) -> Result<()> {
        self.open_blob(file).map(drop)
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
    // Non-blocking, so that a pipe put in a file's place is seen and not waited for.
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

fn read_document(path: &Path) -> Result<Vec<u8>> {
    let (file, size_bytes) = open_regular(path)?;
    check_document_size(size_bytes).map_err(|e| e.at("read", path.display()))?;
    let mut bytes = Vec::with_capacity(size_bytes as usize + 1);
    file.take(DOCUMENT_CAP + 1).read_to_end(&mut bytes).io(Kind::Source, "read", path.display())?;
    check_document_size(bytes.len() as u64).map_err(|e| e.at("read", path.display()))?;
    Ok(bytes)
}

/// Picks the entry for a tag; without one: `latest`, else the only tag, else the only entry.
/// Errors: Config: no such tag, or none chosen where there are several. Source: nothing there, or one
/// tag on two different things.
fn choose<'a>(entries: &'a [Entry], tag: Option<&str>) -> Result<&'a Descriptor> {
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
    let mut tags: Vec<&str> = entries.iter().filter_map(|e| e.ref_name.as_deref()).collect();
    tags.sort_unstable();
    tags.dedup();
    let listed = match tags.is_empty() {
        true => "it has no tags".to_owned(),
        false => format!("it has: {}", tags[..tags.len().min(MAX_NAMED)].join(", ")),
    };
    if let Some(tag) = tag {
        return tagged(tag)?.ok_or_else(|| Error::new(Kind::Config, format!("no tag '{tag}' here; {listed}")));
    }
    if let Some(found) = tagged("latest")? {
        return Ok(found);
    }
    match (tags.as_slice(), entries) {
        ([only], _) => tagged(only)?.ok_or_else(|| Error::new(Kind::Internal, "a tag got lost")),
        ([], [only]) => Ok(&only.descriptor),
        ([], []) => Err(Error::new(Kind::Source, "the layout is empty")),
        _ => Err(Error::new(Kind::Config, format!("{} entries and none is tagged 'latest'; {listed}", entries.len()))
            .hint("choose one with --tag")),
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
