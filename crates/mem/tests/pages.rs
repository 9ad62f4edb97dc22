//! Pages read and write what they should, of files that cannot shrink, and nothing else.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;

use bindery_mem::{Pages, SealError};
use proptest::prelude::*;
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};

const PAGE: usize = 4096;

#[test]
fn a_sealed_file_is_shared() {
    let file = sealed(2 * PAGE);
    let ours = Pages::of_sealed_file(file.as_fd(), 0, 2 * PAGE, true).unwrap();
    let theirs = Pages::of_sealed_file(file.as_fd(), PAGE as u64, PAGE, false).unwrap();
    drop(file);
    ours.write(PAGE + 5, b"shared");
    let mut read = [0; 6];
    theirs.read(5, &mut read);
    assert_eq!(&read, b"shared");
    ours.store_u32(PAGE + 8, 0xfeed_f00d);
    assert_eq!(theirs.load_u32(8), 0xfeed_f00d);
    ours.store_u64(PAGE + 16, u64::MAX - 1);
    assert_eq!(theirs.load_u64(16), u64::MAX - 1);
}

#[test]
fn a_punched_hole_reads_zeros_and_takes_writes() {
    let file = sealed(2 * PAGE);
    let pages = Pages::of_sealed_file(file.as_fd(), 0, 2 * PAGE, true).unwrap();
    pages.fill(0, 2 * PAGE, 0xaa);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 0, PAGE as u64).unwrap();
    let mut read = vec![0xff; 2 * PAGE];
    pages.read(0, &mut read);
    assert_eq!(read[..PAGE], [0; PAGE]);
    assert_eq!(read[PAGE..], [0xaa; PAGE]);
    fallocate(&file, punch, 0, 2 * PAGE as u64).unwrap();
    pages.write(10, b"again");
    pages.read(0, &mut read);
    assert_eq!(&read[8..17], b"\0\0again\0\0");
}

#[test]
fn a_file_that_may_shrink_is_refused() {
    let file = memfd(PAGE);
    assert_eq!(of(&file, 0, PAGE), Err(SealError::Unsealed { seals: 0 }));
    fcntl_add_seals(&file, SealFlags::GROW).unwrap();
    let seals = SealFlags::GROW.bits();
    assert_eq!(of(&file, 0, PAGE), Err(SealError::Unsealed { seals }));
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    assert_eq!(of(&file, 0, PAGE), Ok(PAGE));
}

#[test]
fn what_cannot_be_sealed_is_refused() {
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    assert!(matches!(of(&pipe, 0, PAGE), Err(SealError::NotSealable { .. })));
    let unsealable = memfd_create(c"unsealable", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&unsealable, PAGE as u64).unwrap();
    let seals = SealFlags::SEAL.bits();
    assert_eq!(of(&unsealable, 0, PAGE), Err(SealError::Unsealed { seals }));
}

#[test]
fn huge_pages_are_refused() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    // A kernel without huge pages has no such files to refuse.
    let Ok(file) = memfd_create(c"huge", flags) else { return };
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    assert_eq!(of(&file, 0, PAGE), Err(SealError::HugePages));
}

#[test]
fn a_range_past_the_end_is_refused() {
    let file = sealed(2 * PAGE);
    let (offset, length, file_length) = (PAGE as u64, 2 * PAGE, 2 * PAGE as u64);
    let expected = SealError::PastEnd { offset, length, file_length };
    assert_eq!(of(&file, offset, length), Err(expected));
    let offset = u64::MAX - PAGE as u64 + 1;
    let expected = SealError::PastEnd { offset, length, file_length };
    assert_eq!(of(&file, offset, length), Err(expected));
    assert_eq!(of(&file, 1, PAGE), Err(SealError::Misaligned { offset: 1, length: PAGE }));
    assert_eq!(of(&file, 0, 0), Err(SealError::Misaligned { offset: 0, length: 0 }));
}

#[test]
fn a_file_sealed_against_writing_is_only_read() {
    let file = sealed(PAGE);
    fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
    let refused = Pages::of_sealed_file(file.as_fd(), 0, PAGE, true);
    assert!(matches!(refused, Err(SealError::Map { .. })), "{refused:?}");
    let pages = Pages::of_sealed_file(file.as_fd(), 0, PAGE, false).unwrap();
    assert!(!pages.writable());
    assert_eq!(pages.checked_read(0, &mut [1; 8]), Some(()));
    assert_eq!(pages.checked_load_u64(0), Some(0));
    assert_eq!(pages.checked_write(0, &[1]), None);
    assert_eq!(pages.checked_fill(0, 1, 1), None);
    assert_eq!(pages.checked_store_u32(0, 1), None);
    assert_eq!(pages.checked_store_u64(0, 1), None);
    assert!(pages.atomic_u32(0).is_none());
}

