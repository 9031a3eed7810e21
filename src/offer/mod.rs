//! Whether this machine may take what is offered: the gates, versions, the maintenance window. Pure.
//!
//! May import: base, oci. Must never import: os, http, source, trust: a policy that can fetch is no policy.

pub mod artifact;
pub mod gate;
pub mod refusal;
pub mod version;
pub mod window;
