//! Page tables and the description of the mock's IOMMU.

use span::Span;
use uapi::Errno;
use zerocopy::IntoBytes;

use super::{Cache, failure};
use crate::hardware::{Description, UserData};
use crate::{Geometry, Refusal};

/// The type of hardware that tests know it by.
const HW_INFO_TYPE: u32 = 0xfeed_beef;
/// What its one register holds.
const TEST_REGISTER: u32 = 0xdead_beef;
/// The type of data that its page tables take.
const DATA_TYPE: u32 = 0xdead;

/// What the mock's hardware is.
///
/// # Errors
/// `EOPNOTSUPP` for another type.
pub(crate) fn describe_hardware(wanted: u32) -> Result<Description, Refusal> {
    if wanted != 0 && wanted != HW_INFO_TYPE {
        return Err(failure("another type of hardware", Errno::EOPNOTSUPP));
    }
    let bytes = [0_u32, TEST_REGISTER].as_bytes().to_vec();
    Ok(Description { data_type: HW_INFO_TYPE, bytes })
}

/// The geometry of a page table that is asked for with data: 4 to 8 bytes, of which the second word is its kind.
///
/// # Errors
/// `EOPNOTSUPP` for another type of data or kind of page table, `EINVAL` for too few or too many bytes,
/// [`Refusal::Unreachable`] (`EFAULT`).
pub(crate) fn shape_of(data: &UserData<'_>, geometry: &Geometry) -> Result<Geometry, Refusal> {
    const KIND_DEFAULT: u32 = 0;
    const KIND_HUGE: u32 = 1;
    const HUGE_PAGES: u64 = 1 << 20 | 4096;
    let [_, kind] = read_data(data)?;
    match kind {
        KIND_DEFAULT => Ok(geometry.clone()),
        KIND_HUGE => {
            Ok(Geometry { aperture: Span::WHOLE, page_sizes: HUGE_PAGES, ..geometry.clone() })
        }
        _ => Err(failure("another kind of page table", Errno::EOPNOTSUPP)),
    }
}

/// The IOTLB of a nested page table that is asked for with data, of which the first word is what it holds at first.
///
/// # Errors
/// As [`shape_of`]; the kind of page table means nothing here.
pub(crate) fn iotlb_of(data: &UserData<'_>) -> Result<Cache, Refusal> {
    let [value, _] = read_data(data)?;
    Ok(Cache::filled_with(value))
}

fn read_data(data: &UserData<'_>) -> Result<[u32; 2], Refusal> {
    const BYTES_MIN: u32 = 4;
    if data.data_type != DATA_TYPE {
        return Err(failure("another type of data", Errno::EOPNOTSUPP));
    }
    data.read(BYTES_MIN)
}
