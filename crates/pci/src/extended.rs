//! The extended capabilities, ready to be placed by a builder.
//!
//! Each constructor says what the hardware shows after reset and which bits host software may change.
//! Holds no state and takes no lock.

use crate::block::RegisterBlock;
use crate::build::bar_registers;
use crate::regs::{acs, aer, ari, doe, dsn, dvsec, ext_id, ide, sriov};
use crate::{Bar, BarKind};

/// An extended capability without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedBlock {
    pub(crate) id: u16,
    pub(crate) version: u8,
    pub(crate) registers: RegisterBlock,
}

impl ExtendedBlock {
    /// A capability of which only the registers are known. Its first four bytes are the builder's.
    pub fn new(id: u16, version: u8, registers: RegisterBlock) -> Self {
        Self { id, version, registers }
    }
}

/// Advanced error reporting. A root port also has the registers that collect errors.
pub fn error_reporting(root_port: bool) -> ExtendedBlock {
    let length = if root_port { aer::ROOT_LENGTH } else { aer::LENGTH };
    let correctable_mask = aer::CORRECTABLE_MASK_RESET;
    let registers = RegisterBlock::new(length)
        .clear_on_one(aer::UNCORRECTABLE_STATUS, aer::UNCORRECTABLE)
        .sticky(aer::UNCORRECTABLE_STATUS, aer::UNCORRECTABLE)
        .dword(aer::UNCORRECTABLE_MASK, 0, aer::UNCORRECTABLE)
        .sticky(aer::UNCORRECTABLE_MASK, aer::UNCORRECTABLE)
        .dword(aer::UNCORRECTABLE_SEVERITY, aer::SEVERITY_RESET, aer::UNCORRECTABLE)
        .sticky(aer::UNCORRECTABLE_SEVERITY, aer::UNCORRECTABLE)
        .clear_on_one(aer::CORRECTABLE_STATUS, aer::CORRECTABLE)
        .sticky(aer::CORRECTABLE_STATUS, aer::CORRECTABLE)
        .dword(aer::CORRECTABLE_MASK, correctable_mask, aer::CORRECTABLE)
        .sticky(aer::CORRECTABLE_MASK, aer::CORRECTABLE)
        .dword(aer::CONTROL, aer::ECRC_CAPABLE, aer::ECRC_ENABLE)
        .sticky(aer::CONTROL, aer::ECRC_ENABLE);
    let registers = if root_port {
        registers
            .dword(aer::ROOT_COMMAND, 0, aer::ROOT_COMMAND_WRITABLE)
            .clear_on_one(aer::ROOT_STATUS, aer::ROOT_STATUS_EVENTS)
            .sticky(aer::ROOT_STATUS, aer::ROOT_STATUS_EVENTS)
    } else {
        registers
    };
    ExtendedBlock::new(ext_id::AER, 2, registers)
}

/// Access control services of a port: what keeps functions behind it apart.
pub fn access_control() -> ExtendedBlock {
    let registers = RegisterBlock::new(acs::LENGTH).word(acs::CAPABILITY, acs::ISOLATION, 0).word(
        acs::CONTROL,
        0,
        acs::ISOLATION,
    );
    ExtendedBlock::new(ext_id::ACS, 1, registers)
}

/// Alternative routing ID; `next_function` is 0 at the end of the chain of functions.
pub fn alternative_routing(next_function: u8) -> ExtendedBlock {
    let registers =
        RegisterBlock::new(ari::LENGTH).word(ari::CAPABILITY, u16::from(next_function) << 8, 0);
    ExtendedBlock::new(ext_id::ARI, 1, registers)
}

/// What a physical function says of its virtual functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualFunctions {
    /// VFs there can be, and are present at first.
    pub total_vfs: u16,
    /// Requester ID of the first VF less that of the physical function.
    pub first_offset: u16,
    /// Requester IDs from one VF to the next.
    pub stride: u16,
    /// Device ID of the VFs.
    pub device_id: u16,
    /// The function number of the physical function.
    pub function: u8,
    /// The BARs of one VF.
    pub bars: [Option<Bar>; 6],
}

