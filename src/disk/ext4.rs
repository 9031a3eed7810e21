//! Lays out an empty ext4 file system for a slot, as `mke2fs` would. Pure: computes which bytes go where.
//!
//! Only what GRUB and every kernel since 3.18 read: no 64bit, no flex_bg, no resizing; metadata checksums, so that damage is
//! detected (docs/decisions/0014).
//! Source: Linux Documentation/filesystems/ext4 (super block, group descriptors, inodes, directories, journal, checksums).
//! Must never: read or write anything itself.

use std::io;

/// Size of a block, in bytes: all offsets are multiples of it.
pub const BLOCK_BYTES: usize = 4096;
const SUPER_AT: usize = 1024;
const SUPER_BYTES: usize = 1024;
const GROUP_BLOCKS: u32 = 32768;
const DESCRIPTOR_BYTES: usize = 32;
const INODE_BYTES: usize = 256;
/// A slot holds a dozen files.
const INODES_PER_GROUP: u32 = 256;
const TABLE_BLOCKS: u32 = 16;
/// 4 MiB, the kernel's minimum; the same in `scripts/build-image.sh`.
const JOURNAL_BLOCKS: u32 = 1024;
const ROOT: u32 = 2;
const JOURNAL: u32 = 8;
const LOST_FOUND: u32 = 11;
/// A last group with fewer blocks than this apart from its own tables is left out.
const LAST_GROUP_BLOCKS: u32 = 50;
/// Blocks reserved for the kernel: a fiftieth, 4,096 at most (fs/ext4/super.c, ext4_calculate_resv_clusters).
const KEPT_BACK_MAX_BLOCKS: u32 = 4096;

/// What distinguishes one file system from another.
#[derive(Clone, Debug)]
pub struct Identity<'a> {
    /// Random: identifies it.
    pub uuid: [u8; 16],
    /// Random: for hashing names.
    pub hash_seed: [u8; 16],
    /// At most 16 bytes.
    pub label: &'a str,
    /// Seconds since 1970.
    pub made_secs: u32,
}

/// Plan of an empty file system of one size.
#[derive(Clone, Debug)]
pub struct Plan {
    blocks: u32,
    groups: u32,
    descriptor_blocks: u32,
}

/// Places of the parts of a group, in blocks.
struct Group {
    start: u32,
    blocks: u32,
    /// First block after the group's own tables.
    free: u32,
    /// Free blocks that are taken: by root directory, lost+found and journal.
    taken: u32,
    has_backup: bool,
}

impl Plan {
    /// Plans one. Input: the partition's size, in bytes.   Returns: `None` below 16 MiB, or above 32 bits of blocks.
    pub fn new(size_bytes: u64) -> Option<Plan> {
        let mut blocks = u32::try_from(size_bytes / BLOCK_BYTES as u64).ok()?;
        if size_bytes < 16 << 20 {
            return None;
        }
        let mut groups = blocks.div_ceil(GROUP_BLOCKS);
        let descriptor_blocks = (groups as usize * DESCRIPTOR_BYTES).div_ceil(BLOCK_BYTES) as u32;
        let last = blocks - (groups - 1) * GROUP_BLOCKS;
        if groups > 1 && last < 1 + descriptor_blocks + 2 + TABLE_BLOCKS + LAST_GROUP_BLOCKS {
            groups -= 1;
            blocks = groups * GROUP_BLOCKS;
        }
        Some(Plan { blocks, groups, descriptor_blocks })
    }

    /// Returns the space for files, in bytes.
    pub fn room_bytes(&self) -> u64 {
        let free = self.free_blocks();
        u64::from(free - (self.blocks / 50).min(KEPT_BACK_MAX_BLOCKS).min(free)) * BLOCK_BYTES as u64
    }

    fn free_blocks(&self) -> u32 {
        (0..self.groups).map(|n| self.group(n)).map(|group| group.start + group.blocks - group.free - group.taken).sum()
    }

