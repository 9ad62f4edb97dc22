//! The part of a confidential VM's VMM: an interface (TDI) bound, locked, run, and ended in every order.
//!
//! The calls are those of the TSM patch series, which the crates do not have yet: their numbers and structs
//! stand at the end.

#![expect(unsafe_code, reason = "UNSAFETY: ioctl with structs of this file")]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use iommufd_bindings::iommufd::{
    iommu_hwpt_alloc, iommu_vdevice_alloc, iommu_viommu_alloc,
    iommu_viommu_type_IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
    iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_NEST_PARENT,
};
use iommufd_ioctls::IommuFd;
use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;
use vfio_ioctls::{VfioDevice, VfioIommufd};

use crate::client::{
    self, Failure, IOVA, MEMORY_LENGTH, Settings, assign, config, enable_msix, iommufd, map_bar,
    map_for_dma, open_host, system, vfio,
};
use crate::engine::{Engine, Trust};
use crate::memory::Mapping;
use crate::step::Step;

/// Binds and runs the device's interface once for each way to end it.
pub(crate) fn every_order(settings: &Settings, tell: &mut dyn FnMut(Step)) -> Result<(), Failure> {
    connect(&settings.device, tell)?;
    for order in Order::ALL {
        tell(Step::Ending { order: order.words().to_owned() });
        let running = Running::begin(settings, tell)?;
        running.end(order, settings, tell)?;
        if order == Order::Disconnect {
            connect(&settings.device, tell)?;
        }
    }
    Ok(())
}

/// A way to end a running interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Unbind,
    DestroyVdevice,
    CloseDevice,
    Disconnect,
    Breach,
    LeaveOpen,
}

impl Order {
    /// The last leaves nobody to go on.
    const ALL: [Self; 6] = [
        Self::Unbind,
        Self::DestroyVdevice,
        Self::CloseDevice,
        Self::Disconnect,
        Self::Breach,
        Self::LeaveOpen,
    ];

    const fn words(self) -> &'static str {
        match self {
            Self::Unbind => "unbind",
            Self::DestroyVdevice => "destroying the vdevice",
            Self::CloseDevice => "closing the device's file",
            Self::Disconnect => "disconnecting the TSM",
            Self::Breach => "the device itself, when bus master is cleared",
            Self::LeaveOpen => "the client's exit",
        }
    }
}

/// An interface in RUN, and all that it stands on.
struct Running {
    host: Arc<VfioIommufd>,
    device: VfioDevice,
    memory: Mapping,
    hwpt: u32,
    viommu: u32,
    vdevice: u32,
}

/// What the guest calls the device: bus 0, device 4, function 0.
const GUEST_REQUESTER_ID: u64 = 0x20;

impl Running {
    fn begin(settings: &Settings, tell: &mut dyn FnMut(Step)) -> Result<Self, Failure> {
        let host = open_host(tell)?;
        let device = assign(settings, &host, tell)?;
        let memory = Mapping::anonymous(MEMORY_LENGTH).map_err(system("allocate memory"))?;
        map_for_dma(&host, &memory, tell)?;
        let [hwpt, viommu, vdevice] = make_vdevice(&host, &device, tell)?;
        let running = Self { host, device, memory, hwpt, viommu, vdevice };
        running.run(tell)?;
        Ok(running)
    }

    /// Bind, LOCK, evidence, RUN, and a copy in the guest's name.
    fn run(&self, tell: &mut dyn FnMut(Step)) -> Result<(), Failure> {
        let events = enable_msix(&self.device, tell)?;
        let bar = map_bar(&self.device, tell)?;
        self.operate(BIND).map_err(tsm("bind the TDI"))?;
        tell(Step::BoundTdi);
        self.set_state(LOCKED).map_err(tsm("lock the TDI"))?;
        tell(Step::Locked);
        let report = self.read_report().map_err(tsm("read the interface report"))?;
        let ranges = report.get(RANGE_COUNT..RANGE_COUNT + 4).and_then(|word| word.try_into().ok());
        let ranges = ranges.ok_or(Failure::ShortReport { length: report.len() })?;
        let ranges = u32::from_le_bytes(ranges);
        tell(Step::ReadReport { length_bytes: report.len(), ranges });
        self.set_state(RUN).map_err(tsm("run the TDI"))?;
        tell(Step::Running);
        let engine = Engine::new(&self.device, &bar);
        client::copy(&engine, Trust::Trusted, &self.memory, &events, tell)
    }

