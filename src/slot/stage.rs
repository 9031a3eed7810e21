//! Staging: writes bytes from a source into the inactive slot and proves them before they count.
//!
//! One thread receives and writes. Beside it others check an initramfs, and read back from the device, and hash, what has been
//! made durable. The file is renamed into place when all of them are done. The record is removed first and written last.
//! Must never: touch any other slot, or keep a copy of an image elsewhere.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::files::{self, TEMPORARY};
use crate::os::obstacles::{self, ASIDE};
use crate::os::paths;
use crate::os::sys;
use crate::slot::pipeline::{self, Flow, STACK_BYTES};
use crate::slot::readback::BUFFER;
use crate::slot::record::{DIGESTS, FileRecord, INITRAMFS, KERNEL, RECORD, Record, VERSION, digests};
use flate2::Crc;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Bytes after which writeback starts while the rest still arrives: the last fsync is then short, and dirty memory small.
const WRITEBACK_BYTES: u64 = 4 * 1024 * 1024;
/// Largest page of any supported kernel, in bytes: some for arm64 have this one.
const MAX_PAGE_BYTES: u64 = 64 << 10;
/// Begins the extension of an unproven file; the first digits of its expected digest follow.
const UNPROVEN: &str = ".part-";
/// Ends the name of an unproven file of which all is fetched.
const FETCHED: &str = "-fetched";
/// Number of these hexadecimal digits: enough to tell downloads apart, while the whole digest proves the file.
const UNPROVEN_DIGITS: usize = 16;

/// One file to stage.
#[derive(Clone)]
pub struct Part<'a> {
    /// Its name in the slot.
    pub name: &'static str,
    /// Its expected length and digest.
    pub expected: &'a FileRecord,
    /// Whether kernels must be able to unpack all of it.
    pub is_initramfs: bool,
    /// Lengths of its layers in bytes, in order, which are then checked side by side; empty: it is one.
    pub layers: &'a [u64],
    /// Whether all of it is fetched, since put together in another way it was not what was published. Its name in the slot says so
    /// until it is whole: a run that breaks off is continued in the same way.
    pub is_all_fetched: bool,
}

/// Progress of staging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Further bytes that were there already.
    Found(u64),
    /// Further bytes written.
    Written(u64),
    /// Further bytes read back.
    ReadBack(u64),
}

impl<'a> Part<'a> {
    /// Describes a file of which nothing but its content is known.
    pub fn new(name: &'static str, expected: &'a FileRecord) -> Part<'a> {
        Part { name, expected, is_initramfs: false, layers: &[], is_all_fetched: false }
    }

    fn unproven_name(&self) -> String {
        let digits = self.expected.sha256.hex();
        let end = if self.is_all_fetched { FETCHED } else { "" };
        format!("{}{UNPROVEN}{}{end}", self.name, &digits[..UNPROVEN_DIGITS])
    }
}

/// Returns whether a file name in a slot is one of staging's own, which it may find and remove.
pub fn is_own(name: &str) -> bool {
    // `.tmp` is from older agents.
    let is_ending = |rest: &str| rest == ".tmp" || rest == ASIDE || rest.starts_with(TEMPORARY);
    let tmp = [VERSION, DIGESTS, RECORD].into_iter().find(|n| name.strip_prefix(n).is_some_and(is_ending));
    let part =
        [KERNEL, INITRAMFS].into_iter().find(|n| name.strip_prefix(n).is_some_and(|rest| rest.starts_with(".part")));
    [KERNEL, INITRAMFS, VERSION, DIGESTS].contains(&name) || tmp.is_some() || part.is_some()
}

