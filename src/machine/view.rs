//! Inspects a slot: its record, whether its files match it, and how much room it has.
//!
//! Must never: write, or replay a journal.

use crate::base::error::{Course, Error, Kind, Result, may_be_damage, words};
use crate::disk::mount;
use crate::disk::partition::{self, Partition};
use crate::disk::superblock::FileSystem;
use crate::os::files::{read_own, way_out};
use crate::os::sys::{self, Access};
use crate::slot::readback;
use crate::slot::record::{DIGESTS, DIGESTS_BYTES, RECORD, RECORD_MAX_BYTES, Record, Slot, VERSION, digests};
use crate::slot::stage;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Kept free besides an update's two files, in bytes: record, version, directory and extent blocks.
pub const RESERVE_BYTES: u64 = 1024 * 1024;

/// State of a slot, without reading its kernel and initramfs.
#[derive(Clone, Debug)]
pub struct View {
    /// Which slot.
    pub slot: Slot,
    /// Its record, if the slot is valid as far as is known without hashing.
    pub record: Result<Record>,
    /// The one-line version, also of a slot without a record.
    pub version: Option<String>,
    /// Room for an update once this slot's own files are gone, in bytes.
    pub room_bytes: Option<u64>,
}

impl View {
    /// Makes a view of a slot that cannot be inspected.
    pub fn unreadable(slot: Slot, error: Error) -> View {
        View { slot, record: Err(error), version: None, room_bytes: None }
    }

    /// Returns the slot's version: from its record, else from its version file.
    pub fn version(&self) -> Option<&str> {
        self.record.as_ref().ok().map(|r| r.version.as_str()).or(self.version.as_deref())
    }
}

/// Inspects a slot, mounting it for reading.
pub fn look(slot: Slot, part: &Partition) -> View {
    match mount::mount(part, Access::Read) {
        Err(e) => View::unreadable(slot, e),
        Ok(mounted) => {
            let dir = mounted.dir();
            let record = match journal(part) {
                Ok(()) => read_record(dir).map_err(|e| e.at("read", format!("slot {slot}"))),
                Err(e) => Err(e),
            };
            View { slot, record, version: read_version(dir), room_bytes: room(dir) }
        }
    }
}

/// Rejects a journal that is not empty: GRUB, which does not replay it, would see older files.
/// Errors: Slot: it needs recovery, or has no ext4. Device: it cannot be read.
pub fn journal(part: &Partition) -> Result<()> {
    let bad =
        |why: &str| Error::new(Kind::Slot, why).at("check the journal of", format!("{} ({})", part.label, part.name));
    match partition::probe_on_disk(&part.node)? {
        FileSystem::Ext { needs_recovery: false, .. } => Ok(()),
        FileSystem::Ext { .. } => Err(bad("it was not unmounted cleanly, and GRUB replays no journal")),
        _ => Err(bad("it has no ext4 file system").taking(Course::Damaged)),
    }
}