    fn end(
        self,
        order: Order,
        settings: &Settings,
        tell: &mut dyn FnMut(Step),
    ) -> Result<(), Failure> {
        match order {
            Order::Unbind => self.unbind(tell)?,
            Order::DestroyVdevice => {
                destroy(&self.host, "vdevice", self.vdevice, tell)?;
                return self.give_back(None, tell);
            }
            Order::CloseDevice => return self.close_device(tell),
            Order::Disconnect => {
                let name = connected_tsm(&settings.device)?;
                let path = settings.device.join("tsm/disconnect");
                fs::write(path, name).map_err(system("disconnect the TSM"))?;
                tell(Step::Disconnected);
                let refused = self.set_state(RUN);
                expect_errno("asking for RUN", refused, libc::ENXIO, "ENXIO", tell)?;
            }
            Order::Breach => {
                let bytes: [u8; 2] = client::config_bytes(&self.device, config::COMMAND);
                let command = u16::from_le_bytes(bytes) & !config::COMMAND_BUS_MASTER;
                let bytes = command.to_le_bytes();
                self.device.region_write(VFIO_PCI_CONFIG_REGION_INDEX, &bytes, config::COMMAND);
                tell(Step::ClearedBusMaster);
                self.unbind(tell)?;
            }
            Order::LeaveOpen => {
                tell(Step::LeftOpen);
                std::mem::forget(self);
                return Ok(());
            }
        }
        let vdevice = self.vdevice;
        self.give_back(Some(vdevice), tell)
    }

    /// Takes down what was built, in reverse.
    fn give_back(self, vdevice: Option<u32>, tell: &mut dyn FnMut(Step)) -> Result<(), Failure> {
        let Self { host, device, memory, hwpt, viommu, .. } = self;
        if let Some(vdevice) = vdevice {
            destroy(&host, "vdevice", vdevice, tell)?;
        }
        destroy(&host, "viommu", viommu, tell)?;
        device.detach_hwpt().map_err(vfio("detach the device"))?;
        tell(Step::Detached);
        destroy(&host, "hwpt", hwpt, tell)?;
        unmap(&host, tell)?;
        drop((device, memory, host));
        tell(Step::Closed);
        Ok(())
    }

    fn unbind(&self, tell: &mut dyn FnMut(Step)) -> Result<(), Failure> {
        self.operate(UNBIND).map_err(tsm("unbind the TDI"))?;
        tell(Step::UnboundTdi);
        Ok(())
    }

    /// Closes the device's file under the bound vdevice, and sees that the vdevice ended with it.
    fn close_device(self, tell: &mut dyn FnMut(Step)) -> Result<(), Failure> {
        let Self { host, device, memory, hwpt, viommu, vdevice } = self;
        drop(device);
        tell(Step::ClosedDevice);
        let mut argument = Destroy { size: size_of_u32::<Destroy>(), id: vdevice };
        let refused = command(host.iommufd(), DESTROY, &mut argument);
        let what = "destroying the vdevice, a tombstone now";
        expect_errno(what, refused, libc::ENOENT, "ENOENT", tell)?;
        destroy(&host, "viommu", viommu, tell)?;
        destroy(&host, "hwpt", hwpt, tell)?;
        unmap(&host, tell)?;
        drop((memory, host));
        tell(Step::Closed);
        Ok(())
    }

