//! OCI formats as pure functions: no file, clock or network.
//!
//! May import: base. Must never import: os, http, trust: formats have no opinion and touch nothing.

pub mod descriptor;
mod entries;
pub mod index;
pub mod initramfs;
pub mod manifest;
pub mod metadata;
pub mod misspellings;
pub mod reference;
