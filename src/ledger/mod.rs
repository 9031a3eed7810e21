//! What the agent writes down on the data partition: the state, its history, what failed, what has proven itself, what was seen.
//!
//! May import: base, os, slot, offer. Must never import: boot, disk, source, http: files, not facts.

pub(crate) mod codec;
pub mod failures;
pub mod history;
pub mod phase;
pub mod proven;
pub mod seen;
pub mod state;
pub mod store;
