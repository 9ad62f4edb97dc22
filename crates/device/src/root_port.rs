//! A PCI Express root port, as much of one as config space shows.
//!
//! Endpoints sit behind it, so that `lspci` and sysfs have a bridge to show and IDE has a partner. It
//! forwards nothing and has no BARs. One lock of rank [`sync::rank::Function`] guards config space;
//! it is held on no call out of here.

use std::sync::Arc;

use pci::capability::{express_root_port, power_management};
use pci::extended::{
    SelectiveStreams, access_control, error_reporting, integrity_and_encryption, serial_number,
};
use pci::{Address, BusNumbers, ConfigBuilder, ConfigSpace, Identity};
use sync::{Mutex, rank};

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
    config: Mutex<rank::Function, ConfigSpace>,
}

impl RootPort {
    /// A root port as firmware leaves it: buses numbered, windows closed, bus master on.
    pub fn new(config: &Config) -> Arc<Self> {
        let space = config_space(config);
        Arc::new(Self { address: config.address, config: Mutex::new(space) })
    }

    /// Where it sits.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Reads config space as hardware shows it.
    pub fn config_read(&self, offset: u16, into: &mut [u8]) {
        self.config.lock().read(offset, into);
    }

    /// Writes config space as hardware takes it.
    pub fn config_write(&self, offset: u16, from: &[u8]) {
        self.config.lock().write(offset, from);
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
