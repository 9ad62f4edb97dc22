//! A function that the driver could have, and the names that it has then.

use std::sync::Arc;

use pci::{Address, Function};
use vfio::DeviceState;

use super::super::Node;
use super::super::function::View;
use super::super::sysfs::{VFIO_CLASS, VFIO_PCI, fixed, link, link_to, power};
use super::super::tree::Entry;
use crate::machine::{Assignable, Identity};

/// A function that the driver could have.
pub(in super::super) struct Candidate {
    pub(super) address: Address,
    directory: String,
    number: usize,
    pub(super) group_id: u32,
    pub(super) identity: Identity,
    pub(super) vfio: Arc<vfio::Device>,
    pub(super) function: Arc<dyn Function>,
}

impl Candidate {
    pub(in super::super) fn new(device: &Assignable, view: &View<'_>) -> Self {
        let View { directory, identity, .. } = view;
        Self {
            address: device.address,
            directory: directory.clone(),
            number: device.vfio_index,
            group_id: device.group_id,
            identity: *identity,
            vfio: Arc::clone(&device.vfio),
            function: Arc::clone(&device.function),
        }
    }

    pub(super) fn in_use(&self) -> bool {
        match self.vfio.state() {
            DeviceState::Free => false,
            DeviceState::Open { .. } | DeviceState::Bound { .. } | DeviceState::Attached { .. } => {
                true
            }
        }
    }

    /// Where the device's class directory is.
    fn class_directory(&self) -> String {
        format!("{}/vfio-dev/vfio{}", self.directory, self.number)
    }

    /// The names that there are for as long as the driver offers the device.
    pub(super) fn offered(&self) -> Vec<(String, Entry)> {
        let (major, minor) = Node::Vfio(self.number).device_number();
        let (class, number) = (self.class_directory(), self.number);
        let device_number = format!("{major}:{minor}");
        let uevent = format!("MAJOR={major}\nMINOR={minor}\nDEVNAME=vfio/devices/vfio{number}\n");
        let mut names = vec![
            (format!("{class}/dev"), fixed(0o444, &format!("{device_number}\n"))),
            (format!("{class}/uevent"), fixed(0o444, &uevent)),
            (format!("{class}/subsystem"), link_to(&class, VFIO_CLASS)),
            (format!("{class}/device"), link(&format!("../../../{}", self.address))),
            (format!("{VFIO_CLASS}/vfio{number}"), link_to(VFIO_CLASS, &class)),
            (format!("/sys/dev/char/{device_number}"), link_to("/sys/dev/char", &class)),
            (format!("/dev/char/{device_number}"), link(&format!("../vfio/devices/vfio{number}"))),
            (format!("/dev/vfio/devices/vfio{number}"), Entry::Node(Node::Vfio(number))),
        ];
        names.extend(power(&class));
        names
    }

    pub(super) fn offered_paths(&self) -> [String; 5] {
        let (major, minor) = Node::Vfio(self.number).device_number();
        let number = self.number;
        [
            format!("/dev/vfio/devices/vfio{number}"),
            format!("/dev/char/{major}:{minor}"),
            format!("/sys/dev/char/{major}:{minor}"),
            format!("{VFIO_CLASS}/vfio{number}"),
            format!("{}/vfio-dev", self.directory),
        ]
    }

    /// The names that there are for as long as the driver has the function.
    pub(super) fn linked(&self) -> [(String, Entry); 2] {
        [
            (format!("{}/driver", self.directory), link_to(&self.directory, VFIO_PCI)),
            (format!("{VFIO_PCI}/{}", self.address), link_to(VFIO_PCI, &self.directory)),
        ]
    }
}
