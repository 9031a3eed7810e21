//! What breaks on a machine by itself: never more than it can survive.

use super::ops::{Op, Verb};
use super::view::Vars;
use super::world::{UPDATE, World, number};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

impl World<'_> {
    /// Damages something. Returns: whether there was something to damage that a machine could survive.
    pub fn spoil(&mut self, op: Op) -> bool {
        match op.verb {
            Verb::SpoilState => self.spoil_state(op.which),
            Verb::SpoilBlock => self.spoil_block(op.which),
            _ => self.spoil_slot(op.which),
        }
    }

    fn spoil_state(&mut self, kind: usize) -> bool {
        let path = self.root.path(UPDATE).join("state.json");
        let Ok(old) = fs::read(&path) else { return false };
        match kind % 4 {
            0 => fs::write(&path, &old[..old.len() / 2]).unwrap(),
            1 => fs::write(&path, b"\xff\x00 garbage").unwrap(),
            2 => fs::write(&path, b"").unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        self.rollbacks_known = None;
        true
    }

    /// Only one copy is ever damaged: with both gone, there is nothing to keep.
    fn spoil_block(&mut self, kind: usize) -> bool {
        let which = kind % 2;
        if Vars::read(&self.now.blocks[1 - which]).is_none() || Vars::read(&self.now.blocks[which]).is_none() {
            return false;
        }
        // A backup that is behind (a kill between the two) decides something else than main: losing main
        // is then losing the last write, which is not what this is about.
        if self.now.blocks[0] != self.now.blocks[1] {
            return false;
        }
        let mut bytes = self.now.blocks[which].clone();
        match kind / 2 % 3 {
            0 => bytes[3] = b'X',
            1 => bytes.truncate(40),
            _ => bytes.fill(0),
        }
        fs::write(self.root.block(["grubenv", "grubenv.bak"][which]), bytes).unwrap();
        true
    }

    /// Never the slot that runs, nor the only one to go back to: no machine survives that.
    fn spoil_slot(&mut self, kind: usize) -> bool {
        let (slot, vars) = (self.running.other(), self.now.vars);
        let is_needed = if vars.success { vars.active == slot } else { vars.active != slot };
        let name = ["vmlinuz", "kubesolo-os.gz"][kind % 2];
        let Some(file) = self.disk.file(number(slot), name).filter(|file| !is_needed && file.len() > 8192) else {
            return false;
        };
        // A file system's blocks are 1, 2 or 4 KiB.
        let piece = &file[4096..5120];
        let Some(place) = self.now.bytes_of(slot).chunks_exact(1024).position(|chunk| chunk == piece) else {
            return false;
        };
        let node = OpenOptions::new().write(true).open(self.disk.node(number(slot))).unwrap();
        node.write_all_at(&[piece[7] ^ 1], place as u64 * 1024 + 7).unwrap();
        node.sync_all().unwrap();
        true
    }
}
