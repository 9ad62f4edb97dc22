//! Every order in which a binding can end, on devices that answer, answer late, wrongly or never.

use std::sync::{Arc, Barrier};
use std::thread;

use pci::Address;
use tsm::{Cancel, Registry};

use crate::support::{Answers, Clock, Machine, OTHER, PF, TIMEOUT_MS, VF1, VF2, VM};

/// A way in which a binding ends, or tries to begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Unbind,
    Disconnect,
    RemoveVf,
    RemovePf,
    Rebind,
}

const STEPS: [Step; 5] =
    [Step::Unbind, Step::Disconnect, Step::RemoveVf, Step::RemovePf, Step::Rebind];

impl Step {
    fn take(self, registry: &Registry) {
        match self {
            Self::Unbind => registry.unbind(VF1),
            Self::Disconnect => drop(registry.disconnect(PF, b"tsm0\n")),
            Self::RemoveVf => registry.remove(VF1),
            Self::RemovePf => registry.remove(PF),
            Self::Rebind => drop(registry.bind(VF1, VM, 0x10, &Cancel::new())),
        }
    }

    fn can_be_refused(self) -> bool {
        self == Self::Rebind
    }
}

const BEHAVIOURS: [Answers; 5] =
    [Answers::AtOnce, Answers::After(300), Answers::Never, Answers::DoesNotTell, Answers::Nonsense];

#[test]
fn every_order_on_every_device() {
    for behaviour in BEHAVIOURS {
        let clock = Clock::leaping();
        for first in STEPS {
            for second in STEPS {
                for third in STEPS {
                    let machine = Machine::connected(&clock);
                    machine.bind(VF1).unwrap();
                    machine.bind(VF2).unwrap();
                    machine.set_state(VF1, 1).unwrap();
                    machine.device.answers(behaviour);
                    for step in [first, second, third] {
                        let ((), took_ms) = machine.timed(|| step.take(&machine.registry));
                        let limit_ms = if step.can_be_refused() { 3 } else { 2 } * TIMEOUT_MS;
                        assert!(took_ms < limit_ms, "{behaviour:?} {step:?}: {took_ms} ms");
                    }
                    machine.registry.unbind(VF1);
                    machine.registry.unbind(VF2);
                    machine.assert_clean();
                }
            }
        }
    }
}

/// Two ends and a bind at once, from threads of their own. Nothing is bound after, each bind had its
/// unbind, and the other device was never touched.
#[test]
fn every_pair_at_once() {
    for behaviour in BEHAVIOURS {
        for first in STEPS {
            for second in STEPS {
                let machine = Arc::new(Machine::connected(&Clock::leaping()));
                machine.registry.connect(OTHER, b"tsm0").unwrap();
                machine.bind(VF2).unwrap();
                machine.device.answers(behaviour);
                let gate = Arc::new(Barrier::new(3));
                let threads = [first, second, Step::Rebind].map(|step| {
                    let (machine, gate) = (Arc::clone(&machine), Arc::clone(&gate));
                    thread::spawn(move || {
                        gate.wait();
                        step.take(&machine.registry);
                    })
                });
                for thread in threads {
                    thread.join().unwrap();
                }
                machine.bind(OTHER).unwrap();
                for function in [VF1, VF2, OTHER] {
                    machine.registry.unbind(function);
                }
                machine.assert_clean();
            }
        }
    }
}

#[test]
fn threads_that_do_everything_leave_nothing() {
    let machine = Arc::new(Machine::connected(&Clock::standing()));
    machine.device.answers(Answers::ByThread);
    let workers = (0..4u32).map(|worker| {
        let machine = Arc::clone(&machine);
        thread::spawn(move || churn(&machine, worker))
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.join().unwrap();
    }
    for function in [PF, VF1, VF2] {
        machine.registry.unbind(function);
    }
    machine.assert_clean();
}

fn churn(machine: &Machine, worker: u32) {
    let mut seed = worker + 1;
    let mut random = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    let registry = &machine.registry;
    for _ in 0..150 {
        let functions: [Address; 3] = [PF, VF1, VF2];
        let function = functions[usize::try_from(random(3)).unwrap()];
        match random(12) {
            0..4 => drop(machine.bind(function)),
            4..7 => registry.unbind(function),
            7 => drop(machine.set_state(function, random(3))),
            8 => drop(registry.disconnect(PF, b"tsm0")),
            9 => {
                registry.remove(VF2);
                registry.arrive(VF2);
            }
            _ => drop(registry.connect(PF, b"tsm0")),
        }
    }
}
