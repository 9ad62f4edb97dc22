//! What can go wrong between a device, its vdevice, the TSM and the files that hold them: a test for each
//! scenario of `docs/scenarios.md`, by its number, on a whole machine in this process.

mod in_process;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use in_process::{
    Answer, BUS_MASTER, Client, Device, MEMORY, PF, Stand, VF1, VF2, Vdevice, bounded, size_of_u32,
    until,
};
use iommufd::{Caller, Context, FileFault, Signal, Source, Unreachable, Vm};
use scenario::call_memory::CallMemory;
use tdisp::State;
use tsm::{Binding, Cancel, VmId};
use uapi::iommufd::{IoasAlloc, TsmReq, VdeviceAlloc, tsm_request, tvm_arch, viommu_type};
use uapi::vfio::TsmBind;
use uapi::{Command, CommandId, Errno};
use zerocopy::IntoBytes;

const OK: Answer = Ok(0);
/// What takes no time: neither an exchange nor a wait.
const AT_ONCE: Duration = Duration::from_millis(250);
const GUEST_ID: u64 = 0x20;
const BOUND_UNLOCKED: Binding = Binding::Bound { state: State::Unlocked };
const BOUND_LOCKED: Binding = Binding::Bound { state: State::Locked };

const fn refused(errno: Errno) -> Answer {
    Err(errno)
}

/// A client with the device of this number behind a vdevice, not bound.
fn prepared(stand: &Stand, number: usize) -> (Client, Device, Vdevice) {
    let client = Client::open(stand);
    let device = client.device(stand, number);
    device.enable();
    let vdevice = client.vdevice(&device, GUEST_ID);
    (client, device, vdevice)
}

/// The same with the TDI bound.
fn bound(stand: &Stand, number: usize) -> (Client, Device, Vdevice) {
    let (client, device, vdevice) = prepared(stand, number);
    assert_eq!(client.tsm_bind(vdevice.id), OK);
    assert_eq!(stand.binding(number), BOUND_UNLOCKED);
    (client, device, vdevice)
}

/// The same with the TDI locked.
fn locked(stand: &Stand, number: usize) -> (Client, Device, Vdevice) {
    let (client, device, vdevice) = bound(stand, number);
    assert_eq!(client.lock(vdevice.id), OK);
    assert_eq!(stand.state(number), State::Locked);
    (client, device, vdevice)
}

/// A bind under way in another thread, at a device that takes its time.
fn bind_in_flight<'s>(
    scope: &'s thread::Scope<'s, '_>,
    stand: &Stand,
    number: usize,
    client: &Client,
    vdevice: Vdevice,
) -> thread::ScopedJoinHandle<'s, Answer> {
    let client = client.clone();
    let bind = scope.spawn(move || client.tsm_bind(vdevice.id));
    until(|| is_running(stand, "bind", number));
    bind
}

/// Whether an exchange for this goes on with the device.
fn is_running(stand: &Stand, operation: &str, number: usize) -> bool {
    let address = stand.address(number);
    let ledger = stand.machine.tsm.ledger();
    ledger.iter().any(|connection| connection.running == Some((operation, address)))
}

fn at_once<T>(what: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = what();
    assert!(begun.elapsed() < AT_ONCE, "took {:?}", begun.elapsed());
    result
}

#[test]
fn s1_close_of_a_bound_device_unbinds() {
    let stand = Stand::connected("");
    let (client, device, _) = bound(&stand, PF);
    bounded(|| device.close());
    assert_eq!(stand.binding(PF), Binding::Unbound);
    assert_eq!(stand.binds(), (1, 1));
    client.close();
    stand.assert_clean();
}

#[test]
fn s2_destroy_of_a_bound_vdevice_unbinds() {
    let stand = Stand::connected("");
    let (client, _device, vdevice) = bound(&stand, PF);
    assert_eq!(client.destroy(vdevice.id), OK);
    assert_eq!(stand.binding(PF), Binding::Unbound);
    assert_eq!(stand.binds(), (1, 1));
}

