//! Registers of the extended capabilities. Offsets count from the start of each.

/// Advanced error reporting.
pub mod aer {
    /// Uncorrectable error status, 32 bits.
    pub const UNCORRECTABLE_STATUS: u16 = 0x04;
    /// Uncorrectable error mask, 32 bits.
    pub const UNCORRECTABLE_MASK: u16 = 0x08;
    /// Uncorrectable error severity, 32 bits.
    pub const UNCORRECTABLE_SEVERITY: u16 = 0x0c;
    /// Correctable error status, 32 bits.
    pub const CORRECTABLE_STATUS: u16 = 0x10;
    /// Correctable error mask, 32 bits.
    pub const CORRECTABLE_MASK: u16 = 0x14;
    /// Capabilities and control, 32 bits.
    pub const CONTROL: u16 = 0x18;
    /// Root port: root error command, 32 bits.
    pub const ROOT_COMMAND: u16 = 0x2c;
    /// Root port: root error status, 32 bits.
    pub const ROOT_STATUS: u16 = 0x30;
    /// Bytes that an endpoint has before TLP prefixes.
    pub const LENGTH: u16 = 0x2c;
    /// Bytes that a root port has.
    pub const ROOT_LENGTH: u16 = 0x38;

    /// The uncorrectable errors that the emulated functions know.
    pub const UNCORRECTABLE: u32 = 0x007f_f030;
    /// Which of them are fatal after reset.
    pub const SEVERITY_RESET: u32 = 0x0046_2030;
    /// The correctable errors.
    pub const CORRECTABLE: u32 = 0x0000_f1c1;
    /// Correctable errors masked after reset: advisory non-fatal, internal, header log overflow.
    pub const CORRECTABLE_MASK_RESET: u32 = 0x0000_e000;
    /// Control: ECRC generation and check capable.
    pub const ECRC_CAPABLE: u32 = 0xa0;
    /// Control: ECRC generation and check enable.
    pub const ECRC_ENABLE: u32 = 0x140;
    /// Root command: the three interrupt enables.
    pub const ROOT_COMMAND_WRITABLE: u32 = 7;
    /// Root status: the events, each cleared by writing one.
    pub const ROOT_STATUS_EVENTS: u32 = 0x7f;
}

/// Access control services.
pub mod acs {
    /// Capability, 16 bits.
    pub const CAPABILITY: u16 = 0x04;
    /// Bits of the egress control vector, 8 bits: 0 means 256.
    pub const EGRESS_BITS: u16 = 0x05;
    /// Control, 16 bits.
    pub const CONTROL: u16 = 0x06;
    /// Bytes before the egress control vector.
    pub const LENGTH: u16 = 8;
    /// Source validation, translation blocking, request and completion redirect, upstream forwarding.
    pub const ISOLATION: u16 = 0x1f;
    /// Egress control.
    pub const EGRESS_CONTROL: u16 = 1 << 5;
}

/// Alternative routing ID.
pub mod ari {
    /// Capability, 16 bits; the next function number is in bits 15:8.
    pub const CAPABILITY: u16 = 0x04;
    /// Bytes of the capability.
    pub const LENGTH: u16 = 8;
}

/// Single-root I/O virtualization.
pub mod sriov {
    /// Capabilities, 32 bits.
    pub const CAPABILITIES: u16 = 0x04;
    /// Control, 16 bits.
    pub const CONTROL: u16 = 0x08;
    /// Status, 16 bits.
    pub const STATUS: u16 = 0x0a;
    /// VFs present at first, 16 bits.
    pub const INITIAL_VFS: u16 = 0x0c;
    /// VFs there can be, 16 bits.
    pub const TOTAL_VFS: u16 = 0x0e;
    /// VFs that are, once enabled, 16 bits.
    pub const NUM_VFS: u16 = 0x10;
    /// Function dependency link, 8 bits.
    pub const DEPENDENCY_LINK: u16 = 0x12;
    /// Requester ID of the first VF less that of the PF, 16 bits.
    pub const FIRST_VF_OFFSET: u16 = 0x14;
    /// Requester IDs from one VF to the next, 16 bits.
    pub const VF_STRIDE: u16 = 0x16;
    /// Device ID of the VFs, 16 bits.
    pub const VF_DEVICE_ID: u16 = 0x1a;
    /// Supported page sizes, 32 bits: bit n is 4 KiB << n.
    pub const SUPPORTED_PAGE_SIZES: u16 = 0x1c;
    /// The page size in use, 32 bits.
    pub const SYSTEM_PAGE_SIZE: u16 = 0x20;
    /// The first BAR of the VFs, 32 bits; its size is that of one VF's part.
    pub const VF_BAR0: u16 = 0x24;
    /// Bytes of the capability.
    pub const LENGTH: u16 = 0x40;
    /// Capabilities: ARI hierarchy preserved.
    pub const ARI_PRESERVED: u32 = 1 << 1;
    /// Control: VFs are enabled.
    pub const VF_ENABLE: u16 = 1 << 0;
    /// Control: VF memory decode.
    pub const VF_MEMORY: u16 = 1 << 3;
    /// Control: ARI capable hierarchy.
    pub const ARI_HIERARCHY: u16 = 1 << 4;
    /// Page sizes: 4 KiB, 8 KiB, 64 KiB, 256 KiB, 1 MiB, 4 MiB, which the specification requires.
    pub const PAGE_SIZES_REQUIRED: u32 = 0x553;
    /// Page size: 4 KiB.
    pub const PAGE_SIZE_4K: u32 = 1;
}

