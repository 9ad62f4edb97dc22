//! `IOMMU_GET_HW_INFO`: what the IOMMU of a device can do.
//!
//! What there is to say, the hardware says; one of no particular kind is of type NONE and has no data. Takes no lock.
//! Source: [uapi/iommufd.h].

use std::sync::Arc;

use uapi::iommufd::{HwInfo, hw_capabilities, hw_info_flags};

use crate::device::Device;
use crate::dispatch::Exchange;
use crate::{Context, Refusal, Resource};

/// Describes the IOMMU of a device: writes as much as there is room for, clears the rest of the caller's buffer, and
/// tells how much there is.
///
/// # Errors
/// In this order:
/// - [`Refusal::UnknownFlags`], [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - the hardware's about the type of description that is asked for.
/// - [`Refusal::Exhausted`] (`ENOMEM`)
/// - [`Refusal::Unreachable`] (`EFAULT`): the buffer, then the struct.
pub(crate) fn get(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: HwInfo = exchange.argument();
    exchange.refuse_flags(argument.flags, hw_info_flags::INPUT_TYPE)?;
    for byte in argument.reserved {
        exchange.refuse_reserved(u32::from(byte))?;
    }
    let iommu = Arc::clone(ctx.get::<Device>(argument.dev_id)?.endpoint().iommu());
    let geometry = iommu.geometry();
    let wanted = argument.flags & hw_info_flags::INPUT_TYPE != 0;
    let wanted = if wanted { argument.out_data_type } else { 0 };
    let described = iommu.hardware().describe(geometry, wanted)?;
    ctx.quota().admit(Resource::Buffer, 1)?;
    let length = described.bytes.len();
    let (at, room) = (argument.data_uptr, argument.data_len as usize);
    let told = room.min(length);
    if told > 0 {
        exchange.caller().write(at, &described.bytes[..told])?;
    }
    if let Some(rest) = room.checked_sub(length).filter(|rest| *rest > 0) {
        let after = at.checked_add(length as u64).ok_or(Refusal::Unreachable)?;
        exchange.write_zeros(after, u32::try_from(rest).unwrap_or(u32::MAX))?;
    }
    argument.data_len = u32::try_from(length).unwrap_or(u32::MAX);
    argument.out_data_type = described.data_type;
    argument.out_max_pasid_log2 = geometry.max_pasid_log2;
    // No device here has address translation services.
    argument.out_capabilities = hw_capabilities::PCI_ATS_NOT_SUPPORTED;
    if geometry.dirty_tracking {
        argument.out_capabilities |= hw_capabilities::DIRTY_TRACKING;
    }
    exchange.respond(&argument)
}
