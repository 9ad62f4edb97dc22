//! The dirty log against a set of pages, and under concurrent marking.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use bindery_pagetable::{
    Clear, DirtyBits, DirtyLog, DirtyReader, PAGE_LG2, PageTable, Reader, Shape,
};
use proptest::prelude::*;
use span::Span;

const PAGE: u64 = 1 << PAGE_LG2;
const LARGE_LG2: u32 = 21;

struct Bench {
    table: Arc<PageTable>,
    marker: Reader,
    log: Arc<DirtyLog>,
    reader: DirtyReader,
    model: BTreeSet<u64>,
}

impl Bench {
    fn new() -> Self {
        let (table, _mapper) = PageTable::new(Shape::default()).unwrap();
        let (log, reader) = DirtyLog::new(48).unwrap();
        Self { marker: table.reader(), table, log, reader, model: BTreeSet::new() }
    }

    fn mark(&mut self, span: Span) {
        self.log.mark(&self.marker.walk(), span);
        self.model.extend(span.start() / PAGE..=span.last() / PAGE);
    }

    /// Reads with all leaves small and compares bit by bit.
    fn read(&mut self, span: Span, unit_lg2: u32, clear: Clear) {
        let units = span.length() >> unit_lg2;
        let mut words = vec![0_u64; usize::try_from(units.div_ceil(64)).unwrap()];
        // One bit that was set before must stay.
        words[0] |= 1;
        let mut bits = DirtyBits::new(span, unit_lg2, &mut words).unwrap();
        self.reader.read(span, clear, self.table.readers(), |_| PAGE_LG2, &mut bits);
        for unit in 0..units {
            let start = span.start() + (unit << unit_lg2);
            let last = start + (1 << unit_lg2) - 1;
            let expected = self.model.range(start / PAGE..=last / PAGE).next().is_some();
            let found = words[usize::try_from(unit / 64).unwrap()] >> (unit % 64) & 1 == 1;
            assert_eq!(found, expected || unit == 0, "unit {unit} of {span}");
        }
        if clear == Clear::Yes {
            self.model.retain(|page| !span.contains(page * PAGE));
        }
    }
}

