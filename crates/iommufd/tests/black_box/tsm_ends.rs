//! Ends that meet a TSM command in flight: nobody waits for a silent device, each bind has its unbind.

use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use tsm::Binding;
use uapi::iommufd::viommu_type;
use uapi::{Errno, Profile};

use crate::support::{Answers, Confidential, GUEST_ID, TIMEOUT_MS};

const REALM: u32 = viommu_type::ARM_REALM_SMMUV3;

/// What no end may take longer than: twice the exchange timeout, and time for a loaded machine.
const BOUND: Duration = Duration::from_millis(2 * TIMEOUT_MS + 2000);

/// Runs `command` against a device that answers so, and `meanwhile` once the device was asked.
fn while_in_flight<T: Send>(
    fixture: &Confidential,
    answers: Answers,
    command: impl FnOnce() -> Result<T, Errno> + Send,
    meanwhile: impl FnOnce(&ScopedJoinHandle<'_, Result<T, Errno>>),
) -> Result<T, Errno> {
    fixture.tee.device.answers(answers);
    let before = fixture.tee.device.asked();
    thread::scope(|scope| {
        let running = scope.spawn(command);
        fixture.tee.device.wait_asked(before);
        let start = Instant::now();
        meanwhile(&running);
        let answer = running.join().unwrap();
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
        answer
    })
}

#[test]
fn destroying_what_a_command_uses_is_refused_and_the_command_goes_on() {
    let fixture = Confidential::new(Profile::Rfc);
    let vdevice = fixture.vdevice();
    let (binder, other) = (fixture.client.thread(1), fixture.client.thread(2));
    let bound = while_in_flight(
        &fixture,
        Answers::After(TIMEOUT_MS / 8),
        move || binder.tsm_bind(vdevice),
        |_| {
            assert_eq!(other.destroy(vdevice), Err(Errno::EBUSY));
            assert_eq!(other.destroy(fixture.viommu), Err(Errno::EBUSY));
        },
    );
    assert_eq!(bound, Ok(()));
    fixture.client.destroy(vdevice).unwrap();
    fixture.tee.assert_settled();
}

#[test]
fn the_end_of_a_device_cancels_a_bind() {
    for answers in [Answers::Never, Answers::After(TIMEOUT_MS / 2)] {
        let fixture = Confidential::new(Profile::Rfc);
        let vdevice = fixture.vdevice();
        let binder = fixture.client.thread(1);
        let bound = while_in_flight(
            &fixture,
            answers,
            move || binder.tsm_bind(vdevice),
            |_| {
                fixture.device.begin_end();
                assert!(!fixture.device.tdi().is_bound());
                assert_eq!(fixture.client.ctx.counts().tombstones, 1);
                fixture.device.end();
            },
        );
        assert_eq!(bound, Err(Errno::EINTR), "{answers:?}");
        assert_eq!(fixture.client.destroy(vdevice), Err(Errno::ENOENT));
        fixture.tee.assert_settled();
    }
}

#[test]
fn the_end_of_a_device_cancels_a_vdevice_that_is_being_made() {
    for answers in [Answers::Never, Answers::After(TIMEOUT_MS / 2)] {
        let fixture = Confidential::behind(Profile::Rfc, REALM);
        let (maker, viommu, dev_id) =
            (fixture.client.thread(1), fixture.viommu, fixture.device.id());
        let made = while_in_flight(
            &fixture,
            answers,
            move || maker.vdevice(viommu, dev_id, GUEST_ID),
            |_| {
                let again = fixture.client.vdevice(viommu, dev_id, GUEST_ID + 1);
                assert_eq!(again, Err(Errno::EEXIST));
                fixture.device.begin_end();
                assert!(!fixture.device.tdi().is_bound());
                fixture.device.end();
            },
        );
        assert_eq!(made, Err(Errno::EINTR), "{answers:?}");
        let counts = fixture.client.ctx.counts();
        assert_eq!((counts.vdevices, counts.tombstones), (0, 0), "its id was never told");
        fixture.tee.assert_settled();
        fixture.client.destroy(viommu).unwrap();
    }
}

#[test]
fn an_unbind_by_destroy_is_waited_for_by_the_end_of_the_device() {
    let fixture = Confidential::new(Profile::Rfc);
    let vdevice = fixture.vdevice();
    fixture.client.tsm_bind(vdevice).unwrap();
    let destroyer = fixture.client.thread(1);
    let destroyed = while_in_flight(
        &fixture,
        Answers::Never,
        move || destroyer.destroy(vdevice),
        |_| {
            let again = fixture.client.vdevice(fixture.viommu, fixture.device.id(), 7);
            assert_eq!(again, Err(Errno::EEXIST), "until it is unbound");
            fixture.device.begin_end();
            assert_eq!(fixture.device.tdi(), Binding::Quarantined);
            fixture.device.end();
        },
    );
    assert_eq!(destroyed, Ok(()));
    assert_eq!(fixture.client.ctx.counts().tombstones, 0);
    fixture.tee.assert_settled();
}

#[test]
fn closing_the_file_cancels_its_commands_and_not_the_devices_later_ones() {
    let fixture = Confidential::new(Profile::Rfc);
    let vdevice = fixture.vdevice();
    let binder = fixture.client.thread(1);
    let bound = while_in_flight(
        &fixture,
        Answers::Never,
        move || binder.tsm_bind(vdevice),
        |_| fixture.client.ctx.cancel_commands(),
    );
    assert_eq!(bound, Err(Errno::EINTR));
    fixture.tee.assert_settled();
    fixture.tee.device.answers(Answers::AtOnce);
    fixture.device.begin_reset().unwrap().done();
    assert_eq!(fixture.client.tsm_bind(vdevice), Err(Errno::EINTR), "no file, no command");
    fixture.device.bind_tdi(vdevice).unwrap();
    fixture.device.end();
    fixture.tee.assert_settled();
}

#[test]
fn a_reset_that_is_allowed_cancels_a_bind_and_a_later_one_succeeds() {
    let fixture = Confidential::new(Profile::Rfc);
    let vdevice = fixture.vdevice();
    let binder = fixture.client.thread(1);
    let bound = while_in_flight(
        &fixture,
        Answers::Never,
        move || binder.tsm_bind(vdevice),
        |_| {
            assert_eq!(fixture.device.begin_reset().err(), Some(Binding::Binding));
            fixture.device.cancel_and_unbind();
        },
    );
    assert_eq!(bound, Err(Errno::EINTR));
    fixture.tee.device.answers(Answers::AtOnce);
    fixture.device.begin_reset().unwrap().done();
    fixture.client.tsm_bind(vdevice).unwrap();
    fixture.device.end();
    fixture.tee.assert_settled();
}

/// Every order in which a bound TDI's file, vdevice, vIOMMU, page table, connection and context can end.
#[test]
fn every_order_of_ends_leaves_nothing() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum End {
        Vdevice,
        Viommu,
        Hwpt,
        Device,
        Unbind,
        Disconnect,
        File,
    }
    use End::{Device, Disconnect, File, Hwpt, Unbind, Vdevice, Viommu};
    let all = [Vdevice, Viommu, Hwpt, Device, Unbind, Disconnect, File];
    for first in all {
        for second in all.into_iter().filter(|end| *end != first) {
            for third in all.into_iter().filter(|end| ![first, second].contains(end)) {
                let fixture = Confidential::behind(Profile::Rfc, REALM);
                let vdevice = fixture.vdevice();
                let client = &fixture.client;
                let mut ended = false;
                let mut end = |end| match end {
                    Vdevice => _ = client.destroy(vdevice),
                    Viommu => _ = client.destroy(fixture.viommu),
                    Hwpt => _ = client.destroy(fixture.hwpt),
                    Device if !ended => {
                        ended = true;
                        fixture.device.begin_end();
                        assert!(!fixture.device.tdi().is_bound());
                        fixture.device.end();
                    }
                    Device => {}
                    Unbind => fixture.device.unbind(),
                    Disconnect => {
                        _ = fixture.tee.registry.disconnect(fixture.tee.function, b"tsm0");
                    }
                    File => client.ctx.cancel_commands(),
                };
                [first, second, third].into_iter().for_each(&mut end);
                end(Device);
                fixture.tee.assert_settled();
                assert_eq!(fixture.tee.registry.counters().binds, 1);
                client.ctx.put_file();
                assert_eq!(client.ctx.counts().vdevices, 0, "{first:?} {second:?} {third:?}");
                assert!(!client.ctx.get_file());
            }
        }
    }
}
