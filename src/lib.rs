//! Update agent of KubeSolo OS. The binary is a thin shell around this library.
#![deny(unsafe_code)]
#![deny(missing_docs)]
// Developers read the documentation, so private items are included (scripts/lint.sh).
#![allow(rustdoc::private_intra_doc_links)]
// Thresholds: clippy.toml.
#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::fn_params_excessive_bools))]

/// Vocabulary of the whole crate: errors, text, time, URLs, digests, JSON.
mod base;
/// GRUB's side: its environment block, its variables, its decision table.
mod boot;
/// Which parts of a file two versions of it have in common.
mod chunks;
/// The command line.
mod cli;
/// The commands: each reads arguments, does one thing, prints an answer.
mod cmd;
/// The configuration file, overlaid by the command line.
mod config;
/// Partitions: finding, mounting, reformatting.
mod disk;
/// Whether this node is healthy.
mod health;
/// The one HTTP client, around ureq.
mod http;
/// Records on the data partition.
mod ledger;
/// This machine: what it booted from, and what lies where.
mod machine;
/// What Prometheus scrapes.
mod observe;
/// OCI formats.
mod oci;
/// Offered updates, and whether this machine may take them.
mod offer;
/// The operating system: system calls, files, paths, progress.
mod os;
/// What the binary and `tests/` use; not an interface.
#[doc(hidden)]
pub mod parts;
/// A slot's directory: its record, staging, reading back.
mod slot;
/// Where updates come from: HTTP server, registry, layout.
mod source;
/// Signatures, and which keys are trusted.
mod trust;
/// The story of an update.
mod update;
