//! The table against a plain map, one operation after the other.

use std::sync::Arc;

use bindery_pagetable::{
    Area, FaultReason, Fit, InsertError, LeafSize, Mapper, PageTable, Permission, Shape, TagUse,
    Target,
};
use proptest::prelude::*;
use span::{Span, SpanMap};

const PAGE: u64 = 1 << 12;

/// What the table should be.
#[derive(Default)]
struct Model {
    areas: SpanMap<Target>,
}

impl Model {
    fn insert(&mut self, span: Span, target: Target) -> bool {
        self.areas.insert(span, target).is_ok()
    }

    /// Areas and bytes removed, and whether nothing stuck out.
    fn remove(&mut self, span: Span) -> (u64, u64, bool) {
        let met: Vec<Span> = self.areas.overlapping(span).map(|(met, _)| met).collect();
        let (mut areas, mut bytes) = (0, 0);
        for met in met {
            if !span.contains_span(met) {
                return (areas, bytes, false);
            }
            self.areas.remove_exact(met);
            areas += 1;
            bytes += met.length();
        }
        (areas, bytes, true)
    }

    fn translate(&self, iova: u64, access: Permission) -> Result<(u64, u16), FaultReason> {
        let (span, target) = self.areas.get(iova).ok_or(FaultReason::Unmapped)?;
        if target.permission == Permission::NONE {
            return Err(FaultReason::Unmapped);
        }
        if !target.permission.allows(access) {
            return Err(FaultReason::Denied);
        }
        Ok((target.output + iova - span.start(), target.tag))
    }

    /// Linux's choice: hole after hole, the first aligned address of each.
    fn first_fit(&self, within: Span, length: u64, alignment: u64, offset: u64) -> Option<Span> {
        self.areas.gaps(within).find_map(|hole| {
            let aligned = hole.start().checked_next_multiple_of(alignment)?;
            let span = Span::new(aligned | offset, length)?;
            hole.contains_span(span).then_some(span)
        })
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Insert { page: u64, pages: u64, output_page: u64, permission: u8, tag: u16 },
    Remove { start: u64, length: u64 },
    RemoveAll,
    SetPermission { at: u64, permission: u8 },
    SetTag { at: u64, tag: u16 },
    FirstMapped { at: u64, length: u64 },
    Translate { at: u64, permission: u8 },
    Pieces { at: u64, length: u64 },
    NextArea { from: u64 },
    FirstFit { start: u64, length: u64, alignment_lg2: u32, offset: u64, last: u64 },
}

/// Addresses near each other and near boundaries, so that areas meet.
fn page() -> impl Strategy<Value = u64> {
    let near = 0_u64..40;
    let bases = prop::sample::select(vec![
        0_u64,
        512 - 20,
        1024 - 20,
        (1 << 18) - 20,
        (1 << 18) + 512 - 20,
        (2 << 18) - 10,
        (1 << 27) - 20,
        (1 << 36) - 40,
    ]);
    (bases, near).prop_map(|(base, near)| base + near)
}

fn pages() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 1_u64..20,
        3 => 400_u64..1100,
        1 => Just(512_u64),
        1 => Just(1 << 18),
        1 => (1_u64 << 18)..(3 << 18),
    ]
}

/// Whole tables and whole gigabytes, with outputs that suit.
fn large() -> impl Strategy<Value = (u64, u64, u64)> {
    let unit = prop::sample::select(vec![512_u64, 1 << 18]);
    (unit, 0_u64..6, 1_u64..4, 0_u64..9)
        .prop_map(|(unit, at, count, output)| (at * unit, count * unit, output * unit))
}

/// Few, so that areas of one table share them.
fn tag() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 0_u16..3, 1 => Just(4095_u16)]
}

