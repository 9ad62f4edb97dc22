//! A window on a file that shrinks answers with an error. A signal would end the test.

use std::os::fd::{AsFd, OwnedFd};

use bindery_mem::{Vanished, Window};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

const PAGE: usize = 4096;

#[test]
fn what_is_written_is_read() {
    let file = memfd(2 * PAGE);
    let window = Window::map(file.as_fd(), 0, 2 * PAGE, true).unwrap();
    let tail = Window::map(file.as_fd(), PAGE as u64, PAGE, false).unwrap();
    window.write(PAGE - 3, b"across").unwrap();
    let mut read = [0; 6];
    window.read(PAGE - 3, &mut read).unwrap();
    assert_eq!(&read, b"across");
    tail.read(0, &mut read[..3]).unwrap();
    assert_eq!(&read[..3], b"oss");
}

#[test]
fn truncated_bytes_have_vanished() {
    let file = memfd(2 * PAGE);
    let window = Window::map(file.as_fd(), 0, 2 * PAGE, true).unwrap();
    window.write(0, &[7; 2 * PAGE]).unwrap();
    ftruncate(&file, PAGE as u64).unwrap();

    let mut read = [0; 8];
    let vanished = Vanished { offset: PAGE, length: 8 };
    assert_eq!(window.read(PAGE, &mut read), Err(vanished));
    assert_eq!(window.write(PAGE, &[1; 8]), Err(vanished));
    let vanished = Vanished { offset: PAGE - 4, length: 8 };
    assert_eq!(window.read(PAGE - 4, &mut read), Err(vanished), "one half is there");
    assert_eq!(window.read(PAGE - 8, &mut read), Ok(()));
    assert_eq!(read, [7; 8]);

    ftruncate(&file, 0).unwrap();
    assert!(window.read(0, &mut read).is_err());
    ftruncate(&file, 2 * PAGE as u64).unwrap();
    window.read(PAGE, &mut read).unwrap();
    assert_eq!(read, [0; 8], "what comes back is empty");
}

#[test]
fn a_file_that_is_truncated_again_and_again_does_no_harm() {
    let file = memfd(4 * PAGE);
    let window = Window::map(file.as_fd(), 0, 4 * PAGE, true).unwrap();
    std::thread::scope(|scope| {
        let truncating = scope.spawn(|| {
            for round in 0..2_000_u64 {
                ftruncate(&file, round % 5 * PAGE as u64).unwrap();
            }
            ftruncate(&file, 4 * PAGE as u64).unwrap();
        });
        // Some of these succeed, some have vanished; all return.
        let mut copy = vec![0; 4 * PAGE];
        while !truncating.is_finished() {
            if window.write(0, &copy).is_ok() && window.read(0, &mut copy).is_ok() {
                assert!(copy.iter().all(|byte| *byte == 0));
            }
        }
    });
    assert_eq!(window.write(0, &[1; 4 * PAGE]), Ok(()));
}

#[test]
fn a_hole_reads_zeros() {
    let file = memfd(PAGE);
    let window = Window::map(file.as_fd(), 0, PAGE, true).unwrap();
    window.write(0, &[7; PAGE]).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 0, PAGE as u64).unwrap();
    let mut read = [1; PAGE];
    window.read(0, &mut read).unwrap();
    assert_eq!(read, [0; PAGE]);
}

#[test]
fn nothing_outside_is_reached() {
    let file = memfd(2 * PAGE);
    let window = Window::map(file.as_fd(), 0, PAGE, true).unwrap();
    for (offset, length) in [(PAGE, 1), (PAGE - 1, 2), (usize::MAX, 2), (usize::MAX, 1)] {
        let vanished = Vanished { offset, length };
        assert_eq!(window.read(offset, &mut vec![0; length]), Err(vanished));
        assert_eq!(window.write(offset, &vec![0; length]), Err(vanished));
    }
    assert_eq!(window.read(PAGE, &mut []), Ok(()));
}

#[test]
fn a_read_only_window_is_not_written() {
    let file = memfd(PAGE);
    let window = Window::map(file.as_fd(), 0, PAGE, false).unwrap();
    assert_eq!(window.write(0, b"no"), Err(Vanished { offset: 0, length: 2 }));
    let mut read = [1; 2];
    window.read(0, &mut read).unwrap();
    assert_eq!(read, [0; 2]);
}

fn memfd(length: usize) -> OwnedFd {
    let file = memfd_create(c"window", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, length as u64).unwrap();
    file
}
