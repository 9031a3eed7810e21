//! Update agent of KubeSolo OS. The binary is a thin shell around this library.
#![deny(unsafe_code)]
#![deny(missing_docs)]
// Thresholds: clippy.toml.
#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::fn_params_excessive_bools))]

/// The words of the house: errors, text, time, URLs, digests, JSON.
pub mod base;
/// GRUB's side: its environment block, its variables, its decision table.
pub mod boot;
/// What was typed.
pub mod cli;
/// The commands: each reads words, calls for one thing, writes words.
pub mod cmd;
/// What the file says, overlaid by what was typed.
pub mod config;
/// Partitions: found, mounted, made anew.
pub mod disk;
/// Whether this node is healthy.
pub mod health;
/// The one HTTP client, around ureq.
pub mod http;
/// What is written down on the data partition.
pub mod ledger;
/// This machine: what it booted from, and what lies where.
pub mod machine;
/// What Prometheus scrapes.
pub mod observe;
/// OCI formats.
pub mod oci;
/// What is offered, and whether this machine may take it.
pub mod offer;
/// The operating system: system calls, files, paths, progress.
pub mod os;
/// A slot's directory: its record, staging, reading back.
pub mod slot;
/// Where updates come from: HTTP server, registry, layout.
pub mod source;
/// Who signed, and who is trusted.
pub mod trust;
/// The story of an update.
pub mod update;
