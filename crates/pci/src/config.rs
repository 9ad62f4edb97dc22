//! Config space as a value: what it holds and which of its bits host software may change.
//!
//! A [`ConfigSpace`] is made by [`ConfigBuilder`](crate::ConfigBuilder) and then read and written as
//! the hardware would take it: read-only bits keep their value, error bits clear when one is written,
//! BARs answer the sizing protocol because their low address bits are read-only zeros. Registers
//! whose writing *does* something are for the owner: [`ConfigSpace::initiates_flr`] says that a write
//! asks for a reset, the accessors say what is enabled now.
//!
//! Takes no lock. Knows nothing of who reads or writes.

use crate::regs::{self, CONFIG_SIZE, bar, command, express, header, msi, msix, pm, status};
use crate::{Reset, walk};

const SIZE: usize = CONFIG_SIZE as usize;

/// 4096 bytes of config space with their masks.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigSpace {
    values: Box<Plane>,
    initial: Box<Plane>,
    masks: Box<Masks>,
    capabilities: CapabilityOffsets,
}

/// One bit for each bit of config space, or its value.
pub(crate) type Plane = [u8; SIZE];

/// Which bits host software may change, and which a reset keeps.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Masks {
    /// Takes the value written.
    pub(crate) writable: Plane,
    /// Cleared by writing one.
    pub(crate) clear_on_one: Plane,
    /// Kept by every reset.
    pub(crate) sticky: Plane,
    /// Kept by a function-level reset.
    pub(crate) kept_by_flr: Plane,
}

impl Masks {
    pub(crate) fn zero() -> Box<Self> {
        Box::new(Self {
            writable: [0; SIZE],
            clear_on_one: [0; SIZE],
            sticky: [0; SIZE],
            kept_by_flr: [0; SIZE],
        })
    }
}

/// Where the capabilities with state of their own begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CapabilityOffsets {
    pm: Option<u16>,
    msi: Option<u16>,
    msix: Option<u16>,
    express: Option<u16>,
    sriov: Option<u16>,
}

/// How the MSI capability stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiState {
    /// Whether messages are sent.
    pub enabled: bool,
    /// How many vectors software enabled: a power of two, at most what the function has.
    pub vectors: u16,
    /// Vectors masked, a bit each.
    pub masked: u32,
}

/// How the MSI-X capability stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixState {
    /// Whether messages are sent.
    pub enabled: bool,
    /// Whether all vectors are masked, whatever the table says.
    pub function_masked: bool,
    /// How many vectors the table has.
    pub vectors: u16,
}

/// The power state, as far as software sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// Works.
    D0,
    /// Answers config accesses only. D1 and D2, which no function here has, count as this.
    D3Hot,
}

impl ConfigSpace {
    pub(crate) fn new(values: Box<Plane>, masks: Box<Masks>) -> Self {
        let mut space = Self {
            initial: values.clone(),
            values,
            masks,
            capabilities: CapabilityOffsets::default(),
        };
        space.capabilities = CapabilityOffsets::find(&space);
        space
    }

    /// Reads bytes. Beyond 4096 there is nothing: those read as all ones.
    pub fn read(&self, offset: u16, into: &mut [u8]) {
        for (byte, at) in into.iter_mut().zip(usize::from(offset)..) {
            *byte = self.values.get(at).copied().unwrap_or(u8::MAX);
        }
    }

    /// Writes bytes as hardware takes them. What lies beyond 4096 is dropped.
    pub fn write(&mut self, offset: u16, from: &[u8]) {
        for (&written, at) in from.iter().zip(usize::from(offset)..SIZE) {
            let old = self.values[at];
            let writable = self.masks.writable[at];
            let cleared = written & self.masks.clear_on_one[at];
            self.values[at] = (old & !writable | written & writable) & !cleared;
        }
    }

    /// Where the SR-IOV capability begins.
    pub(crate) fn sriov_offset(&self) -> Option<u16> {
        self.capabilities.sriov
    }

