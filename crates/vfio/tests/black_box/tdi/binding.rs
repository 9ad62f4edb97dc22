//! DEVICE_TSM_BIND and DEVICE_TSM_UNBIND, and whose VM a TDI is bound for.

use super::*;

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
