//! Descriptors: what a client asks for, copied once and understood once.
//!
//! A client may change a descriptor while it is looked at, so the bytes are copied out of shared
//! memory whole and everything else works on the copy. Takes no lock.

use super::regs::{self, descriptor, flag, operation, reason};

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_SIZE: usize = 64;
const _: () = assert!(DESCRIPTOR_SIZE as u64 == descriptor::SIZE);

/// A descriptor with its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// The slot it came from.
    pub(super) slot: u32,
    /// Comes back in the status block.
    pub(super) cookie: u64,
    /// The vector to raise at its end.
    pub(super) vector: Option<u16>,
    /// Its DMA has the T bit.
    pub(super) trusted: bool,
    /// What to do, or the reason why that cannot be understood.
    pub(super) work: Result<Work, u32>,
    /// Bytes moved so far.
    pub(super) done: u32,
}

/// An operation whose addresses and window lie where such things may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Nop,
    Copy { source: u64, destination: u64, length: u32 },
    Fill { destination: u64, pattern: u64, length: u32 },
    Read { source: u64, window: u32, length: u32 },
    Write { window: u32, destination: u64, length: u32 },
}

impl Job {
    /// Understands the descriptor of a slot, of which the engine knows `flags`.
    pub(super) fn parse(slot: u32, bytes: &[u8; DESCRIPTOR_SIZE], flags: u32) -> Self {
        let fields = Fields(bytes);
        let interrupt = fields.dword(descriptor::FLAGS) & flag::INTERRUPT != 0;
        let vector = u16::try_from(fields.dword(descriptor::VECTOR)).ok();
        let vector = vector.filter(|vector| *vector < regs::MSIX_VECTORS);
        let work = match vector {
            None if interrupt => Err(reason::VECTOR),
            _ => fields.work(flags),
        };
        Self {
            slot,
            cookie: fields.qword(descriptor::COOKIE),
            // A vector that does not exist is reported on vector 0.
            vector: interrupt.then(|| vector.unwrap_or(0)),
            trusted: fields.dword(descriptor::FLAGS) & flags & flag::TRUSTED != 0,
            work,
            done: 0,
        }
    }

    /// Bytes still to move.
    pub(super) fn remaining(&self) -> u32 {
        self.work.map_or(0, |work| work.length() - self.done)
    }
}

impl Work {
    pub(super) fn length(self) -> u32 {
        match self {
            Self::Nop => 0,
            Self::Copy { length, .. }
            | Self::Fill { length, .. }
            | Self::Read { length, .. }
            | Self::Write { length, .. } => length,
        }
    }
}

/// A descriptor's bytes, by field.
struct Fields<'a>(&'a [u8; DESCRIPTOR_SIZE]);

impl Fields<'_> {
    fn work(&self, flags: u32) -> Result<Work, u32> {
        if self.dword(descriptor::FLAGS) & !flags != 0
            || self.dword(descriptor::RESERVED_0) != 0
            || self.qword(descriptor::RESERVED_1) != 0
        {
            return Err(reason::RESERVED);
        }
        let length = self.dword(descriptor::LENGTH);
        Ok(match self.dword(descriptor::OPERATION) {
            operation::NOP => Work::Nop,
            operation::COPY => Work::Copy {
                source: self.address(descriptor::SOURCE)?,
                destination: self.address(descriptor::DESTINATION)?,
                length,
            },
            operation::FILL => Work::Fill {
                destination: self.address(descriptor::DESTINATION)?,
                pattern: self.qword(descriptor::PATTERN),
                length,
            },
            operation::READ => Work::Read {
                source: self.address(descriptor::SOURCE)?,
                window: self.window()?,
                length,
            },
            operation::WRITE => Work::Write {
                window: self.window()?,
                destination: self.address(descriptor::DESTINATION)?,
                length,
            },
            _ => return Err(reason::OPERATION),
        })
    }

    /// The address in a field, from which `length` bytes reach no further than 2^64.
    fn address(&self, field: u64) -> Result<u64, u32> {
        let address = self.qword(field);
        let last = u64::from(self.dword(descriptor::LENGTH)).saturating_sub(1);
        address.checked_add(last).map(|_| address).ok_or(reason::ADDRESS)
    }

    /// The window offset, from which `length` bytes stay inside the window.
    fn window(&self) -> Result<u32, u32> {
        let offset = self.dword(descriptor::WINDOW_OFFSET);
        let end = u64::from(offset) + u64::from(self.dword(descriptor::LENGTH));
        if end <= regs::bar0::WINDOW_LENGTH { Ok(offset) } else { Err(reason::WINDOW) }
    }

    fn dword(&self, field: u64) -> u32 {
        let mut bytes = [0; 4];
        self.copy(field, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn qword(&self, field: u64) -> u64 {
        let mut bytes = [0; 8];
        self.copy(field, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn copy(&self, field: u64, into: &mut [u8]) {
        let at = usize::try_from(field).unwrap_or(usize::MAX);
        for (byte, value) in into.iter_mut().zip(self.0.iter().skip(at)) {
            *byte = *value;
        }
    }
}
