//! OCI formats as pure functions: no file, clock or network in here.

pub mod annotations;
pub mod beside;
pub mod challenge;
pub mod digest;
mod entries;
pub mod index;
pub mod initramfs;
pub mod manifest;
pub mod reference;
pub mod referrers;
