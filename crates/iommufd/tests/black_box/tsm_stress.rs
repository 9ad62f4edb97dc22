//! Threads that bind, unbind, make, destroy and end at once, on a device that is quick, slow or silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use iommufd::Device;
use uapi::iommufd::{TsmReq, tsm_request, tvm_arch, viommu_type};
use uapi::{CommandId, Errno, Profile};

use crate::support::{Answers, Client, Confidential, GUEST_ID, Platform, TIMEOUT_MS, Tee};

/// What no end may take longer than: twice the exchange timeout, and time for a loaded machine.
const BOUND: Duration = Duration::from_millis(2 * TIMEOUT_MS + 2000);

/// What a thread does again and again to a vdevice that others use too.
type Act = fn(&Confidential, &Client, u32) -> Option<Errno>;

const ACTS: [(&str, Act); 5] = [
    ("bind", |_, client, vdevice| client.tsm_bind(vdevice).err()),
    ("unbind", |_, client, vdevice| client.tsm_unbind(vdevice).err()),
    ("destroy", |_, client, vdevice| client.destroy(vdevice).err()),
    ("make", |fixture, client, _| {
        client.vdevice(fixture.viommu, fixture.device.id(), GUEST_ID).err()
    }),
    ("request", |_, client, vdevice_id| {
        let argument = TsmReq {
            vdevice_id,
            op: tsm_request::OBJECT_INFO,
            tvm_arch: tvm_arch::CCA,
            ..TsmReq::default()
        };
        client.call(CommandId::VdeviceTsmReq, argument).err()
    }),
];

/// What those may answer while others do theirs.
const HARMLESS: [Errno; 8] = [
    Errno::EBUSY,
    Errno::EEXIST,
    Errno::EINTR,
    Errno::EINVAL,
    Errno::EIO,
    Errno::ENOENT,
    Errno::ENXIO,
    Errno::ETIMEDOUT,
];

/// Lets two threads act `turns` times each, then ends the device while they may still be at it.
fn act_at_once(r#type: u32, answers: Answers, acts: [(&str, Act); 2], turns: usize) {
    let fixture = Confidential::behind(Profile::Rfc, r#type);
    let vdevice = fixture.vdevice();
    fixture.tee.device.answers(answers);
    thread::scope(|scope| {
        for (number, (name, act)) in (1..).zip(acts) {
            let (fixture, client) = (&fixture, fixture.client.thread(number));
            scope.spawn(move || {
                for _ in 0..turns {
                    let answer = act(fixture, &client, vdevice);
                    assert!(
                        answer.is_none_or(|errno| HARMLESS.contains(&errno)),
                        "{name} {answer:?}"
                    );
                }
            });
        }
        thread::yield_now();
        let start = Instant::now();
        fixture.device.begin_end();
        assert!(!fixture.device.tdi().is_bound());
        fixture.device.end();
        assert!(start.elapsed() < BOUND, "{} and {}: {:?}", acts[0].0, acts[1].0, start.elapsed());
        assert!(!fixture.device.tdi().is_bound(), "nothing is bound once a device has ended");
    });
    fixture.tee.assert_settled();
    assert_eq!(fixture.client.ctx.counts().vdevices, 0);
    fixture.client.destroy(fixture.viommu).unwrap();
}

fn all_pairs(answers: Answers, turns: usize, repeats: usize) {
    for r#type in [viommu_type::ARM_SMMUV3, viommu_type::ARM_REALM_SMMUV3] {
        for (index, one) in ACTS.iter().enumerate() {
            for other in &ACTS[index..] {
                for _ in 0..repeats {
                    act_at_once(r#type, answers, [*one, *other], turns);
                }
            }
        }
    }
}

#[test]
fn all_pairs_against_the_end_of_a_quick_device() {
    all_pairs(Answers::AtOnce, 40, 6);
}

#[test]
fn all_pairs_against_the_end_of_a_slow_device() {
    all_pairs(Answers::After(1), 8, 2);
}

#[test]
fn all_pairs_against_the_end_of_a_silent_device() {
    all_pairs(Answers::Never, 2, 1);
}

/// Programs come and go: bind, work, and lose file and device in either order, each while another thread is
/// at work on the TSM commands.
#[test]
fn programs_come_and_go_on_one_device() {
    let tee = Tee::connected(crate::support::single_address());
    let platform = Platform::with_tsm(&tee.registry);
    for turn in 0_u64..60 {
        tee.device.answers(if turn % 3 == 0 { Answers::After(1) } else { Answers::AtOnce });
        let client = Client::open_as(Profile::Rfc);
        let device = Device::bind(&client.ctx, &platform.single).unwrap();
        let hwpt = client.nest_parent(device.id());
        let r#type = [viommu_type::ARM_SMMUV3, viommu_type::ARM_REALM_SMMUV3];
        let viommu = client.viommu(r#type[usize::from(turn % 2 == 0)], device.id(), hwpt).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let before = tee.device.asked();
        thread::scope(|scope| {
            for number in 1..3 {
                let (thread, stop, dev_id) =
                    (client.thread(number), Arc::clone(&stop), device.id());
                scope.spawn(move || {
                    while !stop.load(SeqCst) {
                        if let Ok(vdevice) = thread.vdevice(viommu, dev_id, GUEST_ID) {
                            _ = thread.tsm_bind(vdevice);
                            _ = thread.tsm_unbind(vdevice);
                            _ = thread.tsm_bind(vdevice);
                            _ = thread.destroy(vdevice);
                        }
                    }
                });
            }
            tee.device.wait_asked(before);
            if turn % 4 < 2 {
                client.ctx.cancel_commands();
            }
            device.begin_end();
            device.end();
            assert!(!tee.registry.binding(tee.function).is_bound());
            stop.store(true, SeqCst);
        });
        client.ctx.put_file();
        assert!(!client.ctx.get_file(), "turn {turn}");
        tee.assert_settled();
    }
    assert!(tee.registry.counters().binds > 0);
}
