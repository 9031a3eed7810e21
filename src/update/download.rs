//! Downloads an artifact into the inactive slot: keeps files that are there, and continues interrupted ones.
//!
//! Must never: delete the old content before the source has proved available.

use crate::base::error::{Course, Kind, Result};
use crate::base::text::{human_size, printable};
use crate::base::time::Moment;
use crate::chunks::plan::{Piece, to_fetch};
use crate::disk::mount::Hold;
use crate::disk::remake;
use crate::ledger::traffic::Traffic;
use crate::machine::ARCHITECTURE;
use crate::machine::view;
use crate::offer::artifact::{Artifact, FileRef};
use crate::offer::gate::DEFAULT_CHANNEL;
use crate::os::progress::bar::Phase as Stretch;
use crate::os::progress::{Progress, aside, note, setback};
use crate::slot::readback;
use crate::slot::record::{FileRecord, INITRAMFS, KERNEL, Record, Slot};
use crate::slot::stage::{self, Part, Step};
use crate::source::Source;
use crate::update::assembly::{Assembly, Opened, Recipe};
use crate::update::reuse::{self, AtHand};
use crate::update::session::Session;
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

/// Where the bytes of an update come from, and how many came.
pub struct Supply<'a> {
    /// The source.
    pub source: &'a mut dyn Source,
    /// The running slot, if it can be read.
    pub at_hand: Option<AtHand<'a>>,
    /// What came so far.
    pub traffic: Cell<Traffic>,
}

/// Stages an artifact; if the slot's file system is damaged, it is created again first.
/// Power cut: see the functions of `stage` and of `remake`; until the slot is unmounted and its journal seen empty, the state
/// says `downloading`.
pub fn stage_all(session: &Session<'_>, supply: &mut Supply<'_>, artifact: &Artifact, hold: &Hold) -> Result<()> {
    // An unavailable source must not cost the slot its old content: the last file is probed first.
    supply.source.probe(&artifact.initramfs)?;
    let part = session.machine.slot_partition(session.target())?;
    let mut staged = stage(session, supply, artifact, hold);
    if let Err(damage) = &staged
        && damage.course() == Course::Damaged
        && part.is_named
    {
        note(&format!("{damage}; the file system of slot {} is made anew", session.target()));
        staged = remake::remake(part, session.now(), hold).and_then(|()| stage(session, supply, artifact, hold));
    }
    staged.map_err(|e| match (e.kind(), e.course()) {
        (Kind::Device, Course::Fault | Course::Damaged) => remake::hint(e, part),
        _ => e,
    })
}

