//! Sleeps end for the reason they say.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use bindery_mem::Pages;
use bindery_mem::futex::{Ended, Scope, wait, wake};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

#[test]
fn a_changed_word_is_not_slept_on() {
    let word = AtomicU32::new(1);
    assert_eq!(wait(&word, 0, Scope::Process, None), Ended::Changed);
}

#[test]
fn a_timeout_ends_the_sleep() {
    let word = AtomicU32::new(0);
    let timeout = Some(Duration::from_millis(1));
    assert_eq!(wait(&word, 0, Scope::Process, timeout), Ended::TimedOut);
    assert_eq!(wake(&word, 1, Scope::Process), 0);
}

#[test]
fn a_sleeper_is_woken_through_another_mapping() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create(c"futex", flags).unwrap();
    ftruncate(&file, 4096).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    let [ours, theirs] =
        [(); 2].map(|()| Pages::of_sealed_file(file.as_fd(), 0, 4096, true).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let word = ours.atomic_u32(64).unwrap();
            while word.load(SeqCst) == 0 {
                assert_ne!(wait(word, 0, Scope::Shared, None), Ended::TimedOut);
            }
        });
        // Sleepers must be there for the wake to count them, so it is tried until one is.
        let word = theirs.atomic_u32(64).unwrap();
        while wake(word, 1, Scope::Shared) == 0 {
            std::thread::yield_now();
        }
        word.store(1, SeqCst);
        wake(word, u32::MAX, Scope::Shared);
    });
}
