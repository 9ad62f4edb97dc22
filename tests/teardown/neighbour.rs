//! A device that does not answer holds up nobody but itself.

use std::time::{Duration, Instant};

use crate::bystander::undisturbed;
use crate::session::{DEVICE, NEIGHBOUR, Session};
use crate::shape::{POLICIES, SHAPES};

/// While a bind of one device hangs, another device lives its whole life.
pub(crate) fn is_not_delayed() {
    let mut session = Session::start(&SHAPES[0], &POLICIES[0]);
    let before = session.ledger();
    let took = undisturbed("neighbour", || {
        let took = life_beside_a_hanging_bind(&mut session);
        session.restore();
        assert_eq!(before, session.ledger());
        Some(took)
    });
    assert!(took < Duration::from_millis(500), "{took:?}");
    session.end();
}

fn life_beside_a_hanging_bind(session: &mut Session) -> Duration {
    session.fault(DEVICE, "bind=silent");
    session.fault(DEVICE, "unbind=silent");
    session.tell("{ TDI_CDEV=/dev/vfio/devices/vfio0 \"$TDI\" unbind inflight >/dev/null & }");
    wait_until_binding(session);
    let begun = Instant::now();
    let vfio_dev = format!("/sys/bus/pci/devices/{NEIGHBOUR}/vfio-dev");
    let (lines, status) = session.tell(&format!(
        "TDI_PF={NEIGHBOUR} TDI_CDEV=/dev/vfio/devices/$(ls {vfio_dev}) \"$TDI\" vfio"
    ));
    assert_eq!(status, 0, "{}", lines.join("\n"));
    let took = begun.elapsed();
    session.tell("wait");
    took
}

fn wait_until_binding(session: &Session) {
    let begun = Instant::now();
    while session.ledger()["tdis"]
        .as_array()
        .is_none_or(|tdis| tdis.iter().all(|tdi| tdi["host"] != "binding"))
    {
        assert!(begun.elapsed() < Duration::from_secs(5), "nothing is being bound");
    }
}
