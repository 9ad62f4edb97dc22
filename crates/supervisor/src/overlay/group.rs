//! What sysfs says of IOMMU groups and of the IOMMU.
//!
//! Takes no lock.

use std::fmt::Write;

use iommufd::{Geometry, ReservedKind};
use pci::Address;

use super::sysfs::{fixed, link_to, power};
use super::tree::Entry;
use crate::machine::Machine;

const GROUPS: &str = "/sys/kernel/iommu_groups";
/// The one IOMMU.
const IOMMU: &str = "/sys/devices/virtual/iommu/bindery0";

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
