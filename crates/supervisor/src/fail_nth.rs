//! Failures on demand, as the kernel's `fail-nth` files ask for them: the nth step that could run out of something, counted
//! for each thread of the program, does.
//!
//! The points that can fail are ours: every question that a command asks its [`Quota`]. Served where the platform's IOMMU
//! is the mock. One lock, a leaf. Source: Documentation/fault-injection/fault-injection.rst, `/proc/PID/fail-nth`.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iommufd::{Exhausted, Limits, Quota, Resource};
use uapi::Errno;

use crate::overlay::Attribute;

/// The usual limits, and what is to fail before they are reached.
#[derive(Debug, Default)]
pub(crate) struct FailNth {
    limits: Limits,
    /// Steps until the one that fails, by thread.
    steps: Mutex<HashMap<i32, u32>>,
}

thread_local! {
    /// The program's thread that this one serves.
    static SERVED: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Steps count as those of a thread of the program for as long as this lives.
pub(crate) struct Serving(Option<i32>);

/// Serves thread `tid` of the program from now on.
pub(crate) fn serve(tid: i32) -> Serving {
    Serving(SERVED.replace(Some(tid)))
}

impl Drop for Serving {
    fn drop(&mut self) {
        SERVED.set(self.0);
    }
}

impl FailNth {
    /// The file `fail-nth` of a thread.
    pub(crate) fn file(self: &Arc<Self>, tid: i32) -> Arc<dyn Attribute> {
        Arc::new(ThreadFile { all: Arc::clone(self), tid })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, u32>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quota for FailNth {
    fn admit(&self, resource: Resource, held: u64) -> Result<(), Exhausted> {
        self.limits.admit(resource, held)?;
        let Some(tid) = SERVED.get() else { return Ok(()) };
        let mut steps = self.lock();
        let Some(left) = steps.get_mut(&tid) else { return Ok(()) };
        *left -= 1;
        if *left > 0 {
            return Ok(());
        }
        steps.remove(&tid);
        Err(Exhausted(resource))
    }
}

/// `fail-nth` of a thread.
struct ThreadFile {
    all: Arc<FailNth>,
    tid: i32,
}

impl Attribute for ThreadFile {
    /// Sets how many steps there are to the one that fails; 0 for none.
    ///
    /// # Errors
    /// `EINVAL` for what is no number.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
        let text = text.trim_end_matches(['\n', '\0']);
        let left: u32 = text.parse().map_err(|_| Errno::EINVAL)?;
        let mut steps = self.all.lock();
        if left == 0 {
            steps.remove(&self.tid);
        } else {
            steps.insert(self.tid, left);
        }
        Ok(bytes.len())
    }

    fn read(&self) -> Option<String> {
        let left = self.all.lock().get(&self.tid).copied().unwrap_or(0);
        Some(format!("{left}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_step_of_a_thread_fails_once() {
        let all = Arc::new(FailNth::default());
        let file = all.file(7);
        assert_eq!(file.write(b"2"), Ok(1));
        let step = || all.admit(Resource::Buffer, 1);
        assert_eq!(step(), Ok(()), "nobody is served");
        {
            let _other = serve(8);
            assert_eq!([step(), step()], [Ok(()); 2]);
            let _served = serve(7);
            assert_eq!(step(), Ok(()));
            assert_eq!(file.read().as_deref(), Some("1\n"));
            assert_eq!(step(), Err(Exhausted(Resource::Buffer)));
            assert_eq!(file.read().as_deref(), Some("0\n"));
            assert_eq!(step(), Ok(()));
        }
        assert_eq!(SERVED.get(), None);
    }

    #[test]
    fn only_numbers_are_taken() {
        let all = Arc::new(FailNth::default());
        let file = all.file(7);
        assert_eq!(file.write(b"12\n"), Ok(3));
        assert_eq!(file.read().as_deref(), Some("12\n"));
        for bytes in [&b"x"[..], b"", b"-1", b"\xff", b"99999999999"] {
            assert_eq!(file.write(bytes), Err(Errno::EINVAL), "{bytes:?}");
        }
        assert_eq!(file.read().as_deref(), Some("12\n"));
        assert_eq!(file.write(b"0"), Ok(1));
        assert_eq!(file.read().as_deref(), Some("0\n"));
    }
}
