//! What GRUB sees of an EFI partition: its own FAT code finds both copies of the environment block (`grub-fstest`), its
//! own `grub-editenv` lists what counts, and src/boot/grub_table.rs, which tests/grub/table.rs holds to a real GRUB, decides.

use super::boot_cases::{Copies, Model};
use super::disk::{Disk, EFI};
use super::write_log::SECTOR;
use super::{command, run};

use kubesolo_update::parts::boot::block::Block;
use kubesolo_update::parts::boot::grub_table::{Decision, Vars};
use kubesolo_update::parts::slot::record::Slot;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Looks at a disk as GRUB does.
pub struct Grub {
    image: PathBuf,
    file: File,
    start: u64,
    listed: HashMap<Vec<u8>, Option<Vars>>,
}

impl Grub {
    pub fn new(disk: &Disk) -> Grub {
        let image = disk.dir().join("replayed.img");
        run(command("cp").arg("--sparse=always").arg(&disk.image).arg(&image));
        let file = OpenOptions::new().write(true).open(&image).unwrap();
        Grub { image, file, start: disk.extent(EFI).0, listed: HashMap::new() }
    }

    /// Puts a whole partition in place.
    pub fn reset(&self, partition: &[u8]) {
        self.file.write_all_at(partition, self.start).unwrap();
    }

    /// Looks again, after sectors were put in place.
    pub fn view(&mut self, sectors: &[u64], content: &[u8]) -> View {
        for (sector, bytes) in sectors.iter().zip(content.chunks_exact(SECTOR)) {
            self.file.write_all_at(bytes, self.start + sector * SECTOR as u64).unwrap();
        }
        let copies = self.copies();
        View::new(self, copies)
    }

    fn copies(&self) -> Copies {
        ["grubenv", "grubenv.bak"].map(|name| {
            let path = format!("(loop0,gpt1)/boot/grub/{name}");
            let out = command("grub-fstest").arg(&self.image).args(["cat", &path]).output().unwrap();
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success() || said.contains("error:"), "grub-fstest: {}: {said}", out.status);
            // What GRUB reads half, it does not take.
            (out.status.success() && said.is_empty()).then_some(out.stdout)
        })
    }

    /// What a real grub-editenv lists of a block; `None`: it refuses it, or a variable makes no sense.
    fn listed(&mut self, block: &[u8]) -> Option<Vars> {
        if let Some(known) = self.listed.get(block) {
            return *known;
        }
        let file = self.image.with_extension("block");
        fs::write(&file, block).unwrap();
        let out = command("grub-editenv").arg(&file).arg("list").output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        // Of a name that is there twice, the last one counts.
        let value = |name: &str| text.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let read = || {
            Some(Vars {
                active: Slot::parse(value("active_slot")?)?,
                counter: value("boot_counter")?.parse().ok()?,
                success: value("boot_success")? == "1",
                rollback_from: value("rollback_from").and_then(Slot::parse),
                canary: value("boot_canary")? == "1",
            })
        };
        let vars = if out.status.success() { read() } else { None };
        self.listed.insert(block.to_vec(), vars);
        vars
    }
}

/// What GRUB makes of one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Each copy's boot variables.
    pub copies: [Option<Vars>; 2],
    /// What it boots, where it saves to each copy what that copy has room for.
    pub decision: Decision,
    /// The copy that counts says the same to a real grub-editenv.
    pub listed: bool,
    /// The copy that counts is good to the agent, which is stricter.
    pub strict: bool,
    /// It is as the agent writes: all boot variables in the first sector.
    pub in_place: bool,
}

impl View {
    fn new(grub: &mut Grub, copies: Copies) -> View {
        let winner = copies.iter().flatten().find(|copy| Vars::read(copy).is_some());
        let listed = winner.is_none_or(|bytes| grub.listed(bytes) == Vars::read(bytes));
        let strict = winner.is_none_or(|bytes| Block::decode(bytes).is_ok());
        let same = winner.and_then(|bytes| Block::decode(bytes).ok()?.encode().ok());
        let in_place = winner.is_none_or(|bytes| same.is_some_and(|same| same == bytes.as_slice()));
        let read = copies.each_ref().map(|copy| copy.as_deref().and_then(Vars::read));
        let decision = Model { copies, disk: "both" }.boot().0;
        View { copies: read, decision, listed, strict, in_place }
    }

    /// The boot variables that count.
    pub fn winner(&self) -> Option<Vars> {
        self.copies.into_iter().flatten().next()
    }
}
