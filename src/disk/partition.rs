//! Finds the four partitions of the disk that this machine booted from, without udev.
//!
//! Reads sysfs, partition tables and superblocks; a provisioning stick carries the same labels, so
//! only the boot disk's partitions count. Must never: write, or choose between two disks by chance.

use crate::base::error::{Course, Error, IoContext, Kind, Result};
use crate::boot::this_boot::BootedFrom;
use crate::disk::gpt;
use crate::disk::superblock::{self, FileSystem, PROBE_BYTES};
use crate::os::system::System;
use crate::slot::record::Slot;
use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Name and label of the EFI partition.
pub const EFI: &str = "KSOLOEFI";
/// Name and label of the data partition.
pub const DATA: &str = "KSOLODATA";
/// All four names, in the order of the disk.
pub const OURS: [&str; 4] = [EFI, Slot::A.label(), Slot::B.label(), DATA];
/// Hint if a directory of the kernel's is missing.
pub const BIND_HINT: &str = "in a chroot: `mount --rbind` /proc, /sys and /dev into its directory first, from outside";
/// Hint if a device may not be read.
pub const ROOT_HINT: &str = "reading block devices needs root";

/// A partition that the agent uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Name and label, `KSOLOA` for example.
    pub label: String,
    /// Kernel name, `sda2` for example.
    pub name: String,
    /// Device node.
    pub node: PathBuf,
    /// `major:minor`, as in /proc/self/mountinfo.
    pub device_number: String,
    /// Whether the boot loader named its disk and the partition table names it so: it is that partition whatever its content.
    pub is_named: bool,
}

impl Partition {
    /// Returns whether the kernel refuses all writes to the device, whatever its content. If unknown: no.
    pub fn is_read_only(&self) -> bool {
        let said = fs::read_to_string(format!("/sys/dev/block/{}/ro", self.device_number));
        said.is_ok_and(|text| text.trim() == "1")
    }

    /// Returns how to make a device writable.
    pub fn read_only_hint(&self) -> String {
        let node = self.node.display();
        format!("the device is read-only: `blockdev --setrw {node}`, and look for a write-protect switch on the medium")
    }
}

/// The partitions of the disk that this machine booted from.
#[derive(Clone, Debug)]
pub struct BootDisk {
    /// Kernel name, `sda` for example.
    pub disk: String,
    partitions: Vec<Partition>,
}

impl BootDisk {
    /// Returns the partition with a label.
    /// Errors: Device: the boot disk has none.
    pub fn partition(&self, label: &str) -> Result<&Partition> {
        self.partitions.iter().find(|p| p.label == label).ok_or_else(|| {
            Error::new(Kind::Device, format!("disk {} has no partition of that name or label", self.disk))
                .at("find partition", label)
                .hint("is this the disk that KubeSolo OS was installed on?")
        })
    }

    /// Returns a slot's partition.
    /// Errors: Device: the boot disk has none.
    pub fn slot(&self, slot: Slot) -> Result<&Partition> {
        self.partition(slot.label())
    }
}

/// A partition as sysfs shows it.
struct SysfsPartition {
    name: String,
    disk: String,
    number: u32,
    device_number: String,
    partition_name: Option<String>,
}

/// Finds the boot disk and its partitions.
/// Errors: Device: no such disk, or several that cannot be told apart; they are named.
pub fn find(system: &System, from: &BootedFrom) -> Result<BootDisk> {
    let seen = list(system)?;
    let tables = Tables::of(system);
    let candidates = disks(&tables, from, &seen).map(|disk| collect(&tables, disk, &seen)).collect::<Result<_>>()?;
    let mut chosen = choose(candidates, from).map_err(|e| unseen(system, &seen).unwrap_or(e))?;
    if from.partition_guid.is_none() {
        // The disk that this machine booted from may be gone.
        chosen.partitions.iter_mut().for_each(|part| part.is_named = false);
    }
    check_running_slot(&tables, from, &chosen, &seen)?;
    Ok(chosen)
}

