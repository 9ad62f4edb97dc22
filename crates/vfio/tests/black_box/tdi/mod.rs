//! Bound TDIs: binding them here, what they are kept from, and every way in which a file of theirs ends.

mod binding;
mod ends;
mod policies;
mod virtual_functions;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use device::dma_engine::regs::{bar0, register};
use device::dma_engine::{self, DmaEngine};
use iommufd::{Context, Vm};
use pci::regs::{cap_id, command, express, ext_id, header, pm, sriov};
use pci::{Address, Function, walk};
use sync::{Mutex, rank};
use tdisp::FunctionReset;
use tsm::{Binding, State, VmId};
use uapi::iommufd::{
    HwptAlloc, IoasAlloc, TsmOp, VdeviceAlloc, ViommuAlloc, hwpt_flags, tsm_op, viommu_type,
};
use uapi::vfio::{TsmBind, TsmUnbind, irq_index, irq_set};
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{
    ClientClearsBme, CloseOrder, DeviceSet, PolicyEvent, ResetCause, ResetWhileBound, Settings,
};

use crate::support::{
    ADDRESS, ARGUMENT, Client, Fake, Irqs, Session, Shape, Stand, Tee, Told, bind_argument,
    config_position, fds, iommu, position,
};

/// How long the end of a file may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// What the guest calls the device.
const GUEST_ID: u64 = 0x100;
const VIRTUAL: Address = match Address::new(0xb1d0, 2, 0, 1) {
    Some(address) => address,
    None => panic!("an address"),
};

/// A TEE-IO engine behind a device file.
struct Bench {
    stand: Stand<DmaEngine>,
    tee: Tee,
    told: Arc<Told>,
    changes: Arc<Mutex<rank::Irq, Vec<(State, State)>>>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self::with_flr(settings, FunctionReset::Unlocks)
    }

    fn with_flr(settings: Settings, flr: FunctionReset) -> Self {
        let engine = engine(dma_engine::Config { tee: true, ..dma_engine::Config::new(ADDRESS) });
        let tee = Tee::of(&[(engine.clone(), None)], flr);
        let told = Arc::new(Told::default());
        let stand = with_tee(engine, &settings, &told, &DeviceSet::new(true), &tee);
        let changes = watch(&tee);
        Self { stand, tee, told, changes }
    }

    /// A session whose TDI is bound, for a VM of its own.
    fn bound(&self) -> Session {
        let session = bound_session(&self.stand);
        let vdevice = make_vdevice(&session);
        assert_eq!(tsm_bind(&session, vdevice), Ok(0));
        session
    }

    /// A session whose TDI runs.
    fn running(&self) -> Session {
        let session = self.bound();
        self.tee.run(ADDRESS);
        self.changes.lock().clear();
        session
    }

    /// How the device's TDI changed since it ran.
    fn changes(&self) -> Vec<(State, State)> {
        std::mem::take(&mut *self.changes.lock())
    }

    fn is_fresh(&self, session: &Session) -> bool {
        scratch(session) == 0
    }
}

/// An engine that firmware has placed.
fn engine(config: dma_engine::Config) -> Arc<DmaEngine> {
    let engine = DmaEngine::new(&config);
    if !config.vf {
        engine.config_write(header::BAR0, &0x4000_0000_u32.to_le_bytes());
        engine.config_write(header::BAR0 + 8, &0x5000_0000_u32.to_le_bytes());
    }
    engine
}

fn with_tee<F: Function + 'static>(
    function: Arc<F>,
    settings: &Settings,
    told: &Arc<Told>,
    set: &Arc<DeviceSet>,
    tee: &Tee,
) -> Stand<F> {
    let profile = Profile::Rfc2025_05;
    let settings = Settings { profile, notices: Some(told.clone()), ..settings.clone() };
    Stand::with_tee(function, settings, set.clone(), iommu(), tee)
}

fn watch(tee: &Tee) -> Arc<Mutex<rank::Irq, Vec<(State, State)>>> {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let noted = changes.clone();
    tee.manager.watch(Arc::new(move |change| noted.lock().push((change.from, change.to))));
    changes
}

/// A bound file whose function decodes memory and is bus master.
fn bound_session<F: Function + 'static>(stand: &Stand<F>) -> Session {
    let context = Context::open(Profile::Rfc2025_05);
    let mut client = Client::new();
    let iommufd = client.open_iommufd(&context);
    let session = Session::bind_to(stand.open(), client, context, iommufd);
    session.set_config(header::COMMAND, &ENABLED.to_le_bytes());
    session
}

