//! What a scan of the bus finds a function to be.
//!
//! Takes no lock.

use pci::regs::{cap_id, express, ext_id, header, sriov};
use pci::{Function, walk};

/// What a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID; of a virtual function, that of the physical one.
    pub vendor: u16,
    /// Device ID; of a virtual function, the one that the physical function names.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem_device: u16,
    /// Class code, 24 bits.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
}

impl Identity {
    /// What config space says.
    pub(super) fn of(read: &dyn Fn(u16, &mut [u8])) -> Self {
        let mut bytes = [0; 0x30];
        read(0, &mut bytes);
        let word = |at: u16| {
            let at = usize::from(at);
            u16::from_le_bytes([bytes[at], bytes[at + 1]])
        };
        let class = usize::from(header::CLASS_CODE);
        Self {
            vendor: word(header::VENDOR_ID),
            device: word(header::DEVICE_ID),
            subsystem_vendor: word(header::SUBSYSTEM_VENDOR_ID),
            subsystem_device: word(header::SUBSYSTEM_ID),
            class: u32::from_le_bytes([bytes[class], bytes[class + 1], bytes[class + 2], 0]),
            revision: bytes[usize::from(header::REVISION_ID)],
        }
    }
}

/// The device ID of a physical function's virtual ones.
pub(super) fn vf_device_id(physical: &dyn Function) -> Option<u16> {
    let at = extended(physical, ext_id::SRIOV)?;
    let mut id = [0; 2];
    physical.config_read(at + sriov::VF_DEVICE_ID, &mut id);
    Some(u16::from_le_bytes(id))
}

/// Where an extended capability begins.
pub(super) fn extended(function: &dyn Function, id: u16) -> Option<u16> {
    walk::extended_capabilities(|offset, into| function.config_read(offset, into))
        .iter()
        .find(|capability| capability.id == id)
        .map(|capability| capability.offset)
}

/// Whether the function can be reset on its own.
pub(super) fn has_flr(function: &dyn Function) -> bool {
    walk::capabilities(|offset, into| function.config_read(offset, into))
        .iter()
        .filter(|capability| capability.id == cap_id::EXPRESS)
        .any(|capability| {
            let mut bytes = [0; 4];
            function.config_read(capability.offset + express::DEVCAP, &mut bytes);
            u32::from_le_bytes(bytes) & express::FLR_CAPABLE != 0
        })
}
