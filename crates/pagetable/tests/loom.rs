//! Every order of loads and stores on a table of two levels with two entries each. The barrier on all threads is a fence on both sides here.
//!
//! Run as `RUSTFLAGS="--cfg loom" cargo test --release -p bindery-pagetable --test loom`.

#![cfg(loom)]

use std::sync::Arc;

use bindery_pagetable::{
    Clear, DirtyBits, DirtyLog, LeafSize, Mapper, PAGE_LG2, PageTable, Permission, Shape, Target,
};
use loom::model;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::thread;
use span::Span;

const PAGE: u64 = 1 << PAGE_LG2;
/// The first page of the other table.
const ELSEWHERE: u64 = 2 * PAGE;

fn table() -> (Arc<PageTable>, Mapper) {
    let shape = Shape { address_bits: 14, largest_leaf: LeafSize::Small, tables_max: 2 };
    PageTable::new(shape).unwrap()
}

fn page(iova: u64) -> Span {
    Span::new(iova, PAGE).unwrap()
}

fn target(output: u64) -> Target {
    Target { output, permission: Permission::READ, tag: 0 }
}

/// What a walk translated to is let go of only after the walk.
#[test]
fn memory_outlives_walks() {
    model(|| {
        let (table, mut mapper) = table();
        mapper.insert(page(0), target(7 * PAGE)).unwrap();
        let let_go = Arc::new(AtomicU64::new(0));
        let mut reader = table.reader();
        let user = thread::spawn({
            let let_go = Arc::clone(&let_go);
            move || {
                let walk = reader.walk();
                if walk.translate(0, Permission::READ).is_ok() {
                    assert_eq!(let_go.load(Relaxed), 0, "used after it was let go of");
                }
            }
        });
        mapper.remove(page(0)).unwrap();
        mapper.wait_for_readers();
        let_go.store(1, Relaxed);
        user.join().unwrap();
    });
}

/// A walk that begins after the wait does not find what was removed.
#[test]
fn what_is_gone_is_not_found() {
    model(|| {
        let (table, mut mapper) = table();
        mapper.insert(page(0), target(7 * PAGE)).unwrap();
        let gone = Arc::new(AtomicU64::new(0));
        let mut reader = table.reader();
        let user = thread::spawn({
            let gone = Arc::clone(&gone);
            move || {
                let was_gone = gone.load(Acquire) == 1;
                let found = reader.walk().translate(0, Permission::READ).is_ok();
                assert!(!(was_gone && found));
            }
        });
        mapper.remove(page(0)).unwrap();
        mapper.wait_for_readers();
        gone.store(1, Release);
        user.join().unwrap();
    });
}

/// A table is used for other addresses only when no walk is in it any more.
#[test]
fn a_table_is_not_reused_under_a_walk() {
    model(|| {
        let (table, mut mapper) = table();
        mapper.insert(page(0), target(7 * PAGE)).unwrap();
        let mut reader = table.reader();
        let user = thread::spawn(move || {
            let walk = reader.walk();
            if let Ok(piece) = walk.translate(0, Permission::READ) {
                assert_eq!(piece.output, 7 * PAGE, "a table of other addresses was read");
            }
        });
        mapper.remove(page(0)).unwrap();
        mapper.insert(page(ELSEWHERE), target(9 * PAGE)).unwrap();
        mapper.remove(page(ELSEWHERE)).unwrap();
        mapper.wait_for_readers();
        mapper.insert(page(ELSEWHERE), target(11 * PAGE)).unwrap();
        user.join().unwrap();
    });
}

/// A new table is seen with its leaves in it.
#[test]
fn a_new_table_is_seen_whole() {
    model(|| {
        let (table, mut mapper) = table();
        let told = Arc::new(AtomicU64::new(0));
        let mut reader = table.reader();
        let user = thread::spawn({
            let told = Arc::clone(&told);
            move || {
                let walk = reader.walk();
                if let Ok(piece) = walk.translate(0, Permission::READ) {
                    assert_eq!(piece.output, 7 * PAGE);
                    assert_eq!(told.load(Relaxed), 5, "what came before the mapping is visible");
                }
            }
        });
        told.store(5, Relaxed);
        mapper.insert(page(0), target(7 * PAGE)).unwrap();
        user.join().unwrap();
    });
}

/// A mark is read exactly once, and by the first reading that begins after it was made.
#[test]
fn a_mark_is_read_once_and_in_time() {
    model(|| mark_and_read(21, 128));
}

/// The same where a reading takes all lines of a group, and so the bit above them, which was set for
/// another line.
#[test]
fn a_mark_in_a_whole_group_is_read_once_and_in_time() {
    model(|| mark_and_read(27, 1 << 15));
}

fn mark_and_read(address_bits: u32, pages: u64) {
    let (table, _mapper) = table();
    let (log, mut reading) = DirtyLog::new(address_bits).unwrap();
    let last = pages - 64;
    log.mark(&table.reader().walk(), page(0));
    let marked = Arc::new(AtomicU64::new(0));
    let mut reader = table.reader();
    let device = thread::spawn({
        let marked = Arc::clone(&marked);
        move || {
            log.mark(&reader.walk(), page(last * PAGE));
            marked.store(1, Release);
        }
    });
    let span = Span::new(0, pages * PAGE).unwrap();
    let (mut told, mut told_last) = (0, 0);
    let mut read = || {
        let was_marked = marked.load(Acquire);
        let mut words = vec![0_u64; usize::try_from(pages / 64).unwrap()];
        let mut bits = DirtyBits::new(span, PAGE_LG2, &mut words).unwrap();
        reading.read(span, Clear::Yes, table.readers(), |_| PAGE_LG2, &mut bits);
        told += words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        told_last += words[words.len() - 1] & 1;
        assert!(told_last >= was_marked, "a mark is late");
    };
    read();
    device.join().unwrap();
    read();
    assert_eq!((told, told_last), (2, 1));
}
