//! `Span` and `SpanMap` against a slow model: an array with a cell per address, at the bottom and
//! at the very top of the address space.

use bindery_span::{Span, SpanMap};
use proptest::prelude::*;

const CELLS: usize = 48;

/// Where the model's cell 0 lies: the ends of the address space are where arithmetic goes wrong.
fn bases() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(0x1000), Just(u64::MAX - CELLS as u64 + 1)]
}

/// First and last cell of a run, in order.
fn runs() -> impl Strategy<Value = (usize, usize)> {
    (0..CELLS, 0..CELLS).prop_map(|(one, other)| (one.min(other), one.max(other)))
}

/// Mostly short runs, so that many fit.
fn short_runs() -> impl Strategy<Value = (usize, usize)> {
    (0..CELLS, 0..6_usize).prop_map(|(first, more)| (first, (first + more).min(CELLS - 1)))
}

#[derive(Clone, Debug)]
enum Step {
    Insert((usize, usize)),
    Remove((usize, usize)),
    /// Removes what covers the cell, by its exact span.
    RemoveCovering(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => short_runs().prop_map(Step::Insert),
        1 => runs().prop_map(Step::Insert),
        1 => short_runs().prop_map(Step::Remove),
        2 => (0..CELLS).prop_map(Step::RemoveCovering),
    ];
    prop::collection::vec(step, 0..40)
}

fn span(base: u64, (first, last): (usize, usize)) -> Span {
    Span::from_ends(base + first as u64, base + last as u64).expect("runs are in order")
}

/// Each cell holds the run inserted over it.
type Cells = [Option<(usize, usize)>; CELLS];

fn runs_in(cells: &Cells, first: usize, last: usize) -> Vec<(usize, usize)> {
    let mut found: Vec<_> = (first..=last).filter_map(|cell| cells[cell]).collect();
    found.dedup();
    found
}

fn gaps_in(cells: &Cells, first: usize, last: usize) -> Vec<(usize, usize)> {
    let mut gaps: Vec<(usize, usize)> = Vec::new();
    for cell in (first..=last).filter(|cell| cells[*cell].is_none()) {
        match gaps.last_mut() {
            Some(gap) if gap.1 + 1 == cell => gap.1 = cell,
            Some(_) | None => gaps.push((cell, cell)),
        }
    }
    gaps
}

fn set(cells: &mut Cells, (first, last): (usize, usize), to: Option<(usize, usize)>) {
    cells[first..=last].fill(to);
}

proptest! {
    #[test]
    fn spans_relate_as_their_addresses_do(base in bases(), one in runs(), other in runs()) {
        let (a, b) = (span(base, one), span(base, other));
        let cells = |run: (usize, usize)| (run.0..=run.1).collect::<Vec<_>>();
        let shared: Vec<_> =
            cells(one).into_iter().filter(|cell| cells(other).contains(cell)).collect();
        prop_assert_eq!(a.checked_length(), Some(cells(one).len() as u64));
        prop_assert_eq!(Span::new(a.start(), a.length()), Some(a));
        prop_assert_eq!(a.intersects(b), !shared.is_empty());
        prop_assert_eq!(a.contains_span(b), shared == cells(other));
        let both = shared.first().zip(shared.last()).map(|(first, last)| (*first, *last));
        prop_assert_eq!(a.intersection(b), both.map(|run| span(base, run)));
        for cell in 0..CELLS {
            prop_assert_eq!(a.contains(base + cell as u64), cells(one).contains(&cell));
        }
    }

    #[test]
    fn a_span_exists_where_the_sum_fits(start: u64, length: u64) {
        let last = u128::from(start) + u128::from(length);
        let exists = length != 0 && last <= 1 << 64;
        prop_assert_eq!(Span::new(start, length).is_some(), exists);
    }

    #[test]
    fn the_map_holds_what_the_cells_hold(base in bases(), steps in steps(), within in runs()) {
        let mut map = SpanMap::new();
        let mut cells: Cells = [None; CELLS];
        for step in steps {
            match step {
                Step::Insert(run) => {
                    let expected = match runs_in(&cells, run.0, run.1).first() {
                        Some(overlapped) => Err(span(base, *overlapped)),
                        None => {
                            set(&mut cells, run, Some(run));
                            Ok(())
                        }
                    };
                    prop_assert_eq!(map.insert(span(base, run), run), expected);
                }
                Step::Remove(run) => {
                    let exact = cells[run.0].filter(|held| *held == run);
                    if exact.is_some() {
                        set(&mut cells, run, None);
                    }
                    prop_assert_eq!(map.remove_exact(span(base, run)), exact);
                }
                Step::RemoveCovering(cell) => {
                    let covering = map.get(base + cell as u64).map(|(found, run)| (found, *run));
                    let expected = cells[cell].map(|run| (span(base, run), run));
                    prop_assert_eq!(covering, expected);
                    if let Some((found, run)) = covering {
                        set(&mut cells, run, None);
                        prop_assert_eq!(map.remove_exact(found), Some(run));
                    }
                }
            }
        }
        let all: Vec<_> = map.iter().map(|(found, run)| (found, *run)).collect();
        let expected: Vec<_> =
            runs_in(&cells, 0, CELLS - 1).into_iter().map(|run| (span(base, run), run)).collect();
        prop_assert_eq!(map.len(), expected.len());
        prop_assert_eq!(&all, &expected);
        let over: Vec<_> = map.overlapping(span(base, within)).map(|(_, run)| *run).collect();
        prop_assert_eq!(over, runs_in(&cells, within.0, within.1));
        let gaps: Vec<_> = map.gaps(span(base, within)).collect();
        let expected: Vec<_> =
            gaps_in(&cells, within.0, within.1).into_iter().map(|run| span(base, run)).collect();
        prop_assert_eq!(gaps, expected);
    }
}
