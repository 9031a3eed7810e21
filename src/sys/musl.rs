//! Two functions of the C library's, in the place of musl's (of zig's, where zig brings musl), which take 19 KB: the linker takes
//! a program's own first.
//!
//! Must never: be called from here, or do less than the C library's callers in this program ask for.

/// Sorts in place, for musl's look-up of names: at most 48 addresses. zig's own takes 9 KB.
#[unsafe(no_mangle)]
unsafe extern "C" fn qsort(
    base: *mut u8,
    count: usize,
    width: usize,
    compare: unsafe extern "C" fn(*const u8, *const u8) -> libc::c_int,
) {
    for end in 1..count {
        let mut at = end;
        while at > 0 {
            // SAFETY: both lie in the array, whose `count` members of `width` bytes the caller vouches for.
            unsafe {
                let (a, b) = (base.add((at - 1) * width), base.add(at * width));
                if compare(a, b) <= 0 {
                    break;
                }
                std::ptr::swap_nonoverlapping(a, b, width);
            }
            at -= 1;
        }
    }
}

/// Names no thread: musl's own brings 8 KB of printf with it, to write the name of another thread than the one that runs.
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(_thread: libc::pthread_t, _name: *const libc::c_char) -> libc::c_int {
    0
}
