//! How the program starts and ends, in the place of std's own start: of that, this program needs what stands here, and the rest (a
//! message where the stack is used up, above all) takes 3 KB.
//!
//! Must never: let a file that is opened become standard input, output or error.

use std::ffi::{CStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;

/// Makes a function the program. It gets the words behind the program's name, and returns the exit code. Words that are asked of
/// `std::env` are known with some C libraries only.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn main(
            _count: core::ffi::c_int,
            words: *const *const core::ffi::c_char,
        ) -> core::ffi::c_int {
            // SAFETY: what the C library gives `main`.
            unsafe { $crate::sys::start::start(words, $run) }
        }
    };
}

/// What [`program!`](crate::program) calls.
///
/// # Safety
/// `words` points to NUL-terminated strings, and ends with null.
pub unsafe fn start(mut words: *const *const libc::c_char, run: fn(Vec<OsString>) -> u8) -> ! {
    open_closed();
    // Or the first one who reads no more would end this process, in the middle of an update.
    // SAFETY: plain values, and no other thread yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // Who started us may ignore it, and then nobody can be asked how a health check ended.
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let mut typed = Vec::new();
    // SAFETY: as the caller vouches; nothing behind the null is looked at.
    unsafe {
        while let Some(word) = words.as_ref().filter(|word| !word.is_null()) {
            typed.push(OsString::from_vec(CStr::from_ptr(*word).to_bytes().to_vec()));
            words = words.add(1);
        }
    }
    // The first is the program's name, if there is one.
    typed.drain(..typed.len().min(1));
    leave(run(typed))
}

/// Opens /dev/null as each of the three standard descriptors that is closed: what is opened next would get its number, and be
/// written to as an answer. It stays open in programs that are started.
fn open_closed() {
    for standard in 0..=libc::STDERR_FILENO {
        // SAFETY: plain values and a string that ends with a zero. The lowest number that is free is the one that is missing.
        unsafe {
            if libc::fcntl(standard, libc::F_GETFD) == -1 && libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) != standard
            {
                libc::abort();
            }
        }
    }
}

/// Ends the process; what waits to be written to stdout is written before.
pub fn leave(exit_code: u8) -> ! {
    // Whoever has to know of a failure has asked before.
    let _ = io::stdout().flush();
    // SAFETY: a plain value. No other thread of this process ends it.
    unsafe { libc::exit(exit_code.into()) }
}
