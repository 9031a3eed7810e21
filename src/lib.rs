//! Update agent of KubeSolo OS. The binary is a thin shell around this library.
#![deny(unsafe_code)]
#![deny(missing_docs)]
// The documentation is read by those who change the code: all of it is made (scripts/lint.sh).
#![allow(rustdoc::private_intra_doc_links)]
// Thresholds: clippy.toml.
#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::fn_params_excessive_bools))]

/// The words of the house: errors, text, time, URLs, digests, JSON.
mod base;
/// GRUB's side: its environment block, its variables, its decision table.
mod boot;
/// What was typed.
mod cli;
/// The commands: each reads words, calls for one thing, writes words.
mod cmd;
/// What the file says, overlaid by what was typed.
mod config;
/// Partitions: found, mounted, made anew.
mod disk;
/// Whether this node is healthy.
mod health;
/// The one HTTP client, around ureq.
mod http;
/// What is written down on the data partition.
mod ledger;
/// This machine: what it booted from, and what lies where.
mod machine;
/// What Prometheus scrapes.
mod observe;
/// OCI formats.
mod oci;
/// What is offered, and whether this machine may take it.
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
/// Who signed, and who is trusted.
mod trust;
/// The story of an update.
mod update;
