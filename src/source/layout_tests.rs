//! Tests of `layout.rs`.

use super::*;
