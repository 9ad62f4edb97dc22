//! Seccomp filters: the instructions of classic BPF that such filters need, and their installation
//! with a listener.
//!
//! Takes no lock. Source: [uapi/seccomp.h], [uapi/filter.h], seccomp_unotify(2).

#![expect(unsafe_code, reason = "UNSAFETY: seccomp(2) reads the program through a pointer we pass")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::notify::Listener;

/// One instruction of classic BPF, as the kernel lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do: one of the constants in [`code`].
    pub code: u16,
    /// Instructions to skip where a comparison holds.
    pub skip_if: u8,
    /// Instructions to skip where it does not.
    pub skip_else: u8,
    /// The operand.
    pub operand: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());

/// Instruction codes, each with the accumulator as its subject.
pub mod code {
    /// Load the 32-bit word at byte `operand` of `seccomp_data`.
    pub const LOAD: u16 = 0x20;
    /// Mask with `operand`.
    pub const AND: u16 = 0x54;
    /// Compare for equality with `operand`.
    pub const JUMP_EQUAL: u16 = 0x15;
    /// Compare, unsigned: greater than `operand`.
    pub const JUMP_GREATER: u16 = 0x25;
    /// Compare, unsigned: `operand` or more.
    pub const JUMP_AT_LEAST: u16 = 0x35;
    /// End with the verdict `operand`.
    pub const RETURN: u16 = 0x06;
}

/// Verdicts of a filter.
pub mod verdict {
    /// The call goes on to the kernel.
    pub const ALLOW: u32 = 0x7fff_0000;
    /// The call waits for the listener.
    pub const NOTIFY: u32 = 0x7fc0_0000;
}

/// A 32-bit word of what a filter sees of a call (`struct seccomp_data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The call's number.
    Number,
    /// The calling convention ([`ARCHITECTURE`] for our own).
    Architecture,
    /// Low half of argument 0..6.
    ArgumentLow(u8),
    /// High half of argument 0..6.
    ArgumentHigh(u8),
}

impl Word {
    /// Byte offset in `seccomp_data`, on a little-endian machine.
    pub const fn offset(self) -> u32 {
        match self {
            Self::Number => 0,
            Self::Architecture => 4,
            Self::ArgumentLow(index) => 16 + 8 * index as u32,
            Self::ArgumentHigh(index) => 20 + 8 * index as u32,
        }
    }
}

/// `AUDIT_ARCH_*` of this build.
#[cfg(target_arch = "x86_64")]
pub const ARCHITECTURE: u32 = 0xc000_003e;
/// `AUDIT_ARCH_*` of this build.
#[cfg(target_arch = "aarch64")]
pub const ARCHITECTURE: u32 = 0xc000_00b7;

/// Puts the calling thread, and all it will fork or execute, under `program`, and returns the
/// listener that gets what the program notifies. A caller whose thread was received by the listener
/// can then only be killed, not interrupted.
///
/// # Errors
/// - `EACCES` – neither no_new_privs nor CAP_SYS_ADMIN.
/// - `EBUSY` – the thread already has a listener.
/// - `EINVAL` – the program is malformed, or the kernel knows no listener or older than 5.19.
pub fn install(program: &[Instruction]) -> io::Result<Listener> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let kernel_program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast::<libc::sock_filter>(),
    };
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: `kernel_program` points to `len` instructions whose layout is the kernel's (asserted
    // above); the kernel copies them and writes nothing.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const kernel_program,
        )
    };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the call just made this descriptor and gave it to us alone.
    Ok(Listener::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}