    /// Changes bits from the hardware's side, whoever may write them. For status bits.
    pub fn set_bits(&mut self, offset: u16, mask: u16, bits: u16) {
        let value = self.word(offset) & !mask | bits & mask;
        for (byte, at) in value.to_le_bytes().into_iter().zip(usize::from(offset)..SIZE) {
            self.values[at] = byte;
        }
    }

    /// Puts every bit back to its reset value but those that a reset of this kind keeps.
    pub fn reset(&mut self, kind: Reset) {
        for at in 0..SIZE {
            let kept = match kind {
                Reset::Function => self.masks.sticky[at] | self.masks.kept_by_flr[at],
                Reset::Bus => self.masks.sticky[at],
            };
            self.values[at] = self.initial[at] & !kept | self.values[at] & kept;
        }
    }

    /// Whether this write asks for a function-level reset.
    pub fn initiates_flr(&self, offset: u16, from: &[u8]) -> bool {
        let Some(express) = self.capabilities.express else { return false };
        let capable = self.dword(express + express::DEVCAP) & express::FLR_CAPABLE != 0;
        let [_, high_bits] = express::INITIATE_FLR.to_le_bytes();
        let byte = usize::from(express + express::DEVCTL) + 1;
        let written = byte.checked_sub(usize::from(offset)).and_then(|index| from.get(index));
        capable && written.is_some_and(|written| written & high_bits != 0)
    }

    /// A byte.
    pub fn byte(&self, offset: u16) -> u8 {
        let mut bytes = [0];
        self.read(offset, &mut bytes);
        u8::from_le_bytes(bytes)
    }

