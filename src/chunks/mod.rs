//! Chunks: the parts of a file that its content itself cuts, so that two versions of it have most of them in common.
//!
//! One rule for the publisher's tool (`src/bin/kubesolo-chunks.rs`) and for the agent. No files, no network: streams in, numbers out.
//! May import: base. Must never import: os, slot, source, http: whoever has the bytes passes them in.

pub mod cut;
pub mod index;
pub mod plan;
