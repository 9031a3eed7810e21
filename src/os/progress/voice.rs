//! How much is said: by `--quiet` and `--verbose`.
//!
//! Must never: be set once something was said.

use std::sync::atomic::{AtomicU8, Ordering};

/// How much is said. Set once, before anything is.
static VOICE: AtomicU8 = AtomicU8::new(PLAIN);

const QUIET: u8 = 0;

const PLAIN: u8 = 1;

const VERBOSE: u8 = 2;

/// Sets how much is said from now on. `--verbose` beside `--quiet` says all.
pub fn speak(quiet: bool, verbose: bool) {
    let voice = if verbose { VERBOSE } else { PLAIN - u8::from(quiet) };
    VOICE.store(voice, Ordering::Relaxed);
}

/// Says whether only what needs a person is to be said.
pub fn is_quiet() -> bool {
    VOICE.load(Ordering::Relaxed) == QUIET
}

/// Says whether all there is is to be said.
pub fn is_verbose() -> bool {
    VOICE.load(Ordering::Relaxed) == VERBOSE
}
