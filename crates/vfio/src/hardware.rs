//! What the host does to the function itself: saving registers over a reset, message interrupts.
//!
//! Everything here reads and writes the function's registers and may be followed by interrupts, so it
//! is called with no lock held, by whoever owns the device's turn (see `turn.rs`).

use pci::regs::{BAR_COUNT, CONFIG_SIZE, command, express, header, msi, msix, pm, sriov};
use pci::{BarKind, Function};

use crate::facts::{Config, Facts, Msi, Msix};
use crate::irq::{Armed, MessageKind};

/// Registers that a reset clears and the host puts back.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    registers: Vec<(u16, Vec<u8>)>,
}

impl Saved {
    /// Reads the registers that a client's reset is to leave as they are.
    pub(crate) fn of(function: &dyn Function, facts: &Facts) -> Self {
        let mut ranges = virtualization_ranges(facts);
        ranges.extend(own_ranges(facts));
        Self::read(function, ranges)
    }

    /// Reads the registers that a client may change, to be put back after its last close. Not what says which
    /// virtual functions there are: that is the host's, which may change it meanwhile.
    pub(crate) fn of_client(function: &dyn Function, facts: &Facts) -> Self {
        Self::read(function, own_ranges(facts))
    }

    /// Reads what says which virtual functions there are.
    pub(crate) fn of_virtualization(function: &dyn Function, facts: &Facts) -> Self {
        Self::read(function, virtualization_ranges(facts))
    }

    fn read(function: &dyn Function, mut ranges: Vec<(u16, usize)>) -> Self {
        ranges.retain(|&(at, length)| usize::from(at) + length <= usize::from(CONFIG_SIZE));
        let read = |(offset, length): (u16, usize)| {
            let mut bytes = vec![0; length];
            function.config_read(offset, &mut bytes);
            (offset, bytes)
        };
        Self { registers: ranges.into_iter().map(read).collect() }
    }

    /// Writes them back. COMMAND comes last, so that BARs are in place when decoding begins.
    pub(crate) fn restore(&self, function: &dyn Function) {
        for (offset, bytes) in &self.registers {
            function.config_write(*offset, bytes);
        }
    }

    /// The same with other bits in COMMAND.
    pub(crate) fn with_command(mut self, change: impl Fn(u16) -> u16) -> Self {
        for (offset, bytes) in &mut self.registers {
            if let (&mut header::COMMAND, [low, high]) = (offset, bytes.as_mut_slice()) {
                [*low, *high] = change(u16::from_le_bytes([*low, *high])).to_le_bytes();
            }
        }
        self
    }
}

/// Bytes of the VFs' BARs in the SR-IOV capability.
const SRIOV_BARS_LENGTH: usize = 4 * BAR_COUNT;

/// Ends with COMMAND.
fn own_ranges(facts: &Facts) -> Vec<(u16, usize)> {
    let mut ranges = vec![
        (header::CACHE_LINE_SIZE, 2),
        (header::BAR0, 4 * BAR_COUNT),
        (header::EXPANSION_ROM, 4),
        (header::INTERRUPT_LINE, 1),
    ];
    if let Some(facts) = facts.express {
        ranges.push((facts.at + express::DEVCTL, 2));
        ranges.push((facts.at + express::LNKCTL, 2));
        if facts.version_2 {
            ranges.push((facts.at + express::DEVCTL2, 2));
        }
    }
    ranges.push((header::COMMAND, 2));
    ranges
}

/// Ends with the control register, which makes the virtual functions be there.
fn virtualization_ranges(facts: &Facts) -> Vec<(u16, usize)> {
    let Some(at) = facts.sriov else { return Vec::new() };
    vec![
        (at + sriov::NUM_VFS, 2),
        (at + sriov::SYSTEM_PAGE_SIZE, 4 + SRIOV_BARS_LENGTH),
        (at + sriov::CONTROL, 2),
    ]
}

/// Which of memory and I/O decoding the function's BARs need, as COMMAND bits.
pub(crate) fn decode_bits(function: &dyn Function) -> u16 {
    let bit_of = |index| match function.bar(index).map(|bar| bar.kind) {
        Some(BarKind::Io) => command::IO,
        Some(BarKind::Memory32 { .. } | BarKind::Memory64 { .. }) => command::MEMORY,
        None => 0,
    };
    (0..BAR_COUNT).map(bit_of).fold(0, |bits, bit| bits | bit)
}

/// Lets the function begin no DMA and send no message.
pub(crate) fn clear_bus_master(function: &dyn Function) {
    let config = Config(function);
    let command = config.word(header::COMMAND);
    config.set_word(header::COMMAND, command & !command::BUS_MASTER);
}

/// Sets the power state, as the control register numbers them.
pub(crate) fn set_power_state(function: &dyn Function, facts: &Facts, state: u16) {
    let Some(facts) = facts.pm else { return };
    let config = Config(function);
    let control = config.word(facts.at + pm::CONTROL);
    config.set_word(facts.at + pm::CONTROL, control & !pm::STATE | state & pm::STATE);
}

