//! The two copies of GRUB's environment block on the EFI partition: reads them, overwrites them in place.
//!
//! GRUB reads FAT without a journal and finds the file's blocks anew at each boot, so the only
//! safe write is one over the same blocks: no truncation, no rename (measured under power cuts:
//! 0 bad states of 62, against 64 of 144 for `grub-editenv` and 14 of 309 for a rename).
//! Must never: truncate, rename or create a copy that is good, touch the second copy before the
//! first is proven, or write over a copy that could not be read: it may be the good one.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::boot::block::{BLOCK_BYTES, Block, BootVars, Damage, Known, Mended, Senseless, has_room_for_rollback, mend};
use crate::os::files::{in_the_way, set_aside, sync_dir, way_out};
use crate::os::sys;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most that is read of a copy, in bytes: enough to say what is in a damaged one.
const READ_MAX_BYTES: u64 = 4096;
/// What a person can do about copies of which none is good.
pub const REPAIR_HINT: &str = "`verify --repair-boot-variables` writes both copies anew";

/// What a person can do where their directory is none.
const NO_DIRECTORY: &str = "something else lies in the place of its directory: move that away";

/// Names one of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// `grubenv`: written first, wins.
    Main,
    /// `grubenv.bak`: written after the main copy is proven, read where that is no good.
    Backup,
}

impl Copy {
    /// Returns the file's name.
    pub fn file_name(self) -> &'static str {
        match self {
            Copy::Main => "grubenv",
            Copy::Backup => "grubenv.bak",
        }
    }
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file_name())
    }
}

/// Says why a copy is no good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such file.
    Missing,
    /// It is no regular file, but this.
    NoFile(&'static str),
    /// The system could not read it, twice: it may be sound.
    Unreadable {
        /// The system's words.
        why: String,
        /// What a person can do about that.
        way_out: &'static str,
    },
    /// Its bytes are not a sound block.
    Damaged(Damage),
    /// A boot variable is not set or makes no sense.
    Senseless(Senseless),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("is missing"),
            Fault::NoFile(what) => write!(f, "cannot be read: it is no file but {what}"),
            Fault::Unreadable { why, .. } => write!(f, "cannot be read: {why}"),
            Fault::Damaged(damage) => damage.fmt(f),
            Fault::Senseless(senseless) => senseless.fmt(f),
        }
    }
}

/// Holds what both copies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The block that counts: the main copy if good, else the backup, else none. None as well where main could not be read:
    /// the backup may be older, and GRUB may be able to read main.
    pub block: Option<Block>,
    /// Where that block was read; `Main` where there is none.
    pub which: Copy,
    /// What is wrong, copy by copy; empty on a sound machine.
    pub damage: Vec<(Copy, Fault)>,
    /// Both copies are good and differ: a save was cut between the two. The next save mends it.
    pub copies_differ: bool,
    /// Good copies that are full: GRUB could not set `rollback_from` there.
    pub full: Vec<Copy>,
}

impl Loaded {
    /// Says whether there is anything to repair.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && !self.copies_differ && self.full.is_empty()
    }

    /// Says what a person can do about it.
    pub fn way_out(&self) -> &'static str {
        let unreadable = |fault: &Fault| match fault {
            Fault::Unreadable { way_out, .. } => Some(*way_out),
            _ => None,
        };
        self.damage.iter().find_map(|(_, fault)| unreadable(fault)).unwrap_or(REPAIR_HINT)
    }

    /// Returns the block and its variables, or the error that names what is wrong with each copy.
    /// Errors: Boot: neither copy is good, or the one that counts could not be read.
    pub fn usable(&self) -> Result<(&Block, BootVars)> {
        let Some(block) = &self.block else {
            let faults: Vec<String> = self.damage.iter().map(|(copy, fault)| format!("{copy} {fault}")).collect();
            return Err(Error::new(Kind::Boot, faults.join("; "))
                .at("read", "the GRUB environment block")
                .hint(self.way_out()));
        };
        Ok((block, BootVars::read_whole(block)?))
    }
}

/// Says how a save went whose main copy is durable and proven.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Why the backup does not hold the block as well; to be shown, not to be failed by.
    pub backup: Option<Error>,
}

/// Reads and writes the two copies in one directory.
#[derive(Clone, Debug)]
pub struct EnvFiles {
    dir: PathBuf,
}

impl EnvFiles {
    /// Makes it for `<efi>/boot/grub`.
    pub fn new(dir: impl Into<PathBuf>) -> EnvFiles {
        EnvFiles { dir: dir.into() }
    }

    /// Returns the path of a copy.
    pub fn path(&self, copy: Copy) -> PathBuf {
        self.dir.join(copy.file_name())
    }

