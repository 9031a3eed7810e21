//! Tests of `latest.rs`.

use super::*;
