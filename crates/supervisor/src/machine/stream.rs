//! The host's part of an IDE stream: the registers of a device and of the root port above it, and the
//! root port's keys.
//!
//! One lock for a machine, outside those of functions: which block of registers is whose, and what of the host bridge. Deliberately absent: address associations, as
//! nothing here routes by them.
//! Source: PCIe 6.0, 7.9.26; which register holds what, and how streams are counted and named: Linux 7.3,
//! `pci_ide_stream_alloc`, `pci_ide_stream_setup`, `pci_ide_stream_register`.

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
pub(crate) struct Streams(Mutex<BTreeMap<(Address, u8), Taken>>);

/// A host bridge, by domain and number of its root bus.
pub(crate) type HostBridge = (u16, u8);

/// A stream that is in use, as sysfs tells of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Registered {
    /// The host bridge that it passes.
    pub(crate) host_bridge: HostBridge,
    /// `streamH.R.E`: its places at the host bridge, the root port and the endpoint.
    pub(crate) name: String,
    /// The endpoint.
    pub(crate) endpoint: Address,
}

/// How many streams a host bridge has room for, as Linux has it where a platform says nothing.
const STREAMS_OF_HOST_BRIDGE: u16 = 256;

impl Streams {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Address, u8), Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many more streams can pass a host bridge.
    pub(crate) fn available(&self, host_bridge: HostBridge) -> usize {
        let streams = self.lock();
        let taken = streams.values().filter(|taken| taken.host_bridge == host_bridge);
        usize::from(STREAMS_OF_HOST_BRIDGE).saturating_sub(taken.count())
    }

    /// Every stream that both ends have used.
    pub(crate) fn registered(&self) -> Vec<Registered> {
        let streams = self.lock();
        let registered = streams.iter().filter(|(_, taken)| taken.registered);
        registered
            .map(|(&(endpoint, _), taken)| Registered {
                host_bridge: taken.host_bridge,
                name: format!(
                    "stream{}.{}.{}",
                    taken.slot, taken.port.number, taken.endpoint.number
                ),
                endpoint,
            })
            .collect()
    }
}

/// What a stream has taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    host_bridge: HostBridge,
    /// Its place at the host bridge.
    slot: u16,
    endpoint: Block,
    port: Block,
    /// The ends at which it is enabled.
    endpoint_enabled: bool,
    port_enabled: bool,
    /// Whether it was enabled at both ends since it was taken.
    registered: bool,
}

impl Taken {
    fn enable(&mut self, end: End, enabled: bool) -> Block {
        let (flag, block) = match end {
            End::Endpoint => (&mut self.endpoint_enabled, self.endpoint),
            End::RootPort => (&mut self.port_enabled, self.port),
        };
        *flag = enabled;
        self.registered |= self.endpoint_enabled && self.port_enabled;
        block
    }
}

/// A stream's registers at one end.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Which of the end's it is.
    number: usize,
    /// Where it begins.
    at: u16,
}

