//! What the running slot has of a file that is to be fetched: the file or a layer of it, by digest; parts of a layer, by its
//! chunk index. The slot is only read, and its content is not trusted: the digest of the whole file decides.
//!
//! Must never: write to the running slot, or let a fault of an index or of that slot cost more than fetching everything.

use crate::base::error::{Error, Result};
use crate::chunks::cut::{Chunk, Rule};
use crate::chunks::index::{INDEX_MAX_BYTES, Index, MAX_CHUNKS};
use crate::chunks::plan::{Found, Piece, Search, join, push, to_fetch};
use crate::disk::mount::Mounted;
use crate::ledger::traffic::Traffic;
use crate::machine::Machine;
use crate::machine::view::View;
use crate::offer::artifact::{Artifact, FileRef};
use crate::os::progress::{Progress, aside, setback};
use crate::slot::record::{FileRecord, INITRAMFS, KERNEL, Record, Slot};
use crate::source::{Source, read_small};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;

/// The running slot, mounted for reading as long as this lives.
pub struct AtHand<'a> {
    slot: Slot,
    record: &'a Record,
    mounted: Mounted,
}

/// Where the chunks of a layer are.
struct Looked {
    /// Number of the layer.
    layer: usize,
    /// Numbers of its chunks among those of its rule.
    numbers: Range<usize>,
    found: Rc<Found>,
}

/// Predicts the traffic of an update. Reads the chunk indexes, and the running slot.
pub fn predict(at_hand: Option<&AtHand<'_>>, artifact: &Artifact, source: &mut dyn Source) -> Traffic {
    let mut traffic = Traffic::default();
    for (name, file) in [(KERNEL, &artifact.kernel), (INITRAMFS, &artifact.initramfs)] {
        let fetched_bytes = to_fetch(&plan(at_hand, name, file, source));
        traffic.add(Traffic { fetched_bytes, copied_bytes: file.size_bytes.saturating_sub(fetched_bytes) });
    }
    traffic
}

/// Divides a file into pieces that are at hand and pieces to fetch.
pub fn plan(at_hand: Option<&AtHand<'_>>, name: &'static str, file: &FileRef, source: &mut dyn Source) -> Vec<Piece> {
    match at_hand {
        Some(at_hand) => at_hand.plan(name, file, source),
        None => vec![Piece { at: 0, length: file.size_bytes, found: None }],
    }
}

