//! Deadlines fire when due, in order, and wake who waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use bindery_sync::rank::DeviceSet;
use bindery_sync::{Mutex, Timers, WaitQueue};

#[test]
fn what_is_due_fires_and_nothing_else() {
    let (timers, queue) = (Timers::new(|| {}), Arc::new(WaitQueue::new()));
    let later = timers.arm_at(20, &queue);
    let sooner = timers.arm_at(10, &queue);
    assert_eq!(timers.next_due(), Some(10));
    timers.fire_due(9);
    assert!(!sooner.fired());
    timers.fire_due(10);
    assert!(sooner.fired());
    assert!(!later.fired());
    assert_eq!(timers.next_due(), Some(20));
    timers.fire_due(u64::MAX);
    assert!(later.fired());
    assert_eq!(timers.next_due(), None);
}

#[test]
fn a_duration_counts_from_the_next_reading_of_the_clock() {
    let (timers, queue) = (Timers::new(|| {}), Arc::new(WaitQueue::new()));
    let deadline = timers.arm(100, &queue);
    assert_eq!(timers.next_due(), Some(0), "the clock is wanted at once");
    timers.fire_due(5_000);
    assert!(!deadline.fired());
    assert_eq!(timers.next_due(), Some(5_100));
    timers.fire_due(5_100);
    assert!(deadline.fired());
}

#[test]
fn a_duration_past_the_end_of_time_is_the_end_of_time() {
    let (timers, queue) = (Timers::new(|| {}), Arc::new(WaitQueue::new()));
    let deadline = timers.arm(u64::MAX, &queue);
    timers.fire_due(1);
    assert_eq!(timers.next_due(), Some(u64::MAX));
    assert!(!deadline.fired());
}

#[test]
fn dropping_disarms() {
    let (timers, queue) = (Timers::new(|| {}), Arc::new(WaitQueue::new()));
    drop(timers.arm_at(10, &queue));
    drop(timers.arm(10, &queue));
    assert_eq!(timers.next_due(), None);
    let kept = timers.arm_at(10, &queue);
    drop(timers.arm_at(10, &queue));
    timers.fire_due(10);
    assert!(kept.fired(), "two of one moment are told apart");
}

#[test]
fn the_thread_with_the_clock_hears_of_new_deadlines() {
    let heard = Arc::new(AtomicU32::new(0));
    let hears = Arc::clone(&heard);
    let timers = Timers::new(move || {
        hears.fetch_add(1, SeqCst);
    });
    let queue = Arc::new(WaitQueue::new());
    let _first = timers.arm(10, &queue);
    let _second = timers.arm_at(10, &queue);
    assert_eq!(heard.load(SeqCst), 2);
}

#[test]
fn firing_wakes_who_waits() {
    let (timers, queue) = (Timers::new(|| {}), Arc::new(WaitQueue::new()));
    let answer = Mutex::<DeviceSet, Option<u32>>::new(None);
    let deadline = timers.arm_at(10, &queue);
    std::thread::scope(|scope| {
        scope.spawn(|| timers.fire_due(10));
        let guard = queue.wait_while(answer.lock(), |answer| answer.is_none() && !deadline.fired());
        assert_eq!(*guard, None);
    });
}
