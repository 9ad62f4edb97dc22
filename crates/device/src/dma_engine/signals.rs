//! What the engine has to tell its driver: messages and the pin.
//!
//! Everything is decided under the engine's lock and handed out one signal at a time by
//! [`Signals::next`]; only the engine's worker delivers them, with no lock held, so they arrive in the
//! order in which they were decided. A message that may not leave now (masked, or bus master is off)
//! stays pending and leaves when it may. Messages of one vector that pend together are one message.
//!
//! Takes no lock.

use pci::regs::msix;
use pci::{ConfigSpace, Reset};

use super::regs::{self, bar2};

/// The MSI-X table and all that is pending.
pub(super) struct Signals {
    table: [Entry; TABLE_LENGTH],
    /// MSI-X vectors that wait, a bit each.
    msix_pending: u32,
    /// MSI vectors that wait, a bit each.
    msi_pending: u32,
    /// Whether a cause is set that is not masked.
    wants_attention: bool,
    /// The pin's level as the host was last told.
    pin_told: bool,
    /// Whether the pin has fallen since it was told that it rose: the host reads the level itself, so each
    /// fall is told before the next rise.
    pin_fell: bool,
}

/// One thing to tell the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Msix(u16),
    Msi(u16),
    Pin(bool),
}

const TABLE_LENGTH: usize = regs::MSIX_VECTORS as usize;

#[derive(Clone, Copy)]
struct Entry([u32; 4]);

impl Entry {
    const RESET: Self = Self([0, 0, 0, msix::ENTRY_MASKED]);

    fn is_masked(self) -> bool {
        let [.., control] = self.0;
        control & msix::ENTRY_MASKED != 0
    }
}

impl Signals {
    pub(super) fn new() -> Self {
        Self {
            table: [Entry::RESET; TABLE_LENGTH],
            msix_pending: 0,
            msi_pending: 0,
            wants_attention: false,
            pin_told: false,
            pin_fell: false,
        }
    }

    /// Forgets all messages; a reset of the function also masks the table's entries.
    pub(super) fn reset(&mut self, kind: Option<Reset>) {
        self.msix_pending = 0;
        self.msi_pending = 0;
        if kind.is_some() {
            self.table = [Entry::RESET; TABLE_LENGTH];
        }
    }

    /// Takes note that the pin of a host just connected is low.
    pub(super) fn forget_pin(&mut self) {
        self.pin_told = false;
        self.pin_fell = false;
    }

    /// Raises a vector in the mode that is enabled. The pin follows the causes by itself.
    pub(super) fn raise(&mut self, vector: u16, config: &ConfigSpace) {
        match mode(config) {
            Mode::Msix { .. } => self.msix_pending |= bit(vector),
            Mode::Msi { vectors, .. } => self.msi_pending |= bit(vector % vectors),
            Mode::Pin => {}
        }
    }

    /// Brings everything in line with config space and the causes, after either changed.
    pub(super) fn refresh(&mut self, config: &mut ConfigSpace, wants_attention: bool) {
        self.wants_attention = wants_attention;
        match mode(config) {
            Mode::Msix { .. } => self.msi_pending = 0,
            Mode::Msi { .. } => self.msix_pending = 0,
            Mode::Pin => (self.msi_pending, self.msix_pending) = (0, 0),
        }
        config.set_msi_pending(self.msi_pending);
        let pin = config.has_intx() && matches!(mode(config), Mode::Pin);
        config.set_intx_pending(pin && wants_attention);
        self.pin_fell |= self.pin_told && !self.pin_level(config);
    }

    /// Takes the next signal to deliver.
    pub(super) fn next(&mut self, config: &mut ConfigSpace) -> Option<Signal> {
        let signal = self.peek(config)?;
        match signal {
            Signal::Msix(vector) => self.msix_pending &= !bit(vector),
            Signal::Msi(vector) => {
                self.msi_pending &= !bit(vector);
                config.set_msi_pending(self.msi_pending);
            }
            Signal::Pin(level) => (self.pin_told, self.pin_fell) = (level, false),
        }
        Some(signal)
    }

    /// The next signal to deliver, left where it is.
    pub(super) fn peek(&self, config: &ConfigSpace) -> Option<Signal> {
        let level = self.pin_level(config) && !self.pin_fell;
        if level != self.pin_told {
            return Some(Signal::Pin(level));
        }
        if !config.bus_master() {
            return None;
        }
        match mode(config) {
            Mode::Msix { masked: true } | Mode::Pin => None,
            Mode::Msix { masked: false } => {
                first(self.msix_pending & !self.masked_entries()).map(Signal::Msix)
            }
            Mode::Msi { masked, .. } => first(self.msi_pending & !masked).map(Signal::Msi),
        }
    }

    /// A register of BAR 2, 32 bits wide.
    pub(super) fn read(&self, offset: u64) -> u32 {
        if offset == bar2::PENDING {
            return self.msix_pending;
        }
        let (entry, field) = locate(offset);
        self.table.get(entry).and_then(|entry| entry.0.get(field)).copied().unwrap_or(0)
    }

    /// Writes a register of BAR 2; says whether that changed it.
    pub(super) fn write(&mut self, offset: u64, value: u32) -> bool {
        let (entry, field) = locate(offset);
        let Some(register) = self.table.get_mut(entry).and_then(|entry| entry.0.get_mut(field))
        else {
            return false;
        };
        let before = *register;
        *register = match field {
            0 => value & !MESSAGE_ADDRESS_LOW,
            CONTROL_FIELD => value & msix::ENTRY_MASKED,
            _ => value,
        };
        *register != before
    }

    fn pin_level(&self, config: &ConfigSpace) -> bool {
        self.wants_attention
            && config.has_intx()
            && !config.intx_disabled()
            && matches!(mode(config), Mode::Pin)
    }

    fn masked_entries(&self) -> u32 {
        let masked = self.table.iter().zip(0u16..).filter(|(entry, _)| entry.is_masked());
        masked.fold(0, |bits, (_, vector)| bits | bit(vector))
    }
}

/// How the driver wants to hear.
enum Mode {
    Msix { masked: bool },
    Msi { vectors: u16, masked: u32 },
    Pin,
}

/// Whether interrupts go out as messages: MSI-X or MSI is enabled.
pub(super) fn uses_messages(config: &ConfigSpace) -> bool {
    !matches!(mode(config), Mode::Pin)
}

fn mode(config: &ConfigSpace) -> Mode {
    if let Some(msix) = config.msix().filter(|msix| msix.enabled) {
        return Mode::Msix { masked: msix.function_masked };
    }
    match config.msi().filter(|msi| msi.enabled) {
        Some(msi) => Mode::Msi { vectors: msi.vectors, masked: msi.masked },
        None => Mode::Pin,
    }
}

/// Message addresses are multiples of four.
const MESSAGE_ADDRESS_LOW: u32 = 3;
/// The vector control register among an entry's four.
const CONTROL_FIELD: usize = 3;

/// The entry and the register in it at an offset in BAR 2.
fn locate(offset: u64) -> (usize, usize) {
    let entry = offset / msix::ENTRY_SIZE;
    let field = offset % msix::ENTRY_SIZE / 4;
    (usize::try_from(entry).unwrap_or(usize::MAX), usize::try_from(field).unwrap_or(usize::MAX))
}

fn bit(vector: u16) -> u32 {
    1u32.checked_shl(u32::from(vector)).unwrap_or(0)
}

fn first(bits: u32) -> Option<u16> {
    if bits == 0 { None } else { u16::try_from(bits.trailing_zeros()).ok() }
}
