//! A hook is told every operation of its thread before it takes effect, and nothing else.

use std::cell::RefCell;
use std::hash::Hasher;
use std::rc::Rc;
use std::sync::Arc;

use bindery_sync::hook::{self, CountOperation, Hook, Kind, Now, ObjectId, Operation};
use bindery_sync::rank::{DeviceSet, Memory};
use bindery_sync::{
    Armed, Contents, Deadline, Epoch, Life, Mutex, Named, Refcount, Timers, WaitQueue,
};

#[test]
fn every_operation_is_told_in_order() {
    let told = Told::default();
    let installed = hook::install(Rc::new(told.clone()));
    let (mutex, count) = (Mutex::<DeviceSet, ()>::new(()), Refcount::new(1));
    let (queue, life) = (WaitQueue::new(), Life::new());
    life.check();
    let guard = queue.wait_while(mutex.lock(), |()| false);
    drop(guard);
    count.inc();
    count.dec_not_last();
    count.dec_and_test();
    queue.wake_all();
    life.end();
    drop(installed);
    drop(mutex.lock());

    let expected = [
        (Kind::Use, 4, "Life"),
        (Kind::Acquire, 1, "DeviceSet"),
        (Kind::WaitCheck, 3, "WaitQueue"),
        (Kind::Release, 1, "DeviceSet"),
        (Kind::Count(CountOperation::Inc), 2, "Refcount"),
        (Kind::Count(CountOperation::DecNotLast), 2, "Refcount"),
        (Kind::Count(CountOperation::DecAndTest), 2, "Refcount"),
        (Kind::Wake, 3, "WaitQueue"),
        (Kind::End, 4, "Life"),
    ];
    assert_eq!(told.take(), expected);
}

