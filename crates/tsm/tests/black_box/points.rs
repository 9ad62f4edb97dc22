//! How many steps of a call others can come between: an explorer of interleavings pays for each.

use std::cell::Cell;
use std::rc::Rc;

use sync::hook::{self, Hook, Operation};
use tsm::Cancel;

use crate::support::{Answers, Clock, Machine, PF, VF1, VF2, VM};

/// What a call of the core may have at most, from a device that answers at once.
const POINTS_MAX: usize = 15;

#[derive(Default)]
struct Counter {
    points: Cell<usize>,
}

impl Hook for Counter {
    fn before(&self, operation: Operation) {
        if operation.is_scheduling_point() && !operation.name.starts_with("Outermost") {
            self.points.set(self.points.get() + 1);
        }
    }
}

fn points(name: &str, call: impl FnOnce()) -> usize {
    let counter = Rc::new(Counter::default());
    let installed = hook::install(Rc::clone(&counter) as Rc<dyn Hook>);
    call();
    drop(installed);
    println!("{name:32} {:3} scheduling points", counter.points.get());
    counter.points.get()
}

#[test]
fn a_call_has_few_scheduling_points() {
    let machine = Machine::new(&Clock::standing());
    let registry = &machine.registry;
    let cancel = Cancel::new();
    let counts = [
        points("connect", || registry.connect(PF, b"tsm0").unwrap()),
        points("bind", || registry.bind(VF1, VM, 1, &cancel).unwrap()),
        points("bind again", || registry.bind(VF1, VM, 1, &cancel).unwrap()),
        points("request: LOCK and report", || machine.set_state(VF1, 1).unwrap()),
        points("request: START", || machine.set_state(VF1, 2).unwrap()),
        points("binding", || _ = registry.binding(VF1)),
        points("cancel", || registry.cancel(VF1, &Cancel::new())),
        points("unbind", || registry.unbind(VF1)),
        points("unbind again", || registry.unbind(VF1)),
        points("bind the other", || registry.bind(VF2, VM, 1, &cancel).unwrap()),
        points("remove", || registry.remove(VF2)),
        points("arrive", || registry.arrive(VF2)),
        points("bind before disconnect", || registry.bind(VF2, VM, 1, &cancel).unwrap()),
        points("disconnect", || registry.disconnect(PF, b"tsm0").unwrap()),
    ];
    for count in counts {
        assert!(count <= POINTS_MAX);
    }
}

/// Answers that come by another way than `submit` cost more; an unbind has one of them.
#[test]
fn an_unbind_with_an_answer_by_reply_has_few_too() {
    let machine = Machine::connected(&Clock::standing());
    machine.bind(VF1).unwrap();
    machine.device.answers(Answers::ByReply);
    assert!(points("unbind, by reply", || machine.registry.unbind(VF1)) <= POINTS_MAX);
}
