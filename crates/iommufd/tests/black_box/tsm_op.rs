//! Binding and unbinding: through which call in which profile, and who refuses.

use std::sync::Arc;

use iommufd::{ContextSettings, Device, Tvm, Vm};
use sync::rank;
use tsm::{Binding, State, VmId};
use uapi::iommufd::{TsmOp, VdeviceAlloc, viommu_type};
use uapi::{Command, CommandId, Errno, Profile};

use crate::support::{
    Answers, BeforeLock, Client, Confidential, GUEST_ID, Platform, READ_ONLY, Tee,
};

const UNLOCKED: Binding = Binding::Bound { state: State::Unlocked };
const REALM: u32 = viommu_type::ARM_REALM_SMMUV3;

/// Whether a vdevice behind such a vIOMMU is bound as it is made.
fn is_bound_at_once(profile: Profile, r#type: u32) -> bool {
    let fixture = Confidential::behind(profile, r#type);
    let vdevice = fixture.vdevice();
    let bound = fixture.device.tdi();
    assert!([UNLOCKED, Binding::Unbound].contains(&bound));
    fixture.client.destroy(vdevice).unwrap();
    assert_eq!(fixture.tee.registry.counters().binds, u64::from(bound == UNLOCKED));
    fixture.tee.assert_settled();
    bound == UNLOCKED
}

#[test]
fn each_profile_binds_by_its_own_call() {
    use Profile::{Linux73, Rfc, Rfc2025_05, RfcV5_2026_05, RfcV7_2026_10};
    for &profile in Profile::ALL {
        assert!(!is_bound_at_once(profile, viommu_type::ARM_SMMUV3), "{profile}");
        if profile != Linux73 {
            let expected = [Rfc, RfcV7_2026_10].contains(&profile);
            assert_eq!(is_bound_at_once(profile, REALM), expected, "{profile}");
        }
        let fixture = Confidential::new(profile);
        let vdevice = fixture.vdevice();
        let has_op = [Rfc, RfcV5_2026_05].contains(&profile);
        let expected = match profile {
            _ if has_op => Ok(()),
            // There the number is another command's, whose struct is longer.
            Linux73 => Err(Errno::EINVAL),
            Rfc | Rfc2025_05 | RfcV5_2026_05 | RfcV7_2026_10 => Err(Errno::ENOTTY),
        };
        assert_eq!(fixture.client.tsm_bind(vdevice), expected, "{profile}");
        assert_eq!(fixture.client.tsm_unbind(vdevice), expected, "{profile}");
        if profile == Rfc2025_05 {
            fixture.device.bind_tdi(vdevice).unwrap();
            fixture.device.unbind();
        }
        let calls = u64::from(has_op || profile == Rfc2025_05);
        assert_eq!(fixture.tee.registry.counters().binds, calls, "{profile}");
        fixture.device.end();
        fixture.tee.assert_settled();
    }
}

#[test]
fn an_operation_is_refused_in_the_published_order() {
    let settings = ContextSettings { profile: Profile::Rfc, tvm: Tvm::Kvm };
    let fixture = Confidential::with(settings, viommu_type::ARM_SMMUV3);
    let client = &fixture.client;
    let asked = |argument: TsmOp| client.call(CommandId::VdeviceTsmOp, argument).err();
    let mut argument = TsmOp { flags: 1, vdevice_id: 99, r#type: 3, ..TsmOp::default() };
    assert_eq!(asked(argument), Some(Errno::EOPNOTSUPP));
    argument.flags = 0;
    assert_eq!(asked(argument), Some(Errno::ENOENT));
    argument.vdevice_id = fixture.viommu;
    assert_eq!(asked(argument), Some(Errno::ENOENT));
    argument.vdevice_id = fixture.vdevice();
    assert_eq!(asked(argument), Some(Errno::ENODEV), "no VM, before the operation");
    assert_eq!(client.tsm_unbind(argument.vdevice_id), Err(Errno::ENODEV));

    let fixture = Confidential::new(Profile::Rfc);
    let vdevice = fixture.vdevice();
    for unknown in [0, 3, u32::MAX] {
        assert_eq!(fixture.client.tsm_op(unknown, vdevice), Err(Errno::EINVAL));
    }
    fixture.tee.registry.disconnect(fixture.tee.function, b"tsm0").unwrap();
    assert_eq!(fixture.client.tsm_bind(vdevice), Err(Errno::EINVAL), "not connected");
    assert_eq!(fixture.client.tsm_unbind(vdevice), Ok(()));
}

#[test]
fn a_device_without_a_tsm_says_so_last() {
    let client = Client::open_as(Profile::Rfc);
    let device = Platform::new().bind(&client);
    let hwpt = client.nest_parent(device.id());
    let viommu = client.viommu(viommu_type::ARM_SMMUV3, device.id(), hwpt).unwrap();
    let vdevice = client.vdevice(viommu, device.id(), 1).unwrap();
    assert_eq!(client.tsm_op(9, vdevice), Err(Errno::EINVAL));
    assert_eq!(client.tsm_bind(vdevice), Err(Errno::EOPNOTSUPP));
    assert_eq!(client.tsm_unbind(vdevice), Err(Errno::EOPNOTSUPP));
    assert_eq!(device.tdi(), Binding::Unbound);
    drop(device.begin_reset().unwrap());
    device.unbind();
    client.destroy(vdevice).unwrap();
    let realm = client.viommu(REALM, device.id(), hwpt).unwrap();
    assert_eq!(client.vdevice(realm, device.id(), 1), Err(Errno::EOPNOTSUPP));
    assert_eq!(client.ctx.counts().vdevices, 0);
}

#[test]
fn binding_twice_is_binding_once() {
    let fixture = Confidential::new(Profile::Rfc);
    let vdevice = fixture.vdevice();
    fixture.client.tsm_bind(vdevice).unwrap();
    fixture.client.tsm_bind(vdevice).unwrap();
    assert_eq!((fixture.device.tdi(), fixture.tee.registry.counters().binds), (UNLOCKED, 1));
    fixture.client.tsm_unbind(vdevice).unwrap();
    fixture.client.tsm_unbind(vdevice).unwrap();
    assert_eq!(fixture.device.tdi(), Binding::Unbound);
    fixture.tee.assert_settled();
    fixture.client.tsm_bind(vdevice).unwrap();
    fixture.client.destroy(vdevice).unwrap();
    assert_eq!(fixture.tee.registry.counters().binds, 2);
    fixture.tee.assert_settled();
}

/// The bind succeeded, the client cannot be told: it is undone, and another can be made.
#[test]
fn a_bound_vdevice_that_cannot_be_told_of_is_unbound() {
    let fixture = Confidential::behind(Profile::RfcV7_2026_10, REALM);
    let argument = VdeviceAlloc {
        size: 24,
        viommu_id: fixture.viommu,
        dev_id: fixture.device.id(),
        virt_id: GUEST_ID,
        ..VdeviceAlloc::default()
    };
    let mut unwritable = fixture.client.thread(0);
    unwritable.at = READ_ONLY.start;
    unwritable.put(&argument, 24);
    let request = Command::of(CommandId::VdeviceAlloc).request;
    let answer = fixture.client.ctx.ioctl(&unwritable, request, unwritable.at);
    assert_eq!(answer, Err(Errno::EFAULT));
    assert_eq!(fixture.tee.registry.counters().binds, 1);
    fixture.tee.assert_settled();
    fixture.vdevice();
    assert_eq!(fixture.device.tdi(), UNLOCKED);
}

#[test]
fn a_vdevice_that_cannot_be_bound_is_not_made() {
    let fixture = Confidential::behind(Profile::Rfc, REALM);
    fixture.tee.device.answers(Answers::Never);
    let made = || fixture.client.vdevice(fixture.viommu, fixture.device.id(), GUEST_ID);
    assert_eq!(made(), Err(Errno::ETIMEDOUT));
    assert_eq!(fixture.client.ctx.counts().vdevices, 0);
    assert_eq!(fixture.device.tdi(), Binding::Quarantined);
    assert_eq!(made(), Err(Errno::EBUSY), "quarantined");
    fixture.tee.assert_settled();
    fixture.tee.device.answers(Answers::AtOnce);
    fixture.device.begin_reset().unwrap().done();
    assert!(made().is_ok(), "a reset ends the quarantine");
}

struct Known(u64);

impl Vm for Known {
    fn id(&self) -> VmId {
        VmId(self.0)
    }
}

/// The VM that a TDI is bound to, according to the TSM core.
fn bound_to(tee: &Tee) -> Option<VmId> {
    tee.registry.ledger()[0].tdis[0].vm
}

#[test]
fn a_tdi_is_bound_to_the_vm_of_its_vdevices_viommu() {
    let tee = Tee::connected(crate::support::single_address());
    let platform = Platform::with_tsm(&tee.registry);
    let mut seen = Vec::new();
    for linked in [None, Some(5), None] {
        let client = Client::open_as(Profile::Rfc);
        let vm = linked.map(|number| Arc::new(Known(number)) as Arc<dyn Vm>);
        let device = Device::bind_for(&client.ctx, &platform.single, vm).unwrap();
        let hwpt = client.nest_parent(device.id());
        for _ in 0..2 {
            let viommu = client.viommu(viommu_type::ARM_SMMUV3, device.id(), hwpt).unwrap();
            let vdevice = client.vdevice(viommu, device.id(), GUEST_ID).unwrap();
            client.tsm_bind(vdevice).unwrap();
            seen.push(bound_to(&tee).unwrap());
            client.destroy(vdevice).unwrap();
        }
        device.end();
    }
    assert_eq!(seen[2..4], [VmId(5), VmId(5)]);
    assert_eq!((seen[0], seen[4]), (seen[1], seen[5]), "one VM a context");
    assert_ne!(seen[0], seen[4], "and another in each");
}

/// A bind has passed the device's gate and the TSM core does not know of it yet.
#[test]
fn no_reset_begins_while_a_bind_is_on_its_way() {
    let fixture = Confidential::new(Profile::Rfc);
    let (vdevice, device) = (fixture.vdevice(), Arc::clone(&fixture.device));
    let reset = move || {
        assert_eq!(device.tdi(), Binding::Unbound);
        assert_eq!(device.begin_reset().err(), Some(Binding::Binding));
    };
    let bind = || fixture.client.tsm_bind(vdevice);
    assert_eq!(BeforeLock::<rank::TsmRegistry>::run_before(1, reset, bind), Ok(()));
}

#[test]
fn a_device_binds_its_own_vdevice_only() {
    let fixture = Confidential::new(Profile::Rfc2025_05);
    let Confidential { client, platform, viommu, device, .. } = &fixture;
    let errno = |answer: Result<(), iommufd::Refusal>| answer.map_err(|refusal| refusal.errno());
    assert_eq!(errno(device.bind_tdi(99)), Err(Errno::ENOENT));
    assert_eq!(errno(device.bind_tdi(*viommu)), Err(Errno::ENOENT));
    let [other, _] = platform.bind_pair(client);
    let foreign = client.vdevice(*viommu, other.id(), 1).unwrap();
    assert_eq!(errno(device.bind_tdi(foreign)), Err(Errno::EINVAL));
    assert_eq!(errno(other.bind_tdi(foreign)), Err(Errno::EOPNOTSUPP));
    let vdevice = fixture.vdevice();
    assert_eq!(errno(device.bind_tdi(vdevice)), Ok(()));
    let refused = device.begin_reset().err();
    assert_eq!(refused, Some(UNLOCKED));
    device.cancel_and_unbind();
    let reset = device.begin_reset().unwrap();
    assert_eq!(errno(device.bind_tdi(vdevice)), Err(Errno::EBUSY));
    let another = device.begin_reset().unwrap();
    drop(reset);
    assert_eq!(errno(device.bind_tdi(vdevice)), Err(Errno::EBUSY));
    drop(another);
    assert_eq!(errno(device.bind_tdi(vdevice)), Ok(()), "a cancelled TDI can be bound again");
    device.end();
    fixture.tee.assert_settled();
}
