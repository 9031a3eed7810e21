//! GRUB's environment block: bytes in, boot variables out, and back. Pure.
//!
//! Strict on purpose: GRUB loads and saves damaged blocks differently (of a duplicate, the first is edited and the last is
//! read, so a boot counter never falls). A comment of nothing but `#` is padding followed by a newline, and counts as padding.
//! Must never: panic on any bytes, lose an unknown variable or comment, or emit a block that this module would itself call
//! damaged.
//!
//! Source: GRUB manual, "The GRUB environment block"; grub-core/lib/envblk.c (read, not copied);
//! measured: grub-editenv 2.06 (tests/pure/grubenv.rs).

use crate::boot::damage::{BLOCK_BYTES, Damage, Refused};

/// A disk writes a sector whole or not at all.
const SECTOR_BYTES: usize = 512;
pub(crate) const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
pub(crate) const PADDING: u8 = b'#';

pub(crate) const ACTIVE_SLOT: &str = "active_slot";
pub(crate) const BOOT_SUCCESS: &str = "boot_success";
pub(crate) const BOOT_COUNTER: &str = "boot_counter";
pub(crate) const ROLLBACK_FROM: &str = "rollback_from";
pub(crate) const BOOT_CANARY: &str = "boot_canary";
/// The variables that decide what boots, in the order in which they are written.
pub(crate) const LIVE: [&str; 5] = [ACTIVE_SLOT, BOOT_SUCCESS, BOOT_COUNTER, ROLLBACK_FROM, BOOT_CANARY];
/// Longest form of the only line that GRUB lengthens.
const ROLLBACK_LINE_BYTES: usize = "rollback_from=A\n".len();

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// With its newline. `grub-editenv create` puts a warning in one.
    Comment(Vec<u8>),
    /// The value without its escapes: strict decoding makes escaping it again exact.
    Variable(Vec<u8>, Vec<u8>),
}

/// Holds the lines of one environment block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub(super) lines: Vec<Line>,
}

impl Block {
    /// Reads a block; accepts only what GRUB loads and saves alike.
    /// Input: exactly 1,024 bytes; names and values need not be UTF-8.
    /// Errors: the first damage found, in the order length, signature, lines, padding.
    pub fn decode(bytes: &[u8]) -> Result<Block, Damage> {
        if bytes.is_empty() {
            return Err(Damage::Empty);
        }
        // An editor that converts line ends also changes the length: report the cause, not its effect.
        if bytes.strip_prefix(&SIGNATURE[..SIGNATURE.len() - 1]).is_some_and(|rest| rest.starts_with(b"\r\n")) {
            return Err(Damage::Crlf(1));
        }
        if bytes.len() != BLOCK_BYTES {
            return Err(Damage::WrongLength(bytes.len() as u64));
        }
        let mut rest = bytes.strip_prefix(SIGNATURE).ok_or(Damage::Signature)?;
        let mut block = Block::default();
        let mut number = 2;
        while let Some(end) = line_end(rest) {
            let (raw, tail) = rest.split_at(end);
            let line = parse_line(raw, number)?;
            if let Line::Variable(name, _) = &line
                && block.value(name).is_some()
            {
                return Err(Damage::Duplicate(name.clone()));
            }
            block.push(line);
            number += raw.iter().filter(|b| **b == b'\n').count();
            rest = tail;
        }
        match rest.iter().position(|b| *b != PADDING) {
            None => Ok(block),
            Some(0) if rest.contains(&b'=') => Err(Damage::Unterminated(number)),
            Some(at) => Err(Damage::Padding(BLOCK_BYTES - rest.len() + at)),
        }
    }

    /// Reads a damaged block as GRUB's `load_env` does: any length, the last duplicate wins, an unterminated line is dropped.
    /// For repair see [`crate::boot::salvage::mend`].
    /// Input: any bytes.   Returns: `None` where GRUB says "invalid environment block".
    pub fn decode_lenient(bytes: &[u8]) -> Option<Block> {
        let mut rest = bytes.strip_prefix(SIGNATURE).filter(|rest| !rest.is_empty())?;
        let mut block = Block::default();
        loop {
            let is_comment = rest.first() == Some(&PADDING);
            // GRUB looks for `=` first, over any number of lines, and only then for the line's end.
            let value_at = if is_comment { Some(0) } else { rest.iter().position(|b| *b == b'=').map(|at| at + 1) };
            let Some((name, tail)) = value_at.map(|at| rest.split_at(at)) else { return Some(block) };
            let Some((value, tail)) = line_end(tail).map(|end| tail.split_at(end)) else { return Some(block) };
            match (is_comment, name.strip_suffix(b"=")) {
                (false, Some(name)) => block.put(until_nul(name), until_nul(&unescaped(chomped(value)))),
                _ => block.push(Line::Comment(value.to_vec())),
            }
            rest = tail;
        }
    }

