//! Making a process.
//!
//! Takes no lock. Source: fork(2).

#![expect(unsafe_code, reason = "UNSAFETY: fork(2) is sound only where no other thread runs")]

use std::io;

use rustix::process::Pid;

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The old process, and the new one's number.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks a process that has one thread.
///
/// # Errors
/// - [`io::ErrorKind::Unsupported`] – other threads run, whose locks a child would inherit locked.
/// - `EAGAIN`, `ENOMEM` – the system's limits.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "fork with other threads running"));
    }
    // SAFETY: this is the only thread, as just seen, so the child inherits no lock in the middle of
    // anything and may go on as any program does.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(Forked::Child),
        _ => Pid::from_raw(pid)
            .filter(|_| pid > 0)
            .map(Forked::Parent)
            .ok_or_else(io::Error::last_os_error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_where_threads_run() {
        // The test harness runs each test in a thread beside its main one.
        assert_eq!(fork().unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
