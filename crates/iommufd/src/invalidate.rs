//! `IOMMU_HWPT_INVALIDATE`: a guest has cached translations dropped, of a nested page table or behind a vIOMMU.
//!
//! What the entries mean, the hardware says. The number of those done is told in every case, of a refusal too. Takes
//! no lock itself. Source: [uapi/iommufd.h]; order of checks from v7.3 `hw_pagetable.c`.

use std::sync::Arc;

use uapi::iommufd::HwptInvalidate;

use crate::dispatch::Exchange;
use crate::object::Object;
use crate::{Context, HardwareRefusal, PAGE_SIZE, Refusal};

/// The entries of one command.
pub(crate) struct Entries {
    address: u64,
    /// What they are.
    pub(crate) data_type: u32,
    /// Bytes of each.
    pub(crate) length: u32,
    /// How many.
    pub(crate) number: u32,
}

/// Most entries of one command.
const NUMBER_MOST: u32 = 1 << 19;

/// Drops what the entries name, in their order, until one is refused.
///
/// # Errors
/// In this order:
/// - [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::EntryShape`] (`EINVAL`): entries without an address or length, too long, or too many.
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::Unsupported`] (`EOPNOTSUPP`): a vIOMMU of a type that has nothing to drop.
/// - [`Refusal::OtherType`] (`EINVAL`): neither a nested page table nor a vIOMMU.
/// - the hardware's.
///
/// In every case the number of entries done is written, and [`Refusal::Unreachable`] (`EFAULT`) takes the place of
/// another refusal where it cannot be.
pub(crate) fn run(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: HwptInvalidate = exchange.argument();
    let mut done = 0;
    let result = invalidate(ctx, exchange, &argument, &mut done);
    argument.entry_num = done;
    ctx.count_invalidations(done);
    exchange.respond(&argument)?;
    result
}

fn invalidate(
    ctx: &Arc<Context>,
    exchange: &Exchange<'_>,
    argument: &HwptInvalidate,
    done: &mut u32,
) -> Result<(), Refusal> {
    exchange.refuse_reserved(argument.reserved)?;
    let entries = Entries {
        address: argument.data_uptr,
        data_type: argument.data_type,
        length: argument.entry_len,
        number: argument.entry_num,
    };
    entries.check()?;
    let id = argument.hwpt_id;
    match &*ctx.get_any(id)? {
        Object::Hwpt(hwpt) => {
            let nested = hwpt.nested().ok_or(Refusal::OtherType { id })?;
            nested.table().invalidate(exchange, &entries, done)
        }
        Object::Viommu(viommu) => {
            let hardware = viommu.iommu().hardware();
            hardware.invalidate_behind(ctx, exchange, viommu, &entries, done)
        }
        Object::Access(_)
        | Object::Device(_)
        | Object::Ioas(_)
        | Object::MockDevice(_)
        | Object::Fault(_)
        | Object::HwQueue(_)
        | Object::Vdevice(_)
        | Object::Veventq(_) => Err(Refusal::OtherType { id }),
    }
}

impl Entries {
    fn check(&self) -> Result<(), Refusal> {
        let lengths = 1..=PAGE_SIZE;
        let is_whole = self.address != 0
            && lengths.contains(&u64::from(self.length))
            && self.number <= NUMBER_MOST;
        if self.number == 0 || is_whole {
            return Ok(());
        }
        Err(Refusal::EntryShape { length: self.length, number: self.number })
    }

    /// Reads entry `index` into all of `into`; what the client has beyond it must be zero.
    ///
    /// # Errors
    /// [`HardwareRefusal::EntryLength`] (`EINVAL`), [`Refusal::DirtyTail`] (`E2BIG`), [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn read(
        &self,
        exchange: &Exchange<'_>,
        index: u32,
        into: &mut [u8],
    ) -> Result<(), Refusal> {
        if (self.length as usize) < into.len() {
            return Err(HardwareRefusal::EntryLength { length: self.length }.into());
        }
        exchange.read_extensible(self.address_of(index)?, self.length, into)
    }

    /// Where entry `index` is.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn address_of(&self, index: u32) -> Result<u64, Refusal> {
        let offset = u64::from(index) * u64::from(self.length);
        self.address.checked_add(offset).ok_or(Refusal::Unreachable)
    }
}
