//! Partitions of the boot disk: found, judged by their first bytes, mounted, reformatted.
//!
//! May import: base, os, slot, boot. Must never import: machine, ledger: a partition does not know its purpose.

pub mod ext4;
pub mod gpt;
pub mod mount;
pub mod partition;
pub mod remake;
pub mod superblock;