fn operation() -> impl Strategy<Value = Operation> {
    let insert = (page(), pages(), 0_u64..1 << 30, 0_u8..4, tag()).prop_map(
        |(page, pages, output_page, permission, tag)| Operation::Insert {
            page,
            pages,
            output_page,
            permission,
            tag,
        },
    );
    let insert_large = (large(), 1_u8..4).prop_map(|((page, pages, output_page), permission)| {
        Operation::Insert { page, pages, output_page, permission, tag: 7 }
    });
    let address = || {
        (page(), prop_oneof![3 => Just(0_u64), 1 => 1..PAGE])
            .prop_map(|(page, offset)| page * PAGE + offset)
    };
    let length = || {
        (pages(), prop_oneof![3 => Just(0_u64), 1 => 1..PAGE])
            .prop_map(|(pages, less)| pages * PAGE - less)
    };
    prop_oneof![
        8 => insert,
        3 => insert_large,
        6 => (address(), length()).prop_map(|(start, length)| Operation::Remove { start, length }),
        3 => large().prop_map(|(page, pages, _)| Operation::Remove { start: page * PAGE, length: pages * PAGE }),
        1 => Just(Operation::RemoveAll),
        2 => (address(), 0_u8..4).prop_map(|(at, permission)| Operation::SetPermission { at, permission }),
        2 => (address(), tag()).prop_map(|(at, tag)| Operation::SetTag { at, tag }),
        2 => (address(), length()).prop_map(|(at, length)| Operation::FirstMapped { at, length }),
        6 => (address(), 0_u8..4).prop_map(|(at, permission)| Operation::Translate { at, permission }),
        3 => (address(), length()).prop_map(|(at, length)| Operation::Pieces { at, length }),
        2 => address().prop_map(|from| Operation::NextArea { from }),
        6 => (address(), length(), 0_u32..22, 0..PAGE, address()).prop_map(
            |(start, length, alignment_lg2, offset, last)| Operation::FirstFit {
                start, length, alignment_lg2, offset, last
            }
        ),
    ]
}

fn permission(number: u8) -> Permission {
    [Permission::NONE, Permission::READ, Permission::WRITE, Permission::READ_WRITE]
        [usize::from(number % 4)]
}

struct Pair {
    table: Arc<PageTable>,
    mapper: Mapper,
    model: Model,
}

impl Pair {
    fn new(shape: Shape) -> Self {
        let (table, mapper) = PageTable::new(shape).unwrap();
        Self { table, mapper, model: Model::default() }
    }

    fn apply(&mut self, operation: &Operation) {
        let before = self.tags();
        match *operation {
            Operation::Insert { page, pages, output_page, permission: number, tag } => {
                let target =
                    Target { output: output_page * PAGE, permission: permission(number), tag };
                self.insert(Span::new(page * PAGE, pages * PAGE).unwrap(), target);
            }
            Operation::Remove { start, length } => self.remove(Span::new(start, length).unwrap()),
            Operation::RemoveAll => self.remove_all(),
            Operation::SetPermission { at, permission: number } => self.set(at, permission(number)),
            Operation::SetTag { at, tag } => self.set_tag(at, tag),
            Operation::FirstMapped { at, length } => {
                self.first_mapped(Span::new(at, length).unwrap());
            }
            Operation::Translate { at, permission: number } => {
                self.translate(at, permission(number));
            }
            Operation::Pieces { at, length } => self.pieces(Span::new(at, length).unwrap()),
            Operation::NextArea { from } => self.next_area(from),
            Operation::FirstFit { start, length, alignment_lg2, offset, last } => {
                let ends = (start.min(last), start.max(last));
                let within = Span::from_ends(ends.0, ends.1).unwrap();
                let alignment = 1 << alignment_lg2;
                self.first_fit(within, length, alignment, offset & !(alignment - 1));
            }
        }
        self.compare_totals();
        self.compare_emptied(&before);
    }

