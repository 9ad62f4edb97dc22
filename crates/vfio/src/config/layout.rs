//! Which bit of config space is virtual and which a client may write.
//!
//! A byte in no capability is raw: read from and written to the function. A capability that is shown
//! is read-only but for the fields named here. One that is hidden is taken out of its chain; its
//! bytes are then in no capability. DOE mailboxes are shown where the device's settings say so.
//!
//! Takes no lock. Source: vfio-pci in v7.3.

use pci::regs::{
    BAR_COUNT, CONVENTIONAL_SIZE, FIRST_CAPABILITY, aer, bar, cap_id, command, doe, express,
    ext_id, header, msi, pm, status,
};
use pci::walk::{self, ExtendedCapability};
use pci::{Bar, BarKind, Function};

use super::VirtualConfig;
use crate::facts::{Config, Facts};

/// AF: control, 8 bits, from the start of the capability.
pub(super) const AF_CONTROL: u16 = 0x04;
/// AF control: begin a function-level reset. Reads as zero.
pub(super) const AF_INITIATE_FLR: u8 = 1;

/// PM capabilities: states from which PME# can be raised.
const PME_CAPABLE: u16 = 0xf800;
/// PM control: PME# enable and status.
const PME_BITS: u16 = 0x8100;
/// PM capabilities: states D1 and D2 exist.
const HAS_D1: u16 = 1 << 9;
const HAS_D2: u16 = 1 << 10;

/// DEVCTL: phantom functions enable.
const PHANTOM: u16 = 1 << 9;

const ALL: u32 = u32::MAX;
const NONE: u32 = 0;

/// Builds the table for a function that has just been enabled.
pub(super) fn build(function: &dyn Function, facts: Facts) -> VirtualConfig {
    let size = usize::from(facts.config_size);
    let mut values = vec![0; size];
    function.config_read(0, &mut values);
    let mut layout = Layout {
        function,
        facts,
        config: VirtualConfig {
            facts,
            values,
            virtual_bits: vec![0; size],
            writable: vec![u8::MAX; size],
            msi_is_set_up: false,
            msi_count_lg2: 0,
        },
    };
    layout.header();
    layout.bars();
    layout.capabilities();
    if facts.config_size > CONVENTIONAL_SIZE {
        layout.extended_capabilities();
    }
    layout.config
}

/// Whether the function has power state `state`, as the control register numbers them.
pub(super) fn has_power_state(function: &dyn Function, facts: Facts, state: u16) -> bool {
    let Some(facts) = facts.pm else { return false };
    let capabilities = Config(function).word(facts.at + pm::CAPABILITIES);
    match state {
        1 => capabilities & HAS_D1 != 0,
        2 => capabilities & HAS_D2 != 0,
        _ => true,
    }
}

struct Layout<'a> {
    function: &'a dyn Function,
    facts: Facts,
    config: VirtualConfig,
}

/// Bytes of a capability, as far as they are its own.
#[derive(Clone, Copy)]
struct Extent {
    at: u16,
    end: u16,
}

