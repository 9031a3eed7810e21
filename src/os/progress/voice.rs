//! How much is said: by `--quiet` and `--verbose`.
//!
//! Must never: be set once something was said.

use std::sync::atomic::{AtomicU8, Ordering};

/// How much is said. Set once, before anything is.
static VOICE: AtomicU8 = AtomicU8::new(PLAIN);

const QUIET: u8 = 0;

const PLAIN: u8 = 1;

const VERBOSE: u8 = 2;

/// From now on only what needs a person is said.
pub fn be_quiet() {
    VOICE.store(QUIET, Ordering::Relaxed);
}

/// From now on all there is is said.
pub fn be_verbose() {
    VOICE.store(VERBOSE, Ordering::Relaxed);
}

/// Says whether only what needs a person is to be said.
pub fn is_quiet() -> bool {
    VOICE.load(Ordering::Relaxed) == QUIET
}

/// Says whether all there is is to be said.
pub fn is_verbose() -> bool {
    VOICE.load(Ordering::Relaxed) == VERBOSE
}