#[test]
fn s3_close_after_the_vdevice_was_destroyed_unbinds_nothing() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = bound(&stand, PF);
    assert_eq!(client.destroy(vdevice.id), OK);
    bounded(|| device.close());
    client.close();
    assert_eq!(stand.binds(), (1, 1));
}

#[test]
fn s4_unbind_after_close_finds_no_vdevice() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = bound(&stand, PF);
    device.close();
    assert_eq!(client.tsm_unbind(vdevice.id), refused(Errno::ENOENT));
    assert_eq!(client.destroy(vdevice.id), refused(Errno::ENOENT));
    assert_eq!(stand.binds(), (1, 1));
}

#[test]
fn s5_after_unbind_the_device_is_unlocked_and_another_vm_gets_it() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = locked(&stand, PF);
    assert_eq!(client.tsm_unbind(vdevice.id), OK);
    assert_eq!(stand.state(PF), State::Unlocked);
    device.close();
    client.close();
    let (client, device, vdevice) = locked(&stand, PF);
    assert_eq!(client.run(vdevice.id), OK);
    device.close();
    client.close();
    assert_eq!(stand.binds(), (2, 2));
}

#[test]
fn s6_unbind_of_what_was_never_bound_does_nothing() {
    let stand = Stand::connected("");
    let (client, _device, vdevice) = prepared(&stand, PF);
    assert_eq!(client.tsm_unbind(vdevice.id), OK);
    assert_eq!(stand.binds(), (0, 0));
}

#[test]
fn s7_destroy_is_refused_while_a_bind_is_at_the_device() {
    let stand = Stand::connected("");
    let (client, _device, vdevice) = prepared(&stand, PF);
    stand.fault(PF, "bind=slow:600");
    thread::scope(|scope| {
        let bind = bind_in_flight(scope, &stand, PF, &client, vdevice);
        assert_eq!(at_once(|| client.destroy(vdevice.id)), refused(Errno::EBUSY));
        assert_eq!(bind.join().unwrap(), OK);
    });
    assert_eq!(stand.binding(PF), BOUND_UNLOCKED);
    assert_eq!(client.destroy(vdevice.id), OK);
    stand.assert_clean();
}

#[test]
fn s8_a_client_that_is_given_up_is_torn_down_all_the_same() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = prepared(&stand, PF);
    stand.fault(PF, "bind=silent*1");
    thread::scope(|scope| {
        let bind = bind_in_flight(scope, &stand, PF, &client, vdevice);
        // What the end of a process closes, in the order of its descriptors.
        let context = Arc::clone(&client.context);
        bounded(|| {
            context.cancel_commands();
            assert_eq!(bind.join().unwrap(), refused(Errno::EINTR));
            device.close();
        });
    });
    bounded(|| client.close());
    assert_eq!(stand.binds(), (1, 1));
    stand.assert_clean();
}

#[test]
fn s9_a_second_unbind_leaves_nothing_locked() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = bound(&stand, VF1);
    let neighbour = client.device(&stand, VF2);
    assert_eq!(client.tsm_unbind(vdevice.id), OK);
    assert_eq!(client.tsm_unbind(vdevice.id), OK);
    assert_eq!(neighbour.reset(), OK);
    assert_eq!(device.reset(), OK);
    neighbour.close();
    client.device(&stand, VF2).close();
    device.close();
    assert_eq!(stand.binds(), (1, 1));
}

