//! One copy of GRUB's environment block: read, judged, overwritten in place, verified.
//!
//! Must never: truncate or rename on FAT.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::boot::block::Block;
use crate::boot::damage::BLOCK_BYTES;
use crate::boot::damage::Damage;
use crate::boot::vars::{BootVars, Senseless};
use crate::os::files::way_out;
use crate::os::obstacles::{in_the_way, set_aside};
use crate::os::paths::sync_dir;
use crate::os::sys;
use std::fmt;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What the operator can do when neither copy is good.
pub const REPAIR_HINT: &str = "`verify --repair-boot-variables` writes both copies anew";

/// Most bytes read of a copy: enough to describe a damaged one.
pub(super) const READ_MAX_BYTES: u64 = 4096;

/// What the operator can do when the parent of the copies is not a directory.
pub(super) const NO_DIRECTORY: &str = "something else lies in the place of its directory: move that away";

/// Names one of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvCopy {
    /// `grubenv`: written first, takes precedence.
    Main,
    /// `grubenv.bak`: written after the main copy is proven, read if that is not good.
    Backup,
}

impl EnvCopy {
    /// Returns the file's name.
    pub fn file_name(self) -> &'static str {
        match self {
            EnvCopy::Main => "grubenv",
            EnvCopy::Backup => "grubenv.bak",
        }
    }
}

impl fmt::Display for EnvCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file_name())
    }
}

/// Reason why a copy is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file does not exist.
    Missing,
    /// Not a regular file, but this.
    NoFile(&'static str),
    /// The system failed to read it, twice: it may be sound.
    Unreadable {
        /// The system's error text.
        why: String,
        /// What the operator can do about it.
        way_out: &'static str,
    },
    /// Its bytes are not a sound block.
    Damaged(Damage),
    /// A boot variable is not set or has an invalid value.
    Senseless(Senseless),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("is missing"),
            Fault::NoFile(what) => write!(f, "cannot be read: not a regular file but {what}"),
            Fault::Unreadable { why, .. } => write!(f, "cannot be read: {why}"),
            Fault::Damaged(damage) => damage.fmt(f),
            Fault::Senseless(senseless) => senseless.fmt(f),
        }
    }
}

pub(super) struct Bytes {
    pub(super) content: Vec<u8>,
    pub(super) size_bytes: u64,
}

/// Reads one copy. Links are not followed and devices not waited for: FAT has neither.
pub(super) fn read_copy(path: &Path) -> std::result::Result<Bytes, Fault> {
    let read = || {
        if let Some(what) = in_the_way(path)? {
            return Ok(Err(Fault::NoFile(what)));
        }
        let file = open(path, OpenOptions::new().read(true))?;
        let size_bytes = file.metadata()?.len();
        let mut content = Vec::with_capacity(BLOCK_BYTES);
        file.take(READ_MAX_BYTES).read_to_end(&mut content)?;
        Ok(Ok(Bytes { content, size_bytes }))
    };
    // Retried once: a single failed read is common on cheap flash.
    read().or_else(|_: io::Error| read()).unwrap_or_else(|e| match e.kind() {
        io::ErrorKind::NotFound => Err(Fault::Missing),
        // Not the agent's own place: nothing moves that aside automatically.
        io::ErrorKind::NotADirectory => Err(Fault::Unreadable { why: e.to_string(), way_out: NO_DIRECTORY }),
        _ => Err(Fault::Unreadable { why: e.to_string(), way_out: way_out(&e) }),
    })
}

/// Stops where a copy could not be read. Errors: Device: the system's error text.
pub(super) fn demand_read<T>(path: &Path, read: &std::result::Result<T, Fault>) -> Result<()> {
    match read {
        Err(Fault::Unreadable { why, way_out }) => {
            let why = format!("{why}; it may be sound, and is not written over");
            Err(Error::new(Kind::Device, why)
                .at("read", path.display())
                .hint(format!("{way_out}; if it stays so, move that file away first")))
        }
        _ => Ok(()),
    }
}

pub(super) fn judge(bytes: &Bytes) -> std::result::Result<Block, Fault> {
    let block = Block::decode(&bytes.content).map_err(|damage| match damage {
        Damage::WrongLength(_) => Fault::Damaged(Damage::WrongLength(bytes.size_bytes)),
        other => Fault::Damaged(other),
    })?;
    BootVars::read_whole(&block).map_err(Fault::Senseless)?;
    Ok(block)
}

pub(super) fn good_bytes(path: &Path) -> std::result::Result<Vec<u8>, Fault> {
    let bytes = read_copy(path)?;
    judge(&bytes).map(|_| bytes.content)
}