    fn group(&self, number: u32) -> Group {
        let start = number * GROUP_BLOCKS;
        let has_backup = number <= 1 || [3, 5, 7].into_iter().any(|base| is_power(number, base));
        let head = if has_backup { 1 + self.descriptor_blocks } else { 0 };
        let taken = if number == 0 { 2 + JOURNAL_BLOCKS } else { 0 };
        let free = start + head + 2 + TABLE_BLOCKS;
        Group { start, blocks: GROUP_BLOCKS.min(self.blocks - start), free, taken, has_backup }
    }

    /// Emits everything except the first block, in order of offset; then that one, alone.
    ///
    /// Input: `put`: takes an offset in bytes, and whole blocks; called with the offset 0 once, at the end.
    /// Errors: what `put` returned.
    /// Power cut: nothing counts until the first block is there.
    pub fn write(&self, identity: &Identity<'_>, put: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut writer = Writer { plan: self, seed: crc32c(!0, &identity.uuid), made_secs: identity.made_secs, put };
        let mut descriptors = vec![0; self.descriptor_blocks as usize * BLOCK_BYTES];
        for number in 0..self.groups {
            let at = number as usize * DESCRIPTOR_BYTES;
            writer.group(number, &mut descriptors[at..at + DESCRIPTOR_BYTES])?;
        }
        writer.root()?;
        for number in (0..self.groups).rev().filter(|number| self.group(*number).has_backup) {
            let start = self.group(number).start;
            writer.put(start + 1, &descriptors)?;
            let mut block = vec![0; BLOCK_BYTES];
            let at = if number == 0 { SUPER_AT } else { 0 };
            self.super_block(identity, number as u16, &mut block[at..at + SUPER_BYTES]);
            writer.put(start, &block)?;
        }
        Ok(())
    }

    /// Source: Linux, fs/ext4/ext4.h, struct ext4_super_block.
    fn super_block(&self, identity: &Identity<'_>, group: u16, block: &mut [u8]) {
        let inodes = self.groups * INODES_PER_GROUP;
        for (at, value) in [
            (0x00, inodes),
            (0x04, self.blocks),
            (0x0c, self.free_blocks()),
            (0x10, inodes - LOST_FOUND),
            (0x18, 2), // block size: 1024 << 2
            (0x1c, 2),
            (0x20, GROUP_BLOCKS),
            (0x24, GROUP_BLOCKS),
            (0x28, INODES_PER_GROUP),
            (0x30, identity.made_secs),
            (0x38, 0x1_ef53), // magic; state: clean
            (0x3c, 1),        // errors: continue
            (0x40, identity.made_secs),
            (0x4c, 1), // revision
            (0x54, LOST_FOUND),
            (0x58, u32::from(group) << 16 | INODE_BYTES as u32),
            (0x5c, 0x2c),  // has_journal, ext_attr, dir_index
            (0x60, 0x42),  // filetype, extent
            (0x64, 0x46b), // sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
            (0xe0, JOURNAL),
            (0xfc, 0x0101), // half_md4; the journal's place is kept below as well
            (0x100, 0xc),   // user_xattr, acl
            (0x108, identity.made_secs),
            (0x15c, 32 << 16 | 32),
            (0x160, 1), // signed hashes
            (0x14c, JOURNAL_BLOCKS * BLOCK_BYTES as u32),
        ] {
            set(block, at, value);
        }
        block[0x36..0x38].fill(0xff); // no check after a number of mounts
        block[0x175] = 1; // crc32c
        block[0x68..0x78].copy_from_slice(&identity.uuid);
        let label = identity.label.as_bytes();
        block[0x78..0x78 + label.len().min(16)].copy_from_slice(&label[..label.len().min(16)]);
        block[0xec..0xfc].copy_from_slice(&identity.hash_seed);
        extent(&mut block[0x10c..], self.group(0).free + 2, JOURNAL_BLOCKS);
        let sum = crc32c(!0, &block[..0x3fc]);
        set(block, 0x3fc, sum);
    }
}