#[test]
fn s10_every_way_to_disturb_a_bound_device_returns() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = locked(&stand, PF);
    assert_eq!(device.reset(), refused(Errno::EBUSY));
    assert_eq!(stand.state(PF), State::Locked);
    device.change_command(0, MEMORY);
    assert_eq!(stand.state(PF), State::Error);
    assert_eq!(client.tsm_unbind(vdevice.id), OK);
    assert_eq!(stand.state(PF), State::Unlocked);
    device.enable();
    assert_eq!(client.tsm_bind(vdevice.id), OK);
    assert_eq!(client.lock(vdevice.id), OK);
    device.change_command(0, BUS_MASTER);
    assert_eq!(stand.state(PF), State::Error);
    bounded(|| device.close());
    client.close();
    assert_eq!(stand.binds(), (2, 2));

    let stand = Stand::connected("client_clears_bme = \"refuse\"");
    let (client, device, vdevice) = locked(&stand, PF);
    device.change_command(0, MEMORY | BUS_MASTER);
    assert_eq!(stand.state(PF), State::Locked);
    assert_eq!(client.run(vdevice.id), OK);
    bounded(|| device.close());
    client.close();
    stand.assert_clean();
}

#[test]
fn s11_devices_of_one_driver_are_unbound_once_each() {
    let stand = Stand::connected("");
    let (client, one, first) = locked(&stand, VF1);
    let two = client.device(&stand, VF2);
    two.enable();
    let second = client.vdevice(&two, GUEST_ID + 8);
    assert_eq!(client.tsm_bind(second.id), OK);
    assert_eq!(client.lock(second.id), OK);
    assert_eq!(client.tsm_unbind(first.id), OK);
    assert_eq!((stand.state(VF1), stand.state(VF2)), (State::Unlocked, State::Locked));
    two.close();
    one.close();
    client.close();
    assert_eq!(stand.binds(), (2, 2));
}

#[test]
fn s12_close_waits_for_a_destroy_that_unbinds() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = bound(&stand, PF);
    stand.fault(PF, "unbind=slow:500");
    thread::scope(|scope| {
        let destroyer = client.clone();
        let destroy = scope.spawn(move || destroyer.destroy(vdevice.id));
        until(|| is_running(&stand, "unbind", PF));
        bounded(|| device.close());
        assert_eq!(stand.binding(PF), Binding::Unbound);
        assert_eq!(destroy.join().unwrap(), OK);
    });
    client.close();
    assert_eq!(stand.binds(), (1, 1));
}

#[test]
fn s13_a_device_whose_end_has_begun_gets_no_vdevice() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = bound(&stand, PF);
    stand.fault(PF, "unbind=slow:500");
    thread::scope(|scope| {
        let file = Arc::clone(&device.file);
        let close = scope.spawn(move || file.release());
        until(|| is_running(&stand, "unbind", PF));
        let another = client.vdevice_alloc(vdevice.viommu, &device, GUEST_ID + 8);
        assert_eq!(another, Err(Errno::ENOENT));
        bounded(|| close.join().unwrap());
    });
    client.close();
    assert_eq!(stand.binds(), (1, 1));
}

#[test]
fn s14_the_id_of_a_vdevice_that_its_device_took_along_never_comes_again() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = bound(&stand, PF);
    device.close();
    for _ in 0..100 {
        let mut ioas = IoasAlloc { size: size_of_u32::<IoasAlloc>(), ..Default::default() };
        assert_eq!(client.call(CommandId::IoasAlloc, &mut ioas), OK);
        assert_ne!(ioas.out_ioas_id, vdevice.id);
    }
    assert_eq!(client.destroy(vdevice.id), refused(Errno::ENOENT));
    assert_eq!(client.context.counts().tombstones, 1);
}

#[test]
fn s15_destroy_is_refused_for_as_long_as_a_request_runs() {
    let stand = Stand::connected("");
    let (client, _device, vdevice) = bound(&stand, PF);
    stand.fault(PF, "lock=slow:500");
    thread::scope(|scope| {
        let guest = client.clone();
        let lock = scope.spawn(move || guest.lock(vdevice.id));
        until(|| is_running(&stand, "request", PF));
        assert_eq!(at_once(|| client.destroy(vdevice.id)), refused(Errno::EBUSY));
        assert_eq!(lock.join().unwrap(), OK);
    });
    assert_eq!(client.destroy(vdevice.id), OK);
    assert_eq!(stand.state(PF), State::Unlocked);
    assert_eq!(stand.binds(), (1, 1));
}

