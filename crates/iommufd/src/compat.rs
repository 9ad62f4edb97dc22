//! VFIO's container commands on a context: type1 as iommufd serves it, and `IOMMU_VFIO_IOAS`.
//!
//! These commands name no IOAS. They work on the context's *compatibility IOAS*, which the first VFIO group that
//! takes the context as its container brings along, or a client names. The context does not hold it: an IOAS that
//! is destroyed is the compatibility IOAS no more.
//!
//! Type1 of version 1 may unmap any part of what was mapped, so there areas are cut where an unmap begins and ends.
//!
//! Takes OBJECTS for a look at which IOAS that is, and what the operations on it take. Deliberately absent: no-IOMMU
//! mode, which no device of ours asks for. Source: [uapi/vfio.h]; order of checks from v7.3 `vfio_compat.c`.

use std::sync::{Arc, Weak};

use uapi::iommufd::{VfioIoas, vfio_ioas_op};
use uapi::vfio::{
    IommuType1DmaMap, IommuType1DmaUnmap, api, dma_map_flags, dma_unmap_flags, extension,
};
use uapi::{CommandId, FileKind};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::area::{Area, Rights};
use crate::dispatch::Exchange;
use crate::ioas::Ioas;
use crate::mapping::refuse_overflow;
use crate::object::Pending;
use crate::placement::Placement;
use crate::registry::{Headed, Held};
use crate::{Caller, Context, PAGE_SIZE, Refusal};

mod info;

/// Runs a container's command on a context.
///
/// # Errors
/// - [`Refusal::UnknownCommand`] (`ENOTTY`): not a container's command, or the log of written pages, which type1 on an
///   iommufd does not have. No memory is touched.
/// - the command's own.
pub(crate) fn run(
    ctx: &Arc<Context>,
    caller: &dyn Caller,
    request: u32,
    argument: u64,
) -> Result<u32, Refusal> {
    let command = uapi::lookup(FileKind::VfioContainer, ctx.profile(), request);
    match command.map(|command| command.id) {
        Some(CommandId::GetApiVersion) => Ok(api::VERSION),
        Some(CommandId::CheckExtension) => check_extension(ctx, argument),
        Some(CommandId::SetIommu) => set_iommu(ctx, argument),
        Some(CommandId::IommuGetInfo) => info::get(ctx, caller, argument),
        Some(CommandId::IommuMapDma) => map_dma(ctx, caller, argument),
        Some(CommandId::IommuUnmapDma) => unmap_dma(ctx, caller, argument),
        _ => Err(Refusal::UnknownCommand { request }),
    }
}

/// Tells, sets or clears the compatibility IOAS: `IOMMU_VFIO_IOAS`.
///
/// # Errors
/// - [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - GET: [`Refusal::NoCompatIoas`] (`ENODEV`), [`Refusal::Unreachable`] (`EFAULT`).
/// - SET: [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::NoSuchOperation`] (`EOPNOTSUPP`)
pub(crate) fn vfio_ioas(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: VfioIoas = exchange.argument();
    exchange.refuse_reserved(u32::from(argument.reserved))?;
    match argument.op {
        vfio_ioas_op::GET => {
            argument.ioas_id = ctx.compat_ioas()?.header().id();
            exchange.respond(&argument)
        }
        vfio_ioas_op::SET => {
            let ioas = ctx.get::<Ioas>(argument.ioas_id)?;
            ctx.set_compat(Arc::downgrade(&ioas));
            Ok(())
        }
        vfio_ioas_op::CLEAR => {
            ctx.set_compat(Weak::new());
            Ok(())
        }
        op => Err(Refusal::NoSuchOperation { op: u32::from(op) }),
    }
}

