//! GRUB's side: its environment block, its variables, what it told the kernel about this boot, and its decision table.
//!
//! May import: base, os, slot. Must never import: ledger, update: GRUB's truth does not follow ours.

pub mod block;
pub(crate) mod damage;
pub mod env_copy;
pub mod env_files;
pub mod grub_table;
pub(crate) mod salvage;
pub mod this_boot;
pub(crate) mod vars;
