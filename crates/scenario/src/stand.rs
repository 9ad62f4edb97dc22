//! One machine of the shipped crates, in this process and the same each time: what a scenario's calls are made
//! on.
//!
//! A device of three functions (`dev0` is the physical one, which the TSM is connected to), a program with
//! `/dev/iommu`, an address space, and for each function that the scenario names its device file, vIOMMU and
//! vdevice. No supervisor, no threads, no clock: deadlines are the explorer's to fire. Faults and policies are
//! settings; a fault strikes what the threads do, not the set-up.
//!
//! # What must hold
//!
//! [`Stand::check`] and some calls panic where it does not, with a text that begins with the invariant's number:
//! I1 nothing is bound after VFIO's close returned; I2 device and vdevice agree that they are linked; I3 one
//! unbind per bind, as the TSM sees it too; I5 an id that was taken from a program names nothing else; I7 a close by
//! the default order breaks no TDI, and takes no page table from under a function that may do DMA; I9 host and device agree on the TDI's state, or the host says that it does not know; and that a
//! device reaches no page after its unmap. I4 is `sync::Life`'s, I8 is that no thread waits for ever, I6 is
//! asserted by `sync` in debug builds.
//!
//! Takes no lock itself; one leaf for the VM's descriptor, one for what is mapped.

mod card;
mod invariants;
mod open_file;
mod page;
mod set_up;
mod settings;
mod vm;
mod witness;

use std::sync::Arc;

use iommufd::{Context, ContextSettings};
use pci::regs::{command, header};
use sync::{Mutex, Named, Refcount};
use tdisp::State;
use tsm::Registry;
use uapi::iommufd::{
    Destroy, IoasAlloc, IoasMap, IoasUnmap, TsmOp, TsmReq, VdeviceAlloc, map_flags, tsm_op,
    tsm_request, tvm_arch,
};
use uapi::vfio::{AttachIommufdPt, DetachIommufdPt, TsmBind, TsmUnbind, region_index};
use uapi::{Command, CommandId, Errno, Profile};
use vfio::DeviceFile;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use self::card::{Card, Engine};
use self::open_file::{Child, ChildLock, OpenFile, Process};
use self::page::{Mapped, Memory, Page};
use self::set_up::{connected, made};
pub use self::settings::StandSettings;
use self::vm::{Descriptors, Vm};
use crate::call_memory::CallMemory;
use crate::script::Outcome;
use crate::words::{Call, Verb};

/// Functions that scenarios can name.
pub const DEVICES_MAX: usize = card::FUNCTIONS;

/// The machine and the program on it.
pub struct Stand {
    settings: StandSettings,
    registry: Arc<Registry>,
    card: Arc<Card>,
    iommu: OpenFile,
    context: Arc<Context>,
    ioas: u32,
    devices: Vec<Device>,
    vm: Descriptors,
    /// One child at a time.
    child: Mutex<ChildLock, Child>,
    mapped: Mapped,
}

/// A function, its file, and what was made for it.
struct Device {
    engine: Arc<Engine>,
    vfio: Arc<vfio::Device>,
    opened: OpenFile,
    file: Arc<DeviceFile>,
    id: u32,
    viommu: u32,
    vdevice: u32,
    /// One until the program asks for the vdevice's end.
    vdevice_kept: Refcount,
}

type Answer = Result<(), Errno>;

impl Stand {
    /// A machine with `devices` functions, each open in the program with a vdevice made for it.
    ///
    /// # Panics
    /// If the machine cannot be made so: a fault of the settings, told in words.
    pub fn open(settings: &StandSettings, devices: usize) -> Self {
        let card = Card::new(settings.flr_while_locked);
        let registry = connected(&card);
        let context =
            Context::open_plain(ContextSettings { profile: settings.profile, tvm: settings.tvm });
        let ioas = made(&context, CommandId::IoasAlloc, IoasAlloc::default()).out_ioas_id;
        let vm = settings.with_vm.then(Vm::new);
        let mut stand = Self {
            settings: settings.clone(),
            registry,
            card,
            iommu: OpenFile::new(settings.forks, || "iommu".to_owned()),
            context,
            ioas,
            devices: Vec::new(),
            vm: vm::descriptors(vm),
            child: Mutex::new(Child::None).named("", || "child".to_owned()),
            mapped: Mapped::new(),
        };
        for number in 0..devices.clamp(1, DEVICES_MAX) {
            let device = stand.device(number);
            stand.devices.push(device);
        }
        stand
    }