const ENABLED: u16 = command::MEMORY | command::BUS_MASTER;

fn make_vdevice(session: &Session) -> u32 {
    let mut ioas = IoasAlloc { size: 12, ..Default::default() };
    assert_eq!(session.iommu_call(CommandId::IoasAlloc, &mut ioas), Ok(0));
    let (dev_id, pt_id) = (session.device_id, ioas.out_ioas_id);
    let flags = hwpt_flags::NEST_PARENT;
    let mut hwpt = HwptAlloc { size: 48, flags, dev_id, pt_id, ..Default::default() };
    assert_eq!(session.iommu_call(CommandId::HwptAlloc, &mut hwpt), Ok(0));
    let mut viommu = ViommuAlloc {
        size: 40,
        r#type: viommu_type::ARM_SMMUV3,
        dev_id,
        hwpt_id: hwpt.out_hwpt_id,
        ..Default::default()
    };
    assert_eq!(session.iommu_call(CommandId::ViommuAlloc, &mut viommu), Ok(0));
    let viommu_id = viommu.out_viommu_id;
    let mut vdevice =
        VdeviceAlloc { size: 24, viommu_id, dev_id, virt_id: GUEST_ID, ..Default::default() };
    assert_eq!(session.iommu_call(CommandId::VdeviceAlloc, &mut vdevice), Ok(0));
    vdevice.out_vdevice_id
}

fn tsm_bind(session: &Session, vdevice_id: u32) -> Result<u32, Errno> {
    let mut bind = TsmBind { argsz: 16, vdevice_id, ..Default::default() };
    session.call(CommandId::DeviceTsmBind, &mut bind)
}

fn tsm_unbind(session: &Session) -> Result<u32, Errno> {
    let mut unbind = TsmUnbind { argsz: 8, ..Default::default() };
    session.call(CommandId::DeviceTsmUnbind, &mut unbind)
}

fn reset(session: &Session) -> Result<u32, Errno> {
    session.file.ioctl(&session.client, Command::of(CommandId::DeviceReset).request, 0)
}

fn hot_reset(session: &Session) -> Result<u32, Errno> {
    let mut bytes = [12_u32, 0, 0].map(u32::to_le_bytes).concat();
    session.call_bytes(CommandId::DevicePciHotReset, &mut bytes)
}

fn capability(session: &Session, id: u8) -> u16 {
    let read = |offset: u16, into: &mut [u8]| {
        let at = config_position(u64::from(offset));
        assert_eq!(session.read(at, into), Ok(into.len() as u64));
    };
    walk::capabilities(read).iter().find(|capability| capability.id == id).unwrap().offset
}

/// A function-level reset as a guest's driver does it.
fn write_flr(session: &Session) -> Result<u32, Errno> {
    let at = capability(session, cap_id::EXPRESS) + express::DEVCTL;
    let control = session.config_word(at) | express::INITIATE_FLR;
    session.set_config(at, &control.to_le_bytes());
    Ok(0)
}

fn write_power(session: &Session, state: u16) {
    let at = capability(session, cap_id::PM) + pm::CONTROL;
    session.set_config(at, &state.to_le_bytes());
}

fn power(session: &Session) -> u16 {
    session.config_word(capability(session, cap_id::PM) + pm::CONTROL) & pm::STATE
}

const SCRATCH: u64 = bar0::REGISTERS + register::SCRATCH;

fn scratch(session: &Session) -> u32 {
    let mut bytes = [0; 4];
    assert_eq!(session.read(position(0, SCRATCH), &mut bytes), Ok(4));
    u32::from_le_bytes(bytes)
}

fn set_scratch(session: &Session) {
    assert_eq!(session.write(position(0, SCRATCH), &7_u32.to_le_bytes()), Ok(4));
}

fn close_in_time(session: Session) {
    let (closed, is_closed) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            session.close();
            closed.send(()).unwrap();
        });
        is_closed.recv_timeout(CLOSE_MAX).unwrap();
    });
}

type Ask = fn(&Session) -> Result<u32, Errno>;

const RESETS: [(Ask, ResetCause); 3] =
    [(reset, ResetCause::Command), (hot_reset, ResetCause::Hot), (write_flr, ResetCause::Config)];
