//! What the publisher has signed: keys, bundles, and what it takes to believe an artifact.
//!
//! Must never: let an installed key be ignored.

pub mod bundle;
mod files;
pub mod keyring;
pub mod keys;
pub mod offered;
pub mod proven;
mod site;
pub mod verify;
