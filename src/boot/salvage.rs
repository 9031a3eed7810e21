//! What can still be read of two copies of the environment block, and the sound block made of it. Pure.
//!
//! GRUB's own reading ([`Block::decode_lenient`]) lets one bad line hide the next variable; here each line is read on its own.
//! Must never: end without a block in which a trial can be activated, or leave something out without reporting it.

use super::block::{
    ACTIVE_SLOT, BOOT_SUCCESS, Block, LIVE, Line, PADDING, ROLLBACK_FROM, SIGNATURE, chomped, is_live, line_end,
    unescaped, until_nul,
};
use super::damage::shown;
use super::vars::BootVars;
use crate::base::text::printable;
use crate::slot::record::Slot;

/// Longest shown part of an omitted piece, in bytes.
const SHOWN_BYTES: usize = 40;
/// Most pieces that are named; the rest are counted.
const NAMED: usize = 8;
/// The copies.
const FILES: [&str; 2] = ["grubenv", "grubenv.bak"];
/// What some editors write in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The block that both copies should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// It can be encoded, and a trial can be activated in it.
    pub block: Block,
    /// Content of the copies that is not in it.
    pub left_out: Vec<String>,
    /// Other lines in it that were read from a damaged copy.
    pub kept: Vec<String>,
}

/// What is known apart from the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The running slot, if the kernel's command line names it.
    pub running: Option<Slot>,
    /// The active slot if nothing else names one.
    pub proven: Slot,
    /// The slot on trial, according to the state.
    pub on_trial: Option<Slot>,
    /// The slot that was left, according to the state, and runs until the restart.
    pub left: Option<Slot>,
}

/// Content of one copy.
#[derive(Default)]
struct Reading {
    /// It is sound with valid values: GRUB acts on it, and nothing is guessed.
    is_good: bool,
    /// It begins like GRUB's file.
    is_signed: bool,
    block: Block,
    left_out: Vec<String>,
}

/// Makes a sound block of two copies, whatever they hold.
///
/// The boot variables are those of the first good copy. If neither is good, they are what can be read, made safe: the running
/// slot is active, since it boots, unless it was left, or the copies and the state say that the other is on trial; it is on
/// trial if the copies say so, or the state where they do not; else confirmed. Other lines are those of the copy in which a
/// trial can be activated, as far as they fit; if neither is good, of the one that begins like GRUB's file, and only what a
/// person may have written: see `is_plain`.
/// Input: both copies as they were read, main first, empty if missing.
pub fn mend(copies: [&[u8]; 2], known: Known) -> Mended {
    let readings = copies.map(Reading::of);
    let is_whole = |reading: &Reading| BootVars::read_whole(&reading.block).is_ok();
    let good = readings.iter().find(|reading| reading.is_good);
    let mut block = live_of(&readings, good.or(readings.iter().find(|reading| is_whole(reading))));
    let mut left_out = Vec::new();
    match good {
        Some(_) => block.complete(),
        None => left_out = make_safe(&mut block, known),
    }
    let rank =
        |reading: &Reading| (reading.is_good, is_whole(reading), reading.is_signed, reading.block.takes_a_trial());
    let [main, backup] = &readings;
    let best = if rank(backup) > rank(main) { backup } else { main };
    left_out.extend_from_slice(&best.left_out);
    let mut kept = Vec::new();
    for line in best.block.lines.iter().filter(|line| !line.is_live()) {
        block.lines.push(line.clone());
        if !block.takes_a_trial() {
            block.lines.pop();
            left_out.push(line.describe());
        } else if !best.is_good {
            kept.push(line.describe());
        }
    }
    // Of two good copies that differ, the other also has lines to lose; likewise if neither is good.
    for (reading, file) in readings.iter().zip(FILES).filter(|(reading, _)| reading.is_good || !best.is_good) {
        let lost = reading.block.lines.iter().filter(|line| !line.is_live() && !block.lines.contains(line));
        let mut lost: Vec<String> = lost.map(Line::describe).chain(reading.left_out.iter().cloned()).collect();
        lost.retain(|what| !left_out.iter().any(|said| text_of(said) == text_of(what)));
        match reading.is_signed || std::ptr::eq(reading, best) {
            false if !lost.is_empty() => left_out.push(format!("all of {file}, which is not an environment block")),
            _ => left_out.extend(lost),
        }
    }
    Mended { block, left_out: first_of(left_out), kept: first_of(kept) }
}

