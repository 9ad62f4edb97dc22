//! What a guest has the mock's hardware drop: entries of a nested page table's IOTLB, of devices' caches.

use std::sync::Arc;

use uapi::Errno;
use zerocopy::IntoBytes;

use super::cache::{Cache, refuse_flags};
use super::failure;
use crate::dispatch::Exchange;
use crate::invalidate::Entries;
use crate::viommu::Viommu;
use crate::{Context, Refusal, Resource};

/// The type of either kind of entries.
const DATA_TYPE: u32 = 0xdead_beef;

/// Drops what each entry names, until one is refused; `done` counts those before it.
///
/// # Errors
/// `EINVAL` for another type, length or cache entry, `EOPNOTSUPP` for unknown flags, [`Refusal::Unreachable`]
/// (`EFAULT`).
pub(crate) fn invalidate_table(
    exchange: &Exchange<'_>,
    iotlb: &Cache,
    entries: &Entries,
    done: &mut u32,
) -> Result<(), Refusal> {
    refuse_type(entries)?;
    for index in 0..entries.number {
        let mut entry = [0_u32; 2];
        if entries.length as usize != size_of_val(&entry) {
            return Err(failure("entries of another length", Errno::EINVAL));
        }
        exchange.caller().read(entries.address_of(index)?, entry.as_mut_bytes())?;
        let [flags, number] = entry;
        refuse_flags(flags)?;
        iotlb.drop_entry(flags, number)?;
        *done += 1;
    }
    Ok(())
}

/// As [`invalidate_table`], of devices behind a vIOMMU, by the guest's numbers. All entries are read first.
///
/// # Errors
/// In this order: `EINVAL` for another type, [`Refusal::Exhausted`] (`ENOMEM`), [`Refusal::Unreachable`] (`EFAULT`),
/// [`Refusal::DirtyTail`] (`E2BIG`); for each entry `EOPNOTSUPP` for unknown flags, `EINVAL` for another cache entry or a
/// device that is not there.
pub(crate) fn invalidate_devices(
    ctx: &Arc<Context>,
    exchange: &Exchange<'_>,
    viommu: &Viommu,
    entries: &Entries,
    done: &mut u32,
) -> Result<(), Refusal> {
    refuse_type(entries)?;
    ctx.quota().admit(Resource::Buffer, 1)?;
    let read = (0..entries.number).map(|index| {
        let mut entry = [0_u32; 3];
        exchange.read_extensible(
            entries.address_of(index)?,
            entries.length,
            entry.as_mut_bytes(),
        )?;
        Ok(entry)
    });
    let read: Vec<_> = read.collect::<Result<_, Refusal>>()?;
    for [flags, virt_id, number] in read {
        refuse_flags(flags)?;
        let device = viommu.device(virt_id.into());
        let cache = device.as_ref().and_then(|device| device.mock_cache());
        let cache = cache.ok_or(failure("no such device", Errno::EINVAL))?;
        cache.drop_entry(flags, number)?;
        *done += 1;
    }
    Ok(())
}

fn refuse_type(entries: &Entries) -> Result<(), Refusal> {
    if entries.data_type == DATA_TYPE {
        return Ok(());
    }
    Err(failure("entries of another type", Errno::EINVAL))
}
