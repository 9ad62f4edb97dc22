//! What sysfs shows and takes: names, error numbers and their order, which function has what.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use sync::hook::{self, Hook, Kind, Operation};
use tsm::{Attributes, Backend, FunctionFacts, Opened, Refusal, Registry};
use uapi::Errno;

use crate::support::{Answers, Clock, Machine, ORDINARY, OTHER, PF, VF1, VF2};

fn shown(machine: &Machine, function: pci::Address) -> [Option<String>; 4] {
    let attributes = machine.registry.attributes(function);
    attributes.map_or(
        [const { None }; 4],
        |Attributes { connect, dsm, bound, authenticated, .. }| {
            [connect, dsm, bound, Some(authenticated)]
        },
    )
}

fn texts(texts: [&str; 4]) -> [Option<String>; 4] {
    texts.map(|text| Some(text.to_owned()))
}

#[test]
fn attributes_come_and_go_with_the_connection() {
    let machine = Machine::new(&Clock::standing());
    assert_eq!(shown(&machine, PF), texts(["\n", "\n", "\n", "\n"]));
    assert_eq!(machine.registry.attributes(VF1), None);
    assert_eq!(machine.registry.attributes(ORDINARY), None);
    machine.connect();
    // The way to this device is bare: it has proven nothing.
    assert_eq!(shown(&machine, PF), texts(["tsm0\n", "b1d0:01:00.0\n", "\n", "\n"]));
    let of_vf = |bound: &str| {
        let [_, dsm, bound, authenticated] = texts(["", "b1d0:01:00.0\n", bound, "\n"]);
        [None, dsm, bound, authenticated]
    };
    assert_eq!(shown(&machine, VF1), of_vf("\n"));
    machine.bind(VF1).unwrap();
    assert_eq!(shown(&machine, VF1), of_vf("tsm0\n"));
    assert_eq!(shown(&machine, VF2), of_vf("\n"));
    assert_eq!(machine.registry.attributes(ORDINARY), None);
    assert_eq!(shown(&machine, OTHER), texts(["\n", "\n", "\n", "\n"]));
    machine.registry.disconnect(PF, b"tsm0\n").unwrap();
    assert_eq!(shown(&machine, PF), texts(["\n", "\n", "\n", "\n"]));
    assert_eq!(machine.registry.attributes(VF1), None);
    machine.registry.unregister(0);
    assert_eq!(machine.registry.attributes(PF), None);
    machine.assert_clean();
}

#[test]
fn writes_are_refused_in_the_order_of_linux() {
    let machine = Machine::new(&Clock::standing());
    let registry = &machine.registry;
    let connect =
        |function, text: &[u8]| registry.connect(function, text).map_err(|refusal| refusal.errno());
    let disconnect = |function, text: &[u8]| {
        registry.disconnect(function, text).map_err(|refusal| refusal.errno())
    };
    for function in [VF1, ORDINARY] {
        assert_eq!(connect(function, b"tsm0"), Err(Errno::ENOENT), "{function}");
        assert_eq!(disconnect(function, b"tsm0"), Err(Errno::ENOENT), "{function}");
    }
    assert_eq!(connect(PF, b"x"), Err(Errno::EINVAL));
    assert_eq!(connect(PF, b""), Err(Errno::EINVAL));
    assert_eq!(connect(PF, b"tsm9"), Err(Errno::ENXIO));
    assert_eq!(disconnect(PF, b"tsm9"), Err(Errno::ENXIO));
    assert_eq!(connect(PF, b"tsm0foo"), Ok(()), "scanf ignores what follows");
    assert_eq!(connect(PF, b"x"), Err(Errno::EINVAL));
    assert_eq!(connect(PF, b"tsm9"), Err(Errno::EBUSY), "before it looks for the TSM");
    assert_eq!(disconnect(PF, b"tsm9\n"), Err(Errno::EINVAL));
    assert_eq!(disconnect(PF, b"tsm0\n\n"), Err(Errno::EINVAL));
    assert_eq!(disconnect(PF, b"tsm0 "), Err(Errno::EINVAL));
    assert_eq!(disconnect(PF, b"tsm0\n"), Ok(()));
    assert_eq!(disconnect(PF, b"tsm0"), Err(Errno::ENXIO));
    assert_eq!(connect(PF, b"tsm0"), Ok(()));
    assert_eq!(disconnect(PF, b"tsm0"), Ok(()));
}

#[test]
fn numbers_are_the_lowest_free() {
    let machine = Machine::new(&Clock::standing());
    let registry = &machine.registry;
    assert_eq!(registry.register(Arc::new(NoLink)), 1);
    assert_eq!(registry.register(Arc::new(NoLink)), 2);
    assert_eq!(registry.connect(PF, b"tsm1"), Err(Refusal::NotLink { tsm: 1 }));
    registry.unregister(1);
    assert_eq!(registry.tsms(), [0, 2]);
    assert_eq!(registry.connect(PF, b"tsm1"), Err(Refusal::NoSuchTsm { tsm: 1 }));
    assert_eq!(registry.register(Arc::new(NoLink)), 1);
}

