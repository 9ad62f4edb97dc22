//! `VFIO_IOMMU_GET_INFO` of VFIO's own type1. The chain of capabilities is there where all of it fits, or not at all.
//!
//! Takes no lock.

use std::mem::offset_of;

use uapi::vfio::{
    IommuType1Info, IommuType1InfoCapIovaRange, IommuType1InfoCapMigration, IommuType1InfoDmaAvail,
    IovaRange, type1_capability, type1_info_flags,
};
use zerocopy::{FromZeros, IntoBytes};

use super::dirty::BITMAP_BYTES_MOST;
use super::{ENTRIES_MOST, Type1};
use crate::Refusal;
use crate::argument::Argument;

impl Type1 {
    /// Tells page sizes, and by its capabilities that pages can be logged, how many more entries there can be, and
    /// where.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`], [`Refusal::Argsz`] – the argument (`EFAULT`, `EINVAL`).
    pub(crate) fn info(&self, argument: &Argument<'_>) -> Result<u32, Refusal> {
        let asked: IommuType1Info = argument.read(offset_of!(IommuType1Info, cap_offset))?;
        let chain = self.chain();
        let total = STRUCT_BYTES + u32::try_from(chain.len()).unwrap_or(u32::MAX);
        let mut info = IommuType1Info {
            argsz: asked.argsz,
            flags: type1_info_flags::PGSIZES | type1_info_flags::CAPS,
            iova_pgsizes: self.page_sizes,
            ..IommuType1Info::new_zeroed()
        };
        if asked.argsz < total {
            info.argsz = total;
        } else {
            argument.write_at(STRUCT_BYTES as usize, &chain)?;
            info.cap_offset = STRUCT_BYTES;
        }
        let known = (asked.argsz as usize).min(size_of::<IommuType1Info>());
        argument.write_at(0, &info.as_bytes()[..known])?;
        Ok(0)
    }

    fn chain(&self) -> Vec<u8> {
        let mut chain = Vec::new();
        let migration = IommuType1InfoCapMigration {
            id: type1_capability::MIGRATION,
            version: 1,
            next: next_after(&chain, size_of::<IommuType1InfoCapMigration>()),
            pgsize_bitmap: self.page(),
            max_dirty_bitmap_size: BITMAP_BYTES_MOST,
            ..IommuType1InfoCapMigration::new_zeroed()
        };
        append(&mut chain, migration.as_bytes());
        let avail = IommuType1InfoDmaAvail {
            id: type1_capability::DMA_AVAIL,
            version: 1,
            next: next_after(&chain, size_of::<IommuType1InfoDmaAvail>()),
            avail: u32::try_from(ENTRIES_MOST - self.entries.len()).unwrap_or(0),
        };
        append(&mut chain, avail.as_bytes());
        let ranges = IommuType1InfoCapIovaRange {
            id: type1_capability::IOVA_RANGE,
            version: 1,
            nr_iovas: u32::try_from(self.allowed.len()).unwrap_or(u32::MAX),
            ..IommuType1InfoCapIovaRange::new_zeroed()
        };
        append(&mut chain, ranges.as_bytes());
        for span in &self.allowed {
            append(&mut chain, IovaRange { start: span.start(), end: span.last() }.as_bytes());
        }
        chain
    }
}

const STRUCT_BYTES: u32 = 24;
const _: () = assert!(size_of::<IommuType1Info>() == STRUCT_BYTES as usize);

/// Where the capability begins that follows one of `length` bytes at the end of `chain`, from the start of the struct.
fn next_after(chain: &[u8], length: usize) -> u32 {
    let end = (chain.len() + length).next_multiple_of(size_of::<u64>());
    STRUCT_BYTES + u32::try_from(end).unwrap_or(u32::MAX)
}

/// Capabilities begin at multiples of eight bytes.
fn append(chain: &mut Vec<u8>, bytes: &[u8]) {
    chain.extend_from_slice(bytes);
    chain.resize(chain.len().next_multiple_of(size_of::<u64>()), 0);
}
