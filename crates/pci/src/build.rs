//! Laying out config space: a header, then capabilities one after the other.
//!
//! The builder decides offsets and links; what the registers say comes from [`crate::capability`] and
//! [`crate::extended`]. The same calls give the same layout. Takes no lock.

use thiserror::Error;

use crate::block::RegisterBlock;
use crate::capability::CapabilityBlock;
use crate::config::{ConfigSpace, Masks, Plane};
use crate::extended::ExtendedBlock;
use crate::regs::{
    BAR_COUNT, CONFIG_SIZE, CONVENTIONAL_SIZE, FIRST_CAPABILITY, bar, command, header, status,
};
use crate::walk::{NEXT_SHIFT, VERSION_SHIFT};
use crate::{Bar, BarKind};

/// Builds a [`ConfigSpace`].
#[derive(Debug)]
pub struct ConfigBuilder {
    header: RegisterBlock,
    capabilities: Vec<CapabilityBlock>,
    extended: Vec<ExtendedBlock>,
    command_writable: u16,
    fault: Option<BuildFault>,
}

/// What a function calls itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor_id: u16,
    /// Device ID.
    pub device_id: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface, 24 bits.
    pub class_code: u32,
    /// Subsystem vendor ID; a bridge shows none.
    pub subsystem_vendor_id: u16,
    /// Subsystem ID; a bridge shows none.
    pub subsystem_id: u16,
    /// Whether the device has more functions.
    pub multi_function: bool,
}

/// The buses on both sides of a bridge, as firmware has numbered them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusNumbers {
    /// The bus that the bridge sits on.
    pub primary: u8,
    /// The bus right behind it.
    pub secondary: u8,
    /// The last bus behind it.
    pub subordinate: u8,
}

/// What cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BuildFault {
    /// A BAR whose size is no power of two or out of range.
    #[error("BAR {index} cannot have {size:#x} bytes")]
    BarSize {
        /// The BAR.
        index: usize,
        /// Bytes asked for.
        size: u64,
    },
    /// A BAR that the header has no register for, or whose register another BAR has.
    #[error("BAR {index} has no free register")]
    BarIndex {
        /// The BAR.
        index: usize,
    },
    /// The capabilities do not fit into the first 256 bytes.
    #[error("capability {id:#04x} does not fit")]
    CapabilitiesFull {
        /// The capability that was too much.
        id: u8,
    },
    /// The extended capabilities do not fit.
    #[error("extended capability {id:#06x} does not fit")]
    ExtendedFull {
        /// The capability that was too much.
        id: u16,
    },
}

impl ConfigBuilder {
    /// Begins an endpoint: header type 0.
    pub fn endpoint(identity: &Identity) -> Self {
        let header = identity_registers(identity, header::TYPE_ENDPOINT)
            .word(header::SUBSYSTEM_VENDOR_ID, identity.subsystem_vendor_id, 0)
            .word(header::SUBSYSTEM_ID, identity.subsystem_id, 0);
        let memory = command::MEMORY | command::BUS_MASTER;
        Self::new(header, memory | command::PARITY | command::SERR)
    }

    /// Begins a bridge: header type 1, its windows closed.
    pub fn bridge(identity: &Identity, buses: BusNumbers) -> Self {
        let [secondary, subordinate] = [buses.secondary, buses.subordinate];
        let header = identity_registers(identity, header::TYPE_BRIDGE)
            .word(header::PRIMARY_BUS, u16::from_le_bytes([buses.primary, secondary]), !0)
            .word(header::SUBORDINATE_BUS, u16::from(subordinate), 0x00ff)
            .word(header::IO_BASE, IO_WINDOW_CLOSED, IO_WINDOW_WRITABLE)
            .word(header::MEMORY_BASE, WINDOW_ADDRESS, WINDOW_ADDRESS)
            .word(header::MEMORY_LIMIT, 0, WINDOW_ADDRESS)
            .word(header::PREFETCHABLE_BASE, WINDOW_ADDRESS | WINDOW_64, WINDOW_ADDRESS)
            .word(header::PREFETCHABLE_LIMIT, WINDOW_64, WINDOW_ADDRESS)
            .dword(header::PREFETCHABLE_BASE_UPPER, 0, !0)
            .dword(header::PREFETCHABLE_LIMIT_UPPER, 0, !0)
            .clear_on_one(header::IO_BASE, u32::from(status::ERRORS) << 16)
            .word(header::BRIDGE_CONTROL, 0, BRIDGE_CONTROL_WRITABLE);
        let forwarding = command::IO | command::MEMORY | command::BUS_MASTER;
        Self::new(header, forwarding | command::PARITY | command::SERR)
    }