/// Reads a slot's record and checks the files' presence and length against it.
/// Errors: Slot: no record, a broken one, or files that do not match it. Device: it could not be read, so its state is unknown.
pub fn read_record(dir: &Path) -> Result<Record> {
    let bad = |why: String| Error::new(Kind::Slot, why);
    let unreadable = |name: &str, e: &io::Error| Error::new(Kind::Device, format!("{name}: {e}")).hint(way_out(e));
    let bytes = match read_own(&dir.join(RECORD), RECORD_MAX_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(bad("it has no record (slot.json): empty, or an update into it was cut off".into())),
        Err(e) if may_be_damage(&e) => return Err(bad(format!("{RECORD}: {}", words(&e))).taking(Course::Damaged)),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(bad(format!("{RECORD}: {e}"))),
        Err(e) => return Err(unreadable(RECORD, &e)),
    };
    let record = Record::parse(&bytes)?;
    for (name, expected) in record.files() {
        match fs::symlink_metadata(dir.join(name)) {
            Ok(meta) if meta.is_file() && meta.len() == expected.size_bytes => {}
            Ok(meta) => {
                return Err(bad(format!("{name} has {} bytes, recorded are {}", meta.len(), expected.size_bytes)));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(bad(format!("{name}: {e}"))),
            Err(e) => return Err(unreadable(name, &e)),
        }
    }
    Ok(record)
}

/// Content of a slot whose kernel and initramfs match its record.
pub struct Proof {
    /// That record.
    pub record: Record,
    /// The CRC-32 of kernel and initramfs.
    pub crc32s: [u32; 2],
    /// What is wrong with GRUB's checksum list; a slot without one is an older agent's, and boots.
    pub list_fault: Option<Error>,
}

/// Reads both files of a slot from the device and checks them against the record, and GRUB's list against them.
/// Errors: Slot: the files differ, or the journal is not empty. Device: they cannot be read.
pub fn scrub(slot: Slot, part: &Partition, progress: &mut dyn FnMut(u64)) -> Result<Proof> {
    // Mounted first: that keeps out a writing run, whose journal is not empty meanwhile.
    let mounted = mount::mount(part, Access::Read)?;
    journal(part)?;
    let mut check = || {
        let (dir, record) = (mounted.dir(), read_record(mounted.dir())?);
        let [kernel, initramfs] = record.files();
        let mut prove = |(name, expected)| readback::verify(&dir.join(name), expected, progress);
        let crc32s = [prove(kernel)?, prove(initramfs)?];
        let list_fault = hold_digests(dir, &digests(crc32s[0], crc32s[1])).err();
        Ok(Proof { record, crc32s, list_fault: list_fault.map(|e| e.at("read", format!("slot {slot}"))) })
    };
    let proof = check().map_err(|e: Error| {
        e.at("read", format!("slot {slot}")).hint(
            "it must not be booted; while the other slot runs, `apply` of another release than that one writes it anew",
        )
    })?;
    mounted.unmount()?;
    Ok(proof)
}

/// Checks GRUB's checksum list against the files. A slot without one is an older agent's, and boots.
/// Errors: Slot: it does not match: GRUB would take the other slot. Device: it cannot be read.
fn hold_digests(dir: &Path, expected: &str) -> Result<()> {
    let bad = |why: String| {
        Error::new(Kind::Slot, format!("{DIGESTS} {why}: GRUB takes the other slot"))
            .hint("while the other slot runs, `rollback` and `activate` write the list anew if the files are good")
    };
    match read_own(&dir.join(DIGESTS), DIGESTS_BYTES as u64) {
        Ok(None) => Ok(()),
        Ok(Some(bytes)) if bytes == expected.as_bytes() => Ok(()),
        Ok(Some(_)) => Err(bad("does not fit kernel and initramfs".into())),
        Err(e) => Err(bad(format!("cannot be read ({e})"))),
    }
}

/// Empties a journal left by a power cut, by mounting for writing once. Never called on the running slot.
/// Errors: Busy: another run is using it. Device, in use: it is mounted elsewhere.
pub fn settle(part: &Partition) -> Result<()> {
    match (journal(part), mount::mounted_at(part)) {
        (Ok(()), _) => Ok(()),
        // Its user will unmount it: until then its journal says nothing.
        (Err(_), Some(dir)) => Err(Error::new(Kind::Device, format!("it is mounted at {}", dir.display()))
            .at("empty the journal of", format!("{} ({})", part.label, part.name))
            .hint("unmount it, then try again")
            .taking(Course::InUse)),
        (Err(_), None) => mount::mount_alone(part, &mount::hold(part, Access::Write)?)?.unmount(),
    }
}

fn read_version(dir: &Path) -> Option<String> {
    let bytes = read_own(&dir.join(VERSION), 256).ok()??;
    let text = String::from_utf8(bytes).ok()?.trim().to_string();
    (!text.is_empty()).then_some(text)
}

fn room(dir: &Path) -> Option<u64> {
    let free_bytes = sys::free_bytes(dir).ok()?;
    let own = fs::read_dir(dir).ok()?.flatten().filter(|entry| stage::is_own(&entry.file_name().to_string_lossy()));
    let files = own.filter_map(|entry| entry.metadata().ok()).filter(|meta| meta.is_file() && meta.nlink() == 1);
    let reclaimed: u64 = files.map(|m| m.blocks().saturating_mul(512)).sum();
    Some(free_bytes.saturating_add(reclaimed).saturating_sub(RESERVE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grub_would_not_take_for_whole_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (path, good) = (dir.path().join(DIGESTS), digests(1, 2));
        hold_digests(dir.path(), &good).unwrap();
        fs::write(&path, &good).unwrap();
        hold_digests(dir.path(), &good).unwrap();
        let cut = &good.as_bytes()[..511];
        let (other, longer, lines) = (digests(1, 3), format!("{good}\n"), good.trim_start().to_owned());
        for bytes in [&b""[..], &[0; 512], cut, other.as_bytes(), longer.as_bytes(), lines.as_bytes()] {
            fs::write(&path, bytes).unwrap();
            let e = hold_digests(dir.path(), &good).unwrap_err();
            assert_eq!(e.kind(), Kind::Slot);
            assert!(e.to_string().contains("slot.crc32"), "{e}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(hold_digests(dir.path(), &good).unwrap_err().to_string().contains("not a regular file"));
    }
}