#[test]
fn s16_close_does_not_wait_for_a_silent_device() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = prepared(&stand, PF);
    stand.fault(PF, "bind=silent");
    thread::scope(|scope| {
        let bind = bind_in_flight(scope, &stand, PF, &client, vdevice);
        bounded(|| device.close());
        assert_eq!(bind.join().unwrap(), refused(Errno::EINTR));
    });
    client.close();
    assert_eq!(stand.binds(), (1, 1));
    stand.assert_clean();
}

#[test]
fn s16_a_device_that_does_not_answer_the_unbind_either_is_quarantined_until_it_is_known() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = prepared(&stand, PF);
    for ended_by_reset in [false, true] {
        stand.fault(PF, "bind=silent*1");
        stand.fault(PF, "unbind=silent*1");
        assert_eq!(bounded(|| client.tsm_bind(vdevice.id)), refused(Errno::ETIMEDOUT));
        assert_eq!(stand.binding(PF), Binding::Quarantined);
        assert_eq!(client.tsm_bind(vdevice.id), refused(Errno::EBUSY));
        if ended_by_reset {
            assert_eq!(device.reset(), OK);
        } else {
            assert_eq!(stand.disconnect(), Ok(()));
            stand.connect();
        }
        assert_eq!(stand.binding(PF), Binding::Unbound);
        assert_eq!(client.tsm_bind(vdevice.id), OK);
        assert_eq!(client.tsm_unbind(vdevice.id), OK);
    }
    device.close();
    client.close();
    assert_eq!(stand.binds(), (4, 4));
}

#[test]
fn s16b_a_slow_bind_of_one_vf_holds_no_group_of_another() {
    let stand = Stand::connected("");
    let (client, _device, slow) = prepared(&stand, VF1);
    let other = client.device(&stand, VF2);
    let vdevice = client.vdevice(&other, GUEST_ID + 8);
    assert_eq!(client.tsm_bind(vdevice.id), OK);
    stand.fault(VF1, "bind=slow:700");
    thread::scope(|scope| {
        let bind = bind_in_flight(scope, &stand, VF1, &client, slow);
        let destroyer = client.clone();
        let destroy = scope.spawn(move || bounded(|| destroyer.destroy(vdevice.id)));
        for _ in 0..5 {
            assert_eq!(at_once(|| client.attach(&other)), OK);
            assert_eq!(at_once(|| other.detach()), OK);
        }
        assert!(!bind.is_finished());
        assert_eq!(destroy.join().unwrap(), OK);
        assert_eq!(bind.join().unwrap(), OK);
    });
    assert_eq!(stand.binding(VF2), Binding::Unbound);
    assert_eq!(stand.binding(VF1), BOUND_UNLOCKED);
}

#[test]
fn s17_a_client_that_gives_up_on_a_bind_in_flight_leaves_nothing_half_bound() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = prepared(&stand, PF);
    stand.fault(PF, "bind=slow:900");
    thread::scope(|scope| {
        let bind = bind_in_flight(scope, &stand, PF, &client, vdevice);
        assert_eq!(client.destroy(vdevice.id), refused(Errno::EBUSY));
        bounded(|| device.close());
        assert_eq!(bind.join().unwrap(), refused(Errno::EINTR));
    });
    client.close();
    assert_eq!(stand.state(PF), State::Unlocked);
    stand.assert_clean();
}

