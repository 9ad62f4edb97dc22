//! Bound TDIs: binding them here, what they are kept from, and every way in which a file of theirs ends.

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
use uapi::iommufd::{HwptAlloc, IoasAlloc, VdeviceAlloc, ViommuAlloc, hwpt_flags, viommu_type};
use uapi::vfio::{TsmBind, TsmUnbind, irq_index, irq_set};
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{
    ClientClearsBme, CloseOrder, DeviceSet, PolicyEvent, ResetCause, ResetWhileBound, Settings,
};

use crate::support::{
    ADDRESS, ARGUMENT, Client, Fake, Irqs, Session, Shape, Stand, Tee, Told, config_position, fds,
    iommu, position,
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

#[test]
fn a_tdi_is_bound_and_unbound() {
    let bench = Bench::new(Settings::default());
    let session = bound_session(&bench.stand);
    assert_eq!(tsm_unbind(&session), Ok(0), "nothing is bound");
    let vdevice = make_vdevice(&session);
    assert_eq!(tsm_bind(&session, vdevice), Ok(0));
    assert_eq!(bench.tee.host(ADDRESS), Binding::Bound { state: State::Unlocked });
    assert_eq!(tsm_bind(&session, vdevice), Ok(0), "bound to the same");
    bench.tee.run(ADDRESS);
    assert_eq!(tsm_unbind(&session), Ok(0));
    assert_eq!(tsm_unbind(&session), Ok(0));
    assert_eq!(bench.tee.host(ADDRESS), Binding::Unbound);
    assert_eq!(bench.tee.device(ADDRESS), State::Unlocked);
    let counters = bench.tee.counters();
    assert_eq!((counters.binds, counters.unbinds), (1, 1));
    session.close();
}

#[test]
fn what_bind_and_unbind_refuse() {
    let bench = Bench::new(Settings::default());
    let session = bound_session(&bench.stand);
    let vdevice = make_vdevice(&session);
    let bind = |argsz, flags, vdevice_id| {
        let mut bind = TsmBind { argsz, flags, vdevice_id, ..Default::default() };
        session.call(CommandId::DeviceTsmBind, &mut bind)
    };
    let unbind =
        |argsz, flags| session.call(CommandId::DeviceTsmUnbind, &mut TsmUnbind { argsz, flags });
    let at = |id, at| session.file.ioctl(&session.client, Command::of(id).request, at);
    for argsz in 0..12 {
        assert_eq!(bind(argsz, 0, vdevice), Err(Errno::EINVAL));
    }
    for argsz in 0..8 {
        assert_eq!(unbind(argsz, 0), Err(Errno::EINVAL));
    }
    for bit in 0..32 {
        assert_eq!(bind(16, 1 << bit, vdevice), Err(Errno::EINVAL));
        assert_eq!(unbind(8, 1 << bit), Err(Errno::EINVAL));
    }
    assert_eq!(at(CommandId::DeviceTsmBind, 0), Err(Errno::EFAULT));
    assert_eq!(at(CommandId::DeviceTsmUnbind, 0), Err(Errno::EFAULT));
    for id in [0, vdevice + 1, session.device_id, u32::MAX] {
        assert_eq!(bind(16, 0, id), Err(Errno::ENOENT), "{id}");
    }
    assert_eq!(bench.tee.host(ADDRESS), Binding::Unbound);
    bench.tee.registry.disconnect(ADDRESS, b"tsm0").unwrap();
    assert_eq!(bind(12, 0, vdevice), Err(Errno::EINVAL), "not connected");
    assert_eq!(unbind(8, 0), Ok(0));
    session.close();
}

#[test]
fn only_the_profile_of_2025_binds_here() {
    for profile in [Profile::Rfc, Profile::Linux73, Profile::RfcV5_2026_05, Profile::RfcV7_2026_10]
    {
        let stand = Stand::shaped(Shape::default(), Settings { profile, ..Settings::default() });
        let session = stand.bound();
        assert_eq!(tsm_bind(&session, 1), Err(Errno::ENOTTY), "{profile}");
        assert_eq!(tsm_unbind(&session), Err(Errno::ENOTTY), "{profile}");
        session.close();
    }
}

#[test]
fn without_a_tsm_nothing_is_bound() {
    let settings = Settings { profile: Profile::Rfc2025_05, ..Settings::default() };
    let stand = Stand::shaped(Shape::default(), settings);
    let session = bound_session(&stand);
    let vdevice = make_vdevice(&session);
    assert_eq!(tsm_bind(&session, vdevice), Err(Errno::EOPNOTSUPP));
    assert_eq!(tsm_unbind(&session), Ok(0));
    assert_eq!(reset(&session), Ok(0));
    session.close();
}

type Ask = fn(&Session) -> Result<u32, Errno>;

const RESETS: [(Ask, ResetCause); 3] =
    [(reset, ResetCause::Command), (hot_reset, ResetCause::Hot), (write_flr, ResetCause::Config)];

#[test]
fn resets_are_refused_while_bound() {
    for (ask, cause) in RESETS {
        let bench = Bench::new(Settings::default());
        let session = bench.running();
        set_scratch(&session);
        let expected = if cause == ResetCause::Config { Ok(0) } else { Err(Errno::EBUSY) };
        assert_eq!(ask(&session), expected, "{cause}");
        assert_eq!(bench.told.taken(), [PolicyEvent::ResetRefused(cause)]);
        assert!(!bench.is_fresh(&session), "{cause}");
        assert_eq!(bench.tee.device(ADDRESS), State::Run);
        assert_eq!(tsm_unbind(&session), Ok(0));
        set_scratch(&session);
        assert_eq!(ask(&session), Ok(0), "{cause}");
        assert!(bench.is_fresh(&session), "{cause}");
        assert!(bench.told.taken().is_empty());
        session.close();
    }
}

#[test]
fn resets_unbind_first() {
    for (ask, cause) in RESETS {
        let reset_while_bound = ResetWhileBound::Unbind;
        let bench = Bench::new(Settings { reset_while_bound, ..Settings::default() });
        let session = bench.running();
        assert_eq!(ask(&session), Ok(0), "{cause}");
        assert_eq!(bench.told.taken(), [PolicyEvent::UnboundForReset(cause)]);
        assert!(bench.is_fresh(&session), "{cause}");
        assert_eq!(bench.tee.host(ADDRESS), Binding::Unbound);
        assert_eq!(bench.changes(), [(State::Run, State::Unlocked)], "STOP, and never ERROR");
        assert_eq!(bench.tee.counters().unbinds, 1);
        session.close();
        assert_eq!(bench.tee.counters().unbinds, 1);
    }
}

#[test]
fn resets_reach_the_device() {
    let unlocks = (FunctionReset::Unlocks, State::Unlocked);
    for (flr, after) in [unlocks, (FunctionReset::Breaches, State::Error)] {
        for (ask, cause) in RESETS {
            let reset_while_bound = ResetWhileBound::Error;
            let bench = Bench::with_flr(Settings { reset_while_bound, ..Settings::default() }, flr);
            let session = bench.running();
            assert_eq!(ask(&session), Ok(0), "{cause}");
            assert_eq!(bench.told.taken(), [PolicyEvent::ResetReachedTdi(cause)]);
            let after = if cause == ResetCause::Hot { State::Unlocked } else { after };
            assert_eq!(bench.changes(), [(State::Run, after)], "{cause}");
            session.close();
            let counters = bench.tee.counters();
            assert_eq!((counters.binds, counters.unbinds), (1, 1));
            assert_eq!(bench.tee.device(ADDRESS), State::Unlocked);
        }
    }
}

#[test]
fn a_client_that_clears_an_enable_bit_breaks_its_tdi_or_does_not() {
    for cleared in [command::BUS_MASTER, command::MEMORY] {
        let value = ENABLED & !cleared;
        let bench = Bench::new(Settings::default());
        let session = bench.running();
        session.set_config(header::COMMAND, &value.to_le_bytes());
        assert_eq!(bench.changes(), [(State::Run, State::Error)]);
        assert_eq!(session.config_word(header::COMMAND), value);
        assert!(bench.told.taken().is_empty());
        session.close();

        let client_clears_bme = ClientClearsBme::Refuse;
        let bench = Bench::new(Settings { client_clears_bme, ..Settings::default() });
        let session = bench.running();
        session.set_config(header::COMMAND, &value.to_le_bytes()[..1]);
        session.set_config(header::COMMAND, &u32::from(value).to_le_bytes());
        assert_eq!(bench.told.taken(), [PolicyEvent::CommandKept(cleared); 2]);
        assert_eq!(session.config_word(header::COMMAND), ENABLED);
        assert!(bench.changes().is_empty());
        assert_eq!(scratch(&session), 0, "memory is decoded");
        session.set_config(header::COMMAND, &(ENABLED | command::INTX_DISABLE).to_le_bytes());
        assert!(bench.told.taken().is_empty(), "nothing is cleared");
        assert_eq!(tsm_unbind(&session), Ok(0));
        session.set_config(header::COMMAND, &value.to_le_bytes());
        assert_eq!(session.config_word(header::COMMAND), value, "nothing is locked");
        assert!(bench.told.taken().is_empty());
        session.close();
    }
}

#[test]
fn an_interface_that_is_bound_and_unlocked_is_the_clients() {
    let client_clears_bme = ClientClearsBme::Refuse;
    let bench = Bench::new(Settings { client_clears_bme, ..Settings::default() });
    let session = bench.bound();
    session.set_config(header::COMMAND, &[0, 0]);
    assert_eq!(session.config_word(header::COMMAND), 0);
    write_power(&session, pm::D3HOT);
    assert_eq!(power(&session), pm::D3HOT);
    assert!(bench.told.taken().is_empty());
    session.close();
}

#[test]
fn sleep_breaks_a_tdi_or_is_not_entered() {
    let bench = Bench::new(Settings::default());
    let session = bench.running();
    write_power(&session, pm::D3HOT);
    assert_eq!((power(&session), bench.changes()), (pm::D3HOT, vec![(State::Run, State::Error)]));
    write_power(&session, 0);
    assert_eq!(power(&session), 0);
    session.close();

    let client_clears_bme = ClientClearsBme::Refuse;
    let bench = Bench::new(Settings { client_clears_bme, ..Settings::default() });
    let session = bench.running();
    write_power(&session, pm::D3HOT);
    assert_eq!((power(&session), bench.changes()), (0, vec![]));
    assert_eq!(bench.told.taken(), [PolicyEvent::PowerKept(pm::D3HOT)]);
    session.close();
}

/// Where sleep ends in a reset, it is one.
#[test]
fn sleep_that_resets_is_a_reset() {
    for reset_while_bound in
        [ResetWhileBound::Refuse, ResetWhileBound::Unbind, ResetWhileBound::Error]
    {
        // The TDI is an engine's that stands for the function; the function notes what happens to it.
        let engine = engine(dma_engine::Config { tee: true, ..dma_engine::Config::new(ADDRESS) });
        let tee = Tee::of(&[(engine, None)], FunctionReset::Unlocks);
        let told = Arc::new(Told::default());
        let function = Fake::new(ADDRESS, Shape { soft_reset: true, ..Shape::default() });
        let settings = Settings { reset_while_bound, ..Settings::default() };
        let stand = with_tee(function, &settings, &told, &DeviceSet::new(true), &tee);
        let session = bound_session(&stand);
        let vdevice = make_vdevice(&session);
        assert_eq!(tsm_bind(&session, vdevice), Ok(0));
        let bound = Binding::Bound { state: State::Unlocked };
        write_power(&session, pm::D3HOT);
        let cause = ResetCause::Power;
        let (event, binding, entered) = match reset_while_bound {
            ResetWhileBound::Refuse => (PolicyEvent::ResetRefused(cause), bound, 0),
            ResetWhileBound::Unbind => {
                (PolicyEvent::UnboundForReset(cause), Binding::Unbound, pm::D3HOT)
            }
            ResetWhileBound::Error => (PolicyEvent::ResetReachedTdi(cause), bound, pm::D3HOT),
        };
        assert_eq!(told.taken(), [event]);
        assert_eq!((tee.host(ADDRESS), power(&session)), (binding, entered));
        if reset_while_bound == ResetWhileBound::Unbind {
            assert_eq!(tsm_bind(&session, vdevice), Ok(0), "bound asleep");
            write_power(&session, 0);
            assert_eq!(told.taken(), [event]);
            assert_eq!((tee.host(ADDRESS), power(&session)), (Binding::Unbound, 0));
        }
        session.close();
    }
}

/// MSI-X tables lie in memory that the client may have turned off.
#[test]
fn interrupts_are_set_up_without_the_end_of_decoding() {
    let bench = Bench::new(Settings::default());
    let mut session = bench.bound();
    let decodes = || {
        let mut bytes = [0; 2];
        bench.stand.function.config_read(header::COMMAND, &mut bytes);
        u16::from_le_bytes(bytes) & command::MEMORY != 0
    };
    session.set_config(header::COMMAND, &command::BUS_MASTER.to_le_bytes());
    assert!(!decodes());
    let (fd, _) = session.client.open_eventfd();
    let data = fds(&[fd]);
    let flags = irq_set::ACTION_TRIGGER | irq_set::DATA_EVENTFD;
    let irqs = Irqs { index: irq_index::MSIX, flags, start: 0, count: 1, data: &data };
    assert_eq!(session.set_irqs(irqs), Ok(0));
    assert!(decodes(), "left on, as a TDI is bound");
    assert_eq!(session.config_word(header::COMMAND), command::BUS_MASTER, "not seen");
    assert_eq!(session.read(position(0, SCRATCH), &mut [0; 4]), Err(Errno::EIO));
    assert_eq!(tsm_unbind(&session), Ok(0));
    session.set_config(header::COMMAND, &command::BUS_MASTER.to_le_bytes());
    assert_eq!(session.set_irqs(irqs), Ok(0));
    assert!(!decodes(), "off again");
    session.close();
}

#[test]
fn a_file_that_is_closed_unbinds_before_anything_else() {
    let bench = Bench::new(Settings::default());
    let session = bench.running();
    session.close();
    assert_eq!(bench.changes(), [(State::Run, State::Unlocked)]);
    assert_eq!(bench.tee.host(ADDRESS), Binding::Unbound);
    assert!(bench.told.taken().is_empty());
    let counters = bench.tee.counters();
    assert_eq!((counters.binds, counters.unbinds), (1, 1));
}

#[test]
fn in_the_order_of_linux_a_close_breaks_the_tdi_first() {
    let close_order = CloseOrder::Linux73;
    let bench = Bench::new(Settings { close_order, ..Settings::default() });
    let session = bench.running();
    session.close();
    let changes = bench.changes();
    assert_eq!(changes.first(), Some(&(State::Run, State::Error)));
    assert_eq!(changes.last().map(|(_, to)| *to), Some(State::Unlocked));
    assert_eq!(bench.told.taken(), [PolicyEvent::ResetReachedTdi(ResetCause::Host)]);
    assert_eq!(bench.tee.host(ADDRESS), Binding::Unbound);
    let counters = bench.tee.counters();
    assert_eq!((counters.binds, counters.unbinds), (1, 1));
}

#[test]
fn the_iommufd_may_be_closed_first() {
    for close_order in [CloseOrder::UnbindFirst, CloseOrder::Linux73] {
        let bench = Bench::new(Settings { close_order, ..Settings::default() });
        let session = bench.running();
        session.context.put_file();
        session.file.release();
        assert_eq!(bench.tee.host(ADDRESS), Binding::Unbound, "{close_order:?}");
        assert_eq!(bench.tee.device(ADDRESS), State::Unlocked, "{close_order:?}");
        let counters = bench.tee.counters();
        assert_eq!((counters.binds, counters.unbinds), (1, 1));
    }
}

/// The next client's BIND resets the function, which ends the quarantine once the device says so.
#[test]
fn a_device_that_does_not_answer_delays_a_close_for_a_moment() {
    for close_order in [CloseOrder::UnbindFirst, CloseOrder::Linux73] {
        let bench = Bench::new(Settings { close_order, ..Settings::default() });
        let session = bench.running();
        for operation in ["unbind", "stop", "state", "probe"] {
            bench.tee.fault(ADDRESS, &format!("{operation}=silent"));
        }
        close_in_time(session);
        assert_eq!(bench.tee.host(ADDRESS), Binding::Quarantined);
        let counters = bench.tee.counters();
        assert_eq!((counters.binds, counters.unbinds), (1, 1));
        let session = bound_session(&bench.stand);
        assert_eq!(bench.tee.host(ADDRESS), Binding::Quarantined, "still silent");
        let vdevice = make_vdevice(&session);
        assert_eq!(tsm_bind(&session, vdevice), Err(Errno::EBUSY));
        bench.tee.registry.clear_faults(ADDRESS);
        assert_eq!(reset(&session), Ok(0));
        assert_eq!(bench.tee.host(ADDRESS), Binding::Unbound);
        assert_eq!(tsm_bind(&session, vdevice), Ok(0));
        session.close();
    }
}

#[test]
fn a_close_gives_up_a_bind_that_waits() {
    for close_order in [CloseOrder::UnbindFirst, CloseOrder::Linux73] {
        let bench = Bench::new(Settings { close_order, ..Settings::default() });
        let session = bound_session(&bench.stand);
        let vdevice = make_vdevice(&session);
        bench.tee.fault(ADDRESS, "bind=slow:100000");
        let (file, client) = (session.file.clone(), Client::new());
        let (ended, has_ended) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let bind = TsmBind { argsz: 16, vdevice_id: vdevice, ..Default::default() };
                client.put(ARGUMENT, zerocopy::IntoBytes::as_bytes(&bind));
                let request = Command::of(CommandId::DeviceTsmBind).request;
                ended.send(file.ioctl(&client, request, ARGUMENT)).unwrap();
            });
            while bench.tee.host(ADDRESS) != Binding::Binding {
                thread::yield_now();
            }
            close_in_time(session);
            assert_eq!(has_ended.recv().unwrap(), Err(Errno::EINTR));
        });
        assert_eq!(bench.tee.host(ADDRESS), Binding::Unbound, "{close_order:?}");
        let counters = bench.tee.counters();
        assert_eq!(counters.binds, counters.unbinds);
        assert_eq!(counters.cancelled, 1);
    }
}

