//! `IOMMU_IOAS_CHANGE_PROCESS`: a program that took over from another answers for what that mapped.
//!
//! Linux charges pinned pages to whoever mapped them, and this command moves the charge. Here nothing is charged, so
//! what is left of it are its refusals: a process's own memory cannot be handed over, a file's can. Takes IOPT_IOVA of
//! one address space after the other, in the order of their ids. Source: [uapi/iommufd.h]; v7.3 `ioas.c`.

use std::sync::Arc;

use uapi::iommufd::IoasChangeProcess;

use crate::dispatch::Exchange;
use crate::object::Object;
use crate::{Context, Refusal};

/// Says whether all that is mapped can be the caller's.
///
/// # Errors
/// In this order:
/// - [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::AreaBusy`] (`EBUSY`): an area is still being mapped.
/// - [`Refusal::NoFile`] (`EINVAL`): an area is not of a file.
pub(crate) fn run(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let argument: IoasChangeProcess = exchange.argument();
    exchange.refuse_reserved(argument.reserved)?;
    for object in ctx.registry().published() {
        if let Object::Ioas(ioas) = object {
            ioas.space.lock().check_all_files()?;
        }
    }
    Ok(())
}
