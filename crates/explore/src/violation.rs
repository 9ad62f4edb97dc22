//! What can be wrong with an execution.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Something that must not happen, and did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// What sort of thing.
    pub kind: ViolationKind,
    /// What happened, in words.
    pub message: String,
}

/// The sorts of violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ViolationKind {
    /// Threads wait for each other, or for a wake-up that nobody will send.
    Deadlock,
    /// An object was used after its end, or ended twice.
    UseAfterEnd,
    /// A call panicked.
    Panic,
    /// The end was not as it must be: the model's check panicked.
    Check,
    /// The execution does not end.
    Endless,
}

impl fmt::Display for ViolationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadlock => "deadlock",
            Self::UseAfterEnd => "use after end",
            Self::Panic => "panic",
            Self::Check => "check failed",
            Self::Endless => "no end",
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

/// Ends the running call with `violation`.
pub(crate) fn raise(violation: Violation) -> ! {
    panic::resume_unwind(Box::new(violation))
}

/// Runs explored code and makes its panic a violation. Nothing is printed about it.
pub(crate) fn catch<T>(body: impl FnOnce() -> T) -> Result<T, Violation> {
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| from_panic(payload.as_ref()))
}

fn from_panic(payload: &(dyn Any + Send)) -> Violation {
    if let Some(violation) = payload.downcast_ref::<Violation>() {
        return violation.clone();
    }
    let said = payload.downcast_ref::<&str>().map(|said| (*said).to_owned());
    let said = said.or_else(|| payload.downcast_ref::<String>().cloned());
    let said = said.unwrap_or_else(|| "a panic that says nothing".to_owned());
    let message = match PLACE.take() {
        Some(place) => format!("{said} ({place})"),
        None => said,
    };
    Violation { kind: ViolationKind::Panic, message }
}

/// While it lives, panics of this OS thread are kept quiet and their place is remembered.
pub(crate) struct Quiet(());

impl Quiet {
    pub(crate) fn begin() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let others = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                if QUIET.get() {
                    PLACE.set(info.location().map(ToString::to_string));
                } else {
                    others(info);
                }
            }));
        });
        QUIET.set(true);
        Self(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.set(false);
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}
