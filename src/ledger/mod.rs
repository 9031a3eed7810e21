//! The agent's records on the data partition: state, history, failed, proven and seen artifacts.
//!
//! May import: base, os, slot, offer. Must never import: boot, disk, source, http: it keeps files, not facts of the machine.

pub(crate) mod codec;
pub mod failures;
pub mod history;
pub mod phase;
pub mod proven;
pub mod seen;
pub mod state;
pub mod store;
pub mod traffic;