    /// What objects are called that programs know by an id or an address: as in scenarios.
    pub fn roles(&self) -> Vec<(String, String)> {
        let of_device = |(number, device): (usize, &Device)| {
            let Device { id, viommu, vdevice, .. } = device;
            let function = device.vfio.address();
            [
                (format!("device{id}"), format!("dev{number}")),
                (format!("viommu{viommu}"), format!("viommu{number}")),
                (format!("vdevice{vdevice}"), format!("vdev{number}")),
                (format!("vfio-{function}"), format!("vfio{number}")),
            ]
        };
        let ioas = [(format!("ioas{}", self.ioas), "ioas".to_owned())];
        self.devices.iter().enumerate().flat_map(of_device).chain(ioas).collect()
    }

    /// Lets the faults of the settings strike from now on.
    pub fn begin(&self) {
        for fault in &self.settings.faults {
            for number in 0..self.devices.len() {
                self.registry.set_fault(card::address(number), *fault);
            }
        }
    }

    /// Makes a call.
    pub fn call(&self, call: Call) -> Outcome {
        Outcome::from(self.answer(call).map(|()| 0))
    }

    fn answer(&self, call: Call) -> Answer {
        let number = call.number;
        let function = card::address(number);
        let Some(device) = self.devices.get(number) else { return Err(Errno::ENODEV) };
        match call.verb {
            Verb::TsmBind => self.tsm_bind(device),
            Verb::TsmUnbind => self.tsm_unbind(device),
            Verb::TsmLock => self.set_state(device, State::Locked),
            Verb::TsmRun => self.set_state(device, State::Run),
            Verb::DestroyVdevice => {
                device.vdevice_kept.dec_if_one();
                self.destroy(device.vdevice)
            }
            Verb::DestroyViommu => self.destroy(device.viommu),
            Verb::VdeviceAlloc => self.vdevice_alloc(number, device).map(|_| ()),
            Verb::IoasAlloc => self.ioas_alloc().map(|_| ()),
            Verb::CloseVfio => self.close_vfio(Process::Program, number, device),
            Verb::CloseIommu => self.close_iommu(Process::Program),
            Verb::CloseVm => self.close_vm(Process::Program),
            Verb::Fork => self.fork(),
            Verb::ExitChild => self.exit_child(),
            Verb::TsmConnect => {
                self.registry.connect(function, TSM).map_err(|refusal| refusal.errno())
            }
            Verb::TsmDisconnect => {
                self.registry.disconnect(function, TSM).map_err(|refusal| refusal.errno())
            }
            Verb::Remove => {
                self.registry.remove(function);
                Ok(())
            }
            Verb::Reset => device.run(CommandId::DeviceReset, [0_u8; 4]),
            Verb::ClearBusMaster => device.change_command(0, command::BUS_MASTER),
            Verb::Attach => device.run(
                CommandId::DeviceAttachIommufdPt,
                AttachIommufdPt { argsz: 12, pt_id: self.ioas, ..Default::default() },
            ),
            Verb::Detach => device.run(
                CommandId::DeviceDetachIommufdPt,
                DetachIommufdPt { argsz: 8, ..Default::default() },
            ),
            Verb::Map => self.map(),
            Verb::Unmap => self.unmap(),
            Verb::Dma => device.engine.dma(IOVA).map_err(|_| Errno::EFAULT),
        }
    }

    fn tsm_bind(&self, device: &Device) -> Answer {
        if self.settings.profile == Profile::Rfc2025_05 {
            let bind = TsmBind { argsz: 16, vdevice_id: device.vdevice, ..Default::default() };
            return device.run(CommandId::DeviceTsmBind, bind);
        }
        self.tsm_op(tsm_op::BIND, device)
    }

