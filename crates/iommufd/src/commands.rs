//! Which function runs which command, and `IOMMU_DESTROY`, which is about any object.
//!
//! The numbers, structs and sizes are `uapi`'s; a row that is not here is a hole. Takes no lock itself.

use std::sync::Arc;

use uapi::CommandId;
use uapi::iommufd::Destroy;

use crate::dispatch::Exchange;
use crate::object::Object;
use crate::{
    Caller, Context, Refusal, change_process, compat, dirty_tracking, fault_queue, hw_info,
    hw_queue, hwpt, invalidate, ioas, mapping, options, physical, tsm_command, vdevice, veventq,
    viommu,
};

use Handler::{Counting, Plain};

/// Runs a command whose struct has been read and judged.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// One whose success says nothing more.
    Plain(fn(&Arc<Context>, &Exchange<'_>) -> Result<(), Refusal>),
    /// One that says how many bytes were left over.
    Counting(fn(&Arc<Context>, &Exchange<'_>) -> Result<u32, Refusal>),
}

impl Handler {
    /// Runs it and returns what the system call does.
    ///
    /// # Errors
    /// The command's.
    pub(crate) fn run(self, ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<u32, Refusal> {
        match self {
            Self::Plain(run) => run(ctx, exchange).map(|()| 0),
            Self::Counting(run) => run(ctx, exchange),
        }
    }
}

/// The function for a command; `None` where we have none.
pub(crate) fn handler(id: CommandId) -> Option<Handler> {
    HANDLERS.iter().find(|(other, _)| *other == id).map(|(_, handler)| *handler)
}

const HANDLERS: &[(CommandId, Handler)] = &[
    (CommandId::IoasMap, Plain(mapping::map)),
    (CommandId::IoasUnmap, Plain(mapping::unmap)),
    (CommandId::IoasMapFile, Plain(mapping::map_file)),
    (CommandId::Destroy, Plain(destroy)),
    (CommandId::IoasAlloc, Plain(ioas::alloc)),
    (CommandId::IoasIovaRanges, Plain(ioas::iova_ranges)),
    (CommandId::IoasAllowIovas, Plain(ioas::allow_iovas)),
    (CommandId::IoasCopy, Plain(mapping::copy)),
    (CommandId::IoasChangeProcess, Plain(change_process::run)),
    (CommandId::IommuOption, Plain(options::option)),
    (CommandId::HwptSetDirtyTracking, Plain(dirty_tracking::set)),
    (CommandId::HwptGetDirtyBitmap, Plain(dirty_tracking::get)),
    (CommandId::HwptInvalidate, Plain(invalidate::run)),
    (CommandId::FaultQueueAlloc, Plain(fault_queue::alloc)),
    (CommandId::VeventqAlloc, Plain(veventq::alloc)),
    (CommandId::HwQueueAlloc, Plain(hw_queue::alloc)),
    (CommandId::VfioIoas, Plain(compat::vfio_ioas)),
    (CommandId::HwptAlloc, Plain(hwpt::alloc)),
    (CommandId::GetHwInfo, Plain(hw_info::get)),
    (CommandId::ViommuAlloc, Plain(viommu::alloc)),
    (CommandId::VdeviceAlloc, Plain(vdevice::alloc)),
    (CommandId::IoasNoiommuGetPa, Plain(physical::get)),
    (CommandId::VdeviceTsmOp, Plain(tsm_command::op)),
    (CommandId::VdeviceTsmReq, Counting(tsm_command::request)),
    (CommandId::VdeviceTsmReqV5, Counting(tsm_command::request_v5)),
    (CommandId::VdeviceTsmGuestRequest, Plain(tsm_command::guest_request)),
];

/// Ends an object: `IOMMU_DESTROY`. Its id is free afterwards.
///
/// # Errors
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::WindowMapped`] (`EBUSY`): the caller maps its window.
/// - [`Refusal::Busy`] (`EBUSY`): something uses it. A device always has its binder.
fn destroy(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let argument: Destroy = exchange.argument();
    if ctx.mock().is_some() {
        refuse_mapped(ctx, exchange.caller(), argument.id)?;
    }
    let object = ctx.registry().take(argument.id)?;
    object.destroy(ctx);
    Ok(())
}

/// Refuses to end a vIOMMU whose window is mapped: each mapping is a user of it.
fn refuse_mapped(ctx: &Context, caller: &dyn Caller, id: u32) -> Result<(), Refusal> {
    let object = ctx.get_any(id)?;
    let Object::Viommu(viommu) = &*object else { return Ok(()) };
    match viommu.window() {
        Some(window) if caller.maps_window(ctx, window.offset, window.length) => {
            Err(Refusal::WindowMapped { viommu: id })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use uapi::FileKind;

    use super::*;

    #[test]
    fn served_rows_and_handlers_are_the_same() {
        for row in uapi::COMMANDS.iter().filter(|row| row.file == FileKind::Iommufd) {
            assert_eq!(handler(row.id).is_some(), row.served, "{}", row.name);
        }
    }
}
