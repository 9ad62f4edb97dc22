//! Signals as values that are read, with who sent them.
//!
//! Takes no lock. A signal to be read must be blocked first, in every thread. Source: signalfd(2).

#![expect(unsafe_code, reason = "UNSAFETY: sigset_t is filled by the C library through a pointer")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Signal;

/// Signals that a thread has blocked.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

/// Blocked signals, to be read one by one.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// A signal that was sent to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// Sent by a process; otherwise by the kernel (a terminal, say).
    pub by_process: bool,
}

impl Mask {
    /// The mask that blocks `signals` and no other.
    pub fn of(signals: &[Signal]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initializes the whole set, and does not fail on a valid pointer.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for signal in signals {
            // SAFETY: `set` is initialized; an invalid number is refused and changes nothing.
            unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) };
        }
        Self(set)
    }

    /// Makes this the calling thread's mask and returns the one before.
    ///
    /// # Errors
    /// None that a valid mask can meet.
    pub fn apply(&self) -> io::Result<Self> {
        let mut before = MaybeUninit::uninit();
        // SAFETY: `self.0` is initialized and `before` has room for the old set.
        let result = unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, before.as_mut_ptr())
        };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        // SAFETY: the call succeeded and so filled `before`.
        Ok(Self(unsafe { before.assume_init() }))
    }
}

impl Signals {
    /// Opens a file from which the signals in `mask` are read. They must be blocked.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open(mask: &Mask) -> io::Result<Self> {
        // SAFETY: the set is initialized and only read; -1 asks for a new descriptor.
        let fd = unsafe {
            libc::signalfd(-1, &raw const mask.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call just made this descriptor and gave it to us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes the next signal; `None` where none is pending.
    ///
    /// # Errors
    /// `EINTR`.
    pub fn take(&self) -> io::Result<Option<Received>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        // SAFETY: the buffer has room for one record, for which any bytes are valid.
        let (count, info) = unsafe {
            let size = size_of::<libc::signalfd_siginfo>();
            (libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size), info.assume_init())
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
        }
        let signal = Signal::from_named_raw(info.ssi_signo.cast_signed());
        Ok(signal.map(|signal| Received { signal, by_process: info.ssi_code <= libc::SI_USER }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_blocked_signal_and_its_sender() {
        // Blocked in this thread only, and raised for this thread only.
        let mask = Mask::of(&[Signal::USR2]);
        let before = mask.apply().unwrap();
        let signals = Signals::open(&mask).unwrap();
        assert_eq!(signals.take().unwrap(), None);
        // SAFETY: sends a signal to the calling thread, which blocks it.
        unsafe { libc::raise(libc::SIGUSR2) };
        let received = signals.take().unwrap();
        assert_eq!(received, Some(Received { signal: Signal::USR2, by_process: true }));
        before.apply().unwrap();
    }
}