/// The stream ID that streams nobody uses have.
const STREAM_ID_RESERVED: u8 = u8::MAX;
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
    fn free(&self, end: End) -> Option<Block> {
        let blocks = self.all(end).into_iter().enumerate();
        let mut blocks = blocks.map(|(number, at)| Block { number, at });
        blocks.find(|block| self.read(end, block.at + ide::STREAM_RID_2) & RID_VALID == 0)
    }

    fn host_bridge(&self) -> HostBridge {
        let Address { domain, bus, .. } = self.port.address();
        (domain, bus)
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
        let host_bridge = self.host_bridge();
        let passing = || streams.iter().filter(|(_, taken)| taken.host_bridge == host_bridge);
        let slot = |slot: &u16| passing().all(|(_, taken)| taken.slot != *slot);
        let slot = (0..STREAMS_OF_HOST_BRIDGE).find(slot).ok_or(none(self.port.address()))?;
        let port = self.free(End::RootPort).ok_or(none(self.port.address()))?;
        let endpoint = self.free(End::Endpoint).ok_or(none(self.endpoint.address()))?;
        let is_free = |number: &u8| passing().all(|((_, taken), _)| taken != number);
        let stream = (wanted..STREAM_ID_RESERVED).find(is_free);
        let stream = stream.ok_or(none(self.port.address()))?;
        let above = (self.port.address(), self.port.address());
        self.associate(End::Endpoint, endpoint.at, stream, above);
        self.associate(End::RootPort, port.at, stream, (self.endpoint.address(), self.last));
        let taken = Taken {
            host_bridge,
            slot,
            endpoint,
            port,
            endpoint_enabled: false,
            port_enabled: false,
            registered: false,
        };
        streams.insert((self.endpoint.address(), stream), taken);
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
        let block = self.streams.lock().get_mut(&key).map(|taken| taken.enable(end, enabled));
        let Some(block) = block else { return };
        let at = block.at + ide::STREAM_CONTROL;
        let off = self.read(end, at) & !ide::STREAM_ENABLE;
        self.write(end, at, if enabled { off | ide::STREAM_ENABLE } else { off });
    }

    fn release(&self, stream: u8) {
        let mut streams = self.streams.lock();
        let Some(taken) = streams.remove(&(self.endpoint.address(), stream)) else { return };
        self.clear(End::Endpoint, taken.endpoint.at);
        self.clear(End::RootPort, taken.port.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::dma_engine::{self, DmaEngine};
    use device::root_port;

    fn address(bus: u8, device: u8) -> Address {
        Address::new(0, bus, device, 0).unwrap()
    }

    /// A device behind a root port of its own: each has eight streams or fewer.
    fn host_stream(port: u8, streams: &Arc<Streams>) -> HostStream {
        let port = root_port::Config {
            address: address(0, port),
            secondary_bus: port,
            subordinate_bus: port,
            port_number: port,
            tee: true,
            serial: None,
        };
        let engine = dma_engine::Config {
            tee: true,
            ..dma_engine::Config::new(address(port.secondary_bus, 0))
        };
        let endpoint = DmaEngine::new(&engine);
        let last = endpoint.address();
        HostStream { endpoint, last, port: RootPort::new(&port), streams: Arc::clone(streams) }
    }

    fn names(streams: &Streams) -> Vec<String> {
        streams.registered().into_iter().map(|stream| stream.name).collect()
    }

    #[test]
    fn a_stream_is_counted_when_it_is_taken_and_told_of_when_it_is_used() {
        let streams = Arc::new(Streams::default());
        let (one, other) = (host_stream(1, &streams), host_stream(2, &streams));
        assert_eq!((streams.available((0, 0)), names(&streams)), (256, vec![]));
        let first = one.allocate(0).unwrap();
        assert_eq!((streams.available((0, 0)), names(&streams)), (255, vec![]));
        one.enable(End::RootPort, first, true);
        assert_eq!(names(&streams), [""; 0]);
        one.enable(End::Endpoint, first, true);
        assert_eq!(names(&streams), ["stream0.0.0"]);
        let second = other.allocate(0).unwrap();
        assert_ne!(first, second, "one host bridge, one number");
        other.enable(End::Endpoint, second, true);
        other.enable(End::RootPort, second, true);
        assert_eq!(names(&streams), ["stream0.0.0", "stream1.0.0"]);
        one.enable(End::RootPort, first, false);
        assert_eq!(names(&streams).len(), 2, "until it is given back");
        one.release(first);
        assert_eq!((streams.available((0, 0)), names(&streams)), (255, vec!["stream1.0.0".into()]));
        assert_eq!(streams.available((0, 1)), 256, "another host bridge");
        assert_eq!(
            one.allocate(255).err().map(|refusal| refusal.errno()),
            Some(uapi::Errno::EBUSY)
        );
        assert_eq!(one.allocate(0), Ok(first), "the reserved number took nothing");
    }
}
