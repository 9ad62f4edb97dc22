//! Config space as a client sees it.
//!
//! Each bit is in one of four classes, kept as two masks: *virtual* bits live here, others in the
//! function; *writable* bits take what the client writes, others keep what they have. A few fields do
//! something when written; what they ask for is returned as [`Effects`], for the caller to carry out
//! once it holds no lock.
//!
//! | file | says |
//! |---|---|
//! | `config/layout.rs` | which bytes belong to which capability, which capabilities are hidden, the masks |
//! | this one | reads, writes, and the fields that do something |
//!
//! Takes no lock; lives inside the `MEMORY` lock of its device. Reads and writes of the function's config
//! space are register accesses: they do not wait.
//!
//! Source: [uapi/pci_regs.h] for the fields; vfio-pci in v7.3 for what it makes of them.

mod layout;

use pci::Function;
use pci::regs::{command, express, header, msi, pm};

use crate::facts::{Config, Facts};

/// Config space of one bound device.
pub(crate) struct VirtualConfig {
    facts: Facts,
    /// The value of virtual bits. The memory and I/O enable bits are kept here too, as last written.
    values: Vec<u8>,
    /// Bits that live here.
    virtual_bits: Vec<u8>,
    /// Bits that a client may change.
    writable: Vec<u8>,
    /// Whether MSI is set up.
    msi_is_set_up: bool,
    /// log2 of the vectors that MSI was last set up with.
    msi_count_lg2: u16,
}

/// What a write asks for beyond this table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Registers of the function to write, in order.
    pub(crate) hardware: Vec<HardwareWrite>,
    /// The client asked for a function-level reset.
    pub(crate) reset: bool,
    /// INTx disable changed to this.
    pub(crate) intx_disabled: Option<bool>,
    /// The power state asked for, as the control register numbers them.
    pub(crate) power: Option<u16>,
    /// Bits of COMMAND that were asked to be cleared, and were not.
    pub(crate) kept: u16,
}

/// At most four bytes for a register of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HardwareWrite {
    pub(crate) offset: u16,
    bytes: [u8; CHUNK_MAX],
    length: usize,
}

