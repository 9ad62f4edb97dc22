//! A machine's functions as `bindery ls` shows them.

use std::fs;
use std::sync::Arc;

use pci::{Address, DmaFault, Interrupt, Notices};

use super::{FunctionRow, Owner};
use crate::machine::{Assignable, Bridge, Machine};
use crate::platform::Platform;

/// Every function of a machine that nobody runs, by address.
pub fn function_rows(platform: &Platform) -> Vec<FunctionRow> {
    rows(&Machine::build(platform, Arc::new(Unheard)), |_| None)
}

/// Every function of a machine, by address. `opener` names the process that has `vfioN` open.
pub(crate) fn rows(machine: &Machine, opener: impl Fn(usize) -> Option<i32>) -> Vec<FunctionRow> {
    let bridges = machine.bridges.iter().map(|port| (port.address, bridge(port)));
    let devices = machine.devices.iter().map(|device| {
        let owner = opener(device.vfio_index).map(owner);
        (device.address, assignable(device, owner))
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

fn assignable(device: &Assignable, owner: Option<Owner>) -> FunctionRow {
    FunctionRow {
        address: device.address.to_string(),
        model: match device.physical_function {
            Some(_) => format!("{} VF", device.model),
            None => device.model.to_owned(),
        },
        group: Some(device.group_id),
        tee: if device.tee { "capable" } else { "-" }.to_owned(),
        driver: device.bound_at_start.then(|| "vfio-pci".to_owned()),
        vfio: device.bound_at_start.then(|| format!("vfio{}", device.vfio_index)),
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
