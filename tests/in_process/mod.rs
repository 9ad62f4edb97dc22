//! A client in this process: the calls of a VMM on a whole machine, without a program and its supervisor.

#![expect(dead_code, reason = "each test target uses its own part of this module")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use iommufd::{Context, ContextSettings};
use mem::Pages;
use pci::{Address, DmaFault, Interrupt, Notices};
use scenario::call_memory::{CallMemory, IOMMUFD};
use supervisor::Platform;
use supervisor::machine::{Assignable, Machine};
use tdisp::State;
use tsm::Binding;
use uapi::iommufd::{
    Destroy, HwptAlloc, IoasAlloc, TsmOp, TsmReq, VdeviceAlloc, ViommuAlloc, hwpt_flags, tsm_op,
    tsm_request, tvm_arch, viommu_type,
};
use uapi::vfio::{AttachIommufdPt, BindIommufd, DetachIommufdPt, region_index};
use uapi::{Command, CommandId, Errno};
use vfio::{BarPages, DeviceFile};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What a call answers.
pub(crate) type Answer = Result<u32, Errno>;

/// The PF of the default platform that has a security manager, and its VFs.
pub(crate) const PF: usize = 0;
pub(crate) const VF1: usize = 1;
pub(crate) const VF2: usize = 2;

/// A machine whose devices are not assigned to anybody yet.
pub(crate) struct Stand {
    pub(crate) machine: Machine,
}

struct Silent;

impl Notices for Silent {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}
    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}

impl Stand {
    /// The default platform.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The default platform with other settings: lines of `[settings]`.
    pub(crate) fn with(settings: &str) -> Self {
        let (_, functions) = supervisor::DEFAULT_TOML.split_once("# ---- The IOMMU").unwrap();
        let text = format!("[settings]\n{settings}\n# {functions}");
        let platform = Platform::parse("test", &text).unwrap();
        let machine = Machine::build(&platform, Arc::new(Silent));
        machine.clock.start().unwrap();
        Self { machine }
    }

    /// The same with the first device connected to its TSM.
    pub(crate) fn connected(settings: &str) -> Self {
        let stand = Self::with(settings);
        stand.connect();
        stand
    }

    pub(crate) fn connect(&self) {
        self.machine.tsm.connect(self.address(PF), b"tsm0").unwrap();
    }

    pub(crate) fn disconnect(&self) -> Result<(), Errno> {
        let disconnected = self.machine.tsm.disconnect(self.address(PF), b"tsm0");
        disconnected.map_err(|refusal| refusal.errno())
    }

    pub(crate) fn address(&self, number: usize) -> Address {
        self.machine.devices[number].address
    }

    pub(crate) fn fault(&self, number: usize, fault: &str) {
        self.machine.tsm.set_fault(self.address(number), fault.parse().unwrap());
    }

    pub(crate) fn binding(&self, number: usize) -> Binding {
        self.machine.tsm.binding(self.address(number))
    }

    /// The state as the device itself has it.
    pub(crate) fn state(&self, number: usize) -> State {
        let address = self.address(number);
        let requester_id = u16::from(address.bus) << 8 | u16::from(address.devfn());
        let manager = self.machine.devices[number].security.as_ref().expect("a TEE device");
        manager.state(requester_id).expect("it knows its functions")
    }

    /// Backend binds and unbinds so far.
    pub(crate) fn binds(&self) -> (u64, u64) {
        let counters = self.machine.tsm.counters();
        (counters.binds, counters.unbinds)
    }

    /// Looks that nothing is bound and that each bind was followed by one unbind.
    pub(crate) fn assert_clean(&self) {
        let (binds, unbinds) = self.binds();
        assert_eq!(binds, unbinds, "one unbind a bind");
        for connection in self.machine.tsm.ledger() {
            assert_eq!((connection.waiting, connection.running), (0, None));
            for tdi in connection.tdis {
                assert!(!tdi.host.is_bound(), "{} is left {}", tdi.function, tdi.host);
                assert_eq!(tdi.mappings, 0);
            }
        }
    }

    /// Opens a device's file.
    pub(crate) fn open(&self, number: usize) -> Arc<DeviceFile> {
        let device = &self.machine.devices[number];
        DeviceFile::open(&device.vfio, Self::bar_pages(device)).unwrap()
    }

    fn bar_pages(device: &Assignable) -> BarPages {
        std::array::from_fn(|index| {
            let bar = device.function.bar(index).filter(|bar| !bar.mappable.is_empty())?;
            Some(Arc::new(Pages::anonymous(usize::try_from(bar.size).unwrap()).unwrap()))
        })
    }
}

