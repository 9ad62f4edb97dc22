//! The machine that a platform describes, built: functions in their places (`hardware`), groups, the
//! IOMMU, a VFIO device for each function that can be assigned, and the TSM (`tee`).
//!
//! Does what firmware and the kernel's scan of the bus do before any program runs. Takes no lock of its
//! own. Deliberately absent: threads, which run the devices and the clock, and files.

mod credentials;
mod facts;
mod groups;
mod hardware;
mod identity;
mod memory;
mod stream;
mod tee;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use device::root_port::RootPort;
use device::security::Manager;
use iommufd::mock::MockMachine;
use iommufd::{Endpoint, Group, Iommu};
use pci::regs::{command, header};
use pci::{Address, Function, Notices};
use vfio::{DeviceSet, VirtualFunction, Watch};

use crate::clock::Clock;
use crate::fail_nth::FailNth;
use crate::observer::Observer;
use crate::platform::{Driver, Platform, Settings};
use crate::trace::Tap;
use hardware::{Hardware, Placed};
pub use identity::Identity;
use identity::has_flr;
pub use memory::Resource;
pub(crate) use stream::{HostBridge, Streams};
use tee::{Managers, Told};

/// A machine.
pub struct Machine {
    /// How its host behaves.
    pub settings: Settings,
    /// Its IOMMU.
    pub iommu: Arc<Iommu>,
    /// What serves the kernel's test interface, where the IOMMU is its mock.
    pub mock: Option<Arc<MockMachine>>,
    /// What fails on demand there.
    pub(crate) fail_nth: Arc<FailNth>,
    /// Every function that can be assigned, by address: `devices[N]` is `vfioN`.
    pub devices: Vec<Assignable>,
    /// Every root port, by address.
    pub bridges: Vec<Bridge>,
    /// The PCI/TSM core of all functions that can be assigned.
    pub tsm: Arc<tsm::Registry>,
    /// The IDE streams between its devices and root ports.
    pub(crate) streams: Arc<Streams>,
    /// What fires the deadlines of all that; stands still until it is started.
    pub clock: Clock,
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
    /// The security manager of its device, where it takes part.
    pub security: Option<Arc<Manager>>,
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
    /// Unmask eventfds of INTx are not served; [`build_watched`](Self::build_watched) serves them. The
    /// [`clock`](Self::clock) is to be started.
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

    /// The functions whose TDI is not unbound, with the host's view of it. Takes locks of `tsm`.
    pub fn tdis_in_use(&self) -> Vec<(Address, tsm::Binding)> {
        let bindings =
            self.devices.iter().map(|device| (device.address, self.tsm.binding(device.address)));
        bindings.filter(|(_, binding)| *binding != tsm::Binding::Unbound).collect()
    }

    fn assemble(
        platform: &Platform,
        notices: Arc<dyn Notices>,
        observer: Option<Arc<dyn Observer>>,
        watch: Option<Arc<dyn Watch>>,
    ) -> Self {
        let Hardware { mut groups, bridges, endpoints, .. } = Hardware::of(platform);
        let clock = Clock::new();
        let told = Arc::new(Told(observer.clone()));
        let managers = tee::managers(platform, &endpoints);
        let streams = Arc::new(Streams::default());
        let told_tsm = Arc::clone(&told);
        let tsm =
            tee::registry(platform, &endpoints, &bridges, &managers, &clock, &streams, told_tsm);
        let iommu = iommu_of(platform);
        let sets = bridges.iter().map(|bridge| (bridge.downstream(), DeviceSet::new(true)));
        let mut host = Host {
            settings: platform.settings,
            notices,
            told: Arc::clone(&told),
            observer,
            watch,
            iommu: Arc::clone(&iommu),
            groups: BTreeMap::new(),
            sets: sets.collect(),
            managers,
            tsm: Arc::clone(&tsm),
        };
        let devices = endpoints.into_iter().enumerate().map(|(index, placed)| {
            let group = groups.group(placed.group_id);
            host.assignable(index, placed, group)
        });
        let devices: Vec<_> = devices.collect();
        tee::watch(&devices, &tsm, platform.settings.tdi_error_event, &told);
        let is_mock = platform.settings.hardware == iommufd::Hardware::Mock;
        let fail_nth = Arc::new(FailNth::default());
        let mock = is_mock.then(|| MockMachine::under(Arc::clone(&fail_nth) as _));
        Self {
            settings: platform.settings,
            iommu,
            mock,
            fail_nth,
            devices,
            bridges,
            tsm,
            streams,
            clock,
        }
    }
}

