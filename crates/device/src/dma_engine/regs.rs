//! The DMA engine's numbers, as `docs/dma-engine.md` states them.
//!
//! Offsets are bytes from the start of what the module names. All registers and fields are
//! little-endian.

/// Vendor ID: the one that emulated devices use by convention and no company holds.
pub const VENDOR_ID: u16 = 0x1234;
/// Device ID of the engine.
pub const DEVICE_ID: u16 = 0xb1d0;
/// Revision ID.
pub const REVISION: u8 = 0x01;
/// Class code: a system peripheral of no particular kind.
pub const CLASS_CODE: u32 = 0x08_80_00;

/// MSI-X vectors.
pub const MSIX_VECTORS: u16 = 16;
/// MSI vectors, as a power of two.
pub const MSI_VECTORS_LG2: u16 = 3;
/// MSI vectors.
pub const MSI_VECTORS: u16 = 1 << MSI_VECTORS_LG2;
/// The most bytes that one step of a transfer moves.
pub const STEP_MAX: usize = 64 << 10;

/// BAR 0: registers, descriptors, status blocks and the data window.
pub mod bar0 {
    /// The BAR's index.
    pub const INDEX: usize = 0;
    /// Its size in bytes.
    pub const SIZE: u64 = 0x1_0000;
    /// The registers: one page, reached by reads and writes only.
    pub const REGISTERS: u64 = 0x0000;
    /// Bytes of the registers.
    pub const REGISTERS_LENGTH: u64 = 0x1000;
    /// The descriptors, [`SLOTS`](super::SLOTS) of them. From here on a client may map.
    pub const DESCRIPTORS: u64 = 0x1000;
    /// The status blocks, one for each descriptor.
    pub const STATUS_BLOCKS: u64 = 0x1800;
    /// The data window.
    pub const WINDOW: u64 = 0x2000;
    /// Bytes of the data window.
    pub const WINDOW_LENGTH: u64 = 0xe000;
}

/// BAR 2: the MSI-X table and pending bits.
pub mod bar2 {
    /// The BAR's index.
    pub const INDEX: usize = 2;
    /// Its size in bytes.
    pub const SIZE: u64 = 0x2000;
    /// The MSI-X table.
    pub const TABLE: u64 = 0x0000;
    /// The pending bits, in a page of their own.
    pub const PENDING: u64 = 0x1000;
}

/// BAR 4, where there is one: memory that the engine itself never looks at.
pub mod bar4 {
    /// The BAR's index.
    pub const INDEX: usize = 4;
    /// The smallest size in bytes.
    pub const SIZE_MIN: u64 = 0x1000;
    /// The largest size in bytes.
    pub const SIZE_MAX: u64 = 0x4000_0000;
}

/// Descriptor slots, each with a status block.
pub const SLOTS: u32 = 32;

/// The registers of BAR 0's first page, 32 bits each.
pub mod register {
    /// Identification: reads as [`ID_VALUE`](super::ID_VALUE).
    pub const ID: u64 = 0x000;
    /// Version of this interface: major in bits 31:16, minor in bits 15:0.
    pub const VERSION: u64 = 0x004;
    /// Slots in bits 7:0, MSI-X vectors in bits 15:8, MSI vectors in bits 23:16, and
    /// [`CAPABILITY_TRUSTED`](super::CAPABILITY_TRUSTED).
    pub const CAPABILITIES: u64 = 0x008;
    /// Operations the engine knows: bit n for operation n.
    pub const OPERATIONS: u64 = 0x00c;
    /// Offset of the descriptors in BAR 0.
    pub const DESCRIPTORS: u64 = 0x010;
    /// Offset of the status blocks in BAR 0.
    pub const STATUS_BLOCKS: u64 = 0x014;
    /// Offset of the data window in BAR 0.
    pub const WINDOW: u64 = 0x018;
    /// Bytes of the data window.
    pub const WINDOW_LENGTH: u64 = 0x01c;
    /// Control; see [`control`](super::control).
    pub const CONTROL: u64 = 0x020;
    /// State; see [`state`](super::state).
    pub const STATE: u64 = 0x024;
    /// Doorbell: takes a slot number.
    pub const DOORBELL: u64 = 0x028;
    /// Interrupt causes; see [`cause`](super::cause).
    pub const INTERRUPT_CAUSE: u64 = 0x030;
    /// Interrupt causes that raise nothing.
    pub const INTERRUPT_MASK: u64 = 0x034;
    /// Descriptors ended since reset, low half.
    pub const COMPLETED: u64 = 0x040;
    /// Descriptors ended since reset, high half.
    pub const COMPLETED_HIGH: u64 = 0x044;
    /// Descriptors ended by a fault since reset.
    pub const FAULTS: u64 = 0x048;
    /// Doorbells refused since reset.
    pub const REFUSED: u64 = 0x04c;
    /// Keeps what is written.
    pub const SCRATCH: u64 = 0x050;
}

