//! `IOMMU_IOAS_NOIOMMU_GET_PA`: where memory behind an address lies, for clients of devices without an IOMMU.
//!
//! Every device here has one, so what is left are the refusals, those of a kernel built with `CONFIG_IOMMUFD_NOIOMMU`.
//! Takes no lock itself. Source: [uapi/iommufd.h]; order of checks from v7.3 `ioas.c`, `io_pagetable.c`.

use std::sync::Arc;

use span::Span;
use uapi::iommufd::IoasNoiommuGetPa;

use crate::area::Rights;
use crate::dispatch::Exchange;
use crate::ioas::Ioas;
use crate::{Context, DmaBufRefusal, Refusal};

/// Refuses to tell a physical address.
///
/// # Errors
/// Always. In this order:
/// - [`Refusal::NotPrivileged`] (`EPERM`): no `CAP_SYS_RAWIO`.
/// - [`Refusal::UnknownFlags`], [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::Empty`] (`EINVAL`)
/// - [`Refusal::PastTop`] (`EOVERFLOW`): `iova` is all ones.
/// - [`Refusal::NoObject`] (`ENOENT`), [`Refusal::NotCovered`] (`ENOENT`)
/// - [`DmaBufRefusal::NotForSoftware`] (`EINVAL`): a dma-buf that was taken back.
/// - [`Refusal::Unsupported`] (`EOPNOTSUPP`)
pub(crate) fn get(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    if !exchange.caller().may_do_raw_io() {
        return Err(Refusal::NotPrivileged);
    }
    let argument: IoasNoiommuGetPa = exchange.argument();
    exchange.refuse_flags(argument.flags, 0)?;
    exchange.refuse_reserved(argument.reserved)?;
    let IoasNoiommuGetPa { ioas_id, iova, length, .. } = argument;
    if length == 0 {
        return Err(Refusal::Empty);
    }
    let past = Refusal::PastTop { start: iova, length };
    let asked = Span::from_ends(iova, iova).filter(|_| iova != u64::MAX).ok_or(past)?;
    let ioas = ctx.get::<Ioas>(ioas_id)?;
    let pieces = ioas.space.lock().pieces(asked, Rights { read: true, write: false })?;
    let mut imports = pieces.iter().filter_map(|piece| piece.area.source.import());
    if imports.any(|import| import.is_ended()) {
        return Err(DmaBufRefusal::NotForSoftware { iova }.into());
    }
    Err(Refusal::Unsupported { feature: "addresses of memory that no IOMMU translates" })
}
