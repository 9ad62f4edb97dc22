//! The client proper: one function a phase, in the order of a VMM's start and end.

use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use iommufd_ioctls::{IommuFd, IommufdError, IommufdIoas};
use thiserror::Error;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioDevice, VfioError, VfioIommufd, VfioRegionInfoCap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::engine::{self, Engine, Trust};
use crate::interrupt;
use crate::memory::{Mapping, monotonic_ns};
use crate::step::{Step, Timed};
use crate::tdi;

/// What to drive and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The device's sysfs directory.
    pub device: PathBuf,
    /// How often to go through it all, in this process.
    pub rounds: u32,
    /// Go on as a confidential VM's VMM would: bind the device's TDI and end it in every order.
    pub confidential: bool,
}

/// Why the client stopped.
#[derive(Debug, Error)]
pub enum Failure {
    /// Nobody said which device.
    #[error("BINDERY_BDF is not set: which device? (`bindery run` sets it)")]
    NoDeviceNamed,
    /// A call of iommufd-ioctls failed.
    #[error("cannot {doing}: {cause}")]
    Iommufd {
        /// What was tried.
        doing: &'static str,
        /// What came back.
        cause: IommufdError,
    },
    /// A call of vfio-ioctls failed.
    #[error("cannot {doing}: {}", chain(.cause))]
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
    /// The device is not what this client drives.
    #[error("{vendor:04x}:{device:04x} is not a DMA engine")]
    OtherDevice {
        /// PCI vendor ID.
        vendor: u16,
        /// PCI device ID.
        device: u16,
    },
    /// The device has fewer vectors than the client uses.
    #[error("the client wants MSI-X vector {vector}, the device has {vectors} vectors")]
    NoSuchVector {
        /// What the client uses.
        vector: u16,
        /// How many there are.
        vectors: usize,
    },
    /// No interrupt came.
    #[error("no interrupt within {waited:?}; the engine's status is {status}")]
    NoInterrupt {
        /// How long was waited.
        waited: Duration,
        /// What the status register says.
        status: String,
    },
    /// The engine reports a failure.
    #[error("the engine did not finish: {status}")]
    NotDone {
        /// What the status register says.
        status: String,
    },
    /// The copy differs from its source.
    #[error("byte {offset:#x} of the copy is {found:#04x}, expected {expected:#04x}")]
    WrongByte {
        /// Where the first difference lies.
        offset: usize,
        /// What is there.
        found: u8,
        /// What should be.
        expected: u8,
    },
    /// A TSM command was refused.
    #[error("cannot {doing}: {cause}")]
    Tsm {
        /// What was tried.
        doing: &'static str,
        /// What came back.
        cause: io::Error,
    },
    /// A TSM command did what it must not.
    #[error("{what} answered {found}, expected {expected}")]
    NotRefused {
        /// What was tried.
        what: &'static str,
        /// What came back.
        found: String,
        /// What should have.
        expected: &'static str,
    },
    /// The interface report makes no sense.
    #[error("the interface report of {length} bytes ends early")]
    ShortReport {
        /// Bytes that came.
        length: usize,
    },
    /// A reset left something behind.
    #[error("{register} reads {value:#x} after a reset")]
    NotReset {
        /// Which register.
        register: &'static str,
        /// What it reads.
        value: u32,
    },
}

/// Drives the device through everything, `settings.rounds` times, and tells each step once done.
///
/// # Errors
/// The first thing that did not work. Everything opened is closed again.
pub fn run(settings: &Settings, tell: &mut dyn FnMut(Timed)) -> Result<(), Failure> {
    for round in 1..=settings.rounds {
        let mut told = |step| tell(Timed { at_ns: monotonic_ns(), round, step });
        one_round(settings, &mut told)?;
        told(Step::Closed);
        if settings.confidential {
            tdi::every_order(settings, &mut told)?;
        }
    }
    Ok(())
}

/// Where the device sees the client's memory.
pub(crate) const IOVA: u64 = 0x1000_0000;
/// How much memory it sees: the copy's source at its start, the destination half way.
pub(crate) const MEMORY_LENGTH: usize = 2 << 20;
/// How much is copied.
const COPY_LENGTH: u32 = 256 << 10;
/// The vector that the client asks the engine to fire: not 0, so that the choice shows.
const VECTOR: u16 = 1;
/// Longer than any machine needs; only a lost interrupt takes as long.
const INTERRUPT_TIMEOUT: Duration = Duration::from_secs(5);