/// A client with its `/dev/iommu`.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) context: Arc<Context>,
    ioas: u32,
}

/// A device file of a client, bound.
pub(crate) struct Device {
    pub(crate) file: Arc<DeviceFile>,
    pub(crate) id: u32,
}

/// A vdevice and what it stands on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vdevice {
    pub(crate) hwpt: u32,
    pub(crate) viommu: u32,
    pub(crate) id: u32,
}

impl Client {
    pub(crate) fn open(stand: &Stand) -> Self {
        let settings = &stand.machine.settings;
        let context =
            Context::open_with(ContextSettings { profile: settings.uapi, tvm: settings.tvm });
        let mut client = Self { context, ioas: 0 };
        let mut ioas = IoasAlloc { size: size_of_u32::<IoasAlloc>(), ..Default::default() };
        client.call(CommandId::IoasAlloc, &mut ioas).unwrap();
        client.ioas = ioas.out_ioas_id;
        client
    }

    /// Runs a command of `/dev/iommu` as long as the file is open.
    pub(crate) fn call<T: FromBytes + IntoBytes + Immutable>(
        &self,
        id: CommandId,
        argument: &mut T,
    ) -> Answer {
        let memory = CallMemory::default();
        let request = Command::of(id).request;
        memory.exchange(argument, |at| self.context.ioctl(&memory, request, at))
    }

    /// The last close of `/dev/iommu`.
    pub(crate) fn close(self) {
        self.context.cancel_commands();
        self.context.put_file();
    }

    pub(crate) fn device(&self, stand: &Stand, number: usize) -> Device {
        self.bind(stand.open(number))
    }

    pub(crate) fn bind(&self, file: Arc<DeviceFile>) -> Device {
        let memory = CallMemory::naming(Arc::clone(&self.context));
        let mut bind = BindIommufd { argsz: 16, iommufd: IOMMUFD, ..Default::default() };
        let request = Command::of(CommandId::DeviceBindIommufd).request;
        memory.exchange(&mut bind, |at| file.ioctl(&memory, request, at)).unwrap();
        Device { file, id: bind.out_devid }
    }

    /// A page table that can be a vIOMMU's, a vIOMMU on it, and the device behind it.
    pub(crate) fn vdevice(&self, device: &Device, guest_id: u64) -> Vdevice {
        let viommu = self.viommu(device, viommu_type::ARM_SMMUV3).unwrap();
        let id = self.vdevice_alloc(viommu.viommu, device, guest_id).unwrap();
        Vdevice { id, ..viommu }
    }

    /// A vIOMMU of a type, without a vdevice.
    pub(crate) fn viommu(&self, device: &Device, kind: u32) -> Result<Vdevice, Errno> {
        let mut table = HwptAlloc {
            size: size_of_u32::<HwptAlloc>(),
            flags: hwpt_flags::NEST_PARENT,
            dev_id: device.id,
            pt_id: self.ioas,
            ..Default::default()
        };
        self.call(CommandId::HwptAlloc, &mut table)?;
        let mut viommu = ViommuAlloc {
            size: size_of_u32::<ViommuAlloc>(),
            r#type: kind,
            dev_id: device.id,
            hwpt_id: table.out_hwpt_id,
            ..Default::default()
        };
        self.call(CommandId::ViommuAlloc, &mut viommu)?;
        Ok(Vdevice { hwpt: table.out_hwpt_id, viommu: viommu.out_viommu_id, id: 0 })
    }

    pub(crate) fn vdevice_alloc(
        &self,
        viommu: u32,
        device: &Device,
        guest_id: u64,
    ) -> Result<u32, Errno> {
        let mut vdevice = VdeviceAlloc {
            size: size_of_u32::<VdeviceAlloc>(),
            viommu_id: viommu,
            dev_id: device.id,
            virt_id: guest_id,
            ..Default::default()
        };
        self.call(CommandId::VdeviceAlloc, &mut vdevice)?;
        Ok(vdevice.out_vdevice_id)
    }

    pub(crate) fn destroy(&self, id: u32) -> Answer {
        let mut destroy = Destroy { size: size_of_u32::<Destroy>(), id };
        self.call(CommandId::Destroy, &mut destroy)
    }

    pub(crate) fn tsm_bind(&self, vdevice: u32) -> Answer {
        self.operate(tsm_op::BIND, vdevice)
    }

    pub(crate) fn tsm_unbind(&self, vdevice: u32) -> Answer {
        self.operate(tsm_op::UNBIND, vdevice)
    }

    fn operate(&self, operation: u32, vdevice_id: u32) -> Answer {
        let mut op = TsmOp { size: size_of_u32::<TsmOp>(), vdevice_id, ..Default::default() };
        op.r#type = operation;
        self.call(CommandId::VdeviceTsmOp, &mut op)
    }

