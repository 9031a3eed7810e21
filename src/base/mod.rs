//! The words of the house: errors, text, time, URLs, digests, JSON. Pure.
//!
//! May import: nothing. Must never import: anything else of this crate: these are the words of the house.

pub mod base64;
pub mod clock;
pub mod digest;
pub mod error;
pub mod json;
pub mod text;
pub mod time;
pub mod url;