    /// Reads both copies and chooses as GRUB does: the first that is sound and makes sense.
    /// Input: at most 4 KiB of each file.   Returns: always something; nothing here is fatal to `status`.
    pub fn load(&self) -> Loaded {
        let copies = [Copy::Main, Copy::Backup].map(|copy| (copy, read_copy(&self.path(copy))));
        let mut good: Vec<(Copy, Block)> = Vec::new();
        let mut damage = Vec::new();
        let mut full = Vec::new();
        for (copy, read) in copies {
            match read.and_then(|bytes| Ok((judge(&bytes)?, bytes.content))) {
                Ok((block, bytes)) => {
                    full.extend((!has_room_for_rollback(&bytes, &block)).then_some(copy));
                    good.push((copy, block));
                }
                Err(fault) => damage.push((copy, fault)),
            }
        }
        let copies_differ = matches!(good.as_slice(), [(_, main), (_, backup)] if main != backup);
        let is_unknown = matches!(damage.first(), Some((Copy::Main, Fault::Unreadable { .. })));
        let (which, block) = match good.into_iter().next() {
            Some((copy, block)) if !is_unknown => (copy, Some(block)),
            _ => (Copy::Main, None),
        };
        Loaded { block, which, damage, copies_differ, full }
    }

    /// Makes a sound block of what both copies hold, whatever that is. Writes nothing.
    /// Errors: Device: one could not be read: what it holds is not known.
    pub fn mended(&self, known: Known) -> Result<Mended> {
        let mut copies = [Vec::new(), Vec::new()];
        for (content, copy) in copies.iter_mut().zip([Copy::Main, Copy::Backup]) {
            let path = self.path(copy);
            let read = read_copy(&path);
            demand_read(&path, &read)?;
            *content = read.map_or(Vec::new(), |bytes| bytes.content);
        }
        Ok(mend([&copies[0], &copies[1]], known))
    }

    /// Writes a block over both copies: main, prove it, then backup, prove that.
    ///
    /// A copy that is no good is first made to hold what the good one holds, so that a good copy exists throughout:
    /// there is nothing to guess (docs/decisions/0002). Only where neither is good does that stay an explicit act, [`EnvFiles::repair`].
    /// A backup that can not be written is told in [`Saved`] and no more: confirming or rolling back must not fail
    /// for the lack of a copy that is not read, and once the main copy is durable GRUB acts on it, so
    /// an error would be untrue.
    /// A backup that can not be read is not written, and told in the same way.
    /// Errors: Boot: GRUB would discard the block; neither copy is good and main is missing or not 1,024 bytes long; what
    /// was read back differs. Device: main could not be read, or is no good and backup could not: nothing was written then.
    /// It is no regular file, or the system refused: the main copy is then
    /// unproven, and the backup holds the state from before.
    /// Power cut: before and during the main write: both old, or main torn, which is to say old or new in
    /// its first sector, where all boot variables are. While they are moved there from the second one, main says
    /// what it said or is damaged, and the backup is the old one. Between the writes: main new, backup old, main
    /// wins. During the backup's write: main is new and whole.
    pub fn save(&self, block: &Block) -> Result<Saved> {
        let bytes = sensible_bytes(block)?;
        let (main, backup) = (self.path(Copy::Main), self.path(Copy::Backup));
        let (old, spare) = (good_bytes(&main), good_bytes(&backup));
        demand_read(&main, &old)?;
        let spare_known = demand_read(&backup, &spare);
        if old.is_err() {
            spare_known.clone()?;
        }
        // One copy is good: what the other should hold is known, so it is made whole first, and a good copy
        // exists throughout. Fails again below, and is told there, if it cannot be written at all.
        let _ = match (&old, &spare) {
            (Ok(old), Err(_)) if spare_known.is_ok() => recreate(&backup, &self.dir, old),
            (Err(_), Ok(old)) => recreate(&main, &self.dir, old),
            _ => Ok(()),
        };
        // A stranger's line in front may have moved the boot variables out of the first sector. Torn, a save would
        // leave new ones in one sector and old ones in the other: so they go back there first, with the values they have.
        if let Some(same) = old.or(spare).ok().and_then(|old| out_of_place(&old)) {
            overwrite(&main, &same)?;
        }
        overwrite(&main, &bytes).map_err(|e| match good_bytes(&main) {
            // Written, and not proven to be on the disk.
            Ok(now) if now == bytes => e.hint("the next boot may act on it all the same; `status` shows what is there"),
            _ => e,
        })?;
        Ok(Saved { backup: spare_known.and_then(|()| overwrite(&backup, &bytes)).err() })
    }

