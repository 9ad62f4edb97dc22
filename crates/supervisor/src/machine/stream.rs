//! The host's part of an IDE stream: the registers of a device and of the root port above it, and the
//! root port's keys.
//!
//! One lock for a machine, outside those of functions: which block of registers is whose. Deliberately absent: address associations, as
//! nothing here routes by them.
//! Source: PCIe 6.0, 7.9.26; which register holds what: Linux 7.3, `pci_ide_stream_setup`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device::root_port::RootPort;
use pci::regs::{ext_id, ide};
use pci::{Address, Function, walk};
use tdisp::ide_km::{KeyId, KeyMaterial};
use tsm::{End, Refusal, Stream};

/// The streams between a device and the root port above it.
pub(super) struct HostStream {
    /// Function 0 of the device.
    pub(super) endpoint: Arc<dyn Function>,
    /// The last function of the device.
    pub(super) last: Address,
    /// The root port.
    pub(super) port: Arc<RootPort>,
    /// All streams of the machine.
    pub(super) streams: Arc<Streams>,
}

/// The streams of a machine: each device's by number.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<BTreeMap<(Address, u8), Blocks>>);

impl Streams {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Address, u8), Blocks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a stream's registers begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    endpoint: u16,
    port: u16,
}

const REGISTER_BYTES: usize = 4;
/// Stream control: the stream ID, bits 31:24.
const STREAM_ID_SHIFT: u32 = 24;
/// Requester ID association 1: the last requester, bits 23:8.
const RID_LIMIT_SHIFT: u32 = 8;
/// Requester ID association 2: valid, and the first requester, bits 23:8.
const RID_VALID: u32 = 1 << 0;
const RID_BASE_SHIFT: u32 = 8;

impl HostStream {
    fn read(&self, end: End, at: u16) -> u32 {
        let mut bytes = [0; REGISTER_BYTES];
        match end {
            End::Endpoint => self.endpoint.config_read(at, &mut bytes),
            End::RootPort => self.port.config_read(at, &mut bytes),
        }
        u32::from_le_bytes(bytes)
    }

    fn write(&self, end: End, at: u16, value: u32) {
        match end {
            End::Endpoint => self.endpoint.config_write(at, &value.to_le_bytes()),
            End::RootPort => self.port.config_write(at, &value.to_le_bytes()),
        }
    }

    /// Every stream block of an end.
    fn all(&self, end: End) -> Vec<u16> {
        let found = match end {
            End::Endpoint => {
                walk::extended_capabilities(|at, into| self.endpoint.config_read(at, into))
            }
            End::RootPort => {
                walk::extended_capabilities(|at, into| self.port.config_read(at, into))
            }
        };
        let Some(at) = found.iter().find(|one| one.id == ext_id::IDE).map(|one| one.offset) else {
            return Vec::new();
        };
        let count = (self.read(end, at + ide::CAPABILITY) >> ide::SELECTIVE_COUNT_SHIFT & 0xff) + 1;
        let mut blocks = Vec::new();
        let mut next = at + ide::STREAMS;
        for _ in 0..count {
            blocks.push(next);
            let associations = self.read(end, next + ide::STREAM_CAPABILITY) & 0xf;
            let associations = u16::try_from(associations).unwrap_or(0);
            next += ide::STREAM_LENGTH + associations * ide::ASSOCIATION_LENGTH;
        }
        blocks
    }

    /// A block of an end that no stream has.
    fn free(&self, end: End) -> Option<u16> {
        let is_free = |at: &u16| self.read(end, at + ide::STREAM_RID_2) & RID_VALID == 0;
        self.all(end).into_iter().find(is_free)
    }

    /// Whether the root port has a stream of this number.
    fn has(&self, stream: u8) -> bool {
        self.all(End::RootPort).into_iter().any(|at| {
            self.read(End::RootPort, at + ide::STREAM_RID_2) & RID_VALID != 0
                && self.read(End::RootPort, at + ide::STREAM_CONTROL) >> STREAM_ID_SHIFT
                    == u32::from(stream)
        })
    }

    /// Enters who is at the other end.
    fn associate(&self, end: End, block: u16, stream: u8, others: (Address, Address)) {
        let rid = |address: Address| u32::from(address.requester_id());
        let (first, last) = others;
        self.write(end, block + ide::STREAM_CONTROL, u32::from(stream) << STREAM_ID_SHIFT);
        self.write(end, block + ide::STREAM_RID_1, rid(last) << RID_LIMIT_SHIFT);
        self.write(end, block + ide::STREAM_RID_2, rid(first) << RID_BASE_SHIFT | RID_VALID);
    }

    fn clear(&self, end: End, block: u16) {
        for register in [ide::STREAM_CONTROL, ide::STREAM_RID_1, ide::STREAM_RID_2] {
            self.write(end, block + register, 0);
        }
    }
}

impl Stream for HostStream {
    fn allocate(&self, wanted: u8) -> Result<u8, Refusal> {
        let none = |function| Refusal::NoStream { function };
        let mut streams = self.streams.lock();
        let port = self.free(End::RootPort).ok_or(none(self.port.address()))?;
        let endpoint = self.free(End::Endpoint).ok_or(none(self.endpoint.address()))?;
        let mut numbers = wanted..=u8::MAX;
        let stream = numbers.find(|number| !self.has(*number));
        let stream = stream.ok_or(none(self.port.address()))?;
        let above = (self.port.address(), self.port.address());
        self.associate(End::Endpoint, endpoint, stream, above);
        self.associate(End::RootPort, port, stream, (self.endpoint.address(), self.last));
        streams.insert((self.endpoint.address(), stream), Blocks { endpoint, port });
        Ok(stream)
    }

    fn program(&self, key: KeyId, _: &KeyMaterial) {
        self.port.program_key(key);
    }

    fn go(&self, key: KeyId) {
        self.port.use_key(key);
    }

    fn stop(&self, key: KeyId) {
        self.port.forget_key(key);
    }

    fn enable(&self, end: End, stream: u8, enabled: bool) {
        let key = (self.endpoint.address(), stream);
        let Some(blocks) = self.streams.lock().get(&key).copied() else { return };
        let block = match end {
            End::Endpoint => blocks.endpoint,
            End::RootPort => blocks.port,
        };
        let at = block + ide::STREAM_CONTROL;
        let off = self.read(end, at) & !ide::STREAM_ENABLE;
        self.write(end, at, if enabled { off | ide::STREAM_ENABLE } else { off });
    }

    fn release(&self, stream: u8) {
        let mut streams = self.streams.lock();
        let Some(blocks) = streams.remove(&(self.endpoint.address(), stream)) else { return };
        self.clear(End::Endpoint, blocks.endpoint);
        self.clear(End::RootPort, blocks.port);
    }
}