    fn operate(&self, operation: u32) -> io::Result<u32> {
        let mut argument =
            TsmOp { size: size_of_u32::<TsmOp>(), operation, flags: 0, vdevice_id: self.vdevice };
        command(self.host.iommufd(), TSM_OP, &mut argument)
    }

    fn set_state(&self, state: u32) -> io::Result<u32> {
        self.request(SET_TDI_STATE, &state.to_le_bytes(), &mut [])
    }

    /// All of the interface report. The answer's length comes back as what was left of the room.
    fn read_report(&self) -> io::Result<Vec<u8>> {
        let mut size = [0; 4];
        self.request(OBJECT_INFO, &INTERFACE_REPORT.to_le_bytes(), &mut size)?;
        let mut report = vec![0; u32::from_le_bytes(size) as usize];
        let mut ask = [0; 16];
        ask[..4].copy_from_slice(&INTERFACE_REPORT.to_le_bytes());
        let unused = self.request(READ_OBJECT, &ask, &mut report)?;
        report.truncate(report.len().saturating_sub(unused as usize));
        Ok(report)
    }

    fn request(&self, operation: u32, request: &[u8], response: &mut [u8]) -> io::Result<u32> {
        let mut argument = TsmReq {
            size: size_of_u32::<TsmReq>(),
            vdevice_id: self.vdevice,
            operation,
            tvm_arch: CCA,
            request_length: u32::try_from(request.len()).unwrap_or(u32::MAX),
            response_length: u32::try_from(response.len()).unwrap_or(u32::MAX),
            request: request.as_ptr() as u64,
            response: response.as_mut_ptr() as u64,
            tsm_code: 0,
        };
        command(self.host.iommufd(), TSM_REQ, &mut argument)
    }
}

fn destroy(
    host: &VfioIommufd,
    object: &'static str,
    id: u32,
    tell: &mut dyn FnMut(Step),
) -> Result<(), Failure> {
    host.iommufd().destroy_iommu_object(id).map_err(iommufd("destroy an object"))?;
    tell(Step::Destroyed { object: object.to_owned(), id });
    Ok(())
}

fn unmap(host: &VfioIommufd, tell: &mut dyn FnMut(Step)) -> Result<(), Failure> {
    host.vfio_dma_unmap(IOVA, MEMORY_LENGTH).map_err(vfio("unmap memory"))?;
    tell(Step::Unmapped { length_bytes: MEMORY_LENGTH as u64 });
    Ok(())
}

/// Lets the TSM talk to the device's security manager, unless it does.
fn connect(device: &Path, tell: &mut dyn FnMut(Step)) -> Result<(), Failure> {
    let read = |name: &str| fs::read_to_string(device.join(name));
    if connected_tsm(device)?.is_empty() {
        let written = fs::write(device.join("tsm/connect"), "tsm0");
        written.map_err(system("connect the TSM"))?;
    }
    let dsm = read("tsm/dsm").map_err(system("read which device has the security manager"))?;
    tell(Step::Connected { dsm: dsm.trim().to_owned() });
    Ok(())
}

fn connected_tsm(device: &Path) -> Result<String, Failure> {
    let shown = fs::read_to_string(device.join("tsm/connect"));
    Ok(shown.map_err(system("read which TSM is connected"))?.trim().to_owned())
}

