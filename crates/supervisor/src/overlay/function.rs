//! What sysfs says of one PCI function.
//!
//! Read from config space when an attribute is opened, but for what Linux remembers from its scan of
//! the bus: IDs, class, resources. Takes no lock but the function's own.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use pci::regs::{CONFIG_SIZE, CONVENTIONAL_SIZE, cap_id, ext_id, pm, sriov};
use pci::{Address, walk};

use super::driver::VfioPci;
use super::sysfs::{
    self, PCI_DEVICES, config, fixed, link, link_to, live, power, read_write, write_only,
};
use super::tree::Entry;
use super::vfs::{Around, VirtualFunctions};
use super::writable::{D3Cold, Enable, MsiBus, ResetFunction, Uevent};
use crate::machine::{Assignable, Bridge, Identity, Resource};

/// Reads config space at an offset.
pub(super) type ConfigReader = Arc<dyn Fn(u16, &mut [u8]) + Send + Sync>;

/// A function with its place in sysfs.
pub(super) struct View<'m> {
    pub(super) address: Address,
    pub(super) group_id: u32,
    pub(super) directory: String,
    config: ConfigReader,
    pub(super) identity: Identity,
    resources: &'m [Resource],
    cpus: &'m str,
}

impl<'m> View<'m> {
    pub(super) fn of_device(device: &'m Assignable) -> Self {
        let function = Arc::clone(&device.function);
        Self {
            address: device.address,
            group_id: device.group_id,
            directory: String::new(),
            config: Arc::new(move |offset, into| function.config_read(offset, into)),
            identity: device.identity,
            resources: &device.resources,
            cpus: "",
        }
    }

    pub(super) fn of_bridge(bridge: &'m Bridge) -> Self {
        let port = Arc::clone(&bridge.port);
        Self {
            address: bridge.address,
            group_id: bridge.group_id,
            directory: String::new(),
            config: Arc::new(move |offset, into| port.config_read(offset, into)),
            identity: bridge.identity,
            resources: &bridge.resources,
            cpus: "",
        }
    }

    /// Says where the function's directory is, and which processors are near it: all.
    pub(super) fn at(mut self, directories: &BTreeMap<Address, String>, cpus: &'m str) -> Self {
        self.directory = directories.get(&self.address).cloned().unwrap_or_default();
        self.cpus = cpus;
        self
    }

    /// What every function has, bridges too.
    pub(super) fn common(&self) -> Vec<(String, Entry)> {
        let Self { directory, identity, .. } = self;
        let mut entries = vec![
            (format!("{PCI_DEVICES}/{}", self.address), link_to(PCI_DEVICES, directory)),
            (format!("{directory}/config"), config(&self.config)),
        ];
        let mut fixed_texts = identity.texts();
        fixed_texts.extend([
            ("resource", self.resource()),
            ("irq", "0\n".to_owned()),
            ("numa_node", "-1\n".to_owned()),
            ("local_cpulist", self.cpus.to_owned()),
            ("dma_mask_bits", "32\n".to_owned()),
            ("consistent_dma_mask_bits", "32\n".to_owned()),
            ("broken_parity_status", "0\n".to_owned()),
            ("ari_enabled", "0\n".to_owned()),
        ]);
        entries.extend(
            fixed_texts
                .into_iter()
                .map(|(name, text)| (format!("{directory}/{name}"), fixed(0o444, &text))),
        );
        entries.extend(power(directory));
        entries.extend([
            (format!("{directory}/subsystem"), link_to(directory, "/sys/bus/pci")),
            (format!("{directory}/link"), sysfs::empty_directory()),
            (format!("{directory}/power_state"), self.power_state()),
        ]);
        entries.extend(super::group::links(directory, self.group_id));
        entries
    }

    /// What a function has that can be assigned.
    pub(super) fn assignable(
        &self,
        device: &Assignable,
        around: &Around<'_>,
    ) -> Vec<(String, Entry)> {
        let Self { directory, address, .. } = self;
        let (address, driver) = (*address, around.driver);
        let at = |name: &str| format!("{directory}/{name}");
        let enabled = Enable::new(driver, address);
        let show_enabled = Arc::clone(&enabled);
        let d3cold = D3Cold::new();
        let show_d3cold = Arc::clone(&d3cold);
        let mut entries = vec![
            (at("enable"), read_write(move || show_enabled.show(), enabled)),
            (at("d3cold_allowed"), read_write(move || show_d3cold.show(), d3cold)),
            (at("msi_bus"), read_write(|| "1\n".to_owned(), Arc::new(MsiBus))),
            (at("driver_override"), driver.override_attribute(address)),
            (at("uevent"), self.uevent(driver)),
        ];
        if device.can_reset {
            entries.push((at("reset"), write_only(ResetFunction::new(driver, address))));
            entries.push((at("reset_method"), fixed(0o444, "flr\n")));
        }
        if device.total_vfs > 0 {
            entries.extend(self.physical(device, around));
        }
        if let Some(physical) = device.physical_function {
            // Both are on one bus, so in one directory.
            entries.push((at("physfn"), link(&format!("../{physical}"))));
        }
        entries
    }

