//! A writer outwaits every reader that entered before it, and no other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use bindery_sync::hook::{self, Hook, Kind, Operation};
use bindery_sync::{Epoch, EpochGuard};

#[test]
fn a_writer_alone_does_not_wait() {
    let reader = Reader::new(false, false);
    let _installed = hook::install(reader.clone());
    for _ in 0..3 {
        reader.epoch.advance_and_wait();
    }
    assert_eq!(reader.slept.get(), 0);
}

#[test]
fn a_reader_that_entered_before_is_outwaited() {
    let reader = Reader::new(true, false);
    let _installed = hook::install(reader.clone());
    for round in 1..=3 {
        reader.epoch.advance_and_wait();
        assert_eq!(reader.slept.get(), round, "the writer waited once a round");
        assert!(reader.inside.borrow().is_none(), "and until the reader had left");
    }
}

#[test]
fn a_reader_that_enters_later_is_not_waited_for() {
    let reader = Reader::new(true, true);
    let _installed = hook::install(reader.clone());
    reader.epoch.advance_and_wait();
    assert_eq!(reader.slept.get(), 1);
    assert!(reader.late.borrow().is_some(), "it is inside still");
}

#[test]
fn readers_nest() {
    let epoch = Epoch::new();
    let outer = epoch.enter();
    drop(epoch.enter());
    drop(outer);
    epoch.advance_and_wait();
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "a reader of an epoch waits")]
fn a_reader_does_not_wait_for_itself() {
    let epoch = Epoch::new();
    let _inside = epoch.enter();
    epoch.advance_and_wait();
}

#[test]
fn no_reader_finds_what_a_writer_took_away() {
    const ROUNDS: usize = 2_000;
    let (epoch, current) = (Epoch::new(), AtomicUsize::new(0));
    let gone: Vec<AtomicBool> = (0..2 * ROUNDS + 1).map(|_| AtomicBool::new(false)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    let _inside = epoch.enter();
                    let found = current.load(SeqCst);
                    std::hint::spin_loop();
                    assert!(!gone[found].load(SeqCst));
                }
            });
        }
        let writers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let old = current.fetch_add(1, SeqCst);
                        epoch.advance_and_wait();
                        gone[old].store(true, SeqCst);
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, SeqCst);
        assert!(outcomes.iter().all(Result::is_ok));
    });
}

/// Plays the readers of an epoch whose writer is the test: one enters just before the writer
/// begins and leaves when the writer sleeps; another may enter then.
struct Reader {
    epoch: &'static Epoch,
    enters_before: bool,
    enters_late: bool,
    inside: RefCell<Option<EpochGuard<'static>>>,
    late: RefCell<Option<EpochGuard<'static>>>,
    slept: Cell<u32>,
}

impl Reader {
    fn new(enters_before: bool, enters_late: bool) -> Rc<Self> {
        Rc::new(Self {
            epoch: Box::leak(Box::default()),
            enters_before,
            enters_late,
            inside: RefCell::default(),
            late: RefCell::default(),
            slept: Cell::new(0),
        })
    }
}

impl Hook for Reader {
    fn before(&self, operation: Operation) {
        if operation.kind == Kind::Acquire && self.enters_before {
            *self.inside.borrow_mut() = Some(self.epoch.enter());
        }
        if operation.kind == Kind::Sleep {
            self.slept.set(self.slept.get() + 1);
            if self.enters_late {
                *self.late.borrow_mut() = Some(self.epoch.enter());
            }
            let leaving = self.inside.borrow_mut().take();
            drop(leaving);
        }
    }
}
