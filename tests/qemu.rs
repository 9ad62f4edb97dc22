//! QEMU, unmodified, drives the DMA engine: realized through iommufd or its group, BARs placed, guest memory moved
//! by DMA, MSI-X delivered into guest memory, reset, quit.

mod programs;
mod qtest;

use std::process::Command;

use device::dma_engine::regs::{
    self, DEVICE_ID, VENDOR_ID, bar0, bar2, control, descriptor, flag, operation, register, status,
    status_state,
};
use libtest_mimic::{Arguments, Trial};
use programs::{Scratch, run, unprivileged};
use qtest::{PROGRAM, Qemu};

const ADDRESS: &str = "b1d0:02:00.0";
const SLOT: u8 = 5;
const COMMAND: u16 = 0x04;
const MEMORY_AND_MASTER: u32 = 0x6;
const BAR0: u16 = 0x10;
const BAR2: u16 = 0x18;
const CAPABILITIES: u16 = 0x34;
const MSIX_CAPABILITY: u32 = 0x11;
const MSIX_ENABLE: u32 = 1 << 31;
/// Where the "firmware" of these tests puts the BARs: in the PCI hole of the `pc` machine.
const BAR0_AT: u64 = 0xe000_0000;
const BAR2_AT: u64 = 0xe010_0000;
const SOURCE: u64 = 0x20_0000;
const DESTINATION: u64 = 0x40_0000;
const LENGTH: usize = 0x3000;
/// An MSI-X message is a store; sent to guest memory it can be read back.
const MESSAGE_AT: u64 = 0x60_0000;
const MESSAGE: u32 = 0xb1d0_0001;

const DEFAULT_RAM: &[&str] = &["-accel", "tcg", "-m", "256"];
const DEFAULT_RAM_KVM: &[&str] = &["-accel", "kvm", "-m", "256"];
const SHARED_RAM: &[&str] = &[
    "-accel",
    "tcg",
    "-object",
    "memory-backend-memfd,id=ram,size=256M,share=on",
    "-machine",
    "memory-backend=ram",
    "-m",
    "256",
];

