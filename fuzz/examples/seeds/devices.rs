//! What drivers do with a device: transfers, sizing of BARs, capabilities, and config space as it stands.

use bindery_fuzz::descriptor::Descriptor;
use bindery_fuzz::device_io::Access;
use bindery_fuzz::engine::{self, Deed, HostDeed};
use bindery_fuzz::input::Output;
use device::dma_engine::regs::{bar0, control, flag, operation, register};
use pci::regs::{command, header, msix};
use uapi::vfio::region_index;

use crate::commands::{COPY, MAPPED, PAIR};
use crate::write;

pub(crate) fn device_io() {
    let config = |offset: u32, bytes: &[u8]| Access::Write {
        region: region_index::CONFIG as u8,
        offset,
        bytes: bytes.to_vec(),
    };
    let bar = |region: u32, offset: u64, bytes: &[u8]| Access::Write {
        region: region as u8,
        offset: offset as u32,
        bytes: bytes.to_vec(),
    };
    let bits = command::MEMORY | command::BUS_MASTER;
    let descriptor = Descriptor { source: MAPPED, destination: MAPPED + 0x4000, ..COPY };
    let transfer = [
        Access::Msix { vectors: 2 },
        config(header::COMMAND.into(), &bits.to_le_bytes()),
        bar(0, bar0::DESCRIPTORS, &descriptor.to_bytes()),
        bar(0, register::CONTROL, &control::ENABLE.to_le_bytes()),
        bar(0, register::DOORBELL, &[0; 4]),
        Access::Work,
        Access::Read { region: 0, offset: bar0::STATUS_BLOCKS as u32, count: 32 },
        Access::Reset,
    ];
    save_accesses("transfer", PAIR[0], &transfer);
    let sizing = (0..6_u32).flat_map(|index| {
        let offset = u32::from(header::BAR0) + 4 * index;
        let region = region_index::CONFIG as u8;
        [config(offset, &[0xff; 4]), Access::Read { region, offset, count: 4 }]
    });
    save_accesses("sizing", PAIR[1], &sizing.collect::<Vec<_>>());
    for device in [0, 1, 2] {
        save_accesses(&format!("capabilities-{device}"), device, &capability_writes(device));
    }
    let table = [
        bar(2, 0, &[0xff; 16]),
        bar(2, msix::ENTRY_CONTROL, &[0; 4]),
        Access::Read { region: 2, offset: 0, count: 0x1010 },
        config(0, &[0; 64]),
    ];
    save_accesses("table", PAIR[0], &table);
}

/// Writes all ones, then zeros, into each capability's first registers: power, FLR, MSI and the rest.
fn capability_writes(device: u8) -> Vec<Access> {
    let platform = supervisor::platform::Platform::default();
    let machine = supervisor::machine::Machine::build(
        &platform,
        std::sync::Arc::new(bindery_fuzz::rig::Deaf),
    );
    // The default machine has the same kinds of function in the same order.
    let function = &machine.devices[usize::from(device)].function;
    let read = |offset, into: &mut [u8]| function.config_read(offset, into);
    let write = |offset: u16, byte: u8| Access::Write {
        region: region_index::CONFIG as u8,
        offset: offset.into(),
        bytes: vec![byte; 12],
    };
    pci::walk::capabilities(read)
        .iter()
        .flat_map(|found| [write(found.offset, 0xff), write(found.offset, 0)])
        .collect()
}

fn save_accesses(name: &str, device: u8, accesses: &[Access]) {
    let mut out = Output::default();
    out.put(&[device]);
    accesses.iter().for_each(|access| access.encode(&mut out));
    write("device_io", name, &out.into_bytes());
}

pub(crate) fn engine() {
    let command = (command::MEMORY | command::BUS_MASTER).to_le_bytes();
    let set = |offset: u64, value: u32| Deed::Write {
        table: false,
        offset: offset as u16,
        width_lg2: 2,
        value: value.into(),
    };
    let ram = |offset: u64| engine::RAM + offset;
    let describe = |slot: u8, operation: u32, source: u64, destination: u64| Deed::Describe {
        slot,
        bytes: Descriptor {
            operation,
            flags: flag::INTERRUPT,
            length: 0x1800,
            source,
            destination,
            window: 0x100,
        }
        .to_bytes(),
    };
    let begin = [
        Deed::Config { offset: header::COMMAND, bytes: command.to_vec() },
        set(register::CONTROL, control::ENABLE),
    ];
    let operations =
        [operation::NOP, operation::COPY, operation::FILL, operation::READ, operation::WRITE];
    for (name, kind, destination) in
        [("good", 0, ram(0x4000)), ("refused", 1, ram(0x1_7800)), ("wraps", 5, u64::MAX - 8)]
    {
        let mut deeds = begin.to_vec();
        for (slot, operation) in (0..).zip(operations) {
            deeds.push(describe(slot, operation, ram(0), destination));
            deeds.push(set(register::DOORBELL, slot.into()));
        }
        deeds.push(Deed::Step { budget_lg2: 12 });
        deeds.push(Deed::Host(HostDeed::Stop));
        deeds.push(set(register::CONTROL, control::ENABLE | control::ABORT));
        deeds.push(Deed::Host(HostDeed::Start));
        deeds.push(Deed::Step { budget_lg2: 16 });
        deeds.push(Deed::Host(HostDeed::ResetFunction));
        save_deeds(name, kind, &deeds);
    }
}

fn save_deeds(name: &str, kind: u8, deeds: &[Deed]) {
    let mut out = Output::default();
    out.put(&[kind]);
    deeds.iter().for_each(|deed| deed.encode(&mut out));
    write("engine", name, &out.into_bytes());
}

pub(crate) fn config_walk() {
    let platform = supervisor::platform::Platform::default();
    let machine = supervisor::machine::Machine::build(
        &platform,
        std::sync::Arc::new(bindery_fuzz::rig::Deaf),
    );
    let mut space = vec![0; 4096];
    machine.devices[0].function.config_read(0, &mut space);
    let used = space.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    write("config_walk", "endpoint", &space[..used]);
}