fn stage(session: &Session<'_>, supply: &mut Supply<'_>, artifact: &Artifact, hold: &Hold) -> Result<()> {
    let slot = session.target();
    let record = record_of(artifact);
    let kernel = Part::new(KERNEL, &record.kernel);
    let layers: Vec<u64> = record.layers.iter().map(|layer| layer.size_bytes).collect();
    let initramfs = Part { is_initramfs: true, layers: &layers, ..Part::new(INITRAMFS, &record.initramfs) };
    let mounted = session.machine.mount_target(slot, hold)?;
    let dir = mounted.dir();
    let mut files = [(kernel, &artifact.kernel), (initramfs, &artifact.initramfs)].map(SlotFile::new);
    let mut crcs = look_for_same(dir, slot, &files);
    let wanted: Vec<usize> = (0..files.len()).filter(|n| crcs[*n].is_none()).collect();
    let kept: Vec<&str> = (0..files.len()).filter(|n| crcs[*n].is_some()).map(|n| files[n].part.name).collect();
    for n in &wanted {
        let file = &mut files[*n];
        file.part.is_all_fetched = stage::is_begun_fetched(dir, &file.part);
        let at_hand = supply.at_hand.as_ref().filter(|_| !file.part.is_all_fetched);
        file.pieces = Rc::new(reuse::plan(at_hand, file.part.name, file.file, supply.source));
    }
    let mut first = match wanted.first() {
        Some(n) => Some(files[*n].open(supply, stage::left_over(dir, &files[*n].part))?),
        None => None,
    };
    let parts: Vec<Part<'_>> = wanted.iter().map(|n| files[*n].part.clone()).collect();
    // Unmounted once, so that the record is gone for GRUB too, which does not replay the journal.
    stage::invalidate(dir, &kept, &parts)?;
    mounted.unmount()?;
    view::journal(session.machine.slot_partition(slot)?)?;
    let mounted = session.machine.mount_target(slot, hold)?;
    let dir = mounted.dir();
    let total = parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.expected.size_bytes));
    let to_fetch = wanted.iter().fold(0, |sum: u64, n| sum.saturating_add(to_fetch(&files[*n].pieces)));
    let fetching = Stretch::new("fetching", total).of_which(total.saturating_sub(to_fetch));
    let mut way = Way { progress: Progress::new(vec![fetching, Stretch::new("reading back", total)]), before_bytes: 0 };
    for n in wanted {
        crcs[n] = Some(fetch(dir, &mut files[n], supply, first.take(), &way)?);
        way.before_bytes += files[n].part.expected.size_bytes;
    }
    drop(way);
    stage::finish(dir, &record, crcs.map(Option::unwrap_or_default))?;
    mounted.unmount()?;
    view::journal(session.machine.slot_partition(slot)?)
}

/// Returns what the slot's record will say.
fn record_of(artifact: &Artifact) -> Record {
    Record {
        version: artifact.release.version.clone(),
        architecture: ARCHITECTURE.to_string(),
        channel: artifact.release.channel.clone().unwrap_or_else(|| DEFAULT_CHANNEL.to_string()),
        source: printable(&artifact.source),
        manifest_digest: Some(artifact.digest),
        signed_by: artifact.signed_by.clone(),
        index_digest: artifact.index_digest,
        passed: artifact.passed.clone(),
        // Only a signed release date counts.
        release_date: (artifact.release.release_date.as_deref().filter(|_| !artifact.signed_by.is_empty()))
            .and_then(|date| Moment::parse(date).ok()),
        kernel: file_record(&artifact.kernel),
        initramfs: file_record(&artifact.initramfs),
        layers: artifact.initramfs.layers().iter().map(file_record).collect(),
    }
}

/// A file of an artifact, and its name and expected content in the slot.
struct SlotFile<'a> {
    part: Part<'a>,
    file: &'a FileRef,
    /// Which parts of it are at hand; empty: not planned, since it is there already.
    pieces: Rc<Vec<Piece>>,
}

impl<'a> SlotFile<'a> {
    fn new((part, file): (Part<'a>, &'a FileRef)) -> SlotFile<'a> {
        SlotFile { part, file, pieces: Rc::default() }
    }

    /// Opens it.
    fn open(&self, supply: &mut Supply<'_>, from: u64) -> Result<Opened> {
        let is_used = !self.part.is_all_fetched && self.pieces.iter().any(|piece| piece.found.is_some());
        let at_hand = supply.at_hand.as_ref().filter(|_| is_used);
        let local = at_hand.and_then(|at_hand| at_hand.open(self.part.name).ok());
        Opened::new(supply.source, Recipe { blobs: self.file.blobs(), pieces: self.pieces.clone(), local }, from)
    }
}

/// Progress of all files together.
struct Way {
    progress: Progress,
    /// Bytes of the files before this one.
    before_bytes: u64,
}