/// Makes a slot invalid, then empties it, except for the remains of an interrupted download of the same files.
///
/// Input: `kept`: files that are complete already; `wanted`: files to come.
/// Errors: Device: the file system refuses.
/// Power cut: before the record's removal is durable: the old slot, whole. After it: no record, so nothing activates this slot,
/// whatever files are left; GRUB's checksums are removed before the first new byte.
pub fn invalidate(dir: &Path, kept: &[&str], wanted: &[Part<'_>]) -> Result<()> {
    allow_changes_in(dir);
    let record = dir.join(RECORD);
    obstacles::remove(&record).io(Kind::Device, "remove", record.display())?;
    let wanted = wanted.iter().filter(|part| left_over(dir, part) > 0);
    let unproven: Vec<String> = wanted.map(Part::unproven_name).collect();
    for entry in fs::read_dir(dir).io(Kind::Device, "list", dir.display())? {
        let entry = entry.io(Kind::Device, "list", dir.display())?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        if unproven.iter().any(|n| *n == name) {
            sys::allow_changes(&path);
            continue;
        }
        if !is_own(&name) || kept.contains(&&*name) {
            continue;
        }
        obstacles::take_away(&path).io(Kind::Device, "remove", path.display())?;
    }
    paths::sync_dir(dir).io(Kind::Device, "sync", dir.display())
}

/// Clears flags of a slot's root directory that would protect its files. Only the agent sets up a slot that is overwritten;
/// `dir` itself may be a link to the mount point.
fn allow_changes_in(dir: &Path) {
    sys::allow_changes(&dir.join("."));
}

/// Returns whether an earlier run has begun to fetch all of a file.
pub fn is_begun_fetched(dir: &Path, part: &Part<'_>) -> bool {
    let name = Part { is_all_fetched: true, ..part.clone() }.unproven_name();
    fs::symlink_metadata(dir.join(name)).is_ok_and(|meta| meta.is_file())
}

/// Returns how many bytes of a file from an earlier run can be reused; 0: none. These bytes are unverified: [`write()`] proves
/// them with the rest.
///
/// Fewer than exist: after a power cut the last page may hold zeros where the rest of it was still in memory (ext4
/// sets the size to the end of a page that it writes early; measured: tests/vm/resume.rs, Linux 6.1).
pub fn left_over(dir: &Path, part: &Part<'_>) -> u64 {
    match fs::symlink_metadata(dir.join(part.unproven_name())) {
        // A file with a second name belongs to something else too, and must not be overwritten.
        Ok(meta) if meta.is_file() && meta.nlink() == 1 && meta.len() <= part.expected.size_bytes => {
            meta.len().saturating_sub(1) / MAX_PAGE_BYTES * MAX_PAGE_BYTES
        }
        _ => 0,
    }
}

/// Streams one file into the slot and proves it.
///
/// Input: `from`: bytes already there, see [`left_over`]; `body`: the rest, unverified; read at most one byte past the expected
/// length.
/// Returns: its CRC-32, of the bytes that were read back.
/// Errors: Network: it ends early or breaks off; the bytes so far stay for the next run. Digest: it is longer, or has another
/// digest. Source: not an initramfs. Device: it cannot be written, or reads back differently from what was received.
/// Power cut: `NAME.part-DIGITS` with some of the bytes; without a record it means nothing.
pub fn write(
    dir: &Path,
    part: &Part<'_>,
    from: u64,
    body: &mut dyn Read,
    progress: &mut dyn FnMut(Step),
) -> Result<u32> {
    let unproven = dir.join(part.unproven_name());
    let staged = write_unproven(&unproven, part, from, body, progress);
    if staged.as_ref().is_err_and(|e| matches!(e.kind(), Kind::Digest | Kind::Source)) {
        // The next run must not continue from bytes that are known to be wrong.
        let _ = fs::remove_file(&unproven);
    }
    let crc32 = staged?;
    let name = dir.join(part.name);
    fs::rename(&unproven, &name).io(Kind::Device, "rename", name.display())?;
    Ok(crc32)
}

fn write_unproven(
    unproven: &Path,
    part: &Part<'_>,
    from: u64,
    body: &mut dyn Read,
    progress: &mut dyn FnMut(Step),
) -> Result<u32> {
    let mut options = OpenOptions::new();
    let open =
        options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW).open(unproven);
    let file = open.io(Kind::Device, "create", unproven.display())?;
    file.set_len(from).io(Kind::Device, "cut to length", unproven.display())?;
    let layers = if part.is_initramfs { pipeline::split(part.layers, part.expected.size_bytes) } else { Vec::new() };
    let flow = Flow::start(file, unproven, layers, STACK_BYTES);
    let mut sink = Sink { part, path: unproven, flow, crc: Crc::new(), bytes: 0, handed_over: from };
    if let Err(e) = sink.take_up(from, progress) {
        // An unreadable sector: it may work when rewritten, and elsewhere it will.
        let _ = fs::remove_file(unproven);
        return Err(e);
    }
    sink.copy(body, progress)?;
    // Bytes that the disk did not keep, or the source had wrong, are not worth continuing from.
    sink.prove(progress).inspect_err(|_| drop(fs::remove_file(unproven)))
}

/// Writes the version, GRUB's checksums, then the record, which makes the slot valid.
///
/// Input: the CRC-32 of kernel and initramfs, as [`write()`] or `readback::verify` returned it for these files.
/// Errors: Device: the file system refuses.
/// Power cut: without the record, an invalid slot; with it, a whole one that GRUB accepts too.
pub fn finish(dir: &Path, record: &Record, crc32s: [u32; 2]) -> Result<()> {
    write_text(dir, VERSION, &format!("{}\n", record.version))?;
    write_digests(dir, crc32s)?;
    write_text(dir, RECORD, &record.encode())
}

