//! The whole tree of a machine, put together: which names there are and where they lead.
//!
//! Takes the lock of `Names` for each batch of names.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use pci::Address;

use super::driver::{Candidate, VfioPci};
use super::fault_injection;
use super::function::{self, ConfigReader, View};
use super::group;
use super::tree::{AttributeFile, Directory, Entry};
use super::tsm::TsmFiles;
use super::vfs::Around;
use super::{Attribute, Names, Node};
use crate::machine::{HostBridge, Machine, Streams};
use crate::platform::VfioContainer;

/// sysfs tells this size of every attribute.
pub(super) const ATTRIBUTE_BYTES: u64 = 4096;
const READ_ONLY: u32 = 0o444;

pub(super) const PCI_DEVICES: &str = "/sys/bus/pci/devices";
pub(super) const VFIO_PCI: &str = "/sys/bus/pci/drivers/vfio-pci";
pub(super) const VFIO_CLASS: &str = "/sys/class/vfio-dev";

/// Puts every name of the machine into an empty tree. What it gives puts and takes those of its TSMs.
pub(super) fn fill(names: &Arc<Names>, machine: &Machine) -> Arc<TsmFiles> {
    let container = machine.settings.vfio_container;
    names.put(modules(container).into_iter().chain(iommufd_node()).chain(group::iommu(machine)));
    names.put(group::container_node());
    if machine.mock.is_some() {
        names.put(fault_injection::switches());
    }
    let directories = directories(machine);
    let cpus = fs::read_to_string("/sys/devices/system/cpu/online");
    let cpus = cpus.unwrap_or_else(|_| "0\n".to_owned());
    let views: Vec<View<'_>> = machine
        .bridges
        .iter()
        .map(View::of_bridge)
        .chain(machine.devices.iter().map(View::of_device))
        .map(|view| view.at(&directories, &cpus))
        .collect();
    names.put(root_buses(&directories, &machine.streams));
    for view in &views {
        names.put(view.common());
        names.put(group::member(view.group_id, view.address, &view.directory));
    }
    names.put(group::groups(machine));
    let candidates = machine.devices.iter().zip(&views[machine.bridges.len()..]);
    let candidates = candidates.map(|(device, view)| Candidate::new(device, view)).collect();
    let driver = VfioPci::new(names, candidates);
    names.put(driver.attributes());
    let tsm = TsmFiles::new(names, machine, &directories);
    names.put(tsm.class());
    let around = Around { names, driver: &driver, tsm: &tsm, devices: &machine.devices };
    for (device, view) in machine.devices.iter().zip(&views[machine.bridges.len()..]) {
        names.put(view.assignable(device, &around));
    }
    for device in machine.devices.iter().filter(|device| device.bound_at_start) {
        driver.bind_at_start(device.address);
    }
    tsm.refresh();
    tsm
}

/// Each function's directory.
fn directories(machine: &Machine) -> BTreeMap<Address, String> {
    let bridges: BTreeMap<(u16, u8), Address> = machine
        .bridges
        .iter()
        .map(|bridge| ((bridge.address.domain, bridge.secondary_bus), bridge.address))
        .collect();
    let functions = machine.bridges.iter().map(|bridge| bridge.address);
    functions
        .chain(machine.devices.iter().map(|device| device.address))
        .map(|address| {
            let Address { domain, bus, .. } = address;
            let path = match bridges.get(&(domain, bus)) {
                Some(above) => format!("{}/{above}/{address}", root_bus((domain, above.bus))),
                None => format!("{}/{address}", root_bus((domain, bus))),
            };
            (address, path)
        })
        .collect()
}

/// The directory of a host bridge.
pub(super) fn root_bus((domain, bus): HostBridge) -> String {
    format!("/sys/devices/pci{domain:04x}:{bus:02x}")
}

/// What host bridges show.
fn root_buses(
    directories: &BTreeMap<Address, String>,
    streams: &Arc<Streams>,
) -> Vec<(String, Entry)> {
    let root_of = |path: &str| Some(path[..path.match_indices('/').nth(3)?.0].to_owned());
    let roots: BTreeMap<String, u16> = directories
        .iter()
        .filter_map(|(address, path)| Some((root_of(path)?, address.domain)))
        .collect();
    let mut entries = Vec::new();
    for (root, domain) in roots {
        let bus = root.rsplit_once(':').and_then(|(_, bus)| u8::from_str_radix(bus, 16).ok());
        let host_bridge = (domain, bus.unwrap_or_default());
        let streams = Arc::clone(streams);
        let available = live(move || format!("{}\n", streams.available(host_bridge)));
        entries.push((format!("{root}/uevent"), fixed(READ_ONLY, "")));
        entries.push((format!("{root}/available_secure_streams"), available));
        entries.extend(power(&root));
    }
    entries
}

/// `/dev/iommu` and what sysfs says of it.
fn iommufd_node() -> Vec<(String, Entry)> {
    let (major, minor) = Node::Iommu.device_number();
    let directory = "/sys/devices/virtual/misc/iommu";
    let number = format!("{major}:{minor}");
    let uevent = format!("MAJOR={major}\nMINOR={minor}\nDEVNAME=iommu\n");
    let mut entries = vec![
        ("/dev/iommu".to_owned(), Entry::Node(Node::Iommu)),
        (format!("/dev/char/{number}"), link("../iommu")),
        (format!("/sys/dev/char/{number}"), link_to("/sys/dev/char", directory)),
        ("/sys/class/misc/iommu".to_owned(), link_to("/sys/class/misc", directory)),
        (format!("{directory}/dev"), fixed(READ_ONLY, &format!("{number}\n"))),
        (format!("{directory}/uevent"), fixed(READ_ONLY, &uevent)),
        (format!("{directory}/subsystem"), link_to(directory, "/sys/class/misc")),
    ];
    entries.extend(power(directory));
    entries
}

