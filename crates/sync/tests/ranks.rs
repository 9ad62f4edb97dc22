//! The lock order is asserted, whatever order locks are released in.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bindery_sync::Mutex;
use bindery_sync::rank::{DeviceSet, Dsm, Function, Irq, Memory, Objects};
#[cfg(debug_assertions)]
use bindery_sync::rank::{Pages, TsmRegistry};

#[test]
fn ascending_ranks_are_taken() {
    let (set, memory, irq) = (set(), memory(), Mutex::<Irq, ()>::new(()));
    let _set = set.lock();
    let _memory = memory.lock();
    let _irq = irq.lock();
}

#[test]
fn one_mutex_is_taken_again_after_release() {
    let set = set();
    drop(set.lock());
    *set.lock() += 1;
    assert_eq!(*set.lock(), 1);
}

#[test]
fn a_panic_under_the_lock_does_not_close_it() {
    let set = set();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut value = set.lock();
        *value = 7;
        panic!("under the lock");
    }));
    assert!(panicked.is_err());
    assert_eq!(*set.lock(), 7);
}

#[cfg(debug_assertions)]
#[test]
fn descending_ranks_are_refused_by_name() {
    let (set, memory) = (set(), memory());
    let held = memory.lock();
    assert_eq!(
        refusal(|| drop(set.lock())),
        "lock order: DeviceSet (10) asked for under Memory (20)"
    );
    drop(held);
    drop(set.lock());
}

#[cfg(debug_assertions)]
#[test]
fn two_locks_of_one_rank_are_refused() {
    let (first, second) = (set(), set());
    let _held = first.lock();
    assert_eq!(
        refusal(|| drop(second.lock())),
        "lock order: DeviceSet (10) asked for under DeviceSet (10)"
    );
}

#[cfg(debug_assertions)]
#[test]
fn releasing_out_of_order_forgets_only_what_was_released() {
    let (set, memory, irq) = (set(), memory(), Mutex::<Irq, ()>::new(()));
    let outer = set.lock();
    let inner = memory.lock();
    drop(outer);
    refusal(|| drop(set.lock()));
    let innermost = irq.lock();
    drop(inner);
    refusal(|| drop(memory.lock()));
    drop(innermost);
    drop(set.lock());
}

#[cfg(debug_assertions)]
#[test]
fn tsm_locks_are_taken_under_no_other_chain() {
    let (registry, dsm) = (Mutex::<TsmRegistry, ()>::new(()), Mutex::<Dsm, ()>::new(()));
    let (set, pages) = (set(), Mutex::<Pages, ()>::new(()));
    let held = set.lock();
    let text = refusal(|| drop(registry.lock()));
    assert_eq!(text, "lock order: TsmRegistry of the TSM chain asked for under DeviceSet");
    drop(held);
    let held = pages.lock();
    refusal(|| drop(dsm.lock()));
    drop(held);
    let _registry = registry.lock();
    let _dsm = dsm.lock();
}

#[test]
fn leaves_are_taken_under_any_chain() {
    let (function, objects) = (Mutex::<Function, ()>::new(()), Mutex::<Objects, ()>::new(()));
    let (set, dsm) = (set(), Mutex::<Dsm, ()>::new(()));
    {
        let _set = set.lock();
        let _function = function.lock();
        let _objects = objects.lock();
    }
    let _dsm = dsm.lock();
    let _function = function.lock();
    let _objects = objects.lock();
}

#[cfg(debug_assertions)]
#[test]
fn each_thread_has_its_own_list() {
    let (set, memory) = (set(), memory());
    let _held = memory.lock();
    std::thread::scope(|scope| scope.spawn(|| *set.lock() += 1).join()).expect("it holds no lock");
}

#[test]
fn a_lock_admits_one_thread_at_a_time() {
    const ROUNDS: u64 = 20_000;
    let sum = Mutex::<DeviceSet, u64>::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let mut sum = sum.lock();
                    let read = *sum;
                    *sum = std::hint::black_box(read) + 1;
                }
            });
        }
    });
    assert_eq!(*sum.lock(), 4 * ROUNDS);
}

fn set() -> Mutex<DeviceSet, u32> {
    Mutex::new(0)
}

fn memory() -> Mutex<Memory, ()> {
    Mutex::new(())
}

/// What `action` panics with.
#[cfg(debug_assertions)]
fn refusal(action: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(action)).expect_err("the order allows it");
    *panic.downcast::<String>().expect("assertions panic with a text")
}