impl Machine {
    /// A function of this group.
    pub fn member_of(&self, group_id: u32) -> Option<&Assignable> {
        self.devices.iter().find(|device| device.group_id == group_id)
    }
}

impl Assignable {
    /// The state of its interface (TDI), as the device has it; `None` where it has none. Takes a lock of
    /// the function.
    pub fn tdi_state(&self) -> Option<tdisp::State> {
        self.security.as_ref()?.state(facts::requester_id(self.address))
    }
}

impl Bridge {
    /// Domain and number of the bus behind it.
    fn downstream(&self) -> (u16, u8) {
        (self.address.domain, self.secondary_bus)
    }

    /// Whether a function is right behind it.
    pub(crate) fn leads_to(&self, address: Address) -> bool {
        self.downstream() == (address.domain, address.bus)
    }
}

/// The IOMMU in front of the functions. The mock is in front of mock devices only.
fn iommu_of(platform: &Platform) -> Arc<Iommu> {
    let hardware = platform.settings.hardware;
    let is_mock = hardware == iommufd::Hardware::Mock;
    let hardware = if is_mock { iommufd::Hardware::Plain } else { hardware };
    Iommu::of(hardware, platform.iommu.clone())
}

/// The host's software, as it takes in one function after the other.
struct Host {
    settings: Settings,
    notices: Arc<dyn Notices>,
    told: Arc<Told>,
    observer: Option<Arc<dyn Observer>>,
    watch: Option<Arc<dyn Watch>>,
    iommu: Arc<Iommu>,
    /// Groups as VFIO hands them out, by number.
    groups: BTreeMap<u32, Arc<vfio::Group>>,
    /// What resets together: the functions behind one bridge.
    sets: BTreeMap<(u16, u8), Arc<DeviceSet>>,
    managers: Managers,
    tsm: Arc<tsm::Registry>,
}

impl Host {
    fn assignable(&mut self, index: usize, placed: Placed<'_>, group: Arc<Group>) -> Assignable {
        let physical_function = placed.physical_function();
        let tee = placed.is_tee();
        let security = self.managers.get(&tee::slot_of(&placed)).filter(|_| tee).map(Arc::clone);
        let Placed { entry, engine, group_id, resources, made_by, virtual_functions, total_vfs } =
            placed;
        let function: Arc<dyn Function> = match &self.observer {
            Some(observer) => Tap::new(engine, Arc::clone(observer)),
            None => engine,
        };
        let address = function.address();
        // A virtual function's decoding is enabled with it; firmware enables the others'.
        function.config_write(header::COMMAND, &command::MEMORY.to_le_bytes());
        let (iommu, notices) = (Arc::clone(&self.iommu), Arc::clone(&self.notices));
        let tsm = Arc::clone(&self.tsm);
        let endpoint = Endpoint::with_tsm(address, group, iommu, notices, tsm);
        let set = self.sets.get(&(address.domain, address.bus)).map(Arc::clone);
        // A function on a root bus has no bridge above it that could reset the bus.
        let set = set.unwrap_or_else(|| DeviceSet::new(false));
        let mut identity = Identity::of(&|offset, into| function.config_read(offset, into));
        if let Some(VirtualFunction { vendor_id, device_id }) = made_by {
            identity = Identity { vendor: vendor_id, device: device_id, ..identity };
        }
        let vfio_group = self.groups.entry(group_id);
        let vfio_group = Arc::clone(vfio_group.or_insert_with(|| vfio::Group::new(group_id)));
        let settings = vfio::Settings { group: Some(vfio_group), ..self.vfio_settings(made_by) };
        Assignable {
            address,
            model: entry.model.name(),
            vfio_index: index,
            group_id,
            vfio: vfio::Device::new(Arc::clone(&function), endpoint, set, settings),
            tee,
            security,
            bound_at_start: entry.driver == Driver::VfioPci,
            can_reset: has_flr(function.as_ref()),
            physical_function,
            virtual_functions,
            total_vfs,
            identity,
            resources,
            function,
        }
    }

    fn vfio_settings(&self, virtual_function: Option<VirtualFunction>) -> vfio::Settings {
        vfio::Settings {
            profile: self.settings.uapi,
            close_order: self.settings.close_order,
            reset_while_bound: self.settings.reset_while_bound,
            client_clears_bme: self.settings.client_clears_bme,
            doe: self.settings.doe,
            dma_bufs: self.settings.dma_bufs,
            notices: Some(Arc::<Told>::clone(&self.told)),
            virtual_function,
            watch: self.watch.clone(),
            ..vfio::Settings::default()
        }
    }
}
