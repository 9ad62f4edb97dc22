//! Coroutines with stacks of their own, switched within one OS thread.
//!
//! [`suspend`] can be called from any depth of a coroutine's body, also from code that does not know
//! that it runs in one: the running coroutine is found through a thread-local. No values travel with
//! a switch; who needs them shares a cell. A coroutine never leaves the OS thread that made it.
//!
//! Takes no lock.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: the running coroutine's yielder is reached through a thread-local pointer"
)]

use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine as Switched, CoroutineResult, Yielder};

/// Code that runs on its own stack, in turns with whoever resumes it.
///
/// One that is dropped before its body returned is leaked, with what its stack owns: unwinding it
/// would run its destructors at a moment for which they were not written.
pub struct Coroutine {
    /// Taken only on the way out.
    switched: Option<Switched<(), (), (), DefaultStack>>,
    /// Null until the body has begun.
    yielder: Rc<Cell<*const Yielder<(), ()>>>,
}

/// A stack for a coroutine, with a guard page below.
pub struct Stack(DefaultStack);

/// How far a coroutine has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It called [`suspend`].
    Suspended,
    /// Its body has returned.
    Finished,
}

impl Stack {
    /// A stack of at least `bytes`.
    ///
    /// # Errors
    /// What `mmap` said.
    pub fn new(bytes: usize) -> std::io::Result<Self> {
        DefaultStack::new(bytes).map(Self)
    }
}

impl Coroutine {
    /// A coroutine whose body has not begun.
    pub fn new(stack: Stack, body: impl FnOnce() + 'static) -> Self {
        let yielder = Rc::new(Cell::new(ptr::null()));
        let found = Rc::clone(&yielder);
        let switched = Switched::with_stack(stack.0, move |own: &Yielder<(), ()>, ()| {
            found.set(ptr::from_ref(own));
            RUNNING.set(own);
            body();
        });
        Self { switched: Some(switched), yielder }
    }

    /// Runs the body until it suspends or returns. A panic of the body goes on in the caller.
    ///
    /// # Panics
    /// If the body has returned.
    pub fn resume(&mut self) -> Progress {
        let _outer = Restore(RUNNING.replace(self.yielder.get()));
        match self.switched.as_mut().map(|switched| switched.resume(())) {
            Some(CoroutineResult::Yield(())) => Progress::Suspended,
            Some(CoroutineResult::Return(())) | None => Progress::Finished,
        }
    }

    /// The stack of a coroutine whose body has returned, for another one; `None` if it has not.
    pub fn into_stack(mut self) -> Option<Stack> {
        let finished = self.switched.take_if(|switched| switched.done())?;
        Some(Stack(finished.into_stack()))
    }
}

/// Gives the OS thread back to whoever resumed the running coroutine. Returns when it is resumed again.
///
/// # Panics
/// If no coroutine runs on this OS thread.
pub fn suspend() {
    let yielder = RUNNING.get();
    assert!(!yielder.is_null(), "only a coroutine can suspend");
    // SAFETY: 1. RUNNING is not null only while the coroutine that it names runs: `resume` sets it
    // before switching and restores it after, on every way out. 2. The yielder lives on that
    // coroutine's stack until its body has returned, and we are called from within the body.
    unsafe { (*yielder).suspend(()) }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        std::mem::forget(self.switched.take_if(|switched| !switched.done()));
    }
}

impl fmt::Debug for Coroutine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = self.switched.as_ref().is_none_or(Switched::done);
        f.debug_struct("Coroutine").field("finished", &finished).finish_non_exhaustive()
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stack")
    }
}

/// Sets RUNNING back, also when a panic passes through `resume`.
struct Restore(*const Yielder<(), ()>);

impl Drop for Restore {
    fn drop(&mut self) {
        RUNNING.set(self.0);
    }
}

thread_local! {
    static RUNNING: Cell<*const Yielder<(), ()>> = const { Cell::new(ptr::null()) };
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const STACK_BYTES: usize = 64 << 10;

    fn coroutine(body: impl FnOnce() + 'static) -> Coroutine {
        Coroutine::new(Stack::new(STACK_BYTES).unwrap(), body)
    }

    #[test]
    fn bodies_take_turns() {
        let said = Rc::new(RefCell::new(Vec::new()));
        let mut speakers: Vec<Coroutine> = (0..2)
            .map(|me| {
                let said = Rc::clone(&said);
                coroutine(move || {
                    for word in 0..2 {
                        said.borrow_mut().push((me, word));
                        suspend();
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            for speaker in &mut speakers {
                assert_eq!(speaker.resume(), Progress::Suspended);
            }
        }
        assert_eq!(*said.borrow(), [(0, 0), (1, 0), (0, 1), (1, 1)]);
        for mut speaker in speakers {
            assert_eq!(speaker.resume(), Progress::Finished);
            assert!(speaker.into_stack().is_some());
        }
    }

    #[test]
    fn a_coroutine_may_run_another() {
        let said = Rc::new(RefCell::new(Vec::new()));
        let outer_said = Rc::clone(&said);
        let mut outer = coroutine(move || {
            let inner_said = Rc::clone(&outer_said);
            let mut inner = coroutine(move || {
                inner_said.borrow_mut().push("inner");
                suspend();
                inner_said.borrow_mut().push("inner again");
            });
            assert_eq!(inner.resume(), Progress::Suspended);
            suspend();
            outer_said.borrow_mut().push("outer");
            assert_eq!(inner.resume(), Progress::Finished);
        });
        assert_eq!(outer.resume(), Progress::Suspended);
        assert_eq!(outer.resume(), Progress::Finished);
        assert_eq!(*said.borrow(), ["inner", "outer", "inner again"]);
    }

    #[test]
    fn what_an_unfinished_coroutine_owns_is_leaked() {
        let owned = Rc::new(());
        let held = Rc::clone(&owned);
        let mut unfinished = coroutine(move || {
            let _held = held;
            suspend();
        });
        assert_eq!(unfinished.resume(), Progress::Suspended);
        assert!(unfinished.into_stack().is_none());
        assert_eq!(Rc::strong_count(&owned), 2);
    }

    #[test]
    fn a_panic_goes_on_in_who_resumed() {
        let mut failing = coroutine(|| panic!("of the body"));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| failing.resume()));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"of the body"));
        assert!(std::panic::catch_unwind(suspend).is_err(), "no coroutine runs any more");
    }
}