fn one_round(settings: &Settings, tell: &mut dyn FnMut(Step)) -> Result<(), Failure> {
    let host = open_host(tell)?;
    let device = assign(settings, &host, tell)?;
    let memory = Mapping::anonymous(MEMORY_LENGTH).map_err(system("allocate memory"))?;
    map_for_dma(&host, &memory, tell)?;
    let events = enable_msix(&device, tell)?;
    let bar = map_bar(&device, tell)?;

    copy(&Engine::new(&device, &bar), Trust::Plain, &memory, &events, tell)?;

    device.disable_msix().map_err(vfio("disable MSI-X"))?;
    tell(Step::DisabledMsix);
    reset(&device, tell)?;
    let length_bytes = MEMORY_LENGTH as u64;
    host.vfio_dma_unmap(IOVA, MEMORY_LENGTH).map_err(vfio("unmap memory"))?;
    tell(Step::Unmapped { length_bytes });
    device.detach_hwpt().map_err(vfio("detach the device"))?;
    tell(Step::Detached);
    Ok(())
}

/// Opens `/dev/iommu` and makes an address space.
pub(crate) fn open_host(tell: &mut dyn FnMut(Step)) -> Result<Arc<VfioIommufd>, Failure> {
    let iommu = Arc::new(IommuFd::new().map_err(iommufd("open /dev/iommu"))?);
    tell(Step::OpenedIommu);
    let ioas = IommufdIoas::new(iommu.clone()).map_err(iommufd("allocate an address space"))?;
    tell(Step::AllocatedIoas { id: ioas.id() });
    let host = VfioIommufd::new(iommu, Some(Arc::new(ioas)), None);
    Ok(Arc::new(host.map_err(vfio("wrap the iommufd"))?))
}

/// Opens the device, binds and attaches it, and looks at what it is.
pub(crate) fn assign(
    settings: &Settings,
    host: &Arc<VfioIommufd>,
    tell: &mut dyn FnMut(Step),
) -> Result<VfioDevice, Failure> {
    let file = VfioDevice::open_cdev(&settings.device).map_err(vfio("open the device"))?;
    tell(Step::OpenedDevice { sysfs: settings.device.clone() });
    let device = VfioDevice::new_from_fd(file, host.clone(), false)
        .map_err(vfio("bind the device to the iommufd"))?;
    tell(Step::Bound { id: device.iommufd_dev_id().unwrap_or_default() });
    device.attach_hwpt(host.ioas().id()).map_err(vfio("attach the device"))?;
    tell(Step::Attached { ioas: host.ioas().id() });

    let vendor = u16::from_le_bytes(config_bytes(&device, config::VENDOR));
    let device_id = u16::from_le_bytes(config_bytes(&device, config::DEVICE));
    let regions = (0..=VFIO_PCI_CONFIG_REGION_INDEX)
        .filter(|region| device.get_region_size(*region) > 0)
        .count();
    let vectors = device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).map_or(0, |irq| irq.count);
    tell(Step::Described { vendor, device: device_id, regions, vectors });
    if (vendor, device_id) != (engine::VENDOR, engine::DEVICE) {
        return Err(Failure::OtherDevice { vendor, device: device_id });
    }
    Ok(device)
}

pub(crate) fn map_for_dma(
    host: &VfioIommufd,
    memory: &Mapping,
    tell: &mut dyn FnMut(Step),
) -> Result<(), Failure> {
    memory.map_for_dma(host, IOVA).map_err(vfio("map memory for DMA"))?;
    tell(Step::Mapped { iova: IOVA, length_bytes: MEMORY_LENGTH as u64 });
    Ok(())
}

/// Gives each vector an eventfd, and lets the device write to memory: an MSI-X message is a write.
pub(crate) fn enable_msix(
    device: &VfioDevice,
    tell: &mut dyn FnMut(Step),
) -> Result<Vec<EventFd>, Failure> {
    let command = u16::from_le_bytes(config_bytes(device, config::COMMAND));
    let command = command | config::COMMAND_MEMORY | config::COMMAND_BUS_MASTER;
    device.region_write(VFIO_PCI_CONFIG_REGION_INDEX, &command.to_le_bytes(), config::COMMAND);
    let vectors = device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).map_or(0, |irq| irq.count);
    let events = (0..vectors)
        .map(|_| EventFd::new(EFD_NONBLOCK))
        .collect::<io::Result<Vec<_>>>()
        .map_err(system("make eventfds"))?;
    device.enable_msix(events.iter().collect()).map_err(vfio("enable MSI-X"))?;
    tell(Step::EnabledMsix { vectors: events.len() });
    Ok(events)
}

/// Maps the areas of BAR 0 that the device says may be mapped; all else stays behind reads and writes.
pub(crate) fn map_bar(
    device: &VfioDevice,
    tell: &mut dyn FnMut(Step),
) -> Result<Vec<(u64, Mapping)>, Failure> {
    let base = device.get_region_offset(VFIO_PCI_BAR0_REGION_INDEX);
    let mut mapped = Vec::new();
    let mut length_bytes = 0;
    for (offset, size) in mappable(device, VFIO_PCI_BAR0_REGION_INDEX) {
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let mapping = Mapping::of_device(device.as_raw_fd(), base + offset, length);
        mapped.push((offset, mapping.map_err(system("mmap BAR 0"))?));
        length_bytes += size;
    }
    tell(Step::MappedBar { areas: mapped.len(), length_bytes });
    Ok(mapped)
}

