//! Waiting for an eventfd with an end to the wait.

#![expect(unsafe_code, reason = "UNSAFETY: poll")]

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

/// Waits until `event` was signalled and returns how often.
///
/// # Errors
/// `TimedOut` after `timeout`.
pub(crate) fn wait(event: &EventFd, timeout: Duration) -> io::Result<u64> {
    let mut entry = libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `entry` is one live pollfd, and 1 is how many there are.
    match unsafe { libc::poll(&raw mut entry, 1, timeout_ms) } {
        0 => Err(io::ErrorKind::TimedOut.into()),
        1 => event.read(),
        _ => Err(io::Error::last_os_error()),
    }
}