/// Writes only GRUB's checksums.
/// Input, errors: as [`finish`].
pub fn write_digests(dir: &Path, [kernel, initramfs]: [u32; 2]) -> Result<()> {
    allow_changes_in(dir);
    write_text(dir, DIGESTS, &digests(kernel, initramfs))
}

fn write_text(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    files::replace(&path, text.as_bytes()).io(Kind::Device, "write", path.display())
}

/// Receives a file: counts each byte once, in order, and writes it.
struct Sink<'a> {
    part: &'a Part<'a>,
    path: &'a Path,
    flow: Flow,
    /// Of the received bytes: distinguishes a disk that does not keep them from a wrong source. The proof is the digest of what
    /// was read back (docs/decisions/0016-hashed-where-it-landed.md).
    crc: Crc,
    bytes: u64,
    handed_over: u64,
}

impl Sink<'_> {
    /// Reads the bytes from an earlier run.
    fn take_up(&mut self, from: u64, progress: &mut dyn FnMut(Step)) -> Result<()> {
        let mut buffer = vec![0u8; if from > 0 { BUFFER } else { 0 }];
        while self.bytes < from {
            let room = (from - self.bytes).min(BUFFER as u64) as usize;
            let read = self.flow.file().read_exact_at(&mut buffer[..room], self.bytes);
            read.io(Kind::Device, "read", self.path.display())?;
            self.count(&buffer[..room])?;
            progress(Step::Found(room as u64));
        }
        Ok(())
    }

    fn count(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        self.flow.add(bytes.len() as u64)
    }

    fn copy(&mut self, body: &mut dyn Read, progress: &mut dyn FnMut(Step)) -> Result<()> {
        let (name, expected) = (self.part.name, self.part.expected.size_bytes);
        let mut buffer = vec![0u8; BUFFER];
        loop {
            let length = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let ours = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
                    let kind = ours.map_or(Kind::Network, Error::kind);
                    return Err(Error::new(kind, e.to_string()).at("download", name));
                }
            };
            if self.bytes + length as u64 > expected {
                let why = format!("it is longer than the {expected} bytes that were announced");
                return Err(Error::new(Kind::Digest, why).at("download", name));
            }
            self.write(&buffer[..length])?;
            progress(Step::Written(length as u64));
        }
        if self.bytes < expected {
            let why = format!("it ended after {} of {expected} bytes", self.bytes);
            return Err(Error::new(Kind::Network, why).at("download", name).hint("try again"));
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.flow.file().write_all_at(bytes, self.bytes).io(Kind::Device, "write", self.path.display())?;
        self.count(bytes)?;
        let waiting = self.bytes - self.handed_over;
        if waiting >= WRITEBACK_BYTES {
            // Only to start early; the fsync at the end is what counts.
            let _ = sys::start_writeback(self.flow.file(), self.handed_over, waiting);
            self.handed_over = self.bytes;
        }
        Ok(())
    }

    /// Compares the bytes on the device with those received, then with what the part must be.
    fn prove(self, progress: &mut dyn FnMut(Step)) -> Result<u32> {
        let (name, expected) = (self.part.name, self.part.expected);
        let outcome = self.flow.finish(&mut |n| progress(Step::ReadBack(n)))?;
        let (found, crc32) = outcome.found;
        // First, since the initramfs check saw the received bytes.
        if (found.size_bytes, crc32) != (self.bytes, self.crc.sum()) {
            return Err(pipeline::unkept(
                self.path,
                format!("it reads back as {}, which is not what came", found.sha256),
            ));
        }
        if found != *expected {
            return Err(Error::new(Kind::Digest, format!("it is {}, expected was {}", found.sha256, expected.sha256))
                .at("verify", name)
                .hint("the source is damaged or was tampered with; nothing of it will be booted"));
        }
        let refused = match outcome.is_doubt {
            true => {
                let judged = File::open(self.path).and_then(|file| pipeline::judge_whole(&file));
                judged.io(Kind::Device, "read", self.path.display())?.err()
            }
            false => outcome.refused,
        };
        refused.map_or(Ok(crc32), |why| {
            Err(Error::new(Kind::Source, why).at("look through", name).hint(
                "it is what the publisher named, but kernels do not unpack it whole: make it anew and publish that",
            ))
        })
    }
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
