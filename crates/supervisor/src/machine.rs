//! The machine that a platform describes, built: functions in their places, groups, the IOMMU, and a
//! VFIO device for each function that can be assigned.
//!
//! Does what firmware and the kernel's scan of the bus do before any program runs: numbers buses,
//! gives BARs addresses, opens bridge windows, enables virtual functions. Takes no lock of its own.
//! Deliberately absent: threads that run the devices, and files.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use device::dma_engine::{self, DmaEngine};
use device::root_port::{self, RootPort};
use iommufd::{Endpoint, Group, Iommu};
use pci::regs::{command, ext_id, header, sriov};
use pci::{Address, Function, Notices, walk};
use vfio::{DeviceSet, VirtualFunction, Watch};

use crate::observer::Observer;
use crate::platform::{Driver, FunctionEntry, GroupName, Model, Platform, Settings};
use crate::trace::Tap;
pub use memory::Resource;
use memory::{MemorySpace, RESOURCE_LINES};

/// A machine.
pub struct Machine {
    /// How its host behaves.
    pub settings: Settings,
    /// Its IOMMU.
    pub iommu: Arc<Iommu>,
    /// Every function that can be assigned, by address: `devices[N]` is `vfioN`.
    pub devices: Vec<Assignable>,
    /// Every root port, by address.
    pub bridges: Vec<Bridge>,
}

/// A function that can be assigned.
pub struct Assignable {
    /// Where it sits.
    pub address: Address,
    /// Its model, as platform files call it.
    pub model: &'static str,
    /// N of `/dev/vfio/devices/vfioN`. It keeps its number when it is unbound and bound again.
    pub vfio_index: usize,
    /// Its IOMMU group.
    pub group_id: u32,
    /// The hardware.
    pub function: Arc<dyn Function>,
    /// What files are opened on.
    pub vfio: Arc<vfio::Device>,
    /// Whether it takes part in TEE-IO.
    pub tee: bool,
    /// Whether vfio-pci has it from the start.
    pub bound_at_start: bool,
    /// Whether it can be reset on its own.
    pub can_reset: bool,
    /// Where it is a virtual function: the physical one.
    pub physical_function: Option<Address>,
    /// Its virtual functions, in order.
    pub virtual_functions: Vec<Address>,
    /// How many virtual functions it can have.
    pub total_vfs: u16,
    /// What the scan of the bus found it to be.
    pub identity: Identity,
    /// What it decodes, a line each as in sysfs.
    pub resources: Vec<Resource>,
}

/// A root port.
pub struct Bridge {
    /// Where it sits.
    pub address: Address,
    /// The bus behind it.
    pub secondary_bus: u8,
    /// Its IOMMU group.
    pub group_id: u32,
    /// The hardware.
    pub port: Arc<RootPort>,
    /// What the scan of the bus found it to be.
    pub identity: Identity,
    /// What it decodes and forwards, a line each as in sysfs.
    pub resources: Vec<Resource>,
}

/// What a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID; of a virtual function, that of the physical one.
    pub vendor: u16,
    /// Device ID; of a virtual function, the one that the physical function names.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem_device: u16,
    /// Class code, 24 bits.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices: Vec<Address> = self.devices.iter().map(|device| device.address).collect();
        let bridges: Vec<Address> = self.bridges.iter().map(|bridge| bridge.address).collect();
        f.debug_struct("Machine")
            .field("settings", &self.settings)
            .field("devices", &devices)
            .field("bridges", &bridges)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// Builds what `platform` describes. What goes wrong with the functions is told to `notices`.
    /// Unmask eventfds of INTx are not served; [`build_watched`](Self::build_watched) serves them.
    pub fn build(platform: &Platform, notices: Arc<dyn Notices>) -> Self {
        Self::assemble(platform, notices, None, None)
    }

    /// As [`build`](Self::build), with an observer of all DMA and interrupts, and someone who watches
    /// eventfds for the devices.
    pub fn build_watched(
        platform: &Platform,
        observer: Arc<dyn Observer>,
        watch: Option<Arc<dyn Watch>>,
    ) -> Self {
        Self::assemble(platform, Arc::<dyn Observer>::clone(&observer), Some(observer), watch)
    }

    fn assemble(
        platform: &Platform,
        notices: Arc<dyn Notices>,
        observer: Option<Arc<dyn Observer>>,
        watch: Option<Arc<dyn Watch>>,
    ) -> Self {
        let iommu = Iommu::new(platform.iommu.clone());
        let mut builder = Builder {
            platform,
            notices,
            observer,
            watch,
            iommu: Arc::clone(&iommu),
            groups: Groups::of(platform),
            sets: BTreeMap::new(),
            memory: MemorySpace::new(),
            devices: Vec::new(),
        };
        let mut bridges = Vec::new();
        // Bus by bus, so that what is behind one bridge lies together in memory.
        for entry in &platform.functions {
            if let Model::RootPort { secondary_bus } = entry.model {
                bridges.push(builder.bridge(entry, secondary_bus));
            }
        }
        for entry in &platform.functions {
            let behind = bridges.iter().any(|bridge| bridge.leads_to(entry.address));
            if let (Model::DmaEngine { config, vfs }, false) = (&entry.model, behind) {
                builder.endpoint(entry, config, *vfs);
            }
        }
        let mut devices = builder.devices;
        devices.sort_by_key(|device| device.address);
        for (index, device) in devices.iter_mut().enumerate() {
            device.vfio_index = index;
        }
        Self { settings: platform.settings, iommu, devices, bridges }
    }
}

