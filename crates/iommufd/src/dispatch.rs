//! What all commands have in common: finding one by its number, and the struct that goes both ways.
//!
//! The caller's struct begins with its own size, so that old programs work with new kernels and the other
//! way round: what the caller does not have counts as zero, what we do not know must be zero. One copy
//! brings size and body together. Takes no lock. Source: [uapi/iommufd.h]; v7.3 `iommufd_fops_ioctl()`.

use std::sync::Arc;

use uapi::{FileKind, Profile};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{Caller, Context, Refusal, commands, compat, mock};

/// Runs one command and returns what its system call does: 0, or what the command has left over.
///
/// # Errors
/// In this order:
/// - a number outside the table: as [`compat::run`] (`ENOTTY`, and a container's commands' own).
/// - [`Refusal::Unreachable`] (`EFAULT`): the size.
/// - [`Refusal::UnknownCommand`] (`ENOTTY`): a hole, a command not served, or wrong type or direction bits.
/// - [`Refusal::ShortArgument`] (`EINVAL`)
/// - [`Refusal::DirtyTail`] (`E2BIG`), [`Refusal::Unreachable`] (`EFAULT`): past the struct.
/// - [`Refusal::Unreachable`] (`EFAULT`): the struct.
/// - the command's own.
pub(crate) fn run(
    ctx: &Arc<Context>,
    caller: &dyn Caller,
    request: u32,
    address: u64,
) -> Result<u32, Refusal> {
    if let Some(machine) = ctx.mock().filter(|_| request == mock::REQUEST) {
        let (body, got) = read_body(caller, address, mock::BYTES as usize)?;
        let exchange = Exchange::new(caller, mock::BYTES_MIN, mock::BYTES, address, body, got)?;
        return mock::run(ctx, machine, &exchange);
    }
    let unknown = Refusal::UnknownCommand { request };
    let command = uapi::lookup(FileKind::Iommufd, ctx.profile(), request);
    if command.is_none() && !in_table(ctx.profile(), number(request)) {
        return compat::run(ctx, caller, request, address);
    }
    let wanted = command.map_or(SIZE_BYTES, |command| command.size as usize);
    let (body, got) = read_body(caller, address, wanted)?;
    let handler = command.and_then(|command| Some((command, commands::handler(command.id)?)));
    let Some((command, handler)) = handler.filter(|(command, _)| command.served) else {
        return Err(unknown);
    };
    let (least, known) = (command.min_size, command.size);
    let exchange = Exchange::new(caller, least, known, address, body, got)?;
    handler.run(ctx, &exchange)
}

/// The first `wanted` bytes of the caller's struct, as far as they can be read: its size at least.
fn read_body(
    caller: &dyn Caller,
    address: u64,
    wanted: usize,
) -> Result<([u8; BODY_MAX], usize), Refusal> {
    let mut body = [0; BODY_MAX];
    let got = caller.read_prefix(address, &mut body[..wanted]);
    if got < SIZE_BYTES { Err(Refusal::Unreachable) } else { Ok((body, got)) }
}

/// The number of a request: what selects a row, whatever the other bits.
const fn number(request: u32) -> u8 {
    request.to_le_bytes()[0]
}

/// Whether a number lies between the first and the last that `profile` has for `/dev/iommu`. Those below
/// are a container's.
fn in_table(profile: Profile, number: u8) -> bool {
    let rows = uapi::COMMANDS.iter();
    let numbers = rows
        .filter(|row| row.file == FileKind::Iommufd && row.profiles.contains(profile))
        .map(|row| self::number(row.request))
        .filter(|number| *number >= FIRST_NUMBER);
    numbers.max().is_some_and(|last| (FIRST_NUMBER..=last).contains(&number))
}

/// `IOMMU_DESTROY`'s. Type1's are below.
const FIRST_NUMBER: u8 = 0x80;

/// Bytes of the field that every struct begins with.
const SIZE_BYTES: usize = size_of::<u32>();

/// Bytes of the largest struct.
const BODY_MAX: usize = 128;

const _: () = {
    let mut index = 0;
    while index < uapi::COMMANDS.len() {
        let row = &uapi::COMMANDS[index];
        assert!(!matches!(row.file, FileKind::Iommufd) || row.size as usize <= BODY_MAX);
        index += 1;
    }
};

/// One command under way: its struct, and the caller's memory.
pub(crate) struct Exchange<'a> {
    caller: &'a dyn Caller,
    /// Where the caller's struct is.
    address: u64,
    /// Bytes of the struct that caller and we both know.
    shared: usize,
    /// Our struct as it came in, zero-extended.
    body: [u8; BODY_MAX],
}

