//! Intel VT-d: an IOMMU whose first stage a guest fills, nested in the second stage that a client maps.
//!
//! It tells its capability registers, takes where the guest's tables are and how wide they are, and walks them for each
//! access: it keeps no translation, so that an invalidation has nothing to drop. There is no vIOMMU of its. Whether the
//! guest's tables suit the hardware is asked as a device is attached, not before, as in the kernel.
//!
//! Takes no lock. Source: [uapi/iommufd.h]; order of checks from v7.3 `intel/iommu.c`, `nested.c`, `pasid.c`.

#[cfg(test)]
mod against_model;
mod first_stage;
mod registers;

use uapi::iommufd::{
    HwInfoVtd, HwptVtdS1, HwptVtdS1Invalidate, hw_info_type, hw_info_vtd_flags, hwpt_data,
    hwpt_flags, invalidate_data, vtd_invalidate_flags,
};
use zerocopy::{FromZeros, IntoBytes};

pub(crate) use first_stage::FirstStage;

use super::{Description, HardwareRefusal, UserData};
use crate::dispatch::Exchange;
use crate::invalidate::Entries;
use crate::{Geometry, PAGE_SIZE, Refusal};

/// What VT-d of this geometry says of itself.
///
/// # Errors
/// [`Refusal::Unsupported`] (`EOPNOTSUPP`): another type is wanted.
pub(super) fn describe(geometry: &Geometry, wanted: u32) -> Result<Description, Refusal> {
    if ![hw_info_type::NONE, hw_info_type::INTEL_VTD].contains(&wanted) {
        return Err(Refusal::Unsupported { feature: "that type of hardware description" });
    }
    let described = HwInfoVtd {
        flags: hw_info_vtd_flags::ERRATA_772415_SPR17,
        cap_reg: registers::capability(geometry),
        ecap_reg: registers::extended_capability(geometry),
        ..HwInfoVtd::new_zeroed()
    };
    Ok(Description { data_type: hw_info_type::INTEL_VTD, bytes: described.as_bytes().to_vec() })
}

/// The geometry of a page table on an address space: the first stage's, which has the lower half of its addresses,
/// unless flags ask for what only the second can.
pub(super) fn shape(geometry: &Geometry, flags: u32) -> Geometry {
    const SECOND_STAGE: u32 = hwpt_flags::NEST_PARENT | hwpt_flags::DIRTY_TRACKING;
    let Some(aperture) = registers::lower_half(geometry).filter(|_| flags & SECOND_STAGE == 0)
    else {
        return geometry.clone();
    };
    Geometry { aperture, ..geometry.clone() }
}

/// The first stage that a client describes. Flags and width are judged by [`FirstStage::check_attach`].
///
/// # Errors
/// [`Refusal::Unsupported`] (`EOPNOTSUPP`): another type of data; [`HardwareRefusal::DataLength`] (`EINVAL`);
/// [`Refusal::Unreachable`] (`EFAULT`).
pub(super) fn nest(geometry: &Geometry, data: &UserData<'_>) -> Result<FirstStage, Refusal> {
    if data.data_type != hwpt_data::VTD_S1 {
        return Err(Refusal::Unsupported { feature: "that type of data of a page table" });
    }
    let asked: HwptVtdS1 = data.read_whole()?;
    Ok(FirstStage::new(geometry, &asked))
}

/// Judges what a guest says it changed, until an entry is refused; `done` counts those before it.
///
/// # Errors
/// [`HardwareRefusal::EntryType`] (`EINVAL`), asked without entries too; of each entry
/// [`HardwareRefusal::EntryLength`] (`EINVAL`), [`Refusal::DirtyTail`] (`E2BIG`), [`Refusal::Unreachable`] (`EFAULT`),
/// [`Refusal::UnknownFlags`], [`Refusal::ReservedField`] (`EOPNOTSUPP`), [`HardwareRefusal::EntryRange`] (`EINVAL`).
pub(super) fn invalidate(
    exchange: &Exchange<'_>,
    entries: &Entries,
    done: &mut u32,
) -> Result<(), Refusal> {
    if entries.data_type != invalidate_data::VTD_S1 {
        return Err(HardwareRefusal::EntryType { data_type: entries.data_type }.into());
    }
    for index in 0..entries.number {
        let mut entry = HwptVtdS1Invalidate::new_zeroed();
        entries.read(exchange, index, entry.as_mut_bytes())?;
        exchange.refuse_flags(entry.flags, vtd_invalidate_flags::LEAF)?;
        exchange.refuse_reserved(entry.reserved)?;
        let HwptVtdS1Invalidate { addr, npages, .. } = entry;
        let is_part_of_all = npages == ALL_PAGES && addr != 0;
        if !addr.is_multiple_of(PAGE_SIZE) || is_part_of_all {
            return Err(HardwareRefusal::EntryRange { address: addr, pages: npages }.into());
        }
        *done += 1;
    }
    Ok(())
}

/// As a number of pages: everything, from address 0.
const ALL_PAGES: u64 = u64::MAX;
