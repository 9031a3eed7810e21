//! Five C library functions that replace musl's (zig's, where zig provides musl), which take 22 KB: the linker prefers a
//! program's own.
//!
//! Must never: be called from another file, or do less than the C library's callers in this program need.

use libc::{c_char, c_int};
use std::ptr;

/// Sorts in place, for musl's name look-up: at most 48 addresses. zig's own takes 9 KB.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn qsort(
    base: *mut u8,
    count: usize,
    width: usize,
    compare: unsafe extern "C" fn(*const u8, *const u8) -> c_int,
) {
    for end in 1..count {
        let mut at = end;
        while at > 0 {
            // SAFETY: both lie in the array of `count` members of `width` bytes that the caller guarantees.
            unsafe {
                let (a, b) = (base.add((at - 1) * width), base.add(at * width));
                if compare(a, b) <= 0 {
                    break;
                }
                ptr::swap_nonoverlapping(a, b, width);
            }
            at -= 1;
        }
    }
}

/// Names no thread: musl's own pulls in 8 KB of printf to name threads other than the running one.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(_thread: libc::pthread_t, _name: *const c_char) -> c_int {
    0
}

/// Finds the first `wanted` or else the end of a text, for musl's readers of names and of the environment. zig's own and those
/// of the next two, optimised for speed, take 0.7 to 1.4 KB each.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn __strchrnul(text: *const c_char, wanted: c_int) -> *const c_char {
    let mut at = text;
    loop {
        // SAFETY: the text ends with a zero, and nothing after it is read.
        let byte = unsafe { *at };
        if byte == 0 || byte == wanted as c_char {
            return at;
        }
        at = at.wrapping_add(1);
    }
}

/// Finds the first `wanted` in a text, or nothing.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn strchr(text: *const c_char, wanted: c_int) -> *const c_char {
    // SAFETY: as the caller guarantees; the result is in the text, or its end.
    unsafe {
        let at = __strchrnul(text, wanted);
        if *at == wanted as c_char { at } else { ptr::null() }
    }
}

/// Finds a text in another, or nothing, for musl's readers of hosts, services and resolv.conf: lines of a few dozen bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn strstr(text: *const c_char, wanted: *const c_char) -> *const c_char {
    let mut at = text;
    loop {
        let mut same = 0;
        // SAFETY: both end with a zero: the loop stops at that of `wanted`, or at the text's, which differs from any earlier
        // byte of `wanted`.
        unsafe {
            while *wanted.add(same) != 0 && *at.add(same) == *wanted.add(same) {
                same += 1;
            }
            if *wanted.add(same) == 0 {
                return at;
            }
            if *at == 0 {
                return ptr::null();
            }
        }
        at = at.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&std::ffi::CStr; 9] =
        [c"", c"a", c"aa", c"aab", c"options ndots:2", c"ndots", c" ndots:", c"a\xffb\xff", c"127.0.0.1 localhost\n"];

    #[test]
    fn finds_what_the_c_library_finds() {
        for text in TEXTS.map(std::ffi::CStr::as_ptr) {
            for wanted in TEXTS.map(std::ffi::CStr::as_ptr) {
                // SAFETY: all are texts that end with a zero.
                let (ours, theirs) = unsafe { (strstr(text, wanted), libc::strstr(text, wanted)) };
                assert_eq!(ours, theirs.cast_const());
            }
            for wanted in -1..=300 {
                // SAFETY: as above.
                let (ours, theirs) = unsafe { (strchr(text, wanted), libc::strchr(text, wanted)) };
                assert_eq!(ours, theirs.cast_const());
            }
        }
    }

    #[test]
    fn finds_the_end_where_there_is_nothing_else() {
        let text = c"NAME=value".as_ptr();
        for (wanted, at) in [('=', 4), ('v', 5), ('x', 10), ('\0', 10)] {
            // SAFETY: a text that ends with a zero.
            assert_eq!(unsafe { __strchrnul(text, wanted as c_int) }, text.wrapping_add(at), "{wanted:?}");
        }
    }

    #[test]
    fn sorts_what_is_wider_than_what_is_compared() {
        unsafe extern "C" fn by_first(a: *const u8, b: *const u8) -> c_int {
            // SAFETY: two members of the array below.
            unsafe { c_int::from(*a) - c_int::from(*b) }
        }
        let mut members = [[3u8, 0], [1, 1], [2, 2], [1, 3], [3, 4]];
        // SAFETY: five members of two bytes.
        unsafe { qsort(members.as_mut_ptr().cast(), 5, 2, by_first) };
        assert_eq!(members, [[1, 1], [1, 3], [2, 2], [3, 0], [3, 4]]);
    }
}