/// Single-root I/O virtualization.
pub fn single_root_virtualization(options: &VirtualFunctions) -> ExtendedBlock {
    let control = sriov::VF_ENABLE | sriov::VF_MEMORY | sriov::ARI_HIERARCHY;
    let mut registers = RegisterBlock::new(sriov::LENGTH)
        .dword(sriov::CAPABILITIES, sriov::ARI_PRESERVED, 0)
        .word(sriov::CONTROL, 0, control)
        .word(sriov::INITIAL_VFS, options.total_vfs, 0)
        .word(sriov::TOTAL_VFS, options.total_vfs, 0)
        .word(sriov::NUM_VFS, 0, !0)
        .bytes(sriov::DEPENDENCY_LINK, &[options.function])
        .word(sriov::FIRST_VF_OFFSET, options.first_offset, 0)
        .word(sriov::VF_STRIDE, options.stride, 0)
        .word(sriov::VF_DEVICE_ID, options.device_id, 0)
        .dword(sriov::SUPPORTED_PAGE_SIZES, sriov::PAGE_SIZES_REQUIRED, 0)
        .dword(sriov::SYSTEM_PAGE_SIZE, sriov::PAGE_SIZE_4K, sriov::PAGE_SIZES_REQUIRED);
    for (bar, at) in options.bars.iter().zip((sriov::VF_BAR0..).step_by(4)) {
        let Some(bar) = bar else { continue };
        let [low, high] = bar_registers(bar);
        registers = registers.dword(at, low.value, low.writable);
        if matches!(bar.kind, BarKind::Memory64 { .. }) {
            registers = registers.dword(at + 4, high.value, high.writable);
        }
    }
    ExtendedBlock::new(ext_id::SRIOV, 1, registers)
}

/// A data object exchange mailbox. What is written to it is for its owner to take.
pub fn data_object_exchange() -> ExtendedBlock {
    ExtendedBlock::new(ext_id::DOE, 2, RegisterBlock::new(doe::LENGTH))
}

/// The selective streams of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectiveStreams {
    /// Streams, at least one; 0 counts as one.
    pub count: u8,
    /// Address associations of each stream, 0..=15; more counts as 15.
    pub associations: u8,
}

/// Integrity and data encryption with selective streams only.
pub fn integrity_and_encryption(streams: SelectiveStreams) -> ExtendedBlock {
    let count = u16::from(streams.count.max(1));
    let associations = u16::from(streams.associations.min(15));
    let block = ide::STREAM_LENGTH + associations * ide::ASSOCIATION_LENGTH;
    let capability = ide::SELECTIVE
        | ide::SELECTIVE_CONFIG
        | ide::TEE_LIMITED
        | u32::from(count - 1) << ide::SELECTIVE_COUNT_SHIFT;
    let mut registers = RegisterBlock::new(ide::STREAMS + count * block)
        .dword(ide::CAPABILITY, capability, 0)
        .dword(ide::CONTROL, 0, 0);
    for stream in 0..count {
        registers = with_stream(registers, ide::STREAMS + stream * block, associations);
    }
    ExtendedBlock::new(ext_id::IDE, 1, registers)
}

fn with_stream(registers: RegisterBlock, at: u16, associations: u16) -> RegisterBlock {
    let mut registers = registers
        .dword(at + ide::STREAM_CAPABILITY, u32::from(associations), 0)
        .dword(at + ide::STREAM_CONTROL, 0, ide::STREAM_CONTROL_WRITABLE)
        .clear_on_one(at + ide::STREAM_STATUS, ide::STREAM_FAILED)
        .dword(at + ide::STREAM_RID_1, 0, ide::RID_1_WRITABLE)
        .dword(at + ide::STREAM_RID_2, 0, ide::RID_2_WRITABLE);
    for association in 0..associations {
        let at = at + ide::STREAM_ADDRESS + association * ide::ASSOCIATION_LENGTH;
        registers = registers.dword(at, 0, ide::ADDRESS_1_WRITABLE).dword(at + 4, 0, !0).dword(
            at + 8,
            0,
            !0,
        );
    }
    registers
}

/// Device serial number.
pub fn serial_number(serial: u64) -> ExtendedBlock {
    let registers = RegisterBlock::new(dsn::LENGTH).bytes(dsn::SERIAL, &serial.to_le_bytes());
    ExtendedBlock::new(ext_id::DSN, 1, registers)
}

/// What a vendor defined for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesignatedVendor<'a> {
    /// The vendor whose structure it is.
    pub vendor_id: u16,
    /// The vendor's number for the structure.
    pub id: u16,
    /// Its revision, 0..16.
    pub revision: u8,
    /// The bytes after the headers, read-only.
    pub bytes: &'a [u8],
}

/// Designated vendor-specific bytes.
pub fn designated_vendor(options: DesignatedVendor<'_>) -> ExtendedBlock {
    let own = u16::try_from(options.bytes.len()).unwrap_or(u16::MAX);
    let length = dvsec::LENGTH_MIN.saturating_add(own).min(dvsec::LENGTH_MAX);
    let header = u32::from(options.vendor_id)
        | u32::from(options.revision & 0xf) << 16
        | u32::from(length) << dvsec::LENGTH_SHIFT;
    let registers = RegisterBlock::new(length)
        .dword(dvsec::HEADER1, header, 0)
        .word(dvsec::HEADER2, options.id, 0)
        .bytes(dvsec::LENGTH_MIN, options.bytes);
    ExtendedBlock::new(ext_id::DVSEC, 1, registers)
}
