//! Register offsets and bits of config space, by the names of the PCI specifications.
//!
//! Offsets in [`header`] count from the start of config space; those in the other modules from the
//! start of the capability that the module is named for. Offsets are bytes. A multi-byte register is
//! little-endian. Holds numbers only.
//!
//! Sources: PCI Express Base 6.0 chapters 6, 7 and 9; the layout of IDE from [PCIe-6 §7.9.26].

mod extended;

pub use extended::{acs, aer, ari, doe, dsn, dvsec, ide, sriov};

/// Bytes of config space that a PCI Express function has.
pub const CONFIG_SIZE: u16 = 4096;
/// Bytes that conventional accesses reach; extended capabilities begin here.
pub const CONVENTIONAL_SIZE: u16 = 256;
/// Where a capability may begin.
pub const FIRST_CAPABILITY: u16 = 0x40;
/// Base address registers of a type 0 header.
pub const BAR_COUNT: usize = 6;

/// The header that every function has.
pub mod header {
    /// Vendor ID, 16 bits.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command, 16 bits.
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u16 = 0x06;
    /// Revision ID, 8 bits.
    pub const REVISION_ID: u16 = 0x08;
    /// Class code, 24 bits.
    pub const CLASS_CODE: u16 = 0x09;
    /// Cache line size, 8 bits.
    pub const CACHE_LINE_SIZE: u16 = 0x0c;
    /// Latency timer, 8 bits.
    pub const LATENCY_TIMER: u16 = 0x0d;
    /// Header type, 8 bits.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// Built-in self test, 8 bits.
    pub const BIST: u16 = 0x0f;
    /// The first base address register, 32 bits.
    pub const BAR0: u16 = 0x10;
    /// Type 1: primary bus number, 8 bits.
    pub const PRIMARY_BUS: u16 = 0x18;
    /// Type 1: secondary bus number, 8 bits.
    pub const SECONDARY_BUS: u16 = 0x19;
    /// Type 1: subordinate bus number, 8 bits.
    pub const SUBORDINATE_BUS: u16 = 0x1a;
    /// Type 1: I/O base, 8 bits.
    pub const IO_BASE: u16 = 0x1c;
    /// Type 1: I/O limit, 8 bits.
    pub const IO_LIMIT: u16 = 0x1d;
    /// Type 1: secondary status, 16 bits.
    pub const SECONDARY_STATUS: u16 = 0x1e;
    /// Type 1: memory base, 16 bits.
    pub const MEMORY_BASE: u16 = 0x20;
    /// Type 1: memory limit, 16 bits.
    pub const MEMORY_LIMIT: u16 = 0x22;
    /// Type 1: prefetchable memory base, 16 bits.
    pub const PREFETCHABLE_BASE: u16 = 0x24;
    /// Type 1: prefetchable memory limit, 16 bits.
    pub const PREFETCHABLE_LIMIT: u16 = 0x26;
    /// Type 1: upper half of the prefetchable base, 32 bits.
    pub const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
    /// Type 1: upper half of the prefetchable limit, 32 bits.
    pub const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
    /// Type 0: subsystem vendor ID, 16 bits.
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    /// Type 0: subsystem ID, 16 bits.
    pub const SUBSYSTEM_ID: u16 = 0x2e;
    /// Type 0: expansion ROM base address, 32 bits.
    pub const EXPANSION_ROM: u16 = 0x30;
    /// Offset of the first capability, 8 bits.
    pub const CAPABILITIES_POINTER: u16 = 0x34;
    /// Interrupt line, 8 bits.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Interrupt pin, 8 bits: 0 none, 1 INTA.
    pub const INTERRUPT_PIN: u16 = 0x3d;
    /// Type 1: bridge control, 16 bits.
    pub const BRIDGE_CONTROL: u16 = 0x3e;

    /// Header type: the layout of the header.
    pub const TYPE_LAYOUT: u8 = 0x7f;
    /// Header type: the device has more than one function.
    pub const TYPE_MULTI_FUNCTION: u8 = 0x80;
    /// Header type of an endpoint.
    pub const TYPE_ENDPOINT: u8 = 0;
    /// Header type of a bridge.
    pub const TYPE_BRIDGE: u8 = 1;
}

