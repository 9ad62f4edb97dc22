//! A thread for each function, which does its work when it is woken.
//!
//! One lock for each worker, a leaf; a function is stepped with none held.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use pci::{Function, Progress};

/// Work done in one step, in bytes.
const STEP_BYTES: usize = 64 << 10;

/// Whether a function was woken since it was last idle.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

/// Gives `function` a worker, for as long as this process lives.
///
/// # Errors
/// `EAGAIN` – no thread can be started.
pub(crate) fn start(function: Arc<dyn Function>) -> io::Result<()> {
    let bell = Arc::new(Bell::default());
    let waker = Arc::clone(&bell);
    function.set_waker(Arc::new(move || waker.ring()));
    let name = format!("worker {}", function.address());
    thread::Builder::new().name(name).spawn(move || {
        loop {
            bell.wait();
            while function.step(STEP_BYTES) == Progress::More {}
        }
    })?;
    Ok(())
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            rung = self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
        *rung = false;
    }
}