    fn tsm_unbind(&self, device: &Device) -> Answer {
        if self.settings.profile == Profile::Rfc2025_05 {
            let unbind = TsmUnbind { argsz: 8, ..Default::default() };
            return device.run(CommandId::DeviceTsmUnbind, unbind);
        }
        self.tsm_op(tsm_op::UNBIND, device)
    }

    fn tsm_op(&self, r#type: u32, device: &Device) -> Answer {
        let argument = TsmOp { r#type, vdevice_id: device.vdevice, ..Default::default() };
        self.command(CommandId::VdeviceTsmOp, argument).map(|_| ())
    }

    /// SET_TDI_STATE.
    fn set_state(&self, device: &Device, state: State) -> Answer {
        let memory = CallMemory::default();
        let payload = u32::from(state as u8).to_le_bytes();
        let mut argument = TsmReq {
            size: size_u32::<TsmReq>(),
            vdevice_id: device.vdevice,
            op: tsm_request::SET_TDI_STATE,
            tvm_arch: tvm_arch::CCA,
            req_len: 4,
            req_uptr: memory.put(&payload),
            ..Default::default()
        };
        let request = Command::of(CommandId::VdeviceTsmReq).request;
        self.iommu.run(|| {
            memory
                .exchange(&mut argument, |at| self.context.ioctl(&memory, request, at))
                .map(|_| ())
        })
    }

    fn destroy(&self, id: u32) -> Answer {
        self.command(CommandId::Destroy, Destroy { id, ..Default::default() }).map(|_| ())
    }

    fn vdevice_alloc(&self, number: usize, device: &Device) -> Result<u32, Errno> {
        let argument = VdeviceAlloc {
            viommu_id: device.viommu,
            dev_id: device.id,
            virt_id: 0x100 + number as u64,
            ..Default::default()
        };
        self.command(CommandId::VdeviceAlloc, argument).map(|made| made.out_vdevice_id)
    }

    /// Makes an address space; the lowest free id is its.
    fn ioas_alloc(&self) -> Result<u32, Errno> {
        let made = self.command(CommandId::IoasAlloc, IoasAlloc::default())?;
        for (number, device) in self.devices.iter().enumerate() {
            let is_kept = made.out_ioas_id == device.vdevice && device.vdevice_kept.read() == 1;
            assert!(!is_kept, "I5: the id of vdev{number}, which the program has, names an IOAS");
        }
        Ok(made.out_ioas_id)
    }

    fn close_vfio(&self, by: Process, number: usize, device: &Device) -> Answer {
        if device.opened.close(by, || ())? {
            device.file.release();
            device.engine.close_returned();
            let host = self.registry.binding(card::address(number));
            assert!(!host.is_bound(), "I1: vfio{number} is closed and the host says {host}");
        }
        Ok(())
    }

    fn close_iommu(&self, by: Process) -> Answer {
        if self.iommu.close(by, || self.context.cancel_commands())? {
            self.context.put_file();
        }
        Ok(())
    }

    fn close_vm(&self, by: Process) -> Answer {
        let mut descriptors = self.vm.lock();
        let found = descriptors.iter().position(|(process, _)| *process == by);
        let closed = found.map(|index| descriptors.remove(index));
        drop(descriptors);
        closed.map(drop).ok_or(Errno::EBADF)
    }

    /// A child gets all that is open, one file after the other.
    fn fork(&self) -> Answer {
        self.child_from(Child::None, Child::Runs).ok_or(Errno::EAGAIN)?;
        self.iommu.fork();
        let mut descriptors = self.vm.lock();
        let of_child = descriptors.first().map(|(_, vm)| (Process::Child, Arc::clone(vm)));
        descriptors.extend(of_child);
        drop(descriptors);
        for device in &self.devices {
            device.opened.fork();
        }
        Ok(())
    }

    /// Closes what the child has, in the order in which it was opened.
    fn exit_child(&self) -> Answer {
        self.child_from(Child::Runs, Child::Exits).ok_or(Errno::ECHILD)?;
        // Closed, or not there to be got, is as good.
        let _ = self.close_iommu(Process::Child);
        let _ = self.close_vm(Process::Child);
        for (number, device) in self.devices.iter().enumerate() {
            let _ = self.close_vfio(Process::Child, number, device);
        }
        let gone = self.child_from(Child::Exits, Child::None);
        gone.ok_or(Errno::ECHILD)
    }

    fn child_from(&self, from: Child, to: Child) -> Option<()> {
        let mut child = self.child.lock();
        (*child == from).then(|| *child = to)
    }

    fn map(&self) -> Answer {
        let page = Page::new();
        let memory = CallMemory::mapping(Arc::new(Memory(Arc::clone(&page))));
        let mut argument = IoasMap {
            size: size_u32::<IoasMap>(),
            flags: map_flags::FIXED_IOVA | map_flags::READABLE | map_flags::WRITEABLE,
            ioas_id: self.ioas,
            user_va: 0x1000,
            length: PAGE_BYTES,
            iova: IOVA,
            ..Default::default()
        };
        let request = Command::of(CommandId::IoasMap).request;
        self.iommu.run(|| {
            memory.exchange(&mut argument, |at| self.context.ioctl(&memory, request, at))
        })?;
        self.mapped.add(page);
        Ok(())
    }

    fn unmap(&self) -> Answer {
        let pages = self.mapped.now();
        let argument =
            IoasUnmap { ioas_id: self.ioas, iova: IOVA, length: PAGE_BYTES, ..Default::default() };
        self.command(CommandId::IoasUnmap, argument)?;
        self.mapped.end(pages);
        Ok(())
    }

    /// Runs a command of `/dev/iommu`.
    fn command<T: IntoBytes + Immutable + FromBytes>(
        &self,
        id: CommandId,
        argument: T,
    ) -> Result<T, Errno> {
        self.iommu.run(|| ioctl(&self.context, id, argument))
    }
}

impl Device {
    /// Runs a command of the device file.
    fn run<T: FromBytes + IntoBytes + Immutable>(&self, id: CommandId, mut argument: T) -> Answer {
        if !self.opened.is_the_programs() {
            return Err(Errno::EBADF);
        }
        let memory = CallMemory::default();
        let request = Command::of(id).request;
        memory.exchange(&mut argument, |at| self.file.ioctl(&memory, request, at)).map(|_| ())
    }