/// What the ID register reads: "BIND" in memory order.
pub const ID_VALUE: u32 = 0x444e_4942;
/// What the VERSION register reads: 1.1.
pub const VERSION_VALUE: u32 = 0x0001_0001;
/// A bit of CAPABILITIES: the engine knows the flag [`TRUSTED`](flag::TRUSTED).
pub const CAPABILITY_TRUSTED: u32 = 1 << 24;

/// Bits of the CONTROL register.
pub mod control {
    /// The engine works on what is queued.
    pub const ENABLE: u32 = 1 << 0;
    /// Ends all queued work. Reads as zero.
    pub const ABORT: u32 = 1 << 1;
    /// Puts registers and memory of BAR 0 back to reset. Reads as zero.
    pub const SOFT_RESET: u32 = 1 << 2;
}

/// Fields of the STATE register.
pub mod state {
    /// A descriptor is running.
    pub const RUNNING: u32 = 1 << 0;
    /// Descriptors pending or running, bits 15:8.
    pub const QUEUED_SHIFT: u32 = 8;
    /// The slot that is running, bits 23:16; zero when none is.
    pub const SLOT_SHIFT: u32 = 16;
}

/// Bits of the INTERRUPT_CAUSE and INTERRUPT_MASK registers.
pub mod cause {
    /// A descriptor that asked for an interrupt is done.
    pub const DONE: u32 = 1 << 0;
    /// A descriptor that asked for an interrupt met a fault.
    pub const FAULT: u32 = 1 << 1;
    /// A descriptor that asked for an interrupt was aborted.
    pub const ABORTED: u32 = 1 << 2;
    /// A descriptor that asked for an interrupt was invalid.
    pub const INVALID: u32 = 1 << 3;
    /// A doorbell was refused.
    pub const REFUSED: u32 = 1 << 4;
    /// All causes.
    pub const ALL: u32 = 0x1f;
}

/// A descriptor.
pub mod descriptor {
    /// Bytes of a descriptor.
    pub const SIZE: u64 = 64;
    /// What to do; see [`operation`](super::operation). 32 bits.
    pub const OPERATION: u64 = 0x00;
    /// Flags; see [`flag`](super::flag). 32 bits.
    pub const FLAGS: u64 = 0x04;
    /// The interrupt vector. 32 bits.
    pub const VECTOR: u64 = 0x08;
    /// Bytes to move. 32 bits.
    pub const LENGTH: u64 = 0x0c;
    /// Source address. 64 bits.
    pub const SOURCE: u64 = 0x10;
    /// Destination address. 64 bits.
    pub const DESTINATION: u64 = 0x18;
    /// Fill pattern. 64 bits.
    pub const PATTERN: u64 = 0x20;
    /// Offset in the data window. 32 bits.
    pub const WINDOW_OFFSET: u64 = 0x28;
    /// Must be zero. 32 bits.
    pub const RESERVED_0: u64 = 0x2c;
    /// Comes back in the status block. 64 bits.
    pub const COOKIE: u64 = 0x30;
    /// Must be zero. 64 bits.
    pub const RESERVED_1: u64 = 0x38;
}