/// Offset and length in bytes of each area that a region lets programs map.
fn mappable(device: &VfioDevice, region: u32) -> Vec<(u64, u64)> {
    if device.get_region_flags(region) & VFIO_REGION_INFO_FLAG_MMAP == 0 {
        return Vec::new();
    }
    let sparse = device.get_region_caps(region).into_iter().find_map(|capability| {
        if let VfioRegionInfoCap::SparseMmap(sparse) = capability {
            Some(sparse.areas.iter().map(|area| (area.offset, area.size)).collect())
        } else {
            None
        }
    });
    sparse.unwrap_or_else(|| vec![(0, device.get_region_size(region))])
}

/// Has the engine copy a pattern, waits for its interrupt and compares.
pub(crate) fn copy(
    engine: &Engine<'_>,
    trust: Trust,
    memory: &Mapping,
    events: &[EventFd],
    tell: &mut dyn FnMut(Step),
) -> Result<(), Failure> {
    let half = MEMORY_LENGTH / 2;
    // 251 is prime: a copy shifted by any power of two would show.
    let pattern: Vec<u8> = (0..=250).cycle().take(COPY_LENGTH as usize).collect();
    memory.write(0, &pattern);
    let (source, destination) = (IOVA, IOVA + half as u64);
    let length_bytes = u64::from(COPY_LENGTH);
    memory.write(half, &vec![0; pattern.len()]);
    engine.start_copy(trust, source, destination, COPY_LENGTH, VECTOR);
    let trusted = trust == Trust::Trusted;
    tell(Step::Started { source, destination, length_bytes, trusted });

    let count = await_interrupt(engine, events)?;
    engine.acknowledge();
    tell(Step::Interrupted { vector: VECTOR, count });
    if !engine.is_done(COPY_LENGTH) {
        return Err(Failure::NotDone { status: engine.status() });
    }
    let found = memory.read(half, COPY_LENGTH as usize);
    let mut pairs = found.iter().zip(&pattern).enumerate();
    if let Some((offset, (found, expected))) = pairs.find(|(_, (found, right))| found != right) {
        return Err(Failure::WrongByte { offset, found: *found, expected: *expected });
    }
    tell(Step::Verified { length_bytes });
    Ok(())
}

fn await_interrupt(engine: &Engine<'_>, events: &[EventFd]) -> Result<u64, Failure> {
    let event = events.get(usize::from(VECTOR));
    let event = event.ok_or(Failure::NoSuchVector { vector: VECTOR, vectors: events.len() })?;
    interrupt::wait(event, INTERRUPT_TIMEOUT).map_err(|cause| {
        if cause.kind() == io::ErrorKind::TimedOut {
            Failure::NoInterrupt { waited: INTERRUPT_TIMEOUT, status: engine.status() }
        } else {
            Failure::System { doing: "wait for the interrupt", cause }
        }
    })
}

/// Resets the device and sees that it forgot what the client had told it.
fn reset(device: &VfioDevice, tell: &mut dyn FnMut(Step)) -> Result<(), Failure> {
    device.reset();
    for (register, value) in Engine::new(device, &[]).changed_by_use() {
        if value != 0 {
            return Err(Failure::NotReset { register, value });
        }
    }
    tell(Step::Reset);
    Ok(())
}

/// Config space registers that the client reads or writes.
pub(crate) mod config {
    /// Vendor ID.
    pub(crate) const VENDOR: u64 = 0x00;
    /// Device ID.
    pub(crate) const DEVICE: u64 = 0x02;
    /// The command register.
    pub(crate) const COMMAND: u64 = 0x04;
    /// Decode memory.
    pub(crate) const COMMAND_MEMORY: u16 = 1 << 1;
    /// May start DMA.
    pub(crate) const COMMAND_BUS_MASTER: u16 = 1 << 2;
}

pub(crate) fn config_bytes<const N: usize>(device: &VfioDevice, offset: u64) -> [u8; N] {
    let mut bytes = [0; N];
    device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut bytes, offset);
    bytes
}

pub(crate) fn iommufd(doing: &'static str) -> impl Fn(IommufdError) -> Failure {
    move |cause| Failure::Iommufd { doing, cause }
}

pub(crate) fn vfio(doing: &'static str) -> impl Fn(VfioError) -> Failure {
    move |cause| Failure::Vfio { doing, cause }
}

pub(crate) fn system(doing: &'static str) -> impl Fn(io::Error) -> Failure {
    move |cause| Failure::System { doing, cause }
}

/// An error with its causes: vfio-ioctls keeps the errno in the cause alone.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