/// A vIOMMU over a nesting parent, and the device behind it.
fn make_vdevice(
    host: &VfioIommufd,
    device: &VfioDevice,
    tell: &mut dyn FnMut(Step),
) -> Result<[u32; 3], Failure> {
    let dev_id = device.iommufd_dev_id().unwrap_or_default();
    let mut table = iommu_hwpt_alloc {
        size: size_of_u32::<iommu_hwpt_alloc>(),
        flags: iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_NEST_PARENT,
        dev_id,
        pt_id: host.ioas().id(),
        ..Default::default()
    };
    host.iommufd().alloc_iommu_hwpt(&mut table).map_err(iommufd("allocate a page table"))?;
    let hwpt = table.out_hwpt_id;
    device.attach_hwpt(hwpt).map_err(vfio("attach the device to the page table"))?;
    let mut viommu = iommu_viommu_alloc {
        size: size_of_u32::<iommu_viommu_alloc>(),
        type_: iommu_viommu_type_IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
        dev_id,
        hwpt_id: hwpt,
        ..Default::default()
    };
    host.iommufd().alloc_iommu_viommu(&mut viommu).map_err(iommufd("allocate a vIOMMU"))?;
    let viommu = viommu.out_viommu_id;
    let mut vdevice = iommu_vdevice_alloc {
        size: size_of_u32::<iommu_vdevice_alloc>(),
        viommu_id: viommu,
        dev_id,
        virt_id: GUEST_REQUESTER_ID,
        ..Default::default()
    };
    host.iommufd().alloc_iommu_vdevice(&mut vdevice).map_err(iommufd("allocate a vdevice"))?;
    let vdevice = vdevice.out_vdevice_id;
    tell(Step::MadeVdevice { hwpt, viommu, vdevice });
    Ok([hwpt, viommu, vdevice])
}

fn expect_errno(
    what: &'static str,
    answer: io::Result<u32>,
    errno: i32,
    name: &'static str,
    tell: &mut dyn FnMut(Step),
) -> Result<(), Failure> {
    match answer {
        Err(error) if error.raw_os_error() == Some(errno) => {
            tell(Step::Refused { what: what.to_owned(), errno: name.to_owned() });
            Ok(())
        }
        Ok(value) => Err(Failure::NotRefused { what, found: value.to_string(), expected: name }),
        Err(error) => Err(Failure::NotRefused { what, found: error.to_string(), expected: name }),
    }
}

fn tsm(doing: &'static str) -> impl Fn(io::Error) -> Failure {
    move |cause| Failure::Tsm { doing, cause }
}

/// `_IO(';', number)`.
const fn number(number: u64) -> u64 {
    0x3b00 | number
}

/// `IOMMU_DESTROY`.
const DESTROY: u64 = number(0x80);
/// `IOMMU_VDEVICE_TSM_OP`.
const TSM_OP: u64 = number(0x95);
/// `IOMMU_VDEVICE_TSM_REQ`.
const TSM_REQ: u64 = number(0x96);

/// Operations of [`TSM_OP`].
const BIND: u32 = 1;
const UNBIND: u32 = 2;

/// Operations of [`TSM_REQ`].
const SET_TDI_STATE: u32 = 2;
const READ_OBJECT: u32 = 5;
const OBJECT_INFO: u32 = 7;
/// Whose guest asks: Arm CCA's.
const CCA: u32 = 1;
/// States as [`SET_TDI_STATE`] numbers them.
const LOCKED: u32 = 1;
const RUN: u32 = 2;
/// The object that is the interface report.
const INTERFACE_REPORT: u32 = 3;
/// Where the report counts its memory ranges.
const RANGE_COUNT: usize = 12;

#[repr(C)]
#[derive(Clone, Copy)]
struct Destroy {
    size: u32,
    id: u32,
}

#[repr(C)]
struct TsmOp {
    size: u32,
    operation: u32,
    flags: u32,
    vdevice_id: u32,
}

#[repr(C)]
struct TsmReq {
    size: u32,
    vdevice_id: u32,
    operation: u32,
    tvm_arch: u32,
    request_length: u32,
    response_length: u32,
    request: u64,
    response: u64,
    tsm_code: u64,
}

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// Runs a command on its struct; what it answers may be more than 0.
fn command<T>(iommu: &IommuFd, request: u64, argument: &mut T) -> io::Result<u32> {
    // SAFETY: each request above comes with the struct that it takes, whose first field is its size; the
    // buffers that the struct names outlive the call.
    let answer = unsafe { libc::ioctl(iommu.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    u32::try_from(answer).map_err(|_| io::Error::last_os_error())
}