    /// Sets and clears bits of the command register.
    fn change_command(&self, set: u16, clear: u16) -> Answer {
        if !self.opened.is_the_programs() {
            return Err(Errno::EBADF);
        }
        let position = vfio::REGION_BASE
            + (u64::from(region_index::CONFIG) << vfio::REGION_SHIFT)
            + u64::from(header::COMMAND);
        let memory = CallMemory::default();
        let at = memory.put(&[0; 2]);
        self.file.read(&memory, at, 2, position)?;
        let before = memory.take(at).first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes));
        let after = before & !clear | set;
        let at = memory.put(&after.to_le_bytes());
        self.file.write(&memory, at, 2, position).map(|_| ())
    }
}

/// Runs a command on `argument`, whose first field is its size.
fn ioctl<T: IntoBytes + Immutable + FromBytes>(
    context: &Arc<Context>,
    id: CommandId,
    argument: T,
) -> Result<T, Errno> {
    let memory = CallMemory::default();
    let mut bytes = argument.as_bytes().to_vec();
    if let Some(size) = bytes.first_chunk_mut() {
        *size = size_u32::<T>().to_ne_bytes();
    }
    let at = memory.put(&bytes);
    context.ioctl(&memory, Command::of(id).request, at)?;
    Ok(T::read_from_bytes(&memory.take(at)).unwrap_or(argument))
}

fn size_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// What the program writes to `tsm/connect`.
const TSM: &[u8] = b"tsm0";
/// Where `map` maps.
const IOVA: u64 = 0x10_0000;
const PAGE_BYTES: u64 = 4096;