/// What a descriptor asks for.
pub mod operation {
    /// Nothing; completes at once.
    pub const NOP: u32 = 1;
    /// Memory at the source address to memory at the destination address.
    pub const COPY: u32 = 2;
    /// The pattern, again and again, to memory at the destination address.
    pub const FILL: u32 = 3;
    /// Memory at the source address to the data window.
    pub const READ: u32 = 4;
    /// The data window to memory at the destination address.
    pub const WRITE: u32 = 5;
    /// All of them, bit n for operation n.
    pub const ALL: u32 = 1 << NOP | 1 << COPY | 1 << FILL | 1 << READ | 1 << WRITE;
}

/// Flags of a descriptor.
pub mod flag {
    /// Raise the interrupt when the descriptor ends.
    pub const INTERRUPT: u32 = 1 << 0;
    /// Do the descriptor's DMA with the T bit, as a confidential guest's device does in RUN.
    pub const TRUSTED: u32 = 1 << 1;
    /// All flags.
    pub const ALL: u32 = INTERRUPT | TRUSTED;
}

/// A status block.
pub mod status {
    /// Bytes of a status block.
    pub const SIZE: u64 = 32;
    /// How far the descriptor is; see [`status_state`](super::status_state). 32 bits; written last.
    pub const STATE: u64 = 0x00;
    /// Why it did not end well; see [`reason`](super::reason). 32 bits.
    pub const REASON: u64 = 0x04;
    /// The first address refused. 64 bits.
    pub const FAULT_ADDRESS: u64 = 0x08;
    /// The access refused; see [`access`](super::access). 32 bits.
    pub const FAULT_ACCESS: u64 = 0x10;
    /// Bytes moved, in whole steps. 32 bits.
    pub const BYTES_DONE: u64 = 0x14;
    /// The descriptor's cookie. 64 bits.
    pub const COOKIE: u64 = 0x18;
}

/// How far a descriptor is.
pub mod status_state {
    /// Never rung since reset.
    pub const IDLE: u32 = 0;
    /// Queued.
    pub const PENDING: u32 = 1;
    /// Being worked on.
    pub const RUNNING: u32 = 2;
    /// Ended well.
    pub const DONE: u32 = 3;
    /// Ended by a refused access.
    pub const FAULT: u32 = 4;
    /// Ended by ABORT.
    pub const ABORTED: u32 = 5;
    /// Not understood; nothing was moved.
    pub const INVALID: u32 = 6;
}

/// Why a descriptor did not end well.
pub mod reason {
    /// Nothing went wrong.
    pub const NONE: u32 = 0;
    /// Fault: bus master enable is clear.
    pub const BUS_MASTER_OFF: u32 = 1;
    /// Fault: the function is attached to no page table.
    pub const NOT_ATTACHED: u32 = 2;
    /// Fault: nothing is mapped at the address.
    pub const NOT_MAPPED: u32 = 3;
    /// Fault: mapped, but not for this access.
    pub const PERMISSION: u32 = 4;
    /// Fault: mapped, but the memory behind it is gone.
    pub const MEMORY_GONE: u32 = 5;
    /// Fault: a trusted descriptor, and the interface is not in RUN.
    pub const TDI_NOT_IN_RUN: u32 = 6;
    /// Fault: the interface went to ERROR.
    pub const TDI_IN_ERROR: u32 = 7;
    /// Fault: a guest's page table on the way has a bad entry.
    pub const BAD_TABLE: u32 = 8;
    /// Invalid: unknown operation.
    pub const OPERATION: u32 = 16;
    /// Invalid: unknown flag, or a reserved field is not zero.
    pub const RESERVED: u32 = 17;
    /// Invalid: no such vector.
    pub const VECTOR: u32 = 18;
    /// Invalid: passes the end of the data window.
    pub const WINDOW: u32 = 19;
    /// Invalid: passes the end of the address space.
    pub const ADDRESS: u32 = 20;
}

/// The direction of a refused access, seen from the engine.
pub mod access {
    /// None was refused.
    pub const NONE: u32 = 0;
    /// Memory to engine.
    pub const READ: u32 = 1;
    /// Engine to memory.
    pub const WRITE: u32 = 2;
}
