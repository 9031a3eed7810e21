//! Remakes the damaged file system of a slot, so that an update can overwrite it.
//!
//! Must never: touch the running slot, a partition that any process has mounted, or one that is a slot by its label alone: the
//! label is part of the untrusted file system.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::disk::ext4::{BLOCK_BYTES, Identity, Plan};
use crate::disk::mount::Hold;
use crate::disk::partition::Partition;
use crate::os::sys;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};

/// Features for the hint: those that GRUB 2.06 reads, named individually, since later e2fsprogs add others.
const FEATURES: &str = "none,has_journal,filetype,extent,sparse_super,large_file,extra_isize";

/// Adds to an error about a slot how to repair a damaged file system; if the device takes no writes, how to repair that:
/// remaking the file system would fail as well.
pub fn hint(error: Error, part: &Partition) -> Error {
    if part.is_read_only() {
        return error.hint(part.read_only_hint());
    }
    let (label, node) = (&part.label, part.node.display());
    error.hint(format!(
        "`mke2fs -t ext4 -O {FEATURES} -L {label} {node}` makes its file system anew: everything in it is lost"
    ))
}

/// Returns how much of a partition an update could use once its file system is remade, in bytes; `None` if that is not
/// possible.
pub fn room(part: &Partition) -> Option<u64> {
    let size_bytes = File::open(&part.node).and_then(|mut device| device.seek(SeekFrom::End(0))).ok()?;
    Some(Plan::new(size_bytes).filter(|_| part.is_named)?.room_bytes())
}

/// Makes an empty ext4 file system.
///
/// Input: `part`: not the running slot's, taken with `hold`.
/// Errors: Device: it is a slot by its label alone, too small, mounted by a process, or cannot be written.
/// Power cut: before its first block is written, at the end: no file system, which the next run makes again; nothing activates
/// it meanwhile. After it: an empty slot.
pub fn remake(part: &Partition, now_secs: u64, _hold: &Hold) -> Result<()> {
    let what = format!("{} ({})", part.label, part.name);
    let op = "make a file system on";
    let bad = |why: &str| Err(Error::new(Kind::Device, why).at(op, &what));
    if !part.is_named {
        return bad(
            "boot loader and partition table do not name it: its label, which lies in the file system, is all that is known",
        );
    }
    // Exclusive: refused if it is mounted in any namespace.
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(&part.node);
    let mut device = opened.io(Kind::Device, op, &what)?;
    let meta = device.metadata().io(Kind::Device, op, &what)?;
    let number = format!("{}:{}", libc::major(meta.rdev()), libc::minor(meta.rdev()));
    if !meta.file_type().is_block_device() || number != part.device_number {
        return bad("the device node is not that of the partition");
    }
    let size_bytes = device.seek(SeekFrom::End(0)).io(Kind::Device, op, &what)?;
    let Some(plan) = Plan::new(size_bytes) else { return bad("it is too small, or too large") };
    write(&device, &plan, &part.label, now_secs).io(Kind::Device, op, &what)?;
    device.sync_all().io(Kind::Device, op, &what)?;
    // The next mount reads from the disk.
    sys::drop_cache(&device).io(Kind::Device, op, what)
}

fn write(device: &File, plan: &Plan, label: &str, now_secs: u64) -> io::Result<()> {
    let (mut uuid, mut hash_seed) = ([0; 16], [0; 16]);
    sys::random(&mut uuid)?;
    sys::random(&mut hash_seed)?;
    // Version 4, variant 1. Source: RFC 9562, section 5.4.
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let made_secs = u32::try_from(now_secs).unwrap_or(0);
    let identity = Identity { uuid, hash_seed, label, made_secs };
    device.write_all_at(&[0; BLOCK_BYTES], 0)?;
    device.sync_all()?;
    plan.write(&identity, &mut |at, bytes| {
        if at == 0 {
            device.sync_all()?;
        }
        device.write_all_at(bytes, at)
    })
}