/// A VM, as its number says.
struct Machine(u64);

impl Vm for Machine {
    fn id(&self) -> VmId {
        VmId(self.0)
    }
}

#[test]
fn the_vm_of_a_file_is_the_one_linked_before_bind() {
    let bench = Bench::new(Settings::default());
    let file = bench.stand.open();
    let (first, second) = (Arc::new(Machine(71)), Arc::new(Machine(72)));
    file.link_vm(Some(first.clone()));
    let context = Context::open(Profile::Rfc2025_05);
    let mut client = Client::new();
    let iommufd = client.open_iommufd(&context);
    let session = Session::bind_to(file, client, context, iommufd);
    session.file.link_vm(Some(second.clone()));
    let vdevice = make_vdevice(&session);
    assert_eq!(tsm_bind(&session, vdevice), Ok(0));
    let ledger = bench.tee.registry.ledger();
    assert_eq!(ledger[0].tdis[0].vm, Some(VmId(71)));
    assert_eq!(ledger[0].tdis[0].guest_id, Some(GUEST_ID));
    session.file.release();
    assert_eq!(Arc::strong_count(&second), 1, "the file lets go of it");
    assert!(Arc::strong_count(&first) > 1, "its vIOMMU has it still");
    session.context.put_file();
    assert_eq!(Arc::strong_count(&first), 1);
}

