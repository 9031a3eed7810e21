//! This machine: its boot source, slots, boot variables and data partition.
//!
//! Looks each up once; mounts privately what is not mounted in its usual place.
//! Must never: decide what to do with what it finds.
//!
//! May import: base, os, slot, boot, disk, ledger. Must never import: source, http, config, update: it reports facts only.

pub mod view;

use crate::base::error::{Course, Error, IoContext, Kind, Result};
use crate::boot::env_files::EnvFiles;
use crate::boot::this_boot::{self, BootedFrom};
use crate::disk::mount::{self, Hold, Mounted};
use crate::disk::partition::{self, BIND_HINT, BootDisk, DATA, EFI, Partition};
use crate::disk::remake;
use crate::ledger::store::Store;
use crate::machine::view::{RESERVE_BYTES, View};
use crate::os::files::read_required;
use crate::os::mountinfo;
use crate::os::progress::note;
use crate::os::sys::Access;
use crate::os::system::System;
use crate::slot::record::{Record, Slot};
use crate::slot::stage;
use std::path::{Path, PathBuf};

/// Longest kernel command line that is read, in bytes; the kernel's own limit is 2 or 4 KiB.
const CMDLINE_MAX_BYTES: u64 = 64 * 1024;

/// Name of this machine's architecture, as the OCI spells it.
pub const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};

/// Looks things up on this machine.
pub struct Machine<'a> {
    system: &'a System,
    booted: BootedFrom,
    /// Why the kernel command line could not be read.
    cmdline_fault: Option<Error>,
    disk: Result<BootDisk>,
}

/// The boot variables' files, mounted for as long as this lives.
pub struct BootEnv {
    /// Reads and writes the two copies.
    pub files: EnvFiles,
    _mounted: Option<Mounted>,
}

/// The agent's files on the data partition, mounted for as long as this lives.
pub struct Data {
    /// Reads and writes them.
    pub store: Store,
    _mounted: Option<Mounted>,
}

/// Reads what GRUB passed to the kernel. Returns: that, and why it could not be read.
fn booted_from(system: &System) -> (BootedFrom, Option<Error>) {
    let path = system.kernel_cmdline();
    let cmdline = read_required(&path, CMDLINE_MAX_BYTES).io(Kind::Boot, "read", path.display());
    let fault = cmdline.as_ref().err().map(|e| e.clone().hint(BIND_HINT));
    (this_boot::parse(&String::from_utf8_lossy(&cmdline.unwrap_or_default())), fault)
}

/// Finds the device of the boot disk's partition with a label, without asking which slot runs, so that a contradictory
/// kernel command line does not cost the machine its data.
/// Errors: Device: the boot disk has none, or is not known. Boot: the kernel command line cannot be read.
pub fn device(system: &System, label: &str) -> Result<PathBuf> {
    let (mut booted, fault) = booted_from(system);
    // Without the kernel command line, the search would be a guess.
    fault.map_or(Ok(()), Err)?;
    booted.slot = None;
    Ok(partition::find(system, &booted)?.partition(label)?.node.clone())
}

