//! Page tables and the description of the mock's IOMMU.

use span::Span;
use uapi::Errno;
use zerocopy::IntoBytes;

use super::{Cache, failure};
use crate::dispatch::Exchange;
use crate::{Geometry, Refusal};

/// The type of hardware that tests know it by.
const HW_INFO_TYPE: u32 = 0xfeed_beef;
/// What its one register holds.
const TEST_REGISTER: u32 = 0xdead_beef;
/// The type of data that its page tables take.
const DATA_TYPE: u32 = 0xdead;

/// Writes what the mock's hardware is, as much as there is room for, and gives type and bytes.
///
/// # Errors
/// `EOPNOTSUPP` for another type, [`Refusal::Unreachable`] (`EFAULT`).
pub(crate) fn describe_hardware(
    exchange: &Exchange<'_>,
    wanted: u32,
    at: u64,
    room: u32,
) -> Result<(u32, u32), Refusal> {
    if wanted != 0 && wanted != HW_INFO_TYPE {
        return Err(failure("another type of hardware", Errno::EOPNOTSUPP));
    }
    let described = [0_u32, TEST_REGISTER];
    let bytes = described.as_bytes();
    let room = room as usize;
    exchange.caller().write(at, &bytes[..room.min(bytes.len())])?;
    if let Some(rest) = room.checked_sub(bytes.len()).filter(|rest| *rest > 0) {
        let after = at.checked_add(bytes.len() as u64).ok_or(Refusal::Unreachable)?;
        exchange.write_zeros(after, u32::try_from(rest).unwrap_or(u32::MAX))?;
    }
    Ok((HW_INFO_TYPE, 8))
}

/// The geometry of a page table that is asked for with data: 4 to 8 bytes, of which the second word is its kind.
///
/// # Errors
/// `EOPNOTSUPP` for another type of data or kind of page table, `EINVAL` for too few or too many bytes,
/// [`Refusal::Unreachable`] (`EFAULT`).
pub(crate) fn shape_of(
    exchange: &Exchange<'_>,
    geometry: &Geometry,
    data_type: u32,
    at: u64,
    length: u32,
) -> Result<Geometry, Refusal> {
    const KIND_DEFAULT: u32 = 0;
    const KIND_HUGE: u32 = 1;
    const HUGE_PAGES: u64 = 1 << 20 | 4096;
    let [_, kind] = read_data(exchange, data_type, at, length)?;
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
pub(crate) fn iotlb_of(
    exchange: &Exchange<'_>,
    data_type: u32,
    at: u64,
    length: u32,
) -> Result<Cache, Refusal> {
    let [value, _] = read_data(exchange, data_type, at, length)?;
    Ok(Cache::filled_with(value))
}

fn read_data(
    exchange: &Exchange<'_>,
    data_type: u32,
    at: u64,
    length: u32,
) -> Result<[u32; 2], Refusal> {
    const BYTES_MIN: usize = 4;
    if data_type != DATA_TYPE {
        return Err(failure("another type of data", Errno::EOPNOTSUPP));
    }
    let mut words = [0_u32; 2];
    let length = length as usize;
    if length < BYTES_MIN || length > size_of_val(&words) {
        return Err(failure("too little data, or too much", Errno::EINVAL));
    }
    exchange.caller().read(at, &mut words.as_mut_bytes()[..length])?;
    Ok(words)
}
