//! What the process that compiles may take.
//!
//! Unsafe code: the standard library can't limit the process it runs in, so this asks the C library.

#![allow(unsafe_code, reason = "calls of the C library, with numbers and a structure of ours")]

use std::io;

/// How much less of the processor it gets than what runs beside it: about a quarter.
const NICE: libc::c_int = 5;

/// Bounds this process: it has at most `memory_bytes_max` bytes of memory of its own, gives way to
/// others, leaves no core dump, and ends with the process that started it. If the machine runs out
/// of memory, this process ends before others.
pub(super) fn keep_to(memory_bytes_max: u64) -> io::Result<()> {
    // Not the address space: the program itself and what is only reserved would count, too.
    limit(libc::RLIMIT_DATA, memory_bytes_max)?;
    limit(libc::RLIMIT_CORE, 0)?;
    // SAFETY: it takes three numbers, and 0 is the process that calls.
    let told = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    answered(told)?;
    let signal = libc::c_ulong::try_from(libc::SIGKILL).unwrap_or(9);
    // SAFETY: this option takes one number more, the signal.
    let told = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    answered(told)?;
    // Whoever can't say so is ended as others are.
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
    Ok(())
}

/// Lowers a limit. One that is lower already stays.
fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer during the call.
    answered(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
    limit.rlim_cur = most.min(limit.rlim_cur);
    limit.rlim_max = most.min(limit.rlim_max);
    // SAFETY: `limit` is valid during the call, which only reads it.
    answered(unsafe { libc::setrlimit(resource, &raw const limit) })
}

fn answered(told: libc::c_int) -> io::Result<()> {
    match told {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
