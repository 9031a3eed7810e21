//! What QEMU's `blklogwrites` recorded of a disk, and the states that a power cut can leave a partition in: a drive
//! keeps what it was sent before a flush, and of what came after it any part, in any order.
//!
//! Source of the format: Linux drivers/md/dm-log-writes.c, QEMU block/blklogwrites.c (read, not copied). A superblock
//! in the first sector (magic, version, number of entries as u64; sector size as u32; all little-endian), then for each
//! entry a sector (sector, number of sectors, flags, length of a mark's data, as u64) and its data. QEMU appends an
//! entry when its request is done, and counts it in the superblock at the next flush.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

pub const SECTOR: usize = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
/// Most unflushed writes of which every subset is tried.
const ALL_SUBSETS_OF_WRITES: usize = 10;
/// Most unflushed sectors of which every subset is tried.
const ALL_SUBSETS_OF_SECTORS: usize = 11;
/// How [`mark`] begins.
const MARK: &[u8] = b"@mark ";
/// A sector that is neither what it was nor what it should be.
const SPOILT: u8 = 0x5a;

/// What a machine has to write, to a file of its own that is then synced, for the log to show where it is.
pub fn mark(name: &str) -> String {
    format!("{}{name}@", String::from_utf8_lossy(MARK))
}

/// Sectors that were sent to the drive at once. Sectors count from the start of the partition.
#[derive(Clone, Debug)]
pub struct Write {
    sector: u64,
    bytes: Vec<u8>,
}

enum Entry {
    Write(Write),
    Flush,
    Mark(String),
}

/// The writes to one partition, the flushes of the disk, and the marks.
pub struct Log {
    entries: Vec<Entry>,
}

impl Log {
    /// Reads a log. Input: where the partition lies on the disk, in bytes: start and length. Panics: it is no such log.
    pub fn read(path: &Path, (start, length): (u64, u64)) -> Log {
        let mut file = BufReader::new(File::open(path).unwrap());
        let mut sector = [0; SECTOR];
        file.read_exact(&mut sector).unwrap();
        let number =
            |sector: &[u8; SECTOR], at: usize| u64::from_le_bytes(sector[at * 8..at * 8 + 8].try_into().unwrap());
        assert_eq!([number(&sector, 0), number(&sector, 1)], [MAGIC, VERSION], "no log of writes");
        assert_eq!(number(&sector, 3) & 0xffff_ffff, SECTOR as u64, "sector size");
        let partition = start / SECTOR as u64..(start + length) / SECTOR as u64;
        let mut entries = Vec::new();
        for _ in 0..number(&sector, 2) {
            file.read_exact(&mut sector).unwrap();
            let [at, sectors, flags, data_len] = [0, 1, 2, 3].map(|n| number(&sector, n));
            // No discards (nothing is mounted so), no marks of the format's own (QEMU makes none).
            assert!(flags & !(FLUSH | FUA) == 0 && data_len == 0, "an entry with flags {flags}, data {data_len}");
            let mut bytes = vec![0; sectors as usize * SECTOR];
            file.read_exact(&mut bytes).unwrap();
            if let Some(name) = bytes.chunks_exact(SECTOR).find_map(marked) {
                entries.push(Entry::Mark(name));
            }
            // A request that asks for both has what was before it flushed, and is then kept itself.
            if flags & FLUSH != 0 {
                entries.push(Entry::Flush);
            }
            if partition.contains(&at) && sectors > 0 {
                assert!(at + sectors <= partition.end, "a write leaves its partition");
                entries.push(Entry::Write(Write { sector: at - partition.start, bytes }));
            }
            if flags & FUA != 0 {
                entries.push(Entry::Flush);
            }
        }
        Log { entries }
    }

    /// Applies every write, in order.
    pub fn replay(&self, partition: &mut [u8]) {
        apply(&self.entries, partition);
    }

    /// What happened between two marks. Input: the partition before the first entry of all.
    pub fn between(&self, begin: &str, end: &str, partition: &[u8]) -> Recording {
        let position = |name: &str| {
            let is_it = |entry: &Entry| matches!(entry, Entry::Mark(found) if found == name);
            self.entries.iter().position(is_it).unwrap_or_else(|| panic!("no mark {name}"))
        };
        let (begin, end) = (position(begin), position(end));
        assert!(begin < end);
        // What was sent before and is not flushed can still be lost.
        let durable = self.entries[..begin].iter().rposition(|entry| matches!(entry, Entry::Flush)).unwrap();
        let mut base = partition.to_vec();
        apply(&self.entries[..durable], &mut base);
        let mut epochs = vec![Vec::new()];
        let mut flushes = 0;
        for entry in &self.entries[durable + 1..end] {
            match entry {
                Entry::Write(write) => epochs.last_mut().unwrap().push(write.clone()),
                Entry::Flush => {
                    flushes += 1;
                    if !epochs.last().unwrap().is_empty() {
                        epochs.push(Vec::new());
                    }
                }
                Entry::Mark(_) => {}
            }
        }
        Recording { base, epochs, flushes }
    }
}

fn apply(entries: &[Entry], partition: &mut [u8]) {
    for entry in entries {
        if let Entry::Write(write) = entry {
            let at = write.sector as usize * SECTOR;
            partition[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
        }
    }
}

fn marked(sector: &[u8]) -> Option<String> {
    let rest = sector.strip_prefix(MARK)?;
    let end = rest.iter().position(|b| *b == b'@')?;
    Some(String::from_utf8(rest[..end].to_vec()).unwrap())
}

/// What was written to a partition during an act.
pub struct Recording {
    /// The partition before it: all that was flushed.
    pub base: Vec<u8>,
    /// Writes between two flushes; last those after which there was no flush, if any.
    epochs: Vec<Vec<Write>>,
    /// Flushes, also those that had nothing to keep.
    pub flushes: usize,
}

/// A sector that was sent and not flushed: what became of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Lost,
    Landed,
    Spoilt,
}

