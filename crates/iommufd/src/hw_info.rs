//! `IOMMU_GET_HW_INFO`: what the IOMMU of a device can do.
//!
//! Our IOMMUs describe no particular hardware: type NONE and no data. Takes no lock.
//! Source: [uapi/iommufd.h].

use std::sync::Arc;

use uapi::iommufd::{HwInfo, hw_capabilities, hw_info_flags, hw_info_type};

use crate::device::Device;
use crate::dispatch::Exchange;
use crate::{Context, Refusal};

/// Describes the IOMMU of a device. Whatever type is asked for, the answer is NONE, as from a driver that
/// describes nothing; the caller's buffer is cleared.
///
/// # Errors
/// In this order:
/// - [`Refusal::UnknownFlags`], [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::Unreachable`] (`EFAULT`): the buffer, then the struct.
pub(crate) fn get(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: HwInfo = exchange.argument();
    exchange.refuse_flags(argument.flags, hw_info_flags::INPUT_TYPE)?;
    for byte in argument.reserved {
        exchange.refuse_reserved(u32::from(byte))?;
    }
    let iommu = Arc::clone(ctx.get::<Device>(argument.dev_id)?.endpoint().iommu());
    exchange.write_zeros(argument.data_uptr, argument.data_len)?;
    let geometry = iommu.geometry();
    argument.data_len = 0;
    argument.out_data_type = hw_info_type::NONE;
    argument.out_max_pasid_log2 = geometry.max_pasid_log2;
    argument.out_capabilities =
        if geometry.dirty_tracking { hw_capabilities::DIRTY_TRACKING } else { 0 };
    exchange.respond(&argument)
}