fn main() {
    let arguments = Arguments::from_args();
    let missing = !qtest::new_enough();
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
        .with_ignored_flag(missing)
        .with_kind("needs qemu-system-x86_64 10 or newer")
    };
    let trials = vec![
        trial("host_default_ram", || drive(host(run(&[])), &by_host(DEFAULT_RAM))),
        trial("host_shared_memfd_ram", || drive(host(run(&[])), &by_host(SHARED_RAM))),
        trial("fd_opened_by_the_shell", || drive(fds(run(&[])), &by_fd(DEFAULT_RAM))),
        trial("fd_with_shared_ram", || drive(fds(run(&[])), &by_fd(SHARED_RAM))),
        trial("host_unprivileged", || {
            let scratch = Scratch::new();
            let mut command = unprivileged(&scratch.bindery());
            command.args(["run", "--"]);
            drive(host(command), &by_host(DEFAULT_RAM));
        }),
        trial("host_inside_qemus_own_sandbox", || {
            let mut arguments = by_host(DEFAULT_RAM);
            arguments.extend([
                "-sandbox",
                "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            ]);
            drive(host(run(&[])), &arguments);
        }),
        trial("two_devices_one_iommufd", || two_devices(host(run(&[])), ",iommufd=iommufd0")),
        trial("group_on_an_iommufd", || drive(host(run(&[])), &by_group(DEFAULT_RAM))),
        trial("group_on_an_iommufd_shared_ram", || drive(host(run(&[])), &by_group(SHARED_RAM))),
        trial("group_on_type1", || {
            let scratch = Scratch::new();
            drive(host(scratch.run_with_type1()), &by_group(DEFAULT_RAM));
        }),
        trial("group_on_type1_shared_ram", || {
            let scratch = Scratch::new();
            drive(host(scratch.run_with_type1()), &by_group(SHARED_RAM));
        }),
        trial("two_groups_one_container", || {
            let scratch = Scratch::new();
            two_devices(host(run(&[])), "");
            two_devices(host(scratch.run_with_type1()), "");
        }),
        trial("group_with_kvm", || with_kvm(&by_group(DEFAULT_RAM_KVM)))
            .with_ignored_flag(missing || !kvm_works())
            .with_kind("needs qemu-system-x86_64 10 or newer and /dev/kvm"),
        trial("host_with_kvm", || with_kvm(&by_host(DEFAULT_RAM_KVM)))
            .with_ignored_flag(missing || !kvm_works())
            .with_kind("needs qemu-system-x86_64 10 or newer and /dev/kvm"),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn host(mut command: Command) -> Command {
    command.arg(PROGRAM);
    command
}

/// A shell opens both files and QEMU inherits them.
fn fds(mut command: Command) -> Command {
    let script = format!(
        "exec 8<>/dev/iommu 9<>/dev/vfio/devices/$(ls /sys/bus/pci/devices/{ADDRESS}/vfio-dev); exec {PROGRAM} \"$@\""
    );
    command.args(["sh", "-c", &script, "sh"]);
    command
}

fn by_host(ram: &[&'static str]) -> Vec<&'static str> {
    let mut arguments = ram.to_vec();
    arguments.extend(["-object", "iommufd,id=iommufd0"]);
    arguments
        .extend(["-device", "vfio-pci,host=b1d0:02:00.0,iommufd=iommufd0,addr=05.0,id=engine"]);
    arguments
}

fn by_fd(ram: &[&'static str]) -> Vec<&'static str> {
    let mut arguments = ram.to_vec();
    arguments.extend(["-object", "iommufd,id=iommufd0,fd=8"]);
    arguments.extend(["-device", "vfio-pci,fd=9,iommufd=iommufd0,addr=05.0,id=engine"]);
    arguments
}

/// Through the device's group and a container, as before there was iommufd.
fn by_group(ram: &[&'static str]) -> Vec<&'static str> {
    let mut arguments = ram.to_vec();
    arguments.extend(["-device", "vfio-pci,host=b1d0:02:00.0,addr=05.0,id=engine"]);
    arguments
}

fn drive(command: Command, arguments: &[&str]) {
    let scratch = Scratch::new();
    let mut qemu = Qemu::start(command, scratch.path(), arguments);
    let identity = qemu.config_read(SLOT, 0);
    assert_eq!(identity, u32::from(DEVICE_ID) << 16 | u32::from(VENDOR_ID));
    bring_up(&mut qemu);
    copy(&mut qemu, 0x11);

    let printed = qemu.monitor("system_reset");
    assert!(!printed.contains("rror"), "{printed}");
    assert_eq!(qemu.config_read(SLOT, COMMAND) & MEMORY_AND_MASTER, 0, "reset clears COMMAND");
    bring_up(&mut qemu);
    copy(&mut qemu, 0x77);
    assert!(qemu.quit().success());
}

/// Sizes and places the BARs, turns on memory, bus master and MSI-X, enables the engine.
fn bring_up(qemu: &mut Qemu) {
    for (bar, size, at) in [(BAR0, bar0::SIZE, BAR0_AT), (BAR2, bar2::SIZE, BAR2_AT)] {
        qemu.config_write(SLOT, bar, u32::MAX);
        let mask = qemu.config_read(SLOT, bar) & !0xf;
        assert_eq!(u64::from(!mask) + 1, size, "BAR at {bar:#x}");
        qemu.config_write(SLOT, bar, u32::try_from(at).unwrap());
    }
    qemu.config_write(SLOT, COMMAND, MEMORY_AND_MASTER);
    assert_eq!(qemu.load(BAR0_AT + register::ID), regs::ID_VALUE);
    assert_eq!(qemu.load(BAR0_AT + register::COMPLETED), 0, "a reset engine has done nothing");

    let entry = BAR2_AT + bar2::TABLE;
    qemu.store(entry, u32::try_from(MESSAGE_AT).unwrap());
    qemu.store(entry + 4, 0);
    qemu.store(entry + 8, MESSAGE);
    qemu.store(entry + 12, 0);
    let msix = find_msix(qemu);
    let header = qemu.config_read(SLOT, msix);
    qemu.config_write(SLOT, msix, header | MSIX_ENABLE);
    qemu.store(BAR0_AT + register::CONTROL, control::ENABLE);
}

fn find_msix(qemu: &mut Qemu) -> u16 {
    let mut at = qemu.config_read(SLOT, CAPABILITIES) & 0xfc;
    while at != 0 {
        let offset = u16::try_from(at).unwrap();
        let header = qemu.config_read(SLOT, offset);
        if header & 0xff == MSIX_CAPABILITY {
            return offset;
        }
        at = header >> 8 & 0xfc;
    }
    panic!("the guest sees no MSI-X capability");
}

/// Has the engine copy guest memory, and waits for the interrupt's message.
fn copy(qemu: &mut Qemu, seed: u8) {
    qemu.store(MESSAGE_AT, 0);
    copy_without_interrupt(qemu, seed);
    qemu.wait_until("the MSI-X message", |qemu| qemu.load(MESSAGE_AT) == MESSAGE);
}

/// Has the engine copy guest memory, and waits for its status.
fn copy_without_interrupt(qemu: &mut Qemu, seed: u8) {
    let bytes: Vec<u8> = (0..LENGTH).map(|at| u8::try_from(at % 251).unwrap() ^ seed).collect();
    qemu.write(SOURCE, &bytes);
    qemu.write(DESTINATION, &vec![0; LENGTH]);
    let slot = BAR0_AT + bar0::DESCRIPTORS;
    for (offset, value) in [
        (descriptor::OPERATION, u64::from(operation::COPY)),
        (descriptor::FLAGS, u64::from(flag::INTERRUPT)),
        (descriptor::VECTOR, 0),
        (descriptor::LENGTH, LENGTH as u64),
        (descriptor::SOURCE, SOURCE),
        (descriptor::DESTINATION, DESTINATION),
    ] {
        qemu.store(slot + offset, u32::try_from(value).unwrap());
    }
    qemu.store(BAR0_AT + register::DOORBELL, 0);
    let state = BAR0_AT + bar0::STATUS_BLOCKS + status::STATE;
    qemu.wait_until("the copy", |qemu| qemu.load(state) > status_state::RUNNING);
    assert_eq!(qemu.load(state), status_state::DONE);
    assert!(qemu.read(DESTINATION, LENGTH) == bytes, "guest memory differs from its source");
}

/// QEMU tells KVM of each VFIO file, and has the kernel deliver interrupts to the guest's APIC.
fn with_kvm(arguments: &[&str]) {
    let scratch = Scratch::new();
    let mut qemu = Qemu::start(host(run(&[])), scratch.path(), arguments);
    bring_up(&mut qemu);
    copy_without_interrupt(&mut qemu, 0x22);
    assert!(qemu.quit().success());
}

fn kvm_works() -> bool {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// A device with a group of its own and two that share one; `backend` is what each translates through.
fn two_devices(command: Command, backend: &str) {
    let scratch = Scratch::new();
    let devices = [("02:00.0", 5), ("03:00.0", 6), ("03:00.1", 7)]
        .map(|(at, slot)| format!("vfio-pci,host=b1d0:{at}{backend},addr={slot:02}.0,id=d{slot}"));
    let mut arguments = DEFAULT_RAM.to_vec();
    if !backend.is_empty() {
        arguments.extend(["-object", "iommufd,id=iommufd0"]);
    }
    for device in &devices {
        arguments.extend(["-device", device]);
    }
    let mut qemu = Qemu::start(command, scratch.path(), &arguments);
    for slot in [5, 6, 7] {
        let identity = qemu.config_read(slot, 0);
        assert_eq!(identity, u32::from(DEVICE_ID) << 16 | u32::from(VENDOR_ID), "slot {slot}");
    }
    bring_up(&mut qemu);
    copy(&mut qemu, 0x33);
    assert!(qemu.quit().success());
}