/// One way to lose power.
pub struct Cut {
    /// The number of the last write that has left something, for people.
    pub write: usize,
    /// Some sector has neither its old content nor its new.
    pub spoilt: bool,
    /// Of the sectors of [`Recording::touched`], in that order.
    pub content: Vec<u8>,
}

/// The time between two flushes.
pub struct Stage {
    /// What is on disk for certain: content of the sectors of [`Recording::touched`].
    pub durable: Vec<u8>,
    /// Each ends in another mixture of sectors that landed. Some are alike in content.
    pub cuts: Vec<Cut>,
}

/// One sector of one write.
struct Unit<'a> {
    write: usize,
    sector: u64,
    bytes: &'a [u8],
}

impl Recording {
    /// How many writes there were.
    pub fn writes(&self) -> usize {
        self.epochs.iter().map(Vec::len).sum()
    }

    /// The same writes to a drive that was never asked to flush.
    pub fn without_flushes(self) -> Recording {
        Recording { epochs: vec![self.epochs.concat()], flushes: 0, ..self }
    }

    /// Every sector that was written, in order of place.
    pub fn touched(&self) -> Vec<u64> {
        let all: BTreeSet<u64> = self.epochs.iter().flat_map(|epoch| units(epoch)).map(|unit| unit.sector).collect();
        all.into_iter().collect()
    }

    /// Every power cut that is tried, in order of time. The last stage was not flushed when the act was over.
    /// Input: which sectors, by what is written, may be spoilt. No file system survives the loss of one of its own.
    pub fn stages(&self, may_be_spoilt: fn(&[u8]) -> bool) -> Vec<Stage> {
        let touched = self.touched();
        let place = |sector: u64| touched.binary_search(&sector).unwrap() * SECTOR;
        let base = |sector: &u64| &self.base[*sector as usize * SECTOR..][..SECTOR];
        let mut durable: Vec<u8> = touched.iter().flat_map(base).copied().collect();
        let mut stages = Vec::new();
        let mut before = 0;
        for epoch in &self.epochs {
            let units = units(epoch);
            let spoilable = units.iter().map(|unit| may_be_spoilt(unit.bytes)).collect();
            let mut cuts = Vec::new();
            for fates in fates(&units, epoch.len(), spoilable) {
                let mut content = durable.clone();
                for (unit, fate) in units.iter().zip(&fates) {
                    match fate {
                        Fate::Lost => {}
                        Fate::Landed => content[place(unit.sector)..][..SECTOR].copy_from_slice(unit.bytes),
                        Fate::Spoilt => content[place(unit.sector)..][..SECTOR].fill(SPOILT),
                    }
                }
                let last = fates.iter().rposition(|fate| *fate != Fate::Lost).map_or(0, |n| units[n].write + 1);
                cuts.push(Cut { write: before + last, spoilt: fates.contains(&Fate::Spoilt), content });
            }
            let mut next = durable.clone();
            for unit in &units {
                next[place(unit.sector)..][..SECTOR].copy_from_slice(unit.bytes);
            }
            stages.push(Stage { durable: std::mem::replace(&mut durable, next), cuts });
            before += epoch.len();
        }
        stages
    }
}

fn units(epoch: &[Write]) -> Vec<Unit<'_>> {
    let mut units = Vec::new();
    for (write, request) in epoch.iter().enumerate() {
        let sectors = request.bytes.chunks_exact(SECTOR).zip(request.sector..);
        units.extend(sectors.map(|(bytes, sector)| Unit { write, sector, bytes }));
    }
    units
}

/// What may become of the sectors that were not flushed. Every prefix of the writes; with it the next one torn at each
/// sector, either part of it; any one of them lost and the later ones landed; every subset, of the writes and of the
/// sectors, where there are few enough. Then those that may be spoilt: each, and all at once.
fn fates(units: &[Unit], writes: usize, spoilable: Vec<bool>) -> BTreeSet<Vec<Fate>> {
    let mut all = BTreeSet::new();
    let mut add = |landed: &dyn Fn(usize) -> bool| {
        let fate = |n| if landed(n) { Fate::Landed } else { Fate::Lost };
        all.insert((0..units.len()).map(fate).collect::<Vec<_>>())
    };
    let write = |n: usize| units[n].write;
    for k in 0..=writes {
        add(&|n| write(n) < k);
        for lost in 0..k {
            add(&|n| write(n) < k && write(n) != lost);
        }
    }
    for torn in 0..units.len() {
        add(&|n| n < torn);
        add(&|n| write(n) < write(torn) || write(n) == write(torn) && n > torn);
    }
    if writes <= ALL_SUBSETS_OF_WRITES {
        (0..1u32 << writes).for_each(|set| _ = add(&|n| set >> write(n) & 1 == 1));
    }
    if units.len() <= ALL_SUBSETS_OF_SECTORS {
        (0..1u32 << units.len()).for_each(|set| _ = add(&|n| set >> n & 1 == 1));
    }
    let landed: Vec<Vec<Fate>> = all.iter().cloned().collect();
    for fates in landed {
        let spoil = |which: &dyn Fn(usize) -> bool| {
            let fate = |(n, fate): (usize, &Fate)| if spoilable[n] && which(n) { Fate::Spoilt } else { *fate };
            fates.iter().enumerate().map(fate).collect::<Vec<_>>()
        };
        (0..units.len()).for_each(|one| _ = all.insert(spoil(&|n| n == one)));
        all.insert(spoil(&|_| true));
    }
    all
}
