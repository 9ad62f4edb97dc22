//! `IOMMU_GET_HW_INFO`: what the IOMMU of a device can do.
//!
//! Our IOMMUs describe no particular hardware: type NONE and no data. Takes no lock.
//! Source: [uapi/iommufd.h].

use std::sync::Arc;

use uapi::iommufd::{HwInfo, hw_capabilities, hw_info_flags, hw_info_type};

use crate::device::Device;
use crate::dispatch::Exchange;
use crate::{Context, Refusal, Resource, mock};

/// Describes the IOMMU of a device. Whatever type is asked for, the answer is NONE, as from a driver that
/// describes nothing; the caller's buffer is cleared.
///
/// # Errors
/// In this order:
/// - [`Refusal::UnknownFlags`], [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::NoObject`] (`ENOENT`)
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
    ctx.quota().admit(Resource::Buffer, 1)?;
    let (data_type, bytes) = if iommu.is_mock() {
        let wanted = argument.flags & hw_info_flags::INPUT_TYPE != 0;
        let wanted = if wanted { argument.out_data_type } else { hw_info_type::NONE };
        mock::describe_hardware(exchange, wanted, argument.data_uptr, argument.data_len)?
    } else {
        exchange.write_zeros(argument.data_uptr, argument.data_len)?;
        (hw_info_type::NONE, 0)
    };
    (argument.data_len, argument.out_data_type) = (bytes, data_type);
    argument.out_max_pasid_log2 = geometry.max_pasid_log2;
    argument.out_capabilities =
        if geometry.dirty_tracking { hw_capabilities::DIRTY_TRACKING } else { 0 };
    if iommu.is_mock() {
        argument.out_capabilities |= hw_capabilities::PCI_ATS_NOT_SUPPORTED;
    }
    exchange.respond(&argument)
}
