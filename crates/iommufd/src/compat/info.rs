//! `VFIO_IOMMU_GET_INFO`: page sizes, and a chain of capabilities behind the struct.
//!
//! What of the chain fits is written even where the rest does not. Takes IOAS, IOPT_IOVA, one after the other.

use std::mem::offset_of;
use std::sync::Arc;

use uapi::vfio::{
    IommuType1Info, IommuType1InfoCapIovaRange, IommuType1InfoDmaAvail, IovaRange,
    type1_capability, type1_info_flags,
};
use zerocopy::{FromZeros, IntoBytes};

use super::PAGE_SIZE;
use crate::{Caller, Context, Refusal};

/// Tells page sizes and addresses that can be mapped.
///
/// # Errors
/// In this order:
/// - [`Refusal::Unreachable`] (`EFAULT`), [`Refusal::ShortArgument`] (`EINVAL`)
/// - [`Refusal::NoCompatIoas`] (`ENODEV`)
/// - [`Refusal::Unreachable`] (`EFAULT`): a capability or the struct cannot be written.
pub(super) fn get(ctx: &Arc<Context>, caller: &dyn Caller, at: u64) -> Result<u32, Refusal> {
    let mut info = IommuType1Info::new_zeroed();
    caller.read(at, &mut info.as_mut_bytes()[..LEAST])?;
    let given = info.argsz;
    let least = u32::try_from(LEAST).unwrap_or(u32::MAX);
    if given < least {
        return Err(Refusal::ShortArgument { given, least });
    }
    let ioas = ctx.compat_ioas()?;
    let tables: Vec<u64> =
        ioas.tables.lock().iter().map(|table| table.iommu().geometry().page_sizes).collect();
    let (spans, alignment) = {
        let space = ioas.space.lock();
        (space.ranges(), space.alignment())
    };
    let ranges: Vec<IovaRange> =
        spans.iter().map(|span| IovaRange { start: span.start(), end: span.last() }).collect();
    let total = write_capabilities(caller, at, given, &ranges)?;
    info = IommuType1Info {
        argsz: total,
        flags: type1_info_flags::PGSIZES | type1_info_flags::CAPS,
        iova_pgsizes: page_sizes(&tables).max(alignment),
        cap_offset: if given >= total { STRUCT_BYTES } else { 0 },
        ..IommuType1Info::new_zeroed()
    };
    let known = (given as usize).min(size_of::<IommuType1Info>());
    caller.write(at, &info.as_bytes()[..known])?;
    Ok(0)
}

/// Bytes of the struct in its first version.
const LEAST: usize = offset_of!(IommuType1Info, cap_offset);
const STRUCT_BYTES: u32 = 24;
const _: () = assert!(size_of::<IommuType1Info>() == STRUCT_BYTES as usize);

/// Page sizes that all page tables have. Those below the client's own page count as that.
fn page_sizes(tables: &[u64]) -> u64 {
    let common = tables.iter().fold(u64::MAX, |common, sizes| common & sizes);
    let small = PAGE_SIZE - 1;
    if common & small == 0 { common } else { common & !small | PAGE_SIZE }
}

/// Writes what fits of the capabilities, and returns how many bytes struct and capabilities have.
fn write_capabilities(
    caller: &dyn Caller,
    at: u64,
    given: u32,
    ranges: &[IovaRange],
) -> Result<u32, Refusal> {
    let first = STRUCT_BYTES;
    let second = first + padded(size_of::<IommuType1InfoDmaAvail>());
    let avail = IommuType1InfoDmaAvail {
        id: type1_capability::DMA_AVAIL,
        version: 1,
        // The link is there as soon as what it leads to could be.
        next: if given >= second { second } else { 0 },
        avail: u32::MAX,
    };
    let span = size_of_val(ranges) + size_of::<IommuType1InfoCapIovaRange>();
    let total = second.saturating_add(padded(span));
    if given >= first + bytes(size_of_val(&avail)) {
        caller.write(place(at, first)?, avail.as_bytes())?;
    }
    let head = IommuType1InfoCapIovaRange {
        id: type1_capability::IOVA_RANGE,
        version: 1,
        next: 0,
        nr_iovas: u32::try_from(ranges.len()).unwrap_or(u32::MAX),
        reserved: 0,
    };
    let mut end = second + bytes(size_of_val(&head));
    for range in ranges {
        let begin = end;
        end = end.saturating_add(bytes(size_of_val(range)));
        if given >= end {
            caller.write(place(at, begin)?, range.as_bytes())?;
        }
    }
    if given >= end {
        caller.write(place(at, second)?, head.as_bytes())?;
    }
    Ok(total)
}

fn place(at: u64, offset: u32) -> Result<u64, Refusal> {
    at.checked_add(u64::from(offset)).ok_or(Refusal::Unreachable)
}

fn bytes(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Capabilities begin at multiples of eight bytes.
fn padded(length: usize) -> u32 {
    bytes(length.next_multiple_of(size_of::<u64>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_those_of_all_tables_from_the_clients_page_on() {
        assert_eq!(page_sizes(&[]), !0xfff);
        assert_eq!(page_sizes(&[0x4020_1000, 0x20_1000]), 0x20_1000);
        assert_eq!(page_sizes(&[0x20_0800]), 0x20_1000);
    }
}