#[test]
fn names_are_told_to_a_hook_and_made_for_nobody_else() {
    #[derive(Default)]
    struct Names(RefCell<Vec<(u64, String, &'static str)>>);
    impl Hook for Names {
        fn before(&self, _: Operation) {}

        fn named(&self, object: ObjectId, owner: &dyn Fn() -> String, part: &'static str) {
            self.0.borrow_mut().push((object.number(), owner(), part));
        }
    }
    drop(Refcount::new(1).named("users", || unreachable!("nobody asks")));
    let names = Rc::new(Names::default());
    let _installed = hook::install(names.clone());
    let owner = || "vdevice5".to_owned();
    let users = Refcount::new(1).named("users", owner);
    let _life = Arc::new(Life::new()).named("", owner);
    users.inc();
    let expected = [(1, owner(), "users"), (2, owner(), "")];
    assert_eq!(names.0.take(), expected);
}

#[test]
fn epochs_and_deadlines_are_told() {
    let told = Told::default();
    let _installed = hook::install(Rc::new(told.clone()));
    let epoch = Epoch::new();
    drop(epoch.enter());
    epoch.advance_and_wait();
    let kinds: Vec<Kind> = told.take().into_iter().map(|(kind, _, _)| kind).collect();
    let advance = [Kind::Acquire, Kind::WaitCheck, Kind::EpochFlip, Kind::WaitCheck, Kind::Release];
    assert_eq!(kinds[..2], [Kind::EpochEnter, Kind::EpochLeave]);
    assert_eq!(kinds[2..], advance);

    let timers = Timers::new(|| {});
    let deadline: Deadline = timers.arm_at(5, &Arc::new(WaitQueue::new()));
    timers.fire_due(5);
    assert!(deadline.fired());
    drop(deadline);
    let kinds: Vec<Kind> = told.take().into_iter().map(|(kind, _, _)| kind).collect();
    assert_eq!(kinds, [Kind::Arm, Kind::Fire, Kind::Wake, Kind::Fired, Kind::Disarm]);
}

#[test]
fn who_asked_for_sleeps_is_asked_before_those_alone() {
    struct Waker(Told, Arc<(Mutex<DeviceSet, bool>, WaitQueue)>);
    impl Hook for Waker {
        fn before(&self, operation: Operation) {
            self.0.before(operation);
            *self.1.0.lock() = true;
            self.1.1.wake_all();
        }
    }
    let (told, shared) = (Told::default(), Arc::new((Mutex::new(false), WaitQueue::new())));
    let installed = hook::install_before_sleep(Rc::new(Waker(told.clone(), Arc::clone(&shared))));
    drop(shared.1.wait_while(shared.0.lock(), |done| !*done));
    drop(installed);
    let kinds: Vec<Kind> = told.take().into_iter().map(|(kind, _, _)| kind).collect();
    assert_eq!(kinds, [Kind::Sleep]);
}

#[test]
fn equal_runs_number_equally() {
    let run = || {
        let told = Told::default();
        let _installed = hook::install(Rc::new(told.clone()));
        Refcount::new(1).inc();
        Life::new().end();
        told.take()
    };
    assert_eq!(run(), run());
}

#[test]
fn locks_of_one_coroutine_do_not_count_against_another() {
    struct Other(Mutex<DeviceSet, u32>);
    impl Hook for Other {
        fn before(&self, operation: Operation) {
            if operation.kind == Kind::Count(CountOperation::Inc) {
                *self.0.lock() += 1;
            }
        }
    }
    let other = Rc::new(Other(Mutex::new(0)));
    let memory = Mutex::<Memory, ()>::new(());
    let _installed = hook::install(other.clone());
    let held = memory.lock();
    // The hook takes an outer rank meanwhile, as another scenario thread would.
    Refcount::new(1).inc();
    drop(held);
    assert_eq!(*other.0.lock(), 1);
}

#[test]
fn other_threads_are_not_told() {
    let told = Told::default();
    let _installed = hook::install(Rc::new(told.clone()));
    let count = Refcount::new(1);
    std::thread::scope(|scope| scope.spawn(|| count.inc()).join().unwrap());
    assert_eq!(told.take(), []);
}

#[test]
#[should_panic(expected = "has a hook already")]
fn one_hook_a_thread() {
    let _first = hook::install(Rc::new(Told::default()));
    let _second = hook::install(Rc::new(Told::default()));
}

#[test]
fn only_what_others_can_notice_is_a_scheduling_point() {
    let told = Told::default();
    let _installed = hook::install(Rc::new(told.clone()));
    drop(Mutex::<DeviceSet, ()>::new(()).lock());
    Life::new().check();
    let points: Vec<bool> = told.operations().iter().map(Operation::is_scheduling_point).collect();
    assert_eq!(points, [true, false, true]);
}

/// Remembers what it was told.
#[derive(Clone, Default)]
struct Told(Rc<RefCell<Vec<Operation>>>);

impl Told {
    fn operations(&self) -> Vec<Operation> {
        self.0.take()
    }

    fn take(&self) -> Vec<(Kind, u64, &'static str)> {
        let told = self.operations();
        told.iter().map(|told| (told.kind, told.object.number(), told.name)).collect()
    }
}

impl Hook for Told {
    fn before(&self, operation: Operation) {
        self.0.borrow_mut().push(operation);
    }
}

#[test]
fn what_operations_did_is_told() {
    let effects = Effects::default();
    let _installed = hook::install(Rc::new(effects.clone()));
    let count = Refcount::new(1);
    count.inc();
    assert!(!count.dec_if_one());
    let opaque = Mutex::<DeviceSet, u32>::new(5);
    assert_eq!(*opaque.lock(), 5);
    *opaque.lock() += 1;
    let open = Mutex::<Memory, Five>::with_contents(Five(5));
    open.lock().0 += 1;

    let expected = [
        "Refcount 1 created",
        "1 holds 1",
        "1 holds 2",
        "1 holds 2",
        "1 saw 0",
        "DeviceSet 2 created",
        "2 unchanged",
        "2 changed",
        "Memory 3 created",
        "3 contains 5",
        "3 contains 6",
    ];
    assert_eq!(effects.0.take(), expected);
}

#[test]
fn a_hook_fires_a_deadline_of_its_choice() {
    let keeper = Keeper::default();
    let _installed = hook::install(Rc::new(keeper.clone()));
    let timers = Timers::new(|| {});
    let wakes = Arc::new(WaitQueue::new());
    let (sooner, later) = (timers.arm(1, &wakes), timers.arm_at(9_000, &wakes));
    let armed = keeper.0.take();
    armed[1].fire();
    armed[1].fire();
    assert_eq!((sooner.fired(), later.fired()), (false, true));
    drop(sooner);
    armed[0].fire();
    assert_eq!(timers.next_due(), None);
}

struct Five(u64);

impl Contents for Five {
    fn contents(&self, into: &mut dyn Hasher) {
        into.write_u64(self.0);
    }
}

/// Remembers what was told after operations.
#[derive(Clone, Default)]
struct Effects(Rc<RefCell<Vec<String>>>);

impl Effects {
    fn push(&self, effect: String) {
        self.0.borrow_mut().push(effect);
    }
}

impl Hook for Effects {
    fn before(&self, _: Operation) {}

    fn created(&self, object: ObjectId, name: &'static str) {
        self.push(format!("{name} {} created", object.number()));
    }

    fn saw(&self, object: ObjectId, value: u64) {
        self.push(format!("{} saw {value}", object.number()));
    }

    fn holds(&self, object: ObjectId, now: Now<'_>) {
        let object = object.number();
        self.push(match now {
            Now::Number(number) => format!("{object} holds {number}"),
            Now::Contents(contents) => {
                let mut written = Written::default();
                assert!(contents(&mut written), "it always says what it contains");
                format!("{object} contains {}", written.0)
            }
            Now::Changed => format!("{object} changed"),
            Now::Unchanged => format!("{object} unchanged"),
        });
    }
}

#[derive(Default)]
struct Written(u64);

impl Hasher for Written {
    fn write(&mut self, bytes: &[u8]) {
        self.0 += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Keeps what was armed.
#[derive(Clone, Default)]
struct Keeper(Rc<RefCell<Vec<Armed>>>);

impl Hook for Keeper {
    fn before(&self, _: Operation) {}

    fn armed(&self, deadline: Armed) {
        self.0.borrow_mut().push(deadline);
    }
}