impl Layout<'_> {
    fn header(&mut self) {
        let header = Extent { at: 0, end: FIRST_CAPABILITY };
        self.claim(header);
        if let Some(virtual_function) = self.facts.virtual_function {
            self.set_value(header::VENDOR_ID, &virtual_function.vendor_id.to_le_bytes());
            self.set_value(header::DEVICE_ID, &virtual_function.device_id.to_le_bytes());
        }
        self.field(header, header::VENDOR_ID, 4, ALL, NONE);
        self.command(header);
        self.field(header, header::STATUS, 2, u32::from(status::CAPABILITIES), NONE);
        self.field(header, header::CACHE_LINE_SIZE, 1, NONE, ALL);
        self.field(header, header::LATENCY_TIMER, 1, NONE, ALL);
        self.field(header, header::BIST, 1, NONE, ALL);
        self.set_value(header::EXPANSION_ROM, &[0; 4]);
        self.field(header, header::EXPANSION_ROM, 4, ALL, NONE);
        self.field(header, header::CAPABILITIES_POINTER, 1, ALL, NONE);
        self.field(header, header::INTERRUPT_LINE, 1, ALL, ALL);
        self.set_value(header::INTERRUPT_PIN, &[self.facts.interrupt_pin]);
        self.field(header, header::INTERRUPT_PIN, 1, ALL, NONE);
    }

    /// INTx disable is ours. So is memory enable of a VF, which has none but is expected to.
    fn command(&mut self, header: Extent) {
        let mut virtual_bits = command::INTX_DISABLE;
        let mut value = self.config.word(header::COMMAND) & !command::INTX_DISABLE;
        if self.facts.virtual_function.is_some() {
            virtual_bits |= command::MEMORY;
            value |= command::MEMORY;
        }
        self.set_value(header::COMMAND, &value.to_le_bytes());
        self.field(header, header::COMMAND, 2, u32::from(virtual_bits), ALL);
    }

    /// BARs hold what the client writes, but for the bits below their size: so sizing works.
    fn bars(&mut self) {
        let header = Extent { at: 0, end: FIRST_CAPABILITY };
        let mut registers = [BarRegister::default(); BAR_COUNT];
        for index in 0..BAR_COUNT {
            let Some(bar) = self.function.bar(index) else { continue };
            let (low, upper) = BarRegister::of(bar);
            registers[index] = low;
            if let (Some(upper), Some(next)) = (upper, registers.get_mut(index + 1)) {
                *next = upper;
            }
        }
        for (register, at) in registers.into_iter().zip((header::BAR0..).step_by(4)) {
            let value = self.dword(at) & register.address | register.flags;
            self.set_value(at, &value.to_le_bytes());
            self.field(header, at, 4, ALL, register.address);
        }
    }

    fn capabilities(&mut self) {
        let function = self.function;
        let all = walk::capabilities(|offset, into| function.config_read(offset, into));
        let starts: Vec<u16> = all.iter().map(|capability| capability.offset).collect();
        let mut link = header::CAPABILITIES_POINTER;
        self.set_value(link, &[0]);
        for capability in &all {
            let Some(length) = capability.length.filter(|&length| length > 0) else { continue };
            let at = capability.offset;
            let extent = extent(at, length, &starts, CONVENTIONAL_SIZE);
            let [low, _] = at.to_le_bytes();
            self.set_value(link, &[low]);
            link = at + 1;
            self.claim(extent);
            self.set_value(link, &[0]);
            self.field(extent, link, 1, ALL, NONE);
            self.fields(extent, capability.id);
        }
        if link == header::CAPABILITIES_POINTER {
            let [low, high] = self.config.word(header::STATUS).to_le_bytes();
            let [capabilities, _] = status::CAPABILITIES.to_le_bytes();
            self.set_value(header::STATUS, &[low & !capabilities, high]);
        }
    }

    /// The fields of a capability that are not simply read-only.
    fn fields(&mut self, extent: Extent, id: u8) {
        let at = extent.at;
        match id {
            cap_id::PM => {
                let capabilities = self.config.word(at + pm::CAPABILITIES) & !PME_CAPABLE;
                self.set_value(at + pm::CAPABILITIES, &capabilities.to_le_bytes());
                self.field(extent, at + pm::CAPABILITIES, 2, u32::from(PME_CAPABLE), NONE);
                let control = self.config.word(at + pm::CONTROL) & !PME_BITS;
                self.set_value(at + pm::CONTROL, &control.to_le_bytes());
                let writable = !(PME_BITS | pm::STATE);
                self.field(extent, at + pm::CONTROL, 2, u32::from(PME_BITS), u32::from(writable));
            }
            cap_id::VPD => {
                self.field(extent, at + 2, 2, NONE, ALL);
                self.field(extent, at + 4, 4, NONE, ALL);
            }
            cap_id::VENDOR => self.raw(Extent { at: at + 2, end: extent.end }),
            cap_id::EXPRESS => {
                let own = express::INITIATE_FLR | express::PAYLOAD | express::READ_REQUEST;
                let control = at + express::DEVCTL;
                self.field(extent, control, 2, u32::from(own), u32::from(!PHANTOM));
                if self.facts.express.is_some_and(|facts| facts.version_2) {
                    let writable = u32::from(!express::ARI_FORWARDING);
                    self.field(extent, at + express::DEVCTL2, 2, NONE, writable);
                }
            }
            cap_id::AF => {
                let bits = u32::from(AF_INITIATE_FLR);
                self.field(extent, at + AF_CONTROL, 1, bits, bits);
            }
            cap_id::MSI => self.msi(extent),
            _ => {}
        }
    }

    fn msi(&mut self, extent: Extent) {
        let at = extent.at;
        let wide = self.config.word(at + msi::CONTROL) & msi::ADDRESS_64 != 0;
        let maskable = self.config.word(at + msi::CONTROL) & msi::MASKABLE != 0;
        let (data, mask, pending) = if wide {
            (msi::DATA_64, msi::MASK_64, msi::PENDING_64)
        } else {
            (msi::DATA_32, msi::MASK_32, msi::PENDING_32)
        };
        self.field(extent, at + msi::CONTROL, 1, ALL, ALL);
        self.field(extent, at + msi::ADDRESS, 4, ALL, ALL);
        if wide {
            self.field(extent, at + msi::ADDRESS_UPPER, 4, ALL, ALL);
        }
        self.field(extent, at + data, 2, ALL, ALL);
        if maskable {
            self.field(extent, at + mask, 4, NONE, ALL);
            self.field(extent, at + pending, 4, NONE, ALL);
        }
    }

    fn extended_capabilities(&mut self) {
        let function = self.function;
        let mut all =
            walk::extended_capabilities(|offset, into| function.config_read(offset, into));
        if self.facts.shows_doe {
            for capability in all.iter_mut().filter(|capability| capability.id == ext_id::DOE) {
                capability.length = Some(doe::LENGTH);
            }
        }
        let starts: Vec<u16> = all.iter().map(|capability| capability.offset).collect();
        let shown = |capability: &&ExtendedCapability| capability.length.is_some_and(|l| l > 0);
        let mut list = all.iter().filter(shown).peekable();
        let begins_shown = list.peek().is_some_and(|first| first.offset == CONVENTIONAL_SIZE);
        if !all.is_empty() && !begins_shown {
            // The chain begins at a fixed place: what is hidden there leaves its link behind.
            let anchor = Extent { at: CONVENTIONAL_SIZE, end: CONVENTIONAL_SIZE + 4 };
            self.claim(anchor);
            let first = list.peek().map_or(0, |first| first.offset);
            self.set_value(anchor.at, &(u32::from(first) << NEXT_SHIFT).to_le_bytes());
            self.field(anchor, anchor.at, 4, ALL, NONE);
        }
        while let Some(capability) = list.next() {
            let length = capability.length.unwrap_or(0);
            let extent = extent(capability.offset, length, &starts, self.facts.config_size);
            let next = list.peek().map_or(0, |next| next.offset);
            let first = u32::from(capability.id)
                | u32::from(capability.version) << VERSION_SHIFT
                | u32::from(next) << NEXT_SHIFT;
            self.claim(extent);
            self.set_value(extent.at, &first.to_le_bytes());
            self.field(extent, extent.at, 4, ALL, NONE);
            self.extended_fields(extent, capability.id);
        }
    }

    fn extended_fields(&mut self, extent: Extent, id: u16) {
        let at = extent.at;
        match id {
            ext_id::AER => {
                for register in [
                    aer::UNCORRECTABLE_STATUS,
                    aer::UNCORRECTABLE_MASK,
                    aer::UNCORRECTABLE_SEVERITY,
                    aer::CORRECTABLE_STATUS,
                    aer::CORRECTABLE_MASK,
                ] {
                    self.field(extent, at + register, 4, NONE, ALL);
                }
                self.field(extent, at + aer::CONTROL, 4, NONE, aer::ECRC_ENABLE);
            }
            ext_id::VENDOR | ext_id::DVSEC | ext_id::DOE => {
                self.raw(Extent { at: at + 4, end: extent.end });
            }
            _ => {}
        }
    }

    /// Makes bytes read-only and physical, to begin with.
    fn claim(&mut self, extent: Extent) {
        let bytes = usize::from(extent.at)..usize::from(extent.end);
        self.config.virtual_bits[bytes.clone()].fill(0);
        self.config.writable[bytes].fill(0);
    }

    /// Lets bytes through to the function, reads and writes.
    fn raw(&mut self, extent: Extent) {
        if extent.at < extent.end {
            let bytes = usize::from(extent.at)..usize::from(extent.end);
            self.config.writable[bytes].fill(u8::MAX);
        }
    }

    /// Sets the masks of a field of 1, 2 or 4 bytes, as far as it lies in `extent`.
    fn field(&mut self, extent: Extent, at: u16, width: usize, virtual_bits: u32, writable: u32) {
        let masks = virtual_bits.to_le_bytes().into_iter().zip(writable.to_le_bytes());
        for (at, (virtual_bits, writable)) in (at..extent.end).zip(masks).take(width) {
            self.config.virtual_bits[usize::from(at)] = virtual_bits;
            self.config.writable[usize::from(at)] = writable;
        }
    }

    fn set_value(&mut self, at: u16, from: &[u8]) {
        for (&byte, at) in from.iter().zip(usize::from(at)..) {
            if let Some(value) = self.config.values.get_mut(at) {
                *value = byte;
            }
        }
    }

    fn dword(&self, at: u16) -> u32 {
        u32::from(self.config.word(at)) | u32::from(self.config.word(at + 2)) << 16
    }
}

