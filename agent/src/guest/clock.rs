//! The processor's time.
//!
//! Unsafe code: the standard library does not tell how much of the processor a thread has used, so
//! this asks the C library.

#![allow(unsafe_code, reason = "a call of the C library, which fills a structure of ours")]

use std::time::Duration;

/// How much of the processor the calling thread has used; zero where that is not known.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer during the call.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    match (told, u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) {
        (0, Ok(seconds), Ok(nanoseconds)) => Duration::new(seconds, nanoseconds),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_time_and_waiting_does_not() {
        let before = thread_cpu_time();
        let mut sum = 0u64;
        while thread_cpu_time() - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        let worked = thread_cpu_time();
        std::thread::park_timeout(Duration::from_millis(50));
        assert!(thread_cpu_time() - worked < Duration::from_millis(25));
    }
}