    /// Writes the block: signature, boot variables in fixed order, all other lines in their order, `#`.
    /// Errors: `FirstSector`, `NoRoom`: see there; while a trial is pending, also when GRUB could not fill `rollback_from`.
    /// `Damaged`: a lenient reading took over a line that a block cannot hold.
    /// Power cut: none of its own; boot variables stay at the same bytes of the first sector.
    pub fn encode(&self) -> Result<[u8; BLOCK_BYTES], Refused> {
        let mut out = SIGNATURE.to_vec();
        let mut growth = ROLLBACK_LINE_BYTES;
        for name in LIVE {
            let before = out.len();
            if let Some(value) = self.get(name) {
                write_variable(&mut out, name.as_bytes(), value);
            }
            if name == ROLLBACK_FROM {
                growth = growth.saturating_sub(out.len() - before);
            }
        }
        // Only a trial can end in a rollback. Otherwise a full block is fine: edits keep its length.
        let reserve = if self.get(BOOT_SUCCESS) == Some(b"0") { growth } else { 0 };
        if let Some(over) = (out.len() + reserve).checked_sub(SECTOR_BYTES + 1) {
            return Err(Refused::FirstSector(over + 1));
        }
        for line in &self.lines {
            match line {
                Line::Comment(raw) => out.extend_from_slice(raw),
                Line::Variable(name, value) if !is_live(name) => write_variable(&mut out, name, value),
                Line::Variable(..) => {}
            }
        }
        if let Some(over) = (out.len() + reserve).checked_sub(BLOCK_BYTES + 1) {
            return Err(Refused::NoRoom(over + 1));
        }
        let mut block = [PADDING; BLOCK_BYTES];
        for (to, from) in block.iter_mut().zip(out) {
            *to = from;
        }
        Block::decode(&block).map_err(Refused::Damaged)?;
        Ok(block)
    }

    /// Returns the value of a variable, without escapes.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.value(name.as_bytes())
    }

    /// Lists names and values in the order in which they were read.
    pub fn variables(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().filter_map(|line| match line {
            Line::Variable(name, value) => Some((name.as_slice(), value.as_slice())),
            Line::Comment(_) => None,
        })
    }

    /// Sets a variable, in its place if it exists, else after all others.
    /// Errors: `Name`, `Value`: GRUB, or this module, would not read it back as given.
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Refused> {
        if name.is_empty() || name.starts_with('#') || name.contains(['=', '\n', '\0', '\\']) {
            return Err(Refused::Name(name.to_string()));
        }
        if value.contains(&0) || value.ends_with(b"\r") {
            return Err(Refused::Value(name.to_string()));
        }
        self.put(name.as_bytes(), value);
        Ok(())
    }

    /// Removes a variable, if it exists.
    pub fn remove(&mut self, name: &str) {
        self.lines.retain(|line| !matches!(line, Line::Variable(n, _) if n == name.as_bytes()));
    }

    /// Adds a line, unless it is padding.
    pub(crate) fn push(&mut self, line: Line) {
        match &line {
            Line::Comment(raw) if chomped(raw).iter().all(|b| *b == PADDING) => {}
            _ => self.lines.push(line),
        }
    }

    pub(crate) fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.variables().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    pub(crate) fn put(&mut self, name: &[u8], new: &[u8]) {
        for line in &mut self.lines {
            match line {
                Line::Variable(n, value) if n == name => return *value = new.to_vec(),
                _ => {}
            }
        }
        self.lines.push(Line::Variable(name.to_vec(), new.to_vec()));
    }
}

/// Returns whether GRUB, which edits a block in place, can write a slot's name into `rollback_from`.
/// Input: the bytes of a block that [`Block::decode`] takes.
pub fn has_room_for_rollback(bytes: &[u8], block: &Block) -> bool {
    let taken = block.get(ROLLBACK_FROM).map_or(0, |value| ROLLBACK_FROM.len() + "=\n".len() + value.len());
    bytes.iter().rev().take_while(|b| **b == PADDING).count() >= ROLLBACK_LINE_BYTES.saturating_sub(taken)
}

pub(crate) fn is_live(name: &[u8]) -> bool {
    LIVE.iter().any(|live| live.as_bytes() == name)
}

/// Finds where a line ends: after the first newline that no backslash escapes.
pub(crate) fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut escaped = false;
    bytes
        .iter()
        .position(|b| {
            let ends = *b == b'\n' && !escaped;
            escaped = *b == b'\\' && !escaped;
            ends
        })
        .map(|at| at + 1)
}

fn parse_line(raw: &[u8], number: usize) -> Result<Line, Damage> {
    let line = chomped(raw);
    if line.ends_with(b"\r") {
        return Err(Damage::Crlf(number));
    }
    if line.contains(&0) {
        return Err(Damage::Nul(number));
    }
    if line.first() == Some(&PADDING) {
        return Ok(Line::Comment(raw.to_vec()));
    }
    let mut parts = line.splitn(2, |b| *b == b'=');
    let (Some(name), Some(value)) = (parts.next(), parts.next()) else { return Err(Damage::NoEquals(number)) };
    if name.contains(&b'\n') {
        return Err(Damage::NoEquals(number));
    }
    let value_plain = unescaped(value);
    let mut again = Vec::with_capacity(value.len());
    escape(&mut again, &value_plain);
    if again != value {
        return Err(Damage::BadEscape(number));
    }
    Ok(Line::Variable(name.to_vec(), value_plain))
}

pub(crate) fn chomped(raw: &[u8]) -> &[u8] {
    raw.strip_suffix(b"\n").unwrap_or(raw)
}

pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// Removes escapes as GRUB does: a backslash is dropped, the character after it is kept.
pub(crate) fn unescaped(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(b) = bytes.next() {
        out.extend(if *b == b'\\' { bytes.next() } else { Some(b) });
    }
    out
}

fn escape(out: &mut Vec<u8>, value: &[u8]) {
    for b in value {
        if matches!(b, b'\\' | b'\n') {
            out.push(b'\\');
        }
        out.push(*b);
    }
}

fn write_variable(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.push(b'=');
    escape(out, value);
    out.push(b'\n');
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
