//! A PCI Express root port, as much of one as config space shows.
//!
//! Endpoints sit behind it, so that `lspci` and sysfs have a bridge to show and IDE has a partner. It
//! forwards nothing and has no BARs. Of IDE it has the registers and, for each stream, which keys it
//! was given and uses; the host's software gives them by calls, for how a host reaches its own root
//! port is no standard's. One lock of rank [`sync::rank::Function`] guards all of it; it is held on
//! no call out of here.

use std::collections::BTreeMap;
use std::sync::Arc;

use pci::capability::{express_root_port, power_management};
use pci::extended::{
    SelectiveStreams, access_control, error_reporting, integrity_and_encryption, serial_number,
};
use pci::{Address, BusNumbers, ConfigBuilder, ConfigSpace, Identity};
use sync::{Mutex, rank};
use tdisp::ide_km::{Direction, KeyId, KeyKind, SubStream};

/// Vendor ID of the root port: that of the emulated endpoints.
pub const VENDOR_ID: u16 = crate::dma_engine::regs::VENDOR_ID;
/// Device ID of the root port.
pub const DEVICE_ID: u16 = 0xb1d1;
/// Revision ID.
pub const REVISION: u8 = 0x01;
/// Class code: a PCI-to-PCI bridge, normal decode.
pub const CLASS_CODE: u32 = 0x06_04_00;

/// How a root port is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it sits.
    pub address: Address,
    /// The bus right behind it.
    pub secondary_bus: u8,
    /// The last bus behind it.
    pub subordinate_bus: u8,
    /// The port's number in its root complex.
    pub port_number: u8,
    /// Whether it has IDE, which a TEE-IO endpoint behind it needs.
    pub tee: bool,
    /// The device serial number.
    pub serial: Option<u64>,
}

/// A root port.
#[derive(Debug)]
pub struct RootPort {
    address: Address,
    inner: Mutex<rank::Function, Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ConfigSpace,
    /// Keys, and whether each is in use, by stream and kind.
    keys: BTreeMap<(u8, u8), bool>,
}

impl RootPort {
    /// A root port as firmware leaves it: buses numbered, windows closed, bus master on.
    pub fn new(config: &Config) -> Arc<Self> {
        let space = config_space(config);
        let inner = Inner { config: space, keys: BTreeMap::new() };
        Arc::new(Self { address: config.address, inner: Mutex::new(inner) })
    }

    /// Where it sits.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Reads config space as hardware shows it.
    pub fn config_read(&self, offset: u16, into: &mut [u8]) {
        self.inner.lock().config.read(offset, into);
    }

    /// Writes config space as hardware takes it.
    pub fn config_write(&self, offset: u16, from: &[u8]) {
        self.inner.lock().config.write(offset, from);
    }

    /// Gives it a key, which it does not use yet. The key itself is not kept.
    pub fn program_key(&self, key: KeyId) {
        self.inner.lock().keys.insert((key.stream, key.kind.0), false);
    }

    /// Has it use a key. Does nothing where it has none.
    pub fn use_key(&self, key: KeyId) {
        if let Some(used) = self.inner.lock().keys.get_mut(&(key.stream, key.kind.0)) {
            *used = true;
        }
    }

    /// Takes a key away.
    pub fn forget_key(&self, key: KeyId) {
        self.inner.lock().keys.remove(&(key.stream, key.kind.0));
    }

    /// Keys that it has.
    pub fn keys(&self) -> usize {
        self.inner.lock().keys.len()
    }

    /// Whether each direction and sub-stream of a stream has a key in use.
    pub fn is_secure(&self, stream: u8) -> bool {
        let inner = self.inner.lock();
        Direction::ALL.into_iter().all(|direction| {
            SubStream::ALL.into_iter().all(|sub| {
                let used = |set| {
                    inner.keys.get(&(stream, KeyKind::new(set, direction, sub).0)) == Some(&true)
                };
                used(false) || used(true)
            })
        })
    }
}

/// More streams than any endpoint behind it has, each with three address ranges: memory,
/// prefetchable memory and one to spare.
const STREAMS: SelectiveStreams = SelectiveStreams { count: 8, associations: 3 };

/// # Panics
/// Never: both variants fit, which a test goes through.
fn config_space(config: &Config) -> ConfigSpace {
    let identity = Identity {
        vendor_id: VENDOR_ID,
        device_id: DEVICE_ID,
        revision: REVISION,
        class_code: CLASS_CODE,
        subsystem_vendor_id: 0,
        subsystem_id: 0,
        multi_function: false,
    };
    let buses = BusNumbers {
        primary: config.address.bus,
        secondary: config.secondary_bus,
        subordinate: config.subordinate_bus,
    };
    let mut builder = ConfigBuilder::bridge(&identity, buses)
        .interrupt_pin_a()
        .capability(power_management())
        .capability(express_root_port(config.port_number))
        .extended(error_reporting(true))
        .extended(access_control());
    if let Some(serial) = config.serial {
        builder = builder.extended(serial_number(serial));
    }
    if config.tee {
        builder = builder.extended(integrity_and_encryption(STREAMS));
    }
    let mut space = builder.build().expect("a root port fits into config space");
    let on = pci::regs::command::MEMORY | pci::regs::command::BUS_MASTER;
    space.write(pci::regs::header::COMMAND, &on.to_le_bytes());
    space
}

#[cfg(test)]
mod tests {
    use super::*;
    use pci::regs::{cap_id, ext_id, header};
    use pci::walk;

    fn port(tee: bool) -> Arc<RootPort> {
        RootPort::new(&Config {
            address: "b1d0:00:01.0".parse().unwrap(),
            secondary_bus: 1,
            subordinate_bus: 3,
            port_number: 7,
            tee,
            serial: Some(1),
        })
    }

    #[test]
    fn shows_a_bridge_with_its_buses() {
        let port = port(false);
        let mut buses = [0; 3];
        port.config_read(header::PRIMARY_BUS, &mut buses);
        assert_eq!(buses, [0, 1, 3]);
        let mut layout = [0];
        port.config_read(header::HEADER_TYPE, &mut layout);
        assert_eq!(layout, [header::TYPE_BRIDGE]);
    }

    #[test]
    fn a_stream_is_secure_with_all_its_keys_in_use() {
        let port = port(true);
        let kinds = Direction::ALL
            .into_iter()
            .flat_map(|direction| SubStream::ALL.map(|sub| KeyKind::new(false, direction, sub)));
        let keys: Vec<_> = kinds.map(|kind| KeyId { stream: 2, kind, port: 0 }).collect();
        for key in &keys {
            port.use_key(*key);
            assert_eq!(port.keys(), 0, "not programmed");
        }
        for key in &keys {
            assert!(!port.is_secure(2));
            port.program_key(*key);
        }
        for key in &keys {
            assert!(!port.is_secure(2));
            port.use_key(*key);
        }
        assert!(port.is_secure(2) && !port.is_secure(1));
        port.forget_key(keys[0]);
        assert_eq!((port.keys(), port.is_secure(2)), (5, false));
    }

    #[test]
    fn has_ide_only_for_tee() {
        for tee in [false, true] {
            let port = port(tee);
            let read = |offset, into: &mut [u8]| port.config_read(offset, into);
            let ids: Vec<u8> = walk::capabilities(read).iter().map(|found| found.id).collect();
            assert_eq!(ids, [cap_id::PM, cap_id::EXPRESS]);
            let extended = walk::extended_capabilities(read);
            assert_eq!(extended.iter().any(|found| found.id == ext_id::IDE), tee);
        }
    }
}