    fn insert(&mut self, span: Span, target: Target) {
        let inside = self.table.aperture().contains_span(span);
        let expected = inside && self.model.insert(span, target);
        match self.mapper.insert(span, target) {
            Ok(()) => assert!(expected, "{span} was inserted"),
            Err(InsertError::OutsideAperture(_)) => assert!(!inside),
            Err(InsertError::Overlap { iova, .. }) => {
                assert!(inside && !expected);
                let (met, _) = self.model.areas.overlapping(span).next().unwrap();
                assert_eq!(iova, met.start().max(span.start()));
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn remove(&mut self, span: Span) {
        let (areas, bytes, whole) = self.model.remove(span);
        let (removed, was_whole) = match self.mapper.remove(span) {
            Ok(removed) => (removed, true),
            Err(partly) => (partly.removed, false),
        };
        assert_eq!((removed.areas, removed.bytes, was_whole), (areas, bytes, whole), "{span}");
        if areas % 3 == 0 {
            self.mapper.wait_for_readers();
        }
    }

    fn remove_all(&mut self) {
        let removed = self.mapper.remove_all();
        let bytes: u64 = self.model.areas.iter().map(|(span, _)| span.length()).sum();
        assert_eq!((removed.areas, removed.bytes), (self.model.areas.len() as u64, bytes));
        self.model = Model::default();
    }

    fn set(&mut self, at: u64, permission: Permission) {
        let Some((span, target)) = self.model.areas.get_mut(at) else {
            assert_eq!(self.mapper.area_at(at), None);
            return;
        };
        target.permission = permission;
        assert!(self.mapper.set_permission(span, permission));
        if let Some(longer) = Span::new(span.start(), span.length() + PAGE) {
            assert!(!self.mapper.set_permission(longer, permission));
        }
    }

    fn set_tag(&mut self, at: u64, tag: u16) {
        let Some((span, target)) = self.model.areas.get_mut(at) else {
            assert!(!self.mapper.set_tag(Span::new(at, PAGE).unwrap(), tag));
            return;
        };
        target.tag = tag;
        assert!(self.mapper.set_tag(span, tag));
        assert!(!self.mapper.set_tag(span, 4096));
    }

    fn first_mapped(&self, span: Span) {
        let next = self.model.areas.overlapping(span).next();
        let expected = next.map(|(met, _)| met.start().max(span.start()));
        assert_eq!(self.mapper.first_mapped(span), expected);
    }

    fn translate(&self, at: u64, access: Permission) {
        let mut reader = self.table.reader();
        let found = reader.walk().translate(at, access);
        let expected = self.model.translate(at, access);
        assert_eq!(found.map(|piece| (piece.output, piece.tag)).map_err(|f| f.reason), expected);
        if let Ok(piece) = found {
            let last = piece.iova + piece.length - 1;
            let (span, _) = self.model.areas.get(at).unwrap();
            assert!(span.contains(last) && (last + 1) % PAGE == 0);
        }
    }

    fn pieces(&self, span: Span) {
        let mut reader = self.table.reader();
        let mut at = span.start();
        let walk = reader.walk();
        let outcome = walk.for_each_piece(span, Permission::READ, |piece| {
            assert_eq!(piece.iova, at);
            let expected = self.model.translate(at, Permission::READ).unwrap();
            assert_eq!((piece.output, piece.tag), expected);
            let last = at + piece.length - 1;
            let end = self.model.translate(last, Permission::READ).unwrap();
            assert_eq!(end.0, piece.output + piece.length - 1);
            at = last.wrapping_add(1);
        });
        match outcome {
            Ok(()) => assert_eq!(at.wrapping_sub(1), span.last()),
            Err(fault) => {
                assert_eq!(fault.iova, at);
                assert_eq!(self.model.translate(at, Permission::READ), Err(fault.reason));
            }
        }
    }

    fn next_area(&self, from: u64) {
        let rest = Span::from_ends(from, u64::MAX).unwrap();
        let next = self.model.areas.overlapping(rest).next();
        let expected = next.map(|(span, target)| Area { span, target: *target });
        assert_eq!(self.mapper.next_area(from), expected);
    }

    fn first_fit(&mut self, within: Span, length: u64, alignment: u64, offset: u64) {
        let Some(fit) = Fit::new(length, alignment, offset) else { return };
        let reachable = within.intersection(self.table.aperture());
        let expected =
            reachable.and_then(|within| self.model.first_fit(within, length, alignment, offset));
        let found = self.mapper.first_fit(within, fit);
        assert_eq!(found, expected, "{length:#x} at {alignment:#x} | {offset:#x} in {within}");
    }

    fn compare_totals(&self) {
        assert_eq!(self.mapper.areas(), self.model.areas.len() as u64);
        let bytes: u64 = self.model.areas.iter().map(|(span, _)| span.length()).sum();
        assert_eq!(self.mapper.mapped_bytes(), bytes);
        for tag in [0, 1, 2, 7, 4095] {
            let tagged = self.model.areas.iter().filter(|(_, target)| target.tag == tag);
            let (mut areas, mut pages) = (0, 0);
            for (span, _) in tagged {
                areas += 1;
                pages += span.length() / PAGE;
            }
            assert_eq!(self.mapper.tag_use(tag), TagUse { areas, pages }, "{tag}");
        }
    }

    /// Calls that drain: a tag without areas was told of.
    fn compare_emptied(&mut self, before: &[u16]) {
        let mut told = Vec::new();
        self.mapper.for_each_emptied_tag(|tag| told.push(tag));
        for tag in before.iter().filter(|tag| self.mapper.tag_use(**tag).areas == 0) {
            assert!(told.contains(tag), "nobody told that {tag} has no areas");
        }
    }

    fn tags(&self) -> Vec<u16> {
        self.model.areas.iter().map(|(_, target)| target.tag).collect()
    }
}

/// How many runs of some 60 operations each; `CASES` says otherwise.
fn cases() -> u32 {
    std::env::var("CASES").map_or(300, |text| text.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model(operations in prop::collection::vec(operation(), 1..120)) {
        let mut pair = Pair::new(Shape { tables_max: 1 << 14, ..Shape::default() });
        operations.iter().for_each(|operation| pair.apply(operation));
    }

    #[test]
    fn behaves_as_the_model_with_small_leaves(operations in prop::collection::vec(operation(), 1..40)) {
        let largest_leaf = LeafSize::Large;
        let mut pair = Pair::new(Shape { largest_leaf, ..Shape::default() });
        operations.iter().for_each(|operation| pair.apply(operation));
    }
}

#[test]
fn a_wide_table_reaches_its_last_page() {
    let mut pair = Pair::new(Shape { address_bits: 57, ..Shape::default() });
    let target = Target { output: 0x7000, permission: Permission::READ, tag: 1 };
    pair.insert(Span::new((1 << 57) - PAGE, PAGE).unwrap(), target);
    pair.insert(Span::new(1 << 57, PAGE).unwrap(), target);
    pair.translate((1 << 57) - 1, Permission::READ);
    pair.translate(1 << 57, Permission::READ);
    pair.first_fit(Span::from_ends((1 << 57) - 2 * PAGE, u64::MAX).unwrap(), PAGE, PAGE, 0);
    pair.next_area(0);
    pair.remove_all();
}

#[test]
fn an_insertion_without_tables_leaves_nothing() {
    let mut pair =
        Pair::new(Shape { tables_max: 2, largest_leaf: LeafSize::Small, ..Shape::default() });
    let target = Target { output: 0, permission: Permission::READ, tag: 0 };
    let span = Span::new(PAGE, 5 << 21).unwrap();
    assert_eq!(pair.mapper.insert(span, target), Err(InsertError::NoTables));
    pair.compare_totals();
    pair.mapper.wait_for_readers();
    let odd = Target { output: PAGE, ..target };
    pair.insert(Span::new(5 << 21, 2 << 21).unwrap(), odd);
    pair.mapper.remove(Span::new(5 << 21, 2 << 21).unwrap()).unwrap();
    pair.model.remove(Span::new(5 << 21, 2 << 21).unwrap());
    let elsewhere = Span::new(9 << 21, 2 << 21).unwrap();
    assert_eq!(pair.mapper.insert(elsewhere, odd), Err(InsertError::NoTables), "walks go on");
    pair.mapper.wait_for_readers();
    pair.insert(Span::new(9 << 21, 2 << 21).unwrap(), odd);
}

#[test]
fn a_leaf_takes_the_place_of_tables_that_became_empty() {
    let mut pair = Pair::new(Shape::default());
    let target = Target { output: 3 * PAGE, permission: Permission::READ, tag: 0 };
    let page = (5 << 30) + (3 << 20);
    for leaf in [Span::new(5 << 30, 1 << 30), Span::new((5 << 30) + (2 << 20), 2 << 20)] {
        let leaf = leaf.unwrap();
        pair.insert(Span::new(page, PAGE).unwrap(), target);
        pair.remove(Span::new(page, PAGE).unwrap());
        pair.insert(leaf, target);
        pair.translate(page, Permission::READ);
        pair.remove(leaf);
        pair.next_area(0);
        pair.insert(Span::new(page, 5 * PAGE).unwrap(), target);
        pair.translate(page, Permission::READ);
        pair.remove_all();
    }
}

#[test]
fn tables_that_became_empty_are_forgotten_with_all_others() {
    let shape = Shape { largest_leaf: LeafSize::Small, ..Shape::default() };
    let mut pair = Pair::new(shape);
    let target = Target { output: 0, permission: Permission::READ, tag: 0 };
    let pages = |table: u64, pages: u64| Span::new(table << 21, pages * PAGE).unwrap();
    pair.insert(pages(0, 70 * 512), target);
    pair.insert(pages(80, 1), target);
    pair.remove(pages(80, 1));
    pair.remove(pages(0, 100 * 512));
    // The system takes all tables back.
    pair.mapper.wait_for_readers();
    for table in 0..20 {
        pair.insert(pages(table, 1), target);
        pair.remove(pages(table, 1));
    }
    pair.insert(pages(80, 3), target);
    pair.translate((80 << 21) + PAGE, Permission::READ);
}

#[test]
fn what_is_not_whole_pages_is_refused() {
    let mut pair = Pair::new(Shape::default());
    let good = Target { output: PAGE, permission: Permission::READ, tag: 0 };
    for (start, length, target) in [
        (1, PAGE, good),
        (0, PAGE - 1, good),
        (0, PAGE, Target { output: 1, ..good }),
        (0, PAGE, Target { tag: 1 << 12, ..good }),
    ] {
        let span = Span::new(start, length).unwrap();
        assert_eq!(pair.mapper.insert(span, target), Err(InsertError::Misaligned(span)));
    }
    let span = Span::new(0, 2 * PAGE).unwrap();
    let high = Target { output: (1 << 52) - PAGE, ..good };
    assert_eq!(pair.mapper.insert(span, high), Err(InsertError::OutsideAperture(span)));
}
