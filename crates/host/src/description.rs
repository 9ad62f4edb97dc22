//! Whether two descriptors are of one open file.
//!
//! Takes no lock. Source: kcmp(2).

#![expect(unsafe_code, reason = "UNSAFETY: kcmp(2), which no safe library offers")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether two descriptors of this process are of one open file description, as `dup` makes them.
///
/// # Errors
/// - `ENOSYS` – a kernel without it.
/// - `EPERM` – a sandbox forbids it.
pub fn is_same_open_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    const KCMP_FILE: i32 = 0;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: this call takes numbers by value and touches no memory of ours.
    let order = unsafe {
        libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd())
    };
    if order < 0 { Err(io::Error::last_os_error()) } else { Ok(order == 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_copy_is_the_same_and_a_second_open_is_not() {
        let file = File::open("/dev/null").unwrap();
        let copy = file.try_clone().unwrap();
        let again = File::open("/dev/null").unwrap();
        assert!(is_same_open_file(file.as_fd(), copy.as_fd()).unwrap());
        assert!(!is_same_open_file(file.as_fd(), again.as_fd()).unwrap());
    }
}