/// What becomes of memory decoding where it was off and an MSI-X table had to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeAfter {
    /// It is off again.
    AsBefore,
    /// It stays on, because a TDI would take its end as a breach. Clients do not see it.
    LeftOn,
}

/// Turns message interrupts on, with the vectors that `armed` names unmasked, and no others of MSI-X, whatever
/// an earlier set-up left in its table. `armed` begins with vector 0.
pub(crate) fn enable_messages(
    function: &dyn Function,
    facts: &Facts,
    armed: &Armed,
    after: DecodeAfter,
) {
    match armed.kind {
        MessageKind::Msi => {
            if let Some(facts) = facts.msi {
                enable_msi(function, facts, armed.vectors.len());
            }
        }
        MessageKind::Msix => {
            if let Some(facts) = facts.msix {
                let mut all = armed.clone();
                all.vectors.resize(usize::from(facts.vectors), false);
                set_msix_control(function, facts, msix::ENABLE | msix::FUNCTION_MASK);
                write_entries(function, facts, &all, after);
                set_msix_control(function, facts, msix::ENABLE);
            }
        }
    }
}

/// Unmasks and masks vectors of MSI-X while it is on. MSI needs nothing: a vector that nobody hears is
/// dropped on the way.
pub(crate) fn update_messages(
    function: &dyn Function,
    facts: &Facts,
    armed: &Armed,
    after: DecodeAfter,
) {
    if let (MessageKind::Msix, Some(facts)) = (armed.kind, facts.msix) {
        write_entries(function, facts, armed, after);
    }
}

/// Turns message interrupts off.
pub(crate) fn disable_messages(function: &dyn Function, facts: &Facts, kind: MessageKind) {
    match kind {
        MessageKind::Msi => {
            if let Some(facts) = facts.msi {
                let config = Config(function);
                let control = config.word(facts.at + msi::CONTROL);
                config.set_word(facts.at + msi::CONTROL, control & !msi::ENABLE);
            }
        }
        MessageKind::Msix => {
            if let Some(facts) = facts.msix {
                set_msix_control(function, facts, 0);
            }
        }
    }
}

/// Where the machine takes messages. No client sees it.
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;

fn enable_msi(function: &dyn Function, facts: Msi, vectors: usize) {
    let config = Config(function);
    config.set_dword(facts.at + msi::ADDRESS, MESSAGE_ADDRESS);
    if facts.data_at == msi::DATA_64 {
        config.set_dword(facts.at + msi::ADDRESS_UPPER, 0);
    }
    config.set_word(facts.at + facts.data_at, 0);
    let control = config.word(facts.at + msi::CONTROL);
    let control = control & !(msi::COUNT_LG2 << msi::ENABLED_SHIFT);
    let count = msi_count_lg2(vectors) << msi::ENABLED_SHIFT;
    config.set_word(facts.at + msi::CONTROL, control | count | msi::ENABLE);
}

/// MSI counts vectors by powers of two: the log2 of the count that holds `vectors`.
pub(crate) fn msi_count_lg2(vectors: usize) -> u16 {
    let lg2 = vectors.max(1).next_power_of_two().ilog2();
    u16::try_from(lg2).unwrap_or(msi::COUNT_LG2_MAX).min(msi::COUNT_LG2_MAX)
}

fn set_msix_control(function: &dyn Function, facts: Msix, bits: u16) {
    let config = Config(function);
    let control = config.word(facts.at + msix::CONTROL) & !(msix::ENABLE | msix::FUNCTION_MASK);
    config.set_word(facts.at + msix::CONTROL, control | bits);
}

/// Whether the function decodes its memory BARs.
pub(crate) fn decodes_memory(function: &dyn Function) -> bool {
    Config(function).word(header::COMMAND) & command::MEMORY != 0
}

/// Writes table entries, with memory decoding on for as long as it takes at least.
fn write_entries(function: &dyn Function, facts: Msix, armed: &Armed, after: DecodeAfter) {
    let table_end = facts.table_at.saturating_add(facts.table_size());
    if function.bar(facts.bar).is_none_or(|bar| table_end > bar.size) {
        return;
    }
    let config = Config(function);
    let command = config.word(header::COMMAND);
    let decodes = command & command::MEMORY != 0;
    if !decodes {
        config.set_word(header::COMMAND, command | command::MEMORY);
    }
    for (vector, &is_armed) in (armed.first..facts.vectors).zip(&armed.vectors) {
        let entry = facts.table_at + u64::from(vector) * msix::ENTRY_SIZE;
        let write = |register: u64, value: u32| {
            function.bar_write(facts.bar, entry + register, &value.to_le_bytes());
        };
        write(msix::ENTRY_ADDRESS, MESSAGE_ADDRESS);
        write(msix::ENTRY_ADDRESS + 4, 0);
        write(msix::ENTRY_DATA, u32::from(vector));
        write(msix::ENTRY_CONTROL, if is_armed { 0 } else { msix::ENTRY_MASKED });
    }
    if !decodes && after == DecodeAfter::AsBefore {
        config.set_word(header::COMMAND, command);
    }
}
