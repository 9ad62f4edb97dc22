//! SIGKILL at each system call of the client: when the call has returned, and while it is under way.

use crate::session::Session;
use crate::shape::{POLICIES, Shape};

/// No client makes more calls.
const CALLS_MAX: u32 = 400;
/// A client that gets to its end makes at least so many.
const CALLS_MIN: u32 = 50;

pub(crate) fn at_each_call(shape: &Shape) {
    let mut session = Session::start(shape, &POLICIES[0]);
    let before = session.ledger();
    for when in ["after", "during"] {
        let mut calls = 0;
        loop {
            calls += 1;
            assert!(calls < CALLS_MAX, "{shape}: the client does not end");
            let (said, status) = session.tell(&format!(
                "TDI_CDEV=/dev/vfio/devices/vfio0 \"$TDI_KILL\" {when} {calls} \"$TDI\" vfio{}",
                shape.arguments()
            ));
            assert_eq!(status, 0, "{shape}: {when} {calls}: {said:?}");
            let left = session.settled_ledger();
            assert!(crate::order::is_empty(&left), "{shape}: {when} call {calls}:\n{left:#}");
            session.restore();
            assert_eq!(before, session.ledger(), "{shape}: {when} call {calls}: before and after");
            if said.last().is_some_and(|last| last == "ended") {
                break;
            }
        }
        assert!(calls > CALLS_MIN, "{shape}: {calls} calls only");
        let counts = session.counts();
        assert_eq!(counts.binds, counts.unbinds, "{shape}: {when}");
        assert_eq!(counts.binds > 0, shape.has_tsm(), "{shape}: {when}");
    }
    session.end();
}