impl Bench {
    /// Reads everything that could be marked, and then finds nothing.
    fn read_all(&mut self) {
        let span = Span::new(0, 1 << 31).unwrap();
        for expected in [self.model.clone(), BTreeSet::new()] {
            let mut words = vec![0_u64; 1 << (31 - PAGE_LG2 - 6)];
            let mut bits = DirtyBits::new(span, PAGE_LG2, &mut words).unwrap();
            self.reader.read(span, Clear::Yes, self.table.readers(), |_| PAGE_LG2, &mut bits);
            let count: u32 = words.iter().map(|word| word.count_ones()).sum();
            assert_eq!(count as usize, expected.len());
            for page in expected {
                assert_eq!(words[usize::try_from(page / 64).unwrap()] >> (page % 64) & 1, 1);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Mark { page: u64, pages: u64 },
    Read { unit: u64, units: u64, unit_lg2: u32, clear: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let near = || (prop::sample::select(vec![0_u64, 500, 32_700, 262_100]), 0_u64..80);
    prop_oneof![
        3 => (near(), prop_oneof![1_u64..4, 60_u64..700])
            .prop_map(|((base, near), pages)| Step::Mark { page: base + near, pages }),
        2 => (near(), 1_u64..40, 9_u32..22, any::<bool>()).prop_map(|((base, near), units, unit_lg2, clear)| {
            let unit = (base + near) << PAGE_LG2 >> unit_lg2;
            let units = if unit_lg2 < PAGE_LG2 { units << (PAGE_LG2 - unit_lg2) } else { units * 7 };
            let unit = if unit_lg2 < PAGE_LG2 { unit >> (PAGE_LG2 - unit_lg2) << (PAGE_LG2 - unit_lg2) } else { unit };
            Step::Read { unit, units, unit_lg2, clear }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn reports_what_was_marked(steps in prop::collection::vec(step(), 1..60)) {
        let mut bench = Bench::new();
        for step in steps {
            match step {
                Step::Mark { page, pages } => bench.mark(Span::new(page * PAGE, pages * PAGE).unwrap()),
                Step::Read { unit, units, unit_lg2, clear } => {
                    let span = Span::new(unit << unit_lg2, units << unit_lg2).unwrap();
                    bench.read(span, unit_lg2, if clear { Clear::Yes } else { Clear::No });
                }
            }
        }
        bench.read_all();
    }
}

#[test]
fn a_large_leaf_is_dirty_and_clean_as_a_whole() {
    let mut bench = Bench::new();
    let asked = Span::new((1 << 30) + (5 << 21) + 3 * PAGE, 1 << 21).unwrap();
    for leaf_lg2 in [LARGE_LG2, 30] {
        bench.mark(Span::new((1 << 30) + (5 << 21), 1).unwrap());
        let mut words = [0; 8];
        let mut bits = DirtyBits::new(asked, PAGE_LG2, &mut words).unwrap();
        bench.reader.read(asked, Clear::Yes, bench.table.readers(), |_| leaf_lg2, &mut bits);
        let dirty: u32 = words.iter().map(|word| word.count_ones()).sum();
        assert_eq!(dirty, if leaf_lg2 == LARGE_LG2 { 509 } else { 512 });
        bench.model.clear();
        bench.read(Span::new(1 << 30, 1 << 30).unwrap(), PAGE_LG2, Clear::Yes);
    }
}

#[test]
fn marks_beyond_the_log_are_not_noted() {
    let mut bench = Bench::new();
    bench.log.mark(&bench.marker.walk(), Span::from_ends((1 << 48) - 1, 1 << 48).unwrap());
    bench.model.insert((1 << 36) - 1);
    bench.read(Span::new((1 << 48) - (1 << 20), 1 << 20).unwrap(), PAGE_LG2, Clear::Yes);
}

#[test]
fn too_few_words_make_no_bitmap() {
    let span = Span::new(0, 65 * PAGE).unwrap();
    assert!(DirtyBits::new(span, PAGE_LG2, &mut [0; 1]).is_none());
    assert!(DirtyBits::new(span, PAGE_LG2, &mut [0; 2]).is_some());
}

/// Tells the markers that the reader has failed, so that they do not wait for it.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Two threads mark pages of their own, each page once after it was told that it is clean; a third
/// reads, and gives every page that it finds back to be marked again.
#[test]
fn no_mark_is_lost_or_told_twice() {
    const PAGES: usize = 3 << 9;
    let (table, _mapper) = PageTable::new(Shape::default()).unwrap();
    let (log, mut reader) = DirtyLog::new(40).unwrap();
    let marked: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let told: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let marks: u64 = std::env::var("OPERATIONS").map_or(100_000, |text| text.parse().unwrap());
    let busy = AtomicU64::new(2);
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _gone = SetOnDrop(&gone);
        for me in 0..2 {
            let (log, marked, told, busy, gone) = (&log, &marked, &told, &busy, &gone);
            let mut walker = table.reader();
            scope.spawn(move || {
                let mut random = 9 + me as u64;
                let mut left = marks / 2;
                while left > 0 && !gone.load(SeqCst) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let page = usize::try_from(random >> 40).unwrap() % (PAGES / 2) * 2 + me;
                    if marked[page].load(SeqCst) == told[page].load(SeqCst) {
                        marked[page].fetch_add(1, SeqCst);
                        let span = Span::new(page as u64 * PAGE, 100).unwrap();
                        log.mark(&walker.walk(), span);
                        left -= 1;
                    }
                }
                busy.fetch_sub(1, SeqCst);
            });
        }
        let mut round = 0_u64;
        loop {
            let last = busy.load(SeqCst) == 0;
            // Ranges that cut lines, now and then; at the end all of it.
            let cut = if last {
                PAGES
            } else {
                [PAGES, 700, 512, 1000][usize::try_from(round % 4).unwrap()]
            };
            let span = Span::new(0, cut as u64 * PAGE).unwrap();
            let mut words = vec![0; PAGES / 64];
            let mut bits = DirtyBits::new(span, PAGE_LG2, &mut words).unwrap();
            reader.read(span, Clear::Yes, table.readers(), |_| PAGE_LG2, &mut bits);
            for page in (0..PAGES).filter(|page| words[page / 64] >> (page % 64) & 1 == 1) {
                // Until it is told, nobody marks the page again.
                let count = told[page].load(SeqCst) + 1;
                assert_eq!(count, marked[page].load(SeqCst), "page {page}");
                told[page].store(count, SeqCst);
            }
            if last {
                break;
            }
            round += 1;
        }
    });
    for page in 0..PAGES {
        assert_eq!(marked[page].load(SeqCst), told[page].load(SeqCst), "page {page}");
    }
}