struct Writer<'a> {
    plan: &'a Plan,
    /// Start value of all checksums.
    seed: u32,
    made_secs: u32,
    put: &'a mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
}

/// What a file of a new file system is.
struct Inode {
    number: u32,
    mode: u32,
    links: u32,
    start: u32,
    blocks: u32,
}

impl Writer<'_> {
    fn put(&mut self, block: u32, bytes: &[u8]) -> io::Result<()> {
        (self.put)(u64::from(block) * BLOCK_BYTES as u64, bytes)
    }

    /// Writes the bitmaps and the inodes of a group, and describes it.
    fn group(&mut self, number: u32, descriptor: &mut [u8]) -> io::Result<()> {
        let group = self.plan.group(number);
        let (bitmap, table) = (group.free - TABLE_BLOCKS - 2, group.free - TABLE_BLOCKS);
        let used = group.free + group.taken - group.start;
        let in_use = bits(used, group.blocks);
        let inodes_used = if number == 0 { LOST_FOUND } else { 0 };
        let inodes = bits(inodes_used, INODES_PER_GROUP);
        self.put(bitmap, &in_use)?;
        self.put(bitmap + 1, &inodes)?;
        self.put(table, &self.inodes(number))?;
        set(descriptor, 0x00, bitmap);
        set(descriptor, 0x04, bitmap + 1);
        set(descriptor, 0x08, table);
        let directories = if number == 0 { 2 } else { 0 };
        let inodes_free = INODES_PER_GROUP - inodes_used;
        set(descriptor, 0x0c, (group.blocks - used) | (inodes_free << 16));
        set(descriptor, 0x10, directories | 4 << 16); // its table is zeroed
        let sums = [&in_use[..], &inodes[..INODES_PER_GROUP as usize / 8]].map(|map| crc32c(self.seed, map) & 0xffff);
        set(descriptor, 0x18, sums[0] | sums[1] << 16);
        set(descriptor, 0x1c, inodes_free);
        let sum = crc32c(crc32c(self.seed, &number.to_le_bytes()), descriptor);
        set(descriptor, 0x1c, inodes_free | sum << 16);
        Ok(())
    }

    fn inodes(&self, group: u32) -> Vec<u8> {
        let mut table = vec![0; TABLE_BLOCKS as usize * BLOCK_BYTES];
        if group == 0 {
            let free = self.plan.group(0).free;
            for inode in [
                Inode { number: ROOT, mode: 0o40755, links: 3, start: free, blocks: 1 },
                Inode { number: LOST_FOUND, mode: 0o40700, links: 2, start: free + 1, blocks: 1 },
                Inode { number: JOURNAL, mode: 0o100_600, links: 1, start: free + 2, blocks: JOURNAL_BLOCKS },
            ] {
                let at = (inode.number as usize - 1) * INODE_BYTES;
                self.inode(&mut table[at..at + INODE_BYTES], inode);
            }
        }
        table
    }

    /// Source: Linux, fs/ext4/ext4.h, struct ext4_inode.
    fn inode(&self, inode: &mut [u8], Inode { number, mode, links, start, blocks }: Inode) {
        set(inode, 0x00, mode);
        set(inode, 0x04, blocks * BLOCK_BYTES as u32);
        [0x08, 0x0c, 0x10, 0x90].into_iter().for_each(|at| set(inode, at, self.made_secs));
        set(inode, 0x18, links << 16);
        set(inode, 0x1c, blocks * (BLOCK_BYTES as u32 / 512));
        set(inode, 0x20, 0x8_0000); // its blocks are in extents
        extent(&mut inode[0x28..], start, blocks);
        set(inode, 0x80, 32);
        let sum = crc32c(self.inode_seed(number), inode);
        set(inode, 0x7c, sum & 0xffff);
        set(inode, 0x80, 32 | sum & 0xffff_0000);
    }

    fn inode_seed(&self, number: u32) -> u32 {
        crc32c(crc32c(self.seed, &number.to_le_bytes()), &[0; 4])
    }

    /// Writes the content of the root directory, lost+found and the journal.
    fn root(&mut self) -> io::Result<()> {
        let free = self.plan.group(0).free;
        let root = self.directory(ROOT, &[(ROOT, "."), (ROOT, ".."), (LOST_FOUND, "lost+found")]);
        let lost = self.directory(LOST_FOUND, &[(LOST_FOUND, "."), (ROOT, "..")]);
        self.put(free, &root)?;
        self.put(free + 1, &lost)?;
        // Old transactions must not be mistaken for new ones.
        let mut journal = vec![0; JOURNAL_BLOCKS as usize * BLOCK_BYTES / 64];
        for n in 0..64 {
            if n == 0 {
                // Source: Linux, include/linux/jbd2.h, struct journal_superblock_s: big-endian. Nothing is to be replayed.
                for (at, value) in [
                    (0x00, 0xc03b_3998_u32),
                    (0x04, 4),
                    (0x0c, BLOCK_BYTES as u32),
                    (0x10, JOURNAL_BLOCKS),
                    (0x14, 1),
                    (0x18, 1),
                    (0x40, 1),
                ] {
                    journal[at..at + 4].copy_from_slice(&value.to_be_bytes());
                }
            }
            self.put(free + 2 + n * JOURNAL_BLOCKS / 64, &journal)?;
            journal[..0x44].fill(0);
        }
        Ok(())
    }

    fn directory(&self, number: u32, entries: &[(u32, &str)]) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        let (mut at, end) = (0, BLOCK_BYTES - 12);
        for (n, (inode, name)) in entries.iter().enumerate() {
            let length = if n + 1 == entries.len() { end - at } else { 12 };
            set(&mut block, at, *inode);
            // Length of the entry, of the name; a directory.
            set(&mut block, at + 4, length as u32 | (name.len() as u32) << 16 | 2 << 24);
            block[at + 8..at + 8 + name.len()].copy_from_slice(name.as_bytes());
            at += length;
        }
        set(&mut block, end + 4, 12 | 0xde << 24);
        let sum = crc32c(self.inode_seed(number), &block[..end]);
        set(&mut block, end + 8, sum);
        block
    }
}

