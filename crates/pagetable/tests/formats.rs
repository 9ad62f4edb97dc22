//! Each format, read by a walker that knows nothing but the public layout.

use bindery_pagetable::format::{
    AmdV1, ArmLpaeStage2, Format, FormatError, Image, VtdSecondStage, X86FirstStage, write_out,
};
use bindery_pagetable::{Mapper, PageTable, Permission, Shape, Target};
use span::Span;

/// What hardware would find: output, may read, may write, binary logarithm of the page.
type Found = Option<(u64, bool, bool, u32)>;

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Goes down from the root. `step` says of a word and its level (4 at the root, 1 at the bottom) what
/// it is.
fn walk(image: &Image, iova: u64, mut step: impl FnMut(u64, u32) -> Word) -> Found {
    let mut table = image.base();
    for level in (1..=4).rev() {
        let shift = 12 + 9 * (level - 1);
        let word = image.word(table + (iova >> shift & 0x1ff) * 8).expect("a table of the image");
        match step(word, level) {
            Word::Nothing => return None,
            Word::Table(address) => table = address,
            Word::Leaf(output, read, write) => {
                assert_eq!(output % (1 << shift), 0, "a leaf is as aligned as it is large");
                return Some((output + iova % (1 << shift), read, write, shift));
            }
        }
    }
    panic!("the lowest level leads to a table");
}

enum Word {
    Nothing,
    Table(u64),
    Leaf(u64, bool, bool),
}

const fn bit(word: u64, bit: u32) -> bool {
    word >> bit & 1 == 1
}

/// Present if R or W; bit 7 makes a leaf above the lowest level; both stages of a path must permit.
fn walk_vtd(image: &Image, iova: u64) -> Found {
    walk(image, iova, |word, level| match word & 0b11 {
        0 => Word::Nothing,
        _ if level == 1 || bit(word, 7) => Word::Leaf(word & ADDRESS, bit(word, 0), bit(word, 1)),
        permissions => {
            assert_eq!(permissions, 0b11);
            Word::Table(word & ADDRESS)
        }
    })
}

/// P, R/W, U/S; bit 7 makes a leaf above the lowest level, where it would be PAT.
fn walk_x86(image: &Image, iova: u64) -> Found {
    walk(image, iova, |word, level| {
        if !bit(word, 0) {
            return Word::Nothing;
        }
        assert!(bit(word, 2), "DMA has no privilege");
        if level == 1 || bit(word, 7) && level < 4 {
            assert!(bit(word, 63), "nothing is executed");
            assert!(level > 1 || !bit(word, 7), "PAT");
            return Word::Leaf(word & ADDRESS, true, bit(word, 1));
        }
        assert!(bit(word, 1));
        Word::Table(word & ADDRESS)
    })
}

/// PR in bit 0, the next level in bits 9 to 11, IR and IW in bits 61 and 62.
fn walk_amd(image: &Image, iova: u64) -> Found {
    walk(image, iova, |word, level| {
        if !bit(word, 0) {
            return Word::Nothing;
        }
        let next = word >> 9 & 0b111;
        if next == 0 {
            return Word::Leaf(word & ADDRESS, bit(word, 61), bit(word, 62));
        }
        assert_eq!(next, u64::from(level - 1), "no level is skipped");
        assert!(bit(word, 61) && bit(word, 62));
        Word::Table(word & ADDRESS)
    })
}

/// 0b01 a block above the lowest level, 0b11 a table there and a page in it; S2AP in bits 6 and 7.
fn walk_arm(image: &Image, iova: u64) -> Found {
    walk(image, iova, |word, level| {
        let address = word & 0x0000_ffff_ffff_f000;
        match (word & 0b11, level) {
            (0b01, 2 | 3) | (0b11, 1) => {
                assert!(bit(word, 10), "without the access flag a use faults");
                assert_eq!((word >> 2 & 0b1111, word >> 8 & 0b11), (0b1111, 0b11));
                Word::Leaf(address, bit(word, 6), bit(word, 7))
            }
            (0b11, _) => Word::Table(address),
            (0b01, _) => panic!("a block at level {level}"),
            _ => Word::Nothing,
        }
    })
}

const SIZES_LG2: [u32; 3] = [12, 21, 30];
const PERMISSIONS: [Permission; 3] = [Permission::READ, Permission::WRITE, Permission::READ_WRITE];

fn table() -> Mapper {
    PageTable::new(Shape::default()).unwrap().1
}

