//! A VMM's way to a device before there was iommufd: `/dev/vfio/vfio`, the device's group, type1.
//!
//! Written against vfio-ioctls with its default features, as a program that knows nothing of Bindery.

mod memory;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioOps};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use memory::{Memory, wait};

/// Why the client stopped.
#[derive(Debug, Error)]
pub enum Failure {
    /// A call of vfio-ioctls failed.
    #[error("cannot {doing}: {cause:?}")]
    Vfio {
        /// What was tried.
        doing: &'static str,
        /// What came back.
        cause: VfioError,
    },
    /// A system call failed.
    #[error("cannot {doing}: {cause}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What came back.
        cause: io::Error,
    },
    /// Something is not as it should be.
    #[error("{what}: {seen:#x} instead of {expected:#x}")]
    Wrong {
        /// What.
        what: &'static str,
        /// What was there.
        seen: u64,
        /// What should be.
        expected: u64,
    },
}

/// PCI vendor and device ID of the DMA engine, as config space has them.
const IDENTITY: u64 = 0xb1d0_1234;
/// COMMAND in config space, and its bits for memory and bus master.
const COMMAND: u64 = 0x04;
const MEMORY_AND_MASTER: u16 = 0x6;
/// Registers in BAR 0.
const CONTROL: u64 = 0x020;
const DOORBELL: u64 = 0x028;
const INTERRUPT_CAUSE: u64 = 0x030;
const SCRATCH: u64 = 0x050;
/// The first descriptor, and its status: state, reason, address, access, bytes done.
const DESCRIPTOR: u64 = 0x1000;
const STATUS: u64 = 0x1800;
/// The operation and the flag of a descriptor: copy, and interrupt at the end.
const COPY: u32 = 2;
const INTERRUPT: u32 = 1;
/// The state of a descriptor that ended well.
const DONE: u32 = 3;

const LENGTH: u32 = 0x2000;
/// Where the device finds the memory: source, then destination.
const IOVA: u64 = 0x10_0000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Assigns the device at `device` in sysfs to itself, has it copy memory, resets it and gives it back; `rounds` times.
///
/// # Errors
/// [`Failure`]
pub fn run(device: &Path, rounds: u32) -> Result<(), Failure> {
    for _ in 0..rounds {
        let container = Arc::new(VfioContainer::new(None).map_err(vfio("open a container"))?);
        let ops: Arc<dyn VfioOps> = container.clone();
        let device = VfioDevice::new(device, ops, true).map_err(vfio("open the device"))?;
        drive(&container, &device)?;
    }
    Ok(())
}

fn drive(container: &VfioContainer, device: &VfioDevice) -> Result<(), Failure> {
    let engine = Engine(device);
    let mut identity = [0; 4];
    device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut identity, 0);
    expect("the device's identity", u64::from(u32::from_le_bytes(identity)), IDENTITY)?;
    let command = MEMORY_AND_MASTER.to_le_bytes();
    device.region_write(VFIO_PCI_CONFIG_REGION_INDEX, &command, COMMAND);

    let length = LENGTH as usize;
    let memory = Memory::new(2 * length).map_err(system("map memory"))?;
    memory.map_for_dma(container, IOVA).map_err(vfio("map memory for the device"))?;
    let pattern: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
    memory.write(0, &pattern);

    let event = EventFd::new(EFD_NONBLOCK).map_err(system("make an eventfd"))?;
    device.enable_msix(vec![&event]).map_err(vfio("enable MSI-X"))?;
    engine.copy(IOVA, IOVA + u64::from(LENGTH));
    wait(&event, PATIENCE).map_err(system("hear of the copy's end"))?;
    expect("the copy's state", engine.read(STATUS).into(), DONE.into())?;
    let copied = memory.read(length, length);
    let right = copied.iter().zip(&pattern).take_while(|(one, other)| one == other).count();
    expect("bytes copied", right as u64, LENGTH.into())?;
    engine.write(INTERRUPT_CAUSE, 1);

    device.reset();
    expect("a register after reset", engine.read(SCRATCH).into(), 0)?;
    device.disable_irq(VFIO_PCI_MSIX_IRQ_INDEX).map_err(vfio("disable MSI-X"))?;
    container.vfio_dma_unmap(IOVA, 2 * length).map_err(vfio("unmap memory"))
}

/// BAR 0 of a DMA engine.
struct Engine<'d>(&'d VfioDevice);

impl Engine<'_> {
    fn copy(&self, source: u64, destination: u64) {
        let mut descriptor = [0; 64];
        for (at, word) in [COPY, INTERRUPT, 0, LENGTH].iter().enumerate() {
            descriptor[4 * at..][..4].copy_from_slice(&word.to_le_bytes());
        }
        descriptor[0x10..0x18].copy_from_slice(&source.to_le_bytes());
        descriptor[0x18..0x20].copy_from_slice(&destination.to_le_bytes());
        self.0.region_write(VFIO_PCI_BAR0_REGION_INDEX, &descriptor, DESCRIPTOR);
        self.write(SCRATCH, 1);
        self.write(CONTROL, 1);
        self.write(DOORBELL, 0);
    }

    fn read(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.0.region_read(VFIO_PCI_BAR0_REGION_INDEX, &mut bytes, register);
        u32::from_le_bytes(bytes)
    }

    fn write(&self, register: u64, value: u32) {
        self.0.region_write(VFIO_PCI_BAR0_REGION_INDEX, &value.to_le_bytes(), register);
    }
}

fn expect(what: &'static str, seen: u64, expected: u64) -> Result<(), Failure> {
    if seen == expected { Ok(()) } else { Err(Failure::Wrong { what, seen, expected }) }
}

fn vfio(doing: &'static str) -> impl FnOnce(VfioError) -> Failure {
    move |cause| Failure::Vfio { doing, cause }
}

fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Failure {
    move |cause| Failure::System { doing, cause: cause.into() }
}