/// Writes one extent after its header. Source: Linux, fs/ext4/ext4_extents.h.
#[inline(never)]
fn extent(place: &mut [u8], start: u32, blocks: u32) {
    set(place, 0x00, 1 << 16 | 0xf30a);
    set(place, 0x04, 4);
    set(place, 0x10, blocks);
    set(place, 0x14, start);
}

/// Returns a bitmap with its first bits set, as well as those that stand for nothing.
fn bits(used: u32, count: u32) -> Vec<u8> {
    let mut map = vec![0xff; BLOCK_BYTES];
    (used..count).for_each(|bit| map[bit as usize / 8] &= !(1 << (bit % 8)));
    map
}

fn is_power(number: u32, base: u32) -> bool {
    let mut power = base;
    while power < number {
        power = power.saturating_mul(base);
    }
    power == number
}

// Out of line, and without a panic if it does not fit: it is called from forty places (size-budget.md).
#[inline(never)]
fn set(bytes: &mut [u8], at: usize, value: u32) {
    let place = bytes.iter_mut().skip(at);
    place.zip(value.to_le_bytes()).for_each(|(byte, new)| *byte = new);
}

/// Computes CRC-32C without the final inversion, as ext4 chains it. Source: RFC 3720, appendix B.4: the polynomial.
#[inline(never)]
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
#[path = "ext4_tests.rs"]
mod tests;
