//! The listening side of a seccomp filter: calls of other threads, received and answered.
//!
//! Takes no lock; several threads may use one [`Listener`] at once, and each call is received by
//! one of them. Source: [uapi/seccomp.h], seccomp_unotify(2).

#![expect(
    unsafe_code,
    reason = "UNSAFETY: ioctls whose argument is a struct the kernel reads or fills"
)]

use std::ffi::c_ulong;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The listener of a filter.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Names this waiting call.
    pub id: u64,
    /// The thread that waits, as this process numbers it; 0 where it cannot be seen from here.
    pub thread: i32,
    /// The call's number.
    pub number: i32,
    /// Its arguments as the thread passed them.
    pub arguments: [u64; 6],
}

/// What a waiting call is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It returns this value.
    Value(i64),
    /// It fails with this errno (positive).
    Error(i32),
    /// The kernel executes it as if there were no filter.
    Continue,
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Asks the kernel to run the receiver on the caller's CPU at once (Linux 6.6).
    ///
    /// # Errors
    /// `EINVAL` or `ENOTTY` on an older kernel: everything works without, more slowly.
    pub fn wake_synchronously(&self) -> io::Result<()> {
        const SYNC_WAKE_UP: c_ulong = 1;
        // SAFETY: this ioctl takes flags by value and touches no memory.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP)
        })?;
        Ok(())
    }

    /// Waits for a call.
    ///
    /// # Errors
    /// - `ENOENT` – the caller was killed meanwhile, or no thread is left under the filter.
    /// - `EINTR` – a signal came.
    pub fn receive(&self) -> io::Result<Notification> {
        let mut notice = libc::seccomp_notif {
            id: 0,
            pid: 0,
            flags: 0,
            data: libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] },
        };
        // SAFETY: `notice` is a live, zeroed seccomp_notif, which the kernel requires, and outlives
        // the call that fills it.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice)
        })?;
        Ok(Notification {
            id: notice.id,
            thread: notice.pid.cast_signed(),
            number: notice.data.nr,
            arguments: notice.data.args,
        })
    }

    /// Answers a call.
    ///
    /// # Errors
    /// `ENOENT` – the caller was killed meanwhile.
    pub fn answer(&self, id: u64, answer: Answer) -> io::Result<()> {
        let mut response = libc::seccomp_notif_resp { id, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::Value(value) => response.val = value,
            Answer::Error(errno) => response.error = -errno,
            Answer::Continue => response.flags = 1, // SECCOMP_USER_NOTIF_FLAG_CONTINUE
        }
        // SAFETY: `response` is a live seccomp_notif_resp that the kernel only reads.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response)
        })?;
        Ok(())
    }

    /// Tells whether the call still waits, and so whether its thread's number still means it.
    pub fn waits(&self, id: u64) -> bool {
        // SAFETY: the kernel reads the eight bytes of `id`.
        let result = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id)
        };
        result == 0
    }

    /// Installs `file` in the caller's table at the lowest free number, which is returned. The call
    /// still waits.
    ///
    /// # Errors
    /// - `ENOENT` – the caller was killed meanwhile.
    /// - `EMFILE` – its table is full.
    pub fn install(&self, id: u64, file: BorrowedFd<'_>, cloexec: bool) -> io::Result<RawFd> {
        let flags = if cloexec { libc::O_CLOEXEC } else { 0 };
        let mut request = libc::seccomp_notif_addfd {
            id,
            flags: 0,
            srcfd: file.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: flags.cast_unsigned(),
        };
        // SAFETY: `request` is a live seccomp_notif_addfd that the kernel only reads.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut request)
        })
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
