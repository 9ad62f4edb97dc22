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
        self.add(id, file, cloexec, None)
    }

    /// As [`install`](Self::install), closed by exec, as descriptor `number`. What has that number is closed.
    ///
    /// # Errors
    /// As there; `EBADF` – the number is not below the caller's limit.
    pub fn install_at(&self, id: u64, file: BorrowedFd<'_>, number: RawFd) -> io::Result<RawFd> {
        self.add(id, file, true, Some(number))
    }

    fn add(
        &self,
        id: u64,
        file: BorrowedFd<'_>,
        cloexec: bool,
        number: Option<RawFd>,
    ) -> io::Result<RawFd> {
        let flags = if cloexec { libc::O_CLOEXEC } else { 0 };
        // libc has it as 64 bits; the kernel's field has 32.
        const SET_NUMBER: u32 = 1;
        const _: () = assert!(SET_NUMBER as u64 == libc::SECCOMP_ADDFD_FLAG_SETFD);
        let mut request = libc::seccomp_notif_addfd {
            id,
            flags: number.map_or(0, |_| SET_NUMBER),
            srcfd: file.as_raw_fd().cast_unsigned(),
            newfd: number.unwrap_or(0).cast_unsigned(),
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::mpsc;
    use std::thread;

    use rustix::thread::set_no_new_privs;

    use super::*;
    use crate::seccomp::{Instruction, Word, code, install, verdict};

    /// A filter that notifies one call number.
    fn filter(number: libc::c_long) -> [Instruction; 4] {
        let step = |code, skip_else, operand| Instruction { code, skip_if: 0, skip_else, operand };
        [
            step(code::LOAD, 0, Word::Number.offset()),
            step(code::JUMP_EQUAL, 1, u32::try_from(number).unwrap()),
            step(code::RETURN, 0, verdict::NOTIFY),
            step(code::RETURN, 0, verdict::ALLOW),
        ]
    }

    /// Runs `call` in a thread of which `number` is notified, and `serve` on its calls.
    fn under_filter<T: Send>(
        number: libc::c_long,
        call: impl FnOnce() -> T + Send,
        serve: impl FnOnce(&Listener),
    ) -> T {
        let (give, take) = mpsc::channel();
        thread::scope(|scope| {
            let caller = scope.spawn(move || {
                set_no_new_privs(true).unwrap();
                give.send(install(&filter(number)).unwrap()).unwrap();
                call()
            });
            let listener = take.recv().unwrap();
            serve(&listener);
            caller.join().unwrap()
        })
    }

    #[test]
    fn calls_are_answered_with_values_errors_and_by_the_kernel() {
        // SAFETY: getppid takes nothing and cannot fail by itself.
        let getppid = || unsafe { libc::syscall(libc::SYS_getppid) };
        let calls = || (getppid(), (getppid(), io::Error::last_os_error()), getppid());
        let (value, (failed, error), real) = under_filter(libc::SYS_getppid, calls, |listener| {
            for answer in [Answer::Value(4711), Answer::Error(libc::EXDEV), Answer::Continue] {
                let call = listener.receive().unwrap();
                assert_eq!(i64::from(call.number), libc::SYS_getppid);
                assert!(listener.waits(call.id));
                listener.answer(call.id, answer).unwrap();
                assert!(!listener.waits(call.id));
            }
        });
        assert_eq!((value, failed), (4711, -1));
        assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
        assert_eq!(real, i64::from(std::os::unix::process::parent_id()));
    }

    #[test]
    fn files_are_installed_and_the_end_of_the_caller_is_seen() {
        // SAFETY: this form of dup is answered by the test and never reaches the kernel.
        let call = || unsafe { libc::syscall(libc::SYS_dup, -1) };
        under_filter(
            libc::SYS_dup,
            || {
                let fd = RawFd::try_from(call()).unwrap();
                let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
                assert_eq!(link.to_str(), Some("/dev/null"));
            },
            |listener| {
                let null = File::open("/dev/null").unwrap();
                let call = listener.receive().unwrap();
                let fd = listener.install(call.id, null.as_fd(), true).unwrap();
                listener.answer(call.id, Answer::Value(fd.into())).unwrap();
                let ended = listener.receive().unwrap_err();
                assert_eq!(ended.raw_os_error(), Some(libc::ENOENT));
            },
        );
    }
}
