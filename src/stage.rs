//! Staging: bytes from a source into the slot that is not running, proven before they count.
//!
//! One pass: each piece is hashed, checked, and written; then synced, read back from the device,
//! renamed into place. The record is removed first and written last.
//! Must never: touch a slot it was not given, or keep a copy of an image elsewhere.

use crate::atomic;
use crate::error::{Error, IoContext, Kind, Result};
use crate::gzip;
use crate::oci::digest::Digest;
use crate::readback;
use crate::slot::{FileRecord, INITRAMFS, KERNEL, RECORD, Record, VERSION};
use crate::sys;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Read at once, in bytes.
const CHUNK: usize = 128 * 1024;
/// Handed to the device while the rest still arrives, in bytes: the last fsync is short then, and dirty memory small.
const WRITEBACK_BYTES: u64 = 4 * 1024 * 1024;
/// Ending of a file that is not proven yet.
const UNPROVEN: &str = ".part";

/// One file to stage.
pub struct Part<'a> {
    /// Its name in the slot.
    pub name: &'static str,
    /// What it must be.
    pub expected: &'a FileRecord,
    /// Whether it must be whole gzip.
    pub is_gzip: bool,
}

/// What staging tells of its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many more bytes are written.
    Written(u64),
    /// So many more bytes are read back.
    ReadBack(u64),
}

/// Returns the names that staging may find and remove in a slot: those that are its own.
pub fn own_names() -> [String; 7] {
    [
        KERNEL.to_string(),
        INITRAMFS.to_string(),
        VERSION.to_string(),
        format!("{VERSION}.tmp"),
        format!("{RECORD}.tmp"),
        format!("{KERNEL}{UNPROVEN}"),
        format!("{INITRAMFS}{UNPROVEN}"),
    ]
}

/// Makes a slot invalid, then empties it.
///
/// Errors: Device: the file system refuses.
/// Power cut: before the record's removal is durable: the old slot, whole. After it: no record, so nothing
/// activates this slot, whatever files are left.
pub fn invalidate(dir: &Path) -> Result<()> {
    let record = dir.join(RECORD);
    atomic::remove(&record).io(Kind::Device, "remove", record.display())?;
    for name in own_names() {
        let path = dir.join(name);
        let removed = match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => fs::remove_dir_all(&path),
            removed => removed,
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).io(Kind::Device, "remove", path.display()),
            _ => {}
        }
    }
    atomic::sync_dir(dir).io(Kind::Device, "sync", dir.display())
}

/// Streams one file into the slot and proves it.
///
/// Input: `body`: unverified; read to one byte past the expected length at most.
/// Errors: Network: it ends early or breaks off. Digest: it is longer, or hashes to something else. Source: it
/// is not whole gzip. Device: it can not be written, or reads back differently.
/// Power cut: `NAME.part` with some of the bytes; without a record it means nothing.
pub fn write(dir: &Path, part: &Part<'_>, body: &mut dyn Read, progress: &mut dyn FnMut(Step)) -> Result<()> {
    let unproven = dir.join(format!("{}{UNPROVEN}", part.name));
    let mut file = File::create(&unproven).io(Kind::Device, "create", unproven.display())?;
    let mut gzip = part.is_gzip.then(GzipCheck::default);
    let mut writer = Writer { file: &mut file, path: &unproven, written: 0, handed_over: 0 };
    let found = copy(part, body, &mut writer, gzip.as_mut(), progress)?;
    if found != part.expected.sha256 {
        return Err(Error::new(Kind::Digest, format!("it is {found}, expected was {}", part.expected.sha256))
            .at("verify", part.name)
            .hint("the source is damaged or was tampered with; nothing of it will be booted"));
    }
    if let Some(gzip) = gzip {
        gzip.finish().map_err(|why| {
            Error::new(Kind::Source, why)
                .at("check the compression of", part.name)
                .hint("it is what the publisher named, but no kernel could unpack it: publish it again")
        })?;
    }
    file.sync_all().io(Kind::Device, "sync", unproven.display())?;
    // The pages are clean now; without them a copy in memory can not stand in for the device.
    sys::drop_cache(&file).io(Kind::Device, "drop the cache of", unproven.display())?;
    drop(file);
    readback::verify(&unproven, part.expected, &mut |n| progress(Step::ReadBack(n))).map_err(|e| {
        Error::new(Kind::Device, e.to_string())
            .at("prove", part.name)
            .hint("the disk does not keep what is written to it: it may be failing")
    })?;
    let name = dir.join(part.name);
    fs::rename(&unproven, &name).io(Kind::Device, "rename", name.display())
}

/// Writes the version, then the record: from here on the slot is valid.
///
/// Errors: Device: the file system refuses.
/// Power cut: without the record, an invalid slot; with it, a whole one.
pub fn finish(dir: &Path, record: &Record) -> Result<()> {
    let version = dir.join(VERSION);
    atomic::replace(&version, format!("{}\n", record.version).as_bytes()).io(
        Kind::Device,
        "write",
        version.display(),
    )?;
    let path = dir.join(RECORD);
    atomic::replace(&path, record.encode().as_bytes()).io(Kind::Device, "write", path.display())
}

#[derive(Default)]
struct GzipCheck {
    check: gzip::Check,
    broken: Option<String>,
}

impl GzipCheck {
    /// Remembers the first fault and goes on: a wrong digest is the better explanation, and comes last.
    fn update(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.broken = self.check.update(bytes).err();
        }
    }

    fn finish(self) -> std::result::Result<(), String> {
        match self.broken {
            Some(why) => Err(why),
            None => self.check.finish(),
        }
    }
}

struct Writer<'a> {
    file: &'a mut File,
    path: &'a PathBuf,
    written: u64,
    handed_over: u64,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).io(Kind::Device, "write", self.path.display())?;
        self.written += bytes.len() as u64;
        let waiting = self.written - self.handed_over;
        if waiting >= WRITEBACK_BYTES {
            // Only to be early; the fsync at the end is what counts.
            let _ = sys::start_writeback(self.file, self.handed_over, waiting);
            self.handed_over = self.written;
        }
        Ok(())
    }
}

fn copy(
    part: &Part<'_>,
    body: &mut dyn Read,
    writer: &mut Writer<'_>,
    mut gzip: Option<&mut GzipCheck>,
    progress: &mut dyn FnMut(Step),
) -> Result<Digest> {
    let expected = part.expected.size_bytes;
    let mut buffer = vec![0u8; CHUNK];
    let mut hasher = Sha256::new();
    loop {
        let length = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::new(Kind::Network, e.to_string()).at("download", part.name)),
        };
        let bytes = &buffer[..length];
        if writer.written + length as u64 > expected {
            return Err(Error::new(
                Kind::Digest,
                format!("it is longer than the {expected} bytes that were announced"),
            )
            .at("download", part.name));
        }
        hasher.update(bytes);
        if let Some(gzip) = gzip.as_deref_mut() {
            gzip.update(bytes);
        }
        writer.write(bytes)?;
        progress(Step::Written(length as u64));
    }
    if writer.written < expected {
        let why = format!("it ended after {} of {expected} bytes", writer.written);
        return Err(Error::new(Kind::Network, why).at("download", part.name).hint("try again"));
    }
    Ok(Digest::finish(hasher))
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