/// A physical function with one virtual function, each behind a device of one set.
struct Pair {
    physical: Stand<DmaEngine>,
    virtual_function: Stand<DmaEngine>,
    tee: Tee,
    told: Arc<Told>,
}

impl Pair {
    fn new(settings: &Settings) -> Self {
        let sriov = dma_engine::Sriov { total_vfs: 2, first_offset: 1, stride: 1 };
        let config = dma_engine::Config::new(ADDRESS);
        let config = dma_engine::Config { tee: true, sriov: Some(sriov), ..config };
        let plain =
            dma_engine::Config { address: VIRTUAL, vf: true, sriov: None, ..config.clone() };
        let (physical, virtual_function) = (engine(config), engine(plain));
        enable_one(&physical);
        let engines = [(physical.clone(), None), (virtual_function.clone(), Some(ADDRESS))];
        let tee = Tee::of(&engines, FunctionReset::Unlocks);
        let (told, set) = (Arc::new(Told::default()), DeviceSet::new(true));
        let made_by = vfio::VirtualFunction { vendor_id: 0x1234, device_id: 0x5679 };
        let of_virtual = Settings { virtual_function: Some(made_by), ..settings.clone() };
        Self {
            physical: with_tee(physical, settings, &told, &set, &tee),
            virtual_function: with_tee(virtual_function, &of_virtual, &told, &set, &tee),
            tee,
            told,
        }
    }