impl<'a> Machine<'a> {
    /// Reads the kernel command line and finds the boot disk; nothing is mounted yet.
    pub fn look(system: &'a System) -> Machine<'a> {
        let (booted, cmdline_fault) = booted_from(system);
        let disk = partition::find(system, &booted);
        Machine { system, booted, cmdline_fault, disk }
    }

    /// Returns the running slot.
    /// Errors: Boot: GRUB named none, or the kernel command line cannot be read.
    pub fn running(&self) -> Result<Slot> {
        self.cmdline_fault.clone().map_or(Ok(()), Err)?;
        self.booted.slot.ok_or_else(|| {
            Error::new(Kind::Boot, "the kernel command line has no kubesolo.slot=A or B")
                .at("find", "the running slot")
                .hint("only a machine that booted from a slot can be updated")
        })
    }

    /// Returns the other slot, if GRUB tried it first in this boot and could not load it.
    pub fn skipped(&self) -> Option<Slot> {
        self.booted.skipped
    }

    /// Returns the boot disk.
    /// Errors: Device: none, or several.
    pub fn disk(&self) -> Result<&BootDisk> {
        // Without the kernel command line, the search was a guess.
        self.disk.as_ref().map_err(|e| self.cmdline_fault.as_ref().unwrap_or(e).clone())
    }

    /// Returns a slot's partition.
    /// Errors: Device: there is none.
    pub fn slot_partition(&self, slot: Slot) -> Result<&Partition> {
        self.disk()?.slot(slot)
    }

    /// Inspects a slot. What cannot be read is an error in the view.
    pub fn view(&self, slot: Slot) -> View {
        let part = match self.slot_partition(slot) {
            Ok(part) => part,
            Err(e) => return View::unreadable(slot, e),
        };
        let mut view = view::look(slot, part);
        if let Err(error) = &view.record
            && error.course() == Course::Damaged
            && self.running().is_ok_and(|running| running != slot)
        {
            // An update recreates the file system, if allowed.
            view.room_bytes = remake::room(part).map(|room| room.saturating_sub(RESERVE_BYTES));
            if view.room_bytes.is_none() {
                view.record = Err(remake::hint(error.clone(), part));
            }
        }
        view
    }

    /// Reads a whole slot and checks it against its record. Never for the running slot, which must not be modified: a journal
    /// is emptied first; and if only GRUB's checksum list is damaged, it is rewritten, since verified files must
    /// not be passed over because of it.
    /// Returns: the record, and whether that list was rewritten.
    /// Errors: Slot: it does not match. Device: it cannot be read.
    /// Power cut: the list is the old one, or the new one.
    pub fn scrub(&self, slot: Slot, progress: &mut dyn FnMut(u64)) -> Result<(Record, bool)> {
        let part = self.slot_partition(slot)?;
        view::settle(part).map_err(|e| self.remade(e, part))?;
        let proof = view::scrub(slot, part, progress).map_err(|e| self.remade(e, part))?;
        if proof.list_fault.is_none() {
            return Ok((proof.record, false));
        }
        let hold = self.hold_target(slot)?;
        let mounted = self.mount_target(slot, &hold)?;
        stage::write_digests(mounted.dir(), proof.crc32s)?;
        mounted.unmount()?;
        view::journal(part)?;
        note(&format!(
            "slot {slot}: slot.crc32 did not fit; kernel and initramfs are what the record says: the list is written anew"
        ));
        Ok((proof.record, true))
    }

    /// As [`Machine::scrub`], without changing anything: for the running slot, and for read-only commands.
    /// Errors: as [`Machine::scrub`]; Slot: the journal is not empty, or GRUB's list does not match.
    pub fn scrub_as_it_is(&self, slot: Slot, progress: &mut dyn FnMut(u64)) -> Result<Record> {
        let part = self.slot_partition(slot)?;
        let is_target = self.running().is_ok_and(|running| running != slot);
        let proof = view::scrub(slot, part, progress).map_err(|e| if is_target { self.remade(e, part) } else { e })?;
        match proof.list_fault {
            Some(fault) => Err(fault),
            None => Ok(proof.record),
        }
    }

    /// Adds to a target slot's error that `apply` repairs it.
    fn remade(&self, error: Error, part: &Partition) -> Error {
        match error.course() == Course::Damaged && remake::room(part).is_some() {
            true => error.hint("`apply` of another release than the one that runs makes its file system anew"),
            false => error,
        }
    }

    /// Reserves a slot for writing by this run, until the returned hold is dropped.
    /// Errors: Slot: it is the running one. Busy: another run is using it.
    pub fn hold_target(&self, slot: Slot) -> Result<Hold> {
        if slot == self.running()? {
            return Err(Error::new(Kind::Slot, "it is the running slot").at("write to", format!("slot {slot}")));
        }
        mount::hold(self.slot_partition(slot)?, Access::Write)
    }

    /// Mounts for writing a slot reserved with [`Machine::hold_target`].
    /// Errors: Slot: it is the running one. Device: it cannot be mounted.
    pub fn mount_target(&self, slot: Slot, hold: &Hold) -> Result<Mounted> {
        if slot == self.running()? {
            return Err(Error::new(Kind::Slot, "it is the running slot").at("write to", format!("slot {slot}")));
        }
        mount::mount_alone(self.slot_partition(slot)?, hold)
    }

    /// Mounts a slot for reading.
    /// Errors: Device: it cannot be mounted. Busy: another run writes to it.
    pub fn mount_to_read(&self, slot: Slot) -> Result<Mounted> {
        mount::mount(self.slot_partition(slot)?, Access::Read)
    }

    /// Opens the boot variables.
    /// Errors: Device: the EFI partition cannot be found or mounted.
    pub fn boot_env(&self, access: Access) -> Result<BootEnv> {
        let (dir, mounted) = self.place(EFI, &self.system.efi_dir(), access)?;
        Ok(BootEnv { files: EnvFiles::new(dir.join("boot/grub")), _mounted: mounted })
    }

    /// Opens the agent's own files.
    /// Input: `state_file`: `--state`; lock and failures stay where every other run expects them, unless there is no
    /// data partition.
    /// Errors: Device: the data partition cannot be found or mounted.
    pub fn data(&self, state_file: Option<&Path>, access: Access) -> Result<Data> {
        let (dir, mounted) = match (self.place(DATA, &self.system.data_dir(), access), state_file) {
            // Without a data partition, all files go next to the named state file.
            (Err(_), Some(file)) => (file.parent().unwrap_or(Path::new("/")).to_path_buf(), None),
            (place, _) => place?,
        };
        Ok(Data { store: Store::new(&dir, state_file), _mounted: mounted })
    }

    /// Returns a place for lock and state that lasts until the restart, for when the data partition is missing.
    pub fn volatile_data(&self) -> Data {
        Data { store: Store::new(&self.system.run_dir(), None), _mounted: None }
    }

    /// Returns this boot's id.
    pub fn boot_id(&self) -> Option<String> {
        this_boot::boot_id(self.system)
    }

    /// Returns whether the file system mounted in the EFI partition's place is the boot disk's; the site may have given it
    /// another label. If the disk is indistinguishable from its copy, the mounted one was chosen by the operator: a trial boot
    /// must not fail because a copy was plugged in.
    fn is_boot_disks(&self, dir: &Path) -> bool {
        let Some(number) = mount::device_at(dir) else { return false };
        match self.disk().and_then(|disk| disk.partition(EFI)) {
            Ok(part) => part.device_number == number,
            Err(_) => partition::numbers(self.system, &self.booted).contains(&number),
        }
    }

    /// Finds a partition's directory: its usual mount point, another one, or a private mount.
    /// Boot variables written to another disk's partition would have no effect: the one mounted in their place is checked
    /// against the boot disk.
    /// Below a `--root`, a directory in the usual place suffices: the operator mounted it, or intends it.
    fn place(&self, label: &str, usual: &Path, access: Access) -> Result<(PathBuf, Option<Mounted>)> {
        let in_place = if self.system.is_live() { mountinfo::is_mount_point(usual) } else { usual.is_dir() };
        if in_place && (label != EFI || !self.system.is_live() || self.is_boot_disks(usual)) {
            return Ok((usual.to_path_buf(), None));
        }
        let part = self.disk()?.partition(label)?;
        if in_place && access == Access::Write {
            note(&format!(
                "what is mounted at {} is not {} of the boot disk ({}), which is used",
                usual.display(),
                part.label,
                part.name
            ));
        }
        if let Some(dir) = mount::mounted_at(part) {
            return Ok((dir, None));
        }
        let mounted = match mount::mount(part, access) {
            // Mounted for writing out of our sight: the kernel refuses a read-only mount beside it, but not a writable one.
            Err(e) if label == EFI && e.course() == Course::InUse => mount::mount(part, Access::Write),
            mounted => mounted,
        }?;
        Ok((mounted.dir().to_path_buf(), Some(mounted)))
    }
}
