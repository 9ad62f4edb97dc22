//! Accesses made by a client: each behind an open file of its own, which ends it when it is closed.
//!
//! `ended` is OBJECTS, a leaf.

use std::sync::Arc;

use sync::{Mutex, rank};
use uapi::Errno;

use super::{TestCommand, failure};
use crate::access::{Access, Transfer};
use crate::address_space::PinnedPart;
use crate::dispatch::Exchange;
use crate::{Context, FileFault, PAGE_SIZE, Refusal, Resource};

/// An open file that an access lives behind.
pub struct AccessFile {
    ctx: Arc<Context>,
    access: Arc<Access>,
    ended: Mutex<rank::Objects, bool>,
}

impl AccessFile {
    /// Ends the access, if that has not been done: the file is released.
    pub fn release(&self) {
        let ended = std::mem::replace(&mut *self.ended.lock(), true);
        if !ended {
            self.access.end(&self.ctx);
        }
    }

    /// The context that it was made on, which it keeps open.
    pub const fn context(&self) -> &Arc<Context> {
        &self.ctx
    }
}

/// Flags of a new access.
mod create_flags {
    /// It pins.
    pub(super) const PINS: u32 = 1 << 0;
}

/// Flags of what an access does.
mod use_flags {
    pub(super) const WRITE: u32 = 1 << 0;
    /// Copies the slow way, which is the only one here.
    pub(super) const SLOW: u32 = 1 << 2;
    /// The address is the number of an area (low half) and an offset into it.
    pub(super) const BY_AREA: u32 = 1 << 16;
}

/// Bytes pinned or copied at once at most.
const BYTES_MOST: u64 = 16 << 20;

/// Makes an access on address space `id`, and answers the descriptor of its file.
///
/// # Errors
/// `EOPNOTSUPP` for unknown flags; as [`Access::create`]; `ENOMEM` where the client can have no more files;
/// [`Refusal::Unreachable`] (`EFAULT`). There is no access then, and no descriptor.
pub(super) fn create(
    ctx: &Arc<Context>,
    exchange: &Exchange<'_>,
    mut argument: TestCommand,
) -> Result<(), Refusal> {
    const NONE: u32 = u32::MAX;
    exchange.refuse_flags(argument.fields[1], create_flags::PINS)?;
    let access = Access::create(ctx, argument.id, argument.fields[1] & create_flags::PINS != 0)?;
    let quota = ctx.quota();
    let file = Arc::new(AccessFile { ctx: Arc::clone(ctx), access, ended: Mutex::new(false) });
    // A descriptor cannot be taken back: so whether one can be told is found out first.
    argument.fields[0] = NONE;
    let installed = exchange.rewrite(&argument).and_then(|()| {
        quota.admit(Resource::Buffer, 1)?;
        let installed = exchange.caller().install_access(&file);
        installed.map_err(|_| failure("no descriptor", Errno::ENOMEM))
    });
    match installed {
        Ok(fd) => {
            argument.fields[0] = fd.cast_unsigned();
            exchange.rewrite(&argument)
        }
        Err(refusal) => {
            file.release();
            Err(refusal)
        }
    }
}

/// Pins pages, and says whether they are those at an address of the caller's, if one is given. Answers the number of the
/// pin.
///
/// # Errors
/// In this order: `ENOMEM` for too much at once, `EOPNOTSUPP` for unknown flags, `EBADFD`, `EOPNOTSUPP` for an access
/// that does not pin, as [`Access::pin`], `EFAULT` and `EBADE` for other pages, [`Refusal::Unreachable`] (`EFAULT`).
/// Nothing is pinned then.
pub(super) fn pin(exchange: &Exchange<'_>, mut argument: TestCommand) -> Result<(), Refusal> {
    let (iova, length, at) = (argument.long(2), argument.long(4), argument.long(6));
    let flags = argument.fields[0];
    refuse_much(length)?;
    exchange.refuse_flags(flags, use_flags::WRITE | use_flags::BY_AREA)?;
    let file = file(exchange, argument.id)?;
    let access = &file.access;
    if !access.pins() {
        return Err(failure("the access does not pin", Errno::EOPNOTSUPP));
    }
    let iova = address(access, iova, flags)?;
    let (number, parts) = access.pin(iova, length, flags & use_flags::WRITE != 0)?;
    argument.fields[1] = number;
    let kept = check_pages(exchange, &parts, at, iova).and_then(|()| exchange.respond(&argument));
    kept.inspect_err(|_| {
        // Gone already, where the area was unmapped meanwhile.
        let _ = access.unpin(number);
    })
}

