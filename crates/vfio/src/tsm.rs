//! DEVICE_TSM_BIND and DEVICE_TSM_UNBIND: the device's TDI and a vdevice, in the profile that binds here.
//!
//! Takes `DEVICE_SET` to find what the file is bound with; holds nothing while iommufd is asked, which waits for
//! the device. The last close of the file cancels a BIND that is under way. Source: [tsm-rfc-2025-05].

use std::mem::offset_of;

use uapi::vfio::{TsmBind, TsmUnbind};

use crate::Refusal;
use crate::argument::Argument;
use crate::command::Bound;

/// `VFIO_DEVICE_TSM_BIND`: binds the device's TDI to the VM of a vdevice of the same device.
///
/// # Errors
/// In this order:
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::Flags`] – the argument (`EFAULT`, `EINVAL`).
/// - [`Refusal::Iommufd`] – no such vdevice, not this device's, or the TSM refuses.
pub(crate) fn bind(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let asked: TsmBind = argument.read(offset_of!(TsmBind, pad))?;
    check_no_flags(asked.flags)?;
    bound.file.bound()?.bind_tdi(asked.vdevice_id)?;
    Ok(0)
}

/// `VFIO_DEVICE_TSM_UNBIND`: unbinds the device's TDI. Nothing is bound: nothing to do, as in the series.
///
/// # Errors
/// [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::Flags`] – the argument (`EFAULT`, `EINVAL`).
pub(crate) fn unbind(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let asked: TsmUnbind = argument.read(size_of::<TsmUnbind>())?;
    check_no_flags(asked.flags)?;
    bound.file.bound()?.unbind();
    Ok(0)
}

fn check_no_flags(flags: u32) -> Result<(), Refusal> {
    if flags == 0 { Ok(()) } else { Err(Refusal::Flags { flags }) }
}