/// Bits of the Command register.
pub mod command {
    /// I/O space enable.
    pub const IO: u16 = 1 << 0;
    /// Memory space enable.
    pub const MEMORY: u16 = 1 << 1;
    /// Bus master enable.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// Parity error response.
    pub const PARITY: u16 = 1 << 6;
    /// SERR# enable.
    pub const SERR: u16 = 1 << 8;
    /// INTx disable.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Bits of the Status register.
pub mod status {
    /// INTx is pending in the function.
    pub const INTERRUPT: u16 = 1 << 3;
    /// The function has a capability list.
    pub const CAPABILITIES: u16 = 1 << 4;
    /// The error bits, each cleared by writing one.
    pub const ERRORS: u16 = 0xf900;
}

/// Bits of a base address register.
pub mod bar {
    /// I/O space rather than memory.
    pub const IO: u32 = 1 << 0;
    /// Memory of 64-bit address; the next register holds the upper half.
    pub const MEMORY_64: u32 = 2 << 1;
    /// Reads have no side effects.
    pub const PREFETCHABLE: u32 = 1 << 3;
    /// The flag bits of a memory BAR.
    pub const MEMORY_FLAGS: u32 = 0xf;
    /// The flag bits of an I/O BAR.
    pub const IO_FLAGS: u32 = 0x3;
    /// The smallest memory BAR that a PCI Express function may have, in bytes.
    pub const MEMORY_SIZE_MIN: u64 = 128;
    /// The smallest I/O BAR, in bytes.
    pub const IO_SIZE_MIN: u64 = 4;
}

/// Capability IDs.
pub mod cap_id {
    /// Power management.
    pub const PM: u8 = 0x01;
    /// Accelerated graphics port.
    pub const AGP: u8 = 0x02;
    /// Vital product data.
    pub const VPD: u8 = 0x03;
    /// Message-signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// PCI-X.
    pub const PCIX: u8 = 0x07;
    /// HyperTransport.
    pub const HT: u8 = 0x08;
    /// Vendor-specific.
    pub const VENDOR: u8 = 0x09;
    /// Subsystem IDs of a bridge.
    pub const SSVID: u8 = 0x0d;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
    /// SATA index and data.
    pub const SATA: u8 = 0x12;
    /// Advanced features of conventional PCI.
    pub const AF: u8 = 0x13;
}

/// Extended capability IDs.
pub mod ext_id {
    /// Advanced error reporting.
    pub const AER: u16 = 0x01;
    /// Virtual channels.
    pub const VC: u16 = 0x02;
    /// Device serial number.
    pub const DSN: u16 = 0x03;
    /// Power budgeting.
    pub const POWER_BUDGET: u16 = 0x04;
    /// Multi-function virtual channels.
    pub const MFVC: u16 = 0x08;
    /// Virtual channels, the second ID.
    pub const VC9: u16 = 0x09;
    /// Vendor-specific.
    pub const VENDOR: u16 = 0x0b;
    /// Access control services.
    pub const ACS: u16 = 0x0d;
    /// Alternative routing ID.
    pub const ARI: u16 = 0x0e;
    /// Address translation services.
    pub const ATS: u16 = 0x0f;
    /// Single-root I/O virtualization.
    pub const SRIOV: u16 = 0x10;
    /// Multicast.
    pub const MULTICAST: u16 = 0x12;
    /// Page requests.
    pub const PRI: u16 = 0x13;
    /// Resizable BARs.
    pub const REBAR: u16 = 0x15;
    /// Dynamic power allocation.
    pub const DPA: u16 = 0x16;
    /// TLP processing hints.
    pub const TPH: u16 = 0x17;
    /// Latency tolerance reporting.
    pub const LTR: u16 = 0x18;
    /// Process address space ID.
    pub const PASID: u16 = 0x1b;
    /// Designated vendor-specific.
    pub const DVSEC: u16 = 0x23;
    /// Data object exchange.
    pub const DOE: u16 = 0x2e;
    /// Integrity and data encryption.
    pub const IDE: u16 = 0x30;
}

/// Power management capability.
pub mod pm {
    /// Capabilities, 16 bits.
    pub const CAPABILITIES: u16 = 0x02;
    /// Control and status, 16 bits.
    pub const CONTROL: u16 = 0x04;
    /// Bytes of the capability.
    pub const LENGTH: u16 = 8;
    /// Capabilities: version 1.2 of the specification.
    pub const VERSION_3: u16 = 3;
    /// Control: the power state.
    pub const STATE: u16 = 3;
    /// Control: state D3hot.
    pub const D3HOT: u16 = 3;
    /// Control: D3hot to D0 keeps the function's registers.
    pub const NO_SOFT_RESET: u16 = 1 << 3;
}

/// MSI capability.
pub mod msi {
    /// Message control, 16 bits.
    pub const CONTROL: u16 = 0x02;
    /// Message address, 32 bits.
    pub const ADDRESS: u16 = 0x04;
    /// With 64-bit addresses: the upper half.
    pub const ADDRESS_UPPER: u16 = 0x08;
    /// With 32-bit addresses: message data, 16 bits.
    pub const DATA_32: u16 = 0x08;
    /// With 64-bit addresses: message data, 16 bits.
    pub const DATA_64: u16 = 0x0c;
    /// With 32-bit addresses: mask bits, 32 bits.
    pub const MASK_32: u16 = 0x0c;
    /// With 64-bit addresses: mask bits, 32 bits.
    pub const MASK_64: u16 = 0x10;
    /// With 32-bit addresses: pending bits, 32 bits.
    pub const PENDING_32: u16 = 0x10;
    /// With 64-bit addresses: pending bits, 32 bits.
    pub const PENDING_64: u16 = 0x14;
    /// Control: enable.
    pub const ENABLE: u16 = 1 << 0;
    /// Control: log2 of the vectors the function has, bits 3:1.
    pub const CAPABLE_SHIFT: u16 = 1;
    /// Control: log2 of the vectors enabled, bits 6:4.
    pub const ENABLED_SHIFT: u16 = 4;
    /// Both log2 fields, shifted down.
    pub const COUNT_LG2: u16 = 7;
    /// The largest log2 that either field may hold.
    pub const COUNT_LG2_MAX: u16 = 5;
    /// Control: addresses have 64 bits.
    pub const ADDRESS_64: u16 = 1 << 7;
    /// Control: vectors can be masked one by one.
    pub const MASKABLE: u16 = 1 << 8;
}

/// MSI-X capability and its table.
pub mod msix {
    /// Message control, 16 bits.
    pub const CONTROL: u16 = 0x02;
    /// Where the table lies, 32 bits.
    pub const TABLE: u16 = 0x04;
    /// Where the pending bits lie, 32 bits.
    pub const PBA: u16 = 0x08;
    /// Bytes of the capability.
    pub const LENGTH: u16 = 12;
    /// Control: vectors less one.
    pub const TABLE_SIZE: u16 = 0x7ff;
    /// Control: all vectors are masked.
    pub const FUNCTION_MASK: u16 = 1 << 14;
    /// Control: enable.
    pub const ENABLE: u16 = 1 << 15;
    /// The BAR, in the low bits of `TABLE` and `PBA`; the rest is the offset.
    pub const BAR_INDEX: u32 = 7;