impl<'a> AtHand<'a> {
    /// Opens the running slot. Returns: `None`: it cannot be read, or has no record; then everything is fetched.
    pub fn look(machine: &Machine<'_>, running: &'a View) -> Option<AtHand<'a>> {
        let record = running.record.as_ref().ok()?;
        let (slot, fail) = (running.slot, |e: &Error| setback(e, "everything is fetched"));
        let mounted = machine.mount_to_read(slot).inspect_err(fail).ok()?;
        Some(AtHand { slot, record, mounted })
    }

    /// Opens one of the slot's files.
    /// Errors: not there, or not a regular file.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.mounted.dir().join(name))?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("not a regular file")),
        }
    }

    fn plan(&self, name: &'static str, file: &FileRef, source: &mut dyn Source) -> Vec<Piece> {
        let files = self.record.files();
        let own = files.iter().find(|(own, _)| *own == name).map(|(_, record)| *record);
        let known = own.map_or_else(Vec::new, |own| self.known(name, own));
        let whole = find(&known, file);
        let blobs = if whole.is_some() { vec![file.clone()] } else { file.blobs() };
        let at_hand: Vec<Option<u64>> = blobs.iter().map(|blob| find(&known, blob)).collect();
        let mut indexes = Vec::new();
        let mut left = MAX_CHUNKS;
        for (number, blob) in blobs.iter().enumerate().filter(|(number, _)| at_hand[*number].is_none()) {
            let Some(chunks) = &blob.chunks else { continue };
            match index_of(blob, chunks, source) {
                Ok(index) if index.chunks.len() <= left => {
                    left -= index.chunks.len();
                    indexes.push((number, index));
                }
                Ok(_) => aside(&format!("{name}: its layers have more than {MAX_CHUNKS} chunks; the rest is fetched")),
                Err(e) => setback(&e, &format!("{name}: that layer is fetched whole")),
            }
        }
        let looked = self.look_for(name, indexes);
        let mut pieces = Vec::new();
        for (number, (blob, at)) in blobs.iter().zip(at_hand).enumerate() {
            match looked.iter().find(|one| one.layer == number) {
                Some(one) => one.found.push_to(&mut pieces, one.numbers.clone()),
                None => push(&mut pieces, blob.size_bytes, at),
            }
        }
        drop(looked);
        join(pieces)
    }

    /// Looks for the chunks of all indexes, once for each rule. Input: `indexes`: each with the number of its layer.
    /// Returns: nothing of an index whose file cannot be read.
    fn look_for(&self, name: &'static str, mut indexes: Vec<(usize, Index)>) -> Vec<Looked> {
        let mut looked = Vec::new();
        while let Some(rule) = indexes.first().map(|(_, index)| index.rule) {
            let (mut layers, mut wanted) = (Vec::new(), Vec::new());
            indexes.retain_mut(|(layer, index)| {
                if index.rule == rule {
                    let begin = wanted.len();
                    match begin {
                        // Not copied, where it is the only one: it may be long.
                        0 => wanted = std::mem::take(&mut index.chunks),
                        _ => wanted.append(&mut index.chunks),
                    }
                    layers.push((*layer, begin..wanted.len()));
                }
                index.rule != rule
            });
            let Some(found) = self.search(name, rule, wanted).map(Rc::new) else { break };
            looked.extend(layers.into_iter().map(|(layer, numbers)| Looked { layer, numbers, found: found.clone() }));
        }
        looked
    }

    /// Lists what the record knows of a file: itself, and its layers, each with its offset.
    fn known(&self, name: &str, own: &'a FileRecord) -> Vec<(u64, &'a FileRecord)> {
        let mut known = vec![(0, own)];
        let layers = self.record.layers.iter().filter(|_| name == INITRAMFS);
        let mut at = 0u64;
        for layer in layers {
            known.push((at, layer));
            at = at.saturating_add(layer.size_bytes);
        }
        known.retain(|(at, one)| at.saturating_add(one.size_bytes) <= own.size_bytes);
        known
    }

    /// Looks for chunks in one of the slot's files. Returns: `None`: it cannot be read.
    fn search(&self, name: &'static str, rule: Rule, wanted: Vec<Chunk>) -> Option<Found> {
        let look = || -> io::Result<Found> {
            let mut file = self.open(name)?;
            let looking = Progress::of(&format!("comparing with slot {}", self.slot), file.metadata()?.len());
            Search::new(wanted).look_through(&mut file, rule, &mut |bytes| looking.add(bytes))
        };
        look().inspect_err(|e| aside(&format!("slot {}: {name}: {e}; all of it is fetched", self.slot))).ok()
    }
}

/// Returns where a file or blob lies, by its digest.
fn find(known: &[(u64, &FileRecord)], file: &FileRef) -> Option<u64> {
    let is_same = |one: &FileRecord| one.sha256 == file.sha256 && one.size_bytes == file.size_bytes;
    known.iter().find(|(_, one)| is_same(one)).map(|(at, _)| *at)
}

/// Returns what is wrong with the chunk index of a layer, if it has one.
pub fn fault_of_index(layer: &FileRef, source: &mut dyn Source) -> Option<Error> {
    index_of(layer, layer.chunks.as_deref()?, source).err()
}

/// Fetches the chunk index of a layer.
/// Errors: it cannot be fetched; Digest: it is not what was named; Source: it is no index of this layer.
fn index_of(layer: &FileRef, chunks: &FileRef, source: &mut dyn Source) -> Result<Index> {
    let read = read_small(source, chunks, INDEX_MAX_BYTES);
    let bytes = read.map_err(|e| e.at("read", format_args!("the chunk index {}", chunks.sha256)))?;
    Index::parse(&bytes, layer.sha256, layer.size_bytes)
}
