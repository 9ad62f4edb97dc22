//! What a client says of a page table in the hardware's own terms: a struct of one of the types that hardware knows.
//!
//! Takes no lock. Source: [uapi/iommufd.h]; v7.3 `iommu.h`.

use uapi::iommufd::{HwptAlloc, ViommuAlloc};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::HardwareRefusal;
use crate::Refusal;
use crate::dispatch::Exchange;

/// Data of a page table, where the client has it.
pub(crate) struct UserData<'e> {
    exchange: &'e Exchange<'e>,
    /// One of the types that page tables' data have.
    pub(crate) data_type: u32,
    address: u64,
    length: u32,
}

impl<'e> UserData<'e> {
    /// What comes with the request of a page table.
    pub(crate) const fn of(exchange: &'e Exchange<'e>, argument: &HwptAlloc) -> Self {
        let HwptAlloc { data_type, data_uptr, data_len, .. } = *argument;
        Self { exchange, data_type, address: data_uptr, length: data_len }
    }

    /// What comes with the request of a vIOMMU, if anything does.
    pub(crate) fn of_viommu(exchange: &'e Exchange<'e>, argument: &ViommuAlloc) -> Option<Self> {
        let ViommuAlloc { r#type: data_type, data_uptr, data_len, .. } = *argument;
        let data = Self { exchange, data_type, address: data_uptr, length: data_len };
        (data_len != 0).then_some(data)
    }

    /// Bytes that the client has.
    pub(crate) const fn length(&self) -> u32 {
        self.length
    }

    /// Writes back as much of the struct as the client has.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn write<T: IntoBytes + Immutable>(&self, data: &T) -> Result<(), Refusal> {
        let bytes = data.as_bytes();
        let length = bytes.len().min(self.length as usize);
        Ok(self.exchange.caller().write(self.address, &bytes[..length])?)
    }

    /// Reads the struct, of which the client has all.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_whole<T: FromBytes + IntoBytes>(&self) -> Result<T, Refusal> {
        self.read(u32::try_from(size_of::<T>()).unwrap_or(u32::MAX))
    }

    /// Reads the struct, of which the client has at least `least` bytes; the rest is zero.
    ///
    /// # Errors
    /// [`HardwareRefusal::DataLength`] (`EINVAL`): fewer, or more than there are, even zeros;
    /// [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn read<T: FromBytes + IntoBytes>(&self, least: u32) -> Result<T, Refusal> {
        let most = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
        let length = self.length;
        if !(least..=most).contains(&length) {
            return Err(Refusal::Hardware(HardwareRefusal::DataLength { length, least, most }));
        }
        let mut data = T::new_zeroed();
        self.exchange.caller().read(self.address, &mut data.as_mut_bytes()[..length as usize])?;
        Ok(data)
    }
}