#[test]
fn functions_come_and_go() {
    let machine = Machine::new(&Clock::standing());
    let registry = &machine.registry;
    registry.remove(VF2);
    machine.connect();
    assert_eq!(registry.attributes(VF2), None);
    assert_eq!(machine.bind(VF2), Err(Refusal::NotConnected { function: VF2 }));
    registry.arrive(VF2);
    assert_eq!(machine.bind(VF2), Ok(()));
    machine.set_state(VF2, 1).unwrap();
    registry.arrive(VF2);
    registry.remove(VF2);
    assert_eq!(machine.device.count("STOP"), 1, "unbound as it goes");
    assert_eq!(registry.attributes(VF2), None);
    assert_eq!(machine.bind(VF2), Err(Refusal::NotConnected { function: VF2 }));
    registry.arrive(VF2);
    assert_eq!(machine.bind(VF2), Ok(()));
    registry.remove(PF);
    assert_eq!(registry.ledger(), []);
    assert_eq!(registry.connect(PF, b"tsm0"), Err(Refusal::Absent { function: PF }));
    registry.arrive(PF);
    assert_eq!(registry.connect(PF, b"tsm0"), Ok(()));
    machine.assert_clean();
}

/// Linux lets neither begin before the other is over.
#[test]
fn a_function_that_arrives_while_its_device_is_connected_gets_a_context() {
    for nth in 1.. {
        let machine = Machine::new(&Clock::standing());
        machine.registry.remove(VF2);
        let hook = Rc::new(ArrivesBeforeLock::new(&machine, nth));
        let installed = hook::install(Rc::clone(&hook) as Rc<dyn Hook>);
        assert_eq!(machine.registry.connect(PF, b"tsm0"), Ok(()));
        drop(installed);
        let Some(arriving) = hook.arriving.take() else {
            assert!(nth > 3, "connect takes locks");
            return;
        };
        arriving.join().unwrap();
        assert_eq!(shown(&machine, VF2)[1].as_deref(), Some("b1d0:01:00.0\n"), "lock {nth}");
        assert_eq!(machine.bind(VF2), Ok(()), "lock {nth}");
        machine.registry.disconnect(PF, b"tsm0").unwrap();
        machine.assert_clean();
    }
}

/// Lets [`VF2`] arrive, in another thread, before this one takes a lock for the n-th time.
struct ArrivesBeforeLock {
    registry: Arc<Registry>,
    left: Cell<usize>,
    arriving: Cell<Option<JoinHandle<()>>>,
}

impl ArrivesBeforeLock {
    fn new(machine: &Machine, nth: usize) -> Self {
        let registry = Arc::clone(&machine.registry);
        Self { registry, left: Cell::new(nth), arriving: Cell::new(None) }
    }
}

impl Hook for ArrivesBeforeLock {
    fn before(&self, operation: Operation) {
        if operation.kind != Kind::Acquire || self.left.get() == 0 {
            return;
        }
        self.left.set(self.left.get() - 1);
        if self.left.get() > 0 {
            return;
        }
        let registry = Arc::clone(&self.registry);
        let arriving = std::thread::spawn(move || registry.arrive(VF2));
        let waits = || self.registry.ledger().iter().any(|line| line.waiting > 0);
        while !arriving.is_finished() && !waits() {
            std::thread::yield_now();
        }
        self.arriving.set(Some(arriving));
    }
}

/// A second connect while the first is under way is refused; a disconnect gives the first up.
#[test]
fn a_connect_in_flight_is_given_up() {
    let machine = Machine::new(&Clock::standing());
    machine.device.answers(Answers::Never);
    let connect = {
        let registry = machine.registry.clone();
        std::thread::spawn(move || registry.connect(PF, b"tsm0"))
    };
    machine.wait_running(PF, "connect");
    crate::support::wait_until(|| machine.device.count("QUERY") == 1);
    let busy = Err(Refusal::AlreadyConnected { function: PF, tsm: 0 });
    assert_eq!(machine.registry.connect(PF, b"tsm0"), busy);
    assert_eq!(shown(&machine, PF), texts(["\n", "\n", "\n", "\n"]), "not connected yet");
    let nothing = Err(Refusal::NothingToDisconnect { function: PF });
    assert_eq!(machine.registry.disconnect(PF, b"tsm0"), nothing);
    assert_eq!(connect.join().unwrap(), Err(Refusal::Cancelled));
    assert_eq!(machine.clock.now_ms(), 0);
    assert_eq!(machine.registry.ledger(), []);
}

struct NoLink;

impl Backend for NoLink {
    fn name(&self) -> &str {
        "no link"
    }

    fn is_link(&self) -> bool {
        false
    }

    fn open(&self, dsm: &FunctionFacts) -> Result<Opened, Refusal> {
        Err(Refusal::NoMailbox { function: dsm.address })
    }
}