    /// Makes both copies hold a block, creating and resizing the files as needed.
    ///
    /// A copy that is no good goes first: as long as it is in work, the other is the good one. When both or
    /// neither are good, main goes first, as in [`EnvFiles::save`].
    /// Something else in the place of a file is kept aside: a damaged FAT makes directories of files.
    /// Errors: as `save`, for either copy, except that missing and mis-sized files are mended. Device: either could not be
    /// read; nothing was written.
    /// Power cut: at the first copy: it is damaged in one way or another (absent, short, old bytes), the other
    /// as before. Between the two: the first good and new. At the second: the first is good and new.
    pub fn repair(&self, block: &Block) -> Result<()> {
        let bytes = sensible_bytes(block)?;
        let (main, backup) = (self.path(Copy::Main), self.path(Copy::Backup));
        let (old, spare) = (good_bytes(&main), good_bytes(&backup));
        demand_read(&main, &old)?;
        demand_read(&backup, &spare)?;
        let backup_first = old.is_ok() && spare.is_err();
        let order = if backup_first { [backup, main] } else { [main, backup] };
        order.iter().try_for_each(|path| recreate(path, &self.dir, &bytes))
    }
}

/// Encodes a block that GRUB would act on; anything else would have it discard both copies.
fn sensible_bytes(block: &Block) -> Result<[u8; BLOCK_BYTES]> {
    BootVars::read_whole(block)?;
    Ok(block.encode()?)
}

struct Bytes {
    content: Vec<u8>,
    size_bytes: u64,
}

/// Reads one copy. A link or a device is never followed or waited for: FAT has neither.
fn read_copy(path: &Path) -> std::result::Result<Bytes, Fault> {
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
    // Once more: a single read that fails is common on cheap flash.
    read().or_else(|_: io::Error| read()).unwrap_or_else(|e| match e.kind() {
        io::ErrorKind::NotFound => Err(Fault::Missing),
        // Not the agent's own place: nothing moves that aside by itself.
        io::ErrorKind::NotADirectory => Err(Fault::Unreadable { why: e.to_string(), way_out: NO_DIRECTORY }),
        _ => Err(Fault::Unreadable { why: e.to_string(), way_out: way_out(&e) }),
    })
}

/// Refuses to go on where a copy could not be read. Errors: Device: the system's words.
fn demand_read<T>(path: &Path, read: &std::result::Result<T, Fault>) -> Result<()> {
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

fn judge(bytes: &Bytes) -> std::result::Result<Block, Fault> {
    let block = Block::decode(&bytes.content).map_err(|damage| match damage {
        Damage::WrongLength(_) => Fault::Damaged(Damage::WrongLength(bytes.size_bytes)),
        other => Fault::Damaged(other),
    })?;
    BootVars::read_whole(&block).map_err(Fault::Senseless)?;
    Ok(block)
}

fn good_bytes(path: &Path) -> std::result::Result<Vec<u8>, Fault> {
    let bytes = read_copy(path)?;
    judge(&bytes).map(|_| bytes.content)
}

/// Returns what a good copy says, in the order in which this module writes, if that is not how it is.
fn out_of_place(old: &[u8]) -> Option<[u8; BLOCK_BYTES]> {
    let same = Block::decode(old).ok()?.encode().ok()?;
    (same.as_slice() != old).then_some(same)
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    if let Some(what) = in_the_way(path)? {
        return Err(io::Error::other(format!("it is no file but {what}")));
    }
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file")),
    }
}

/// Overwrites a file that is there and has the right length; proves it.
/// Power cut: old bytes, new bytes, or one sector of each; never another length.
fn overwrite(path: &Path, bytes: &[u8]) -> Result<()> {
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

/// Makes a file of the right length hold the bytes, whatever was there. Written out in full: GRUB's
/// `save_env` refuses sparse files and preallocated extents. Made longer or shorter only after the bytes are in.
/// Power cut: absent, short or long, or the right length with old bytes: damage that `load` names.
fn recreate(path: &Path, dir: &Path, bytes: &[u8]) -> Result<()> {
    if matches!(in_the_way(path), Ok(Some(_))) {
        // Not removed by guess. Whatever it is, GRUB can not read it.
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

/// One write at offset 0, fsync, and a comparison with what the device returns.
fn write_proven(file: &File, path: &Path, bytes: &[u8]) -> Result<()> {
    // One system call: a loop over short writes would be several, each a chance to be cut.
    let written = file.write_at(bytes, 0).io(Kind::Device, "write", path.display())?;
    if written != bytes.len() {
        return Err(Error::new(Kind::Device, format!("{written} of {} bytes were written", bytes.len()))
            .at("write", path.display()));
    }
    file.sync_all().io(Kind::Device, "sync", path.display())?;
    prove(file, path, bytes)
}

/// Reads back past the page cache, and compares.
fn prove(file: &File, path: &Path, bytes: &[u8]) -> Result<()> {
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

    /// A device that takes every write and returns something else: what a failing flash disk does.
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
