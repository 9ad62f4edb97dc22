//! `IOMMU_IOAS_CHANGE_PROCESS`: a program that took over from another answers for what that mapped.
//!
//! Linux charges pinned pages to whoever mapped them, and this command moves the charge. A process's own memory cannot be
//! handed over, a file's can. Where nothing is charged (see [`crate::page_set`]), what is left of it are its refusals.
//! Takes IOPT_IOVA of one address space after the other, in the order of their ids. Source: [uapi/iommufd.h]; v7.3 `ioas.c`.

use std::sync::Arc;

use uapi::iommufd::IoasChangeProcess;

use crate::dispatch::Exchange;
use crate::ioas::Ioas;
use crate::object::Kind;
use crate::{Context, Refusal};

/// Makes the caller's process answer for all that is mapped.
///
/// # Errors
/// Nothing is changed then. In this order:
/// - [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::AreaBusy`] (`EBUSY`): an area is still being mapped.
/// - [`Refusal::NoFile`] (`EINVAL`): an area is not of a file.
pub(crate) fn run(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let argument: IoasChangeProcess = exchange.argument();
    exchange.refuse_reserved(argument.reserved)?;
    let objects = ctx.registry().published();
    let ioases: Vec<_> = objects.iter().filter_map(Ioas::pick).collect();
    for ioas in &ioases {
        ioas.space.lock().check_all_files()?;
    }
    let process = exchange.caller().process();
    for ioas in &ioases {
        ioas.space.lock().hand_over(process);
    }
    Ok(())
}