/// Extended capability header: version, bits 19:16.
const VERSION_SHIFT: u32 = 16;
/// Extended capability header: offset of the next, bits 31:20.
const NEXT_SHIFT: u32 = 20;

/// The bytes of a capability: up to its length, the next one's start, or the end of its space.
fn extent(at: u16, length: u16, starts: &[u16], space_end: u16) -> Extent {
    let next = starts.iter().copied().filter(|&start| start > at).min().unwrap_or(space_end);
    Extent { at, end: at.saturating_add(length).min(next).min(space_end) }
}

/// A BAR register: which bits hold an address, and the flags below them.
#[derive(Clone, Copy, Default)]
struct BarRegister {
    address: u32,
    flags: u32,
}

impl BarRegister {
    /// The register of a BAR, and of its upper half if it has one.
    fn of(bar: &Bar) -> (Self, Option<Self>) {
        let prefetch = |prefetchable: bool| if prefetchable { bar::PREFETCHABLE } else { 0 };
        let (flags, flag_bits, wide) = match bar.kind {
            BarKind::Io => (bar::IO, bar::IO_FLAGS, false),
            BarKind::Memory32 { prefetchable } => {
                (prefetch(prefetchable), bar::MEMORY_FLAGS, false)
            }
            BarKind::Memory64 { prefetchable } => {
                (bar::MEMORY_64 | prefetch(prefetchable), bar::MEMORY_FLAGS, true)
            }
        };
        let mask = !(bar.size.max(1) - 1);
        let [a, b, c, d, upper @ ..] = mask.to_le_bytes();
        let low = Self { address: u32::from_le_bytes([a, b, c, d]) & !flag_bits, flags };
        let upper = Self { address: u32::from_le_bytes(upper), flags: 0 };
        (low, wide.then_some(upper))
    }
}
