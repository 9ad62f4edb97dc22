//! A memory barrier on every running thread of this process.
//!
//! With it, the frequent side of a handshake gets by with plain stores and the rare side pays a
//! system call of a few microseconds. Takes no lock. Source: [membarrier(2)].

#![expect(unsafe_code, reason = "UNSAFETY: a system call without pointers that libc does not wrap")]

use std::io;
use std::sync::OnceLock;

/// Issues a full memory barrier on every thread of this process that is running; those that are not
/// have passed one. Registers the process on first use.
///
/// # Errors
/// As `membarrier(2)`: `ENOSYS` or `EPERM` where the kernel or a sandbox does not have it, the same
/// on every call.
pub fn membarrier() -> io::Result<()> {
    static REGISTERED: OnceLock<Option<i32>> = OnceLock::new();
    let refusal = *REGISTERED.get_or_init(|| {
        let registered = command(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        registered.err().map(|error| error.raw_os_error().unwrap_or(libc::ENOSYS))
    });
    match refusal {
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => command(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED),
    }
}

fn command(command: libc::c_int) -> io::Result<()> {
    const NO_FLAGS: libc::c_int = 0;
    const ANY_CPU: libc::c_int = 0;
    // SAFETY: the call takes three numbers and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, command, NO_FLAGS, ANY_CPU) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_barrier_can_be_issued_again_and_again() {
        super::membarrier().unwrap();
        super::membarrier().unwrap();
    }
}
