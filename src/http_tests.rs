//! Tests of `http.rs` against servers that say exactly what a test needs.

use super::*;