impl Context {
    /// Sees to it that there is a compatibility IOAS: a VFIO group takes the context as its container.
    ///
    /// # Errors
    /// [`Refusal::OutOfIds`] (`ENOMEM`).
    ///
    /// Takes OBJECTS. [uapi/vfio.h]
    pub fn ensure_compat_ioas(self: &Arc<Self>) -> Result<(), Refusal> {
        loop {
            let seen = self.compat();
            if seen.upgrade().and_then(Held::try_new).is_some() {
                return Ok(());
            }
            let pending = Pending::build(self, |header| Ok(Ioas::new(self, header)))?;
            if self.replace_compat(&seen, Arc::downgrade(&pending)) {
                pending.publish();
                return Ok(());
            }
        }
    }

    /// The compatibility IOAS, by its id.
    ///
    /// # Errors
    /// [`Refusal::NoCompatIoas`] (`ENODEV`): none was set, or it was destroyed.
    ///
    /// Takes OBJECTS.
    pub fn compat_ioas_id(&self) -> Result<u32, Refusal> {
        Ok(self.compat_ioas()?.header().id())
    }

    fn compat_ioas(&self) -> Result<Held<Arc<Ioas>>, Refusal> {
        self.compat().upgrade().and_then(Held::try_new).ok_or(Refusal::NoCompatIoas)
    }
}

/// `VFIO_CHECK_EXTENSION`: 1 for what is served.
///
/// # Errors
/// [`Refusal::NoCompatIoas`] (`ENODEV`): asked about cache coherency, which is an IOAS's.
fn check_extension(ctx: &Arc<Context>, asked: u64) -> Result<u32, Refusal> {
    match asked {
        extension::TYPE1_IOMMU | extension::TYPE1V2_IOMMU | extension::UNMAP_ALL => Ok(1),
        // A device whose IOMMU is not coherent is bound to no context.
        extension::DMA_CC_IOMMU => ctx.compat_ioas().map(|_| 1),
        _ => Ok(0),
    }
}

/// `VFIO_SET_IOMMU`: type1 of version 1 or 2. May be repeated.
///
/// # Errors
/// - [`Refusal::NoSuchIommu`] (`EINVAL`)
/// - [`Refusal::NoCompatIoas`] (`ENODEV`): no group has the context as its container.
/// - version 1: as [`Ioas::disable_large_pages`] (`EINVAL`, `EADDRINUSE`).
fn set_iommu(ctx: &Arc<Context>, asked: u64) -> Result<u32, Refusal> {
    if asked != extension::TYPE1_IOMMU && asked != extension::TYPE1V2_IOMMU {
        return Err(Refusal::NoSuchIommu { asked });
    }
    let ioas = ctx.compat_ioas()?;
    if asked == extension::TYPE1_IOMMU {
        ioas.disable_large_pages()?;
    }
    Ok(0)
}

/// `VFIO_IOMMU_MAP_DMA`: maps the caller's memory where it says. A mapping that devices may neither read nor write is
/// taken.
///
/// # Errors
/// In this order:
/// - [`Refusal::Unreachable`] (`EFAULT`), [`Refusal::ShortArgument`], [`Refusal::TypeOneFlags`] (`EINVAL`)
/// - [`Refusal::NoCompatIoas`] (`ENODEV`)
/// - [`Refusal::PastTop`] (`EOVERFLOW`): `vaddr` plus `size`.
/// - as [`Area::new`] (`EINVAL`), then as [`Ioas::map`].
fn map_dma(ctx: &Arc<Context>, caller: &dyn Caller, at: u64) -> Result<u32, Refusal> {
    let asked: IommuType1DmaMap = read(caller, at)?;
    let known = dma_map_flags::READ | dma_map_flags::WRITE;
    check_head(asked.argsz, size_of_val(&asked), asked.flags, known)?;
    let ioas = ctx.compat_ioas()?;
    refuse_overflow(asked.vaddr, asked.size)?;
    let rights = Rights {
        read: asked.flags & dma_map_flags::READ != 0,
        write: asked.flags & dma_map_flags::WRITE != 0,
    };
    let area = Area::new(ctx.mapped_by(caller, caller.memory()), asked.vaddr, asked.size, rights)?;
    ioas.map(area, Placement::Fixed(asked.iova))?;
    Ok(0)
}

