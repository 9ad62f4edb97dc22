//! What a bound TDI is kept from, by policy, and what not.

use super::*;

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
