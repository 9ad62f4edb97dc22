//! The commands that map and unmap: `IOMMU_IOAS_MAP`, `IOMMU_IOAS_MAP_FILE`, `IOMMU_IOAS_COPY`, `IOMMU_IOAS_UNMAP`.
//!
//! Each decodes, checks what is the command's own, and leaves the rest to [`Ioas`]. Takes no lock itself.
//! Source: [uapi/iommufd.h]; order of checks from v7.3 `ioas.c`.

use std::sync::Arc;

use span::Span;
use uapi::iommufd::{IoasCopy, IoasMap, IoasMapFile, IoasUnmap, map_flags};

use crate::area::{Area, Rights};
use crate::dispatch::Exchange;
use crate::ioas::Ioas;
use crate::placement::Placement;
use crate::{Caller, Context, FileFault, Refusal, Source};

/// Maps the caller's memory: `IOMMU_IOAS_MAP`.
///
/// # Errors
/// In this order:
/// - [`Refusal::UnknownFlags`], [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::PastTop`] (`EOVERFLOW`): `iova` or `length` is all ones.
/// - [`Refusal::NoAccess`] (`EINVAL`)
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::PastTop`] (`EOVERFLOW`): `user_va` plus `length`.
/// - as [`Area::new`] (`EINVAL`), then as [`Ioas::map`].
/// - [`Refusal::Unreachable`] (`EFAULT`): the answer cannot be written. **The mapping stays.**
pub(crate) fn map(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: IoasMap = exchange.argument();
    exchange.refuse_flags(argument.flags, MAP_FLAGS)?;
    exchange.refuse_reserved(argument.reserved)?;
    refuse_all_ones(argument.iova, argument.length)?;
    let rights = Rights::from_flags(argument.flags)?;
    let ioas = ctx.get::<Ioas>(argument.ioas_id)?;
    refuse_overflow(argument.user_va, argument.length)?;
    let memory = ctx.mapped_by(exchange.caller(), exchange.caller().memory());
    let area = Area::new(memory, argument.user_va, argument.length, rights)?;
    let span = ioas.map(area, placement(argument.flags, argument.iova))?;
    argument.iova = span.start();
    exchange.respond(&argument)
}

/// Maps a file of the caller's: `IOMMU_IOAS_MAP_FILE`.
///
/// # Errors
/// As [`map`], but for no reserved field, and for these after [`Refusal::NoObject`]:
/// - [`Refusal::Empty`] (`EINVAL`)
/// - [`Refusal::PastTop`] (`EOVERFLOW`): `start` plus `length`.
/// - a dma-buf: [`DmaBufRefusal::PastEnd`](crate::DmaBufRefusal::PastEnd) (`EINVAL`),
///   [`DmaBufRefusal::Revoked`](crate::DmaBufRefusal::Revoked) (`ENODEV`),
///   [`DmaBufRefusal::SeveralRanges`](crate::DmaBufRefusal::SeveralRanges) (`EOPNOTSUPP`).
/// - [`Refusal::BadFd`] (`EBADF`). What other kind of file it is shows only when it is pinned.
pub(crate) fn map_file(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: IoasMapFile = exchange.argument();
    exchange.refuse_flags(argument.flags, MAP_FLAGS)?;
    refuse_all_ones(argument.iova, argument.length)?;
    let rights = Rights::from_flags(argument.flags)?;
    let ioas = ctx.get::<Ioas>(argument.ioas_id)?;
    if argument.length == 0 {
        return Err(Refusal::Empty);
    }
    refuse_overflow(argument.start, argument.length)?;
    let fd = argument.fd;
    let file = match exchange.caller().dma_buf(fd) {
        // Nobody is charged for what is a device's.
        Ok(buffer) => Arc::new(buffer.import(ctx, argument.start, argument.length)?),
        Err(FileFault::Closed | FileFault::OtherKind) => file_memory(ctx, exchange.caller(), fd)?,
    };
    let area = Area::new(file, argument.start, argument.length, rights)?;
    let span = ioas.map(area, placement(argument.flags, argument.iova))?;
    argument.iova = span.start();
    exchange.respond(&argument)
}

/// Maps in one address space what another maps, or the same: `IOMMU_IOAS_COPY`. One area for each that the source has
/// there. What is pinned is shared, and not pinned again.
///
/// # Errors
/// In this order:
/// - [`Refusal::UnknownFlags`] (`EOPNOTSUPP`)
/// - [`Refusal::PastTop`] (`EOVERFLOW`): `length`, `src_iova` or `dst_iova` is all ones.
/// - [`Refusal::NoAccess`] (`EINVAL`)
/// - [`Refusal::NoObject`] (`ENOENT`): the source.
/// - [`Refusal::Empty`] (`EINVAL`), [`Refusal::PastTop`] (`EOVERFLOW`)
/// - [`Refusal::NotCovered`] (`ENOENT`)
/// - [`Refusal::NoObject`] (`ENOENT`): the destination.
/// - as [`Ioas::map`]; [`Refusal::ReadOnly`] (`EPERM`) after what is wrong with the place.
/// - [`Refusal::Unreachable`] (`EFAULT`): the answer cannot be written. **The copy stays.**
pub(crate) fn copy(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: IoasCopy = exchange.argument();
    exchange.refuse_flags(argument.flags, MAP_FLAGS)?;
    refuse_all_ones(argument.src_iova, argument.length)?;
    refuse_all_ones(argument.dst_iova, argument.length)?;
    let rights = Rights::from_flags(argument.flags)?;
    let pieces = {
        let source = ctx.get::<Ioas>(argument.src_ioas_id)?;
        if argument.length == 0 {
            return Err(Refusal::Empty);
        }
        let asked = Span::new(argument.src_iova, argument.length)
            .ok_or(Refusal::PastTop { start: argument.src_iova, length: argument.length })?;
        source.space.lock().pieces(asked, rights)?
    };
    let target = ctx.get::<Ioas>(argument.dst_ioas_id)?;
    let span = target.map_pieces(pieces, placement(argument.flags, argument.dst_iova))?;
    argument.dst_iova = span.start();
    exchange.respond(&argument)
}

/// Unmaps whole areas: `IOMMU_IOAS_UNMAP`. When it returns no DMA reaches them any more.
///
/// Address 0 with a length of all ones means everything, which succeeds where nothing is mapped.
///
/// # Errors
/// In this order:
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::PastTop`] (`EOVERFLOW`): `iova` or `length` is all ones.
/// - [`Refusal::Empty`] (`EINVAL`)
/// - [`Refusal::PastTop`] (`EOVERFLOW`): the span passes the top.
/// - as [`Ioas::unmap`] (`EBUSY`, `ENOENT`); areas below the one that refused are gone.
/// - [`Refusal::NothingMapped`] (`ENOENT`)
/// - [`Refusal::Unreachable`] (`EFAULT`): the answer cannot be written; the areas are gone.
pub(crate) fn unmap(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: IoasUnmap = exchange.argument();
    let ioas = ctx.get::<Ioas>(argument.ioas_id)?;
    if (argument.iova, argument.length) == (0, ALL_ONES) {
        argument.length = ioas.unmap(ctx, Span::WHOLE)?;
        // This succeeds even where another thread's UNMAP took the areas and still waits for DMA.
        ctx.outwait_dma();
        return exchange.respond(&argument);
    }
    refuse_all_ones(argument.iova, argument.length)?;
    if argument.length == 0 {
        return Err(Refusal::Empty);
    }
    let asked = Span::new(argument.iova, argument.length)
        .ok_or(Refusal::PastTop { start: argument.iova, length: argument.length })?;
    argument.length = ioas.unmap(ctx, asked)?;
    if argument.length == 0 {
        return Err(Refusal::NothingMapped { asked });
    }
    exchange.respond(&argument)
}