/// Returns the numbers of all partitions of the disks that may be the boot disk: one, or a disk and its copies.
pub fn numbers(system: &System, from: &BootedFrom) -> Vec<String> {
    let seen = list(system).unwrap_or_default();
    let disks: Vec<&str> = disks(&Tables::of(system), from, &seen).collect();
    seen.iter().filter(|s| disks.contains(&s.disk.as_str())).map(|s| s.device_number.clone()).collect()
}

/// Lists the disks that may be the boot disk.
fn disks<'a>(tables: &Tables<'_>, from: &BootedFrom, seen: &'a [SysfsPartition]) -> impl Iterator<Item = &'a str> {
    let mut disks: Vec<&str> = seen.iter().map(|s| s.disk.as_str()).collect();
    disks.dedup();
    disks.retain(|disk| match &from.partition_guid {
        Some(guid) => holds(tables, disk, guid, seen),
        None => collect(tables, disk, seen).map_or(true, |disk| !disk.partitions.is_empty()),
    });
    disks.into_iter()
}

/// Returns why the devices are unknown, if they are: that is not the same as having no boot disk.
fn unseen(system: &System, seen: &[SysfsPartition]) -> Option<Error> {
    let opened = |seen: &SysfsPartition| File::open(system.device(&seen.name)).map_err(|e| e.kind());
    let is_denied = seen.iter().any(|seen| opened(seen).err() == Some(io::ErrorKind::PermissionDenied));
    // A container has no nodes for the partitions that the kernel lists, and sees nothing of /sys.
    let has_nodes = seen.iter().any(|seen| opened(seen).err() != Some(io::ErrorKind::NotFound));
    let (why, hint) = match (is_denied, has_nodes) {
        (true, _) => ("permission denied: no block device was read", ROOT_HINT),
        (false, false) => ("/dev has no partition's device: no block device was read", BIND_HINT),
        (false, true) => return None,
    };
    Some(Error::new(Kind::Device, why).at("find", "the boot disk").hint(hint).taking(Course::Denied))
}

/// Refuses a kernel command line whose slot is not on the partition it names: the other one might be running.
fn check_running_slot(tables: &Tables<'_>, from: &BootedFrom, disk: &BootDisk, seen: &[SysfsPartition]) -> Result<()> {
    let (Some(slot), Some(guid)) = (from.slot, &from.partition_guid) else { return Ok(()) };
    let number = tables.number(&disk.disk, guid);
    let named = seen.iter().find(|s| s.disk == disk.disk && Some(s.number) == number);
    let found = named.and_then(|s| disk.partitions.iter().find(|p| p.name == s.name));
    match found {
        Some(part) if part.label != slot.label() => {
            let why = format!("kubesolo.slot={slot}, but kubesolo.part= names {} ({})", part.label, part.name);
            Err(Error::new(Kind::Boot, why)
                .at("find", "the running slot")
                .hint("the kernel command line contradicts itself: mend the GRUB configuration"))
        }
        _ => Ok(()),
    }
}

/// Takes the only candidate. Pure.
fn choose(mut candidates: Vec<BootDisk>, from: &BootedFrom) -> Result<BootDisk> {
    let subject = match &from.partition_guid {
        Some(guid) => format!("with partition {guid} (kubesolo.part=)"),
        None => "with KubeSolo partitions".to_string(),
    };
    if candidates.len() > 1 {
        let names: Vec<String> = candidates.iter().map(describe).collect();
        let hint = match from.partition_guid {
            Some(_) => "two disks carry the same GUID: one is a copy of the other; unplug it",
            None => "unplug the one that is not the boot disk, or boot with kubesolo.part=GUID",
        };
        let why = format!("{} disks qualify: {}", candidates.len(), names.join("; "));
        return Err(Error::new(Kind::Device, why).at("find the boot disk", subject).hint(hint));
    }
    candidates.pop().ok_or_else(|| {
        Error::new(Kind::Device, "no disk qualifies").at("find the boot disk", subject).hint(format!(
            "a machine that KubeSolo OS did not boot has none; reading block devices needs root; {BIND_HINT}"
        ))
    })
}

