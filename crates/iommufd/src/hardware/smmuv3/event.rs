//! What the SMMUv3 tells a guest: event records of 32 bytes.
//!
//! Takes no lock. Source: the SMMUv3 architecture, 7.3.

use pci::DmaAccess;
use uapi::iommufd::VeventArmSmmuv3;

/// What happened, by the number of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventId {
    /// `C_BAD_STE`
    BadStreamEntry = 0x04,
    /// `F_STREAM_DISABLED`
    StreamDisabled = 0x06,
    /// `C_BAD_SUBSTREAMID`
    BadSubstream = 0x08,
    /// `C_BAD_CD`
    BadContextDescriptor = 0x0a,
    /// `F_TRANSLATION`
    Translation = 0x10,
    /// `F_ADDR_SIZE`
    AddressSize = 0x11,
    /// `F_ACCESS`
    Access = 0x12,
    /// `F_PERMISSION`
    Permission = 0x13,
}

/// An event of a request, but for the stream that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(super) id: EventId,
    pub(super) address: u64,
    pub(super) access: DmaAccess,
}

impl Event {
    /// The record, of the stream that the guest knows by a number.
    pub(crate) fn record(&self, stream: u32) -> VeventArmSmmuv3 {
        let first = self.id as u64 | u64::from(stream) << STREAM_SHIFT;
        let is_of_walk = matches!(
            self.id,
            EventId::Translation | EventId::AddressSize | EventId::Access | EventId::Permission
        );
        if !is_of_walk {
            return VeventArmSmmuv3 { evt: [first, 0, 0, 0] };
        }
        let read = if self.access == DmaAccess::Read { READ } else { 0 };
        VeventArmSmmuv3 { evt: [first, read | CLASS_INPUT, self.address, 0] }
    }
}

const STREAM_SHIFT: u32 = 32;
/// In the second word: the request reads.
const READ: u64 = 1 << 35;
/// In the second word: it is the request's own address that is not translated.
const CLASS_INPUT: u64 = 0b10 << 40;
