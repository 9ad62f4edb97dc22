//! Arm SMMUv3: an IOMMU whose stage 1 a guest fills, behind a vIOMMU over the stage 2 that a client maps.
//!
//! It tells its identification registers, takes the guest's stream table entries, walks context descriptors and tables
//! for each access, and tells the guest of what stops a request there. It keeps neither translations nor descriptors, so
//! that a guest's commands are judged and have nothing to drop.
//!
//! Takes no lock but OBJECTS, a leaf, to ask which devices a guest knows. Deliberately absent: stalls, flags that
//! hardware sets in a guest's tables, granules of 16 and 64 KiB, commands of ranges; the registers say so. Source:
//! [uapi/iommufd.h]; order of checks from v7.3 `arm-smmu-v3.c`, `arm-smmu-v3-iommufd.c`.

#[cfg(test)]
mod against_model;
mod command;
mod context;
mod event;
mod registers;
mod stage_1;
mod stream;

use pci::DmaAccess;
use uapi::iommufd::{
    HwInfoArmSmmuv3, HwptArmSmmuv3, ViommuArmSmmuv3Invalidate, hw_info_type, hwpt_data, hwpt_flags,
    invalidate_data, veventq_type,
};
use zerocopy::{FromZeros, IntoBytes};

pub(crate) use event::Event;
pub(crate) use stream::StreamEntry;

use super::{Description, GuestMemory, HardwareRefusal, Reached, Stopped, UserData};
use crate::dispatch::Exchange;
use crate::invalidate::Entries;
use crate::viommu::Viommu;
use crate::{Context, Geometry, Refusal, Resource};

/// What its events are to a vIOMMU's queues.
pub(super) const EVENT_TYPE: u32 = veventq_type::ARM_SMMUV3;

/// What an SMMUv3 of this geometry says of itself.
///
/// # Errors
/// [`Refusal::Unsupported`] (`EOPNOTSUPP`): another type is wanted.
pub(super) fn describe(geometry: &Geometry, wanted: u32) -> Result<Description, Refusal> {
    if ![hw_info_type::NONE, hw_info_type::ARM_SMMUV3].contains(&wanted) {
        return Err(Refusal::Unsupported { feature: "that type of hardware description" });
    }
    let described = HwInfoArmSmmuv3 {
        idr: registers::identification(geometry),
        aidr: registers::ARCHITECTURE,
        ..HwInfoArmSmmuv3::new_zeroed()
    };
    Ok(Description { data_type: hw_info_type::ARM_SMMUV3, bytes: described.as_bytes().to_vec() })
}

/// Says whether there are page tables for these flags: what others are nested in logs no written pages and takes no
/// PASID, since it is of stage 2.
///
/// # Errors
/// [`Refusal::Unsupported`] (`EOPNOTSUPP`)
pub(super) const fn check_flags(flags: u32) -> Result<(), Refusal> {
    const STAGE_1: u32 = hwpt_flags::DIRTY_TRACKING | hwpt_flags::PASID;
    if flags & hwpt_flags::NEST_PARENT != 0 && flags & STAGE_1 != 0 {
        return Err(Refusal::Unsupported { feature: "page tables of both stages" });
    }
    Ok(())
}

/// A stream table entry that a client has of its guest.
///
/// # Errors
/// In this order: [`Refusal::UnknownFlags`] (`EOPNOTSUPP`): for PASIDs; [`HardwareRefusal::DataType`],
/// [`HardwareRefusal::DataLength`] (`EINVAL`); [`Refusal::Unreachable`] (`EFAULT`);
/// [`HardwareRefusal::StreamEntry`] (`EIO`).
pub(super) fn nest(
    geometry: &Geometry,
    data: &UserData<'_>,
    flags: u32,
) -> Result<StreamEntry, Refusal> {
    match flags & !hwpt_flags::FAULT_ID_VALID {
        0 => {}
        flags => return Err(Refusal::UnknownFlags { flags }),
    }
    let data_type = data.data_type;
    if data_type != hwpt_data::ARM_SMMUV3 {
        return Err(HardwareRefusal::DataType { data_type }.into());
    }
    let asked: HwptArmSmmuv3 = data.read_whole()?;
    StreamEntry::new(geometry, asked.ste)
}

/// Where an address leads by the guest's tables.
///
/// # Errors
/// What stops the request, and what the guest is told of it.
pub(super) fn translate(
    stream: &StreamEntry,
    memory: &dyn GuestMemory,
    address: u64,
    access: DmaAccess,
) -> Result<Reached, Stopped> {
    stream.translate(memory, address, access).map_err(|stop| Stopped {
        reason: stop.reason,
        event: stop.event.map(|id| Event { id, address, access }),
    })
}

/// Judges commands of a guest, until one is refused; `done` counts those before it. All are read first.
///
/// # Errors
/// In this order: [`Refusal::Exhausted`] (`ENOMEM`); [`HardwareRefusal::EntryType`], [`HardwareRefusal::NoEntries`]
/// (`EINVAL`); [`Refusal::DirtyTail`] (`E2BIG`), [`Refusal::Unreachable`] (`EFAULT`);
/// [`HardwareRefusal::Command`] (`EIO`): another command, bits that are not the guest's, a stream that the guest does not
/// have.
pub(super) fn invalidate(
    ctx: &Context,
    exchange: &Exchange<'_>,
    viommu: &Viommu,
    entries: &Entries,
    done: &mut u32,
) -> Result<(), Refusal> {
    ctx.quota().admit(Resource::Buffer, 1)?;
    if entries.data_type != invalidate_data::VIOMMU_ARM_SMMUV3 {
        return Err(HardwareRefusal::EntryType { data_type: entries.data_type }.into());
    }
    if entries.number == 0 {
        return Err(HardwareRefusal::NoEntries.into());
    }
    let has_substreams = viommu.iommu().geometry().max_pasid_log2 > 0;
    for words in read_all(exchange, entries)? {
        let knows = |stream: u32| viommu.device(stream.into()).is_some();
        if !command::is_allowed(words, has_substreams, knows) {
            return Err(HardwareRefusal::Command { words }.into());
        }
        *done += 1;
    }
    Ok(())
}

fn read_all(exchange: &Exchange<'_>, entries: &Entries) -> Result<Vec<[u64; 2]>, Refusal> {
    let read = (0..entries.number).map(|index| {
        let mut command = ViommuArmSmmuv3Invalidate::new_zeroed();
        let at = entries.address_of(index)?;
        exchange.read_extensible(at, entries.length, command.as_mut_bytes())?;
        Ok(command.cmd)
    });
    read.collect()
}