/// Gives back what was pinned.
///
/// # Errors
/// `EBADFD`; as [`Access::unpin`] (`ENOENT`).
pub(super) fn unpin(exchange: &Exchange<'_>, argument: &TestCommand) -> Result<(), Refusal> {
    file(exchange, argument.id)?.access.unpin(argument.fields[0])
}

/// Copies between the caller's memory and what is mapped.
///
/// # Errors
/// In this order: `ENOMEM` for too much at once, `EOPNOTSUPP` for unknown flags, `EBADFD`, [`Refusal::Unreachable`]
/// (`EFAULT`) for bytes to be written, as [`Access::copy`], [`Refusal::Unreachable`] (`EFAULT`) for bytes read.
pub(super) fn copy(exchange: &Exchange<'_>, argument: &TestCommand) -> Result<(), Refusal> {
    let (iova, length, at) = (argument.long(0), argument.long(2), argument.long(4));
    let flags = argument.fields[6];
    refuse_much(length)?;
    exchange.refuse_flags(flags, use_flags::WRITE | use_flags::SLOW | use_flags::BY_AREA)?;
    let file = file(exchange, argument.id)?;
    let iova = address(&file.access, iova, flags)?;
    file.ctx.quota().admit(Resource::Buffer, 1)?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    if flags & use_flags::WRITE != 0 {
        exchange.caller().read(at, &mut bytes)?;
        return file.access.copy(&file.ctx, iova, &mut Transfer::Write(&bytes));
    }
    file.access.copy(&file.ctx, iova, &mut Transfer::Read(&mut bytes))?;
    Ok(exchange.caller().write(at, &bytes)?)
}

/// Moves an access to another address space.
///
/// # Errors
/// `EBADFD`; as [`Access::replace`] (`ENOENT`, `EADDRINUSE`).
pub(super) fn replace(exchange: &Exchange<'_>, argument: &TestCommand) -> Result<(), Refusal> {
    let file = file(exchange, argument.id)?;
    file.access.replace(&file.ctx, argument.fields[0])
}

fn refuse_much(length: u64) -> Result<(), Refusal> {
    if length > BYTES_MOST { Err(failure("too much at once", Errno::ENOMEM)) } else { Ok(()) }
}

fn file(exchange: &Exchange<'_>, fd: u32) -> Result<Arc<AccessFile>, Refusal> {
    let found = exchange.caller().access(fd.cast_signed());
    found.map_err(|(FileFault::Closed | FileFault::OtherKind)| failure("no access", Errno::EBADFD))
}

/// The address meant: that of an offset into the nth area where the flags say so, which is 0 if there is none.
fn address(access: &Access, iova: u64, flags: u32) -> Result<u64, Refusal> {
    if flags & use_flags::BY_AREA == 0 {
        return Ok(iova);
    }
    let (number, offset) = (iova & u64::from(u32::MAX), iova >> u32::BITS);
    let area = access.nth_area(usize::try_from(number).unwrap_or(usize::MAX))?;
    Ok(area.map_or(0, |area| area.start().wrapping_add(offset)))
}

/// Says whether what was pinned from `iova` on are the caller's pages at `at`, if that is not 0.
fn check_pages(
    exchange: &Exchange<'_>,
    parts: &[PinnedPart],
    at: u64,
    iova: u64,
) -> Result<(), Refusal> {
    if at == 0 {
        return Ok(());
    }
    let mut theirs = at.wrapping_sub(iova % PAGE_SIZE);
    for part in parts {
        let (first, end) = (part.at & !(PAGE_SIZE - 1), part.at.saturating_add(part.length));
        let pages = end.saturating_sub(first).div_ceil(PAGE_SIZE);
        for page in 0..pages {
            let wanted = exchange.caller().page(theirs).ok_or(Refusal::Unreachable)?;
            if part.memory.page(first + page * PAGE_SIZE) != Some(wanted) {
                return Err(failure("another page is pinned", Errno::EBADE));
            }
            theirs = theirs.wrapping_add(PAGE_SIZE);
        }
    }
    Ok(())
}
