//! Verbosity of messages: `--quiet` and `--verbose`.
//!
//! Must never: be set after a message was written.

use std::sync::atomic::{AtomicU8, Ordering};

/// Verbosity. Set once, before the first message.
static VOICE: AtomicU8 = AtomicU8::new(PLAIN);

const QUIET: u8 = 0;

const PLAIN: u8 = 1;

const VERBOSE: u8 = 2;

/// From now on, only what an operator must act on is shown.
pub fn be_quiet() {
    VOICE.store(QUIET, Ordering::Relaxed);
}

/// From now on, everything is shown.
pub fn be_verbose() {
    VOICE.store(VERBOSE, Ordering::Relaxed);
}

/// Returns whether only what an operator must act on is shown.
pub fn is_quiet() -> bool {
    VOICE.load(Ordering::Relaxed) == QUIET
}

/// Returns whether everything is shown.
pub fn is_verbose() -> bool {
    VOICE.load(Ordering::Relaxed) == VERBOSE
}