/// `VFIO_IOMMU_UNMAP_DMA`: unmaps whole areas; with type1 of version 1 any part of them. Nothing mapped there is a
/// success. `size` comes back as the bytes that were unmapped, also where an area refused.
///
/// # Errors
/// In this order:
/// - [`Refusal::Unreachable`] (`EFAULT`), [`Refusal::ShortArgument`], [`Refusal::TypeOneFlags`] (`EINVAL`)
/// - [`Refusal::NoCompatIoas`] (`ENODEV`)
/// - [`Refusal::UnmapAllOfPart`] (`EINVAL`): all, and a range too.
/// - version 1: as [`Ioas::cut`].
/// - [`Refusal::Empty`] (`EINVAL`), [`Refusal::PastTop`] (`EOVERFLOW`)
/// - as [`Ioas::unmap`] (`EBUSY`, `ENOENT`); areas below the one that refused are gone.
/// - [`Refusal::Unreachable`] (`EFAULT`): the size cannot be written; the areas are gone.
fn unmap_dma(ctx: &Arc<Context>, caller: &dyn Caller, at: u64) -> Result<u32, Refusal> {
    let mut asked: IommuType1DmaUnmap = read(caller, at)?;
    check_head(asked.argsz, size_of_val(&asked), asked.flags, dma_unmap_flags::ALL)?;
    let ioas = ctx.compat_ioas()?;
    let (bytes, outcome) = if asked.flags & dma_unmap_flags::ALL != 0 {
        if asked.iova != 0 || asked.size != 0 {
            return Err(Refusal::UnmapAllOfPart);
        }
        let unmapped = ioas.unmap_counted(ctx, span::Span::WHOLE);
        // This succeeds even where another thread's unmapping took the areas and still waits for DMA.
        ctx.outwait_dma();
        unmapped
    } else {
        if !ioas.large_pages() {
            cut_around(ctx, &ioas, asked.iova, asked.size)?;
        }
        unmap_range(ctx, &ioas, asked.iova, asked.size)
    };
    asked.size = bytes;
    caller.write(at, asked.as_bytes())?;
    outcome.map(|()| 0)
}

/// Cuts areas so that none sticks out of the range.
fn cut_around(ctx: &Context, ioas: &Ioas, iova: u64, size: u64) -> Result<(), Refusal> {
    ioas.cut_after(ctx, iova.wrapping_add(size).wrapping_sub(1))?;
    match iova.checked_sub(1) {
        Some(before) => ioas.cut_after(ctx, before),
        None => Ok(()),
    }
}

fn unmap_range(ctx: &Context, ioas: &Ioas, iova: u64, size: u64) -> (u64, Result<(), Refusal>) {
    if size == 0 {
        return (0, Err(Refusal::Empty));
    }
    match span::Span::new(iova, size) {
        Some(asked) => ioas.unmap_counted(ctx, asked),
        None => (0, Err(Refusal::PastTop { start: iova, length: size })),
    }
}

/// Reads a whole struct before its `argsz` is looked at.
fn read<T: FromBytes + IntoBytes + Immutable + KnownLayout>(
    caller: &dyn Caller,
    at: u64,
) -> Result<T, Refusal> {
    let mut value = T::new_zeroed();
    caller.read(at, value.as_mut_bytes())?;
    Ok(value)
}

fn check_head(argsz: u32, least: usize, flags: u32, known: u32) -> Result<(), Refusal> {
    let least = u32::try_from(least).unwrap_or(u32::MAX);
    if argsz < least {
        return Err(Refusal::ShortArgument { given: argsz, least });
    }
    if flags & !known != 0 {
        return Err(Refusal::TypeOneFlags { flags });
    }
    Ok(())
}
