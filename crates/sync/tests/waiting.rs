//! Nobody sleeps through what he waits for.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bindery_sync::hook::{self, Hook, Kind, Operation};
use bindery_sync::rank::DeviceSet;
#[cfg(debug_assertions)]
use bindery_sync::rank::Memory;
use bindery_sync::{Mutex, Refcount, WaitQueue};

#[test]
fn a_wake_between_check_and_sleep_is_not_lost() {
    let shared = Arc::new((Mutex::<DeviceSet, bool>::new(false), WaitQueue::new()));
    let seen = Arc::clone(&shared);
    let _installed = hook::install(BeforeSleep::run(move || {
        *seen.0.lock() = true;
        seen.1.wake_all();
    }));
    let guard = shared.1.wait_while(shared.0.lock(), |done| !*done);
    assert!(*guard);
}

#[test]
fn a_last_put_between_check_and_sleep_is_not_lost() {
    let shared = Arc::new((Refcount::new(1), WaitQueue::new()));
    let seen = Arc::clone(&shared);
    let _installed = hook::install(BeforeSleep::run(move || {
        assert!(seen.0.dec_and_test());
        seen.1.wake_all();
    }));
    shared.1.wait_zero(&shared.0);
    assert_eq!(shared.0.read(), 0);
}

#[test]
fn what_holds_already_is_not_waited_for() {
    let (queue, value) = (WaitQueue::new(), Mutex::<DeviceSet, u32>::new(3));
    let guard = queue.wait_while(value.lock(), |value| *value != 3);
    assert_eq!(*guard, 3);
    queue.wait_zero(&Refcount::new(0));
}

#[test]
fn the_lock_is_free_while_its_owner_sleeps() {
    let (queue, turn) = (WaitQueue::new(), Mutex::<DeviceSet, u32>::new(0));
    const ROUNDS: u32 = 3_000;
    std::thread::scope(|scope| {
        for me in 0..3 {
            let (queue, turn) = (&queue, &turn);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let mut guard = queue.wait_while(turn.lock(), |turn| *turn % 3 != me);
                    *guard += 1;
                    drop(guard);
                    queue.wake_all();
                }
            });
        }
    });
    assert_eq!(*turn.lock(), 3 * ROUNDS);
}

#[test]
fn an_end_waits_for_every_user() {
    const USERS: u32 = 4;
    for _ in 0..200 {
        let (users, queue) = (Refcount::new(USERS), WaitQueue::new());
        let put = Mutex::<DeviceSet, u32>::new(0);
        std::thread::scope(|scope| {
            for _ in 0..USERS {
                scope.spawn(|| {
                    *put.lock() += 1;
                    if users.dec_and_test() {
                        queue.wake_all();
                    }
                });
            }
            queue.wait_zero(&users);
            assert_eq!(*put.lock(), USERS);
        });
    }
}

#[test]
fn exactly_one_put_is_the_last() {
    const USERS: u32 = 4;
    let count = Refcount::new(USERS);
    let last = Mutex::<DeviceSet, u32>::new(0);
    std::thread::scope(|scope| {
        for _ in 0..USERS {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    assert!(count.inc_not_zero());
                    assert!(!count.dec_if_one());
                    assert!(count.dec_not_last());
                }
                *last.lock() += u32::from(count.dec_and_test());
            });
        }
    });
    assert_eq!(*last.lock(), 1);
    assert!(!count.inc_not_zero());
}

#[cfg(debug_assertions)]
#[test]
fn the_order_is_asserted_when_the_lock_is_taken_again() {
    let (queue, outer) = (WaitQueue::new(), Mutex::<DeviceSet, bool>::new(false));
    let inner = Mutex::<Memory, ()>::new(());
    let guard = outer.lock();
    let under = inner.lock();
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let first = Cell::new(true);
        drop(queue.wait_while(guard, |_| {
            queue.wake_all();
            first.replace(false)
        }));
    }));
    let text = *waited.expect_err("a lock is held inside").downcast::<String>().unwrap();
    assert_eq!(text, "lock order: DeviceSet (10) asked for under Memory (20)");
    drop(under);
}

type Action = Box<dyn FnOnce()>;

/// Runs an action once, just before the thread would sleep.
struct BeforeSleep(Cell<Option<Action>>);

impl BeforeSleep {
    fn run(action: impl FnOnce() + 'static) -> Rc<Self> {
        Rc::new(Self(Cell::new(Some(Box::new(action)))))
    }
}

impl Hook for BeforeSleep {
    fn before(&self, operation: Operation) {
        if operation.kind == Kind::Sleep
            && let Some(action) = self.0.take()
        {
            action();
        }
    }
}