    /// Two bytes, little-endian.
    pub fn word(&self, offset: u16) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Four bytes, little-endian.
    pub fn dword(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Whether the function decodes its memory BARs.
    pub fn memory_enabled(&self) -> bool {
        self.word(header::COMMAND) & command::MEMORY != 0
    }

    /// Whether the function may begin DMA and send messages: bus master enable, in D0.
    pub fn bus_master(&self) -> bool {
        self.word(header::COMMAND) & command::BUS_MASTER != 0
            && self.power_state() == PowerState::D0
    }

    /// Whether the function must keep its INTx pin still.
    pub fn intx_disabled(&self) -> bool {
        self.word(header::COMMAND) & command::INTX_DISABLE != 0
    }

    /// Whether the function has an INTx pin.
    pub fn has_intx(&self) -> bool {
        self.byte(header::INTERRUPT_PIN) != 0
    }

    /// Shows in Status whether INTx is pending in the function.
    pub fn set_intx_pending(&mut self, pending: bool) {
        let bits = if pending { status::INTERRUPT } else { 0 };
        self.set_bits(header::STATUS, status::INTERRUPT, bits);
    }

    /// The power state; D0 where the function has no power management.
    pub fn power_state(&self) -> PowerState {
        let asleep =
            self.capabilities.pm.is_some_and(|at| self.word(at + pm::CONTROL) & pm::STATE != 0);
        if asleep { PowerState::D3Hot } else { PowerState::D0 }
    }

    /// The MSI capability; `None` where the function has none.
    pub fn msi(&self) -> Option<MsiState> {
        let at = self.capabilities.msi?;
        let control = self.word(at + msi::CONTROL);
        let capable = control >> msi::CAPABLE_SHIFT & msi::COUNT_LG2;
        let asked = control >> msi::ENABLED_SHIFT & msi::COUNT_LG2;
        let lg2 = asked.min(capable).min(msi::COUNT_LG2_MAX);
        let mask_at = if control & msi::ADDRESS_64 != 0 { msi::MASK_64 } else { msi::MASK_32 };
        let masked = if control & msi::MASKABLE != 0 { self.dword(at + mask_at) } else { 0 };
        Some(MsiState { enabled: control & msi::ENABLE != 0, vectors: 1 << lg2, masked })
    }

    /// Shows which MSI vectors wait for their mask bit to clear, where the function can mask.
    pub fn set_msi_pending(&mut self, pending: u32) {
        let Some(at) = self.capabilities.msi else { return };
        let control = self.word(at + msi::CONTROL);
        if control & msi::MASKABLE == 0 {
            return;
        }
        let wide = control & msi::ADDRESS_64 != 0;
        let at = at + if wide { msi::PENDING_64 } else { msi::PENDING_32 };
        for (index, byte) in pending.to_le_bytes().into_iter().enumerate() {
            if let Some(value) = self.values.get_mut(usize::from(at) + index) {
                *value = byte;
            }
        }
    }

    /// The MSI-X capability; `None` where the function has none.
    pub fn msix(&self) -> Option<MsixState> {
        let control = self.word(self.capabilities.msix? + msix::CONTROL);
        Some(MsixState {
            enabled: control & msix::ENABLE != 0,
            function_masked: control & msix::FUNCTION_MASK != 0,
            vectors: (control & msix::TABLE_SIZE) + 1,
        })
    }

    /// Message Control of MSI-X as it is read; `None` where the function has no MSI-X.
    pub fn msix_control(&self) -> Option<u16> {
        Some(self.word(self.capabilities.msix? + msix::CONTROL))
    }

    /// The address that BAR `index` holds; `None` for the upper half of a 64-bit BAR and beyond the
    /// header's BARs. Whether it is decoded is for [`memory_enabled`](Self::memory_enabled) to say.
    pub fn bar_address(&self, index: usize) -> Option<u64> {
        let count = match self.byte(header::HEADER_TYPE) & header::TYPE_LAYOUT {
            header::TYPE_ENDPOINT => regs::BAR_COUNT,
            header::TYPE_BRIDGE => 2,
            _ => 0,
        };
        self.address_in(header::BAR0, count, index)
    }

    /// The address that register `index` of `count` BAR registers from `first` on holds; `None` for
    /// the upper half of a 64-bit BAR.
    pub(crate) fn address_in(&self, first: u16, count: usize, index: usize) -> Option<u64> {
        let register = |index: usize| {
            let offset = first + 4 * u16::try_from(index).ok()?;
            (index < count).then(|| self.dword(offset))
        };
        let is_wide =
            |low: u32| low & bar::IO == 0 && low & bar::MEMORY_FLAGS & bar::MEMORY_64 != 0;
        let mut at = 0;
        while at < index {
            at += if is_wide(register(at)?) { 2 } else { 1 };
        }
        let low = (at == index).then(|| register(at)).flatten()?;
        let flags = if low & bar::IO != 0 { bar::IO_FLAGS } else { bar::MEMORY_FLAGS };
        let high = if is_wide(low) { register(index + 1)? } else { 0 };
        Some(u64::from(high) << 32 | u64::from(low & !flags))
    }
}

impl CapabilityOffsets {
    fn find(space: &ConfigSpace) -> Self {
        let mut found = Self::default();
        for capability in walk::capabilities(|offset, into| space.read(offset, into)) {
            let slot = match capability.id {
                regs::cap_id::PM => &mut found.pm,
                regs::cap_id::MSI => &mut found.msi,
                regs::cap_id::MSIX => &mut found.msix,
                regs::cap_id::EXPRESS => &mut found.express,
                _ => continue,
            };
            *slot = Some(capability.offset);
        }
        let extended = walk::extended_capabilities(|offset, into| space.read(offset, into));
        let sriov = extended.iter().find(|capability| capability.id == regs::ext_id::SRIOV);
        found.sriov = sriov.map(|capability| capability.offset);
        found
    }
}

impl std::fmt::Debug for ConfigSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigSpace")
            .field("vendor_id", &self.word(header::VENDOR_ID))
            .field("device_id", &self.word(header::DEVICE_ID))
            .field("command", &self.word(header::COMMAND))
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}
