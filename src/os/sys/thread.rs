//! Starts one thread by pthread_create(3): std's own threads take 8 KB more for features that no caller here needs: names,
//! hooks, results, scopes, a message on stack overflow.
//!
//! Must never: free what a thread uses before it has ended.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Work = Box<dyn FnOnce() + Send>;

/// A started thread. Dropping this does not end it; it ends with the process at the latest.
pub struct Thread(Option<libc::pthread_t>);

impl Thread {
    /// Starts a thread that does some work. It inherits the caller's blocked signals.
    /// Input: `stack_bytes`: whole pages, at least 64 KiB. A stack overflow ends the process by SIGSEGV.
    /// Errors: EAGAIN: out of memory, or no more threads allowed. The work is then not done.
    pub fn start(stack_bytes: usize, work: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
        // Boxed twice: a pointer to a `dyn` is two words wide, and a thread gets one.
        let work: *mut Work = Box::into_raw(Box::new(Box::new(work)));
        // SAFETY: plain old data, for which zero is a value until it is initialised.
        let (mut number, mut attributes) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: structures that outlive the calls; what the initialisation allocated is freed on every path. The work belongs
        // to the thread alone once it starts.
        let code = unsafe {
            let mut code = libc::pthread_attr_init(&raw mut attributes);
            code = code.max(libc::pthread_attr_setstacksize(&raw mut attributes, stack_bytes));
            if code == 0 {
                code = libc::pthread_create(&raw mut number, &raw const attributes, run, work.cast());
            }
            libc::pthread_attr_destroy(&raw mut attributes);
            code
        };
        if code == 0 {
            return Ok(Thread(Some(number)));
        }
        // SAFETY: made by `into_raw` above, and no thread has it.
        drop(unsafe { Box::from_raw(work) });
        Err(io::Error::from_raw_os_error(code))
    }

    /// Waits until the thread has ended.
    pub fn join(mut self) {
        if let Some(number) = self.0.take() {
            // SAFETY: not yet joined or detached; null is allowed for the result. It can only fail if a thread waits for
            // itself, and a thread does not have its own `Thread`.
            unsafe { libc::pthread_join(number, std::ptr::null_mut()) };
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(number) = self.0 {
            // SAFETY: not yet joined or detached.
            unsafe { libc::pthread_detach(number) };
        }
    }
}

extern "C" fn run(work: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `start` made it from a box, for this thread alone.
    let work = unsafe { Box::from_raw(work.cast::<Work>()) };
    work();
    std::ptr::null_mut()
}

/// Locks a mutex, even one whose last holder panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    const STACK_BYTES: usize = 64 << 10;

    #[test]
    fn what_is_joined_has_done_its_work_and_freed_it() {
        let done = Arc::new(Mutex::new(0));
        for count in 1..=100 {
            let to = done.clone();
            Thread::start(STACK_BYTES, move || *lock(&to) += 1).unwrap().join();
            assert_eq!((*lock(&done), Arc::strong_count(&done)), (count, 1));
        }
    }

    #[test]
    fn what_is_dropped_runs_on() {
        let ((go, wait), (tell, hear)) = (channel::<u32>(), channel());
        drop(Thread::start(STACK_BYTES, move || tell.send(wait.recv().unwrap() + 1).unwrap()).unwrap());
        go.send(41).unwrap();
        assert_eq!(hear.recv_timeout(Duration::from_secs(60)).unwrap(), 42);
    }

    /// What std gives where it is not asked is more, and 64 KiB would not do.
    #[test]
    fn the_stack_is_as_large_as_asked_for() {
        let (tell, hear) = channel();
        let work = move || {
            let bytes = std::hint::black_box([1u8; 6 << 20]);
            tell.send(bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>()).unwrap();
        };
        Thread::start(16 << 20, work).unwrap().join();
        assert_eq!(hear.recv(), Ok(6 << 20));
    }

    #[test]
    fn what_cannot_be_started_is_an_error_and_leaks_nothing() {
        let kept = Arc::new(());
        let its = kept.clone();
        // Half of the address space.
        let error = Thread::start(1 << 46, move || drop(its)).err().expect("no such stack");
        assert!(matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL | libc::ENOMEM)), "{error}");
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