    /// SET_TDI_STATE.
    pub(crate) fn set_state(&self, vdevice: u32, state: State) -> Answer {
        let state = u32::from(state as u8).to_le_bytes();
        self.request(vdevice, tsm_request::SET_TDI_STATE, &state, 0).map(|(rest, _)| rest)
    }

    pub(crate) fn lock(&self, vdevice: u32) -> Answer {
        self.set_state(vdevice, State::Locked)
    }

    pub(crate) fn run(&self, vdevice: u32) -> Answer {
        self.set_state(vdevice, State::Run)
    }

    /// A guest's request; answers what was left over, and the response.
    pub(crate) fn request(
        &self,
        vdevice_id: u32,
        op: u32,
        payload: &[u8],
        room: u32,
    ) -> Result<(u32, Vec<u8>), Errno> {
        let memory = CallMemory::default();
        let request_at = memory.put(payload);
        let response_at = memory.put(&vec![0; room as usize]);
        let mut argument = TsmReq {
            size: size_of_u32::<TsmReq>(),
            vdevice_id,
            op,
            tvm_arch: tvm_arch::CCA,
            req_len: u32::try_from(payload.len()).unwrap(),
            resp_len: room,
            req_uptr: request_at,
            resp_uptr: response_at,
            ..Default::default()
        };
        let number = Command::of(CommandId::VdeviceTsmReq).request;
        let rest = memory.exchange(&mut argument, |at| self.context.ioctl(&memory, number, at))?;
        Ok((rest, memory.take(response_at)))
    }

    /// Attaches a device to the IOAS.
    pub(crate) fn attach(&self, device: &Device) -> Answer {
        let mut attach = AttachIommufdPt { argsz: 12, pt_id: self.ioas, ..Default::default() };
        device.call(CommandId::DeviceAttachIommufdPt, &mut attach)
    }
}

impl Device {
    /// Runs a command of the device file.
    pub(crate) fn call<T: FromBytes + IntoBytes + Immutable>(
        &self,
        id: CommandId,
        argument: &mut T,
    ) -> Answer {
        let memory = CallMemory::default();
        let request = Command::of(id).request;
        memory.exchange(argument, |at| self.file.ioctl(&memory, request, at))
    }

    pub(crate) fn detach(&self) -> Answer {
        let mut detach = DetachIommufdPt { argsz: 8, ..Default::default() };
        self.call(CommandId::DeviceDetachIommufdPt, &mut detach)
    }

    /// VFIO_DEVICE_RESET.
    pub(crate) fn reset(&self) -> Answer {
        self.call(CommandId::DeviceReset, &mut [0_u8; 4])
    }

    pub(crate) fn config_read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let memory = CallMemory::default();
        let at = memory.put(&[0; N]);
        self.file.read(&memory, at, N as u64, config_position(offset)).unwrap();
        memory.take(at).try_into().unwrap()
    }

    pub(crate) fn config_write(&self, offset: u64, bytes: &[u8]) {
        let memory = CallMemory::default();
        let at = memory.put(bytes);
        self.file.write(&memory, at, bytes.len() as u64, config_position(offset)).unwrap();
    }

    /// Sets or clears bits of the command register.
    pub(crate) fn change_command(&self, set: u16, clear: u16) {
        let command = u16::from_le_bytes(self.config_read(COMMAND));
        self.config_write(COMMAND, &(command & !clear | set).to_le_bytes());
    }

    /// Enables memory decoding and bus master: what LOCK wants.
    pub(crate) fn enable(&self) {
        self.change_command(MEMORY | BUS_MASTER, 0);
    }

    /// The last close.
    pub(crate) fn close(self) {
        self.file.release();
    }
}

/// The command register and bits of it.
pub(crate) const COMMAND: u64 = 4;
pub(crate) const MEMORY: u16 = 1 << 1;
pub(crate) const BUS_MASTER: u16 = 1 << 2;

fn config_position(offset: u64) -> u64 {
    vfio::REGION_BASE + (u64::from(region_index::CONFIG) << vfio::REGION_SHIFT) + offset
}

pub(crate) fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap()
}

/// Waits until `done`, which another thread is about to make true.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never came true");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What no close and no disconnect may take longer than.
pub(crate) const BOUND: Duration = Duration::from_secs(2);

/// Runs something that nobody can refuse, and looks that it takes no longer than it may.
pub(crate) fn bounded<T>(what: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = what();
    assert!(begun.elapsed() <= BOUND, "took {:?}", begun.elapsed());
    result
}
