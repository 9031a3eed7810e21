//! What Prometheus scrapes: the text, and the server that hands it out.
//!
//! May import: base, os, slot, ledger, machine, update. Must never import: http, source, cmd: it asks nobody.

pub mod prometheus;
pub mod request;
pub mod server;