fn file_memory(ctx: &Context, caller: &dyn Caller, fd: i32) -> Result<Arc<dyn Source>, Refusal> {
    let file = caller.file_memory(fd).map_err(|fault| match fault {
        FileFault::Closed | FileFault::OtherKind => Refusal::BadFd { fd },
    })?;
    Ok(ctx.mapped_by(caller, file))
}

const MAP_FLAGS: u32 = map_flags::FIXED_IOVA | map_flags::WRITEABLE | map_flags::READABLE;

/// Never a valid address or length.
const ALL_ONES: u64 = u64::MAX;

const fn refuse_all_ones(start: u64, length: u64) -> Result<(), Refusal> {
    if start == ALL_ONES || length == ALL_ONES {
        return Err(Refusal::PastTop { start, length });
    }
    Ok(())
}

/// Refuses memory whose end, which is open, is no address.
pub(crate) const fn refuse_overflow(start: u64, length: u64) -> Result<(), Refusal> {
    match start.checked_add(length) {
        Some(_) => Ok(()),
        None => Err(Refusal::PastTop { start, length }),
    }
}

const fn placement(flags: u32, iova: u64) -> Placement {
    if flags & map_flags::FIXED_IOVA == 0 { Placement::Automatic } else { Placement::Fixed(iova) }
}