#[test]
fn s18_close_in_either_order_unbinds_and_only_linuxs_goes_by_error() {
    for (order, by_error) in [("unbind-first", false), ("linux-7.3", true)] {
        let stand = Stand::connected(&format!("close_order = \"{order}\""));
        let (client, device, vdevice) = locked(&stand, PF);
        assert_eq!(client.run(vdevice.id), OK);
        let states = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&states);
        let manager = stand.machine.devices[PF].security.as_ref().unwrap();
        manager.watch(Arc::new(move |change| seen.lock().unwrap().push(change.to)));
        bounded(|| device.close());
        client.close();
        let states = states.lock().unwrap().clone();
        assert_eq!(states.contains(&State::Error), by_error, "{order}: {states:?}");
        assert_eq!(stand.state(PF), State::Unlocked);
        assert_eq!(stand.binds(), (1, 1));
    }
}

#[test]
fn s19_a_reset_while_bound_does_what_the_policy_says() {
    let stand = Stand::connected("");
    let (_client, device, _) = locked(&stand, PF);
    assert_eq!(device.reset(), refused(Errno::EBUSY));
    assert_eq!((stand.binding(PF), stand.state(PF)), (BOUND_LOCKED, State::Locked));

    let stand = Stand::connected("reset_while_bound = \"unbind\"");
    let (_client, device, _) = locked(&stand, PF);
    assert_eq!(device.reset(), OK);
    assert_eq!((stand.binding(PF), stand.state(PF)), (Binding::Unbound, State::Unlocked));
    assert_eq!(stand.binds(), (1, 1));

    for (reset, state) in [("unlocked", State::Unlocked), ("error", State::Error)] {
        let settings = format!("reset_while_bound = \"error\"\nflr_while_locked = \"{reset}\"");
        let stand = Stand::connected(&settings);
        let (client, device, vdevice) = locked(&stand, PF);
        assert_eq!(device.reset(), OK);
        assert_eq!(stand.state(PF), state);
        assert!(client.run(vdevice.id).is_err(), "the nonce is gone");
        assert_eq!(client.tsm_unbind(vdevice.id), OK);
        assert_eq!(stand.state(PF), State::Unlocked);
        assert_eq!(stand.binds(), (1, 1));
    }
}

#[test]
fn s20_after_a_disconnect_requests_find_nothing_and_teardown_has_nothing_to_do() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = locked(&stand, PF);
    assert_eq!(bounded(|| stand.disconnect()), Ok(()));
    assert_eq!(stand.state(PF), State::Unlocked);
    assert_eq!(client.run(vdevice.id), refused(Errno::ENXIO));
    assert_eq!(client.tsm_unbind(vdevice.id), OK);
    assert_eq!(client.destroy(vdevice.id), OK);
    device.close();
    client.close();
    assert_eq!(stand.binds(), (1, 1));
}

#[test]
fn s21_a_bind_that_meets_a_disconnect_is_cancelled_and_the_next_is_on_the_new_connection() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = prepared(&stand, PF);
    stand.fault(PF, "bind=slow:900*1");
    thread::scope(|scope| {
        let bind = bind_in_flight(scope, &stand, PF, &client, vdevice);
        assert_eq!(bounded(|| stand.disconnect()), Ok(()));
        assert_eq!(bind.join().unwrap(), refused(Errno::EINTR));
    });
    assert_eq!(client.tsm_bind(vdevice.id), refused(Errno::EINVAL));
    stand.connect();
    assert_eq!(client.tsm_bind(vdevice.id), OK);
    device.close();
    client.close();
    assert_eq!(stand.binds(), (2, 2));
}

#[test]
fn s22_a_second_bind_is_the_first_ones_or_refused_and_a_new_guest_id_reaches_the_tsm() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = bound(&stand, PF);
    assert_eq!(client.tsm_bind(vdevice.id), OK);
    let (address, stranger) = (stand.address(PF), VmId(u64::MAX));
    let other = stand.machine.tsm.bind(address, stranger, GUEST_ID, &Cancel::new());
    assert_eq!(other.unwrap_err().errno(), Errno::EBUSY);
    assert_eq!(stand.binds(), (1, 0));
    assert_eq!(client.destroy(vdevice.id), OK);
    let another = client.vdevice_alloc(vdevice.viommu, &device, GUEST_ID + 8).unwrap();
    assert_eq!(client.tsm_bind(another), OK);
    let ledger = stand.machine.tsm.ledger();
    let tdi = ledger.iter().flat_map(|connection| &connection.tdis);
    let guest_ids: Vec<_> = tdi.filter_map(|tdi| tdi.guest_id).collect();
    assert_eq!(guest_ids, [GUEST_ID + 8]);
}