    /// Bytes of a table entry.
    pub const ENTRY_SIZE: u64 = 16;
    /// Entry: message address, 64 bits.
    pub const ENTRY_ADDRESS: u64 = 0x0;
    /// Entry: message data, 32 bits.
    pub const ENTRY_DATA: u64 = 0x8;
    /// Entry: vector control, 32 bits.
    pub const ENTRY_CONTROL: u64 = 0xc;
    /// Vector control: the vector is masked.
    pub const ENTRY_MASKED: u32 = 1 << 0;
}

/// PCI Express capability.
pub mod express {
    /// Capabilities, 16 bits.
    pub const CAPABILITIES: u16 = 0x02;
    /// Device capabilities, 32 bits.
    pub const DEVCAP: u16 = 0x04;
    /// Device control, 16 bits.
    pub const DEVCTL: u16 = 0x08;
    /// Device status, 16 bits.
    pub const DEVSTA: u16 = 0x0a;
    /// Link capabilities, 32 bits.
    pub const LNKCAP: u16 = 0x0c;
    /// Link control, 16 bits.
    pub const LNKCTL: u16 = 0x10;
    /// Link status, 16 bits.
    pub const LNKSTA: u16 = 0x12;
    /// Root control, 16 bits.
    pub const RTCTL: u16 = 0x1c;
    /// Device capabilities 2, 32 bits.
    pub const DEVCAP2: u16 = 0x24;
    /// Device control 2, 16 bits.
    pub const DEVCTL2: u16 = 0x28;
    /// Link capabilities 2, 32 bits.
    pub const LNKCAP2: u16 = 0x2c;
    /// Link control 2, 16 bits.
    pub const LNKCTL2: u16 = 0x30;
    /// Bytes of a version 2 capability.
    pub const LENGTH: u16 = 0x3c;

