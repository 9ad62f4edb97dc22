//! What sysfs says of IOMMU groups and of the IOMMU, and the nodes of VFIO's groups and container.
//!
//! Takes no lock.

use std::fmt::Write;

use iommufd::{Geometry, ReservedKind};
use pci::Address;

use super::Node;
use super::sysfs::{fixed, link, link_to, power};
use super::tree::Entry;
use crate::machine::Machine;

const GROUPS: &str = "/sys/kernel/iommu_groups";
/// The one IOMMU.
const IOMMU: &str = "/sys/devices/virtual/iommu/bindery0";

/// `/dev/vfio/vfio` and what sysfs says of it.
pub(super) fn container_node() -> Vec<(String, Entry)> {
    let directory = "/sys/devices/virtual/misc/vfio";
    node(Node::Container, directory, "/sys/class/misc", "vfio/vfio", "DEVMODE=0666\n")
}

/// A group's node and what sysfs says of it, for as long as vfio-pci has a function of the group.
pub(super) fn group_node(group_id: u32) -> Vec<(String, Entry)> {
    let directory = format!("/sys/devices/virtual/vfio/{group_id}");
    node(Node::Group(group_id), &directory, "/sys/class/vfio", &format!("vfio/{group_id}"), "")
}

/// The names that [`group_node`] puts, to be taken away.
pub(super) fn group_node_paths(group_id: u32) -> [String; 5] {
    let (major, minor) = Node::Group(group_id).device_number();
    [
        format!("/dev/vfio/{group_id}"),
        format!("/dev/char/{major}:{minor}"),
        format!("/sys/dev/char/{major}:{minor}"),
        format!("/sys/class/vfio/{group_id}"),
        format!("/sys/devices/virtual/vfio/{group_id}"),
    ]
}

/// A node at `/dev/NAME`, with its directory in sysfs and its place in a class.
fn node(node: Node, directory: &str, class: &str, name: &str, more: &str) -> Vec<(String, Entry)> {
    let (major, minor) = node.device_number();
    let number = format!("{major}:{minor}");
    let uevent = format!("MAJOR={major}\nMINOR={minor}\nDEVNAME={name}\n{more}");
    let last = directory.rsplit('/').next().unwrap_or_default();
    let mut entries = vec![
        (format!("/dev/{name}"), Entry::Node(node)),
        (format!("/dev/char/{number}"), link(&format!("../{name}"))),
        (format!("/sys/dev/char/{number}"), link_to("/sys/dev/char", directory)),
        (format!("{class}/{last}"), link_to(class, directory)),
        (format!("{directory}/dev"), fixed(0o444, &format!("{number}\n"))),
        (format!("{directory}/uevent"), fixed(0o444, &uevent)),
        (format!("{directory}/subsystem"), link_to(directory, class)),
    ];
    entries.extend(power(directory));
    entries
}

/// Where a group is.
pub(super) fn path(group_id: u32) -> String {
    format!("{GROUPS}/{group_id}")
}

/// Where the IOMMU has its link to a function.
pub(super) fn iommu_link(function: Address) -> String {
    format!("{IOMMU}/devices/{function}")
}

/// The IOMMU itself.
pub(super) fn iommu(machine: &Machine) -> Vec<(String, Entry)> {
    let mut entries = vec![
        ("/sys/class/iommu/bindery0".to_owned(), link_to("/sys/class/iommu", IOMMU)),
        (format!("{IOMMU}/subsystem"), link_to(IOMMU, "/sys/class/iommu")),
        (format!("{IOMMU}/uevent"), fixed(0o444, "")),
    ];
    entries.extend(power(IOMMU));
    let addresses = machine.devices.iter().map(|device| device.address);
    for address in addresses.chain(machine.bridges.iter().map(|bridge| bridge.address)) {
        let devices = format!("{IOMMU}/devices");
        let target = format!("{}/{address}", super::sysfs::PCI_DEVICES);
        entries.push((iommu_link(address), link_to(&devices, &target)));
    }
    entries
}

/// What each group has beside its members.
pub(super) fn groups(machine: &Machine) -> Vec<(String, Entry)> {
    let reserved = reserved_regions(machine.iommu.geometry());
    let devices = machine.devices.iter().map(|device| device.group_id);
    let mut ids: Vec<u32> =
        devices.chain(machine.bridges.iter().map(|bridge| bridge.group_id)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
        .flat_map(|id| {
            [
                (format!("{}/reserved_regions", path(id)), fixed(0o444, &reserved)),
                (format!("{}/type", path(id)), fixed(0o444, "DMA\n")),
            ]
        })
        .collect()
}

/// A group's link to one of its members.
pub(super) fn member(group_id: u32, address: Address, directory: &str) -> Vec<(String, Entry)> {
    let devices = format!("{}/devices", path(group_id));
    vec![(format!("{devices}/{address}"), link_to(&devices, directory))]
}

/// A function's links to its group and its IOMMU.
pub(super) fn links(directory: &str, group_id: u32) -> [(String, Entry); 2] {
    [
        (format!("{directory}/iommu_group"), link_to(directory, &path(group_id))),
        (format!("{directory}/iommu"), link_to(directory, IOMMU)),
    ]
}

fn reserved_regions(geometry: &Geometry) -> String {
    let mut reserved = geometry.reserved.clone();
    reserved.sort_by_key(|reserved| reserved.span.start());
    let mut text = String::new();
    for region in reserved {
        let kind = match region.kind {
            ReservedKind::Direct => "direct",
            ReservedKind::DirectRelaxable => "direct-relaxable",
            ReservedKind::Reserved => "reserved",
            ReservedKind::Msi => "msi",
        };
        let (start, last) = (region.span.start(), region.span.last());
        let _infallible = writeln!(text, "{start:#018x} {last:#018x} {kind}");
    }
    text
}