struct OpenVm;

impl Vm for OpenVm {
    fn id(&self) -> VmId {
        VmId(77)
    }
}

#[test]
fn s23_the_vm_lives_as_long_as_its_viommu() {
    let stand = Stand::connected("tvm = \"kvm\"");
    let client = Client::open(&stand);
    let (vm, unlinked) = (Arc::new(OpenVm), client.device(&stand, VF2));
    let without = client.vdevice(&unlinked, GUEST_ID + 8);
    assert_eq!(client.tsm_bind(without.id), refused(Errno::ENODEV));
    unlinked.close();

    let file = stand.open(PF);
    let linked: Arc<dyn Vm> = vm.clone();
    file.link_vm(Some(linked));
    let device = client.bind(file);
    device.enable();
    let vdevice = client.vdevice(&device, GUEST_ID);
    assert_eq!(client.tsm_bind(vdevice.id), OK);
    device.close();
    let gone = Arc::downgrade(&vm);
    drop(vm);
    assert!(gone.upgrade().is_some(), "the vIOMMU holds the VM");
    assert_eq!(client.destroy(vdevice.viommu), OK);
    assert!(gone.upgrade().is_none(), "nobody else does");
    client.close();
    stand.assert_clean();
}

#[test]
fn s24_a_bind_that_binds_nothing_is_no_bind() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = prepared(&stand, PF);
    stand.fault(PF, "bind=null");
    assert_eq!(client.tsm_bind(vdevice.id), refused(Errno::EIO));
    assert_eq!(stand.binding(PF), Binding::Unbound);
    assert_eq!(client.lock(vdevice.id), refused(Errno::ENXIO));
    device.close();
    client.close();
    stand.assert_clean();
}

#[test]
fn s25_of_two_binds_at_once_the_backend_sees_one() {
    let stand = Stand::connected("");
    let (client, _device, vdevice) = prepared(&stand, PF);
    stand.fault(PF, "bind=slow:300");
    thread::scope(|scope| {
        let bind = bind_in_flight(scope, &stand, PF, &client, vdevice);
        assert_eq!(client.tsm_bind(vdevice.id), OK);
        assert_eq!(bind.join().unwrap(), OK);
    });
    assert_eq!(stand.binds(), (1, 0));
}

#[test]
fn s26_of_two_unbinds_at_once_the_backend_sees_one() {
    let stand = Stand::connected("");
    let (client, _device, vdevice) = bound(&stand, PF);
    stand.fault(PF, "unbind=slow:300");
    thread::scope(|scope| {
        let other = client.clone();
        let unbind = scope.spawn(move || other.tsm_unbind(vdevice.id));
        until(|| is_running(&stand, "unbind", PF));
        assert_eq!(client.tsm_unbind(vdevice.id), OK);
        assert_eq!(unbind.join().unwrap(), OK);
    });
    assert_eq!(stand.binds(), (1, 1));
}

#[test]
fn s27_a_device_file_binds_its_own_vdevice_only() {
    let stand = Stand::connected("uapi = \"rfc-2025-05\"");
    let (client, _device, vdevice) = prepared(&stand, VF1);
    let other = client.device(&stand, VF2);
    let mut bind = TsmBind { argsz: size_of_u32::<TsmBind>(), ..Default::default() };
    bind.vdevice_id = vdevice.id;
    assert_eq!(other.call(CommandId::DeviceTsmBind, &mut bind), refused(Errno::EINVAL));
    assert_eq!((stand.binding(VF1), stand.binding(VF2)), (Binding::Unbound, Binding::Unbound));
}

