//! The course of an update: the survey of the machine, what happened since the last run, and the run that may change something.
//!
//! May import: base, os, chunks, oci, offer, trust, slot, http, boot, disk, ledger, source, health, config, machine. Must never import:
//! cmd, cli, observe: no answer is printed here.

pub mod activate;
pub mod ask;
mod assembly;
pub mod attempt;
pub mod confirm;
pub mod download;
pub mod go_back;
pub mod judge;
pub mod next_step;
pub mod plan;
pub mod reconcile;
pub mod repair;
pub mod report;
pub mod restart;
pub mod reuse;
pub mod session;
pub mod settle;
pub mod survey;