/// The kernel modules whose work is done here.
fn modules(container: VfioContainer) -> Vec<(String, Entry)> {
    let parameter = |module: &str, name: &str, value: &str| {
        (format!("/sys/module/{module}/parameters/{name}"), fixed(READ_ONLY, value))
    };
    let state =
        |module: &str| (format!("/sys/module/{module}/initstate"), fixed(READ_ONLY, "live\n"));
    let mut modules = vec![
        state("iommufd"),
        state("vfio"),
        parameter("vfio", "enable_unsafe_noiommu_mode", "N\n"),
        state("vfio_pci"),
        parameter("vfio_pci", "enable_sriov", "Y\n"),
        parameter("vfio_pci", "disable_idle_d3", "N\n"),
        (
            "/sys/module/vfio_pci/drivers/pci:vfio-pci".to_owned(),
            link_to("/sys/module/vfio_pci/drivers", VFIO_PCI),
        ),
        (format!("{VFIO_PCI}/module"), link_to(VFIO_PCI, "/sys/module/vfio_pci")),
        ("/dev/vfio/devices".to_owned(), empty_directory()),
        (VFIO_CLASS.to_owned(), empty_directory()),
    ];
    if container == VfioContainer::Type1 {
        modules.extend([
            state("vfio_iommu_type1"),
            parameter("vfio_iommu_type1", "allow_unsafe_interrupts", "N\n"),
            parameter("vfio_iommu_type1", "disable_hugepages", "N\n"),
            parameter("vfio_iommu_type1", "dma_entry_limit", "65535\n"),
        ]);
    }
    modules
}

/// The power management of something that is always on.
pub(super) fn power(directory: &str) -> [(String, Entry); 3] {
    let attribute =
        |name: &str, value: &str| (format!("{directory}/power/{name}"), fixed(READ_ONLY, value));
    [
        attribute("control", "on\n"),
        attribute("runtime_status", "active\n"),
        attribute("runtime_enabled", "forbidden\n"),
    ]
}

/// A directory that may stay empty.
pub(super) fn empty_directory() -> Entry {
    Entry::Directory(Directory::default())
}

/// An attribute that always says the same.
pub(super) fn fixed(mode: u32, text: &str) -> Entry {
    let text = text.as_bytes().to_vec();
    attribute(mode, move || text.clone(), None)
}

/// An attribute that says how things are when it is opened.
pub(super) fn live(text: impl Fn() -> String + Send + Sync + 'static) -> Entry {
    attribute(READ_ONLY, move || text().into_bytes(), None)
}

/// An attribute that can be read and written.
pub(super) fn read_write(
    text: impl Fn() -> String + Send + Sync + 'static,
    store: Arc<dyn Attribute>,
) -> Entry {
    attribute(0o644, move || text().into_bytes(), Some(store))
}

/// An attribute that can only be written.
pub(super) fn write_only(store: Arc<dyn Attribute>) -> Entry {
    attribute(0o200, Vec::new, Some(store))
}

fn attribute(
    mode: u32,
    show: impl Fn() -> Vec<u8> + Send + Sync + 'static,
    store: Option<Arc<dyn Attribute>>,
) -> Entry {
    Entry::Attribute(AttributeFile { mode, size: ATTRIBUTE_BYTES, show: Box::new(show), store })
}

/// A link with this text.
pub(super) fn link(text: &str) -> Entry {
    Entry::Link(text.to_owned())
}

/// A link in `directory` to `target`, relative as sysfs's are.
pub(super) fn link_to(directory: &str, target: &str) -> Entry {
    let from: Vec<&str> = directory.split('/').collect();
    let to: Vec<&str> = target.split('/').collect();
    let shared = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
    let up = std::iter::repeat_n("..", from.len() - shared);
    let text: Vec<&str> = up.chain(to.into_iter().skip(shared)).collect();
    Entry::Link(text.join("/"))
}

/// `config`: as long as config space is, read-only.
pub(super) fn config(config: &ConfigReader) -> Entry {
    let size = function::config_size(config);
    let config = Arc::clone(config);
    let show = move || {
        let mut bytes = vec![0; usize::from(size)];
        config(0, &mut bytes);
        bytes
    };
    let (mode, size, show) = (READ_ONLY, u64::from(size), Box::new(show));
    Entry::Attribute(AttributeFile { mode, size, show, store: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative() {
        for (directory, target, text) in [
            ("/sys/bus/pci/devices", "/sys/devices/pci0:00/a", "../../../devices/pci0:00/a"),
            ("/sys/devices/a", "/sys/devices/a/b", "b"),
            ("/sys/devices/a/b", "/sys/devices/a", ".."),
        ] {
            let Entry::Link(made) = link_to(directory, target) else { panic!("not a link") };
            assert_eq!(made, text);
        }
    }
}
