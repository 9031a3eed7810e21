//! The boot variables of an environment block: typed reading, and the edits that the agent makes. Pure.
//!
//! Must never: guess at an invalid value, or change a variable that GRUB owns.

use super::block::{ACTIVE_SLOT, BOOT_CANARY, BOOT_COUNTER, BOOT_SUCCESS, Block, ROLLBACK_FROM};
use super::damage::shown;
use crate::base::error::{Error, Kind};
use crate::slot::record::Slot;
use std::fmt;

/// Names a boot variable whose value is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Senseless {
    name: &'static str,
    value: Option<String>,
}

impl fmt::Display for Senseless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = match self.name {
            ACTIVE_SLOT => "A or B",
            BOOT_COUNTER => "0 to 3",
            ROLLBACK_FROM => "A, B or nothing",
            _ => "0 or 1",
        };
        match &self.value {
            Some(value) => write!(f, "`{}={value}` makes no sense (expected {expected})", self.name),
            None => write!(f, "`{}` is not set (expected {expected})", self.name),
        }
    }
}

impl From<Senseless> for Error {
    fn from(senseless: Senseless) -> Error {
        Error::new(Kind::Boot, senseless.to_string())
    }
}

/// Variables that GRUB decides by. `None` if the block has no such variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootVars {
    /// The slot that boots next.
    pub active_slot: Option<Slot>,
    /// `Some(false)`: a trial is pending.
    pub boot_success: Option<bool>,
    /// Trial boots left, 0 to 3.
    pub boot_counter: Option<u8>,
    /// The slot that GRUB gave up on, until the agent has recorded it.
    pub rollback_from: Option<Slot>,
    /// GRUB has proven that it can write.
    pub boot_canary: bool,
}

impl BootVars {
    /// Reads the boot variables of a block.
    /// Errors: the first variable whose value is not in the table (DESIGN section 4).
    pub fn read(block: &Block) -> Result<BootVars, Senseless> {
        Ok(BootVars {
            active_slot: field(block, ACTIVE_SLOT, Slot::parse)?,
            boot_success: field(block, BOOT_SUCCESS, flag)?,
            boot_counter: field(block, BOOT_COUNTER, counter)?,
            rollback_from: field(block, ROLLBACK_FROM, |v| {
                if v.is_empty() { Some(None) } else { Slot::parse(v).map(Some) }
            })?
            .flatten(),
            boot_canary: field(block, BOOT_CANARY, flag)?.unwrap_or(false),
        })
    }

    /// Reads them if GRUB would act on this block: the three that it decides by must be set.
    /// Errors: as [`BootVars::read`]; a variable that is not set.
    pub fn read_whole(block: &Block) -> Result<BootVars, Senseless> {
        match [ACTIVE_SLOT, BOOT_SUCCESS, BOOT_COUNTER].into_iter().find(|name| block.get(name).is_none()) {
            Some(name) => Err(Senseless { name, value: None }),
            None => BootVars::read(block),
        }
    }
}

fn field<T>(block: &Block, name: &'static str, read: fn(&str) -> Option<T>) -> Result<Option<T>, Senseless> {
    let Some(value) = block.get(name) else { return Ok(None) };
    match std::str::from_utf8(value).ok().and_then(read) {
        None => Err(Senseless { name, value: Some(shown(value)) }),
        known => Ok(known),
    }
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn counter(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [digit @ b'0'..=b'3'] => Some(digit - b'0'),
        _ => None,
    }
}

impl Block {
    /// Makes the initial block of an image.
    ///
    /// `boot_success=1`: there is no trial, the operator chose the image by writing it, and the other slot may be empty.
    /// `boot_counter=3`: nothing reads it then; should a foreign tool clear `boot_success`, three boots of the slot that holds
    /// a system are better than switching to the other at once. `boot_canary=0`: GRUB has yet to prove that it can write here.
    pub fn fresh(active: Slot) -> Block {
        let mut block = Block::default();
        block.activate(active);
        block.put(BOOT_SUCCESS.as_bytes(), b"1");
        block
    }

    /// Puts a slot on trial: the next boots are counted.
    pub fn activate(&mut self, slot: Slot) {
        self.put(ACTIVE_SLOT.as_bytes(), slot.name().as_bytes());
        self.put(BOOT_SUCCESS.as_bytes(), b"0");
        self.put(BOOT_COUNTER.as_bytes(), b"3");
        self.complete();
    }

    /// Ends the trial: the running slot is healthy.
    ///
    /// `boot_counter` stays: section 4 gives it one writer in the agent, activation, which sets it before it is next read; the
    /// rest of it tells how many boots the trial took, and a confirmation changes one byte.
    pub fn confirm(&mut self) {
        self.put(BOOT_SUCCESS.as_bytes(), b"1");
        self.complete();
    }

    /// Returns from an unconfirmed trial to the slot that was confirmed before: no new trial. Leaves `rollback_from` alone,
    /// which records GRUB's action, not an operator's.
    pub fn back_to_confirmed(&mut self, slot: Slot) {
        self.put(ACTIVE_SLOT.as_bytes(), slot.name().as_bytes());
        self.confirm();
    }

    /// Forgets the slot that GRUB gave up on, once that is recorded.
    pub fn clear_rollback(&mut self) {
        self.put(ROLLBACK_FROM.as_bytes(), b"");
        self.complete();
    }

    /// Withdraws the claim that GRUB can write: it did not count a boot. GRUB sets it again at the next boot of a confirmed
    /// slot.
    pub fn doubt_canary(&mut self) {
        self.put(BOOT_CANARY.as_bytes(), b"0");
        self.complete();
    }

    /// Adds the variables that an old block lacks: GRUB would append them, perhaps in the second sector.
    pub(crate) fn complete(&mut self) {
        for (name, default) in [(ROLLBACK_FROM, b"".as_slice()), (BOOT_CANARY, b"0")] {
            if self.get(name).is_none() {
                self.put(name.as_bytes(), default);
            }
        }
    }
}
