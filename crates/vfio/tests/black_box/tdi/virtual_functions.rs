//! Physical functions whose virtual ones have TDIs.

use super::*;

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

fn sriov_at(physical: &DmaEngine) -> u16 {
    let read = |offset: u16, into: &mut [u8]| physical.config_read(offset, into);
    let found = walk::extended_capabilities(read);
    found.iter().find(|capability| capability.id == ext_id::SRIOV).unwrap().offset
}

fn enable_one(physical: &DmaEngine) {
    let at = sriov_at(physical);
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

    let pair = Pair::new(&Settings { close_order: CloseOrder::Linux73, ..Settings::default() });
    let session = pair.running();
    bound_session(&pair.physical).close();
    let reached = PolicyEvent::ResetReachedTdi(ResetCause::Host);
    assert_eq!(pair.told.taken(), [reached, reached]);
    assert_ne!(pair.tee.device(VIRTUAL), State::Run);
    session.close();
}

/// The host enables and disables virtual functions while a client has the physical one.
#[test]
fn a_close_leaves_virtual_functions_as_the_host_has_them() {
    let pair = Pair::new(&Settings::default());
    let function = &pair.physical.function;
    let at = sriov_at(function);
    let control = || {
        let mut bytes = [0; 2];
        function.config_read(at + sriov::CONTROL, &mut bytes);
        u16::from_le_bytes(bytes)
    };
    let enabled = sriov::VF_ENABLE | sriov::VF_MEMORY;
    for (before, during) in [(enabled, 0), (0, enabled)] {
        assert_eq!(control(), before);
        let session = bound_session(&pair.physical);
        assert_eq!(control(), before);
        function.config_write(at + sriov::CONTROL, &during.to_le_bytes());
        session.close();
        assert_eq!(control(), during);
    }
}

/// The host resets the physical function, whose virtual ones it must not lose.
#[test]
fn a_reset_by_the_host_keeps_virtual_functions_and_leaves_open_ones_alone() {
    let pair = Pair::new(&Settings::default());
    let device = pair.physical.device.clone();
    let function = &pair.physical.function;
    let at = sriov_at(function);
    let registers = || {
        let mut bytes = [0; 0x24];
        function.config_read(at + sriov::CONTROL, &mut bytes);
        bytes
    };
    let before = registers();
    let session = pair.running();
    assert_eq!(device.reset_unopened().unwrap_err().errno(), Errno::EBUSY);
    assert_eq!(pair.tee.device(VIRTUAL), State::Run);
    session.close();
    assert!(device.reset_unopened().is_ok());
    assert_eq!(registers(), before);
    pair.running().close();
}