    /// The virtual function's client, with a TDI that runs.
    fn running(&self) -> Session {
        let session = bound_session(&self.virtual_function);
        let vdevice = make_vdevice(&session);
        assert_eq!(tsm_bind(&session, vdevice), Ok(0));
        self.tee.run(VIRTUAL);
        session
    }
}

fn enable_one(physical: &DmaEngine) {
    let read = |offset: u16, into: &mut [u8]| physical.config_read(offset, into);
    let found = walk::extended_capabilities(read);
    let at = found.iter().find(|capability| capability.id == ext_id::SRIOV).unwrap().offset;
    for (register, value) in [(0, 0x6000_0000_u32), (8, 0x7000_0000)] {
        physical.config_write(at + sriov::VF_BAR0 + register, &value.to_le_bytes());
    }
    physical.config_write(at + sriov::NUM_VFS, &1_u16.to_le_bytes());
    let control = sriov::VF_ENABLE | sriov::VF_MEMORY;
    physical.config_write(at + sriov::CONTROL, &control.to_le_bytes());
}

#[test]
fn a_reset_of_a_physical_function_takes_its_virtual_ones_along() {
    for (ask, cause) in RESETS {
        let pair = Pair::new(&Settings::default());
        let session = pair.running();
        let physical = Session::bind_to(
            pair.physical.open(),
            {
                let mut client = Client::new();
                client.open_iommufd(&session.context);
                client
            },
            session.context.clone(),
            4,
        );
        pair.told.taken();
        let expected = if cause == ResetCause::Config { Ok(0) } else { Err(Errno::EBUSY) };
        assert_eq!(ask(&physical), expected, "{cause}");
        assert_eq!(pair.told.taken(), [PolicyEvent::ResetRefused(cause)]);
        assert_eq!(pair.tee.device(VIRTUAL), State::Run);
        physical.file.release();
        session.close();
    }
}

#[test]
fn a_physical_function_comes_and_goes_beside_a_tdi_that_runs() {
    let pair = Pair::new(&Settings::default());
    let session = pair.running();
    for _ in 0..2 {
        let physical = bound_session(&pair.physical);
        physical.close();
        let left = PolicyEvent::ResetRefused(ResetCause::Host);
        assert_eq!(pair.told.taken(), [left, left], "not made fresh at open, nor at close");
        assert_eq!(pair.tee.device(VIRTUAL), State::Run);
    }
    assert_eq!(tsm_unbind(&session), Ok(0));
    bound_session(&pair.physical).close();
    assert!(pair.told.taken().is_empty());
    session.close();
}