/// Returns the content of a good copy in the order in which this module writes, if the copy has another order.
pub(super) fn out_of_place(old: &[u8]) -> Option<[u8; BLOCK_BYTES]> {
    let same = Block::decode(old).ok()?.encode().ok()?;
    (same.as_slice() != old).then_some(same)
}

pub(super) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    if let Some(what) = in_the_way(path)? {
        return Err(io::Error::other(format!("not a regular file but {what}")));
    }
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Overwrites an existing file of the right length; verifies it.
/// Power cut: old bytes, new bytes, or one sector of each; never another length.
pub(super) fn overwrite(path: &Path, bytes: &[u8]) -> Result<()> {
    let refuse = |why: String| Error::new(Kind::Boot, why).at("save", path.display()).hint(REPAIR_HINT);
    let file = match open(path, OpenOptions::new().read(true).write(true)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(refuse(Fault::Missing.to_string())),
        opened => opened.io(Kind::Device, "open for writing", path.display())?,
    };
    let size_bytes = file.metadata().io(Kind::Device, "stat", path.display())?.len();
    if size_bytes != bytes.len() as u64 {
        return Err(refuse(Damage::WrongLength(size_bytes).to_string()));
    }
    write_proven(&file, path, bytes)
}

/// Makes a file of the right length hold the bytes, whatever was there. Written out in full: GRUB's `save_env` refuses sparse
/// files and preallocated extents. Its length is changed only after the bytes are written.
/// Power cut: absent, short or long, or the right length with old bytes: damage that `load` names.
pub(super) fn recreate(path: &Path, dir: &Path, bytes: &[u8]) -> Result<()> {
    if matches!(in_the_way(path), Ok(Some(_))) {
        // Moved, not removed: its purpose is unknown. GRUB cannot read it anyway.
        set_aside(path).io(Kind::Boot, "move aside", path.display())?;
    }
    let mut options = OpenOptions::new();
    let file = open(path, options.read(true).write(true).create(true).truncate(false).mode(0o644)).io(
        Kind::Boot,
        "repair",
        path.display(),
    )?;
    write_proven(&file, path, bytes)?;
    if file.metadata().io(Kind::Device, "stat", path.display())?.len() != bytes.len() as u64 {
        file.set_len(bytes.len() as u64).io(Kind::Device, "cut to length", path.display())?;
        file.sync_all().io(Kind::Device, "sync", path.display())?;
    }
    sync_dir(dir).io(Kind::Device, "sync directory", dir.display())
}

/// Writes once at offset 0, syncs, and compares with what the device returns.
pub(super) fn write_proven(file: &File, path: &Path, bytes: &[u8]) -> Result<()> {
    // One system call: a loop over short writes would be several, each of which a power cut could separate.
    let written = file.write_at(bytes, 0).io(Kind::Device, "write", path.display())?;
    if written != bytes.len() {
        return Err(Error::new(Kind::Device, format!("{written} of {} bytes were written", bytes.len()))
            .at("write", path.display()));
    }
    file.sync_all().io(Kind::Device, "sync", path.display())?;
    prove(file, path, bytes)
}

/// Reads back past the page cache, and compares.
pub(super) fn prove(file: &File, path: &Path, bytes: &[u8]) -> Result<()> {
    sys::drop_cache(file).io(Kind::Device, "drop cache of", path.display())?;
    let mut back = vec![0; bytes.len()];
    file.read_exact_at(&mut back, 0).io(Kind::Device, "read back", path.display())?;
    match back.iter().zip(bytes).position(|(is, should)| is != should) {
        None => Ok(()),
        Some(at) => Err(Error::new(Kind::Boot, format!("byte {at} does not hold what was written"))
            .at("read back", path.display())
            .hint("the disk or something else that writes there is at fault")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::record::Slot;

    /// A device that accepts every write and returns something else, as a failing flash disk does.
    #[test]
    fn reading_back_notices_a_device_that_forgets() {
        let device = OpenOptions::new().read(true).write(true).open("/dev/zero").unwrap();
        let bytes = Block::fresh(Slot::A).encode().unwrap();
        assert_eq!(device.write_at(&bytes, 0).unwrap(), bytes.len());
        let e = prove(&device, Path::new("/dev/zero"), &bytes).unwrap_err();
        assert_eq!(e.kind(), Kind::Boot, "{e}");
        assert!(e.to_string().contains("byte 0 does not hold"), "{e}");
        prove(&device, Path::new("/dev/zero"), &[0; BLOCK_BYTES]).unwrap();
    }

    #[test]
    fn a_full_device_is_an_error_that_names_the_file() {
        let device = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let e = write_proven(&device, Path::new("/x/grubenv"), &[1; BLOCK_BYTES]).unwrap_err();
        assert_eq!(e.kind(), Kind::Device);
        assert!(e.to_string().starts_with("write /x/grubenv: No space left"), "{e}");
    }
}
