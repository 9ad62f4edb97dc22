//! The struct that a command's argument points to.
//!
//! Takes no lock. Knows no command.

use uapi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Caller, Refusal};

/// A pointer into the caller's memory.
#[derive(Clone, Copy)]
pub(crate) struct Argument<'a> {
    /// The thread that passed it.
    pub(crate) caller: &'a dyn Caller,
    /// Where it points.
    pub(crate) at: u64,
}

impl Argument<'_> {
    /// Tells the caller's side why something is refused, and makes it a number.
    pub(crate) fn refused(&self) -> impl Fn(Refusal) -> Errno + Copy + '_ {
        |refusal| {
            self.caller.refused(&refusal);
            refusal.errno()
        }
    }

    /// Reads the first `least` bytes of a struct that begins with `argsz`; the rest is zero.
    ///
    /// # Errors
    /// - [`Refusal::Unreachable`] – `least` bytes cannot be read (`EFAULT`).
    /// - [`Refusal::Argsz`] – `argsz` is less than `least` (`EINVAL`).
    pub(crate) fn read<T: Struct>(&self, least: usize) -> Result<T, Refusal> {
        let mut value = T::new_zeroed();
        let bytes = value.as_mut_bytes();
        self.caller.read(self.at, &mut bytes[..least])?;
        check_argsz(bytes, least)?;
        Ok(value)
    }

    /// Reads a struct that begins with `argsz` by the rule for structs that may grow: what the caller
    /// leaves out is zero, what it has beyond ours must be.
    ///
    /// # Errors
    /// - [`Refusal::Unreachable`] – not readable (`EFAULT`).
    /// - [`Refusal::Argsz`] – `argsz` is less than `least` (`EINVAL`).
    /// - [`Refusal::DirtyTail`] – a byte beyond the struct is not zero (`E2BIG`).
    pub(crate) fn read_extensible<T: Struct>(&self, least: usize) -> Result<T, Refusal> {
        let mut value = T::new_zeroed();
        let bytes = value.as_mut_bytes();
        self.caller.read(self.at, &mut bytes[..ARGSZ_SIZE])?;
        let argsz = check_argsz(bytes, least)? as usize;
        self.check_tail(bytes.len(), argsz)?;
        let known = argsz.min(bytes.len());
        self.caller.read(self.at, &mut bytes[..known])?;
        Ok(value)
    }

    /// Reads bytes `offset..offset + into.len()` of what the argument points to.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<(), Refusal> {
        if into.is_empty() {
            return Ok(());
        }
        Ok(self.caller.read(self.address(offset)?, into)?)
    }

    /// Writes bytes from `offset` on.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn write_at(&self, offset: usize, from: &[u8]) -> Result<(), Refusal> {
        Ok(self.caller.write(self.address(offset)?, from)?)
    }

    fn address(&self, offset: usize) -> Result<u64, Refusal> {
        self.at.checked_add(offset as u64).ok_or(Refusal::Unreachable)
    }

    fn check_tail(&self, known: usize, argsz: usize) -> Result<(), Refusal> {
        let mut buffer = [0; TAIL_CHUNK];
        let mut offset = known;
        while offset < argsz {
            let chunk = &mut buffer[..TAIL_CHUNK.min(argsz - offset)];
            let readable = self.caller.read_prefix(self.address(offset)?, chunk);
            if chunk.iter().take(readable).any(|&byte| byte != 0) {
                return Err(Refusal::DirtyTail { known });
            }
            if readable < chunk.len() {
                return Err(Refusal::Unreachable);
            }
            offset += chunk.len();
        }
        Ok(())
    }
}

/// What an ABI struct is made of.
pub(crate) trait Struct: FromBytes + IntoBytes + KnownLayout + Immutable {}
impl<T: FromBytes + IntoBytes + KnownLayout + Immutable> Struct for T {}

/// Bytes of the size field that every argument begins with.
const ARGSZ_SIZE: usize = size_of::<u32>();
/// Bytes of a tail that are looked at together.
const TAIL_CHUNK: usize = 4096;

fn check_argsz(bytes: &[u8], least: usize) -> Result<u32, Refusal> {
    let given = bytes.first_chunk().map_or(0, |first| u32::from_le_bytes(*first));
    if (given as usize) < least {
        let least = u32::try_from(least).unwrap_or(u32::MAX);
        return Err(Refusal::Argsz { given, least });
    }
    Ok(given)
}
