//! Every way in which a file with a bound TDI ends.

use super::*;

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

/// Debug builds assert the order of locks on the way.
#[test]
fn binds_resets_and_writes_at_once() {
    for reset_while_bound in
        [ResetWhileBound::Refuse, ResetWhileBound::Unbind, ResetWhileBound::Error]
    {
        let client_clears_bme = ClientClearsBme::Refuse;
        let settings = Settings { reset_while_bound, client_clears_bme, ..Settings::default() };
        let bench = Bench::new(settings);
        for _ in 0..4 {
            let session = bound_session(&bench.stand);
            let vdevice = make_vdevice(&session);
            let (file, context) = (session.file.clone(), session.context.clone());
            let another = || {
                let (file, context) = (file.clone(), context.clone());
                Session { client: Client::new(), file, context, iommufd: 0, device_id: 0 }
            };
            thread::scope(|scope| {
                let binder = another();
                scope.spawn(move || {
                    while matches!(tsm_bind(&binder, vdevice), Ok(0) | Err(Errno::EBUSY)) {}
                });
                let unbinder = another();
                scope.spawn(move || while tsm_unbind(&unbinder) == Ok(0) {});
                let resetter = another();
                scope.spawn(move || {
                    while matches!(reset(&resetter), Ok(0) | Err(Errno::EBUSY | Errno::EAGAIN)) {}
                });
                let writer = another();
                scope.spawn(move || {
                    let mut command = ENABLED;
                    let at = config_position(u64::from(header::COMMAND));
                    while writer.write(at, &command.to_le_bytes()).is_ok() {
                        command ^= ENABLED;
                    }
                });
                let tee = &bench.tee;
                scope.spawn(|| {
                    for _ in 0..20 {
                        tee.set_state(ADDRESS, 1).ok();
                        thread::yield_now();
                    }
                    close_in_time(session);
                });
            });
            let counters = bench.tee.counters();
            assert_eq!(counters.binds, counters.unbinds);
            assert_eq!(bench.tee.host(ADDRESS), Binding::Unbound);
            assert_eq!(bench.tee.device(ADDRESS), State::Unlocked);
        }
    }
}

/// The context knows a device before BIND has answered, and a client may guess its id.
#[test]
fn nothing_is_bound_while_a_device_is_being_opened() {
    let engine = engine(dma_engine::Config { tee: true, ..dma_engine::Config::new(ADDRESS) });
    let tee = Tee::of(&[(engine, None)], FunctionReset::Unlocks);
    let function = Fake::new(ADDRESS, Shape::default());
    let (told, set) = (Arc::new(Told::default()), DeviceSet::new(true));
    let stand = with_tee(function, &Settings::default(), &told, &set, &tee);
    let context = Context::open(Profile::Rfc);
    let (file, other) = (stand.open(), stand.open());
    let mut client = Client::new();
    let iommufd = client.open_iommufd(&context);
    let (come, has_come) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    stand.function.hold_next_reset((come, may_go));
    thread::scope(|scope| {
        let opened = scope.spawn(|| {
            let mut bind = bind_argument(iommufd);
            let result = client.call(&file, CommandId::DeviceBindIommufd, &mut bind);
            (result, bind.out_devid)
        });
        has_come.recv().unwrap();
        let context = context.clone();
        let guess = Session { client: Client::new(), file: other, context, iommufd, device_id: 1 };
        let mut bind = TsmOp {
            size: 16,
            r#type: tsm_op::BIND,
            vdevice_id: make_vdevice(&guess),
            ..Default::default()
        };
        assert_eq!(guess.iommu_call(CommandId::VdeviceTsmOp, &mut bind), Err(Errno::EBUSY));
        go.send(()).unwrap();
        assert_eq!(opened.join().unwrap(), (Ok(0), 1));
        assert_eq!(guess.iommu_call(CommandId::VdeviceTsmOp, &mut bind), Ok(0));
        guess.file.release();
    });
    assert!(tee.host(ADDRESS).is_bound());
    file.release();
    assert_eq!(tee.host(ADDRESS), Binding::Unbound);
    context.put_file();
}
