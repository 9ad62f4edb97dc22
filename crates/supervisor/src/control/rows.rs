//! A machine's functions as `bindery ls` shows them.

use std::fs;
use std::sync::Arc;

use pci::{Address, DmaFault, Interrupt, Notices};

use super::question::{FunctionRow, Owner};
use super::status;
use crate::machine::{Assignable, Bridge, Machine};
use crate::platform::Platform;

/// Every function of a machine that nobody runs, by address.
pub fn function_rows(platform: &Platform) -> Vec<FunctionRow> {
    let machine = Machine::build(platform, Arc::new(Unheard));
    rows(&machine, |_| true, |device| device.bound_at_start, |_| None)
}

/// Every function of a machine that is there, by address, which `present` says. `bound` says whether vfio-pci has it now; `opener` names
/// the process that has `vfioN` open.
pub(super) fn rows(
    machine: &Machine,
    present: impl Fn(&Assignable) -> bool,
    bound: impl Fn(&Assignable) -> bool,
    opener: impl Fn(usize) -> Option<i32>,
) -> Vec<FunctionRow> {
    let bridges = machine.bridges.iter().map(|port| (port.address, bridge(port)));
    let devices = machine.devices.iter().filter(|device| present(device)).map(|device| {
        let owner = opener(device.vfio_index).map(owner);
        let tee = status::tee(machine, device);
        (device.address, assignable(device, tee, bound(device), owner))
    });
    let mut rows: Vec<_> = bridges.chain(devices).collect();
    rows.sort_by_key(|(address, _)| *address);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn bridge(port: &Bridge) -> FunctionRow {
    FunctionRow {
        address: port.address.to_string(),
        model: "root-port".to_owned(),
        group: Some(port.group_id),
        tee: "-".to_owned(),
        driver: None,
        vfio: None,
        owner: None,
    }
}

fn assignable(device: &Assignable, tee: String, bound: bool, owner: Option<Owner>) -> FunctionRow {
    FunctionRow {
        address: device.address.to_string(),
        model: match device.physical_function {
            Some(_) => format!("{} VF", device.model),
            None => device.model.to_owned(),
        },
        group: Some(device.group_id),
        tee,
        driver: bound.then(|| "vfio-pci".to_owned()),
        vfio: bound.then(|| format!("vfio{}", device.vfio_index)),
        owner,
    }
}

fn owner(pid: i32) -> Owner {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Owner { pid, program: name.trim_end().to_owned() }
}

/// Listens to the functions of a machine that is only looked at.
struct Unheard;

impl Notices for Unheard {
    fn dma_fault(&self, _function: Address, _fault: &DmaFault) {}

    fn interrupt_unheard(&self, _function: Address, _interrupt: Interrupt) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_platform_is_listed_by_address() {
        let rows = function_rows(&Platform::default());
        let addresses: Vec<_> = rows.iter().map(|row| row.address.as_str()).collect();
        assert!(addresses.is_sorted(), "{addresses:?}");
        let find = |address: &str| rows.iter().find(|row| row.address == address).unwrap();
        assert_eq!(find("b1d0:01:00.0").vfio.as_deref(), Some("vfio0"));
        assert_eq!(find("b1d0:01:00.0").tee, "capable");
        assert_eq!(find("b1d0:01:00.1").model, "dma-engine VF");
        assert_eq!(find("b1d0:00:01.0").driver, None);
        assert_eq!(find("b1d0:03:00.0").group, find("b1d0:03:00.1").group);
    }

    #[test]
    fn what_was_unbound_has_neither_driver_nor_file() {
        let machine = Machine::build(&Platform::default(), Arc::new(Unheard));
        let own = i32::try_from(std::process::id()).unwrap();
        let rows = rows(
            &machine,
            |_| true,
            |device| device.vfio_index != 0,
            |index| (index == 1).then_some(own),
        );
        let find = |address: &str| rows.iter().find(|row| row.address == address).unwrap();
        assert_eq!(find("b1d0:01:00.0").driver, None);
        assert_eq!(find("b1d0:01:00.0").vfio, None);
        assert_eq!(find("b1d0:01:00.1").owner.as_ref().map(|owner| owner.pid), Some(own));
    }
}