#[test]
fn nothing_outside_or_misaligned_is_reached() {
    let pages = Pages::anonymous(PAGE).unwrap();
    for (offset, length) in
        [(PAGE, 1), (PAGE - 1, 2), (0, PAGE + 1), (usize::MAX, 1), (usize::MAX, 2)]
    {
        assert_eq!(pages.checked_read(offset, &mut vec![0; length]), None, "{offset:#x}");
        assert_eq!(pages.checked_write(offset, &vec![0; length]), None, "{offset:#x}");
        assert_eq!(pages.checked_fill(offset, length, 0), None, "{offset:#x}");
    }
    assert_eq!(pages.checked_read(PAGE, &mut []), Some(()));
    for offset in [1, 2, 3, PAGE - 3, PAGE, usize::MAX - 3] {
        assert_eq!(pages.checked_load_u32(offset), None, "{offset:#x}");
        assert_eq!(pages.checked_store_u32(offset, 0), None, "{offset:#x}");
        assert!(pages.atomic_u32(offset).is_none(), "{offset:#x}");
    }
    for offset in [1, 4, PAGE - 4, PAGE, usize::MAX - 7] {
        assert_eq!(pages.checked_load_u64(offset), None, "{offset:#x}");
        assert_eq!(pages.checked_store_u64(offset, 0), None, "{offset:#x}");
    }
    assert!(Pages::anonymous(0).is_err());
}

#[test]
fn a_length_need_not_be_whole_pages() {
    let pages = Pages::anonymous(100).unwrap();
    assert_eq!(pages.len(), 100);
    assert_eq!(pages.checked_write(99, &[1]), Some(()));
    assert_eq!(pages.checked_write(100, &[1]), None);
}

#[test]
fn a_copy_that_races_is_made_of_what_was_written() {
    let pages = Pages::anonymous(4 * PAGE).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..300_usize {
                pages.fill(0, 4 * PAGE, if round.is_multiple_of(2) { 0x55 } else { 0 });
            }
        });
        let mut copy = vec![0; 4 * PAGE];
        while !writer.is_finished() {
            pages.read(0, &mut copy);
            assert!(copy.iter().all(|byte| [0, 0x55].contains(byte)));
        }
    });
}

#[test]
fn words_in_place_are_atomic() {
    let pages = Pages::anonymous(PAGE).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    pages.atomic_u32(64).expect("inside and aligned").fetch_add(1, SeqCst);
                }
            });
        }
    });
    assert_eq!(pages.load_u32(64), 30_000);
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Fill(usize, usize, u8),
    Read(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..160_usize;
    let step = prop_oneof![
        (at.clone(), prop::collection::vec(any::<u8>(), 0..70))
            .prop_map(|(at, bytes)| Step::Write(at, bytes)),
        (at.clone(), 0..70_usize, any::<u8>())
            .prop_map(|(at, length, byte)| Step::Fill(at, length, byte)),
        (at, 0..70_usize).prop_map(|(at, length)| Step::Read(at, length)),
    ];
    prop::collection::vec(step, 0..20)
}

proptest! {
    /// Every alignment of either end, against a plain array.
    #[test]
    fn copies_touch_exactly_their_range(steps in steps()) {
        const LENGTH: usize = 200;
        let pages = Pages::anonymous(LENGTH).unwrap();
        let mut model = vec![0_u8; LENGTH];
        for step in steps {
            match step {
                Step::Write(at, bytes) => {
                    let range = model.get_mut(at..at + bytes.len());
                    let inside = range.map(|range| range.copy_from_slice(&bytes));
                    prop_assert_eq!(pages.checked_write(at, &bytes), inside);
                }
                Step::Fill(at, length, byte) => {
                    let inside = model.get_mut(at..at + length).map(|range| range.fill(byte));
                    prop_assert_eq!(pages.checked_fill(at, length, byte), inside);
                }
                Step::Read(at, length) => {
                    let mut read = vec![0; length];
                    let inside = pages.checked_read(at, &mut read).map(|()| &read[..]);
                    prop_assert_eq!(inside, model.get(at..at + length));
                }
            }
        }
        let mut all = vec![0; LENGTH];
        pages.read(0, &mut all);
        prop_assert_eq!(all, model);
    }
}

fn of(fd: &OwnedFd, offset: u64, length: usize) -> Result<usize, SealError> {
    Pages::of_sealed_file(fd.as_fd(), offset, length, true).map(|pages| pages.len())
}

fn sealed(length: usize) -> OwnedFd {
    let file = memfd(length);
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    file
}

fn memfd(length: usize) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create(c"pages", flags).unwrap();
    ftruncate(&file, length as u64).unwrap();
    file
}
