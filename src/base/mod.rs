//! Vocabulary of the whole crate: errors, text, time, URLs, digests, JSON. Pure.
//!
//! May import: nothing. Must never import: anything else of this crate: all other modules build on these.

pub mod base64;
pub mod clock;
pub mod digest;
pub mod error;
pub mod json;
pub mod text;
pub mod time;
pub mod url;