/// Finds files that are there already: the same kernel in two versions, or complete files of an interrupted run.
/// Returns: the CRC-32 of each such file.
fn look_for_same(dir: &Path, slot: Slot, files: &[SlotFile<'_>; 2]) -> [Option<u32>; 2] {
    let all_bytes = files.iter().fold(0, |sum: u64, wanted| sum.saturating_add(wanted.file.size_bytes));
    let looking = Progress::of(&format!("looking for the same in slot {slot}"), all_bytes);
    let [kernel, initramfs] = files;
    [kernel, initramfs]
        .map(|wanted| readback::verify(&dir.join(wanted.part.name), wanted.part.expected, &mut |n| looking.add(n)).ok())
}

/// Most times that a file is fetched again because its pieces do not fit together, or a mirror has other content.
const MAX_FRESH_STARTS: u32 = 2;

const AGAIN: &str = "from the start again";

/// Fetches one file, continuing where an earlier run stopped. If the pieces together are not what was published, or the disk
/// does not return what was written, the source is not to blame: the file is then fetched in one piece.
/// Input: `opened`: if it was opened already. Returns: its CRC-32.
fn fetch(
    dir: &Path,
    file: &mut SlotFile<'_>,
    supply: &mut Supply<'_>,
    mut opened: Option<Opened>,
    way: &Way,
) -> Result<u32> {
    let mut fresh_starts = 0;
    loop {
        let part = &file.part;
        let opened = match opened.take() {
            Some(opened) => opened,
            None => file.open(supply, stage::left_over(dir, part))?,
        };
        let (from, copied_before) = (opened.from(), supply.traffic.get().copied_bytes);
        if from > 0 {
            aside(&format!("{}: continuing after {}", part.name, human_size(from)));
        }
        let mut reader = opened.read(supply.source, &supply.traffic);
        let e = match write(dir, part, from, &mut reader, way) {
            Ok(crc32) => return Ok(crc32),
            Err(e) => e,
        };
        let pieced = e.kind() == Kind::Digest && reader.is_pieced();
        let is_copied = supply.traffic.get().copied_bytes > copied_before;
        let is_doubtful = e.kind() == Kind::Digest || (e.kind() == Kind::Device && from > 0);
        if (from > 0 || is_copied) && is_doubtful && stage::left_over(dir, part) == 0 {
            // Either part may be wrong, so no place is blamed: fetching the whole decides.
            match (e.kind(), from) {
                (Kind::Device, _) => setback(&e, AGAIN),
                (_, 0) => aside(&format!(
                    "{}: with what the running slot has it is not what was published; {AGAIN}, all of it fetched",
                    part.name
                )),
                _ => aside(&format!(
                    "{}: with what an earlier run left it is not what was published; {AGAIN}",
                    part.name
                )),
            }
            file.part.is_all_fetched = true;
            continue;
        }
        let elsewhere = e.kind() == Kind::Digest && supply.source.doubt();
        if !(pieced || elsewhere) || fresh_starts == MAX_FRESH_STARTS {
            return Err(e);
        }
        setback(&e, &if elsewhere { [AGAIN, ", at the next place"].concat() } else { AGAIN.to_owned() });
        fresh_starts += 1;
        file.part.is_all_fetched = true;
    }
}

fn write(
    dir: &Path,
    part: &Part<'_>,
    from: u64,
    body: &mut Assembly<'_>,
    Way { progress, before_bytes }: &Way,
) -> Result<u32> {
    let before_bytes = *before_bytes;
    let traffic = body.traffic();
    let mut copied_bytes = traffic.get().copied_bytes;
    progress.start(0, part.name, before_bytes);
    let mut is_back = false;
    stage::write(dir, part, from, body, &mut |step| match step {
        Step::Found(n) => progress.found(n),
        Step::Written(n) => {
            let copied = traffic.get().copied_bytes;
            match copied > copied_bytes {
                true => progress.copied(n),
                false => progress.add(n),
            }
            copied_bytes = copied;
        }
        Step::ReadBack(n) => {
            if !is_back {
                progress.start(1, "", before_bytes);
                is_back = true;
            }
            progress.add(n);
        }
    })
}

fn file_record(file: &FileRef) -> FileRecord {
    FileRecord { size_bytes: file.size_bytes, sha256: file.sha256 }
}
