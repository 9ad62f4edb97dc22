//! The capabilities of the first 256 bytes, ready to be placed by a builder.
//!
//! Each constructor says what the hardware shows after reset and which bits host software may change.
//! Holds no state and takes no lock.

use crate::block::RegisterBlock;
use crate::regs::{cap_id, express, msi, msix, pm};

/// A capability without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityBlock {
    pub(crate) id: u8,
    pub(crate) registers: RegisterBlock,
}

impl CapabilityBlock {
    /// A capability of which only the registers are known. Its first two bytes are the builder's.
    pub fn new(id: u8, registers: RegisterBlock) -> Self {
        Self { id, registers }
    }
}

/// Power management with states D0 and D3hot; waking up keeps the registers.
pub fn power_management() -> CapabilityBlock {
    let registers = RegisterBlock::new(pm::LENGTH).word(pm::CAPABILITIES, pm::VERSION_3, 0).word(
        pm::CONTROL,
        pm::NO_SOFT_RESET,
        pm::STATE,
    );
    CapabilityBlock::new(cap_id::PM, registers)
}

/// What an MSI capability can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// log2 of the vectors, 0..=5; more counts as 5.
    pub vectors_lg2: u16,
    /// Whether message addresses have 64 bits.
    pub address_64: bool,
    /// Whether vectors can be masked one by one.
    pub maskable: bool,
}

/// Message-signalled interrupts.
pub fn message_signalled(options: Msi) -> CapabilityBlock {
    let lg2 = options.vectors_lg2.min(msi::COUNT_LG2_MAX);
    let mut control = lg2 << msi::CAPABLE_SHIFT;
    let (data, mask) = if options.address_64 {
        control |= msi::ADDRESS_64;
        (msi::DATA_64, msi::MASK_64)
    } else {
        (msi::DATA_32, msi::MASK_32)
    };
    let length = if options.maskable { mask + 8 } else { data + 2 };
    let writable = msi::ENABLE | msi::COUNT_LG2 << msi::ENABLED_SHIFT;
    let mut registers = RegisterBlock::new(length).dword(msi::ADDRESS, 0, !3);
    if options.address_64 {
        registers = registers.dword(msi::ADDRESS_UPPER, 0, !0);
    }
    if options.maskable {
        control |= msi::MASKABLE;
        let vectors = 1u32 << lg2;
        registers = registers.dword(mask, 0, u32::MAX >> (32 - vectors));
    }
    let registers = registers.word(data, 0, !0).word(msi::CONTROL, control, writable);
    CapabilityBlock::new(cap_id::MSI, registers)
}

/// A place inside a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarOffset {
    /// The BAR, 0..6.
    pub bar: u8,
    /// Bytes from its start; the low three bits are dropped.
    pub offset: u32,
}

impl BarOffset {
    fn register(self) -> u32 {
        self.offset & !msix::BAR_INDEX | u32::from(self.bar) & msix::BAR_INDEX
    }
}

/// Where an MSI-X capability keeps its table and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixTable {
    /// Vectors, 1..=2048; what lies outside counts as the nearest.
    pub vectors: u16,
    /// The table.
    pub table: BarOffset,
    /// The pending bits.
    pub pba: BarOffset,
}

/// MSI-X.
pub fn msix(options: MsixTable) -> CapabilityBlock {
    let size = options.vectors.clamp(1, msix::TABLE_SIZE + 1) - 1;
    let registers = RegisterBlock::new(msix::LENGTH)
        .word(msix::CONTROL, size, msix::ENABLE | msix::FUNCTION_MASK)
        .dword(msix::TABLE, options.table.register(), 0)
        .dword(msix::PBA, options.pba.register(), 0);
    CapabilityBlock::new(cap_id::MSIX, registers)
}

/// What the PCI Express capability of an endpoint says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpressEndpoint {
    /// Whether the function can be reset on its own.
    pub function_level_reset: bool,
    /// Whether the function takes part in TEE-IO.
    pub tee_io: bool,
    /// A virtual function: what its physical function decides reads as zero.
    pub virtual_function: bool,
}