    /// What a physical function has.
    fn physical(&self, device: &Assignable, around: &Around<'_>) -> Vec<(String, Entry)> {
        let at = |name: &str| format!("{}/{name}", self.directory);
        let found = walk::extended_capabilities(|offset, into| (self.config)(offset, into))
            .iter()
            .find(|capability| capability.id == ext_id::SRIOV)
            .map(|capability| capability.offset);
        let Some(capability) = found else { return Vec::new() };
        let number = VirtualFunctions::new(device, &self.directory, capability, around);
        let register = |offset: u16| word(&self.config, capability + offset);
        let texts = [
            ("sriov_totalvfs", format!("{}\n", device.total_vfs)),
            ("sriov_offset", format!("{}\n", register(sriov::FIRST_VF_OFFSET))),
            ("sriov_stride", format!("{}\n", register(sriov::VF_STRIDE))),
            ("sriov_vf_device", format!("{:x}\n", register(sriov::VF_DEVICE_ID))),
            ("sriov_drivers_autoprobe", "1\n".to_owned()),
        ];
        let mut entries: Vec<(String, Entry)> =
            texts.into_iter().map(|(name, text)| (at(name), fixed(0o444, &text))).collect();
        let shown = Arc::clone(&number);
        entries.push((at("sriov_numvfs"), read_write(move || shown.show(), number)));
        for (index, address) in device.virtual_functions.iter().enumerate() {
            entries.push((at(&format!("virtfn{index}")), link(&format!("../{address}"))));
        }
        entries
    }

    fn uevent(&self, driver: &Arc<VfioPci>) -> Entry {
        let fixed = self.identity.uevent(self.address);
        let (driver, address) = (Arc::clone(driver), self.address);
        let show = move || {
            let bound = if driver.is_bound(address) { "DRIVER=vfio-pci\n" } else { "" };
            format!("{bound}{fixed}")
        };
        read_write(show, Arc::new(Uevent))
    }

    fn power_state(&self) -> Entry {
        let config = Arc::clone(&self.config);
        let control = walk::capabilities(|offset, into| config(offset, into))
            .iter()
            .find(|capability| capability.id == cap_id::PM)
            .map(|capability| capability.offset + pm::CONTROL);
        live(move || {
            let state = control.map_or(0, |control| word(&config, control) & POWER_STATE);
            ["D0\n", "D1\n", "D2\n", "D3hot\n"][usize::from(state)].to_owned()
        })
    }

    fn resource(&self) -> String {
        let mut text = String::new();
        for Resource { start, last, flags } in self.resources {
            let _infallible = writeln!(text, "{start:#018x} {last:#018x} {flags:#018x}");
        }
        text
    }
}

/// Power management control: the power state.
const POWER_STATE: u16 = 0x3;

impl Identity {
    fn texts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("vendor", format!("{:#06x}\n", self.vendor)),
            ("device", format!("{:#06x}\n", self.device)),
            ("subsystem_vendor", format!("{:#06x}\n", self.subsystem_vendor)),
            ("subsystem_device", format!("{:#06x}\n", self.subsystem_device)),
            ("class", format!("{:#08x}\n", self.class)),
            ("revision", format!("{:#04x}\n", self.revision)),
            ("modalias", format!("{}\n", self.modalias())),
        ]
    }

    /// The class is the code of 24 bits: base, sub, interface.
    fn modalias(&self) -> String {
        let [_, base, sub, interface] = self.class.to_be_bytes();
        format!(
            "pci:v{:08X}d{:08X}sv{:08X}sd{:08X}bc{base:02X}sc{sub:02X}i{interface:02X}",
            self.vendor, self.device, self.subsystem_vendor, self.subsystem_device
        )
    }

    fn uevent(&self, address: Address) -> String {
        format!(
            "PCI_CLASS={:04X}\nPCI_ID={:04X}:{:04X}\nPCI_SUBSYS_ID={:04X}:{:04X}\n\
             PCI_SLOT_NAME={address}\nMODALIAS={}\n",
            self.class,
            self.vendor,
            self.device,
            self.subsystem_vendor,
            self.subsystem_device,
            self.modalias()
        )
    }
}

/// Bytes of config space: 4096 with PCI Express, else 256.
pub(super) fn config_size(config: &ConfigReader) -> u16 {
    let express = walk::capabilities(|offset, into| config(offset, into))
        .iter()
        .any(|capability| capability.id == cap_id::EXPRESS);
    if express { CONFIG_SIZE } else { CONVENTIONAL_SIZE }
}

fn word(config: &ConfigReader, offset: u16) -> u16 {
    let mut bytes = [0; 2];
    config(offset, &mut bytes);
    u16::from_le_bytes(bytes)
}