impl Bridge {
    fn leads_to(&self, address: Address) -> bool {
        address.domain == self.address.domain && address.bus == self.secondary_bus
    }
}

/// A machine under construction.
struct Builder<'p> {
    platform: &'p Platform,
    notices: Arc<dyn Notices>,
    observer: Option<Arc<dyn Observer>>,
    watch: Option<Arc<dyn Watch>>,
    iommu: Arc<Iommu>,
    groups: Groups,
    /// What resets together: the functions behind one bridge.
    sets: BTreeMap<(u16, u8), Arc<DeviceSet>>,
    memory: MemorySpace,
    devices: Vec<Assignable>,
}

impl Builder<'_> {
    /// A root port, and what is behind it.
    fn bridge(&mut self, entry: &FunctionEntry, secondary_bus: u8) -> Bridge {
        let address = entry.address;
        let group_id = self.groups.id(entry);
        let behind: Vec<_> = (self.platform.functions.iter())
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
        self.sets.insert((address.domain, secondary_bus), DeviceSet::new(true));
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
        let identity = Identity { subsystem_vendor: 0, subsystem_device: 0, ..identity(&read) };
        Bridge { address, secondary_bus, group_id, port, identity, resources }
    }

    /// An endpoint with its virtual functions.
    fn endpoint(&mut self, entry: &FunctionEntry, config: &dma_engine::Config, vfs: u16) {
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
        let function: Arc<dyn Function> = DmaEngine::new(&config);
        let mut resources = self.memory.place(function.as_ref());
        let virtual_functions: Vec<Address> = entry.vf_addresses().collect();
        let engines: Vec<Arc<dyn Function>> = virtual_functions
            .iter()
            .map(|vf| -> Arc<dyn Function> {
                let plain = dma_engine::Config { vf: true, sriov: None, ..config.clone() };
                DmaEngine::new(&dma_engine::Config { address: *vf, ..plain })
            })
            .collect();
        let parts = self.enable_vfs(function.as_ref(), &engines, &mut resources);
        let physical = Parts { group_id: self.groups.id(entry), resources, made_by: None };
        let device = self.assignable(entry, function, physical);
        let found = device.identity;
        let device_id = vf_device_id(device.function.as_ref()).unwrap_or(found.device);
        self.devices.push(Assignable { virtual_functions, total_vfs: vfs, ..device });
        for (function, resources) in engines.into_iter().zip(parts) {
            let made_by = VirtualFunction { vendor_id: found.vendor, device_id };
            let group_id = self.groups.own();
            let parts = Parts { group_id, resources, made_by: Some(made_by) };
            let device = self.assignable(entry, function, parts);
            self.devices.push(device);
        }
    }

    /// Enables virtual functions in the physical one; gives what each decodes.
    fn enable_vfs(
        &mut self,
        physical: &dyn Function,
        engines: &[Arc<dyn Function>],
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

    fn assignable(
        &mut self,
        entry: &FunctionEntry,
        function: Arc<dyn Function>,
        parts: Parts,
    ) -> Assignable {
        let function = match &self.observer {
            Some(observer) => Tap::new(function, Arc::clone(observer)),
            None => function,
        };
        let address = function.address();
        let Parts { group_id, resources, made_by } = parts;
        // A virtual function's decoding is enabled with it; firmware enables the others'.
        function.config_write(header::COMMAND, &command::MEMORY.to_le_bytes());
        let endpoint = Endpoint::new(
            address,
            self.groups.group(group_id),
            Arc::clone(&self.iommu),
            Arc::clone(&self.notices),
        );
        let set = self.sets.get(&(address.domain, address.bus)).map(Arc::clone);
        // A function on a root bus has no bridge above it that could reset the bus.
        let set = set.unwrap_or_else(|| DeviceSet::new(false));
        let settings = vfio::Settings {
            profile: self.platform.settings.uapi,
            close_order: self.platform.settings.close_order,
            reset_while_bound: self.platform.settings.reset_while_bound,
            client_clears_bme: self.platform.settings.client_clears_bme,
            doe: self.platform.settings.doe,
            virtual_function: made_by,
            watch: self.watch.clone(),
            ..vfio::Settings::default()
        };
        let tee = match &entry.model {
            Model::DmaEngine { config, .. } => config.tee,
            Model::RootPort { .. } => false,
        };
        let reader = Arc::clone(&function);
        let mut identity =
            identity(&move |offset, into: &mut [u8]| reader.config_read(offset, into));
        if let Some(VirtualFunction { vendor_id, device_id }) = made_by {
            identity = Identity { vendor: vendor_id, device: device_id, ..identity };
        }
        Assignable {
            address,
            model: entry.model.name(),
            vfio_index: 0,
            group_id,
            vfio: vfio::Device::new(Arc::clone(&function), endpoint, set, settings),
            tee,
            bound_at_start: entry.driver == Driver::VfioPci,
            can_reset: has_flr(function.as_ref()),
            physical_function: made_by.map(|_| entry.address),
            virtual_functions: Vec::new(),
            total_vfs: 0,
            identity,
            resources,
            function,
        }
    }
}

