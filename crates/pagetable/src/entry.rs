//! The word that says where a page is: what its bits mean.
//!
//! | bits | meaning |
//! |---|---|
//! | 0 | leaf: an area is here |
//! | 1 | table: the next level down is in use |
//! | 2, 3 | the device may read, may write |
//! | 4 | the leaf's first byte is the first of its area |
//! | 5 | the leaf's last byte is the last of its area |
//! | 12-51 | leaf: the output address; table: its index, or how many entries below are in use |
//! | 52-63 | leaf: the area's tag |
//!
//! A word of zero is nothing at all. Bits 4 and 5 are all the record of areas there is.

use std::fmt;

use crate::PAGE_LG2;

/// What a device may do to an area.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Permission(u64);

impl Permission {
    /// Nothing: the area keeps its addresses, and translation misses it.
    pub const NONE: Self = Self(0);
    /// Read.
    pub const READ: Self = Self(READ);
    /// Write.
    pub const WRITE: Self = Self(WRITE);
    /// Both.
    pub const READ_WRITE: Self = Self(READ | WRITE);

    /// Whether all that `needed` allows is allowed here.
    pub const fn allows(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }
}

/// As `rw`, `r-`, `-w`, `--`.
impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = if self.allows(Self::READ) { 'r' } else { '-' };
        let write = if self.allows(Self::WRITE) { 'w' } else { '-' };
        write!(f, "{read}{write}")
    }
}

/// Where an area leads, the same for all of its pages but for the distance from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where the area's first byte is; a multiple of 4 KiB. What kind of address it is, is up to
    /// the caller. The area's last byte must lie below 2^52.
    pub output: u64,
    /// What a device may do.
    pub permission: Permission,
    /// The caller's own: less than 2^12.
    pub tag: u16,
}

/// A word of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(u64);

impl Entry {
    pub(crate) const NOTHING: Self = Self(0);

    /// The leaf of an area's first page, without the bits that say where the area ends.
    pub(crate) const fn leaf(target: Target) -> Self {
        let tag = (target.tag as u64) << TAG_SHIFT;
        Self(LEAF | target.permission.0 | target.output | tag)
    }

    /// Names the table at `index`.
    pub(crate) const fn table(index: u32) -> Self {
        Self(TABLE | (index as u64) << PAYLOAD_SHIFT)
    }

    /// Says that `count` entries of the table whose place is known are in use.
    pub(crate) const fn in_use_below(count: u64) -> Self {
        if count == 0 { Self::NOTHING } else { Self(TABLE | count << PAYLOAD_SHIFT) }
    }

    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    pub(crate) const fn is_nothing(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn is_leaf(self) -> bool {
        self.0 & LEAF != 0
    }

    pub(crate) const fn is_table(self) -> bool {
        self.0 & TABLE != 0
    }

    pub(crate) const fn is_first(self) -> bool {
        self.0 & FIRST != 0
    }

    pub(crate) const fn is_last(self) -> bool {
        self.0 & LAST != 0
    }

    /// Whether a device may do `access` here. False for what is no leaf.
    pub(crate) const fn permits(self, access: Permission) -> bool {
        self.0 & (READ | WRITE) != 0 && self.0 & access.0 == access.0
    }

    pub(crate) const fn permission(self) -> Permission {
        Permission(self.0 & (READ | WRITE))
    }

    pub(crate) const fn output(self) -> u64 {
        self.0 & PAYLOAD
    }

    pub(crate) const fn tag(self) -> u16 {
        (self.0 >> TAG_SHIFT) as u16
    }

    /// The table's index.
    #[expect(clippy::cast_possible_truncation, reason = "written from a u32")]
    pub(crate) const fn index(self) -> u32 {
        ((self.0 & PAYLOAD) >> PAYLOAD_SHIFT) as u32
    }

    /// How many entries below are in use.
    pub(crate) const fn below(self) -> u64 {
        (self.0 & PAYLOAD) >> PAYLOAD_SHIFT
    }

    /// This leaf, `pages` further into its area.
    pub(crate) const fn further(self, pages: u64) -> Self {
        Self(self.0 + (pages << PAGE_LG2))
    }

    pub(crate) const fn starting_area(self) -> Self {
        Self(self.0 | FIRST)
    }

    pub(crate) const fn ending_area(self) -> Self {
        Self(self.0 | LAST)
    }

    /// This leaf, neither the first nor the last of its area.
    pub(crate) const fn inside_area(self) -> Self {
        Self(self.0 & !(FIRST | LAST))
    }

    pub(crate) const fn tagged(self, tag: u16) -> Self {
        Self(self.0 & (OUTPUT_END - 1) | (tag as u64) << TAG_SHIFT)
    }

    pub(crate) const fn permitting(self, permission: Permission) -> Self {
        Self(self.0 & !(READ | WRITE) | permission.0)
    }
}

/// Output addresses and tags end here.
pub(crate) const OUTPUT_END: u64 = 1 << TAG_SHIFT;
pub(crate) const TAG_END: u16 = 1 << 12;

const LEAF: u64 = 1 << 0;
const TABLE: u64 = 1 << 1;
const READ: u64 = 1 << 2;
const WRITE: u64 = 1 << 3;
const FIRST: u64 = 1 << 4;
const LAST: u64 = 1 << 5;
const PAYLOAD_SHIFT: u32 = PAGE_LG2;
const TAG_SHIFT: u32 = 52;
const PAYLOAD: u64 = (1 << TAG_SHIFT) - (1 << PAYLOAD_SHIFT);

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target =
        Target { output: 0xf_ffff_ffff_f000, permission: Permission::READ, tag: 0xfff };

    #[test]
    fn a_leaf_keeps_what_it_was_given() {
        let leaf = Entry::leaf(TARGET);
        let found = (leaf.output(), leaf.permission(), leaf.tag());
        assert_eq!(found, (TARGET.output, TARGET.permission, TARGET.tag));
        assert!(leaf.is_leaf() && !leaf.is_table() && !leaf.is_first() && !leaf.is_last());
        assert!(leaf.starting_area().is_first() && leaf.ending_area().is_last());
        assert_eq!(leaf.permitting(Permission::NONE).permitting(Permission::READ), leaf);
    }

    #[test]
    fn what_permits_nothing_permits_no_access() {
        let leaf = Entry::leaf(Target { permission: Permission::NONE, ..TARGET });
        assert!(!leaf.permits(Permission::READ) && !leaf.permits(Permission::NONE));
        assert!(Entry::leaf(TARGET).permits(Permission::READ));
        assert!(!Entry::leaf(TARGET).permits(Permission::READ_WRITE));
        assert!(!Entry::NOTHING.permits(Permission::NONE));
    }

    #[test]
    fn any_index_fits() {
        assert_eq!(Entry::table(u32::MAX).index(), u32::MAX);
        assert!(Entry::table(0).is_table());
        assert!(Entry::in_use_below(0).is_nothing());
        assert_eq!(Entry::in_use_below(512).below(), 512);
    }
}