impl HardwareWrite {
    fn new(offset: u16, from: &[u8]) -> Self {
        let mut bytes = [0; CHUNK_MAX];
        bytes[..from.len()].copy_from_slice(from);
        Self { offset, bytes, length: from.len() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The low byte of COMMAND: what the function decodes.
const DECODE_BITS: u8 = (command::MEMORY | command::IO).to_le_bytes()[0];

/// Bytes of the widest config access.
const CHUNK_MAX: usize = 4;

/// The length of the aligned access that begins at `offset`, with `left` bytes to go: 4, 2 or 1.
pub(crate) fn chunk_length(offset: usize, left: usize) -> usize {
    if offset.is_multiple_of(4) && left >= 4 {
        4
    } else if offset.is_multiple_of(2) && left >= 2 {
        2
    } else {
        1
    }
}

impl VirtualConfig {
    /// Config space of a function that has just been enabled.
    pub(crate) fn new(function: &dyn Function, facts: Facts) -> Self {
        layout::build(function, facts)
    }

    /// Reads. `offset..offset + into.len()` lies inside config space.
    pub(crate) fn read(&self, function: &dyn Function, offset: u16, into: &mut [u8]) {
        function.config_read(offset, into);
        let here = usize::from(offset)..usize::from(offset) + into.len();
        let virtual_bits = &self.virtual_bits[here.clone()];
        for ((byte, &mask), &value) in into.iter_mut().zip(virtual_bits).zip(&self.values[here]) {
            *byte = *byte & !mask | value & mask;
        }
        // As last written: the host may decode for itself.
        let command = usize::from(header::COMMAND.wrapping_sub(offset));
        if let Some(byte) = into.get_mut(command) {
            *byte = *byte & !DECODE_BITS | self.values[usize::from(header::COMMAND)] & DECODE_BITS;
        }
    }

    /// Takes an aligned write of 1, 2 or 4 bytes inside config space. Bits `keep` of COMMAND stay set where
    /// they are.
    pub(crate) fn write(
        &mut self,
        function: &dyn Function,
        offset: u16,
        from: &[u8],
        keep: u16,
    ) -> Effects {
        let mut effects = Effects::default();
        let mut bytes = [0; CHUNK_MAX];
        let bytes = &mut bytes[..from.len()];
        bytes.copy_from_slice(from);
        effects.kept = self.keep_enabled(function, offset, bytes, keep);
        let from = &*bytes;
        let intx_disabled = self.intx_disabled();
        let read_request = self.express_control() & express::READ_REQUEST;
        self.take_virtual(offset, from);
        effects.hardware.extend(self.physical_write(function, offset, from));
        let written = Written { offset, from };
        self.note_decode(&written);
        if self.intx_disabled() != intx_disabled {
            effects.intx_disabled = Some(!intx_disabled);
        }
        self.after_pm(function, &written, &mut effects);
        self.after_express(function, read_request, &mut effects);
        self.after_af(&mut effects);
        self.after_msi(&written, &mut effects);
        effects
    }

    /// Whether the function answers accesses to its memory BARs, as far as COMMAND goes.
    pub(crate) fn decodes_memory(&self) -> bool {
        self.facts.virtual_function.is_some() || self.word(header::COMMAND) & command::MEMORY != 0
    }

    /// Says that MSI is set up with `1 << count_lg2` vectors, or that it is not.
    pub(crate) fn set_msi(&mut self, count_lg2: Option<u16>) {
        self.msi_is_set_up = count_lg2.is_some();
        self.msi_count_lg2 = count_lg2.unwrap_or(self.msi_count_lg2);
    }

    fn intx_disabled(&self) -> bool {
        self.word(header::COMMAND) & command::INTX_DISABLE != 0
    }

    /// Sets those bits `keep` of COMMAND in the write that are set in the function; returns the ones that it would
    /// have cleared.
    fn keep_enabled(
        &self,
        function: &dyn Function,
        offset: u16,
        bytes: &mut [u8],
        keep: u16,
    ) -> u16 {
        let command = usize::from(header::COMMAND.wrapping_sub(offset));
        let Some(byte) = bytes.get_mut(command).filter(|_| keep != 0) else { return 0 };
        let virtual_bits = self.virtual_bits[usize::from(header::COMMAND)];
        let [keep, _] = keep.to_le_bytes();
        let kept = keep & !virtual_bits & !*byte & Config(function).byte(header::COMMAND);
        *byte |= kept;
        u16::from(kept)
    }

    fn take_virtual(&mut self, offset: u16, from: &[u8]) {
        for (&written, at) in from.iter().zip(usize::from(offset)..) {
            let mask = self.virtual_bits[at] & self.writable[at];
            self.values[at] = self.values[at] & !mask | written & mask;
        }
    }

    /// The bytes of the function that the write changes: those between the first and the last with a
    /// writable physical bit. Others are left alone, as some bits clear when written as read. The function
    /// is read only where it keeps bits of its own, as a mailbox may take a read for more than one.
    fn physical_write(
        &self,
        function: &dyn Function,
        offset: u16,
        from: &[u8],
    ) -> Option<HardwareWrite> {
        let mask = |at: usize| self.writable[at] & !self.virtual_bits[at];
        let at = usize::from(offset);
        let first = (0..from.len()).find(|index| mask(at + index) != 0)?;
        let last = (0..from.len()).rfind(|index| mask(at + index) != 0)?;
        let start = offset + u16::try_from(first).ok()?;
        let mut bytes = [0; CHUNK_MAX];
        let bytes = &mut bytes[..=last - first];
        if (first..=last).any(|index| mask(at + index) != u8::MAX) {
            function.config_read(start, bytes);
        }
        for (byte, index) in bytes.iter_mut().zip(first..) {
            let mask = mask(at + index);
            *byte = *byte & !mask | from[index] & mask;
        }
        Some(HardwareWrite::new(start, bytes))
    }

    /// Keeps the decode enables as the client wrote them.
    fn note_decode(&mut self, written: &Written<'_>) {
        if let Some(byte) = written.byte(header::COMMAND) {
            let value = &mut self.values[usize::from(header::COMMAND)];
            *value = *value & !DECODE_BITS | byte & DECODE_BITS;
        }
    }

    fn after_pm(&self, function: &dyn Function, written: &Written<'_>, effects: &mut Effects) {
        let Some(at) = self.facts.pm.map(|pm| pm.at + pm::CONTROL) else { return };
        let Some(byte) = written.byte(at) else { return };
        let control = Config(function).word(at);
        let state = u16::from(byte) & pm::STATE;
        if state != control & pm::STATE && layout::has_power_state(function, self.facts, state) {
            effects.power = Some(state);
        }
    }

    fn after_express(&mut self, function: &dyn Function, before: u16, effects: &mut Effects) {
        let Some(facts) = self.facts.express else { return };
        let at = facts.at + express::DEVCTL;
        let control = self.word(at);
        if control & express::INITIATE_FLR != 0 {
            self.set_word(at, control & !express::INITIATE_FLR);
            effects.reset |= facts.flr;
        }
        let asked = control & express::READ_REQUEST;
        if asked != before {
            // The read request may not be smaller than the payload that the machine chose.
            let real = effects.word_after(function, at);
            let payload = (real & express::PAYLOAD) >> PAYLOAD_SHIFT;
            let floor = payload << READ_REQUEST_SHIFT;
            let real = real & !express::READ_REQUEST | asked.max(floor);
            effects.hardware.push(HardwareWrite::new(at, &real.to_le_bytes()));
        }
    }

    fn after_af(&mut self, effects: &mut Effects) {
        let Some(facts) = self.facts.af else { return };
        let at = usize::from(facts.at + layout::AF_CONTROL);
        let Some(control) = self.values.get_mut(at) else { return };
        if *control & layout::AF_INITIATE_FLR != 0 {
            *control &= !layout::AF_INITIATE_FLR;
            effects.reset |= facts.flr;
        }
    }

    /// MSI goes on only once it is set up, and with no more vectors than were set up last: before that, one.
    fn after_msi(&mut self, written: &Written<'_>, effects: &mut Effects) {
        let Some(at) = self.facts.msi.map(|msi| msi.at + msi::CONTROL) else { return };
        if written.byte(at).is_none() {
            return;
        }
        let mut control = self.word(at);
        if !self.msi_is_set_up {
            control &= !msi::ENABLE;
        }
        let asked = control >> msi::ENABLED_SHIFT & msi::COUNT_LG2;
        control &= !(msi::COUNT_LG2 << msi::ENABLED_SHIFT);
        control |= asked.min(self.msi_count_lg2) << msi::ENABLED_SHIFT;
        self.set_word(at, control);
        let [low, _] = control.to_le_bytes();
        effects.hardware.push(HardwareWrite::new(at, &[low]));
    }

    fn express_control(&self) -> u16 {
        self.facts.express.map_or(0, |facts| self.word(facts.at + express::DEVCTL))
    }

    /// Two bytes of the values kept here; zero past the end.
    fn word(&self, offset: u16) -> u16 {
        let at = usize::from(offset);
        let bytes = self.values.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u16::from_le_bytes(*bytes))
    }

    fn set_word(&mut self, offset: u16, value: u16) {
        if let Some(bytes) = self.values.get_mut(usize::from(offset)..) {
            for (byte, new) in bytes.iter_mut().zip(value.to_le_bytes()) {
                *byte = new;
            }
        }
    }
}

const PAYLOAD_SHIFT: u32 = 5;
const READ_REQUEST_SHIFT: u32 = 12;

impl Effects {
    /// What a register of the function will hold once the writes noted so far are done.
    fn word_after(&self, function: &dyn Function, offset: u16) -> u16 {
        let mut bytes = Config(function).word(offset).to_le_bytes();
        for write in &self.hardware {
            let written = Written { offset: write.offset, from: write.bytes() };
            for (byte, at) in bytes.iter_mut().zip(offset..) {
                *byte = written.byte(at).unwrap_or(*byte);
            }
        }
        u16::from_le_bytes(bytes)
    }
}

/// A write, byte by byte.
struct Written<'a> {
    offset: u16,
    from: &'a [u8],
}

impl Written<'_> {
    /// What was written to a byte, if it was.
    fn byte(&self, at: u16) -> Option<u8> {
        self.from.get(usize::from(at.checked_sub(self.offset)?)).copied()
    }
}
