//! What is there before a scenario's threads begin: functions under a TSM, and what a program makes for each.
//!
//! Takes no lock. What fails here is a fault of the settings, and panics in words.

use std::sync::Arc;

use iommufd::{Context, Endpoint, Geometry, Group, Iommu};
use pci::regs::command;
use pci::{DmaFault, DmaFaultReason, Interrupt, Notices};
use span::Span;
use sync::{Named, Refcount, Timers};
use tsm::{Registry, Untold, software};
use uapi::iommufd::{HwptAlloc, ViommuAlloc, hwpt_flags};
use uapi::vfio::BindIommufd;
use uapi::{Command, CommandId};
use vfio::{DeviceFile, DeviceSet};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::card::{self, Card, Engine};
use super::open_file::OpenFile;
use super::witness::Witness;
use super::{DEVICES_MAX, Device, PAGE_BYTES, Stand, TSM, ioctl};
use crate::call_memory::{CallMemory, IOMMUFD};

impl Stand {
    /// A function and all that a program makes for it.
    pub(super) fn device(&self, number: usize) -> Device {
        let engine = Engine::new(number, &self.card);
        let endpoint = Endpoint::with_tsm(
            card::address(number),
            Group::new(u32::try_from(number).unwrap_or(u32::MAX)),
            Iommu::new(geometry()),
            Arc::new(Alarm { may_be_unattached: self.settings.may_be_unattached }),
            Arc::clone(&self.registry),
        );
        let function = Arc::clone(&engine) as Arc<dyn pci::Function>;
        let set = DeviceSet::new(false);
        let vfio = vfio::Device::new(function, endpoint, set, self.settings.vfio());
        let file = DeviceFile::open(&vfio, Default::default()).expect("nobody removes the device");
        let vm = self.vm.lock().first().map(|(_, vm)| Arc::clone(vm));
        file.link_vm(vm.map(|vm| vm as Arc<dyn iommufd::Vm>));
        let id = bind_iommufd(&file, &self.context);
        let parent = HwptAlloc {
            flags: hwpt_flags::NEST_PARENT,
            dev_id: id,
            pt_id: self.ioas,
            ..Default::default()
        };
        let parent = made(&self.context, CommandId::HwptAlloc, parent).out_hwpt_id;
        let viommu = ViommuAlloc {
            r#type: self.settings.viommu,
            dev_id: id,
            hwpt_id: parent,
            ..Default::default()
        };
        let viommu = made(&self.context, CommandId::ViommuAlloc, viommu).out_viommu_id;
        let opened = OpenFile::new(self.settings.forks, || format!("vfio{number}-fd"));
        let vdevice_kept = Refcount::new(1).named("kept", || format!("vdev{number}"));
        let mut device =
            Device { engine, vfio, opened, file, id, viommu, vdevice: 0, vdevice_kept };
        device.vdevice =
            self.vdevice_alloc(number, &device).expect("set-up: a new device has no vdevice");
        let enabled = device.change_command(command::MEMORY | command::BUS_MASTER, 0);
        enabled.expect("set-up: config space can be written");
        device
    }
}

/// The device's functions under a TSM in software, connected.
pub(super) fn connected(card: &Arc<Card>) -> Arc<Registry> {
    let facts = (0..DEVICES_MAX).map(card::facts).collect();
    let timers = Timers::new(|| {});
    let registry = Registry::new(facts, timers, tsm::Settings::default(), Arc::new(Untold));
    let wire = Arc::new(card::Wire(Arc::clone(card)));
    let tsm = software::Tsm::new(wire, Arc::new(card::Nines), Default::default());
    registry.register(Arc::new(Witness(tsm)));
    registry.connect(card::address(0), TSM).expect("the device has a security manager");
    registry
}

fn bind_iommufd(file: &Arc<DeviceFile>, context: &Arc<Context>) -> u32 {
    let memory = CallMemory::naming(Arc::clone(context));
    let mut bind = BindIommufd { argsz: 16, iommufd: IOMMUFD, ..Default::default() };
    let request = Command::of(CommandId::DeviceBindIommufd).request;
    let bound = memory.exchange(&mut bind, |at| file.ioctl(&memory, request, at));
    bound.expect("set-up: nobody else has the device");
    bind.out_devid
}

pub(super) fn made<T: IntoBytes + Immutable + FromBytes>(
    context: &Arc<Context>,
    id: CommandId,
    argument: T,
) -> T {
    ioctl(context, id, argument)
        .unwrap_or_else(|errno| panic!("set-up: {} answers {errno}", Command::of(id).name))
}

fn geometry() -> Geometry {
    Geometry {
        aperture: Span::from_ends(0, (1 << 48) - 1).expect("ends in order"),
        reserved: Vec::new(),
        page_sizes: PAGE_BYTES,
        dirty_tracking: false,
        cache_coherent: true,
        msi_isolated: true,
        max_pasid_log2: 0,
    }
}

/// Hears what befalls DMA, and of interrupts nothing.
struct Alarm {
    /// Whether there are moments at which a function that is in use has no page table.
    may_be_unattached: bool,
}

impl Notices for Alarm {
    fn dma_fault(&self, function: pci::Address, fault: &DmaFault) {
        let unattached = fault.reason == DmaFaultReason::NotAttached;
        assert!(
            self.may_be_unattached || !unattached,
            "I7: {function} does DMA when its page table was taken away"
        );
    }

    fn interrupt_unheard(&self, _: pci::Address, _: Interrupt) {}
}