#[test]
fn s28_a_bind_inside_vdevice_alloc_holds_no_group() {
    let stand = Stand::connected("");
    let client = Client::open(&stand);
    let device = client.device(&stand, PF);
    let realm = client.viommu(&device, viommu_type::ARM_REALM_SMMUV3).unwrap();
    stand.fault(PF, "bind=slow:600");
    thread::scope(|scope| {
        let (maker, device) = (client.clone(), &device);
        let make = scope.spawn(move || maker.vdevice_alloc(realm.viommu, device, GUEST_ID));
        until(|| is_running(&stand, "bind", PF));
        for _ in 0..5 {
            assert_eq!(at_once(|| client.attach(device)), OK);
            assert_eq!(at_once(|| device.detach()), OK);
        }
        assert!(!make.is_finished());
        assert!(make.join().unwrap().is_ok());
    });
    assert_eq!(stand.binding(PF), BOUND_UNLOCKED);
    device.close();
    client.close();
    stand.assert_clean();
}

#[test]
fn s29_private_mappings_go_before_the_interface_is_stopped() {
    let stand = Stand::connected("");
    let (client, device, vdevice) = locked(&stand, PF);
    assert_eq!(client.run(vdevice.id), OK);
    let bar0 = stand.machine.devices[PF].resources[0];
    // Guest address, its end, and where the BAR is in the host.
    let request = [0x4000_0000_u64, 0x4000_1000, bar0.start];
    let validated = client.request(vdevice.id, tsm_request::VALIDATE_MMIO, request.as_bytes(), 0);
    assert_eq!(validated.map(|(rest, _)| rest), OK);
    let mappings = || -> usize {
        let ledger = stand.machine.tsm.ledger();
        ledger.iter().flat_map(|connection| &connection.tdis).map(|tdi| tdi.mappings).sum()
    };
    assert_eq!(mappings(), 1);
    assert_eq!(client.destroy(vdevice.id), OK);
    assert_eq!(mappings(), 0);
    assert_eq!(stand.state(PF), State::Unlocked);
    device.close();
    client.close();
    stand.assert_clean();
}

#[test]
fn s30_an_error_after_the_change_leaves_the_state_unknown_until_unbind() {
    let stand = Stand::connected("");
    let (client, _device, vdevice) = bound(&stand, PF);
    stand.fault(PF, "lock=error-after-commit*1");
    assert_eq!(client.lock(vdevice.id), refused(Errno::EIO));
    assert_eq!(stand.state(PF), State::Locked);
    assert_eq!(stand.binding(PF), Binding::Unknown);
    assert_eq!(client.tsm_unbind(vdevice.id), OK);
    assert_eq!((stand.binding(PF), stand.state(PF)), (Binding::Unbound, State::Unlocked));
    assert_eq!(stand.binds(), (1, 1));
}

/// A client whose struct can be read and not written.
struct ReadOnly(CallMemory);

impl vfio::Caller for ReadOnly {}

impl Caller for ReadOnly {
    fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize {
        self.0.read_prefix(at, into)
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), Unreachable> {
        Err(Unreachable)
    }

    fn memory(&self) -> Arc<dyn Source> {
        self.0.memory()
    }

    fn file_memory(&self, fd: i32) -> Result<Arc<dyn Source>, FileFault> {
        self.0.file_memory(fd)
    }

    fn eventfd(&self, fd: i32) -> Result<Arc<dyn Signal>, FileFault> {
        self.0.eventfd(fd)
    }

    fn iommufd(&self, fd: i32) -> Result<Arc<Context>, FileFault> {
        self.0.iommufd(fd)
    }
}