impl<'a> Exchange<'a> {
    /// Judges the sizes, of a struct that has `size` bytes and at least so many. `body` holds the first `got` bytes that could be read of as many as we know.
    fn new(
        caller: &'a dyn Caller,
        least: u32,
        size: u32,
        address: u64,
        mut body: [u8; BODY_MAX],
        got: usize,
    ) -> Result<Self, Refusal> {
        let [a, b, c, d, ..] = body;
        let given = u32::from_ne_bytes([a, b, c, d]);
        if given < least {
            return Err(Refusal::ShortArgument { given, least });
        }
        let known = size as usize;
        if given > size {
            refuse_dirty_tail(caller, address, known, given as usize)?;
        }
        let shared = known.min(given as usize);
        if got < shared {
            return Err(Refusal::Unreachable);
        }
        body[shared..].fill(0);
        Ok(Self { caller, address, shared, body })
    }

    /// The command's struct.
    pub(crate) fn argument<T: FromBytes + Immutable>(&self) -> T {
        let (argument, _) =
            T::read_from_prefix(&self.body).expect("BODY_MAX holds every row's struct");
        argument
    }

    /// Writes the struct back, as much of it as the caller has; not at all if nothing changed.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn respond<T: IntoBytes + Immutable>(&self, answer: &T) -> Result<(), Refusal> {
        let answer = &answer.as_bytes()[..self.shared];
        if answer != &self.body[..self.shared] {
            self.caller.write(self.address, answer)?;
        }
        Ok(())
    }

    /// As [`respond`](Self::respond), also where nothing changed: after another answer was written.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn rewrite<T: IntoBytes + Immutable>(&self, answer: &T) -> Result<(), Refusal> {
        Ok(self.caller.write(self.address, &answer.as_bytes()[..self.shared])?)
    }

    /// Writes element `index` of an array at `address`.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn write_element(
        &self,
        address: u64,
        index: u32,
        element: &[u8],
    ) -> Result<(), Refusal> {
        let offset = u64::from(index) * element.len() as u64;
        let at = address.checked_add(offset).ok_or(Refusal::Unreachable)?;
        Ok(self.caller.write(at, element)?)
    }

    /// Writes `length` zero bytes at `address`.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`] (`EFAULT`): bytes before the one that cannot be written may be zero.
    pub(crate) fn write_zeros(&self, address: u64, length: u32) -> Result<(), Refusal> {
        let length = length as usize;
        let mut done = 0;
        while done < length {
            let now = (length - done).min(CHUNK);
            let at = address.checked_add(done as u64).ok_or(Refusal::Unreachable)?;
            self.caller.write(at, &[0; CHUNK][..now])?;
            done += now;
        }
        Ok(())
    }

    /// Reads a struct of which the caller has `length` bytes: what it does not have stays as it is in `into`, what we do
    /// not know must be zero.
    ///
    /// # Errors
    /// [`Refusal::DirtyTail`] (`E2BIG`), [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn read_extensible(
        &self,
        address: u64,
        length: u32,
        into: &mut [u8],
    ) -> Result<(), Refusal> {
        let (length, known) = (length as usize, into.len());
        if length > known {
            refuse_dirty_tail(self.caller, address, known, length)?;
        }
        Ok(self.caller.read(address, &mut into[..length.min(known)])?)
    }

    /// # Errors
    /// [`Refusal::UnknownFlags`] (`EOPNOTSUPP`).
    pub(crate) const fn refuse_flags(&self, flags: u32, known: u32) -> Result<(), Refusal> {
        match flags & !known {
            0 => Ok(()),
            unknown => Err(Refusal::UnknownFlags { flags: unknown }),
        }
    }

    /// # Errors
    /// [`Refusal::ReservedField`] (`EOPNOTSUPP`).
    pub(crate) const fn refuse_reserved(&self, field: u32) -> Result<(), Refusal> {
        if field == 0 { Ok(()) } else { Err(Refusal::ReservedField) }
    }

    /// Who asked.
    pub(crate) const fn caller(&self) -> &'a dyn Caller {
        self.caller
    }
}

/// Bytes compared or cleared at a time where the client says how many.
const CHUNK: usize = 4096;

/// Looks at bytes `known..given` of the caller's struct, ascending, until one is not zero or cannot be
/// read.
fn refuse_dirty_tail(
    caller: &dyn Caller,
    address: u64,
    known: usize,
    given: usize,
) -> Result<(), Refusal> {
    let mut offset = known;
    let mut chunk = [0; CHUNK];
    while offset < given {
        let now = CHUNK.min(given - offset);
        let at = address.checked_add(offset as u64).ok_or(Refusal::Unreachable)?;
        let got = caller.read_prefix(at, &mut chunk[..now]);
        if chunk[..got].iter().any(|byte| *byte != 0) {
            return Err(Refusal::DirtyTail { known });
        }
        if got < now {
            return Err(Refusal::Unreachable);
        }
        offset += now;
    }
    Ok(())
}