/// Text of a piece without its line number, so that a line in both copies is reported once.
fn text_of(piece: &str) -> &str {
    piece.split_once(" (").map_or(piece, |(_, text)| text)
}

/// Replaces all but the first pieces by their number.
fn first_of(mut pieces: Vec<String>) -> Vec<String> {
    if let Some(more) = pieces.len().checked_sub(NAMED + 1) {
        pieces.truncate(NAMED);
        pieces.push(format!("{} more", more + 1));
    }
    pieces
}

/// Takes the boot variables of one copy; if neither has all that GRUB needs, each from the first that has it.
fn live_of(readings: &[Reading; 2], from: Option<&Reading>) -> Block {
    let mut block = Block::default();
    for name in LIVE {
        let value = match from {
            Some(reading) => reading.block.get(name),
            None => readings.iter().find_map(|reading| reading.block.get(name)),
        };
        if let Some(value) = value {
            block.put(name.as_bytes(), value);
        }
    }
    block
}

/// Makes the readable values safe to boot by. Returns: what is dropped.
fn make_safe(block: &mut Block, known: Known) -> Vec<String> {
    let slot_in = |name| block.get(name).and_then(|value| Slot::parse(std::str::from_utf8(value).ok()?));
    let (said, mark) = (slot_in(ACTIVE_SLOT), slot_in(ROLLBACK_FROM));
    let success = block.get(BOOT_SUCCESS).map(<[u8]>::to_vec);
    let (is_trial, is_confirmed) = (success.as_deref() == Some(b"0"), success.as_deref() == Some(b"1"));
    let mut is_left = false;
    let running = known.running.map(|running| {
        let other = running.other();
        is_left = said != Some(running) && (mark == Some(running) || known.left == Some(running));
        // Copies and state agree, so this is not a guess: that slot waits for its first boot, or its next. (The name of the
        // slot may be the very part that is unreadable.)
        let waits = said != Some(running) && is_trial && mark.is_none() && known.on_trial == Some(other);
        if is_left || waits { other } else { running }
    });
    let active = running.or(said).unwrap_or(known.proven);
    let other = active.other();
    // A repair does not confirm a slot on trial, according to what can be read or else the state. For a slot that was returned
    // to, and of which nothing can be read, this is unknown.
    let on_trial = match said == Some(active) && (is_trial || is_confirmed) {
        true => is_trial,
        false => is_left || known.on_trial == Some(active),
    };
    let mut left_out = Vec::new();
    if said == Some(other) {
        left_out.push(match is_trial {
            true => format!("the trial of slot {other}"),
            false => format!("`{ACTIVE_SLOT}={other}`"),
        });
    }
    if said.is_none() && mark.is_none() && known.on_trial == Some(other) {
        left_out.push(format!("the trial of slot {other}, of which the state tells"));
    }
    // Otherwise kept: the next run records the rollback.
    if let Some(gave_up) = mark.filter(|mark| *mark == active || said == Some(other)) {
        left_out.push(format!("`{ROLLBACK_FROM}={gave_up}`"));
        block.clear_rollback();
    }
    match (on_trial, said == Some(active)) {
        (true, true) => block.put(BOOT_SUCCESS.as_bytes(), b"0"),
        (true, false) => block.activate(active),
        (false, _) => block.back_to_confirmed(active),
    }
    for (name, value) in Block::fresh(active).variables() {
        if block.value(name).is_none() {
            block.put(name, value);
        }
    }
    left_out
}

impl Reading {
    fn of(bytes: &[u8]) -> Reading {
        match Block::decode(bytes) {
            Ok(block) if BootVars::read_whole(&block).is_ok() => {
                Reading { is_good: true, is_signed: true, block, left_out: Vec::new() }
            }
            _ => Reading::salvage(bytes),
        }
    }

