//! What can be wrong with an environment block, and with an edit of one. Pure.
//!
//! Must never: say only "invalid": this text is all that the operator has.

use crate::base::error::{Error, Kind};
use crate::base::text::printable;
use std::fmt;

/// Length of the block, in bytes. GRUB reads other lengths; other tools do not.
pub const BLOCK_BYTES: usize = 1024;

/// Describes what is wrong with the bytes of a block.
/// Source: each is a way in which GRUB misreads or cannot save (BOOT cases in tests/pure/grubenv.rs).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// No bytes: a writer truncated it and died.
    Empty,
    /// A length other than 1,024 bytes.
    WrongLength(u64),
    /// The first line is not GRUB's.
    Signature,
    /// A line ends in CR LF: GRUB would include the CR in the value.
    Crlf(usize),
    /// A line without `=`: GRUB includes it in the name of the next variable.
    NoEquals(usize),
    /// Duplicate name: GRUB saves the first and loads the last.
    Duplicate(Vec<u8>),
    /// A backslash before anything but a backslash or a newline.
    BadEscape(usize),
    /// A NUL byte within a line: GRUB's text ends there.
    Nul(usize),
    /// The value of the last variable never ends: GRUB drops it, and cannot save.
    Unterminated(usize),
    /// Something other than `#` after the last variable, at this byte: GRUB cannot save.
    Padding(usize),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Empty => f.write_str("is empty"),
            Damage::WrongLength(bytes) => write!(f, "is {bytes} bytes long, not {BLOCK_BYTES}"),
            Damage::Signature => f.write_str("does not begin with GRUB's signature line"),
            Damage::Crlf(line) => write!(f, "line {line} ends in CR LF"),
            Damage::NoEquals(line) => write!(f, "line {line} has no `=`"),
            Damage::Duplicate(name) => write!(f, "`{}` is set twice", shown(name)),
            Damage::BadEscape(line) => write!(f, "line {line} has an escape that GRUB does not write"),
            Damage::Nul(line) => write!(f, "line {line} holds a NUL byte"),
            Damage::Unterminated(line) => write!(f, "line {line} does not end"),
            Damage::Padding(at) => write!(f, "padding is not `#` at byte {at}"),
        }
    }
}

/// Reason why an edit cannot become a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A name that would not read back as this name.
    Name(String),
    /// A value that would not read back as this value; holds the variable's name.
    Value(String),
    /// The live variables extend beyond the end of the first sector by this number of bytes.
    FirstSector(usize),
    /// The block is too small by this number of bytes.
    NoRoom(usize),
    /// Taken over from a block with this damage.
    Damaged(Damage),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Name(name) => write!(f, "`{}` cannot be a variable's name", printable(name)),
            Refused::Value(name) => write!(f, "value of `{}` cannot be stored", printable(name)),
            Refused::FirstSector(over) => write!(f, "boot variables do not fit the first sector, {over} bytes over"),
            Refused::NoRoom(over) => write!(f, "environment block is too small, {over} bytes over"),
            Refused::Damaged(damage) => write!(f, "environment block would be damaged: {damage}"),
        }
    }
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Error {
        Error::new(Kind::Boot, damage.to_string())
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        let hint = matches!(refused, Refused::NoRoom(_) | Refused::FirstSector(_))
            .then_some("take other variables out: grub-editenv FILE unset NAME");
        Error::new(Kind::Boot, refused.to_string()).hint(hint.unwrap_or_default())
    }
}

pub(crate) fn shown(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes))
}
