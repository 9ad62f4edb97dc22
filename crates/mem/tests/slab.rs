//! Tables come zeroed, are distinct, stay where they are, and run out.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;

use bindery_mem::TableSlab;

#[test]
fn tables_are_distinct_and_run_out() {
    let slab = TableSlab::new(5).unwrap();
    let indices: BTreeSet<u32> = std::iter::from_fn(|| slab.allocate()).collect();
    assert_eq!(indices, BTreeSet::from([0, 1, 2, 3, 4]));
    assert_eq!(slab.in_use(), 5);
    slab.free(3);
    assert_eq!(slab.allocate(), Some(3));
    assert_eq!(slab.allocate(), None);
}

#[test]
fn a_table_used_again_is_zero() {
    let slab = TableSlab::new(3).unwrap();
    let indices = [(); 3].map(|()| slab.allocate().unwrap());
    for index in indices {
        slab.table(index).iter().for_each(|entry| entry.store(u64::MAX, SeqCst));
    }
    indices.into_iter().for_each(|index| slab.free(index));
    assert_eq!(slab.in_use(), 0);
    while let Some(index) = slab.allocate() {
        assert!(slab.table(index).iter().all(|entry| entry.load(SeqCst) == 0), "table {index}");
    }
    assert_eq!(slab.in_use(), 3);
}

#[test]
fn a_large_slab_costs_only_addresses() {
    let slab = TableSlab::new(1 << 20).unwrap();
    let first = slab.allocate().unwrap();
    let address = slab.table(first).as_ptr();
    slab.table(first)[511].store(9, SeqCst);
    let others: Vec<u32> = (0..1000).filter_map(|_| slab.allocate()).collect();
    assert_eq!(others.len(), 1000);
    assert_eq!(slab.table(first).as_ptr(), address);
    assert_eq!(slab.table(first)[511].load(SeqCst), 9);
}

#[test]
#[should_panic(expected = "outside of the slab")]
fn an_index_beyond_the_slab_is_a_bug() {
    TableSlab::new(2).unwrap().table(2);
}

#[test]
#[should_panic(expected = "never handed out")]
fn freeing_what_was_never_handed_out_is_a_bug() {
    TableSlab::new(2).unwrap().free(1);
}

#[test]
fn threads_never_share_a_table() {
    let slab = TableSlab::new(8).unwrap();
    std::thread::scope(|scope| {
        for me in 1..=3_u64 {
            let slab = &slab;
            scope.spawn(move || {
                for _ in 0..1_000 {
                    let Some(index) = slab.allocate() else { continue };
                    for entry in slab.table(index) {
                        assert_eq!(entry.swap(me, SeqCst), 0);
                    }
                    assert!(slab.table(index).iter().all(|entry| entry.load(SeqCst) == me));
                    slab.free(index);
                }
            });
        }
    });
    assert_eq!(slab.in_use(), 0);
}

#[test]
fn all_tables_are_given_back_at_once_and_come_back_zeroed() {
    // More than stay in small pages.
    let slab = TableSlab::new(12_000).unwrap();
    for _ in 0..2 {
        let indices: Vec<u32> = std::iter::from_fn(|| slab.allocate()).collect();
        assert_eq!(indices.len(), 12_000);
        for index in &indices {
            assert!(
                slab.table(*index).iter().all(|entry| entry.load(SeqCst) == 0),
                "table {index}"
            );
            slab.table(*index)[7].store(1, SeqCst);
        }
        slab.free(indices[3]);
        slab.reset();
        assert_eq!(slab.in_use(), 0);
    }
}

#[test]
fn a_slab_of_no_tables_is_refused() {
    assert!(TableSlab::new(0).is_err());
}
