//! The data object exchange mailbox in config space: DOE of PCIe 6.0, with discovery.
//!
//! An object is written dword by dword, sent by Go, and its answer read dword by dword; each write to the
//! read mailbox moves on to the next. Discovery lists CMA and secured CMA; an object of theirs, as of
//! any other protocol, ends in Error: policy `doe-objects`. While the device's owner has the
//! mailbox it is Busy and takes nothing, Abort neither: policy `doe-claimed`.
//!
//! Takes no lock. Deliberately absent: the interrupt of DOE, which this mailbox does not claim to have.

use std::collections::VecDeque;

use pci::ConfigSpace;
use pci::regs::{doe, ext_id};
use pci::walk;

/// The mailbox's registers as they stand.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// Where its capability begins.
    at: u16,
    /// The object being written.
    written: Vec<u32>,
    /// The answer that is left to be read.
    answer: VecDeque<u32>,
    failed: bool,
    /// How many have it besides the client.
    claims: u32,
}

/// The vendor of PCI-SIG's protocols.
const PCI_SIG: u32 = 0x0001;
/// The protocols that discovery lists: itself, CMA, secured CMA.
const PROTOCOLS: [u32; 3] = [DISCOVERY, 1, 2];
const DISCOVERY: u32 = 0;
const TYPE_SHIFT: u32 = 16;
const VENDOR_AND_TYPE: u32 = 0x00ff_ffff;
const LENGTH: u32 = 0x3_ffff;
const INDEX: u32 = 0xff;
const NEXT_SHIFT: u32 = 24;
/// What discovery answers where nothing has the index asked for.
const NO_PROTOCOL: u32 = 0xffff;
/// Dwords of a discovery object, both ways.
const DISCOVERY_DWORDS: u32 = 3;
/// Dwords of an object that are kept: no protocol that is served has more.
const WRITTEN_MAX: usize = 64;

impl Mailbox {
    /// The mailbox of a config space that has one.
    pub(super) fn find(config: &ConfigSpace) -> Option<Self> {
        let capabilities = walk::extended_capabilities(|offset, into| config.read(offset, into));
        let found = capabilities.iter().find(|capability| capability.id == ext_id::DOE)?;
        let (written, answer) = (Vec::new(), VecDeque::new());
        Some(Self { at: found.offset, written, answer, failed: false, claims: 0 })
    }

    /// Takes a write of 32 bits to config space, and shows what came of it.
    pub(super) fn write(&mut self, offset: u64, value: u32, config: &mut ConfigSpace) {
        let Some(register) = u16::try_from(offset).ok().and_then(|at| at.checked_sub(self.at))
        else {
            return;
        };
        if self.claims != 0 {
            return;
        }
        match register {
            doe::CONTROL if value & doe::ABORT != 0 => self.clear(),
            doe::CONTROL if value & doe::GO != 0 && !self.failed => self.go(),
            doe::WRITE_MAILBOX if !self.failed => self.append(value),
            doe::READ_MAILBOX if !self.failed => {
                self.answer.pop_front();
            }
            _ => return,
        }
        self.show(config);
    }

    /// Forgets everything but who has it, as a reset does.
    pub(super) fn reset(&mut self, config: &mut ConfigSpace) {
        self.clear();
        self.show(config);
    }

    /// Takes the mailbox from the client, or gives it back, empty both times.
    pub(super) fn claim(&mut self, claimed: bool, config: &mut ConfigSpace) {
        self.claims = if claimed { self.claims + 1 } else { self.claims.saturating_sub(1) };
        self.reset(config);
    }

    fn clear(&mut self) {
        self.written.clear();
        self.answer.clear();
        self.failed = false;
    }

    fn append(&mut self, value: u32) {
        if self.written.len() < WRITTEN_MAX {
            self.written.push(value);
        } else {
            self.failed = true;
        }
    }

    fn go(&mut self) {
        let object = std::mem::take(&mut self.written);
        match discover(&object) {
            Some(answer) if self.answer.is_empty() => self.answer = answer.into(),
            Some(_) | None => self.failed = true,
        }
    }

    fn show(&self, config: &mut ConfigSpace) {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let status = bit(self.claims != 0, doe::BUSY)
            | bit(self.failed, doe::ERROR)
            | bit(!self.failed && !self.answer.is_empty(), doe::READY);
        let next = self.answer.front().copied().filter(|_| !self.failed).unwrap_or(0);
        for (register, value) in [(doe::STATUS, status), (doe::READ_MAILBOX, next)] {
            let [a, b, c, d] = value.to_le_bytes();
            let at = self.at + register;
            config.set_bits(at, u16::MAX, u16::from_le_bytes([a, b]));
            config.set_bits(at + 2, u16::MAX, u16::from_le_bytes([c, d]));
        }
    }
}

/// The answer to a discovery object; `None` for any other, or one whose length is not as it says.
fn discover(object: &[u32]) -> Option<[u32; 3]> {
    let &[first, length, asked] = object else { return None };
    let discovery = PCI_SIG | DISCOVERY << TYPE_SHIFT;
    if first & VENDOR_AND_TYPE != discovery || length & LENGTH != DISCOVERY_DWORDS {
        return None;
    }
    let index = usize::try_from(asked & INDEX).ok()?;
    let found = match PROTOCOLS.get(index) {
        Some(protocol) => {
            let next = if index + 1 < PROTOCOLS.len() { (asked & INDEX) + 1 } else { 0 };
            PCI_SIG | protocol << TYPE_SHIFT | next << NEXT_SHIFT
        }
        None => NO_PROTOCOL,
    };
    Some([discovery, DISCOVERY_DWORDS, found])
}
