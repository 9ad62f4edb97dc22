//! Somebody who only sleeps, and so knows when the whole machine stood still: what was timed meanwhile says
//! nothing, and is done again.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SLEEP: Duration = Duration::from_millis(10);
const STALL: Duration = Duration::from_millis(150);
/// A machine that always stands still is no machine to test on.
const ATTEMPTS: usize = 20;

/// Does `work` until it was done while the machine ran. `work` may say itself, by `None`, that its moment
/// passed.
///
/// Panics where that never was so.
pub(crate) fn undisturbed<T>(what: &str, mut work: impl FnMut() -> Option<T>) -> T {
    for _ in 0..ATTEMPTS {
        let before = stalls();
        let done = work();
        // One that goes on now is noticed when it ends.
        thread::sleep(2 * SLEEP);
        if stalls() == before
            && let Some(done) = done
        {
            return done;
        }
    }
    panic!("{what}: the machine stood still {ATTEMPTS} times");
}

/// How often the machine has stood still.
fn stalls() -> u64 {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    static THREAD: OnceLock<()> = OnceLock::new();
    THREAD.get_or_init(|| {
        thread::spawn(|| {
            loop {
                let begun = Instant::now();
                thread::sleep(SLEEP);
                if begun.elapsed() > STALL {
                    SEEN.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    });
    SEEN.load(Ordering::Relaxed)
}
