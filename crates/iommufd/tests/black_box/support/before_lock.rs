//! Something that happens just before a thread takes a lock.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;

use sync::hook::{self, Hook, Kind, Operation};
use sync::rank::Rank;

/// Runs something once, before this thread takes a lock of rank `R` for the n-th time.
pub(crate) struct BeforeLock<R> {
    left: Cell<usize>,
    run: RefCell<Option<Box<dyn FnOnce()>>>,
    rank: PhantomData<R>,
}

impl<R: Rank + 'static> BeforeLock<R> {
    /// Runs `call`, and `meanwhile` before it takes such a lock for the `nth` time, counted from one.
    pub(crate) fn run_before<T>(
        nth: usize,
        meanwhile: impl FnOnce() + 'static,
        call: impl FnOnce() -> T,
    ) -> T {
        let run = RefCell::new(Some(Box::new(meanwhile) as Box<dyn FnOnce()>));
        let hook = Rc::new(Self { left: Cell::new(nth), run, rank: PhantomData });
        let installed = hook::install(Rc::clone(&hook) as Rc<dyn Hook>);
        let answer = call();
        drop(installed);
        assert!(hook.run.borrow().is_none(), "{} was not taken so often", R::NAME);
        answer
    }
}

impl<R: Rank> Hook for BeforeLock<R> {
    fn before(&self, operation: Operation) {
        if (operation.kind, operation.name) != (Kind::Acquire, R::NAME) || self.left.get() == 0 {
            return;
        }
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            let run = self.run.borrow_mut().take();
            run.into_iter().for_each(|run| run());
        }
    }
}