    /// Capabilities: version, bits 3:0.
    pub const VERSION: u16 = 0xf;
    /// Capabilities: the version whose registers are named here.
    pub const VERSION_2: u16 = 2;
    /// Capabilities: device or port type, bits 7:4.
    pub const TYPE_SHIFT: u16 = 4;
    /// The type field, shifted down.
    pub const TYPE: u16 = 0xf;
    /// Type: endpoint.
    pub const TYPE_ENDPOINT: u16 = 0x0;
    /// Type: root port.
    pub const TYPE_ROOT_PORT: u16 = 0x4;
    /// Type: upstream port of a switch.
    pub const TYPE_UPSTREAM: u16 = 0x5;
    /// Type: endpoint integrated in the root complex; it has no link.
    pub const TYPE_INTEGRATED: u16 = 0x9;

    /// DEVCAP: largest payload 256 bytes.
    pub const PAYLOAD_256: u32 = 1;
    /// DEVCAP: extended tags.
    pub const EXTENDED_TAG: u32 = 1 << 5;
    /// DEVCAP: role-based error reporting.
    pub const ROLE_BASED_ERRORS: u32 = 1 << 15;
    /// DEVCAP: the function can be reset on its own.
    pub const FLR_CAPABLE: u32 = 1 << 28;
    /// DEVCAP: TEE-IO supported.
    pub const TEE_IO: u32 = 1 << 30;

    /// DEVCTL: error reporting enables, bits 3:0.
    pub const ERROR_REPORTING: u16 = 0xf;
    /// DEVCTL: relaxed ordering.
    pub const RELAXED_ORDERING: u16 = 1 << 4;
    /// DEVCTL: largest payload, bits 7:5.
    pub const PAYLOAD: u16 = 7 << 5;
    /// DEVCTL: extended tags.
    pub const EXTENDED_TAG_ENABLE: u16 = 1 << 8;
    /// DEVCTL: no snoop.
    pub const NO_SNOOP: u16 = 1 << 11;
    /// DEVCTL: largest read request, bits 14:12.
    pub const READ_REQUEST: u16 = 7 << 12;
    /// DEVCTL: largest read request 512 bytes.
    pub const READ_REQUEST_512: u16 = 2 << 12;
    /// DEVCTL: begin a function-level reset. Reads as zero.
    pub const INITIATE_FLR: u16 = 1 << 15;
    /// DEVSTA: the error bits, each cleared by writing one.
    pub const DEVSTA_ERRORS: u16 = 0xf;

    /// LNKCAP, LNKSTA and LNKCTL2: 16 GT/s, bits 3:0.
    pub const SPEED_16GT: u16 = 4;
    /// LNKCAP and LNKSTA: four lanes, bits 9:4.
    pub const WIDTH_4: u16 = 4 << 4;
    /// LNKCAP: optionality compliance.
    pub const ASPM_OPTIONALITY: u32 = 1 << 22;
    /// LNKCAP: data link layer active reporting.
    pub const LINK_ACTIVE_CAPABLE: u32 = 1 << 20;
    /// LNKCAP: port number, bits 31:24.
    pub const PORT_NUMBER_SHIFT: u32 = 24;
    /// LNKCTL: read completion boundary, common clock, extended synch.
    pub const LNKCTL_WRITABLE: u16 = 0x00c8;
    /// LNKSTA: slot clock.
    pub const SLOT_CLOCK: u16 = 1 << 12;
    /// LNKSTA: the link is up.
    pub const LINK_ACTIVE: u16 = 1 << 13;
    /// LNKCAP2: 2.5, 5, 8 and 16 GT/s.
    pub const SPEEDS_TO_16GT: u32 = 0x1e;
    /// LNKCTL2: target speed, bits 3:0.
    pub const TARGET_SPEED: u16 = 0xf;

    /// DEVCAP2: completion timeout can be disabled.
    pub const TIMEOUT_DISABLE_CAPABLE: u32 = 1 << 4;
    /// DEVCAP2: forwards to more than eight functions.
    pub const ARI_FORWARDING_CAPABLE: u32 = 1 << 5;
    /// DEVCTL2: completion timeout disable.
    pub const TIMEOUT_DISABLE: u16 = 1 << 4;
    /// DEVCTL2: ARI forwarding enable.
    pub const ARI_FORWARDING: u16 = 1 << 5;
    /// RTCTL: all enables.
    pub const RTCTL_WRITABLE: u16 = 0x1f;
}
