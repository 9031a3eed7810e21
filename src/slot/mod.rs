//! A slot's directory: the record that makes it valid, staging into it, reading it back, and the check of an initramfs.
//!
//! May import: base, os. Must never import: boot, disk, source: bytes and a directory, nothing else.

pub mod initramfs;
mod pipeline;
pub mod readback;
pub mod record;
pub mod stage;
