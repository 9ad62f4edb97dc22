//! The data object exchange mailbox in config space: DOE of PCIe 6.0, with discovery.
//!
//! An object is written dword by dword, sent by Go, and its answer read dword by dword; each write to the
//! read mailbox moves on to the next. Discovery is answered here; other objects wait, Busy, until
//! somebody [takes them](Mailbox::take_sent) who holds no lock, and brings what answers them. While
//! the device's owner has the mailbox it is Busy and takes nothing, Abort neither: policy
//! `doe-claimed`.
//!
//! Takes no lock. Deliberately absent: the interrupt of DOE, which this mailbox does not claim to have.

use std::collections::VecDeque;

use pci::ConfigSpace;
use pci::regs::{doe as registers, ext_id};
use pci::walk;
use spdm::doe::{self, Protocol};

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
    /// The object that nobody has taken yet.
    sent: Option<Vec<u8>>,
    /// Which object is out to be answered.
    out: Option<u64>,
    /// Objects sent so far.
    objects: u64,
}

/// An object that was sent, to be answered by [`Mailbox::bring`].
#[derive(Debug)]
pub(super) struct Sent {
    number: u64,
    /// The object.
    pub(super) object: Vec<u8>,
}

/// Dwords of an object that are kept: more than any message has.
const WRITTEN_MAX: usize = 2048;

impl Mailbox {
    /// The mailbox of a config space that has one.
    pub(super) fn find(config: &ConfigSpace) -> Option<Self> {
        let capabilities = walk::extended_capabilities(|offset, into| config.read(offset, into));
        let found = capabilities.iter().find(|capability| capability.id == ext_id::DOE)?;
        let (written, answer) = (Vec::new(), VecDeque::new());
        Some(Self {
            at: found.offset,
            written,
            answer,
            failed: false,
            claims: 0,
            sent: None,
            out: None,
            objects: 0,
        })
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
            registers::CONTROL if value & registers::ABORT != 0 => self.clear(),
            _ if self.out.is_some() => return,
            registers::CONTROL if value & registers::GO != 0 && !self.failed => self.go(),
            registers::WRITE_MAILBOX if !self.failed => self.append(value),
            registers::READ_MAILBOX if !self.failed => {
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

    /// The object that waits to be answered. Who takes it brings an answer.
    pub(super) fn take_sent(&mut self) -> Option<Sent> {
        let (object, number) = (self.sent.take()?, self.objects);
        Some(Sent { number, object })
    }

    /// Brings the answer to an object; `None` is Error. It comes too late after Abort, a reset or a claim.
    pub(super) fn bring(&mut self, sent: &Sent, answer: Option<Vec<u8>>, config: &mut ConfigSpace) {
        if self.out != Some(sent.number) {
            return;
        }
        self.out = None;
        match answer {
            Some(bytes) => self.answer = dwords_of(&bytes).collect(),
            None => self.failed = true,
        }
        self.show(config);
    }

    fn clear(&mut self) {
        self.written.clear();
        self.answer.clear();
        self.failed = false;
        (self.sent, self.out) = (None, None);
    }

    fn append(&mut self, value: u32) {
        if self.written.len() < WRITTEN_MAX {
            self.written.push(value);
        } else {
            self.failed = true;
        }
    }

    fn go(&mut self) {
        let object: Vec<u8> = self.written.drain(..).flat_map(u32::to_le_bytes).collect();
        match doe::read(&object) {
            _ if !self.answer.is_empty() => self.failed = true,
            Err(_) => self.failed = true,
            Ok((Protocol::Discovery, asked)) => match doe::discover(asked) {
                Ok(answer) => self.answer = dwords_of(&answer).collect(),
                Err(_) => self.failed = true,
            },
            Ok((Protocol::Spdm | Protocol::Secured, _)) => {
                self.objects += 1;
                self.out = Some(self.objects);
                self.sent = Some(object);
            }
        }
    }

    fn show(&self, config: &mut ConfigSpace) {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let status = bit(self.claims != 0 || self.out.is_some(), registers::BUSY)
            | bit(self.failed, registers::ERROR)
            | bit(!self.failed && !self.answer.is_empty(), registers::READY);
        let next = self.answer.front().copied().filter(|_| !self.failed).unwrap_or(0);
        for (register, value) in [(registers::STATUS, status), (registers::READ_MAILBOX, next)] {
            let [a, b, c, d] = value.to_le_bytes();
            let at = self.at + register;
            config.set_bits(at, u16::MAX, u16::from_le_bytes([a, b]));
            config.set_bits(at + 2, u16::MAX, u16::from_le_bytes([c, d]));
        }
    }
}

fn dwords_of(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|dword| u32::from_le_bytes(*dword))
}