    /// Adds BAR `index`.
    pub fn bar(mut self, index: usize, bar: &Bar) -> Self {
        let wide = matches!(bar.kind, BarKind::Memory64 { .. });
        let last = index + usize::from(wide);
        if last >= BAR_COUNT || (index..=last).any(|index| self.bar_is_taken(index)) {
            self.fault.get_or_insert(BuildFault::BarIndex { index });
            return self;
        }
        if !size_is_possible(bar) {
            self.fault.get_or_insert(BuildFault::BarSize { index, size: bar.size });
            return self;
        }
        if bar.kind == BarKind::Io {
            self.command_writable |= command::IO;
        }
        let at = bar_offset(index);
        let [low, high] = bar_registers(bar);
        self.header = self.header.dword(at, low.value, low.writable);
        if wide {
            self.header = self.header.dword(at + 4, high.value, high.writable);
        }
        self
    }

    /// Gives the function interrupt pin A.
    pub fn interrupt_pin_a(mut self) -> Self {
        const PIN_A: u16 = 1 << 8;
        self.command_writable |= command::INTX_DISABLE;
        self.header = self.header.word(header::INTERRUPT_LINE, PIN_A, 0x00ff);
        self
    }

    /// Makes it a virtual function, after its identity: IDs read as all ones, and memory decode is
    /// the physical function's. It gets no BARs and no pin.
    pub fn virtual_function(mut self) -> Self {
        self.command_writable = command::BUS_MASTER;
        self.header = self.header.dword(header::VENDOR_ID, u32::MAX, 0);
        self
    }

    /// Adds a capability behind those that are there.
    pub fn capability(mut self, capability: CapabilityBlock) -> Self {
        self.capabilities.push(capability);
        self
    }

    /// Adds an extended capability behind those that are there.
    pub fn extended(mut self, capability: ExtendedBlock) -> Self {
        self.extended.push(capability);
        self
    }

    /// Lays everything out.
    ///
    /// # Errors
    /// The first [`BuildFault`].
    pub fn build(mut self) -> Result<ConfigSpace, BuildFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let has_list = !self.capabilities.is_empty();
        let status = if has_list { status::CAPABILITIES } else { 0 };
        self.header = self
            .header
            .dword(header::COMMAND, u32::from(status) << 16, u32::from(self.command_writable))
            .clear_on_one(header::COMMAND, u32::from(status::ERRORS) << 16);
        let mut values: Box<Plane> = Box::new([0; CONFIG_SIZE as usize]);
        let mut masks = Masks::zero();
        self.header.place(&mut values, &mut masks, 0);
        place_capabilities(&self.capabilities, &mut values, &mut masks)?;
        place_extended(&self.extended, &mut values, &mut masks)?;
        Ok(ConfigSpace::new(values, masks))
    }

    fn new(header: RegisterBlock, command_writable: u16) -> Self {
        Self {
            header,
            capabilities: Vec::new(),
            extended: Vec::new(),
            command_writable,
            fault: None,
        }
    }

    fn bar_is_taken(&self, index: usize) -> bool {
        self.header.is_used(bar_offset(index), 4)
    }
}

/// Where BAR `index`, which is below six, has its register.
fn bar_offset(index: usize) -> u16 {
    (header::BAR0..).step_by(4).nth(index).unwrap_or(CONFIG_SIZE)
}

/// A register's reset value and the bits that take what is written.
pub(crate) struct BarRegister {
    pub(crate) value: u32,
    pub(crate) writable: u32,
}

/// The register of a BAR, and the next one, which only a 64-bit BAR uses. Address bits below the size
/// are read-only zeros: that is the sizing protocol.
pub(crate) fn bar_registers(bar: &Bar) -> [BarRegister; 2] {
    let [a, b, c, d, e, f, g, h] = (!(bar.size - 1)).to_le_bytes();
    let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    let prefetch = |prefetchable| if prefetchable { bar::PREFETCHABLE } else { 0 };
    let (value, low, high) = match bar.kind {
        BarKind::Io => (bar::IO, low & !bar::IO_FLAGS, 0),
        BarKind::Memory32 { prefetchable } => (prefetch(prefetchable), low & !bar::MEMORY_FLAGS, 0),
        BarKind::Memory64 { prefetchable } => {
            (bar::MEMORY_64 | prefetch(prefetchable), low & !bar::MEMORY_FLAGS, high)
        }
    };
    [BarRegister { value, writable: low }, BarRegister { value: 0, writable: high }]
}

