//! The publisher's signatures: keys, bundles, and the conditions under which an artifact is trusted.
//!
//! Must never: let an installed key be ignored.
//!
//! May import: base, os, oci. Must never import: http, source, offer: signers do not depend on where an artifact came from.

pub mod beside;
pub mod bundle;
mod files;
pub mod key;
pub mod keyring;
pub mod offered;
pub mod referrers;
mod site;
pub mod tally;