fn describe(disk: &BootDisk) -> String {
    let parts: Vec<String> = disk.partitions.iter().map(|p| format!("{}={}", p.name, p.label)).collect();
    format!("{} ({})", disk.disk, parts.join(" "))
}

/// Lists partitions. One that vanishes meanwhile is omitted.
fn list(system: &System) -> Result<Vec<SysfsPartition>> {
    let dir = system.class_block();
    let entries =
        fs::read_dir(&dir).io(Kind::Device, "list block devices in", dir.display()).map_err(|e| e.hint(BIND_HINT))?;
    let mut seen: Vec<SysfsPartition> = entries.filter_map(|entry| look_at(&entry.ok()?.path())).collect();
    // A number occurs once per disk.
    seen.sort_unstable_by(|a, b| (&a.disk, a.number).cmp(&(&b.disk, b.number)));
    Ok(seen)
}

fn look_at(entry: &Path) -> Option<SysfsPartition> {
    // /sys/class/block/sda2 -> ../../devices/…/block/sda/sda2; what lies in `block` itself is a whole disk.
    let real = fs::read_link(entry).ok()?;
    let disk = real.parent()?.file_name()?.to_str().filter(|dir| *dir != "block")?.to_string();
    let uevent = fs::read_to_string(entry.join("uevent")).ok()?;
    let field = |name: &str| uevent.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    // A whole disk has none, wherever it lies.
    let number = field("PARTN")?.parse().ok()?;
    let device_number = [field("MAJOR")?, ":", field("MINOR")?].concat();
    let partition_name = field("PARTNAME").map(str::to_string);
    let name = entry.file_name()?.to_str()?.to_string();
    Some(SysfsPartition { name, disk, number, device_number, partition_name })
}

/// Collects the partitions of one disk that have one of our names.
fn collect(tables: &Tables<'_>, disk: &str, seen: &[SysfsPartition]) -> Result<BootDisk> {
    let mut partitions: Vec<Partition> = Vec::new();
    for s in seen.iter().filter(|s| s.disk == disk) {
        let node = tables.system.device(&s.name);
        let is_ours = |name: &String| OURS.contains(&name.as_str());
        // The kernel does not report the name of a partition that was added by hand (partx).
        let in_table = || tables.look(disk, &mut |table| table.header.name(&table.entries, s.number)).filter(is_ours);
        let name = s.partition_name.clone().or_else(in_table);
        let is_named = name.is_some();
        let label = match name {
            Some(name) => name,
            None => probe(&node).map(|fs| fs.label().to_string()).unwrap_or_default(),
        };
        if !is_ours(&label) {
            continue;
        }
        if let Some(twin) = partitions.iter().find(|p| p.label == label) {
            let why = format!("{} and {} both carry it", twin.name, s.name);
            return Err(Error::new(Kind::Device, why).at("find partition", label));
        }
        let device_number = s.device_number.clone();
        partitions.push(Partition { label, name: s.name.clone(), node, device_number, is_named });
    }
    Ok(BootDisk { disk: disk.to_string(), partitions })
}

/// Returns whether a disk's table has the GUID, at a number that the kernel also knows.
fn holds(tables: &Tables<'_>, disk: &str, guid: &str, seen: &[SysfsPartition]) -> bool {
    let number = tables.number(disk, guid);
    number.is_some_and(|n| seen.iter().any(|s| s.disk == disk && s.number == n))
}

/// A partition table.
struct Table {
    header: gpt::Header,
    entries: Vec<u8>,
}

/// Which table was read, and what came of it.
struct Looked {
    disk: String,
    is_backup: bool,
    table: Option<Rc<Table>>,
}

/// The tables of disks, each read once: a device that is closed forgets what was read of it.
struct Tables<'a> {
    system: &'a System,
    looked: RefCell<Vec<Looked>>,
}

