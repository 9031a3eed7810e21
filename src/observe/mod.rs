//! Prometheus metrics: the text, and the server for it.
//!
//! May import: base, os, slot, ledger, machine, update. Must never import: http, source, cmd: it makes no requests.

pub mod prometheus;
pub mod request;
pub mod server;
