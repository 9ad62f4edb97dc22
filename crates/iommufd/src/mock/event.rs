//! What a mock device has happen: a page fault, an event that a guest hears of.

use uapi::Errno;
use uapi::iommufd::{HwptPgfault, pgfault_flags};
use zerocopy::{FromZeros, IntoBytes};

use super::{TestCommand, failure};
use crate::device::Device;
use crate::{Context, Refusal};

/// The type of events that the mock's vIOMMUs have.
const EVENT_TYPE: u32 = 0xbeef_beef;

/// Has a device fault. Where the page table that it goes through has a fault queue, the client can read it there; a PASID
/// that is not attached is that of a guest where the page table is nested.
///
/// # Errors
/// [`Refusal::NoObject`] (`ENOENT`).
pub(super) fn fault(ctx: &Context, argument: &TestCommand) -> Result<(), Refusal> {
    let [dev_id, pasid, grpid, perm, ..] = argument.fields;
    let device = ctx.get::<Device>(dev_id)?;
    let plain = device.table();
    let table = match pasid {
        0 => plain,
        pasid => {
            let attached = device.endpoint().group().table_of_pasid(&device, pasid);
            attached.or(plain.filter(|table| table.nested().is_some()))
        }
    };
    let mut fault = HwptPgfault::new_zeroed();
    fault.flags = pgfault_flags::LAST_PAGE;
    if pasid != 0 {
        fault.flags |= pgfault_flags::PASID_VALID;
    }
    (fault.dev_id, fault.pasid, fault.grpid, fault.perm) = (dev_id, pasid, grpid, perm);
    fault.addr = argument.long(4);
    if let Some(faults) = table.as_ref().and_then(|table| table.faults()) {
        faults.report(ctx, fault);
    }
    Ok(())
}

/// Tells a guest of an event of one of its devices.
///
/// # Errors
/// [`Refusal::NoObject`] (`ENOENT`), `ENOENT` where the device goes through no page table of a guest that knows it,
/// `EOPNOTSUPP` where the guest has no queue for it.
pub(super) fn tell_guest(ctx: &Context, argument: &TestCommand) -> Result<(), Refusal> {
    let device = ctx.get::<Device>(argument.fields[0])?;
    let unknown = failure("no guest knows the device", Errno::ENOENT);
    let table = device.table().ok_or(unknown)?;
    let viommu = table.nested().and_then(|nested| nested.viommu()).ok_or(unknown)?;
    let virt_id = viommu.virt_id(&device).filter(|virt_id| *virt_id != 0).ok_or(unknown)?;
    let none = failure("the guest has no queue for events", Errno::EOPNOTSUPP);
    let queue = viommu.queue(EVENT_TYPE).ok_or(none)?;
    let [low, _] = [virt_id & u64::from(u32::MAX), virt_id >> u32::BITS];
    queue.report(u32::try_from(low).unwrap_or(u32::MAX).as_bytes());
    Ok(())
}