/// PCI Express, an endpoint on a link of four lanes at 16 GT/s.
pub fn express_endpoint(options: ExpressEndpoint) -> CapabilityBlock {
    let mut devcap = express::PAYLOAD_256 | express::EXTENDED_TAG | express::ROLE_BASED_ERRORS;
    if options.function_level_reset {
        devcap |= express::FLR_CAPABLE;
    }
    if options.tee_io {
        devcap |= express::TEE_IO;
    }
    let kind = express::TYPE_ENDPOINT << express::TYPE_SHIFT | express::VERSION_2;
    let registers = RegisterBlock::new(express::LENGTH)
        .word(express::CAPABILITIES, kind, 0)
        .dword(express::DEVCAP, devcap, 0)
        .dword(express::LNKCAP, LNKCAP, 0)
        .dword(express::DEVCAP2, express::TIMEOUT_DISABLE_CAPABLE, 0)
        .dword(express::LNKCAP2, express::SPEEDS_TO_16GT, 0)
        .clear_on_one(express::DEVCTL, device_status_errors());
    let registers =
        if options.virtual_function { registers } else { with_device_and_link_control(registers) };
    CapabilityBlock::new(cap_id::EXPRESS, registers)
}

/// PCI Express, a root port whose link of four lanes at 16 GT/s is up.
pub fn express_root_port(port_number: u8) -> CapabilityBlock {
    let kind = express::TYPE_ROOT_PORT << express::TYPE_SHIFT | express::VERSION_2;
    let devcap = express::PAYLOAD_256 | express::EXTENDED_TAG | express::ROLE_BASED_ERRORS;
    let lnkcap = LNKCAP
        | express::LINK_ACTIVE_CAPABLE
        | u32::from(port_number) << express::PORT_NUMBER_SHIFT;
    let devcap2 = express::TIMEOUT_DISABLE_CAPABLE | express::ARI_FORWARDING_CAPABLE;
    let registers = RegisterBlock::new(express::LENGTH)
        .word(express::CAPABILITIES, kind, 0)
        .dword(express::DEVCAP, devcap, 0)
        .dword(express::LNKCAP, lnkcap, 0)
        .dword(express::DEVCAP2, devcap2, 0)
        .dword(express::LNKCAP2, express::SPEEDS_TO_16GT, 0)
        .clear_on_one(express::DEVCTL, device_status_errors())
        .word(express::RTCTL, 0, express::RTCTL_WRITABLE);
    let registers = with_device_and_link_control(registers)
        .word(express::LNKSTA, LNKSTA | express::LINK_ACTIVE, 0)
        .word(express::DEVCTL2, 0, DEVCTL2_WRITABLE | express::ARI_FORWARDING);
    CapabilityBlock::new(cap_id::EXPRESS, registers)
}

/// Vendor-specific bytes after the length byte, read-only.
pub fn vendor_specific(bytes: &[u8]) -> CapabilityBlock {
    const HEADER: u8 = 3;
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX).saturating_add(HEADER);
    let registers =
        RegisterBlock::new(u16::from(length)).bytes(2, &[length]).bytes(u16::from(HEADER), bytes);
    CapabilityBlock::new(cap_id::VENDOR, registers)
}

const SPEED_AND_WIDTH: u16 = express::SPEED_16GT | express::WIDTH_4;
const LNKCAP: u32 = SPEED_AND_WIDTH as u32 | express::ASPM_OPTIONALITY;
const LNKSTA: u16 = SPEED_AND_WIDTH | express::SLOT_CLOCK;
const DEVCTL_WRITABLE: u16 = express::ERROR_REPORTING
    | express::RELAXED_ORDERING
    | express::PAYLOAD
    | express::EXTENDED_TAG_ENABLE
    | express::NO_SNOOP
    | express::READ_REQUEST;
const DEVCTL_RESET: u16 = express::RELAXED_ORDERING
    | express::EXTENDED_TAG_ENABLE
    | express::NO_SNOOP
    | express::READ_REQUEST_512;
const DEVCTL2_WRITABLE: u16 = express::TIMEOUT_DISABLE;

fn with_device_and_link_control(registers: RegisterBlock) -> RegisterBlock {
    registers
        .word(express::DEVCTL, DEVCTL_RESET, DEVCTL_WRITABLE)
        .kept_by_flr(express::DEVCTL, express::PAYLOAD)
        .word(express::LNKCTL, 0, express::LNKCTL_WRITABLE)
        .kept_by_flr(express::LNKCTL, express::LNKCTL_WRITABLE)
        .word(express::LNKSTA, LNKSTA, 0)
        .word(express::DEVCTL2, 0, DEVCTL2_WRITABLE)
        .word(express::LNKCTL2, express::SPEED_16GT, express::TARGET_SPEED)
        .kept_by_flr(express::LNKCTL2, express::TARGET_SPEED)
}

/// The error bits of Device Status, in the 32 bits that begin with Device Control.
fn device_status_errors() -> u32 {
    u32::from(express::DEVSTA_ERRORS) << 16
}
