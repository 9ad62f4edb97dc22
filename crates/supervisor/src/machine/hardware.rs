//! The functions of a platform, built and in their places: what firmware leaves when it has numbered
//! buses, given BARs addresses, opened bridge windows and enabled virtual functions.
//!
//! Takes no lock. Deliberately absent: everything that the host's software makes of a function.

use std::sync::Arc;

use device::dma_engine::{self, DmaEngine};
use device::root_port::{self, RootPort};
use pci::regs::{ext_id, sriov};
use pci::{Address, Function};
use vfio::VirtualFunction;

use super::groups::Groups;
use super::identity::{Identity, extended, vf_device_id};
use super::memory::{self, MemorySpace, RESOURCE_LINES};
use super::{Bridge, Resource};
use crate::platform::{FunctionEntry, Model, Platform};

/// What stands in a machine.
pub(super) struct Hardware<'p> {
    platform: &'p Platform,
    pub(super) groups: Groups,
    memory: MemorySpace,
    pub(super) bridges: Vec<Bridge>,
    pub(super) endpoints: Vec<Placed<'p>>,
}

/// An endpoint in its place.
pub(super) struct Placed<'p> {
    /// What the platform says of it, or of its physical function.
    pub(super) entry: &'p FunctionEntry,
    pub(super) engine: Arc<DmaEngine>,
    pub(super) group_id: u32,
    pub(super) resources: Vec<Resource>,
    /// Present for a virtual function.
    pub(super) made_by: Option<VirtualFunction>,
    pub(super) virtual_functions: Vec<Address>,
    pub(super) total_vfs: u16,
}

impl Placed<'_> {
    /// Whether it takes part in TEE-IO.
    pub(super) fn is_tee(&self) -> bool {
        matches!(&self.entry.model, Model::DmaEngine { config, .. } if config.tee)
    }

    /// The physical function, where this is a virtual one.
    pub(super) fn physical_function(&self) -> Option<Address> {
        self.made_by.map(|_| self.entry.address)
    }
}

impl<'p> Hardware<'p> {
    /// Builds what `platform` describes.
    pub(super) fn of(platform: &'p Platform) -> Self {
        let mut hardware = Self {
            platform,
            groups: Groups::of(platform),
            memory: MemorySpace::new(),
            bridges: Vec::new(),
            endpoints: Vec::new(),
        };
        // Bus by bus, so that what is behind one bridge lies together in memory.
        for entry in &platform.functions {
            if let Model::RootPort { secondary_bus } = entry.model {
                let bridge = hardware.bridge(entry, secondary_bus);
                hardware.bridges.push(bridge);
            }
        }
        for entry in &platform.functions {
            let behind = hardware.bridges.iter().any(|bridge| bridge.leads_to(entry.address));
            if let (Model::DmaEngine { config, vfs }, false) = (&entry.model, behind) {
                hardware.endpoint(entry, config, *vfs);
            }
        }
        hardware.endpoints.sort_by_key(|placed| placed.engine.address());
        hardware
    }

    /// A root port, and what is behind it.
    fn bridge(&mut self, entry: &'p FunctionEntry, secondary_bus: u8) -> Bridge {
        let address = entry.address;
        let platform = self.platform;
        let group_id = self.groups.id(entry);
        let behind: Vec<_> = (platform.functions.iter())
            .filter(|other| other.address.domain == address.domain)
            .filter(|other| other.address.bus == secondary_bus)
            .filter_map(|other| match &other.model {
                Model::DmaEngine { config, vfs } => Some((other, config, *vfs)),
                Model::RootPort { .. } => None,
            })
            .collect();
        let port = RootPort::new(&root_port::Config {
            address,
            secondary_bus,
            subordinate_bus: secondary_bus,
            port_number: address.devfn(),
            tee: behind.iter().any(|(_, config, _)| config.tee),
            serial: None,
        });
        self.memory.open_window();
        for (entry, config, vfs) in behind {
            self.endpoint(entry, config, vfs);
        }
        let window = self.memory.close_window();
        let mut resources = vec![Resource::NONE; RESOURCE_LINES + memory::BRIDGE_WINDOW_LINES];
        if let Some(window) = window {
            memory::forward(&port, &window);
            resources[RESOURCE_LINES + memory::MEMORY_WINDOW] = window;
        }
        let reader = Arc::clone(&port);
        let read = move |offset: u16, into: &mut [u8]| reader.config_read(offset, into);
        let identity = Identity { subsystem_vendor: 0, subsystem_device: 0, ..Identity::of(&read) };
        Bridge { address, secondary_bus, group_id, port, identity, resources }
    }

    /// An endpoint with its virtual functions.
    fn endpoint(&mut self, entry: &'p FunctionEntry, config: &dma_engine::Config, vfs: u16) {
        let address = entry.address;
        let has_neighbours = self.platform.functions.iter().any(|other| {
            let (ours, theirs) = (address, other.address);
            ours != theirs
                && (ours.domain, ours.bus, ours.device())
                    == (theirs.domain, theirs.bus, theirs.device())
        });
        let sriov =
            (vfs > 0).then_some(dma_engine::Sriov { total_vfs: vfs, first_offset: 1, stride: 1 });
        let config = dma_engine::Config { multi_function: has_neighbours, sriov, ..config.clone() };
        let engine = DmaEngine::new(&config);
        let mut resources = self.memory.place(engine.as_ref());
        let virtual_functions: Vec<Address> = entry.vf_addresses().collect();
        let engines: Vec<Arc<DmaEngine>> = virtual_functions
            .iter()
            .map(|vf| {
                let plain = dma_engine::Config { vf: true, sriov: None, ..config.clone() };
                DmaEngine::new(&dma_engine::Config { address: *vf, ..plain })
            })
            .collect();
        let parts = self.enable_vfs(engine.as_ref(), &engines, &mut resources);
        let reader = Arc::clone(&engine);
        let found = Identity::of(&move |offset, into: &mut [u8]| reader.config_read(offset, into));
        let device_id = vf_device_id(engine.as_ref()).unwrap_or(found.device);
        self.endpoints.push(Placed {
            entry,
            engine,
            group_id: self.groups.id(entry),
            resources,
            made_by: None,
            virtual_functions,
            total_vfs: vfs,
        });
        for (engine, resources) in engines.into_iter().zip(parts) {
            self.endpoints.push(Placed {
                entry,
                engine,
                group_id: self.groups.own(),
                resources,
                made_by: Some(VirtualFunction { vendor_id: found.vendor, device_id }),
                virtual_functions: Vec::new(),
                total_vfs: 0,
            });
        }
    }

    /// Enables virtual functions in the physical one; gives what each decodes.
    fn enable_vfs(
        &mut self,
        physical: &dyn Function,
        engines: &[Arc<DmaEngine>],
        resources: &mut [Resource],
    ) -> Vec<Vec<Resource>> {
        let (Some(first), Some(at)) = (engines.first(), extended(physical, ext_id::SRIOV)) else {
            return Vec::new();
        };
        let count = u16::try_from(engines.len()).unwrap_or(u16::MAX);
        let parts = self.memory.place_vfs(physical, first.as_ref(), at, count, resources);
        physical.config_write(at + sriov::NUM_VFS, &count.to_le_bytes());
        let control = sriov::VF_ENABLE | sriov::VF_MEMORY;
        physical.config_write(at + sriov::CONTROL, &control.to_le_bytes());
        parts
    }
}