impl Tables<'_> {
    fn of(system: &System) -> Tables<'_> {
        Tables { system, looked: RefCell::default() }
    }

    fn number(&self, disk: &str, guid: &str) -> Option<u32> {
        self.look(disk, &mut |table| table.header.find(&table.entries, guid))
    }

    /// Searches the first table, and if that is damaged or has nothing, the backup.
    fn look<T>(&self, disk: &str, find: &mut dyn FnMut(&Table) -> Option<T>) -> Option<T> {
        [false, true].into_iter().find_map(|is_backup| find(&*self.table(disk, is_backup)?))
    }

    fn table(&self, disk: &str, is_backup: bool) -> Option<Rc<Table>> {
        let mut looked = self.looked.borrow_mut();
        if let Some(known) = looked.iter().find(|one| one.disk == disk && one.is_backup == is_backup) {
            return known.table.clone();
        }
        let table = self.read_table(disk, is_backup).map(Rc::new);
        looked.push(Looked { disk: disk.to_owned(), is_backup, table: table.clone() });
        table
    }

    fn read_table(&self, disk: &str, is_backup: bool) -> Option<Table> {
        let block_bytes = fs::read_to_string(self.system.class_block().join(disk).join("queue/logical_block_size"))
            .ok()
            .and_then(|t| t.trim().parse().ok())
            .unwrap_or(512);
        if !matches!(block_bytes, 512 | 1024 | 2048 | 4096) {
            return None;
        }
        let mut file = File::open(self.system.device(disk)).ok()?;
        let last = (file.seek(SeekFrom::End(0)).ok()? / block_bytes).checked_sub(1)?;
        let lba = if is_backup { last } else { 1 };
        let header = gpt::header(&read_at(&mut file, lba * block_bytes, block_bytes as usize)?)?;
        let entries = read_at(&mut file, header.entries_lba.checked_mul(block_bytes)?, header.entries_bytes)?;
        Some(Table { header, entries })
    }
}

fn read_at(file: &mut File, offset: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(offset)).ok()?;
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Reads which file system a partition has.
/// Errors: Device: it cannot be opened or read.
pub fn probe(node: &Path) -> Result<FileSystem> {
    probe_with(node, 0)
}

/// The same past every cache: what GRUB would see.
/// Errors: Device: it cannot be opened or read.
pub fn probe_on_disk(node: &Path) -> Result<FileSystem> {
    probe_with(node, libc::O_DIRECT)
}

fn probe_with(node: &Path, flags: i32) -> Result<FileSystem> {
    let op = "read the superblock of";
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(node);
    let is_missing = opened.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let mut file =
        opened.io(Kind::Device, op, node.display()).map_err(|e| if is_missing { e.hint(BIND_HINT) } else { e })?;
    // O_DIRECT requires an aligned buffer; twice the length always contains one.
    let mut space = vec![0u8; 2 * PROBE_BYTES];
    let skip = space.as_ptr().align_offset(PROBE_BYTES).min(PROBE_BYTES);
    let start = &mut space[skip..skip + PROBE_BYTES];
    let mut length = 0;
    while length < PROBE_BYTES {
        match file.read(&mut start[length..]).io(Kind::Device, op, node.display())? {
            0 => break,
            n => length += n,
        }
    }
    Ok(superblock::read(&start[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str) -> BootDisk {
        let partition = Partition {
            label: "KSOLOA".into(),
            name: format!("{name}2"),
            node: PathBuf::from("/dev/null"),
            device_number: "1:3".into(),
            is_named: false,
        };
        BootDisk { disk: name.into(), partitions: vec![partition] }
    }

    #[test]
    fn one_disk_is_taken_two_are_refused_by_name() {
        let from = BootedFrom::default();
        assert_eq!(choose(vec![disk("sda")], &from).unwrap().disk, "sda");
        let e = choose(vec![disk("sda"), disk("sdb")], &from).unwrap_err();
        assert_eq!(e.exit_code(), 7);
        assert!(e.to_string().contains("sda2=KSOLOA") && e.to_string().contains("sdb2=KSOLOA"), "{e}");
        assert_eq!(choose(vec![], &from).unwrap_err().exit_code(), 7);
    }

    #[test]
    fn a_missing_partition_is_named() {
        let e = disk("sda").partition(DATA).unwrap_err().to_string();
        assert!(e.contains("KSOLODATA") && e.contains("sda"), "{e}");
    }
}