/// What differs between a physical and a virtual function.
struct Parts {
    group_id: u32,
    resources: Vec<Resource>,
    /// Present for a virtual function.
    made_by: Option<VirtualFunction>,
}

/// Numbers of IOMMU groups, and the groups.
struct Groups {
    /// Numbers that the platform names.
    named: BTreeSet<u32>,
    labels: BTreeMap<String, u32>,
    groups: BTreeMap<u32, Arc<Group>>,
    /// The next number that is not named.
    next: u32,
}

/// Above what machines have, so that the machine's groups and ours are told apart.
const FIRST_GROUP: u32 = 1000;

impl Groups {
    fn of(platform: &Platform) -> Self {
        let names = platform.functions.iter().filter_map(|entry| entry.group.as_ref());
        let named = names.filter_map(|name| match name {
            GroupName::Number(number) => Some(*number),
            GroupName::Label(_) => None,
        });
        Self {
            named: named.collect(),
            labels: BTreeMap::new(),
            groups: BTreeMap::new(),
            next: FIRST_GROUP,
        }
    }

    /// The number of an entry's group.
    fn id(&mut self, entry: &FunctionEntry) -> u32 {
        match &entry.group {
            Some(GroupName::Number(number)) => *number,
            Some(GroupName::Label(label)) => match self.labels.get(label) {
                Some(id) => *id,
                None => {
                    let id = self.own();
                    self.labels.insert(label.clone(), id);
                    id
                }
            },
            None => self.own(),
        }
    }

    /// A number for a group of one.
    fn own(&mut self) -> u32 {
        while self.named.contains(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }

    fn group(&mut self, id: u32) -> Arc<Group> {
        Arc::clone(self.groups.entry(id).or_insert_with(|| Group::new(id)))
    }
}

fn identity(read: &dyn Fn(u16, &mut [u8])) -> Identity {
    let mut bytes = [0; 0x30];
    read(0, &mut bytes);
    let word = |at: u16| {
        let at = usize::from(at);
        u16::from_le_bytes([bytes[at], bytes[at + 1]])
    };
    let class = usize::from(header::CLASS_CODE);
    Identity {
        vendor: word(header::VENDOR_ID),
        device: word(header::DEVICE_ID),
        subsystem_vendor: word(header::SUBSYSTEM_VENDOR_ID),
        subsystem_device: word(header::SUBSYSTEM_ID),
        class: u32::from_le_bytes([bytes[class], bytes[class + 1], bytes[class + 2], 0]),
        revision: bytes[usize::from(header::REVISION_ID)],
    }
}

fn vf_device_id(physical: &dyn Function) -> Option<u16> {
    let at = extended(physical, ext_id::SRIOV)?;
    let mut id = [0; 2];
    physical.config_read(at + sriov::VF_DEVICE_ID, &mut id);
    Some(u16::from_le_bytes(id))
}

/// Where an extended capability begins.
fn extended(function: &dyn Function, id: u16) -> Option<u16> {
    walk::extended_capabilities(|offset, into| function.config_read(offset, into))
        .iter()
        .find(|capability| capability.id == id)
        .map(|capability| capability.offset)
}

/// Whether the function can be reset on its own.
fn has_flr(function: &dyn Function) -> bool {
    use pci::regs::{cap_id, express};
    walk::capabilities(|offset, into| function.config_read(offset, into))
        .iter()
        .filter(|capability| capability.id == cap_id::EXPRESS)
        .any(|capability| {
            let mut bytes = [0; 4];
            function.config_read(capability.offset + express::DEVCAP, &mut bytes);
            u32::from_le_bytes(bytes) & express::FLR_CAPABLE != 0
        })
}