    fn salvage(bytes: &[u8]) -> Reading {
        let mut reading = Reading { is_signed: bytes.starts_with(chomped(SIGNATURE)), ..Reading::default() };
        let (mut rest, mut number) = (bytes, 1);
        while !rest.is_empty() {
            let end = line_end(rest);
            let (raw, tail) = rest.split_at(end.unwrap_or(rest.len()));
            reading.take(raw, number, end.is_some());
            number += raw.iter().filter(|b| **b == b'\n').count();
            rest = tail;
        }
        reading
    }

    /// Takes over a line. One that ends with the padding, not with a newline, ends where the padding begins.
    fn take(&mut self, raw: &[u8], number: usize, is_ended: bool) {
        let mut line = chomped(raw);
        while let ([rest @ .., last], false) = (line, is_ended)
            && is_padding(last)
        {
            line = rest;
        }
        line = line.strip_suffix(b"\r").unwrap_or(line);
        line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        if line.iter().all(is_padding) || line.starts_with(chomped(SIGNATURE)) {
            return;
        }
        let leave_out = |reading: &mut Reading| reading.left_out.push(format!("line {number} (`{}`)", brief(line)));
        if line.first() == Some(&PADDING) {
            return match (number, is_ended) {
                // What remains of the signature.
                (1, _) => {}
                (_, true) if is_plain(line) => self.block.push(Line::Comment([line, b"\n"].concat())),
                _ => leave_out(self),
            };
        }
        let Some(at) = line.iter().position(|b| *b == b'=') else { return leave_out(self) };
        let (name, value) = line.split_at(at);
        // An escaped newline in a name: the part before it belongs to nothing.
        let name = match name.iter().rposition(|b| *b == b'\n') {
            Some(end) => {
                self.left_out.push(format!("line {number} (`{}`)", brief(&name[..end])));
                &name[end + 1..]
            }
            None => name,
        };
        let name = if is_live(name.trim_ascii()) { name.trim_ascii() } else { name };
        let mut value = unescaped(until_nul(value.strip_prefix(b"=").unwrap_or_default()));
        while value.last() == Some(&b'\r') {
            value.pop();
        }
        if is_live(name) {
            value.retain(|b| !b.is_ascii_whitespace());
        }
        let mut alone = Block::default();
        alone.put(name, &value);
        if !is_name(name) || !is_plain(&value) || !alone.takes_lines() || BootVars::read(&alone).is_err() {
            return leave_out(self);
        }
        if self.block.value(name).is_some() {
            self.left_out.push(format!("an earlier `{}`", brief(name)));
        }
        self.block.put(name, &value);
    }
}

impl Block {
    /// Returns whether a trial can be activated in this block, and ended by GRUB.
    pub fn takes_a_trial(&self) -> bool {
        let mut trial = self.clone();
        trial.activate(Slot::A);
        trial.encode().is_ok() && self.encode().is_ok()
    }

    /// Returns whether its lines read back unchanged, boot variables or not.
    fn takes_lines(&self) -> bool {
        self.encode().is_ok_and(|bytes| Block::decode(&bytes).as_ref() == Ok(self))
    }
}

impl Line {
    fn is_live(&self) -> bool {
        matches!(self, Line::Variable(name, _) if is_live(name))
    }

    fn describe(&self) -> String {
        match self {
            Line::Comment(text) => {
                let start = text.iter().position(|b| !is_padding(b)).unwrap_or_default();
                format!("`# {}`", brief(chomped(text.get(start..).unwrap_or_default())))
            }
            Line::Variable(name, _) => format!("`{}`", brief(name)),
        }
    }
}

/// Padding, or what replaces it: an editor's blanks and line ends, zeros, erased flash.
fn is_padding(b: &u8) -> bool {
    matches!(*b, PADDING | 0 | b' ' | b'\t' | b'\r' | b'\n' | 0xff)
}

/// Returns whether a name is valid in GRUB's own language.
/// Source: GRUB manual, "Shell-like scripting" (a name is letters, digits and underscores).
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// Returns whether a person may have written a text: random bytes may also contain `=` or `#`, and would reach a terminal.
fn is_plain(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| printable(text) == text.replace('\t', " "))
}

fn brief(bytes: &[u8]) -> String {
    shown(&bytes[..bytes.len().min(SHOWN_BYTES)])
}
