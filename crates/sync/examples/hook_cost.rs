//! What asking the hook costs: nanoseconds for one lock and release of an uncontended ranked mutex,
//! without a hook, with one that does nothing, and of a plain mutex for comparison. Best of several
//! rounds each, interleaved. Run with `--release`: debug builds also keep the list of held ranks.

#![expect(clippy::disallowed_types, reason = "a measurement needs a clock and the plain mutex")]
#![expect(clippy::print_stdout, reason = "prints what it measured")]

use std::hint::black_box;
use std::rc::Rc;
use std::time::Instant;

use bindery_sync::hook::{self, Hook, Operation};
use bindery_sync::rank::DeviceSet;

const ROUNDS: u32 = 20;
const LOCKS: u32 = 500_000;

fn main() {
    let plain = std::sync::Mutex::new(0_u64);
    let ranked = bindery_sync::Mutex::<DeviceSet, u64>::new(0);
    let lock_plain = || *black_box(&plain).lock().expect("nobody panics here") += 1;
    let lock_ranked = || *black_box(&ranked).lock() += 1;

    let (mut plain_ns, mut unhooked_ns, mut hooked_ns) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        plain_ns = plain_ns.min(nanoseconds_each(lock_plain));
        unhooked_ns = unhooked_ns.min(nanoseconds_each(lock_ranked));
        let _installed = hook::install(Rc::new(Silent));
        hooked_ns = hooked_ns.min(nanoseconds_each(lock_ranked));
    }
    println!("plain mutex                 {plain_ns:6.2} ns");
    println!("ranked, no hook installed   {unhooked_ns:6.2} ns  (asked twice: lock, release)");
    println!("ranked, hook doing nothing  {hooked_ns:6.2} ns");
    println!("asking without a hook       {:6.2} ns", (unhooked_ns - plain_ns) / 2.0);
}

fn nanoseconds_each(mut operation: impl FnMut()) -> f64 {
    let began = Instant::now();
    for _ in 0..LOCKS {
        operation();
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(LOCKS)
}

struct Silent;

impl Hook for Silent {
    fn before(&self, operation: Operation) {
        black_box(operation);
    }
}