/// One leaf of each size and permission, at the two ends of the address space and between.
fn check<F: Format>(walk: impl Fn(&Image, u64) -> Found, reads_what_it_writes: bool) {
    for size_lg2 in SIZES_LG2 {
        for permission in PERMISSIONS {
            for iova in [0, 5 << 30, (1 << 39) + (3 << size_lg2), (1 << 48) - (1 << size_lg2)] {
                let output = ((1 << F::OUTPUT_BITS) - (7 << 30)) | (3 << size_lg2);
                let mut mapper = table();
                let span = Span::new(iova, 1 << size_lg2).unwrap();
                mapper.insert(span, Target { output, permission, tag: 5 }).unwrap();
                let image = write_out::<F>(&mapper, 0x1234_5000).unwrap();
                let read = permission.allows(Permission::READ) || reads_what_it_writes;
                let write = permission.allows(Permission::WRITE);
                for offset in [0, 0xabc, (1 << size_lg2) - 1] {
                    let expected = Some((output + offset, read, write, size_lg2));
                    assert_eq!(
                        walk(&image, iova + offset),
                        expected,
                        "{permission:?} at {iova:#x}"
                    );
                }
                if let Some(before) = iova.checked_sub(1) {
                    assert_eq!(walk(&image, before), None);
                }
                if span.last() + 1 < 1 << 48 {
                    assert_eq!(walk(&image, span.last() + 1), None);
                }
                assert_eq!(
                    image.tables(),
                    if size_lg2 == 12 {
                        4
                    } else if size_lg2 == 21 {
                        3
                    } else {
                        2
                    }
                );
            }
        }
    }
}

/// Many areas of many sizes: every boundary translates as the table does.
fn check_many<F: Format>(walk: impl Fn(&Image, u64) -> Found) {
    let mut mapper = table();
    let mut iova = 0x1000;
    for turn in 1..200_u64 {
        let length = (turn * 0x5_3000) % 0x90_0000 + 0x1000;
        let congruent = if turn % 3 == 0 { iova & 0x1f_f000 } else { 0 };
        let output = ((turn * 0x1234_5000) % (1 << 40)) | congruent;
        let permission = [Permission::READ_WRITE, Permission::READ, Permission::NONE]
            [(turn % 5).min(2) as usize];
        mapper
            .insert(
                Span::new(iova, length).unwrap(),
                Target { output: output & !0xfff, permission, tag: 0 },
            )
            .unwrap();
        iova += length + (turn % 4) * 0x1000;
    }
    let image = write_out::<F>(&mapper, 0).unwrap();
    let mut reader = mapper.table().reader();
    let translations = reader.walk();
    for at in (0..iova + 0x2000).step_by(0x1000) {
        let expected = translations.translate(at, Permission::NONE).ok();
        let found = walk(&image, at);
        assert_eq!(found.map(|found| found.0), expected.map(|piece| piece.output), "{at:#x}");
        if let (Some(found), Some(piece)) = (found, expected) {
            assert_eq!(
                (found.1, found.2),
                (
                    piece.permission.allows(Permission::READ),
                    piece.permission.allows(Permission::WRITE)
                )
            );
        }
    }
}

#[test]
fn vtd_second_stage() {
    check::<VtdSecondStage>(walk_vtd, false);
    check_many::<VtdSecondStage>(walk_vtd);
}

#[test]
fn x86_first_stage() {
    check::<X86FirstStage>(walk_x86, true);
    check_many::<X86FirstStage>(walk_x86);
}

#[test]
fn amd_v1() {
    check::<AmdV1>(walk_amd, false);
    check_many::<AmdV1>(walk_amd);
}

#[test]
fn arm_lpae_stage_2() {
    check::<ArmLpaeStage2>(walk_arm, false);
    check_many::<ArmLpaeStage2>(walk_arm);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut mapper = table();
    let target = Target { output: 1 << 48, permission: Permission::READ, tag: 0 };
    mapper.insert(Span::new(0, 0x1000).unwrap(), target).unwrap();
    assert_eq!(write_out::<ArmLpaeStage2>(&mapper, 0), Err(FormatError::Output(1 << 48)));
    assert!(write_out::<AmdV1>(&mapper, 0).is_ok());
    let (_, mut wide) = PageTable::new(Shape { address_bits: 57, ..Shape::default() }).unwrap();
    wide.insert(Span::new(1 << 48, 0x1000).unwrap(), target).unwrap();
    assert_eq!(write_out::<AmdV1>(&wide, 0), Err(FormatError::Address(1 << 48)));
}