#[test]
fn s31_where_the_answer_cannot_be_written_nothing_is_bound_that_nobody_knows_of() {
    let stand = Stand::connected("");
    let client = Client::open(&stand);
    let device = client.device(&stand, PF);
    device.enable();
    let realm = client.viommu(&device, viommu_type::ARM_REALM_SMMUV3).unwrap();
    let vdevice = VdeviceAlloc {
        size: size_of_u32::<VdeviceAlloc>(),
        viommu_id: realm.viommu,
        dev_id: device.id,
        virt_id: GUEST_ID,
        ..Default::default()
    };
    let call = |id: CommandId, argument: &[u8]| {
        let memory = ReadOnly(CallMemory::default());
        let at = memory.0.put(argument);
        client.context.ioctl(&memory, Command::of(id).request, at)
    };
    assert_eq!(call(CommandId::VdeviceAlloc, vdevice.as_bytes()), refused(Errno::EFAULT));
    assert_eq!(stand.binding(PF), Binding::Unbound);
    assert_eq!(stand.binds(), (1, 1));

    let id = client.vdevice_alloc(realm.viommu, &device, GUEST_ID).unwrap();
    assert_eq!(stand.binding(PF), BOUND_UNLOCKED);
    // The state is part of no answer: what cannot be written is only the TSM's code.
    let payload = CallMemory::default();
    let request_at = payload.put(&1_u32.to_le_bytes());
    let request = TsmReq {
        size: size_of_u32::<TsmReq>(),
        vdevice_id: id,
        op: tsm_request::SET_TDI_STATE,
        tvm_arch: tvm_arch::CCA,
        req_len: 4,
        req_uptr: request_at,
        tsm_code: u64::MAX,
        ..Default::default()
    };
    let memory = ReadOnly(payload);
    let at = memory.0.put(request.as_bytes());
    let number = Command::of(CommandId::VdeviceTsmReq).request;
    assert_eq!(client.context.ioctl(&memory, number, at), refused(Errno::EFAULT));
    assert_eq!((stand.binding(PF), stand.state(PF)), (BOUND_LOCKED, State::Locked));
    device.close();
    client.close();
    assert_eq!(stand.binds(), (2, 2));
}

#[test]
fn s32_the_device_ends_first_in_whatever_order_the_files_close() {
    for iommu_first in [false, true] {
        let stand = Stand::connected("");
        let (client, device, _) = locked(&stand, PF);
        if iommu_first {
            bounded(|| client.close());
            assert_eq!(stand.binding(PF), BOUND_LOCKED);
            bounded(|| device.close());
        } else {
            bounded(|| device.close());
            assert_eq!(stand.binding(PF), Binding::Unbound);
            bounded(|| client.close());
        }
        assert_eq!(stand.state(PF), State::Unlocked);
        assert_eq!(stand.binds(), (1, 1));
    }
}

#[test]
fn s33_when_the_pf_goes_its_vfs_are_unbound_once() {
    let stand = Stand::connected("");
    let (client, one, _) = locked(&stand, VF1);
    let two = client.device(&stand, VF2);
    two.enable();
    let second = client.vdevice(&two, GUEST_ID + 8);
    assert_eq!(client.tsm_bind(second.id), OK);
    bounded(|| stand.machine.tsm.remove(stand.address(PF)));
    assert_eq!((stand.binding(VF1), stand.binding(VF2)), (Binding::Unbound, Binding::Unbound));
    assert_eq!((stand.state(VF1), stand.state(VF2)), (State::Unlocked, State::Unlocked));
    bounded(|| one.close());
    bounded(|| two.close());
    client.close();
    assert_eq!(stand.binds(), (2, 2));
}

#[test]
fn s34_run_after_close_is_refused() {
    let stand = Stand::connected("close_order = \"linux-7.3\"");
    let (client, device, vdevice) = locked(&stand, PF);
    device.close();
    assert_eq!(client.run(vdevice.id), refused(Errno::ENOENT));
    assert_eq!(stand.state(PF), State::Unlocked);
    assert_eq!(stand.binds(), (1, 1));
}