/// Data object exchange.
pub mod doe {
    /// Capabilities, 32 bits.
    pub const CAPABILITIES: u16 = 0x04;
    /// Control, 32 bits.
    pub const CONTROL: u16 = 0x08;
    /// Status, 32 bits.
    pub const STATUS: u16 = 0x0c;
    /// Write data mailbox, 32 bits.
    pub const WRITE_MAILBOX: u16 = 0x10;
    /// Read data mailbox, 32 bits.
    pub const READ_MAILBOX: u16 = 0x14;
    /// Bytes of the capability.
    pub const LENGTH: u16 = 0x18;
    /// Control: abort. Reads as zero.
    pub const ABORT: u32 = 1 << 0;
    /// Control: go. Reads as zero.
    pub const GO: u32 = 1 << 31;
    /// Status: busy.
    pub const BUSY: u32 = 1 << 0;
    /// Status: error.
    pub const ERROR: u32 = 1 << 2;
    /// Status: an object is ready to be read.
    pub const READY: u32 = 1 << 31;
}

/// Device serial number.
pub mod dsn {
    /// The serial number, 64 bits.
    pub const SERIAL: u16 = 0x04;
    /// Bytes of the capability.
    pub const LENGTH: u16 = 12;
}

/// Designated vendor-specific.
pub mod dvsec {
    /// Vendor ID in bits 15:0, revision in 19:16, length in 31:20.
    pub const HEADER1: u16 = 0x04;
    /// The vendor's ID for the structure, 16 bits.
    pub const HEADER2: u16 = 0x08;
    /// Bytes before the vendor's own.
    pub const LENGTH_MIN: u16 = 0x0a;
    /// The most bytes that the length field can say, in whole registers.
    pub const LENGTH_MAX: u16 = 0xffc;
    /// HEADER1: length, bits 31:20.
    pub const LENGTH_SHIFT: u32 = 20;
}

/// Integrity and data encryption.
pub mod ide {
    /// Capability, 32 bits.
    pub const CAPABILITY: u16 = 0x04;
    /// Control, 32 bits.
    pub const CONTROL: u16 = 0x08;
    /// The first stream block.
    pub const STREAMS: u16 = 0x0c;

    /// Capability: link streams.
    pub const LINK: u32 = 1 << 0;
    /// Capability: selective streams.
    pub const SELECTIVE: u32 = 1 << 1;
    /// Capability: flow-through.
    pub const FLOW_THROUGH: u32 = 1 << 2;
    /// Capability: selective streams for configuration requests.
    pub const SELECTIVE_CONFIG: u32 = 1 << 7;
    /// Capability: selective streams less one, bits 23:16.
    pub const SELECTIVE_COUNT_SHIFT: u32 = 16;
    /// Capability: streams can be limited to TEE traffic.
    pub const TEE_LIMITED: u32 = 1 << 24;
    /// Control: flow-through enable.
    pub const FLOW_THROUGH_ENABLE: u32 = 1 << 2;

    /// Bytes of a selective stream block before its address associations.
    pub const STREAM_LENGTH: u16 = 20;
    /// Bytes of an address association.
    pub const ASSOCIATION_LENGTH: u16 = 12;
    /// Stream block: capability, 32 bits; associations in bits 3:0.
    pub const STREAM_CAPABILITY: u16 = 0x00;
    /// Stream block: control, 32 bits.
    pub const STREAM_CONTROL: u16 = 0x04;
    /// Stream block: status, 32 bits.
    pub const STREAM_STATUS: u16 = 0x08;
    /// Stream block: requester ID association 1, 32 bits.
    pub const STREAM_RID_1: u16 = 0x0c;
    /// Stream block: requester ID association 2, 32 bits.
    pub const STREAM_RID_2: u16 = 0x10;
    /// Stream block: the first address association, three registers of 32 bits.
    pub const STREAM_ADDRESS: u16 = 0x14;
    /// Stream control: enable.
    pub const STREAM_ENABLE: u32 = 1 << 0;
    /// Stream control: what software may write: enable, configuration, algorithm, traffic class,
    /// default, TEE-limited and the stream ID.
    pub const STREAM_CONTROL_WRITABLE: u32 = 0xffff_c201;
    /// Stream status: integrity check failed; cleared by writing one.
    pub const STREAM_FAILED: u32 = 1 << 31;
    /// RID association 1: limit, bits 23:8.
    pub const RID_1_WRITABLE: u32 = 0x00ff_ff00;
    /// RID association 2: valid, base, segment.
    pub const RID_2_WRITABLE: u32 = 0xffff_ff01;
    /// Address association 1: valid, base bits 31:20, limit bits 31:20.
    pub const ADDRESS_1_WRITABLE: u32 = 0xffff_ff01;
}