/// I/O window: base above limit.
const IO_WINDOW_CLOSED: u16 = 0x00f0;
/// I/O window: address bits 15:12 of base and limit.
const IO_WINDOW_WRITABLE: u16 = 0xf0f0;
/// Bridge windows: address bits 31:20 in bits 15:4.
const WINDOW_ADDRESS: u16 = 0xfff0;
/// Bridge windows: the window has 64-bit addresses.
const WINDOW_64: u16 = 1;
/// Parity, SERR and secondary bus reset.
const BRIDGE_CONTROL_WRITABLE: u16 = 0x0043;
/// Capabilities begin at multiples of this.
const CAPABILITY_ALIGNMENT: u16 = 4;

fn identity_registers(identity: &Identity, layout: u8) -> RegisterBlock {
    let multi = if identity.multi_function { header::TYPE_MULTI_FUNCTION } else { 0 };
    let [class_low, class_middle, class_high, _] = identity.class_code.to_le_bytes();
    RegisterBlock::new(FIRST_CAPABILITY)
        .word(header::VENDOR_ID, identity.vendor_id, 0)
        .word(header::DEVICE_ID, identity.device_id, 0)
        .bytes(header::REVISION_ID, &[identity.revision, class_low, class_middle, class_high])
        .word(header::CACHE_LINE_SIZE, 0, 0x00ff)
        .bytes(header::HEADER_TYPE, &[layout | multi])
        .word(header::INTERRUPT_LINE, 0, 0x00ff)
}

fn size_is_possible(bar: &Bar) -> bool {
    let (least, most) = match bar.kind {
        BarKind::Io => (bar::IO_SIZE_MIN, 256),
        BarKind::Memory32 { .. } => (bar::MEMORY_SIZE_MIN, 1 << 31),
        BarKind::Memory64 { .. } => (bar::MEMORY_SIZE_MIN, 1 << 63),
    };
    bar.size.is_power_of_two() && (least..=most).contains(&bar.size)
}

fn place_capabilities(
    capabilities: &[CapabilityBlock],
    values: &mut Plane,
    masks: &mut Masks,
) -> Result<(), BuildFault> {
    let mut link = usize::from(header::CAPABILITIES_POINTER);
    let mut at = FIRST_CAPABILITY;
    for capability in capabilities {
        let end = at.saturating_add(capability.registers.length());
        let full = BuildFault::CapabilitiesFull { id: capability.id };
        if end > CONVENTIONAL_SIZE {
            return Err(full);
        }
        capability.registers.place(values, masks, at);
        values[link] = u8::try_from(at).map_err(|_| full)?;
        link = usize::from(at) + 1;
        values[usize::from(at)] = capability.id;
        values[link] = 0;
        at = end.next_multiple_of(CAPABILITY_ALIGNMENT);
    }
    Ok(())
}

fn place_extended(
    capabilities: &[ExtendedBlock],
    values: &mut Plane,
    masks: &mut Masks,
) -> Result<(), BuildFault> {
    let mut previous: Option<u16> = None;
    let mut at = CONVENTIONAL_SIZE;
    for capability in capabilities {
        let end = at.saturating_add(capability.registers.length());
        if end > CONFIG_SIZE {
            return Err(BuildFault::ExtendedFull { id: capability.id });
        }
        capability.registers.place(values, masks, at);
        let first = u32::from(capability.id) | u32::from(capability.version) << VERSION_SHIFT;
        set_dword(values, at, first);
        if let Some(previous) = previous {
            let linked = dword(values, previous) | u32::from(at) << NEXT_SHIFT;
            set_dword(values, previous, linked);
        }
        previous = Some(at);
        at = end.next_multiple_of(CAPABILITY_ALIGNMENT);
    }
    Ok(())
}

fn dword(values: &Plane, at: u16) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&values[usize::from(at)..][..4]);
    u32::from_le_bytes(bytes)
}

fn set_dword(values: &mut Plane, at: u16, value: u32) {
    values[usize::from(at)..][..4].copy_from_slice(&value.to_le_bytes());
}
