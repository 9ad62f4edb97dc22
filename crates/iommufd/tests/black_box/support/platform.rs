//! A platform: one IOMMU, a group of two functions (bus 3) and one of its own (bus 1).

use std::sync::Arc;

use iommufd::{Device, Endpoint, Geometry, Group, Hardware, Iommu, Reserved, ReservedKind};
use pci::{Address, DmaFault, Interrupt, Notices};
use span::Span;
use sync::{Epoch, Mutex, rank};

use super::Client;

/// What the default platform's IOMMU can do.
pub(crate) fn plain() -> Geometry {
    let msi = Span::from_ends(0xfee0_0000, 0xfeef_ffff).unwrap();
    Geometry {
        aperture: Span::from_ends(0, (1 << 48) - 1).unwrap(),
        reserved: vec![Reserved { span: msi, kind: ReservedKind::Msi }],
        page_sizes: 1 << 12 | 1 << 21 | 1 << 30,
        dirty_tracking: true,
        cache_coherent: true,
        msi_isolated: true,
        max_pasid_log2: 0,
    }
}

/// Where the function that has a group of its own sits.
pub(crate) fn single_address() -> Address {
    Address::new(0xb1d0, 1, 0, 0).unwrap()
}

pub(crate) struct Platform {
    pub(crate) single: Arc<Endpoint>,
    pub(crate) pair: [Arc<Endpoint>; 2],
    pub(crate) heard: Arc<Heard>,
}

impl Platform {
    pub(crate) fn new() -> Self {
        Self::behind(plain())
    }

    pub(crate) fn behind(geometry: Geometry) -> Self {
        Self::of(Hardware::Plain, geometry)
    }

    /// Behind an IOMMU of a kind of hardware.
    pub(crate) fn of(hardware: Hardware, geometry: Geometry) -> Self {
        let iommu = Iommu::of(hardware, geometry);
        let heard = Arc::new(Heard::default());
        let at = |bus, function, group: &Arc<Group>| {
            let address = Address::new(0xb1d0, bus, 0, function).unwrap();
            let notices: Arc<dyn Notices> = heard.clone();
            Endpoint::new(address, Arc::clone(group), Arc::clone(&iommu), notices)
        };
        let (one, two) = (Group::new(1), Group::new(2));
        let single = at(1, 0, &one);
        let pair = [at(3, 0, &two), at(3, 1, &two)];
        Self { single, pair, heard }
    }

    /// As [`new`](Self::new), with a TSM for the function that has a group of its own.
    pub(crate) fn with_tsm(tsm: &Arc<tsm::Registry>) -> Self {
        let mut platform = Self::new();
        platform.single = Endpoint::with_tsm(
            single_address(),
            Arc::clone(platform.single.group()),
            Arc::clone(platform.single.iommu()),
            platform.heard.clone(),
            Arc::clone(tsm),
        );
        platform
    }

    /// Binds the function that has a group of its own.
    pub(crate) fn bind(&self, client: &Client) -> Arc<Device> {
        Device::bind(&client.ctx, &self.single).unwrap()
    }

    /// Binds both functions of the other group.
    pub(crate) fn bind_pair(&self, client: &Client) -> [Arc<Device>; 2] {
        self.pair.each_ref().map(|endpoint| Device::bind(&client.ctx, endpoint).unwrap())
    }
}

/// Remembers faults.
#[derive(Default)]
pub(crate) struct Heard {
    /// Outermost of all ranks: taking it under any other lock fails.
    faults: Mutex<rank::DeviceSet, Vec<(Address, DmaFault)>>,
}

impl Heard {
    pub(crate) fn faults(&self) -> Vec<(Address, DmaFault)> {
        self.faults.lock().clone()
    }
}

impl Notices for Heard {
    fn dma_fault(&self, function: Address, fault: &DmaFault) {
        // Fails in debug builds if the one who reports is still a reader of an epoch.
        Epoch::new().advance_and_wait();
        self.faults.lock().push((function, *fault));
    }

    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}
