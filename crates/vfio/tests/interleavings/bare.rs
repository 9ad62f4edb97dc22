//! A device of little, for worlds that are built a million times.

use std::sync::Arc;

use iommufd::{Endpoint, Geometry, Group, Iommu};
use mem::Pages;
use pci::capability::{ExpressEndpoint, express_endpoint, power_management};
use pci::{
    Address, Bar, ConfigBuilder, ConfigSpace, DmaFault, Function, HostSide, Identity, Interrupt,
    Notices, Progress, Reset,
};
use span::Span;
use vfio::{Device, DeviceSet, Settings};

/// Where the device sits.
pub(crate) const ADDRESS: Address = match Address::new(0xb1d0, 1, 0, 0) {
    Some(address) => address,
    None => panic!("an address"),
};

/// The device, in a group of its own.
pub(crate) fn device(function: Arc<Bare>, settings: Settings) -> Arc<Device> {
    let iommu = Iommu::new(geometry());
    let endpoint = Endpoint::new(ADDRESS, Group::new(1), iommu, Arc::new(Deaf));
    Device::new(function, endpoint, DeviceSet::new(false), settings)
}

fn geometry() -> Geometry {
    Geometry {
        aperture: Span::from_ends(0, (1 << 48) - 1).unwrap(),
        reserved: Vec::new(),
        page_sizes: 1 << 12,
        dirty_tracking: false,
        cache_coherent: true,
        msi_isolated: true,
        max_pasid_log2: 0,
    }
}

struct Deaf;

impl Notices for Deaf {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}

    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}

/// A function with at most one BAR. Whoever has the device's turn alone touches its config space.
pub(crate) struct Bare {
    space: std::sync::Mutex<ConfigSpace>,
    bar: Option<(Bar, Written)>,
}

/// Hears each write to the BAR.
pub(crate) type Written = Box<dyn Fn() + Send + Sync>;

impl Bare {
    pub(crate) fn new(bar: Option<(Bar, Written)>) -> Arc<Self> {
        let identity = Identity {
            vendor_id: 0x1234,
            device_id: 0x5678,
            revision: 1,
            class_code: 0x08_80_00,
            subsystem_vendor_id: 0x1234,
            subsystem_id: 0x5678,
            multi_function: false,
        };
        let express =
            ExpressEndpoint { function_level_reset: false, tee_io: true, virtual_function: false };
        let mut builder = ConfigBuilder::endpoint(&identity);
        if let Some((bar, _)) = &bar {
            builder = builder.bar(0, bar);
        }
        let builder = builder.capability(power_management()).capability(express_endpoint(express));
        let space = std::sync::Mutex::new(builder.build().unwrap());
        Arc::new(Self { space, bar })
    }
}

impl Function for Bare {
    fn address(&self) -> Address {
        ADDRESS
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        self.space.lock().unwrap().read(offset, into);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        self.space.lock().unwrap().write(offset, from);
    }

    fn bar(&self, index: usize) -> Option<&Bar> {
        self.bar.as_ref().filter(|_| index == 0).map(|(bar, _)| bar)
    }

    fn bar_read(&self, _: usize, _: u64, _: &mut [u8]) {}

    fn bar_write(&self, _: usize, _: u64, _: &[u8]) {
        if let Some((_, written)) = &self.bar {
            written();
        }
    }

    fn back_bar(&self, _: usize, _: Arc<Pages>) {}

    fn connect(&self, _: HostSide) {}

    fn disconnect(&self) {}

    fn stop(&self) {}

    fn start(&self) {}

    fn reset(&self, _: Reset) {}

    fn step(&self, _: usize) -> Progress {
        Progress::Idle
    }

    fn set_waker(&self, _: Arc<dyn Fn() + Send + Sync>) {}
}
